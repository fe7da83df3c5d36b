"""Layers of networks that are read and never trained."""

from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from genjax import sharding
from genjax.nn import cpu, cpu_convolutions
from genjax.types import Array

Padding = str | int  # 'SAME', 'VALID', or pixels at each of the four sides


class Conv(nnx.Module):
  """A convolution of a kernel that need not be square, with any padding.

  Args:
    inputs, outputs: channels.
    size: height and width of the kernel.
    stride: step along both axes.
    padding: see `Padding`.
    bias: whether there is a bias.
  """

  def __init__(self, inputs: int, outputs: int, size: tuple[int, int], stride: int = 1, padding: Padding = 'SAME', *,
               bias: bool = True, rngs: nnx.Rngs):
    self.kernel = nnx.Param(nnx.initializers.he_normal()(rngs.params(), (*size, inputs, outputs), jnp.float32))
    self.bias = nnx.Param(jnp.zeros(outputs)) if bias else None
    self.stride, self.padding = stride, padding

  def __call__(self, x_BHWC: Array) -> Array:
    padding: Any = [(self.padding,) * 2] * 2 if isinstance(self.padding, int) else self.padding
    kernel_HWIO = self.kernel.get_value().astype(x_BHWC.dtype)
    height, width = kernel_HWIO.shape[:2]
    if isinstance(self.padding, int) and cpu.is_target() and x_BHWC.shape[1] * x_BHWC.shape[2] < height * width:
      x_BHWC, padding = cpu_convolutions.padded(x_BHWC, self.padding), 'VALID'
    y_BHWC = jax.lax.conv_general_dilated(x_BHWC, kernel_HWIO, (self.stride, self.stride), padding,
                                          dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
    y_BHWC = sharding.constrain(y_BHWC, 'batch', None, None, None, name='images B H W C of a convolution')
    return y_BHWC if self.bias is None else y_BHWC + self.bias.get_value().astype(y_BHWC.dtype)


class FixedNorm(nnx.Module):
  """Batch normalisation with given statistics, which are parameters here, because nothing updates them.

  Args:
    features: channels.
    epsilon: added to the variance.
  """

  def __init__(self, features: int, epsilon: float):
    self.scale, self.bias = nnx.Param(jnp.ones(features)), nnx.Param(jnp.zeros(features))
    self.mean, self.variance = nnx.Param(jnp.zeros(features)), nnx.Param(jnp.ones(features))
    self.epsilon = epsilon

  def __call__(self, x_BHWC: Array) -> Array:
    scale, bias, mean, variance = (
      leaf.get_value().astype(jnp.float32) for leaf in (self.scale, self.bias, self.mean, self.variance))
    return (x_BHWC - mean) * (scale * jax.lax.rsqrt(variance + self.epsilon)) + bias


def coloured(image_BHWC: Array) -> Array:
  """Grey images as coloured ones, by repeating the channel; others as they are."""
  return jnp.repeat(image_BHWC, 3, axis=-1) if image_BHWC.shape[-1] == 1 else image_BHWC
