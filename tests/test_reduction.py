"""Products of activations and parameters of two types: values, gradients of both orders, forward mode, batches,
sums."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import reduction
from genjax.nn.conv import conv, conv_transpose
from genjax.nn.functional import network, rematerialise
from genjax.nn.linear import Linear, dot_general, project


def terms(leaf, parts=4):
  return reduction.Unreduced(leaf, jnp.zeros((parts, *leaf.shape)))


def drawn(*shape, seed=0, dtype=jnp.float32):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


CASES = {
  'matrix': (lambda x, w: dot_general(x, w, (((2,), (0,)), ((), ()))), (8, 3, 5), (5, 7)),
  'logits': (lambda x, w: project(x, w, jnp.float32), (8, 3, 5), (7, 5)),
  'convolution': (lambda x, w: conv(x, w, 2), (8, 6, 6, 3), (3, 3, 3, 4)),
  'transposed convolution': (lambda x, w: conv_transpose(x, w, 2), (8, 3, 3, 4), (4, 4, 4, 2)),
}


@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('wrap', [lambda w: w, terms], ids=['plain', 'in terms'])
def test_bfloat16_activations_meet_float32_parameters(case, wrap):
  function, x_shape, w_shape = CASES[case]
  x, w = drawn(*x_shape, dtype=jnp.bfloat16), drawn(*w_shape, seed=1)
  loss = lambda w, x: jnp.sum(jnp.sin(function(x, w).astype(jnp.float32)))
  wanted = jax.grad(loss, (0, 1))(w, x.astype(jnp.float32))
  w_slope, x_slope = jax.grad(loss, (0, 1))(wrap(w), x)
  whole = w_slope.terms.sum(0) if reduction.is_unreduced(w_slope) else w_slope
  assert whole.dtype == jnp.float32 and x_slope.dtype == jnp.bfloat16
  for got, expected in ((whole, wanted[0]), (x_slope, wanted[1])):
    np.testing.assert_allclose(got, expected, atol=0.03 * float(jnp.max(jnp.abs(expected))))


@pytest.mark.parametrize('case', CASES)
def test_second_derivatives_forward_mode_and_batches(case):
  function, x_shape, w_shape = CASES[case]
  x, w = drawn(*x_shape), drawn(*w_shape, seed=1)
  half = w.astype(jnp.bfloat16).astype(jnp.float32)
  loss = lambda w, x: jnp.sum(jnp.sin(function(x, w)))
  penalty = lambda w, x: jnp.sum(jax.grad(loss, 1)(w, x) ** 2)
  expected = jax.grad(penalty)(half, x)
  # In float32, with a parameter that is stored in bfloat16: a product of two types that rounds nothing.
  np.testing.assert_allclose(jax.grad(penalty)(half.astype(jnp.bfloat16), x).astype(jnp.float32), expected,
                             atol=0.02 * float(jnp.max(jnp.abs(expected))))
  np.testing.assert_allclose(jax.grad(penalty)(terms(half), x).terms.sum(0), expected, rtol=1e-4, atol=1e-4)
  moved = jax.jvp(lambda x: loss(half.astype(jnp.bfloat16), x), (x,), (x,))[1]
  np.testing.assert_allclose(moved, jax.jvp(lambda x: loss(half, x), (x,), (x,))[1], rtol=1e-4)
  many = jax.vmap(lambda x: function(x, half.astype(jnp.bfloat16)))(x[:, None])
  np.testing.assert_allclose(many[:, 0], function(x, half), rtol=1e-5, atol=1e-5)


def gradient_of_many_rows():
  """A sum of 4,095 equal products."""
  x, w = jnp.ones((4095, 1), jnp.bfloat16), jnp.ones((1, 1))
  slope = jnp.full((4095, 1), 1 + 2.0 ** -7, jnp.bfloat16)
  return float(jax.vjp(lambda w: project(x, w), w)[1](slope)[0][0, 0])


def test_the_type_of_sums():
  exact = 4095 * (1 + 2.0 ** -7)
  assert gradient_of_many_rows() == exact
  with reduction.sums_in('bfloat16'):
    assert gradient_of_many_rows() == float(jnp.bfloat16(exact)) != exact


def test_products_are_kept_where_dots_are():
  x, w = drawn(4, 5, dtype=jnp.bfloat16), drawn(5, 5, seed=1)
  layer = lambda x: jnp.sin(dot_general(jnp.sin(x), w, (((1,), (0,)), ((), ()))))
  count = lambda remat: str(
    jax.make_jaxpr(jax.grad(lambda x: jnp.sum(rematerialise(layer, remat)(x).astype(jnp.float32))))
    (x)).count(f'= {reduction.PRODUCT}[')
  assert count('dots') == count('none') < count('full')


def test_a_layer_that_knows_nothing_of_terms_reads_arrays():
  class Own(Linear):
    reads_unreduced = False

    def __call__(self, x, key=None):
      assert isinstance(self.kernel[...], jax.Array)
      return x @ self.kernel[...] + self.bias[...]

  net = network(lambda rngs: Own(5, 7, rngs=rngs))
  params, x = net.init(jax.random.key(0))[0], drawn(8, 5)
  loss = lambda params: jnp.sum(jnp.sin(net.apply(params, {}, x)[0]))
  split = jax.grad(loss)(jax.tree.map(terms, params))
  jax.tree.map(lambda got, wanted: np.testing.assert_allclose(got.terms.sum(0), wanted, rtol=1e-5), split,
               jax.grad(loss)(params), is_leaf=reduction.is_unreduced)


@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('axes', [(0, None), (0, 0), (None, 0)], ids=['inputs', 'both', 'parameters'])
def test_terms_under_vmap(case, axes):
  function, x_shape, w_shape = CASES[case]
  x_lead, w_lead = ((3,) if axis == 0 else () for axis in axes)
  x, w = drawn(*x_lead, *x_shape), drawn(*w_lead, *w_shape, seed=1)

  def loss(x, w, wrap):
    return jnp.sum(jnp.sin(jax.vmap(lambda x, w: function(x, w), axes)(x, wrap(w)) / 4))

  wanted = jax.grad(lambda w: loss(x, w, lambda w: w))(w)
  wrap = terms if axes[1] is None else lambda w: reduction.Unreduced(w, jnp.zeros((4, *w.shape)).swapaxes(0, 1))
  found = jax.grad(lambda wrapped: loss(x, wrapped, lambda w: w))(wrap(w)).terms
  np.testing.assert_allclose(found.sum(0 if axes[1] is None else 1), wanted, rtol=1e-4, atol=1e-5)
  penalty = lambda w: jnp.sum(jax.vmap(jax.grad(lambda x, w: jnp.sum(jnp.sin(function(x, w) / 4))), axes)(x, w) ** 2)
  np.testing.assert_allclose(
    jax.grad(penalty)(wrap(w)).terms.sum(0 if axes[1] is None else 1),
    jax.grad(penalty)(w), rtol=1e-4, atol=1e-4)


def test_sums_of_rows_are_float32_under_vmap():
  x, w = jnp.ones((4095, 1), jnp.bfloat16), jnp.ones((1, 1))
  slope = jnp.full((4095, 1), 1 + 2.0 ** -7, jnp.bfloat16)
  assert float(jax.vjp(lambda w: jax.vmap(lambda x: project(x, w))(x), w)[1](slope)[0][0, 0]) == 4095 * (1 + 2.0 ** -7)


class Scaled(nnx.Module):
  """A layer, and a parameter without axes that no layer knows."""

  def __init__(self, rngs):
    self.layer, self.scale = Linear(3, 5, rngs=rngs), nnx.Param(jnp.float32(2.0))

  def __call__(self, x, key=None):
    return self.layer(x) * self.scale.get_value()


SCALED = network(lambda rngs: Scaled(rngs))
read = lambda params, x: jnp.sin(SCALED.apply(params, {}, x)[0])
LOSSES = {
  'of the network alone': lambda params, x: jnp.mean(read(params, x)),
  'with a penalty': lambda params,
  x: jnp.mean(read(params, x)) + sum(jnp.sum(leaf ** 2) for leaf in jax.tree.leaves(params)),
  'with a norm': lambda params, x: jnp.mean(read(params, x)) + jnp.linalg.norm(params['layer']['kernel']),
  'of other parameters': lambda params, x: jnp.mean(read(jax.tree.map(lambda leaf: leaf ** 2 + leaf, params), x)),
  'of examples': lambda params, x: jnp.mean(jax.vmap(lambda x: jnp.prod(read(params, x)))(x)),
  'of slopes': lambda params, x: jnp.mean(jax.vmap(jax.grad(lambda x: jnp.sum(read(params, x))))(x) ** 2),
  'of tangents': lambda params, x: jnp.mean(jax.jvp(lambda x: read(params, x), (x,), (x,))[1] ** 2),
}


@pytest.mark.parametrize('name', LOSSES)
def test_what_a_loss_does_with_parameters_has_its_gradient(name):
  params, x, loss = SCALED.init(jax.random.key(0))[0], drawn(8, 3), LOSSES[name]

  def named(params, zeros):
    with reduction.naming(params, zeros):
      return loss(params, x)

  zeros = jax.tree.map(lambda leaf: jnp.zeros((4, *leaf.shape)), params)
  assert float(named(params, zeros)) == float(loss(params, x))
  others, found = jax.grad(named, (0, 1))(params, zeros)
  jax.tree.map(
    lambda other, term, wanted: np.testing.assert_allclose(other + term.sum(0), wanted, rtol=1e-4, atol=1e-6), others,
    found,
    jax.grad(loss)(params, x))
  # Nothing of it is summed over devices early
  if name in ('of the network alone', 'of examples', 'of slopes', 'of tangents'):
    assert not any(jnp.any(leaf) for leaf in jax.tree.leaves(others))


def test_forward_mode_in_parameters():
  """Products of Hessians with vectors, in half precision."""
  layer = Linear(3, 5, rngs=nnx.Rngs(0), dtype=jnp.bfloat16)
  graph, params = nnx.split(layer)
  x = drawn(8, 3)
  loss = lambda params: jnp.sum(jnp.sin(nnx.merge(graph, params)(x).astype(jnp.float32)))
  slopes = jax.grad(loss)(params)
  along = sum(jnp.sum(leaf ** 2) for leaf in jax.tree.leaves(slopes))
  np.testing.assert_allclose(jax.jvp(loss, (params,), (slopes,))[1], along, rtol=0.02)
  forward = jax.jvp(jax.grad(loss), (params,), (params,))[1]
  reverse = jax.grad(
    lambda p: sum(jnp.vdot(a, b) for a, b in zip(jax.tree.leaves(jax.grad(loss)(p)), jax.tree.leaves(params))))(params)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=0.02 * float(jnp.max(jnp.abs(b)))), forward, reverse)
