"""The linear code of patches: exact with all numbers, best with few, of deviation 1."""

import numpy as np
import pytest

from genjax.objectives import patch_code
from genjax.types import UserError


@pytest.fixture(scope='module')
def pictures():
  """Pictures of few degrees of freedom, of shape (12, 8, 3), with noise."""
  random = np.random.default_rng(0)
  basis = random.normal(size=(5, 12, 8, 3))
  image = 128 + np.einsum('nk,khwc->nhwc', random.normal(size=(300, 5)) * 12, basis)
  image = image + random.normal(size=image.shape)
  return np.clip(np.round(image), 0, 255).astype(np.uint8)


def back(code, image):
  codec = code.codec(image.shape[1:])
  return np.asarray(codec.decode({}, codec.encode({}, {'image': image}, None))['image'])


@pytest.mark.parametrize('places', [False, True])
def test_all_numbers_lose_nothing(pictures, places):
  code = patch_code.fit(pictures, 4, 48, places=places)
  assert code.mean.shape == ((6 if places else 1), 48)
  np.testing.assert_array_equal(back(code, pictures[:20]), pictures[:20])


def test_numbers_have_deviation_one(pictures):
  code = patch_code.fit(pictures, 4, 5, places=True)
  x = np.asarray(code.codec((12, 8, 3)).encode({}, {'image': pictures}, None))
  assert x.shape == (300, 3, 2, 5)
  np.testing.assert_allclose(x.std(0), 1, rtol=0.05)
  np.testing.assert_allclose(x.mean(0), 0, atol=0.02)


def test_without_whitening_distances_are_those_of_pixels(pictures):
  code = patch_code.fit(pictures, 4, 48, whitening=0.0)
  x = np.asarray(code.codec((12, 8, 3)).encode({}, {'image': pictures[:2]}, None))
  pixels = pictures[:2].astype(np.float32) / 127.5 - 1
  assert np.ptp(code.scale) == 0
  away = np.square(x[0] - x[1]).sum() * code.scale[0, 0] ** 2
  np.testing.assert_allclose(away, np.square(pixels[0] - pixels[1]).sum(), rtol=1e-3)


def test_places_of_their_own_need_fewer_numbers(pictures):
  errors = [np.square(back(patch_code.fit(pictures, 4, 5, places=places), pictures).astype(float) - pictures).mean()
            for places in (False, True)]
  assert errors[1] < 2 < errors[0]  # five numbers and rounding noise make a patch of one place


def test_a_flat_place_is_kept(pictures):
  flat = pictures.copy()
  flat[:, :4, :4] = 17
  code = patch_code.fit(flat, 4, 5, places=True)
  assert np.isfinite(code.scale).all() and code.scale.min() > 0
  assert (np.abs(back(code, flat)[:, :4, :4].astype(int) - 17) <= 1).all()


def test_too_few_patches_are_refused(pictures):
  with pytest.raises(UserError, match='take more pictures'):
    patch_code.fit(pictures[:5], 4, 5, places=True)
