"""Learning rates and histograms: what TensorBoard shows beside losses."""

import json

import jax
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from genjax.training import hooks, loop
from genjax.training.monitoring import histograms, logs, rates
from genjax.training.optimization import optimizers


def board(folder):
  events = EventAccumulator(str(folder / 'tensorboard'), size_guidance={'histograms': 0})
  events.Reload()
  return events


def test_a_histogram_counts_every_finite_entry():
  tree = {'a': np.linspace(-1, 1, 1000, dtype=np.float32), 'b': np.asarray([[3.0, np.nan, np.inf]], np.float32)}
  found = jax.device_get(histograms.histogram(tree))
  kept = np.concatenate([tree['a'], [3.0]])
  expected, _ = np.histogram(kept, bins=histograms.BINS, range=(-1, 3))
  assert found['counts'].sum() == 1001 and np.abs(found['counts'] - expected).max() <= 1  # an entry on an edge
  assert (found['low'], found['high']) == (-1, 3)
  np.testing.assert_allclose([found['total'], found['square']], [kept.sum(), (kept ** 2).sum()], rtol=1e-5)


def test_histograms_change_no_number_of_a_run(tmp_path, small_run, state_bytes):
  plain, watched = small_run(), small_run()
  loop.train(plain, [])
  writer = logs.Writer(tmp_path, {'config': '{"seed": 0}'})
  loop.train(watched, [histograms.Histograms(writer, 6), hooks.Log(writer, 6)])
  assert state_bytes(watched) == state_bytes(plain)
  events = board(tmp_path)
  assert set(events.Tags()['histograms']) == {
    f'{kind}/{group}' for kind in ('parameters', 'gradients', 'updates') for group in ('a', 'b')}
  assert [event.step for event in events.Histograms('parameters/a')] == [0, 6, 12]
  assert [event.step for event in events.Histograms('gradients/a')] == [0, 6]
  first = events.Histograms('updates/a')[0].histogram_value
  assert first.num == 3 and max(abs(first.min), abs(first.max)) == pytest.approx(0.1, rel=1e-3)  # Adam's first update
  last = events.Histograms('parameters/a')[-1].histogram_value
  assert last.sum == pytest.approx(float(np.sum(watched.state.params['a']['w'])), rel=1e-5)
  assert b'"seed": 0' in events.Tensors('config')[0].tensor_proto.string_val[0]


def test_learning_rates_are_those_of_the_newest_update():
  parts = [('b', dict(name='sgd', lr=0.5)), ('c', dict(name='schedule_free', lr=0.1, schedule='constant', warmup=4))]
  made = optimizers.make('adamw', 1e-2, steps=10, warmup=2, schedule='linear', clip=1.0, parts=parts)
  params = {name: np.ones(3, np.float32) for name in 'abc'}
  state, seen = made.init(params), []
  for _ in range(10):
    _, state = made.update(params, state, params)
    seen.append(rates.learning_rates({'net': made}, {'net': state}))
  # Part b takes the warm-up and the shape of the group, since it names neither.
  np.testing.assert_allclose([values['learning_rate/net'] for values in seen],
                             [0.005, 0.01, *np.linspace(0.01, 0, 9)[:8]], atol=1e-7)
  assert seen[5]['learning_rate/net/part_0'] == pytest.approx(50 * seen[5]['learning_rate/net'])
  assert [values['learning_rate/net/part_1'] for values in seen[:5]] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1])


def test_an_optimizer_of_ones_own_tells_no_rate(tmp_path, small_run):
  run = small_run()  # with optax.adam
  log = hooks.Log(logs.Writer(tmp_path), 6)
  loop.train(run, [log])
  assert not [name for name in log.last if name.startswith('learning_rate')]
  assert 'learning_rate' not in json.loads((tmp_path / 'metrics.jsonl').read_text().splitlines()[0])
