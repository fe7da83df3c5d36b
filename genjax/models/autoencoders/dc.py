"""DC-AE, an autoencoder of strong compression (Chen et al. 2024), used by Sana and others.

What changes the resolution has a shortcut without parameters: pixels become channels, whose means are added, and back.
The stages of low resolution have linear attention. Latents have no variance.
"""

import dataclasses
from typing import Any

from flax import nnx
import jax.numpy as jnp

from genjax import checks
from genjax.models.autoencoders import dc_blocks, kl
from genjax.models.autoencoders.stages import Stages
from genjax.nn import functional
from genjax.nn.blocks import ACTIVATIONS
from genjax.nn.conv import Conv
from genjax.nn.functional import Network, network
from genjax.types import Array, Key

_BY = ('conv', 'pixels')


@dataclasses.dataclass(frozen=True)
class DcAe(Stages):
  """Options of the networks; the defaults are those of f32c32 of Sana (312,250,275 parameters).

  Attributes:
    shape: (H, W, C) of the images.
    latent: channels Z of the latent.
    encoder_channels: of each stage; each stage but the first has half the resolution of the one before.
    decoder_channels: of each stage, from the largest resolution on.
    encoder_blocks: blocks of each stage; with 0 in the first stage the image is halved at once.
    decoder_blocks: blocks of each stage, from the largest resolution on.
    attention: number of stages, the last ones, that have linear attention in place of residual blocks.
    head_dim: channels of an attention head.
    scales: sizes of the depthwise convolutions that attention sees beside the pixels.
    shrink: 'conv' or 'pixels', see `genjax.models.autoencoders.dc_blocks.Shrink`.
    enlarge: 'conv' or 'pixels', see `genjax.models.autoencoders.dc_blocks.Enlarge`.
    encoder_shortcut: whether means of channels are added to the latent.
    decoder_shortcut: whether repeated channels of the latent are added to the first map of the decoder.
    activation: of the residual blocks of the decoder, one of `genjax.nn.blocks.ACTIVATIONS`; the encoder has SiLUs.
    last_activation: before the last convolution of the decoder.
    dtype: compute type, 'float32' or 'bfloat16'; parameters are float32.
    remat: what the backward pass keeps of a block: 'none' everything, 'dots' matrix products, 'full' its inputs only,
      'offload' its inputs in the memory of the host.

  Raises:
    UserError: options of several lengths, channels that shortcuts or heads do not divide, or an unknown name.
  """

  shape: tuple[int, int, int]
  latent: int = 32
  encoder_channels: tuple[int, ...] = (128, 256, 512, 512, 1024, 1024)
  decoder_channels: tuple[int, ...] = (128, 256, 512, 512, 1024, 1024)
  encoder_blocks: tuple[int, ...] = (2, 2, 2, 3, 3, 3)
  decoder_blocks: tuple[int, ...] = (3, 3, 3, 3, 3, 3)
  attention: int = 3
  head_dim: int = 32
  scales: tuple[int, ...] = (5,)
  shrink: str = 'conv'
  enlarge: str = 'conv'
  encoder_shortcut: bool = True
  decoder_shortcut: bool = True
  activation: str = 'silu'
  last_activation: str = 'relu'
  dtype: str = 'float32'
  remat: str = 'none'

  def __post_init__(self):
    checks.whole(self, 1, 'shape', 'latent', 'encoder_channels', 'decoder_channels', 'head_dim', 'scales')
    checks.whole(self, 0, 'encoder_blocks', 'decoder_blocks', 'attention')
    checks.dtype(self)
    for name, known in (('shrink', _BY), ('enlarge', _BY), ('activation', ACTIVATIONS),
                        ('last_activation', ACTIVATIONS)):
      if getattr(self, name) not in known:
        raise checks.OutOfRange(f'{name} must be one of {sorted(known)}, got {getattr(self, name)!r}')
    stages = self.stages
    for side in ('encoder', 'decoder'):
      self._check_side(side, getattr(self, f'{side}_channels'), getattr(self, f'{side}_blocks'), stages)
    if self.attention > stages or any(size % 2 == 0 for size in self.scales):
      raise checks.OutOfRange(f'attention must be at most the number of stages, and scales odd, got {self.attention} '
                              f'for {stages} stages, and {self.scales}')
    self.check_size('encoder_channels')

  def _check_side(self, side: str, channels: tuple[int, ...], blocks: tuple[int, ...], stages: int) -> None:
    if len(channels) != stages or len(blocks) != stages or stages < 2:
      raise checks.OutOfRange(f'{side}_blocks must have an entry for each of at least two stages, as {side}_channels '
                              f'and encoder_channels have, got {blocks}, {channels} and {self.encoder_channels}')
    if not all(blocks[1:]):
      raise checks.OutOfRange(f'{side}_blocks may be 0 in the first stage only, got {blocks}')
    first = 0 if blocks[0] else 1  # a stage without blocks has no shortcut
    if any(4 * large % small for large, small in zip(channels[first:], channels[first + 1:])):
      raise checks.OutOfRange(f'{side}_channels of a stage must divide 4 times those of the stage before, got '
                              f'{channels}')
    if getattr(self, f'{side}_shortcut') and channels[-1] % self.latent:
      raise checks.OutOfRange(f'latent must divide the channels of the last stage, got {self.latent} and '
                              f'{channels[-1]}; or set {side}_shortcut to False')
    if self.attention and min(channels[-self.attention:]) < self.head_dim:
      raise checks.OutOfRange(f'head_dim must be at most the channels of the stages with attention, got '
                              f'{self.head_dim} and {channels[-self.attention:]}')
    if side == 'encoder' and self.shrink == 'pixels' and any(width % 4 for width in channels[1:]):
      raise checks.OutOfRange(f'encoder_channels must be multiples of 4 after the first for shrink=pixels, got '
                              f'{channels}')

  @property
  def stages(self) -> int:
    """Number of stages."""
    return len(self.encoder_channels)


def networks(config: DcAe) -> tuple[Network, Network]:
  """Encoder: images B H W C in [-1, 1] -> (mean, log variance), each float32 B H/f W/f Z, where the log variance is the
  least that autoencoders have. Decoder: latents -> images B H W C of about that range."""
  return network(lambda rngs: Encoder(config, rngs)), network(lambda rngs: Decoder(config, rngs))


def autoencoder(config: DcAe) -> Network:
  """Both networks as one, see `genjax.models.autoencoders.kl.joined`."""
  return kl.joined(*networks(config))


class Encoder(nnx.Module):
  """Images B H W C -> mean and log variance of the latent."""

  def __init__(self, config: DcAe, rngs: nnx.Rngs):
    dtype, widths, counts = jnp.dtype(config.dtype), config.encoder_channels, config.encoder_blocks
    self.remat, self.group = config.remat, widths[-1] // config.latent if config.encoder_shortcut else 0
    channels = config.shape[-1]
    self.first = (Conv(channels, widths[0], dtype=dtype, rngs=rngs) if counts[0] else dc_blocks.Shrink(
      channels, widths[1], config.shrink, False, dtype=dtype, rngs=rngs))
    stages, shrink = [], []
    for index, (width, count) in enumerate(zip(widths, counts)):
      stages.append(_stage(config, index, width, count, 'silu', rngs))
      if count and index + 1 < len(widths):
        shrink.append(dc_blocks.Shrink(width, widths[index + 1], config.shrink, True, dtype=dtype, rngs=rngs))
    self.down, self.shrink = nnx.List(stages), nnx.List(shrink)
    self.last = Conv(widths[-1], config.latent, dtype=dtype, rngs=rngs)

  def __call__(self, x_BHWC: Array, key: Key | None = None) -> tuple[Array, Array]:
    x_BHWC, shrink = self.first(x_BHWC), iter(self.shrink)
    for index, blocks in enumerate(self.down):
      for block in blocks:
        x_BHWC = functional.rematerialise(block, self.remat)(x_BHWC)
      x_BHWC = next(shrink)(x_BHWC) if len(blocks) and index + 1 < len(self.down) else x_BHWC
    mean_BHWZ = self.last(x_BHWC)
    mean_BHWZ = mean_BHWZ + dc_blocks.averaged(x_BHWC, self.group) if self.group else mean_BHWZ
    mean_BHWZ = mean_BHWZ.astype(jnp.float32)
    return mean_BHWZ, jnp.full_like(mean_BHWZ, kl.LOG_VARIANCES[0])


class Decoder(nnx.Module):
  """Latents B H/f W/f Z -> images B H W C. Its stages are listed from the largest resolution on, and run in reverse.

  `part` 'hidden' ends before the last convolution, and 'last' is that convolution alone: a loss may ask for its
  gradient.
  """

  def __init__(self, config: DcAe, rngs: nnx.Rngs):
    dtype, widths, counts = jnp.dtype(config.dtype), config.decoder_channels, config.decoder_blocks
    self.remat, self.repeats = config.remat, widths[-1] // config.latent if config.decoder_shortcut else 0
    self.activation = ACTIVATIONS[config.last_activation]
    self.first = Conv(config.latent, widths[-1], dtype=dtype, rngs=rngs)
    stages, enlarge = [], []
    for index, (width, count) in enumerate(zip(widths, counts)):
      stages.append(_stage(config, index, width, count, config.activation, rngs))
      if count and index + 1 < len(widths):
        enlarge.append(dc_blocks.Enlarge(widths[index + 1], width, config.enlarge, True, dtype=dtype, rngs=rngs))
    self.up, self.enlarge = nnx.List(stages), nnx.List(enlarge)
    width, channels = widths[0] if counts[0] else widths[1], config.shape[-1]
    self.norm = dc_blocks.Norm(width, dtype=dtype, rngs=rngs)
    self.last = (Conv(width, channels, dtype=dtype, rngs=rngs) if counts[0] else dc_blocks.Enlarge(
      width, channels, config.enlarge, False, dtype=dtype, rngs=rngs))

  def __call__(self, z_BHWZ: Array, key: Key | None = None, part: str = 'all') -> Array:
    x_BHWC = z_BHWZ if part == 'last' else self._hidden(z_BHWZ)
    return x_BHWC if part == 'hidden' else self._image(x_BHWC)

  def _hidden(self, z_BHWZ: Array) -> Array:
    x_BHWC, enlarge = self.first(z_BHWZ), iter(reversed(self.enlarge))
    x_BHWC = x_BHWC + jnp.repeat(z_BHWZ, self.repeats, axis=-1).astype(x_BHWC.dtype) if self.repeats else x_BHWC
    for index, blocks in reversed(list(enumerate(self.up))):
      x_BHWC = next(enlarge)(x_BHWC) if len(blocks) and index + 1 < len(self.up) else x_BHWC
      for block in blocks:
        x_BHWC = functional.rematerialise(block, self.remat)(x_BHWC)
    return self.activation(self.norm(x_BHWC))

  def _image(self, x_BHWC: Array) -> Array:
    return self.last(x_BHWC).astype(jnp.float32)


def _stage(config: DcAe, index: int, width: int, count: int, activation: str, rngs: nnx.Rngs) -> nnx.List:
  dtype = jnp.dtype(config.dtype)
  if index < len(config.encoder_channels) - config.attention:
    return nnx.List([dc_blocks.Residual(width, activation, dtype=dtype, rngs=rngs) for _ in range(count)])
  return nnx.List([dc_blocks.LinearAttentionBlock(width, config.head_dim, config.scales, dtype=dtype, rngs=rngs)
                   for _ in range(count)])


# Tensor parallelism splits the hidden channels of residual blocks; attention is over few channels.
AXES = (
  (r'(encoder|decoder)/(down|up)/.*/conv_in/kernel', (None, None, None, 'mlp')),
  (r'(encoder|decoder)/(down|up)/.*/conv_in/bias', ('mlp',)),
  (r'(encoder|decoder)/(down|up)/.*/conv_out/kernel', (None, None, 'mlp', None)))

# Options of published networks over the defaults.
VARIANTS: dict[str, dict[str, Any]] = {'dc_ae_f32c32_sana': dict(shape=(1024, 1024, 3))}
