"""Residual generators and discriminators: SNGAN (Miyato et al. 2018), the ResNets of WGAN-GP (Gulrajani et al. 2017),
projection GANs (cGAN-PD, Miyato and Koyama 2018) and SAGAN (Zhang et al. 2019).

One generator and one discriminator have them all as options, with the sizes of kwotsin/mimicry in `VARIANTS`. As there,
generators enlarge by bilinear interpolation, and classes enter the generator by conditional batch normalisation and the
discriminator by the inner product of its features with a vector of the label.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from genjax import checks
from genjax.models.adversarial.dcgan import Head
from genjax.nn.conv import Conv, Dense, Initializer, double_linear, halve
from genjax.nn.functional import Network, network
from genjax.nn.norms import BatchNorm, ConditionalBatchNorm
from genjax.types import Array, Key, UserError

POOLS = ('sum', 'mean')
# Glorot and Bengio (2010), with a gain of sqrt(2) for the convolutions inside of blocks
_XAVIER = nnx.initializers.variance_scaling(1.0, 'fan_avg', 'uniform')
_XAVIER_TWICE = nnx.initializers.variance_scaling(2.0, 'fan_avg', 'uniform')
_ATTENTION = nnx.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')


@dataclasses.dataclass(frozen=True)
class ResidualGan:
  """Residual networks for square images; the defaults are those of SNGAN at 32 pixels.

  Attributes:
    size: height and width of an image, in pixels.
    channels: channels of an image.
    latent: width Z of the latent.
    generator_widths: channels of the generator's first map, and after each of its blocks, each of which doubles the
      size; the first map has size / 2^blocks pixels along a side.
    discriminator_widths: channels after each block of the discriminator.
    halvings: how many of the discriminator's blocks, the first ones, halve the size.
    spectral: whether the discriminator has spectral normalisation.
    generator_spectral: whether the generator has it, as in SAGAN.
    generator_attention: side of the maps, in pixels, that the generator attends over; 0 for no attention.
    discriminator_attention: the same of the discriminator: after its first block with maps of this side.
    rectified_shortcut: whether shortcuts of the discriminator, too, read what a ReLU left, but that of the first block.
      The papers' do not; those of mimicry do, whose ReLU changes its input in place.
    pool: how the discriminator joins the places of its last map, 'sum' or 'mean'.
    num_classes: number of classes; None for an unconditional model.
    pack: samples that the discriminator judges together, stacked along the channels (PacGAN).
    momentum: decay of the running averages of batch normalisation, per step.
    dtype: compute type, 'float32' or 'bfloat16'; parameters, softmax and outputs are float32.

  Raises:
    UserError: a size that the blocks do not divide, or an option out of range.
  """

  size: int = 32
  channels: int = 3
  latent: int = 128
  generator_widths: tuple[int, ...] = (256, 256, 256, 256)
  discriminator_widths: tuple[int, ...] = (128, 128, 128, 128)
  halvings: int = 2
  spectral: bool = True
  generator_spectral: bool = False
  generator_attention: int = 0
  discriminator_attention: int = 0
  rectified_shortcut: bool = False
  pool: str = 'sum'
  num_classes: int | None = None
  pack: int = 1
  momentum: float = 0.9
  dtype: str = 'float32'

  discriminator_norm = 'none'  # it has none: a gradient penalty has a meaning
  gives_features = True  # of its discriminator, by part='features'

  def __post_init__(self):
    checks.whole(self, 1, 'size', 'channels', 'latent', 'generator_widths', 'discriminator_widths', 'halvings', 'pack',
                 'num_classes')  # num_classes None: unconditional
    checks.whole(self, 0, 'generator_attention', 'discriminator_attention')
    checks.rates(self, 'momentum')
    checks.dtype(self)
    if self.pool not in POOLS:
      raise UserError(f'config.model.pool must be one of {POOLS}, got {self.pool!r}')
    if len(self.generator_widths) < 2 or len(self.discriminator_widths) < self.halvings:
      raise UserError('config.model.generator_widths needs the channels of the first map and of at least one block, '
                      f'and discriminator_widths at least halvings={self.halvings} blocks; got '
                      f'{self.generator_widths} and {self.discriminator_widths}')
    for name, doublings in (('generator_widths', len(self.generator_widths) - 1), ('halvings', self.halvings)):
      if self.size % 2**doublings:
        raise UserError(f'config.model.{name} has {doublings} blocks that change the size by two, so that the images '
                        f'need a side that {2**doublings} divides, got {self.size}; resize them or take fewer blocks')
    for name, sides in (('generator_attention', self.generator_sides), ('discriminator_attention',
                                                                        self.discriminator_sides)):
      side = getattr(self, name)
      if side and (side not in sides or side % 2):
        raise UserError(f'config.model.{name} must be 0 or an even side of a map behind a block, one of '
                        f'{sorted({one for one in sides if one % 2 == 0})}, got {side}')

  @property
  def generator_sides(self) -> tuple[int, ...]:
    """Side of the maps after each block of the generator."""
    blocks = len(self.generator_widths) - 1
    return tuple(self.size >> (blocks - 1 - index) for index in range(blocks))

  @property
  def discriminator_sides(self) -> tuple[int, ...]:
    """Side of the maps after each block of the discriminator."""
    return tuple(self.size >> min(index + 1, self.halvings) for index in range(len(self.discriminator_widths)))

  def generator(self) -> Network:
    """(latent B Z, label B or None) -> images B H W C in [-1, 1], float32."""
    return network(lambda rngs: ResidualGenerator(self, rngs))

  def discriminator(self) -> Network:
    """(images B/p H W pC, label B/p p or None) -> logits B/p, float32; with part='features' (logits, maps of all
    blocks)."""
    return network(lambda rngs: ResidualDiscriminator(self, rngs))


_SMALL: dict[str, Any] = dict(size=32, rectified_shortcut=True)
_MIDDLE = dict(_SMALL, size=48, generator_widths=(512, 256, 128, 64), discriminator_widths=(64, 128, 256, 512, 1024),
               halvings=4)
_LARGE = dict(_MIDDLE, size=64, generator_widths=(1024, 512, 256, 128, 64), halvings=5)
_LARGEST = dict(_LARGE, size=128, generator_widths=(1024, 1024, 512, 256, 128, 64),
                discriminator_widths=(64, 128, 256, 512, 1024, 1024))
_CRITIC = dict(spectral=False, pool='mean')
_CLASSES = dict(num_classes=10)
_SAGAN = dict(generator_spectral=True, **_CLASSES)

# Options of `ResidualGan` for the sizes of kwotsin/mimicry (torch_mimicry/nets)
VARIANTS: dict[str, Mapping[str, Any]] = {
  'sngan_32': _SMALL, 'sngan_48': _MIDDLE, 'sngan_64': _LARGE, 'sngan_128': _LARGEST,
  'wgan_gp_32': {**_SMALL, **_CRITIC}, 'wgan_gp_48': {**_MIDDLE, **_CRITIC}, 'wgan_gp_64': {**_LARGE, **_CRITIC},
  'wgan_gp_128': {**_LARGEST, **_CRITIC},
  'cgan_pd_32': {**_SMALL, **_CLASSES},
  'sagan_32': {**_SMALL, **_SAGAN, 'generator_attention': 16, 'discriminator_attention': 8},
}


class ResidualGenerator(nnx.Module):
  """See `ResidualGan.generator`."""

  def __init__(self, config: ResidualGan, rngs: nnx.Rngs):
    dtype, spectral, widths = jnp.dtype(config.dtype), config.generator_spectral, config.generator_widths
    self.start = config.size >> (len(widths) - 1)
    self.project = Dense(config.latent, self.start**2 * widths[0], spectral=spectral, init=_XAVIER, dtype=dtype,
                         rngs=rngs)
    self.blocks = nnx.List([GeneratorBlock(width, following, config, rngs)
                            for width, following in zip(widths, widths[1:])])
    self.attention, self.attended = _attention(config.generator_attention, config.generator_sides, widths[1:], spectral,
                                               dtype, rngs)
    self.norm = BatchNorm(widths[-1], momentum=config.momentum, dtype=dtype, rngs=rngs)
    self.out = Conv(widths[-1], config.channels, spectral=spectral, init=_XAVIER, dtype=dtype, rngs=rngs)

  def __call__(self, latent_BZ: Array, label_B: Array | None = None, key: Key | None = None) -> Array:
    x = self.project(latent_BZ, key)
    x_BHWC = x.reshape(x.shape[0], self.start, self.start, -1)
    for index, block in enumerate(self.blocks):
      x_BHWC = block(x_BHWC, label_B, key)
      if index == self.attended:
        x_BHWC = self.attention(x_BHWC, key)  # type: ignore[misc]  # there is one
    x_BHWC = self.out(jax.nn.relu(self.norm(x_BHWC, key)), key)
    return jnp.tanh(x_BHWC.astype(jnp.float32))


class ResidualDiscriminator(nnx.Module):
  """See `ResidualGan.discriminator`."""

  def __init__(self, config: ResidualGan, rngs: nnx.Rngs):
    widths = (config.pack * config.channels, *config.discriminator_widths)
    self.blocks = nnx.List([
      DiscriminatorBlock(width, following, index < config.halvings, index == 0, config, rngs)
      for index, (width, following) in enumerate(zip(widths, widths[1:]))])
    self.attention, self.attended = _attention(config.discriminator_attention, config.discriminator_sides, widths[1:],
                                               config.spectral, jnp.dtype(config.dtype), rngs)
    self.head = Head(widths[-1], config, True, _XAVIER, rngs)
    self.pool = {'sum': jnp.sum, 'mean': jnp.mean}[config.pool]

  def __call__(self, x_BHWC: Array, label_BP: Array | None = None, key: Key | None = None, part: str = '') -> Any:
    maps = []
    for index, block in enumerate(self.blocks):
      x_BHWC = block(x_BHWC, key)
      if index == self.attended:
        x_BHWC = self.attention(x_BHWC, key)  # type: ignore[misc]  # there is one
      maps.append(x_BHWC)
    x_BC = self.pool(jax.nn.relu(x_BHWC.astype(jnp.float32)), axis=(1, 2))
    logit_B = self.head(x_BC, label_BP, key)
    return (logit_B, tuple(maps)) if part == 'features' else logit_B


class GeneratorBlock(nnx.Module):
  """B H W C -> B 2H 2W D: norm, ReLU, enlargement, convolution, norm, ReLU, convolution; beside a shortcut.

  The shortcut's 1 x 1 convolution comes before the enlargement, with which it commutes, and takes a quarter of the time
  there.
  """

  def __init__(self, inputs: int, outputs: int, config: ResidualGan, rngs: nnx.Rngs):
    dtype, spectral = jnp.dtype(config.dtype), config.generator_spectral
    self.norm_in = _norm(inputs, config, rngs)
    self.conv_in = Conv(inputs, outputs, spectral=spectral, init=_XAVIER_TWICE, dtype=dtype, rngs=rngs)
    self.norm_out = _norm(outputs, config, rngs)
    self.conv_out = Conv(outputs, outputs, spectral=spectral, init=_XAVIER_TWICE, dtype=dtype, rngs=rngs)
    self.shortcut = Conv(inputs, outputs, 1, spectral=spectral, init=_XAVIER, dtype=dtype, rngs=rngs)

  def __call__(self, x_BHWC: Array, label_B: Array | None, key: Key | None) -> Array:
    hidden = jax.nn.relu(_normalised(self.norm_in, x_BHWC, label_B, key))
    hidden = self.conv_in(double_linear(hidden), key)
    hidden = jax.nn.relu(_normalised(self.norm_out, hidden, label_B, key))
    return double_linear(self.shortcut(x_BHWC, key)) + self.conv_out(hidden, key)


class DiscriminatorBlock(nnx.Module):
  """ReLU, convolution, ReLU, convolution, and the mean of 2 x 2 places if it halves; beside a shortcut.

  The first block reads pixels, which no ReLU cuts off. As in the generator the shortcut's convolution is done where
  maps are small.
  """

  def __init__(self, inputs: int, outputs: int, halve: bool, first: bool, config: ResidualGan, rngs: nnx.Rngs):
    dtype, spectral = jnp.dtype(config.dtype), config.spectral
    hidden = outputs if first else inputs
    self.conv_in = Conv(inputs, hidden, spectral=spectral, init=_XAVIER_TWICE, dtype=dtype, rngs=rngs)
    self.conv_out = Conv(hidden, outputs, spectral=spectral, init=_XAVIER_TWICE, dtype=dtype, rngs=rngs)
    self.shortcut = Conv(inputs, outputs, 1, spectral=spectral, init=_XAVIER, dtype=dtype,
                         rngs=rngs) if halve or inputs != outputs else None
    self.halve, self.first, self.rectified = halve, first, config.rectified_shortcut

  def __call__(self, x_BHWC: Array, key: Key | None) -> Array:
    hidden = x_BHWC if self.first else jax.nn.relu(x_BHWC)
    x_BHWC = hidden if self.rectified else x_BHWC
    hidden = self.conv_out(jax.nn.relu(self.conv_in(hidden, key)), key)
    if self.halve:
      x_BHWC, hidden = halve(x_BHWC), halve(hidden)
    return (x_BHWC if self.shortcut is None else self.shortcut(x_BHWC, key)) + hidden


class SelfAttention(nnx.Module):
  """Attention of each place to every second place along both axes, scaled by a learned number that begins at 0.

  Zhang et al. (2019), section 3, as in ajbrock/BigGAN-PyTorch: keys and values are the largest of 2 x 2 places; queries
  and keys have an eighth of the channels, values half.
  """

  def __init__(self, features: int, spectral: bool, dtype: Any, rngs: nnx.Rngs, init: Initializer = _ATTENTION):
    if features < 8:
      raise UserError(f'attention needs maps with at least 8 channels, got {features}; widen the block before it')
    make = lambda inputs, outputs: Conv(inputs, outputs, 1, bias=False, spectral=spectral, init=init, dtype=dtype,
                                        rngs=rngs)
    self.query, self.key = make(features, features // 8), make(features, features // 8)
    self.value, self.out = make(features, features // 2), make(features // 2, features)
    self.gain = nnx.Param(jnp.zeros(()))

  def __call__(self, x_BHWC: Array, key: Key | None) -> Array:
    batch, height, width, _ = x_BHWC.shape
    flat = lambda map_BHWC: map_BHWC.reshape(batch, -1, map_BHWC.shape[-1])
    query_BNC = flat(self.query(x_BHWC, key))
    key_BMC, value_BMC = (flat(_largest(layer(x_BHWC, key))) for layer in (self.key, self.value))
    scores_BNM = jnp.einsum('bnc,bmc->bnm', query_BNC, key_BMC, preferred_element_type=jnp.float32)
    weights_BNM = jax.nn.softmax(scores_BNM).astype(value_BMC.dtype)
    attended = jnp.einsum('bnm,bmc->bnc', weights_BNM, value_BMC).reshape(batch, height, width, -1)
    return x_BHWC + self.gain.get_value().astype(x_BHWC.dtype) * self.out(attended, key)


def _attention(side: int, sides: tuple[int, ...], widths: tuple[int, ...], spectral: bool, dtype: Any,
               rngs: nnx.Rngs) -> tuple[SelfAttention | None, int]:
  """The attention and the index of the block that it follows; (None, -1) for none."""
  if not side:
    return None, -1
  index = sides.index(side)
  return SelfAttention(widths[index], spectral, dtype, rngs), index


def _norm(features: int, config: ResidualGan, rngs: nnx.Rngs) -> BatchNorm | ConditionalBatchNorm:
  options: dict[str, Any] = dict(momentum=config.momentum, dtype=jnp.dtype(config.dtype), rngs=rngs)
  if config.num_classes is None:
    return BatchNorm(features, **options)
  return ConditionalBatchNorm(features, config.num_classes, **options)


def _normalised(norm: BatchNorm | ConditionalBatchNorm, x_BHWC: Array, label_B: Array | None, key: Key | None) -> Array:
  if isinstance(norm, BatchNorm):
    return norm(x_BHWC, key)
  assert label_B is not None
  return norm(x_BHWC, label_B, key)


def _largest(x_BHWC: Array) -> Array:
  """The largest of 2 x 2 places."""
  batch, height, width, channels = x_BHWC.shape
  return x_BHWC.reshape(batch, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))


# Path regex -> logical axes, by group, as for `dcgan.DCGAN_AXES`.
_KERNELS = r'(blocks/\d+/(conv_in|conv_out|shortcut)|attention/(query|key|value|out)|out)/kernel'
AXES = {
  'generator': ((r'project/kernel', (None, 'mlp')), (_KERNELS, (None, None, 'mlp', None))),
  'discriminator': ((r'(blocks/\d+/(conv_in|conv_out|shortcut)|attention/(query|key|value|out))/kernel',
                     (None, None, None, 'mlp')), (r'head/output/kernel', ('mlp', None))),
}
