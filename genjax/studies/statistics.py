"""Statistics of a few repetitions: mean, standard deviation, and intervals of paired differences."""

from collections.abc import Sequence
import dataclasses
import itertools
import math

import numpy as np

EXACT = 6  # up to so many pairs, every resample is taken: 6^6 are 46,656
RESAMPLES = 20_000
LEVEL = 0.95


@dataclasses.dataclass(frozen=True)
class Summary:
  """Repetitions of one measurement.

  Attributes:
    mean: their mean.
    deviation: their standard deviation with divisor n - 1; None for one alone.
    count: n.
  """

  mean: float
  deviation: float | None
  count: int


@dataclasses.dataclass(frozen=True)
class Difference:
  """The mean of paired differences.

  Attributes:
    mean: their mean.
    low: lower end of its interval; None for fewer than two pairs.
    high: upper end.
    count: pairs.
  """

  mean: float
  low: float | None
  high: float | None
  count: int


def summary(values: Sequence[float]) -> Summary | None:
  """Mean and standard deviation; None for no values."""
  if not values:
    return None
  if len(set(values)) == 1:  # the sum of equal numbers, divided, may be another number
    return Summary(values[0], 0.0 if len(values) > 1 else None, len(values))
  mean = math.fsum(values) / len(values)
  squares = math.fsum((value - mean) ** 2 for value in values)
  return Summary(mean, math.sqrt(squares / (len(values) - 1)) if len(values) > 1 else None, len(values))


def difference(values: Sequence[float], level: float = LEVEL) -> Difference | None:
  """The mean of paired differences with its percentile bootstrap interval (Efron and Tibshirani 1993, chapter 13).

  Of up to `EXACT` pairs all resamples are taken, and so nothing is drawn; of more, `RESAMPLES` by a fixed seed. An
  interval from three pairs is a hint: it covers the true mean less often than `level` says.

  Args:
    values: one difference a pair.
    level: share of the means of resamples that lie inside.
  """
  if not values:
    return None
  value_N = np.asarray(values, np.float64)
  mean, count = math.fsum(values) / len(values), len(values)
  if count < 2:
    return Difference(mean, None, None, count)
  if count <= EXACT:
    index_RN = np.array(list(itertools.product(range(count), repeat=count)))
  else:
    index_RN = np.random.default_rng(0).integers(count, size=(RESAMPLES, count))
  mean_R = value_N[index_RN].mean(axis=1)
  low, high = np.quantile(mean_R, [(1 - level) / 2, (1 + level) / 2])
  return Difference(mean, float(low), float(high), count)
