"""Dense layers: equal to flax's on any number of axes, with the products that suit each mesh."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import sharding
from genjax.nn.cpu import ROW_PARTS
from genjax.nn.linear import Linear, dot_general, project


@pytest.mark.parametrize('shape', [(5,), (3, 5), (2, 3, 5), (2, 3, 4, 5)])
def test_outputs_and_gradients_are_those_of_flax(shape):
  ours, theirs = (kind(5, 7, rngs=nnx.Rngs(0)) for kind in (Linear, nnx.Linear))
  x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)

  def loss(layer, x):
    return jnp.sum(jnp.sin(layer(x)))

  assert ours(x).shape == (*shape[:-1], 7)
  np.testing.assert_allclose(ours(x), theirs(x), rtol=1e-6, atol=1e-6)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
               *(nnx.to_pure_dict(nnx.grad(loss)(layer, x)) for layer in (ours, theirs)))


def test_project_reads_the_weights_transposed():
  x_BTD, weight_VD = (
    jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32) for shape in ((2, 3, 5), (7, 5)))
  np.testing.assert_allclose(project(x_BTD, weight_VD), x_BTD @ weight_VD.T, rtol=1e-6, atol=1e-6)


@pytest.mark.skipif(jax.default_backend() != 'cpu', reason='products of two axes are for CPUs')
def test_the_gradient_of_a_kernel_contracts_one_axis_unless_the_sequence_is_split():
  """Two contracted axes made XLA for CPUs take twice the time for a stack of layers."""
  layer, x = Linear(5, 7, rngs=nnx.Rngs(0)), jnp.ones((2, 4, 5))

  def products(mesh):
    def gradient(kernel, x):
      return jax.grad(lambda kernel: jnp.sum(jnp.sin(layer.dot_general(x, kernel, (((2,), (0,)), ((), ()))))))(kernel)

    with sharding.use(mesh):
      return str(jax.make_jaxpr(gradient)(layer.kernel[...], x))

  devices = {'axis_types': (jax.sharding.AxisType.Auto,) * 2}
  assert '(([0], [0]), ([], []))' in products(jax.sharding.AbstractMesh((2, 1), ('data', 'context'), **devices))
  assert '(([0, 1], [0, 1]), ([], []))' in products(jax.sharding.AbstractMesh((1, 2), ('data', 'context'), **devices))


@pytest.mark.parametrize('axis', [0, 1])
@pytest.mark.parametrize('rows', [1, 3, 40])
@pytest.mark.parametrize('shape', [(512, 256), (511, 257)])
def test_products_of_few_rows_are_those_of_many(shape, rows, axis):
  random = np.random.default_rng(0)
  kernel = jnp.asarray(random.normal(size=shape), jnp.float32)
  x = jnp.asarray(random.normal(size=(rows, 1, shape[axis])), jnp.float32)
  function = jax.jit(lambda x, kernel: dot_general(x, kernel, (((2,), (axis,)), ((), ()))))
  matrix = np.asarray(kernel if axis == 0 else kernel.T, np.float64)
  wanted = np.asarray(x, np.float64) @ matrix
  np.testing.assert_allclose(function(x, kernel), wanted, atol=2e-4)
  slopes = jax.grad(lambda x, kernel: jnp.sum(jnp.sin(function(x, kernel))), (0, 1))(x, kernel)
  expected = jax.grad(lambda x, kernel: jnp.sum(jnp.sin(x @ (kernel if axis == 0 else kernel.T))), (0, 1))(x, kernel)
  jax.tree.map(lambda got, wanted: np.testing.assert_allclose(got, wanted, atol=1e-3), slopes, expected)


@pytest.mark.skipif(jax.default_backend() != 'cpu', reason='parts are for CPUs')
@pytest.mark.parametrize('axis', [0, 1])
def test_one_row_meets_parts_of_a_kernel_but_not_on_a_mesh(axis):
  x, kernel = jnp.ones((1, 1, 512), jnp.bfloat16), jnp.ones((512, 512), jnp.bfloat16)

  def product(x, kernel):
    return dot_general(x, kernel, (((2,), (axis,)), ((), ())))

  assert f'[{ROW_PARTS},' in str(jax.make_jaxpr(lambda *arrays: product(*arrays))(x, kernel)) and product(
    x, kernel).dtype == jnp.bfloat16
  with sharding.use(jax.sharding.AbstractMesh((2, 1), ('data', 'context'),
                                              axis_types=(jax.sharding.AxisType.Auto,) * 2)):
    assert f'[{ROW_PARTS},' not in str(jax.make_jaxpr(lambda *arrays: product(*arrays))(x, kernel))
