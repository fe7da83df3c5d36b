"""Processes that end at pure noise: tables without NaN, parameterizations that are refused, samplers on a known
Gaussian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.diffusion import parameterizations, samplers, schedules
from genjax.types import UserError

MEAN, STD = 0.6, 0.7
ENDS = {
  'cosine': lambda: schedules.vp_cosine(beta_max=1.0),
  'linear': lambda: schedules.vp_linear(beta_end=1.0),  # alpha leaves float32 long before the last step
  'rescaled_linear': lambda: schedules.vp_linear(rescale=True),
  'rescaled_cosine': lambda: schedules.vp_cosine(rescale=True),
}


def _times(process, name):
  """All signal of 'linear' lies in its first 130 times, so that a grid over all of them must be fine."""
  return schedules.sampling_times(process, 1000 if name == 'linear' else 250)


def _predictor(process, parameterization, x, t):
  """The prediction of a perfect network for x0 ~ N(MEAN, STD^2): the mean of its target given x_t."""
  alpha, sigma = process.alpha(t), process.sigma(t)
  gain = alpha * STD ** 2 / (alpha ** 2 * STD ** 2 + sigma ** 2)
  x0 = MEAN + gain * (x - alpha * MEAN)
  noise = sigma / (alpha ** 2 * STD ** 2 + sigma ** 2) * (x - alpha * MEAN)
  return parameterization.prediction(process, x0, noise, t)


@pytest.mark.parametrize('name', ENDS)
def test_tables_are_finite_between_the_last_times_and_end_at_zero(name):
  process = ENDS[name]()
  t = jnp.concatenate([jnp.arange(1.0, 1000.0, 7.0), jnp.linspace(996.0, 1000.0, 41)])
  alpha, sigma = process.alpha(t), process.sigma(t)
  assert jnp.isfinite(alpha).all() and jnp.isfinite(sigma).all()
  assert alpha[-1] == 0 and sigma[-1] == 1 and (jnp.diff(alpha) <= 0).all()
  np.testing.assert_allclose(alpha ** 2 + sigma ** 2, 1, atol=1e-6)
  assert jnp.isfinite(jnp.stack(process.derivatives(t))).all()
  before = t[alpha > 1e-6]
  assert jnp.isfinite(process.log_snr(before)).all() and process.log_snr(t[-1]) == -jnp.inf


def test_rescaling_is_algorithm_1():
  alpha = np.sqrt(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)))
  expected = (alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])
  times = np.array([1, 2, 300, 900, 999, 1000])
  np.testing.assert_allclose(
    schedules.vp_linear(rescale=True).alpha(jnp.float32(times)), expected[times - 1], atol=1e-6)
  process = schedules.vp_linear(rescale=True)
  assert process.alpha(jnp.float32(1)) == pytest.approx(float(schedules.vp_linear().alpha(jnp.float32(1))), abs=1e-7)


@pytest.mark.parametrize('name', ENDS)
@pytest.mark.parametrize('parameterization', ['v', 'x0'])
@pytest.mark.parametrize('sampler', ['euler', 'heun', 'ddim', 'dpmpp_2m'])
def test_deterministic_samplers_reach_the_exact_solution(name, parameterization, sampler):
  process, parameterization = ENDS[name](), parameterizations.PARAMETERIZATIONS[parameterization]()
  x = jnp.linspace(-2.0, 2.0, 9)[:, None]
  predict = lambda scaled, time: _predictor(process, parameterization, scaled, time[0] + 1.0)
  denoise = lambda x, t: parameterization.denoise(process, predict, x, t)
  result = samplers.SAMPLERS[sampler](denoise, x, process, _times(process, name), None)
  np.testing.assert_allclose(result, MEAN + STD * x, atol=0.06)  # the flow from pure noise maps quantiles to quantiles


@pytest.mark.parametrize('name', ENDS)
def test_ancestral_sampling_has_the_distribution(name):
  process, parameterization = ENDS[name](), parameterizations.v()
  keys = jax.random.split(jax.random.key(0), 8000)
  predict = lambda scaled, time: _predictor(process, parameterization, scaled, time[0] + 1.0)
  denoise = lambda x, t: parameterization.denoise(process, predict, x, t)
  x = samplers.prior(process, keys, (1,))
  result = samplers.ancestral(denoise, x, process, _times(process, name), keys)
  assert jnp.mean(result) == pytest.approx(MEAN, abs=0.04)
  assert jnp.std(result) == pytest.approx(STD, rel=0.06)


@pytest.mark.parametrize('name', ENDS)
def test_what_gives_no_estimate_at_pure_noise_is_refused_by_name(name):
  with pytest.raises(UserError, match="parameterization 'epsilon' gives no estimate .* Use 'v' or 'x0'"):
    parameterizations.epsilon().check(ENDS[name]())
  for good in (parameterizations.v(), parameterizations.x0(), parameterizations.edm()):
    good.check(ENDS[name]())


def test_the_noise_is_refused_on_straight_paths_and_allowed_on_ddpms():
  with pytest.raises(UserError, match="'epsilon' .* t=1, .*'velocity'"):
    parameterizations.epsilon().check(schedules.flow())
  parameterizations.velocity().check(schedules.flow())
  for process in (schedules.vp_linear(), schedules.vp_cosine(), schedules.edm()):
    parameterizations.epsilon().check(process)


@pytest.mark.parametrize('make', [
    lambda: schedules.vp_linear(beta_end=1.2), lambda: schedules.vp_linear(beta_start=0.0),
    lambda: schedules.vp_linear(beta_end=float('nan')), lambda: schedules.vp_cosine(beta_max=0.0),
    lambda: schedules.vp_linear(steps=0), lambda: schedules.vp_cosine(offset=-1.0),
    lambda: schedules.vp_linear(steps=1, rescale=True)])
def test_betas_out_of_range_are_user_errors(make):
  with pytest.raises(UserError, match='must be above 0|must be finite|at least 1|not be negative|at least 2 steps'):
    make()
