"""Vision Transformer (Dosovitskiy et al. 2021): an encoder of image patches, with its heads."""

import dataclasses
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from genjax import checks, reduction, sharding
from genjax.nn.blocks import Block, BlockOptions, block_axes, options_of
from genjax.nn.conv import Conv
from genjax.nn.functional import Network, dropout, network, stack
from genjax.nn.norms import short_name
from genjax.types import Array, Key, Tree, UserError

# Patch, layers, heads and width of the published models: table 1 of Dosovitskiy et al. 2021; Ti and S of Steiner et al.
# 2022.
SIZES = {'Ti/16': (16, 12, 3, 192), 'S/16': (16, 12, 6, 384), 'B/16': (16, 12, 12, 768), 'L/16': (16, 24, 16, 1024),
         'H/14': (14, 32, 16, 1280)}


@dataclasses.dataclass(frozen=True)
class VitConfig:
  """Options of the encoder and its heads.

  Attributes:
    shape: (H, W, C) of the images.
    num_classes: outputs K of a linear layer on the class token; 0 for none.
    patch: side of a square patch, in pixels.
    layers: number of blocks L.
    heads: number of attention heads H.
    width: channels D.
    mlp_width: hidden units of an MLP; 0 for 4 width.
    norm_eps: added to the variance in a norm.
    activation: activation of the MLP, one of `genjax.nn.blocks.ACTIVATIONS`.
    qkv_bias: whether queries, keys and values have biases.
    pooler: whether there is a layer with tanh on the class token.
    dropout: dropout rate on embeddings and on what each block adds.
    init_scale: standard deviation of initial weights.
    dtype: compute type, 'float32' or 'bfloat16'; parameters are float32.
    attention: implementation: 'auto', 'reference', 'chunked', 'splash' or 'cudnn', see
      `genjax.nn.attention.dot_product_attention.attend`.
    remat: what the backward pass keeps of a block: 'none' everything, 'dots' matrix products, 'full' its inputs only,
      'offload' its inputs in the memory of the host.
    unroll: lay the blocks out one after the other, with equal results: faster steps on CPUs, longer compilation.
    norm: one of `genjax.nn.norms.NORMS`.

  Raises:
    ValueError: an unknown name, heads that do not divide the width, or patches that do not divide the image.
  """

  shape: tuple[int, int, int]
  num_classes: int
  patch: int
  layers: int
  heads: int
  width: int
  mlp_width: int = 0
  norm_eps: float = 1e-6
  activation: str = 'gelu'
  qkv_bias: bool = True
  pooler: bool = False
  dropout: float = 0.0
  init_scale: float = 0.02
  dtype: str = 'float32'
  attention: str = 'auto'
  remat: str = 'none'
  unroll: bool = False
  norm: str = 'layer'

  def __post_init__(self):
    object.__setattr__(self, 'norm', short_name(self.norm))
    checks.whole(self, 1, 'shape', 'patch', 'layers', 'heads', 'width')
    checks.whole(self, 0, 'num_classes', 'mlp_width')
    checks.positive(self, 'init_scale')
    if self.patch < 1 or self.shape[0] % self.patch or self.shape[1] % self.patch:
      raise ValueError(f'patch must divide height and width of the images, {self.shape[:2]}, got {self.patch}')
    self.block()

  @property
  def tokens(self) -> int:
    """Number of patches of an image plus the class token."""
    return (self.shape[0] // self.patch) * (self.shape[1] // self.patch) + 1

  def block(self) -> BlockOptions:
    """Options of each block."""
    return options_of(self, pre_norm=True, kernel_init=nnx.initializers.normal(self.init_scale))


def vit(size: str, **options: Any) -> VitConfig:
  """A published size from `SIZES`, for ImageNet (224 pixels, 1000 classes) unless `options` has others.

  Raises:
    ValueError: the size is unknown.
  """
  if size not in SIZES:
    raise ValueError(f'size must be one of {tuple(SIZES)}, got {size!r}')
  patch, layers, heads, width = SIZES[size]
  return VitConfig(
    **{
      'shape': (224, 224,
                3), 'num_classes': 1000, 'patch': patch, 'layers': layers, 'heads': heads, 'width': width, **options
    })


class Embedding(nnx.Module):
  """Images -> vectors B T D: the class token and the patches, row by row, with learned positions."""

  def __init__(self, config: VitConfig, rngs: nnx.Rngs):
    init = nnx.initializers.normal(config.init_scale)
    self.patches = Conv(config.shape[-1], config.width, size=config.patch, stride=config.patch, init=init,
                        dtype=jnp.dtype(config.dtype), rngs=rngs)
    self.class_token = nnx.Param(jnp.zeros((1, config.width)))
    self.position = nnx.Param(init(rngs.params(), (config.tokens, config.width), jnp.float32))
    self.config = config

  def __call__(self, image_BHWC: Array, key: Key | None = None) -> Array:
    if image_BHWC.shape[1:] != self.config.shape:
      raise UserError(f'the model reads images of shape {self.config.shape}, got {image_BHWC.shape[1:]}')
    x_BTD = self.patches(image_BHWC).reshape(image_BHWC.shape[0], -1, self.config.width)
    class_B1D = reduction.broadcast(self.class_token[...], (len(x_BTD), 1, self.config.width), x_BTD.dtype)
    x_BTD = jnp.concatenate([class_B1D, x_BTD], axis=1)
    x_BTD = x_BTD + reduction.broadcast(self.position[...], x_BTD.shape, x_BTD.dtype)
    return dropout(x_BTD, self.config.dropout, key)


class Heads(nnx.Module):
  """The final norm, and all outputs of the config."""

  def __init__(self, config: VitConfig, rngs: nnx.Rngs):
    options = config.block()
    self.norm = options.make_norm(rngs)
    if config.pooler:
      self.pooler = options.make_linear(config.width, config.width, rngs)
    if config.num_classes:
      self.classifier = options.make_classifier(config.num_classes, rngs)
    self.config = config

  def __call__(self, x_BTD: Array, key: Key | None = None) -> dict[str, Array]:
    outputs = {'hidden': self.norm(x_BTD)}
    class_BD = outputs['hidden'][:, 0]
    if self.config.pooler:
      outputs['pooled'] = jnp.tanh(self.pooler(class_BD))
    if self.config.num_classes:
      outputs['classes'] = self.classifier(class_BD)
    return outputs


def encoder(config: VitConfig) -> Network:
  """The network.

  apply(params, mutable, image_BHWC, key=None) returns a dict with 'hidden' B T D (the class token first) and the
  outputs that the config has: 'pooled' B D, 'classes' float32 logits B K. Published weights read pixels in [-1, 1].
  """
  embedding = network(lambda rngs: Embedding(config, rngs))
  blocks = stack(network(lambda rngs: Block(config.block(), rngs=rngs)), config.layers, config.remat, config.unroll)
  heads = network(lambda rngs: Heads(config, rngs))
  parts = {'embedding': embedding, 'blocks': blocks, 'heads': heads}

  def init(key: Key) -> tuple[Tree, Tree]:
    keys = jax.random.split(key, len(parts))
    return {name: part.init(part_key)[0] for (name, part), part_key in zip(parts.items(), keys)}, {}

  def apply(params: Tree, mutable: Tree, image_BHWC: Array, key: Key | None = None) -> tuple[dict[str, Array], Tree]:
    keys = (None, None) if key is None else tuple(jax.random.split(key))
    x_BTD, _ = embedding.apply(params['embedding'], {}, image_BHWC, key=keys[0])
    x_BTD = sharding.constrain(x_BTD, 'batch', 'sequence', None, name='tokens B T D')
    x_BTD, _ = blocks.apply(params['blocks'], {}, x_BTD, key=keys[1])
    return heads.apply(params['heads'], {}, x_BTD)[0], mutable

  return Network(init, apply)


def classifier(config: VitConfig) -> Network:
  """The network image_BHWC in [-1, 1] -> (logits_BK, features_BD), float32; the features are the class token.

  Raises:
    UserError: there are fewer than 2 classes.
  """
  if config.num_classes < 2:
    raise UserError(f'a classifier needs at least 2 classes, got {config.num_classes}')
  net = encoder(config)

  def apply(params: Tree, mutable: Tree, image_BHWC: Array, key: Key | None = None) -> tuple[tuple[Array, Array], Tree]:
    outputs, mutable = net.apply(params, mutable, image_BHWC, key=key)
    return (outputs['classes'], outputs['hidden'][:, 0].astype(jnp.float32)), mutable

  return Network(net.init, apply)


AXES = block_axes('blocks')
