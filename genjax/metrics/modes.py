"""Measures of mode collapse (PacGAN, Lin et al. 2018, section 4): for mixtures of Gaussians with known centres, and for
pictures whose mode a classifier tells."""

from typing import NamedTuple

import numpy as np

from genjax.types import UserError


class Modes(NamedTuple):
  """How samples spread over modes.

  covered: modes with at least one high-quality sample. high_quality: share of samples within the radius of a centre.
  reverse_kl: KL(samples || data) over modes in nats, log K when all samples lie at one of K equally likely modes.
  """

  covered: int
  high_quality: float
  reverse_kl: float


def measure(point_ND: np.ndarray, centre_KD: np.ndarray, deviation: float, weight_K: np.ndarray | None = None,
            radius: float = 3.0) -> Modes:
  """Number of covered modes, share of high-quality samples and reverse KL divergence over modes.

  A sample has high quality if it lies within `radius` standard deviations of the nearest centre; a mode with such a
  sample is covered. The divergence sum_k q_k log(q_k / p_k) assigns every sample to its nearest centre, whatever its
  quality; q are the shares of samples and p those of the data.

  Args:
    point_ND: N samples.
    centre_KD: centres of the K modes.
    deviation: standard deviation of a mode along each axis.
    weight_K: probabilities of the modes; equal by default.
    radius: in standard deviations.

  Raises:
    UserError: there are no samples, their dimension is not that of the centres, or coordinates are not finite.
  """
  points = Points(centre_KD, deviation, weight_K, radius)
  points.add(point_ND)
  return points.modes()


class Points:
  """Points that come in parts, of which only counts are kept; arguments as for `measure`."""

  def __init__(self, centre_KD: np.ndarray, deviation: float, weight_K: np.ndarray | None = None, radius: float = 3.0):
    self._centre_KD = np.asarray(centre_KD, np.float64)
    count = len(self._centre_KD)
    self._weight_K = np.full(count, 1.0 / count) if weight_K is None else np.asarray(weight_K, np.float64)
    self._distance = radius * deviation
    self._nearest_K, self._good_K = np.zeros(count, int), np.zeros(count, int)

  def add(self, point_ND: np.ndarray) -> None:
    """Counts points; errors as of `measure`."""
    point_ND = np.asarray(point_ND, np.float64)
    if point_ND.ndim != 2 or not len(point_ND) or point_ND.shape[1:] != self._centre_KD.shape[1:]:
      raise UserError(f'modes need samples of shape (samples, {self._centre_KD.shape[1]}), at least one, got '
                      f'{point_ND.shape}')
    if not np.isfinite(point_ND).all():
      bad = int(np.sum(~np.isfinite(point_ND).all(axis=1)))
      raise UserError(f'coordinates must be finite; those of {bad} of {len(point_ND)} samples are NaN or infinite. '
                      'Look at the parameters that generated them')
    distance_NK = np.linalg.norm(point_ND[:, None] - self._centre_KD, axis=-1)
    nearest_N = distance_NK.argmin(axis=1)
    good_N = distance_NK.min(axis=1) <= self._distance
    self._nearest_K += np.bincount(nearest_N, minlength=len(self._centre_KD))
    self._good_K += np.bincount(nearest_N[good_N], minlength=len(self._centre_KD))

  def modes(self) -> Modes:
    """The measures of all points."""
    total = self._nearest_K.sum()
    share_K = self._nearest_K / total
    seen = share_K > 0
    return Modes(covered=int(np.sum(self._good_K > 0)), high_quality=float(self._good_K.sum() / total),
                 reverse_kl=float(np.sum(share_K[seen] * np.log(share_K[seen] / self._weight_K[seen]))))


class Labels:
  """Modes that are told by labels, in parts, of which only counts are kept; all modes of the data are equally likely.

  Args:
    count: K, how many modes there are.
  """

  def __init__(self, count: int):
    self._count_K = np.zeros(count, np.int64)

  def add(self, mode_N: np.ndarray) -> None:
    """Counts the modes of samples.

    Raises:
      UserError: one is not from 0 to K - 1.
    """
    mode_N = np.asarray(mode_N)
    if len(mode_N) and not 0 <= mode_N.min() <= mode_N.max() < len(self._count_K):
      raise UserError(f'modes are from 0 to {len(self._count_K) - 1}, got {mode_N.min()} to {mode_N.max()}')
    self._count_K += np.bincount(mode_N, minlength=len(self._count_K))

  def covered(self) -> int:
    """Modes with at least one sample."""
    return int(np.sum(self._count_K > 0))

  def reverse_kl(self) -> float:
    """KL(samples || data) over modes in nats. There must be samples.

    Even of draws of the data it is not 0: about (K - 1) / 2N for N samples.
    """
    share_K = self._count_K[self._count_K > 0] / self._count_K.sum()
    return float(np.sum(share_K * np.log(share_K * len(self._count_K))))
