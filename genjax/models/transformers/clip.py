"""CLIP (Radford et al. 2021): a text tower and an image tower with outputs in one space, or one of them alone."""

import dataclasses
import math
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from genjax import checks, reduction, sharding
from genjax.nn.blocks import Block, BlockOptions, block_axes, options_of
from genjax.nn.conv import Conv
from genjax.nn.embeddings import Embed
from genjax.nn.functional import Network, network, stack
from genjax.nn.linear import Linear
from genjax.types import Array, Key, Tree, UserError

LEGACY_END = 2  # as the last token of a config, it means that the largest token of a text ends it
SCALE = math.log(1 / 0.07)  # initial logarithm of the scale of cosines, section 2.5
# Text (layers, heads, width), image (patch, layers, heads, width), width of the outputs, activation: the published
# models (table 20 of the paper; Cherti et al. 2023 for H and bigG).
SIZES = {'B/32': ((12, 8, 512), (32, 12, 12, 768), 512, 'quick_gelu'),
         'B/16': ((12, 8, 512), (16, 12, 12, 768), 512, 'quick_gelu'),
         'L/14': ((12, 12, 768), (14, 24, 16, 1024), 768, 'quick_gelu'),
         'H/14': ((24, 16, 1024), (14, 32, 16, 1280), 1024, 'gelu'),
         'bigG/14': ((32, 20, 1280), (14, 48, 16, 1664), 1280, 'gelu')}


@dataclasses.dataclass(frozen=True)
class _Tower:
  """Options that both towers have.

  Attributes:
    layers: number of blocks L.
    heads: number of attention heads H.
    width: channels D.
    mlp_width: hidden units of an MLP; 0 for 4 width.
    activation: activation of the MLP, one of `genjax.nn.blocks.ACTIVATIONS`.
    norm_eps: added to the variance in a norm.
    init_scale: standard deviation of initial weights.
    dtype: compute type, 'float32' or 'bfloat16'; parameters are float32.
    attention: implementation, see `genjax.nn.attention.dot_product_attention.attend`.
    remat: what the backward pass keeps of a block, see `genjax.nn.functional.rematerialise`.
    unroll: lay the blocks out one after the other.
  """

  layers: int
  heads: int
  width: int
  mlp_width: int = 0
  activation: str = 'quick_gelu'
  norm_eps: float = 1e-5
  init_scale: float = 0.02
  dtype: str = 'float32'
  attention: str = 'auto'
  remat: str = 'none'
  unroll: bool = False

  def __post_init__(self):
    checks.whole(self, 1, 'layers', 'heads', 'width')
    checks.whole(self, 0, 'mlp_width')
    checks.positive(self, 'init_scale')
    self.block()

  def block(self) -> BlockOptions:
    """Options of each block."""
    return options_of(self, pre_norm=True, kernel_init=nnx.initializers.normal(self.init_scale))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipText(_Tower):
  """Options of the text tower.

  Attributes:
    vocab: size V of the vocabulary, in tokens.
    context: longest sequence T, in tokens.
    end: the token that ends a text, where it is pooled; `LEGACY_END` for the largest token of a text.
  """

  __doc__ = f'{__doc__}{(_Tower.__doc__ or "").partition("Attributes:")[2]}'
  vocab: int = 49408
  context: int = 77
  end: int = 49407

  def __post_init__(self):
    super().__post_init__()
    checks.whole(self, 1, 'vocab', 'context')
    checks.whole(self, 0, 'end')


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipImage(_Tower):
  """Options of the image tower.

  Attributes:
    shape: (H, W, C) of the images.
    patch: side of a square patch, in pixels.
  """

  __doc__ = f'{__doc__}{(_Tower.__doc__ or "").partition("Attributes:")[2]}'
  shape: tuple[int, int, int] = (224, 224, 3)
  patch: int = 32

  def __post_init__(self):
    super().__post_init__()
    checks.whole(self, 1, 'shape', 'patch')
    if self.shape[0] % self.patch or self.shape[1] % self.patch:
      raise ValueError(f'patch must divide height and width of the images, {self.shape[:2]}, got {self.patch}')

  @property
  def tokens(self) -> int:
    """Number of patches plus the class token."""
    return (self.shape[0] // self.patch) * (self.shape[1] // self.patch) + 1


@dataclasses.dataclass(frozen=True)
class ClipConfig:
  """Options of the towers and their outputs.

  Attributes:
    text, image: the towers; one may be None.
    width: channels of the outputs; 0 for those of a tower alone, without a projection.

  Raises:
    ValueError: there is no tower, or two without projections.
  """

  text: ClipText | None
  image: ClipImage | None
  width: int

  def __post_init__(self):
    checks.whole(self, 0, 'width')
    if self.text is None and self.image is None:
      raise ValueError('a CLIP needs a text tower, an image tower, or both')
    if self.text and self.image and not self.width:
      raise ValueError('two towers meet in a space of width channels; set width')


def clip(size: str, **options: Any) -> ClipConfig:
  """A published size from `SIZES`; `options` replace towers.

  Raises:
    ValueError: the size is unknown.
  """
  if size not in SIZES:
    raise ValueError(f'size must be one of {tuple(SIZES)}, got {size!r}')
  text, (patch, *image), width, activation = SIZES[size]
  wide = {'mlp_width': 8192} if size == 'bigG/14' else {}
  return ClipConfig(**{'text': ClipText(*text, activation=activation), 'width': width,
                       'image': ClipImage(*image, patch=patch, activation=activation, **wide), **options})


class _TextEmbedding(nnx.Module):

  def __init__(self, config: ClipText, rngs: nnx.Rngs):
    init = nnx.initializers.normal(config.init_scale)
    self.token = Embed(config.vocab, config.width, embedding_init=init, rngs=rngs)
    self.position = Embed(config.context, config.width, embedding_init=init, rngs=rngs)
    self.config = config

  def __call__(self, ids_BT: Array, key: Key | None = None) -> Array:
    del key
    if ids_BT.shape[1] > self.config.context:
      raise UserError(f'the text tower has {self.config.context} positions (its context), got sequences of '
                      f'{ids_BT.shape[1]} tokens')
    return (self.token(ids_BT) + self.position(jnp.arange(ids_BT.shape[1]))).astype(self.config.dtype)


class _ImageEmbedding(nnx.Module):
  """The class token and the patches, row by row, with learned positions and a norm."""

  def __init__(self, config: ClipImage, rngs: nnx.Rngs):
    init = nnx.initializers.normal(config.init_scale)
    self.patches = Conv(config.shape[-1], config.width, size=config.patch, stride=config.patch, bias=False, init=init,
                        dtype=jnp.dtype(config.dtype), rngs=rngs)
    self.class_token = nnx.Param(init(rngs.params(), (config.width,), jnp.float32))
    self.position = Embed(config.tokens, config.width, embedding_init=init, rngs=rngs)
    self.norm = config.block().make_norm(rngs)
    self.config = config

  def __call__(self, image_BHWC: Array, key: Key | None = None) -> Array:
    del key
    if image_BHWC.shape[1:] != self.config.shape:
      raise UserError(f'the model reads images of shape {self.config.shape}, got {image_BHWC.shape[1:]}')
    x_BTD = self.patches(image_BHWC).reshape(image_BHWC.shape[0], -1, self.config.width)
    class_B1D = reduction.broadcast(self.class_token[...], (len(x_BTD), 1, self.config.width), x_BTD.dtype)
    x_BTD = jnp.concatenate([class_B1D, x_BTD], axis=1) + self.position(jnp.arange(self.config.tokens))
    return self.norm(x_BTD.astype(self.config.dtype))


class _Head(nnx.Module):
  """The final norm, and the projection without a bias."""

  def __init__(self, config: _Tower, width: int, rngs: nnx.Rngs):
    self.norm = config.block().make_norm(rngs)
    if width:
      self.projection = Linear(config.width, width, use_bias=False, rngs=rngs,
                               kernel_init=nnx.initializers.normal(config.width ** -0.5))
    self.width = width

  def __call__(self, x: Array, key: Key | None = None, project: bool = False) -> Array:
    del key
    x = self.norm(x).astype(jnp.float32)
    return self.projection(x) if project and self.width else x


def encoder(config: ClipConfig) -> Network:
  """The network.

  apply(params, mutable, image_BHWC=None, ids_BT=None, mask_BT=None, skip=0) returns a dict with the outputs of what it
  is given, float32: of images 'image' B E and 'image_hidden' B S D without the final norm; of texts 'text' B E,
  'hidden' B T D with the final norm and 'raw' without. E is the width of the outputs, which are not scaled to unit
  length.

    image_BHWC      images, with the mean and the deviation of the published preprocessing.
    ids_BT          tokens.
    mask_BT         nonzero on tokens, zero on padding at the end; None for no padding. A causal text tower pools the
                    same vector without it.
    skip            'hidden' and 'raw' are those before the last `skip` blocks.

  With both towers params['scale'] is the logarithm of what cosines are multiplied by to be logits.
  """
  towers: dict[str, tuple[Network, Network, Network]] = {}
  for name, tower in (('text', config.text), ('image', config.image)):
    if tower is not None:
      embedding: Any = _TextEmbedding if isinstance(tower, ClipText) else _ImageEmbedding
      towers[name] = (
        network(lambda rngs, embedding=embedding, tower=tower: embedding(tower, rngs)),
        stack(network(lambda rngs, name=name, tower=tower: Block(tower.block(), causal=name == 'text', rngs=rngs)),
              tower.layers, tower.remat, tower.unroll),
        network(lambda rngs, tower=tower: _Head(tower, config.width, rngs)))

  def init(key: Key) -> tuple[Tree, Tree]:
    params = {}
    for index, (name, parts) in enumerate(towers.items()):
      keys = jax.random.split(jax.random.fold_in(key, index), len(parts))
      params[name] = {inner: part.init(part_key)[0]
                      for inner, part, part_key in zip(('embedding', 'blocks', 'head'), parts, keys)}
    return {**params, **({'scale': jnp.asarray(SCALE, jnp.float32)} if len(towers) == 2 else {})}, {}

  def apply(params: Tree, mutable: Tree, image_BHWC: Array | None = None, ids_BT: Array | None = None,
            mask_BT: Array | None = None, skip: int = 0, key: Key | None = None) -> tuple[dict[str, Array], Tree]:
    del key  # nothing is random
    outputs = {}
    if image_BHWC is not None:
      outputs.update(_image(params['image'], image_BHWC))
    if ids_BT is not None:
      outputs.update(_text(params['text'], ids_BT, mask_BT, skip))
    return outputs, mutable

  def _image(params: Tree, image_BHWC: Array) -> dict[str, Array]:
    embedding, blocks, head = towers['image']
    x_BTD, _ = embedding.apply(params['embedding'], {}, image_BHWC)
    x_BTD = sharding.constrain(x_BTD, 'batch', 'sequence', None, name='tokens B T D')
    x_BTD, _ = blocks.apply(params['blocks'], {}, x_BTD)
    return {'image': head.apply(params['head'], {}, x_BTD[:, 0], project=True)[0], 'image_hidden': x_BTD}

  def _text(params: Tree, ids_BT: Array, mask_BT: Array | None, skip: int) -> dict[str, Array]:
    (embedding, blocks, head), tower = towers['text'], config.text
    assert tower is not None
    layers, end = tower.layers, tower.end
    if not 0 <= skip < layers:
      raise UserError(f'a text tower of {layers} blocks can leave out 0 to {layers - 1} of them, got {skip}')
    x_BTD, _ = embedding.apply(params['embedding'], {}, ids_BT)
    x_BTD = sharding.constrain(x_BTD, 'batch', 'sequence', None, name='tokens B T D')
    first, last = (jax.tree.map(lambda leaf: leaf[part], params['blocks'])
                   for part in (slice(layers - skip), slice(layers - skip, layers)))
    raw_BTD, _ = _part(blocks, tower, layers - skip).apply(first, {}, x_BTD, mask_BT=mask_BT)
    x_BTD = _part(blocks, tower, skip).apply(last, {}, raw_BTD, mask_BT=mask_BT)[0] if skip else raw_BTD
    place_B = jnp.argmax(ids_BT if end == LEGACY_END else ids_BT == end, axis=1)
    pooled_BD = jnp.take_along_axis(x_BTD, place_B[:, None, None], axis=1)[:, 0]
    return {'text': head.apply(params['head'], {}, pooled_BD, project=True)[0],
            'hidden': head.apply(params['head'], {}, raw_BTD)[0], 'raw': raw_BTD.astype(jnp.float32)}

  return Network(init, apply)


def _part(blocks: Network, tower: _Tower, layers: int) -> Network:
  """Some of the blocks of a tower."""
  if layers == tower.layers:
    return blocks
  block = network(lambda rngs: Block(tower.block(), causal=isinstance(tower, ClipText), rngs=rngs))
  return stack(block, layers, tower.remat, tower.unroll)


AXES = ((r'text/embedding/token/embedding', ('vocab', None)), *block_axes('(text|image)/blocks'))
