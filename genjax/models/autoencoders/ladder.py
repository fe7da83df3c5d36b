"""Networks of a VAE with two levels of latents: perceptrons on flattened images (Sonderby et al. 2016)."""

import dataclasses
import math

from flax import nnx

from genjax import checks
from genjax.models.autoencoders.vae import Gaussian, MlpConfig, MlpDecoder, conditions, dense, gaussian
from genjax.nn.blocks import ACTIVATIONS
from genjax.nn.conditioning import Given
from genjax.nn.functional import Network, network
from genjax.types import Array, Key


@dataclasses.dataclass(frozen=True)
class LadderConfig(MlpConfig):
  """Two levels of latents: x - z1 - z2. The networks between the image and z1 are those of `MlpConfig`.

  Attributes:
    shape: (H, W, C) of the images.
    latent: width of z1, the level next to the image.
    hidden: widths of the hidden layers between the image and z1; the decoder has them in reverse.
    dtype: compute type, 'float32' or 'bfloat16'; parameters are float32.
    activation: of the hidden layers, one of `genjax.nn.blocks.ACTIVATIONS`.
    upper: width of z2.
    upper_hidden: widths of the hidden layers between the two levels; the way down has them in reverse.
  """

  upper: int = 10
  upper_hidden: tuple[int, ...] = (100,)

  def __post_init__(self):
    super().__post_init__()
    checks.whole(self, 1, 'upper', 'upper_hidden')


class LadderEncoder(nnx.Module):
  """Images B H W C -> what they say of z1, and q(z2 | x): two pairs of mean and log variance."""

  def __init__(self, config: LadderConfig, rngs: nnx.Rngs):
    self.lower = _stack((math.prod(config.shape), *config.hidden), config, rngs)
    self.lower_out = dense((math.prod(config.shape), *config.hidden)[-1], 2 * config.latent, config, rngs)
    between = (*config.hidden[-1:], *config.upper_hidden)
    self.upper = _stack(between, config, rngs)
    self.upper_out = dense(between[-1], 2 * config.upper, config, rngs)
    self.activation = ACTIVATIONS[config.activation]
    self.conditions = conditions(config, config.hidden[0], config.dtype, rngs)

  def __call__(self, x_BHWC: Array, given: Given | None = None, key: Key | None = None) -> tuple[Gaussian, Gaussian]:
    h_BD = x_BHWC.reshape(x_BHWC.shape[0], -1)
    for number, layer in enumerate(self.lower):
      h_BD = layer(h_BD)
      if number == 0 and self.conditions is not None:
        h_BD = h_BD + self.conditions(given)
      h_BD = self.activation(h_BD)
    lower = gaussian(self.lower_out(h_BD))
    for layer in self.upper:
      h_BD = self.activation(layer(h_BD))
    return lower, gaussian(self.upper_out(h_BD))


class LadderPrior(nnx.Module):
  """Latents z2, B U -> p(z1 | z2): mean and log variance."""

  def __init__(self, config: LadderConfig, rngs: nnx.Rngs):
    widths = (config.upper, *config.upper_hidden[::-1])
    self.layers = _stack(widths, config, rngs)
    self.out = dense(widths[-1], 2 * config.latent, config, rngs)
    self.activation = ACTIVATIONS[config.activation]

  def __call__(self, z_BU: Array, key: Key | None = None) -> Gaussian:
    for layer in self.layers:
      z_BU = self.activation(layer(z_BU))
    return gaussian(self.out(z_BU))


def _stack(widths: tuple[int, ...], config: LadderConfig, rngs: nnx.Rngs) -> nnx.List:
  return nnx.List([dense(inputs, outputs, config, rngs) for inputs, outputs in zip(widths, widths[1:])])


def networks(config: LadderConfig) -> tuple[Network, Network, Network]:
  """Encoder, decoder and prior of z1; see the classes, and `MlpDecoder` for the decoder."""
  return (network(lambda rngs: LadderEncoder(config, rngs)), network(lambda rngs: MlpDecoder(config, rngs)),
          network(lambda rngs: LadderPrior(config, rngs)))


AXES = (
  (r'encoder/(lower|upper)/\d+/kernel', (None, 'mlp')),
  (r'decoder/layers/\d+/kernel', (None, 'mlp')),
  (r'decoder/out/kernel', ('mlp', None)),
  (r'prior/layers/\d+/kernel', (None, 'mlp')),
)
