"""Diffusion and flow matching on images: DiT or U-Net, any process, parameterization and sampler."""

import functools
from typing import Any

from experiments import images, measures, render
from genjax import checks
from genjax import config as config_lib
from genjax.diffusion import parameterizations, samplers, schedules
from genjax.models import dit, unet
from genjax.objectives.diffusion import Diffusion, Sampler, identity, pixels
from genjax.training import optimizers
from genjax.training.experiment import Experiment
from genjax.types import UserError

MODELS = {'dit': (dit.DiT, dit.network, dit.AXES), 'unet': (unet.UNet, unet.network, unet.AXES)}


def build(config: Any) -> Experiment:
  """A diffusion model. config.data: see `experiments.images.batches`. config.model: name and options of `MODELS`.

  config.objective: process and parameterization (each a name with options), times (name 'default' for the process's own,
  or one of `schedules.QUANTILES` with options), label_dropout, stratified. config.sampler: see `sampler`.

  Raises:
    UserError: an unknown name or option, or guidance that the model cannot give.
  """
  images.check(config.data)
  data = config.data
  options, make, axes = config_lib.choose(MODELS, config.model.name, 'config.model.name')
  model = config_lib.build(options, config.model, 'config.model', shape=tuple(data.shape), num_classes=data.num_classes)
  goal = config_lib.plain(config.objective)
  process = _named(schedules.PROCESSES, goal.pop('process'), 'config.objective.process')
  parameterization = _named(parameterizations.PARAMETERIZATIONS, goal.pop('parameterization'),
                            'config.objective.parameterization')
  times = goal.pop('times')
  quantile = None if times['name'] == 'default' else _named(schedules.QUANTILES, times, 'config.objective.times')
  if quantile and process.steps:
    raise UserError(f"config.objective.times must be 'default' for a process of {process.steps} whole steps, got {times['name']!r}")
  if config.sampler.guidance != 1.0 and not (data.num_classes and config.objective.label_dropout):
    raise UserError(f'config.sampler.guidance={config.sampler.guidance} needs config.data.num_classes and '
                    'config.objective.label_dropout above 0; without them set it to 1.0')
  objective = config_lib.build(
    Diffusion, goal, 'config.objective', net=make(model), shape=tuple(data.shape), process=process,
    parameterization=parameterization, quantile=quantile, num_classes=data.num_classes, sampler=sampler(config.sampler, process),
    codec=identity() if images.content(config) == 'latents' else pixels())
  return Experiment(
    objective=objective,
    train=images.batches(config, data.train),
    heldout=images.batches(config, data.heldout, shuffle=False),
    optimizers=optimizers.from_config(config.optimizers, config.steps),
    example=images.example(config),
    ema=config_lib.plain(config.ema),
    axes={'net': axes},
    conditions=images.conditions(config),
    render=lambda samples: {'samples': render.grid(render.visible(samples['image']))},
    metrics=measures.image_metrics(config))


def sampler(config: Any, process: schedules.Process) -> Sampler:
  """The sampler of config.sampler.

  Args:
    config: name (one of `samplers.SAMPLERS`), options (keywords of that function), steps, spacing ('' for the process's
      own; see `schedules.sampling_times`), guidance, clip (bound on |x0_hat|, 0 for none).
    process: the process.

  Raises:
    UserError: an unknown sampler, spacing or option, or a number of steps out of range.
  """
  method = config_lib.choose(samplers.SAMPLERS, config.name, 'config.sampler.name')
  config_lib.build(_check_only(method), config.options, 'config.sampler.options', **dict.fromkeys(_SHARED))
  options = config_lib.plain(config.options)
  with checks.under('config.sampler.options'):
    checks.between(options, ('eta',), at_least=0)
  with checks.under('config.sampler'):
    checks.whole(config_lib.plain(config), 1, 'steps')
  times = schedules.sampling_times(process, config.steps, config.spacing or None)
  with checks.under('config.sampler'):
    return Sampler(functools.partial(method, **options), tuple(times.tolist()), guidance=config.guidance, clip=config.clip)


_SHARED = ('denoise', 'x_BX', 'process', 'times', 'keys_B')  # arguments that every sampler has


def _check_only(method: Any) -> Any:
  """A function of the method's signature that does nothing: its options are checked before anything is computed."""
  return functools.wraps(method)(lambda **keywords: None)


def _named(table: dict, options: dict, where: str) -> Any:
  return config_lib.build(config_lib.choose(table, options['name'], f'{where}.name'), options, where)
