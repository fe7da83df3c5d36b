"""Distances between samples by exact optimal transport."""

import numpy as np
from scipy import optimize, spatial

from genjax.types import UserError


def wasserstein_2(first_ND: np.ndarray, second_ND: np.ndarray) -> float:
  """The 2-Wasserstein distance of two sets of equally many points: the root of the smallest mean squared distance of
  a pairing, found exactly.

  Two sets from one distribution have a distance above 0, which falls with their size: print it as the floor. 2,000
  points take about a second, and the time grows with the third power.

  Args:
    first_ND, second_ND: points.

  Raises:
    UserError: the sets have other shapes, or coordinates that are not finite.
  """
  first_ND, second_ND = np.asarray(first_ND, np.float64), np.asarray(second_ND, np.float64)
  if first_ND.ndim != 2 or first_ND.shape != second_ND.shape or not len(first_ND):
    raise UserError(f'the distance needs two sets of equally many points, N D, got {first_ND.shape} and '
                    f'{second_ND.shape}')
  if not (np.isfinite(first_ND).all() and np.isfinite(second_ND).all()):
    raise UserError('coordinates must be finite, and some are NaN or infinite. Look at the parameters that generated '
                    'them')
  square_NN = spatial.distance.cdist(first_ND, second_ND, 'sqeuclidean')
  rows, columns = optimize.linear_sum_assignment(square_NN)
  return float(np.sqrt(square_NN[rows, columns].mean()))
