"""Builder of autoregressive models of binary images: MADE and NADE."""

import math

from genjax import config as config_lib
from genjax.config import Config
from genjax.experiments import images, render, sections
from genjax.models.autoregressive import made, nade
from genjax.objectives.autoregressive import Autoregressive
from genjax.options import Section, named
from genjax.tables import Table
from genjax.training.experiment import Experiment
from genjax.training.optimization import optimizers
from genjax.types import UserError

# Name of a model -> its options, and its network of them.
MODELS: Table = Table('autoregressive model', {'made': (made.MadeConfig, made.made),
                                               'nade': (nade.NadeConfig, nade.nade)})


def build(config: Config) -> Experiment:
  """A model of binary pixels. config.data: see `genjax.experiments.images.Data`; binarize must be 'fixed' or 'dynamic'.
  config.model: 'made' with options of `genjax.models.autoregressive.made.MadeConfig`, or 'nade' with those of
  `genjax.models.autoregressive.nade.NadeConfig`.

  Raises:
    UserError: an unknown name or option, or images that are not binary.
  """
  images.check(config.data)
  if config.data.get('binarize', 'none') == 'none':
    raise UserError("config.data.binarize must be 'fixed' or 'dynamic', because the pixels of these models are 0 or 1, "
                    "got 'none'")
  kind, network = config_lib.choose(MODELS, config.model.name, 'config.model.name')
  shape = tuple(config.data.shape)
  model = config_lib.build(kind, config.model, 'config.model', dims=math.prod(shape))
  return Experiment(
    objective=Autoregressive(network(model), shape, model.orderings),
    train=images.batches(config, config.data.train),
    heldout=images.batches(config, config.data.heldout, shuffle=False),
    optimizers=optimizers.from_config(config.optimizers, config.steps),
    example=images.example(config),
    assets=images.assets(config),
    ema=dict(config.ema),
    render=lambda columns: {'samples': render.grid(columns['image'])},
  )


def options(config: Config) -> dict[str, Section]:
  """What the sections of the config take."""
  return {
    'data': images.DATA,
    'model': named({name: row[0] for name, row in MODELS.items()}, config.model,
                   computed={'dims': sections.MADE['shape']}),
    **sections.training(config)}
