"""Codecs: maps from the columns of a batch to what is diffused, and back."""

from collections.abc import Callable, Mapping
import dataclasses
import functools

import jax.numpy as jnp

from genjax.objectives.kinds import Autoencoder
from genjax.objectives.pixels import as_image, centred
from genjax.objectives.vae import draw_posterior
from genjax.types import Array, Key, Params, Tree


@dataclasses.dataclass(frozen=True)
class Codec:
  """The maps from data to the diffusion space and back.

  Attributes:
    encode: (frozen parameters, columns of a batch, key) -> x_BX float32 of a scale near 1. Without a key it draws
      nothing: it gives the mean where a posterior is given.
    decode: (frozen parameters, x_BX) -> columns of samples.
    bounded: whether x_BX ends at -1 and 1, as pixels do; learned variances ask.
    exact: (frozen parameters, x_BX) -> float columns of pixels around [-1, 1], which `decode` cuts off and rounds; None
      where `decode` gives other columns.
    encode_pictures: (frozen parameters, what `decode` gives in its column) -> x_BX without a draw, where batches may
      hold something else; None where it is not known.
  """

  encode: Callable[[Params, Mapping[str, Array], Key | None], Array]
  decode: Callable[[Params, Array], dict[str, Array]]
  bounded: bool = False
  exact: Callable[[Params, Array], dict[str, Array]] | None = None
  encode_pictures: Callable[[Params, Array], Array] | None = None

  def sampled(self, frozen: Params, x_BX: Array, exact: bool = False) -> tuple[dict[str, Array], Array]:
    """Columns of samples, and which rows are finite, bool B.

    Args:
      frozen: frozen parameters.
      x_BX: what was generated.
      exact: whether pixels are given as float32 from 0 to 1, where `decode` rounds them to uint8.
    """
    if self.exact is None:
      return self.decode(frozen, x_BX), _finite(x_BX)
    values = self.exact(frozen, x_BX)
    finite_B = functools.reduce(jnp.logical_and, map(_finite, values.values()))
    shown = (lambda value: 0.5 * jnp.clip(value.astype(jnp.float32), -1.0, 1.0) + 0.5) if exact else as_image
    return {column: shown(value) for column, value in values.items()}, finite_B


def _finite(x_BX: Array) -> Array:
  """Which rows are finite."""
  return jnp.all(jnp.isfinite(x_BX), axis=tuple(range(1, x_BX.ndim)))


def pixels(column: str = 'image') -> Codec:
  """The codec of uint8 images, or clips, in `column` <-> [-1, 1]."""

  def decode(frozen: Params, x_BX: Array) -> dict[str, Array]:
    return {column: as_image(x_BX)}

  return Codec(lambda frozen, columns, key: centred(columns[column]), decode, bounded=True,
               exact=lambda frozen, x_BX: {column: x_BX})


def sound(column: str = 'sound', scale: float = 1.0) -> Codec:
  """The codec of sounds in -1 .. 1, float32 B S or B S C in `column` <-> x_BSC; one channel has an axis there, too.

  Args:
    column: of the sounds.
    scale: what they are multiplied by, for data whose deviation is far from 1: speech has about 0.1.
  """

  def encode(frozen: Params, columns: Mapping[str, Array], key: Key | None) -> Array:
    x_BX = columns[column] * scale
    return x_BX[..., None] if x_BX.ndim == 2 else x_BX

  def decode(frozen: Params, x_BSC: Array) -> dict[str, Array]:
    sound_BSC = jnp.clip(x_BSC / scale, -1.0, 1.0)
    return {column: sound_BSC[..., 0] if sound_BSC.shape[-1] == 1 else sound_BSC}

  return Codec(encode, decode, bounded=scale == 1.0)


def identity(column: str = 'image') -> Codec:
  """The codec of data that is diffused directly: float32 latents with a scale near 1."""
  return Codec(lambda frozen, columns, key: columns[column], lambda frozen, x_BX: {column: x_BX})


def latents(name: str, autoencoder: Autoencoder) -> Codec:
  """The codec of an autoencoder that a run stands on: images <-> latents of mean 0 and deviation 1.

  Args:
    name: of the frozen group with its parameters.
    autoencoder: its functions.
  """

  def encode(frozen: Params, columns: Mapping[str, Array], key: Key | None) -> Array:
    mean_BX, log_variance_BX = autoencoder.encode(frozen[name], columns[autoencoder.column])
    return _normalised(autoencoder, frozen[name], mean_BX, log_variance_BX, key)

  return Codec(encode, _decoder(name, autoencoder), exact=_exact(name, autoencoder),
               encode_pictures=_encoder(name, autoencoder))


def encoded(name: str, autoencoder: Autoencoder) -> Codec:
  """The codec of latents that were encoded before: of the columns `mean_column` and `log_variance_column` it makes what
  `latents` makes of images, with the same draws. Samples are decoded.

  Args:
    name, autoencoder: as for `latents`.
  """
  column = autoencoder.column

  def encode(frozen: Params, columns: Mapping[str, Array], key: Key | None) -> Array:
    mean_BX = columns[mean_column(column)].astype(jnp.float32)
    log_variance_BX = columns[log_variance_column(column)].astype(jnp.float32)
    return _normalised(autoencoder, frozen[name], mean_BX, log_variance_BX, key)

  return Codec(encode, _decoder(name, autoencoder), exact=_exact(name, autoencoder),
               encode_pictures=_encoder(name, autoencoder))


def mean_column(column: str) -> str:
  """The column with the means of the posteriors of an encoded column."""
  return f'{column}_mean'


def log_variance_column(column: str) -> str:
  """The column with the log variances of the posteriors of an encoded column."""
  return f'{column}_log_variance'


def _encoder(name: str, autoencoder: Autoencoder) -> Callable[[Params, Array], Array]:
  def encode(frozen: Params, rows: Array) -> Array:
    return _normalised(autoencoder, frozen[name], *autoencoder.encode(frozen[name], rows), None)

  return encode


def _decoder(name: str, autoencoder: Autoencoder) -> Callable[[Params, Array], dict[str, Array]]:
  def decode(frozen: Params, x_BX: Array) -> dict[str, Array]:
    shift, scale = autoencoder.moments(frozen[name])
    return {autoencoder.column: autoencoder.decode(frozen[name], x_BX / scale + shift)}

  return decode


def _exact(name: str, autoencoder: Autoencoder) -> Callable[[Params, Array], dict[str, Array]] | None:
  """The decoder without rounding, of an autoencoder that offers it."""
  if autoencoder.pixels is None:
    return None
  pixels_of = autoencoder.pixels

  def decode(frozen: Params, x_BX: Array) -> dict[str, Array]:
    shift, scale = autoencoder.moments(frozen[name])
    return {autoencoder.column: pixels_of(frozen[name], x_BX / scale + shift)}

  return decode


def _normalised(autoencoder: Autoencoder, group: Tree, mean_BX: Array, log_variance_BX: Array,
                key: Key | None) -> Array:
  """A draw from the posterior, or without a key its mean, shifted and scaled."""
  z_BX = mean_BX if key is None else draw_posterior(mean_BX, log_variance_BX, key)
  shift, scale = autoencoder.moments(group)
  return (z_BX - shift) * scale
