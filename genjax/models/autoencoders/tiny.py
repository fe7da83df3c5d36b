"""A small convolutional autoencoder without norms and attention: TAESD (Bollin Boer 2023, distilled from others).

Stages of residual blocks with ReLUs, joined by convolutions of stride 2 and by repeated pixels. Its latents are those
of the autoencoder that it was distilled from, already shifted and scaled to deviation 1, and they have no variance.
"""

import dataclasses
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from genjax import checks
from genjax.models.autoencoders import kl
from genjax.models.autoencoders.stages import Stages
from genjax.nn import functional
from genjax.nn.blocks import ACTIVATIONS
from genjax.nn.conv import Conv, around, double
from genjax.nn.functional import Network, network
from genjax.types import Array, Key

_BOUND = 3.0  # latents are bounded smoothly to +-3 before they are decoded


@dataclasses.dataclass(frozen=True)
class Tiny(Stages):
  """Options of the networks; the defaults are those of the one for Stable Diffusion 1 and XL (2,445,063 parameters).

  Attributes:
    shape: (H, W, C) of the images.
    latent: channels Z of the latent.
    encoder_channels: of each stage of the encoder; each stage but the first has half the resolution of the one before.
    decoder_channels: of each stage of the decoder, from the smallest resolution on.
    encoder_blocks: residual blocks of each stage of the encoder.
    decoder_blocks: residual blocks of each stage of the decoder.
    activation: inside of the residual blocks, one of `genjax.nn.blocks.ACTIVATIONS`; they end with a ReLU.
    dtype: compute type, 'float32' or 'bfloat16'; parameters are float32.
    remat: what the backward pass keeps of a block: 'none' everything, 'dots' matrix products, 'full' its inputs only,
      'offload' its inputs in the memory of the host.

  Raises:
    UserError: options of several lengths, channels that change between joined stages, sizes that do not divide, or an
      unknown activation.
  """

  shape: tuple[int, int, int]
  latent: int = 4
  encoder_channels: tuple[int, ...] = (64, 64, 64, 64)
  decoder_channels: tuple[int, ...] = (64, 64, 64, 64)
  encoder_blocks: tuple[int, ...] = (1, 3, 3, 3)
  decoder_blocks: tuple[int, ...] = (3, 3, 3, 1)
  activation: str = 'relu'
  dtype: str = 'float32'
  remat: str = 'none'

  def __post_init__(self):
    checks.whole(self, 1, 'shape', 'latent', 'encoder_channels', 'decoder_channels')
    checks.whole(self, 0, 'encoder_blocks', 'decoder_blocks')
    checks.dtype(self)
    if self.activation not in ACTIVATIONS:
      raise checks.OutOfRange(f'activation must be one of {sorted(ACTIVATIONS)}, got {self.activation!r}')
    for side in ('encoder', 'decoder'):
      channels, blocks = getattr(self, f'{side}_channels'), getattr(self, f'{side}_blocks')
      if len(channels) != len(blocks) or len(channels) != len(self.encoder_channels) or not channels:
        raise checks.OutOfRange(f'{side}_blocks must have an entry for each stage, as {side}_channels and '
                                f'encoder_channels have, got {blocks}, {channels} and {self.encoder_channels}')
      if len(set(channels)) > 1:
        raise checks.OutOfRange(f'{side}_channels must be alike, since what joins two stages keeps their number, got '
                                f'{channels}')
    self.check_size('encoder_channels')

  @property
  def stages(self) -> int:
    """Number of stages."""
    return len(self.encoder_channels)


def networks(config: Tiny) -> tuple[Network, Network]:
  """Encoder: images B H W C in [-1, 1] -> (mean, log variance), each float32 B H/f W/f Z, where the log variance is the
  least that autoencoders have. Decoder: latents -> images B H W C of about that range."""
  return network(lambda rngs: Encoder(config, rngs)), network(lambda rngs: Decoder(config, rngs))


def autoencoder(config: Tiny) -> Network:
  """Both networks as one, see `genjax.models.autoencoders.kl.joined`."""
  return kl.joined(*networks(config))


class Encoder(nnx.Module):
  """Images B H W C -> mean and log variance of the latent."""

  def __init__(self, config: Tiny, rngs: nnx.Rngs):
    dtype, (width, *_) = jnp.dtype(config.dtype), config.encoder_channels
    self.remat = config.remat
    self.first = Conv(config.shape[-1], width, dtype=dtype, rngs=rngs)
    self.down = nnx.List([_stage(config, width, count, rngs) for count in config.encoder_blocks])
    self.shrink = nnx.List([Conv(width, width, stride=2, bias=False, dtype=dtype, rngs=rngs)
                            for _ in config.encoder_blocks[1:]])
    self.last = Conv(width, config.latent, dtype=dtype, rngs=rngs)

  def __call__(self, x_BHWC: Array, key: Key | None = None) -> tuple[Array, Array]:
    x_BHWC = self.first((x_BHWC + 1) / 2)
    for index, blocks in enumerate(self.down):
      x_BHWC = around(self.shrink[index - 1], x_BHWC) if index else x_BHWC
      for block in blocks:
        x_BHWC = functional.rematerialise(block, self.remat)(x_BHWC)
    mean_BHWZ = self.last(x_BHWC).astype(jnp.float32)
    return mean_BHWZ, jnp.full_like(mean_BHWZ, kl.LOG_VARIANCES[0])


class Decoder(nnx.Module):
  """Latents B H/f W/f Z -> images B H W C.

  `part` 'hidden' ends before the last convolution, and 'last' begins there: a loss may ask for its gradient.
  """

  def __init__(self, config: Tiny, rngs: nnx.Rngs):
    dtype, (width, *_) = jnp.dtype(config.dtype), config.decoder_channels
    self.remat, self.activation = config.remat, ACTIVATIONS[config.activation]
    self.first = Conv(config.latent, width, dtype=dtype, rngs=rngs)
    self.up = nnx.List([_stage(config, width, count, rngs) for count in config.decoder_blocks])
    self.enlarge = nnx.List([Conv(width, width, bias=False, dtype=dtype, rngs=rngs)
                             for _ in config.decoder_blocks[1:]])
    self.last = Conv(width, config.shape[-1], dtype=dtype, rngs=rngs)

  def __call__(self, z_BHWZ: Array, key: Key | None = None, part: str = 'all') -> Array:
    x_BHWC = z_BHWZ if part == 'last' else self._hidden(z_BHWZ)
    return x_BHWC if part == 'hidden' else self._image(x_BHWC)

  def _hidden(self, z_BHWZ: Array) -> Array:
    x_BHWC = self.activation(self.first(_BOUND * jnp.tanh(z_BHWZ / _BOUND)))
    for index, blocks in enumerate(self.up):
      x_BHWC = self.enlarge[index - 1](double(x_BHWC)) if index else x_BHWC
      for block in blocks:
        x_BHWC = functional.rematerialise(block, self.remat)(x_BHWC)
    return x_BHWC

  def _image(self, x_BHWC: Array) -> Array:
    return 2 * self.last(x_BHWC).astype(jnp.float32) - 1


class Block(nnx.Module):
  """Three convolutions beside a shortcut, and a ReLU after their sum."""

  def __init__(self, config: Tiny, width: int, rngs: nnx.Rngs):
    dtype = jnp.dtype(config.dtype)
    self.activation = ACTIVATIONS[config.activation]
    self.convs = nnx.List([Conv(width, width, dtype=dtype, rngs=rngs, axes=axes)
                           for axes in ((None, 'mlp'), ('mlp', None), (None, None))])

  def __call__(self, x_BHWC: Array, key: Key | None = None) -> Array:
    hidden = self.activation(self.convs[1](self.activation(self.convs[0](x_BHWC))))
    return jax.nn.relu(x_BHWC + self.convs[2](hidden))


def _stage(config: Tiny, width: int, count: int, rngs: nnx.Rngs) -> nnx.List:
  return nnx.List([Block(config, width, rngs) for _ in range(count)])


# Tensor parallelism splits the channels between the first two convolutions of a block.
AXES = (
  (r'(encoder|decoder)/(down|up)/.*/convs/0/kernel', (None, None, None, 'mlp')),
  (r'(encoder|decoder)/(down|up)/.*/convs/0/bias', ('mlp',)),
  (r'(encoder|decoder)/(down|up)/.*/convs/1/kernel', (None, None, 'mlp', None)))

# Options of published networks over the defaults.
VARIANTS: dict[str, dict[str, Any]] = {
  'taesd': dict(shape=(512, 512, 3)), 'taesdxl': dict(shape=(1024, 1024, 3)),
  'taesd3': dict(shape=(1024, 1024, 3), latent=16), 'taef1': dict(shape=(1024, 1024, 3), latent=16)}
