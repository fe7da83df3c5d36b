"""DiffAugment (Zhao et al. 2020), and the small changes of consistency regularisation."""

from collections.abc import Callable, Sequence
import dataclasses
import functools

import jax
import jax.numpy as jnp

from genjax import checks, sharding
from genjax.types import Array, Key, UserError


def brightness(x_BHWC: Array, key: Key) -> Array:
  """Adds an amount from -1/2 to 1/2."""
  return x_BHWC + jax.random.uniform(key, (len(x_BHWC), 1, 1, 1), minval=-0.5, maxval=0.5)


def saturation(x_BHWC: Array, key: Key) -> Array:
  """Multiplies the distance of each pixel's channels from their mean by 0 to 2."""
  mean_BHW1 = jnp.mean(x_BHWC, axis=3, keepdims=True)
  return mean_BHW1 + (x_BHWC - mean_BHW1) * jax.random.uniform(key, (len(x_BHWC), 1, 1, 1), maxval=2.0)


def contrast(x_BHWC: Array, key: Key) -> Array:
  """Multiplies the distance of all values from their mean by 1/2 to 3/2."""
  mean_B111 = jnp.mean(x_BHWC, axis=(1, 2, 3), keepdims=True)
  return mean_B111 + (x_BHWC - mean_B111) * jax.random.uniform(key, (len(x_BHWC), 1, 1, 1), minval=0.5, maxval=1.5)


def translation(x_BHWC: Array, key: Key, share: float = 0.125, mode: str = 'constant') -> Array:
  """Moves by whole pixels, up to a share of the side.

  Args:
    x_BHWC: pictures.
    key: random key.
    share: of the side.
    mode: what comes from outside: 'constant' is 0, the middle grey, and 'reflect' the mirror image.
  """
  batch, *size, channels = x_BHWC.shape
  most = [int(side * share + 0.5) for side in size]
  padded = jnp.pad(x_BHWC, ((0, 0), (most[0], most[0]), (most[1], most[1]), (0, 0)), mode=mode)
  keys = jax.random.split(key)
  row_B, column_B = (jax.random.randint(one, (batch,), 0, 2 * reach + 1) for one, reach in zip(keys, most))
  cut = lambda image, row, column: jax.lax.dynamic_slice(image, (row, column, 0), (*size, channels))
  return jax.vmap(cut)(padded, row_B, column_B)


def cutout(x_BHWC: Array, key: Key, share: float = 0.5) -> Array:
  """Sets a rectangle with this share of the sides to 0; its centre may lie at the edge of the picture."""
  keep = jnp.zeros((len(x_BHWC), 1, 1), bool)
  for axis, one in enumerate(jax.random.split(key)):
    side = x_BHWC.shape[axis + 1]
    length = int(side * share + 0.5)
    first_B = jax.random.randint(one, (len(x_BHWC),), 0, side + 1 - length % 2) - length // 2
    place_BS = jnp.arange(side)[None] - first_B[:, None]
    outside_BS = (place_BS < 0) | (place_BS >= length)
    keep = keep | jnp.expand_dims(outside_BS, 2 - axis)
  return jnp.where(keep[..., None], x_BHWC, 0.0)


def _colour(x_BHWC: Array, key: Key) -> Array:
  for change, one in zip((brightness, saturation, contrast), jax.random.split(key, 3)):
    x_BHWC = change(x_BHWC, one)
  return x_BHWC


POLICIES: dict[str, Callable[[Array, Key], Array]] = {'color': _colour, 'translation': translation, 'cutout': cutout}


@dataclasses.dataclass(frozen=True)
class DiffAugment:
  """Changes every picture: (pictures B H W C in [-1, 1], key) -> pictures.

  Attributes:
    policy: which changes, in this order: 'color' (brightness, saturation, contrast), 'translation', 'cutout'.

  Raises:
    UserError: an unknown change, or none.
  """

  policy: Sequence[str] = ('color', 'translation', 'cutout')

  def __post_init__(self):
    if not self.policy or set(self.policy) - set(POLICIES):
      raise UserError(f'config.objective.augment.policy must be some of {tuple(POLICIES)}, got {self.policy!r}')

  def __call__(self, x_BHWC: Array, key: Key) -> Array:
    """Changes pictures, each by numbers of its own."""
    x_BHWC = sharding.constrain(x_BHWC, 'batch', None, None, None, name='pictures B H W C')
    for name, one in zip(self.policy, jax.random.split(key, len(self.policy))):
      x_BHWC = POLICIES[name](x_BHWC, one)
    return x_BHWC


@dataclasses.dataclass(frozen=True)
class FlipAndShift:
  """What does not change the meaning of a picture (Zhang et al. 2020): a mirror image, and a shift by a few pixels.

  Attributes:
    share: largest shift, as a share of the side.
  """

  share: float = 0.125

  def __post_init__(self):
    checks.between(self, ('share',), at_least=0, below=1)

  def __call__(self, x_BHWC: Array, key: Key) -> Array:
    """Mirrors half of the pictures, and shifts all."""
    flip_key, shift_key = jax.random.split(key)
    x_BHWC = sharding.constrain(x_BHWC, 'batch', None, None, None, name='pictures B H W C')
    flipped = jax.random.bernoulli(flip_key, 0.5, (len(x_BHWC), 1, 1, 1))
    move = functools.partial(translation, share=self.share, mode='reflect')
    return move(jnp.where(flipped, x_BHWC[:, :, ::-1], x_BHWC), shift_key)
