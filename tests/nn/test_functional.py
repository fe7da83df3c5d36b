"""Networks as pure functions, and stacks of blocks."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.nn import functional
from genjax.types import UserError


class Block(nnx.Module):
  """A residual block with dropout and a counter that is no parameter."""

  def __init__(self, width, rngs):
    self.layers = nnx.List([nnx.Linear(width, width, rngs=rngs), nnx.Linear(width, width, rngs=rngs)])
    self.calls = nnx.BatchStat(jnp.zeros(()))

  def __call__(self, x, key=None, layer=None):
    y = functional.dropout(jnp.tanh(self.layers[0](x)), 0.5, key)
    self.calls[...] = self.calls[...] + 1
    y = x + self.layers[1](y)
    return y if layer is None else (y, layer + jnp.sum(y))


block = functional.network(lambda rngs: Block(4, rngs))
x = jnp.linspace(-1, 1, 12).reshape(3, 4)


def test_network_is_pure_and_plain():
  params, mutable = block.init(jax.random.key(0))
  assert set(params['layers']) == {'0', '1'} and mutable == {'calls': 0}
  before = jax.tree.map(np.asarray, (params, mutable))
  first, changed = block.apply(params, mutable, x)
  second, _ = block.apply(params, mutable, x)
  assert changed['calls'] == 1
  np.testing.assert_array_equal(first, second)
  jax.tree.map(np.testing.assert_array_equal, before, (params, mutable))


def test_stack_equals_a_loop_over_its_layers():
  stacked = functional.stack(block, 3)
  params, mutable = stacked.init(jax.random.key(1))
  expected = x
  for layer in range(3):
    expected, _ = block.apply(jax.tree.map(lambda leaf: leaf[layer], params), {'calls': jnp.zeros(())}, expected)
  actual, changed = stacked.apply(params, mutable, x)
  np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)
  np.testing.assert_array_equal(changed['calls'], np.ones(3))


@pytest.mark.parametrize('options', [{'unroll': True}, {'remat': 'full'}, {'remat': 'dots'}])
def test_scan_equals_unrolled_and_rematerialised(options):
  plain, other = functional.stack(block, 3), functional.stack(block, 3, **options)
  params, mutable = plain.init(jax.random.key(1))

  def loss(params, network):
    return jnp.sum(network.apply(params, mutable, x, key=jax.random.key(2))[0] ** 2)

  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6),
               jax.value_and_grad(loss)(params, plain), jax.value_and_grad(loss)(params, other))


def test_layers_pass_through_a_stack():
  stacked = functional.stack(block, 3)
  params, mutable = stacked.init(jax.random.key(1))
  (y, slices), _ = stacked.apply(params, mutable, x, layers=jnp.zeros(3))
  np.testing.assert_allclose(slices[-1], jnp.sum(y), rtol=1e-6)


def test_dropout_keeps_the_mean_and_is_off_without_a_key():
  ones = jnp.ones((200, 200))
  dropped = functional.dropout(ones, 0.25, jax.random.key(0))
  np.testing.assert_allclose(np.unique(dropped), [0, 4 / 3], rtol=1e-6)
  assert abs(float(dropped.mean()) - 1) < 0.01
  assert functional.dropout(ones, 0.25, None) is ones


def test_unknown_rematerialisation():
  with pytest.raises(UserError, match="remat must be one of .*'offload'.*got 'some'"):
    functional.stack(block, 2, remat='some')


def test_offload_needs_a_second_memory():
  stacked = functional.stack(block, 2, remat='offload')
  params, mutable = stacked.init(jax.random.key(0))
  with pytest.raises(UserError, match="this runs on cpu; use remat='full'"):
    stacked.apply(params, mutable, x)


def test_memory_of_rematerialised_stacks():
  """'full' keeps one array a block, 'dots' the products too, 'none' all."""
  rows = jnp.ones((4096, 4))

  def temporaries(remat):
    stacked = functional.stack(block, 24, remat)
    params, mutable = stacked.init(jax.random.key(0))
    gradient = jax.jit(
      jax.grad(lambda params: jnp.sum(stacked.apply(params, mutable, rows, key=jax.random.key(1))[0]**2)))
    return gradient.lower(params).compile().memory_analysis().temp_size_in_bytes

  full, dots, none = map(temporaries, ('full', 'dots', 'none'))
  assert 24 * rows.nbytes <= full < dots - 24 * rows.nbytes
  assert dots < none


def test_compiled_size_does_not_grow_with_depth():
  def lines(depth):
    stacked = functional.stack(block, depth)
    params, mutable = stacked.init(jax.random.key(0))
    return len(jax.jit(lambda params: stacked.apply(params, mutable, x)[0]).lower(params).as_text().splitlines())

  assert lines(24) == lines(3)
