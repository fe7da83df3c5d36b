"""Masked language models: which tokens are hidden and how, the loss, filling in."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genjax import sharding
from genjax.models.transformers.bert import BertConfig, encoder
from genjax.nn.functional import Network, absorb_bias
from genjax.objectives.base import Context
from genjax.objectives.masked import MaskedLanguageModel, MaskingOptions, hide
from genjax.types import UserError

CONTEXT = Context(step=0, mutable={}, ema={}, frozen={})
MASKING = MaskingOptions(vocab=50, mask=3, special=(0, 1, 2))
CONFIG = BertConfig(vocab=50, context=12, layers=1, heads=2, width=16, masked_lm=True, next_sentence=True,
                    init_scale=0.1)


compiled_hide = jax.jit(hide, static_argnums=2)


def model(**options):
  return MaskedLanguageModel(encoder(CONFIG), MASKING, **options)


@functools.cache
def initial():
  """Parameters of the encoder, compiled once."""
  return jax.jit(lambda key: model().init(key, {}).params)(jax.random.key(0))


def tokens_of(rows, length, seed=0):
  return jax.random.randint(jax.random.key(seed), (rows, length), 4, 50)


def test_shares_of_hidden_tokens():
  """15 % of the tokens; of these 80 % masked, 10 % random, which by chance is the token itself once in the vocabulary,
  and 10 % kept."""
  tokens_BT = tokens_of(400, 200)
  hidden = jax.tree.map(np.asarray, compiled_hide(jax.random.key(1), tokens_BT, MASKING))
  assert hidden.positions_BP.shape == (400, 30) and float(hidden.weights_BP.mean()) == 1.0
  np.testing.assert_array_equal(np.take_along_axis(tokens_BT, hidden.positions_BP, axis=1), hidden.targets_BP)
  assert all(len(set(row)) == 30 for row in hidden.positions_BP)
  new_BP = np.take_along_axis(hidden.tokens_BT, hidden.positions_BP, axis=1)
  masked, kept = new_BP == 3, new_BP == hidden.targets_BP
  spread = 4 * math.sqrt(0.25 / masked.size)
  assert masked.mean() == pytest.approx(0.8 + 0.1 / 50, abs=spread)
  assert kept.mean() == pytest.approx(0.1 + 0.1 / 50, abs=spread)
  replaced = new_BP[~masked & ~kept]
  assert set(replaced) == set(range(50)) - {3}  # any token of the vocabulary; the mask itself counts as masked
  untouched = np.ones(tokens_BT.shape, bool)
  np.put_along_axis(untouched, hidden.positions_BP, False, axis=1)
  np.testing.assert_array_equal(hidden.tokens_BT[untouched], tokens_BT[untouched])
  counts = np.bincount(hidden.positions_BP.ravel(), minlength=200)  # every place alike
  assert np.abs(counts - 60).max() < 5 * math.sqrt(60)


def test_special_tokens_and_padding_are_never_chosen():
  tokens_BT = tokens_of(300, 20).at[:, 0].set(1).at[:, 9].set(2).at[:, 4].set(3)
  mask_BT = jnp.ones_like(tokens_BT).at[:, 14:].set(0)
  hidden = compiled_hide(jax.random.key(1), tokens_BT, MASKING, mask_BT)
  chosen = np.asarray(hidden.positions_BP)[np.asarray(hidden.weights_BP) > 0]
  assert set(chosen) == set(range(14)) - {0, 4, 9}
  assert set(np.asarray(hidden.weights_BP.sum(axis=1))) == {2.0}  # 15 % of 11
  spoilt = np.asarray(hidden.tokens_BT != tokens_BT)
  assert not spoilt[:, 14:].any() and not spoilt[:, [0, 4, 9]].any() and spoilt.any()


def test_short_rows_hide_one_token_and_empty_rows_none():
  tokens_BT = jnp.asarray([[7, 8, 9, 10], [1, 5, 2, 0], [1, 2, 0, 0]])
  hidden = compiled_hide(jax.random.key(0), tokens_BT, MASKING)
  np.testing.assert_array_equal(hidden.weights_BP.sum(axis=1), [1, 1, 0])
  assert int(hidden.positions_BP[1, 0]) == 1
  np.testing.assert_array_equal(hidden.tokens_BT[2], tokens_BT[2])


def test_a_mesh_that_splits_sequences_hides_the_same_tokens():
  tokens_BT = tokens_of(4, 16)
  mesh = jax.sharding.AbstractMesh((1, 1, 1, 4, 1), sharding.MESH_AXES)
  shapes = jax.eval_shape(sharding.under(mesh, {}, lambda key: hide(key, tokens_BT, MASKING)), jax.random.key(0))
  assert shapes.positions_BP.shape == (4, 4)
  few, more = (compiled_hide(jax.random.key(0), tokens_BT, dataclasses.replace(MASKING, rate=rate))
               for rate in (0.15, 0.3))
  np.testing.assert_array_equal(few.positions_BP, more.positions_BP[:, :2])
  rows = jnp.arange(4)[:, None]
  np.testing.assert_array_equal(few.tokens_BT[rows, few.positions_BP], more.tokens_BT[rows, few.positions_BP])


def test_uniform_logits_cost_log_v_and_the_bias_of_tokens_counts():
  def flat(bias_V):
    def apply(params, mutable, tokens, types, mask, positions, key=None, project=True):
      parts = absorb_bias(jnp.ones((*positions.shape, 3)), jnp.zeros((50, 3)), bias_V)
      return {'tokens': parts, 'next_sentence': jnp.zeros((len(tokens), 2))}, mutable
    return MaskedLanguageModel(Network(lambda key: ({}, {}), apply), MASKING, next_sentence=True)

  batch = {'tokens': jnp.full((2, 40), 7), 'next_sentence': jnp.asarray([0, 1])}
  output = jax.jit(flat(jnp.zeros(50)).loss)({'net': {}}, CONTEXT, batch, jax.random.key(0))
  assert float(output.loss) == pytest.approx(math.log(50) + math.log(2), rel=1e-6)
  assert float(output.weight) == 12 and float(output.metrics['next_sentence_accuracy']) == 0.5
  output = jax.jit(flat(jnp.zeros(50).at[7].set(math.log(49))).loss)({'net': {}}, CONTEXT, batch, jax.random.key(0))
  assert float(output.metrics['token_loss']) == pytest.approx(math.log(2), rel=1e-5) and float(
    output.metrics['accuracy']) == 1.0


def test_loss_is_that_of_the_logits():
  objective = model(next_sentence=True)
  params = initial()
  batch = {
    'tokens': tokens_of(3, 12), 'types': jnp.tile(jnp.arange(12) // 6, (3, 1)), 'weights': jnp.ones(
      (3, 12), int).at[1, 8:].set(0), 'next_sentence': jnp.asarray([0, 1, 1])
  }
  values = jax.jit(objective.evaluate)(params, CONTEXT, batch, jax.random.key(5))
  hidden = compiled_hide(jax.random.key(5), batch['tokens'], MASKING, batch['weights'])
  outputs, _ = jax.jit(encoder(CONFIG).apply)(params['net'], {}, hidden.tokens_BT, batch['types'], batch['weights'])
  logits_BPV = jnp.take_along_axis(outputs['tokens'], hidden.positions_BP[..., None], axis=1)
  nll_BP = optax.softmax_cross_entropy_with_integer_labels(logits_BPV, hidden.targets_BP) * hidden.weights_BP
  np.testing.assert_allclose(values['loss'], nll_BP.sum(axis=1) / hidden.weights_BP.sum(axis=1), rtol=1e-4)
  np.testing.assert_array_equal(values['weight'], [2, 1, 2])
  next_B = optax.softmax_cross_entropy_with_integer_labels(outputs['next_sentence'], batch['next_sentence'])
  np.testing.assert_allclose(values['next_sentence_loss'], next_B, rtol=1e-4)


def test_padding_changes_nothing_that_is_filled_in():
  objective = model()
  params = initial()
  tokens_NT = tokens_of(3, 8).at[:, 2].set(3).at[1, 5].set(3)
  keys = jax.random.split(jax.random.key(1), 3)
  sample = jax.jit(lambda tokens_NT: objective.sample(params, CONTEXT, keys, {'prompt': tokens_NT})['tokens'])
  padded_NT = sample(jnp.pad(tokens_NT, ((0, 0), (0, 4)), constant_values=-1))
  assert (padded_NT[:, 8:] == -1).all() and (padded_NT[:, :8] != 3).all()
  kept = tokens_NT != 3
  np.testing.assert_array_equal(padded_NT[:, :8][kept], tokens_NT[kept])
  logits = jax.jit(lambda tokens_NT: encoder(CONFIG).apply(params['net'], {}, jnp.maximum(tokens_NT, 0), None,
                                                           tokens_NT >= 0)[0]['tokens'])
  np.testing.assert_allclose(
    logits(jnp.pad(tokens_NT, ((0, 0), (0, 4)), constant_values=-1))[:, :8], logits(tokens_NT), atol=1e-5)


def test_tokens_beyond_the_vocabulary_are_not_filled_in():
  small = dataclasses.replace(MASKING, vocab=6)
  objective = MaskedLanguageModel(encoder(CONFIG), small)
  params = initial()
  keys = jax.random.split(jax.random.key(1), 8)
  drawn_NT = jax.jit(objective.sample)(params, CONTEXT, keys, {'prompt': jnp.full((8, 12), 3)})['tokens']
  assert int(drawn_NT.max()) == 5 and not bool((drawn_NT == 3).any())


@pytest.mark.slow
def test_learns_and_fills_in():
  """Tokens in order, from a random one on: each is told by its neighbours."""
  objective = model()
  params = initial()
  optimizer = optax.adam(5e-3)
  state = optimizer.init(params)

  def batch(seed):
    return {'tokens': 4 + (jax.random.randint(jax.random.key(seed), (64, 1), 0, 46) + jnp.arange(12)) % 46}

  @jax.jit
  def step(params, state, seed):
    loss, slopes = jax.value_and_grad(lambda p: objective.loss(p, CONTEXT, batch(seed), jax.random.key(seed)).loss)(
      params)
    updates, state = optimizer.update(slopes, state)
    return optax.apply_updates(params, updates), state, loss

  first = step(params, state, 0)[2]
  for seed in range(400):
    params, state, last = step(params, state, seed)
  assert float(last) < 0.3 * float(first)
  tokens_NT = batch(1000)['tokens'][:20]
  filled = objective.sample(params, CONTEXT, jax.random.split(jax.random.key(0), 20),
                            {'prompt': tokens_NT.at[:, 5].set(3)})['tokens']
  assert (filled[:, 5] == tokens_NT[:, 5]).mean() > 0.6
  np.testing.assert_array_equal(jnp.delete(filled, 5, axis=1), jnp.delete(tokens_NT, 5, axis=1))


@pytest.mark.parametrize(('options', 'message'), [
  ({'mask': 50}, r'must lie in the vocabulary, 0 .. 49, got \[50\]'), ({'special': (-1,)}, r'got \[-1\]'),
  ({'rate': 1.0}, r'rate must be above 0 and below 1, got 1.0'),
])
def test_bad_options(options, message):
  with pytest.raises(UserError, match=message):
    MaskingOptions(**{'vocab': 50, 'mask': 3, **options})
