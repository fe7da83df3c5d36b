"""Decoder-only transformers: published sizes, causality, cache."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import sharding
from genjax.models.transformers import decoder as models
from genjax.nn.functional import count

GPT = dict(vocab=11, context=12, layers=2, heads=2, width=8)
VARIANTS = {
  'gpt': models.TransformerConfig(**GPT),
  'gpt_without_biases': models.TransformerConfig(**GPT, bias=False, mlp='gelu'),
  'llama': models.llama(**GPT, kv_heads=1, mlp_width=24),
  'window_and_scaling': models.llama(**GPT, kv_heads=1, mlp_width=24, window=5, attention_bias=True,
                                     rope_scaling={'kind': 'llama3', 'factor': 8.0, 'original_context': 6}),
  'experts': models.llama(**GPT, kv_heads=1, mlp_width=24, experts=4, experts_per_token=2),
}


def shapes(config):
  return jax.eval_shape(models.transformer(config).init, jax.random.key(0))[0]


@pytest.mark.parametrize(
  ('config', 'published'),
  [
    # GPT-2, counted from the published checkpoints.
    (models.TransformerConfig(vocab=50257, context=1024, layers=12, heads=12, width=768), 124_439_808),
    (models.TransformerConfig(vocab=50257, context=1024, layers=48, heads=25, width=1600), 1_557_611_200),
    # GPT-3 (Brown et al. 2020, table 2.1), tied, context 2048.
    (models.TransformerConfig(vocab=50257, context=2048, layers=96, heads=96, width=12288), 174_604_259_328),
    # LLaMA (Touvron et al. 2023) and Llama 2 and 3 with grouped queries.
    (models.llama(vocab=32000, context=2048, layers=32, heads=32, width=4096, mlp_width=11008), 6_738_415_616),
    (models.llama(vocab=32000, context=4096, layers=80, heads=64, kv_heads=8, width=8192,
                  mlp_width=28672), 68_976_648_192),
    (models.llama(vocab=128256, context=8192, layers=32, heads=32, kv_heads=8, width=4096,
                  mlp_width=14336), 8_030_261_248),
  ])
def test_published_parameter_counts(config, published):
  assert count(shapes(config)) == published


@pytest.mark.parametrize('config', VARIANTS.values(), ids=VARIANTS)
def test_causality_is_bitwise(config):
  network = models.transformer(config)
  params, mutable = network.init(jax.random.key(0))
  tokens_BT = jax.random.randint(jax.random.key(1), (2, 12), 0, 11)
  apply = jax.jit(lambda tokens: network.apply(params, mutable, tokens)[0])
  changed = apply(tokens_BT.at[:, 7:].set(3 + tokens_BT[:, 7:] % 5))
  np.testing.assert_array_equal(apply(tokens_BT)[:, :7], changed[:, :7])
  assert np.abs(np.asarray(apply(tokens_BT) - changed)[:, 7:]).max() > 1e-4


@pytest.mark.parametrize('config', VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize('chunks', [(1,) * 12, (5, 7), (4, 1, 1, 6)])
@pytest.mark.parametrize(('unroll', 'rows'), [(False, 2), (True, 1)])
def test_cached_equals_full(config, chunks, unroll, rows):
  config = dataclasses.replace(config, unroll=unroll)
  network = models.transformer(config)
  params, mutable = network.init(jax.random.key(0))
  tokens_BT = jax.random.randint(jax.random.key(1), (rows, 12), 0, 11)
  full, _ = network.apply(params, mutable, tokens_BT)
  given, cache, parts, start = models.lay_out(config, params), models.init_cache(config, rows, 15), [], 0
  apply = jax.jit(network.apply)
  for size in chunks:
    (logits, cache), _ = apply(given, mutable, tokens_BT[:, start:start + size], cache=cache, position=start)
    parts.append(logits)
    start += size
  np.testing.assert_allclose(jnp.concatenate(parts, axis=1), full, atol=1e-5)


@pytest.mark.slow
def test_unrolled_and_rematerialised_are_the_same_network():
  """Equal values and gradients, with dropout, under every way to compute them."""
  params, mutable = models.transformer(VARIANTS['llama']).init(jax.random.key(0))
  tokens_BT = jax.random.randint(jax.random.key(1), (2, 12), 0, 11)

  def value_and_gradient(**options):
    network = models.transformer(
      models.llama(**GPT, kv_heads=1, mlp_width=24, dropout=0.2, attention_dropout=0.2, **options))

    def loss(params):
      return jnp.mean(jax.nn.log_softmax(network.apply(params, mutable, tokens_BT, key=jax.random.key(2))[0])[..., 0])

    return jax.jit(jax.value_and_grad(loss))(params)

  expected = value_and_gradient()
  for options in ({'unroll': True}, {'remat': 'full'}, {'remat': 'dots'}, {'remat': 'full',
                                                                           'unroll': True}, {'attention': 'reference'}):
    actual = value_and_gradient(**options)
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6), actual, expected)


def test_weights_of_attention_are_dropped_by_the_key():
  config = VARIANTS['gpt']
  params, mutable = models.transformer(config).init(jax.random.key(0))
  tokens_BT = jax.random.randint(jax.random.key(1), (2, 12), 0, 11)
  network = models.transformer(dataclasses.replace(config, attention_dropout=0.5))
  plain, *drawn = (
    network.apply(params, mutable, tokens_BT, key=key)[0] for key in (None, *jax.random.split(jax.random.key(2))))
  np.testing.assert_array_equal(plain, models.transformer(config).apply(params, mutable, tokens_BT)[0])
  assert min(np.abs(drawn[0] - plain).max(), np.abs(drawn[1] - drawn[0]).max()) > 1e-4


def test_hidden_states_and_weights_make_the_logits():
  for config in VARIANTS.values():
    network = models.transformer(config)
    params, mutable = network.init(jax.random.key(0))
    tokens_BT = jax.random.randint(jax.random.key(1), (2, 12), 0, 11)
    (hidden_BTD, weight_VD), _ = network.apply(params, mutable, tokens_BT, project=False)
    assert weight_VD.shape == (11, 8)
    np.testing.assert_allclose(hidden_BTD @ weight_VD.T, network.apply(params, mutable, tokens_BT)[0], atol=1e-6)


@pytest.mark.parametrize('config', VARIANTS.values(), ids=VARIANTS)
def test_tensor_parallel_rules_match_every_variant(config):
  mesh = jax.sharding.AbstractMesh((1, 2, 2, 1, 2), sharding.MESH_AXES)
  blocks = sharding.param_shardings(shapes(config), mesh, models.axes(config), {'vocab': None})['blocks']
  if config.experts:
    assert blocks['experts']['up_kernel'].spec[1:] == ('expert', 'fsdp', 'tensor')
    assert blocks['experts']['down_kernel'].spec[1:] == ('expert', 'tensor', 'fsdp')
  else:
    assert blocks['down']['kernel'].spec[1] == 'tensor'


def test_bfloat16_computes_close_to_float32_with_float32_parameters():
  config = models.llama(**GPT, dtype='bfloat16')
  network = models.transformer(config)
  params, mutable = network.init(jax.random.key(0))
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype('float32')}
  tokens_BT = jax.random.randint(jax.random.key(1), (2, 12), 0, 11)
  low, _ = network.apply(params, mutable, tokens_BT)
  high, _ = models.transformer(models.llama(**GPT)).apply(params, mutable, tokens_BT)
  assert low.dtype == jnp.float32  # sums of products in bfloat16
  np.testing.assert_allclose(low.astype(np.float32), high, atol=0.02 * float(jnp.abs(high).max()) + 1e-3)


@pytest.mark.parametrize('attention', ['auto', 'reference'])
def test_a_window_reaches_back_so_far_a_layer(attention):
  config = models.llama(**GPT, window=5, attention=attention)
  network = models.transformer(config)
  params, mutable = network.init(jax.random.key(0))
  tokens_BT = jax.random.randint(jax.random.key(1), (2, 12), 0, 11)
  logits = network.apply(params, mutable, tokens_BT)[0]
  changed = network.apply(params, mutable, tokens_BT.at[:, 1].set(3 + tokens_BT[:, 1] % 5))[0]
  reach = 1 + config.layers * (config.window - 1)
  np.testing.assert_array_equal(logits[:, reach + 1:], changed[:, reach + 1:])
  assert np.abs(np.asarray(logits - changed)[:, reach]).max() > 0
  whole = models.transformer(dataclasses.replace(config, window=12)).apply(params, mutable, tokens_BT)[0]
  np.testing.assert_allclose(
    whole,
    models.transformer(dataclasses.replace(config, window=0)).apply(params, mutable, tokens_BT)[0])


def test_biases_of_attention_and_mlp_alone():
  def has_bias(**options):
    blocks = shapes(models.llama(**GPT, **options))['blocks']
    return 'bias' in blocks['attention']['out'], 'bias' in blocks['down']

  assert has_bias() == (False, False)
  assert has_bias(attention_bias=True) == (True, False)
  assert has_bias(mlp_bias=True) == (False, True)
  assert has_bias(bias=True, attention_bias=False) == (False, True)


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
@pytest.mark.parametrize('name', VARIANTS)
def test_parameters_of_half_precision_compute_in_float32(name, dtype):
  network = models.transformer(VARIANTS[name])
  params, mutable = network.init(jax.random.key(0))
  half = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
  tokens_BT = jax.random.randint(jax.random.key(1), (2, 12), 0, 11)
  expected = network.apply(jax.tree.map(lambda leaf: leaf.astype('float32'), half), mutable, tokens_BT)[0]
  np.testing.assert_allclose(network.apply(half, mutable, tokens_BT)[0], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(('options', 'message'), [
  ({'positions': 'alibi'}, 'positions must be one of'),
  ({'experts': 2, 'experts_per_token': 3}, 'between 1 and experts'),
  ({'experts': 2, 'mlp_bias': True}, 'experts have no biases'),
  ({'balance': 0.1}, 'balance is the weight of a loss of experts'),
  ({'window': -1}, 'window must not be negative'),
  ({'rope_scaling': {'kind': 'linear', 'factor': 2.0}}, "rope_scaling needs positions='rope'"),
  ({'positions': 'rope', 'rope_scaling': {'kind': 'longrope', 'factor': 2.0}}, 'must be one of .*llama3'),
  ({'positions': 'rope', 'rope_scaling': {'kind': 'linear', 'scale': 2.0}}, "needs 'kind' and 'factor'"),
  ({'positions': 'rope', 'rope_scaling': {'kind': 'llama3', 'factor': 2.0, 'high': 0.5}}, '0 < low < high'),
])
def test_unknown_option(options, message):
  with pytest.raises(ValueError, match=message):
    models.TransformerConfig(**GPT, **options)
