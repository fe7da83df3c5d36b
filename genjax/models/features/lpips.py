"""LPIPS, version 0.1 (Zhang et al. 2018): distances of images by the features of VGG16 or AlexNet.

A trunk gives five maps of features. Each pixel of a map is scaled to unit length over its channels. A head weights the
squared differences of two images by channel; the distance is the sum over maps of their means over pixels. Names of
layers are those of torchvision (`features`) and of the package lpips (`lin0` ...).
"""

import dataclasses
from typing import NamedTuple

from flax import nnx
import jax
import jax.numpy as jnp

from genjax.models.features import layers
from genjax.nn import functional
from genjax.nn.functional import Network
from genjax.types import Array, Key

# Mean and deviation of the channels of ImageNet, of pixels in [-1, 1].
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
TINY = 1e-10  # added to the length of a vector


class Layer(NamedTuple):
  """A convolution with ReLU.

  Attributes:
    number: in the `features` of torchvision.
    outputs: channels.
    pooled: whether a max pool precedes it.
    read: whether its result is one of the five maps.
    size, stride, padding: of the kernel.
  """

  number: int
  outputs: int
  pooled: bool = False
  read: bool = False
  size: int = 3
  stride: int = 1
  padding: int = 1


class Trunk(NamedTuple):
  """layers: see `Layer`. pool: side of the windows of max pools, which move by 2 pixels. least: side of an image."""

  layers: tuple[Layer, ...]
  pool: int
  least: int


TRUNKS = {
  'vgg16': Trunk((
    Layer(0, 64), Layer(2, 64, read=True), Layer(5, 128, pooled=True), Layer(7, 128, read=True),
    Layer(10, 256, pooled=True), Layer(12, 256), Layer(14, 256, read=True), Layer(17, 512, pooled=True), Layer(19, 512),
    Layer(21, 512, read=True), Layer(24, 512, pooled=True), Layer(26, 512), Layer(28, 512, read=True)), pool=2,
                 least=16),
  'alexnet': Trunk((
    Layer(0, 64, read=True, size=11, stride=4, padding=2), Layer(3, 192, pooled=True, read=True, size=5, padding=2),
    Layer(6, 384, pooled=True, read=True), Layer(8, 256, read=True), Layer(10, 256, read=True)), pool=3, least=31)}


@dataclasses.dataclass(frozen=True)
class LpipsConfig:
  """Options of the network.

  Attributes:
    trunk: one of `TRUNKS`.
    divisor: channels are those of the published network divided by this, a power of 2 up to 64; smaller ones are for
      tests.

  Raises:
    ValueError: an unknown trunk, or another divisor.
  """

  trunk: str
  divisor: int = 1

  def __post_init__(self):
    if self.trunk not in TRUNKS:
      raise ValueError(f'trunk must be one of {tuple(TRUNKS)}, got {self.trunk!r}')
    if self.divisor not in (known := (1, 2, 4, 8, 16, 32, 64)):
      raise ValueError(f'divisor must be one of {known}, got {self.divisor!r}')

  @property
  def channels(self) -> tuple[int, ...]:
    """Channels of the five maps."""
    return tuple(layer.outputs // self.divisor for layer in TRUNKS[self.trunk].layers if layer.read)


def network(config: LpipsConfig) -> Network:
  """The network.

  apply(params, mutable, a_BHWC, b_BHWC) reads pixels in [-1, 1], with 1 or 3 channels, and returns distances B. Without
  b it returns the five maps of a.
  """
  return functional.network(lambda rngs: _Lpips(config, rngs))


class _Lpips(nnx.Module):

  def __init__(self, config: LpipsConfig, rngs: nnx.Rngs):
    inputs, made = 3, {}
    for layer in TRUNKS[config.trunk].layers:
      outputs = layer.outputs // config.divisor
      made[f'conv{layer.number}'] = layers.Conv(inputs, outputs, (layer.size, layer.size), layer.stride, layer.padding,
                                                rngs=rngs)
      inputs = outputs
    self.features = nnx.Dict(made)
    # the weights of channels are not negative
    self.heads = nnx.Dict({f'lin{index}': _Head(count, rngs) for index, count in enumerate(config.channels)})
    self.config = config

  def __call__(self, a_BHWC: Array, b_BHWC: Array | None = None, key: Key | None = None) -> Array | list[Array]:
    del key  # nothing is random
    maps = self._maps(a_BHWC)
    if b_BHWC is None:
      return maps
    distance_B = jnp.zeros(len(a_BHWC))
    for head, ours, theirs in zip(self.heads.values(), maps, self._maps(b_BHWC)):
      distance_B += jnp.mean(head(jnp.square(_unit(ours) - _unit(theirs))), axis=(1, 2))
    return distance_B

  def _maps(self, image_BHWC: Array) -> list[Array]:
    trunk, found = TRUNKS[self.config.trunk], []
    x_BHWC = (layers.coloured(image_BHWC) - jnp.asarray(SHIFT)) / jnp.asarray(SCALE)
    for layer in trunk.layers:
      if layer.pooled:
        x_BHWC = nnx.max_pool(x_BHWC, (trunk.pool, trunk.pool), (2, 2))
      x_BHWC = jax.nn.relu(self.features[f'conv{layer.number}'](x_BHWC))
      if layer.read:
        found.append(x_BHWC)
    return found


class _Head(nnx.Module):
  """Weights of channels, as the kernel H W I O of a convolution of one pixel."""

  def __init__(self, channels: int, rngs: nnx.Rngs):
    self.kernel = nnx.Param(jax.random.uniform(rngs.params(), (1, 1, channels, 1), jnp.float32) / channels)

  def __call__(self, difference_BHWC: Array) -> Array:
    return difference_BHWC @ self.kernel.get_value()[0, 0, :, 0].astype(difference_BHWC.dtype)


def distance(ours: list[Array], theirs: list[Array]) -> Array:
  """The distance of two images by maps of features B H W C, where no head weights channels, B."""
  distance_B = jnp.zeros(len(ours[0]))
  for our_BHWC, their_BHWC in zip(ours, theirs):
    distance_B += jnp.mean(jnp.sum(jnp.square(_unit(our_BHWC) - _unit(their_BHWC)), axis=-1), axis=(1, 2))
  return distance_B


def _unit(x_BHWC: Array) -> Array:
  """Each pixel with unit length over its channels."""
  square_BHW1 = jnp.sum(jnp.square(x_BHWC), axis=-1, keepdims=True)
  some_BHW1 = square_BHW1 > 0  # the root of 0 has no derivative, and a pixel may have no active feature
  length_BHW1 = jnp.where(some_BHW1, jnp.sqrt(jnp.where(some_BHW1, square_BHW1, 1.0)), 0.0)
  return x_BHWC / (length_BHW1 + TINY)
