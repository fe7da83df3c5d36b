import numpy as np
import pytest

from genjax.data import synthetic
from genjax.data.synthetic import COLOURS, FORMS, PLACES, captioned_shapes, seen_colour
from genjax.types import UserError


def test_centres():
  grid, ring = synthetic.grid_centres(), synthetic.ring_centres()
  assert grid.shape == (25, 2) and set(grid.ravel().tolist()) == {-4.0, -2.0, 0.0, 2.0, 4.0}
  assert len(np.unique(grid, axis=0)) == 25
  assert ring.shape == (8, 2)
  np.testing.assert_allclose(np.linalg.norm(ring, axis=1), 1, rtol=1e-6)
  gaps = np.linalg.norm(ring - np.roll(ring, 1, axis=0), axis=1)
  np.testing.assert_allclose(gaps, 2 * np.sin(np.pi / 8), rtol=1e-5)


@pytest.mark.parametrize(
  ('make', 'centres', 'deviation'),
  [
    (synthetic.gaussian_grid, synthetic.grid_centres, 0.05),
    (synthetic.gaussian_ring, synthetic.ring_centres, 0.01),
  ],
)
def test_mixture_has_its_modes_and_deviation(make, centres, deviation):
  source = make(size=20_000, seed=1)
  point = source.get(np.arange(20_000))['point']
  assert point.dtype == np.float32 and point.shape == (20_000, 2)
  offset = point[:, None] - centres()[None]
  nearest = (offset**2).sum(-1).argmin(1)
  share = np.bincount(nearest, minlength=len(centres())) / 20_000
  np.testing.assert_allclose(share, 1 / len(centres()), rtol=0.15)
  residual = offset[np.arange(20_000), nearest]
  np.testing.assert_allclose(residual.std(0), deviation, rtol=0.03)
  assert source.fingerprint() == make(size=20_000, seed=1).fingerprint()
  assert source.fingerprint()['checksum'] != make(size=20_000, seed=2).fingerprint()['checksum']


NOISE = {
  'tokens': lambda size, seed: synthetic.random_tokens(50, 16, size, seed),
  'images': lambda size, seed: synthetic.random_images((4, 4, 3), 7, size, seed),
  'latents': lambda size, seed: synthetic.random_latents((4, 4, 2), 0, size, seed),
}


@pytest.mark.parametrize('name', NOISE)
def test_noise_is_a_function_of_seed_and_row(name):
  source = NOISE[name](10**12, 3)  # no length takes memory
  rows = np.array([5, 10**11, 0])
  columns = source.get(rows)
  for column, values in columns.items():
    np.testing.assert_array_equal(values[1], source.get(rows[1:2])[column][0])
    assert not np.array_equal(values[0], values[1]) or column == 'label'
  first = next(iter(columns))
  assert not np.array_equal(columns[first], NOISE[name](10**12, 4).get(rows)[first])
  facts = source.fingerprint()
  assert facts['name'] == f'random_{name}' and facts['examples'] == 10**12 and facts['seed'] == 3


def test_distributions_of_noise():
  tokens = NOISE['tokens'](2000, 0).get(np.arange(2000))['tokens']
  assert tokens.dtype == np.int32 and tokens.shape == (2000, 17) and (tokens.min(), tokens.max()) == (0, 49)
  np.testing.assert_allclose(np.bincount(tokens.ravel()) / tokens.size, 1 / 50, rtol=0.2)
  images = NOISE['images'](500, 0).get(np.arange(500))
  assert images['image'].dtype == np.uint8 and set(images['label'].tolist()) == set(range(7))
  np.testing.assert_allclose(images['image'].mean(), 127.5, rtol=0.02)
  latents = NOISE['latents'](2000, 0).get(np.arange(2000))
  assert set(latents) == {'image'} and latents['image'].dtype == np.float32
  np.testing.assert_allclose([latents['image'].mean(), latents['image'].std()], [0, 1], atol=0.02)


def test_shapes_are_what_their_captions_say():
  source = captioned_shapes((16, 16, 3), 4, 200, seed=3)
  columns = source.get(np.arange(200))
  colour_N, place_N = seen_colour(columns['image'])
  for text, colour, place, label in zip(columns['text'], colour_N, place_N, columns['label']):
    assert list(COLOURS)[colour] in text and PLACES[place] in text and colour == label
    assert any(form in text for form in FORMS)
  again = source.get(np.asarray([7, 3]))
  np.testing.assert_array_equal(again['image'], columns['image'][[7, 3]])
  share = columns['mask'].mean(axis=(1, 2, 3)) / 255
  square = np.asarray(['square' in text for text in columns['text']])
  wanted = np.where(square, 1.0, np.pi / 4) * columns['extent'] ** 2
  assert np.corrcoef(share, wanted)[0, 1] > 0.85
  for shape, classes in (((16, 16, 1), 0), ((4, 16, 3), 0), ((16, 16, 3), 7)):
    with pytest.raises(UserError, match='captioned_shapes'):
      captioned_shapes(shape, classes, 10)
