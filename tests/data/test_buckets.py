"""Batches of like sizes: every example once an epoch, no more padding than there must be, rows and resume as in any
pipeline."""

import numpy as np
import pytest

from genjax.data.buckets import Buckets
from genjax.data.pipeline import Pipeline
from genjax.data.text.parallel import parallel
from genjax.data.text.windows import ByteVocabulary
from genjax.types import UserError

EXAMPLES, BATCH, LENGTH = 203, 8, 40
SIZES_N = np.random.default_rng(0).integers(1, LENGTH + 1, EXAMPLES)


def make(kind=Buckets, **options):
  texts = [chr(33 + number % 90) * size for number, size in enumerate(SIZES_N)]
  pairs = texts, [text[:3] for text in texts]
  return kind(lambda: parallel(pairs, (ByteVocabulary().encode,) * 2, (LENGTH, LENGTH)), BATCH, 3, **options)


def test_every_example_once_an_epoch_in_another_order():
  pipeline = make(pool=5)
  index_EN = pipeline.indices(np.arange(4 * EXAMPLES)).reshape(4, EXAMPLES)
  np.testing.assert_array_equal(np.sort(index_EN, axis=1), np.broadcast_to(np.arange(EXAMPLES), (4, EXAMPLES)))
  assert len({tuple(row) for row in index_EN}) == 4
  other = make(pool=5)
  other.seed = 4
  assert not np.array_equal(other.indices(np.arange(EXAMPLES)), index_EN[0])


def test_batches_hold_like_sizes_cut_to_the_longest():
  pipeline, steps = make(pool=100), EXAMPLES // BATCH
  spreads = []
  for step in range(2 * steps):
    columns = pipeline.batch(step)
    size_B = SIZES_N[pipeline.indices(step * BATCH + np.arange(BATCH))]
    assert {column.shape[1] for column in columns.values()} == {-(-size_B.max() // 4) * 4}
    np.testing.assert_array_equal(columns['source_weights'].sum(axis=1), size_B)
    spreads.append(np.ptp(size_B))
  # All but those in which one epoch ends and another begins.
  assert np.median(spreads) <= 3 and sum(spread > 6 for spread in spreads) <= 3
  plain = make(Pipeline)
  assert sum(make(pool=100).batch(step)['source'].size for step in range(steps)) < 0.7 * sum(
    plain.batch(step)['source'].size for step in range(steps))


def test_widths_are_those_of_the_whole_batch():
  """Each process reads its rows, in the shape that the others have."""
  pipeline = make()
  for read in (pipeline.batch(1), next(pipeline.epoch())):
    part = pipeline.batch(1, slice(0, 2)) if 'mask' not in read else next(pipeline.epoch(slice(0, 2)))
    for name, column in part.items():
      np.testing.assert_array_equal(column, read[name][:2])


def test_iterating_from_any_step_and_an_epoch_in_order():
  pipeline = make()
  for step, columns in zip(range(30, 33), pipeline.iterate(30)):
    np.testing.assert_array_equal(columns['source'], make().batch(step)['source'])
  batches = list(pipeline.epoch())
  sizes_N = np.concatenate([batch['source_weights'].sum(axis=1)[batch['mask'] > 0] for batch in batches])
  np.testing.assert_array_equal(sizes_N, SIZES_N)


def test_fewer_examples_than_a_batch():
  pipeline = make()
  pipeline.batch_size = 300
  assert np.bincount(pipeline.indices(np.arange(600, 900)), minlength=EXAMPLES).sum() == 300


def test_bad_options_are_refused():
  with pytest.raises(UserError, match='pool must be at least 1, got 0'):
    make(pool=0)
