"""Builder of image classifiers, which also extract features and predict labels of other families' samples."""

import jax
import numpy as np

from genjax import config as config_lib
from genjax.config import Config
from genjax.experiments import images, imported, sections
from genjax.models import classifier
from genjax.models.features import layers, lpips, resizing
from genjax.models.transformers import vit
from genjax.objectives.classification import Classification
from genjax.objectives.kinds import Features, Perceptual
from genjax.objectives.pixels import centred
from genjax.options import Section, named
from genjax.tables import Table
from genjax.training.experiment import Experiment
from genjax.training.optimization import optimizers
from genjax.types import Array, Tree, UserError

# Name of a model -> its options, its network of them, and the logical axes of its parameters.
MODELS: Table = Table('classifier', {
  'convolutional': (classifier.Classifier, classifier.network, classifier.AXES),
  'vit': (vit.VitConfig, vit.classifier, vit.AXES)})


def build(config: Config) -> Experiment:
  """The experiment of a config.

  config.data: see `genjax.experiments.images.Data`; num_classes must not be 0. config.model: name 'convolutional'
  and options of `genjax.models.classifier.Classifier`, or name 'vit' and options of
  `genjax.models.transformers.vit.VitConfig`. config.objective: options of
  `genjax.objectives.classification.Classification`.

  Raises:
    UserError: an unknown name or option, or options that do not fit together.
  """
  images.check(config.data)
  data = config.data
  _, network, axes = config_lib.choose(MODELS, config.model.name, 'config.model.name')
  net = network(model_options(config))
  return Experiment(
    objective=config_lib.build(Classification, config.objective, 'config.objective', net=net),
    train=images.batches(config, data.train),
    heldout=images.batches(config, data.heldout, shuffle=False),
    example=images.example(config),
    assets=images.assets(config),
    optimizers=optimizers.from_config(config.optimizers, config.steps),
    ema=dict(config.ema),
    axes={'net': axes},
    files=imported.files(config))


def options(config: Config) -> dict[str, Section]:
  """What the sections of the config take."""
  return {
    'data': images.DATA,
    'model': named({name: row[0] for name, row in MODELS.items()}, config.model, computed=sections.MADE),
    'objective': Section((Classification,), {'net': ''}),
    **sections.training(config)}


def features(config: Config, experiment: Experiment) -> Features:
  """The last hidden layer and the logits; see `genjax.experiments.parts`."""
  net = config_lib.choose(MODELS, config.model.name, 'config.model.name')[1](model_options(config))
  resize, (height, width, channels) = config.data.get('resize') or '', config.data.shape

  def apply(group: Tree, image_BHWC: Array) -> tuple[Array, Array]:
    if resize:  # as its own images are resized when they are read
      image_BHWC = layers.coloured(image_BHWC) if channels == 3 else image_BHWC
      image_BHWC = resizing.antialiased(image_BHWC, height, width, resize)
    return net.apply(group['params']['net'], group['mutable']['net'], centred(image_BHWC))[0]

  params, mutable = jax.eval_shape(net.init, jax.random.key(0))
  image = jax.ShapeDtypeStruct((1, *config.data.shape), np.uint8)
  logits, hidden = jax.eval_shape(apply, {'params': {'net': params}, 'mutable': {'net': mutable}}, image)
  return Features(tuple(config.data.shape), hidden.shape[-1], logits.shape[-1],
                  extract=lambda group, image: apply(group, image)[1],
                  predict=lambda group, image: apply(group, image)[0], name=config.model.name,
                  resize=resizing.resize_name(resize, height, width) if resize else 'none',
                  reads=('(params|mutable)/net/.*',))


def perceptual(config: Config, experiment: Experiment) -> Perceptual:
  """The distance of two images by the maps of a classifier, as in LPIPS but without learned weights of channels; see
  `genjax.experiments.parts`.

  Raises:
    UserError: the classifier has no convolutions.
  """
  if config.model.name != 'convolutional':
    raise UserError('a perceptual distance is of maps of convolutions, and this classifier is a '
                    f"{config.model.name!r}; name one with config.model.name='convolutional'")
  net = classifier.network(config_lib.build(classifier.Classifier, config.model, 'config.model',
                                            shape=tuple(config.data.shape), num_classes=config.data.num_classes))

  def loss(group: Tree, a_BHWC: Array, b_BHWC: Array) -> Array:
    variables = group['params']['net'], group['mutable']['net']
    return lpips.distance(*(net.apply(*variables, image_BHWC, maps=True)[0] for image_BHWC in (a_BHWC, b_BHWC)))

  return Perceptual(tuple(config.data.shape),
                    lambda group, a_BHWC, b_BHWC: loss(group, centred(a_BHWC), centred(b_BHWC)),
                    name=config.model.name, reads=('(params|mutable)/net/.*',), loss=loss, measure='')


def model_options(config: Config, net: Tree = None) -> classifier.Classifier | vit.VitConfig:
  """The options of the config's model; they don't depend on parameters."""
  options = config_lib.choose(MODELS, config.model.name, 'config.model.name')[0]
  return config_lib.build(options, config.model, 'config.model', shape=tuple(config.data.shape),
                          num_classes=config.data.num_classes)
