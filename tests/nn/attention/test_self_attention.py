"""Attention: against a direct formula, causality, cache, rotary positions."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import sharding
from genjax.nn.attention.self_attention import Attention, RopeScaling, rope
from genjax.types import UserError


def _random(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


def _direct(module, x_BTD, heads, kv_heads, causal):
  """Attention head by head with explicit softmax, in numpy float64."""
  def project(linear):
    y = np.asarray(x_BTD, np.float64) @ np.asarray(linear.kernel[...]) + np.asarray(linear.bias[...])
    return y.reshape(*x_BTD.shape[:2], -1, module.head_dim)
  query, key, value = project(module.query), project(module.key), project(module.value)
  out = np.zeros_like(query)
  for h in range(heads):
    k = h // (heads // kv_heads)
    logits = np.einsum('btd,bsd->bts', query[:, :, h], key[:, :, k]) / np.sqrt(module.head_dim)
    if causal:
      logits = np.where(np.tril(np.ones(logits.shape[1:], bool)), logits, -np.inf)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    out[:, :, h] = np.einsum('bts,bsd->btd', weights / weights.sum(-1, keepdims=True), value[:, :, k])
  return out.reshape(*x_BTD.shape[:2], -1) @ np.asarray(module.out.kernel[...]) + np.asarray(module.out.bias[...])


@pytest.mark.parametrize('heads, kv_heads, causal', [(4, 4, False), (4, 2, True), (4, 1, False)])
def test_equals_the_direct_formula(heads, kv_heads, causal):
  module = Attention(16, heads, kv_heads, causal=causal, rngs=nnx.Rngs(0))
  for number, linear in enumerate((module.query, module.key, module.value, module.out)):
    linear.bias[...] = _random(number, *linear.bias.shape)
  x_BTD = _random(9, 2, 5, 16)
  np.testing.assert_allclose(module(x_BTD), _direct(module, x_BTD, heads, kv_heads, causal), atol=1e-5)


def test_causal_attention_ignores_the_future_bitwise():
  module = Attention(16, 4, 2, causal=True, rope_theta=1e4, rngs=nnx.Rngs(0))
  x_BTD = _random(1, 2, 6, 16)
  changed = x_BTD.at[:, 4:].set(7.0)
  before, after = module(x_BTD), module(changed)
  assert (before[:, :4] == after[:, :4]).all()
  assert (before[:, 4:] != after[:, 4:]).any()


@pytest.mark.parametrize('rope_theta', [None, 1e4])
def test_cached_decoding_equals_the_full_forward(rope_theta):
  module = Attention(16, 4, 2, causal=True, rope_theta=rope_theta, rngs=nnx.Rngs(0))
  x_BTD = _random(1, 2, 6, 16)
  # Slots beyond those written hold large numbers: they must not matter.
  layer = (jnp.full((2, 2, 9, 4), 50.0), jnp.full((2, 2, 9, 4), 50.0))
  parts, position = [], 0
  for length in (3, 1, 2):
    y, layer = module(x_BTD[:, position:position + length], layer=layer, position=position)
    parts.append(y)
    position += length
  np.testing.assert_allclose(jnp.concatenate(parts, 1), module(x_BTD), atol=1e-5)


def test_cache_without_causal_mask_sees_every_written_slot():
  module = Attention(8, 2, rngs=nnx.Rngs(0))
  x_BTD = _random(1, 1, 3, 8)
  y, _ = module(x_BTD, layer=(jnp.full((2, 5, 4), 9.0), jnp.full((2, 5, 4), 9.0)), position=0)
  np.testing.assert_allclose(y, module(x_BTD), atol=1e-5)


def test_rope_depends_on_relative_positions_only_and_keeps_the_norm():
  q, k = _random(1, 1, 4, 1, 8), _random(2, 1, 4, 1, 8)
  positions = jnp.arange(4)[None]
  scores = [jnp.einsum('bthd,bshd->bts', rope(q, positions + shift), rope(k, positions + shift)) for shift in (0, 11)]
  np.testing.assert_allclose(scores[0], scores[1], atol=1e-4)
  np.testing.assert_allclose(jnp.linalg.norm(rope(q, positions), axis=-1), jnp.linalg.norm(q, axis=-1), rtol=1e-5)


def test_rope_rotates_halves():
  x = jnp.zeros((1, 1, 1, 4)).at[..., 0].set(1.0)
  # Channel 0 pairs with channel 2; the first pair turns by one radian per position.
  np.testing.assert_allclose(rope(x, jnp.array([[1]]), 100.0)[0, 0, 0], [np.cos(1), 0, np.sin(1), 0], atol=1e-6)


def test_scaled_rope():
  x = _random(0, 1, 7, 2, 8)
  positions = jnp.arange(7)[None]
  linear = rope(x, positions, 100.0, RopeScaling('linear', 4.0))
  np.testing.assert_allclose(linear, rope(x, positions / 4, 100.0), atol=1e-6)
  # Wavelengths 2 pi (1, 10, 100, 1000): as they are up to 100 / 4, a fourth of the frequency from 100 / 1 on, between
  # them a mean.
  scaling = RopeScaling('llama3', 4.0, low=1.0, high=4.0, original_context=100)
  frequency = np.array([1.0, 0.1, 0.01, 0.001])
  share = (100 / (2 * np.pi / 0.1) - 1.0) / (4.0 - 1.0)
  expected = [1.0, share * 0.1 + (1 - share) * 0.1 / 4, 0.01 / 4, 0.001 / 4]
  np.testing.assert_allclose(scaling(jnp.asarray(frequency), 1e4), expected, rtol=1e-5)


def test_a_window_needs_a_causal_mask():
  with pytest.raises(ValueError, match='causal=True'):
    Attention(8, 2, window=3, rngs=nnx.Rngs(0))


def test_given_positions_replace_the_default():
  module = Attention(8, 2, rope_theta=100.0, rngs=nnx.Rngs(0))
  x_BTD = _random(1, 1, 3, 8)
  np.testing.assert_array_equal(module(x_BTD, positions_BT=jnp.arange(3)[None]), module(x_BTD))
  assert not np.allclose(module(x_BTD, positions_BT=jnp.array([[0, 5, 1]])), module(x_BTD), atol=1e-4)


def test_bfloat16_computes_near_float32_and_keeps_parameters():
  module, reference = (Attention(16, 2, dtype=dtype, rngs=nnx.Rngs(0)) for dtype in (jnp.bfloat16, jnp.float32))
  x_BTD = _random(1, 2, 4, 16)
  assert module.query.kernel[...].dtype == jnp.float32
  assert module(x_BTD).dtype == jnp.bfloat16
  np.testing.assert_allclose(module(x_BTD).astype(jnp.float32), reference(x_BTD), atol=0.05)


@pytest.mark.parametrize('options', [dict(width=16, heads=4, kv_heads=3), dict(width=10, heads=4),
                                     dict(width=9, heads=3, rope_theta=1e4)])
def test_bad_sizes_are_errors(options):
  with pytest.raises(ValueError, match='head'):
    Attention(**options, rngs=nnx.Rngs(0))


def _under(mesh, length=8, rules=None, **options):
  """Traces self-attention of four heads on a mesh without devices."""
  sizes = tuple(mesh.get(axis, 1) for axis in sharding.MESH_AXES)
  module = Attention(16, 4, rngs=nnx.Rngs(0), **options)
  devices = jax.sharding.AbstractMesh(sizes, sharding.MESH_AXES)
  return jax.make_jaxpr(sharding.under(devices, rules, module))(jax.ShapeDtypeStruct((2, length, 16), jnp.float32))


@pytest.mark.parametrize(
  'mesh, length, words',
  [({'context': 4
    }, 6, r"queries B T H D of attention \(2, 6, 4, 4\): rule 'sequence' -> \('context',\) splits 6 into 4"),
   ({'tensor': 8}, 8, r"queries B T H D of attention \(2, 8, 4, 4\): rule 'heads' -> \('tensor',\) splits 4 into 8"),])
def test_a_mesh_that_does_not_divide_is_named_with_shape_and_rule(mesh, length, words):
  with pytest.raises(UserError, match=words):
    _under(mesh, length)


def test_sequences_are_split_by_the_ring_only_where_the_mesh_and_the_layer_say_so():
  assert 'ppermute' in str(_under({'context': 4}))
  assert 'ppermute' not in str(_under({'tensor': 4}))
  assert 'ppermute' not in str(_under({'context': 4}, 6, rules={'sequence': None}))
  assert 'ppermute' not in str(_under({'context': 4, 'tensor': 8}, 7, split=False))
  with pytest.raises(UserError, match="'chunked' needs whole sequences"):
    _under({'context': 4}, implementation='chunked')


def test_key_heads_that_are_fewer_than_devices_stay_whole():
  traced = _under({'tensor': 4}, kv_heads=2)
  heads = {(equation.invars[0].aval.shape[2], equation.params['sharding'].spec[2])
           for equation in traced.eqns if equation.primitive.name == 'sharding_constraint'}
  assert heads == {(4, 'tensor'), (2, None)}


def test_yarn():
  """Channels that turn often stay, those that turn seldom are slowed, a ramp between; both ends and the height by
  hand."""
  # Of 8 channels with base 10^4, channel d turns 1000 / (2 pi 10^(d / 2)) times in 1,000 tokens: 16 times at -> 1.99,
  # once at -> 4.40.
  scaling = RopeScaling('yarn', 4.0, low=1.0, high=16.0, original_context=1000)
  frequency = 10.0 ** (-np.arange(8) / 2)
  slowed = np.clip((np.arange(8) - 1) / (5 - 1), 0, 1)  # from the whole channel below to the one above
  np.testing.assert_allclose(scaling(jnp.asarray(frequency), 1e4), frequency * (1 - slowed + slowed / 4), rtol=1e-5)
  assert scaling.height == pytest.approx(0.1 * np.log(4) + 1)
  x, positions = _random(0, 1, 3, 2, 16), jnp.arange(3)[None]
  # Nothing turns at position 0
  np.testing.assert_allclose(rope(x, positions, 1e4, scaling)[:, 0], scaling.height * x[:, 0], rtol=1e-6)


def test_dynamic_frequencies_stay_within_the_context():
  scaling = RopeScaling('dynamic', 4.0)
  np.testing.assert_array_equal(scaling(jnp.ones(4), 1e4), jnp.ones(4))
  scaling.check_length(16, 16)
  with pytest.raises(UserError, match='beyond 16 tokens.*a sequence of 17'):
    scaling.check_length(17, 16)
