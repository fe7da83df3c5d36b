"""What a network reads of conditions, by the way they enter it.

`given` is a mapping with any of these entries, for B rows:

    label        int32 B: a class; the number of classes means none. The table of embeddings is the network's.
    vector       float B V: joined with `numbers`, projected, and added to the embedded time.
    numbers      float32 B N, on the scale of 0 .. 1000 as times are: sizes, rates, a time of day.
    tokens       float B L E: attended to. `tokens_mask` B L is nonzero on tokens and zero on padding; all are tokens
                 without it.
    ids          int32 B L: ids of tokens for a text encoder that is learned with the network, with `ids_mask` B L.
    image        float B H W I: joined to the channels of the input.
    residuals    a sequence of B H W C: added to the skips and to the middle of a U-Net; by networks that control it.

None and {} tell nothing. Tokens carry their own positions: the network adds none. Padding changes nothing. A row
without tokens, whose L are all padding, attends to zeros. On a mesh that splits the sequence, L must be a multiple of
its parts for `ids`, and L plus the number of patches for tokens in context.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from genjax import checks, reduction, sharding
from genjax.nn.blocks import Block, BlockOptions
from genjax.nn.embeddings import Embed, timestep_embedding
from genjax.nn.linear import Linear
from genjax.types import Array, Key, UserError

Given = Mapping[str, Any]
Memory = tuple[Array, Array | None]  # tokens B L E, and where they are visible B L; None for everywhere

_NORMAL = nnx.initializers.normal(0.02)
_XAVIER = nnx.initializers.xavier_uniform()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reads:
  """What a network reads of conditions, see `genjax.nn.conditioning`.

  Attributes:
    num_classes: number of classes; 0 without labels.
    vector_width: channels of a vector that is added to the embedded time; 0 without.
    numbers: how many numbers are added to the embedded time, each as Fourier features (Podell et al. 2023, section
      2.2); 0 without.
    number_features: Fourier features of each number.
    token_width: channels of the tokens that the network is given; 0 without.
    image_channels: channels of an image that is joined to the input; 0 without.
    vocabulary: ids of a text encoder that is learned with the network; 0 without.
    text_length: most tokens of a text, of this encoder.
    text_width: its channels.
    text_depth: its number of blocks.
    text_heads: its number of attention heads.

  Raises:
    UserError: a number is out of range, or tokens of two widths.
  """

  num_classes: int = 0
  vector_width: int = 0
  numbers: int = 0
  number_features: int = 256
  token_width: int = 0
  image_channels: int = 0
  vocabulary: int = 0
  text_length: int = 64
  text_width: int = 256
  text_depth: int = 2
  text_heads: int = 4

  def __post_init__(self):
    checks.whole(self, 0, 'num_classes', 'vector_width', 'numbers', 'token_width', 'image_channels', 'vocabulary')
    checks.whole(self, 1, 'text_length', 'text_width', 'text_depth', 'text_heads')
    checks.whole(self, 2, 'number_features')
    checks.heads(self, 'text_width', 'text_heads')
    if self.number_features % 2:
      raise checks.OutOfRange(f'number_features must be even, got {self.number_features}')
    if self.vocabulary and self.token_width not in (0, self.text_width):
      raise checks.OutOfRange(f'text_width must be token_width ({self.token_width}), since the tokens of both are '
                              f'joined, got {self.text_width}')

  @property
  def memory_width(self) -> int:
    """Channels of all tokens, those that are given and those of the learned text encoder; 0 without tokens."""
    return self.token_width or (self.text_width if self.vocabulary else 0)

  def check(self, given: Given | None, shape: Sequence[int], also: Sequence[str] = ()) -> Given:
    """Checks that a network reads what it is told, and is told what it reads.

    Args:
      given: what it is told.
      shape: (B, H, W) of its input.
      also: further entries that it reads if there are any.

    Returns:
      `given`, {} for None.

    Raises:
      UserError: an entry that it doesn't read, one that it lacks, or one of another shape.
    """
    given = {} if given is None else given
    if not isinstance(given, Mapping):
      raise UserError(f'conditions are a mapping such as dict(label=...), got {type(given).__name__}')
    batch = shape[0]
    shapes: dict[str, tuple[Any, ...]] = {
      'label': (batch,) if self.num_classes else (), 'vector': (batch, self.vector_width) if self.vector_width else (),
      'numbers': (batch, self.numbers) if self.numbers else (),
      'tokens': (batch, 'L', self.token_width) if self.token_width else (),
      'ids': (batch, 'L') if self.vocabulary else (),
      'image': (*shape, self.image_channels) if self.image_channels else ()}
    needs = {name: wanted for name, wanted in shapes.items() if wanted}
    masks = {f'{name}_mask' for name in ('tokens', 'ids') if name in needs}
    unread, lacking = sorted(set(given) - set(needs) - masks - set(also)), sorted(set(needs) - set(given))
    if unread or lacking:
      problem = f'is told {unread}, which it does not read' if unread else f'is not told {lacking}'
      raise UserError(f'the network {problem}: it reads {sorted(needs) or "no conditions"}; the options of the model, '
                      'such as num_classes or token_width, say what it reads')
    for name, wanted in needs.items():
      found = tuple(given[name].shape)
      if len(found) != len(wanted) or any(size not in ('L', got) for size, got in zip(wanted, found)):
        raise UserError(f'the network reads {name!r} of shape {wanted}, got {found}')
    for name in masks & set(given):
      if (got := tuple(given[name].shape)) != (of := tuple(given[name.removesuffix('_mask')].shape[:2])):
        raise UserError(f'{name!r} must have the shape {of} of what it masks, got {got}')
    if self.vocabulary and given['ids'].shape[1] > self.text_length:
      raise UserError(f'the text encoder of the network reads up to text_length={self.text_length} tokens, got '
                      f'{given["ids"].shape[1]}')
    return given


class Added(nnx.Module):
  """A vector and Fourier features of numbers, joined and projected by an MLP with SiLU, as in SDXL's U-Net.

  Args:
    options: what the network reads.
    width: channels of the embedded time, and hidden units.
    kernel_init: initializer of both kernels.
    dtype: compute type.
  """

  def __init__(self, options: Reads, width: int, *, kernel_init=_NORMAL, dtype=jnp.float32, rngs: nnx.Rngs):
    self.options = options
    inputs = options.vector_width + options.numbers * options.number_features
    self.up = Linear(inputs, width, kernel_init=kernel_init, dtype=dtype, rngs=rngs)
    self.down = Linear(width, width, kernel_init=kernel_init, dtype=dtype, rngs=rngs)

  def __call__(self, given: Given, key: Key | None = None) -> Array:
    parts = [given['vector'].astype(jnp.float32)] if self.options.vector_width else []
    if self.options.numbers:
      batch, features = given['numbers'].shape[0], self.options.number_features
      parts.append(timestep_embedding(given['numbers'].reshape(-1), features).reshape(batch, -1))
    return self.down(jax.nn.silu(self.up(jnp.concatenate(parts, axis=-1))))


def added(options: Reads, width: int, **keywords: Any) -> Added | None:
  """The module for vectors and numbers; None for a network that reads none."""
  return Added(options, width, **keywords) if options.vector_width or options.numbers else None


class TextEncoder(nnx.Module):
  """Embedded ids with learned positions, pre-norm blocks of self-attention, and a layer norm.

  Args:
    options: what the network reads.
    dtype: name of the compute type.
    attention: implementation of attention.
  """

  def __init__(self, options: Reads, *, dtype: str = 'float32', attention: str = 'auto', rngs: nnx.Rngs):
    width = options.text_width
    block = BlockOptions(width=width, heads=options.text_heads, mlp_width=4 * width, pre_norm=True, dtype=dtype,
                         attention=attention)
    self.table = Embed(options.vocabulary, width, embedding_init=_NORMAL, dtype=jnp.dtype(dtype), rngs=rngs)
    self.positions = nnx.Param(_NORMAL(rngs.params(), (options.text_length, width), jnp.float32))
    self.blocks = nnx.List([Block(block, rngs=rngs) for _ in range(options.text_depth)])
    self.norm = block.make_norm(rngs)

  def __call__(self, ids_BL: Array, visible_BL: Array | None, key: Key | None = None) -> Array:
    positions_LD = reduction.plain(self.positions.get_value())[:ids_BL.shape[1]]
    x_BLD = self.table(ids_BL)
    x_BLD = x_BLD + positions_LD.astype(x_BLD.dtype)
    for block in self.blocks:
      x_BLD = block(x_BLD, mask_BT=visible_BL)
    return self.norm(x_BLD)


class Tokens(nnx.Module):
  """All tokens that a network attends to: given ones, and those of its own text encoder.

  Args:
    options: what the network reads.
    width: channels to which an MLP projects the tokens (PixArt, Chen et al. 2023); 0 leaves them as they are.
    dtype: name of the compute type.
    attention: implementation of attention in the text encoder.
  """

  def __init__(self, options: Reads, width: int = 0, *, dtype: str = 'float32', attention: str = 'auto',
               rngs: nnx.Rngs):
    self.given, self.width = options.token_width > 0, width
    self.text = TextEncoder(options, dtype=dtype, attention=attention, rngs=rngs) if options.vocabulary else None
    if width:
      self.up = Linear(options.memory_width, width, kernel_init=_XAVIER, dtype=jnp.dtype(dtype), rngs=rngs)
      self.down = Linear(width, width, kernel_init=_XAVIER, dtype=jnp.dtype(dtype), rngs=rngs)

  def __call__(self, given: Given, key: Key | None = None) -> Memory:
    """Tokens B L E without what stands in padding, and the mask B L of tokens; None if none is padding."""
    parts, masks = [], []
    if self.given:
      parts, masks = [given['tokens']], [given.get('tokens_mask')]
    if self.text is not None:
      mask_BL = given.get('ids_mask')
      parts.append(self.text(given['ids'], None if mask_BL is None else visible(mask_BL)))
      masks.append(mask_BL)
    if all(mask is None for mask in masks):
      mask_BL = None
    else:
      mask_BL = jnp.concatenate([jnp.ones(part.shape[:2], bool) if mask is None else mask != 0
                                 for part, mask in zip(parts, masks)], axis=1)
    x_BLE = parts[0] if len(parts) == 1 else jnp.concatenate([part.astype(parts[-1].dtype) for part in parts], axis=1)
    if mask_BL is not None:
      x_BLE = jnp.where(mask_BL[..., None], x_BLE, jnp.zeros_like(x_BLE))
    if self.width:
      hidden = sharding.constrain(self.up(x_BLE), 'batch', None, 'mlp', name='hidden units B L M of tokens')
      x_BLE = self.down(jax.nn.gelu(hidden, approximate=True))
    return sharding.constrain(x_BLE, 'batch', None, None, name='tokens B L E'), mask_BL


def visible(mask_BL: Array) -> Array:
  """The mask of tokens that attention sees: all zeros of a row without any, so that its result is defined."""
  shown_BL = mask_BL != 0
  return shown_BL | ~jnp.any(shown_BL, axis=1, keepdims=True)


def controlled(maps: Sequence[Array], residuals: Sequence[Array]) -> list[Array]:
  """Maps B H W C, the skips from first to last and the middle, with residuals of the same shapes added to them."""
  shapes, wanted = [tuple(one.shape) for one in residuals], [one.shape for one in maps]
  if shapes != wanted:
    raise UserError(f'residuals are added to the {len(wanted) - 1} skips and the middle, of shapes {wanted}, got '
                    f'{shapes}')
  return [one + residual.astype(one.dtype) for one, residual in zip(maps, residuals)]


def axes(options: Reads, prefix: str, tokens: bool) -> sharding.AxesTable:
  """The table of logical axes of `Added` and `Tokens` under the path `prefix`, for what a network reads.

  Args:
    options: what it reads.
    prefix: path of the module that holds them, with '/' at its end.
    tokens: whether `Tokens` projects.
  """
  rows: list[tuple[str, tuple[str | None, ...]]] = []
  if options.vector_width or options.numbers:
    rows += [(f'{prefix}added/up/kernel', (None, 'mlp')), (f'{prefix}added/down/kernel', ('mlp', None))]
  if options.vocabulary:
    blocks = rf'{prefix}tokens/text/blocks/\d+'
    rows += [(rf'{blocks}/attention/(query|key|value)/kernel', (None, 'heads')),
             (rf'{blocks}/attention/out/kernel', ('heads', None)),
             (rf'{blocks}/up/kernel', (None, 'mlp')), (rf'{blocks}/down/kernel', ('mlp', None))]
  if options.memory_width and tokens:
    rows += [(f'{prefix}tokens/up/kernel', (None, 'mlp')), (f'{prefix}tokens/down/kernel', ('mlp', None))]
  return tuple(rows)
