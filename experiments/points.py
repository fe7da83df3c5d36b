"""Builder of flows between distributions of points in the plane: flow matching from noise, or from other data."""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from genjax import checks
from genjax import config as config_lib
from genjax.config import Config
from genjax.data import points
from genjax.data.pipeline import Pipeline
from genjax.experiments import coupling, diffusion, render, sections
from genjax.metrics import transport
from genjax.models.denoisers import mlp
from genjax.objectives import codecs
from genjax.objectives.diffusion import Diffusion
from genjax.options import Section, named
from genjax.tables import Table
from genjax.training.experiment import Columns, Condition, Experiment, Metric
from genjax.training.optimization import optimizers
from genjax.types import UserError

MODELS: Table = Table('denoiser of points', {'mlp': (mlp.Mlp, mlp.network, mlp.AXES)})
SOURCE = 'source'  # column of batches, and condition of samples
_SEEDS = {'train': 0, 'heldout': 1, 'metric': 2}  # of what is drawn; those of the metric are 2 and up
_REACH = 8.0  # of pictures


@dataclasses.dataclass(frozen=True)
class Data:
  """config.data.

  Attributes:
    name: distribution that is learned, one of `genjax.data.points.DISTRIBUTIONS`.
    source: distribution that samples begin at, one of them; '' for noise.
    size: training examples, each drawn anew.
    heldout_size: held-out examples.
  """

  name: str
  source: str = ''
  size: int = 2**22
  heldout_size: int = 2048

  def __post_init__(self):
    config_lib.choose(points.DISTRIBUTIONS, self.name, 'config.data.name')
    if self.source:
      config_lib.choose(points.DISTRIBUTIONS, self.source, 'config.data.source')
    with checks.under('config.data'):
      checks.whole(self, 1, 'size', 'heldout_size')


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """config.evaluation.

  Attributes:
    num_samples: samples that are compared with as many points of the data; 0 for no measure.
    steps: numbers of steps of the sampler, each of which is measured.
  """

  num_samples: int = 2000
  steps: tuple[int, ...] = (1, 50)

  def __post_init__(self):
    with checks.under('config.evaluation'):
      checks.whole(self, 0, 'num_samples')
      checks.whole(self, 1, 'steps')


def build(config: Any) -> Experiment:
  """A flow. config.data: see `Data`. config.model: name and options of `MODELS`. config.objective and config.sampler:
  as for `genjax.experiments.diffusion`, without labels and guidance. config.evaluation: see `Evaluation`.

  Raises:
    UserError: an unknown name or option, guidance, or parts that do not fit together, see `Diffusion`.
  """
  data = config_lib.build(Data, config.data, 'config.data', name=config.data.name)
  kind, make, axes = config_lib.choose(MODELS, config.model.name, 'config.model.name')
  goal = config_lib.plain(config.objective)
  choices, coupled = diffusion.chosen(goal), coupling.read(goal)
  model = config_lib.build(kind, config.model, 'config.model', shape=(2,))
  told = config_lib.build(diffusion.SamplerOptions, config_lib.plain(config.sampler), 'config.sampler',
                          name=config.sampler.name)
  if told.guidance != 1.0 or told.guidances:
    raise UserError('points have no conditions, and guidance needs one; set config.sampler.guidance=1.0')
  objective = config_lib.build(
    Diffusion, goal, 'config.objective', net=make(model), shape=(2,),
    sampler=diffusion.sampler(told, choices['process']), codec=codecs.identity('point'),
    source=codecs.identity(SOURCE) if data.source else None,
    noise_column='' if data.source or coupled.coupling == 'independent' else coupling.NOISE, **choices)
  point = jax.ShapeDtypeStruct((2,), np.float32)
  more = {SOURCE: point} if data.source else coupled.example((2,))
  return Experiment(
    objective=objective,
    train=_batches(config, data, coupled, 'train'),
    heldout=_batches(config, data, coupled, 'heldout'),
    optimizers=optimizers.from_config(config.optimizers, config.steps),
    example={'point': point, **more},
    ema=config_lib.plain(config.ema),
    axes={'net': axes},
    conditions={SOURCE: _condition(data)} if data.source else {},
    render=_render,
    metrics=_distances(config, data, told, objective))


def options(config: Any) -> dict[str, Section]:
  """What the sections of the config take."""
  return {
    'data': Section((Data,)),
    'model': named({name: row[0] for name, row in MODELS.items()}, config.model, computed={'shape': ''}),
    **diffusion.goal_and_sampler(config),
    'evaluation': Section((Evaluation,)),
    **sections.training(config)}


def _batches(config: Config, data: Data, coupled: coupling.Coupling, split: str) -> Pipeline:
  size = data.size if split == 'train' else data.heldout_size
  found = Pipeline(lambda: points.pairs(data.name, data.source, size, _SEEDS[split]), config.batch_size, config.seed,
                   shuffle=split == 'train')
  return coupled.coupled(found, 'point', SOURCE) if data.source else coupled.noised(found, 'point', (2,))


def _condition(data: Data) -> Condition:
  """The point at which a sample begins; by default a held-out one, row by row."""
  row = jax.ShapeDtypeStruct((2,), np.float32)
  drawn = functools.cache(lambda: points.pairs(data.name, data.source, data.heldout_size, _SEEDS['heldout']))

  def parse(text: str) -> np.ndarray:
    try:
      point = np.asarray([float(part) for part in text.split(',')], np.float32)
    except ValueError:
      point = np.zeros(0)
    if point.shape != row.shape or not np.isfinite(point).all():
      raise UserError(f'{SOURCE} must be two numbers with a comma between them, such as 1.5,-2, got {text!r}')
    return point

  def default(number: int) -> np.ndarray:
    return drawn().get(np.asarray([number % data.heldout_size]))[SOURCE][0]

  return Condition(parse, default, 'two numbers with a comma between them', row=row)


def _distances(config: Config, data: Data, told: diffusion.SamplerOptions,
               objective: Diffusion) -> tuple[Metric, ...]:
  """The measure 'wasserstein': SAMPLER_STEPS, the 2-Wasserstein distance of samples to as many points of the data, for
  each number of steps; and 'floor', that of other points of the data to them."""
  asked = config_lib.build(Evaluation, config.get('evaluation') or {}, 'config.evaluation')
  if not asked.num_samples:
    return ()
  card = {'num_samples': asked.num_samples, 'distance': '2-Wasserstein, not squared, by exact assignment',
          'sampler': told.name, 'steps': list(asked.steps), 'distribution': data.name, 'source': data.source or 'noise'}
  samplers = {steps: diffusion.sampler(dataclasses.replace(told, steps=steps), objective.process)
              for steps in asked.steps}

  def compute(sample: Callable[..., Columns], seed: int) -> dict[str, float]:
    drawing: Any = sample  # `genjax.training.drawing.Samples`
    first = _SEEDS['metric'] + 3 * seed
    real, other = (points.drawn(data.name, asked.num_samples, first + number) for number in (0, 1))
    begin = {SOURCE: points.drawn(data.source, asked.num_samples, first + 2)} if data.source else {}
    values = {}
    for steps, method in samplers.items():
      drawn = drawing.by(dataclasses.replace(objective, sampler=method), asked.num_samples, begin)['point']
      values[f'{told.name}_{steps}'] = transport.wasserstein_2(drawn, real)
    return {**values, 'floor': transport.wasserstein_2(other, real)}

  return (Metric('wasserstein', compute, card),)


def _render(samples: Columns, pixels: int = 320) -> dict[str, np.ndarray]:
  """Samples as black dots on white."""
  return {'samples': render.points(samples['point'], _REACH, np.full((pixels, pixels, 3), 255, np.uint8))}
