"""Fidelity and diversity apart, from nearest neighbours in features.

Precision and recall: Kynkaanniemi et al. 2019, Eq. 1 and 2. Density and coverage: Naeem et al. 2020, section
3.2. Each takes for the manifold of a set the balls around its points that reach to the k-th nearest other point. A
point on the edge of a ball lies in it.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from genjax.types import UserError

_ROWS = 1000  # compared with as many at a time


class PrecisionRecall(NamedTuple):
  """precision: share of samples in a ball of real points. recall: share of real points in a ball of samples."""

  precision: float
  recall: float


class DensityCoverage(NamedTuple):
  """density: balls of real points that a sample lies in, on average, over k; it may exceed 1. coverage: share of real
  points in whose ball lies a sample."""

  density: float
  coverage: float


def precision_recall(sample_N: Any, real_M: Any, nearest: int = 3) -> PrecisionRecall:
  """Precision and recall.

  Args:
    sample_N, real_M: features (N, D), or what gives rows when it is sliced; a block of each is held at a time.
    nearest: k.

  Raises:
    UserError: the shapes do not fit, there are not more than k rows, or features are not finite.
  """
  _check(sample_N, real_M, nearest)
  inside_N, inside_M = np.zeros(len(sample_N), bool), np.zeros(len(real_M), bool)
  square_N, square_M = radii(sample_N, nearest), radii(real_M, nearest)
  for rows, columns, square_BC in _blocks(sample_N, real_M):
    inside_N[rows] |= (square_BC <= square_M[columns]).any(axis=1)
    inside_M[columns] |= (square_BC <= square_N[rows][:, None]).any(axis=0)
  return PrecisionRecall(float(inside_N.mean()), float(inside_M.mean()))


def density_coverage(sample_N: Any, real_M: Any, nearest: int = 5) -> DensityCoverage:
  """Density and coverage; arguments and errors as of `precision_recall`."""
  _check(sample_N, real_M, nearest)
  count, covered_M = 0, np.zeros(len(real_M), bool)
  square_M = radii(real_M, nearest)
  for _, columns, square_BC in _blocks(sample_N, real_M):
    inside_BC = square_BC <= square_M[columns]
    count += int(inside_BC.sum())
    covered_M[columns] |= inside_BC.any(axis=0)
  return DensityCoverage(count / (nearest * len(sample_N)), float(covered_M.mean()))


def radii(x_N: Any, nearest: int) -> np.ndarray:
  """Squared distance of each row to its k-th nearest other row, float64 (N,)."""
  least_NK = np.full((len(x_N), nearest), np.inf)
  for rows, columns, square_BC in _blocks(x_N, x_N):
    same = np.arange(rows.start, rows.stop)[:, None] == np.arange(columns.start, columns.stop)
    candidate_BC = np.concatenate([least_NK[rows], np.where(same, np.inf, square_BC)], axis=1)
    least_NK[rows] = np.partition(candidate_BC, nearest - 1, axis=1)[:, :nearest]
  return least_NK.max(axis=1)


def _blocks(x_N: Any, y_M: Any) -> Iterator[tuple[slice, slice, np.ndarray]]:
  """Squared distances of all rows, a block at a time, with which rows these are."""
  for first in range(0, len(x_N), _ROWS):
    rows = slice(first, min(first + _ROWS, len(x_N)))
    x_BD = np.asarray(x_N[rows], np.float64)
    for other in range(0, len(y_M), _ROWS):
      columns = slice(other, min(other + _ROWS, len(y_M)))
      y_CD = x_BD if y_M is x_N and other == first else np.asarray(y_M[columns], np.float64)
      yield rows, columns, _squares(x_BD, y_CD)


def _squares(x_BD: np.ndarray, y_CD: np.ndarray) -> np.ndarray:
  """Squared distances. What lies near is computed from differences: a product would cancel, and equal rows are 0."""
  norm_B, norm_C = (x_BD ** 2).sum(axis=1), (y_CD ** 2).sum(axis=1)
  square_BC = norm_B[:, None] + norm_C - 2.0 * (x_BD @ y_CD.T)
  near_BC = square_BC < 1e-9 * (norm_B[:, None] + norm_C)
  for row in np.flatnonzero(near_BC.any(axis=1)):
    near_C = near_BC[row]
    square_BC[row, near_C] = ((x_BD[row] - y_CD[near_C]) ** 2).sum(axis=1)
  return square_BC


def _check(sample_N: Any, real_M: Any, nearest: int) -> None:
  shapes = [tuple(rows.shape) for rows in (sample_N, real_M)]
  if not all(len(shape) == 2 for shape in shapes) or shapes[0][1] != shapes[1][1]:
    raise UserError(f'neighbours need two matrices (samples, features) of the same features, got {shapes[0]} and '
                    f'{shapes[1]}')
  if nearest < 1 or min(shape[0] for shape in shapes) <= nearest:
    raise UserError(f'balls that reach to neighbour {nearest} need more than {nearest} rows on each side, and at least '
                    f'one neighbour, got {shapes[0][0]} and {shapes[1][0]} rows')
  for rows in (sample_N, real_M):
    for first in range(0, len(rows), _ROWS):
      if not np.isfinite(rows[first:first + _ROWS]).all():
        raise UserError('features must be finite, and some are NaN or infinite. Look at the samples, and at the '
                        'parameters that generated them')
