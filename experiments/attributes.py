"""Builder of classifiers of several attributes, which judge whether generated pictures show what was asked for."""

import dataclasses

import jax
import numpy as np

from genjax import config as config_lib
from genjax.config import Config
from genjax.experiments import classifier, images, sections
from genjax.objectives import kinds
from genjax.objectives.attributes import Attributes
from genjax.options import Section, named
from genjax.training.experiment import Experiment
from genjax.training.optimization import optimizers
from genjax.types import UserError


def build(config: Config) -> Experiment:
  """The experiment of a config.

  config.data: see `genjax.experiments.images.Data`; num_classes must be 0. config.model: as of
  `genjax.experiments.classifier`. config.objective: options of `Attributes`; `attributes` names columns of the data.

  Raises:
    UserError: an unknown name or option, or options that do not fit together.
  """
  images.check(config.data)
  data, objective = config.data, _objective(config)
  if data.num_classes:
    raise UserError(f'config.data.num_classes is {data.num_classes}, and the classes of this model are those of '
                    'config.objective.attributes; set it to 0')
  names = tuple(objective.attributes)
  return Experiment(
    objective=objective,
    train=images.batches(config, data.train, more=names),
    heldout=images.batches(config, data.heldout, shuffle=False, more=names),
    example={**images.example(config), **{name: jax.ShapeDtypeStruct((), np.int32) for name in names}},
    optimizers=optimizers.from_config(config.optimizers, config.steps),
    ema=dict(config.ema),
    axes={'net': classifier.MODELS[config.model.name][2]})


def options(config: Config) -> dict[str, Section]:
  """What the sections of the config take."""
  return {
    'data': images.DATA,
    'model': named({name: row[0] for name, row in classifier.MODELS.items()}, config.model,
                   computed={**sections.MADE, 'num_classes': 'config.objective.attributes'}),
    'objective': Section((Attributes,), {'net': ''}),
    **({'objective.attributes': Section((_counts(tuple(known)),))} if (known := config.objective.get('attributes'))
       else {}),
    **sections.training(config)}


def _counts(names: tuple[str, ...]) -> type:
  """Options with the number of values of each attribute."""
  kind = dataclasses.make_dataclass('Counts', [(name, int) for name in names], frozen=True)
  kind.__doc__ = 'Numbers of values.\n\nAttributes:\n' + '\n'.join(
    f'  {name}: how many values the column {name!r} has.' for name in names)
  return kind


def attributes(config: Config, experiment: Experiment) -> kinds.Attributes:
  """The kind `attributes` of such a run; see `genjax.experiments.parts`."""
  objective = experiment.objective
  assert isinstance(objective, Attributes)
  return kinds.Attributes(
    tuple(config.data.shape), dict(objective.attributes),
    lambda group, image_BHWC: objective.predict(group['params'], group['mutable'], image_BHWC),
    reads=('(params|mutable)/net/.*',))


def _objective(config: Config) -> Attributes:
  kind, network, _ = config_lib.choose(classifier.MODELS, config.model.name, 'config.model.name')
  goal = config_lib.plain(config.objective)
  count = sum(value for value in goal.get('attributes', {}).values() if isinstance(value, int))
  model = config_lib.build(kind, config.model, 'config.model', shape=tuple(config.data.shape),
                           num_classes=max(count, 2))
  return config_lib.build(Attributes, goal, 'config.objective', net=network(model))
