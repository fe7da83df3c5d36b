"""The residual generator of CycleGAN (Zhu et al. 2017, section 4; Johnson et al. 2016)."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from genjax import checks, reduction
from genjax.nn.conv import Conv, around, conv_transpose
from genjax.nn.functional import Network, network
from genjax.nn.kernels import dense
from genjax.nn.norms import InstanceNorm
from genjax.types import Array, Key

_INIT = nnx.initializers.normal(0.02)
_HALVINGS = 2


@dataclasses.dataclass(frozen=True)
class ResnetGenerator:
  """Options of the network; the defaults are those for 256 x 256 pixels (11,378,179 parameters).

  Attributes:
    source_channels: of the picture that is read.
    channels: of the picture that is drawn.
    width: channels at full size; there are four times as many where the picture has a quarter of its sides.
    blocks: residual blocks there; 9 for 256 pixels, 6 for 128.
    dtype: compute type, 'float32' or 'bfloat16'; parameters and outputs are float32.
  """

  source_channels: int = 3
  channels: int = 3
  width: int = 64
  blocks: int = 9
  dtype: str = 'float32'

  modes = ()  # instance normalisation is the same at test, and there is no dropout
  multiple, least, factor = 2 ** _HALVINGS, 2 ** (_HALVINGS + 1), 1

  def __post_init__(self):
    checks.whole(self, 1, 'source_channels', 'channels', 'width', 'blocks')
    checks.dtype(self)

  def generator(self) -> Network:
    """Pictures B H W C in [-1, 1] -> pictures in [-1, 1], float32."""
    return network(lambda rngs: _Resnet(self, rngs))


class _Resnet(nnx.Module):

  def __init__(self, config: ResnetGenerator, rngs: nnx.Rngs):
    dtype = jnp.dtype(config.dtype)
    how: Any = dict(init=_INIT, dtype=dtype, rngs=rngs)
    widths = [config.width * 2 ** level for level in range(_HALVINGS + 1)]
    self.first = Conv(config.source_channels, widths[0], 7, **how)
    self.down = nnx.List([Conv(width, following, 3, 2, **how) for width, following in zip(widths, widths[1:])])
    self.blocks = nnx.List([_Block(widths[-1], dtype, rngs) for _ in range(config.blocks)])
    self.up = nnx.List([_Up(following, width, dtype, rngs) for width, following in zip(widths[-2::-1], widths[::-1])])
    self.last = Conv(widths[0], config.channels, 7, **how)
    self.norm = InstanceNorm(dtype=dtype)

  def __call__(self, x_BHWC: Array, key: Key | None = None) -> Array:
    del key
    x_BHWC = jax.nn.relu(self.norm(_reflected(self.first, x_BHWC, 3)))
    for conv in self.down:
      x_BHWC = jax.nn.relu(self.norm(around(conv, x_BHWC)))
    for block in self.blocks:
      x_BHWC = block(x_BHWC)
    for enlarge in self.up:
      x_BHWC = jax.nn.relu(self.norm(enlarge(x_BHWC)))
    return jnp.tanh(_reflected(self.last, x_BHWC, 3).astype(jnp.float32))


class _Block(nnx.Module):
  """x plus two convolutions of it, with no ReLU behind the sum."""

  def __init__(self, width: int, dtype: Any, rngs: nnx.Rngs):
    self.convs = nnx.List([Conv(width, width, 3, init=_INIT, dtype=dtype, rngs=rngs) for _ in range(2)])
    self.norm = InstanceNorm(dtype=dtype)

  def __call__(self, x_BHWC: Array) -> Array:
    hidden = jax.nn.relu(self.norm(_reflected(self.convs[0], x_BHWC, 1)))
    return x_BHWC + self.norm(_reflected(self.convs[1], hidden, 1))


class _Up(nnx.Module):
  """Doubles a picture as `ConvTranspose2d(..., 3, 2, 1, output_padding=1)` of torch does, with the kernel rotated.

  A kernel of 4 whose first row and column are 0 does the same, and `conv_transpose` takes kernels of even sizes.
  """

  def __init__(self, inputs: int, outputs: int, dtype: Any, rngs: nnx.Rngs):
    self.kernel = nnx.Param(_INIT(rngs.params(), (3, 3, inputs, outputs), jnp.float32))
    self.bias = nnx.Param(jnp.zeros(outputs))
    self.dtype = dtype

  def __call__(self, x_BHWC: Array) -> Array:
    kernel_HWIO = jnp.pad(reduction.plain(dense(self.kernel.get_value())), ((1, 0), (1, 0), (0, 0), (0, 0)))
    y_BHWC = conv_transpose(x_BHWC.astype(self.dtype), kernel_HWIO)
    return y_BHWC + self.bias.get_value().astype(self.dtype)


def _reflected(conv: Conv, x_BHWC: Array, by: int) -> Array:
  """A convolution of a picture that goes on mirrored behind its edges, by half of the kernel."""
  wide_BHWC = jnp.pad(x_BHWC, ((0, 0), (by, by), (by, by), (0, 0)), mode='reflect')
  return conv(wide_BHWC)[:, by:-by, by:-by]


VARIANTS: dict[str, Mapping[str, Any]] = {'cyclegan_resnet_9': {}, 'cyclegan_resnet_6': dict(blocks=6)}
# Kernels are stored split by output channels and gathered for the computation.
AXES = ((r'(first|down/\d+|up/\d+|blocks/\d+/convs/\d+)/kernel', (None, None, None, 'mlp')),)
