"""The hook that warns of collapse: on measures, and on a run whose generator collapses."""

import pytest

from genjax.configs.gans import grid_gan
from genjax.runs import training
from genjax.training.monitoring.collapse import Collapse


def warnings(lines, **options):
  said = []
  hook = Collapse(patience=3, say=said.append, **options)
  for step, values in enumerate(lines):
    hook.on_log(None, step, values)
  return said


def test_warnings_need_patience_and_are_given_once():
  low, well = {'generator/pairwise': 0.1}, {'generator/pairwise': 0.9}
  assert not warnings([low, low, well] * 5)
  said = warnings([low] * 10)
  assert len(said) == 1 and said[0].startswith('step 2  warning: samples of a batch are nearly the same, at 0.10')
  assert len(warnings([low] * 5 + [well] * 2 + [low] * 5)) == 1
  assert len(warnings([low] * 5 + [well] * 3 + [low] * 5)) == 2
  said = warnings([{'discriminator/accuracy': 0.99, 'heldout/other/accuracy': 0.0}] * 3)
  assert len(said) == 1 and 'apart in 99.0%' in said[0]
  assert not warnings([{'discriminator/accuracy': 0.7, 'generator/nearest': 0.8}] * 9)


@pytest.mark.slow
@pytest.mark.parametrize('collapses', [True, False])
def test_a_run_that_collapses(tmp_path, capsys, collapses):
  """Against a discriminator that stands still, the generator moves all samples to where that is surest."""
  config = grid_gan.get_config('smoke')
  config.steps, config.log_every, config.checkpoint.every = 300, 20, 0
  config.objective.watch = True
  if collapses:
    config.optimizers.discriminator.lr, config.optimizers.generator.lr = 0.0, 0.01
  training.train(config, str(tmp_path / 'run'))
  text = capsys.readouterr()
  assert ('warning: samples of a batch' in text.out + text.err) == collapses
