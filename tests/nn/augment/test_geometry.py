"""Affine changes of photographs against scikit-image and scipy, each by their own words for it."""

import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from skimage import transform

from genjax.nn.augment import geometry

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from photographs import SIDE, photographs

MIDDLE = (SIDE - 1) / 2
WARP = jax.jit(geometry.warp)


def about_centre(change):
  """A change of scikit-image about the centre of the picture, not its corner."""
  return transform.AffineTransform(translation=(-MIDDLE, -MIDDLE)) + change + transform.AffineTransform(
    translation=(MIDDLE, MIDDLE))


def applied(image_HWC, change):
  return transform.warp(image_HWC, about_centre(change).inverse, order=3, mode='reflect', clip=False)


def numbers(value):
  return np.full(2, value, np.float32)


# name -> (matrices for two pictures, what scikit-image, scipy or numpy makes of one picture)
CASES = {
  'flip': (lambda: geometry.scale(numbers(-1.0), numbers(1.0)), lambda image: image[:, ::-1]),
  'quarter turn': (lambda: geometry.quarter_turns(numbers(1)), np.rot90),
  'three quarter turns': (lambda: geometry.quarter_turns(numbers(3)), lambda image: np.rot90(image, 3)),
  'shift': (lambda: geometry.shift(numbers(4.0), numbers(-3.0)),
            lambda image: ndimage.shift(image, (-3, 4, 0), order=0, mode='mirror')),
  'scale': (lambda: geometry.scale(numbers(1.3), numbers(1.3)),
            lambda image: applied(image, transform.SimilarityTransform(scale=1.3))),
  'smaller': (lambda: geometry.scale(numbers(0.8), numbers(0.8)),
              lambda image: applied(image, transform.SimilarityTransform(scale=0.8))),
  'rotate': (lambda: geometry.rotate(np.radians(numbers(25.0))),
             lambda image: transform.rotate(image, 25.0, order=3, mode='reflect', clip=False)),
  'aspect': (lambda: geometry.scale(numbers(1.25), numbers(0.8)),
             lambda image: applied(image, transform.AffineTransform(scale=(1.25, 0.8)))),
  'move': (lambda: geometry.shift(numbers(2.4), numbers(-1.7)),
           lambda image: ndimage.shift(image, (-1.7, 2.4, 0), order=3, mode='mirror')),
  # Enlarged, then turned, then moved
  'joined': (lambda: geometry.join(geometry.join(geometry.scale(numbers(1.2), numbers(1.2)),
                                                 geometry.rotate(np.radians(numbers(-40.0)))),
                                   geometry.shift(numbers(3.5), numbers(1.0))),
             lambda image: applied(image, transform.SimilarityTransform(scale=1.2) + transform.SimilarityTransform(
               rotation=np.radians(40.0)) + transform.SimilarityTransform(translation=(3.5, 1.0)))),
}


@pytest.mark.parametrize('name', CASES)
def test_changes_of_photographs(name):
  """On pictures without the finest detail, which cubic interpolation and the symlet treat differently."""
  image_BHWC = photographs(blur=1.2)
  matrices, reference = CASES[name]
  found = np.asarray(WARP(image_BHWC, matrices()))
  expected = np.stack([reference(image) for image in image_BHWC.astype(np.float64)])
  moved = np.abs(expected - image_BHWC).mean()
  assert moved > 0.05  # the reference is another picture
  np.testing.assert_allclose(found, expected, atol=0.06)
  assert np.abs(found - expected).mean() < 0.02 * moved + 1e-3


def test_sharp_pictures_come_back_and_shift_exactly():
  """Also of another height than width, with moves along each axis alone."""
  image_BHWC = photographs()[:, :32]
  found = np.asarray(WARP(image_BHWC, np.stack([np.eye(3), np.asarray(geometry.shift(numbers(5.0), numbers(2.0)))[0]])))
  np.testing.assert_allclose(found[0], image_BHWC[0], atol=2e-6)
  padded = np.pad(image_BHWC[1], ((2, 0), (5, 0), (0, 0)), mode='reflect')[:32, :40]
  np.testing.assert_allclose(found[1], padded, atol=2e-6)


def test_filter_is_orthogonal():
  """To itself moved by two, and of order 6: it removes what alternates from pixel to pixel, times polynomials."""
  taps = geometry.SYMLET * np.sqrt(2.0)
  products = np.correlate(taps, taps, mode='full')[len(taps) - 1::2]
  np.testing.assert_allclose(products, [1.0, *np.zeros(5)], atol=1e-10)
  for power in range(6):
    assert abs(np.sum(taps * (-1.0)**np.arange(12) * np.arange(12.0)**power)) < 1e-5 * 11.0**power


def test_gradient_is_that_of_a_linear_map():
  image_BHWC, matrix_BMM = photographs(), np.asarray(geometry.rotate(np.float32([0.4, -1.0])))
  weight_BHWC = np.random.default_rng(0).normal(size=image_BHWC.shape).astype(np.float32)
  total = jax.jit(lambda x: jnp.sum(geometry.warp(x, matrix_BMM) * weight_BHWC))
  slope = np.asarray(jax.jit(jax.grad(total))(image_BHWC))
  change = np.random.default_rng(1).normal(size=image_BHWC.shape).astype(np.float32)
  expected = np.sum(np.asarray(WARP(change, matrix_BMM), np.float64) * weight_BHWC)
  np.testing.assert_allclose(np.sum(slope.astype(np.float64) * change), expected, rtol=1e-4)
