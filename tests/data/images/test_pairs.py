"""Pairs of pictures: halves, folders by names, what is made of pictures, and rows that do not belong together."""

import numpy as np
from PIL import Image
import pytest

from genjax.data import folder
from genjax.data.images import pairs
from genjax.data.pipeline import Pipeline, RowRandom
from genjax.data.sources import Arrays
from genjax.types import UserError


def picture(path, value, size=(4, 6)):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path)


def opened(place, split='train'):
  return folder.open_folder(place, split, folder.Options('pictures', ()))


def first_values(column):
  return [int(image.flat[0]) for image in column]


def numbered(count, start=0):
  return Arrays({'image': np.arange(start, start + count, dtype=np.uint8).reshape(-1, 1, 1, 1).repeat(3, axis=3)})


def test_halves(tmp_path):
  for number in range(3):
    whole = np.concatenate([np.full((4, 5, 3), 10 + number, np.uint8), np.full((4, 5, 3), 20 + number, np.uint8)], 1)
    (tmp_path / 'train').mkdir(exist_ok=True)
    Image.fromarray(whole).save(tmp_path / 'train' / f'{number}.png')
  for right, (source, target) in ((False, (10, 20)), (True, (20, 10))):
    columns = pairs.Halves(opened(tmp_path), right).get(np.arange(3))
    difference = np.subtract(first_values(columns['source']), first_values(columns['image']))
    assert set(difference) == {source - target} and columns['source'][0].shape == (4, 5, 3)
  picture(tmp_path / 'train' / 'odd.png', 0, (4, 5))
  with pytest.raises(UserError, match=r'1 of 4 pictures .* odd: train/odd.png'):
    pairs.Halves(opened(tmp_path))


def test_folders_are_matched_by_names(tmp_path):
  for number in range(5):
    picture(tmp_path / 'A' / 'train' / f'{number}.png', number)
    picture(tmp_path / 'B' / 'train' / f'{number}.bmp', 100 + number)
  sides = [opened(*pairs.place(tmp_path, domain, 'train')) for domain in 'AB']
  columns = pairs.matched(*sides).get(np.arange(5))
  assert np.subtract(first_values(columns['image']), first_values(columns['source'])).tolist() == [100] * 5
  picture(tmp_path / 'A' / 'train' / 'alone.png', 0)
  with pytest.raises(UserError, match='1 of the source pictures, such as train/alone'):
    pairs.matched(opened(tmp_path / 'A'), sides[1])
  picture(tmp_path / 'A' / 'train' / 'alone.bmp', 0)
  with pytest.raises(UserError, match="two pictures are called 'train/alone'"):
    pairs.matched(opened(tmp_path / 'A'), sides[1])


def test_published_names_of_domains(tmp_path):
  (tmp_path / 'trainA').mkdir()
  (tmp_path / 'B').mkdir()
  assert pairs.place(tmp_path, 'A', 'train[:90%]') == (tmp_path / 'trainA', 'train[:90%]')
  assert pairs.place(tmp_path, 'B', 'test') == (tmp_path / 'B', 'test')
  with pytest.raises(UserError, match='must hold a folder testC, or C'):
    pairs.place(tmp_path, 'C', 'test')


def test_unpaired_rows_are_drawn_and_resume():
  """Each source once an epoch, targets at random, and a batch is a function of its step alone."""
  pipeline = Pipeline(lambda: pairs.Unpaired(numbered(6), numbered(4, 100)), batch_size=3, seed=1)
  batches = [pipeline.batch(step) for step in range(40)]
  seen = [first_values(batch['source']) + first_values(batch['image']) for batch in batches]
  assert sorted(seen[0][:3] + seen[1][:3]) == list(range(6))
  both = {(source, target) for row in seen for source, target in zip(row[:3], row[3:])}
  assert {target for _, target in both} == {100, 101, 102, 103} and len(both) > 18  # of 24, after 120 draws
  again = pipeline.batch(7, np.array([2]))
  assert first_values(again['image']) == first_values(batches[7]['image'])[2:]
  assert not len(pairs.Unpaired(numbered(6), numbered(0)))


def test_edges_and_smaller_copies():
  image_HWC = np.zeros((16, 16, 3), np.uint8)
  image_HWC[4:12, 4:12] = 255
  edges_HW1 = pairs.edges(image_HWC)
  assert edges_HW1.shape == (16, 16, 1) and set(np.unique(edges_HW1)) == {0, 255}
  black = np.argwhere(edges_HW1[..., 0] == 0)
  near = np.abs(black - 7.5).max(axis=1)
  assert len(black) >= 20 and near.min() >= 2.5 and near.max() <= 5.5  # along the square
  small = pairs.smaller(image_HWC, 4)
  assert small.shape == (4, 4, 3) and small[1, 1, 0] > 200 > 60 > small[0, 0, 0]
  assert pairs.enlarged(small[None], 4).shape == (1, 16, 16, 3)


def test_augmentation_treats_both_sides_alike_only_if_they_belong_together():
  ramp = np.arange(12 * 12, dtype=np.uint8).reshape(1, 12, 12, 1).repeat(32, axis=0)
  random = lambda: RowRandom(0, np.arange(32))
  for together in (True, False):
    found = pairs.augmented({'source': ramp, 'image': ramp}, random(), margin=2, flip=True, together=together)
    assert found['source'].shape == (32, 10, 10, 1)
    same = (found['source'] == found['image']).all(axis=(1, 2, 3))
    assert same.all() if together else same.mean() < 0.3
  assert len(np.unique(found['image'][:, 0, 0, 0])) > 8  # offsets and mirrors


def test_sizes_without_a_filter_are_refused():
  source = pairs.Joined(numbered(2), numbered(2))
  resized = pairs.Resized(source, {'source': (2, 2, 3), 'image': (1, 1, 3)}, '', False)
  with pytest.raises(UserError, match=r"'source' must be \(2, 2, 3\).* got \(1, 1, 3\)"):
    resized.get(np.arange(2))
  grown = pairs.Resized(source, {'source': (2, 2, 1), 'image': (1, 1, 3)}, 'bicubic', False).get(np.arange(2))
  assert grown['source'].shape == (2, 2, 2, 1)
