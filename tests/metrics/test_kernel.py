"""Kernel distance: unbiased, with an error that is true, whatever the size of subsets."""

import numpy as np
import pytest

from genjax.metrics import kernel
from genjax.types import UserError


def draws(count, seed, shift=0.0, width=8):
  return np.random.default_rng(seed).standard_normal((count, width)) + shift


def test_a_case_by_hand():
  """Two rows on each side: k(x, x') of x = 1, 1 and 0, 0 in two dimensions is 1; between the sides k = 1 and 8."""
  x_ND, y_ND = np.array([[1.0, 1.0], [0.0, 0.0]]), np.array([[1.0, 1.0], [1.0, 1.0]])
  assert kernel.squared_mmd(x_ND, y_ND) == pytest.approx(1.0 + 8.0 - 2 * (8 + 8 + 1 + 1) / 4)


def test_equal_distributions_lie_within_two_standard_errors_of_0():
  """In 95 of 100 trials; a t distribution of 9 degrees of freedom gives 92."""
  found = [kernel.distance(draws(500, 2 * seed), draws(500, 2 * seed + 1)) for seed in range(60)]
  assert {(value.subsets, value.size) for value in found} == {(10, 50)}
  inside = np.mean([abs(value.mean) < 2 * value.error for value in found])
  assert inside > 0.8
  mean = np.mean([value.mean for value in found])
  assert abs(mean) < 3 * np.std([value.mean for value in found]) / np.sqrt(len(found))
  assert min(value.mean for value in found) < 0  # unbiased: not cut off at 0


def test_the_error_is_that_of_repetitions():
  found = [kernel.distance(draws(400, seed), draws(400, 1000 + seed, 0.3), 40) for seed in range(60)]
  assert np.mean([value.error for value in found]) == pytest.approx(np.std([value.mean for value in found]), rel=0.3)
  assert np.mean([value.mean > 2 * value.error for value in found]) > 0.9


def test_other_sizes_of_subsets_give_the_same_on_average():
  x_ND, y_ND = draws(3000, 0), draws(3000, 1, 0.3)
  small, large = kernel.distance(x_ND, y_ND, 50), kernel.distance(x_ND, y_ND, 300)
  assert abs(small.mean - large.mean) < 3 * np.hypot(small.error, large.error)
  assert kernel.distance(x_ND, y_ND, 50, subsets=7).subsets == 7
  whole = kernel.distance(x_ND[:500], y_ND[:500], 500)
  assert whole.mean == pytest.approx(kernel.squared_mmd(x_ND[:500], y_ND[:500])) and np.isnan(whole.error)


def test_sets_of_other_sizes_and_seeds():
  x_ND, y_ND = draws(300, 0), draws(120, 1)
  assert kernel.distance(x_ND, y_ND).size == 12
  assert kernel.distance(x_ND, y_ND, seed=1) == kernel.distance(x_ND, y_ND, seed=1)
  assert kernel.distance(x_ND, y_ND, seed=1).mean != kernel.distance(x_ND, y_ND, seed=2).mean


def test_bad_input():
  x_ND = draws(30, 0)
  with pytest.raises(UserError, match='subsets of 31 samples needs as many on each side, got 30 and 30'):
    kernel.distance(x_ND, x_ND, 31)
  with pytest.raises(UserError, match='at least two rows'):
    kernel.squared_mmd(x_ND, draws(30, 0, width=3))
  x_ND[3] = np.nan
  with pytest.raises(UserError, match='must be finite'):
    kernel.distance(x_ND, draws(30, 1))
