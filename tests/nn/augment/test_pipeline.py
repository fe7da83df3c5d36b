"""ADA's transforms as published: their order, their probabilities and the numbers that they draw."""

import functools
import math

import jax
import numpy as np
import pytest

from genjax.nn.augment.pipeline import COLOUR, GEOMETRY, Transforms
from genjax.types import UserError

COUNT, SIZE = 4000, (32, 64)


@jax.jit
def everything(strength, key):
  """Parameters and matrices of many pictures of 32 x 64 pixels."""
  own = Transforms()
  return ([own.drawn(steps, strength, key, COUNT, SIZE) for steps in (GEOMETRY, COLOUR)],
          [own.places(strength, key, COUNT, SIZE), own.colours(strength, key, COUNT, SIZE)])


@functools.cache
def drawn(strength):
  """The parameters by name."""
  return [{name: np.asarray(value) for name, value in part.items()}
          for part in everything(strength, jax.random.key(0))[0]]


def test_order_and_probabilities():
  places, colours = drawn(0.5)
  # jit sorts names: the order is that of the tables
  assert list(GEOMETRY) == ['flip', 'quarter', 'shift', 'scale', 'rotate_before', 'aspect', 'rotate_after', 'move']
  assert list(COLOUR) == ['brightness', 'contrast', 'luma', 'hue', 'saturation']
  assert set(places) == set(GEOMETRY) and set(colours) == set(COLOUR)
  changed = {name: value != ({**GEOMETRY, **COLOUR}[name].neutral) for name, value in {**places, **colours}.items()}
  share = {name: value.reshape(COUNT, -1).any(axis=1).mean() for name, value in changed.items()}
  once = 1.0 - math.sqrt(0.5)
  expected = dict(flip=0.25, quarter=0.375, shift=0.5, scale=0.5, rotate_before=once, aspect=0.5, rotate_after=once,
                  move=0.5, brightness=0.5, contrast=0.5, luma=0.25, hue=0.5, saturation=0.5)
  for name, value in expected.items():
    assert share[name] == pytest.approx(value, abs=0.03), name
  assert (changed['rotate_before'] | changed['rotate_after']).mean() == pytest.approx(0.5, abs=0.03)


def test_published_sizes():
  """At strength 1 every picture is changed; shifts are shares of width and height."""
  places, colours = drawn(1.0)
  assert set(np.unique(places['flip'])) == {0, 1} and set(np.unique(places['quarter'])) == {0, 1, 2, 3}
  assert not (places['shift'] % 1).any()
  np.testing.assert_array_equal(np.abs(places['shift']).max(axis=0), [8, 4])
  for name, deviation in (('scale', 0.2), ('aspect', 0.2)):
    assert np.log2(places[name]).std() == pytest.approx(deviation, rel=0.05)
  np.testing.assert_allclose(places['move'].std(axis=0), [8, 4], rtol=0.05)
  for value in (places['rotate_before'], places['rotate_after'], colours['hue']):
    assert np.abs(value).max() == pytest.approx(math.pi, rel=0.01)
    assert value.std() == pytest.approx(math.pi / math.sqrt(3.0), rel=0.05)
  assert colours['brightness'].std() == pytest.approx(0.2, rel=0.05)
  assert np.log2(colours['contrast']).std() == pytest.approx(0.5, rel=0.05)
  assert np.log2(colours['saturation']).std() == pytest.approx(1.0, rel=0.05)


def test_matrices_join_in_the_published_order():
  """Maps of places from the result to the picture: the product of all in their order. Maps of colours: the last
  first."""
  (own_places, own_colours), (places, colours) = everything(1.0, jax.random.key(0))
  few = slice(0, 3)
  by_place = [np.asarray(GEOMETRY[name].matrix(own_places[name][few]), np.float64) for name in GEOMETRY]
  by_colour = [np.asarray(COLOUR[name].matrix(own_colours[name][few]), np.float64) for name in COLOUR]
  np.testing.assert_allclose(places[few], functools.reduce(np.matmul, by_place), atol=1e-4)
  np.testing.assert_allclose(colours[few], functools.reduce(np.matmul, by_colour[::-1]), atol=1e-4)


def test_strength_0_changes_nothing_and_groups_are_left_out():
  for matrices in everything(0.0, jax.random.key(0))[1]:
    np.testing.assert_array_equal(matrices, np.broadcast_to(np.eye(matrices.shape[-1]), matrices.shape))
  image = np.random.default_rng(0).uniform(-1, 1, (4, 8, 8, 3)).astype(np.float32)
  colour = np.asarray(jax.jit(Transforms(groups='c', luma=0.0))(image, 1.0, jax.random.key(0)))
  assert np.abs(colour - image).max() > 0.1
  for before, after in zip(image.reshape(4, -1, 3), colour.reshape(4, -1, 3)):  # an affine map of each pixel's colour
    _, residuals, _, _ = np.linalg.lstsq(np.pad(before, ((0, 0), (0, 1)), constant_values=1.0), after, rcond=None)
    assert residuals.max() < 1e-6
  with pytest.raises(UserError, match='groups must be letters of'):
    Transforms(groups='bx')
  with pytest.raises(UserError, match='flip must not be negative'):
    Transforms(flip=-1.0)
  with pytest.raises(UserError, match=r'with \(1, 3\) channels, got 4'):
    Transforms()(np.zeros((1, 8, 8, 4), np.float32), 1.0, jax.random.key(0))


def test_cutout_is_a_rectangle_of_half_the_sides():
  """By the rule of the published code: |(x + 1/2) / W - c| < 1/4 along both axes, of pictures with probability p."""
  own = Transforms(groups='b', flip=0.0, quarter=0.0, shift=0.0, cutout=0.8)
  image = np.ones((2000, 6, 8, 1), np.float32)
  lost = np.asarray(jax.jit(own)(image, 0.5, jax.random.key(1)))[..., 0] == 0
  assert lost.any(axis=(1, 2)).mean() == pytest.approx(0.4, abs=0.03)
  rows, columns = lost.any(axis=2), lost.any(axis=1)
  np.testing.assert_array_equal(lost, rows[:, :, None] & columns[:, None])
  for side, along in ((6, rows), (8, columns)):
    centres = np.linspace(0, 1, 401)[:-1] + 1 / 800
    near = np.abs((np.arange(side) + 0.5) / side - centres[:, None]) < 0.25
    possible = {tuple(row) for row in near}
    seen, count = np.unique(along[lost.any(axis=(1, 2))], axis=0, return_counts=True)
    assert {tuple(row) for row in seen} == possible
    for row, share in zip(seen, count / count.sum()):
      assert share == pytest.approx((near == row).all(axis=1).mean(), abs=0.05)
  assert not (np.asarray(jax.jit(own)(image[:8], 0.0, jax.random.key(1))) == 0).any()
