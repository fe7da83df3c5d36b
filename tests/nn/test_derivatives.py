"""Functions with a gradient of their own, in both modes, differentiated again, in loops and batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.nn import cpu_convolutions, derivatives
from genjax.nn.attention import attention_kernels
from genjax.nn.attention import dot_product_attention as attention
from genjax.training.monitoring import flops
from genjax.types import UserError


def _scaled_cube(x, scale, power):
  return scale * x ** power


def _forward(x, scale, power):
  return own(x, scale, power), (x, scale)


def _derivative(power, saved, tangents):
  return derivatives.along(lambda x, scale: _scaled_cube(x, scale, power), saved, tangents)


def _backward(power, saved, gradient):
  x, scale = saved
  return gradient * scale * power * x ** (power - 1), jnp.sum(gradient * x ** power)


own = derivatives.define(_scaled_cube, _forward, _derivative, _backward, static=1)


def in_every_way(function):
  """A function (x_N, scale) differentiated in many ways."""
  x, scale, direction = jnp.array([0.5, -1.0, 2.0]), jnp.float32(1.5), jnp.array([1.0, -2.0, 0.3])
  energy = lambda x, scale: jnp.sum(jnp.sin(function(x, scale)))
  looped = lambda x, scale: jax.lax.scan(lambda x, _: (jax.checkpoint(function)
                                                       (x, scale) / 3, None), x, None, length=2)[0]
  batched = lambda x, scale: jax.vmap(function, (0, None))(jnp.stack([x, 2 * x]), scale)
  along = lambda x, scale: jax.jvp(lambda x: function(x, scale), (x,), (direction,))[1]
  return {
    'value': function(x, scale),
    'jvp': jax.jvp(function, (x, scale), (direction, jnp.float32(0.7)))[1],
    'jvp of one': jax.jvp(lambda scale: function(x, scale), (scale,), (jnp.float32(0.7),))[1],
    'grad': jax.grad(energy, (0, 1))(x, scale),
    'hessian': jax.hessian(energy)(x, scale),
    'twice reverse': jax.jacrev(jax.grad(energy))(x, scale),
    'grad of jvp': jax.grad(lambda x, scale: jnp.sum(along(x, scale) ** 2), (0, 1))(x, scale),
    'jvp of jvp': jax.jvp(along, (x, scale), (direction, jnp.float32(2.0)))[1],
    'batched grad': jax.vmap(jax.grad(energy, (0, 1)), (0, None))(jnp.stack([x, 2 * x]), scale),
    'grad of a batch': jax.grad(lambda x, scale: jnp.sum(batched(x, scale) ** 2), (0, 1))(x, scale),
    'batched jvp': jax.vmap(along, (0, None))(jnp.stack([x, 2 * x]), scale),
    'grad of a loop': jax.grad(lambda x, scale: jnp.sum(looped(x, scale)), (0, 1))(x, scale),
    'jvp of a loop': jax.jvp(looped, (x, scale), (direction, jnp.float32(0.7)))[1],
    'linearized': jax.linearize(function, x, scale)[1](direction, jnp.float32(0.1)),
  }


def test_every_derivative_is_that_of_the_formula():
  run = lambda function: jax.jit(lambda: in_every_way(function))()
  ours, theirs = run(lambda x, scale: own(x, scale, 3)), run(lambda x, scale: _scaled_cube(x, scale, 3))
  for name, wanted in theirs.items():
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, err_msg=name), ours[name], wanted)


def test_each_mode_computes_its_own_rule_only():
  called = []
  function = derivatives.define(jnp.sin, lambda x: (jnp.sin(x), x),
                                lambda x, tangents: called.append('derivative') or tangents[0] * 10,
                                lambda x, gradient: called.append('backward') or (gradient * 20,))
  assert jax.grad(function)(1.0) == 20 and called == ['backward']
  called.clear()
  assert jax.jvp(function, (1.0,), (1.0,))[1] == 10 and called == ['derivative']


@pytest.mark.parametrize(('stride', 'moving'), [(1, (0, 1)), (2, (0,)), (2, (1,))])
def test_forward_mode_of_convolutions(stride, moving):
  small, large = jax.random.normal(jax.random.key(0),
                                   (2, 4, 4, 16)), jax.random.normal(jax.random.key(1), (2, 4 * stride, 4 * stride, 20))
  kernel = jax.random.normal(jax.random.key(2), (2 * stride, 2 * stride, 20, 16))
  lax = lambda x, kernel: jax.lax.conv_general_dilated(x, kernel, (stride, stride), 'SAME',
                                                       dimension_numbers=cpu_convolutions.NHWC)
  spread = lambda y, kernel: jax.linear_transpose(lambda x: lax(x, kernel), large)(y)[0]
  for ours, theirs, x in ((lambda x, kernel: cpu_convolutions.conv(x, kernel, stride), lax, large),
                          (lambda x, kernel: cpu_convolutions.spread(x, kernel, stride), spread, small)):
    arrays = x, kernel
    tangents = [jnp.cos(3 * array) if index in moving else jnp.zeros_like(array) for index, array in enumerate(arrays)]
    wanted = jax.jit(lambda: jax.jvp(theirs, arrays, tuple(tangents))[1])()
    got = jax.jit(
      lambda: derivatives.along(ours, arrays, [tangents[index] if index in moving else None for index in (0, 1)]))()
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(('causal', 'rate', 'length'), [(False, 0.0, 6), (True, 0.0, 6), (False, 0.4, 6),
                                                        (True, 0.0, 40)])
def test_forward_mode_of_attention_is_that_of_the_reference(causal, rate, length, monkeypatch):
  """With groups of heads, segments, a bias, dropped weights, in pieces and chunks; every argument alone and all
  together."""
  monkeypatch.setattr(attention, 'CHUNK', 16)
  query, key, value = (
    jax.random.normal(jax.random.key(number), (2, length, heads, 4)) for number, heads in enumerate((4, 2, 2)))
  bias = jax.random.normal(jax.random.key(5), (4, length, length))
  ids = jnp.arange(length)[None] // 3 * jnp.ones((2, 1), jnp.int32)
  arrays = query, key, value, bias
  tangents = tuple(jnp.cos(2 * array) for array in arrays)

  def run(implementation, moving):
    function = lambda query, key, value, bias: attention.attend(query, key, value, causal=causal, segments=(
      ids, ids), bias_HTS=bias, implementation=implementation, dropout_rate=rate, key=jax.random.key(7)
                                                                if rate else None)
    return derivatives.along(function, arrays, [tangents[index] if index in moving else None for index in range(4)])

  both = jax.jit(lambda: [[run(name, moving) for moving in ((0,), (1,), (2,), (3,), (0, 1, 2, 3))] for name in
                          ('auto', 'reference')])()
  for got, wanted in zip(*both):
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    assert np.abs(wanted).max() > 0.05


def test_kernels_refuse_forward_mode_by_name():
  """When the program is made, and never in reverse mode."""
  query = jax.random.normal(jax.random.key(0), (1, 128, 1, 8))
  kernel = lambda query: attention_kernels.splash_attention(query, query, query, interpret=True)
  with pytest.raises(UserError, match="kernel 'splash': set the attention of the model to 'chunked' or 'reference'"):
    jax.jit(lambda query: jax.jvp(kernel, (query,), (query,))).lower(query)
  jax.eval_shape(jax.grad(lambda query: jnp.sum(kernel(query))), query)


def test_flops_of_forward_mode():
  """A product's derivative costs two products, of which each tangent adds one."""
  x, kernel = jax.ShapeDtypeStruct((2, 8, 8, 16), jnp.float32), jax.ShapeDtypeStruct((3, 3, 16, 16), jnp.float32)
  function = lambda x, kernel: cpu_convolutions.conv(x, kernel, 1)
  once = flops.count(function, x, kernel)
  assert once == 2 * (2 * 8 * 8 * 16) * 9 * 16
  alone = flops.count(lambda x, kernel: jax.jvp(lambda x: function(x, kernel), (x,), (x,))[1], x, kernel)
  both = flops.count(lambda x, kernel: jax.jvp(function, (x, kernel), (x, kernel))[1], x, kernel)
  assert once < alone < both <= 5 * once
