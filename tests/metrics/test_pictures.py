"""PSNR and SSIM: closed forms, bounds and bad input."""

import numpy as np
import pytest

from genjax.metrics import pictures
from genjax.types import UserError


def test_psnr_of_a_known_error():
  a_NHWC = np.full((2, 5, 4, 3), 100, np.uint8)
  b_NHWC = a_NHWC.copy()
  b_NHWC[1] = 110
  np.testing.assert_allclose(pictures.psnr(a_NHWC, b_NHWC), [100.0, 20 * np.log10(255 / 10)])
  assert pictures.psnr(np.full((1, 2, 2, 1), 255, np.uint8), np.zeros((1, 2, 2, 1), np.uint8)) == pytest.approx(0.0)


def test_ssim_is_1_for_equal_pictures_alone():
  a_NHWC = np.random.default_rng(0).integers(0, 256, (3, 16, 12, 3), np.uint8)
  b_NHWC = a_NHWC.copy()
  b_NHWC[1] = 255 - b_NHWC[1]
  b_NHWC[2, 3] ^= 16
  same, turned, near = pictures.ssim(a_NHWC, b_NHWC)
  assert same == 1.0 and turned < 0 and 0.5 < near < 1.0


def test_ssim_of_two_constants_is_the_term_of_luminance():
  a, b, c = 100.0, 120.0, (0.01 * 255) ** 2
  found = pictures.ssim(np.full((1, 11, 11, 1), a, np.uint8), np.full((1, 11, 11, 1), b, np.uint8))
  assert found[0] == pytest.approx((2 * a * b + c) / (a * a + b * b + c))


def test_bad_input():
  a_NHWC = np.zeros((2, 8, 8, 1), np.uint8)
  with pytest.raises(UserError, match='at least 11 x 11 pixels, got 8 x 8'):
    pictures.ssim(a_NHWC, a_NHWC)
  with pytest.raises(UserError, match='one shape N H W C, got uint8'):
    pictures.psnr(a_NHWC, a_NHWC[:1])
  with pytest.raises(UserError, match='float64'):
    pictures.psnr(a_NHWC, a_NHWC.astype(float))
