"""Modes, quality and divergence on points placed by hand."""

import numpy as np
import pytest

from genjax.metrics import modes
from genjax.types import UserError

CENTRES = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]])


def test_the_mixture_itself():
  generator = np.random.default_rng(0)
  point_N2 = np.repeat(CENTRES, 500, axis=0) + 0.05 * generator.standard_normal((2000, 2))
  measured = modes.measure(point_N2, CENTRES, 0.05)
  assert measured.covered == 4
  assert measured.high_quality == pytest.approx(1 - np.exp(-4.5), abs=0.01)  # Rayleigh: P(r <= 3)
  assert measured.reverse_kl == pytest.approx(0.0, abs=1e-12)


def test_one_mode():
  measured = modes.measure(np.tile(CENTRES[1], (10, 1)), CENTRES, 0.05)
  assert measured == (1, 1.0, pytest.approx(np.log(4)))


def test_points_in_parts_count_as_all_at_once():
  point_N2 = np.random.default_rng(0).uniform(-1, 3, (500, 2))
  points = modes.Points(CENTRES, 0.3)
  for part in np.array_split(point_N2, 7):
    points.add(part)
  assert points.modes() == modes.measure(point_N2, CENTRES, 0.3)


def test_a_sample_between_modes_covers_none_but_counts_for_the_nearest():
  point_N2 = np.array([[0.0, 0.15], [0.0, 0.1501], [1.9, 0.0], [1.2, 0.0]])
  measured = modes.measure(point_N2, CENTRES, 0.05)
  assert measured.covered == 2
  assert measured.high_quality == 0.5
  assert measured.reverse_kl == pytest.approx(np.log(2))  # half and half over two of four modes


def test_unequal_modes():
  weight_K = np.array([0.4, 0.3, 0.2, 0.1])
  point_N2 = np.repeat(CENTRES, [4, 3, 2, 1], axis=0)
  assert modes.measure(point_N2, CENTRES, 0.05, weight_K).reverse_kl == pytest.approx(0.0, abs=1e-12)
  assert modes.measure(point_N2, CENTRES, 0.05).reverse_kl == pytest.approx(np.sum(weight_K * np.log(4 * weight_K)))


@pytest.mark.parametrize(('point_ND', 'message'), [
  (np.zeros((0, 2)), 'at least one'), (np.zeros((3, 3)), r'\(samples, 2\)'),
  (np.array([[0.0, np.inf]]), '1 of 1 samples')])
def test_bad_points(point_ND, message):
  with pytest.raises(UserError, match=message):
    modes.measure(point_ND, CENTRES, 0.05)


def test_labels_are_counted_in_parts():
  counted = modes.Labels(4)
  for part in (np.array([0, 0, 2]), np.array([], int), np.array([2])):
    counted.add(part)
  assert counted.covered() == 2
  assert counted.reverse_kl() == pytest.approx(np.log(2))  # half and half over two of four modes
  counted.add(np.array([1, 1, 3, 3]))
  assert counted.covered() == 4 and counted.reverse_kl() == pytest.approx(0.0, abs=1e-12)
  for wrong in (4, -1):
    with pytest.raises(UserError, match='modes are from 0 to 3'):
      counted.add(np.array([wrong]))


def test_draws_of_the_data_have_the_divergence_that_counting_leaves():
  counted = modes.Labels(1000)
  counted.add(np.random.default_rng(0).integers(0, 1000, 26_000))
  assert counted.covered() == 1000 and counted.reverse_kl() == pytest.approx(999 / 52_000, rel=0.15)
