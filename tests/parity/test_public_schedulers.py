"""Samplers against the schedulers of `diffusers`: the same file, the same noise and the same network give the same
sample."""

import importlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.diffusion import parameterizations, samplers, schedules
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

MEAN, STD = np.linspace(-1.5, 1.5, 5), np.linspace(0.2, 1.0, 5)
LATENT = dict(beta_schedule='scaled_linear', beta_start=0.00085, beta_end=0.012)
SD = dict(LATENT, steps_offset=1)
ROWS = 3


def _predict(numpy, prediction, levels, x_BX, timestep):
  """What a perfect network predicts for x0 ~ N(MEAN, STD^2); `levels` are sigma / alpha at whole timesteps."""
  if prediction == 'flow_prediction':
    sigma = timestep / 1000
    alpha = 1 - sigma
  else:
    level = numpy.interp(timestep, numpy.arange(len(levels), dtype=numpy.float32), levels)
    alpha = 1 / numpy.sqrt(1 + level ** 2)
    sigma = level * alpha
  surprise = (x_BX - alpha * MEAN) / (alpha ** 2 * STD ** 2 + sigma ** 2)
  x0, noise = MEAN + alpha * STD ** 2 * surprise, sigma * surprise
  return {'epsilon': noise, 'sample': x0, 'v_prediction': alpha * noise - sigma * x0, 'flow_prediction': noise - x0}[
    prediction]


def _theirs(scheduler, steps, prediction, levels, x_BX, draws, monkeypatch, mu=None, **step_options):
  """The sample of diffusers and the timesteps that the network is told."""
  drawn = iter(draws)
  module = importlib.import_module(type(scheduler).__module__)
  if hasattr(module, 'randn_tensor'):
    monkeypatch.setattr(module, 'randn_tensor', lambda *args, **kwargs: torch.tensor(next(drawn)))
  scheduler.set_timesteps(steps, **({} if mu is None else {'mu': mu}))
  x, seen = torch.tensor(x_BX) * float(getattr(scheduler, 'init_noise_sigma', 1.0)), []
  for t in scheduler.timesteps:
    scaled = scheduler.scale_model_input(x, t) if hasattr(scheduler, 'scale_model_input') else x
    output = _predict(np, prediction, levels, scaled.numpy(), float(t))
    x = scheduler.step(torch.tensor(np.float32(output)), t, x, **step_options).prev_sample.float()
    seen.append(float(t))
  return x.numpy(), seen


def _ours(scheduler, steps, prediction, levels, pipeline='', tokens=0, **options):
  """A jitted sampler, its starting noise, the noise of its steps, and the sampler."""
  sections = schedulers.read({**scheduler.config, '_class_name': type(scheduler).__name__}, 'file', pipeline)
  made = {kind: dict(section) for kind, section in sections.items()}
  process = schedules.PROCESSES[made['process'].pop('name')](**made['process'])
  told = {**made['sampler'], 'steps': steps}
  told['options'] = {**told['options'], **options}
  sampler = sampling.sampler(sampling.SamplerOptions(**told), process, tokens=tokens)
  net = Network(lambda key: ({}, {}), lambda params, mutable, x, time, given, key=None: (
    _predict(jnp, prediction, jnp.asarray(levels, jnp.float32), x, time[:1, None]), mutable))
  objective = Diffusion(net, MEAN.shape, process, parameterizations.PARAMETERIZATIONS[
    made['parameterization']['name']](), sampler, codec=identity())
  keys = jax.random.split(jax.random.key(0), ROWS)

  @jax.jit
  def draw():
    keys_N2 = jax.vmap(jax.random.split)(keys)
    noise = jax.vmap(lambda key: jax.random.normal(key, MEAN.shape))(keys_N2[:, 0])
    draws = jax.vmap(lambda index: samplers.noise(keys_N2[:, 1], index, noise))(jnp.arange(2 * steps))
    return objective.sample({'net': {}}, Context(0, {}, {}, {}), keys, {})['image'], noise, draws

  return (*map(np.asarray, draw()), objective)


def _levels(scheduler):
  if not hasattr(scheduler, 'alphas_cumprod'):
    return np.zeros(2)
  return np.sqrt(1 / np.maximum(scheduler.alphas_cumprod.numpy().astype(np.float64), 2.0 ** -24) - 1)


def _compare(scheduler, steps, monkeypatch, mu=None, pipeline='', tokens=0, step_options=None, **options):
  prediction = scheduler.config.get('prediction_type', 'flow_prediction')
  levels = _levels(scheduler)
  ours, noise, draws, objective = _ours(scheduler, steps, prediction, levels, pipeline, tokens, **options)
  theirs, seen = _theirs(scheduler, steps, prediction, levels, noise, draws, monkeypatch, mu, **(step_options or {}))
  assert np.isfinite(theirs).all()
  np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())
  process = objective.sampler.process or objective.process
  told = np.asarray(jax.jit(jax.vmap(process.embed))(jnp.asarray(objective.sampler.times[:-1], jnp.float32)))
  return told, np.asarray(seen)


@pytest.mark.parametrize('make, steps', [
  (lambda d: d.PNDMScheduler(**SD, skip_prk_steps=True), 50),
  (lambda d: d.PNDMScheduler(**SD, skip_prk_steps=True, prediction_type='v_prediction'), 10),
  (lambda d: d.DDIMScheduler(**SD, clip_sample=False, set_alpha_to_one=False), 50),
  (lambda d: d.DDIMScheduler(**SD, clip_sample=False, set_alpha_to_one=False, prediction_type='v_prediction'), 20),
  (lambda d: d.EulerDiscreteScheduler(**SD, timestep_spacing='leading'), 25),
  (lambda d: d.FlowMatchEulerDiscreteScheduler(shift=3.0), 28),
])
def test_deterministic_schedulers(make, steps, monkeypatch):
  told, seen = _compare(make(diffusers), steps, monkeypatch)
  np.testing.assert_allclose(told, list(dict.fromkeys(seen)), atol=2e-4)
