"""Pixels of 8 bits <-> numbers around 0, as networks read and predict them."""

import jax.numpy as jnp

from genjax.types import Array

_MOST_PSNR = 100.0  # in dB, of images that are equal


def centred(image: Array) -> Array:
  """uint8 0 .. 255 -> float32 -1 .. 1."""
  return image.astype(jnp.float32) / 127.5 - 1.0


def as_image(out: Array) -> Array:
  """The inverse of `centred`, rounded; what is outside is cut off."""
  return jnp.round(127.5 * (jnp.clip(out, -1.0, 1.0) + 1.0)).astype(jnp.uint8)


def psnr(image: Array, other: Array) -> Array:
  """Peak signal-to-noise ratio in dB of each of uint8 images B ..., float32 B."""
  difference = (image.astype(jnp.float32) - other.astype(jnp.float32)) / 255
  square_B = jnp.mean(jnp.square(difference), axis=tuple(range(1, image.ndim)))
  return -10 * jnp.log10(jnp.maximum(square_B, 10 ** (-_MOST_PSNR / 10)))
