"""Samplers against the schedulers of `diffusers`: the same file, the same noise and the same network give the same
sample."""

import functools
import importlib
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.diffusion import distilled, parameterizations, samplers, schedules, solvers
from genjax.experiments import sampling
from genjax.interop import schedulers
from genjax.nn.functional import Network
from genjax.objectives.base import Context
from genjax.objectives.codecs import identity
from genjax.objectives.diffusion import Diffusion

torch = pytest.importorskip('torch', reason='parity tests need the extra [parity]')
diffusers = pytest.importorskip('diffusers', reason='parity tests need the extra [parity]')
torch.set_num_threads(1)  # its threads wait for each other on busy machines
pytestmark = pytest.mark.filterwarnings('ignore:__array__:DeprecationWarning')

MEAN, STD = np.linspace(-1.5, 1.5, 5)[:, None], np.linspace(0.2, 1.0, 5)[:, None]
LATENT = dict(beta_schedule='scaled_linear', beta_start=0.00085, beta_end=0.012)
SD = dict(LATENT, steps_offset=1)
ROWS = 3
QUICK = {'xla_backend_optimization_level': 0, 'xla_llvm_disable_expensive_passes': True}  # each program runs once
KEYS = jax.random.split(jax.random.key(0), ROWS)


def _predict(prediction, levels, x_BX, timestep):
  """What a perfect network predicts for x0 ~ N(MEAN, STD^2); `levels` are sigma / alpha at whole timesteps."""
  if prediction == 'flow_prediction':
    sigma = timestep / 1000
    alpha = 1 - sigma
  else:
    level = np.interp(timestep, np.arange(len(levels)), levels)
    alpha = 1 / np.sqrt(1 + level ** 2)
    sigma = level * alpha
  surprise = (x_BX - alpha * MEAN) / (alpha ** 2 * STD ** 2 + sigma ** 2)
  x0, noise = MEAN + alpha * STD ** 2 * surprise, sigma * surprise
  return np.float32({'epsilon': noise, 'sample': x0, 'v_prediction': alpha * noise - sigma * x0,
                     'flow_prediction': noise - x0}[prediction])


def _theirs(scheduler, steps, prediction, levels, noise_BX, draws, monkeypatch, mu, step_options):
  """The sample of diffusers and the timesteps that the network is told."""
  drawn = iter(draws)
  module = importlib.import_module(type(scheduler).__module__)
  if hasattr(module, 'randn_tensor'):
    monkeypatch.setattr(module, 'randn_tensor', lambda *args, **kwargs: torch.tensor(next(drawn)))
  scheduler.set_timesteps(steps, **({} if mu is None else {'mu': mu}))
  x, seen = torch.tensor(noise_BX) * float(getattr(scheduler, 'init_noise_sigma', 1.0)), []
  for t in scheduler.timesteps:
    scaled = scheduler.scale_model_input(x, t) if hasattr(scheduler, 'scale_model_input') else x
    output = _predict(prediction, levels, scaled.numpy(), float(t))
    x = scheduler.step(torch.tensor(output), t, x, **step_options).prev_sample.float()
    seen.append(float(t))
  return x.numpy(), seen


def _objective(scheduler, steps, prediction, levels, pipeline='', tokens=0, **options):
  """The objective that the scheduler's file describes, with a perfect network."""
  sections = schedulers.read({**scheduler.config, '_class_name': type(scheduler).__name__}, 'file', pipeline)
  assert schedulers.read(schedulers.write(**sections), 'file', pipeline) == sections
  made = {kind: dict(section) for kind, section in sections.items()}
  process = schedules.PROCESSES[made['process'].pop('name')](**made['process'])
  told = {**made['sampler'], 'steps': steps, 'options': {**made['sampler']['options'], **options}}
  net = Network(lambda key: ({}, {}), lambda params, mutable, x, time, given, key=None: (
    jax.pure_callback(functools.partial(_predict, prediction, levels), x, x, time[0]), mutable))
  return Diffusion(net, MEAN.shape, process, parameterizations.PARAMETERIZATIONS[made['parameterization']['name']](),
                   sampling.sampler(sampling.SamplerOptions(**told), process, tokens=tokens), codec=identity())


def _levels(scheduler):
  if not hasattr(scheduler, 'alphas_cumprod'):
    return np.zeros(2)
  return np.sqrt(1 / np.maximum(scheduler.alphas_cumprod.numpy().astype(np.float64), 2.0 ** -30) - 1)


def _compare(scheduler, steps, monkeypatch, mu=None, pipeline='', tokens=0, step_options=None, **options):
  """Compares the samples, and returns the timesteps that the network is told here and there."""
  prediction = scheduler.config.get('prediction_type', 'flow_prediction')
  levels = _levels(scheduler)
  noise, *draws = np.random.default_rng(0).normal(size=(2 * steps + 1, ROWS, *MEAN.shape)).astype(np.float32)
  # Random keys take long to compile; `test_objective_draws_as_the_file_says` has them.
  for module in (samplers, solvers, distilled):
    monkeypatch.setattr(module, 'noise', lambda keys, index, like: jnp.asarray(np.stack(draws))[index])
  monkeypatch.setattr(samplers, 'prior', lambda process, keys, shape, start, scale: noise * (
    scale or process.sigma(jnp.float32(start))))
  objective = _objective(scheduler, steps, prediction, levels, pipeline, tokens, **options)
  process, times = objective.sampler.process or objective.process, jnp.asarray(objective.sampler.times, jnp.float32)

  def draw(keys):
    sample = objective.sample({'net': {}}, Context(0, {}, {}, {}), keys, {})['image']
    return sample, jax.vmap(process.embed)(times[:-1])

  ours, told = jax.jit(draw, compiler_options=QUICK)(KEYS)
  theirs, seen = _theirs(scheduler, steps, prediction, levels, noise, draws, monkeypatch, mu, step_options or {})
  assert np.isfinite(theirs).all()
  np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())
  return np.asarray(told), seen


V = dict(prediction_type='v_prediction')
FLOW = dict(prediction_type='flow_prediction', use_flow_sigmas=True, flow_shift=3.0)

# name -> class, keys of the file, steps; the first rows are those of public models
DETERMINISTIC = {
  'sd1': ('PNDM', dict(SD, skip_prk_steps=True), 50),
  'sd2_v': ('DDIM', dict(SD, **V, clip_sample=False, set_alpha_to_one=False), 50),
  'sdxl': ('EulerDiscrete', dict(SD, timestep_spacing='leading'), 25),
  'dit': ('DDIM', dict(clip_sample=False), 10),
  'pixart': ('DPMSolverMultistep', {}, 20),
  'sd3': ('FlowMatchEulerDiscrete', dict(shift=3.0), 28),
  'sana': ('DPMSolverMultistep', dict(FLOW), 20),
  'pndm_v': ('PNDM', dict(SD, **V, skip_prk_steps=True, timestep_spacing='trailing'), 10),
  'pndm_runge_kutta': ('PNDM', {}, 10),
  'ddim_clip': ('DDIM', dict(clip_sample_range=0.9, set_alpha_to_one=False), 20),
  'ddim_zero_snr': ('DDIM', dict(SD, **V, rescale_betas_zero_snr=True, timestep_spacing='trailing',
                                 clip_sample=False), 20),
  'euler_linspace_v': ('EulerDiscrete', dict(LATENT, **V), 8),
  'euler_zero_snr': ('EulerDiscrete', dict(LATENT, **V, rescale_betas_zero_snr=True, timestep_spacing='trailing'), 8),
  'euler_karras': ('EulerDiscrete', dict(SD, timestep_spacing='leading', use_karras_sigmas=True), 8),
  'euler_exponential': ('EulerDiscrete', dict(LATENT, use_exponential_sigmas=True, final_sigmas_type='sigma_min'), 8),
  'euler_beta': ('EulerDiscrete', dict(SD, timestep_spacing='leading', use_beta_sigmas=True), 8),
  'dpm_cosine': ('DPMSolverMultistep', dict(beta_schedule='squaredcos_cap_v2', timestep_spacing='leading'), 8),
  'heun': ('HeunDiscrete', dict(LATENT, use_karras_sigmas=True), 8),
  'heun_sample': ('HeunDiscrete', dict(SD, timestep_spacing='leading', prediction_type='sample', clip_sample=True), 8),
  'dpm_karras': ('DPMSolverMultistep', dict(SD, use_karras_sigmas=True), 20),
  'dpm_lu_v': ('DPMSolverMultistep', dict(LATENT, **V, use_lu_lambdas=True), 8),
  'dpm_leading_first': ('DPMSolverMultistep', dict(SD, timestep_spacing='leading', final_sigmas_type='sigma_min'), 8),
  'dpm_zero_snr': ('DPMSolverMultistep', dict(SD, **V, rescale_betas_zero_snr=True, timestep_spacing='trailing'), 8),
  'dpm_threshold': ('DPMSolverMultistep', dict(thresholding=True, sample_max_value=1.2), 8),
  'dpm_single': ('DPMSolverSinglestep', dict(LATENT), 9),
  'dpm_single_even': ('DPMSolverSinglestep', dict(LATENT, use_karras_sigmas=True), 8),
  'unipc': ('UniPCMultistep', dict(LATENT), 10),
  'unipc_order_3': ('UniPCMultistep', dict(LATENT, **V, solver_order=3, timestep_spacing='trailing'), 10),
  'unipc_flow': ('UniPCMultistep', dict(FLOW), 10),
  'lms': ('LMSDiscrete', dict(LATENT), 10),
  'kdpm2': ('KDPM2Discrete', dict(LATENT, use_karras_sigmas=True), 8),
  'deis': ('DEISMultistep', dict(LATENT), 16),
  'deis_karras_v': ('DEISMultistep', dict(SD, **V, use_karras_sigmas=True), 8),
  'trained_betas': ('DDIM', dict(trained_betas=[0.01, 0.02, 0.03, 0.04, 0.05], num_train_timesteps=5), 5),
}


def _make(name, keys):
  return getattr(diffusers, f'{name}Scheduler')(**keys)


QUICK_ROWS = ('sd1', 'sd2_v', 'sdxl', 'pixart', 'sd3', 'sana')


def _rows(table, quick):
  return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in table]


@pytest.mark.parametrize('name', _rows(DETERMINISTIC, QUICK_ROWS))
def test_deterministic_schedulers(name, monkeypatch):
  kind, keys, steps = DETERMINISTIC[name]
  told, seen = _compare(_make(kind, keys), steps, monkeypatch)
  if name not in ('pndm_runge_kutta', 'kdpm2'):  # they visit times between those of the list
    np.testing.assert_allclose(told, list(dict.fromkeys(seen)), atol=2e-3)


STOCHASTIC = {
  'cifar10': ('DDPM', dict(variance_type='fixed_large'), 20, {}),
  'ddpm_small': ('DDPM', dict(clip_sample=False, beta_schedule='sigmoid'), 20, {}),
  'ddim_eta': ('DDIM', dict(SD, clip_sample=False, set_alpha_to_one=False), 10, dict(eta=0.7)),
  'turbo': ('EulerAncestralDiscrete', dict(SD, timestep_spacing='trailing'), 4, {}),
  'euler_ancestral': ('EulerAncestralDiscrete', dict(LATENT, **V), 8, {}),
  'kdpm2_ancestral': ('KDPM2AncestralDiscrete', dict(LATENT), 8, {}),
  'dpm_sde': ('DPMSolverMultistep', dict(LATENT, algorithm_type='sde-dpmsolver++', use_karras_sigmas=True), 16, {}),
  'lcm': ('LCM', {}, 4, {}),
  'tcd': ('TCD', {}, 4, {}),
  'tcd_v': ('TCD', dict(V), 6, dict(eta=0.8)),
}


@pytest.mark.parametrize('name', _rows(STOCHASTIC, ('turbo', 'lcm')))
def test_stochastic_schedulers_with_the_same_noise(name, monkeypatch):
  kind, keys, steps, options = STOCHASTIC[name]
  told, seen = _compare(_make(kind, keys), steps, monkeypatch, step_options=options, **options)
  np.testing.assert_allclose(told, seen[::2] if name == 'kdpm2_ancestral' else seen, atol=2e-3)


@pytest.mark.parametrize('tokens, mu', [(4096, 1.15), pytest.param(1024, 0.63, marks=pytest.mark.slow)])
def test_shift_of_flux_by_tokens(tokens, mu, monkeypatch):
  """The pipeline lists even times and the scheduler shifts them by the number of tokens."""
  scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
  even = np.linspace(1.0, 1 / 28, 28)
  plain = scheduler.set_timesteps
  monkeypatch.setattr(scheduler, 'set_timesteps', lambda steps, mu: plain(sigmas=even, mu=mu))
  told, seen = _compare(scheduler, 28, monkeypatch, mu, pipeline='FluxPipeline', tokens=tokens)
  np.testing.assert_allclose(told, seen, atol=2e-3)


@pytest.mark.slow
def test_stochastic_solver_in_single_steps(monkeypatch):
  """DPMSolverSDEScheduler, with a stand-in for torchsde: one Brownian motion over sigma from the noise of a step."""
  monkeypatch.setitem(sys.modules, 'torchsde', types.ModuleType('torchsde'))
  from diffusers.schedulers import scheduling_dpmsolver_sde as module
  steps, calls = 6, []
  draws = np.random.default_rng(0).normal(size=(2 * steps + 1, ROWS, *MEAN.shape)).astype(np.float32)[1:]

  def brownian(high, low):
    index, second = divmod(len(calls), 2)
    calls.append((float(high), float(low)))
    if not second:
      return torch.tensor(draws[index])
    middle = calls[-2][1]
    share = ((high - middle) / (high - low)) ** 0.5
    return share * torch.tensor(draws[index]) + (1 - share ** 2) ** 0.5 * torch.tensor(draws[index + steps])

  monkeypatch.setattr(module, 'BrownianTreeNoiseSampler', lambda *args, **kwargs: brownian)
  scheduler = module.DPMSolverSDEScheduler(**LATENT)
  told, seen = _compare(scheduler, steps, monkeypatch)
  np.testing.assert_allclose(told, seen[::2], atol=2e-3)
  assert len(calls) == 2 * (steps - 1)


@pytest.mark.slow
def test_objective_draws_as_the_file_says():
  """With random keys: the starting noise of Euler's file has deviation sigma, and rows do not depend on their batch."""
  scheduler = diffusers.EulerDiscreteScheduler(**LATENT)
  objective = _objective(scheduler, 4, 'epsilon', _levels(scheduler))
  draw = jax.jit(lambda keys: objective.sample({'net': {}}, Context(0, {}, {}, {}), keys, {})['image'])
  scheduler.set_timesteps(4)
  x = jax.vmap(lambda key: jax.random.normal(jax.random.split(key)[0], MEAN.shape))(KEYS)
  x = torch.tensor(np.asarray(x)) * scheduler.init_noise_sigma
  for t in scheduler.timesteps:
    output = _predict('epsilon', _levels(scheduler), scheduler.scale_model_input(x, t).numpy(), float(t))
    x = scheduler.step(torch.tensor(output), t, x).prev_sample
  whole = np.asarray(draw(KEYS))
  np.testing.assert_allclose(whole, x, atol=1e-4 * float(x.abs().max()))
  np.testing.assert_allclose(whole[:1], draw(KEYS[:1]), atol=1e-5)
