"""Builder of networks that only extract features: Inception v3 of FID, VGG16 and AlexNet of LPIPS, ViT without a head.

They are parts, read from a folder of public weights, see docs/extractors.md. Nothing trains them.
"""

from collections.abc import Callable
import dataclasses
from typing import Any, NoReturn

import jax.numpy as jnp

from genjax import checks
from genjax import config as config_lib
from genjax.config import Config
from genjax.models.features import inception, layers, lpips, resizing
from genjax.models.transformers import vit
from genjax.nn.functional import Network
from genjax.objectives.base import Phase, Variables
from genjax.objectives.kinds import Features, Perceptual
from genjax.objectives.pixels import centred
from genjax.options import Section, named
from genjax.tables import Table
from genjax.training.experiment import Experiment
from genjax.types import Array, Key, Params, Tree, UserError

# Name of a model -> its options and its network of them.
MODELS: Table = Table('extractor', {
  'inception': (inception.InceptionConfig, inception.network),
  'lpips': (lpips.LpipsConfig, lpips.network),
  'vit': (vit.VitConfig, vit.encoder)})

SIDE = 224  # of the images of which VGG16 and AlexNet give features, where no other is asked for


@dataclasses.dataclass(frozen=True)
class Frozen:
  """A network that has parameters, and no loss; group 'net'."""

  net: Network

  def init(self, key: Key, frozen: Params) -> Variables:
    """Returns random variables."""
    params, mutable = self.net.init(key)
    return Variables({'net': params}, mutable)

  def phases(self) -> tuple[Phase, ...]:
    """Raises a UserError: there is nothing to train."""
    raise UserError(
      'this network only extracts features, and nothing trains, samples or evaluates it: name its folder as a part, '
      'config.evaluation.parts.NAME=FOLDER')

  loss = evaluate = sample = lambda self, *arguments: self.phases()


@dataclasses.dataclass(frozen=True)
class ExtractorData:
  """config.data.

  Attributes:
    weights: name of the weights in cards of metrics.
    resize: filter by which images come to the size that a network reads; '' for none, or its own.
    crop: whether the middle of an image with another aspect ratio is cut out.
    mean, deviation: of the channels of pixels in [0, 1], which are taken off and divided by.
  """

  weights: str
  resize: str = ''
  crop: bool = False
  mean: tuple[float, ...] = (0.5,)
  deviation: tuple[float, ...] = (0.5,)


@dataclasses.dataclass(frozen=True)
class TrunkData(ExtractorData):
  """config.data of VGG16 and AlexNet.

  Attributes:
    weights: name of the weights in cards of metrics.
    resize, crop, mean, deviation: see `ExtractorData`; these networks do not read them.
    side: to which images come before features are read, in pixels; 0 for `SIDE`. Images of this side are read as they
      are. LPIPS reads all images as they are.
  """

  side: int = 0

  def __post_init__(self):
    checks.whole(self, 0, 'side')


def build(config: Config) -> Experiment:
  """The experiment of a config, which can be a part, and nothing else.

  config.model: name 'inception', 'lpips' or 'vit' and options of `genjax.models.features.inception.InceptionConfig`,
  `genjax.models.features.lpips.LpipsConfig` or `genjax.models.transformers.vit.VitConfig`. config.data: see
  `ExtractorData` and `TrunkData`.

  Raises:
    UserError: an unknown name or option.
  """
  config_lib.build(_data_of(config), config.data, 'config.data')
  return frozen(_network(config)[1])


def frozen(net: Network) -> Experiment:
  """The experiment of a network that only extracts."""
  objective: Any = Frozen(net)
  nothing: Any = _Nothing()
  return Experiment(objective, train=nothing, heldout=nothing, optimizers={}, example={})


class _Nothing:
  """No data."""

  batch_size = 1

  def iterate(self, start: int, rows: Any) -> NoReturn:
    raise UserError('a network that only extracts features has no data')

  epoch = fingerprint = lambda self, *arguments: self.iterate(0, None)


def options(config: Config) -> dict[str, Section]:
  """What the sections of the config take."""
  models = {name: row[0] for name, row in MODELS.items()}
  return {'data': Section((_data_of(config),)), 'model': named(models, config.model)}


def _data_of(config: Config) -> type[ExtractorData]:
  return TrunkData if config.model.name == 'lpips' else ExtractorData


def _network(config: Config) -> tuple[Any, Network]:
  kind, make = config_lib.choose(MODELS, config.model.name, 'config.model.name')
  options = config_lib.build(kind, config.model, 'config.model')
  return options, make(options)


def features(config: Config, experiment: Experiment) -> Features:
  """The features of a network; see `genjax.experiments.parts`.

  Those of Inception are the 2,048 means before its logits; those of VGG16 and AlexNet the means of the last map; those
  of a ViT are its class token. Only Inception has classes; its logits are those of the inception score, without a bias.
  """
  chosen, net = _network(config)
  return _FEATURES[config.model.name](config, chosen, net)


def _inception(config: Config, chosen: inception.InceptionConfig, net: Network) -> Features:
  def apply(output: str) -> Callable[[Tree, Array], Array]:
    return lambda group, image: net.apply(group['params']['net'], {}, image)[0][output]

  return Features((inception.SIDE, inception.SIDE, 3), chosen.width, chosen.classes, extract=apply('features'),
                  predict=apply('logits'), name=config.data.weights, resize=inception.RESIZE,
                  reads=('params/net/.*',))


def _trunk(config: Config, chosen: lpips.LpipsConfig, net: Network) -> Features:
  least = lpips.TRUNKS[chosen.trunk].least
  side = config_lib.build(TrunkData, config.data, 'config.data').side or SIDE
  if side < least:
    raise UserError(f'{config.data.weights} reads pictures of at least {least} pixels a side, got side={side}; 0 is '
                    f'for {SIDE}')

  def extract(group: Tree, image_BHWC: Array) -> Array:
    x_BHWC = resizing.antialiased(image_BHWC, side, side, 'bilinear')
    maps = net.apply(group['params']['net'], {}, centred(x_BHWC))[0]
    return jnp.mean(maps[-1], axis=(1, 2))

  return Features((side, side, 3), chosen.channels[-1], 0, extract, no_classes(config.data.weights),
                  name=config.data.weights, resize=resizing.resize_name('bilinear', side, side),
                  reads=('params/net/.*',))


def _vit(config: Config, chosen: vit.VitConfig, net: Network) -> Features:
  read = reader(config_lib.build(ExtractorData, config.data, 'config.data'), chosen.shape)

  def extract(group: Tree, image_BHWC: Array) -> Array:
    return net.apply(group['params']['net'], {}, read(image_BHWC))[0]['hidden'][:, 0].astype(jnp.float32)

  return Features(chosen.shape, chosen.width, 0, extract, no_classes(config.data.weights), name=config.data.weights,
                  resize=resize_name(config, chosen.shape), reads=('params/net/.*',))


_FEATURES: dict[str, Callable[[Config, Any, Network], Features]] = {
  'inception': _inception, 'lpips': _trunk, 'vit': _vit}


def perceptual(config: Config, experiment: Experiment) -> Perceptual:
  """The distance LPIPS of a network with its heads; see `genjax.experiments.parts`.

  Raises:
    UserError: the network has none.
  """
  if config.model.name != 'lpips':
    raise UserError(f'{config.data.weights} has no heads of LPIPS; name a folder of vgg16_lpips or alexnet_lpips')
  chosen, net = _network(config)

  def loss(group: Tree, a_BHWC: Array, b_BHWC: Array) -> Array:
    return net.apply(group['params']['net'], {}, a_BHWC, b_BHWC)[0]

  return Perceptual(None, lambda group, a_BHWC, b_BHWC: loss(group, centred(a_BHWC), centred(b_BHWC)),
                    config.data.weights, least=lpips.TRUNKS[chosen.trunk].least, loss=loss)


def reader(data: ExtractorData, shape: tuple[int, ...]) -> Callable[[Array], Array]:
  """uint8 images of any size -> what a network reads, as config.data says."""
  mean, deviation = jnp.asarray(data.mean, jnp.float32), jnp.asarray(data.deviation, jnp.float32)

  def read(image_BHWC: Array) -> Array:
    x_BHWC = layers.coloured(image_BHWC) if shape[2] == 3 else image_BHWC
    if data.resize:
      x_BHWC = resizing.antialiased(x_BHWC, shape[0], shape[1], data.resize, data.crop)
    return (x_BHWC.astype(jnp.float32) / 255.0 - mean) / deviation

  return read


def resize_name(config: Config, shape: tuple[int, ...]) -> str:
  """How `reader` resizes, for cards of metrics."""
  data = config.data
  return resizing.resize_name(data.resize, shape[0], shape[1], bool(data.get('crop'))) if data.resize else 'none'


def no_classes(name: str) -> Callable[[Tree, Array], Array]:
  """`predict` of a network without classes."""

  def predict(group: Tree, image: Array) -> Array:
    raise UserError(f'{name} has no classes: it gives features only; name a classifier or an Inception as the part')

  return predict
