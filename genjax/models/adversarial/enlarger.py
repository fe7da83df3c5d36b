"""Networks that enlarge pictures: the residual network of SRGAN without batch normalisation (Ledig et al. 2017; Lim et
al. 2017), and the dense blocks of ESRGAN (Wang et al. 2018), both as in the code of the latter."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from genjax import checks
from genjax.nn.conv import Conv, double, double_linear, shuffle
from genjax.nn.functional import Network, network
from genjax.types import Array, Key

FACTORS = (2, 4, 8)
KINDS = ('residual', 'dense')
_KEPT = 0.2  # share of what a dense block adds
_INIT = nnx.initializers.variance_scaling(0.02, 'fan_in', 'normal')  # He et al. 2015, times 0.1


@dataclasses.dataclass(frozen=True)
class Enlarger:
  """Options of the network; the defaults are those of SRResNet for 4 x (1,517,571 parameters).

  Attributes:
    source_channels: of the picture that is read.
    channels: of the picture that is drawn; equal.
    factor: by which both sides grow, one of `FACTORS`.
    width: channels.
    blocks: blocks at the size that is read.
    kind: 'residual', two convolutions a block, enlarged by moving channels to pixels; or 'dense', three times five
      convolutions that read all those before them, enlarged by repeating pixels.
    growth: channels of a convolution in a dense block.
    dtype: compute type, 'float32' or 'bfloat16'; parameters and outputs are float32.
  """

  source_channels: int = 3
  channels: int = 3
  factor: int = 4
  width: int = 64
  blocks: int = 16
  kind: str = 'residual'
  growth: int = 32
  dtype: str = 'float32'

  modes = ()
  multiple = least = 1

  def __post_init__(self):
    checks.whole(self, 1, 'source_channels', 'channels', 'width', 'blocks', 'growth')
    checks.dtype(self)
    for name, known in (('factor', FACTORS), ('kind', KINDS)):
      if getattr(self, name) not in known:
        raise checks.OutOfRange(f'{name} must be one of {known}, got {getattr(self, name)!r}')
    if self.source_channels != self.channels:
      raise checks.OutOfRange(f'channels must be those of the source, {self.source_channels}, got {self.channels}')

  def generator(self) -> Network:
    """Pictures B h w C in [-1, 1] -> pictures B fh fw C around [-1, 1], float32."""
    return network(lambda rngs: _Enlarger(self, rngs))


class _Enlarger(nnx.Module):

  def __init__(self, config: Enlarger, rngs: nnx.Rngs):
    dense, width = config.kind == 'dense', config.width
    how: Any = dict(dtype=jnp.dtype(config.dtype), rngs=rngs)
    doublings = config.factor.bit_length() - 1
    self.first = Conv(config.channels, width, **how)
    self.blocks = nnx.List([_Dense(width, config.growth, how) if dense else _Residual(width, how)
                            for _ in range(config.blocks)])
    self.body = Conv(width, width, **how) if dense else None
    self.up = nnx.List([Conv(width, width if dense else 4 * width, **how) for _ in range(doublings)])
    self.fine = Conv(width, width, **how)
    # The residual network begins as interpolation: its last layer adds nothing.
    self.last = Conv(width, config.channels, init=nnx.initializers.lecun_normal() if dense else _INIT, **how)
    self.dense, self.doublings = dense, doublings

  def __call__(self, x_BHWC: Array, key: Key | None = None) -> Array:
    del key
    seen_BHWC, slope = x_BHWC, 0.2 if self.dense else 0.1
    x_BHWC = first_BHWC = self.first(x_BHWC)
    if not self.dense:
      x_BHWC = jax.nn.leaky_relu(x_BHWC, slope)
    for block in self.blocks:
      x_BHWC = block(x_BHWC)
    if self.body is not None:
      x_BHWC = first_BHWC + self.body(x_BHWC)
    for conv in self.up:
      x_BHWC = jax.nn.leaky_relu(conv(double(x_BHWC)) if self.dense else shuffle(conv(x_BHWC)), slope)
    x_BHWC = self.last(jax.nn.leaky_relu(self.fine(x_BHWC), slope)).astype(jnp.float32)
    if self.dense:
      return x_BHWC
    for _ in range(self.doublings):
      seen_BHWC = double_linear(seen_BHWC)
    return seen_BHWC + x_BHWC


class _Residual(nnx.Module):

  def __init__(self, width: int, how: Mapping[str, Any]):
    self.convs = nnx.List([Conv(width, width, init=_INIT, **how) for _ in range(2)])

  def __call__(self, x_BHWC: Array) -> Array:
    return x_BHWC + self.convs[1](jax.nn.relu(self.convs[0](x_BHWC)))


class _Dense(nnx.Module):
  """The residual-in-residual dense block (Wang et al. 2018, section 3.1)."""

  def __init__(self, width: int, growth: int, how: Mapping[str, Any]):
    self.parts = nnx.List([nnx.List([
      Conv(width + number * growth, growth if number < 4 else width, init=_INIT, **how) for number in range(5)])
      for _ in range(3)])

  def __call__(self, x_BHWC: Array) -> Array:
    whole = x_BHWC
    for convs in self.parts:
      before = x_BHWC
      for conv in convs[:-1]:
        x_BHWC = jnp.concatenate([x_BHWC, jax.nn.leaky_relu(conv(x_BHWC), 0.2)], axis=-1)
      x_BHWC = before + _KEPT * convs[-1](x_BHWC)
    return whole + _KEPT * x_BHWC


VARIANTS: dict[str, Mapping[str, Any]] = {'srresnet_x4': {}, 'esrgan_x4': dict(kind='dense', blocks=23)}
# Kernels are stored split by output channels and gathered for the computation.
AXES = ((r'(first|fine|up/\d+|blocks/\d+/(convs/\d+|parts/\d+/\d+))/kernel', (None, None, None, 'mlp')),)
