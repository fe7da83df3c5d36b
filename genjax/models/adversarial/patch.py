"""The critic of patches: one logit for each patch of an image (PatchGAN, Isola et al. 2017; Esser et al. 2021)."""

import dataclasses
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from genjax import checks
from genjax.nn.conv import Conv
from genjax.nn.functional import Network, network
from genjax.nn.norms import NORMS, BatchNorm, InstanceNorm
from genjax.types import Array, Key

_SIZE = 4  # of every kernel
_INIT = nnx.initializers.normal(0.02)


@dataclasses.dataclass(frozen=True)
class Patch:
  """Options of the network; the defaults are those of VQGAN and latent diffusion (2,765,633 parameters).

  Attributes:
    channels: of the images.
    width: channels after the first convolution; they double with each, up to 8 times.
    layers: halvings of the image; with 3, a logit sees 70 x 70 pixels.
    norm: 'batch', 'instance' (as in CycleGAN), 'none', or one of `genjax.nn.norms.NORMS`, over the channels.
    dtype: compute type, 'float32' or 'bfloat16'; parameters are float32.
  """

  channels: int = 3
  width: int = 64
  layers: int = 3
  norm: str = 'batch'
  dtype: str = 'float32'

  def __post_init__(self):
    checks.whole(self, 1, 'channels', 'width', 'layers')
    checks.dtype(self)
    if self.norm not in (known := ('batch', 'instance', 'none', *NORMS)):
      raise checks.OutOfRange(f'norm must be one of {known}, got {self.norm!r}')

  @property
  def least(self) -> int:
    """The smallest side of an image of which a logit is left."""
    return 3 * 2 ** self.layers


def critic(config: Patch) -> Network:
  """Images B H W C in [-1, 1] -> logits of patches, float32 B h w."""
  return network(lambda rngs: _Patch(config, rngs))


class _Patch(nnx.Module):

  def __init__(self, config: Patch, rngs: nnx.Rngs):
    dtype = jnp.dtype(config.dtype)
    self.first = Conv(config.channels, config.width, _SIZE, 2, init=_INIT, dtype=dtype, rngs=rngs)
    widths = [config.width * min(2 ** layer, 8) for layer in range(config.layers + 1)]
    self.stages = nnx.List([
      _Stage(width, following, 2 if layer < config.layers else 1, config, rngs)
      for layer, (width, following) in enumerate(zip(widths, widths[1:]), 1)])
    self.last = Conv(widths[-1], 1, _SIZE, 1, init=_INIT, dtype=dtype, rngs=rngs)

  def __call__(self, x_BHWC: Array, key: Key | None = None) -> Array:
    x_BHWC = jax.nn.leaky_relu(_convolved(self.first, x_BHWC), 0.2)
    for stage in self.stages:
      x_BHWC = jax.nn.leaky_relu(stage(x_BHWC, key), 0.2)
    return _convolved(self.last, x_BHWC)[..., 0].astype(jnp.float32)


class _Stage(nnx.Module):
  """A convolution and a norm, before which a bias has no effect; with 'instance' there is one, as published."""

  def __init__(self, inputs: int, outputs: int, stride: int, config: Patch, rngs: nnx.Rngs):
    dtype = jnp.dtype(config.dtype)
    bias = config.norm in ('none', 'instance')
    self.conv = Conv(inputs, outputs, _SIZE, stride, bias=bias, init=_INIT, dtype=dtype, rngs=rngs)
    self.norm = _norm(outputs, config, rngs)

  def __call__(self, x_BHWC: Array, key: Key | None = None) -> Array:
    x_BHWC = _convolved(self.conv, x_BHWC)
    if self.norm is None:
      return x_BHWC
    return self.norm(x_BHWC, key) if isinstance(self.norm, BatchNorm) else self.norm(x_BHWC)


def _norm(features: int, config: Patch, rngs: nnx.Rngs) -> Any:
  if config.norm == 'none':
    return None
  dtype = jnp.dtype(config.dtype)
  if config.norm == 'instance':
    return InstanceNorm(dtype=dtype)
  if config.norm == 'batch':
    return BatchNorm(features, scale_sd=0.02, dtype=dtype, rngs=rngs)
  return NORMS[config.norm](features, epsilon=1e-5, scale=True, bias=True, dtype=dtype, rngs=rngs)


def _convolved(layer: Conv, x_BHWC: Array) -> Array:
  """A convolution with one pixel of padding at each side, as published: 'SAME' pads one more below and to the right
  where the number is odd."""
  height, width = ((side - 2) // layer.stride + 1 for side in x_BHWC.shape[1:3])
  return layer(x_BHWC)[:, :height, :width]


# Options of `Patch`: of pix2pix, which judges source and target together, and of CycleGAN
VARIANTS = {'patch_pix2pix': dict(channels=6), 'patch_cyclegan': dict(norm='instance')}
# Kernels are stored split by output channels and gathered for the computation.
AXES = ((r'(first|stages/\d+/conv)/kernel', (None, None, None, 'mlp')),)
