"""Encoders and decoders of autoencoders: MLPs, and convolutions that halve and double the image size."""

import dataclasses
import math

from flax import nnx
import jax
import jax.numpy as jnp

from genjax import checks
from genjax.nn.blocks import ACTIVATIONS
from genjax.nn.conditioning import Given, added
from genjax.nn.conv import Conv, ConvTranspose, Dense
from genjax.nn.embeddings import LabelEmbedding
from genjax.nn.functional import Network, network
from genjax.types import Array, Key, UserError

Gaussian = tuple[Array, Array]  # mean and log variance, each B Z


@dataclasses.dataclass(frozen=True, kw_only=True)
class Told:
  """What both networks read of conditions, see `genjax.nn.conditioning`.

  Attributes:
    num_classes: number of classes; 0 without labels.
    vector_width: channels of a vector; 0 without.
    numbers: how many numbers are read, each as Fourier features; 0 without.
    number_features: Fourier features of each number.
  """

  num_classes: int = 0
  vector_width: int = 0
  numbers: int = 0
  number_features: int = 64

  @property
  def reads(self) -> bool:
    """Whether there are conditions."""
    return bool(self.num_classes or self.vector_width or self.numbers)


@dataclasses.dataclass(frozen=True)
class MlpConfig(Told):
  """A perceptron on flattened images.

  Attributes:
    shape: (H, W, C) of the images.
    latent: width Z of the latent.
    hidden: widths of the encoder's hidden layers; the decoder has them in reverse.
    dtype: compute type, 'float32' or 'bfloat16'; parameters are float32.
    activation: of the hidden layers, one of `genjax.nn.blocks.ACTIVATIONS`.

  Raises:
    UserError: an unknown activation, or a number out of range.
  """

  shape: tuple[int, int, int]
  latent: int = 20
  hidden: tuple[int, ...] = (500,)
  dtype: str = 'float32'
  activation: str = 'relu'

  def __post_init__(self):
    if self.activation not in ACTIVATIONS:
      raise UserError(f'config.model.activation must be one of {tuple(ACTIVATIONS)}, got {self.activation!r}')
    checks.whole(self, 1, 'shape', 'latent', 'hidden')
    checks.dtype(self)
    if self.reads and not self.hidden:
      raise checks.OutOfRange('hidden must name at least one layer, which reads the conditions, got none')


@dataclasses.dataclass(frozen=True)
class ConvConfig(Told):
  """Convolutions.

  Attributes:
    shape: (H, W, C) of the images.
    latent: width Z of the latent.
    channels: channels of each stage of the encoder; every stage halves the image.
    dtype: compute type, 'float32' or 'bfloat16'; parameters are float32.

  Raises:
    ValueError: the image cannot be halved so often.
  """

  shape: tuple[int, int, int]
  latent: int = 20
  channels: tuple[int, ...] = (32, 64)
  dtype: str = 'float32'

  def __post_init__(self):
    checks.whole(self, 1, 'shape', 'latent', 'channels')
    checks.dtype(self)
    if not self.channels:
      raise checks.OutOfRange(f'channels must name at least one stage, got {self.channels}')
    factor = 2 ** len(self.channels)
    if self.shape[0] % factor or self.shape[1] % factor:
      raise ValueError(
        f'{len(self.channels)} stages divide height and width by {factor}, which does not fit shape={self.shape}')


class Conditions(nnx.Module):
  """What conditions add to the units of a first layer: a row of a table for the class, and a projection of vectors and
  numbers. A label that is joined to the layer's input as 0 and 1 adds the same (Sohn et al. 2015)."""

  def __init__(self, config: Told, width: int, dtype: str, rngs: nnx.Rngs):
    self.label = LabelEmbedding(config.num_classes, width, dtype=jnp.dtype(dtype),
                                rngs=rngs) if config.num_classes else None
    self.added = added(config, width, dtype=jnp.dtype(dtype), rngs=rngs)  # type: ignore[arg-type]

  def __call__(self, given: Given | None) -> Array:
    given = given or {}
    parts = [self.label(given['label'])] if self.label is not None else []
    parts += [self.added(given)] if self.added is not None else []
    return sum(parts[1:], parts[0])


def conditions(config: Told, width: int, dtype: str, rngs: nnx.Rngs) -> Conditions | None:
  """The module for conditions; None for a network that reads none."""
  return Conditions(config, width, dtype, rngs) if config.reads else None


class MlpEncoder(nnx.Module):
  """Images B H W C -> mean and log variance, each B Z."""

  def __init__(self, config: MlpConfig, rngs: nnx.Rngs):
    widths = (math.prod(config.shape), *config.hidden)
    self.layers = nnx.List([dense(inputs, outputs, config, rngs) for inputs, outputs in zip(widths, widths[1:])])
    self.out = dense(widths[-1], 2 * config.latent, config, rngs)
    self.activation = ACTIVATIONS[config.activation]
    self.conditions = conditions(config, math.prod(config.hidden[:1]), config.dtype, rngs)

  def __call__(self, x_BHWC: Array, given: Given | None = None, key: Key | None = None) -> tuple[Array, Array]:
    h_BD = x_BHWC.reshape(x_BHWC.shape[0], -1)
    return gaussian(self.out(_hidden(self, h_BD, given)))


class MlpDecoder(nnx.Module):
  """Latents B Z -> B H W C, the parameter of the likelihood of each pixel."""

  def __init__(self, config: MlpConfig, rngs: nnx.Rngs):
    widths = (config.latent, *config.hidden[::-1])
    self.layers = nnx.List([dense(inputs, outputs, config, rngs) for inputs, outputs in zip(widths, widths[1:])])
    self.out = dense(widths[-1], math.prod(config.shape), config, rngs)
    self.shape = config.shape
    self.activation = ACTIVATIONS[config.activation]
    self.conditions = conditions(config, math.prod(config.hidden[-1:]), config.dtype, rngs)

  def __call__(self, z_BZ: Array, given: Given | None = None, key: Key | None = None) -> Array:
    return self.out(_hidden(self, z_BZ, given)).astype(jnp.float32).reshape(-1, *self.shape)


class ConvEncoder(nnx.Module):
  """Images B H W C -> mean and log variance, each B Z."""

  def __init__(self, config: ConvConfig, rngs: nnx.Rngs):
    dtype = jnp.dtype(config.dtype)
    channels = (config.shape[2], *config.channels)
    self.layers = nnx.List([Conv(inputs, outputs, 4, 2, rngs=rngs, init=nnx.initializers.he_normal(), dtype=dtype)
                            for inputs, outputs in zip(channels, channels[1:])])
    self.out = dense(math.prod(_smallest(config)), 2 * config.latent, config, rngs)
    self.conditions = conditions(config, config.channels[0], config.dtype, rngs)

  def __call__(self, x_BHWC: Array, given: Given | None = None, key: Key | None = None) -> tuple[Array, Array]:
    for number, layer in enumerate(self.layers):
      x_BHWC = layer(x_BHWC)
      if number == 0 and self.conditions is not None:
        x_BHWC = x_BHWC + self.conditions(given)[:, None, None]
      x_BHWC = jax.nn.relu(x_BHWC)
    return gaussian(self.out(x_BHWC.reshape(x_BHWC.shape[0], -1)))


class ConvDecoder(nnx.Module):
  """Latents B Z -> B H W C, the parameter of the likelihood of each pixel."""

  def __init__(self, config: ConvConfig, rngs: nnx.Rngs):
    dtype = jnp.dtype(config.dtype)
    channels = (*config.channels[::-1], config.shape[2])
    self.smallest = _smallest(config)
    self.dense = dense(config.latent, math.prod(self.smallest), config, rngs)
    self.layers = nnx.List([ConvTranspose(inputs, outputs, 4, 2, rngs=rngs, dtype=dtype)
                            for inputs, outputs in zip(channels, channels[1:])])
    self.conditions = conditions(config, math.prod(self.smallest), config.dtype, rngs)

  def __call__(self, z_BZ: Array, given: Given | None = None, key: Key | None = None) -> Array:
    x_BD = self.dense(z_BZ)
    x_BD = x_BD if self.conditions is None else x_BD + self.conditions(given)
    x_BHWC = x_BD.reshape(-1, *self.smallest)
    for layer in self.layers:
      x_BHWC = layer(jax.nn.relu(x_BHWC))
    return x_BHWC.astype(jnp.float32)


def _hidden(net: MlpEncoder | MlpDecoder, h_BD: Array, given: Given | None) -> Array:
  """The units of the last hidden layer."""
  for number, layer in enumerate(net.layers):
    h_BD = layer(h_BD)
    if number == 0 and net.conditions is not None:
      h_BD = h_BD + net.conditions(given)
    h_BD = net.activation(h_BD)
  return h_BD


def _smallest(config: ConvConfig) -> tuple[int, int, int]:
  factor = 2 ** len(config.channels)
  return config.shape[0] // factor, config.shape[1] // factor, config.channels[-1]


def dense(inputs: int, outputs: int, config: MlpConfig | ConvConfig, rngs: nnx.Rngs) -> Dense:
  """A dense layer in the compute type of the options."""
  return Dense(inputs, outputs, rngs=rngs, dtype=jnp.dtype(config.dtype))


def gaussian(out_BZ: Array) -> Gaussian:
  """Mean and log variance, each float32 B Z: the two halves of a layer's output B 2Z."""
  mean_BZ, log_variance_BZ = jnp.split(out_BZ.astype(jnp.float32), 2, axis=-1)
  return mean_BZ, log_variance_BZ


def networks(config: MlpConfig | ConvConfig) -> tuple[Network, Network]:
  """Encoder: images B H W C -> (mean, log variance), each B Z. Decoder: latents B Z -> B H W C."""
  if isinstance(config, MlpConfig):
    return network(lambda rngs: MlpEncoder(config, rngs)), network(lambda rngs: MlpDecoder(config, rngs))
  return network(lambda rngs: ConvEncoder(config, rngs)), network(lambda rngs: ConvDecoder(config, rngs))


# Tensor parallelism splits the outputs of dense layers. Kernels of convolutions are stored split and gathered for the
# computation.
MLP_AXES = (
  (r'encoder/layers/\d+/kernel', (None, 'mlp')),
  (r'decoder/layers/\d+/kernel', (None, 'mlp')),
  (r'decoder/out/kernel', ('mlp', None)),
)
CONV_AXES = (
  (r'encoder/layers/\d+/kernel', (None, None, None, 'mlp')),
  (r'decoder/dense/kernel', (None, 'mlp')),
  (r'decoder/layers/\d+/kernel', (None, None, 'mlp', None)),
)
