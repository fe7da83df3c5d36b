"""A run: what it checks before computing, what it compiles, and that evaluation and samples do not depend on
batches."""

import dataclasses
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from genjax.cli import configs
from genjax.data.pipeline import Pipeline
from genjax.runs import builders
from genjax.training import drawing
from genjax.training import experiment as experiment_lib
from genjax.training.experiment import Condition
from genjax.training.run import Run
from genjax.types import NonFiniteError, UserError

ROOT = pathlib.Path(__file__).parent.parent.parent


def make(**overrides):
  argv = [
    f'--config={ROOT}/configs/autoencoders/digits_vae.py:smoke',
    *(f'--config.{key}={value}' for key, value in overrides.items())
  ]
  values, paths = configs.parse('train', argv, '')
  return builders.build(values.config, paths), builders.settings(values.config)


@pytest.fixture(scope='module')
def run():
  run = Run(*make())
  run.initialise()
  batches = run.experiment.train.iterate(0, run.rows(8))
  for _ in range(3):
    run.train_step(next(batches))
  return run


def test_three_steps_compile_once(run):
  assert run.program.step._cache_size() == 1 and run.step == int(run.state.step) == 3


def test_a_step_is_done_before_the_next_is_asked_for_where_both_would_hold_temporary_arrays():
  other = Run(*make())
  other.initialise()
  metrics = other.train_step(next(other.experiment.train.iterate(0, other.rows(8))))
  assert all(leaf.is_ready() for leaf in jax.tree.leaves((metrics, other.state)))


def test_the_state_is_donated():
  run = Run(*make())
  run.initialise()
  before = run.state
  run.train_step(next(run.experiment.train.iterate(0, run.rows(8))))
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(before.params))


def test_evaluation_counts_every_example_once_and_ignores_padding(run):
  means, scores = run.scores()
  values = run.evaluate()
  assert means == values
  assert values['examples'] == 360 and all(len(column) == 360 for column in scores.values())
  assert values['kl'] == pytest.approx(float(np.mean(scores['kl'], dtype=np.float64)), rel=1e-5)
  # 360 is no multiple of 32: the last batch is padded.
  source = run.experiment.heldout.source
  other = Run(dataclasses.replace(run.experiment, heldout=Pipeline(lambda: source, 32, shuffle=False)), run.settings)
  other.restore(run.state)
  assert other.evaluate()['kl'] == pytest.approx(values['kl'], rel=1e-5)
  assert run.evaluate(max_batches=2)['examples'] == 16


def test_samples_do_not_depend_on_the_chunk(run):
  whole = run.sample(7, seed=1)['image']
  np.testing.assert_array_equal(run.sample(7, seed=1, chunk=3)['image'], whole)
  np.testing.assert_array_equal(run.sample(4, seed=1)['image'], whole[:4])
  assert not np.array_equal(run.sample(7, seed=2)['image'], whole)


@pytest.mark.parametrize('start', [0, 3, 5])
def test_a_draw_continues_a_longer_one(run, start):
  labelled = dataclasses.replace(run.experiment, conditions={'label': Condition.label(10)})
  state, run = run.state, Run(labelled, run.settings)
  run.restore(state)
  whole = run.sample(9, seed=1)
  rest = run.sample(9 - start, seed=1, start=start, chunk=4)
  assert list(rest) == list(whole)
  for name in whole:
    np.testing.assert_array_equal(rest[name], whole[name][start:])
  parts = list(run.sample_parts(9 - start, seed=1, start=start, size=2, chunk=3))
  assert {len(part['image']) for part in parts[:-1]} <= {2}
  for name in whole:
    np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), whole[name][start:])


def test_defaults_of_conditions_continue():
  known = {'label': Condition.label(10)}
  assert drawing.rows(known, 4, None, start=8)['label'].tolist() == [8, 9, 0, 1]


def test_bad_starts(run):
  for start in (-1, 2**31 - 1):
    with pytest.raises(UserError, match='the first sample must be at least 0, and the last one less than'):
      run.sample(2, seed=1, start=start)


def test_texts_of_a_later_start_are_those_of_the_longer_draw():
  texts = Condition(lambda text: np.asarray([1]), lambda row: np.arange(row + 1), 'a text', fill=-1)
  rows = drawing.rows({'text': texts}, 2, None, start=1)['text']
  assert rows.tolist() == [[0, 1, -1], [0, 1, 2]]


def test_parts_have_the_size_that_is_asked_for_and_all_rows():
  pieces = [{'x': np.arange(first, first + size)} for first, size in ((0, 5), (5, 1), (6, 7), (13, 2))]
  for size in (1, 3, 4, 15, 40):
    parts = [part['x'] for part in drawing.cut(iter(pieces), size)]
    assert [len(part) for part in parts] == [size] * (15 // size) + ([15 % size] if 15 % size else [])
    assert np.concatenate(parts).tolist() == list(range(15))
  with pytest.raises(UserError, match='size of a part must be at least 1'):
    list(drawing.cut(iter(pieces), 0))


def test_averages_are_used_unless_raw_is_asked_for(run):
  assert not np.array_equal(run.sample(4, seed=1)['image'], run.sample(4, seed=1, averaged=False)['image'])


def test_batches_must_be_what_the_builder_announced():
  experiment, settings = make()
  run = Run(dataclasses.replace(experiment, example={'image': jax.ShapeDtypeStruct((8, 8, 1), np.float32)}), settings)
  run.initialise()
  with pytest.raises(UserError, match='uint8'):
    run.train_step(next(experiment.train.iterate(0, run.rows(8))))


def test_batches_that_are_cut_are_counted_as_they_are_and_never_longer_than_announced():
  values, paths = configs.parse('train', [f'--config={ROOT}/configs/language/multi30k.py:smoke'], '')
  run = Run(builders.build(values.config, paths), builders.settings(values.config))
  columns = {name: np.ones((8, *row.shape), row.dtype) for name, row in run.experiment.example.items()}
  half = {name: column[:, :6] for name, column in columns.items()}
  assert run.step_flops(
    columns=columns) == run.step_flops() and 0.45 < run.step_flops(columns=half) / run.step_flops() < 0.5
  with pytest.raises(UserError, match='built for'):
    run.train_step({name: np.concatenate([column, column], axis=1) for name, column in columns.items()})
  whole = Run(dataclasses.replace(run.experiment, cut=frozenset()), run.settings)
  with pytest.raises(UserError, match='built for'):
    whole.train_step(half)


def test_names_of_the_evaluation_are_known_before_it(run):
  assert run.evaluation_names() == {'negative_elbo', 'distortion', 'kl', 'negative_bound_3'}


def test_nothing_that_is_not_finite_passes(run):
  other = Run(*make())
  other.restore(jax.tree.map(lambda leaf: leaf * np.nan if leaf.dtype == np.float32 else leaf + 0, run.state))
  with pytest.raises(NonFiniteError, match='step 3'):
    other.check_finite()
  other.train_step(next(other.experiment.train.iterate(3, other.rows(8))))
  with pytest.raises(NonFiniteError, match="loss of phase 'elbo' is nan at step 4") as error:
    other.check_finite()
  assert (error.value.step, error.value.phase) == (4, 'elbo')


def test_negative_steps():
  experiment, settings = make()
  with pytest.raises(UserError, match='-1'):
    Run(experiment, dataclasses.replace(settings, steps=-1))


def test_labels_of_conditions():
  condition = experiment_lib.Condition.label(10)
  assert condition.parse('7') == 7 and [int(condition.default(row)) for row in (0, 9, 10)] == [0, 9, 0]
  for text in ('10', '-1', 'x', '', '²', '1' * 5000):
    with pytest.raises(UserError, match='0 to 9'):
      condition.parse(text)


@pytest.mark.slow
def test_a_layer_that_the_mesh_does_not_divide_is_found_before_anything_is_computed():
  program = """
import sys
from genjax.cli import configs
from genjax.runs import builders
from genjax.training.run import Run
from genjax.types import UserError
values, paths = configs.parse('train', sys.argv[1:], '')
try:
  Run(builders.build(values.config, paths), builders.settings(values.config))
except UserError as error:
  print(error)
"""
  flags = [
    f'--config={ROOT}/configs/language/python_code.py:smoke', '--config.data.context=18', '--config.mesh.context=4'
  ]
  done = subprocess.run([sys.executable, '-c', program, *flags], capture_output=True, text=True, timeout=600, env={
    **os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')]), 'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=8'})
  expected = "tokens B T D (8, 18, 16): rule 'sequence' -> ('context',) splits 18 into 4 unequal parts"
  assert expected in done.stdout, done.stderr
