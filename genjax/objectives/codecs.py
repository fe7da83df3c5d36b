"""Codecs: maps from the columns of a batch to what is diffused, and back."""

from collections.abc import Callable, Mapping
import dataclasses

import jax.numpy as jnp

from genjax.types import Array, Key, Params


@dataclasses.dataclass(frozen=True)
class Codec:
  """The maps from data to the diffusion space and back.

  Attributes:
    encode: (frozen parameters, columns of a batch, key) -> x_BX float32 of a scale near 1. Without a key it draws
      nothing: it gives the mean where a posterior is given.
    decode: (frozen parameters, x_BX) -> columns of samples.
    bounded: whether x_BX ends at -1 and 1, as pixels do; learned variances ask.
  """

  encode: Callable[[Params, Mapping[str, Array], Key | None], Array]
  decode: Callable[[Params, Array], dict[str, Array]]
  bounded: bool = False


def pixels(column: str = 'image') -> Codec:
  """The codec of uint8 images, or clips, in `column` <-> [-1, 1]."""

  def decode(frozen: Params, x_BX: Array) -> dict[str, Array]:
    return {column: jnp.round(127.5 * (jnp.clip(x_BX, -1.0, 1.0) + 1.0)).astype(jnp.uint8)}

  return Codec(lambda frozen, columns, key: columns[column].astype(jnp.float32) / 127.5 - 1.0, decode, bounded=True)


def identity(column: str = 'image') -> Codec:
  """The codec of data that is diffused directly: float32 latents with a scale near 1."""
  return Codec(lambda frozen, columns, key: columns[column], lambda frozen, x_BX: {column: x_BX})
