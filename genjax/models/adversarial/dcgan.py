"""Generators and discriminators: DCGAN for images (Radford et al. 2016), MLPs for points (PacGAN, Lin et al. 2018).

Generators map latents B Z (and labels B) to samples; discriminators map packs of samples (and labels B/p p) to logits
B/p.
"""

import dataclasses
import functools
from typing import Any, Protocol

from flax import nnx
import jax
import jax.numpy as jnp

from genjax import checks
from genjax.nn.conv import Conv, ConvTranspose, Dense, Initializer
from genjax.nn.embeddings import Embed
from genjax.nn.functional import Network, network
from genjax.nn.norms import NORMS, BatchNorm
from genjax.types import Array, Key, UserError

KERNEL_SIZE = 4  # of every convolution; the stride is 2


@dataclasses.dataclass(frozen=True)
class Dcgan:
  """DCGAN at any size that is 4 or 7 times a power of two; at 64 pixels and the defaults, the published architecture.

  Attributes:
    size: height and width of an image, in pixels.
    channels: channels of an image.
    latent: width of the latent.
    generator_width: channels of the generator at half the image's size; they double with every halving.
    discriminator_width: channels of the discriminator at half the image's size; they double with every halving.
    norm: norm in the generator: 'batch', 'none' or one of `genjax.nn.norms.NORMS`.
    discriminator_norm: norm in the discriminator: 'batch', 'none' or one of `genjax.nn.norms.NORMS`.
    spectral: whether the discriminator has spectral normalisation.
    num_classes: number of classes; None for an unconditional model. With classes the generator reads an embedding of
      the label beside the latent, and the discriminator adds the inner product of its features with an embedding of the
      label (projection, Miyato and Koyama 2018; on features that are not pooled).
    pack: samples that the discriminator judges together, stacked along the channels (PacGAN).
    momentum: decay of the running averages of batch normalisation, per step.
    dtype: compute type, 'float32' or 'bfloat16'; parameters are float32.

  Raises:
    UserError: a size, norm, pack or class count that cannot be built.
  """

  size: int = 64
  channels: int = 3
  latent: int = 100
  generator_width: int = 64
  discriminator_width: int = 64
  norm: str = 'batch'
  discriminator_norm: str = 'batch'
  spectral: bool = False
  num_classes: int | None = None
  pack: int = 1
  momentum: float = 0.9
  dtype: str = 'float32'

  gives_features = True  # of its discriminator, by part='features'

  def __post_init__(self):
    _check(self)
    checks.whole(self, 1, 'size', 'channels', 'generator_width', 'discriminator_width')
    start, halvings = _start(self.size)
    if start > 7 or not halvings:
      raise UserError(f'DCGAN needs an image size of 4 or 7 times a power of two (8, 14, 16, 28, 32, 56, 64, ...), got '
                      f'{self.size}; resize the images')

  def generator(self) -> Network:
    """(latent B Z, label B or None) -> images B H W C in [-1, 1], float32."""
    return network(lambda rngs: DcganGenerator(self, rngs))

  def discriminator(self) -> Network:
    """(images B/p H W pC, label B/p p or None) -> logits B/p, float32; with part='features' (logits, maps of all
    stages)."""
    return network(lambda rngs: DcganDiscriminator(self, rngs))


@dataclasses.dataclass(frozen=True)
class PointGan:
  """Perceptrons for points; the defaults are the networks of PacGAN's two-dimensional experiments (Lin et al. 2018).

  Attributes:
    dimensions: numbers of a point.
    latent: width of the latent.
    generator_widths: widths of the generator's hidden layers, with ReLU.
    discriminator_widths: widths of the discriminator's hidden maxout layers (Goodfellow et al. 2013).
    pieces: affine functions of a maxout unit, which is the largest of them.
    scale: the generator's output is multiplied and the discriminator's input divided by it: the length that counts as
      1, small where the data has fine structure.
    norm: norm in the generator: 'batch', 'none' or one of `genjax.nn.norms.NORMS`.
    discriminator_norm: norm in the discriminator: 'batch', 'none' or one of `genjax.nn.norms.NORMS`.
    spectral: whether the discriminator has spectral normalisation.
    num_classes: number of classes, as in `Dcgan`; None for an unconditional model.
    pack: samples that the discriminator judges together, one after the other (PacGAN).
    momentum: decay of the running averages of batch normalisation, per step.
    dtype: compute type, 'float32' or 'bfloat16'; parameters are float32.
    init_std: standard deviation of the initial kernels of both networks, 0.02 in the paper's code; 0 scales them by the
      widths (He et al. 2015 in the generator, LeCun et al. 1998 in the discriminator).

  Raises:
    UserError: a norm, pack or class count that cannot be built.
  """

  dimensions: int = 2
  latent: int = 2
  generator_widths: tuple[int, ...] = (400, 400, 400, 400)
  discriminator_widths: tuple[int, ...] = (200, 200, 200)
  pieces: int = 5
  scale: float = 1.0
  norm: str = 'batch'
  discriminator_norm: str = 'none'
  spectral: bool = False
  num_classes: int | None = None
  pack: int = 1
  momentum: float = 0.9
  dtype: str = 'float32'
  init_std: float = 0.0

  gives_features = True  # of its discriminator, by part='features'

  def __post_init__(self):
    _check(self)
    checks.between(self, ('init_std',), at_least=0)
    checks.whole(self, 1, 'dimensions', 'generator_widths', 'discriminator_widths', 'pieces')
    checks.positive(self, 'scale')
    if not self.generator_widths or not self.discriminator_widths:
      raise UserError('generator_widths and discriminator_widths need at least one hidden layer each')

  def generator(self) -> Network:
    """(latent B Z, label B or None) -> points B D, float32."""
    return network(lambda rngs: PointGenerator(self, rngs))

  def discriminator(self) -> Network:
    """(points B/p pD, label B/p p or None) -> logits B/p, float32; with part='features' (logits, hidden layers)."""
    return network(lambda rngs: PointDiscriminator(self, rngs))


class Normed(nnx.Module):
  """A linear layer, and a norm if asked for. A bias before batch normalisation would have no effect."""

  def __init__(self, linear: nnx.Module, features: int, norm: str, momentum: float, dtype, rngs: nnx.Rngs):
    self.linear = linear
    self.norm = _make_norm(norm, features, momentum, dtype, rngs)

  def __call__(self, x: Array, key: Key | None = None) -> Array:
    x = self.linear(x, key)  # type: ignore[operator]
    return _normalised(self.norm, x, key)


class DcganGenerator(nnx.Module):
  """See `Dcgan.generator`."""

  def __init__(self, config: Dcgan, rngs: nnx.Rngs):
    dtype = jnp.dtype(config.dtype)
    bias, init = config.norm == 'none', _init(config.norm)
    self.start, halvings = _start(config.size)
    widths = [config.generator_width * 2**(halvings - 1 - stage) for stage in range(halvings)]
    inputs = config.latent if config.num_classes is None else 2 * config.latent
    self.embed = _embed(config, rngs)
    self.project = Dense(inputs, self.start**2 * widths[0], bias=bias, init=init, dtype=dtype, rngs=rngs)
    self.norm = _make_norm(config.norm, widths[0], config.momentum, dtype, rngs)
    self.stages = nnx.List([
      Normed(ConvTranspose(width, following, KERNEL_SIZE, 2, bias=bias, init=init, dtype=dtype, rngs=rngs), following,
             config.norm if stage + 1 < halvings else 'none', config.momentum, dtype, rngs)
      for stage, (width, following) in enumerate(zip(widths, widths[1:] + [config.channels]))])

  def __call__(self, latent_BZ: Array, label_B: Array | None = None, key: Key | None = None) -> Array:
    x = self.project(_with_label(latent_BZ, self.embed, label_B))
    x_BHWC = x.reshape(x.shape[0], self.start, self.start, -1)
    x_BHWC = _normalised(self.norm, x_BHWC, key)
    for stage in self.stages:
      x_BHWC = stage(jax.nn.relu(x_BHWC), key)
    return jnp.tanh(x_BHWC.astype(jnp.float32))


class DcganDiscriminator(nnx.Module):
  """See `Dcgan.discriminator`."""

  def __init__(self, config: Dcgan, rngs: nnx.Rngs):
    dtype, norm = jnp.dtype(config.dtype), config.discriminator_norm
    init = _init('batch' if config.spectral else norm)  # either norm removes the scale
    bias = norm == 'none'
    start, halvings = _start(config.size)
    widths = [config.pack * config.channels] + [config.discriminator_width * 2**stage for stage in range(halvings)]
    self.stages = nnx.List([
      Normed(Conv(width, following, KERNEL_SIZE, 2, bias=bias, spectral=config.spectral, init=init, dtype=dtype,
                  rngs=rngs), following, norm if stage else 'none', config.momentum, dtype, rngs)
      for stage, (width, following) in enumerate(zip(widths, widths[1:]))])
    self.head = Head(start**2 * widths[-1], config, bias, init, rngs)

  def __call__(self, x_BHWC: Array, label_BP: Array | None = None, key: Key | None = None, part: str = '') -> Any:
    maps = []
    for stage in self.stages:
      x_BHWC = jax.nn.leaky_relu(stage(x_BHWC, key), 0.2)
      maps.append(x_BHWC)
    logit_B = self.head(x_BHWC.reshape(x_BHWC.shape[0], -1), label_BP, key)
    return (logit_B, tuple(maps)) if part == 'features' else logit_B


class PointGenerator(nnx.Module):
  """See `PointGan.generator`."""

  def __init__(self, config: PointGan, rngs: nnx.Rngs):
    dtype = jnp.dtype(config.dtype)
    init = nnx.initializers.normal(config.init_std) if config.init_std else nnx.initializers.he_normal()
    widths = (config.latent if config.num_classes is None else 2 * config.latent, *config.generator_widths)
    self.embed = _embed(config, rngs)
    self.layers = nnx.List([
      Normed(Dense(width, following, bias=config.norm == 'none', init=init, dtype=dtype, rngs=rngs), following,
             config.norm, config.momentum, dtype, rngs) for width, following in zip(widths, widths[1:])
    ])
    last: dict[str, Any] = {'init': init} if config.init_std else {}
    self.output = Dense(widths[-1], config.dimensions, dtype=dtype, rngs=rngs, **last)
    self.scale = config.scale

  def __call__(self, latent_BZ: Array, label_B: Array | None = None, key: Key | None = None) -> Array:
    x = _with_label(latent_BZ, self.embed, label_B)
    for layer in self.layers:
      x = jax.nn.relu(layer(x, key))
    return self.scale * self.output(x).astype(jnp.float32)


class PointDiscriminator(nnx.Module):
  """See `PointGan.discriminator`."""

  def __init__(self, config: PointGan, rngs: nnx.Rngs):
    dtype, norm = jnp.dtype(config.dtype), config.discriminator_norm
    bias = norm == 'none'
    init = nnx.initializers.normal(config.init_std) if config.init_std else nnx.initializers.lecun_normal()
    widths = (config.pack * config.dimensions, *config.discriminator_widths)
    self.layers = nnx.List([
      Normed(
        Dense(width, units * config.pieces, bias=bias, spectral=config.spectral, init=init, dtype=dtype, rngs=rngs),
        units * config.pieces, norm, config.momentum, dtype, rngs) for width, units in zip(widths, widths[1:])
    ])
    self.head = Head(widths[-1], config, bias, init, rngs)
    self.pieces, self.scale = config.pieces, config.scale

  def __call__(self, x: Array, label_BP: Array | None = None, key: Key | None = None, part: str = '') -> Any:
    x, maps = x / self.scale, []
    for layer in self.layers:
      x = layer(x, key)
      x = jnp.max(x.reshape(x.shape[0], -1, self.pieces), axis=-1)
      maps.append(x)
    logit_B = self.head(x, label_BP, key)
    return (logit_B, tuple(maps)) if part == 'features' else logit_B


class Judge(Protocol):
  """What `Head` reads of the options of a discriminator."""

  @property
  def spectral(self) -> bool: ...

  @property
  def num_classes(self) -> int | None: ...

  @property
  def pack(self) -> int: ...

  @property
  def dtype(self) -> str: ...


class Head(nnx.Module):
  """Features -> logits B: an affine function, plus <features, label embedding> in a conditional model."""

  def __init__(self, features: int, config: Judge, bias: bool, init: Initializer, rngs: nnx.Rngs):
    layer = functools.partial(Dense, spectral=config.spectral, init=init, dtype=jnp.dtype(config.dtype), rngs=rngs)
    self.output = layer(features, 1, bias=bias)
    self.classes = config.num_classes or 0
    self.embed = layer(config.pack * self.classes, features, bias=False) if self.classes else None

  def __call__(self, x_BC: Array, label_BP: Array | None, key: Key | None) -> Array:
    logit_B = self.output(x_BC, key)[:, 0]
    if self.embed is not None:
      # Concatenate the labels of a pack, so that each keeps its position.
      hot_BK = jax.nn.one_hot(label_BP, self.classes).reshape(x_BC.shape[0], -1)
      logit_B = logit_B + jnp.sum(self.embed(hot_BK, key) * x_BC, axis=-1)
    return logit_B.astype(jnp.float32)


def _make_norm(name: str, features: int, momentum: float, dtype: Any, rngs: nnx.Rngs) -> Any:
  if name == 'batch':
    return BatchNorm(features, momentum=momentum, scale_sd=0.02, dtype=dtype, rngs=rngs)
  if name == 'none':
    return None
  return NORMS[name](features, epsilon=1e-5, scale=True, bias=True, dtype=dtype, rngs=rngs)


def _normalised(norm: Any, x: Array, key: Key | None) -> Array:
  if norm is None:
    return x
  return norm(x, key) if isinstance(norm, BatchNorm) else norm(x)


def _start(size: int) -> tuple[int, int]:
  """Returns (side of the smallest feature map, number of halvings): 64 -> (4, 4), 28 -> (7, 2)."""
  halvings = 0
  while size % 2 == 0 and size > 4:
    size, halvings = size // 2, halvings + 1
  return size, halvings


def _init(norm: str) -> Initializer:
  """N(0, 0.02^2) as in DCGAN, which needs batch normalisation; without it, He initialization (He et al. 2015)."""
  return nnx.initializers.normal(0.02) if norm == 'batch' else nnx.initializers.he_normal()


def _embed(config: Dcgan | PointGan, rngs: nnx.Rngs) -> Embed | None:
  """A label embedding with the size and the scale of the latent."""
  if config.num_classes is None:
    return None
  return Embed(config.num_classes, config.latent, embedding_init=nnx.initializers.normal(1.0), rngs=rngs)


def _with_label(latent_BZ: Array, embed: Embed | None, label_B: Array | None) -> Array:
  return latent_BZ if embed is None else jnp.concatenate([latent_BZ, embed(jnp.asarray(label_B))], axis=-1)


def _check(config: Dcgan | PointGan) -> None:
  for name in ('norm', 'discriminator_norm'):
    if getattr(config, name) not in (known := ('batch', 'none', *NORMS)):
      raise UserError(f'config.model.{name} must be one of {known}, got {getattr(config, name)!r}')
  checks.whole(config, 1, 'latent', 'pack', 'num_classes')  # num_classes None: unconditional
  checks.rates(config, 'momentum')
  checks.dtype(config)


# Path regex -> logical axes, by group. Tensor parallelism splits the outputs of dense layers. Kernels of convolutions
# are stored split and gathered for the computation: split by input channels in a generator and by output channels in a
# discriminator, which are multiples of the width.
DCGAN_AXES = {
  'generator': ((r'project/kernel', (None, 'mlp')), (r'stages/\d+/linear/kernel', (None, None, 'mlp', None))),
  'discriminator': ((r'stages/\d+/linear/kernel', (None, None, None, 'mlp')), (r'head/output/kernel', ('mlp', None))),
}
POINT_AXES = {
  'generator': ((r'layers/\d+/linear/kernel', (None, 'mlp')), (r'output/kernel', ('mlp', None))),
  'discriminator': ((r'layers/\d+/linear/kernel', (None, 'mlp')), (r'head/output/kernel', ('mlp', None))),
}
