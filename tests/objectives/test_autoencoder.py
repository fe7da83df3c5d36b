"""The objective of autoencoders for latent diffusion: errors, KL, moments, and the kind that other runs open."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from genjax.nn.functional import Network
from genjax.objectives.autoencoder import KlAutoencoder, as_image, centred
from genjax.objectives.base import Context
from genjax.objectives.vae import kl_to_standard_normal
from genjax.types import UserError

IMAGE = np.random.default_rng(0).integers(0, 256, (6, 2, 2, 1)).astype(np.uint8)


def network(function):
  """A network without parameters."""
  return Network(lambda key: ({}, {}), lambda params, mutable, x, key=None: (function(x), mutable))


def objective(log_variance=-4.0, **options):
  """The latent is the image times (1, 3), plus (0, 2); the decoder takes its first channel."""
  encode = network(lambda x: (jnp.concatenate([x, 3 * x + 2], -1), jnp.full((*x.shape[:-1], 2), log_variance)))
  return KlAutoencoder(encode, network(lambda z: z[..., :1]), (2, 2, 2), **options)


def started(made):
  variables = made.init(jax.random.key(0), {})
  return variables.params, Context(step=jnp.int32(0), mutable=variables.mutable, ema={}, frozen={})


def test_uint8_there_and_back():
  np.testing.assert_array_equal(as_image(centred(np.arange(256, dtype=np.uint8))), np.arange(256))
  assert as_image(jnp.array([-3.0, 3.0])).tolist() == [0, 255]


def test_errors_against_their_distributions():
  x, out = np.array([0.3, -0.8]).reshape(1, 1, 2, 1), np.array([0.1, 0.4]).reshape(1, 1, 2, 1)
  expected = {
    'l1': np.abs(x - out).mean(), 'l2': np.square(x - out).mean(),
    'laplace': -stats.laplace.logpdf(x, out, math.exp(-0.5)).mean(),
    'gaussian': -stats.norm.logpdf(x, out, math.exp(-0.25)).mean()}  # the variance is exp(-0.5)
  for name, value in expected.items():
    params = {'net': {'log_scale': jnp.float32(-0.5)}}
    assert float(objective(reconstruction=name).error(params, out, x)[0]) == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize('reconstruction', ['laplace', 'gaussian'])
def test_the_scale_is_learned(reconstruction):
  made = objective(reconstruction=reconstruction)
  params, context = started(made)
  slope = jax.grad(lambda params: made.loss(params, context, {'image': IMAGE}, jax.random.key(0)).loss)(params)
  assert float(slope['net']['log_scale']) > 0.1  # the posterior is narrow, so that a smaller scale is better
  assert 'log_scale' not in started(objective())[0]['net']


def test_loss_is_error_and_weighted_kl_a_pixel_value():
  made = objective(log_variance=-30.0, kl_weight=0.01)
  params, context = started(made)
  output = made.loss(params, context, {'image': IMAGE}, jax.random.key(0))
  x = centred(IMAGE)
  mean = np.concatenate([x, 3 * x + 2], -1).reshape(6, -1)
  kl = float(kl_to_standard_normal(mean, jnp.full(mean.shape, -30.0)).mean())
  assert float(output.metrics['kl']) == pytest.approx(kl, rel=1e-5)
  assert float(output.metrics['error']) == pytest.approx(0.0, abs=1e-5)
  assert float(output.loss) == pytest.approx(0.01 * kl / 4, rel=1e-4)
  values = made.evaluate(params, context, {'image': IMAGE}, jax.random.key(0))
  assert all(value.shape == (6,) for value in values.values())
  np.testing.assert_array_equal(values['psnr'], 100.0)
  np.testing.assert_allclose(values['loss'], 0.01 * values['kl'] / 4, rtol=1e-4)


def test_psnr_is_that_of_images():
  made = KlAutoencoder(objective().encoder, network(lambda z: z[..., :1] + 0.1), (2, 2, 2))
  params, context = started(made)
  image = np.full((1, 2, 2, 1), 100, np.uint8)
  found = made.evaluate(params, context, {'image': image}, jax.random.key(0))['psnr'][0]
  assert float(found) == pytest.approx(20 * math.log10(255 / 13), rel=1e-5)  # 0.1 is 12.75 of 127.5


@pytest.mark.parametrize('normalisation', ['channels', 'all'])
def test_moments_give_latents_mean_0_and_deviation_1(normalisation):
  made = objective(log_variance=math.log(0.04), normalisation=normalisation, decay=0.9)
  params, context = started(made)
  shift, scale = made.moments(context.mutable)
  np.testing.assert_array_equal(shift, 0 * shift)
  np.testing.assert_array_equal(scale, 0 * scale + 1)
  for step in range(3):
    output = made.loss(params, context.replace(step=jnp.int32(step)), {'image': IMAGE}, jax.random.key(step))
    context = context.replace(mutable=output.mutable)
  shift, scale = made.moments(context.mutable)
  assert shift.shape == scale.shape == ((2,) if normalisation == 'channels' else ())
  mean, log_variance = made.encode(params, context.mutable, np.repeat(IMAGE, 500, axis=0))
  z = mean + jnp.exp(log_variance / 2) * jax.random.normal(jax.random.key(9), mean.shape)
  x, axes = (z - shift) * scale, (0, 1, 2) if normalisation == 'channels' else None
  np.testing.assert_allclose(jnp.mean(x, axes), 0.0, atol=0.02)
  np.testing.assert_allclose(jnp.std(x, axes), 1.0, atol=0.02)


def test_moments_follow_the_encoder():
  made = objective(decay=0.5)
  params, context = started(made)
  for step in range(40):
    image = np.full((2, 2, 2, 1), 50 if step < 20 else 200, np.uint8)
    output = made.loss(params, context.replace(step=jnp.int32(step)), {'image': image}, jax.random.key(step))
    context = context.replace(mutable=output.mutable)
  np.testing.assert_allclose(made.moments(context.mutable)[0], [200 / 127.5 - 1, 3 * (200 / 127.5 - 1) + 2], rtol=1e-3)


def test_samples_are_decoded_noise_with_the_moments():
  made = objective(normalisation='channels')
  params, context = started(made)
  moments = {'mean': jnp.array([0.5, 0.0]), 'square': jnp.array([0.25 + 0.01, 1.0])}
  context = context.replace(mutable={**context.mutable, 'moments': moments})
  image = made.sample(params, context, jax.random.split(jax.random.key(0), 500), {})['image']
  assert image.shape == (500, 2, 2, 1) and image.dtype == jnp.uint8
  assert float(image.mean()) == pytest.approx(127.5 * 1.5, abs=1) and float(image.std()) == pytest.approx(12.75, abs=1)


@pytest.mark.parametrize(('options', 'match'), [
  (dict(reconstruction='l3'), "reconstruction must be one of .*got 'l3'"), (dict(kl_weight=-1.0), 'kl_weight'),
  (dict(normalisation='none'), 'normalisation must be one of'), (dict(decay=1.0), 'decay')])
def test_bad_options_are_user_errors(options, match):
  with pytest.raises(UserError, match=match):
    objective(**options)
