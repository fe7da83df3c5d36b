"""Kernels that are trees: layers multiply through their methods, scans slice them, applications in training get keys of
their own."""

import dataclasses

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.nn import kernels
from genjax.nn.functional import network, stack
from genjax.nn.linear import Linear, dot_general, project


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sum(kernels.Kernel):
  """one + two, multiplied one by one; with a key, twice that."""

  one: jax.Array
  two: jax.Array
  key: jax.Array | None = None

  @property
  def shape(self):
    return self.one.shape

  @property
  def dtype(self):
    return self.one.dtype

  def astype(self, dtype):
    return dataclasses.replace(self, one=self.one.astype(dtype), two=self.two.astype(dtype))

  def dense(self):
    return self.one + self.two

  def product(self, x, dimensions, multiply):
    y = multiply(x, self.one, dimensions) + multiply(x, self.two, dimensions)
    return y if self.key is None else y + jax.random.normal(self.key, y.shape)

  def keyed(self, key):
    return dataclasses.replace(self, key=key)


class Layer(nnx.Module):
  def __init__(self, rngs):
    self.first, self.second = (Linear(5, 5, rngs=rngs, use_bias=bias, dtype=jnp.bfloat16) for bias in (True, False))

  def __call__(self, x, key=None):
    return self.second(self.first(x)).astype(x.dtype)


def halves(params):
  """Each kernel as the sum of two."""
  split = lambda path, leaf: Sum(leaf / 4, 3 * leaf / 4) if path[-1].key == 'kernel' else leaf
  return jax.tree_util.tree_map_with_path(split, params)


@pytest.mark.parametrize('depth', [0, 3])
def test_layers_and_stacks_of_them_multiply_by_a_tree(depth):
  layers = stack(network(Layer), depth, remat='full') if depth else network(Layer)
  params, _ = layers.init(jax.random.key(0))
  x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 5)), jnp.float32)
  expected, _ = layers.apply(params, {}, x)
  found, _ = layers.apply(halves(params), {}, x)
  np.testing.assert_allclose(found, expected, rtol=0.05, atol=0.05)
  slopes = jax.grad(lambda tree: jnp.sum(layers.apply(tree, {}, x)[0]))(halves(params))
  plain = jax.grad(lambda tree: jnp.sum(layers.apply(tree, {}, x)[0]))(params)
  np.testing.assert_allclose(slopes['first']['kernel'].one, plain['first']['kernel'], rtol=0.1, atol=0.05)


def test_products_with_either_axis():
  random = np.random.default_rng(0)
  x, one, two = (jnp.asarray(random.normal(size=shape), jnp.float32) for shape in ((2, 3, 5), (5, 7), (5, 7)))
  np.testing.assert_allclose(dot_general(x, Sum(one, two), (((2,), (0,)), ((), ()))), x @ (one + two), rtol=1e-5,
                             atol=1e-5)
  np.testing.assert_allclose(project(x, Sum(one.T, two.T)), x @ (one + two), rtol=1e-5, atol=1e-5)
  np.testing.assert_array_equal(kernels.dense(Sum(one, two)), one + two)
  assert kernels.dense(one) is one and Sum(one, two).ndim == 2


def test_each_kernel_of_each_layer_has_a_key_in_training():
  layers = stack(network(Layer), 2)
  params, x = halves(layers.init(jax.random.key(0))[0]), jnp.ones((1, 5))
  zeros = jax.tree.map(jnp.zeros_like, params)
  apply = lambda tree, seed: layers.apply(tree, {}, x, key=jax.random.key(seed))[0]
  assert (apply(zeros, 0) == apply(zeros, 0)).all() and not (apply(zeros, 0) == apply(zeros, 1)).any()
  keys = [
    leaf.key
    for leaf in kernels.keyed(params, jax.random.key(0)).values()
    for leaf in leaf.values()
    if isinstance(leaf, Sum)
  ]
  assert len(keys) == 2 and keys[0] != keys[1]
  assert kernels.keyed(params, None) is params
