"""Fréchet distance against closed forms."""

import numpy as np
import pytest

from genjax.metrics import frechet
from genjax.types import UserError


def exact_features(mean_D, covariance_DD, count=64, seed=0):
  """Features whose sample mean and covariance are exactly the given ones."""
  x_ND = np.random.default_rng(seed).standard_normal((count, len(mean_D)))
  x_ND -= x_ND.mean(axis=0)
  whiten_DD = np.linalg.inv(np.linalg.cholesky(np.cov(x_ND.T)))
  return np.asarray(mean_D) + x_ND @ whiten_DD.T @ np.linalg.cholesky(np.asarray(covariance_DD, float)).T


def between(a_ND, b_ND):
  return frechet.distance(frechet.moments(a_ND), frechet.moments(b_ND))


def test_moments_are_those_of_the_features():
  covariance_DD = np.array([[2.0, 0.5], [0.5, 1.0]])
  moments = frechet.moments(exact_features([1.0, -2.0], covariance_DD))
  np.testing.assert_allclose(moments.mean_D, [1.0, -2.0], atol=1e-12)
  np.testing.assert_allclose(moments.covariance_DD, covariance_DD, atol=1e-12)
  assert moments.count == 64


def test_features_in_parts_have_the_moments_of_all():
  feature_ND = np.random.default_rng(0).standard_normal((501, 7)) * np.arange(1, 8) + 1000.0  # a mean that would cancel
  features = frechet.Features()
  for part in np.split(feature_ND, [1, 1, 100, 350]):
    features.add(part)
  parts, whole = features.moments(), frechet.moments(feature_ND)
  np.testing.assert_allclose(parts.mean_D, whole.mean_D, rtol=1e-13)
  np.testing.assert_allclose(parts.covariance_DD, np.cov(feature_ND.T), rtol=1e-10, atol=1e-10)
  assert parts.count == 501 and frechet.distance(parts, whole) == pytest.approx(0.0, abs=1e-9)
  features.add(np.full((3, 7), np.inf))
  with pytest.raises(UserError, match='3 of 504 samples'):
    features.moments()


def test_commuting_covariances():
  """|m|^2 + sum_i (sd_i - sd'_i)^2 for diagonal covariances."""
  a_ND = exact_features([0.0, 0.0, 0.0], np.diag([4.0, 9.0, 0.25]))
  b_ND = exact_features([1.0, 2.0, 0.0], np.diag([1.0, 9.0, 4.0]), seed=1)
  assert between(a_ND, b_ND) == pytest.approx(1 + 4 + (2 - 1) ** 2 + 0 + (0.5 - 2) ** 2, abs=1e-9)


def test_covariances_that_do_not_commute():
  """For 2x2 matrices tr((A B)^(1/2)) = sqrt(tr(A B) + 2 sqrt(det(A B)))."""
  a_DD, b_DD = np.array([[2.0, 0.9], [0.9, 1.0]]), np.array([[1.0, -0.4], [-0.4, 3.0]])
  product_DD = a_DD @ b_DD
  cross = np.sqrt(np.trace(product_DD) + 2 * np.sqrt(np.linalg.det(product_DD)))
  expected = np.trace(a_DD) + np.trace(b_DD) - 2 * cross
  measured = between(exact_features([0, 0], a_DD), exact_features([0, 0], b_DD, seed=1))
  assert measured == pytest.approx(expected, abs=1e-9)


def test_identical_features_have_distance_zero():
  feature_ND = np.random.default_rng(0).standard_normal((200, 16)) * 100
  assert between(feature_ND, feature_ND) == pytest.approx(0.0, abs=1e-6)


def test_symmetric_and_invariant_under_rotation():
  generator = np.random.default_rng(0)
  a_ND, b_ND = generator.standard_normal((50, 6)), 0.5 + 2.0 * generator.standard_normal((70, 6))
  rotation_DD, _ = np.linalg.qr(generator.standard_normal((6, 6)))
  assert between(a_ND, b_ND) == pytest.approx(between(b_ND, a_ND), rel=1e-10)
  assert between(a_ND @ rotation_DD, b_ND @ rotation_DD) == pytest.approx(between(a_ND, b_ND), rel=1e-10)


def test_constant_features_are_no_obstacle():
  """ReLU features that never fire make the covariance singular; the rest still counts."""
  a_ND = np.pad(exact_features([0.0, 0.0], np.eye(2)), ((0, 0), (0, 3)))
  b_ND = np.pad(exact_features([3.0, 0.0], 4 * np.eye(2)), ((0, 0), (0, 3)))
  assert between(a_ND, b_ND) == pytest.approx(9 + 1 + 1, abs=1e-6)


@pytest.mark.parametrize(('feature_ND', 'message'), [
  (np.zeros((8, 8)), 'more than 8 samples, got 8'),
  (np.full((20, 2), np.nan), '20 of 20 samples'),
  (np.zeros((20, 2, 2)), 'flatten'),
])
def test_features_that_cannot_be_fitted(feature_ND, message):
  with pytest.raises(UserError, match=message):
    frechet.moments(feature_ND)


def test_features_of_two_extractors():
  a, b = (frechet.moments(np.random.default_rng(0).standard_normal((20, width))) for width in (2, 3))
  with pytest.raises(UserError, match='got 2 and 3'):
    frechet.distance(a, b)
