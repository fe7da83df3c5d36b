"""The builder of chorales: a causal model whose loss counts time steps."""

import json

import jax
import numpy as np
import pytest

from genjax.configs.audio import chorales as config_file
from genjax.data.audio import chorales
from genjax.experiments.chorales import build
from genjax.objectives.base import Context
from genjax.types import UserError

PIECES = [[[48, 60, 64, 67 + step % 3] for step in range(length)] for length in (3, 7, 12)]


@pytest.fixture
def experiment(tmp_path):
  (tmp_path / 'jsb-chorales-quarter.json').write_text(json.dumps({'train': PIECES, 'valid': PIECES, 'test': PIECES}))
  config = config_file.get_config('smoke')
  config.data.update(train='train', heldout='validation', data_dir=str(tmp_path / 'data'), originals=str(tmp_path))
  return build(config.lock())


def test_the_likelihood_of_a_time_step_is_that_of_its_four_tokens(experiment):
  objective = experiment.objective
  variables = jax.jit(lambda key: objective.init(key, {}))(jax.random.key(0))
  context = Context(step=0, mutable=variables.mutable, ema={}, frozen={})
  batch = experiment.heldout.source.get(np.arange(len(experiment.heldout.source)))
  values = jax.jit(objective.evaluate)(variables.params, context, batch, jax.random.key(0))
  assert set(values) == {'loss', 'step_nll', 'accuracy', 'weight'}
  logits, _ = objective.network.apply(variables.params['net'], {}, batch['tokens'][:, :-1])
  nll = -np.take_along_axis(np.asarray(jax.nn.log_softmax(logits)), batch['tokens'][:, 1:, None],
                            axis=2)[..., 0] * batch['weights']
  steps = sum(map(len, PIECES))
  assert float(values['weight'].sum()) == 4 * steps
  assert float((values['step_nll'] * values['weight']).sum() / values['weight'].sum()) == pytest.approx(
    nll.sum() / steps, rel=1e-5)


def test_pieces_go_in_as_text_and_come_out_as_abc(experiment):
  prompt = experiment.conditions['prompt']
  assert prompt.default(0).tolist() == [chorales.START]
  tokens = prompt.stack([prompt.parse('48 60 64 67,50 62'), prompt.default(0)])
  assert experiment.render({'tokens': tokens})['samples'].split('\n\n')[0].splitlines()[-1] == '[C,CEG] [D,D]'
  with pytest.raises(UserError, match='at most 3 time steps, got 4'):
    prompt.parse('60,60,60,60')
