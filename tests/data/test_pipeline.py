"""The batch is a function of the step: purity, shuffling, rows, resume, prefetching."""

import itertools
import threading

import numpy as np
import pytest

from genjax.data.pipeline import Pipeline, RowRandom
from genjax.data.sources import Arrays
from genjax.types import UserError

EXAMPLES, BATCH = 23, 5  # a batch that spans epochs

PINNED = [[19, 3, 16, 17, 0], [21, 1, 13, 9, 11]]
PINNED_LARGE = [4138, 74375, 14277]
PINNED_UNIFORM = [[0.2558852031320078, 0.08832385701148338], [0.9377838289418287, 0.9316150250544033]]


def make(**options):
  columns = {'index': np.arange(EXAMPLES), 'image': np.arange(EXAMPLES * 4, dtype=np.uint8).reshape(EXAMPLES, 2, 2)}
  return Pipeline(lambda: Arrays(columns), batch_size=BATCH, seed=3, **options)


def jitter(columns, random):
  shift_B = random.integers(0, 100, 2)
  return dict(columns, shift=shift_B, noise=random.uniform(3))


def assert_equal(left, right):
  assert left.keys() == right.keys()
  for name in left:
    np.testing.assert_array_equal(left[name], right[name])


def test_batch_is_a_function_of_seed_and_step():
  assert_equal(make(transform=jitter).batch(7), make(transform=jitter).batch(7))
  orders = [make().batch(step)['index'].tolist() for step in range(4)]
  assert len(set(map(tuple, orders))) == 4
  other = make()
  other.seed = 4
  assert [other.batch(step)['index'].tolist() for step in range(4)] != orders


def test_order_is_pinned():
  """A resumed run reads on where it was only if no release of Grain or NumPy changes the permutation."""
  assert [make().batch(step)['index'].tolist() for step in range(2)] == PINNED
  random = RowRandom(1, np.array([0, 5]))
  np.testing.assert_allclose(random.uniform(2), PINNED_UNIFORM, rtol=1e-12)


@pytest.mark.parametrize('shuffle', [True, False])
def test_every_example_once_an_epoch(shuffle):
  pipeline = make(shuffle=shuffle)
  epochs = 4
  index = pipeline.indices(np.arange(epochs * EXAMPLES)).reshape(epochs, EXAMPLES)
  for row in index:
    assert sorted(row) == list(range(EXAMPLES))
  assert len({tuple(row) for row in index}) == (epochs if shuffle else 1)
  steps = [pipeline.batch(step)['index'] for step in range(epochs * EXAMPLES // BATCH)]
  np.testing.assert_array_equal(np.concatenate(steps), index.ravel()[: len(steps) * BATCH])


def test_large_data_is_shuffled_without_memory():
  examples = 100_003
  pipeline = Pipeline(lambda: Arrays({'index': np.arange(examples)}), batch_size=4)
  index = pipeline.indices(np.arange(examples))
  np.testing.assert_array_equal(np.sort(index), np.arange(examples))
  assert abs(np.corrcoef(index, np.arange(examples))[0, 1]) < 0.02
  assert pipeline.indices(np.array([0, 1, 77])).tolist() == PINNED_LARGE


def test_shuffle_has_no_order_left():
  """Over many epochs every example is as likely at every place: chi-squared over places of example 0, 22 degrees."""
  epochs = 2000
  pipeline = make()
  place = np.argmin(pipeline.indices(np.arange(epochs * EXAMPLES)).reshape(epochs, EXAMPLES), axis=1)
  expected = epochs / EXAMPLES
  assert ((np.bincount(place, minlength=EXAMPLES) - expected) ** 2 / expected).sum() < 55  # p = 1e-4


@pytest.mark.parametrize('bounds', [(0, 5), (0, 2, 5), (0, 1, 2, 3, 4, 5), (0, 3, 3, 5)])
def test_rows_of_any_split_make_the_whole(bounds):
  pipeline = make(transform=jitter)
  for step in (0, 4, 9):
    parts = [pipeline.batch(step, slice(*rows)) for rows in itertools.pairwise(bounds)]
    whole = pipeline.batch(step)
    assert_equal({name: np.concatenate([part[name] for part in parts]) for name in whole}, whole)


@pytest.mark.parametrize('rows', [slice(None), slice(1, 3)])
def test_iterate_resumes_anywhere(rows):
  pipeline = make(transform=jitter)
  for start in (0, 6):
    for step, batch in zip(range(start, start + 8), pipeline.iterate(start, rows)):
      assert_equal(batch, pipeline.batch(step, rows))


def test_epoch_is_in_order_padded_and_masked():
  pipeline = make(transform=jitter)
  batches = list(pipeline.epoch())
  assert [len(batch['index']) for batch in batches] == [BATCH] * 5
  mask = np.concatenate([batch['mask'] for batch in batches])
  assert mask.dtype == np.float32 and mask.tolist() == [1.0] * EXAMPLES + [0.0] * 2
  index = np.concatenate([batch['index'] for batch in batches])
  assert index.tolist() == [*range(EXAMPLES), EXAMPLES - 1, EXAMPLES - 1]
  for left, right in zip(batches, pipeline.epoch()):
    assert_equal(left, right)
  for batch, upper, lower in zip(batches, pipeline.epoch(slice(0, 2)), pipeline.epoch(slice(2, 5)), strict=True):
    assert_equal({name: np.concatenate([upper[name], lower[name]]) for name in batch}, batch)


def test_batch_larger_than_the_data_goes_through_epochs():
  pipeline = Pipeline(lambda: Arrays({'index': np.arange(3)}), batch_size=7)
  index = np.concatenate([pipeline.batch(step)['index'] for step in range(3)]).reshape(7, 3)
  assert (np.sort(index, axis=1) == np.arange(3)).all()
  assert Pipeline(lambda: Arrays({'index': np.arange(1)}), batch_size=2).batch(5)['index'].tolist() == [0, 0]


def test_source_is_opened_once_and_late():
  opened = []

  def open_source():
    opened.append(1)
    return Arrays({'index': np.arange(4)})

  pipeline = Pipeline(open_source, batch_size=2)
  assert not opened
  pipeline.fingerprint()
  pipeline.batch(0)
  next(pipeline.iterate(0))
  assert len(opened) == 1


def test_bad_data_is_said_where_it_is_asked_for():
  with pytest.raises(UserError, match='batch_size must be at least 1, got 0'):
    Pipeline(lambda: Arrays({'index': np.arange(3)}), batch_size=0)
  empty = Pipeline(lambda: Arrays({'index': np.arange(0)}), batch_size=2)
  with pytest.raises(UserError, match='no examples'):
    empty.iterate(0)

  def fails(columns, random):
    raise UserError('bad row')

  with pytest.raises(UserError, match='bad row'):
    next(make(transform=fails).iterate(0))


def test_row_random_is_uniform_and_uncorrelated():
  values = RowRandom(0, np.arange(20_000)).uniform(4)
  assert values.min() >= 0 and values.max() < 1
  np.testing.assert_allclose(values.mean(0), 0.5, atol=4 / np.sqrt(12 * 20_000))
  correlation = np.corrcoef(np.concatenate([values[:-1], values[1:]], axis=1).T) - np.eye(8)
  assert np.abs(correlation).max() < 5 / np.sqrt(20_000)
  assert set(RowRandom(0, np.arange(500)).integers(2, 5).tolist()) == {2, 3, 4}


def test_row_random_draws_do_not_repeat():
  once, twice = RowRandom(5, np.arange(3)), RowRandom(5, np.arange(3))
  joined = np.concatenate([twice.uniform(2), twice.uniform(1)], axis=1)
  np.testing.assert_array_equal(once.uniform(3), joined)


class Meeting:
  """A source each of whose reads waits for another one."""

  def __init__(self, readers):
    self._barrier = threading.Barrier(readers)

  def __len__(self):
    return EXAMPLES

  def get(self, indices):
    self._barrier.wait(timeout=20)
    return {'index': indices}

  def fingerprint(self):
    return {}


def test_threads_prepare_batches_together_and_in_their_order():
  """A source that decodes keeps as many cores busy; the batches are those of one thread."""
  batches = make(threads=3, transform=jitter)
  assert [batch['index'].tolist() for batch in itertools.islice(batches.iterate(4), 20)] == [
    make().batch(step)['index'].tolist() for step in range(4, 24)]
  for left, right in zip(batches.epoch(), make(transform=jitter).epoch(), strict=True):
    assert_equal(left, right)
  together = Pipeline(lambda: Meeting(2), batch_size=BATCH, seed=3, threads=2)
  assert [batch['index'].tolist() for batch in itertools.islice(together.iterate(0), 6)] == [
    make().batch(step)['index'].tolist() for step in range(6)]
  for threads in (0, -1, 1.5, True):
    with pytest.raises(UserError, match='threads must be'):
      make(threads=threads)
