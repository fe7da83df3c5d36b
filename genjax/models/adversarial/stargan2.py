"""The networks of StarGAN v2 (Choi et al. 2020), with the sizes of clovaai/stargan-v2: one generator for several
domains of pictures, told a style that a latent or a picture gives.

The high-pass filter of the published model of faces, which needs a detector of landmarks, is left out.
"""

from collections.abc import Mapping
import dataclasses
import functools
import math
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from genjax import checks
from genjax.nn.conv import Conv, Dense, double, halve
from genjax.nn.functional import Network, network
from genjax.nn.norms import GroupNorm
from genjax.types import Array, Key, UserError

_HE = nnx.initializers.he_normal()
CHANNELS_TIMES_SIDE = 2**14  # of the first maps
LAST = 4  # side of the last maps of the discriminator and the style encoder


@dataclasses.dataclass(frozen=True)
class StarGan2:
  """Networks for square pictures; the defaults are those for 256 pixels.

  Attributes:
    size: height and width of a picture, in pixels, a power of two.
    channels: channels of a picture.
    domains: number of domains.
    style: width S of a style.
    latent: width Z of the latent of the mapping network.
    width: channels of the first maps, which double with every halving; 0 for 16,384 / size.
    widest: most channels of a map.
    smallest: side of the generator's smallest maps.
    mapping_width: width of the mapping network.
    dtype: compute type, 'float32' or 'bfloat16'; parameters, statistics and outputs are float32.

  Raises:
    UserError: a size that is no power of two, or an option out of range.
  """

  size: int = 256
  channels: int = 3
  domains: int = 2
  style: int = 64
  latent: int = 16
  width: int = 0
  widest: int = 512
  smallest: int = 16
  mapping_width: int = 512
  dtype: str = 'float32'

  def __post_init__(self):
    checks.whole(self, 1, 'size', 'channels', 'domains', 'style', 'latent', 'widest', 'smallest', 'mapping_width')
    checks.whole(self, 0, 'width')
    checks.dtype(self)
    for name in ('size', 'smallest'):
      if (value := getattr(self, name)) & (value - 1):
        raise UserError(f'config.model.{name} must be a power of two, got {value}; resize the pictures')
    if self.size < 2 * max(LAST, self.smallest):
      raise UserError(f'config.model.size={self.size} must be at least twice {LAST} and twice config.model.smallest='
                      f'{self.smallest}')

  def widths(self, smallest: int) -> tuple[int, ...]:
    """Channels of the maps from those of the picture's size to those of the side `smallest`."""
    first = self.width or max(1, CHANNELS_TIMES_SIDE // self.size)
    return tuple(min(first << index, self.widest) for index in range((self.size // smallest).bit_length()))

  def generator(self) -> Network:
    """(pictures B H W C, styles B S) -> pictures B H W C of those styles, float32."""
    return network(lambda rngs: Translator(self, rngs))

  def mapping(self) -> Network:
    """(latents B Z, domains B) -> styles B S."""
    return network(lambda rngs: StyleMapping(self, rngs))

  def style_encoder(self) -> Network:
    """(pictures B H W C, domains B) -> their styles B S."""
    return network(lambda rngs: DomainNetwork(self, self.style, rngs))

  def discriminator(self) -> Network:
    """(pictures B H W C, domains B) -> logits B: real pictures of their domain, or not."""
    return network(lambda rngs: DomainNetwork(self, 1, rngs))


# Options of `StarGan2` for the models of clovaai/stargan-v2
VARIANTS: dict[str, Mapping[str, Any]] = {'stargan2_afhq': dict(domains=3)}
NETWORKS = ('generator', 'mapping', 'style_encoder', 'discriminator')


class Translator(nnx.Module):
  """See `StarGan2.generator`: halvings, four blocks of the smallest size, doublings."""

  def __init__(self, config: StarGan2, rngs: nnx.Rngs):
    dtype, widths = jnp.dtype(config.dtype), config.widths(config.smallest)
    pairs, deep = list(zip(widths, widths[1:])), widths[-1]
    told = functools.partial(ToldBlock, style=config.style, dtype=dtype, rngs=rngs)
    self.stem = Conv(config.channels, widths[0], init=_HE, dtype=dtype, rngs=rngs)
    self.encode = nnx.List([*[Block(before, after, True, True, dtype, rngs) for before, after in pairs],
                            *[Block(deep, deep, False, True, dtype, rngs) for _ in range(2)]])
    self.decode = nnx.List([*[told(deep, deep, False) for _ in range(2)],
                            *[told(after, before, True) for before, after in reversed(pairs)]])
    self.norm = _norm(widths[0], True, rngs)
    self.out = Conv(widths[0], config.channels, 1, init=_HE, dtype=dtype, rngs=rngs)

  def __call__(self, x_BHWC: Array, style_BS: Array, key: Key | None = None) -> Array:
    x_BHWC = self.stem(x_BHWC)
    for block in self.encode:
      x_BHWC = block(x_BHWC)
    for block in self.decode:
      x_BHWC = block(x_BHWC, style_BS)
    return self.out(_leaky(self.norm(x_BHWC))).astype(jnp.float32)


class DomainNetwork(nnx.Module):
  """See `StarGan2.discriminator` and `StarGan2.style_encoder`: residual blocks, and a head of each domain."""

  def __init__(self, config: StarGan2, outputs: int, rngs: nnx.Rngs):
    dtype, widths = jnp.dtype(config.dtype), config.widths(LAST)
    self.stem = Conv(config.channels, widths[0], init=_HE, dtype=dtype, rngs=rngs)
    self.blocks = nnx.List([Block(before, after, True, False, dtype, rngs)
                            for before, after in zip(widths, widths[1:])])
    # A convolution of the size of its maps
    self.whole = Dense(LAST**2 * widths[-1], widths[-1], init=_HE, dtype=dtype, rngs=rngs)
    self.heads = nnx.List([Dense(widths[-1], outputs, init=_HE, dtype=dtype, rngs=rngs)
                           for _ in range(config.domains)])
    self.outputs = outputs

  def __call__(self, x_BHWC: Array, domain_B: Array, key: Key | None = None) -> Array:
    x_BHWC = self.stem(x_BHWC)
    for block in self.blocks:
      x_BHWC = block(x_BHWC)
    x_BC = _leaky(self.whole(_leaky(x_BHWC).reshape(len(x_BHWC), -1)))
    y_BS = _chosen([head(x_BC) for head in self.heads], domain_B).astype(jnp.float32)
    return y_BS[:, 0] if self.outputs == 1 else y_BS


class StyleMapping(nnx.Module):
  """See `StarGan2.mapping`: four layers that all domains share, and four of each."""

  def __init__(self, config: StarGan2, rngs: nnx.Rngs):
    width, make = config.mapping_width, functools.partial(Dense, init=_HE, dtype=jnp.dtype(config.dtype), rngs=rngs)
    self.shared = nnx.List([make(inputs, width) for inputs in (config.latent, width, width, width)])
    self.domains = nnx.List([nnx.List([make(width, outputs) for outputs in (width, width, width, config.style)])
                             for _ in range(config.domains)])

  def __call__(self, latent_BZ: Array, domain_B: Array, key: Key | None = None) -> Array:
    x = latent_BZ
    for layer in self.shared:
      x = jax.nn.relu(layer(x))
    styles = []
    for first, *others in self.domains:
      y = first(x)
      for layer in others:
        y = layer(jax.nn.relu(y))
      styles.append(y)
    return _chosen(styles, domain_B).astype(jnp.float32)


class Block(nnx.Module):
  """Norm if asked for, leaky ReLU, convolution, halving, and again without it; beside a shortcut; over sqrt(2)."""

  def __init__(self, inputs: int, outputs: int, halves: bool, norm: bool, dtype: Any, rngs: nnx.Rngs):
    self.conv_in = Conv(inputs, inputs, init=_HE, dtype=dtype, rngs=rngs)
    self.conv_out = Conv(inputs, outputs, init=_HE, dtype=dtype, rngs=rngs)
    self.norms = nnx.List([_norm(inputs, True, rngs) for _ in range(2 if norm else 0)])
    self.shortcut = Conv(inputs, outputs, 1, bias=False, init=_HE, dtype=dtype,
                         rngs=rngs) if inputs != outputs else None
    self.halves = halves

  def __call__(self, x_BHWC: Array) -> Array:
    hidden = self.conv_in(_leaky(self.norms[0](x_BHWC) if self.norms else x_BHWC))
    if self.halves:  # before the shortcut's convolution, with which it commutes
      x_BHWC, hidden = halve(x_BHWC), halve(hidden)
    hidden = self.conv_out(_leaky(self.norms[1](hidden) if self.norms else hidden))
    return ((x_BHWC if self.shortcut is None else self.shortcut(x_BHWC)) + hidden) / math.sqrt(2)


class ToldBlock(nnx.Module):
  """Instance norm with scale and bias of the style, leaky ReLU, doubling, convolution, and again without it."""

  def __init__(self, inputs: int, outputs: int, doubles: bool, *, style: int, dtype: Any, rngs: nnx.Rngs):
    make = functools.partial(Conv, init=_HE, dtype=dtype, rngs=rngs)
    self.conv_in, self.conv_out = make(inputs, outputs), make(outputs, outputs)
    self.norms = nnx.List([_norm(features, False, rngs) for features in (inputs, outputs)])
    self.styles = nnx.List([Dense(style, 2 * features, init=_HE, dtype=dtype, rngs=rngs)
                            for features in (inputs, outputs)])
    self.shortcut = make(inputs, outputs, 1, bias=False) if inputs != outputs else None
    self.doubles = doubles

  def __call__(self, x_BHWC: Array, style_BS: Array) -> Array:
    hidden = _leaky(self._told(0, x_BHWC, style_BS))
    hidden = self.conv_in(double(hidden) if self.doubles else hidden)
    hidden = self.conv_out(_leaky(self._told(1, hidden, style_BS)))
    x_BHWC = x_BHWC if self.shortcut is None else self.shortcut(x_BHWC)
    return ((double(x_BHWC) if self.doubles else x_BHWC) + hidden) / math.sqrt(2)

  def _told(self, index: int, x_BHWC: Array, style_BS: Array) -> Array:
    scale_BC, bias_BC = jnp.split(self.styles[index](style_BS)[:, None, None], 2, axis=-1)
    return (1.0 + scale_BC) * self.norms[index](x_BHWC) + bias_BC


def _norm(features: int, affine: bool, rngs: nnx.Rngs) -> GroupNorm:
  """Instance normalisation."""
  return GroupNorm(features, num_groups=features, epsilon=1e-5, use_scale=affine, use_bias=affine, rngs=rngs)


def _leaky(x: Array) -> Array:
  return jax.nn.leaky_relu(x, 0.2)


def _chosen(each: list[Array], domain_B: Array) -> Array:
  """Of the results of all domains, each row's own."""
  return jnp.take_along_axis(jnp.stack(each, axis=1), domain_B[:, None, None], axis=1)[:, 0]


# Path regex -> logical axes, by group, as for `dcgan.DCGAN_AXES`.
_BLOCKS = r'(conv_in|conv_out|shortcut)/kernel'
_JUDGE = ((rf'(stem/kernel|blocks/\d+/{_BLOCKS})', (None, None, None, 'mlp')), (r'whole/kernel', (None, 'mlp')))
AXES = {
  'generator': ((rf'(stem/kernel|(encode|decode)/\d+/{_BLOCKS})', (None, None, None, 'mlp')),
                (r'decode/\d+/styles/\d+/kernel', (None, 'mlp'))),
  'mapping': ((r'(shared/\d+|domains/\d+/\d+)/kernel', (None, 'mlp')),),
  'style_encoder': _JUDGE, 'discriminator': _JUDGE,
}
