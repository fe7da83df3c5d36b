"""MADE and NADE: each logit depends on the entries before it alone, probabilities sum to 1, and draws follow them."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.models.autoregressive import made, nade
from genjax.nn.functional import count
from genjax.types import UserError

GRID = np.asarray(list(itertools.product((0, 1), repeat=6)), np.float32)  # all pictures of 2 x 3 pixels
CASES = {
  'made': (made.MadeConfig(6, hidden=(40,)), made.made),
  'made, raster': (made.MadeConfig(6, hidden=(40,), order='raster'), made.made),
  'made, deep': (made.MadeConfig(6, hidden=(50, 40, 30), orderings=3), made.made),
  'nade': (nade.NadeConfig(6, hidden=7), nade.nade),
  'nade, sigmoid': (nade.NadeConfig(6, hidden=7, activation='sigmoid'), nade.nade),
}


@functools.cache
def fixture(name):
  config, make = CASES[name]
  network = make(config)
  params, mutable = jax.jit(network.init)(jax.random.key(0))
  generator = np.random.default_rng(0)
  params = jax.tree.map(lambda leaf: leaf + jnp.asarray(generator.normal(size=leaf.shape), jnp.float32), params)
  apply = jax.jit(lambda x, which, generate: network.apply(params, mutable, x, which, generate=generate)[0],
                  static_argnums=2)
  return config, lambda x, which=0, generate=False: apply(x, which, generate)


def places(config, which):
  """The place of each entry in the ordering."""
  return made.degrees(config)[0][which] if isinstance(config, made.MadeConfig) else np.arange(config.dims)


@pytest.mark.parametrize('name', CASES)
def test_a_logit_depends_on_the_entries_before_it_and_on_no_other(name):
  config, apply = fixture(name)
  for which in range(config.orderings):
    before = places(config, which)
    inputs = jnp.asarray(np.random.default_rng(which).uniform(size=(16, 6)), jnp.float32)
    slope_BDD = jax.vmap(jax.jacobian(lambda x: apply(x[None], which)[0]))(inputs)
    depends = np.abs(np.asarray(slope_BDD)).max(axis=0) > 0
    np.testing.assert_array_equal(depends, before[None, :] < before[:, None])


@pytest.mark.parametrize('name', CASES)
def test_probabilities_sum_to_one(name):
  config, apply = fixture(name)
  for which in range(config.orderings):
    logits = np.asarray(apply(GRID, which), np.float64)
    total = np.exp((GRID * logits - np.logaddexp(0, logits)).sum(axis=1)).sum()
    assert total == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize('name', CASES)
def test_draws_follow_the_conditional_probabilities(name):
  """One entry is 1 where its number is below its probability, given the entries drawn before."""
  config, apply = fixture(name)
  uniform = np.random.default_rng(1).uniform(size=(20, 6)).astype(np.float32)
  for which in range(config.orderings):
    drawn = np.zeros((20, 6), np.float32)
    for entry in np.argsort(places(config, which)):
      drawn[:, entry] = uniform[:, entry] < jax.nn.sigmoid(apply(drawn, which))[:, entry]
    np.testing.assert_array_equal(apply(uniform, which, True), drawn)
    assert 0 < drawn.mean() < 1


def test_nade_is_its_equations():
  """Eq. 7 and 8 of Larochelle and Murray 2011, over more entries than one block has."""
  config = nade.NadeConfig(70, hidden=5, activation='sigmoid')
  params, mutable = nade.nade(config).init(jax.random.key(0))
  x = (np.random.default_rng(0).uniform(size=(3, 70)) < 0.5).astype(np.float32)
  logits = nade.nade(config).apply(params, mutable, x)[0]
  for entry in (0, 1, 35, 69):
    hidden = jax.nn.sigmoid(params['hidden_bias'] + x[:, :entry] @ params['input_kernel'][:entry])
    np.testing.assert_allclose(logits[:, entry], hidden @ params['output_kernel'][entry] + params['bias'][entry],
                               rtol=1e-4, atol=1e-6)


def test_counts_and_orders():
  shapes = lambda network: jax.eval_shape(network.init, jax.random.key(0))[0]
  assert count(shapes(made.made(made.MadeConfig(784, hidden=(8000,))))) == 2 * 784 * 8000 + 8000 + 784
  assert count(shapes(nade.nade(nade.NadeConfig(784)))) == 2 * 784 * 500 + 500 + 784
  orders, *_ = made.degrees(made.MadeConfig(784, orderings=3))
  assert all(sorted(order) == list(range(784)) for order in orders) and len({order.tobytes() for order in orders}) == 3
  np.testing.assert_array_equal(orders, made.degrees(made.MadeConfig(784, orderings=3))[0])


@pytest.mark.parametrize('name', ['made', 'nade'])
def test_logits_are_float32(name):
  config, apply = fixture(name)
  network = CASES[name][1](type(config)(6, hidden=config.hidden, dtype='bfloat16'))
  params, mutable = network.init(jax.random.key(0))
  logits, exact = (each.apply(params, mutable, GRID)[0] for each in (network, CASES[name][1](config)))
  assert logits.dtype == jnp.float32
  np.testing.assert_allclose(logits, exact, atol=0.05)


@pytest.mark.parametrize(('make', 'words'), [
  (lambda: made.MadeConfig(6, hidden=()), 'hidden must name'), (lambda: made.MadeConfig(1), 'dims'),
  (lambda: made.MadeConfig(6, order='snake'), 'order must be one of'),
  (lambda: made.MadeConfig(6, orderings=0), 'orderings'), (lambda: nade.NadeConfig(6, hidden=0), 'hidden'),
  (lambda: nade.NadeConfig(6, activation='tanh'), 'activation must be one of')])
def test_bad_options_are_refused(make, words):
  with pytest.raises(UserError, match=words):
    make()
