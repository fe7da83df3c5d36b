"""Residual GANs: published parameter counts, shapes, classes, sharding rules, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import sharding
from genjax.models.adversarial.residual import AXES, VARIANTS, ResidualGan
from genjax.nn.conv import double_linear
from genjax.nn.functional import count
from genjax.nn.norms import ConditionalBatchNorm
from genjax.types import UserError

SMALL = dict(size=16, channels=2, latent=4, generator_widths=(24, 16, 8), discriminator_widths=(8, 16), halvings=1)


def shapes(network):
  return jax.eval_shape(network.init, jax.random.key(0))


@pytest.mark.parametrize(('name', 'generator', 'discriminator'), [
  ('sngan_32', 4_276_739, 1_053_825), ('sngan_48', 4_878_083, 10_141_441), ('sngan_64', 12_220_675, 10_141_441),
  ('sngan_128', 32_150_787, 29_017_857), ('wgan_gp_32', 4_276_739, 1_053_825), ('wgan_gp_48', 4_878_083, 10_141_441),
  ('wgan_gp_64', 12_220_675, 10_141_441), ('wgan_gp_128', 32_150_787, 29_017_857),
  ('cgan_pd_32', 4_304_387, 1_055_105), ('sagan_32', 4_386_308, 1_075_586)])
def test_parameter_counts_of_mimicry(name, generator, discriminator):
  model = ResidualGan(**VARIANTS[name])
  assert count(shapes(model.generator())[0]) == generator
  assert count(shapes(model.discriminator())[0]) == discriminator


@pytest.mark.parametrize('options', [
  dict(), dict(num_classes=3, pack=2), dict(generator_spectral=True, generator_attention=8, discriminator_attention=8),
  dict(pool='mean', spectral=False, size=24, rectified_shortcut=True)])
def test_shapes(options):
  model = ResidualGan(**{**SMALL, **options})
  label_B = None if model.num_classes is None else jnp.arange(6) % 3

  def run(key):
    generator, discriminator = model.generator(), model.discriminator()
    image, _ = generator.apply(*generator.init(key), jnp.ones((6, 4)), label_B, key=key)
    judged = jnp.ones((6 // model.pack, model.size, model.size, 2 * model.pack))
    told = None if label_B is None else label_B.reshape(-1, model.pack)
    return image, discriminator.apply(*discriminator.init(key), judged, told, key=key)[0]

  image, logit = jax.eval_shape(run, jax.random.key(0))
  assert image.shape == (6, model.size, model.size, 2) and logit.shape == (6 // model.pack,)
  assert image.dtype == logit.dtype == jnp.float32


@pytest.mark.parametrize('options', [
  dict(num_classes=3), dict(generator_spectral=True, generator_attention=8, discriminator_attention=8)])
def test_axes_fit_the_parameters(options):
  mesh = sharding.make_mesh({'data': 1}, jax.devices()[:1])
  model = ResidualGan(**{**SMALL, **options})
  for group in ('generator', 'discriminator'):
    sharding.param_shardings(shapes(getattr(model, group)())[0], mesh, AXES[group])


def test_bilinear_doubling():
  x = np.random.default_rng(0).standard_normal((2, 3, 5, 4), np.float32)
  np.testing.assert_allclose(jax.jit(double_linear)(x), jax.image.resize(x, (2, 6, 10, 4), 'bilinear'), atol=1e-6)


def test_conditional_norm_scales_by_class():
  from flax import nnx
  x = np.random.default_rng(0).standard_normal((6, 2, 2, 3), np.float32) * 4 + 1
  label = np.array([0, 1, 1, 0, 0, 1])

  def run(x):
    norm = ConditionalBatchNorm(3, 2, rngs=nnx.Rngs(0))
    norm.scale.embedding.set_value(jnp.array([[1.0, 2, 3], [4, 5, 6]]))
    norm.bias.embedding.set_value(jnp.array([[0.0, 0, 0], [1, 2, 3]]))
    return norm(x, label, jax.random.key(0))

  plain = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5)
  scale, bias = np.array([[1, 2, 3], [4, 5, 6]])[label], np.array([[0, 0, 0], [1, 2, 3]])[label]
  np.testing.assert_allclose(jax.jit(run)(x), scale[:, None, None] * plain + bias[:, None, None], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(('options', 'message'), [
  (dict(size=30), 'a side that 4 divides, got 30'), (dict(halvings=3), 'at least halvings=3 blocks'),
  (dict(pool='max'), 'pool must be one of'),
  (dict(generator_widths=(8,)), 'the first map and of at least one block'),
  (dict(generator_attention=4), r'one of \[8, 16\], got 4'),
  (dict(discriminator_attention=16), r'one of \[8\], got 16'),
  (dict(dtype='int8'), 'dtype'), (dict(momentum=1.5), 'momentum')])
def test_bad_options(options, message):
  with pytest.raises(UserError, match=message):
    ResidualGan(**{**SMALL, **options})


def test_attention_needs_channels():
  with pytest.raises(UserError, match='at least 8 channels, got 4'):
    shapes(ResidualGan(**{**SMALL, 'generator_widths': (8, 4, 4), 'generator_attention': 8}).generator())
