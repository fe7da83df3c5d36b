"""Fréchet distance between Gaussians fitted to features (Heusel et al. 2017, Eq. 6).

With features of the Inception network this is FID. The value depends on the feature extractor and on the number of
samples (fewer samples make it larger), so only compare values with the same extractor and number.
"""

from typing import NamedTuple

import numpy as np

from genjax.types import UserError


class Moments(NamedTuple):
  """A fitted Gaussian. mean_D, covariance_DD: float64, the covariance with divisor N - 1. count: N."""

  mean_D: np.ndarray
  covariance_DD: np.ndarray
  count: int


class Features:
  """Features that come in parts, of which only the mean and the scatter around it are kept.

  Parts are merged as by Chan, Golub and LeVeque 1983: sums of squares around each part's own mean do not cancel.
  """

  def __init__(self):
    self._count = self._bad = 0
    self._mean_D, self._scatter_DD = np.zeros(()), np.zeros(())

  def add(self, feature_ND: np.ndarray) -> None:
    """Adds N feature vectors.

    Raises:
      UserError: they are not a matrix.
    """
    feature_ND = np.asarray(feature_ND, np.float64)
    if feature_ND.ndim != 2:
      raise UserError(f'features must be of shape (samples, features), got {feature_ND.shape}; flatten them first')
    if not len(feature_ND):
      return
    self._bad += int(np.sum(~np.isfinite(feature_ND).all(axis=1)))
    before, self._count = self._count, self._count + len(feature_ND)
    with np.errstate(invalid='ignore'):  # of features that are not finite, `moments` tells
      mean_D = feature_ND.mean(axis=0)
      centred_ND = feature_ND - mean_D
      scatter_DD = centred_ND.T @ centred_ND
      if not before:
        self._mean_D, self._scatter_DD = mean_D, scatter_DD
        return
      shift_D = mean_D - self._mean_D
      self._mean_D = self._mean_D + shift_D * (len(feature_ND) / self._count)
      self._scatter_DD += scatter_DD + np.outer(shift_D, shift_D) * (before * len(feature_ND) / self._count)

  def moments(self) -> Moments:
    """Mean and covariance of all features.

    Raises:
      UserError: features are not finite, or there are N <= D of them, which makes the covariance singular.
    """
    width = self._mean_D.size if self._count else 0
    if self._count <= width:
      raise UserError(f'a Fréchet distance in {width} features needs more than {width} samples, got {self._count}; '
                      'draw more samples (config.evaluation.num_samples)')
    if self._bad:
      raise UserError(f'features must be finite; {self._bad} of {self._count} samples have NaN or infinite features. '
                      'Look at the samples, and at the parameters that generated them')
    return Moments(self._mean_D, self._scatter_DD / (self._count - 1), self._count)


def moments(feature_ND: np.ndarray) -> Moments:
  """Mean and covariance of features.

  Args:
    feature_ND: N feature vectors.

  Raises:
    UserError: the features are not a matrix or not finite, or N <= D, which makes the covariance singular.
  """
  features = Features()
  features.add(feature_ND)
  return features.moments()


def distance(a: Moments, b: Moments) -> float:
  """Squared Fréchet (2-Wasserstein) distance of two Gaussians, in squared units of the features.

    |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))

  C_a C_b has the eigenvalues of the symmetric matrix C_a^(1/2) C_b C_a^(1/2), which are real and, up to rounding, not
  negative. The trace of its square root is the sum of their square roots.

  Args:
    a, b: moments of the same number of features.

  Returns:
    The distance, 0 for equal moments.

  Raises:
    UserError: the numbers of features differ.
  """
  if a.mean_D.shape != b.mean_D.shape:
    raise UserError(f'both sides need the same features, got {a.mean_D.shape[0]} and {b.mean_D.shape[0]} of them')
  root_DD = _root(a.covariance_DD)
  values_D = np.linalg.eigvalsh(root_DD @ b.covariance_DD @ root_DD)
  cross = np.sum(np.sqrt(np.maximum(values_D, 0.0)))
  shift = np.sum((a.mean_D - b.mean_D) ** 2)
  return float(max(0.0, shift + np.trace(a.covariance_DD) + np.trace(b.covariance_DD) - 2.0 * cross))


def _root(matrix_DD: np.ndarray) -> np.ndarray:
  """The square root of a symmetric matrix; negative eigenvalues are treated as rounding errors."""
  values_D, vectors_DD = np.linalg.eigh(matrix_DD)
  return (vectors_DD * np.sqrt(np.maximum(values_D, 0.0))) @ vectors_DD.T
