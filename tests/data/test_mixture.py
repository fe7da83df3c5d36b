"""Weighted mixtures: shares, epochs of each set, any rows of any step, and what does not mix."""

import numpy as np
import pytest

from genjax.data import interleaving
from genjax.data.mixture import Joined, Mixture
from genjax.data.pipeline import Pipeline, RowRandom
from genjax.data.sources import Arrays
from genjax.types import UserError

SIZES, WEIGHTS, BATCH = {'a': 7, 'b': 40, 'c': 3}, (0.5, 0.3, 0.2), 16


def joined():
  return Joined({name: Arrays({'image': np.full((size, 2, 2, 1), number, np.uint8),
                               'row': np.arange(size) + 100 * number}, {'name': name})
                 for number, (name, size) in enumerate(SIZES.items())})


def make(**options):
  return Mixture(joined, BATCH, options.pop('seed', 3), weights=options.pop('weights', WEIGHTS), names=tuple(SIZES),
                 **options)


def rows(pipeline, steps):
  return np.concatenate([pipeline.batch(step)['row'] for step in range(steps)])


def test_shares_and_epochs_of_each_set():
  row_N = rows(make(), 100)
  for number, (size, weight) in enumerate(zip(SIZES.values(), WEIGHTS)):
    own_N = row_N[row_N // 100 == number] - 100 * number
    assert abs(len(own_N) - weight * len(row_N)) <= 1.5
    whole = len(own_N) // size
    epochs = own_N[:whole * size].reshape(whole, size)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.broadcast_to(np.arange(size), epochs.shape))
    assert len({tuple(epoch) for epoch in epochs.tolist()}) > 1


def test_a_batch_is_a_function_of_seed_and_step():
  pipeline = make()
  late = pipeline.batch(700)  # read first: nothing depends on what came before
  np.testing.assert_array_equal(late['row'], rows(make(), 701)[-BATCH:])
  np.testing.assert_array_equal(next(make().iterate(700))['row'], late['row'])
  parts = [make().batch(700, slice(start, start + 4))['row'] for start in range(0, BATCH, 4)]
  np.testing.assert_array_equal(np.concatenate(parts), late['row'])
  assert not np.array_equal(make(seed=4).batch(700)['row'], late['row'])
  np.testing.assert_array_equal(late['image'][:, 0, 0, 0], late['row'] // 100)


def test_the_report_counts_what_was_read():
  pipeline, steps = make(), 700
  row_N = rows(pipeline, steps)
  report = pipeline.report(steps)
  for number, (name, size) in enumerate(SIZES.items()):
    count = int((row_N // 100 == number).sum())
    assert report[f'data/{name}/examples'] == count
    assert report[f'data/{name}/epochs'] == pytest.approx(count / size)


def test_every_example_once_in_an_evaluation():
  found = [columns['row'][columns['mask'] > 0] for columns in make(shuffle=False).epoch()]
  assert np.concatenate(found).tolist() == [*range(7), *range(100, 140), *range(200, 203)]


def test_one_set_is_that_set():
  alone = Mixture(lambda: Joined({'b': Arrays({'row': np.arange(9)})}), 4, weights=(2.0,))
  assert sorted(np.concatenate([alone.batch(step)['row'] for step in range(9)]).tolist()) == sorted([*range(9)] * 4)


class Random:
  """A source whose rows are drawn."""

  index = {}

  def __init__(self, size):
    self.size = size

  def __len__(self):
    return self.size

  def get(self, indices):
    return {'value': indices.astype(np.float64)}

  def draw(self, indices, random):
    return {'value': indices + random.uniform()}

  def fingerprint(self):
    return {'examples': self.size}


def test_what_sources_draw_depends_on_the_row_alone():
  pipeline = Mixture(lambda: Joined({'x': Random(5), 'y': Random(6)}), 8, weights=(1, 1))
  value_B = pipeline.batch(5)['value']
  assert len(set(value_B % 1)) == 8
  for row in range(8):
    assert pipeline.batch(5, np.array([row]))['value'] == value_B[row]
  random = RowRandom(0, np.arange(4))
  before = random.some(np.array([1, 2])).uniform()
  drawn = random.uniform()
  np.testing.assert_array_equal(random.some(np.array([1, 2])).uniform(), before)
  assert not np.intersect1d(before, drawn).size


def texts(*words):
  column = np.empty(len(words), object)
  column[:] = words
  return column


def test_columns_that_not_all_have():
  source = Joined({'said': Arrays({'row': np.arange(2), 'text': texts('one', 'two'), 'stars': np.arange(2)}),
                   'silent': Arrays({'row': np.arange(3)})})
  columns = source.get(np.array([4, 0, 1, 2]))
  assert columns['text'].tolist() == ['', 'one', 'two', ''] and columns['row'].tolist() == [2, 0, 1, 0]
  assert set(columns) == {'text', 'row'}
  assert source.get(np.array([3]))['text'].tolist() == ['']  # whatever else is read
  assert source.fingerprint()['examples'] == 5 and set(source.fingerprint()['mixture']) == {'said', 'silent'}


def test_what_does_not_mix():
  with pytest.raises(UserError, match=r"columns 'row' of several types, \{'a': 'int64', 'b': 'float32'\}"):
    Joined({'a': Arrays({'row': np.arange(2)}), 'b': Arrays({'row': np.zeros(2, np.float32)})})

  class Named(Arrays):
    classes = {0: 'cat'}

  class Other(Arrays):
    classes = {0: 'dog'}

  with pytest.raises(UserError, match="label 0 is 'cat' in a and 'dog' in another set"):
    Joined({'a': Named({'row': np.arange(2)}), 'b': Other({'row': np.arange(2)})})
  with pytest.raises(UserError, match='must be above 0'):
    make(weights=(1, 0, 2))
  with pytest.raises(UserError, match='at least one set'):
    make(weights=())
  with pytest.raises(UserError, match='at least once in 10000 examples'):
    make(weights=(1, 1, 1e-6))
  with pytest.raises(UserError, match='a mixture reads a .*Joined, got Arrays'):
    Mixture(lambda: Arrays({'row': np.arange(2)}), 4, weights=(1,)).batch(0)


def test_streams_in_turn_are_spread_evenly():
  turns = interleaving.Interleaved([70, 20, 10], seed=0)
  stream_N, place_N = turns.find(np.arange(300))
  for stream, count in enumerate((70, 20, 10)):
    assert place_N[stream_N == stream].tolist() == list(range(3 * count))
    counts = np.add.reduceat(stream_N == stream, np.arange(0, 300, 30))
    assert abs(counts - 30 * count / 100).max() <= 2
    assert turns.before(250)[stream] == (stream_N[:250] == stream).sum()
  assert interleaving.whole((1, 1, 1), 10) == [4, 3, 3] and interleaving.whole((0.7, 0.3), 10) == [7, 3]


def test_an_unmixed_pipeline_reads_as_before():
  """`shuffled` serves both: the order of a run that began before stays."""
  index = Pipeline(lambda: Arrays({'row': np.arange(10)}), 5, 0).indices(np.arange(20))
  assert index.tolist() == [5, 9, 1, 0, 8, 6, 4, 2, 7, 3, 2, 9, 6, 0, 5, 8, 7, 1, 3, 4]
