"""Attention: every implementation against the formula, its gradients, its memory, its kernels, and what it refuses."""

import functools
import itertools
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import sharding
from genjax.nn.attention import dot_product_attention as attention
from genjax.types import UserError

ROOT = pathlib.Path(__file__).parent.parent.parent.parent

MASKS = {
  'full': {},
  'causal': {'causal': True},
  'window': {'causal': True, 'window': 37},
}


def inputs(length, keys, heads, kv_heads, channels, segmented, seed=0):
  rng = np.random.default_rng(seed)
  query, key, value = (jnp.asarray(rng.normal(size=(2, size, count, channels)), jnp.float32)
                       for size, count in ((length, heads), (keys, kv_heads), (keys, kv_heads)))
  segments = None
  if segmented:  # two packed sequences and padding at the end, as large a share of the queries as of the keys
    places = [np.arange(size)[None] / size + np.zeros((2, 1)) for size in (length, keys)]
    segments = tuple(jnp.asarray(np.searchsorted([0.4, 0.9], place, side='right')) for place in places)
  return query, key, value, segments


def formula(query, key, value, segments, causal=False, window=None):
  """The formula once more, in float64 and one head at a time."""
  query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
  groups = query.shape[2] // key.shape[2]
  out = np.zeros_like(query)
  back = np.arange(query.shape[1])[:, None] - np.arange(key.shape[1])
  for row, head in itertools.product(range(query.shape[0]), range(query.shape[2])):
    scores = query[row, :, head] @ key[row, :, head // groups].T / np.sqrt(query.shape[3])
    allowed = np.full(scores.shape, True)
    if causal:
      allowed &= back >= 0
    if window:
      allowed &= back < window
    if segments is not None:
      allowed &= np.asarray(segments[0][row])[:, None] == np.asarray(segments[1][row])
    weights = np.where(allowed, np.exp(scores - scores.max(axis=1, keepdims=True)), 0)
    out[row, :, head] = weights / weights.sum(axis=1, keepdims=True) @ value[row, :, head // groups]
  return out


@pytest.fixture
def small_chunks(monkeypatch):
  monkeypatch.setattr(attention, 'CHUNK', 32)
  monkeypatch.setattr(attention, 'MIN_PART', 16)


@pytest.mark.usefixtures('small_chunks')
@pytest.mark.parametrize('segmented', [False, True])
@pytest.mark.parametrize('mask', MASKS)
@pytest.mark.parametrize('implementation', ['reference', 'chunked'])
@pytest.mark.parametrize(('length', 'heads', 'kv_heads', 'channels'),
                         [(1, 2, 2, 8), (17, 1, 1, 8), (32, 3, 3, 4), (150, 4, 2, 16), (128, 6, 1, 5)])
def test_equals_the_formula(implementation, mask, segmented, length, heads, kv_heads, channels):
  query, key, value, segments = inputs(length, length, heads, kv_heads, channels, segmented)
  y = attention.attend(query, key, value, segments=segments, implementation=implementation, **MASKS[mask])
  np.testing.assert_allclose(y, formula(query, key, value, segments, **MASKS[mask]), atol=2e-5)


@pytest.mark.usefixtures('small_chunks')
@pytest.mark.parametrize('implementation', ['reference', 'chunked'])
@pytest.mark.parametrize('segmented', [False, True])
def test_other_numbers_of_keys_than_queries(implementation, segmented):
  query, key, value, segments = inputs(70, 41, 4, 2, 8, segmented)
  y = attention.attend(query, key, value, segments=segments, implementation=implementation)
  np.testing.assert_allclose(y, formula(query, key, value, segments), atol=2e-5)


@pytest.mark.parametrize('segmented', [False, True])
@pytest.mark.parametrize('mask', MASKS)
def test_the_kernel_for_tpus_equals_the_formula(mask, segmented):
  query, key, value, segments = inputs(256, 256, 4, 2, 40, segmented)
  y = attention.splash_attention(query, key, value, segments, interpret=True, **MASKS[mask])
  np.testing.assert_allclose(y, formula(query, key, value, segments, **MASKS[mask]), atol=2e-5)


@pytest.mark.usefixtures('small_chunks')
@pytest.mark.parametrize('length', [30, 150])  # a single chunk, several
@pytest.mark.parametrize('segmented', [False, True])
@pytest.mark.parametrize('mask', MASKS)
def test_gradients_equal_the_reference(mask, segmented, length):
  query, key, value, segments = inputs(length, length, 4, 2, 8, segmented)

  def loss(arrays, implementation):
    y = attention.attend(*arrays, segments=segments, implementation=implementation, **MASKS[mask])
    return jnp.sum(jnp.sin(y))

  expected = jax.grad(loss)((query, key, value), 'reference')
  for ours, theirs in zip(jax.grad(loss)((query, key, value), 'chunked'), expected):
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


@pytest.mark.usefixtures('small_chunks')
@pytest.mark.parametrize('length', [30, 150])
@pytest.mark.parametrize('causal', [False, True])
def test_a_bias_is_added_to_the_scores(causal, length):
  """As the query's and key's products with one more channel, where the bias is such a product; and its gradient is the
  reference's."""
  query, key, value, segments = inputs(length, length, 4, 2, 8, True)
  left_TH, right_S = jax.random.normal(jax.random.key(0), (length, 4)), jax.random.normal(jax.random.key(1), (length,))
  bias_HTS = left_TH.T[:, :, None] * right_S
  longer = [jnp.concatenate([x * factor, jnp.broadcast_to(extra, (*x.shape[:3], 1))], axis=-1) for x, factor, extra in (
    (query, np.sqrt(9 / 8), 3 * left_TH[:, :, None]), (key, 1, right_S[:, None, None]), (value, 1, 0))]
  expected = formula(*longer, segments, causal=causal)[..., :8]

  @functools.partial(jax.jit, static_argnums=1)
  def run(bias_HTS, implementation):
    return attention.attend(query, key, value, segments=segments, causal=causal, bias_HTS=bias_HTS,
                            implementation=implementation)

  for implementation in ('reference', 'chunked'):
    np.testing.assert_allclose(run(bias_HTS, implementation), expected, atol=2e-5)
  ours, theirs = (
    jax.grad(lambda bias: jnp.sum(jnp.sin(run(bias, name))))(bias_HTS) for name in ('chunked', 'reference'))
  np.testing.assert_allclose(ours, theirs, atol=2e-5)
  assert np.abs(theirs).max() > 1e-3
  if causal:
    for count in (1, 20):
      y = attention.attend_cached(query[:, 10:10 + count], key.swapaxes(1, 2), value.swapaxes(1, 2), 10, causal=True,
                                  bias_HTS=bias_HTS[:, 10:10 + count])
      whole = attention.attend(query, key, value, causal=True, bias_HTS=bias_HTS, implementation='reference')
      np.testing.assert_allclose(y, whole[:, 10:10 + count], atol=2e-5)


def test_a_bias_of_another_shape():
  query, key, value, _ = inputs(5, 7, 4, 2, 8, False)
  with pytest.raises(ValueError, match='a bias has shape H T S'):
    attention.attend(query, key, value, bias_HTS=jnp.zeros((4, 7, 5)))


def test_gradients_of_the_kernel_for_tpus_equal_the_reference():
  query, key, value, segments = inputs(128, 128, 4, 2, 40, True)

  def loss(arrays, function):
    return jnp.sum(jnp.sin(function(*arrays, segments, causal=True)))

  expected = jax.grad(loss)((query, key, value), attention.reference)
  actual = jax.grad(loss)((query, key, value), functools.partial(attention.splash_attention, interpret=True))
  for ours, theirs in zip(actual, expected):
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


@pytest.mark.usefixtures('small_chunks')
@pytest.mark.parametrize('window', [None, 9])
@pytest.mark.parametrize('count', [1, 5, 20, 50])
def test_queries_in_the_midst_of_the_keys(count, window):
  """Queries from `position` on against a cache give what the whole sequence gives; later keys do not matter."""
  query, key, value, _ = inputs(90, 90, 4, 2, 8, False)
  whole = formula(query, key, value, None, causal=True, window=window)
  late = jnp.arange(90)[:, None, None] >= 30 + count

  @jax.jit
  def some(position):
    queries = jax.lax.dynamic_slice_in_dim(query, position, count, axis=1)
    caches = (jnp.where(late, 50.0, key), jnp.where(late, -50.0, value))
    return attention.attend_cached(queries, *(cache.swapaxes(1, 2) for cache in caches), position, causal=True,
                                   window=window)

  np.testing.assert_allclose(some(30), whole[:, 30:30 + count], atol=2e-5)


@pytest.mark.usefixtures('small_chunks')
@pytest.mark.parametrize('length', [30, 150])
def test_causality_is_bitwise(length):
  query, key, value, _ = inputs(length, length, 4, 2, 8, False)
  cut = 2 * length // 3
  changed = [x.at[:, cut:].multiply(-3) for x in (query, key, value)]
  before, after = (attention.attend(*arrays, causal=True) for arrays in ((query, key, value), changed))
  np.testing.assert_array_equal(before[:, :cut], after[:, :cut])
  assert np.abs(before[:, cut:] - after[:, cut:]).min(axis=(0, 2, 3)).max() > 0


@pytest.mark.parametrize('causal', [False, True])
def test_memory_of_a_long_sequence(causal):
  """Forward and backward of 8,192 tokens take at most an eighth of what all scores take."""
  array = jax.ShapeDtypeStruct((1, 8192, 2, 64), jnp.float32)

  def temporaries(implementation):
    def loss(query, key, value):
      return jnp.sum(attention.attend(query, key, value, causal=causal, implementation=implementation))
    return jax.jit(jax.grad(loss, (0, 1, 2))).lower(array, array, array).compile().memory_analysis().temp_size_in_bytes

  assert temporaries('auto') <= temporaries('reference') / 8


def test_half_precision_keeps_its_type_and_the_softmax_in_single():
  query, key, value, _ = inputs(64, 64, 2, 2, 16, False)
  half = [x.astype(jnp.bfloat16) for x in (query, key, value)]
  y = attention.attend(*half, causal=True)
  assert y.dtype == jnp.bfloat16
  np.testing.assert_allclose(y.astype(jnp.float32), formula(*[x.astype(jnp.float32) for x in half], None, causal=True),
                             atol=0.03)


MESHED = """
import jax, numpy as np, jax.numpy as jnp
from genjax import sharding
from genjax.nn.attention import dot_product_attention as attention

mesh = sharding.make_mesh({'data': 2, 'tensor': 2})
rng = np.random.default_rng(0)
for rows, heads, kv_heads in ((4, 4, 2), (2, 6, 1), (2, 6, 3), (3, 3, 1)):
  query, key, value = (jnp.asarray(rng.normal(size=(rows, 128, count, 16)), jnp.float32)
                       for count in (heads, kv_heads, kv_heads))
  ids = jnp.asarray(rng.integers(0, 3, (rows, 128)).cumsum(1) // 40)
  def loss(function, *arrays):
    y = function(*arrays, (ids, ids), causal=True)
    return jnp.sum(jnp.sin(y)), y
  kernel = lambda *arguments, **options: attention.splash_attention(*arguments, **options, interpret=True)
  def slopes_of(function):
    return jax.value_and_grad(lambda *arrays: loss(function, *arrays), (0, 1, 2), has_aux=True)
  meshed = jax.jit(sharding.under(mesh, {}, lambda *arrays: slopes_of(kernel)(*arrays)))
  plain = slopes_of(attention.reference)
  (_, y), slopes = meshed(query, key, value)
  (_, expected), expected_slopes = plain(query, key, value)
  np.testing.assert_allclose(y, expected, atol=2e-5)
  for ours, theirs in zip(slopes, expected_slopes):
    np.testing.assert_allclose(ours, theirs, atol=2e-5)
  split = jax.jit(sharding.under(mesh, {}, lambda *arrays: loss(kernel, *arrays)[1])).lower(query, key, value).as_text()
  assert 'shard_map' in split or 'manual_computation' in split
print('equal')
"""


@pytest.mark.slow
def test_the_kernel_for_tpus_on_a_mesh():
  """Rows over data, heads over tensor, also where the heads of keys are fewer than devices or nothing divides."""
  environment = {
    **os.environ, 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(ROOT),
    'XLA_FLAGS': os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=4'
  }
  done = subprocess.run([sys.executable, '-c', MESHED], env=environment, capture_output=True, text=True, timeout=300)
  assert done.returncode == 0 and 'equal' in done.stdout, done.stderr[-3000:]


def test_the_kernel_for_gpus_is_lowered(monkeypatch):
  """No GPU is needed to lower for one, only what jax asks the driver about it."""
  from jax._src.cudnn import fused_attention_stablehlo
  monkeypatch.setattr(fused_attention_stablehlo, 'check_cudnn_version', lambda: 91200)
  monkeypatch.setattr(sharding, 'platform', lambda: 'gpu')
  array, half = jax.ShapeDtypeStruct((2, 64, 4, 64), jnp.float32), jax.ShapeDtypeStruct((2, 64, 4, 64), jnp.bfloat16)

  def lowered(array, **options):
    def loss(*arrays):
      return jnp.sum(attention.attend(*arrays, causal=True, **options).astype(jnp.float32))
    return jax.jit(jax.grad(loss, (0, 1, 2))).trace(array, array, array).lower(lowering_platforms=('cuda',)).as_text()

  text = lowered(half)
  assert '__cudnn$fmhaSoftmax' in text and '__cudnn$fmhaSoftmaxBackward' in text
  assert 'sliding_window_length": 17' in lowered(half, window=17).replace('\\22', '"').replace('\\', '')
  ids = jnp.zeros((2, 64), jnp.int32)
  assert '__cudnn' not in lowered(array) and '__cudnn' not in lowered(half, segments=(ids, ids))


def test_refusals(monkeypatch):
  query, key, value, segments = inputs(100, 100, 4, 2, 8, True)
  for implementation in ('splash', 'cudnn'):
    with pytest.raises(UserError, match='and this is cpu'):
      attention.attend(query, key, value, implementation=implementation)
  monkeypatch.setattr(sharding, 'platform', lambda: {'splash': 'tpu', 'cudnn': 'gpu'}[implementation])
  implementation = 'splash'
  with pytest.raises(UserError, match='multiples of 128'):
    attention.attend(query, key, value, implementation='splash')
  implementation = 'cudnn'
  with pytest.raises(UserError, match='takes no segments'):
    attention.attend(query, key, value, segments=segments, implementation='cudnn')
  with pytest.raises(UserError, match='float16 or bfloat16'):
    attention.attend(query, key, value, implementation='cudnn')
  half = [x[..., :5].astype(jnp.bfloat16) for x in (query, key, value)]
  with pytest.raises(UserError, match='multiple of 8 up to 128, got 5'):
    attention.attend(*half, implementation='cudnn')
  with pytest.raises(ValueError, match="'flash'"):
    attention.attend(query, key, value, implementation='flash')
  with pytest.raises(ValueError, match='multiple of key/value heads'):
    attention.attend(query[:, :, :3], key, value)
  with pytest.raises(ValueError, match='as many queries as keys'):
    attention.attend(query[:, :50], key, value, causal=True)
  with pytest.raises(ValueError, match='causal=True'):
    attention.attend(query, key, value, window=3)
  with pytest.raises(ValueError, match='B S K D'):
    attention.attend(query, key, value[..., :4])


def test_dropout_of_weights_keeps_their_mean_and_is_off_without_a_key():
  query, key, _, _ = inputs(6, 6, 1, 1, 4, segmented=False)
  value = jnp.broadcast_to(jnp.eye(6)[None, :, None], (2, 6, 1, 6))  # what comes out are the weights
  query, key = (jnp.pad(x, [(0, 0)] * 3 + [(0, 2)]) for x in (query, key))
  kept = attention.attend(query, key, value, causal=True)
  np.testing.assert_array_equal(attention.attend(query, key, value, causal=True, dropout_rate=0.25), kept)
  draw = jax.jit(jax.vmap(lambda seed: attention.attend(query, key, value, causal=True, dropout_rate=0.25, key=seed)))
  dropped = draw(jax.random.split(jax.random.key(0), 4000))
  share = np.asarray(dropped / jnp.where(kept, kept, 1))
  assert np.all(np.isclose(share, 0) | np.isclose(share, 1 / 0.75, rtol=1e-4))
  np.testing.assert_allclose(dropped.mean(axis=0), kept, atol=0.04)


def test_kernels_drop_no_weights():
  query, key, value, _ = inputs(6, 6, 1, 1, 4, segmented=False)
  with pytest.raises(UserError, match="'splash' drops no weights"):
    attention.attend(query, key, value, implementation='splash', dropout_rate=0.1, key=jax.random.key(0))


@pytest.mark.parametrize('causal', [False, True])
def test_a_sequence_of_one_piece_drops_the_weights_of_the_reference(causal):
  query, key, value, _ = inputs(6, 6, 4, 2, 4, segmented=False)

  def value_and_gradients(function):
    loss = lambda query, key, value: jnp.sum(
      jnp.sin(function(query, key, value, causal=causal, dropout_rate=0.4, key=jax.random.key(1))))
    return jax.tree.leaves(jax.value_and_grad(loss, (0, 1, 2))(query, key, value))

  for got, wanted in zip(value_and_gradients(attention.chunked), value_and_gradients(attention.reference), strict=True):
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures('small_chunks')
def test_dropped_weights_are_the_same_when_chunks_are_computed_again():
  query, key, value, _ = inputs(40, 40, 2, 2, 4, segmented=False)
  loss = lambda value: jnp.sum(
    attention.chunked(query, key, value, causal=True, dropout_rate=0.4, key=jax.random.key(2))**2)
  value, direction = value.astype(jnp.float32), jax.random.normal(jax.random.key(3), value.shape)
  slope = jnp.vdot(jax.grad(loss)(value), direction)
  # The loss is a polynomial of degree 2 in the values, whose central difference is exact.
  np.testing.assert_allclose((loss(value + direction) - loss(value - direction)) / 2, slope, rtol=1e-3)
