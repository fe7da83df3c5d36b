"""Diversity, copies and coverage on points with known distances."""

import numpy as np
import pytest

from genjax.metrics import diversity
from genjax.types import UserError


def test_pairwise_distance_of_a_triangle():
  assert diversity.pairwise_distance(np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])) == pytest.approx((3 + 4 + 5) / 3)


def test_pairwise_distance_of_images_is_exact():
  """uint8 must not wrap around, and equal images have distance 0 exactly."""
  image_NHWC = np.zeros((2, 28, 28, 1), np.uint8)
  assert diversity.pairwise_distance(image_NHWC) == 0.0
  image_NHWC[1] = 255
  assert diversity.pairwise_distance(image_NHWC) == 255 * 28


def test_class_distances():
  x_N1 = np.array([[0.0], [2.0], [10.0], [10.5], [7.0]])
  distance_K = diversity.class_distances(x_N1, np.array([0, 0, 1, 1, 2]), 4)
  np.testing.assert_allclose(distance_K, [2.0, 0.5, np.nan, np.nan])


def test_ratio_is_one_for_the_data_and_zero_for_a_collapsed_class():
  real_N2 = np.random.default_rng(0).standard_normal((60, 2))
  label_N = np.arange(60) % 3
  same_K = diversity.class_distance_ratio(real_N2, label_N, real_N2, label_N, 4)
  np.testing.assert_allclose(same_K, [1.0, 1.0, 1.0, np.nan])
  collapsed_N2 = np.where(label_N[:, None] == 1, 0.5, real_N2)
  collapsed_K = diversity.class_distance_ratio(collapsed_N2, label_N, real_N2, label_N, 3)
  np.testing.assert_allclose(collapsed_K, [1.0, 0.0, 1.0])
  missing_K = diversity.class_distance_ratio(real_N2, np.zeros(60, int), real_N2, label_N, 3)
  assert list(missing_K[1:]) == [0.0, 0.0]


@pytest.mark.parametrize('chunk', [1, 3, 100])
def test_nearest_distances_equal_brute_force(chunk):
  generator = np.random.default_rng(0)
  x_N, reference_M = generator.integers(0, 256, (7, 3, 2), np.uint8), generator.integers(0, 256, (10, 3, 2), np.uint8)
  all_NM = np.linalg.norm(x_N[:, None].astype(float) - reference_M.astype(float), axis=-1)
  all_NM = np.sqrt((all_NM ** 2).sum(axis=-1))
  np.testing.assert_allclose(diversity.nearest_distances(x_N, reference_M, chunk=chunk), all_NM.min(axis=1), rtol=1e-12)


@pytest.mark.parametrize('chunk', [2, 100])
def test_a_row_is_not_its_own_neighbour(chunk):
  point_M1 = np.array([[0.0], [1.0], [5.0], [5.5]])
  index = np.array([2, 0])
  near_N = diversity.nearest_distances(point_M1[index], point_M1, exclude_N=index, chunk=chunk)
  np.testing.assert_allclose(near_N, [0.5, 1.0])
  np.testing.assert_allclose(diversity.neighbour_distances(point_M1), [1.0, 1.0, 0.5, 0.5])


def test_neighbour_distances_of_a_part_look_at_all_rows():
  point_M1 = np.arange(100.0)[:, None]
  np.testing.assert_allclose(diversity.neighbour_distances(point_M1, limit=7), np.ones(7))


def test_copies_are_found_and_fresh_draws_pass():
  generator = np.random.default_rng(0)
  train_M = generator.standard_normal((500, 8))
  near_train_M = diversity.neighbour_distances(train_M)
  share = lambda x_N: diversity.copy_share(diversity.nearest_distances(x_N, train_M), near_train_M)
  assert share(train_M[:100]) == 1.0
  assert share(train_M[:100] + 1e-3) == 1.0
  fresh_N = generator.standard_normal((500, 8))
  assert share(fresh_N) < 0.04
  half_N = np.concatenate([train_M[:250], fresh_N[:250]])
  assert 0.5 <= share(half_N) < 0.54


def test_class_shares_and_coverage():
  share_K = diversity.class_shares(np.array([0, 0, 2, 2, 2, 3, 3, 3]), 5)
  np.testing.assert_allclose(share_K, [0.25, 0.0, 0.375, 0.375, 0.0])
  assert diversity.coverage(share_K) == 3


@pytest.mark.parametrize(('label_N', 'message'), [([], 'got none'), ([0, 3], 'got 0 to 3'), ([-1, 0], 'got -1 to 0')])
def test_labels_that_are_no_classes(label_N, message):
  with pytest.raises(UserError, match=message):
    diversity.class_shares(np.array(label_N, int), 3)


def test_samples_of_another_shape_or_no_references():
  with pytest.raises(UserError, match='must have equal shapes'):
    diversity.nearest_distances(np.zeros((2, 8, 8, 1)), np.zeros((2, 8, 8, 3)))
  with pytest.raises(UserError, match='must be references'):
    diversity.nearest_distances(np.zeros((2, 8)), np.zeros((0, 8)))
  with pytest.raises(UserError, match='at least two'):
    diversity.neighbour_distances(np.zeros((1, 8)))


def test_blocks_give_the_distances_of_all_rows_at_once(monkeypatch):
  x_N = np.random.default_rng(0).integers(0, 256, (23, 4, 3), np.uint8)
  y_M = np.random.default_rng(1).integers(0, 256, (31, 4, 3), np.uint8)
  whole = diversity.pairwise_distance(x_N), diversity.nearest_distances(x_N, y_M, np.arange(23))
  monkeypatch.setattr(diversity, '_NUMBERS', 60)  # five rows
  assert diversity.pairwise_distance(x_N) == pytest.approx(whole[0], rel=1e-14)
  np.testing.assert_array_equal(diversity.nearest_distances(x_N, y_M, np.arange(23)), whole[1])
