"""Autoencoders with quantized latents: counts, shapes, and the parts of a decoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.configs.autoencoders import vqgan as configs
from genjax.models.autoencoders import vq
from genjax.nn.functional import count
from genjax.nn.quantizers import VectorQuantizer
from genjax.types import UserError

# Counted with diffusers (VQModel); the last is that of CompVis/taming-transformers
PUBLISHED = {'f4': 55_322_782, 'f8': 67_717_295, 'f8-256': 67_652_783, 'f16': 69_593_371, 'taming': 72_141_699}
SMALL = dict(shape=(8, 12, 1), latent=3, width=2, base=4, multipliers=(1, 2), blocks=1, groups=2)


@pytest.mark.parametrize('name', ['f4', *(pytest.param(name, marks=pytest.mark.slow) for name in list(PUBLISHED)[1:])])
def test_counts_are_those_of_the_published_models(name):
  options, size, width = configs.SHAPES[name]
  whole = vq.Whole(vq.VqGan((256, 256, 3), width=width, **options), VectorQuantizer(size, width, learned='gradient'))
  assert count(jax.eval_shape(vq.autoencoder(whole).init, jax.random.key(0))[0]) == PUBLISHED[name]


def test_the_network_of_sonnet():
  """Counted by hand from the layers of the example."""
  encoder, decoder = (jax.eval_shape(network.init, jax.random.key(0))[0]
                      for network in vq.networks(vq.VqVae((32, 32, 3))))
  assert (count(encoder), count(decoder)) == (372_416, 290_307)
  assert vq.VqVae((32, 32, 3)).latent_shape == (8, 8, 64)


@pytest.mark.parametrize(('halvings', 'stages'), [(1, (16,)), (2, (8, 16)), (3, (8, 16, 16))])
def test_shapes(halvings, stages):
  config = vq.VqVae((16, 24, 1), width=3, hidden=16, residual=4, blocks=1, halvings=halvings)
  assert config.stages == stages
  encoder, decoder = vq.networks(config)
  variables = [jax.eval_shape(network.init, jax.random.key(0)) for network in (encoder, decoder)]
  image = jax.ShapeDtypeStruct((2, 16, 24, 1), jnp.float32)
  z = jax.eval_shape(lambda *given: encoder.apply(*given)[0], *variables[0], image)
  assert z.shape == (2, *config.latent_shape) == (2, 16 // 2 ** halvings, 24 // 2 ** halvings, 3)
  assert jax.eval_shape(lambda *given: decoder.apply(*given)[0], *variables[1], z).shape == image.shape


@pytest.mark.parametrize('kind', ['vqvae', 'vqgan'])
def test_the_parts_of_a_decoder_make_the_whole(kind):
  config = vq.VqVae((8, 8, 1), width=2, hidden=8, residual=4) if kind == 'vqvae' else vq.VqGan(**SMALL)
  decoder = (vq.networks if kind == 'vqvae' else vq.gan_networks)(config)[1]
  z = np.random.default_rng(0).normal(size=(2, *config.latent_shape)).astype(np.float32)

  def both(key):
    params, mutable = decoder.init(key)
    hidden = decoder.apply(params, mutable, z, part='hidden')[0]
    return decoder.apply(params, mutable, z)[0], decoder.apply(params, mutable, hidden, part='last')[0]

  whole, parts = jax.jit(both)(jax.random.key(0))
  assert whole.shape == (2, *config.shape)
  np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-6)


def test_codes_of_another_width_are_projected():
  encoder, decoder = (jax.eval_shape(network.init, jax.random.key(0))[0]
                      for network in vq.gan_networks(vq.VqGan(**SMALL)))
  assert encoder['last']['kernel'].shape[-1] == 3 and encoder['moments']['kernel'].shape[2:] == (3, 2)
  assert decoder['latent']['kernel'].shape[2:] == (2, 3)
  assert vq.VqGan(**SMALL).latent_shape == (4, 6, 2) and vq.VqGan(**SMALL | dict(width=0)).latent_shape == (4, 6, 3)


@pytest.mark.parametrize(('kind', 'options', 'match'), [
  (vq.VqVae, dict(shape=(30, 32, 3)), 'halvings=2 needs an image size'), (vq.VqVae, dict(shape=(8, 8, 1), blocks=0),
                                                                          'blocks'),
  (vq.VqVae, dict(shape=(8, 8, 1), pixel_scale=0.0), 'pixel_scale'),
  (vq.VqGan, SMALL | dict(projections=False), 'width must be latent=3'), (vq.VqGan, SMALL | dict(width=-1), 'width')])
def test_bad_options(kind, options, match):
  with pytest.raises(UserError, match=match):
    kind(**options)
