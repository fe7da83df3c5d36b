"""Resizing as published feature networks do it."""

import jax
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


# Pillow's name of a filter -> that of JAX
FILTERS = {'bilinear': 'linear', 'bicubic': 'cubic', 'lanczos': 'lanczos3', 'nearest': 'nearest'}


def antialiased(image_BHWC: Array, height: int, width: int, filter: str, crop: bool = False) -> Array:
  """Resizing as Pillow does it: a shrunk image is filtered first. Pixels from 0 to 255 in, rounded ones out, float32.

  Args:
    image_BHWC: images.
    height, width: of the results.
    filter: one of `FILTERS`.
    crop: cut the middle out of an image with another aspect ratio, after its shorter side has got its size.
  """
  _, old_height, old_width, _ = image_BHWC.shape
  if (old_height, old_width) == (height, width):
    return image_BHWC.astype(jnp.float32)
  inner = height, width
  if crop:
    # In whole numbers: a factor that is rounded would lose a pixel where the product is whole.
    by_height = height * old_width >= width * old_height
    inner = (height, old_width * height // old_height) if by_height else (old_height * width // old_width, width)
  batch, channels = image_BHWC.shape[0], image_BHWC.shape[3]
  x_BHWC = image_BHWC.astype(jnp.float32)
  for shape in ((batch, old_height, inner[1], channels), (batch, *inner, channels)):  # Pillow rounds twice
    x_BHWC = jax.image.resize(x_BHWC, shape, FILTERS[filter], antialias=filter != 'nearest')
    x_BHWC = jnp.clip(jnp.round(x_BHWC), 0.0, 255.0)
  top, left = (inner[0] - height) // 2, (inner[1] - width) // 2
  return x_BHWC[:, top:top + height, left:left + width]


def resize_name(filter: str, height: int, width: int, crop: bool = False) -> str:
  """How `antialiased` resizes, for cards of metrics."""
  side = f'{height}' if height == width else f'{height}x{width}'
  return f'{filter} antialias {side}{" crop" if crop else ""}'
