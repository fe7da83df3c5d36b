"""DiffAugment on photographs: each change in numpy's words, and what it draws."""

import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.nn.augment import differentiable
from genjax.types import UserError

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from photographs import SIDE, photographs

COUNT = 200


def many():
  """The photographs, again and again."""
  return np.tile(photographs(), (COUNT // 2, 1, 1, 1))


def changed(change):
  image = many()
  return image, np.asarray(jax.jit(change)(image, jax.random.key(1)))


def fitted(x, y):
  """Factors of y = factor x, one a picture, and the largest error."""
  x, y = (value.reshape(COUNT, -1).astype(np.float64) for value in (x, y))
  factor = (x * y).sum(axis=1) / (x * x).sum(axis=1)
  return factor, np.abs(y - factor[:, None] * x).max()


def test_colours():
  image, found = changed(differentiable.brightness)
  added = (found - image).reshape(COUNT, -1)
  assert np.ptp(added, axis=1).max() < 1e-6 and -0.5 < added.min() < -0.45 and 0.45 < added.max() < 0.5
  image, found = changed(differentiable.saturation)
  mean = image.mean(axis=3, keepdims=True)
  factor, error = fitted(image - mean, found - mean)
  assert error < 1e-5 and 0 <= factor.min() < 0.1 and 1.9 < factor.max() <= 2
  image, found = changed(differentiable.contrast)
  mean = image.mean(axis=(1, 2, 3), keepdims=True)
  factor, error = fitted(image - mean, found - mean)
  assert error < 1e-5 and 0.5 <= factor.min() < 0.55 and 1.45 < factor.max() <= 1.5


def test_translation_moves_by_up_to_an_eighth():
  image, found = changed(differentiable.translation)
  padded = np.pad(image, ((0, 0), (5, 5), (5, 5), (0, 0)))
  places = [[(row - 5, column - 5) for row in range(11) for column in range(11)
             if np.array_equal(padded[index, row:row + SIDE, column:column + SIDE], found[index])]
            for index in range(COUNT)]
  assert all(len(place) == 1 for place in places)
  rows, columns = np.transpose([place[0] for place in places])
  assert set(rows) == set(columns) == set(range(-5, 6)) and abs(np.corrcoef(rows, columns)[0, 1]) < 0.25


def test_cutout_removes_half_of_each_side():
  image, found = changed(differentiable.cutout)
  gone = (found != image).any(axis=3) | (image == 0).all(axis=3)
  height, width = gone.any(axis=2).sum(axis=1), gone.any(axis=1).sum(axis=1)
  assert not found[gone].any() and np.array_equal(gone.sum(axis=(1, 2)), height * width)  # one rectangle
  assert height.max() == width.max() == SIDE // 2 and height.min() >= SIDE // 4  # cut off at the edge
  assert gone[:, 0].any() and gone[:, -1].any() and gone[:, :, 0].any() and gone[:, :, -1].any()


def test_policies_and_gradients():
  image = photographs()
  everything = differentiable.DiffAugment()
  slope = jax.jit(jax.grad(lambda x: jnp.sum(everything(x, jax.random.key(0))**2)))(image)
  assert np.isfinite(slope).all() and np.abs(slope).max() > 0
  alone = jax.jit(differentiable.DiffAugment(('cutout',)))(image, jax.random.key(0))
  assert ((np.asarray(alone) == image) | (np.asarray(alone) == 0)).all()
  with pytest.raises(UserError, match='policy must be some of'):
    differentiable.DiffAugment(('colour',))


def test_flip_and_shift_keep_pixels():
  """Every row of the result is a row of the picture or of its mirror image, reflected at the edge."""
  image, found = changed(differentiable.FlipAndShift(share=0.1))
  flips = 0
  for index in range(COUNT):
    options = [np.pad(one, ((4, 4), (4, 4), (0, 0)), mode='reflect') for one in (image[index], image[index, :, ::-1])]
    hits = [any(np.array_equal(one[row:row + SIDE, column:column + SIDE], found[index])
                for row in range(9) for column in range(9)) for one in options]
    assert hits.count(True) == 1
    flips += hits[1]
  assert 70 < flips < 130
