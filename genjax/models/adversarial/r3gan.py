"""R3GAN (Huang et al. 2024), as in brownvc/R3GAN: residual networks without norms, with grouped convolutions.

Both networks have the same stages in opposite order. A stage has bottleneck blocks that begin as the identity, and
changes the resolution by a fixed filter. Generator and discriminator end and begin with learned 4 x 4 maps.
"""

from collections.abc import Mapping
import dataclasses
import math
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from genjax import checks
from genjax.nn.conv import Conv, Dense, Grouped, Initializer
from genjax.nn.functional import Network, network
from genjax.types import Array, Key, UserError

SLOPE = 0.2  # of the leaky ReLU
GAIN = math.sqrt(2.0 / (1.0 + SLOPE**2))
START = 4  # side of the smallest maps


@dataclasses.dataclass(frozen=True)
class R3Gan:
  """Networks for square images; the defaults are those for CIFAR-10.

  Attributes:
    size: height and width of an image, in pixels: 4 doubled for each width but the first.
    channels: channels of an image.
    latent: width Z of the latent, and of the generator's embedding of classes.
    widths: channels of each stage, from the smallest maps to the largest.
    groups: groups of the 3 x 3 convolutions of each stage, which divide `expansion` times its channels.
    blocks: blocks of a stage.
    expansion: a block's inner channels are so many times its outer ones.
    num_classes: number of classes; None for an unconditional model.
    pack: samples that the discriminator judges together, stacked along the channels (PacGAN).
    dtype: compute type, 'float32' or 'bfloat16'; parameters and outputs are float32.

  Raises:
    UserError: a size that the stages do not reach, groups that do not divide channels, or an option out of range.
  """

  size: int = 32
  channels: int = 3
  latent: int = 64
  widths: tuple[int, ...] = (768, 768, 768, 768)
  groups: tuple[int, ...] = (96, 96, 96, 96)
  blocks: int = 2
  expansion: int = 2
  num_classes: int | None = None
  pack: int = 1
  dtype: str = 'float32'

  discriminator_norm = 'none'

  def __post_init__(self):
    checks.whole(self, 1, 'size', 'channels', 'latent', 'widths', 'groups', 'blocks', 'expansion', 'pack',
                 'num_classes')  # num_classes None: unconditional
    checks.dtype(self)
    if not self.widths or len(self.groups) != len(self.widths):
      raise UserError(f'config.model.groups needs one number for each of config.model.widths, got {len(self.groups)} '
                      f'and {len(self.widths)}')
    if self.size != START << (len(self.widths) - 1):
      raise UserError(f'config.model.widths has {len(self.widths)} stages, which make images of '
                      f'{START << (len(self.widths) - 1)} pixels, got size {self.size}; give one width for 4 pixels '
                      'and one for each doubling')
    for width, groups in zip(self.widths, self.groups):
      if self.expansion * width % groups:
        raise UserError(f'config.model.groups={groups} does not divide the {self.expansion * width} inner channels of '
                        f'a stage (config.model.expansion={self.expansion} times {width})')

  def generator(self) -> Network:
    """(latent B Z, label B or None) -> images B H W C, about in [-1, 1], float32."""
    return network(lambda rngs: R3Generator(self, rngs))

  def discriminator(self) -> Network:
    """(images B/p H W pC, label B/p p or None) -> logits B/p, float32."""
    return network(lambda rngs: R3Discriminator(self, rngs))


_FFHQ: dict[str, Any] = dict(size=64, widths=(768,) * 4 + (384,), groups=(96,) * 4 + (48,))

# Options of `R3Gan` for the presets of brownvc/R3GAN (train.py)
VARIANTS: dict[str, Mapping[str, Any]] = {
  'r3gan_cifar10': dict(num_classes=10), 'r3gan_ffhq_64': _FFHQ,
  'r3gan_ffhq_256': dict(size=256, widths=_FFHQ['widths'] + (192, 96), groups=_FFHQ['groups'] + (24, 12)),
  'r3gan_imagenet_32': dict(num_classes=1000, widths=(1536,) * 4),
  'r3gan_imagenet_64': dict(num_classes=1000, size=64, widths=(1536,) * 5, groups=(96,) * 5),
}


class R3Generator(nnx.Module):
  """See `R3Gan.generator`."""

  def __init__(self, config: R3Gan, rngs: nnx.Rngs):
    self.dtype, widths = jnp.dtype(config.dtype), config.widths
    inputs, self.classes = config.latent, config.num_classes or 0
    if self.classes:
      self.embed = Dense(self.classes, config.latent, bias=False, init=_scaled(), dtype=self.dtype, rngs=rngs)
      inputs += config.latent
    self.project = Dense(inputs, widths[0], bias=False, init=_scaled(), dtype=self.dtype, rngs=rngs)
    self.basis = nnx.Param(jax.random.normal(rngs.params(), (START, START, widths[0])))
    self.stages = nnx.List([nnx.List(_blocks(width, groups, config, rngs))
                            for width, groups in zip(widths, config.groups)])
    self.changes = _changes(list(zip(widths, widths[1:])), self.dtype, rngs)
    self.out = _linear(widths[-1], config.channels, self.dtype, rngs)

  def __call__(self, latent_BZ: Array, label_B: Array | None = None, key: Key | None = None) -> Array:
    if self.classes:
      latent_BZ = jnp.concatenate([latent_BZ, self.embed(jax.nn.one_hot(label_B, self.classes))], axis=-1)
    x_BHWC = self.project(latent_BZ)[:, None, None] * self.basis.get_value().astype(self.dtype)
    for index, stage in enumerate(self.stages):
      if index:
        x_BHWC = self.changes[name](x_BHWC) if (name := f'stage_{index - 1}') in self.changes else x_BHWC
        x_BHWC = enlarge(x_BHWC)
      for block in stage:
        x_BHWC = block(x_BHWC)
    return self.out(x_BHWC).astype(jnp.float32)


class R3Discriminator(nnx.Module):
  """See `R3Gan.discriminator`."""

  def __init__(self, config: R3Gan, rngs: nnx.Rngs):
    self.dtype, widths, groups = jnp.dtype(config.dtype), config.widths[::-1], config.groups[::-1]
    self.classes, outputs = config.num_classes or 0, widths[-1] if config.num_classes else 1
    self.stem = _linear(config.pack * config.channels, widths[0], self.dtype, rngs)
    self.stages = nnx.List([nnx.List(_blocks(width, group, config, rngs)) for width, group in zip(widths, groups)])
    self.changes = _changes(list(zip(widths, widths[1:])), self.dtype, rngs)
    self.basis = nnx.Param(jax.random.normal(rngs.params(), (START, START, widths[-1])) / START)
    self.output = Dense(widths[-1], outputs, bias=False, init=_scaled(), dtype=self.dtype, rngs=rngs)
    if self.classes:
      self.embed = Dense(config.pack * self.classes, outputs, bias=False, init=_scaled(outputs**-0.5),
                         dtype=self.dtype, rngs=rngs)

  def __call__(self, x_BHWC: Array, label_BP: Array | None = None, key: Key | None = None) -> Array:
    x_BHWC = self.stem(x_BHWC)
    for index, stage in enumerate(self.stages):
      if index:
        x_BHWC = reduce(x_BHWC)
        x_BHWC = self.changes[name](x_BHWC) if (name := f'stage_{index - 1}') in self.changes else x_BHWC
      for block in stage:
        x_BHWC = block(x_BHWC)
    x_BC = self.output(jnp.einsum('bhwc,hwc->bc', x_BHWC, self.basis.get_value().astype(self.dtype)))
    if not self.classes:
      return x_BC[:, 0].astype(jnp.float32)
    hot_BK = jax.nn.one_hot(label_BP, self.classes).reshape(x_BC.shape[0], -1)
    return jnp.sum((self.embed(hot_BK) * x_BC).astype(jnp.float32), axis=-1)


class Block(nnx.Module):
  """x + a 1 x 1, a grouped 3 x 3 and a 1 x 1 convolution, with leaky ReLUs between; the last one begins at 0.

  Args:
    depth: blocks of the whole network; initial kernels shrink with depth^(-1/4), so that the variance does not grow.
  """

  def __init__(self, features: int, hidden: int, groups: int, depth: int, dtype: Any, rngs: nnx.Rngs):
    init = _scaled(GAIN * depth**-0.25)
    self.conv_in = Conv(features, hidden, 1, init=init, dtype=dtype, rngs=rngs)  # their biases stand before the ReLUs
    self.conv_middle = Grouped(hidden, hidden, groups, init=init, dtype=dtype, rngs=rngs)
    self.conv_out = Conv(hidden, features, 1, bias=False, init=nnx.initializers.zeros, dtype=dtype, rngs=rngs)

  def __call__(self, x_BHWC: Array) -> Array:
    hidden = jax.nn.leaky_relu(self.conv_in(x_BHWC), SLOPE)
    return x_BHWC + self.conv_out(jax.nn.leaky_relu(self.conv_middle(hidden), SLOPE))


def enlarge(x_BHWC: Array) -> Array:
  """Doubles the resolution by the filter [1, 3, 3, 1] / 4 along each axis, with zeros outside of the image.

  It is the filter [1, 2, 1] of the nearest neighbours. A new pixel has 3/4 of the nearest old one and 1/4 of the next.
  """
  for axis in (1, 2):
    before, after = _neighbours(x_BHWC, axis)
    pairs = jnp.stack([0.75 * x_BHWC + 0.25 * before, 0.75 * x_BHWC + 0.25 * after], axis + 1)
    x_BHWC = pairs.reshape(*x_BHWC.shape[:axis], 2 * x_BHWC.shape[axis], *x_BHWC.shape[axis + 1:])
  return x_BHWC


def reduce(x_BHWC: Array) -> Array:
  """Halves the resolution by the filter [1, 3, 3, 1] / 8 along each axis, with zeros outside of the image."""
  for axis in (1, 2):
    even, odd = (jax.lax.slice_in_dim(x_BHWC, first, None, 2, axis) for first in (0, 1))
    before, after = _neighbours(odd, axis)[0], _neighbours(even, axis)[1]
    x_BHWC = 0.375 * (even + odd) + 0.125 * (before + after)
  return x_BHWC


def _neighbours(x_BHWC: Array, axis: int) -> tuple[Array, Array]:
  """The pixels before and those after each along an axis; zeros where there are none."""
  size, zero = x_BHWC.shape[axis], jnp.zeros_like(jax.lax.slice_in_dim(x_BHWC, 0, 1, axis=axis))
  return (jnp.concatenate([zero, jax.lax.slice_in_dim(x_BHWC, 0, size - 1, axis=axis)], axis),
          jnp.concatenate([jax.lax.slice_in_dim(x_BHWC, 1, size, axis=axis), zero], axis))


def _scaled(gain: float = 1.0) -> Initializer:
  """N(0, gain^2 / inputs) (He et al. 2015)."""
  return nnx.initializers.variance_scaling(gain**2, 'fan_in', 'normal')


def _linear(inputs: int, outputs: int, dtype: Any, rngs: nnx.Rngs) -> Conv:
  return Conv(inputs, outputs, 1, bias=False, init=_scaled(), dtype=dtype, rngs=rngs)


def _blocks(width: int, groups: int, config: R3Gan, rngs: nnx.Rngs) -> list[Block]:
  depth = config.blocks * len(config.widths)
  return [Block(width, config.expansion * width, groups, depth, jnp.dtype(config.dtype), rngs)
          for _ in range(config.blocks)]


def _changes(pairs: list[tuple[int, int]], dtype: Any, rngs: nnx.Rngs) -> nnx.Dict:
  """The convolutions between stages of different widths, by the stage before."""
  return nnx.Dict({f'stage_{index}': _linear(before, after, dtype, rngs)
                   for index, (before, after) in enumerate(pairs) if before != after})


# Path regex -> logical axes, by group, as for `dcgan.DCGAN_AXES`.
_KERNELS = (r'(stages/\d+/\d+/(conv_in|conv_out)|changes/\w+|stem|out)/kernel', r'stages/\d+/\d+/conv_middle/kernel')
AXES = {
  'generator': ((r'project/kernel', (None, 'mlp')), (_KERNELS[0], (None, None, 'mlp', None)),
                (_KERNELS[1], (None, None, None, 'mlp'))),
  'discriminator': ((_KERNELS[0], (None, None, None, 'mlp')), (_KERNELS[1], (None, None, None, 'mlp'))),
}
