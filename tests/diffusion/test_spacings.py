"""Times and noise levels of samplers: goldens of `diffusers` 0.42.1, what has no meaning, and samplers on grids."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.diffusion import parameterizations, samplers, schedules, spacings, weightings
from genjax.diffusion.spacings import Spacing, grid
from genjax.types import UserError

LATENT = schedules.vp_scaled_linear()
LINEAR = schedules.vp_linear()
FLOW = schedules.flow()
QUICK = {'xla_backend_optimization_level': 0, 'xla_llvm_disable_expensive_passes': True}  # each program runs once


def _told(found, process=LATENT):
  """The timesteps of `diffusers` that the network is told."""
  times = jnp.asarray(found.times[:-1], jnp.float32)
  return np.asarray(jax.jit(jax.vmap((found.process or process).embed))(times))


def test_euler_of_sdxl():
  found = grid(LATENT, 'euler_discrete', Spacing(25, 'leading', offset=1))
  assert found.times[:2] == pytest.approx((11.67605, 9.33808), rel=1e-5)
  assert found.times[-2:] == pytest.approx((0.04131, 0.0), abs=1e-5)
  np.testing.assert_allclose(_told(found), 961 - 40 * np.arange(25), atol=1e-3)
  assert found.scale == 1.0  # sqrt(sigma^2 + 1) = 11.71879 before the division by it


@pytest.mark.parametrize('name', ['linspace', 'trailing'])
def test_euler_begins_at_the_largest_level_and_its_noise_has_that_deviation(name):
  found = grid(LATENT, 'euler_discrete', Spacing(25, name))
  assert found.times[0] == pytest.approx(14.61465, rel=1e-5) and found.scale == 0


def test_dpmpp_of_pixart():
  found = grid(LINEAR, 'dpmpp_2m', Spacing(20, 'linspace'))
  told = _told(found)
  assert told[:2] == pytest.approx([999, 949]) and told[-1] == pytest.approx(50) and found.scale == 1.0
  karras = grid(LATENT, 'dpmpp_2m', Spacing(20, 'linspace', 'karras'))
  assert karras.times[-3:] == pytest.approx((0.04848, 0.02917, 0.0), abs=1e-5)
  assert (_told(karras) == np.round(_told(karras))).all()


def test_pndm_of_stable_diffusion_makes_51_calls():
  found, told = grid(LATENT, 'pndm', Spacing(50, 'leading', offset=1, final='first')), []

  def denoise(x, t):
    jax.debug.callback(lambda t: told.append(int(t) - 1), t, ordered=True)
    return 0.5 * x

  run = lambda x: samplers.SAMPLERS['pndm'](denoise, x, LATENT, found.times, None)
  jax.jit(run, compiler_options=QUICK)(jnp.ones((1, 1)))
  jax.effects_barrier()
  assert told == [981, 961, 961, *range(941, 0, -20)] and len(told) == 51 and found.times[-1] == 1.0


def test_few_steps_of_distilled_models():
  found = grid(LATENT, 'lcm', Spacing(4))
  assert found.times == (1000.0, 760.0, 500.0, 260.0, 0.0)  # timesteps 999, 759, 499, 259
  assert grid(LATENT, 'tcd', Spacing(4, final='first')).times[-1] == 1.0


def test_flows_of_sd3_and_flux():
  sd3 = grid(FLOW, 'flow_euler', Spacing(28, 'linspace', shift=3.0))
  assert sd3.times[0] == 1.0 and sd3.times[-2:] == pytest.approx((0.008929, 0.0), rel=1e-3)  # shifted twice
  line = (256, 0.5, 4096, 1.15)
  assert spacings.mu(4096, line) == pytest.approx(1.15) and spacings.mu(1024, line) == pytest.approx(0.63)
  flux = grid(FLOW, 'flow_euler', Spacing(28, 'uniform', tokens=4096, shift_by_tokens=line))
  assert flux.times[27] == pytest.approx(math.exp(1.15) / (math.exp(1.15) + 27), rel=1e-5)


def test_pure_noise_has_a_finite_level():
  rescaled = schedules.vp_scaled_linear(rescale=True)
  assert grid(rescaled, 'euler_discrete', Spacing(8, 'trailing')).times[0] == pytest.approx(4096, rel=1e-4)
  assert grid(rescaled, 'ddim', Spacing(8, 'trailing')).times[0] == 1000  # DDIM has no use for it
  whole = schedules.vp_linear(beta_end=1.0)
  levels = grid(whole, 'euler_discrete', Spacing(8)).times
  assert np.isfinite(levels).all() and (np.diff(levels) < 0).all()


def test_present_grids_are_those_of_sampling_times():
  for process, spacing in ((LINEAR, None), (FLOW, None), (LINEAR, 'quadratic'), (schedules.edm(), None)):
    found = grid(process, 'dpmpp_2m', Spacing(7, spacing or ''))
    assert found.times == tuple(schedules.sampling_times(process, 7, spacing).tolist())
    assert found.process is None and found.scale == 0


def test_levels_of_edm_lie_between_its_ends():
  for sigmas in spacings.SIGMAS:
    times = grid(schedules.edm(), 'euler', Spacing(6, sigmas=sigmas, sigma_max=20.0)).times
    assert times[0] == pytest.approx(20) and times[-2:] == pytest.approx((0.002, 0)) and (np.diff(times) < 0).all()


@pytest.mark.parametrize('process, sampler, options, match', [
  (FLOW, 'dpmpp_2m', dict(sigmas='karras', shift=3.0), 'infinite at the start of a flow'),
  (FLOW, 'euler', dict(name='leading'), "'leading' needs a process of whole times"),
  (FLOW, 'dpmpp_sde', dict(), 'needs noise levels'),
  (FLOW, 'tcd', dict(), 'needs a process of whole times'),
  (FLOW, 'flow_euler', dict(final='first'), "final='first' needs a process of whole times"),
  (FLOW, 'flow_euler', dict(shift_by_tokens=(256, 0.5, 4096, 1.15)), 'divides an example into patches'),
  (FLOW, 'flow_euler', dict(shift_by_tokens=(256, 0.5), tokens=4), 'must be \\(\\) or'),
  (FLOW, 'flow_euler', dict(shift_by_tokens=(256, 0.5, 4096, 1.15), tokens=4, shift=3.0), 'both shift the times'),
  (FLOW, 'flow_euler', dict(name='linspace', shift=0.0), 'above 0'),
  (LATENT, 'ddim', dict(name='leading', shift=3.0), "moves the times of the process 'flow'"),
  (LATENT, 'ddim', dict(name='linspace', offset=1), "offset belongs to the spacing 'leading'"),
  (LATENT, 'ddim', dict(steps=1000, name='leading', offset=1), 'puts the first timestep at 1000'),
  (LATENT, 'ddim', dict(steps=1001, name='leading'), 'from 1 to 1000'),
  (LATENT, 'lcm', dict(steps=60), 'original_steps must lie between'),
  (LATENT, 'ddim', dict(name='leading', original_steps=20), "belongs to the spacing 'distilled'"),
  (LATENT, 'euler_discrete', dict(sigmas='cosine'), 'sigmas must be one of'),
  (LATENT, 'euler_discrete', dict(name='even'), 'spacing must be one of'),
  (LATENT, 'euler_discrete', dict(name='quadratic', sigmas='karras'), 'both say where the steps lie'),
  (LATENT, 'euler_discrete', dict(final='last'), "'data' or 'first'"),
  (LATENT, 'euler_discrete', dict(sigma_min=0.1), "belong to the process 'edm'"),
  (schedules.edm(), 'euler', dict(name='trailing'), "'trailing' needs a process of whole times")])
def test_what_has_no_meaning_is_refused(process, sampler, options, match):
  with pytest.raises(UserError, match=match):
    grid(process, sampler, Spacing(**{'steps': 5, **options}))


def _run(denoisers, spacing_options):
  """Samples of all samplers on the grids of a latent model, as one program."""
  keys = jax.random.split(jax.random.key(0), 2)

  def run(x):
    found = {}
    for name, denoise in denoisers.items():
      spaced = grid(LATENT, name, Spacing(5, **spacing_options.get(name, {})))
      process = spaced.process or LATENT
      found[name] = samplers.SAMPLERS[name](denoise(process), x, process, spaced.times, keys)
    return found

  found = jax.jit(run, compiler_options=QUICK)(jnp.ones((2, 1)))
  jax.effects_barrier()
  return found


def test_samplers_visit_the_listed_times_and_no_others():
  """Networks of whole times are trained on these only; some samplers are defined by a middle between two levels."""
  middle = ('dpmpp_sde', 'dpm2', 'dpm2_ancestral')
  seen = {name: set() for name in samplers.SAMPLERS if name not in middle}
  spacing = {name: dict(name='trailing') for name in seen if name not in ('lcm', 'tcd')}

  def recorder(name):
    def of_process(process):
      def denoise(x, t):
        jax.debug.callback(lambda told: seen[name].add(round(float(told), 3)), process.embed(t))
        return 0.5 * x
      return denoise
    return of_process

  _run({name: recorder(name) for name in seen}, spacing)
  listed = {999.0, 799.0, 599.0, 399.0, 199.0}
  assert {name: times for name, times in seen.items() if times != listed} == {}


def test_samplers_end_without_noise_and_keep_it_where_they_are_told_to():
  """A network that always sees the same data gives that data; noise of the last level would stay in the picture."""
  names = ('euler_discrete', 'euler_ancestral', 'heun_discrete', 'dpmpp_2m', 'dpmpp_2m_sde', 'dpmpp_2s', 'dpmpp_sde',
           'unipc', 'ddim', 'ddpm')
  same = {name: lambda process: lambda x, t: jnp.full_like(x, 0.25) for name in names}
  for name, sample in _run(same, {name: dict(name='trailing') for name in names}).items():
    np.testing.assert_array_equal(sample, np.float32(0.25), err_msg=name)
  kept = _run({name: same[name] for name in ('dpmpp_2m', 'ddim')}, dict.fromkeys(names, dict(
    name='trailing', final='first')))
  sigma = float(LATENT.sigma(jnp.float32(1.0)))
  for sample in kept.values():
    assert 1e-3 < np.abs(np.asarray(sample) - 0.25).min() < 2 * sigma


def test_zero_snr_goes_with_v_and_its_min_snr_weight():
  """min(snr, gamma) / (snr + 1) for v, which is 0 at pure noise; the noise says nothing of the data there."""
  rescaled = schedules.vp_scaled_linear(rescale=True)
  parameterizations.v().check(rescaled)
  with pytest.raises(UserError, match="'epsilon' gives no estimate"):
    parameterizations.epsilon().check(rescaled)
  t = jnp.float32([1.0, 200.0, 700.0, 1000.0])
  snr = np.asarray(rescaled.alpha(t) / rescaled.sigma(t), np.float64) ** 2
  weights = weightings.min_snr(5.0)(rescaled, parameterizations.v(), t)
  np.testing.assert_allclose(weights, np.minimum(snr, 5) / (snr + 1), rtol=1e-4)
  assert weights[-1] == 0 and weights[0] > 0
