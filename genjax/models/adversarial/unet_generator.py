"""The U-Net generator of pix2pix (Isola et al. 2017, section 3.2.1, and its published code)."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from genjax import checks
from genjax.nn.conv import Conv, ConvTranspose
from genjax.nn.functional import Network, dropout, network
from genjax.nn.norms import BatchNorm, InstanceNorm
from genjax.types import Array, Key

_SIZE = 4  # of every kernel
_INIT = nnx.initializers.normal(0.02)
_PLAIN = 5  # layers that never have dropout: the innermost one and the four largest
NORMS = ('batch', 'instance')


@dataclasses.dataclass(frozen=True)
class UNetGenerator:
  """Options of the network; the defaults are those of the published U-Net-256 (54,413,955 parameters).

  Attributes:
    source_channels: of the picture that is read.
    channels: of the picture that is drawn.
    width: channels after the first convolution; they double with each, up to 8 times.
    layers: halvings of the picture; 8 make one value a channel of 256 x 256 pixels.
    dropout: rate behind the layers next to the innermost one, all but five; the noise of pix2pix.
    norm: 'batch' or 'instance'. In batches of one picture, as published, both are the same in training.
    momentum: decay of the running averages of batch normalisation, per step.
    dtype: compute type, 'float32' or 'bfloat16'; parameters and outputs are float32.
  """

  source_channels: int = 3
  channels: int = 3
  width: int = 64
  layers: int = 8
  dropout: float = 0.5
  norm: str = 'batch'
  momentum: float = 0.9
  dtype: str = 'float32'

  def __post_init__(self):
    checks.whole(self, 1, 'source_channels', 'channels', 'width')
    checks.whole(self, 2, 'layers')
    checks.rates(self, 'dropout', 'momentum')
    checks.dtype(self)
    if self.norm not in NORMS:
      raise checks.OutOfRange(f'norm must be one of {NORMS}, got {self.norm!r}')
    if self.layers <= _PLAIN and self.dropout:
      checks.idle(self, ('dropout',), f'with layers={self.layers}, as all but {_PLAIN} have dropout; set more layers')

  @property
  def modes(self) -> tuple[str, ...]:
    """What samples depend on at test: 'statistics' of batches, and 'drop', dropout."""
    drops = self.dropout > 0 and self.layers > _PLAIN
    return (*(('statistics',) if self.norm == 'batch' else ()), *(('drop',) if drops else ()))

  @property
  def multiple(self) -> int:
    """What has to divide both sides of a picture."""
    return 2 ** self.layers

  @property
  def least(self) -> int:
    """The smallest side of a picture."""
    return self.multiple

  factor = 1  # by which pictures grow

  def generator(self) -> Network:
    """Pictures B H W C in [-1, 1] -> pictures in [-1, 1], float32.

    Options of `apply`, by default those of the mode: `batch`, whether to normalise by the statistics of the batch, and
    `drop`, whether there is dropout; with either of them a key is needed.
    """
    return network(lambda rngs: _UNet(self, rngs))


class _UNet(nnx.Module):

  def __init__(self, config: UNetGenerator, rngs: nnx.Rngs):
    dtype, last = jnp.dtype(config.dtype), config.layers - 1
    widths = [config.width * min(2 ** layer, 8) for layer in range(config.layers)]
    how: Any = dict(init=_INIT, dtype=dtype, rngs=rngs)
    bias = config.norm == 'instance'  # as published; before a norm it has no effect
    inputs = [config.source_channels, *widths]
    self.down = nnx.List([Conv(before, width, _SIZE, 2, bias=bias, **how) for before, width in zip(inputs, widths)])
    self.down_norms = nnx.List([_norm(width, config, rngs) for width in widths[1:last]])
    self.up = nnx.List([ConvTranspose(widths[layer] * (1 if layer == last else 2), widths[layer - 1], bias=bias, **how)
                        for layer in range(last, 0, -1)])
    self.up_norms = nnx.List([_norm(widths[layer - 1], config, rngs) for layer in range(last, 0, -1)])
    self.out = ConvTranspose(2 * widths[0], config.channels, **how)
    self.rate, self.dropped = config.dropout, range(1, 1 + max(0, config.layers - _PLAIN))

  def __call__(self, x_BHWC: Array, key: Key | None = None, batch: bool | None = None,
               drop: bool | None = None) -> Array:
    batch, drop = (key is not None if chosen is None else chosen for chosen in (batch, drop))
    norm_key = key if batch else None
    seen = [self.down[0](x_BHWC)]
    for layer, conv in enumerate(self.down[1:]):
      x_BHWC = conv(jax.nn.leaky_relu(seen[-1], 0.2))
      seen.append(_normalised(self.down_norms[layer], x_BHWC, norm_key) if layer < len(self.down_norms) else x_BHWC)
    x_BHWC = seen.pop()
    for layer, conv in enumerate(self.up):
      x_BHWC = _normalised(self.up_norms[layer], conv(jax.nn.relu(x_BHWC)), norm_key)
      if drop and layer in self.dropped:
        assert key is not None
        x_BHWC = dropout(x_BHWC, self.rate, jax.random.fold_in(key, layer))
      x_BHWC = jnp.concatenate([seen.pop(), x_BHWC], axis=-1)
    return jnp.tanh(self.out(jax.nn.relu(x_BHWC)).astype(jnp.float32))


def _norm(features: int, config: UNetGenerator, rngs: nnx.Rngs) -> BatchNorm | InstanceNorm:
  dtype = jnp.dtype(config.dtype)
  if config.norm == 'instance':
    return InstanceNorm(dtype=dtype)
  return BatchNorm(features, momentum=config.momentum, scale_sd=0.02, dtype=dtype, rngs=rngs)


def _normalised(norm: BatchNorm | InstanceNorm, x_BHWC: Array, key: Key | None) -> Array:
  return norm(x_BHWC, key) if isinstance(norm, BatchNorm) else norm(x_BHWC)


VARIANTS: dict[str, Mapping[str, Any]] = {'pix2pix_unet_256': {}, 'pix2pix_unet_128': dict(layers=7)}
# Kernels are stored split by output channels and gathered for the computation.
AXES = ((r'(down|up)/\d+/kernel', (None, None, None, 'mlp')),)
