"""DDPM's U-Net: published parameter count, zero output when fresh, conditions, dropout."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.models.denoisers import unet
from genjax.nn.functional import count
from genjax.types import UserError


def _small(**options):
  defaults = dict(shape=(8, 8, 1), base=8, multipliers=(1, 2), blocks=1, attention=(4,), groups=4, num_classes=3)
  return unet.UNet(**{**defaults, **options})


def _inputs():
  return jax.random.normal(jax.random.key(1), (2, 8, 8, 1)), jnp.array([3.0, 700.0]), {'label': jnp.array([0, 3])}


@functools.cache
def _built(dropout=0.0):
  """Random parameters of a small network, none of them zero, and its compiled application."""
  network = unet.network(_small(dropout=dropout))
  shapes, mutable = jax.eval_shape(network.init, jax.random.key(0))
  generator = np.random.default_rng(2)
  params = jax.tree.map(lambda leaf: 0.3 * generator.standard_normal(leaf.shape, np.float32), shapes)
  return params, jax.jit(lambda params, *inputs, key=None: network.apply(params, mutable, *inputs, key=key)[0])


def test_parameter_count_is_ddpms():
  # Ho et al. (2020), appendix B: 35.7 million for CIFAR-10
  params, _ = jax.eval_shape(unet.network(unet.UNet(shape=(32, 32, 3))).init, jax.random.key(0))
  assert count(params) == 35_746_307


def test_fresh_network_predicts_zero():
  network = unet.network(_small(multipliers=(1,), attention=()))
  output = jax.jit(lambda key: network.apply(*network.init(key), *_inputs())[0])(jax.random.key(0))
  assert output.shape == (2, 8, 8, 1) and (output == 0).all()


@pytest.mark.parametrize('options', [dict(shape=(8, 12, 2)), dict(multipliers=(1, 2, 2), attention=(8, 2), blocks=2),
                                     dict(num_classes=0, attention=()), dict(heads=2)])
def test_shapes(options):
  config = _small(**options)
  network = unet.network(config)
  x = jnp.ones((2, *config.shape))
  _, time, given = _inputs()
  given = given if config.num_classes else {}
  shape = jax.eval_shape(lambda key: network.apply(*network.init(key), x, time, given)[0], jax.random.key(0)).shape
  assert shape == x.shape


def test_time_label_and_pixels_matter():
  params, apply = _built()
  x, t, label = _inputs()
  base = apply(params, x, t, label)
  # Attention in the middle carries one corner to the opposite one.
  for changed in ((x, t + 50, label), (x, t, {'label': jnp.array([1, 2])}), (x.at[:, 0, 0].add(3.0), t, label)):
    assert jnp.max(jnp.abs(apply(params, *changed) - base)[:, -1, -1]) > 1e-6


def test_dropout_needs_a_key():
  params, apply = _built(dropout=0.5)
  outputs = [apply(params, *_inputs(), key=None if seed is None else jax.random.key(seed)) for seed in (0, 0, 1, None)]
  assert (outputs[0] == outputs[1]).all()
  assert (outputs[0] != outputs[2]).any()
  assert (outputs[0] != outputs[3]).any()


@pytest.mark.parametrize('options, match', [(dict(multipliers=(1, 2, 2, 2, 2)), 'multipliers'),
                                            (dict(attention=(5,)), 'attention'), (dict(groups=3), 'groups'),
                                            (dict(heads=5), 'heads')])
def test_bad_sizes_are_user_errors(options, match):
  with pytest.raises(UserError, match=match):
    _small(**options)


@pytest.mark.slow
def test_rematerialised_is_the_same_network():
  params, _ = _built(dropout=0.5)

  def value_and_gradient(remat):
    network = unet.network(_small(dropout=0.5, remat=remat))

    def loss(params):
      return jnp.sum(network.apply(params, {}, *_inputs(), key=jax.random.key(3))[0] ** 2)

    return jax.jit(jax.value_and_grad(loss))(params)

  expected = value_and_gradient('none')
  scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected[1]))
  for remat in ('full', 'dots'):
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6 * scale),
                 value_and_gradient(remat), expected)
