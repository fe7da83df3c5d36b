"""Adapters in the U-Net of latent diffusion and in the MM-DiT: they begin as the base, and merge to what they do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.models.denoisers import latent_unet, mmdit
from genjax.nn import lora
from genjax.types import named_leaves

NETWORKS = {
  'unet': (latent_unet.network_of, latent_unet.LatentUNet(
    shape=(4, 4, 2), channels=(4, 8), blocks=1, depths=(0, 1), middle_depth=1, heads=(1, 2), groups=2, token_width=6),
    ('.*/(query|key|value|out|up|conv_in|project)/kernel', 'shrink/.*kernel')),
  'mmdit': (mmdit.network_of, mmdit.MmDit(
    shape=(4, 4, 2), patch=2, layers=1, single=1, heads=2, head_dim=8, norm_queries=True, token_width=6, vector_width=5,
    positions='rope', rope_axes=(4, 2, 2)), ('.*(query|key|value|out|up|modulation)/kernel', 'embed/patch/kernel'))}


def normal(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize('name', NETWORKS)
def test_adapters_begin_as_the_base_and_merge(name):
  make, config, paths = NETWORKS[name]
  network, options = make(config), lora.Options(2, 3.0, paths)
  shapes = jax.eval_shape(network.init, jax.random.key(0))[0]
  kernels = lora.targets(options, {'net': shapes})['net']
  params = jax.tree.map(lambda leaf: 0.3 * normal(leaf.size, *leaf.shape), shapes)
  x_BHWC, time_B, given = normal(0, 2, 4, 4, 2), np.array([7.0, 800.0], np.float32), {'tokens': normal(1, 2, 3, 6)}
  if name == 'mmdit':
    given['vector'] = normal(2, 2, 5)
  begun = jax.jit(lambda key: lora.init(key, kernels, options.rank))(jax.random.key(0))
  trained = jax.tree.map(lambda leaf: 0.3 * normal(leaf.size + 1, *leaf.shape), begun)

  def apply(params):
    return network.apply(params, {}, x_BHWC, time_B, given)[0]

  @jax.jit
  def outputs(params, begun, trained):
    return (apply(params), apply(lora.attach(params, begun, options)),
            apply(lora.merge(params, trained, options.scale)))

  @jax.jit
  def slopes(params, trained):
    def loss(trained):
      out = apply(lora.attach(params, trained, options))
      return jnp.sum(jnp.sin(out)), out

    return jax.grad(loss, has_aux=True)(trained)

  base, first, merged = outputs(params, begun, trained)
  slope, adapted = slopes(params, trained)
  np.testing.assert_array_equal(first, base)
  np.testing.assert_allclose(adapted, merged, atol=1e-4 * np.abs(merged).max())
  assert np.abs(merged - base).max() > 0.01 * np.abs(base).max()
  assert all(np.abs(leaf).max() > 0 for leaf in named_leaves(slope).values())
