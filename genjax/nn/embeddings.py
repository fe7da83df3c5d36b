"""Embeddings of times, labels and positions, and the conversion of images to patches."""

import math

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from genjax import reduction
from genjax.nn.linear import Linear
from genjax.types import Array, Key

_NORMAL = nnx.initializers.normal(0.02)


def timestep_embedding(t_B: Array, width: int, shift: int = 0, longest: float = 10_000.0) -> Array:
  """Fourier features (cosines, then sines) of times; frequencies fall geometrically from 1 to 1 / longest.

  Args:
    t_B: times in [0, 1000].
    width: number of features, even.
    shift: frequency i is longest^(-i / (width/2 - shift)). DDPM uses 1, which makes the last frequency 1 / longest; DiT
      uses 0.
    longest: wavelength of the slowest feature divided by 2 pi.

  Returns:
    float32 of shape B, width.
  """
  half = width // 2
  frequency = longest ** (-np.arange(half, dtype=np.float32) / (half - shift))
  angle = t_B.astype(jnp.float32)[:, None] * frequency
  return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


class TimestepEmbedding(nnx.Module):
  """Fourier features and a two-layer MLP with SiLU.

  Args:
    features: number of Fourier features.
    width: hidden and output width D.
    shift: see `timestep_embedding`.
    kernel_init: initializer of both kernels.
  """

  def __init__(self, features: int, width: int, *, shift: int = 0, kernel_init=_NORMAL,
               dtype=jnp.float32, rngs: nnx.Rngs):
    self.features, self.shift = features, shift
    self.up = Linear(features, width, kernel_init=kernel_init, dtype=dtype, rngs=rngs)
    self.down = Linear(width, width, kernel_init=kernel_init, dtype=dtype, rngs=rngs)

  def __call__(self, t_B: Array, key: Key | None = None) -> Array:
    return self.down(jax.nn.silu(self.up(timestep_embedding(t_B, self.features, self.shift))))


class Embed(nnx.Embed):
  """An embedding table as in `flax.nnx.Embed`. The gradient of the table is float32."""

  reads_unreduced = True

  def __call__(self, inputs: Array, out_sharding: None = None) -> Array:
    del out_sharding
    table = self.embedding.get_value()
    return reduction.take(table, inputs, self.dtype or table.dtype)


class LabelEmbedding(nnx.Module):
  """An embedding table with one row per class and a last row for "no label" (index `num_classes`).

  The caller drops labels in training by replacing them with `num_classes`.

  Args:
    num_classes: number of classes.
    width: model width D.
    std: standard deviation of the initial table; DiT uses 0.02.
  """

  def __init__(self, num_classes: int, width: int, *, std: float = 0.02, dtype=jnp.float32, rngs: nnx.Rngs):
    self.table = Embed(num_classes + 1, width, embedding_init=nnx.initializers.normal(std), dtype=dtype, rngs=rngs)

  def __call__(self, label_B: Array, key: Key | None = None) -> Array:
    return self.table(label_B)


def sincos(position_T: np.ndarray, width: int, shift: int = 0) -> np.ndarray:
  """Sinusoidal positions T D in float64 (Vaswani et al. 2017, section 3.5), all sines before all cosines.

  Frequency i is 10000^(-i / (D/2 - shift)). Whisper uses a shift of 1, which makes the last one 1 / 10000. An odd
  width D has one more sine.
  """
  frequency = 10_000.0 ** (-np.arange(-(-width // 2)) / (width / 2 - shift))
  angle = position_T[:, None] * frequency
  return np.concatenate([np.sin(angle), np.cos(angle[:, :width // 2])], axis=-1)


def sincos_positions(rows: int, columns: int, width: int, span: float = 0.0) -> np.ndarray:
  """Sinusoidal 2D positions (Vaswani et al. 2017 per axis, in the layout of MAE and DiT).

  The first half of the channels encodes the column, the second half the row; in each half, sines come before cosines.

  Args:
    rows, columns: size of the grid of tokens.
    width: model width D, a multiple of 4.
    span: the positions along each axis lie evenly in 0 .. span; 0 for whole numbers.

  Returns:
    float32 of shape (rows * columns, D), row by row.

  Raises:
    ValueError: `width` is not a multiple of 4.
  """
  if width % 4:
    raise ValueError(f'2D positions need a width that is a multiple of 4, got {width}')
  row, column = np.divmod(np.arange(rows * columns), columns)
  if span:
    row, column = row * (span / rows), column * (span / columns)
  return np.concatenate([sincos(column, width // 2), sincos(row, width // 2)], axis=-1).astype(np.float32)


class RelativeBias(nnx.Module):
  """Relative position bias: one learned number per head and distance class, added to the attention scores (T5).

  Source: Raffel et al. 2020, section 2.1.

  Args:
    heads: H.
    buckets: number of distance classes, see `relative_buckets`.
    distance: all distances from here on share one class.
    bidirectional: whether keys before and after the query have different classes; else all keys after the query count
      as distance 0.
    init: initializer of the table.
  """

  def __init__(self, heads: int, buckets: int, distance: int, bidirectional: bool, *, init=_NORMAL, rngs: nnx.Rngs):
    self.table = Embed(buckets, heads, embedding_init=init, rngs=rngs)
    self.buckets, self.distance, self.bidirectional = buckets, distance, bidirectional

  def __call__(self, query_T: Array, key_S: Array, key: Key | None = None) -> Array:
    """The float32 bias H T S for queries and keys at these positions."""
    bucket_TS = relative_buckets(key_S - query_T[:, None], self.buckets, self.distance, self.bidirectional)
    return jnp.moveaxis(self.table(bucket_TS), -1, 0).astype(jnp.float32)


def relative_buckets(offset_TS: Array, buckets: int, distance: int, bidirectional: bool) -> Array:
  """Distance classes as in T5's code: half of them are single distances, the others grow up to `distance`.

  Args:
    offset_TS: key position minus query position.
    buckets: number of classes; with `bidirectional`, the second half is for keys after the query.
    distance, bidirectional: see `RelativeBias`.

  Raises:
    ValueError: there are too few buckets, or `distance` is too small for them.
  """
  share = buckets // 2 if bidirectional else buckets
  exact = share // 2
  if exact < 1 or distance <= exact:
    raise ValueError(
      f'relative positions need 2 buckets on a side and a distance above half of the buckets of a side, got '
      f'buckets={buckets} and distance={distance}')
  # In float32 as in the published code, so that rounding at a class boundary matches the published weights.
  steps = np.arange(1, distance + 1, dtype=np.float32)
  grown = exact + (np.log(steps / exact) / math.log(distance / exact) * (share - exact)).astype(np.int32)
  table = np.concatenate([[0], np.where(steps < exact, steps, np.minimum(grown, share - 1))]).astype(np.int32)
  size_TS = jnp.abs(offset_TS) if bidirectional else jnp.maximum(-offset_TS, 0)
  bucket_TS = jnp.asarray(table)[jnp.minimum(size_TS, distance)]
  return bucket_TS + jnp.where(offset_TS > 0, share, 0) if bidirectional else bucket_TS


def patchify(x_BHWC: Array, patch: int) -> Array:
  """Splits images into sequences x_BTP of patches, row by row; a patch has P = (row, column, channel) elements."""
  batch, height, width, channels = x_BHWC.shape
  x = x_BHWC.reshape(batch, height // patch, patch, width // patch, patch, channels)
  return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, patch * patch * channels)


def unpatchify(x_BTP: Array, patch: int, height: int, width: int) -> Array:
  """The inverse of `patchify` for images of height by width pixels."""
  batch = x_BTP.shape[0]
  x = x_BTP.reshape(batch, height // patch, width // patch, patch, patch, -1)
  return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height, width, -1)
