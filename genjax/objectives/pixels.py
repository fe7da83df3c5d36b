"""Pixels of 8 bits <-> numbers around 0, as networks read and predict them; and a blur of pictures."""

import jax
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


def blurred(x_BHWC: Array, sigma: Array, most: float) -> Array:
  """Pictures filtered along both axes by the taps 2^-(t / sigma)^2 for |t| <= floor(3 sigma), of sum 1, with zeros
  outside of the picture: the blur of NVlabs/stylegan3 (training/loss.py). Below a third of a pixel it is none.

  Args:
    x_BHWC: pictures.
    sigma: in pixels; it may change from step to step.
    most: its largest value, a constant.
  """
  reach = jnp.floor(3.0 * sigma)

  def taps(offset: Array) -> Array:
    return jnp.where(jnp.abs(offset) <= reach, jnp.exp2(-jnp.square(offset / jnp.maximum(sigma, 1e-6))), 0.0)

  def filtered(x_BHWC: Array) -> Array:
    largest = int(3.0 * most)
    whole = jnp.sum(taps(jnp.arange(-largest, largest + 1)))
    for axis, read in ((1, 'ph,bhwc->bpwc'), (2, 'pw,bhwc->bhpc')):
      place_S = jnp.arange(x_BHWC.shape[axis])
      x_BHWC = jnp.einsum(read, taps(place_S[:, None] - place_S) / whole, x_BHWC, precision='highest')
    return x_BHWC

  return jax.lax.cond(reach > 0, filtered, lambda x_BHWC: x_BHWC, x_BHWC)
