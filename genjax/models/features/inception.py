"""Inception v3 (Szegedy et al. 2016) as the Frechet inception distance has it (Heusel et al. 2017).

It is the graph inception-2015-12-05 of TensorFlow, with 1,008 classes. It differs from other Inception v3 in three
points: an average pool does not count the padding, the pool of the last block takes the maximum, and images are resized
as TensorFlow 1 does. The features are the 2,048 means of the last maps. Names of layers are those of pytorch-fid and
torchvision.
"""

import dataclasses
from typing import NamedTuple

from flax import nnx
import jax
import jax.numpy as jnp

from genjax import checks
from genjax.models.features import layers, resizing
from genjax.nn import functional
from genjax.nn.functional import Network
from genjax.nn.linear import Linear, matmul
from genjax.types import Array, Key

SIDE = 299
EPSILON = 1e-3  # of batch normalisation
RESIZE = f'tf bilinear {SIDE}'


@dataclasses.dataclass(frozen=True)
class InceptionConfig:
  """Options of the network.

  Attributes:
    classes: outputs K of the last layer.
    divisor: channels are those of the published network divided by this, 1, 2, 4, 8 or 16; smaller ones are for tests.

  Raises:
    ValueError: another divisor.
  """

  classes: int = 1008
  divisor: int = 1

  def __post_init__(self):
    checks.whole(self, 1, 'classes')
    if self.divisor not in (known := (1, 2, 4, 8, 16)):
      raise ValueError(f'divisor must be one of {known}, got {self.divisor!r}')

  @property
  def width(self) -> int:
    """Number D of features."""
    return 2048 // self.divisor


class Unit(NamedTuple):
  """A convolution, batch normalisation and ReLU."""

  name: str
  outputs: int
  size: tuple[int, int] = (1, 1)
  stride: int = 1
  padding: str = 'SAME'


# A step is a unit, several units side by side, or one of these pools of 3 by 3 pixels; a branch is a list of steps.
MEAN, MAX, HALVE = 'mean', 'max', 'halve'
Branch = tuple['Unit | tuple[Unit, ...] | str', ...]
_ROW, _COLUMN, _SQUARE = (1, 7), (7, 1), (3, 3)


def _first(pooled: int) -> tuple[Branch, ...]:
  return ((Unit('branch1x1', 64),), (Unit('branch5x5_1', 48), Unit('branch5x5_2', 64, (5, 5))),
          (Unit('branch3x3dbl_1', 64), Unit('branch3x3dbl_2', 96, _SQUARE), Unit('branch3x3dbl_3', 96, _SQUARE)),
          (MEAN, Unit('branch_pool', pooled)))


def _second(inner: int) -> tuple[Branch, ...]:
  return ((Unit('branch1x1', 192),),
          (Unit('branch7x7_1', inner), Unit('branch7x7_2', inner, _ROW), Unit('branch7x7_3', 192, _COLUMN)),
          (Unit('branch7x7dbl_1', inner), Unit('branch7x7dbl_2', inner, _COLUMN), Unit('branch7x7dbl_3', inner, _ROW),
           Unit('branch7x7dbl_4', inner, _COLUMN), Unit('branch7x7dbl_5', 192, _ROW)),
          (MEAN, Unit('branch_pool', 192)))


def _third(pool: str) -> tuple[Branch, ...]:
  def sides(name: str) -> tuple[Unit, ...]:
    return Unit(f'{name}a', 384, (1, 3)), Unit(f'{name}b', 384, (3, 1))

  return ((Unit('branch1x1', 320),), (Unit('branch3x3_1', 384), sides('branch3x3_2')),
          (Unit('branch3x3dbl_1', 448), Unit('branch3x3dbl_2', 384, _SQUARE), sides('branch3x3dbl_3')),
          (pool, Unit('branch_pool', 192)))


STEM: Branch = (Unit('Conv2d_1a_3x3', 32, _SQUARE, 2, 'VALID'), Unit('Conv2d_2a_3x3', 32, _SQUARE, 1, 'VALID'),
                Unit('Conv2d_2b_3x3', 64, _SQUARE), HALVE, Unit('Conv2d_3b_1x1', 80),
                Unit('Conv2d_4a_3x3', 192, _SQUARE, 1, 'VALID'), HALVE)
BLOCKS: dict[str, tuple[Branch, ...]] = {
  'Mixed_5b': _first(32), 'Mixed_5c': _first(64), 'Mixed_5d': _first(64),
  'Mixed_6a': ((Unit('branch3x3', 384, _SQUARE, 2, 'VALID'),),
               (Unit('branch3x3dbl_1', 64), Unit('branch3x3dbl_2', 96, _SQUARE),
                Unit('branch3x3dbl_3', 96, _SQUARE, 2, 'VALID')), (HALVE,)),
  'Mixed_6b': _second(128), 'Mixed_6c': _second(160), 'Mixed_6d': _second(160), 'Mixed_6e': _second(192),
  'Mixed_7a': ((Unit('branch3x3_1', 192), Unit('branch3x3_2', 320, _SQUARE, 2, 'VALID')),
               (Unit('branch7x7x3_1', 192), Unit('branch7x7x3_2', 192, _ROW), Unit('branch7x7x3_3', 192, _COLUMN),
                Unit('branch7x7x3_4', 192, _SQUARE, 2, 'VALID')), (HALVE,)),
  'Mixed_7b': _third(MEAN), 'Mixed_7c': _third(MAX)}


def units(branch: Branch) -> list[Unit]:
  """All units of a branch."""
  steps = [step for step in branch if not isinstance(step, str)]
  return [unit for step in steps for unit in ((step,) if isinstance(step, Unit) else step)]


def network(config: InceptionConfig) -> Network:
  """The network.

  apply(params, mutable, image_BHWC) reads pixels from 0 to 255, of any size and with 1 or 3 channels, and returns a
  dict of float32 with 'features' B D and 'logits' B K. The logits have no bias: the inception score was published so
  (Salimans et al. 2016).
  """
  return functional.network(lambda rngs: _Inception(config, rngs))


class _Unit(nnx.Module):

  def __init__(self, inputs: int, unit: Unit, divisor: int, rngs: nnx.Rngs):
    self.conv = layers.Conv(inputs, unit.outputs // divisor, unit.size, unit.stride, unit.padding, bias=False,
                            rngs=rngs)
    self.bn = layers.FixedNorm(unit.outputs // divisor, EPSILON)

  def __call__(self, x_BHWC: Array) -> Array:
    return jax.nn.relu(self.bn(self.conv(x_BHWC)))


class _Branch(nnx.Module):

  def __init__(self, inputs: int, branch: Branch, divisor: int, rngs: nnx.Rngs):
    made = {}
    for step in branch:
      if not isinstance(step, str):
        beside = (step,) if isinstance(step, Unit) else step
        made.update({unit.name: _Unit(inputs, unit, divisor, rngs) for unit in beside})
        inputs = sum(unit.outputs for unit in beside) // divisor
    self.units, self.branch, self.outputs = nnx.Dict(made), branch, inputs

  def __call__(self, x_BHWC: Array) -> Array:
    for step in self.branch:
      if isinstance(step, str):
        x_BHWC = _pool(x_BHWC, step)
      else:
        beside = (step,) if isinstance(step, Unit) else step
        x_BHWC = jnp.concatenate([self.units[unit.name](x_BHWC) for unit in beside], axis=-1)
    return x_BHWC


def _pool(x_BHWC: Array, step: str) -> Array:
  if step == MEAN:
    return nnx.avg_pool(x_BHWC, (3, 3), (1, 1), 'SAME', count_include_pad=False)
  stride, padding = ((2, 2), 'VALID') if step == HALVE else ((1, 1), 'SAME')
  return nnx.max_pool(x_BHWC, (3, 3), stride, padding)


class _Inception(nnx.Module):

  def __init__(self, config: InceptionConfig, rngs: nnx.Rngs):
    self.stem = _Branch(3, STEM, config.divisor, rngs)
    blocks, inputs = {}, self.stem.outputs
    for name, branches in BLOCKS.items():
      made = [_Branch(inputs, branch, config.divisor, rngs) for branch in branches]
      blocks[name] = nnx.List(made)
      inputs = sum(branch.outputs for branch in made)
    self.blocks = nnx.Dict(blocks)
    self.fc = Linear(inputs, config.classes, use_bias=True, rngs=rngs)

  def __call__(self, image_BHWC: Array, key: Key | None = None) -> dict[str, Array]:
    del key  # nothing is random
    x_BHWC = (resizing.bilinear_tf1(layers.coloured(image_BHWC), SIDE, SIDE) - 128.0) / 128.0
    x_BHWC = self.stem(x_BHWC)
    for branches in self.blocks.values():
      x_BHWC = jnp.concatenate([branch(x_BHWC) for branch in branches], axis=-1)
    features_BD = jnp.mean(x_BHWC, axis=(1, 2))
    return {'features': features_BD, 'logits': matmul(features_BD, self.fc.kernel.get_value())}
