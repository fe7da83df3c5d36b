"""Operations of style-based generators and their discriminators (Karras et al. 2019, 2020b).

Filters and convolutions that double or halve a picture, modulated convolutions, the deviation over groups of a batch,
and dense layers and convolutions with an equalised learning rate: parameters are drawn from N(0, 1) and are scaled when
they are used, so that Adam, whose steps have the size of its rate, moves all layers at the same relative speed.
"""

from collections.abc import Sequence
import dataclasses
import functools
import math
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
import numpy as np

from genjax import reduction, sharding
from genjax.nn import cpu
from genjax.nn.conv import conv
from genjax.nn.cpu_convolutions import NHWC
from genjax.nn.kernels import dense
from genjax.types import Array

BLUR = (0.125, 0.375, 0.375, 0.125)  # [1, 3, 3, 1], of sum 1
MOST_PIXELS = 128  # along an axis, up to which a filter is a matrix product on CPUs
SLOPE, GAIN = 0.2, math.sqrt(2.0)  # of the leaky ReLU; the gain keeps the variance of its input


def upfirdn(x_BHWC: Array, taps: Sequence[float], up: int = 1, down: int = 1, pad: tuple[int, int] = (0, 0)) -> Array:
  """Puts up - 1 zeros behind each pixel, pads, filters along both axes, and keeps every `down`-th pixel.

  Args:
    x_BHWC: images.
    taps: of the filter along one axis, T of them. It is a convolution: the filter is turned round.
    up, down: factors along both axes.
    pad: zeros before and behind, of the enlarged image; negative numbers cut off.

  Returns:
    Images of (H up + sum of pad - T) // down + 1 pixels along an axis.
  """
  turned = np.asarray(taps, np.float32)[::-1]
  for axis in (1, 2):
    # On CPUs sums of shifted pictures, with their derivatives, take minutes to compile.
    how = _multiplied if cpu.is_target() and up * x_BHWC.shape[axis] <= MOST_PIXELS else _shifted
    x_BHWC = how(x_BHWC, turned, up, down, pad, axis)
  return x_BHWC


def _multiplied(x: Array, taps: np.ndarray, up: int, down: int, pad: tuple[int, int], axis: int) -> Array:
  """`upfirdn` along one axis, as a correlation: a product with a banded matrix."""
  length = x.shape[axis]
  count = (length * up + sum(pad) - len(taps)) // down + 1
  tap_QN = up * np.arange(length)[None] + pad[0] - down * np.arange(count)[:, None]  # that output q has for input n
  matrix_QN = np.where((tap_QN >= 0) & (tap_QN < len(taps)), taps[tap_QN.clip(0, len(taps) - 1)], 0.0)
  return jnp.einsum('qh,bhwc->bqwc' if axis == 1 else 'qw,bhwc->bhqc', jnp.asarray(matrix_QN, x.dtype), x)


def _shifted(x: Array, taps: np.ndarray, up: int, down: int, pad: tuple[int, int], axis: int) -> Array:
  """The same as a sum of shifted pictures. Output pixels that agree modulo `up` read the same taps."""
  length = x.shape[axis]
  count = (length * up + sum(pad) - len(taps)) // down + 1
  steps = -(-((count - 1) * down + 1) // up)  # pixels of each phase, before every `down`-th is kept
  # Output u q + r reads input q + (r + j - pad) / u by the taps j for which that is whole.
  reads = [[(int(j), (r + int(j) - pad[0]) // up) for j in range(len(taps)) if (r + j - pad[0]) % up == 0]
           for r in range(up)]
  offsets = [offset for phase in reads for _, offset in phase] or [0]
  before, behind = max(0, -min(offsets)), max(0, max(offsets) + steps - length)
  padding = [(0, 0)] * x.ndim
  padding[axis] = (before, behind)
  padded = jnp.pad(x, padding)
  stride, size = (down, count) if up == 1 else (1, steps)

  def phase(taken: list[tuple[int, int]]) -> Array:
    terms = [padded.dtype.type(taps[j]) * jax.lax.slice_in_dim(
      padded, before + offset, before + offset + (size - 1) * stride + 1, stride, axis) for j, offset in taken]
    shape = (*x.shape[:axis], size, *x.shape[axis + 1:])
    return functools.reduce(jnp.add, terms) if terms else jnp.zeros(shape, x.dtype)

  if up == 1:
    return phase(reads[0])
  stacked = jnp.stack([phase(taken) for taken in reads], axis + 1)
  whole = stacked.reshape(*x.shape[:axis], up * steps, *x.shape[axis + 1:])
  return jax.lax.slice_in_dim(whole, 0, (count - 1) * down + 1, down, axis)


def enlarge(x_BHWC: Array) -> Array:
  """Doubles images by the filter `BLUR`."""
  return upfirdn(x_BHWC, [2 * tap for tap in BLUR], up=2, pad=(2, 1))


def shrink(x_BHWC: Array) -> Array:
  """Halves images by the filter `BLUR`."""
  return upfirdn(x_BHWC, BLUR, down=2, pad=(1, 1))


@dataclasses.dataclass(frozen=True)
class Strided:
  """A convolution of size 3 and stride 2 without padding, or its counterpart that enlarges, as a
  `genjax.products.Product`.

  On CPUs both are one matrix product with all taps side by side.

  Attributes:
    doubles: whether it enlarges: n pixels become 2 n + 1; otherwise 2 n + 1 become n.
    cpu: whether it is computed as a matrix product.
    kernel_place: layout of the kernel; None without a mesh.
  """

  doubles: bool
  cpu: bool
  kernel_place: NamedSharding | None = None

  def __call__(self, x: Array, weight: Array) -> Array:
    kernel = weight.astype(x.dtype)
    if self.kernel_place is not None:
      kernel = jax.lax.with_sharding_constraint(kernel, self.kernel_place)
    if self.cpu:
      return _doubled(x, kernel) if self.doubles else _halved(x, kernel)
    how: Any = dict(dimension_numbers=NHWC)
    if self.doubles:
      return jax.lax.conv_general_dilated(x, kernel, (1, 1), [(2, 2), (2, 2)], lhs_dilation=(2, 2), **how)
    return jax.lax.conv_general_dilated(x, kernel, (2, 2), 'VALID', **how)

  in_type_of_x = __call__

  def gradient(self, x: Array, slope: Array, shape: tuple[int, ...], parts: int) -> Array:
    """See `genjax.products.Product`."""
    alone = dataclasses.replace(self, kernel_place=None)
    return reduction.on_each_device(
      lambda x, slope: jax.vjp(lambda kernel: alone(x, kernel), jnp.zeros(shape, x.dtype))[1](slope)[0], (x, slope),
      parts)


def _doubled(x_BHWI: Array, kernel_HWIO: Array) -> Array:
  """Tap j of input pixel i adds to output pixel 2 i + 2 - j."""
  batch, height, width, inputs = x_BHWI.shape
  matrix_IX = kernel_HWIO.transpose(2, 0, 1, 3).reshape(inputs, -1)
  blocks = (x_BHWI @ matrix_IX).reshape(batch, height, width, 3, 3, -1)
  rows = _interleaved([blocks[:, :, :, tap] for tap in range(3)], 1)
  return _interleaved([rows[:, :, :, tap] for tap in range(3)], 2)


def _interleaved(taps: list[Array], axis: int) -> Array:
  """Sums what three taps add along an axis: even outputs have the last tap, and the first of the pixel before."""

  def pad(x: Array, before: int, behind: int) -> Array:
    return jnp.pad(x, [(before, behind) if place == axis else (0, 0) for place in range(x.ndim)])

  even, odd = pad(taps[2], 0, 1) + pad(taps[0], 1, 0), pad(taps[1], 0, 1)
  pairs = jnp.stack([even, odd], axis + 1)
  whole = pairs.reshape(*even.shape[:axis], 2 * even.shape[axis], *even.shape[axis + 1:])
  return jax.lax.slice_in_dim(whole, 0, 2 * even.shape[axis] - 1, axis=axis)


def _halved(x_BHWI: Array, kernel_HWIO: Array) -> Array:
  batch, height, width, inputs = x_BHWI.shape
  down, across = (height - 1) // 2, (width - 1) // 2
  taps = [x_BHWI[:, row:row + 2 * down - 1:2, column:column + 2 * across - 1:2] for row in range(3)
          for column in range(3)]
  return jnp.concatenate(taps, axis=-1) @ kernel_HWIO.reshape(9 * inputs, -1)


def strided(x_BHWC: Array, kernel_HWIO: Array, doubles: bool) -> Array:
  """Applies `Strided`; on a mesh each device computes whole images."""
  place = sharding.layout(kernel_HWIO.shape, *[None] * 4, name='kernel H W I O of a convolution')
  lay = lambda x: sharding.constrain(x, 'batch', None, None, None, name='images B H W C of a convolution')
  return lay(reduction.multiply(lay(x_BHWC), kernel_HWIO, Strided(doubles, cpu.is_target(), place)))


def conv_double(x_BHWC: Array, kernel_HWIO: Array) -> Array:
  """Doubles images by zeros between the pixels, a convolution of size 3 and `BLUR` (Karras et al. 2019)."""
  return upfirdn(strided(x_BHWC, kernel_HWIO, True), [2 * tap for tap in BLUR], pad=(1, 1))


def conv_halve(x_BHWC: Array, kernel_HWIO: Array) -> Array:
  """Halves images by `BLUR` and a convolution of size 3 and stride 2."""
  return strided(upfirdn(x_BHWC, BLUR, pad=(2, 2)), kernel_HWIO, False)


def modulated_conv(x_BHWI: Array, kernel_HWIO: Array, style_BI: Array, demodulate: bool = True,
                   double: bool = False) -> Array:
  """A convolution whose kernel is scaled for each example (Karras et al. 2020b, section 2.2).

  The kernel of an example is its input channels times the style, then divided by the root of the sum of squares that
  each output channel has. Both are scales of channels, before and after a convolution that all examples share.

  Args:
    x_BHWI: images.
    kernel_HWIO: square kernel.
    style_BI: scale of each input channel.
    demodulate: whether kernels are divided by that root.
    double: whether images are doubled, see `conv_double`.
  """
  dtype, style_BI = x_BHWI.dtype, style_BI.astype(jnp.float32)
  x_BHWI = x_BHWI * style_BI.astype(dtype)[:, None, None]
  y_BHWO = (conv_double if double else conv)(x_BHWI, kernel_HWIO)
  if not demodulate:
    return y_BHWO
  square_IO = jnp.sum(jnp.square(kernel_HWIO.astype(jnp.float32)), axis=(0, 1))
  scale_BO = jax.lax.rsqrt(jnp.square(style_BI) @ square_IO + 1e-8)
  return y_BHWO * scale_BO.astype(dtype)[:, None, None]


def with_deviation(x_BHWC: Array, group: int) -> Array:
  """Adds a channel with the mean deviation over a group of examples (Karras et al. 2018, section 3).

  Row i of N belongs to group i modulo N / group, as in NVlabs/stylegan2-ada-pytorch.

  Args:
    x_BHWC: images; `group` divides their number.
    group: examples of a group.
  """
  rows, height, width, _ = x_BHWC.shape
  member_GM = x_BHWC.astype(jnp.float32).reshape(group, rows // group, *x_BHWC.shape[1:])
  deviation = jnp.sqrt(jnp.var(member_GM, axis=0) + 1e-8)
  mean_M = jnp.mean(deviation, axis=(1, 2, 3))
  channel = jnp.broadcast_to(jnp.tile(mean_M, group)[:, None, None, None], (rows, height, width, 1))
  return jnp.concatenate([x_BHWC, channel.astype(x_BHWC.dtype)], axis=-1)


def activate(x: Array, gain: float = GAIN, clamp: float = 0.0) -> Array:
  """Leaky ReLU times a gain, cut off at +-clamp if that is not 0."""
  y = jnp.where(x >= 0, x, SLOPE * x) * gain
  return y if not clamp else jnp.clip(y, -clamp, clamp)


def unit(x_BC: Array) -> Array:
  """Rows of mean square 1."""
  return x_BC * jax.lax.rsqrt(jnp.mean(jnp.square(x_BC), axis=-1, keepdims=True) + 1e-8)


class EqualDense(nnx.Module):
  """A dense layer with an equalised learning rate.

  Args:
    inputs, outputs: sizes of the last axis.
    rate: learning rate relative to that of the optimizer, inside of the layer: parameters are larger by 1 / rate and
      are multiplied by it.
    bias: its initial value; None for no bias.
    active: whether a leaky ReLU follows.
  """

  def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs, rate: float = 1.0, bias: float | None = 0.0,
               active: bool = False):
    self.kernel = nnx.Param(jax.random.normal(rngs.params(), (inputs, outputs)) / rate)
    self.bias = None if bias is None else nnx.Param(jnp.full(outputs, bias / rate, jnp.float32))
    self.rate, self.gain, self.active = rate, rate / math.sqrt(inputs), active

  def __call__(self, x: Array) -> Array:
    y = x @ (dense(self.kernel.get_value()) * self.gain).astype(x.dtype)
    if self.bias is not None:
      y = y + (self.bias.get_value() * self.rate).astype(x.dtype)
    return activate(y) if self.active else y


class EqualConv(nnx.Module):
  """A convolution with an equalised learning rate.

  Args:
    inputs, outputs: channels.
    size: of the kernel.
    halve: whether it halves images, by the filter `BLUR` before it.
    bias: whether it has a bias.
    active: whether a leaky ReLU follows.
    gain: factor of the output.
    clamp: see `activate`.
  """

  def __init__(self, inputs: int, outputs: int, size: int, *, rngs: nnx.Rngs, halve: bool = False, bias: bool = True,
               active: bool = True, gain: float = 1.0, clamp: float = 0.0):
    self.kernel = nnx.Param(jax.random.normal(rngs.params(), (size, size, inputs, outputs)))
    self.bias = nnx.Param(jnp.zeros(outputs)) if bias else None
    self.scale, self.halve, self.active = 1.0 / math.sqrt(inputs * size**2), halve, active
    self.gain, self.clamp = gain, clamp * gain

  def __call__(self, x_BHWC: Array) -> Array:
    kernel_HWIO = dense(self.kernel.get_value()) * self.scale
    if not self.halve:
      y_BHWC = conv(x_BHWC, kernel_HWIO)
    elif kernel_HWIO.shape[0] == 1:
      y_BHWC = conv(shrink(x_BHWC), kernel_HWIO)
    else:
      y_BHWC = conv_halve(x_BHWC, kernel_HWIO)
    if self.bias is not None:
      y_BHWC = y_BHWC + reduction.broadcast(self.bias.get_value(), y_BHWC.shape, y_BHWC.dtype)
    return activate(y_BHWC, GAIN * self.gain, self.clamp) if self.active else self.gain * y_BHWC
