"""The KL autoencoder: published parameter counts, shapes, padding, and what the options change."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.configs.autoencoders import kl as configs
from genjax.models.autoencoders import kl
from genjax.nn.conv import conv
from genjax.nn.functional import count
from genjax.types import UserError, named_leaves

# Counted with diffusers: Stable Diffusion 1 and 2, the f4 and f16 models of Rombach et al. (2022), Stable Diffusion 3
PUBLISHED = {'f8': (83_653_863, 248), 'f4': (55_312_063, None), 'f16': (69_610_963, None), 'sd3': (83_819_683, 244)}


def shapes(config):
  return [jax.eval_shape(network.init, jax.random.key(0))[0] for network in kl.networks(config)]


@pytest.mark.parametrize('name', ['f8', *(pytest.param(name, marks=pytest.mark.slow) for name in ('f4', 'f16', 'sd3'))])
def test_counts_are_those_of_the_published_models(name):
  trees = shapes(kl.Kl((256, 256, 3), **configs.SHAPES[name]))
  parameters, tensors = PUBLISHED[name]
  assert count(trees) == parameters
  assert tensors in (None, len(jax.tree.leaves(trees)))
  if name == 'f8':
    encoder, decoder = map(count, trees)
    assert (encoder, decoder) == (34_163_592 + 72, 49_490_179 + 20)  # with the 1 x 1 convolutions


@pytest.mark.parametrize('name', configs.SHAPES)
def test_latents_are_smaller_by_the_factor_of_the_name(name):
  factor = 8 if name == 'sd3' else int(name[1:].removesuffix('-small'))
  config = kl.Kl((64, 128, 3), **configs.SHAPES[name])
  assert config.latent_shape == (64 // factor, 128 // factor, config.latent)


@pytest.mark.parametrize('options', [{}, dict(shape=(8, 12, 3), multipliers=(1, 1, 2), attention=(4,), latent=3)])
def test_shapes(options):
  config = small(**options)
  encoder, decoder = kl.networks(config)
  image = jax.ShapeDtypeStruct((2, *config.shape), jnp.float32)

  def both(key, image):
    (mean, log_variance), _ = encoder.apply(*encoder.init(key), image)
    return mean, log_variance, decoder.apply(*decoder.init(key), mean)[0]

  mean, log_variance, out = jax.eval_shape(both, jax.random.key(0), image)
  assert mean.shape[1:] == log_variance.shape[1:] == config.latent_shape and out.shape == image.shape
  assert mean.dtype == log_variance.dtype == out.dtype == jnp.float32


def small(**options):
  return kl.Kl(**{**dict(shape=(8, 8, 1), latent=2, base=4, multipliers=(1, 2), blocks=1, groups=2), **options})


@functools.cache
def built(dropout=0.0):
  """Random parameters of small networks, none of them zero, and their compiled applications."""
  networks = kl.networks(small(dropout=dropout))
  generator = np.random.default_rng(2)
  trees = [jax.tree.map(lambda leaf: 0.3 * generator.standard_normal(leaf.shape, np.float32), tree)
           for tree in shapes(small(dropout=dropout))]
  applies = [jax.jit(lambda params, x, key=None, network=network: network.apply(params, {}, x, key=key)[0])
             for network in networks]
  return trees, applies


def test_attention_in_the_middle_carries_one_corner_to_the_other():
  (encoder, decoder), (encode, decode) = built()
  x = jax.random.normal(jax.random.key(0), (1, 8, 8, 1))
  z = encode(encoder, x)[0]
  assert jnp.abs(encode(encoder, x.at[:, 0, 0].add(3.0))[0] - z)[:, -1, -1].max() > 1e-6
  assert jnp.abs(decode(decoder, z.at[:, 0, 0].add(3.0)) - decode(decoder, z))[:, -1, -1].max() > 1e-6


def test_the_stride_pads_below_and_to_the_right():
  """As the published code does: the first output pixel of a strided 3 x 3 convolution reads the first three pixels."""
  layer = kl.networks(small())[0]
  params, _ = layer.init(jax.random.key(0))
  kernel = params['shrink']['0']['kernel']
  x = jax.random.normal(jax.random.key(1), (1, 8, 8, kernel.shape[2]))
  padded = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
  expected = jax.lax.conv_general_dilated(padded, kernel, (2, 2), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
  np.testing.assert_allclose(conv(x, kernel, 2), expected, atol=1e-5)


def test_log_variances_are_bounded():
  (encoder, _), (encode, _) = built()
  encoder = dict(encoder, moments=jax.tree.map(lambda leaf: 1e4 * leaf, encoder['moments']))
  _, log_variance = encode(encoder, jax.random.normal(jax.random.key(0), (2, 8, 8, 1)))
  assert log_variance.min() == kl.LOG_VARIANCES[0] and log_variance.max() == kl.LOG_VARIANCES[1]


def test_dropout_needs_a_key():
  (encoder, _), (encode, _) = built(dropout=0.5)
  x = jnp.ones((1, 8, 8, 1))
  means = [encode(encoder, x, None if seed is None else jax.random.key(seed))[0] for seed in (0, 0, 1, None)]
  assert (means[0] == means[1]).all() and (means[0] != means[2]).any() and (means[0] != means[3]).any()


def test_options_add_what_they_name():
  plain = {name for tree in shapes(small()) for name in named_leaves(tree)}
  attends = {name for tree in shapes(small(attention=(2,))) for name in named_leaves(tree)}
  assert {name.split('/attention')[0] for name in attends - plain} == {'down/1', 'up/0'}
  bare = {name for tree in shapes(small(projections=False)) for name in named_leaves(tree)}
  assert plain - bare == {'moments/kernel', 'moments/bias', 'latent/kernel', 'latent/bias'}


def test_every_rule_matches():
  names = [f'{part}/{name}' for part, tree in zip(('encoder', 'decoder'), shapes(small())) for name in
           named_leaves(tree)]
  for pattern, axes in kl.AXES:
    found = [name for name in names if re.fullmatch(pattern, name)]
    assert found and all(len(axes) == (4 if name.endswith('kernel') else 1) for name in found), pattern


@pytest.mark.parametrize(('options', 'match'), [
  (dict(shape=(9, 8, 1)), 'multipliers has 2 stages'), (dict(multipliers=()), 'at least one stage'),
  (dict(attention=(4,)), r'factors among \[1, 2\]'), (dict(groups=3), 'groups'), (dict(heads=3), 'heads'),
  (dict(dtype='float8'), 'dtype'), (dict(latent=0), 'latent'), (dict(attention_kernel='fast'), 'attention_kernel')])
def test_bad_sizes_are_user_errors(options, match):
  with pytest.raises(UserError, match=match):
    small(**options)


@pytest.mark.slow
def test_rematerialised_is_the_same_network():
  (encoder, _), _ = built()
  x = jax.random.normal(jax.random.key(0), (1, 8, 8, 1))

  def gradient(remat):
    network = kl.networks(small(remat=remat))[0]
    return jax.jit(jax.grad(lambda params: jnp.sum(network.apply(params, {}, x)[0][0] ** 2)))(encoder)

  expected = gradient('none')
  scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
  assert math.isfinite(scale) and scale > 0
  jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * scale),
               gradient('full'), expected)
