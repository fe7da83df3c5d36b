"""Kernels of attention on GPUs: what they take, and what is lowered for them. No GPU is needed but what jax asks the
driver about it."""

import logging

from flax import nnx
import jax
from jax._src.cudnn import fused_attention_stablehlo
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import sharding
from genjax.models.transformers import bert
from genjax.nn.attention import attention_kernels
from genjax.nn.attention import dot_product_attention as attention
from genjax.nn.attention.cross_attention import CrossAttention
from genjax.types import UserError

CAPABILITY = {'hopper': '9.0', 'ampere': '8.0', 'turing': '7.5', 'blackwell': '10.0', 'amd': 'gfx942'}


@pytest.fixture
def gpu(monkeypatch):
  """Makes of the devices GPUs of some generation; their log."""

  def become(name='hopper'):
    monkeypatch.setattr(sharding, 'platform', lambda: 'gpu')
    monkeypatch.setattr(sharding, 'compute_capability', lambda: CAPABILITY[name])
    monkeypatch.setattr(fused_attention_stablehlo, 'check_cudnn_version', lambda: 91200)
    monkeypatch.setattr(fused_attention_stablehlo, 'check_compute_capability', lambda least: name in
                        ('hopper', 'blackwell'))

  attention_kernels.say_once.cache_clear()
  return become


def lowered(function, *arrays):
  """The program of a function and its gradient for NVIDIA's GPUs."""
  loss = lambda *arrays: jnp.sum(function(*arrays).astype(jnp.float32))
  return jax.jit(jax.grad(loss, tuple(range(len(arrays))))).trace(*arrays).lower(lowering_platforms=('cuda',)).as_text()


def half(*shape):
  return jax.ShapeDtypeStruct(shape, jnp.bfloat16)


@pytest.mark.parametrize(('device', 'channels', 'runs'), [('hopper', 256, True), ('hopper', 264, False),
                                                          ('ampere', 128, True), ('ampere', 256, False),
                                                          ('blackwell', 136, False), ('turing', 64, False),
                                                          ('amd', 64, False)])
def test_size_of_heads_by_device(device, channels, runs, gpu):
  gpu(device)
  array = half(2, 64, 4, channels)
  text = lowered(lambda *arrays: attention.attend(*arrays, causal=True), array, array, array)
  assert ('__cudnn$fmhaSoftmaxBackward' in text) == runs
  if not runs:
    messages = {'turing': 'compute capability 8.0 or more, got 7.5', 'amd': 'NVIDIA GPUs, and this is gfx942'}
    message = messages.get(device, 'multiple of 8 up to')
    with pytest.raises(UserError, match=message):
      jax.eval_shape(lambda x: attention.attend(x, x, x, implementation='cudnn'), array)


def test_masks_of_padding_reach_the_kernel_as_lengths(gpu):
  """Of an encoder of padded texts, and of what a decoder reads of it."""
  gpu()
  config = bert.BertConfig(vocab=20, context=16, layers=1, heads=2, width=32, dtype='bfloat16')
  network = bert.encoder(config)
  params, tokens = jax.eval_shape(network.init, jax.random.key(0))[0], jax.ShapeDtypeStruct((2, 16), jnp.int32)
  run = lambda params, tokens, mask: network.apply(params, {}, tokens, mask_BT=mask)[0]['hidden']
  text = jax.jit(run).trace(params, tokens, tokens).lower(lowering_platforms=('cuda',)).as_text()
  assert '__cudnn$fmhaSoftmax' in text and 'PADDING' in text

  module = CrossAttention(32, 2, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
  read = lambda x, memory: module(x, module.project(memory), visible_BS=jnp.ones((2, 24)))
  text = lowered(read, half(2, 16, 32), half(2, 24, 32))
  assert '__cudnn$fmhaSoftmaxBackward' in text and 'PADDING' in text


@pytest.mark.parametrize('padding', ['left', 'right', 'between'])
def test_lengths_in_the_place_of_a_mask(padding, gpu, monkeypatch):
  """With a kernel that masks by length, and leaves there what it likes: values and gradients of the formula with the
  mask."""
  gpu()
  mask = jnp.asarray({'right': [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], 'left': [[0, 0, 0, 1, 1], [0, 1, 1, 1, 1]],
                      'between': [[0, 1, 0, 0, 1], [1, 0, 1, 1, 0]]}[padding])

  def by_length(query, key, value, *, is_causal, local_window_size, implementation, key_value_seq_lengths):
    assert not is_causal and local_window_size is None and implementation == 'cudnn'
    ids = jnp.ones(query.shape[:2], bool), jnp.arange(key.shape[1]) < key_value_seq_lengths[:, None]
    return attention.reference(query, key, value, ids)

  monkeypatch.setattr(jax.nn, 'dot_product_attention', by_length)
  query, key, value = (jax.random.normal(jax.random.key(number), (2, size, heads, 8), jnp.float32)
                       for number, (size, heads) in enumerate(((4, 4), (5, 2), (5, 2))))

  def run(function):
    return jax.jit(jax.value_and_grad(lambda *arrays: jnp.sum(jnp.sin(function(*arrays))), (0, 1, 2)))(query, key,
                                                                                                       value)

  ours = run(lambda *arrays: attention_kernels.cudnn(*arrays, visible_BS=mask))
  theirs = run(lambda *arrays: attention.reference(*arrays, (jnp.ones((2, 4), bool), mask != 0)))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours, theirs)


def test_keys_are_repeated_where_devices_are_more_than_their_heads(gpu, caplog):
  """Each device has 2 of 8 query heads and the one key head that they read; said once."""
  gpu()
  mesh = jax.sharding.AbstractMesh((2, 4), ('data', 'tensor'))
  rules = {'batch': ('data',), 'sequence': None, 'vocab': None, 'mlp': None, 'experts': None}
  query, key = half(4, 64, 8, 64), half(4, 64, 2, 64)
  function = sharding.under(mesh, rules, lambda query, key, value: attention.attend(query, key, value, causal=True))
  seen = []
  kernel = jax.nn.dot_product_attention
  with pytest.MonkeyPatch.context() as patch, caplog.at_level(logging.WARNING, 'genjax'):
    watched = lambda *arrays, **options: seen.append([x.shape for x in arrays]) or kernel(*arrays, **options)
    patch.setattr(jax.nn, 'dot_product_attention', watched)
    for _ in range(2):
      gradient = jax.eval_shape(jax.grad(lambda *arrays: jnp.sum(function(*arrays).astype(jnp.float32)), (0, 1, 2)),
                                query, key, key)
  assert seen[0] == [(2, 64, 2, 64), (2, 64, 1, 64), (2, 64, 1, 64)]
  assert [x.shape for x in gradient] == [query.shape, key.shape, key.shape]
  said = [record.message for record in caplog.records if 'repeated' in record.message]
  assert len(said) == 1 and 'the 2 heads of keys and values are repeated 2 times' in said[0]


def test_a_fallback_is_said_once(gpu, caplog):
  gpu()
  full, ids = jax.ShapeDtypeStruct((2, 64, 4, 64), jnp.float32), jnp.zeros((2, 64), jnp.int32)
  with caplog.at_level(logging.WARNING, 'genjax'):
    for _ in range(2):
      jax.eval_shape(lambda x: attention.attend(x, x, x), full)
      jax.eval_shape(lambda x: attention.attend(x, x, x, segments=(ids, ids)), half(2, 64, 4, 64))
  assert len(caplog.records) == 2
  assert "'cudnn' computes in float16 or bfloat16" in caplog.text
  assert "'cudnn' takes no segments; 'chunked' takes its place" in caplog.text


def test_segments_and_visible_keys_exclude_each_other():
  x, ids = jnp.zeros((1, 4, 1, 8)), jnp.zeros((1, 4), int)
  with pytest.raises(ValueError, match='not both'):
    attention.attend(x, x, x, segments=(ids, ids), visible_BS=ids)


def test_forward_mode_through_the_kernel_names_what_to_set(gpu):
  gpu()
  x = half(2, 64, 4, 64)
  with pytest.raises(UserError, match="'cudnn': set the attention of the model to 'chunked' or 'reference'"):
    jax.jit(lambda x: jax.jvp(lambda x: attention.attend(x, x, x), (x,), (x,))).trace(x).lower(
      lowering_platforms=('cuda',))
