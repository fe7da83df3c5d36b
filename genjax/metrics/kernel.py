"""Kernel distance: the squared maximum mean discrepancy of features under a cubic polynomial kernel.

With features of the Inception network this is KID (Binkowski et al. 2018, section 4). It is unbiased, whatever the
number of samples. For equal distributions it is 0 on average, and so it may be negative.
"""

from typing import Any, NamedTuple

import numpy as np

from genjax.types import UserError

SIZE = 1000  # samples of a subset, as published
LEAST_SUBSETS = 10  # by default, so that their deviation is known


class Kernel(NamedTuple):
  """mean: of the distances of all subsets. error: its standard error, NaN for one subset. subsets: their number.
  size: samples of each side in a subset."""

  mean: float
  error: float
  subsets: int
  size: int


def squared_mmd(x_ND: np.ndarray, y_MD: np.ndarray) -> float:
  """The unbiased estimate of the squared discrepancy (Gretton et al. 2012, Eq. 3) with k(x, y) = (x.y / D + 1)^3.

  Args:
    x_ND, y_MD: features of both sides, at least two rows each.

  Raises:
    UserError: the shapes do not fit, or a side has fewer than two rows.
  """
  x_ND, y_MD = np.asarray(x_ND, np.float64), np.asarray(y_MD, np.float64)
  if x_ND.ndim != 2 or x_ND.shape[1:] != y_MD.shape[1:] or min(len(x_ND), len(y_MD)) < 2:
    raise UserError('a kernel distance needs two matrices (samples, features) of the same features with at least two '
                    f'rows each, got {x_ND.shape} and {y_MD.shape}')
  cross = _kernel(x_ND, y_MD).mean()
  return float(_mean_of_others(x_ND) + _mean_of_others(y_MD) - 2.0 * cross)


def distance(x_N: Any, y_M: Any, size: int = 0, subsets: int = 100, seed: int = 0) -> Kernel:
  """Mean distance over subsets that share no sample, so that its standard error is known.

  Published code draws subsets that overlap. Their mean is the same on average, and their deviation does not tell how
  far off it is.

  Args:
    x_N, y_M: features, or what gives rows of features when it is indexed by an array; one subset is held at a time.
    size: samples of each side in a subset; 0 for `SIZE`, or less so that there are `LEAST_SUBSETS`.
    subsets: how many at most.
    seed: of the choice of subsets.

  Raises:
    UserError: there are too few samples, or features that are not finite.
  """
  count = min(len(x_N), len(y_M))
  size = size or min(SIZE, count // LEAST_SUBSETS)
  if not 2 <= size <= count:
    raise UserError(f'a kernel distance over subsets of {max(size, 2)} samples needs as many on each side, got '
                    f'{len(x_N)} and {len(y_M)}; draw more samples (config.evaluation.num_samples)')
  random = np.random.default_rng(seed)
  order_N, order_M = (random.permutation(len(rows)) for rows in (x_N, y_M))
  found = []
  for first in range(0, min(subsets, count // size) * size, size):
    sides = [np.asarray(rows[np.sort(order[first:first + size])], np.float64)
             for rows, order in ((x_N, order_N), (y_M, order_M))]
    if not all(np.isfinite(side).all() for side in sides):
      raise UserError('features must be finite, and some are NaN or infinite. Look at the samples, and at the '
                      'parameters that generated them')
    found.append(squared_mmd(*sides))
  error = np.std(found, ddof=1) / np.sqrt(len(found)) if len(found) > 1 else np.nan
  return Kernel(float(np.mean(found)), float(error), len(found), size)


def _kernel(x_ND: np.ndarray, y_MD: np.ndarray) -> np.ndarray:
  return (x_ND @ y_MD.T / x_ND.shape[1] + 1.0) ** 3


def _mean_of_others(x_ND: np.ndarray) -> float:
  """Mean of the kernel over pairs of different rows."""
  count, own_N = len(x_ND), ((x_ND ** 2).sum(axis=1) / x_ND.shape[1] + 1.0) ** 3
  return (_kernel(x_ND, x_ND).sum() - own_N.sum()) / (count * (count - 1))
