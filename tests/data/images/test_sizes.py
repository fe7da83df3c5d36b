"""What SDXL is told of a picture: original size, what was cut off, the size that it is shown in."""

import ml_collections
import numpy as np
from PIL import Image
import pytest

from genjax.experiments import images

SIZES = {'wide.png': (20, 40), 'tall.png': (60, 20), 'square.png': (30, 30)}


@pytest.fixture
def config(tmp_path):
  for number, (name, size) in enumerate(SIZES.items()):
    Image.fromarray(np.full((*size, 3), number, np.uint8)).save(tmp_path / name)

  def make(**data):
    data = dict(name=str(tmp_path), train='train', heldout='train', shape=(10, 10, 3), num_classes=0, **data)
    return ml_collections.ConfigDict(dict(data=data, batch_size=3, seed=0))

  return make


def told(config):
  """(original height and width, offset, target) of each picture by its level."""
  source = images.open_data(config, 'train', ('original_size', 'crop_offset', 'target_size'))
  columns = source.get(np.arange(3))
  names = list(SIZES)
  facts = [columns[name].tolist() for name in ('original_size', 'crop_offset', 'target_size')]
  return {names[int(np.asarray(image)[0, 0, 0])]: tuple(map(tuple, told))
          for image, *told in zip(columns['image'], *facts)}


def test_cropped_pictures_tell_what_was_cut_off(config):
  assert told(config(resize='bilinear', crop=True)) == {
    'wide.png': ((20, 40), (0, 5), (10, 10)), 'tall.png': ((60, 20), (10, 0), (10, 10)),
    'square.png': ((30, 30), (0, 0), (10, 10))}


def test_stretched_pictures_lose_nothing(config):
  assert {offset for _, offset, _ in told(config(resize='bilinear', crop=False)).values()} == {(0, 0)}


def test_buckets_tell_the_size_of_the_bucket(config):
  made = config(resize='bilinear', buckets=((10, 10), (8, 16), (16, 8)))
  assert {name: target for name, (_, _, target) in told(made).items()} == {
    'wide.png': (8, 16), 'tall.png': (16, 8), 'square.png': (10, 10)}
  assert told(made)['tall.png'][1] == (4, 0)  # 60 x 20 covers 16 x 8 at 24 x 8, of which 4 rows go above and below
  batch = images.batches(made, 'train', more=('target_size',)).batch(0)
  np.testing.assert_array_equal(batch['target_size'], [batch['image'].shape[1:3]] * 3)
