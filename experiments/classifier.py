"""Image classifiers: the extractors of features and the judges of labels for samples of other families."""

from typing import Any

from experiments import images
from genjax import config as config_lib
from genjax.data import pipeline
from genjax.models import classifier
from genjax.objectives.classification import Classification
from genjax.training import optimizers
from genjax.training.experiment import Experiment

Config = Any  # a locked ml_collections.ConfigDict, whose attributes no type checker knows


def build(config: Config) -> Experiment:
  """The experiment of a config.

  config.data: see `experiments.images.batches`; num_classes must not be 0. config.model: name 'convolutional' and
  options of `genjax.models.classifier.Classifier`. config.objective: options of
  `genjax.objectives.classification.Classification`.

  Raises:
    UserError: an unknown name or option.
  """
  data = config.data
  options = config_lib.choose({'convolutional': classifier.Classifier}, config.model.name, 'config.model.name')
  net = classifier.network(config_lib.build(options, config.model, 'config.model', shape=tuple(data.shape),
                                            num_classes=data.num_classes))
  return Experiment(
    objective=config_lib.build(Classification, config.objective, 'config.objective', net=net),
    train=images.batches(config, data.train),
    heldout=images.batches(config, data.heldout, shuffle=False),
    example=images.example(config),
    optimizers=optimizers.from_config(config.optimizers, config.steps),
    ema=dict(config.ema),
    axes={'net': classifier.AXES})


def open_labelled(data: Config, split: str) -> pipeline.Source:
  """The columns image and label of a split; see `experiments.images.open_source`."""
  return images.open_source(data, split, seed=0)
