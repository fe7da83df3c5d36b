"""A linear code of the patches of pictures: each patch becomes a few numbers, its leading principal components."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from genjax.objectives.codecs import Codec
from genjax.objectives.pixels import as_image, centred
from genjax.types import Array, UserError


@dataclasses.dataclass(frozen=True)
class PatchCode:
  """A code between pictures and their patches in fewer numbers.

  Attributes:
    mean: (P,) of the values of a patch, in [-1, 1]; P = (row, column, channel).
    basis: (P, K), orthonormal columns.
    scale: (K,) that numbers are divided by.
  """

  mean: np.ndarray
  basis: np.ndarray
  scale: np.ndarray

  def codec(self, shape: tuple[int, int, int], column: str = 'image') -> Codec:
    """The codec of pictures of a shape (H, W, C) in `column` <-> codes B H/p W/p K."""
    height, width, channels = shape
    side = round((len(self.mean) / channels) ** 0.5)

    def encode(frozen, columns, key) -> Array:
      patches = patched(centred(columns[column]), side)
      return (patches - self.mean) @ self.basis / self.scale

    def decode(frozen, x_BX: Array) -> dict[str, Array]:
      patches = (x_BX * self.scale) @ self.basis.T + self.mean
      joined = patches.reshape(-1, height // side, width // side, side, side, channels)
      return {column: as_image(jnp.moveaxis(joined, 3, 2).reshape(-1, height, width, channels))}

    return Codec(encode, decode)


def patched(image_BHWC, side: int):
  """Pictures as patches B H/side W/side P."""
  batch, height, width, channels = image_BHWC.shape
  parts = image_BHWC.reshape(batch, height // side, side, width // side, side, channels)
  return parts.swapaxes(2, 3).reshape(batch, height // side, width // side, side * side * channels)


def fit(image_NHWC: np.ndarray, side: int, kept: int, whitening: float) -> PatchCode:
  """The code of the leading principal components of the patches of pictures.

  Args:
    image_NHWC: uint8.
    side: of a patch, in pixels.
    kept: numbers K of a patch.
    whitening: 1 brings each number to deviation 1, so that all count the same in the space of the code; 0 divides all
      by one number, so that distances are those of pixels; between them, a power of the deviation.

  Raises:
    UserError: fewer patches than numbers.
  """
  patches_NP = patched(image_NHWC.astype(np.float64) / 127.5 - 1, side).reshape(-1, side * side * image_NHWC.shape[3])
  if len(patches_NP) <= kept:
    raise UserError(f'a code of {kept} numbers needs more than {kept} patches, got {len(patches_NP)}; take more pictures')
  mean_P = patches_NP.mean(0)
  variance_P, vectors_PP = np.linalg.eigh(np.cov(patches_NP.T))
  variance_K, basis_PK = variance_P[::-1][:kept], vectors_PP[:, ::-1][:, :kept]
  # The sign of an eigenvector is free: its largest entry is positive, whatever the library
  basis_PK = basis_PK * np.sign(basis_PK[np.abs(basis_PK).argmax(0), np.arange(kept)])
  scale_K = np.maximum(variance_K, 1e-8) ** (whitening / 2)
  scale_K = scale_K * np.sqrt(np.mean(np.maximum(variance_K, 1e-8) / scale_K ** 2))
  return PatchCode(*(values.astype(np.float32) for values in (mean_P, basis_PK, scale_K)))
