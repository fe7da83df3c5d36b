"""Packs of samples that a discriminator judges together (Lin et al. 2018)."""

import jax.numpy as jnp

from genjax.types import Array, UserError


def pack(x: Array, size: int) -> Array:
  """Joins `size` neighbouring examples along the last axis: B ... C -> B/p ... pC (Lin et al. 2018, section 3).

  Raises:
    UserError: the number of examples is no multiple of `size`.
  """
  if size == 1:
    return x
  if len(x) % size:
    raise UserError(
      f'a discriminator with pack={size} needs batch sizes that are multiples of {size}, got {len(x)}; '
      'change config.batch_size or pack')
  parts = x.reshape(-1, size, *x.shape[1:])
  return jnp.moveaxis(parts, 1, -2).reshape(len(parts), *x.shape[1:-1], -1)
