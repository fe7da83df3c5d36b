"""Builder of generative adversarial networks: DCGAN and residual networks on images, MLPs on points in the plane."""

import dataclasses

import jax
import numpy as np

from genjax import checks
from genjax import config as config_lib
from genjax.config import Config
from genjax.data import synthetic
from genjax.data.pipeline import Pipeline
from genjax.experiments import augmentation, generators, images, lazy, measures, render, sections
from genjax.models.adversarial import biggan, dcgan, pacgan, r3gan, residual, stylegan2, stylegan3
from genjax.objectives import kinds
from genjax.objectives.gan import Gan
from genjax.objectives.style import StyleGan
from genjax.objectives.truncated import TruncatedGan
from genjax.options import Section, named
from genjax.tables import Table
from genjax.training.experiment import Columns, Condition, Experiment
from genjax.training.monitoring.collapse import Collapse
from genjax.training.optimization import optimizers
from genjax.types import UserError

# Name -> draw(size, seed), centres of the modes, their deviation
MIXTURES: Table = Table('mixture', {
  'gaussian_grid': (synthetic.gaussian_grid, synthetic.grid_centres, synthetic.GRID_DEVIATION),
  'gaussian_ring': (synthetic.gaussian_ring, synthetic.ring_centres, synthetic.RING_DEVIATION),
})
# Name -> options, logical axes of the parameters by group
IMAGE_MODELS: Table = Table('GAN of images', {
  'dcgan': (dcgan.Dcgan, dcgan.DCGAN_AXES),
  'pac_dcgan': (pacgan.PacDcgan, pacgan.AXES),
  'residual': (residual.ResidualGan, residual.AXES),
  'biggan': (biggan.BigGan, biggan.AXES),
  'r3gan': (r3gan.R3Gan, r3gan.AXES),
  'stylegan2': (stylegan2.StyleGan2, stylegan2.AXES),
  'stylegan3': (stylegan3.StyleGan3, stylegan3.AXES)})
# Model -> its objective, where that is not `Gan`
GOALS: Table[type[Gan]] = Table('GAN objective', {
  'biggan': TruncatedGan, 'stylegan2': StyleGan, 'stylegan3': StyleGan})
# Keys that may change when a run is sampled or evaluated: training does not read them
SAMPLING = ('objective.truncation', 'objective.truncation_layers', 'objective.standing', 'objective.standing_batch')
POINTS = 'points'


def build(config: Config) -> Experiment:
  """A GAN experiment.

  config.model: name and options of one of `IMAGE_MODELS`, or name 'points' and options of
  `genjax.models.adversarial.dcgan.PointGan`.
  config.objective: options of `genjax.objectives.gan.Gan` and of `More`; for objective.augment see
    `genjax.experiments.augmentation`.
  config.data: for images see `genjax.experiments.images.Data`, for points `Points`.

  Raises:
    UserError: unknown names or options; networks and losses that do not fit each other.
  """
  models = {**IMAGE_MODELS, POINTS: (dcgan.PointGan, dcgan.POINT_AXES)}
  kind, axes = config_lib.choose(models, config.model.name, 'config.model.name')
  points = config.model.name == POINTS
  if points:
    with checks.under('config.data'):
      checks.whole(config_lib.plain(config.data), 1, 'size')
  else:
    images.check(config.data)
  objective_options = dict(config.objective)
  conditional = objective_options.pop('conditional', False)
  corrected = objective_options.pop('corrected_adam', False)
  augment = augmentation.make(objective_options.pop('augment', None), 0 if points else config.data.shape[2])
  if conditional and points:
    raise UserError('config.objective.conditional needs labelled images, and points have no label; set it to False')
  if conditional and not config.data.num_classes:
    raise UserError('config.objective.conditional=True needs labelled images, and config.data.num_classes is 0; set '
                    'it to the number of classes, or conditional to False')
  num_classes = config.data.num_classes if conditional else None
  if points:
    model = config_lib.build(kind, config.model, 'config.model', dimensions=2, num_classes=None)
  else:
    height, width, channels = config.data.shape
    if height != width:
      raise UserError(f'config.data.shape must be square images for a GAN, got {tuple(config.data.shape)}')
    model = config_lib.build(kind, config.model, 'config.model', size=height, channels=channels,
                             num_classes=num_classes)
  goal = GOALS.get(config.model.name, Gan)
  objective = config_lib.build(
    goal, objective_options, 'config.objective', generator=model.generator(), discriminator=model.discriminator(),
    kind='point' if points else 'image', num_classes=num_classes, augment=augment,
    perturb=augmentation.perturbation(objective_options), **{name: getattr(model, name) for name in goal.of_model})
  objective.check_rows(config.batch_size // config.microbatches,
                       'microbatches' if config.microbatches > 1 else 'batches')
  if objective.feature_matching and not getattr(model, 'gives_features', False):
    raise UserError(f'config.objective.feature_matching needs a discriminator that gives its features, and that of '
                    f'config.model.name={config.model.name!r} does not; set it to 0')
  if objective.loss == 'wgan_gp' and getattr(model, 'discriminator_norm', 'none') == 'batch':
    raise UserError(
      "config.objective.loss 'wgan_gp' penalises the gradient of each sample, which batch normalisation in the "
      "discriminator makes meaningless; set config.model.discriminator_norm to 'none'")
  train, heldout = _mixture(config) if points else (
    images.batches(config, config.data.train), images.batches(config, config.data.heldout, shuffle=False))
  example = {'point': jax.ShapeDtypeStruct((2,), np.float32)} if points else images.example(config)
  return Experiment(
    objective=objective, train=train, heldout=heldout, optimizers=_optimizers(config, objective, corrected),
    ema=dict(config.ema), hooks=(_collapse(objective),) if objective.watch else (),
    example=example, axes=axes,
    assets={} if points else images.assets(config),
    conditions={'label': Condition.label(num_classes)} if num_classes else {},
    render=_scatter(config) if points else lambda samples: {'samples': render.grid(samples['image'])},
    metrics=_mode_metrics(config) if points else measures.image_metrics(config))


def generator(config: Config, experiment: Experiment) -> kinds.Generator:
  """The generator of pictures, for ways between its codes; see `genjax.experiments.generators`."""
  return generators.of_images(config, experiment.objective)


@dataclasses.dataclass(frozen=True)
class More:
  """What config.objective has beside the options of `Gan`.

  Attributes:
    conditional: whether both networks see the label.
    corrected_adam: whether the rates and decays of Adam are corrected for phases that a group has beside its main one,
      see `genjax.experiments.lazy`.
  """

  conditional: bool = False
  corrected_adam: bool = False


@dataclasses.dataclass(frozen=True)
class Points:
  """config.data of points.

  Attributes:
    name: one of `MIXTURES`.
    size: training points, which are drawn once.
  """

  name: str
  size: int


def options(config: Config) -> dict[str, Section]:
  """What the sections of the config take."""
  points = config.model.get('name') == POINTS
  classes = {'num_classes': 'config.objective.conditional and config.data.num_classes'}
  shape = {'dimensions': ''} if points else {'size': 'config.data.shape', 'channels': 'config.data.shape'}
  goal = GOALS.get(config.model.get('name'), Gan)
  made = {'generator': '', 'discriminator': '', 'kind': 'config.model.name', 'augment': '',
          'perturb': 'config.objective.consistency', **classes, **goal.of_model}
  return {
    'data': Section((Points,), names=tuple(MIXTURES)) if points else images.DATA,
    'model': named({**{name: row[0] for name, row in IMAGE_MODELS.items()}, POINTS: dcgan.PointGan}, config.model,
                   computed={**classes, **shape}),
    'objective': Section((goal, More), made, others={name: (other,) for name, other in GOALS.items()},
                         chooser='model.name'),
    **({} if points else {'evaluation': measures.EVALUATION,
                          'objective.augment': augmentation.section(config.objective.get('augment'))}),
    **sections.training(config)}


def _collapse(objective: Gan) -> Collapse:
  """What warns of collapse. A critic whose loss is a distance tells real and fake apart as long as there is one."""
  return Collapse(accuracy=1.0) if objective.loss == 'wgan_gp' else Collapse()


def _mixture(config: Config) -> tuple[Pipeline, Pipeline]:
  draw, _, _ = config_lib.choose(MIXTURES, config.data.name, 'config.data.name')
  return (Pipeline(lambda: draw(config.data.size, seed=0), config.batch_size, config.seed),
          Pipeline(lambda: draw(max(config.batch_size, config.data.size // 10), seed=1), config.batch_size, config.seed,
                   shuffle=False))


def _mode_metrics(config: Config):
  _, centres, deviation = MIXTURES[config.data.name]
  return measures.mode_metrics(centres(), deviation)


def _optimizers(config: Config, objective: Gan, corrected: bool = False) -> dict:
  """Optimizers with schedules that end with the run."""
  updates = lazy.updates(objective.phases(), config.steps)
  made = optimizers.from_config(config.optimizers, updates)
  if not corrected:
    return made
  # What is corrected was right before, as `made` shows
  return optimizers.from_config({
    group: lazy.corrected(options, lazy.share(objective.phases(), group), f'config.optimizers.{group}')
    for group, options in config.optimizers.items()}, updates)


def _scatter(config: Config, pixels: int = 320):
  """Points as black dots; rings mark the modes at three standard deviations."""
  _, centres, deviation = MIXTURES[config.data.name]
  centre_K2 = centres()
  reach = 1.25 * float(np.abs(centre_K2).max())

  def draw(samples: Columns) -> dict[str, np.ndarray | str]:
    axis = (np.arange(pixels) + 0.5) / pixels * 2 * reach - reach
    sheet_HWC = np.full((pixels, pixels, 3), 255, np.uint8)
    step = 2 * reach / pixels
    for x, y in centre_K2:
      distance_HW = np.hypot(axis[None, :] - x, -axis[:, None] - y)
      sheet_HWC[np.abs(distance_HW - 3 * deviation) < step / 2] = (230, 120, 60)
    return {'samples': render.points(samples['point'], reach, sheet_HWC)}

  return draw
