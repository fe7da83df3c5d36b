"""Minibatch optimal transport in the pipeline: the best permutation, the same for any split of the rows."""

import itertools

import numpy as np
import pytest

from genjax.data import coupling, points
from genjax.data.pipeline import Pipeline, RowRandom
from genjax.data.sources import Arrays
from genjax.types import UserError

BATCH = 12


def pictures(**options):
  random = np.random.default_rng(0)
  columns = {'image': random.integers(0, 256, (50, 2, 3, 1)).astype(np.uint8), 'label': np.arange(50, dtype=np.int32)}
  return Pipeline(lambda: Arrays(columns), batch_size=BATCH, seed=3, **options)


def noised(**options):
  return pictures(joint=coupling.OptimalTransport('image', 'noise', (2, 3, 1)), **options)


def test_no_permutation_is_better():
  random = np.random.default_rng(1)
  x_BD, y_BD = random.normal(size=(6, 3)), random.normal(size=(6, 3))
  cost = lambda order: ((x_BD - y_BD[list(order)]) ** 2).sum()
  best = min(itertools.permutations(range(6)), key=cost)
  assert coupling.nearest(x_BD, y_BD).tolist() == list(best)
  np.testing.assert_array_equal(coupling.nearest(40 * x_BD + 7, y_BD), best)  # neither scale nor shift matters


@pytest.mark.parametrize('bounds', [(0, 6, 12), (0, 1, 5, 12), (0, 3, 6, 9, 12)])
@pytest.mark.parametrize('group', [0, 4])
def test_any_processes_make_the_same_batch(bounds, group):
  whole = noised(group=group).batch(5)
  parts = [noised(group=group).batch(5, slice(*rows)) for rows in itertools.pairwise(bounds)]
  for name in whole:
    np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), whole[name])
  odd = noised(group=group).batch(5, np.arange(1, BATCH, 2))
  np.testing.assert_array_equal(odd['noise'], whole['noise'][1::2])


def test_data_stays_and_noise_is_permuted_within_its_group():
  plain, coupled = pictures().batch(2), noised(group=4).batch(2)
  for name in plain:
    np.testing.assert_array_equal(coupled[name], plain[name])
  positions_B = 2 * BATCH + np.arange(BATCH)
  for start in range(0, BATCH, 4):
    drawn = RowRandom(3, positions_B[start:start + 4]).some(np.arange(4)).normal(2, 3, 1).astype(np.float32)
    found = coupled['noise'][start:start + 4]
    assert sorted(found[:, 0, 0, 0]) == sorted(drawn[:, 0, 0, 0])


def test_coupled_noise_is_nearer_and_still_normal():
  noise = np.concatenate([noised().batch(step)['noise'] for step in range(300)])
  image = np.concatenate([noised().batch(step)['image'] for step in range(300)]) / 127.5 - 1
  assert abs(noise.mean()) < 0.03 and noise.std() == pytest.approx(1, abs=0.03)
  assert np.corrcoef(noise.ravel(), image.ravel())[0, 1] > 0.2


def test_augmentation_is_that_of_uncoupled_batches():
  jitter = lambda columns, random: dict(columns, shift=random.uniform())
  coupled, plain = noised(transform=jitter).batch(1), pictures(transform=jitter).batch(1)
  np.testing.assert_array_equal(coupled['shift'], plain['shift'])


def test_the_last_batch_of_an_epoch_is_padded():
  batches = list(noised().epoch())
  assert len(batches) == 5 and batches[-1]['mask'].sum() == 2
  assert all(batch['noise'].shape == (BATCH, 2, 3, 1) for batch in batches)


def test_sizes_that_do_not_divide_are_refused():
  with pytest.raises(UserError, match='groups of 5 rows do not divide a batch of 12'):
    noised(group=5)


def test_pairs_of_points():
  pipeline = Pipeline(lambda: points.pairs('moons', 'eight_gaussians', 1000, 0), 100,
                      joint=coupling.OptimalTransport('point', 'source'))
  batch, plain = pipeline.batch(0), Pipeline(lambda: points.pairs('moons', 'eight_gaussians', 1000, 0), 100).batch(0)
  np.testing.assert_array_equal(batch['point'], plain['point'])
  distance = lambda columns: ((columns['point'] - columns['source']) ** 2).sum()
  assert distance(batch) < 0.7 * distance(plain)
  assert sorted(batch['source'].ravel()) == sorted(plain['source'].ravel())


def test_distributions_have_the_published_scale():
  gaussians, moons = points.drawn('eight_gaussians', 20_000, 0), points.drawn('moons', 20_000, 0)
  assert np.hypot(*gaussians.T).mean() == pytest.approx(5.03, abs=0.03)
  assert (gaussians ** 2).sum(axis=1).mean() == pytest.approx(25 + 2 * 0.1 ** 0.5, rel=0.01)
  # of 3 x - 1: x from -1 to 2 and y from -0.5 to 1, each moved by 0 to 0.2
  assert moons[:, 0].min() > -4.001 and moons[:, 0].max() < 5.601
  assert moons[:, 1].min() > -2.501 and moons[:, 1].max() < 2.601
  np.testing.assert_allclose(moons.mean(axis=0), (3 * (0.5 + 0.1) - 1, 3 * (0.25 + 0.1) - 1), atol=0.05)
