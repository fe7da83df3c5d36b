"""DDPM's U-Net: published parameter count, zero output when fresh, conditions, dropout."""

import jax
import jax.numpy as jnp
import pytest

from genjax.models import unet
from genjax.nn.functional import count
from genjax.types import UserError


def _small(**options):
  defaults = dict(shape=(8, 8, 1), base=8, multipliers=(1, 2), blocks=1, attention=(4,), groups=4, num_classes=3)
  return unet.UNet(**{**defaults, **options})


def _inputs():
  return jax.random.normal(jax.random.key(1), (2, 8, 8, 1)), jnp.array([3.0, 700.0]), jnp.array([0, 3])


def _random_params(network):
  """Parameters without the zeros of a fresh network."""
  params, mutable = network.init(jax.random.key(0))
  leaves, structure = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(2), len(leaves))
  return jax.tree.unflatten(structure, [leaf + 0.1 * jax.random.normal(key, leaf.shape)
                                        for leaf, key in zip(leaves, keys)]), mutable


def test_parameter_count_is_ddpms():
  # Ho et al. (2020), appendix B: 35.7 million for CIFAR-10
  params, _ = jax.eval_shape(unet.network(unet.UNet(shape=(32, 32, 3))).init, jax.random.key(0))
  assert count(params) == 35_746_307


def test_fresh_network_predicts_zero():
  network = unet.network(_small())
  output, _ = network.apply(*network.init(jax.random.key(0)), *_inputs())
  assert output.shape == (2, 8, 8, 1) and (output == 0).all()


@pytest.mark.parametrize('options', [dict(shape=(8, 12, 2)), dict(multipliers=(1, 2, 2), attention=(8, 2), blocks=2),
                                     dict(num_classes=0, attention=()), dict(heads=2)])
def test_shapes(options):
  config = _small(**options)
  network = unet.network(config)
  x = jnp.ones((2, *config.shape))
  shape = jax.eval_shape(lambda key: network.apply(*network.init(key), x, *_inputs()[1:])[0], jax.random.key(0)).shape
  assert shape == x.shape


def test_time_label_and_pixels_matter():
  network = unet.network(_small())
  params, mutable = _random_params(network)
  apply = jax.jit(lambda *inputs: network.apply(params, mutable, *inputs)[0])
  x, t, label = _inputs()
  base = apply(x, t, label)
  # Attention in the middle carries one corner to the opposite one.
  for changed in ((x, t + 50, label), (x, t, jnp.array([1, 2])), (x.at[:, 0, 0].add(3.0), t, label)):
    assert jnp.max(jnp.abs(apply(*changed) - base)[:, -1, -1]) > 1e-6


def test_dropout_needs_a_key():
  network = unet.network(_small(dropout=0.5))
  params, mutable = _random_params(network)
  apply = jax.jit(lambda key: network.apply(params, mutable, *_inputs(), key=key)[0])
  assert (apply(jax.random.key(0)) == apply(jax.random.key(0))).all()
  assert (apply(jax.random.key(0)) != apply(jax.random.key(1))).any()
  assert (apply(jax.random.key(0)) != network.apply(params, mutable, *_inputs())[0]).any()


@pytest.mark.parametrize('options, match', [(dict(multipliers=(1, 2, 2, 2, 2)), 'multipliers'), (dict(attention=(5,)), 'attention'),
                                            (dict(groups=3), 'groups'), (dict(heads=5), 'heads')])
def test_bad_sizes_are_user_errors(options, match):
  with pytest.raises(UserError, match=match):
    _small(**options)
