"""Sequence to sequence: the loss and its smoothing, padding, generation."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genjax.models.transformers.seq2seq import Seq2SeqConfig, seq2seq, start_cache
from genjax.nn.functional import Network
from genjax.objectives.base import Context
from genjax.objectives.decoding import SamplerOptions
from genjax.objectives.seq2seq import Seq2Seq, Tokens
from genjax.types import UserError

CONTEXT = Context(step=0, mutable={}, ema={}, frozen={})
CONFIG = Seq2SeqConfig(vocab=14, context=10, layers=1, heads=2, width=16, mlp_width=32, output_bias=True)
TOKENS = Tokens(start=1, stop=2, padding=0)


def model(**options):
  return Seq2Seq(seq2seq(CONFIG), functools.partial(start_cache, CONFIG), TOKENS, **options)


def batch(rows, seed):
  """Sources of 2 to 7 tokens, padded, and as targets the same backwards."""
  rng = np.random.default_rng(seed)
  source, target = np.zeros((rows, 8), np.int32), np.zeros((rows, 8), np.int32)
  for row in range(rows):
    size = rng.integers(2, 8)
    source[row, :size] = rng.integers(3, 14, size)
    target[row, :size + 1] = [*source[row, :size][::-1], 2]
  return {'source': source, 'target': target}


@functools.cache
def trained():
  """The parameters of a model that has learned to turn sources round, and its first and last loss."""
  objective = model(smoothing=0.1)
  params = jax.jit(lambda key: objective.init(key, {}).params)(jax.random.key(0))
  optimizer = optax.adam(5e-3)
  state = optimizer.init(params)

  @jax.jit
  def step(params, state, batch):
    output, slopes = jax.value_and_grad(
      lambda p: (lambda o: (o.loss, o.metrics))(objective.loss(p, CONTEXT, batch, jax.random.key(0))),
      has_aux=True)(params)
    updates, state = optimizer.update(slopes, state)
    return optax.apply_updates(params, updates), state, output[1]

  losses = []
  for seed in range(600):
    params, state, metrics = step(params, state, batch(64, seed))
    losses.append(float(metrics['nll']))
  return params, losses[0], losses[-1]


def test_tokens_before_a_target_are_read_and_count_for_nothing():
  """The loss is that of a longer target with weights on its own tokens; what is drawn is what such a beginning is
  continued with."""
  begins, data = (5, 9), batch(4, 0)
  after = dataclasses.replace(model(sampler=SamplerOptions(length=5, temperature=0.0)),
                              tokens=dataclasses.replace(TOKENS, begins=begins))
  params = jax.tree.map(lambda leaf: leaf + 0.1, jax.jit(lambda key: after.init(key, {}).params)(jax.random.key(0)))
  first = np.tile(np.asarray(begins, np.int32), (4, 1))
  longer = np.concatenate([first, data['target']], axis=1)
  weights = np.concatenate([0 * first, data['target'] != 0], axis=1).astype(np.float32)
  expected = jax.jit(model().loss)(params, CONTEXT, {**data, 'target': longer, 'target_weights': weights},
                                   jax.random.key(0))
  found = jax.jit(after.loss)(params, CONTEXT, data, jax.random.key(0))
  assert float(found.loss) == pytest.approx(float(expected.loss), rel=1e-6) and float(found.weight) == float(
    expected.weight)

  drawn = np.asarray(
    jax.jit(after.sample)(params, CONTEXT, jax.random.split(jax.random.key(0), 4),
                          {'source': data['source']})['tokens'])
  read = np.concatenate([np.ones((4, 1), np.int32), first, drawn[:, :-1]], axis=1)
  logits = np.array(jax.jit(seq2seq(CONFIG).apply)(params['net'], {}, data['source'], read, data['source'] != 0)[0])[:,
                                                                                                                     2:]
  logits[..., TOKENS.padding] = -np.inf
  ended = np.cumsum(drawn == TOKENS.stop, axis=1) - (drawn == TOKENS.stop) > 0
  np.testing.assert_array_equal(drawn, np.where(ended, TOKENS.padding, logits.argmax(axis=-1)))


@pytest.mark.parametrize('smoothing', [0.0, 0.2])
def test_loss_is_that_of_the_logits(smoothing):
  objective = model(smoothing=smoothing)
  params = jax.tree.map(lambda leaf: leaf + 0.1, jax.jit(lambda key: objective.init(key, {}).params)(jax.random.key(0)))
  data = batch(5, 0)
  read_BT = np.concatenate([np.ones((5, 1), np.int32), data['target'][:, :-1]], axis=1)
  logits_BTV, _ = jax.jit(seq2seq(CONFIG).apply)(params['net'], {}, data['source'], read_BT, data['source'] != 0)
  right_BTV = (1 - smoothing) * np.eye(14)[data['target']] + smoothing / 14
  loss_BT = np.asarray(optax.softmax_cross_entropy(logits_BTV, right_BTV))
  weights_BT = data['target'] != 0
  output = jax.jit(objective.loss)(params, CONTEXT, data, jax.random.key(0))
  assert float(output.loss) == pytest.approx((loss_BT * weights_BT).sum() / weights_BT.sum(), rel=1e-5)
  assert float(output.weight) == weights_BT.sum()
  values = jax.jit(objective.evaluate)(params, CONTEXT, data, jax.random.key(0))
  plain_BT = np.asarray(optax.softmax_cross_entropy_with_integer_labels(logits_BTV, data['target']))
  np.testing.assert_allclose(values['loss'], (plain_BT * weights_BT).sum(axis=1) / weights_BT.sum(axis=1), rtol=1e-5)
  np.testing.assert_array_equal(values['weight'], weights_BT.sum(axis=1))


def test_weights_stand_above_the_padding_token():
  """A source and a target may hold the token that elsewhere is padding."""
  objective = model()
  params = jax.jit(lambda key: objective.init(key, {}).params)(jax.random.key(0))
  data = batch(4, 1)
  weights = {f'{name}_weights': (rows != 0).astype(np.float32) for name, rows in data.items()}
  other = {name: np.where(rows == 0, 5, rows) for name, rows in data.items()} | weights
  loss = jax.jit(objective.loss)
  assert float(loss(params, CONTEXT, data, jax.random.key(0)).loss) == pytest.approx(
    float(loss(params, CONTEXT, other, jax.random.key(0)).loss), rel=1e-6)


def test_features_are_read_whole_unless_weights_say_otherwise():
  masks = []

  def apply(params, mutable, source_BSF, target_BT, mask_BS, **options):
    masks.append(mask_BS)
    return (np.zeros((2, 3, 4)), np.zeros((14, 4))), mutable

  objective = dataclasses.replace(model(), network=Network(lambda key: ({}, {}), apply))
  data = {'source': np.zeros((2, 5, 3), np.float32), 'target': np.asarray([[3, 4, 2], [5, 2, 0]])}
  output = objective.loss({'net': {}}, CONTEXT, data, jax.random.key(0))
  assert output.loss == pytest.approx(np.log(14)) and output.weight == 5 and masks.pop() is None
  weights_BS = np.ones((2, 5))
  objective.loss({'net': {}}, CONTEXT, {**data, 'source_weights': weights_BS}, jax.random.key(0))
  assert masks.pop() is weights_BS


def test_padding_changes_nothing():
  objective = model(smoothing=0.1)
  params = jax.jit(lambda key: objective.init(key, {}).params)(jax.random.key(0))
  data = batch(4, 1)
  wider = {name: np.pad(rows, ((0, 0), (0, 2))) for name, rows in data.items()}
  one, other = (jax.jit(objective.loss)(params, CONTEXT, rows, jax.random.key(0)) for rows in (data, wider))
  assert float(one.loss) == pytest.approx(float(other.loss), rel=1e-5) and float(one.weight) == float(other.weight)


@pytest.mark.slow
def test_learns_to_turn_sequences_round():
  params, first, last = trained()
  assert last < 0.15 * first
  data = batch(40, 1000)
  sample = jax.jit(model(sampler=SamplerOptions(length=8, temperature=0.0)).sample)
  found = np.asarray(sample(params, CONTEXT, jax.random.split(jax.random.key(0), 40), data)['tokens'])
  assert (found == data['target']).all(axis=1).mean() > 0.8
  for row in found:  # nothing but padding after the stop token
    stops = np.flatnonzero(row == 2)
    assert len(stops) <= 1 and (not len(stops) or not row[stops[0] + 1:].any())


@pytest.mark.slow
@pytest.mark.parametrize('temperature', [0.0, 1.0])
def test_rows_are_generated_alike_alone_and_together(temperature):
  params, _, _ = trained()
  sample = jax.jit(model(sampler=SamplerOptions(length=8, temperature=temperature)).sample)
  keys, data = jax.random.split(jax.random.key(0), 6), batch(6, 1)
  together = np.asarray(sample(params, CONTEXT, keys, {'source': data['source']})['tokens'])
  for row in (0, 3):
    alone = sample(params, CONTEXT, keys[row:row + 1], {'source': data['source'][row:row + 1]})['tokens']
    np.testing.assert_array_equal(alone[0], together[row])


@pytest.mark.slow
def test_steps_give_the_logits_of_the_whole():
  params, _, _ = trained()
  objective, data = model(), batch(3, 2)
  token_N, cache = objective.start(params, data, 8)
  whole, _ = jax.jit(seq2seq(CONFIG).apply)(params['net'], {}, data['source'], np.concatenate(
    [np.ones((3, 1), np.int32), data['target'][:, :-1]], axis=1), data['source'] != 0)
  step, order = jax.jit(objective.step), np.arange(3)
  for position in range(8):
    logits, cache = step(params, CONTEXT, token_N, cache, position)
    np.testing.assert_allclose(logits, whole[order, position], atol=1e-3)
    order = order[::-1]  # rows may change their places
    cache = jax.tree.map(lambda leaf: jnp.flip(leaf, axis=leaf.ndim - 4), cache)
    token_N = jnp.asarray(data['target'][order, position])


def test_bad_options():
  with pytest.raises(UserError, match='smoothing must lie in'):
    dataclasses.replace(model(), smoothing=1.0)
  with pytest.raises(UserError, match='must differ from the padding'):
    Tokens(start=0, stop=0, padding=0)
