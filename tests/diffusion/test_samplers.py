"""Samplers on a Gaussian whose score is known, x0 ~ N(MEAN, STD^2): orders of convergence, distributions, rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.diffusion import samplers, schedules, spacings

MEAN, STD = 0.6, 0.7
DETERMINISTIC = ('euler', 'heun', 'ddim', 'dpmpp_2m')


def _denoiser(process):
  """E[x0 | x_t] of the Gaussian."""

  def denoise(x, t):
    alpha, sigma = process.alpha(t), process.sigma(t)
    gain = alpha * STD ** 2 / (alpha ** 2 * STD ** 2 + sigma ** 2)
    return MEAN + gain * (x - alpha * MEAN)

  return denoise


def _exact(process, x, t):
  """The end of the probability-flow ODE: it maps Gaussians monotonically."""
  alpha, sigma = process.alpha(t), process.sigma(t)
  return MEAN + STD * (x - alpha * MEAN) / jnp.sqrt(alpha ** 2 * STD ** 2 + sigma ** 2)


def _keys(count):
  return jax.random.split(jax.random.key(0), count)


def _smooth_process(name):
  """A process without the kinks of a table, for clean orders."""
  if name == 'flow':
    return schedules.flow()
  if name == 'edm':
    return schedules.edm(sigma_max=10.0)
  angle = lambda t: 0.5 * jnp.pi * 0.98 * t  # variance preserving
  return schedules.Process(lambda t: jnp.cos(angle(t)), lambda t: jnp.sin(angle(t)), 1.0, lambda t: t,
                           schedules.uniform(1.0))


def _error(process, name, steps, sigma_min):
  """Error at the time of sigma_min, without the last step to sigma = 0."""
  times = schedules.sampling_times(process, steps, sigma_min=sigma_min) if process.spacing == 'karras' else \
      np.linspace(process.start, 0.02, steps + 1).astype(np.float32)
  x = jnp.linspace(-2.0, 2.0, 9)[:, None] * process.sigma(jnp.float32(process.start))
  with jax.enable_x64(True):
    x, times = jnp.asarray(x, jnp.float64), jnp.asarray(np.append(times, 0.0) if times[-1] else times, jnp.float64)
    # x0_hat at the last time but one is a fixed function of x there: errors carry over to it linearly.
    result = samplers.SAMPLERS[name](_denoiser(process), x, process, times, _keys(9))
    end = times[-2]
    alpha, sigma = process.alpha(end), process.sigma(end)
    start_alpha, start_sigma = process.alpha(times[0]), process.sigma(times[0])
    spread = lambda alpha, sigma: jnp.sqrt(alpha ** 2 * STD ** 2 + sigma ** 2)
    x_end = alpha * MEAN + (x - start_alpha * MEAN) * spread(alpha, sigma) / spread(start_alpha, start_sigma)
    return float(jnp.max(jnp.abs(result - _denoiser(process)(x_end, end))))


@pytest.mark.parametrize('process_name', ['flow', 'vp', 'edm'])
@pytest.mark.parametrize('name, order', [('euler', 1), ('ddim', 1), ('heun', 2), ('dpmpp_2m', 2)])
def test_error_falls_with_the_order(process_name, name, order):
  process = _smooth_process(process_name)
  errors = [_error(process, name, steps, sigma_min=0.02) for steps in (64, 128, 256)]
  measured = np.log2(errors[0] / errors[2]) / 2
  assert order - 0.2 < measured < order + 0.6, (errors, measured)


@pytest.mark.parametrize(
  'process',
  [schedules.vp_linear(),
   schedules.vp_cosine(),
   schedules.vp_cosine(beta_max=1.0),
   schedules.vp_linear(rescale=True)], ids=['linear', 'cosine', 'cosine_1', 'rescaled'])
@pytest.mark.parametrize('name, order', [('euler', 1), ('ddim', 1), ('heun', 2)])
def test_error_falls_with_the_order_on_whole_times(process, name, order):
  """From t = 1000 to 40 in equal steps, which divide 960: no time is rounded. The last evaluation is at t = 40 for
  all."""
  x, errors = jnp.linspace(-2.0, 2.0, 9)[:, None], []
  alpha, sigma = process.alpha(jnp.float32(40)), process.sigma(jnp.float32(40))
  start, noise = process.alpha(jnp.float32(1000)), process.sigma(jnp.float32(1000))
  spread = lambda alpha, sigma: jnp.sqrt(alpha ** 2 * STD ** 2 + sigma ** 2)
  x_end = alpha * MEAN + (x - start * MEAN) * spread(alpha, sigma) / spread(start, noise)
  for steps in (24, 48, 96):
    times = np.append(np.linspace(1000, 40, steps + 1), 0.0)
    assert (times == np.round(times)).all()
    result = samplers.SAMPLERS[name](_denoiser(process), x, process, times, _keys(9))
    errors.append(float(jnp.max(jnp.abs(result - _denoiser(process)(x_end, jnp.float32(40))))))
  measured = np.log2(errors[0] / errors[2]) / 2
  assert order - 0.25 < measured < order + 0.5, (errors, measured)


@pytest.mark.parametrize('process_name', ['edm', 'flow', 'vp_cosine', 'vp_linear', 'vp_scaled_linear'])
@pytest.mark.parametrize('name', DETERMINISTIC)
def test_real_grids_reach_the_exact_solution(process_name, name):
  process = schedules.PROCESSES[process_name]()
  x = jnp.linspace(-2.0, 2.0, 9)[:, None] * process.sigma(jnp.float32(process.start))
  times = schedules.sampling_times(process, 250)
  result = samplers.SAMPLERS[name](_denoiser(process), x, process, times, _keys(9))
  np.testing.assert_allclose(result, _exact(process, x, jnp.float32(process.start)), atol=0.04)


@pytest.mark.parametrize('process_name', ['flow', 'vp_linear', 'vp_cosine'])
@pytest.mark.parametrize('name, options', [
    ('ancestral', {}), ('ancestral', {'variance': 'large'}), ('ddim', {'eta': 1.0}), ('ddim', {'eta': 0.5})])
def test_stochastic_samplers_converge_to_the_distribution(process_name, name, options):
  process, keys = schedules.PROCESSES[process_name](), _keys(20_000)
  x = samplers.prior(process, keys, (1,))
  result = samplers.SAMPLERS[name](_denoiser(process), x, process, schedules.sampling_times(process, 250), keys,
                                   **options)
  assert jnp.mean(result) == pytest.approx(MEAN, abs=0.03)
  assert jnp.std(result) == pytest.approx(STD, rel=0.03)


def test_ancestral_with_few_steps_is_biased_and_gets_better():
  process, keys = schedules.vp_linear(), _keys(20_000)
  x = samplers.prior(process, keys, (1,))
  errors = []
  for steps in (5, 20, 100):
    times = schedules.sampling_times(process, steps)
    errors.append(abs(float(jnp.std(samplers.ancestral(_denoiser(process), x, process, times, keys))) - STD))
  assert errors[0] > errors[1] > errors[2]


@pytest.mark.parametrize('process_name', ['flow', 'vp_cosine', 'edm'])
def test_ddim_with_eta_one_is_ancestral(process_name):
  process, keys = schedules.PROCESSES[process_name](), _keys(5)
  x = samplers.prior(process, keys, (3,))
  times = schedules.sampling_times(process, 10)
  results = [sampler(_denoiser(process), x, process, times, keys)
             for sampler in (samplers.ancestral, lambda *args: samplers.ddim(*args, eta=1.0))]
  np.testing.assert_allclose(*results, atol=1e-4)


def test_posterior_variance_is_ddpms_beta_tilde():
  process = schedules.vp_linear()
  beta = np.linspace(1e-4, 0.02, 1000)
  alpha_bar = np.cumprod(1 - beta)
  t, s = jnp.float32(600), jnp.float32(599)
  ratio, forward = samplers.transition(process, t, s)
  assert ratio == pytest.approx(np.sqrt(1 - beta[599]), rel=1e-5)
  assert forward == pytest.approx(beta[599], rel=1e-3)
  posterior = forward * process.sigma(s) ** 2 / process.sigma(t) ** 2
  assert posterior == pytest.approx(beta[599] * (1 - alpha_bar[598]) / (1 - alpha_bar[599]), rel=1e-3)


def test_euler_on_straight_paths_is_ddim():
  process = schedules.flow()
  x, times = jnp.linspace(-2, 2, 5)[:, None], schedules.sampling_times(process, 7)
  results = [samplers.SAMPLERS[name](_denoiser(process), x, process, times, _keys(5)) for name in ('euler', 'ddim')]
  np.testing.assert_allclose(*results, atol=1e-5)


@pytest.mark.parametrize('name, evaluations', [('euler', 6), ('ddim', 6), ('dpmpp_2m', 6), ('ancestral', 6),
                                               ('heun', 11)])
def test_number_of_evaluations(name, evaluations):
  process, calls = schedules.flow(), []

  def denoise(x, t):
    jax.debug.callback(lambda: calls.append(1))
    return _denoiser(process)(x, t)

  samplers.SAMPLERS[name](denoise, jnp.ones((1, 1)), process, schedules.sampling_times(process, 6), _keys(1))
  jax.effects_barrier()
  assert len(calls) == evaluations


NEW = sorted(set(samplers.SAMPLERS) - {*DETERMINISTIC, 'ancestral', 'ddpm', 'flow_euler'})  # without second names


@pytest.mark.parametrize('name, steps', [
  *((name, steps) for name in (*DETERMINISTIC, 'ancestral') for steps in (1, 2, 9)), *((name, 1) for name in NEW),
  *(pytest.param(name, 9, marks=pytest.mark.slow) for name in NEW)])
def test_rows_do_not_depend_on_their_batch(name, steps):
  process, keys = schedules.edm() if name in spacings.LEVELS_ONLY else schedules.flow(), _keys(4)
  times = schedules.sampling_times(process, steps)

  def run(keys):
    x = samplers.prior(process, keys, (2, 3))
    return samplers.SAMPLERS[name](_denoiser(process), x, process, times, keys)

  whole = run(keys)
  assert jnp.isfinite(whole).all()
  np.testing.assert_allclose(whole, jnp.concatenate([run(keys[:2]), run(keys[2:])]), atol=1e-6)
  if steps > 1:  # the first step from pure noise is the mean of the data for every row
    assert len(np.unique(np.asarray(whole)[:, 0, 0])) == 4


def test_prior_has_the_scale_of_the_process():
  keys = _keys(4000)
  for process in (schedules.flow(), schedules.edm()):
    x = samplers.prior(process, keys, (2,))
    assert jnp.std(x) == pytest.approx(process.start, rel=0.03)


@pytest.mark.parametrize('name', DETERMINISTIC)
def test_whole_times_are_the_only_ones_that_a_network_of_whole_times_sees(name):
  process, seen = schedules.vp_linear(), []

  def denoise(x, t):
    jax.debug.callback(lambda t: seen.append(float(t)), t)
    return _denoiser(process)(x, t)

  samplers.SAMPLERS[name](denoise, jnp.ones((1, 1)), process, schedules.sampling_times(process, 7), _keys(1))
  jax.effects_barrier()
  assert seen and all(t == round(t) and 1 <= t <= 1000 for t in seen)


def test_prior_may_begin_later():
  x = samplers.prior(schedules.edm(), _keys(4000), (2,), 5.0)
  assert jnp.std(x) == pytest.approx(5.0, rel=0.03)


def test_unknown_variance_is_an_error():
  process = schedules.flow()
  with pytest.raises(ValueError, match='variance'):
    samplers.ancestral(_denoiser(process), jnp.ones((1, 1)), process, np.float32([1, 0]), _keys(1), variance='middle')


@pytest.mark.slow
@pytest.mark.parametrize('name, steps', [
  ('euler_ancestral', 250), ('dpmpp_2m_sde', 60), ('dpmpp_sde', 60), ('dpm2_ancestral', 60)])
def test_samplers_with_noise_in_levels_converge_to_the_distribution(name, steps):
  model, keys = schedules.vp_scaled_linear(), _keys(20_000)
  found = spacings.grid(model, name, spacings.Spacing(steps, 'trailing'))
  x = samplers.prior(found.process, keys, (1,), found.times[0], found.scale)
  result = samplers.SAMPLERS[name](_denoiser(found.process), x, found.process, found.times, keys)
  assert jnp.mean(result) == pytest.approx(MEAN, abs=0.03)
  assert jnp.std(result) == pytest.approx(STD, rel=0.04)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['heun_discrete', 'dpm2', 'dpmpp_2s', 'unipc', 'lms', 'deis', 'pndm'])
def test_solvers_in_levels_have_order_2_or_more(name):
  """On EDM's process between two levels, without the last step to 0; the first steps of multistep methods have less."""
  process = schedules.edm(sigma_max=10.0)
  with jax.enable_x64(True):
    x = jnp.linspace(-2.0, 2.0, 9, dtype=jnp.float64)[:, None] * 10
    errors = []
    for steps in (16, 32):
      times = np.exp(np.linspace(np.log(10.0), np.log(0.1), steps + 1))
      result = samplers.SAMPLERS[name](_denoiser(process), x, process, times, _keys(9))
      end = MEAN + (x - MEAN) * np.sqrt((STD ** 2 + 0.01) / (STD ** 2 + 100))
      errors.append(float(jnp.max(jnp.abs(result - end))))
  assert np.log2(errors[0] / errors[1]) > 1.6, errors
