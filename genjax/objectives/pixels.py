"""Pixels of 8 bits <-> numbers around 0, as networks read and predict them."""

import jax.numpy as jnp

from genjax.types import Array


def centred(image: Array) -> Array:
  """uint8 0 .. 255 -> float32 -1 .. 1."""
  return image.astype(jnp.float32) / 127.5 - 1.0


def as_image(out: Array) -> Array:
  """The inverse of `centred`, rounded; what is outside is cut off."""
  return jnp.round(127.5 * (jnp.clip(out, -1.0, 1.0) + 1.0)).astype(jnp.uint8)
