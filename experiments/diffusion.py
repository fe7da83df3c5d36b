"""Builder of diffusion and flow matching on images: DiT or U-Net, any process, parameterization and sampler."""

import dataclasses
from typing import Any

from genjax import checks
from genjax import config as config_lib
from genjax.diffusion import parameterizations, schedules, weightings
from genjax.experiments import (
  conditions,
  coupling,
  image_sets,
  images,
  latents,
  measures,
  patch_codes,
  render,
  sampling,
  sections,
)
from genjax.experiments.sampling import SamplerOptions, sampler
from genjax.models.denoisers import dit, latent_unet, mmdit, pixart, unet
from genjax.objectives.diffusion import Diffusion
from genjax.options import Section, named
from genjax.tables import Table
from genjax.training.experiment import Experiment
from genjax.training.optimization import optimizers
from genjax.types import UserError

# Name -> options, network of them, logical axes of its parameters, or a function of the options that gives them
MODELS: Table = Table('denoiser', {
  'dit': (dit.DiT, dit.network, dit.axes), 'unet': (unet.UNet, unet.network, unet.axes),
  'latent_unet': (latent_unet.LatentUNet, latent_unet.network_of, latent_unet.axes),
  'mmdit': (mmdit.MmDit, mmdit.network_of, mmdit.axes), 'pixart': (pixart.PixArt, pixart.network, pixart.axes)})


def build(config: Any) -> Experiment:
  """A diffusion model. config.data: see `genjax.experiments.images.Data`. config.model: name and options of
  `MODELS`.

  config.objective: process and parameterization (each a name with options), times (name 'default' for the process's
  own, or one of `schedules.QUANTILES` with options), weighting (one of `weightings.WEIGHTINGS` with options; 'uniform'
  if absent), label_dropout, stratified, and what `genjax.experiments.coupling.Coupling` holds. config.sampler: see
  `SamplerOptions`. config.conditions: see `genjax.experiments.conditions`. config.parts.autoencoder: see
  `genjax.experiments.latents`. config.code: see `genjax.experiments.patch_codes`.

  Raises:
    UserError: an unknown name or option, guidance that the model cannot give, or parts that do not fit together, see
      `Diffusion`.
  """
  images.check(config.data, buckets=True)
  data, space = config.data, latents.space(config)
  kind, make, axes = config_lib.choose(MODELS, config.model.name, 'config.model.name')
  goal = config_lib.plain(config.objective)
  choices = chosen(goal)
  process = choices['process']
  coupled = coupling.read(goal)
  dropped = {key: goal.pop(key) for key in ('label_dropout',) if key in goal}
  labels = config_lib.build(Labels, dropped, 'config.objective')
  told = conditions.of(config, space.shape, space.open, labels.label_dropout)
  model = config_lib.build(kind, config.model, 'config.model', shape=space.shape, **told.of_network(kind))
  if data.get('buckets'):
    multiple = getattr(model, 'patch', getattr(model, 'factor', 1)) * data.shape[0] // space.shape[0]
    image_sets.check_buckets(data, multiple, config.model.name)
  learned = getattr(model, 'learn_sigma', False)
  options = config_lib.build(SamplerOptions, config_lib.plain(config.sampler), 'config.sampler',
                             name=config.sampler.name)
  told.check_guidance(options.guidance, options.guidances)
  objective = config_lib.build(
    Diffusion, goal, 'config.objective', net=make(model), shape=space.shape, conditioners=told.conditioners,
    sampler=sampler(options, process, learned, sampling.tokens(model, space.shape)), learned_variance=learned,
    codec=space.codec, noise_column=coupling.NOISE if coupled.coupling == 'ot' else '', **choices)
  coupled.check_images(data, space.shape)
  experiment = Experiment(
    objective=objective,
    train=coupled.noised(space.batches(data.train, True, told.reads, told.mirrored), 'image', space.shape),
    heldout=coupled.noised(space.batches(data.heldout, False, told.reads, told.mirrored), 'image', space.shape),
    optimizers=optimizers.from_config(config.optimizers, config.steps),
    example={**space.example, **coupled.example(space.shape)},
    shapes=images.shapes(config),
    assets=images.assets(config),
    ema=config_lib.plain(config.ema),
    axes={'net': axes(model) if callable(axes) else axes},
    render=lambda samples: {'samples': render.grid(render.visible(samples['image']))},
    metrics=measures.image_metrics(config))
  return told.complete(space.attach(experiment))


def model_options(config: Any) -> Any:
  """The options of the network of a config, of the class that `MODELS` has."""
  space = latents.space(config)
  kind, _, _ = config_lib.choose(MODELS, config.model.name, 'config.model.name')
  told = conditions.of(config, space.shape, space.open)
  return config_lib.build(kind, config.model, 'config.model', shape=space.shape, **told.of_network(kind))


def options(config: Any) -> dict[str, Section]:
  """What the sections of the config take."""
  return {
    'data': images.DATA,
    'code': patch_codes.CODE,
    'model': named({name: row[0] for name, row in MODELS.items()}, config.model,
                   computed={**dict.fromkeys(conditions.NETWORK, 'config.conditions'), **sections.MADE}),
    **goal_and_sampler(config, Labels),
    'evaluation': measures.EVALUATION,
    **conditions.options(config),
    **sections.training(config)}


def goal_and_sampler(config: Any, *more: type) -> dict[str, Section]:
  """The sections objective and sampler of a config of diffusion; `more` takes further options of the objective."""
  goal = config.objective
  made = {'net': '', 'sampler': '', 'codec': 'config.data.content', 'shape': 'config.data.shape',
          'conditioners': 'config.conditions and config.data.num_classes', 'source': 'config.data',
          'noise_column': 'config.objective.coupling',
          'learned_variance': 'config.model.learn_sigma', 'quantile': 'config.objective.times'}
  parts = {
    'process': named(schedules.PROCESSES, goal.get('process')),
    'parameterization': named(parameterizations.PARAMETERIZATIONS, goal.get('parameterization')),
    'times': named({'default': None, **schedules.QUANTILES}, goal.get('times')),
    'weighting': named(weightings.WEIGHTINGS, goal.get('weighting'), name='uniform')}
  return {
    'objective': Section((Diffusion, *more, coupling.Coupling),
                         {**made, **{part: f'config.objective.{part}.name' for part in parts}}),
    **{f'objective.{part}': section for part, section in parts.items()},
    **sampling.sections(config)}


def chosen(goal: dict[str, Any]) -> dict[str, Any]:
  """Takes what has a name of its own out of config.objective: the arguments process, parameterization, quantile and
  weighting of `Diffusion`.

  Raises:
    UserError: an unknown name or option, or times that the process does not have.
  """
  process = _named(schedules.PROCESSES, goal.pop('process'), 'config.objective.process')
  parameterization = _named(parameterizations.PARAMETERIZATIONS, goal.pop('parameterization'),
                            'config.objective.parameterization')
  quantile = _times(goal.pop('times'), process)
  weighting = _named(weightings.WEIGHTINGS, goal.pop('weighting', {'name': 'uniform'}), 'config.objective.weighting')
  return dict(process=process, parameterization=parameterization, quantile=quantile, weighting=weighting)


@dataclasses.dataclass(frozen=True)
class Labels:
  """What config.objective holds of class labels.

  Attributes:
    label_dropout: probability with which training replaces a label by "no label", which guidance needs; of labels that
      config.conditions says nothing of.

  Raises:
    UserError: it is no probability below 1.
  """

  label_dropout: float = 0.1

  def __post_init__(self):
    checks.rates(self, 'label_dropout')


def _times(options: dict, process: schedules.Process) -> schedules.Quantile | None:
  """The distribution of training times in config.objective.times; None for that of the process."""
  name = options['name']
  if name == 'default':
    return None
  quantile = _named(schedules.QUANTILES, options, 'config.objective.times')
  if process.steps:
    raise UserError(f"config.objective.times must be 'default' for a process of {process.steps} whole steps, got "
                    f'{name!r}')
  wrong = schedules.UNIT_TIMES if process.spacing == 'karras' else schedules.UNBOUNDED_TIMES
  if name in wrong:
    known = sorted(set(schedules.QUANTILES) - set(wrong))
    raise UserError(f"config.objective.times must be 'default' or one of {known} for a process with times from 0 to "
                    f'{process.start:g}, got {name!r}')
  return quantile


def _named(table: dict, options: dict, where: str) -> Any:
  return config_lib.build(config_lib.choose(table, options['name'], f'{where}.name'), options, where)
