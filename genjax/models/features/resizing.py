"""Resizing as published feature networks do it."""

import jax.numpy as jnp

from genjax.types import Array


def bilinear_tf1(image_BHWC: Array, height: int, width: int) -> Array:
  """Bilinear resizing of TensorFlow 1 (`tf.image.resize_bilinear` without `align_corners`), float32.

  Pixel i of the result is read at i * (old size / new size), not at the centre of the pixel, and no filter avoids
  aliasing. The published Frechet distances were measured with images resized so (Parmar et al. 2022).
  """
  x_BHWC = image_BHWC.astype(jnp.float32)
  return _along(_along(x_BHWC, width, axis=2), height, axis=1)


def _along(x: Array, size: int, axis: int) -> Array:
  old = x.shape[axis]
  place = jnp.arange(size, dtype=jnp.float32) * jnp.float32(old / size)
  low = place.astype(jnp.int32)
  shape = [1] * x.ndim
  shape[axis] = size
  weight = (place - low).reshape(shape)
  before, after = (jnp.take(x, index, axis=axis) for index in (low, jnp.minimum(low + 1, old - 1)))
  return before + (after - before) * weight
