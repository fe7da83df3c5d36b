"""Affine changes of colours, as in ADA (Karras et al. 2020a, appendix B).

Matrices 4 x 4 map the colour (red, green, blue, 1) of a pixel to a new one. Colours lie around 0, from -1 to 1. Luma is
the part of a colour along the grey axis.
"""

import jax.numpy as jnp
import numpy as np

from genjax.types import Array

CHANNELS = (1, 3)  # of pictures that it changes
_GREY = np.array([1.0, 1.0, 1.0]) / np.sqrt(3.0)  # the axis of luma
_LUMA = np.outer(_GREY, _GREY)
_TURN = np.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / np.sqrt(3.0)  # x -> grey axis x (cross) x


def identity(count: int) -> Array:
  """`count` matrices that change nothing."""
  return jnp.broadcast_to(jnp.eye(4), (count, 4, 4))


def brighten(amount_B: Array) -> Array:
  """Adds an amount to all channels."""
  return _affine(jnp.broadcast_to(jnp.eye(3), (*amount_B.shape, 3, 3)), amount_B)


def stretch(factor_B: Array) -> Array:
  """Multiplies all channels: contrast."""
  return _affine(factor_B[:, None, None] * jnp.eye(3))


def flip_luma(flipped_B: Array) -> Array:
  """Changes the sign of luma, where it is 1 and not 0, and leaves hue and saturation."""
  return _affine(jnp.eye(3) - 2.0 * flipped_B[:, None, None] * _LUMA)


def turn_hue(angle_B: Array) -> Array:
  """Rotates colours about the grey axis by an angle in radians (Rodrigues' formula)."""
  cosine, sine = jnp.cos(angle_B)[:, None, None], jnp.sin(angle_B)[:, None, None]
  return _affine(cosine * jnp.eye(3) + sine * _TURN + (1.0 - cosine) * _LUMA)


def saturate(factor_B: Array) -> Array:
  """Multiplies the distance from the grey axis."""
  return _affine(jnp.asarray(_LUMA) + factor_B[:, None, None] * (jnp.eye(3) - _LUMA))


def join(first: Array, second: Array) -> Array:
  """The matrices of the change `first` followed by `second`."""
  return jnp.matmul(second, first, precision='highest')


def recolour(x_BHWC: Array, matrix_BCC: Array) -> Array:
  """Changes colours of pictures with three channels. One channel is what becomes of grey, its mean over channels."""
  if x_BHWC.shape[-1] == 1:
    mean_BC = jnp.mean(matrix_BCC[:, :3], axis=1)
    factor_B, added_B = jnp.sum(mean_BC[:, :3], axis=1), mean_BC[:, 3]
    return x_BHWC * factor_B[:, None, None, None] + added_B[:, None, None, None]
  # Three multiplications and additions a channel; a matrix product would have reduced precision on some devices
  turned = sum((x_BHWC[..., index:index + 1] * matrix_BCC[:, None, None, :3, index] for index in range(3)),
               start=jnp.zeros(()))
  return turned + matrix_BCC[:, None, None, :3, 3]


def _affine(matrix_BCC: Array, added_B: Array | None = None) -> Array:
  """B 4 4 of linear maps of colours, and an amount that is added."""
  count = matrix_BCC.shape[0]
  added_BC1 = jnp.zeros((count, 3, 1)) if added_B is None else jnp.broadcast_to(added_B[:, None, None], (count, 3, 1))
  last = jnp.broadcast_to(jnp.asarray([[0.0, 0.0, 0.0, 1.0]]), (count, 1, 4))
  return jnp.concatenate([jnp.concatenate([matrix_BCC, added_BC1], axis=2), last], axis=1)
