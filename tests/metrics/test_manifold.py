"""Precision, recall, density and coverage of sets whose overlap is known."""

import time

import numpy as np
import pytest
from scipy import special

from genjax.metrics import manifold
from genjax.types import UserError


def test_identical_sets_are_precise_and_covered():
  x_ND = np.random.default_rng(0).standard_normal((200, 6)) + 100.0
  assert manifold.precision_recall(x_ND, x_ND.copy()) == (1.0, 1.0)
  density, coverage = manifold.density_coverage(x_ND, x_ND.copy())
  assert coverage == 1.0 and density == pytest.approx(6 / 5, rel=0.2)  # a point lies in its own ball, too


def test_two_gaussians_of_known_overlap():
  """Half of the samples are real, half lie far away; the real ones have a second mode that no sample reaches."""
  random = np.random.default_rng(1)
  blob = lambda count, centre: random.normal(0, 1, (count, 2)) + centre
  sample_ND = np.concatenate([blob(500, 0), blob(500, (50, 0))])
  real_ND = np.concatenate([blob(250, 0), blob(750, (0, 50))])
  precision, recall = manifold.precision_recall(sample_ND, real_ND)
  assert precision == pytest.approx(0.5, abs=0.03) and recall == pytest.approx(0.25, abs=0.02)
  density, coverage = manifold.density_coverage(sample_ND, real_ND)
  assert coverage == pytest.approx(0.25, abs=0.02) and 0.3 < density < 1.0


def test_a_narrow_gaussian_is_precise_and_a_wide_one_recalls():
  """N(0, 0.04) against N(0, 1): the narrow one reaches from its least draw to its largest, and the balls of these."""
  random = np.random.default_rng(2)
  unit_ND, narrow_ND = random.normal(0, 1, (2000, 1)), random.normal(0, 0.2, (2000, 1))
  precision, recall = manifold.precision_recall(narrow_ND, unit_ND)
  radius_N = np.sqrt(manifold.radii(narrow_ND, 3))
  low, high = (narrow_ND[:, 0] - radius_N).min(), (narrow_ND[:, 0] + radius_N).max()
  share = special.ndtr(high) - special.ndtr(low)
  assert 0.4 < share < 0.8 and precision > 0.99 and recall == pytest.approx(share, abs=0.03)
  turned = manifold.precision_recall(unit_ND, narrow_ND)
  assert turned == (recall, precision)


def test_balls_by_hand():
  """On a line: real points 0, 1, 3 have nearest others at 1, 1, 2."""
  real_ND = np.array([[0.0], [1.0], [3.0]])
  np.testing.assert_array_equal(manifold.radii(real_ND, 1), [1.0, 1.0, 4.0])
  np.testing.assert_array_equal(manifold.radii(real_ND, 2), [9.0, 4.0, 9.0])
  sample_ND = np.array([[2.0], [6.0]])
  assert manifold.precision_recall(sample_ND, real_ND, 1) == (0.5, 1.0)
  # 2 lies on the edge of the ball of 1 and within that of 3; 6 lies in none.
  assert manifold.density_coverage(sample_ND, real_ND, 1) == (1.0, pytest.approx(2 / 3))


def test_copies_of_a_point_have_balls_of_radius_0():
  x_ND = np.full((10, 3), 123.456)
  np.testing.assert_array_equal(manifold.radii(x_ND, 3), np.zeros(10))
  assert manifold.precision_recall(x_ND, x_ND) == (1.0, 1.0)
  assert manifold.precision_recall(x_ND + 1e-3, x_ND) == (0.0, 0.0)


def test_the_size_of_blocks_does_not_matter(monkeypatch):
  random = np.random.default_rng(3)
  sample_ND, real_ND = random.normal(0, 1, (70, 4)), random.normal(0.5, 1, (90, 4))
  whole = manifold.precision_recall(sample_ND, real_ND), manifold.density_coverage(sample_ND, real_ND)
  monkeypatch.setattr(manifold, '_ROWS', 13)
  assert (manifold.precision_recall(sample_ND, real_ND), manifold.density_coverage(sample_ND, real_ND)) == whole


def test_bad_input():
  x_ND = np.zeros((3, 2))
  with pytest.raises(UserError, match='need more than 3 rows on each side'):
    manifold.precision_recall(x_ND, np.zeros((9, 2)))
  with pytest.raises(UserError, match='of the same features'):
    manifold.density_coverage(x_ND, np.zeros((9, 3)), 1)
  with pytest.raises(UserError, match='must be finite'):
    manifold.density_coverage(x_ND, np.full((9, 2), np.inf), 1)


def test_samples_that_are_all_one_are_measured_in_seconds():
  real_MD = np.random.default_rng(0).normal(size=(2000, 8))
  same_ND = np.repeat(real_MD[:1], 2000, axis=0)
  begin = time.monotonic()
  assert manifold.precision_recall(same_ND, real_MD) == (1.0, 1 / 2000)
  assert time.monotonic() - begin < 15  # pair by pair it would be a minute
