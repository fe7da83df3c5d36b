"""A small experiment whose batches say at which steps numbers are not finite."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genjax.objectives.base import Output, Phase, Variables
from genjax.training.experiment import Experiment
from genjax.training.run import Run, Settings


class Data:
  """Batches of 4 rows; those of the bad steps (counted from 1) hold NaN."""

  batch_size = 4

  def __init__(self, bad):
    self.bad, self.used = set(bad), []

  def iterate(self, start, rows):
    for step in range(start, 10**6):
      self.used.append(step + 1)
      values = np.random.default_rng(step).normal(size=(4, 3)).astype(np.float32)
      yield {'x': (np.full_like(values, np.nan) if step + 1 in self.bad else values)[rows]}

  def epoch(self, rows):
    yield {'x': np.ones((4, 3), np.float32)[rows], 'mask': np.ones(4, np.float32)[rows]}

  def fingerprint(self):
    return {'source': 'test'}


class Regression:
  """Two groups and two phases, one of them at every second step; a running mean changes without gradients."""

  def init(self, key, frozen):
    groups = {
      name: {'w': jax.random.normal(jax.random.fold_in(key, index), (3,))} for index, name in enumerate(('a', 'b'))
    }
    return Variables(groups, {'mean': jnp.zeros(3)})

  def phases(self):
    return Phase('first', ('a',), self.loss), Phase('second', ('b',), self.other, every=2)

  def loss(self, params, context, batch, key):
    noise = jax.random.normal(key, (4,))
    mean = 0.9 * context.mutable['mean'] + 0.1 * batch['x'].mean(0)
    return Output(jnp.mean((batch['x'] @ params['a']['w'] - 1 - 0.1 * noise)**2), {'rows': jnp.float32(4)},
                  {'mean': mean})

  def other(self, params, context, batch, key):
    return Output(jnp.mean((batch['x'] @ params['b']['w'] - batch['x'] @ params['a']['w']) ** 2))

  def evaluate(self, params, context, batch, key):
    return {'error': (batch['x'] @ params['a']['w'] - 1) ** 2}

  def sample(self, params, context, keys, conditions):
    return {'y': jax.vmap(lambda key: jax.random.normal(key) * params['a']['w'][0])(keys)}


@pytest.fixture
def small_run():
  """small_run(bad steps, **settings) -> an initialised run of 12 steps."""

  def make(bad=(), **options):
    data, adam = Data(bad), optax.adam(0.1)
    experiment = Experiment(Regression(), data, data, {'a': adam, 'b': adam},
                            {'x': jax.ShapeDtypeStruct((3,), np.float32)}, ema={'a': 0.9})
    run = Run(experiment, dataclasses.replace(Settings(steps=12, batch_size=4), **options))
    run.initialise()
    return run

  return make


@pytest.fixture
def state_bytes():
  """state_bytes(run) -> every array of its state, as bytes by name."""
  return lambda run: {jax.tree_util.keystr(path): np.asarray(leaf).tobytes()
                      for path, leaf in jax.tree_util.tree_leaves_with_path(run.state)}
