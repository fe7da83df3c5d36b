"""Depth costs no compile time: train steps of 48 layers are the programs of 6 with another number in them."""

import functools
import pathlib
import time

import jax
import pytest

from genjax.cli import configs
from genjax.objectives import base
from genjax.runs import builders
from genjax.training import state as state_lib
from genjax.training import step as step_lib

ROOT = pathlib.Path(__file__).parent.parent.parent
DEPTH = {'language/python_code': 'layers', 'quickstart': 'depth'}  # a transformer, a DiT


def lower(name, depth):
  """The train step of a config at this depth, from its builder to StableHLO."""
  flags = [
    f'--config={ROOT}/configs/{name}.py:smoke', f'--config.model.{DEPTH[name]}={depth}', '--config.model.unroll=False'
  ]
  values, paths = configs.parse('train', flags, '')
  experiment = builders.build(values.config, paths)
  objective = experiment.objective
  state = jax.eval_shape(functools.partial(state_lib.create, objective, experiment.optimizers, experiment.ema, 0), {})
  step = step_lib.make_step(objective, experiment.optimizers, experiment.ema, 0)
  batch = experiment.batch_shapes(values.config.batch_size)
  return jax.jit(step, static_argnums=3, donate_argnums=0).lower(state, {}, batch, base.due(objective.phases(), 0))


@pytest.mark.parametrize('name', DEPTH)
def test_the_program_does_not_grow(name):
  shallow, deep = (len(lower(name, depth).as_text()) for depth in (6, 48))
  assert deep <= 1.05 * shallow


@pytest.fixture
def no_cache():
  """Compiles for real: a program from the cache of the disk takes no time at any depth."""
  jax.config.update('jax_enable_compilation_cache', False)
  jax.clear_caches()
  yield
  jax.config.update('jax_enable_compilation_cache', True)


@pytest.mark.slow
@pytest.mark.usefixtures('no_cache')
@pytest.mark.parametrize('name', DEPTH)
def test_compile_time_and_compiled_size_do_not_grow(name):
  """At most 1.3 times the time and 1.05 times the size; the least CPU time of three to eight turns, since other
  programs run beside the tests and slow them down."""
  seconds, size = {6: [], 48: []}, {}
  for turn in range(8):
    if turn >= 3 and min(seconds[48]) <= 1.3 * min(seconds[6]):
      break
    for depth in seconds:
      jax.clear_caches()
      begin = time.process_time()
      compiled = lower(name, depth).compile()
      seconds[depth].append(time.process_time() - begin)
      size[depth] = len(compiled.as_text())
  assert size[48] <= 1.05 * size[6]
  assert min(seconds[48]) <= 1.3 * min(seconds[6])
