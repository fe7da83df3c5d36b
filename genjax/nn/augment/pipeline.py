"""The augmentations 'bgc' of ADA (Karras et al. 2020a, appendix B): pixel blitting, geometry, colour; and its cutout.

Each one is applied with the probability p, the strength. All of geometry are then one map of places, all of colour one
map of colours. The image filters and the noise of the published code, which ADA leaves out by default, are not here.
"""

from collections.abc import Callable
import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from genjax import checks
from genjax.nn.augment import colour, geometry
from genjax.types import Array, Key, UserError

GROUPS = {'b': 'pixel blitting', 'g': 'geometry', 'c': 'colour'}


class Step(NamedTuple):
  """One augmentation: option of its probability, draw(transforms, key, count, (height, width)) -> parameters B ..., the
  parameter that changes nothing, and the matrices of parameters."""

  option: str
  draw: Callable[[Any, Key, int, tuple[int, int]], Array]
  neutral: float
  matrix: Callable[[Array], Array]


def _pixels(share_B2: Array, size: tuple[int, int]) -> Array:
  """Shares of width and height in pixels."""
  return share_B2 * jnp.asarray([size[1], size[0]], jnp.float32)


def _symmetric(key: Key, *shape: int) -> Array:
  return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)


def _angle(transforms: Any, key: Key, count: int, size: tuple[int, int]) -> Array:
  return math.pi * transforms.rotate_most * _symmetric(key, count)


# In the order of the paper
GEOMETRY: dict[str, Step] = {
  'flip': Step('flip', lambda own, key, count, size: jax.random.bernoulli(key, 0.5, (count,)).astype(jnp.float32), 0.0,
               lambda flipped_B: geometry.scale(1.0 - 2.0 * flipped_B, jnp.ones_like(flipped_B))),
  'quarter': Step('quarter', lambda own, key, count, size: jax.random.randint(key, (count,), 0, 4).astype(jnp.float32),
                  0.0, geometry.quarter_turns),
  'shift': Step('shift', lambda own, key, count, size: jnp.round(_pixels(
    own.shift_most * _symmetric(key, count, 2), size)), 0.0, lambda by_B2: geometry.shift(by_B2[:, 0], by_B2[:, 1])),
  'scale': Step('scale', lambda own, key, count, size: jnp.exp2(own.scale_sd * jax.random.normal(key, (count,))), 1.0,
                lambda factor_B: geometry.scale(factor_B, factor_B)),
  'rotate_before': Step('rotate', _angle, 0.0, geometry.rotate),
  'aspect': Step('aspect', lambda own, key, count, size: jnp.exp2(own.aspect_sd * jax.random.normal(key, (count,))),
                 1.0, lambda factor_B: geometry.scale(factor_B, 1.0 / factor_B)),
  'rotate_after': Step('rotate', _angle, 0.0, geometry.rotate),
  'move': Step('move', lambda own, key, count, size: _pixels(own.move_sd * jax.random.normal(key, (count, 2)), size),
               0.0, lambda by_B2: geometry.shift(by_B2[:, 0], by_B2[:, 1])),
}
COLOUR: dict[str, Step] = {
  'brightness': Step('brightness', lambda own, key, count, size: own.brightness_sd * jax.random.normal(key, (count,)),
                     0.0, colour.brighten),
  'contrast': Step('contrast', lambda own, key, count, size: jnp.exp2(
    own.contrast_sd * jax.random.normal(key, (count,))), 1.0, colour.stretch),
  'luma': Step('luma', lambda own, key, count, size: jax.random.bernoulli(key, 0.5, (count,)).astype(jnp.float32), 0.0,
               colour.flip_luma),
  'hue': Step('hue', lambda own, key, count, size: math.pi * own.hue_most * _symmetric(key, count), 0.0,
              colour.turn_hue),
  'saturation': Step('saturation', lambda own, key, count, size: jnp.exp2(
    own.saturation_sd * jax.random.normal(key, (count,))), 1.0, colour.saturate),
}
_GROUP = {**dict.fromkeys(('flip', 'quarter', 'shift'), 'b'),
          **dict.fromkeys(('scale', 'rotate', 'aspect', 'move'), 'g'),
          **dict.fromkeys((step.option for step in COLOUR.values()), 'c')}  # option -> group


@dataclasses.dataclass(frozen=True)
class Transforms:
  """Random changes of pictures (pictures B H W C in [-1, 1], strength, key) -> pictures.

  Attributes:
    groups: letters of the groups that are applied: b (pixel blitting), g (geometry), c (colour).
    flip: factor of the probability of a mirror image, which changes half of the pictures.
    quarter: of a turn by 0 to 3 times 90 degrees.
    shift: of a shift by whole pixels.
    scale: of a change of size.
    rotate: of a rotation, before or after the change of aspect.
    aspect: of a change of aspect, along both axes.
    move: of a shift by any distance.
    brightness: of an amount added to all channels.
    contrast: of a factor of all channels.
    luma: of a change of the sign of luma, which changes half of the pictures.
    hue: of a rotation of colours about the grey axis.
    saturation: of a factor of the distance from the grey axis.
    cutout: of a rectangle that becomes 0, the middle grey, at last; it is in no group, and 0 in ADA.
    shift_most: largest shift by whole pixels, as a share of the side.
    scale_sd: standard deviation of the binary logarithm of the size.
    rotate_most: largest rotation; 1 is half a turn in both directions.
    aspect_sd: standard deviation of the binary logarithm of the factor of the width, which divides the height.
    move_sd: standard deviation of a shift, as a share of the side.
    brightness_sd: standard deviation of the added amount; black to white is 2.
    contrast_sd: standard deviation of the binary logarithm of the factor.
    hue_most: largest rotation of colours; 1 is half a turn in both directions.
    saturation_sd: standard deviation of the binary logarithm of the factor.
    cutout_share: sides of the rectangle, as a share of those of the picture.

  Raises:
    UserError: an unknown group, or a number out of range.
  """

  groups: str = 'bgc'
  flip: float = 1.0
  quarter: float = 1.0
  shift: float = 1.0
  scale: float = 1.0
  rotate: float = 1.0
  aspect: float = 1.0
  move: float = 1.0
  brightness: float = 1.0
  contrast: float = 1.0
  luma: float = 1.0
  hue: float = 1.0
  saturation: float = 1.0
  cutout: float = 0.0
  shift_most: float = 0.125
  scale_sd: float = 0.2
  rotate_most: float = 1.0
  aspect_sd: float = 0.2
  move_sd: float = 0.125
  brightness_sd: float = 0.2
  contrast_sd: float = 0.5
  hue_most: float = 1.0
  saturation_sd: float = 1.0
  cutout_share: float = 0.5

  def __post_init__(self):
    if not self.groups or set(self.groups) - set(GROUPS):
      raise UserError(f'config.objective.augment.groups must be letters of {GROUPS}, such as "bgc", got '
                      f'{self.groups!r}')
    checks.between(self, tuple(field.name for field in dataclasses.fields(self) if field.name != 'groups'), at_least=0)
    if not (self.uses(GEOMETRY) or self.uses(COLOUR) or self.cutout):
      raise UserError(f'config.objective.augment.groups={self.groups!r} has no transform left, because the factors of '
                      'all are 0; set one, or config.objective.augment.name to "none"')

  def __call__(self, x_BHWC: Array, strength: Array, key: Key) -> Array:
    """Changes pictures, each transform with the probability `strength`."""
    if x_BHWC.shape[-1] not in colour.CHANNELS and self.uses(COLOUR):
      raise UserError(f'augmentations of colour change pictures with {colour.CHANNELS} channels, got '
                      f'{x_BHWC.shape[-1]}; set config.objective.augment.groups to "bg"')
    size = x_BHWC.shape[1], x_BHWC.shape[2]
    place_key, colour_key = jax.random.split(key)
    if self.uses(GEOMETRY):
      x_BHWC = geometry.warp(x_BHWC, self.places(strength, place_key, len(x_BHWC), size))
    if self.uses(COLOUR):
      x_BHWC = colour.recolour(x_BHWC, self.colours(strength, colour_key, len(x_BHWC), size))
    if self.cutout:
      x_BHWC = self._cut(x_BHWC, strength, jax.random.fold_in(key, 2))
    return x_BHWC

  def _cut(self, x_BHWC: Array, strength: Array, key: Key) -> Array:
    """Sets a rectangle to 0. Its centre is anywhere in the picture; what lies outside is lost."""
    chosen_key, centre_key = jax.random.split(key)
    chosen_B = jax.random.uniform(chosen_key, (len(x_BHWC),)) < self.cutout * jnp.asarray(strength, jnp.float32)
    centre_B2 = jax.random.uniform(centre_key, (len(x_BHWC), 2))
    inside = chosen_B[:, None, None]
    for axis in (1, 2):
      place_S = (jnp.arange(x_BHWC.shape[axis]) + 0.5) / x_BHWC.shape[axis]
      near_BS = jnp.abs(place_S - centre_B2[:, axis - 1:axis]) < 0.5 * self.cutout_share
      inside = inside & jnp.expand_dims(near_BS, 3 - axis)
    return jnp.where(inside[..., None], 0.0, x_BHWC)

  def places(self, strength: Array, key: Key, count: int, size: tuple[int, int]) -> Array:
    """Random maps of places for pictures of size (height, width), see `geometry.warp`."""
    total = geometry.identity(count)
    for matrix in self._matrices(GEOMETRY, strength, key, count, size):
      total = geometry.join(total, matrix)
    return total

  def colours(self, strength: Array, key: Key, count: int, size: tuple[int, int]) -> Array:
    """Random maps of colours, see `colour.recolour`."""
    total = colour.identity(count)
    for matrix in self._matrices(COLOUR, strength, key, count, size):
      total = colour.join(total, matrix)
    return total

  def drawn(self, steps: dict[str, Step], strength: Array, key: Key, count: int,
            size: tuple[int, int]) -> dict[str, Array]:
    """The random parameters of all transforms in use, by name, in their order."""
    parameters = {}
    for index, (name, step) in enumerate(steps.items()):
      if name not in self.uses(steps):
        continue
      chosen_key, value_key = jax.random.split(jax.random.fold_in(key, index))
      probability = getattr(self, step.option) * jnp.asarray(strength, jnp.float32)
      if step.option == 'rotate':  # before or after, together with the probability that was asked for
        probability = 1.0 - jnp.sqrt(jnp.clip(1.0 - probability, 0.0, 1.0))
      value = step.draw(self, value_key, count, size)
      chosen = jax.random.uniform(chosen_key, (count,) + (1,) * (value.ndim - 1)) < probability
      parameters[name] = jnp.where(chosen, value, step.neutral)
    return parameters

  def _matrices(self, steps: dict[str, Step], strength: Array, key: Key, count: int,
                size: tuple[int, int]) -> list[Array]:
    return [steps[name].matrix(value) for name, value in self.drawn(steps, strength, key, count, size).items()]

  def uses(self, steps: dict[str, Step]) -> list[str]:
    """Names of the transforms, of `GEOMETRY` or `COLOUR`, that are ever applied."""
    return [name for name, step in steps.items()
            if _GROUP[step.option] in self.groups and getattr(self, step.option) > 0]
