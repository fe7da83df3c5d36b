"""Layer and group normalisation: values and derivatives are those of the formula, in both modes and of second order."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.nn.norms import GroupNorm, LayerNorm


def formula(x, groups):
  """x B T C, normalised over C, or over T and the channels of each group."""
  shape, axes = (x.shape, (-1,)) if groups is None else ((*x.shape[:-1], groups, x.shape[-1] // groups), (1, 3))
  y = x.reshape(shape)
  y = y - y.mean(axes, keepdims=True)
  return (y / jnp.sqrt(jnp.square(y).mean(axes, keepdims=True) + 1e-6)).reshape(x.shape)


@pytest.mark.parametrize('groups', [None, 3])
def test_derivatives_of_norms_are_those_of_the_formula(groups):
  rngs = nnx.Rngs(0)
  norm = LayerNorm(6, rngs=rngs) if groups is None else GroupNorm(6, num_groups=groups, rngs=rngs)
  keys = jax.random.split(jax.random.key(0), 3)
  x, change, other = (jax.random.normal(key, (2, 4, 6)) + 1 for key in keys)
  ours = lambda x: jnp.sum(jnp.sin(norm(x)) * other)
  theirs = lambda x: jnp.sum(jnp.sin(formula(x, groups)) * other)
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)
  close(norm(x), formula(x, groups))
  close(jax.grad(ours)(x), jax.grad(theirs)(x))
  close(jax.jvp(norm, (x,), (change,))[1], jax.jvp(lambda x: formula(x, groups), (x,), (change,))[1])
  of_gradient = lambda function: jax.jvp(jax.grad(function), (x,), (change,))[1]
  close(of_gradient(ours), of_gradient(theirs))
  penalty = lambda function: jax.grad(lambda x: jnp.sum(jnp.square(jax.grad(function)(x))))(x)
  close(penalty(ours), penalty(theirs))


def test_statistics_of_half_precision_are_float32():
  x = (jax.random.normal(jax.random.key(0), (2, 64)) + 100).astype(jnp.bfloat16)
  norm = LayerNorm(64, rngs=nnx.Rngs(0))
  gradient = jax.grad(lambda x: jnp.sum(norm(x) ** 3))(x)
  assert gradient.dtype == jnp.bfloat16
  wanted = jax.grad(lambda x: jnp.sum(formula(x, None) ** 3))(x.astype(jnp.float32))
  np.testing.assert_allclose(gradient.astype(jnp.float32), wanted, rtol=0.02, atol=0.02)
