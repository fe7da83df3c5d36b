"""Hooks: what is on disk when something goes wrong."""

import pathlib

import pytest

from genjax.cli import configs
from genjax.training import hooks, loop
from genjax.training.checkpoint import Checkpoints
from genjax.training.run import Run

ROOT = pathlib.Path(__file__).parent.parent.parent


class Interrupted(hooks.Hook):
  """Fails where the last step is evaluated."""

  def end(self, run):
    raise KeyboardInterrupt


def make():
  values, paths = configs.parse('train', [f'--config={ROOT}/configs/digits_vae.py:smoke'], '')
  run = Run(configs.build(values.config, paths), configs.settings(values.config))
  run.initialise()
  return run


def test_the_last_step_is_saved_before_it_is_evaluated(tmp_path):
  checkpoints = Checkpoints(tmp_path / 'checkpoints')
  with pytest.raises(KeyboardInterrupt):
    loop.train(make(), [Interrupted(), hooks.Save(checkpoints, 100, {})])
  assert checkpoints.steps() == [2]


def test_where_the_best_is_kept_the_last_step_is_saved_with_its_metric(tmp_path):
  checkpoints = Checkpoints(tmp_path / 'checkpoints', keep=1, best='negative_elbo')
  run = make()

  class Evaluated(hooks.Hook):
    def end(self, run):
      assert checkpoints.steps() == []
      run.evaluation = (run.step, run.evaluate())

  loop.train(run, [Evaluated(), hooks.Save(checkpoints, 100, {})])
  assert checkpoints.steps() == [2]
