"""Language models: the loss, drawing tokens, generation."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.models.transformers import decoder as models
from genjax.nn.functional import Network
from genjax.objectives.base import Context
from genjax.objectives.decoding import SamplerOptions, draw
from genjax.objectives.language import LanguageModel
from genjax.types import UserError

CONFIG = models.llama(vocab=11, context=12, layers=2, heads=2, width=8, mlp_width=16)
CONTEXT = Context(step=0, mutable={}, ema={}, frozen={})


def model(config=CONFIG, **options):
  return LanguageModel(models.transformer(config), functools.partial(models.init_cache, config), config.context,
                       SamplerOptions(**options))


@functools.cache
def initial(config=CONFIG):
  """Parameters of a model, compiled once: op by op, what follows costs far more than in one piece."""
  return jax.jit(lambda key: model(config).init(key, {}).params)(jax.random.key(0))


def test_uniform_logits_cost_log_v():
  def apply(params, mutable, tokens, key=None, project=True):
    return (jnp.ones((*tokens.shape, 3)), jnp.zeros((7, 3))), mutable

  flat = Network(lambda key: ({}, {}), apply)
  objective = LanguageModel(flat, lambda batch, length: None, 8, bytes_per_token=2.0)
  tokens = jnp.arange(10).reshape(2, 5) % 7
  output = objective.loss({'net': {}}, CONTEXT, {'tokens': tokens}, jax.random.key(0))
  assert float(output.loss) == pytest.approx(math.log(7), rel=1e-6) and output.weight == 8
  values = objective.evaluate({'net': {}}, CONTEXT, {'tokens': tokens}, jax.random.key(0))
  np.testing.assert_allclose(values['bits_per_byte'], math.log2(7) / 2, rtol=1e-6)
  unknown = dataclasses.replace(objective, bytes_per_token=None)  # no text, no bytes
  assert set(unknown.evaluate({'net': {}}, CONTEXT, {'tokens': tokens}, None)) == {'loss', 'accuracy', 'weight'}


def test_weights_choose_tokens():
  params, loss = initial(), jax.jit(model().loss)
  tokens = jax.random.randint(jax.random.key(1), (2, 9), 0, 11)
  whole = loss(params, CONTEXT, {'tokens': tokens}, jax.random.key(0))
  weights = jnp.zeros((2, 8)).at[0].set(1.0)
  part = loss(params, CONTEXT, {'tokens': tokens, 'weights': weights}, jax.random.key(0))
  alone = loss(params, CONTEXT, {'tokens': tokens[:1]}, jax.random.key(0))
  assert float(part.loss) == pytest.approx(float(alone.loss), rel=1e-5) and float(part.weight) == 8
  assert float(part.loss) != pytest.approx(float(whole.loss), rel=1e-4)


def test_the_load_of_experts_is_balanced_through_the_loss():
  """It is added with its weight, reaches the router and does not count padding."""
  config = dataclasses.replace(CONFIG, experts=4, balance=0.5)
  network = models.transformer(config)
  objective = LanguageModel(network, functools.partial(models.init_cache, config), config.context,
                            balance=config.balance)
  params = initial(config)
  tokens = jax.random.randint(jax.random.key(1), (2, 9), 0, 11)
  segments = jnp.ones((2, 9), jnp.int32).at[1, 5:].set(0)
  batch = {'tokens': tokens, 'segments': segments, 'weights': segments[:, 1:].astype(jnp.float32)}
  plain = dataclasses.replace(objective, balance=0.0)

  def gradient(objective):
    def loss(params, batch):
      output = objective.loss(params, CONTEXT, batch, None)
      return output.loss, output.metrics

    compiled = jax.jit(jax.value_and_grad(loss, has_aux=True))
    return lambda tokens: compiled(params, batch | {'tokens': tokens})

  balanced = gradient(objective)
  (loss, metrics), slope = balanced(tokens)
  (nll, _), plain_slope = gradient(plain)(tokens)
  assert float(metrics['nll']) == pytest.approx(float(nll), rel=1e-6)
  assert float(loss) == pytest.approx(float(nll + 0.5 * metrics['balance']), rel=1e-6)
  (_, changed), _ = balanced(tokens.at[1, 5:].set(3))
  assert float(changed['balance']) == pytest.approx(float(metrics['balance']), rel=1e-6)
  routers = [gradient['net']['blocks']['experts']['router']['kernel'] for gradient in (slope, plain_slope)]
  assert float(jnp.max(jnp.abs(routers[0] - routers[1]))) > 1e-4
  assert set(jax.eval_shape(objective.evaluate, params, CONTEXT, batch, None)) == {'loss', 'accuracy', 'weight'}
  with pytest.raises(ValueError, match='balance_BT needs a mixture of experts'):
    models.transformer(CONFIG).apply({}, {}, tokens, balance_BT=jnp.ones((2, 9)))


def test_drawn_tokens_follow_the_distribution():
  logits_V = jnp.log(jnp.array([0.5, 0.25, 0.15, 0.1]))
  keys = jax.random.split(jax.random.key(0), 20_000)

  def shares(**options):
    tokens = draw(jnp.tile(logits_V, (len(keys), 1)), keys, SamplerOptions(**options))
    return np.bincount(tokens, minlength=4) / len(keys)

  np.testing.assert_allclose(shares(), [0.5, 0.25, 0.15, 0.1], atol=0.015)
  np.testing.assert_allclose(shares(top_k=2), [2 / 3, 1 / 3, 0, 0], atol=0.015)
  # 0.5 + 0.25 < 0.8 <= 0.5 + 0.25 + 0.15: three tokens are the smallest set.
  np.testing.assert_allclose(shares(top_p=0.8), np.array([0.5, 0.25, 0.15, 0]) / 0.9, atol=0.015)
  np.testing.assert_allclose(shares(top_p=0.5), [1, 0, 0, 0])
  np.testing.assert_allclose(shares(temperature=0), [1, 0, 0, 0])
  squared = np.array([0.5, 0.25, 0.15, 0.1]) ** 2
  np.testing.assert_allclose(shares(temperature=0.5), squared / squared.sum(), atol=0.015)
  np.testing.assert_allclose(shares(top_k=3, top_p=0.6), [2 / 3, 1 / 3, 0, 0], atol=0.015)


def test_greedy_generation_equals_argmax_of_the_full_pass():
  objective = model(length=9, temperature=0)
  # Larger weights, so that the likeliest token changes with the text.
  params = jax.tree.map(lambda leaf: 3 * leaf, initial())
  prompt = np.array([[1, 2, 3], [4, 5, 6]])
  keys = jax.random.split(jax.random.key(0), 2)
  tokens = jax.jit(objective.sample)(params, CONTEXT, keys, {'prompt': prompt})['tokens']
  assert tokens.shape == (2, 12)
  apply = jax.jit(objective.network.apply)
  expected = prompt
  while expected.shape[1] < 12:
    # Zeros behind the text, which it does not see, keep the shape: one compilation serves all lengths.
    logits = np.asarray(apply(params['net'], {}, np.pad(expected, ((0, 0), (0, 12 - expected.shape[1]))))[0])
    expected = np.concatenate([expected, logits[:, expected.shape[1] - 1:][:, :1].argmax(axis=-1)], axis=1)
  np.testing.assert_array_equal(tokens, expected)


def test_text_beyond_the_context_continues_from_its_last_half():
  objective = model(length=30, temperature=0)
  params = jax.tree.map(lambda leaf: 3 * leaf, initial())
  prompt = np.array([[1, 2, 3]])
  keys = jax.random.split(jax.random.key(0), 1)
  tokens = jax.jit(objective.sample)(params, CONTEXT, keys, {'prompt': prompt})['tokens']
  assert tokens.shape == (1, 33)
  apply = jax.jit(objective.network.apply)
  expected = prompt
  while expected.shape[1] < 33:
    window = expected if expected.shape[1] < 12 else expected[:, 12 + (expected.shape[1] - 12) // 6 * 6 - 6:]
    padded = np.pad(window, ((0, 0), (0, 12 - window.shape[1])))
    logits = np.asarray(apply(params['net'], {}, padded)[0])[:, window.shape[1] - 1]
    expected = np.concatenate([expected, logits.argmax(axis=-1)[:, None]], axis=1)
  np.testing.assert_array_equal(tokens, expected)


def test_rows_are_independent():
  objective, params = model(length=8), initial()
  keys = jax.random.split(jax.random.key(3), 4)
  prompt = jnp.arange(8).reshape(4, 2)
  sample = jax.jit(objective.sample)
  together = sample(params, CONTEXT, keys, {'prompt': prompt})['tokens']
  apart = [sample(params, CONTEXT, keys[i:i + 2], {'prompt': prompt[i:i + 2]})['tokens'] for i in (0, 2)]
  np.testing.assert_array_equal(together, jnp.concatenate(apart))


@pytest.mark.parametrize('options', [{'length': 0}, {'temperature': -1.0}, {'top_p': 0.0}, {'top_k': -1}])
def test_bad_options(options):
  with pytest.raises(UserError, match=f'{next(iter(options))} must'):
    SamplerOptions(**options)


def test_a_prompt_must_fit():
  objective, params = model(), initial()
  with pytest.raises(UserError, match='1 to 11 tokens'):
    objective.sample(params, CONTEXT, jax.random.split(jax.random.key(0), 1), {'prompt': jnp.zeros((1, 12), jnp.int32)})
