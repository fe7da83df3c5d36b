"""Convolutions as matrix products, for XLA on CPUs; see also `genjax.nn.cpu`.

XLA's convolutions on CPUs reach four fifths of the speed of its matrix products. Two kinds are slower. The gradient of
a kernel is a convolution with a kernel as large as the image, and reaches a third; here it is one matrix product per
tap. Convolutions with a dilated input (a transposed convolution, and the input gradient of a strided one) are slower
still; here they are one product and a sum of shifted blocks. docs/speed.md has the measurements. Of images with
fewer pixels than the kernel XLA takes the kernel for the image; `padded` keeps it from that.

The derivatives of `conv` and `spread` are made of these two functions, to any order and in both modes. Suffixes: B
batch, H W pixels and I channels of the larger images, h w pixels and O channels of the smaller ones.
"""

import functools

import jax
import jax.numpy as jnp

from genjax.nn import derivatives
from genjax.types import Array

MIN_CHANNELS, MIN_PIXELS = 16, 256  # smaller products per tap are slower than XLA's convolution
NHWC = ('NHWC', 'HWIO', 'NHWC')


def conv(x_BHWI: Array, kernel_HWIO: Array, stride: int) -> Array:
  """Convolution with 'SAME' padding: equal to `jax.lax.conv_general_dilated`.

  Args:
    x_BHWI: images.
    kernel_HWIO: square kernel.
    stride: along both axes.

  Returns:
    Images B h w O with h = ceil(H / stride).
  """
  return _conv(x_BHWI, kernel_HWIO, stride)


def native(x_BHWI: Array, kernel_HWIO: Array, stride: int) -> Array:
  """XLA's own convolution with the result of `conv`, for all platforms."""
  return jax.lax.conv_general_dilated(x_BHWI, kernel_HWIO, (stride, stride), 'SAME', dimension_numbers=NHWC)


def padded(x_BHWI: Array, padding: int) -> Array:
  """Images with a border of zeros that XLA does not move back into a convolution with stride 1.

  Images with fewer pixels than the kernel trade places with it in XLA, and the exchanged convolution is slow: 3 x 3 on
  2 x 2 pixels, 512 channels in and out, 50 images: 1,450 milliseconds of one core; with this border 60.

  Args:
    x_BHWI: images.
    padding: pixels at each of the four sides.
  """
  return jax.lax.optimization_barrier(jnp.pad(x_BHWI, ((0, 0), (padding,) * 2, (padding,) * 2, (0, 0))))


def _conv_forward(x_BHWI: Array, kernel_HWIO: Array, stride: int):
  return conv(x_BHWI, kernel_HWIO, stride), (x_BHWI, kernel_HWIO)


def _conv_backward(stride: int, saved: tuple[Array, Array], slope_BhwO: Array):
  x_BHWI, kernel_HWIO = saved
  if stride > 1 and kernel_HWIO.shape[0] % stride == 0 and x_BHWI.shape[1] % stride == x_BHWI.shape[2] % stride == 0:
    x_slope_BHWI = spread(slope_BhwO, kernel_HWIO, stride)
  else:
    x_slope_BHWI, = jax.vjp(lambda x: native(x, kernel_HWIO, stride), x_BHWI)[1](slope_BhwO)
  return x_slope_BHWI, _kernel_slope(x_BHWI, slope_BhwO, kernel_HWIO, stride)


def _conv_derivative(stride: int, saved: tuple[Array, Array], tangents: tuple[Array | None, ...]) -> Array:
  return derivatives.along(lambda x_BHWI, kernel_HWIO: native(x_BHWI, kernel_HWIO, stride), saved, tangents)


_conv = derivatives.define(native, _conv_forward, _conv_derivative, _conv_backward, static=1)


def spread(y_BhwO: Array, kernel_HWIO: Array, stride: int) -> Array:
  """The adjoint of `conv` in its images: each pixel adds a weighted copy of the kernel to the larger image.

  Args:
    y_BhwO: the smaller images.
    kernel_HWIO: square kernel whose size k is a multiple of the stride s.
    stride: along both axes.

  Returns:
    Images B H W I with H = s h.
  """
  return _spread(y_BhwO, kernel_HWIO, stride)


def _spread_value(y_BhwO: Array, kernel_HWIO: Array, stride: int) -> Array:
  size, _, inputs, outputs = kernel_HWIO.shape
  batch, height, width, _ = y_BhwO.shape
  count, before = size // stride, (size - stride) // 2
  # Without the barrier XLA fuses the transpose into the product, which then reads the kernel out of memory order.
  matrix_OX = jax.lax.optimization_barrier(kernel_HWIO.reshape(-1, outputs).T)
  # Tap s u + v of input pixel a adds to output pixel s (a + u) + v: a block of s x s pixels for each pair of u.
  blocks = (y_BhwO @ matrix_OX).reshape(batch, height, width, count, stride, count, stride, inputs)
  rest = ((0, 0),) * 3
  shifted = [
    jnp.pad(blocks[:, :, :, row, :, column], ((0, 0), (row, count - 1 - row), (column, count - 1 - column), *rest))
    for row in range(count)
    for column in range(count)
  ]
  total = functools.reduce(jnp.add, shifted).swapaxes(2, 3)
  image = total.reshape(batch, (height + count - 1) * stride, (width + count - 1) * stride, inputs)
  return image[:, before:before + height * stride, before:before + width * stride]


def _spread_forward(y_BhwO: Array, kernel_HWIO: Array, stride: int):
  return spread(y_BhwO, kernel_HWIO, stride), (y_BhwO, kernel_HWIO)


def _spread_backward(stride: int, saved: tuple[Array, Array], slope_BHWI: Array):
  y_BhwO, kernel_HWIO = saved
  return conv(slope_BHWI, kernel_HWIO, stride), _kernel_slope(slope_BHWI, y_BhwO, kernel_HWIO, stride)


def _spread_derivative(stride: int, saved: tuple[Array, Array], tangents: tuple[Array | None, ...]) -> Array:
  return derivatives.along(lambda y_BhwO, kernel_HWIO: _spread_value(y_BhwO, kernel_HWIO, stride), saved, tangents)


_spread = derivatives.define(_spread_value, _spread_forward, _spread_derivative, _spread_backward, static=1)


def _kernel_slope(x_BHWI: Array, slope_BhwO: Array, kernel_HWIO: Array, stride: int) -> Array:
  """The gradient of the kernel: per tap, the product of its input pixels with the output gradients."""
  size, _, inputs, outputs = kernel_HWIO.shape
  if inputs < MIN_CHANNELS or slope_BhwO.size // outputs < MIN_PIXELS:
    return jax.vjp(lambda kernel: native(x_BHWI, kernel, stride), kernel_HWIO)[1](slope_BhwO)[0]
  # Transpose the gradient once; transposing the pixels, or leaving the transpose to the product, takes longer.
  slope_ON = jax.lax.optimization_barrier(slope_BhwO.reshape(-1, outputs).T)
  products = [jax.lax.optimization_barrier(slope_ON @ tap.reshape(-1, inputs)).T for tap in _taps(x_BHWI, size, stride)]
  return jnp.stack(products).reshape(kernel_HWIO.shape)


def _taps(x_BHWI: Array, size: int, stride: int) -> list[Array]:
  """The input pixels of each tap, row by row: size * size images B h w I."""
  pads, counts = [(0, 0)], []
  for length in x_BHWI.shape[1:3]:
    count = -(-length // stride)
    padding = max(0, (count - 1) * stride + size - length)
    pads.append((padding // 2, padding - padding // 2))
    counts.append((count - 1) * stride + 1)
  x_BHWI = jnp.pad(x_BHWI, (*pads, (0, 0)))
  return [
    x_BHWI[:, row:row + counts[0]:stride, column:column + counts[1]:stride]
    for row in range(size)
    for column in range(size)
  ]
