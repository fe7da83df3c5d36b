"""Changes of colours of photographs against scipy's rotations and the words for them."""

import pathlib
import sys

import jax
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from genjax.nn.augment import colour

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from photographs import photographs

VALUES = np.float32([0.3, 1.7])


def grey(image):
  return image.mean(axis=-1, keepdims=True)


CASES = {
  'brightness': (colour.brighten, lambda image, value: image + value),
  'contrast': (colour.stretch, lambda image, value: image * value),
  'saturation': (colour.saturate, lambda image, value: grey(image) + value * (image - grey(image))),
  'hue': (colour.turn_hue, lambda image, value: Rotation.from_rotvec(value * np.ones(3) / np.sqrt(3.0)).apply(
    image.reshape(-1, 3)).reshape(image.shape)),
  'luma': (lambda values: colour.flip_luma(np.float32([0.0, 1.0])),
           lambda image, value: image - (value > 1.0) * 2.0 * grey(image)),
}


@pytest.mark.parametrize('name', CASES)
def test_changes_of_photographs(name):
  matrices, reference = CASES[name]
  image_BHWC = photographs()
  found = jax.jit(lambda image, values: colour.recolour(image, matrices(values)))(image_BHWC, VALUES)
  expected = np.stack([reference(image, value) for image, value in zip(image_BHWC.astype(np.float64), VALUES)])
  assert np.abs(expected - image_BHWC).max() > 0.1
  np.testing.assert_allclose(found, expected, atol=3e-6)


def test_order_and_grey_pictures():
  """First brighter, then more contrast: both are multiplied. One channel is what becomes of grey."""
  image_BHWC = photographs()

  @jax.jit
  def changed(image):
    joined = colour.join(colour.brighten(VALUES), colour.stretch(2.0 * VALUES))
    turned = colour.join(joined, colour.turn_hue(VALUES))
    return colour.recolour(image, joined), colour.recolour(grey(image), turned)

  both, one = changed(image_BHWC)
  value = VALUES[:, None, None, None]
  np.testing.assert_allclose(both, (image_BHWC + value) * 2 * value, atol=3e-6)
  np.testing.assert_allclose(one, (grey(image_BHWC) + value) * 2 * value, atol=3e-6)
