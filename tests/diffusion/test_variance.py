"""Learned variances: the interpolation, the bound against numerical integration, and what trains what."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from genjax.diffusion import samplers, schedules, variance
from genjax.types import UserError

BETA = np.linspace(1e-4, 0.02, 1000)
ALPHA_BAR = np.cumprod(1 - BETA)
PROCESS = schedules.vp_linear()


def _beta_tilde(t):
  return BETA[t - 1] * (1 - ALPHA_BAR[t - 2]) / (1 - ALPHA_BAR[t - 1])


def test_the_output_chooses_between_the_logarithms_of_both_variances():
  for t in (2, 40, 999):
    times = jnp.float32(t), jnp.float32(t - 1)
    low, middle, high = (float(variance.log_variance(PROCESS, jnp.float32(raw), *times)) for raw in (-1.0, 0.0, 1.0))
    assert low == pytest.approx(np.log(_beta_tilde(t)), abs=2e-3)
    assert high == pytest.approx(np.log(BETA[t - 1]), abs=2e-3)
    assert middle == pytest.approx((low + high) / 2, abs=1e-5)
  first = variance.log_variance(PROCESS, jnp.float32(-1.0), jnp.float32(1), jnp.float32(0))
  assert first == pytest.approx(np.log(_beta_tilde(2)), abs=2e-3)  # the posterior's own is 0 there


def _terms(t, raw, x0, x0_hat, x):
  arrays = (jnp.full((1, 1), value, jnp.float32) for value in (raw, x0_hat, x0, x))
  return float(variance.bound(PROCESS, *arrays, jnp.float32([t]), bounded=True)[0])


@pytest.mark.parametrize('t', [2, 50, 700])
@pytest.mark.parametrize('raw, x0_hat', [(-1.0, 0.3), (0.4, 0.28), (1.0, -0.1)])
def test_the_divergence_is_that_of_two_gaussians(t, raw, x0_hat):
  x0, x = 0.3, 0.5
  share = (raw + 1) / 2
  model_std = np.exp(0.5 * (share * np.log(BETA[t - 1]) + (1 - share) * np.log(_beta_tilde(t))))
  from_x0 = np.sqrt(ALPHA_BAR[t - 2]) * BETA[t - 1] / (1 - ALPHA_BAR[t - 1])
  from_x = np.sqrt(1 - BETA[t - 1]) * (1 - ALPHA_BAR[t - 2]) / (1 - ALPHA_BAR[t - 1])
  true = scipy.stats.norm(from_x0 * x0 + from_x * x, np.sqrt(_beta_tilde(t)))
  model = scipy.stats.norm(from_x0 * x0_hat + from_x * x, model_std)
  mean, std = true.mean(), true.std()
  nats, _ = scipy.integrate.quad(lambda y: true.pdf(y) * (true.logpdf(y) - model.logpdf(y)), mean - 9 * std,
                                 mean + 9 * std, points=[mean])
  assert _terms(t, raw, x0, x0_hat, x) == pytest.approx(nats / np.log(2), rel=5e-3, abs=2e-4)


@pytest.mark.parametrize('x0, below, above', [(1.0, 1 - 1 / 255, np.inf), (-1.0, -np.inf, -1 + 1 / 255),
                                              (51 / 255, 50 / 255, 52 / 255)])
def test_the_first_step_is_the_likelihood_of_a_bin(x0, below, above):
  raw, x0_hat = 1.0, x0 + 0.004
  gaussian = scipy.stats.norm(x0_hat, np.sqrt(BETA[0]))  # the mean of p(x_0 | x_1) is x0_hat
  expected = -np.log2(gaussian.cdf(above) - gaussian.cdf(below))
  assert _terms(1, raw, x0, x0_hat, 0.2) == pytest.approx(expected, rel=1e-3)


def test_likelihoods_of_all_values_sum_to_one_and_far_ones_stay_finite():
  value = jnp.asarray(2 * np.arange(256) / 255 - 1, jnp.float32)
  for mean, log_std in ((0.2, -3.0), (-0.97, -1.0), (1.0, -4.6)):
    log = variance.log_likelihood(value, jnp.full(256, mean), jnp.full(256, log_std), bounded=True)
    assert jnp.sum(jnp.exp(log)) == pytest.approx(1, abs=1e-4)
    gradient = jax.grad(lambda mean, log_std=log_std: jnp.sum(variance.log_likelihood(
        value, jnp.full(256, mean), jnp.full(256, log_std), bounded=True)))(mean)
    assert jnp.isfinite(log).all() and jnp.isfinite(gradient)
  outside = variance.log_likelihood(jnp.float32(3.0), jnp.float32(3.0), jnp.float32(-4.0), bounded=False)
  assert outside == pytest.approx(scipy.stats.norm(0, np.exp(-4.0)).logpdf(0) + np.log(2 / 255), abs=0.02)


@pytest.mark.parametrize('process', [PROCESS, schedules.vp_cosine(), schedules.vp_cosine(beta_max=1.0)])
def test_the_bound_is_finite_at_every_time(process):
  t = jnp.float32([1, 2, 3, 500, 999, 1000])
  x0, noise, raw = jax.random.normal(jax.random.key(0), (3, 6, 4))
  x = process.diffuse(x0, noise, t)
  value = lambda raw, x0_hat: variance.bound(process, raw, x0_hat, x0, x, t, bounded=False)
  assert jnp.isfinite(value(raw, 0.9 * x0)).all()
  gradients = jax.grad(lambda *inputs: jnp.sum(value(*inputs)), argnums=(0, 1))(raw, 0.9 * x0)
  assert all(jnp.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize('raw, variance_name', [(-1.0, 'small'), (1.0, 'large')])
def test_the_ends_of_a_learned_variance_are_the_fixed_ones(raw, variance_name):
  keys = jax.random.split(jax.random.key(0), 6)
  x = samplers.prior(PROCESS, keys, (3,))
  times = schedules.sampling_times(PROCESS, 12)
  denoise = lambda x, t: jnp.tanh(x)
  learned = samplers.ancestral(lambda x, t: (denoise(x, t), jnp.full_like(x, raw)), x, PROCESS, times, keys,
                               variance='learned')
  fixed = samplers.ancestral(denoise, x, PROCESS, times, keys, variance=variance_name)
  np.testing.assert_allclose(learned, fixed, atol=1e-4)


@pytest.mark.parametrize('process', [schedules.flow(), schedules.edm(), schedules.vp_linear(steps=1)])
def test_processes_without_steps_are_refused(process):
  with pytest.raises(UserError, match="learn_sigma=True .*'vp_linear' or 'vp_cosine'"):
    variance.check(process)
