"""The denoisers of latent diffusion: published numbers of parameters, what they read, and their layout on a mesh."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.models.denoisers import latent_unet, mmdit
from genjax.types import UserError, named_leaves

# Counted with diffusers 0.42.1 from the published configs.
UNETS = {
  'sd1': 859_520_964, 'sd1_inpainting': 859_535_364, 'instruct_pix2pix': 859_532_484, 'sd1_lcm': 859_602_884,
  'sd2': 865_910_724, 'sd2_inpainting': 865_925_124, 'sd2_depth': 865_913_604, 'x4_upscaler': 473_398_020,
  'sdxl': 2_567_463_684, 'sdxl_refiner': 2_259_526_660}
TRANSFORMERS = {
  'sd3_medium': 2_028_328_000, 'sd35_medium': 2_243_171_520, 'sd35_large': 8_056_627_520,
  'flux_schnell': 11_891_178_560, 'flux_dev': 11_901_408_320, 'flux_fill': 11_902_391_360,
  'flux_control': 11_901_604_928}
UNET = dict(shape=(8, 8, 4), channels=(16, 32), depths=(1, 0), heads=(2, 2), blocks=1, groups=8, token_width=12)
MMDIT = dict(shape=(8, 8, 4), layers=3, heads=2, head_dim=8, token_width=12, vector_width=6, grid=4, largest=8)
FLUX = MMDIT | dict(single=2, positions='rope', rope_axes=(4, 2, 2), norm_queries=True, guidance=True)


def shapes(network):
  return jax.eval_shape(network.init, jax.random.key(0))[0]


def size(network):
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes(network)))


def filled(network):
  """Parameters without zeros, so that everything has an effect."""
  params, _ = network.init(jax.random.key(0))
  leaves, tree = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(1), len(leaves))
  return jax.tree.unflatten(tree, [leaf + 0.1 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys)])


def test_variants_are_counted():
  assert set(latent_unet.VARIANTS) == set(UNETS) and set(mmdit.VARIANTS) == set(TRANSFORMERS)


@pytest.mark.parametrize('name', ['sd1', 'x4_upscaler'])
def test_parameters_of_unets(name):
  assert size(latent_unet.network_of(latent_unet.LatentUNet(**latent_unet.VARIANTS[name]))) == UNETS[name]


@pytest.mark.slow
@pytest.mark.parametrize('name', sorted(set(UNETS) - {'sd1', 'x4_upscaler'}))
def test_parameters_of_other_unets(name):
  assert size(latent_unet.network_of(latent_unet.LatentUNet(**latent_unet.VARIANTS[name]))) == UNETS[name]


@pytest.mark.parametrize('name', TRANSFORMERS)
def test_parameters_of_transformers(name):
  assert size(mmdit.network_of(mmdit.MmDit(**mmdit.VARIANTS[name]))) == TRANSFORMERS[name]


CASES = {'unet': (latent_unet, latent_unet.LatentUNet(**UNET), {}),
         'sd3': (mmdit, mmdit.MmDit(**MMDIT, dual=1), {}),
         'flux': (mmdit, mmdit.MmDit(**FLUX), {'guidance': jnp.array([3.0, 1.0])})}


@pytest.mark.parametrize('name', CASES)
def test_padding_changes_nothing_and_tokens_do(name):
  module, config, more = CASES[name]
  network = module.network_of(config)
  params = filled(network)
  draw = lambda seed, *shape: jax.random.normal(jax.random.key(seed), shape)
  given = {'tokens': draw(1, 2, 5, 12), 'tokens_mask': jnp.array([[1] * 5, [1, 1, 1, 0, 0]]), **more}
  given |= {'vector': draw(2, 2, 6)} if config.vector_width else {}
  apply = jax.jit(lambda given: network.apply(params, {}, draw(3, 2, 8, 8, 4), jnp.array([10.0, 900.0]), given)[0])
  got = apply(given)
  assert got.shape == (2, 8, 8, 4)
  other = apply(given | {'tokens': given['tokens'].at[1, 3:].set(7.0)})
  np.testing.assert_array_equal(got, other)
  other = apply(given | {'tokens': given['tokens'].at[1, 2].set(7.0)})
  assert np.abs(got - other)[1].max() > 1e-4 and np.abs(got - other)[0].max() == 0
  fresh = network.init(jax.random.key(0))[0]
  assert not np.any(network.apply(fresh, {}, draw(3, 2, 8, 8, 4), jnp.array([10.0, 900.0]), given)[0])


@pytest.mark.parametrize('name', CASES)
def test_every_large_parameter_has_axes(name):
  module, config, _ = CASES[name]
  table = module.axes(config)
  leaves = named_leaves(shapes(module.network_of(config)))
  found = {path: next((logical for pattern, logical in table if re.fullmatch(pattern, path)), None) for path in leaves}
  assert all(logical is None or len(logical) == leaves[path].ndim for path, logical in found.items())
  unused = [pattern for pattern, _ in table if not any(re.fullmatch(pattern, path) for path in leaves)]
  assert not unused
  assert all(found[path] for path in leaves if path.endswith(('up/kernel', 'gate/kernel')) and 'added' not in path)


@pytest.mark.parametrize('kind, options, message', [
  (latent_unet.LatentUNet, UNET | dict(depths=(1,)), 'depths must have an entry for each of the 2 levels'),
  (latent_unet.LatentUNet, UNET | dict(token_width=0), 'needs token_width or'),
  (latent_unet.LatentUNet, UNET | dict(shape=(7, 8, 4)), 'multiples of 2'),
  (latent_unet.LatentUNet, UNET | dict(heads=(3, 2)), 'must divide the channels'),
  (mmdit.MmDit, MMDIT | dict(token_width=0), 'give it token_width'),
  (mmdit.MmDit, MMDIT | dict(dual=4), 'at most layers'),
  (mmdit.MmDit, FLUX | dict(rope_axes=(4, 4, 4)), 'add up to head_dim'),
  (mmdit.MmDit, MMDIT | dict(positions='learned'), 'positions must be one of')])
def test_options_that_do_not_fit(kind, options, message):
  with pytest.raises(UserError, match=message):
    kind(**options)


def test_inputs_that_do_not_fit():
  network = mmdit.network_of(mmdit.MmDit(**MMDIT))
  given = {'tokens': jnp.zeros((1, 2, 12)), 'vector': jnp.zeros((1, 6))}
  for shape, more, message in (((1, 32, 8, 4), {}, 'positions reach up to 8 patches'),
                               ((1, 7, 8, 4), {}, 'multiples of 2'),
                               ((1, 8, 8, 4), {'guidance': jnp.ones(1)}, 'told the scale of guidance')):
    with pytest.raises(UserError, match=message):
      jax.eval_shape(network.apply, shapes(network), {}, jnp.zeros(shape), jnp.zeros(1), given | more)
