"""Losses of n-gram models, and generation by a window that moves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.models.ngrams import MlpConfig, ngrams
from genjax.objectives.base import Context
from genjax.objectives.decoding import SamplerOptions
from genjax.objectives.ngrams import Ngrams
from genjax.types import UserError

NETWORK = ngrams(MlpConfig(6, window=3, width=4, hidden=8))


def make(**options):
  objective = Ngrams(NETWORK, 3, 0, SamplerOptions(**{'length': 7, 'stop': (0,), **options}))
  variables = objective.init(jax.random.key(0), {})
  generator = np.random.default_rng(0)
  params = jax.tree.map(lambda leaf: leaf + generator.normal(size=leaf.shape).astype(np.float32), variables.params)
  return objective, params, Context(0, variables.mutable, {}, {})


def test_the_loss_is_the_cross_entropy_of_the_next_symbol():
  objective, params, context = make()
  batch = {'context': jnp.asarray([[0, 0, 0], [0, 1, 2], [3, 4, 5]]), 'next': jnp.asarray([1, 3, 0])}
  values = objective.evaluate(params, context, batch, jax.random.key(0))
  logits = np.asarray(NETWORK.apply(params['net'], context.mutable, batch['context'])[0], np.float64)
  expected = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(3), [1, 3, 0]]
  np.testing.assert_allclose(values['loss'], expected, rtol=1e-5)
  np.testing.assert_array_equal(values['accuracy'], logits.argmax(axis=1) == [1, 3, 0])
  output = objective.loss(params, context, batch, jax.random.key(0))
  assert output.weight == 3 and jax.tree.leaves(output.mutable), 'running averages move'


def test_greedy_texts_follow_the_window():
  objective, params, context = make(temperature=0.0)
  prompt_NP = np.asarray([[0, 1, -1, -1, -1], [0, 2, 3, 4, 5], [0, -1, -1, -1, -1]])
  tokens_NT = np.asarray(jax.jit(objective.sample)(params, context, jax.random.split(jax.random.key(0), 3),
                                                   {'prompt': prompt_NP})['tokens'])
  assert tokens_NT.shape == (3, 12)
  for row, prompt in zip(tokens_NT, ([0, 1], [0, 2, 3, 4, 5], [0])):
    text = list(prompt)
    for _ in range(7):
      window = ([0, 0, 0, *text])[-3:]
      text.append(int(np.argmax(NETWORK.apply(params['net'], context.mutable, np.asarray([window]))[0])))
      if text[-1] == 0:
        break
    assert row.tolist() == text + [-1] * (12 - len(text))


def test_beams_are_refused():
  with pytest.raises(UserError, match='config.sampler.beams must be 1'):
    make(beams=2)
