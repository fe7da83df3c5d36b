"""The hook that warns of collapse: on measures, and on a run whose generator collapses."""

import types

import pytest

from genjax.configs.gans import grid_gan
from genjax.experiments import gan
from genjax.runs import builders
from genjax.training.monitoring.collapse import Collapse
from genjax.training.run import Run


def warnings(lines, **options):
  said = []
  hook = Collapse(patience=3, say=said.append, **{'start': 0.0, **options})
  run = types.SimpleNamespace(settings=types.SimpleNamespace(steps=20))
  for step, values in enumerate(lines, 1):
    hook.on_log(run, step, values)
  return said


def test_warnings_need_patience_and_are_given_once():
  low, well = {'generator/pairwise': 0.1}, {'generator/pairwise': 0.9}
  assert not warnings([low, low, well] * 5)
  said = warnings([low] * 10)
  assert len(said) == 1 and said[0].startswith('step 3  warning: samples of a batch are nearly the same, at 0.10')
  assert len(warnings([low] * 5 + [well] * 2 + [low] * 5)) == 1
  assert len(warnings([low] * 5 + [well] * 3 + [low] * 5)) == 2
  said = warnings([{'discriminator/accuracy': 0.99, 'heldout/other/accuracy': 0.0}] * 3)
  assert len(said) == 1 and 'apart in 99.0%' in said[0]
  assert not warnings([{'discriminator/accuracy': 0.7, 'generator/nearest': 0.8}] * 9)


def test_the_start_of_a_run_does_not_count():
  """Half of 20 steps: lines from the eleventh on do."""
  low, well = {'generator/pairwise': 0.1}, {'generator/pairwise': 0.9}
  assert not warnings([low] * 12 + [well] * 8, start=0.5)
  assert warnings([low] * 20, start=0.5)[0].startswith('step 13  warning')


@pytest.mark.parametrize('collapses', [True, False])
def test_a_run_that_collapses(collapses):
  """Weights that decay to nothing make one point of all latents; the same ones that stay do not."""
  config = grid_gan.get_config('smoke')
  config.model.scale, config.objective.watch = 4.0, True  # points are spread as far as those of the grid
  how = dict(name='adamw', lr=0.01, weight_decay=50.0) if collapses else dict(name='sgd', lr=0.0)
  config.optimizers = dict(generator=how, discriminator=dict(name='sgd', lr=0.0))
  run, said = Run(gan.build(config), builders.settings(config)), []
  hook = Collapse(say=said.append)
  run.initialise()
  batches = run.experiment.train.iterate(0, run.rows(run.settings.batch_size))
  for step in range(1, 21):
    hook.on_log(run, step, {name: float(value) for name, value in run.train_step(next(batches)).items()})
  assert any('nearly the same' in line for line in said) == collapses, said
