"""Diffusion and flow matching on images: DiT or U-Net, any process, parameterization and sampler."""

import functools
from typing import Any

import jax
import numpy as np

from experiments import render
from genjax import config as config_lib
from genjax.data import pipeline, sources
from genjax.diffusion import parameterizations, samplers, schedules
from genjax.models import dit, unet
from genjax.objectives.diffusion import Diffusion, Sampler
from genjax.training import optimizers
from genjax.training.experiment import Condition, Experiment
from genjax.types import UserError

MODELS = {'dit': (dit.DiT, dit.network, dit.AXES), 'unet': (unet.UNet, unet.network, unet.AXES)}


def build(config: Any) -> Experiment:
  """The experiment of a config.

  config.data: name, train, heldout (splits), shape (H, W, C), num_classes (0: no labels), flip (mirror half of the
  training images), data_dir, originals. config.model: name and options of `MODELS`. config.objective: process,
  parameterization (each a name with options), times (name 'default' or one of `schedules.QUANTILES`), label_dropout,
  stratified. config.sampler: name, steps, guidance, spacing, clip and options of the method.

  Raises:
    UserError: an unknown name or option, or data of another shape than config.data.shape.
  """
  data, shape = config.data, tuple(config.data.shape)
  options, make, axes = config_lib.choose(MODELS, config.model.name, 'config.model.name')
  net = make(config_lib.build(options, config.model, 'config.model', shape=shape, num_classes=data.num_classes))
  goal = config_lib.plain(config.objective)
  process = _named(schedules.PROCESSES, goal.pop('process'), 'config.objective.process')
  times = goal.pop('times')
  if times['name'] != 'default':
    goal['quantile'] = _named(schedules.QUANTILES, times, 'config.objective.times')
  objective = config_lib.build(
    Diffusion, goal, 'config.objective', net=net, shape=shape, process=process, num_classes=data.num_classes,
    parameterization=_named(parameterizations.PARAMETERIZATIONS, goal.pop('parameterization'),
                            'config.objective.parameterization'),
    sampler=sampler(config.sampler, process))

  def batches(split: str, **more: Any) -> pipeline.Pipeline:
    return pipeline.Pipeline(functools.partial(_open, data, split), config.batch_size, config.seed, **more)

  return Experiment(
    objective=objective,
    train=batches(data.train, transform=flip if data.flip else None),
    heldout=batches(data.heldout, shuffle=False),
    example={'image': jax.ShapeDtypeStruct(shape, np.uint8)}
    | ({'label': jax.ShapeDtypeStruct((), np.int32)} if data.num_classes else {}),
    optimizers=optimizers.from_config(config.optimizers, config.steps),
    ema=dict(config.ema),
    axes={'net': axes},
    conditions={'label': Condition.label(data.num_classes)} if data.num_classes else {},
    render=lambda samples: {'samples': render.grid(samples['image'])})


def sampler(config: Any, process: schedules.Process) -> Sampler:
  """The sampler of config.sampler.

  Raises:
    UserError: an unknown sampler, spacing or option.
  """
  method = config_lib.choose(samplers.SAMPLERS, config.name, 'config.sampler.name')
  placeholders = dict(denoise=None, x_BX=None, process=None, times=None, keys_B=None)
  config_lib.build(_accepts(method), config.options, 'config.sampler.options', **placeholders)
  return Sampler(functools.partial(method, **config.options),
                 tuple(schedules.sampling_times(process, config.steps, config.spacing or None).tolist()),
                 guidance=config.guidance, clip=config.clip)


def flip(columns: pipeline.Columns, random: pipeline.RowRandom) -> pipeline.Columns:
  """Mirrors half of the images."""
  image_BHWC = columns['image']
  mirrored_B111 = random.uniform()[:, None, None, None] < 0.5
  return dict(columns, image=np.where(mirrored_B111, image_BHWC[:, :, ::-1], image_BHWC))


def _named(table: dict, options: dict, where: str) -> Any:
  return config_lib.build(config_lib.choose(table, options['name'], f'{where}.name'), options, where)


def _accepts(method):
  """A function of the method's signature that does nothing, to check options before anything is computed."""
  return functools.wraps(method)(lambda **keywords: None)


def _open(data: Any, split: str) -> sources.Arrays | sources.Records:
  """The source of a split, checked against the shape and classes that the network was made for."""
  source = sources.open_tfds(data.name, split, data_dir=data.data_dir or None, originals=data.originals or None)
  first = source.get(np.zeros(1, np.int64))
  if 'image' not in first or first['image'].shape[1:] != tuple(data.shape):
    got = first['image'].shape[1:] if 'image' in first else f'only the columns {sorted(first)}'
    raise UserError(f'config.data.shape is {tuple(data.shape)}, but {data.name} has images of {got}; change one of them')
  if data.num_classes and 'label' not in first:
    raise UserError(f'config.data.num_classes is {data.num_classes}, but {data.name} has no labels; set it to 0')
  return source
