"""A small convolutional image classifier. Metrics of samples use its last hidden layer as features."""

import dataclasses
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from genjax import checks
from genjax.nn import functional
from genjax.nn.conv import Conv, Dense
from genjax.nn.functional import Network
from genjax.nn.norms import NORMS, BatchNorm
from genjax.types import Array, Key, UserError


@dataclasses.dataclass(frozen=True)
class Classifier:
  """Options of the network.

  Attributes:
    shape: (H, W, C) of the images.
    num_classes: number of classes K.
    width: channels after the first halving; they double with each.
    layers: halvings of the image, each a strided 3x3 convolution.
    convolutions: 3x3 convolutions per halving, the strided one included.
    features: width D of the last hidden layer.
    dropout: dropout rate on those features.
    dtype: compute type, 'float32' or 'bfloat16'; parameters are float32.
    norm: 'batch', or one of `genjax.nn.norms.NORMS`, over the channels.

  Raises:
    UserError: sizes that cannot be built.
  """

  shape: tuple[int, int, int]
  num_classes: int
  width: int = 24
  layers: int = 2
  convolutions: int = 1
  features: int = 64
  dropout: float = 0.0
  dtype: str = 'float32'
  norm: str = 'batch'

  def __post_init__(self):
    checks.whole(self, 1, 'shape', 'width', 'layers', 'convolutions', 'features')
    checks.rates(self, 'dropout')
    checks.dtype(self)
    if self.norm not in (known := ('batch', *NORMS)):
      raise checks.OutOfRange(f'norm must be one of {known}, got {self.norm!r}')
    if 2 ** self.layers > min(self.shape[:2]):
      raise UserError(f'config.model.layers={self.layers} halves images of {self.shape[:2]} pixels to less than one '
                      'pixel; make it smaller')
    if self.num_classes < 2:
      raise UserError(f'a classifier needs at least 2 classes, got {self.num_classes}')


def network(config: Classifier) -> Network:
  """The network image_BHWC in [-1, 1] -> (logits_BK, features_BD), both float32; with `maps=True` the list of maps
  B H W C after each convolution."""
  return functional.network(lambda rngs: _Classifier(config, rngs))


def _norm(config: Classifier, channels: int, rngs: nnx.Rngs) -> Any:
  dtype = jnp.dtype(config.dtype)
  if config.norm == 'batch':
    return BatchNorm(channels, rngs=rngs, dtype=dtype)
  return NORMS[config.norm](channels, epsilon=1e-5, scale=True, bias=True, dtype=dtype, rngs=rngs)


class _Classifier(nnx.Module):

  def __init__(self, config: Classifier, rngs: nnx.Rngs):
    height, width, channels = config.shape
    dtype, init = jnp.dtype(config.dtype), nnx.initializers.he_normal()
    stages = []
    for layer in range(config.layers):
      height, width = -(-height // 2), -(-width // 2)
      for index in range(config.convolutions):
        outputs = config.width * 2 ** layer
        stages.append(nnx.Dict(
          conv=Conv(channels, outputs, stride=1 if index else 2, rngs=rngs, bias=False, init=init, dtype=dtype),
          norm=_norm(config, outputs, rngs)))
        channels = outputs
    self.stages = nnx.List(stages)
    self.hidden = Dense(height * width * channels, config.features, rngs=rngs, init=init, dtype=dtype)
    self.logits = Dense(config.features, config.num_classes, rngs=rngs, dtype=dtype)
    self.dropout = config.dropout

  def __call__(self, image_BHWC: Array, key: Key | None = None, maps: bool = False) -> Any:
    x_BHWC, found = image_BHWC, []
    for stage in self.stages:
      x_BHWC = stage.conv(x_BHWC)
      x_BHWC = jax.nn.relu(stage.norm(x_BHWC, key) if isinstance(stage.norm, BatchNorm) else stage.norm(x_BHWC))
      found.append(x_BHWC.astype(jnp.float32))
    if maps:
      return found
    features_BD = jax.nn.relu(self.hidden(x_BHWC.reshape(x_BHWC.shape[0], -1)))
    logits_BK = self.logits(functional.dropout(features_BD, self.dropout, key))
    return logits_BK.astype(jnp.float32), features_BD.astype(jnp.float32)


AXES = (
  ('hidden/kernel', ('embed', 'mlp')),
  ('logits/kernel', ('mlp', None)),
)
