"""The types in which functions read arrays: only what is always converted may be kept converted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.training.reading import read_types

HALF = jnp.bfloat16
X = jnp.ones((3, 3))


def product(w):
  return jnp.sum(X.astype(HALF) @ w.astype(HALF))


def layers(w):
  """A stack of three, rematerialised."""
  step = jax.checkpoint(lambda x, matrix: (jnp.tanh(x @ matrix.astype(HALF)), None))
  return jnp.sum(jax.lax.scan(step, X.astype(HALF), jnp.stack([w, w, w]) if w.ndim == 2 else w)[0])


@jax.custom_vjp
def careful(w):
  return jnp.sum(w.astype(HALF))


careful.defvjp(lambda w: (careful(w), w), lambda w, slope: (slope * w,))

CASES = {
  'converted': (product, (3, 3), HALF),
  'converted as a view': (lambda w: product(w.T.reshape(3, 3)[::-1]), (3, 3), HALF),
  'converted twice': (lambda w: product(w) + jnp.sum(w.astype(HALF)), (3, 3), HALF),
  'within a compiled function': (jax.jit(product), (3, 3), HALF),
  'within a scan': (layers, (3, 3, 3), HALF),
  'read as it is, too': (lambda w: product(w) + jnp.sum(w), (3, 3), jnp.float32),
  'converted to two types': (lambda w: product(w) + jnp.sum(w.astype(jnp.float16)), (3, 3), jnp.float32),
  'stacked first': (layers, (3, 3), jnp.float32),
  'given back': (lambda w: w, (3, 3), jnp.float32),
  'carried by a loop': (lambda w: jax.lax.fori_loop(0, 3, lambda _, w: w + 1, w).astype(HALF), (3, 3), jnp.float32),
  'unused': (lambda w: jnp.ones(()), (3, 3), jnp.float32),
  'to integers': (lambda w: jnp.sum(w.astype(jnp.int8)), (3, 3), jnp.float32),
  'wider': (lambda w: jnp.sum(w.astype(jnp.float32)), (3, 3), jnp.float32),
  'by a backward pass': (jax.grad(lambda w: careful(w) + product(w)), (3, 3), jnp.float32),
}


@pytest.mark.parametrize('name', CASES)
def test_the_type_in_which_an_array_may_be_kept(name):
  function, shape, expected = CASES[name]
  tree = {'w': jax.ShapeDtypeStruct(shape, jnp.float32), 'n': jax.ShapeDtypeStruct((), jnp.int32)}
  found = read_types(lambda tree, n: (function(tree['w']), tree['n'] + n), tree, jnp.int32(1))
  assert found == {'w': jnp.dtype(expected), 'n': jnp.dtype('int32')}


@pytest.mark.parametrize('name', CASES)
def test_the_bits_are_the_same(name):
  function, shape, _ = CASES[name]
  array = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
  kept = array.astype(read_types(function, array))
  jax.tree.map(np.testing.assert_array_equal, function(kept), function(array))
