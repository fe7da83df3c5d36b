"""Blocks of DC-AE (Chen et al. 2024): residual ones, linear attention at several scales, and resampling."""

from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from genjax.nn.blocks import ACTIVATIONS
from genjax.nn.conv import Conv, Depthwise, around, double, shuffle, unshuffle
from genjax.nn.linear import Linear
from genjax.nn.norms import RMSNorm
from genjax.types import Array, Key

_EPSILON = 1e-5  # of norms
_LEAST_WEIGHT = 1e-15  # added to the sum of the weights of attention


class Norm(RMSNorm):
  """RMS normalisation over the channels, with a scale and a bias."""

  def __init__(self, width: int, *, dtype: Any, rngs: nnx.Rngs):
    super().__init__(width, epsilon=_EPSILON, dtype=dtype, rngs=rngs)
    self.bias = nnx.Param(jnp.zeros(width))


class Residual(nnx.Module):
  """Two convolutions with an activation between them and a norm after them, beside a shortcut."""

  def __init__(self, width: int, activation: str, *, dtype: Any, rngs: nnx.Rngs):
    self.activation = ACTIVATIONS[activation]
    self.conv_in = Conv(width, width, dtype=dtype, rngs=rngs, axes=(None, 'mlp'))
    self.conv_out = Conv(width, width, bias=False, dtype=dtype, rngs=rngs, axes=('mlp', None))
    self.norm = Norm(width, dtype=dtype, rngs=rngs)

  def __call__(self, x_BHWC: Array, key: Key | None = None) -> Array:
    return x_BHWC + self.norm(self.conv_out(self.activation(self.conv_in(x_BHWC))))


class LinearAttentionBlock(nnx.Module):
  """Linear attention over the pixels, then a gated MLP with a depthwise convolution (Cai et al. 2023, EfficientViT).

  Args:
    width: channels C.
    head_dim: channels of a head.
    scales: sizes of the depthwise convolutions whose results are attended to beside the pixels themselves.
  """

  def __init__(self, width: int, head_dim: int, scales: tuple[int, ...], *, dtype: Any, rngs: nnx.Rngs):
    self.attention = LinearAttention(width, head_dim, scales, dtype=dtype, rngs=rngs)
    self.mlp = GatedConv(width, dtype=dtype, rngs=rngs)

  def __call__(self, x_BHWC: Array, key: Key | None = None) -> Array:
    return self.mlp(self.attention(x_BHWC))


class LinearAttention(nnx.Module):
  """Attention whose weights are products of ReLUs, so that its cost is linear in the number of pixels, and a shortcut.

  As in the published weights, queries, keys and values of a head are 3 x `head_dim` neighbouring channels of the three
  projections, one after the other.
  """

  def __init__(self, width: int, head_dim: int, scales: tuple[int, ...], *, dtype: Any, rngs: nnx.Rngs):
    inner = width // head_dim * head_dim
    self.head_dim, self.dtype = head_dim, dtype
    self.query, self.key, self.value = (Linear(width, inner, use_bias=False, dtype=dtype, rngs=rngs) for _ in range(3))
    self.scales = nnx.List([Scale(3 * inner, head_dim, size, dtype=dtype, rngs=rngs) for size in scales])
    self.out = Linear(inner * (1 + len(scales)), width, use_bias=False, dtype=dtype, rngs=rngs)
    self.norm = Norm(width, dtype=dtype, rngs=rngs)

  def __call__(self, x_BHWC: Array, key: Key | None = None) -> Array:
    batch, height, width, _ = x_BHWC.shape
    joined = jnp.concatenate([self.query(x_BHWC), self.key(x_BHWC), self.value(x_BHWC)], axis=-1)
    joined = jnp.concatenate([joined, *(scale(joined) for scale in self.scales)], axis=-1)
    heads_BTGD = joined.astype(jnp.float32).reshape(batch, height * width, -1, 3 * self.head_dim)
    query, key_BTGD, value = jnp.split(heads_BTGD, 3, axis=-1)
    query, key_BTGD = jax.nn.relu(query), jax.nn.relu(key_BTGD)
    sums_BGDE = jnp.einsum('btgd,btge->bgde', value, key_BTGD)
    total_BTG = jnp.einsum('bge,btge->btg', jnp.sum(key_BTGD, axis=1), query)
    out_BTGD = jnp.einsum('bgde,btge->btgd', sums_BGDE, query) / (total_BTG + _LEAST_WEIGHT)[..., None]
    out_BHWC = out_BTGD.astype(self.dtype).reshape(batch, height, width, -1)
    return x_BHWC + self.norm(self.out(out_BHWC))


class Scale(nnx.Module):
  """A depthwise convolution, and a matrix for each group of channels."""

  def __init__(self, width: int, group: int, size: int, *, dtype: Any, rngs: nnx.Rngs):
    self.group, self.dtype = group, dtype
    self.conv = Depthwise(width, size, bias=False, dtype=dtype, rngs=rngs)
    self.weight = nnx.Param(nnx.initializers.lecun_normal(batch_axis=(0,))(
      rngs.params(), (width // group, group, group), jnp.float32))

  def __call__(self, x_BHWC: Array, key: Key | None = None) -> Array:
    x_BHWC = self.conv(x_BHWC)
    x_BHWGI = x_BHWC.reshape(*x_BHWC.shape[:-1], -1, self.group)
    return jnp.einsum('bhwgi,gio->bhwgo', x_BHWGI, self.weight.get_value().astype(self.dtype)).reshape(x_BHWC.shape)


class GatedConv(nnx.Module):
  """A gated MLP with a depthwise convolution of size 3 on its hidden channels, a norm after it and a shortcut."""

  def __init__(self, width: int, *, dtype: Any, rngs: nnx.Rngs):
    self.up = Linear(width, 8 * width, dtype=dtype, rngs=rngs)
    self.conv = Depthwise(8 * width, 3, dtype=dtype, rngs=rngs)
    self.down = Linear(4 * width, width, use_bias=False, dtype=dtype, rngs=rngs)
    self.norm = Norm(width, dtype=dtype, rngs=rngs)

  def __call__(self, x_BHWC: Array, key: Key | None = None) -> Array:
    hidden, gate = jnp.split(self.conv(jax.nn.silu(self.up(x_BHWC))), 2, axis=-1)
    return x_BHWC + self.norm(self.down(hidden * jax.nn.silu(gate)))


class Shrink(nnx.Module):
  """Halves the resolution: a convolution, beside the means of neighbouring channels of each 2 by 2 pixels.

  Args:
    inputs, outputs: channels.
    by: 'conv', a convolution of stride 2, or 'pixels', one whose 2 by 2 pixels become channels.
    shortcut: whether there are the means.
  """

  def __init__(self, inputs: int, outputs: int, by: str, shortcut: bool, *, dtype: Any, rngs: nnx.Rngs):
    self.by, self.group = by, 4 * inputs // outputs if shortcut else 0
    self.conv = Conv(inputs, outputs if by == 'conv' else outputs // 4, stride=2 if by == 'conv' else 1, dtype=dtype,
                     rngs=rngs)

  def __call__(self, x_BHWC: Array, key: Key | None = None) -> Array:
    y_BHWC = around(self.conv, x_BHWC) if self.by == 'conv' else unshuffle(self.conv(x_BHWC))
    return y_BHWC + averaged(unshuffle(x_BHWC), self.group) if self.group else y_BHWC


class Enlarge(nnx.Module):
  """Doubles the resolution: a convolution, beside repeated channels that become 2 by 2 pixels.

  Args:
    inputs, outputs: channels.
    by: 'conv', a convolution of repeated pixels, or 'pixels', one whose channels become 2 by 2 pixels.
    shortcut: whether there are the repeated channels.
  """

  def __init__(self, inputs: int, outputs: int, by: str, shortcut: bool, *, dtype: Any, rngs: nnx.Rngs):
    self.by, self.repeats = by, 4 * outputs // inputs if shortcut else 0
    self.conv = Conv(inputs, outputs if by == 'conv' else 4 * outputs, dtype=dtype, rngs=rngs)

  def __call__(self, x_BHWC: Array, key: Key | None = None) -> Array:
    y_BHWC = self.conv(double(x_BHWC)) if self.by == 'conv' else shuffle(self.conv(x_BHWC))
    return y_BHWC + shuffle(jnp.repeat(x_BHWC, self.repeats, axis=-1)) if self.repeats else y_BHWC


def averaged(x_BHWC: Array, group: int) -> Array:
  """Means of groups of neighbouring channels."""
  return jnp.mean(x_BHWC.reshape(*x_BHWC.shape[:-1], -1, group), axis=-1)
