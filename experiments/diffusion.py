"""Builder of diffusion and flow matching on images: DiT or U-Net, any process, parameterization and sampler."""

from collections.abc import Mapping
import dataclasses
import functools
import inspect
from typing import Any

from genjax import checks
from genjax import config as config_lib
from genjax.diffusion import parameterizations, samplers, schedules, weightings
from genjax.experiments import (
  conditions,
  coupling,
  image_sets,
  images,
  latents,
  measures,
  patch_codes,
  render,
  sections,
)
from genjax.models.denoisers import dit, latent_unet, mmdit, unet
from genjax.objectives.diffusion import Diffusion, Sampler
from genjax.options import Section, named
from genjax.tables import Table
from genjax.training.experiment import Experiment
from genjax.training.optimization import optimizers
from genjax.types import UserError

# Name -> options, network of them, logical axes of its parameters, or a function of the options that gives them
MODELS: Table = Table('denoiser', {
  'dit': (dit.DiT, dit.network, dit.axes), 'unet': (unet.UNet, unet.network, unet.axes),
  'latent_unet': (latent_unet.LatentUNet, latent_unet.network_of, latent_unet.axes),
  'mmdit': (mmdit.MmDit, mmdit.network_of, mmdit.axes)})


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
    sampler=sampler(options, process, learned), learned_variance=learned, codec=space.codec,
    noise_column=coupling.NOISE if coupled.coupling == 'ot' else '', **choices)
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
  goal, method = config.objective, samplers.SAMPLERS.get(config.sampler.get('name'))
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
    'sampler': Section((SamplerOptions,), names=tuple(samplers.SAMPLERS)),
    'sampler.options': Section((method,) if method else (), dict.fromkeys(_shared(method) if method else (), ''),
                               chooser='sampler.name',
                               others={name: (other,) for name, other in samplers.SAMPLERS.items()})}


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


@dataclasses.dataclass(frozen=True)
class SamplerOptions:
  """config.sampler.

  Attributes:
    name: one of `samplers.SAMPLERS`.
    steps: number of steps.
    spacing: 'uniform', 'quadratic' or 'karras', see `schedules.sampling_times`; '' for the process's own.
    shift: of 'uniform': above 1 moves times towards noise (Esser et al. 2024, eq. 23).
    rho: of 'karras': above 1 puts more steps near the data (Karras et al. 2022, eq. 5).
    sigma_min: of 'karras': sigma of the last step before the data, in units of the data.
    sigma_max: of 'karras': sigma of the first step; 0 for the start of the process.
    guidance: scale of classifier-free guidance by all conditions together; 1 is the conditional model.
    guidances: condition -> its own scale, in place of `guidance`, nested in the order of the names, see
      `genjax.objectives.diffusion.Sampler`.
    rescale: brings the guided estimate back to the deviation of the conditional one, 1 all the way (Lin et al. 2024).
    interval: (low, high), only noise levels sigma / alpha above low and up to high are guided; () for all. On `flow`,
      sigma / alpha is t / (1 - t).
    clip: bound on |x0_hat|; 0 for none.
    options: keywords of the sampler's function.

  Raises:
    UserError: an interval that is none, or a negative clip.
  """

  name: str
  steps: int
  spacing: str = ''
  shift: float = 1.0
  rho: float = 7.0
  sigma_min: float = 0.002
  sigma_max: float = 0.0
  guidance: float = 1.0
  guidances: Mapping[str, float] = dataclasses.field(default_factory=dict)
  rescale: float = 0.0
  interval: tuple[float, ...] = ()
  clip: float = 0.0
  options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    checks.whole(self, 1, 'steps')
    checks.between(self, ('guidance', 'clip'), at_least=0)
    checks.between(self, ('rescale',), at_least=0, at_most=1)
    checks.between(self.options, ('eta',), at_least=0)
    interval = self.interval
    numbers = all(isinstance(value, (int, float)) for value in interval)
    if interval and not (numbers and len(interval) == 2 and 0 <= interval[0] < interval[1]):
      raise UserError('config.sampler.interval must be () or two noise levels sigma / alpha, the lower of at least 0 '
                      f'first, got {tuple(interval)}')


def sampler(options: SamplerOptions, process: schedules.Process, learned: bool = False) -> Sampler:
  """The sampler that config.sampler describes.

  Args:
    options: config.sampler.
    process: the process.
    learned: the model learns variances; `ancestral` takes them unless its options name others.

  Raises:
    UserError: an unknown sampler, spacing or option, or a number out of range.
  """
  method = config_lib.choose(samplers.SAMPLERS, options.name, 'config.sampler.name')
  keywords = dict(options.options)
  config_lib.build(_check_only(method), keywords, 'config.sampler.options', **dict.fromkeys(_shared(method)))
  if method is samplers.ancestral:
    keywords.setdefault('variance', 'learned' if learned else 'small')
    if keywords['variance'] not in samplers.VARIANCES:
      raise UserError(f'config.sampler.options.variance must be one of {samplers.VARIANCES}, got '
                      f'{keywords["variance"]!r}')
  times = schedules.sampling_times(process, options.steps, options.spacing or None, shift=options.shift,
                                   rho=options.rho, sigma_min=options.sigma_min, sigma_max=options.sigma_max)
  low_high = (float(options.interval[0]), float(options.interval[1])) if options.interval else None
  return Sampler(functools.partial(method, **keywords), tuple(times.tolist()),
                 guidance=1.0 if options.guidances else options.guidance, guidances=dict(options.guidances),
                 rescale=options.rescale, interval=low_high, clip=options.clip,
                 learned=keywords.get('variance') == 'learned')


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


def _shared(method: Any) -> list[str]:
  """The arguments of a sampler that every sampler has, which are no options."""
  return list(inspect.signature(method).parameters)[:len(samplers.SAMPLERS.takes or ())]


def _check_only(method: Any) -> Any:
  """A function with the method's signature that does nothing, for checking options before any computation."""
  return functools.wraps(method)(lambda **keywords: None)


def _named(table: dict, options: dict, where: str) -> Any:
  return config_lib.build(config_lib.choose(table, options['name'], f'{where}.name'), options, where)
