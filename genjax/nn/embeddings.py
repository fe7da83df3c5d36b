"""Embeddings of times, labels and positions, and images as sequences of patches."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from genjax.types import Array, Key

_NORMAL = nnx.initializers.normal(0.02)


def timestep_embedding(t_B: Array, width: int, shift: int = 0, longest: float = 10_000.0) -> Array:
  """Fourier features (cosines, then sines) of times; frequencies fall geometrically from 1 to 1 / longest.

  Args:
    t_B: times, on the scale of 0 .. 1000.
    width: number of features, even.
    shift: frequency i is longest^(-i / (width/2 - shift)). DDPM has 1, so that the last is 1 / longest; DiT has 0.
    longest: wavelength of the slowest feature over 2 pi.

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
    self.up = nnx.Linear(features, width, kernel_init=kernel_init, dtype=dtype, rngs=rngs)
    self.down = nnx.Linear(width, width, kernel_init=kernel_init, dtype=dtype, rngs=rngs)

  def __call__(self, t_B: Array, key: Key | None = None) -> Array:
    return self.down(jax.nn.silu(self.up(timestep_embedding(t_B, self.features, self.shift))))


class LabelEmbedding(nnx.Module):
  """A table of one row per class and, as its last row, one for "no label" (index `num_classes`).

  Which examples lose their label in training is decided outside, by replacing the label with `num_classes`.

  Args:
    num_classes: number of classes.
    width: model width D.
    std: standard deviation of the fresh table; 0.02 is DiT's.
  """

  def __init__(self, num_classes: int, width: int, *, std: float = 0.02, dtype=jnp.float32, rngs: nnx.Rngs):
    self.table = nnx.Embed(num_classes + 1, width, embedding_init=nnx.initializers.normal(std), dtype=dtype, rngs=rngs)

  def __call__(self, label_B: Array, key: Key | None = None) -> Array:
    return self.table(label_B)


def sincos_positions(rows: int, columns: int, width: int) -> np.ndarray:
  """Fixed 2D positions (Vaswani et al. 2017 per axis; the layout of MAE and DiT).

  Channels 0 .. D/2 tell the column, the others the row; each half is sines, then cosines.

  Args:
    rows, columns: size of the grid of tokens.
    width: model width D, a multiple of 4.

  Returns:
    float32 of shape (rows * columns, D), rows outermost.

  Raises:
    ValueError: `width` is no multiple of 4.
  """
  if width % 4:
    raise ValueError(f'2D positions need a width that is a multiple of 4, got {width}')
  frequency = 10_000.0 ** (-np.arange(width // 4) / (width // 4))

  def encode(position_T: np.ndarray) -> np.ndarray:
    angle = position_T[:, None] * frequency
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=-1)

  row, column = np.divmod(np.arange(rows * columns), columns)
  return np.concatenate([encode(column), encode(row)], axis=-1).astype(np.float32)


def patchify(x_BHWC: Array, patch: int) -> Array:
  """Images as sequences x_BTP of patches, row by row; the elements P of a patch are (row, column, channel)."""
  batch, height, width, channels = x_BHWC.shape
  x = x_BHWC.reshape(batch, height // patch, patch, width // patch, patch, channels)
  return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, patch * patch * channels)


def unpatchify(x_BTP: Array, patch: int, height: int, width: int) -> Array:
  """The inverse of `patchify` for images of height by width pixels."""
  batch = x_BTP.shape[0]
  x = x_BTP.reshape(batch, height // patch, width // patch, patch, patch, -1)
  return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height, width, -1)
