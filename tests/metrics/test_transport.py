"""The 2-Wasserstein distance against closed forms."""

import numpy as np
import pytest

from genjax.metrics import transport
from genjax.types import UserError


def test_a_shift_and_a_permutation():
  point_ND = np.random.default_rng(0).normal(size=(200, 2))
  shuffled_ND = np.random.default_rng(1).permutation(point_ND) + np.array([3.0, 4.0])
  assert transport.wasserstein_2(point_ND, shuffled_ND) == pytest.approx(5.0)
  assert transport.wasserstein_2(point_ND, point_ND) == 0


def test_one_dimension_is_sorted():
  first_N, second_N = np.random.default_rng(0).normal(size=(2, 300))
  expected = np.sqrt(np.mean((np.sort(first_N) - np.sort(2 * second_N)) ** 2))
  assert transport.wasserstein_2(first_N[:, None], 2 * second_N[:, None]) == pytest.approx(expected)


@pytest.mark.parametrize(('first', 'second', 'words'), [
  (np.zeros((3, 2)), np.zeros((4, 2)), 'equally many'), (np.zeros((0, 2)), np.zeros((0, 2)), 'equally many'),
  (np.full((2, 2), np.nan), np.zeros((2, 2)), 'finite')])
def test_refused(first, second, words):
  with pytest.raises(UserError, match=words):
    transport.wasserstein_2(first, second)
