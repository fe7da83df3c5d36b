"""Processes, training times and sampling times against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.diffusion import schedules
from genjax.types import UserError


def test_linear_process_is_exact_at_whole_times():
  process = schedules.vp_linear()
  alpha_bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
  t = jnp.array([1.0, 2.0, 500.0, 1000.0])
  expected = alpha_bar[np.array([0, 1, 499, 999])]
  np.testing.assert_allclose(process.alpha(t) ** 2, expected, rtol=1e-5)
  np.testing.assert_allclose(process.sigma(t) ** 2, 1 - expected, rtol=1e-5)
  # Known terminal value of DDPM: 4.04e-5.
  assert process.alpha(jnp.float32(1000)) ** 2 == pytest.approx(4.036e-5, rel=1e-3)
  assert process.sigma(jnp.float32(0)) == 0 and process.alpha(jnp.float32(0)) == 1


def test_cosine_process_has_its_closed_form_and_clipped_end():
  process = schedules.vp_cosine()
  t = np.array([1.0, 250.0, 500.0, 998.0])
  square = lambda t: np.cos((t / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
  np.testing.assert_allclose(process.alpha(jnp.float32(t)) ** 2, square(t) / square(0), rtol=1e-3)
  ratio = (process.alpha(jnp.float32(1000)) / process.alpha(jnp.float32(999))) ** 2
  assert ratio == pytest.approx(1 - 0.999, rel=1e-3)  # the last beta is clipped


@pytest.mark.parametrize('name', ['flow', 'vp_linear', 'vp_cosine', 'edm'])
def test_noise_grows_with_time(name):
  process = schedules.PROCESSES[name]()
  t = jnp.linspace(0.001, 1.0, 200) * process.start
  assert (jnp.diff(process.log_snr(t)[:-1]) < 0).all()
  if name.startswith('vp'):
    np.testing.assert_allclose(process.alpha(t) ** 2 + process.sigma(t) ** 2, 1, atol=1e-6)


def test_flow_and_edm_are_the_straight_and_the_exploding_path():
  t = jnp.array([0.25, 0.75])
  flow, edm = schedules.flow(), schedules.edm()
  np.testing.assert_allclose(flow.alpha(t), 1 - t)
  np.testing.assert_allclose(flow.sigma(t), t)
  np.testing.assert_allclose(flow.derivatives(t), [[-1, -1], [1, 1]])
  np.testing.assert_allclose(edm.alpha(t), 1)
  np.testing.assert_allclose(edm.sigma(t), t)


@pytest.mark.parametrize('name', ['vp_linear', 'vp_cosine'])
def test_derivatives_match_finite_differences_between_whole_times(name):
  process, t, step = schedules.PROCESSES[name](), jnp.float32(400.5), 0.25
  for value, derivative in zip((process.alpha, process.sigma), process.derivatives(t)):
    assert derivative == pytest.approx(float((value(t + step) - value(t - step)) / (2 * step)), rel=1e-2)


def test_diffused_data_has_the_stated_mean_and_variance():
  process = schedules.vp_cosine()
  x0 = jnp.full((20_000, 1), 2.0)
  noise = jax.random.normal(jax.random.key(0), x0.shape)
  t = jnp.full(20_000, 300.0)
  x = process.diffuse(x0, noise, t)
  assert jnp.mean(x) == pytest.approx(2 * float(process.alpha(t[0])), abs=0.01)
  assert jnp.std(x) == pytest.approx(float(process.sigma(t[0])), rel=0.02)
  np.testing.assert_allclose(process.noise(x, x0, t[0]), noise, atol=1e-4)


def test_quantiles_have_their_distributions():
  u = (jnp.arange(4000) + 0.5) / 4000
  whole = schedules.uniform(10.0, whole=True)(u)
  np.testing.assert_array_equal(np.bincount(np.asarray(whole, int)), [0] + [400] * 10)
  logit = schedules.logit_normal(0.3, 0.7)(u)
  np.testing.assert_allclose([jnp.mean(jax.scipy.special.logit(logit)), jnp.std(jax.scipy.special.logit(logit))],
                             [0.3, 0.7], atol=0.01)
  log = jnp.log(schedules.log_normal()(u))
  np.testing.assert_allclose([jnp.mean(log), jnp.std(log)], [-1.2, 1.2], atol=0.01)
  ends = schedules.uniform(1.0)(jnp.array([0.0, 1.0]))
  assert 0 < ends[0] and ends[1] < 1


@pytest.mark.parametrize('scale', [-1.0, 0.0, 1.29, 1.75])
def test_mode_times_have_the_density_of_the_paper(scale):
  t = np.asarray(schedules.mode(scale)(jnp.linspace(0.0, 1.0, 200_001)), np.float64)
  assert (np.diff(t) > -1e-6).all() and 0 <= t[0] < 1e-3 and 1 - 1e-3 < t[-1] <= 1
  u = np.linspace(0, 1, 400_001)
  paper = 1 - u - scale * (np.cos(np.pi / 2 * u) ** 2 - 1 + u)  # Esser et al. 2024, eq. 20
  share, edges = np.histogram(t, 25, range=(0, 1))
  expected, _ = np.histogram(paper, edges)
  np.testing.assert_allclose(share / share.sum(), expected / expected.sum(), atol=2e-4)
  if scale == 1.29:  # the density is 1 / |f'|, most in the middle
    middle = t[np.abs(t - 0.5) < 0.002].size / t.size / 0.004
    assert middle == pytest.approx(1 / abs(-1 - scale * (1 - np.pi / 2)), rel=0.01) and middle > 1


def test_cosmap_times_have_the_density_of_the_paper():
  t = np.asarray(schedules.cosmap()(jnp.linspace(0.0, 1.0, 200_001)), np.float64)
  assert (np.diff(t) > -1e-6).all()
  share, edges = np.histogram(t, 25, range=(0, 1))
  integral = np.arctan(2 * edges - 1) * 2 / np.pi  # of 2 / (pi - 2 pi t + 2 pi t^2)
  np.testing.assert_allclose(share / share.sum(), np.diff(integral), atol=2e-4)
  u = jnp.linspace(0.1, 0.9, 5)
  np.testing.assert_allclose(schedules.flow().log_snr(schedules.cosmap()(u)),
                             2 * np.log(1 / np.tan(np.pi / 2 * np.asarray(u))), atol=1e-5)


@pytest.mark.parametrize('scale', [-1.1, 1.8, float('nan')])
def test_mode_times_outside_of_the_monotonic_range_are_user_errors(scale):
  with pytest.raises(UserError, match='times mode needs a scale from -1 to 1.75'):
    schedules.mode(scale)


def test_stratified_levels_fill_every_stratum_once():
  u = schedules.levels(jax.random.key(3), 64, stratified=True)
  np.testing.assert_array_equal(np.sort(np.floor(np.asarray(u) * 64)), np.arange(64))
  assert not (jnp.diff(u) > 0).all()  # in random order
  plain = schedules.levels(jax.random.key(3), 64, stratified=False)
  assert len(np.unique(np.floor(np.asarray(plain) * 64))) < 64


@pytest.mark.parametrize('name', ['flow', 'vp_linear', 'vp_cosine', 'edm'])
@pytest.mark.parametrize('steps', [1, 2, 7, 50])
def test_sampling_times_fall_from_the_start_to_zero(name, steps):
  process = schedules.PROCESSES[name]()
  times = schedules.sampling_times(process, steps)
  assert len(times) == steps + 1 and times[0] == pytest.approx(process.start) and times[-1] == 0
  assert (np.diff(times) < 0).all()
  if process.steps:
    np.testing.assert_array_equal(times, np.round(times))


def test_sampling_times_of_all_steps_and_of_quadratic_spacing_are_distinct():
  process = schedules.vp_linear()
  np.testing.assert_array_equal(schedules.sampling_times(process, 1000), np.arange(1000, -1, -1))
  quadratic = schedules.sampling_times(process, 100, 'quadratic')
  assert quadratic[0] == 1000 and quadratic[-1] == 0 and (np.diff(quadratic) <= -1).all()
  full = schedules.sampling_times(process, 1000, 'quadratic')
  np.testing.assert_array_equal(full, np.arange(1000, -1, -1))


def test_karras_times_have_their_closed_form():
  times = schedules.sampling_times(schedules.edm(), 18)
  expected = (80 ** (1 / 7) + np.arange(18) / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
  np.testing.assert_allclose(times[:-1], expected, rtol=1e-5)


def test_shift_moves_times_towards_noise():
  plain, shifted = (schedules.sampling_times(schedules.flow(), 4, shift=shift) for shift in (1.0, 3.0))
  assert shifted[2] == pytest.approx(3 * 0.5 / (1 + 2 * 0.5)) and (shifted[1:-1] > plain[1:-1]).all()


def test_sampling_may_begin_below_the_start_and_end_elsewhere():
  times = schedules.sampling_times(schedules.edm(), 10, rho=5.0, sigma_min=0.01, sigma_max=20.0)
  ramp = np.arange(10) / 9
  expected = (20 ** (1 / 5) + ramp * (0.01 ** (1 / 5) - 20 ** (1 / 5))) ** 5
  np.testing.assert_allclose(times[:-1], expected, rtol=1e-5)


@pytest.mark.parametrize('process, spacing, options, match', [
    ('flow', None, dict(rho=5.0), "rho belongs to the spacing 'karras'"),
    ('flow', None, dict(sigma_min=0.01), "sigma_min belongs to the spacing 'karras'"),
    ('vp_linear', None, dict(sigma_max=10.0), "sigma_max belongs to the spacing 'karras'"),
    ('edm', None, dict(shift=3.0), "shift belongs to the spacing 'uniform'"),
    ('flow', 'quadratic', dict(shift=3.0), "shift belongs to the spacing 'uniform'"),
    ('flow', None, dict(shift=0.0), 'shift must be a finite number above 0'),
    ('edm', None, dict(rho=float('nan')), 'rho must be a finite number'),
    ('edm', None, dict(sigma_max=-1.0), 'sigma_max must be 0 or a finite number'),
    ('edm', None, dict(sigma_min=90.0), 'sigma_min must be below the largest sigma, 80')])
def test_constants_without_a_use_or_out_of_range_are_user_errors(process, spacing, options, match):
  with pytest.raises(UserError, match=match):
    schedules.sampling_times(schedules.PROCESSES[process](), 5, spacing, **options)


@pytest.mark.parametrize('process, steps, spacing', [
    ('flow', 0, None), ('vp_linear', 1001, None), ('flow', 5, 'karras'), ('flow', 5, 'even')])
def test_bad_sampling_times_are_user_errors(process, steps, spacing):
  with pytest.raises(UserError, match='sampler'):
    schedules.sampling_times(schedules.PROCESSES[process](), steps, spacing)
