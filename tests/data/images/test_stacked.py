"""Stacked MNIST: what a row is made of, what training draws anew, and what is held out."""

import numpy as np
import pytest

from genjax.data import sources
from genjax.data.images import stacked
from genjax.data.pipeline import Pipeline
from genjax.types import UserError


@pytest.fixture
def digits(monkeypatch):
  """As MNIST, but each image is filled with 10 times its digit, and 1 more in the test split."""
  def open_tfds(name, split, columns, data_dir, originals):
    label_N = np.arange(50, dtype=np.int32) % 10
    image_NHWC = np.broadcast_to((10 * label_N + (split == 'test'))[:, None, None, None], (50, 28, 28, 1))
    return sources.Arrays({'image': image_NHWC.astype(np.uint8), 'label': label_N}, {'checksum': split})

  monkeypatch.setattr(stacked.sources, 'open_tfds', open_tfds)


def test_rows_are_three_digits_and_their_number(digits):
  rows = stacked.open_split('train').get(np.arange(400))
  assert rows['image'].shape == (400, 28, 28, 3) and rows['image'].dtype == np.uint8
  digit_N3 = rows['image'][:, 0, 0].astype(int) // 10
  assert rows['label'].tolist() == [int(f'{a}{b}{c}') for a, b, c in digit_N3]
  assert (np.bincount(digit_N3.reshape(-1), minlength=10) > 60).all()  # of 1200
  assert len(np.unique(rows['label'])) > 280  # of 400 draws of 1000: 330 are expected
  assert list(stacked.open_split('train', labelled=False).get(np.arange(2))) == ['image']


def test_training_draws_anew_and_held_out_rows_stay(digits):
  train, heldout = (Pipeline(lambda split=split: stacked.open_split(split), 50, 0, shuffle=split == 'train')
                    for split in ('train', 'test[:100]'))
  assert len(heldout.source) == 100 and len(train.source) == 60_000
  same = lambda a, b: (a['label'] == b['label']).all()
  batch = lambda pipeline, step: pipeline.batch(step)
  assert same(batch(train, 3), batch(train, 3)) and not same(batch(train, 3), batch(train, 4))
  epoch = 60_000 // 50
  assert not same(batch(train, 0), batch(train, epoch))  # a second epoch has other stacks
  assert same(batch(heldout, 0), batch(heldout, 2))
  assert (batch(heldout, 0)['image'] % 10 == 1).all()  # of test digits alone
  with pytest.raises(UserError, match="no split 'heldout'"):
    stacked.open_split('heldout')
