"""A linear code of the patches of pictures: each patch becomes a few numbers, its leading principal components."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from genjax.objectives.codecs import Codec
from genjax.objectives.pixels import as_image, centred
from genjax.types import Array, UserError

_LEAST_VARIANCE = 1e-4  # of a number, in [-1, 1]: about a grey level; smaller ones are not blown up


@dataclasses.dataclass(frozen=True)
class PatchCode:
  """A code between pictures and their patches in fewer numbers.

  Attributes:
    mean: (L, P) of the values of a patch, in [-1, 1]; P = (row, column, channel). L is 1, or the number of patches of a
      picture where each place has a code of its own.
    basis: (L, P, K), orthonormal columns.
    scale: (L, K) that numbers are divided by.
  """

  mean: np.ndarray
  basis: np.ndarray
  scale: np.ndarray

  def codec(self, shape: tuple[int, int, int], column: str = 'image') -> Codec:
    """The codec of pictures of a shape (H, W, C) in `column` <-> codes B H/p W/p K."""
    height, width, channels = shape
    side = round((self.mean.shape[1] / channels) ** 0.5)
    grid = height // side, width // side
    basis_LPK = np.broadcast_to(self.basis, (grid[0] * grid[1], *self.basis.shape[1:]))

    def rows(image_BHWC: Array) -> Array:
      patches_BLP = patched(centred(image_BHWC), side) - self.mean
      return (jnp.einsum('BLP,LPK->BLK', patches_BLP, basis_LPK) / self.scale).reshape(-1, *grid, self.basis.shape[2])

    def decode(frozen, x_BX: Array) -> dict[str, Array]:
      codes_BLK = x_BX.reshape(x_BX.shape[0], -1, self.basis.shape[2]) * self.scale
      patches_BLP = jnp.einsum('BLK,LPK->BLP', codes_BLK, basis_LPK) + self.mean
      joined = patches_BLP.reshape(-1, *grid, side, side, channels).swapaxes(2, 3)
      return {column: as_image(joined.reshape(-1, height, width, channels))}

    return Codec(lambda frozen, columns, key: rows(columns[column]), decode,
                 encode_pictures=lambda frozen, image_BHWC: rows(image_BHWC))


def patched(image_BHWC, side: int):
  """Pictures as patches B L P, row by row."""
  batch, height, width, channels = image_BHWC.shape
  parts = image_BHWC.reshape(batch, height // side, side, width // side, side, channels)
  return parts.swapaxes(2, 3).reshape(batch, -1, side * side * channels)


def fit(image_NHWC: np.ndarray, side: int, kept: int, whitening: float = 1.0, places: bool = False) -> PatchCode:
  """The code of the leading principal components of the patches of pictures.

  Args:
    image_NHWC: uint8.
    side: of a patch, in pixels.
    kept: numbers K of a patch.
    whitening: 1 brings each number to deviation 1, so that all count the same in the space of the code; 0 divides all
      by one number, so that distances are those of pixels; between them, a power of the deviation.
    places: whether each place of a picture has a code of its own, for pictures that are laid out alike.

  Raises:
    UserError: fewer patches than numbers.
  """
  patches_NLP = patched(image_NHWC.astype(np.float32) / 127.5 - 1, side)
  groups = patches_NLP.swapaxes(0, 1) if places else patches_NLP.reshape(1, -1, patches_NLP.shape[2])
  if groups.shape[1] <= kept:
    raise UserError(f'a code of {kept} numbers needs more than {kept} patches, got {groups.shape[1]}; take more '
                    'pictures')
  fitted = [_components(patches_NP.astype(np.float64), kept) for patches_NP in groups]
  mean_LP, basis_LPK, variance_LK = (np.stack(values) for values in zip(*fitted))
  varied_LK = np.maximum(variance_LK, _LEAST_VARIANCE)
  scale_LK = varied_LK ** (whitening / 2)
  scale_LK = scale_LK * np.sqrt(np.mean((varied_LK / scale_LK ** 2)[variance_LK >= variance_LK.max() * 1e-9]))
  return PatchCode(*(values.astype(np.float32) for values in (mean_LP, basis_LPK, scale_LK)))


def _components(patches_NP: np.ndarray, kept: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Mean P, leading eigenvectors P K of the covariance, and their variances K."""
  mean_P = patches_NP.mean(0)
  variance_P, vectors_PP = np.linalg.eigh(np.cov(patches_NP.T))
  basis_PK = vectors_PP[:, ::-1][:, :kept]
  # The sign of an eigenvector is free: its largest entry is positive, whatever the library
  basis_PK = basis_PK * np.sign(basis_PK[np.abs(basis_PK).argmax(0), np.arange(kept)])
  return mean_P, basis_PK, np.maximum(variance_P[::-1][:kept], 0)
