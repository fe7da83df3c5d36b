"""Mixtures of experts against the formula that computes every expert for every token; on meshes, in a process with
eight devices."""

import json
import os
import pathlib
import subprocess
import sys

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import sharding
from genjax.nn import experts
from genjax.nn.functional import network

ROOT = pathlib.Path(__file__).parent.parent.parent
MESHES = ({'expert': 4, 'data': 2}, {'fsdp': 2, 'tensor': 2, 'expert': 2}, {'context': 4, 'tensor': 2}, {'fsdp': 8})


def mixture(choices=2, gated=True, count=4, dtype=jnp.float32):
  init = nnx.initializers.normal(0.3)
  return network(lambda rngs: experts.Experts(8, 12, count, choices, activation=jax.nn.silu, gated=gated, dtype=dtype,
                                              kernel_init=init, out_init=init, rngs=rngs))


def every_expert(params, x_BTD, choices):
  """The formula, token by token."""
  probability_BTE = jax.nn.softmax(x_BTD @ params['router']['kernel'], axis=-1)
  smallest_BT = jnp.sort(probability_BTE, axis=-1)[..., -choices]
  weight_BTE = jnp.where(probability_BTE >= smallest_BT[..., None], probability_BTE, 0.0)
  weight_BTE /= jnp.sum(weight_BTE, axis=-1, keepdims=True)
  up_BTEM = jnp.einsum('btd,edm->btem', x_BTD, params['up_kernel'])
  gate = params.get('gate_kernel')
  h_BTEM = jax.nn.silu(up_BTEM) if gate is None else jax.nn.silu(jnp.einsum('btd,edm->btem', x_BTD, gate)) * up_BTEM
  return jnp.einsum('btem,emd,bte->btd', h_BTEM, params['down_kernel'], weight_BTE)


def gradients(function, params, x_BTD):
  """Values and gradients of sum(sin(y)) with respect to everything, in the order of the arguments."""
  loss = lambda params, x: jnp.sum(jnp.sin(function(params, x)))
  return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(params, x_BTD)


def largest_error(actual, expected):
  errors = jax.tree.map(lambda ours, theirs: float(jnp.max(jnp.abs(ours - theirs)) / jnp.max(jnp.abs(theirs))), actual,
                        expected)
  return max(jax.tree.leaves(errors))


@pytest.mark.parametrize(('choices', 'gated'), [(1, True), (2, True), (3, False), (4, True)])
def test_values_and_gradients_equal_the_formula(choices, gated):
  net = mixture(choices, gated)
  params, _ = net.init(jax.random.key(0))
  assert ('gate_kernel' in params) == gated
  x_BTD = jax.random.normal(jax.random.key(1), (2, 7, 8))
  actual = gradients(lambda params, x: net.apply(params, {}, x)[0][0], params, x_BTD)
  if choices == 1:  # the weight of the only choice is 1, whatever the router says
    assert float(jnp.max(jnp.abs(actual[1][0]['router']['kernel']))) < 1e-6
    actual[1][0].pop('router')
  expected = gradients(lambda params, x: every_expert(params, x, choices), params, x_BTD)
  if choices == 1:
    expected[1][0].pop('router')
  assert largest_error(actual, expected) < 1e-5


def test_no_token_is_dropped_when_all_choose_the_same_experts():
  net = mixture()
  params, _ = net.init(jax.random.key(0))
  params['router']['kernel'] = jnp.zeros((8, 4)).at[0, 3].set(50.0).at[0, 1].set(49.0)
  x_BTD = jax.random.normal(jax.random.key(1), (2, 50, 8)).at[..., 0].set(1.0)
  (y_BTD, load), _ = net.apply(params, {}, x_BTD)
  np.testing.assert_array_equal(load[0], [0, 100, 0, 100])
  np.testing.assert_allclose(y_BTD, every_expert(params, x_BTD, 2), atol=1e-5)


def test_balance():
  """C for an even load, E C for one that a single expert has; tokens of weight 0 do not count; gradients push towards
  an even load."""
  net = mixture(choices=1)
  params, _ = jax.jit(net.init)(jax.random.key(0))
  apply = jax.jit(lambda params, x_BTD, *weights_BT: net.apply(params, {}, x_BTD, *weights_BT)[0])
  x_BTD = jnp.eye(8)[None, :4] * 60.0
  loads = {}
  for name, kernel in {'even': jnp.eye(8, 4), 'one': jnp.ones((8, 4)) * jnp.array([1.0, 0.0, 0.0, 0.0])}.items():
    loads[name] = apply(params | {'router': {'kernel': kernel}}, x_BTD)[1]
  assert float(experts.balance(loads['even'])) == pytest.approx(1.0, rel=1e-5)
  assert float(experts.balance(loads['one'])) == pytest.approx(4.0, rel=1e-5)
  assert float(experts.balance(experts.empty_load(4))) == 0.0
  x_BTD = jax.random.normal(jax.random.key(1), (2, 9, 8))
  weights_BT = jnp.zeros((2, 9)).at[:, :5].set(1.0)
  _, part = apply(params, x_BTD, weights_BT)
  _, alone = apply(params, x_BTD[:, :5])
  np.testing.assert_allclose(part, alone, rtol=1e-5)

  def loss(kernel):
    return experts.balance(net.apply(params | {'router': {'kernel': kernel}}, {}, x_BTD)[0][1])

  kernel, compiled = params['router']['kernel'], jax.jit(jax.value_and_grad(loss))
  before, slope = compiled(kernel)
  assert float(compiled(kernel - 0.1 * slope)[0]) < float(before)


def test_choices_out_of_range():
  with pytest.raises(ValueError, match='between 1 and all 4 experts'):
    mixture(choices=5)


@pytest.mark.slow
def test_meshes_change_neither_values_nor_gradients():
  done = subprocess.run([sys.executable, __file__], capture_output=True, text=True, timeout=600, env={
    **os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')]), 'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=8'})
  assert done.returncode == 0, done.stderr
  errors = json.loads(done.stdout.splitlines()[-1])
  assert len(errors) == len(MESHES) and max(errors) < 1e-5


def on_meshes():
  """Errors of each mesh against no mesh."""
  net = mixture()
  params, _ = net.init(jax.random.key(0))
  x_BTD = jax.random.normal(jax.random.key(1), (8, 12, 8))

  def function(params, x_BTD):
    y_BTD, load = net.apply(params, {}, x_BTD)[0]
    return y_BTD + experts.balance(load)

  expected = jax.device_get(gradients(function, params, x_BTD))
  for shape in MESHES:
    mesh = sharding.make_mesh(shape)
    yield largest_error(jax.device_get(sharding.under(mesh, {}, lambda: gradients(function, params, x_BTD))()),
                        expected)


if __name__ == '__main__':
  print(json.dumps(list(on_meshes())))


@pytest.mark.parametrize('inputs, outputs', [(5, 3), (3, 5)])
def test_gradients_of_narrow_kernels_are_those_of_grouped_products(inputs, outputs):
  """Rows of no group count for no kernel."""
  random = np.random.default_rng(0)
  x, slope = (jnp.asarray(random.normal(size=(10, size)), jnp.float32) for size in (inputs, outputs))
  expected = np.stack([x[first:last].T @ slope[first:last] for first, last in ((0, 4), (4, 4), (4, 9))])
  found = experts._narrow_gradient(x, slope, jnp.asarray([4, 0, 5]))
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_kernels_of_a_longer_type_have_gradients_of_their_own():
  x, kernel = jnp.ones((6, 4), jnp.bfloat16), jnp.ones((2, 4, 3))
  loss = lambda kernel: jnp.sum(experts._product(x, kernel, jnp.asarray([2, 4])).astype(jnp.float32))
  slope = jax.grad(loss)(kernel)
  assert slope.dtype == jnp.float32
  np.testing.assert_array_equal(slope[:, 0, 0], [2.0, 4.0])
