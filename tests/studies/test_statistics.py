"""Means, deviations and intervals of a few repetitions."""

import numpy as np
import pytest
import scipy.stats

from genjax.studies import statistics


def test_summary():
  found = statistics.summary([1.0, 2.0, 4.0])
  assert found == statistics.Summary(pytest.approx(7 / 3), pytest.approx(np.std([1, 2, 4], ddof=1)), 3)
  assert statistics.summary([5.0]) == statistics.Summary(5.0, None, 1)
  assert statistics.summary([]) is None


def test_two_pairs_have_three_resampled_means():
  found = statistics.difference([0.0, 1.0], level=0.4)  # 0, 1/2, 1/2, 1
  assert (found.mean, found.low, found.high, found.count) == (0.5, pytest.approx(0.45), pytest.approx(0.55), 2)
  assert statistics.difference([3.0]) == statistics.Difference(3.0, None, None, 1)
  assert statistics.difference([]) is None


@pytest.mark.parametrize('count', [5, 30])
def test_intervals_agree_with_scipy(count):
  values = np.random.default_rng(3).normal(0.3, 1.0, count)
  found = statistics.difference(values.tolist())
  known = scipy.stats.bootstrap((values,), np.mean, method='percentile', n_resamples=40_000,
                                random_state=np.random.default_rng(1)).confidence_interval
  assert (found.low, found.high) == (pytest.approx(known.low, abs=0.02), pytest.approx(known.high, abs=0.02))
  assert statistics.difference(values.tolist()) == found


def test_an_interval_from_many_pairs_covers_the_mean_as_often_as_it_says():
  random = np.random.default_rng(0)
  inside = 0
  for _ in range(80):
    found = statistics.difference(random.normal(1.0, 2.0, 25).tolist())
    inside += found.low <= 1.0 <= found.high
  assert 0.85 <= inside / 80 <= 0.99
