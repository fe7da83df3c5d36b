"""Diversity: how much samples differ from each other and from the training set.

Distances are Euclidean between flattened arrays, in the units of the data (grey levels for uint8 images).
"""

import numpy as np

from genjax.types import UserError

_NUMBERS = 2**22  # of a block of rows in double precision: 32 MiB


def pairwise_distance(x_N: np.ndarray, index_N: np.ndarray | None = None) -> float:
  """Mean pairwise distance of rows, sum_ij |x_i - x_j| / (N (N - 1)); NaN for fewer than two rows.

  Args:
    x_N: arrays whose first axis is N, or what gives them when it is indexed; a block of rows is held at a time.
    index_N: which of them; None for all.
  """
  index_N = np.arange(len(x_N)) if index_N is None else index_N
  count = len(index_N)
  if count < 2:
    return float('nan')
  block, total = _block(x_N), 0.0
  for first in range(0, count, block):
    x_BP = _flat(x_N[index_N[first:first + block]])
    for other in range(0, count, block):
      distance_BC = np.sqrt(_squares(x_BP, x_BP if other == first else _flat(x_N[index_N[other:other + block]])))
      if other == first:
        np.fill_diagonal(distance_BC, 0.0)
      total += distance_BC.sum()
  return float(total / (count * (count - 1)))


def class_distances(x_N: np.ndarray, label_N: np.ndarray, num_classes: int, limit: int = 1000) -> np.ndarray:
  """`pairwise_distance` of each class.

  Args:
    x_N: arrays whose first axis is N, or what gives them when it is indexed.
    label_N: class of each row.
    num_classes: K.
    limit: uses only the first `limit` rows of a class; the cost grows with its square.

  Returns:
    float64 (K,); NaN for classes with fewer than two rows.
  """
  return np.array([pairwise_distance(x_N, np.flatnonzero(label_N == label)[:limit]) for label in range(num_classes)])


def class_distance_ratio(x_N: np.ndarray, label_N: np.ndarray, real_M: np.ndarray, real_label_M: np.ndarray,
                         num_classes: int) -> np.ndarray:
  """Mean pairwise distance per class relative to real data: near 1 if as diverse, 0 if collapsed to a point.

  Returns:
    float64 (K,). The ratio of a class with fewer than two samples is 0, that of a class without real data is NaN.
  """
  real_K = class_distances(real_M, real_label_M, num_classes)
  return np.where(np.isnan(real_K), np.nan, np.nan_to_num(class_distances(x_N, label_N, num_classes)) / real_K)


def nearest_distances(x_N: np.ndarray, reference_M: np.ndarray, exclude_N: np.ndarray | None = None,
                      chunk: int = 4096) -> np.ndarray:
  """Distance of each row to the nearest reference row.

  Args:
    x_N, reference_M: arrays of equal shape except for the first axis, or what gives them when it is sliced.
    exclude_N: for each row, the index of one reference row to ignore, e.g. the row itself.
    chunk: how many rows are compared at a time at most; fewer of large ones.

  Returns:
    float64 (N,).

  Raises:
    UserError: shapes differ, or there are no reference rows.
  """
  if x_N.shape[1:] != reference_M.shape[1:] or not len(reference_M):
    raise UserError(f'samples and references must have equal shapes, and there must be references, got {x_N.shape} and '
                    f'{reference_M.shape}')
  nearest_N = np.full(len(x_N), np.inf)
  chunk = min(chunk, _block(x_N))
  for start in range(0, len(reference_M), chunk):
    reference_CP = _flat(reference_M[start:start + chunk])
    for first in range(0, len(x_N), chunk):
      square_BC = _squares(_flat(x_N[first:first + chunk]), reference_CP)
      if exclude_N is not None:
        excluded_B = exclude_N[first:first + chunk] - start
        row = np.flatnonzero((excluded_B >= 0) & (excluded_B < len(reference_CP)))
        square_BC[row, excluded_B[row]] = np.inf
      nearest_B = nearest_N[first:first + chunk]
      np.minimum(nearest_B, square_BC.min(axis=1), out=nearest_B)
  return np.sqrt(nearest_N)


def neighbour_distances(train_M: np.ndarray, limit: int = 5000, seed: int = 0) -> np.ndarray:
  """Distances of training rows to their nearest other training row.

  Args:
    train_M: the training set, at least two rows.
    limit: number of rows, drawn at random without replacement; their neighbours are searched among all rows.
    seed: seed of that draw.

  Returns:
    float64 (min(M, limit),).
  """
  if len(train_M) < 2:
    raise UserError(f'distances between training examples need at least two of them, got {len(train_M)}')
  index = np.sort(np.random.default_rng(seed).permutation(len(train_M))[:limit])
  return nearest_distances(train_M[index], train_M, exclude_N=index)


def copy_share(nearest_N: np.ndarray, nearest_train_M: np.ndarray, percentile: float = 1.0) -> float:
  """Share of samples that count as copies of training examples.

  A sample is a copy if its distance to the nearest training example is at most the `percentile`-th percentile of the
  distances from training examples to their nearest neighbours. New draws from the data distribution give about
  `percentile` %.

  Args:
    nearest_N: distances of samples, from `nearest_distances`.
    nearest_train_M: distances of training examples, from `neighbour_distances`.
    percentile: from 0 to 100.
  """
  return float(np.mean(nearest_N <= np.percentile(nearest_train_M, percentile)))


def class_shares(label_N: np.ndarray, num_classes: int) -> np.ndarray:
  """Share of each class among labels (or predicted classes), float64 (K,), summing to 1.

  Raises:
    UserError: there are no labels, or labels outside 0 .. K - 1.
  """
  label_N = np.asarray(label_N)
  if not len(label_N) or label_N.min() < 0 or label_N.max() >= num_classes:
    raise UserError(f'class shares need labels from 0 to {num_classes - 1}, got '
                    + (f'{label_N.min()} to {label_N.max()}' if len(label_N) else 'none'))
  return np.bincount(label_N, minlength=num_classes) / len(label_N)


def coverage(share_K: np.ndarray) -> int:
  """Number of classes that occur at all."""
  return int(np.sum(share_K > 0))


def _block(x_N: np.ndarray) -> int:
  """How many rows make a block."""
  return max(1, _NUMBERS // max(1, int(np.prod(x_N.shape[1:]))))


def _flat(x_N: np.ndarray) -> np.ndarray:
  """Flattens rows in double precision, in which squared distances of 8-bit images are exact."""
  return np.asarray(x_N, np.float64).reshape(len(x_N), -1)


def _squares(x_NP: np.ndarray, y_MP: np.ndarray) -> np.ndarray:
  """Squared distances between all rows, N M."""
  square_NM = (x_NP ** 2).sum(axis=1)[:, None] + (y_MP ** 2).sum(axis=1) - 2.0 * (x_NP @ y_MP.T)
  return np.maximum(square_NM, 0.0, out=square_NM)
