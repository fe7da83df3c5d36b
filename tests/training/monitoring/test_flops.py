"""Analytic FLOPs against hand counts."""

import functools

import jax
from jax._src.cudnn import fused_attention_stablehlo
from jax.experimental.pallas.ops.tpu.megablox.gmm import tgmm
import jax.numpy as jnp
from jax.sharding import AbstractMesh, PartitionSpec
import pytest

from genjax import sharding
from genjax.models.transformers import decoder as models
from genjax.nn.attention import dot_product_attention
from genjax.training.monitoring import flops


def shape(*sizes):
  return jax.ShapeDtypeStruct(sizes, jnp.float32)


def test_matrix_product():
  assert flops.count(lambda a, b: a @ b, shape(3, 5), shape(5, 7)) == 2 * 3 * 5 * 7
  assert flops.count(lambda a, b: jnp.einsum('bij,bjk->bik', a, b), shape(4, 3, 5), shape(4, 5, 7)) == 4 * 2 * 3 * 5 * 7


def test_scan_counts_every_turn():
  def function(x, w):
    return jax.lax.scan(lambda x, _: (x @ w, None), x, None, length=6)[0]

  assert flops.count(jax.jit(function), shape(2, 4), shape(4, 4)) == 6 * 2 * 2 * 4 * 4


def test_convolution_and_its_gradients():
  def convolve(x, w):
    return jax.lax.conv_general_dilated(x, w, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))

  forward = 2 * (2 * 8 * 8 * 6) * 9 * 4
  assert flops.count(convolve, shape(2, 8, 8, 4), shape(3, 3, 4, 6)) == forward
  both = flops.count(jax.grad(lambda x, w: convolve(x, w).sum(), argnums=(0, 1)), shape(2, 8, 8, 4), shape(3, 3, 4, 6))
  assert 3 * forward <= both <= 3.6 * forward  # the weight gradient counts taps that fall on the padding


def test_a_kernel_counts_every_block_of_its_grid():
  """Scores and weighted values of attention: 4 B H T S D."""
  query = jax.ShapeDtypeStruct((2, 512, 4, 128), jnp.float32)
  kernel = functools.partial(dot_product_attention.splash_attention, causal=True, interpret=True)
  assert flops.count(kernel, query, query, query) == 4 * 2 * 4 * 512 * 512 * 128


def test_ragged_products_count_every_row_once():
  sizes = jax.ShapeDtypeStruct((4,), jnp.int32)
  forward = 2 * 10 * 3 * 5
  assert flops.count(jax.lax.ragged_dot, shape(10, 3), shape(4, 3, 5), sizes) == forward
  both = jax.grad(lambda x, w, sizes: jax.lax.ragged_dot(x, w, sizes).sum(), argnums=(0, 1))
  assert flops.count(both, shape(10, 3), shape(4, 3, 5), sizes) == 3 * forward


def test_a_kernel_whose_grid_depends_on_data_counts_what_it_expects():
  sizes = jax.ShapeDtypeStruct((4,), jnp.int32)
  assert flops.count(tgmm, shape(128, 256), shape(256, 128), sizes) == 2 * 256 * 128 * 128


def test_the_body_of_a_shard_map_runs_on_every_device():
  mesh = AbstractMesh((2, 4), ('rows', 'columns'))
  sharded = jax.shard_map(lambda a, b: a @ b, mesh=mesh,
                          in_specs=(PartitionSpec('rows'), PartitionSpec(None, 'columns')),
                          out_specs=PartitionSpec('rows', 'columns'))
  assert flops.count(sharded, shape(6, 5), shape(5, 8)) == 2 * 6 * 5 * 8


def test_a_transformer_costs_two_flops_a_parameter_and_token():
  """Kaplan et al. 2020, table 1: 2 N per token without embeddings, plus 4 T D per layer for full attention."""
  config = models.TransformerConfig(vocab=100, context=64, layers=3, heads=2, width=32)
  network = models.transformer(config)
  params = jax.eval_shape(network.init, jax.random.key(0))[0]
  cost = flops.count(lambda params, tokens: network.apply(params, {}, tokens)[0], params,
                     jax.ShapeDtypeStruct((1, 64), jnp.int32))
  assert cost == 64 * (2 * 3 * 12 * 32**2 + 2 * 100 * 32) + 3 * 4 * 64 * 64 * 32


@pytest.mark.parametrize(('window', 'kv_heads'), [(None, 4), (None, 2), (128, 4)])
def test_attention_of_cudnn_counts_as_the_formula(window, kv_heads, monkeypatch):
  """Forward, and forward with backward: a kernel that no jaxpr shows. A window leaves each query as many keys as it is
  long."""
  monkeypatch.setattr(fused_attention_stablehlo, 'check_cudnn_version', lambda: 91200)
  query, key = (jax.ShapeDtypeStruct((2, 512, heads, 64), jnp.bfloat16) for heads in (4, kv_heads))
  kernel = functools.partial(dot_product_attention.cudnn, causal=True, window=window)
  forward = 4 * 2 * 4 * 512 * (window or 512) * 64
  assert flops.count(kernel, query, key, key) == forward
  both = jax.grad(lambda *arrays: jnp.sum(kernel(*arrays).astype(jnp.float32)), (0, 1, 2))
  assert flops.count(both, query, key, key) == 3 * forward
  if window is None:
    formula = jax.grad(
      lambda *arrays: jnp.sum(dot_product_attention.reference(*arrays, causal=True).astype(jnp.float32)), (0, 1, 2))
    assert flops.count(formula, query, key, key) == 3 * forward


def test_a_model_costs_the_same_with_cudnn_and_with_the_formula(monkeypatch):
  """A step at a context of 8,192, of which attention is a fifth and more."""
  monkeypatch.setattr(fused_attention_stablehlo, 'check_cudnn_version', lambda: 91200)
  tokens = jax.ShapeDtypeStruct((1, 8192), jnp.int32)

  def cost(attention):
    config = models.llama(vocab=1000, context=8192, layers=2, heads=16, width=1024, kv_heads=4, dtype='bfloat16',
                          attention=attention)
    network = models.transformer(config)
    params = jax.eval_shape(network.init, jax.random.key(0))[0]
    return flops.count(jax.grad(lambda params, tokens: jnp.sum(network.apply(params, {}, tokens)[0])), params, tokens)

  formula = cost('reference')
  monkeypatch.setattr(sharding, 'platform', lambda: 'gpu')
  assert cost('cudnn') == formula
