"""Builder of pictures from pictures: pix2pix from pairs, CycleGAN without them, and enlargement.

A run draws from a picture, or from each of a folder:

    genjax sample --workdir=runs/edges --conditions=image=FOLDER --out=drawn/
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np

from genjax import config as config_lib
from genjax.config import Config
from genjax.data.images import pairs
from genjax.experiments import judges, render, sections, translation_data
from genjax.experiments import parts as parts_lib
from genjax.experiments.measuring import translations
from genjax.models.adversarial import enlarger, resnet_generator, unet_generator
from genjax.objectives.cycle import Cycle
from genjax.objectives.pix2pix import CRITIC, GENERATOR, PERCEPTUAL, Pix2Pix
from genjax.options import Section, named
from genjax.tables import Table
from genjax.training.experiment import Columns, Experiment
from genjax.training.optimization import optimizers
from genjax.types import UserError

# Name -> options, logical axes of the parameters
GENERATORS: Table = Table('generator of pictures from pictures', {
  'unet': (unet_generator.UNetGenerator, unet_generator.AXES),
  'resnet': (resnet_generator.ResnetGenerator, resnet_generator.AXES),
  'enlarger': (enlarger.Enlarger, enlarger.AXES)})
OBJECTIVES = {'pix2pix': Pix2Pix, 'cycle': Cycle}
COMPUTED = {
  'pix2pix': {'generator': 'config.model', 'critic': 'config.critic', 'perceptual': 'config.parts.perceptual',
              'modes': 'config.model', 'statistics': 'config.sampler', 'drop': 'config.sampler'},
  'cycle': {'forward': 'config.model', 'back': 'config.model', 'critics': 'config.critic', 'shapes': 'config.data',
            'direction': 'config.sampler', 'counterparts': 'config.data'}}


@dataclasses.dataclass(frozen=True)
class Modes:
  """config.sampler of pix2pix.

  Attributes:
    statistics: what normalises at test: 'running' averages, or those of each 'picture' alone, as in the paper.
    drop: whether there is dropout at test, as in the paper.
  """

  statistics: str = 'running'
  drop: bool = False


@dataclasses.dataclass(frozen=True)
class Direction:
  """config.sampler of CycleGAN.

  Attributes:
    direction: 'forward' draws targets of sources, 'back' sources of targets.
  """

  direction: str = 'forward'


SAMPLERS = {'pix2pix': Modes, 'cycle': Direction}


def build(config: Config) -> Experiment:
  """An experiment of pictures from pictures.

  config.data: see `genjax.experiments.translation_data.Data`. config.model: name and options of one of `GENERATORS`.
  config.critic: see `genjax.experiments.judges.CRITICS`; {} for none. config.objective: name, one of `OBJECTIVES`, and
  its options. config.sampler: `Modes` or `Direction`. config.parts.perceptual: a perceptual distance to learn from.

  Raises:
    UserError: an unknown name or option, or sizes that a network cannot have.
  """
  data = translation_data.read(config)
  goal, sampler = dict(config.objective), config_lib.plain(config.sampler)
  kind = goal.pop('name', 'pix2pix')
  config_lib.choose(OBJECTIVES, kind, 'config.objective.name')
  chosen = dataclasses.asdict(config_lib.build(SAMPLERS[kind], sampler, 'config.sampler'))
  shapes = data.shapes()
  generator, axes = _generator(config, shapes[pairs.SOURCE], shapes[pairs.TARGET])
  tables: dict[str, Any] = {GENERATOR: axes}
  parts: tuple[parts_lib.Part, ...] = ()
  if kind == 'cycle':
    back, _ = _generator(config, shapes[pairs.TARGET], shapes[pairs.SOURCE])
    found = {name: _critic(config, shape, shape[2]) for name, shape in shapes.items()}
    if PERCEPTUAL in (config.get('parts') or {}):
      raise UserError(f'config.parts.{PERCEPTUAL} compares pairs, and config.objective.name=cycle learns without them; '
                      'leave it out')
    objective: Any = config_lib.build(
      Cycle, goal, 'config.objective', forward=generator.generator(), back=back.generator(),
      critics={name: network for name, (network, _) in found.items()}, shapes=shapes, counterparts=data.counterparts,
      **chosen)
    tables = {GENERATOR: _inside('forward|back', axes), CRITIC: _inside('image|source', found[pairs.TARGET][1])}
  else:
    made: dict[str, Any] = {}
    if config.get(CRITIC):
      conditional = goal.get('conditional', True)
      if conditional and shapes[pairs.SOURCE][:2] != shapes[pairs.TARGET][:2]:
        raise UserError(f'config.objective.conditional puts sources of {shapes[pairs.SOURCE][:2]} beside pictures of '
                        f'{shapes[pairs.TARGET][:2]}, which need one size; set it to False')
      seen = shapes[pairs.TARGET][2] + (shapes[pairs.SOURCE][2] if conditional else 0)
      made[CRITIC], tables[CRITIC] = _critic(config, shapes[pairs.TARGET], seen)
    if PERCEPTUAL in (config.get('parts') or {}):
      part = parts_lib.open(config, PERCEPTUAL, PERCEPTUAL)
      judges.check_size(part, data.shape)
      if part.functions.loss is None:
        raise UserError(f'config.parts.{PERCEPTUAL} only measures, and a loss needs gradients; name a folder of '
                        'vgg16_lpips or alexnet_lpips, or a classifier')
      made[PERCEPTUAL], parts = part.functions, (part,)
    objective = config_lib.build(Pix2Pix, goal, 'config.objective', generator=generator.generator(),
                                 modes=generator.modes, **made, **chosen)
  return parts_lib.attach(_experiment(config, data, objective, tables, kind == 'pix2pix'), *parts)


def options(config: Config) -> dict[str, Section]:
  """What the sections of the config take."""
  kind = config.objective.get('name', 'pix2pix')
  known = kind in OBJECTIVES
  critic = {CRITIC: named({name: row[0] for name, row in judges.CRITICS.items()}, config[CRITIC],
                          computed={'channels': 'config.data'})} if config.get(CRITIC) else {}
  return {
    'data': Section((translation_data.Data,)),
    'model': named({name: row[0] for name, row in GENERATORS.items()}, config.model,
                   computed=dict.fromkeys(('channels', 'source_channels', 'factor'), 'config.data')),
    **critic,
    'objective': named(OBJECTIVES, config.objective, computed=COMPUTED[kind] if known else {}, name='pix2pix'),
    'sampler': Section((SAMPLERS[kind],) if known else ()),
    'evaluation': Section((translations.Options,)),
    **sections.training(config)}


def _generator(config: Config, source: tuple[int, int, int], target: tuple[int, int, int]) -> tuple[Any, Any]:
  """Options of the generator of a direction, and logical axes."""
  kind, axes = config_lib.choose(GENERATORS, config.model.name, 'config.model.name')
  grows = target[0] // source[0]
  takes = {field.name for field in dataclasses.fields(kind)}
  made = {'channels': target[2], 'source_channels': source[2], **({'factor': grows} if 'factor' in takes else {})}
  model = config_lib.build(kind, config.model, 'config.model', **made)
  if model.factor != grows:
    raise UserError(f'config.model.name={config.model.name} draws pictures of the size of the source, {source[:2]}, '
                    f'and config.data.shape is {target}; use config.model.name=enlarger')
  for side in source[:2]:
    if side % model.multiple or side < model.least:
      raise UserError(f'config.model.name={config.model.name} needs pictures whose sides are multiples of '
                      f'{model.multiple}, at least {model.least}, got {source[0]} x {source[1]}; change '
                      'config.data.shape' + (', or use fewer config.model.layers' if 'layers' in takes else ''))
  return model, axes


def _critic(config: Config, shape: tuple[int, int, int], channels: int) -> tuple[Any, Any]:
  """A critic of pictures of a shape, and logical axes."""
  if not config.get(CRITIC):
    raise UserError('config.objective.name=cycle needs config.critic, as configs/gans/sprites_cyclegan.py has it')
  kind, network, axes = config_lib.choose(judges.CRITICS, config.critic.name, 'config.critic.name')
  critic = config_lib.build(kind, config.critic, 'config.critic', channels=channels)
  if critic.least > min(shape[:2]):
    raise UserError(f'a critic with config.critic.layers={critic.layers} needs pictures of at least {critic.least} '
                    f'pixels, got {shape[:2]}; use fewer layers')
  return network(critic), axes


def _inside(names: str, axes: Any) -> Any:
  """A table for a group that holds several networks."""
  return tuple((f'(?:{names})/(?:{pattern})', logical) for pattern, logical in axes)


def _experiment(config: Config, data: translation_data.Data, objective: Any, axes: Mapping[str, Any],
                together: bool) -> Experiment:
  back = getattr(objective, 'direction', 'forward') == 'back'
  known = together or data.counterparts
  return Experiment(
    objective=objective,
    train=translation_data.batches(config, data.train, together, True),
    heldout=translation_data.batches(config, data.heldout, known, False),
    optimizers=optimizers.from_config(config.optimizers, config.steps), ema=dict(config.ema),
    example=translation_data.example(config), axes=axes,
    conditions={translation_data.CONDITION: translation_data.condition(
      config, pairs.TARGET if back else pairs.SOURCE)},
    render=shown, metrics=translations.metrics(config, back) if known else ())


def shown(samples: Columns) -> dict[str, np.ndarray]:
  """Each source beside what was drawn of it."""
  image_NHWC, source_NHWC = samples[pairs.TARGET], samples[pairs.SOURCE]
  factor = max(1, image_NHWC.shape[1] // source_NHWC.shape[1])
  source_NHWC = source_NHWC.repeat(factor, axis=1).repeat(factor, axis=2)
  channels = max(image_NHWC.shape[3], source_NHWC.shape[3])
  sides = [side if side.shape[3] == channels else side.repeat(channels, axis=3) for side in (source_NHWC, image_NHWC)]
  return {'samples': render.grid(np.stack(sides, axis=1).reshape(-1, *sides[1].shape[1:3], channels),
                                 columns=2 * max(1, round(np.sqrt(len(image_NHWC) / 2))))}
