"""Autoencoders whose latents are quantized: VQ-VAE (van den Oord et al. 2017) and VQGAN (Esser et al. 2021).

The networks end before the quantizer and begin after it; see `genjax.nn.quantizers`.
"""

import dataclasses

from flax import nnx
import jax
import jax.numpy as jnp

from genjax import checks
from genjax.models.autoencoders import kl
from genjax.nn.conv import Conv, ConvTranspose
from genjax.nn.functional import Network, network
from genjax.nn.quantizers import VectorQuantizer
from genjax.types import Array, Key, Tree

# Sonnet draws kernels from a normal distribution that is cut off at two deviations, and does not widen it again.
_INIT = nnx.initializers.variance_scaling(0.87962566**2, 'fan_in', 'truncated_normal')


@dataclasses.dataclass(frozen=True)
class VqVae:
  """The small network of VQ-VAE; the defaults are those of Sonnet's example on CIFAR-10.

  Attributes:
    shape: (H, W, C) of the images.
    width: numbers of a code.
    hidden: channels of the hidden maps.
    halvings: how many times the resolution is halved.
    blocks: residual blocks of encoder and decoder each.
    residual: channels within a residual block.
    pixel_scale: factor by which the network sees pixels of [-1, 1], and by whose inverse its output is multiplied.
    dtype: compute type, 'float32' or 'bfloat16'; parameters are float32.

  Raises:
    OutOfRange: an image size that cannot be halved so often.
  """

  shape: tuple[int, int, int]
  width: int = 64
  hidden: int = 128
  halvings: int = 2
  blocks: int = 2
  residual: int = 32
  pixel_scale: float = 0.5
  dtype: str = 'float32'

  def __post_init__(self):
    checks.whole(self, 1, 'shape', 'width', 'halvings', 'blocks', 'residual')
    checks.whole(self, 2, 'hidden')
    checks.positive(self, 'pixel_scale')
    checks.dtype(self)
    if self.shape[0] % self.factor or self.shape[1] % self.factor:
      raise checks.OutOfRange(f'halvings={self.halvings} needs an image size that is a multiple of {self.factor}, got '
                              f'{self.shape[:2]}; use fewer, or another size')

  @property
  def factor(self) -> int:
    """By how much the latent is smaller than the image, along each side."""
    return 2 ** self.halvings

  @property
  def latent_shape(self) -> tuple[int, int, int]:
    """(H / factor, W / factor, width)."""
    return self.shape[0] // self.factor, self.shape[1] // self.factor, self.width

  @property
  def stages(self) -> tuple[int, ...]:
    """Channels after each halving."""
    return (self.hidden // 2, *[self.hidden] * (self.halvings - 1)) if self.halvings > 1 else (self.hidden,)


@dataclasses.dataclass(frozen=True)
class VqGan(kl.Kl):
  """The autoencoder of VQGAN and of latent diffusion: that of `genjax.models.autoencoders.kl`, with one map for the
  codes in the place of mean and log variance.

  Attributes:
    width: numbers of a code; 0 for `latent`. 1 x 1 convolutions lead there and back.
  """

  width: int = 0

  def __post_init__(self):
    super().__post_init__()
    checks.whole(self, 0, 'width')
    if not self.projections and self.width not in (0, self.latent):
      raise checks.OutOfRange(f'width must be latent={self.latent} where there are no projections, got {self.width}')

  @property
  def latent_shape(self) -> tuple[int, int, int]:
    """(H / factor, W / factor, width)."""
    return (*super().latent_shape[:2], self.width or self.latent)


def networks(config: VqVae) -> tuple[Network, Network]:
  """Encoder: images B H W C in [-1, 1] -> vectors float32 B H/f W/f D. Decoder: codes of that shape -> images B H W C
  of about that range; see `genjax.models.autoencoders.kl.Decoder` for its option `part`."""
  return network(lambda rngs: _Encoder(config, rngs)), network(lambda rngs: _Decoder(config, rngs))


def gan_networks(config: VqGan) -> tuple[Network, Network]:
  """As `networks`."""
  return (network(lambda rngs: _GanEncoder(config, rngs)),
          network(lambda rngs: kl.Decoder(config, rngs, config.latent_shape[-1])))


@dataclasses.dataclass(frozen=True)
class Whole:
  """An autoencoder with its codebook, as public weights have it.

  Attributes:
    model: options of the networks.
    quantizer: options of the codebook, which is learned by gradient.
  """

  model: VqGan
  quantizer: VectorQuantizer


def autoencoder(config: Whole) -> Network:
  """All as one network: images B H W C in [-1, 1] -> the numbers of their codes, and what the decoder makes of these.

  Parameters: {'encoder': ..., 'decoder': ..., 'codebook': {'embedding': K D}}.
  """
  encoder, decoder = gan_networks(config.model)
  names = ('encoder', 'decoder', 'codebook')

  def init(key: Key) -> tuple[Tree, Tree]:
    parts = (encoder, decoder, config.quantizer)
    return {name: part.init(key)[0] for name, part, key in zip(names, parts, jax.random.split(key, 3))}, {}

  def apply(params: Tree, mutable: Tree, x_BHWC: Array, key: Key | None = None):
    keys = (None, None) if key is None else jax.random.split(key)
    z_BHWD, _ = encoder.apply(params['encoder'], {}, x_BHWC, key=keys[0])
    quantized, _ = config.quantizer.apply(params['codebook'], {}, z_BHWD)
    return (quantized.index_X, decoder.apply(params['decoder'], {}, quantized.z_XD, key=keys[1])[0]), mutable

  return Network(init, apply)


class _GanEncoder(kl.Encoder):

  def __init__(self, config: VqGan, rngs: nnx.Rngs):
    super().__init__(config, rngs, (config.latent, config.latent_shape[-1]))

  def __call__(self, x_BHWC: Array, key: Key | None = None) -> Array:  # type: ignore[override]
    return self.maps(x_BHWC, key)


class _Encoder(nnx.Module):

  def __init__(self, config: VqVae, rngs: nnx.Rngs):
    dtype, inputs = jnp.dtype(config.dtype), config.shape[-1]
    self.scale, down = config.pixel_scale, []
    for width in config.stages:
      down.append(Conv(inputs, width, 4, 2, init=_INIT, dtype=dtype, rngs=rngs))
      inputs = width
    self.down = nnx.List(down)
    self.first = Conv(inputs, config.hidden, init=_INIT, dtype=dtype, rngs=rngs)
    self.blocks = nnx.List([_Block(config, rngs) for _ in range(config.blocks)])
    self.last = Conv(config.hidden, config.width, 1, init=_INIT, dtype=dtype, rngs=rngs)

  def __call__(self, x_BHWC: Array, key: Key | None = None) -> Array:
    x_BHWC = x_BHWC * self.scale
    for layer in (*self.down, self.first):
      x_BHWC = jax.nn.relu(layer(x_BHWC))
    for block in self.blocks:
      x_BHWC = block(x_BHWC)
    return self.last(jax.nn.relu(x_BHWC)).astype(jnp.float32)


class _Decoder(nnx.Module):

  def __init__(self, config: VqVae, rngs: nnx.Rngs):
    dtype, inputs = jnp.dtype(config.dtype), config.hidden
    self.scale, up = config.pixel_scale, []
    self.first = Conv(config.width, config.hidden, init=_INIT, dtype=dtype, rngs=rngs)
    self.blocks = nnx.List([_Block(config, rngs) for _ in range(config.blocks)])
    for width in config.stages[-2::-1]:
      up.append(ConvTranspose(inputs, width, 4, 2, init=_INIT, dtype=dtype, rngs=rngs))
      inputs = width
    self.up = nnx.List(up)
    self.last = ConvTranspose(inputs, config.shape[-1], 4, 2, init=_INIT, dtype=dtype, rngs=rngs)

  def __call__(self, z_BHWD: Array, key: Key | None = None, part: str = 'all') -> Array:
    x_BHWC = z_BHWD if part == 'last' else self._hidden(z_BHWD)
    return x_BHWC if part == 'hidden' else self.last(x_BHWC).astype(jnp.float32) / self.scale

  def _hidden(self, z_BHWD: Array) -> Array:
    x_BHWC = self.first(z_BHWD)
    for block in self.blocks:
      x_BHWC = block(x_BHWC)
    x_BHWC = jax.nn.relu(x_BHWC)
    for layer in self.up:
      x_BHWC = jax.nn.relu(layer(x_BHWC))
    return x_BHWC


class _Block(nnx.Module):
  """A 3 x 3 and a 1 x 1 convolution, each after a ReLU, beside a shortcut."""

  def __init__(self, config: VqVae, rngs: nnx.Rngs):
    dtype = jnp.dtype(config.dtype)
    self.conv_in = Conv(config.hidden, config.residual, init=_INIT, dtype=dtype, rngs=rngs, axes=(None, 'mlp'))
    self.conv_out = Conv(config.residual, config.hidden, 1, init=_INIT, dtype=dtype, rngs=rngs, axes=('mlp', None))

  def __call__(self, x_BHWC: Array) -> Array:
    return x_BHWC + self.conv_out(jax.nn.relu(self.conv_in(jax.nn.relu(x_BHWC))))


# Tensor parallelism splits the channels within residual blocks.
AXES = (
  (r'(encoder|decoder)/blocks/\d+/conv_in/kernel', (None, None, None, 'mlp')),
  (r'(encoder|decoder)/blocks/\d+/conv_in/bias', ('mlp',)),
  (r'(encoder|decoder)/blocks/\d+/conv_out/kernel', (None, None, 'mlp', None)))
GAN_AXES = kl.AXES
