"""Variational autoencoders: likelihoods, KL and bounds against closed forms."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from genjax.diffusion import conditioning
from genjax.models.autoencoders import vae
from genjax.nn.functional import Network
from genjax.objectives.base import Context
from genjax.objectives.vae import Vae, kl_to_standard_normal
from genjax.types import UserError

NONE = Context(step=jnp.int32(0), mutable={'encoder': {}, 'decoder': {}}, ema={}, frozen={})
PARAMS = {'net': {'encoder': {}, 'decoder': {}}}


def constant(value):
  """A network without parameters."""
  return Network(lambda key: ({}, {}), lambda params, mutable, x, key=None: (value(x), mutable))


def test_kl_against_numerical_integration():
  mean, log_variance = jnp.array([[0.7, -1.2]]), jnp.array([[0.3, -1.0]])
  grid = np.linspace(-15, 15, 200_001)
  expected = 0.0
  for m, v in zip(np.asarray(mean)[0], np.asarray(log_variance)[0]):
    q = stats.norm(m, math.exp(v / 2))
    expected += np.trapezoid(q.pdf(grid) * (q.logpdf(grid) - stats.norm.logpdf(grid)), grid)
  assert float(kl_to_standard_normal(mean, log_variance)[0]) == pytest.approx(expected, rel=1e-5)


def test_likelihoods():
  x = jnp.array([0.0, 1.0, 1.0]).reshape(1, 3, 1, 1)
  out = jnp.array([0.4, -0.3, 2.0]).reshape(1, 3, 1, 1)
  networks = dict(encoder=constant(lambda x: x), decoder=constant(lambda z: z), latent=1)
  p = 1 / (1 + np.exp(-np.asarray(out)))
  assert float(Vae(**networks).log_likelihood(out, x)[0]) == pytest.approx(
    stats.bernoulli.logpmf(np.asarray(x), p).sum(), rel=1e-5)
  gaussian = Vae(**networks, likelihood='gaussian', scale=0.3)
  assert float(gaussian.log_likelihood(out, x)[0]) == pytest.approx(stats.norm.logpdf(x, out, 0.3).sum(), rel=1e-5)


def linear_gaussian(q_mean, q_variance, k):
  """p(x | z) = N(z, s^2) with one pixel, so that p(x) = N(0, 1 + s^2) and the posterior are known; s = 0.5."""
  encoder = constant(lambda x: (jnp.full((len(x), 1), q_mean), jnp.full((len(x), 1), math.log(q_variance))))
  return Vae(encoder, constant(lambda z: z.reshape(-1, 1, 1, 1)), 1, 'gaussian', 0.5, importance_samples=k)


def test_bounds_with_the_true_posterior_are_exact():
  x = 204 / 255
  posterior_variance = 1 / (1 + 1 / 0.25)
  objective = linear_gaussian(posterior_variance * x / 0.25, posterior_variance, 5)
  batch = {'image': jnp.full((3, 1, 1, 1), 204, jnp.uint8)}
  values = objective.evaluate(PARAMS, NONE, batch, jax.random.key(0))
  evidence = stats.norm.logpdf(x, 0, math.sqrt(1.25))
  np.testing.assert_allclose(values['negative_bound_5'], -evidence, rtol=1e-5)


def test_bound_tightens_with_samples_and_never_passes_the_evidence():
  batch = {'image': jnp.full((4000, 1, 1, 1), 204, jnp.uint8)}
  evidence = -stats.norm.logpdf(204 / 255, 0, math.sqrt(1.25))
  bounds = [
    float(np.mean(linear_gaussian(0.0, 1.0, k).evaluate(PARAMS, NONE, batch, jax.random.key(k))[f'negative_bound_{k}']))
    for k in (1, 5, 50)
  ]
  assert bounds[0] > bounds[1] > bounds[2] > evidence - 0.01
  assert bounds[2] - evidence < 0.05 < bounds[0] - evidence


def test_beta_and_warm_up_scale_the_kl():
  batch = {'image': jnp.full((2, 1, 1, 1), 204, jnp.uint8)}
  plain = linear_gaussian(1.0, 0.5, 1)
  kl = float(kl_to_standard_normal(jnp.array([[1.0]]), jnp.array([[math.log(0.5)]]))[0])

  def excess(step, **options):
    objective = Vae(plain.encoder, plain.decoder, 1, 'gaussian', 0.5, **options)
    output = objective.loss(PARAMS, NONE.replace(step=jnp.int32(step)), batch, jax.random.key(0))
    return float(output.loss - output.metrics['distortion']) / kl

  assert excess(0, beta=4.0) == pytest.approx(4.0, rel=1e-4)
  assert excess(0, kl_warmup=10) == pytest.approx(0.1, rel=1e-3)
  assert excess(4, kl_warmup=10, beta=2.0) == pytest.approx(1.0, rel=1e-3)
  assert excess(99, kl_warmup=10) == pytest.approx(1.0, rel=1e-4)


@pytest.mark.parametrize('config', [vae.MlpConfig((8, 8, 1), 3, (7, 5)), vae.ConvConfig((8, 8, 2), 3, (4, 6))])
def test_networks_shapes_and_pictures(config):
  encoder, decoder = vae.networks(config)
  objective = Vae(encoder, decoder, 3)
  variables = jax.jit(lambda key: objective.init(key, {}))(jax.random.key(0))
  context = NONE.replace(mutable=variables.mutable)
  image = jnp.zeros((4, *config.shape), jnp.uint8)
  reconstruct = jax.jit(objective.reconstruct)
  assert reconstruct(variables.params, context, image).shape == image.shape
  rows = jax.jit(objective.interpolate, static_argnums=4)(variables.params, context, image[:2], 255 - image[:2], 5)
  assert rows.shape == (2, 5, *config.shape) and rows.dtype == jnp.uint8
  np.testing.assert_array_equal(rows[:, 0], reconstruct(variables.params, context, image[:2]))
  np.testing.assert_array_equal(rows[:, -1], reconstruct(variables.params, context, 255 - image[:2]))
  sample = jax.jit(objective.sample)(variables.params, context, jax.random.split(jax.random.key(1), 3), {})['image']
  assert sample.shape == (3, *config.shape)


def test_image_that_cannot_be_halved():
  with pytest.raises(ValueError, match='width by 8'):
    vae.ConvConfig((28, 28, 1), 2, (4, 4, 4))


def test_unknown_likelihood():
  with pytest.raises(UserError, match='poisson'):
    Vae(constant(lambda x: x), constant(lambda x: x), 1, 'poisson')


def test_capacity_holds_the_kl_at_a_target_that_grows():
  """Burgess et al. 2018, eq. 8: gamma |KL - C|."""
  batch = {'image': jnp.full((2, 1, 1, 1), 204, jnp.uint8)}
  plain = linear_gaussian(1.0, 0.5, 1)
  kl = float(kl_to_standard_normal(jnp.array([[1.0]]), jnp.array([[math.log(0.5)]]))[0])

  def term(step, **options):
    objective = Vae(plain.encoder, plain.decoder, 1, 'gaussian', 0.5, **options)
    output = objective.loss(PARAMS, NONE.replace(step=jnp.int32(step)), batch, jax.random.key(0))
    return float(output.loss - output.metrics['distortion'])

  assert term(0, beta=10.0, capacity=2.0) == pytest.approx(10 * abs(kl - 2.0), rel=1e-3)
  assert term(0, beta=10.0, capacity=2.0, capacity_steps=100) == pytest.approx(10 * abs(kl - 0.02), rel=1e-3)
  assert term(49, beta=10.0, capacity=2.0, capacity_steps=100) == pytest.approx(10 * abs(kl - 1.0), rel=1e-3)
  assert term(900, beta=10.0, capacity=2.0, capacity_steps=100) == pytest.approx(10 * abs(kl - 2.0), rel=1e-3)


@pytest.mark.parametrize('config', [vae.MlpConfig((8, 8, 1), 3, (7, 5), num_classes=4),
                                    vae.ConvConfig((8, 8, 1), 3, (4, 6), num_classes=4, numbers=2, number_features=8)])
def test_both_networks_read_the_conditions(config):
  encoder, decoder = vae.networks(config)
  columns = ('label', 'numbers') if config.numbers else ('label',)
  conditioners = {'told': conditioning.Conditioner(columns, {}, 0.0, lambda frozen, columns: columns)}
  objective = Vae(encoder, decoder, 3, samples=2, conditioners=conditioners)
  variables = jax.jit(lambda key: objective.init(key, {}))(jax.random.key(0))
  context = NONE.replace(mutable=variables.mutable)
  batch = {'image': jnp.full((4, 8, 8, 1), 90, jnp.uint8), 'label': jnp.arange(4), 'numbers': jnp.ones((4, 2))}

  def outputs(params, batch):
    given = objective.told(context, batch)
    z = objective.posterior(params, context, batch['image'], given)[0]
    logits = objective.decoder.apply(params['net']['decoder'], context.mutable['decoder'], 0 * z, given)[0]
    return z, logits, objective.loss(params, context, batch, jax.random.key(1)).loss

  outputs = jax.jit(outputs)
  z, logits, loss = outputs(variables.params, batch)
  assert not np.allclose(z[0], z[1]) and not np.allclose(logits[0], logits[1]) and jnp.isfinite(loss)
  other = outputs(variables.params, {**batch, 'label': jnp.array([0, 1, 2, 0])})
  np.testing.assert_array_equal(other[0][:3], z[:3])
  assert not np.allclose(other[0][3], z[3])
  if config.numbers:
    assert not np.allclose(outputs(variables.params, {**batch, 'numbers': 500 * batch['numbers']})[1], logits)


def linear(samples=1, bound='importance_weighted'):
  """A trainable encoder that is far from the posterior, and p(x | z) = N(z, 0.5^2) of one pixel."""
  encoder = Network(lambda key: ({}, {}), lambda params, mutable, x, key=None: (
    (jnp.full((len(x), 1), params['mean']), jnp.full((len(x), 1), params['log_variance'])), mutable))
  return Vae(encoder, constant(lambda z: z.reshape(-1, 1, 1, 1)), 1, 'gaussian', 0.5, bound=bound, samples=samples)


BATCH = {'image': jnp.full((4000, 1, 1, 1), 204, jnp.uint8)}
FAR = {'net': {'encoder': {'mean': jnp.float32(0.0), 'log_variance': jnp.float32(0.0)}, 'decoder': {}}}


def test_training_bound_grows_with_samples_up_to_the_evidence():
  evidence = -stats.norm.logpdf(204 / 255, 0, math.sqrt(1.25))
  losses = [float(linear(k).loss(FAR, NONE, BATCH, jax.random.key(k)).loss) for k in (1, 5, 50)]
  assert losses[0] > losses[1] > losses[2] > evidence - 0.01
  assert losses[2] - evidence < 0.05 < losses[0] - evidence


def test_one_importance_sample_is_the_elbo_bitwise():
  """Loss and gradients; the key of the latents is used as before, so that runs of one sample stay what they were."""
  for samples, bound in ((1, 'importance_weighted'), (1, 'elbo')):
    loss = lambda params: linear(samples, bound).loss(params, NONE, BATCH, jax.random.key(7)).loss
    value, gradient = jax.value_and_grad(loss)(FAR)
    mean, log_variance = jnp.zeros((4000, 1)), jnp.zeros((4000, 1))
    _, noise_key, _ = jax.random.split(jax.random.key(7), 3)
    z = mean + jnp.exp(log_variance / 2) * jax.random.normal(noise_key, mean.shape)
    distortion = -jnp.mean(linear().log_likelihood(z.reshape(-1, 1, 1, 1), BATCH['image'].astype(jnp.float32) / 255))
    assert value == distortion + 1.0 * 1.0 * jnp.mean(kl_to_standard_normal(mean, log_variance))
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_the_elbo_of_several_samples_is_their_mean():
  one, many = (float(linear(k, 'elbo').loss(FAR, NONE, BATCH, jax.random.key(1)).loss) for k in (1, 20))
  assert many == pytest.approx(one, abs=0.1)
  assert float(linear(20).loss(FAR, NONE, BATCH, jax.random.key(1)).loss) < many - 0.1


def test_gradient_of_the_bound_is_that_of_the_weighted_samples():
  """Burda et al. 2016, eq. 14: the gradients of log weights, weighted by the normalised weights."""
  objective, key = linear(7), jax.random.key(3)
  batch = {'image': BATCH['image'][:5]}
  found = jax.grad(lambda params: objective.loss(params, NONE, batch, key).loss)(FAR)['net']['encoder']
  noise_KB1 = jax.random.normal(jax.random.split(key, 3)[1], (7, 5, 1))
  x = 204 / 255

  def log_weight_KB(mean, log_variance):
    z_KB1 = mean + jnp.exp(log_variance / 2) * noise_KB1
    log_q = jax.scipy.stats.norm.logpdf(z_KB1, mean, jnp.exp(log_variance / 2))
    return (jax.scipy.stats.norm.logpdf(x, z_KB1, 0.5) + jax.scipy.stats.norm.logpdf(z_KB1) - log_q)[..., 0]

  share_KB = jax.nn.softmax(log_weight_KB(0.0, 0.0), axis=0)
  slopes = jax.jacfwd(log_weight_KB, (0, 1))(0.0, 0.0)
  for name, slope_KB in zip(('mean', 'log_variance'), slopes):
    np.testing.assert_allclose(found[name], -jnp.mean(jnp.sum(share_KB * slope_KB, axis=0)), rtol=1e-4)


def test_log_evidence_is_the_closed_form_whatever_the_chunk():
  batch = {'image': BATCH['image'][:8]}
  estimate = jax.jit(linear().log_evidence, static_argnums=(4, 5))
  values = [estimate(FAR, NONE, batch, jax.random.key(0), 4000, chunk) for chunk in (1, 7, 500)]
  np.testing.assert_allclose(values[0], stats.norm.logpdf(204 / 255, 0, math.sqrt(1.25)), atol=0.1)
  np.testing.assert_allclose(values[1], values[0], rtol=1e-5)
  np.testing.assert_allclose(values[2], values[0], rtol=1e-5)


@pytest.mark.parametrize(('options', 'words'), [
  (dict(bound='iwae'), 'importance_weighted'), (dict(bound='importance_weighted', beta=2.0), 'beta to 1'),
  (dict(samples=0), 'samples'), (dict(capacity=5.0, kl_warmup=10), 'kl_warmup'), (dict(capacity_steps=3), 'both'),
  (dict(capacity=-1.0), 'capacity')])
def test_refused_bounds(options, words):
  with pytest.raises(UserError, match=words):
    Vae(constant(lambda x: x), constant(lambda x: x), 1, **options)
