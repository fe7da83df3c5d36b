"""Image classifiers: the extractors of features and the judges of labels for samples of other families."""

import jax
import ml_collections
import numpy as np

from genjax import config as config_lib
from genjax.data import sources
from genjax.data.pipeline import Pipeline
from genjax.models import classifier
from genjax.objectives.classification import Classification
from genjax.training import optimizers
from genjax.training.experiment import Experiment
from genjax.types import UserError


def build(config: ml_collections.ConfigDict) -> Experiment:
  """The experiment of a config.

  config.data: name, train, heldout (splits), shape (H, W, C), num_classes, data_dir and originals ('' for the defaults).
  config.model: name 'convolutional' and options of `genjax.models.classifier.Classifier`. config.objective: options of
  `genjax.objectives.classification.Classification`.

  Raises:
    UserError: an unknown name or option; once the data is opened, images of another shape or without labels.
  """
  data, shape = config.data, tuple(config.data.shape)
  options = config_lib.choose({'convolutional': classifier.Classifier}, config.model.name, 'config.model.name')
  net = classifier.network(config_lib.build(options, config.model, 'config.model', shape=shape,
                                            num_classes=data.num_classes))
  return Experiment(
    objective=config_lib.build(Classification, config.objective, 'config.objective', net=net),
    train=Pipeline(lambda: open_labelled(data, data.train), config.batch_size, config.seed),
    heldout=Pipeline(lambda: open_labelled(data, data.heldout), config.batch_size, config.seed, shuffle=False),
    example={'image': jax.ShapeDtypeStruct(shape, np.uint8), 'label': jax.ShapeDtypeStruct((), np.int32)},
    optimizers=optimizers.from_config(config.optimizers, config.steps),
    ema=dict(config.ema),
    axes={'net': classifier.AXES})


def open_labelled(data: ml_collections.ConfigDict, split: str) -> sources.Arrays | sources.Records:
  """The columns image and label of a split, checked against config.data.

  Raises:
    UserError: images of another shape, or no labels.
  """
  source = sources.open_tfds(data.name, split, ('image', 'label'), data.data_dir or None, data.originals or None)
  shape = source.get(np.zeros(1, np.int64))['image'].shape[1:]
  if shape != tuple(data.shape):
    raise UserError(f'config.data.shape is {tuple(data.shape)}, but images of {data.name} are {shape}; set it to that')
  return source
