"""Image classifiers: the extractors of features and the judges of labels for samples of other families."""

from experiments import images
from genjax import config as config_lib
from genjax.config import Config
from genjax.models import classifier
from genjax.objectives.classification import Classification
from genjax.training import optimizers
from genjax.training.experiment import Experiment


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
