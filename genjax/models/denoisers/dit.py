"""DiT, the diffusion transformer with adaptive layer norm (Peebles & Xie 2023)."""

from collections.abc import Callable
import dataclasses
import inspect
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from genjax import checks, sharding
from genjax.nn import conditioning, functional
from genjax.nn.attention.cross_attention import CrossAttention
from genjax.nn.attention.dot_product_attention import IMPLEMENTATIONS
from genjax.nn.attention.self_attention import Attention
from genjax.nn.blocks import ACTIVATIONS
from genjax.nn.conditioning import Given, Memory, Reads
from genjax.nn.embeddings import LabelEmbedding, TimestepEmbedding, patchify, sincos_positions, unpatchify
from genjax.nn.functional import Network
from genjax.nn.linear import Linear
from genjax.nn.norms import NORMS, short_name
from genjax.tables import Table
from genjax.types import Array, Key, Tree, UserError

_XAVIER = nnx.initializers.xavier_uniform()
_ZEROS = nnx.initializers.zeros_init()
ENTRANCES = ('cross', 'context')


@dataclasses.dataclass(frozen=True)
class DiT(Reads):
  """Options of the network. What it reads of conditions: see `genjax.nn.conditioning.Reads`.

  Attributes:
    shape: (H, W, C) of the images or latents. Inputs may have other sizes, as positions follow from the input.
    patch: side of a patch, in pixels.
    width: channels of the transformer.
    depth: number of blocks.
    heads: number of attention heads.
    mlp_ratio: hidden width of the MLP over the width.
    learn_sigma: twice the output channels, the second half for a learned variance.
    frequencies: number of Fourier features of the time.
    frequency_shift: see `genjax.nn.embeddings.timestep_embedding`; 0 in the paper's code, 1 in diffusers.
    attention_epsilon: small constant of the norm before attention.
    mlp_epsilon: of the norm before the MLP; diffusers publishes DiT with 1e-5.
    span: along each axis, positions of the patches lie evenly in 0 .. span, whatever the size of the input; 0 counts
      the patches.
    dtype: compute type, 'float32' or 'bfloat16'; parameters are float32.
    residual_dtype: type of the sum that runs through all blocks: '' for the compute type, or 'float32', with which
      modulation and gates are float32 too.
    attention: implementation: 'auto', 'reference', 'chunked', 'splash' or 'cudnn', see
      `genjax.nn.attention.dot_product_attention.attend`.
    remat: what the backward pass keeps of a block: 'none' everything, 'dots' matrix products, 'full' its inputs only,
      'offload' its inputs in the memory of the host.
    unroll: lay the blocks out one after the other, with equal results: faster steps on CPUs, longer compilation.
    norm: one of `genjax.nn.norms.NORMS`, without scale and bias, which the condition gives.
    activation: activation of the MLP, one of `genjax.nn.blocks.ACTIVATIONS`.
    block: class of the blocks, one of `BLOCKS`.
    tokens_enter: how tokens enter: 'cross' by cross-attention after self-attention in each block, 'context' as tokens
      beside the patches (Peebles & Xie 2023, section 3.2).
    project: whether an MLP brings the tokens to the width of the transformer. Without it, cross-attention reads them
      as they are.
    pool: whether the mean of the tokens, after an MLP, is added to the embedded time. A condition that all blocks read
      by their norms is learned sooner than attention (compare the pooled vectors of Esser et al. 2024, figure 2).

  Raises:
    UserError: sizes that do not divide, an unknown attention, norm, activation or block, another residual type, or
      what `Reads` refuses.
  """

  shape: tuple[int, int, int]
  patch: int = 2
  width: int = 384
  depth: int = 12
  heads: int = 6
  mlp_ratio: float = 4.0
  learn_sigma: bool = False
  frequencies: int = 256
  frequency_shift: int = 0
  attention_epsilon: float = 1e-6
  mlp_epsilon: float = 1e-6
  span: float = 0.0
  dtype: str = 'float32'
  residual_dtype: str = ''
  attention: str = 'auto'
  remat: str = 'none'
  unroll: bool = False
  norm: str = 'layer'
  activation: str = 'gelu_tanh'
  block: str = 'adaln_zero'
  tokens_enter: str = 'cross'
  project: bool = True
  pool: bool = False

  def __post_init__(self):
    super().__post_init__()
    object.__setattr__(self, 'norm', short_name(self.norm))
    checks.whole(self, 1, 'shape', 'patch', 'width', 'depth', 'heads')
    checks.whole(self, 2, 'frequencies')
    checks.positive(self, 'mlp_ratio', 'attention_epsilon', 'mlp_epsilon')
    checks.between(self, ('span',), at_least=0)
    checks.between(self, ('frequency_shift',), at_least=0, at_most=1)
    checks.dtype(self)
    if self.frequencies % 2 or self.width * self.mlp_ratio < 1:
      raise checks.OutOfRange(
        f'frequencies must be even, and mlp_ratio leave at least one hidden unit, got {self.frequencies} and '
        f'{self.mlp_ratio}')
    if self.shape[0] % self.patch or self.shape[1] % self.patch:
      raise checks.OutOfRange(f'patch must divide the image size {self.shape[:2]}, got {self.patch}')
    if self.width % self.heads or self.width % 4:
      raise checks.OutOfRange(f'width must be a multiple of 4 and of heads ({self.heads}), got {self.width}')
    for name, known in (('attention', IMPLEMENTATIONS), ('norm', tuple(NORMS)), ('activation', tuple(ACTIVATIONS)),
                        ('block', tuple(BLOCKS)), ('tokens_enter', ENTRANCES)):
      if getattr(self, name) not in known:
        raise checks.OutOfRange(f'{name} must be one of {known}, got {getattr(self, name)!r}')
    if not self.project and self.tokens_enter == 'context':
      raise checks.OutOfRange("project must be True where tokens enter beside the patches (tokens_enter='context'), "
                              'which have the width of the transformer')
    if self.pool and not self.memory_width:
      raise checks.OutOfRange('pool is the mean of tokens, and the network reads none; give it a text, or leave pool '
                              'out')
    if self.residual_dtype not in ('', 'float32'):
      raise checks.OutOfRange("residual_dtype must be '', for the compute type dtype, or 'float32', got "
                              f'{self.residual_dtype!r}')


# depth, width and heads: Peebles & Xie 2023, table 1
SIZES = {
    'S': dict(width=384, depth=12, heads=6),
    'B': dict(width=768, depth=12, heads=12),
    'L': dict(width=1024, depth=24, heads=16),
    'XL': dict(width=1152, depth=28, heads=16),
}


def network(config: DiT, block: Callable[..., nnx.Module] | None = None,
            embed: Callable[..., nnx.Module] | None = None, head: Callable[..., nnx.Module] | None = None) -> Network:
  """The network (x_BHWC, time_B, given) -> prediction of shape B H W C (2 C with `learn_sigma`).

  time_B is on the scale of 0 .. 1000. `given` is what it reads of conditions, see `genjax.nn.conditioning`. The last
  layer and all gates start at zero, so that a fresh network predicts 0.

  Args:
    config: the options.
    block: class of the blocks, by default the one that config.block names in `BLOCKS`. It is made by
      block(config, rngs) and called with x_BTD, condition_BD and key=None; `Block` is one. Where tokens enter, it's
      called with `memory` (by cross-attention) or `mask_BT` (as context) too.
    embed: class of what comes before the blocks, by default `Embed`. The condition that it gives may be a tree of
      arrays with the batch as first axis.
    head: class of what comes after them, by default `Head`.

  Raises:
    UserError: a block that takes no tokens, for a network that reads them.
  """
  make = BLOCKS[config.block] if block is None else block
  _check_block(config, make)
  channels = config.shape[2]
  enter = functional.network(lambda rngs: (embed or Embed)(config, rngs))
  blocks = functional.stack(functional.network(lambda rngs: make(config, rngs)), config.depth, remat=config.remat,
                            unroll=config.unroll)
  leave = functional.network(lambda rngs: (head or Head)(config, channels * (2 if config.learn_sigma else 1), rngs))
  parts = {'embed': enter, 'blocks': blocks, 'head': leave}

  def init(key: Key) -> tuple[Tree, Tree]:
    keys = jax.random.split(key, len(parts))
    return {name: part.init(part_key)[0] for (name, part), part_key in zip(parts.items(), keys)}, {}

  def apply(params: Tree, mutable: Tree, x_BHWC: Array, time_B: Array, given: Given | None = None,
            key: Key | None = None):
    given = config.check(given, x_BHWC.shape[:3])
    (x_BTD, condition_BD, memory), _ = enter.apply(params['embed'], {}, x_BHWC, time_B, given)
    patches = x_BTD.shape[1]
    x_BTD, options = _enter(config, x_BTD, memory)
    x_BTD, condition_BD = place(x_BTD), jax.tree.map(lambda x_BD: sharding.constrain(x_BD, 'batch', None),
                                                     condition_BD)
    x_BTD, _ = blocks.apply(params['blocks'], {}, x_BTD, condition_BD, **options)
    if x_BTD.shape[1] > patches:
      x_BTD = place(x_BTD[:, :patches])
    x_BTP, _ = leave.apply(params['head'], {}, x_BTD, condition_BD)
    return unpatchify(x_BTP, config.patch, *x_BHWC.shape[1:3]), mutable

  return Network(init, apply)


def _enter(config: DiT, x_BTD: Array, memory: Memory | None) -> tuple[Array, dict[str, Any]]:
  """The sequence with the tokens that join it, and what the blocks are called with beside the condition."""
  if memory is None:
    return x_BTD, {}
  tokens_BLD, mask_BL = memory
  if config.tokens_enter == 'cross':
    return x_BTD, {'memory': (tokens_BLD, None if mask_BL is None else conditioning.visible(mask_BL))}
  joined_BTD = jnp.concatenate([x_BTD, tokens_BLD.astype(x_BTD.dtype)], axis=1)
  if mask_BL is None:
    return joined_BTD, {}
  return joined_BTD, {'mask_BT': jnp.concatenate([jnp.ones(x_BTD.shape[:2], bool), mask_BL], axis=1)}


def _check_block(config: DiT, make: Callable[..., nnx.Module]) -> None:
  """Raises a UserError for a block that takes no tokens, if the network reads them."""
  wanted = 'memory' if config.tokens_enter == 'cross' else 'mask_BT'
  call = make.__call__ if inspect.isclass(make) else None
  if config.memory_width and call and wanted not in inspect.signature(call).parameters:
    raise UserError(f'config.model.block: {getattr(make, "__name__", make)} is not called with {wanted}, by which '
                    f'tokens enter with tokens_enter={config.tokens_enter!r}; use a block that takes it, such as '
                    "'adaln_zero'")


class Embed(nnx.Module):
  """Patch embedding with fixed positions, the condition (embedded time, label, vector and numbers), and tokens."""

  def __init__(self, config: DiT, rngs: nnx.Rngs):
    channels = config.shape[2]
    self.size, dtype, self.residual = config.patch, jnp.dtype(config.dtype), _residual(config)
    self.width, self.span = config.width, config.span
    channels += config.image_channels
    self.patch = Linear(config.patch ** 2 * channels, config.width, kernel_init=_XAVIER, dtype=dtype, rngs=rngs)
    self.time = TimestepEmbedding(config.frequencies, config.width, shift=config.frequency_shift, dtype=dtype,
                                  rngs=rngs)
    self.label = LabelEmbedding(config.num_classes, config.width, dtype=dtype,
                                rngs=rngs) if config.num_classes else None
    self.added = conditioning.added(config, config.width, dtype=dtype, rngs=rngs)
    width = config.width if config.project else 0
    self.tokens = conditioning.Tokens(config, width, dtype=config.dtype, attention=config.attention,
                                      rngs=rngs) if config.memory_width else None
    pooled = width or config.memory_width
    self.pool = nnx.Dict(up=Linear(pooled, config.width, kernel_init=_XAVIER, dtype=dtype, rngs=rngs),
                         down=Linear(config.width, config.width, kernel_init=_XAVIER, dtype=dtype, rngs=rngs)
                         ) if config.pool else None

  def __call__(self, x_BHWC: Array, time_B: Array, given: Given, key: Key | None = None):
    if 'image' in given:
      x_BHWC = jnp.concatenate([x_BHWC, given['image'].astype(x_BHWC.dtype)], axis=-1)
    x_BTD = self.patch(patchify(x_BHWC, self.size)).astype(self.residual)
    grid = x_BHWC.shape[1] // self.size, x_BHWC.shape[2] // self.size
    x_BTD = x_BTD + sincos_positions(*grid, self.width, self.span).astype(x_BTD.dtype)
    condition_BD = self.time(time_B)
    if self.label is not None:
      condition_BD = condition_BD + self.label(given['label'])
    if self.added is not None:
      condition_BD = condition_BD + self.added(given)
    memory = None if self.tokens is None else self.tokens(given)
    if self.pool is not None and memory is not None:
      hidden_BD = jax.nn.silu(self.pool.up(_mean(*memory)))
      condition_BD = condition_BD + self.pool.down(hidden_BD)
    return x_BTD, condition_BD, memory


def _mean(tokens_BLE: Array, mask_BL: Array | None) -> Array:
  """The mean B E of tokens that are not padding, 0 where all are."""
  if mask_BL is None:
    return tokens_BLE.mean(axis=1)
  shown_BL1 = (mask_BL != 0)[..., None].astype(tokens_BLE.dtype)
  return (tokens_BLE * shown_BL1).sum(axis=1) / jnp.maximum(shown_BL1.sum(axis=1), 1)


class Block(nnx.Module):
  """Attention and MLP; shift, scale and gate of each come from the condition (adaLN-Zero).

  Where tokens enter by cross-attention, it stands between the two, without norm and gate, and its output projection
  starts at zero (PixArt, Chen et al. 2023, section 2.3).
  """

  def __init__(self, config: DiT, rngs: nnx.Rngs):
    width, dtype = config.width, jnp.dtype(config.dtype)
    self.residual = _residual(config)
    hidden = int(width * config.mlp_ratio)
    self.attention = Attention(width, config.heads, dtype=dtype, implementation=config.attention, rngs=rngs)
    self.mlp = nnx.Dict(up=Linear(width, hidden, kernel_init=_XAVIER, dtype=dtype, rngs=rngs),
                        down=Linear(hidden, width, kernel_init=_XAVIER, dtype=dtype, rngs=rngs))
    self.modulation = self.make_modulation(config, rngs)
    self.attention_norm, self.mlp_norm = (make_norm(config, rngs, epsilon) for epsilon in (config.attention_epsilon,
                                                                                           config.mlp_epsilon))
    self.activation = config.activation
    crosses = config.memory_width and config.tokens_enter == 'cross'
    self.cross = CrossAttention(width, config.heads, dtype=dtype, implementation=config.attention, out_init=_ZEROS,
                                memory_width=None if config.project else config.memory_width,
                                rngs=rngs) if crosses else None

  def make_modulation(self, config: DiT, rngs: nnx.Rngs) -> Any:
    """What `modulate` reads the condition with."""
    return Linear(config.width, 6 * config.width, kernel_init=_ZEROS, dtype=jnp.dtype(config.dtype), rngs=rngs)

  def __call__(self, x_BTD: Array, condition_BD: Array, key: Key | None = None, memory: Memory | None = None,
               mask_BT: Array | None = None) -> Array:
    shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulate(condition_BD)
    attended = self.attention(self.attention_norm(x_BTD) * (1 + scale_a) + shift_a, mask_BT=mask_BT)
    x_BTD = x_BTD + gate_a * attended
    if memory is not None and self.cross is not None:
      x_BTD = x_BTD + self.cross(x_BTD, self.cross.project(memory[0]), visible_BS=memory[1])
    x_BTD = x_BTD + gate_m * self.feed_forward(self.mlp_norm(x_BTD) * (1 + scale_m) + shift_m)
    return place(x_BTD)

  def modulate(self, condition_BD: Array) -> list[Array]:
    """Shift, scale and gate of the attention, then of the MLP, each B 1 D."""
    modulation = self.modulation(jax.nn.silu(condition_BD))[:, None].astype(self.residual)
    return jnp.split(modulation, 6, axis=-1)

  def feed_forward(self, h_BTD: Array) -> Array:
    """The MLP."""
    hidden = ACTIVATIONS[self.activation](self.mlp.up(h_BTD))
    hidden = sharding.constrain(hidden, 'batch', 'sequence', 'mlp', name='hidden units B T M of the MLP')
    return self.mlp.down(hidden)


# Classes of the form of `Block`, by name
BLOCKS: Table[Callable[..., nnx.Module]] = Table('DiT block', {'adaln_zero': Block}, takes=('config', 'rngs'))


class Head(nnx.Module):
  """Layer norm with shift and scale from the condition, and the projection to patches."""

  def __init__(self, config: DiT, channels: int, rngs: nnx.Rngs):
    dtype, self.residual = jnp.dtype(config.dtype), _residual(config)
    self.modulation = Linear(config.width, 2 * config.width, kernel_init=_ZEROS, dtype=dtype, rngs=rngs)
    self.out = Linear(config.width, config.patch ** 2 * channels, kernel_init=_ZEROS, dtype=dtype, rngs=rngs)
    self.norm = make_norm(config, rngs)

  def __call__(self, x_BTD: Array, condition_BD: Array, key: Key | None = None) -> Array:
    shift, scale = jnp.split(self.modulation(jax.nn.silu(condition_BD))[:, None].astype(self.residual), 2, axis=-1)
    return self.out(self.norm(x_BTD) * (1 + scale) + shift)


def make_norm(config: DiT, rngs: nnx.Rngs, epsilon: float = 1e-6) -> Any:
  """The norm of the options, without scale and bias; the result has the type of its argument."""
  return NORMS[config.norm](config.width, epsilon=epsilon, scale=False, bias=False, dtype=None, rngs=rngs)


def _residual(config: DiT) -> jnp.dtype:
  return jnp.dtype(config.residual_dtype or config.dtype)


def place(x_BTD: Array) -> Array:
  """Lays the residual stream out on the mesh, as each block does with its result."""
  return sharding.constrain(x_BTD, 'batch', 'sequence', None, name='patches B T D')


def axes(config: DiT) -> sharding.AxesTable:
  """The logical axes of the parameters of the network that the options describe."""
  crosses = config.memory_width and config.tokens_enter == 'cross'
  return (*AXES, *conditioning.axes(config, 'embed/', tokens=config.project), *(CROSS_AXES if crosses else ()),
          *(POOL_AXES if config.pool else ()))


AXES = (
    ('embed/patch/kernel', (None, 'embed')),
    ('embed/time/up/kernel', (None, 'mlp')),
    ('embed/time/down/kernel', ('mlp', 'embed')),
    ('blocks/attention/(query|key|value)/kernel', ('layers', 'embed', 'heads')),
    ('blocks/attention/(query|key|value)/bias', ('layers', 'heads')),
    ('blocks/attention/out/kernel', ('layers', 'heads', 'embed')),
    ('blocks/mlp/up/kernel', ('layers', 'embed', 'mlp')),
    ('blocks/mlp/up/bias', ('layers', 'mlp')),
    ('blocks/mlp/down/kernel', ('layers', 'mlp', 'embed')),
    ('blocks/modulation/kernel', ('layers', 'embed', None)),
    ('head/modulation/kernel', ('embed', None)),
    ('head/out/kernel', ('embed', None)),
)
POOL_AXES = (('embed/pool/up/kernel', (None, 'mlp')), ('embed/pool/down/kernel', ('mlp', 'embed')))
CROSS_AXES = (
    ('blocks/cross/(query|key|value)/kernel', ('layers', 'embed', 'heads')),
    ('blocks/cross/(query|key|value)/bias', ('layers', 'heads')),
    ('blocks/cross/out/kernel', ('layers', 'heads', 'embed')),
)
