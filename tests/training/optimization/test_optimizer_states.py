"""The state of any optimizer: where it lies, that checkpoints hold it, and what is evaluated."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh
import numpy as np
import optax
import optax.contrib
import pytest

from genjax.sharding import MESH_AXES
from genjax.training import state as state_lib
from genjax.training.checkpoints import checkpoint, warm_start
from genjax.training.checkpoints.checkpoint import Checkpoints
from genjax.training.monitoring import memory
from genjax.training.optimization import directions, optimizers
from genjax.training.state import TrainState
from genjax.types import UserError, named_leaves

SHAPES = {'blocks': {'up': {'kernel': (2, 256, 512), 'bias': (2, 512)}, 'norm': {'scale': (2, 256)}},
          'embedding': {'embedding': (512, 256)}, 'head': {'kernel': (256, 256)}, 'temperature': ()}
AXES = {'net': ((r'blocks/up/kernel', ('layers', None, 'mlp')), (r'embedding/embedding', ('vocab', None)))}
WIDE = lambda tree: jax.tree.map(lambda leaf: leaf.ndim > 1, tree)
OTHERS = {
  'optax.adafactor': lambda: optax.adafactor(0.1), 'optax.sm3': lambda: optax.sm3(0.1),
  'optax.masked': lambda: optax.masked(optax.adam(0.1), WIDE),
  'optax.partition': lambda: optax.partition({True: optax.adam(0.1), False: optax.set_to_zero()}, WIDE),
  'optax.flatten': lambda: optax.flatten(optax.adam(0.1)), 'optax.lbfgs': lambda: optax.lbfgs(0.1),
  'optax.apply_if_finite': lambda: optax.apply_if_finite(optax.adam(0.1), 3),
  'optax.add_noise': lambda: optax.add_noise(0.1, 0.5, key=jax.random.key(0)),
  'optax.contrib.muon': lambda: optax.contrib.muon(0.1), 'optax.contrib.galore': lambda: optax.contrib.galore(0.1),
  'optax.contrib.prodigy': lambda: optax.contrib.prodigy(0.1),
  'optax.contrib.schedule_free_adamw': lambda: optax.contrib.schedule_free_adamw(0.1)}


def named(name):
  """One of the library's own optimizers."""
  return lambda: optimizers.make(name, 0.1, 10, **({'factor_from': 100} if name == 'adafactor' else {}))


def whole(params, optimizer):
  """The state of one group."""
  opt = {'net': optimizer.init(params)}
  return TrainState(step=jnp.zeros((), jnp.int32), params={'net': params}, mutable={}, opt=opt, ema={})


def laid_out(optimizer):
  """The state, as shapes with layouts, on 8 devices that need not be there."""
  mesh = AbstractMesh((1, 4, 2, 1, 1), MESH_AXES)

  def create():
    params = jax.tree.map(jnp.zeros, SHAPES, is_leaf=lambda node: isinstance(node, tuple))
    return whole(params, optimizer)

  shapes = jax.eval_shape(create)
  return checkpoint.abstract(shapes, state_lib.shardings(shapes, {'net': optimizer}, mesh, AXES, {}))


@pytest.mark.parametrize('name', [*optimizers.OPTIMIZERS, *OTHERS])
def test_state_lies_where_its_parameter_lies_if_it_has_its_shape(name):
  state = laid_out((named(name) if name in optimizers.OPTIMIZERS else OTHERS[name])())
  for path, place in named_leaves(state.params['net']).items():
    for kept, leaf in named_leaves(state.opt['net']).items():
      if kept.endswith(f'/{path}') and leaf.shape == place.shape:
        assert leaf.sharding == place.sharding, kept
  assert memory.per_device(state, {})['optimizer'] <= max(memory.totals(state, {})['optimizer'], 1)


def test_factored_moments_are_whole_and_what_weighs_is_split():
  """Adafactor's averages weigh next to nothing; the memory of L-BFGS is ten times the parameters."""
  factored = named_leaves(laid_out(optax.adafactor(0.1)).opt)
  row = next(leaf for path, leaf in factored.items() if path.endswith('v_row/embedding/embedding'))
  assert row.shape == (256,) and row.sharding.is_fully_replicated
  history = next(leaf for path, leaf in named_leaves(laid_out(optax.lbfgs(0.1)).opt).items()
                 if path.endswith('diff_params_memory/blocks/up/kernel'))
  assert history.shape == (10, 2, 256, 512) and 'fsdp' in history.sharding.spec


def test_a_path_within_a_path_is_not_taken_for_it():
  """`a/kernel` and `b/a/kernel` have one shape and two layouts."""
  mesh = AbstractMesh((1, 1, 2, 1, 1), MESH_AXES)
  params = {'a': {'kernel': jnp.zeros((4, 4))}, 'b': {'a': {'kernel': jnp.zeros((4, 4))}}}
  axes = {'net': (('a/kernel', ('mlp', None)), ('b/a/kernel', (None, 'mlp')))}
  optimizer = optax.adam(0.1)
  shapes = jax.eval_shape(lambda: whole(params, optimizer))
  layout = state_lib.shardings(shapes, {'net': optimizer}, mesh, axes, {})
  kept = named_leaves(layout.opt['net'][0].mu)
  assert kept == named_leaves(layout.params['net'])
  assert kept['a/kernel'].spec[0] == kept['b/a/kernel'].spec[1] == 'tensor'


class TestOnDevices:
  """Every optimizer on eight fake devices, see `optimizer_meshes.py` beside this file."""

  @pytest.mark.slow
  def test_a_mesh_changes_nothing_but_where_arrays_lie(self):
    root = pathlib.Path(__file__).parent.parent.parent.parent
    argv = [sys.executable, pathlib.Path(__file__).with_name('optimizer_meshes.py')]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=1800, env={
      **os.environ, 'PYTHONPATH': os.pathsep.join([str(root), os.environ.get('PYTHONPATH', '')]),
      'JAX_PLATFORMS': 'cpu',
      'XLA_FLAGS': os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=8'})
    assert done.returncode == 0, done.stderr[-5000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert {*optimizers.OPTIMIZERS, 'parts'} <= set(report)
    for name, found in report.items():
      # Sums are rounded in another order: 1.2e-6 on one kind of CPU
      assert found['difference'] < 3e-6, f'{name}: parameters differ by {found["difference"]} from those of one device'
      assert found['placed'] and found['restored'], name
      still = {'parts': {'net/embedding/embedding'}, 'optax.partition': {'net/head/scale'}}.get(name, set())
      if 'prodigy' not in name:  # its rate begins at 1e-6
        assert {path for path, distance in found['moved'].items() if distance == 0} == still, name


def regression(small_run, optimizer, ema=True, **settings):
  """An initialised run whose group 'a' has this optimizer."""
  run = small_run()
  made = {**run.experiment.optimizers, 'a': optimizer}
  experiment = dataclasses.replace(run.experiment, optimizers=made, ema={'a': 0.9} if ema else {})
  run = type(run)(experiment, dataclasses.replace(run.settings, **settings))
  run.initialise()
  return run


def trained(run, steps):
  batches = run.experiment.train.iterate(run.step, slice(None))
  for _ in range(steps):
    run.train_step(next(batches))
  return run


@pytest.mark.parametrize('make', [
  lambda: optimizers.make('schedule_free', 0.1, 12, clip=1.0),
  lambda: optimizers.make('adafactor', 0.1, 12, weight_decay=0.1),
  lambda: optax.chain(optax.masked(optax.adam(0.1), {'w': False}), optax.adam(0.1)),
  lambda: optax.add_noise(0.1, 0.5, key=jax.random.key(0))], ids=['schedule_free', 'adafactor', 'masked', 'typed key'])
def test_a_resumed_run_goes_on_bit_by_bit(make, small_run, tmp_path):
  run = trained(regression(small_run, make()), 3)
  checkpoints = Checkpoints(tmp_path / 'checkpoints')
  checkpoints.save(3, run.state, {}, None)
  checkpoints.wait()
  other = regression(small_run, make())
  other.restore(checkpoints.restore(other.target, print))
  other.step = 3
  is_key = lambda leaf: jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
  host = lambda run: {path: np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf).tobytes()
                      for path, leaf in named_leaves(run.state).items()}
  assert host(run) == host(other)
  assert host(trained(run, 3)) == host(trained(other, 3))
  checkpoints.close()


def test_runs_evaluate_sample_and_average_what_schedule_free_learning_gives(small_run):
  run = regression(small_run, optimizers.make('schedule_free', 0.3, 12, b1=0.7), ema=False)
  trained(run, 4)
  y, x = run.state.params['a']['w'], run.params(averaged=True)['a']['w']
  expected = optax.contrib.schedule_free_eval_params(run.state.opt['a'], run.state.params['a'])['w']
  np.testing.assert_allclose(x, expected, rtol=1e-6)
  assert not np.allclose(x, y, rtol=1e-3)
  np.testing.assert_array_equal(run.params(averaged=False)['a']['w'], x)
  np.testing.assert_array_equal(run.params(averaged=True)['b']['w'], run.state.params['b']['w'])
  columns = next(run.experiment.heldout.epoch(slice(None)))
  assert run.evaluate()['error'] == pytest.approx(float(np.mean((columns['x'] @ np.asarray(x) - 1) ** 2)), rel=1e-5)
  assert run.evaluation_names() == {'error'}
  sampled = run.sample(2, seed=0)['y']
  raw = dataclasses.replace(run.state, opt={**run.state.opt, 'a': optax.sgd(0.1).init(run.state.params['a'])})
  run.state = raw
  assert not np.allclose(run.sample(2, seed=0)['y'], sampled, rtol=1e-3)


def test_averages_are_of_what_schedule_free_learning_gives(small_run):
  run = regression(small_run, optimizers.make('schedule_free', 0.3, 12, b1=0.7))
  average = np.asarray(run.state.params['a']['w'])
  for step in range(4):
    trained(run, 1)
    decay = min(0.9, (1 + step) / (10 + step))
    average = decay * average + (1 - decay) * np.asarray(run.params(averaged=False)['a']['w'])
    np.testing.assert_allclose(run.state.ema['a']['w'], average, rtol=1e-5)
  np.testing.assert_array_equal(run.params(averaged=True)['a']['w'], run.state.ema['a']['w'])


def test_other_runs_begin_with_what_schedule_free_learning_gives(small_run, tmp_path):
  parts = (('w', dict(name='schedule_free', lr=0.3)),)
  run = trained(regression(small_run, optimizers.make('adam', 0.1, 12, parts=parts), ema=False), 4)
  checkpoints = Checkpoints(tmp_path / 'checkpoints')
  checkpoints.save(4, run.state, {}, None)
  checkpoints.wait()
  other = small_run()
  warm_start.apply(other, checkpoints, None, lambda line: None)
  checkpoints.close()
  np.testing.assert_allclose(other.state.params['a']['w'], run.params(averaged=False)['a']['w'], rtol=1e-6)
  assert not np.allclose(other.state.params['a']['w'], run.state.params['a']['w'], rtol=1e-3)


def test_schedule_free_learning_is_found_in_any_chain():
  inner = optax.contrib.schedule_free_sgd(0.5)
  inner = optax.masked(inner, {'a': True, 'b': False})
  optimizer = optax.chain(optax.clip_by_global_norm(1.0), inner, optax.scale(1.0))
  params = {'a': jnp.ones(2), 'b': jnp.ones(2)}
  updates, state = optimizer.update({'a': jnp.ones(2), 'b': jnp.ones(2)}, optimizer.init(params), params)
  params = optax.apply_updates(params, updates)
  after = directions.evaluated(state, params)
  np.testing.assert_array_equal(after['b'], params['b'])
  assert not np.allclose(after['a'], 1.0)


@pytest.mark.parametrize('decay', [1.0, -0.1, 1.5, float('nan'), float('inf'), True, '0.9', None, 1 - 1e-9])
def test_the_decay_of_an_average_is_refused_out_of_its_range(decay, small_run):
  run = small_run()
  with pytest.raises(UserError, match=r'config.ema.a, the decay of an average, must be a number in \[0, 1\)'):
    type(run)(dataclasses.replace(run.experiment, ema={'a': decay}), run.settings)
