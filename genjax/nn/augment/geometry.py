"""Affine changes of pictures by one resampling, as in ADA (Karras et al. 2020a, appendix B).

Matrices 3 x 3 map the place of a pixel of the result to the place in the picture where it comes from. Places are (x, y)
in pixels from the centre, x to the right and y down. Pictures go on behind their edges as mirror images.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from genjax import sharding
from genjax.types import Array

# Low-pass filter of the symlet of order 6 (Daubechies 1992), normalised to the sum 1. It is orthogonal to itself moved
# by two, so that pictures which are doubled and halved again come back exactly.
SYMLET = np.array([
  0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633, 0.4910559419267466,
  0.787641141030194, 0.3379294217276218, -0.07263752278646252, -0.021060292512300564, 0.04472490177066578,
  0.0017677118642428036, -0.007800708325034148]) / np.sqrt(2.0)
_CENTRE = 5  # its tap at the place of a pixel


def identity(count: int) -> Array:
  """`count` matrices that change nothing."""
  return jnp.broadcast_to(jnp.eye(3), (count, 3, 3))


def scale(x_B: Array, y_B: Array) -> Array:
  """Enlarges by these factors along both axes; -1 mirrors."""
  return _matrix((1.0 / x_B, 0.0, 0.0), (0.0, 1.0 / y_B, 0.0))


def rotate(angle_B: Array) -> Array:
  """Turns by an angle in radians, counterclockwise as seen."""
  cosine, sine = jnp.cos(angle_B), jnp.sin(angle_B)
  return _matrix((cosine, -sine, 0.0), (sine, cosine, 0.0))


def quarter_turns(count_B: Array) -> Array:
  """Turns by so many times 90 degrees, with exact entries."""
  cosine, sine = (jnp.asarray(values)[count_B.astype(jnp.int32) % 4] for values in ((1.0, 0.0, -1.0, 0.0),
                                                                                   (0.0, 1.0, 0.0, -1.0)))
  return _matrix((cosine, -sine, 0.0), (sine, cosine, 0.0))


def shift(x_B: Array, y_B: Array) -> Array:
  """Moves to the right and down by so many pixels."""
  return _matrix((jnp.ones_like(x_B), 0.0, -x_B), (0.0, 1.0, -y_B))


def join(first: Array, second: Array) -> Array:
  """The matrices of the change `first` of a picture followed by `second`."""
  return jnp.matmul(first, second, precision='highest')


def warp(x_BHWC: Array, matrix_BMM: Array) -> Array:
  """Changes pictures by affine maps.

  Pictures are doubled by a symlet, sampled between four neighbours on a grid of twice the resolution, and halved by the
  same filter, so that no detail folds back.

  Args:
    x_BHWC: pictures of at least two by two pixels.
    matrix_BMM: see above.
  """
  place = functools.partial(sharding.constrain, name='pictures B H W C')  # each device has whole pictures
  x_BHWC = place(x_BHWC, 'batch', None, None, None)
  batch, height, width, channels = x_BHWC.shape
  doubled = _double(_double(_mirrored(_mirrored(x_BHWC, 1), 2), 1), 2)
  taps = len(SYMLET)
  # Places of the grid, of which `_halve` reads 12 around each pixel
  y_H, x_W = ((jnp.arange(2 * size + taps - 2) - _CENTRE - (size - 1)) / 2 for size in (height, width))
  grid = jnp.stack(jnp.broadcast_arrays(x_W[None], y_H[:, None], jnp.ones(())), axis=-1)
  from_BHWM = jnp.einsum('bnm,hwm->bhwn', matrix_BMM[:, :2].astype(jnp.float32), grid, precision='highest')
  from_BHWM = 2.0 * from_BHWM + jnp.asarray([width - 1.0, height - 1.0])
  sampled = jax.vmap(_sample)(doubled, from_BHWM[..., 1], from_BHWM[..., 0])
  return place(_halve(_halve(sampled, 1, height), 2, width), 'batch', None, None, None).astype(x_BHWC.dtype)


def _matrix(*rows: tuple[Array | float, ...]) -> Array:
  """B 3 3 of the first two rows."""
  all_rows = (*rows, (0.0, 0.0, 1.0))
  entries = jnp.broadcast_arrays(*(jnp.asarray(entry, jnp.float32) for row in all_rows for entry in row))
  return jnp.stack(entries, axis=-1).reshape(*entries[0].shape, 3, 3)


def _mirrored(x: Array, axis: int) -> Array:
  """One period, 2 (n - 1) long, of what goes on as mirror images; the outermost pixels are not repeated."""
  return jnp.concatenate([x, jnp.flip(jax.lax.slice_in_dim(x, 1, x.shape[axis] - 1, axis=axis), axis)], axis)


def _double(x: Array, axis: int) -> Array:
  """Doubles the resolution of a period along an axis: the convolution of 2 SYMLET with pixels at even places."""
  size, half = x.shape[axis], len(SYMLET) // 2
  reach = half // 2
  periodic = jnp.pad(x, [(reach, reach) if index == axis else (0, 0) for index in range(x.ndim)], mode='wrap')
  part = lambda offset: jax.lax.slice_in_dim(periodic, reach + offset, reach + offset + size, axis=axis)
  even = sum((2.0 * float(SYMLET[2 * tap + 1]) * part(2 - tap) for tap in range(half)), start=jnp.zeros(()))
  odd = sum((2.0 * float(SYMLET[2 * tap]) * part(3 - tap) for tap in range(half)), start=jnp.zeros(()))
  return jnp.stack([even, odd], axis + 1).reshape(*x.shape[:axis], 2 * size, *x.shape[axis + 1:])


def _halve(x: Array, axis: int, size: int) -> Array:
  """Every second value of the correlation with SYMLET along an axis."""
  pairs = x.reshape(*x.shape[:axis], x.shape[axis] // 2, 2, *x.shape[axis + 1:])
  phases = [jax.lax.index_in_dim(pairs, phase, axis + 1, keepdims=False) for phase in range(2)]
  part = lambda tap: jax.lax.slice_in_dim(phases[tap % 2], tap // 2, tap // 2 + size, axis=axis)
  return sum((float(weight) * part(tap) for tap, weight in enumerate(SYMLET)), start=jnp.zeros(()))


def _sample(x_HWC: Array, row_PQ: Array, column_PQ: Array) -> Array:
  """Linear interpolation between four neighbours, of a picture that goes on periodically."""
  height, width, channels = x_HWC.shape
  closed = jnp.pad(x_HWC, ((0, 1), (0, 1), (0, 0)), mode='wrap')
  row_floor, column_floor = jnp.floor(row_PQ), jnp.floor(column_PQ)
  rows, columns = row_floor.astype(jnp.int32) % height, column_floor.astype(jnp.int32) % width
  window = jax.vmap(lambda row, column: jax.lax.dynamic_slice(closed, (row, column, 0), (2, 2, channels)))
  near = window(rows.reshape(-1), columns.reshape(-1)).reshape(*rows.shape, 2, 2, channels)
  down, right = (row_PQ - row_floor)[..., None, None], (column_PQ - column_floor)[..., None]
  beside = near[..., 0, :, :] * (1.0 - down) + near[..., 1, :, :] * down
  return beside[..., 0, :] * (1.0 - right) + beside[..., 1, :] * right
