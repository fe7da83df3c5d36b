"""Encoder-decoders: published sizes, what sees what, caches, options."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import sharding
from genjax.models.transformers.seq2seq import Seq2SeqConfig, axes, seq2seq, start_cache
from genjax.models.transformers.t5 import t5, t5_1_1
from genjax.nn.functional import count
from genjax.types import UserError

SIZES = dict(vocab=23, context=12, layers=2, heads=3, width=12, mlp_width=20)
# Ben Trevett's "Attention is All You Need" for Multi30k, German to English, whose notebook prints its number of
# parameters.
MULTI30K = Seq2SeqConfig(vocab=7853, target_vocab=5893, context=100, layers=3, heads=8, width=256, mlp_width=512,
                         positions='learned', tied=False, output_bias=True)
VARIANTS = {
  'original': Seq2SeqConfig(**SIZES, output_bias=True),
  'two_vocabularies': Seq2SeqConfig(**SIZES, target_vocab=17, positions='learned', tied=False, output_bias=True,
                                    decoder_layers=1),
  't5_1_1': t5_1_1('small', **SIZES, head_dim=5, relative_buckets=8, relative_distance=9, decoder_layers=3),
}


def shapes(config):
  return jax.eval_shape(seq2seq(config).init, jax.random.key(0))[0]


@functools.cache
def fixture(name):
  network = seq2seq(VARIANTS[name])
  params, mutable = jax.jit(network.init)(jax.random.key(0))
  leaves, structure = jax.tree.flatten(params)
  params = jax.tree.unflatten(
    structure, [leaf + 0.1 * np.random.default_rng(0).normal(size=leaf.shape) for leaf in leaves])
  source_BS, target_BT = (np.random.default_rng(size).integers(0, 17, (2, size)) for size in (9, 12))
  return jax.jit(network.apply, static_argnames='project'), params, mutable, source_BS, target_BT


@pytest.mark.parametrize(
  ('config', 'published'),
  [
    (MULTI30K, 9_038_341),
    # Raffel et al. 2020 and what followed it, counted from the published configs.
    (t5('small'), 60_506_624),
    (t5('base'), 222_903_552),
    (t5('large'), 737_668_096),
    (t5_1_1('xxl', decoder_layers=0), 4_762_310_656),
  ])
def test_published_parameter_counts(config, published):
  assert count(shapes(config)) == published


@pytest.mark.parametrize('name', VARIANTS)
def test_logits_depend_on_the_source_and_on_earlier_tokens(name):
  apply, params, mutable, source_BS, target_BT = fixture(name)
  before = apply(params, mutable, source_BS, target_BT)[0]
  after = apply(params, mutable, source_BS, np.where(np.arange(12) < 7, target_BT, (target_BT + 5) % 17))[0]
  np.testing.assert_array_equal(before[:, :7], after[:, :7])
  assert np.abs(np.asarray(before) - after)[:, 7:].max(axis=2).min() > 1e-4
  for place in (0, 8):
    after = apply(params, mutable, np.where(np.arange(9) == place, (source_BS + 5) % 17, source_BS), target_BT)[0]
    assert np.abs(np.asarray(before) - after).max(axis=2).min() > 1e-5


@pytest.mark.parametrize('padding', ['left', 'right'])
@pytest.mark.parametrize('name', VARIANTS)
def test_padding_of_the_source_is_not_seen(name, padding):
  apply, params, mutable, source_BS, target_BT = fixture(name)
  mask_BS = np.ones((2, 9), int)
  mask_BS[1, slice(0, 3) if padding == 'left' else slice(6, 9)] = 0
  logits = apply(params, mutable, source_BS, target_BT, mask_BS)[0]
  changed = apply(params, mutable, np.where(mask_BS, source_BS, (source_BS + 5) % 17), target_BT, mask_BS)[0]
  np.testing.assert_array_equal(logits, changed)
  if padding == 'right' or name.startswith('t5'):  # relative positions do not mind where a source stands
    short = apply(params, mutable, source_BS[1:, 3:] if padding == 'left' else source_BS[1:, :6], target_BT[1:])[0]
    np.testing.assert_allclose(logits[1:], short, atol=2e-4)


@pytest.mark.parametrize(('unroll', 'rows'), [(False, 2), (True, 1)])
@pytest.mark.parametrize('name', VARIANTS)
def test_cached_equals_full(name, unroll, rows):
  apply, params, mutable, source_BS, target_BT = fixture(name)
  source_BS, target_BT = source_BS[:rows], target_BT[:rows]
  mask_BS = np.ones((rows, 9), int)
  mask_BS[0, :3] = 0
  full = apply(params, mutable, source_BS, target_BT, mask_BS)[0]
  config = dataclasses.replace(VARIANTS[name], unroll=unroll)
  cache = jax.jit(functools.partial(start_cache, config, length=12))(params, source_BS, mask_BS)
  advance, position, parts = jax.jit(seq2seq(config).apply), 0, []
  for size in (5, 1, 1, 5):
    (logits, cache), _ = advance(params, mutable, None, target_BT[:, position:position + size], cache=cache,
                                 position=position)
    parts.append(logits)
    position += size
  np.testing.assert_allclose(np.concatenate(parts, axis=1), full, atol=1e-4)


@pytest.mark.parametrize('name', VARIANTS)
def test_hidden_states_and_weights_make_the_logits(name):
  apply, params, mutable, source_BS, target_BT = fixture(name)
  (hidden_BTE, weight_VE), _ = apply(params, mutable, source_BS, target_BT, project=False)
  np.testing.assert_allclose(
    np.asarray(hidden_BTE) @ np.asarray(weight_VE).T,
    apply(params, mutable, source_BS, target_BT)[0], atol=1e-4)


@pytest.mark.parametrize('name', VARIANTS)
def test_fresh_logits_are_of_order_one(name):
  config = dataclasses.replace(VARIANTS[name], width=48, heads=4)
  params, mutable = jax.jit(seq2seq(config).init)(jax.random.key(0))
  _, _, _, source_BS, target_BT = fixture(name)
  logits = jax.jit(seq2seq(config).apply)(params, mutable, source_BS, target_BT)[0]
  assert 0.1 < np.std(logits) < 5


@pytest.mark.slow
def test_unrolled_and_rematerialised_are_the_same_network():
  _, params, mutable, source_BS, target_BT = fixture('t5_1_1')

  def value_and_gradient(**options):
    network = seq2seq(dataclasses.replace(VARIANTS['t5_1_1'], dropout=0.2, **options))

    def loss(params):
      logits = network.apply(params, mutable, source_BS, target_BT, jnp.ones((2, 9)), key=jax.random.key(2))[0]
      return jnp.mean(jax.nn.log_softmax(logits)[..., 0])

    return jax.jit(jax.value_and_grad(loss))(params)

  expected = value_and_gradient()
  for options in ({'unroll': True}, {'remat': 'full', 'attention': 'reference'}):
    actual = value_and_gradient(**options)
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6), actual, expected)


@pytest.mark.parametrize('name', VARIANTS)
def test_tensor_parallel_rules_match_every_variant(name):
  mesh = jax.sharding.AbstractMesh((1, 2, 2, 1, 1), sharding.MESH_AXES)
  config = dataclasses.replace(VARIANTS[name], heads=2)
  placed = sharding.param_shardings(shapes(config), mesh, axes(config), {'vocab': None})
  assert placed['decoder']['blocks']['cross']['query']['kernel'].spec[2] == 'tensor'
  assert placed['encoder']['blocks']['down']['kernel'].spec[1] == 'tensor'


def test_bfloat16_computes_close_to_float32():
  _, params, mutable, source_BS, target_BT = fixture('t5_1_1')
  high, low = (jax.jit(seq2seq(dataclasses.replace(VARIANTS['t5_1_1'], dtype=dtype)).apply)(params, mutable, source_BS,
                                                                                            target_BT)[0]
               for dtype in ('float32', 'bfloat16'))
  assert low.dtype == jnp.float32  # sums of products in bfloat16
  np.testing.assert_allclose(low.astype(np.float32), high, atol=0.06 * np.abs(high).max())


def test_sequences_beyond_the_context():
  for name in ('original', 'two_vocabularies'):
    _, params, mutable, _, target_BT = fixture(name)
    with pytest.raises(UserError, match='12 positions .* 13 tokens'):
      seq2seq(VARIANTS[name]).apply(params, mutable, jnp.zeros((2, 13), int), target_BT)
    with pytest.raises(UserError, match='12 positions .* 13 tokens'):
      start_cache(VARIANTS[name], params, jnp.zeros((2, 9), int), None, 13)


@pytest.mark.parametrize(('options', 'message'), [
  ({'positions': 'rope'}, 'positions must be one of'), ({'init': 'zero'}, 'init must be one of'),
  ({'activation': 'swiglu'}, 'activation must be one of'), ({'heads': 5}, 'must be a multiple of heads'),
])
def test_bad_options(options, message):
  with pytest.raises(ValueError, match=message):
    Seq2SeqConfig(**{**SIZES, **options})
  with pytest.raises(ValueError, match="size must be one of .*got 'xxl'"):
    t5('xxl')


@pytest.mark.parametrize('option', ['dropout', 'attention_dropout', 'activation_dropout'])
def test_each_dropout_is_drawn_from_the_key_and_off_without_one(option):
  _, params, mutable, source_BS, target_BT = fixture('original')
  network = seq2seq(dataclasses.replace(VARIANTS['original'], **{option: 0.3}))
  outputs = [
    network.apply(params, mutable, source_BS, target_BT, key=key)[0]
    for key in (None, *jax.random.split(jax.random.key(0)))
  ]
  plain = seq2seq(VARIANTS['original']).apply(params, mutable, source_BS, target_BT, key=jax.random.key(0))[0]
  np.testing.assert_array_equal(outputs[0], plain)
  assert min(np.abs(outputs[1] - plain).max(), np.abs(outputs[2] - outputs[1]).max()) > 1e-2
