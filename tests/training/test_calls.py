"""Several steps in one call: which steps go together, and that it changes nothing."""

import dataclasses

import jax
import numpy as np
import pytest

from genjax.cli import configs
from genjax.objectives.base import Phase
from genjax.runs import builders
from genjax.training import calls, hooks, loop
from genjax.training.run import Run, Settings
from genjax.types import UserError
from tests.conftest import ROOT

PHASES = (Phase('often', ('a',), lambda *_: None), Phase('rarely', ('a',), lambda *_: None, every=5))


def grouped(per_call, steps=20, reads=(), reached=0):
  settings, step, lengths = Settings(steps=steps, batch_size=1, steps_per_call=per_call), 0, []
  while step < steps:
    lengths.append(calls.length(settings, PHASES, step, lambda step: step in reads, reached))
    step += lengths[-1]
  assert step == steps
  return lengths


def test_which_steps_are_one_call():
  assert grouped(1) == [1] * 20
  assert grouped(8) == [1, 4, 1, 4, 1, 4, 1, 4]  # the phase of every fifth step runs in calls of its own
  assert grouped(3) == [1, 3, 1] * 4
  assert grouped(8, reads={3, 13}) == [1, 2, 2, 1, 4, 1, 2, 2, 1, 4]
  assert grouped(8, reached=7) == [1, 4, 1, 1, 3, 1, 4, 1, 4]
  assert grouped(8, steps=7) == [1, 4, 1, 1]


class Seen(hooks.Hook):
  """Reads every so many steps."""

  def __init__(self, every):
    self.every, self.steps, self.metrics = every, [], []

  def reads(self, run, step):
    return step % self.every == 0

  def after_step(self, run, metrics):
    self.steps.append(run.step)
    self.metrics.append(metrics)
    if run.step % self.every == 0:
      assert int(run.state.step) == run.step


def trained(config, per_call, every, steps=23):
  values, paths = configs.parse('train', [f'--config={ROOT}/configs/{config}.py:smoke', f'--config.steps={steps}'], '')
  run = Run(builders.build(values.config, paths),
            dataclasses.replace(builders.settings(values.config), steps_per_call=per_call))
  run.initialise()
  seen = Seen(every)
  loop.train(run, [seen])
  assert seen.steps == list(range(1, steps + 1))
  return jax.device_get(
    run.state), [{name: float(value) for name, value in jax.device_get(metrics).items()} for metrics in seen.metrics]


def equal(first, second):
  return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True))


@pytest.mark.slow
def test_the_bits_are_those_of_single_steps_however_they_go_together():
  single = trained('gans/grid_gan', 1, 7)
  for per_call, every in ((8, 7), (8, 3), (3, 5)):
    state, metrics = trained('gans/grid_gan', per_call, every)
    assert equal(state, single[0]) and metrics == single[1]


def test_numbers_that_are_no_calls():
  with pytest.raises(UserError, match='steps_per_call'):
    trained('gans/grid_gan', 0, 1)


def test_a_hook_of_ones_own_sees_the_state_of_each_step():
  class Own(hooks.Hook):
    def after_step(self, run, metrics):
      assert int(run.state.step) == run.step

  assert Own().reads(None, 3) and not hooks.Hook().reads(None, 3)
