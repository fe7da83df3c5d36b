"""Hooks: what is on disk when something goes wrong."""

import json
import pathlib

import pytest

from genjax.cli import configs
from genjax.runs import builders
from genjax.training import hooks, loop
from genjax.training.checkpoints.checkpoint import Checkpoints
from genjax.training.monitoring import logs
from genjax.training.run import Run

ROOT = pathlib.Path(__file__).parent.parent.parent


class Interrupted(hooks.Hook):
  """Fails where the last step is evaluated."""

  def end(self, run):
    raise KeyboardInterrupt


def make():
  values, paths = configs.parse('train', [f'--config={ROOT}/configs/autoencoders/digits_vae.py:smoke'], '')
  run = Run(builders.build(values.config, paths), builders.settings(values.config))
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


def test_a_log_of_every_0_steps_has_the_last_alone(tmp_path, small_run):
  """0 switches off the lines in between, as the comment of config.log_every says; the metrics of all steps are not
  kept."""
  steps = {}
  for every in (0, 5):
    folder = tmp_path / str(every)
    folder.mkdir()
    run, log = small_run(), hooks.Log(logs.Writer(folder), every)
    kept = []

    class Kept(hooks.Hook):
      def after_step(self, run, metrics, log=log, kept=kept):
        kept.append(len(log._metrics))

    loop.train(run, [log, Kept()])
    log.close()
    lines = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
    steps[every] = [line['step'] for line in lines if 'first/loss' in line]
    assert max(kept) == (1 if every == 0 else 4)
    assert log.last['steps_per_second'] > 0
  assert steps == {0: [12], 5: [5, 10, 12]}
