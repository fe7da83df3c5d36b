"""Convolutions and transposed convolutions on images B H W C, and a dense layer with the same options.

On CPUs they are computed as matrix products where these are faster, see `genjax.nn.cpu_convolutions`. On other
platforms a transposed convolution is a set of stride-1 convolutions, one for each output phase. It has the result and
the operation count of `jax.lax.conv_transpose`.

On a mesh, each device computes whole images with whole kernels; only channels that a layer's `axes` name are split.
Without these constraints XLA's partitioner may split height or width (a reshape carries over the split of a dense
layer, or a stored kernel is split along its height) and then computes wrong outputs and gradients of strided
convolutions. This happens with jax 0.10.2 on CPU devices; the test of equal losses on all meshes detects it.
"""

from collections.abc import Callable
import dataclasses
import functools
import math
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from genjax import reduction, sharding
from genjax.nn import cpu, cpu_convolutions
from genjax.nn.kernels import Kernel, Linear, dense
from genjax.nn.linear import matmul
from genjax.nn.norms import SpectralNorm
from genjax.types import Array, Key

Initializer = Callable[..., Array]
ChannelAxes = tuple[str | None, str | None]  # logical axes of the channels that a layer reads and writes


def conv(x_BHWC: Array, kernel_HWIO: Any, stride: int = 1, axes: ChannelAxes = (None, None)) -> Array:
  """Convolution (cross-correlation) with 'SAME' zero padding as in `jax.lax`.

  Args:
    x_BHWC: images.
    kernel_HWIO: square kernel of size k. A kernel of another dtype than the images is cast, and its gradient is summed
      in float32, see `genjax.reduction`.
    stride: step s along both axes.
    axes: logical axes of the input and output channels, for splitting them on a mesh.

  Returns:
    Images of ceil(H / s) by ceil(W / s) pixels. For k = 4, s = 2 and even sizes the result equals that of
    `torch.nn.Conv2d(..., 4, 2, 1)`.
  """
  x_BHWC = _place(x_BHWC, axes[0])
  kernel_place = sharding.layout(kernel_HWIO.shape, None, None, *axes, name='kernel H W I O of a convolution')
  local = all(axis is None or sharding.shards(axis) == 1 for axis in axes)
  product = Convolution(stride, False, cpu.is_target(), kernel_place, None, local)
  return _place(reduction.multiply(x_BHWC, kernel_HWIO, product), axes[1])


def conv_transpose(x_BHWC: Array, kernel_HWIO: Any, stride: int = 2) -> Array:
  """Transposed convolution with 'SAME' padding: equal to `jax.lax.conv_transpose(x, kernel, (s, s), 'SAME')`.

  Output pixels whose coordinates agree modulo s read the same taps of the kernel. Each of these s * s phases is a
  stride-1 convolution with k / s taps; the phases are interleaved. A kernel whose size is no multiple of s counts as a
  larger one with zeros below and to the right.

  Args:
    x_BHWC: images.
    kernel_HWIO: square kernel of size k; see `conv` for its dtype.
    stride: upsampling factor s.

  Returns:
    Images of s * H by s * W pixels. For k = 4, s = 2 the result equals that of `torch.nn.ConvTranspose2d(..., 4, 2, 1)`
    with the kernel rotated by 180 degrees.
  """
  x_BHWC = _place(x_BHWC)
  kernel_place = sharding.layout(kernel_HWIO.shape, *[None] * 4, name='kernel H W I O of a convolution')
  image_place = sharding.layout(x_BHWC.shape, 'batch', *[None] * 3, name='images B H W C of a convolution')
  product = Convolution(stride, True, cpu.is_target(), kernel_place, image_place, True)
  return _place(reduction.multiply(x_BHWC, kernel_HWIO, product))


@dataclasses.dataclass(frozen=True)
class Convolution:
  """A convolution, or a transposed one, as a `genjax.products.Product`.

  Attributes:
    stride: step, or upsampling factor if transposed.
    transposed: whether it is a transposed convolution.
    cpu: whether it is computed as matrix products, see `genjax.nn.cpu_convolutions`.
    kernel_place, image_place: layouts of the kernel and of the phases of a transposed convolution; None without a mesh.
    local: whether each device computes whole images with the whole kernel.
  """

  stride: int
  transposed: bool
  cpu: bool
  kernel_place: NamedSharding | None
  image_place: NamedSharding | None
  local: bool

  def __call__(self, x: Array, weight: Array) -> Array:
    kernel_HWIO = _lay(weight.astype(x.dtype), self.kernel_place)
    if self.transposed:
      if rest := -kernel_HWIO.shape[0] % self.stride:
        kernel_HWIO = jnp.pad(kernel_HWIO, ((0, rest), (0, rest), (0, 0), (0, 0)))
      if self.cpu:
        return cpu_convolutions.spread(x, kernel_HWIO[::-1, ::-1].swapaxes(2, 3), self.stride)
      return _phases(x, kernel_HWIO, self.stride, self.image_place)
    if kernel_HWIO.shape[0] == self.stride == 1:
      return x @ kernel_HWIO[0, 0]
    y_BHWC: Any = (cpu_convolutions.conv if self.cpu else cpu_convolutions.native)(x, kernel_HWIO, self.stride)
    return y_BHWC  # annotated, because pyright infers `object` for custom_vjp functions

  in_type_of_x = __call__

  def gradient(self, x: Array, slope: Array, shape: tuple[int, ...], parts: int) -> Array:
    """See `genjax.products.Product`."""
    if not self.local:
      total = jax.vjp(lambda kernel: self(x, kernel), jnp.zeros(shape, x.dtype))[1](slope)[0].astype(jnp.float32)
      return reduction.spread(total, parts) if parts else total
    alone = dataclasses.replace(self, kernel_place=None, image_place=None)
    return reduction.on_each_device(
      lambda x, slope: jax.vjp(lambda kernel: alone(x, kernel), jnp.zeros(shape, x.dtype))[1](slope)[0], (x, slope),
      parts)


def _phases(x_BHWC: Array, kernel_HWIO: Array, stride: int, place: NamedSharding | None) -> Array:
  """Computes a transposed convolution as interleaved convolutions of stride 1."""
  size = kernel_HWIO.shape[0]
  taps, pad = size // stride, math.ceil((size + stride - 2) / 2)

  def phase(row: int, column: int) -> Array:
    first = [(pad - offset) % stride for offset in (row, column)]
    before = [(pad - offset - tap) // stride for offset, tap in zip((row, column), first)]
    return _lay(jax.lax.conv_general_dilated(
      x_BHWC, kernel_HWIO[first[0]::stride, first[1]::stride], (1, 1), [(b, taps - 1 - b) for b in before],
      dimension_numbers=cpu_convolutions.NHWC), place)

  rows = [jnp.stack([phase(row, column) for column in range(stride)], axis=3) for row in range(stride)]
  batch, height, width, _ = x_BHWC.shape
  return jnp.stack(rows, axis=2).reshape(batch, height * stride, width * stride, -1)


def _place(x_BHWC: Array, channels: str | None = None) -> Array:
  """Keeps height and width of images (and of their gradients) unsplit."""
  return sharding.constrain(x_BHWC, 'batch', None, None, channels, name='images B H W C of a convolution')


def _lay(x: Array, place: NamedSharding | None) -> Array:
  return x if place is None else jax.lax.with_sharding_constraint(x, place)


class Dense(nnx.Module):
  """A dense layer on the last axis, optionally with spectral normalisation.

  Args:
    inputs, outputs: sizes of the last axis.
    bias: adds a bias that starts at 0.
    spectral: divides the kernel by its largest singular value, see `SpectralNorm`.
    init: initializer of the kernel.
    dtype: compute dtype; parameters are float32.
  """

  reads_unreduced = True

  def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs, bias: bool = True, spectral: bool = False,
               init: Initializer = nnx.initializers.lecun_normal(), dtype=jnp.float32):
    self.kernel = nnx.Param(init(rngs.params(), (inputs, outputs), jnp.float32))
    self.bias = nnx.Param(jnp.zeros(outputs)) if bias else None
    self.spectral = SpectralNorm(outputs, rngs=rngs) if spectral else None
    self.dtype = dtype

  def __call__(self, x: Array, key: Key | None = None) -> Array:
    return _affine(self, x, matmul, key)


class Conv(nnx.Module):
  """A convolution with 'SAME' padding; see `conv`.

  Args:
    inputs, outputs: channels.
    size: size of the square kernel.
    stride: step along both axes.
    axes: see `conv`.
    bias, spectral, init, dtype: as in `Dense`.
  """

  reads_unreduced = True

  def __init__(self, inputs: int, outputs: int, size: int = 3, stride: int = 1, *, rngs: nnx.Rngs, bias: bool = True,
               spectral: bool = False, init: Initializer = nnx.initializers.lecun_normal(), dtype=jnp.float32,
               axes: ChannelAxes = (None, None)):
    self.kernel = nnx.Param(init(rngs.params(), (size, size, inputs, outputs), jnp.float32))
    self.bias = nnx.Param(jnp.zeros(outputs)) if bias else None
    self.spectral = SpectralNorm(outputs, rngs=rngs) if spectral else None
    self.stride, self.dtype, self.axes = stride, dtype, axes

  def __call__(self, x_BHWC: Array, key: Key | None = None) -> Array:
    def convolve(x_BHWC: Array, kernel_HWIO: Array, outputs: str | None = self.axes[1]) -> Array:
      return conv(x_BHWC, kernel_HWIO, self.stride, (self.axes[0], outputs))

    return _affine(self, x_BHWC, convolve, key, functools.partial(convolve, outputs=None))


class Depthwise(nnx.Module):
  """A convolution of each channel with a kernel of its own, of stride 1, with 'SAME' padding.

  Args:
    channels: number of channels.
    size: size of the square kernels.
    bias, dtype: as in `Dense`.
  """

  def __init__(self, channels: int, size: int = 3, *, rngs: nnx.Rngs, bias: bool = True, dtype=jnp.float32):
    self.kernel = nnx.Param(nnx.initializers.lecun_normal()(rngs.params(), (size, size, 1, channels), jnp.float32))
    self.bias = nnx.Param(jnp.zeros(channels)) if bias else None
    self.dtype = dtype

  def __call__(self, x_BHWC: Array, key: Key | None = None) -> Array:
    kernel_HWIO = dense(self.kernel.get_value()).astype(self.dtype)
    y_BHWC = _place(jax.lax.conv_general_dilated(
      _place(x_BHWC.astype(self.dtype)), kernel_HWIO, (1, 1), 'SAME', dimension_numbers=cpu_convolutions.NHWC,
      feature_group_count=x_BHWC.shape[-1]))
    return y_BHWC if self.bias is None else y_BHWC + self.bias.get_value().astype(self.dtype)


class Grouped(nnx.Module):
  """A convolution of each group of channels with kernels of its own, of stride 1, with 'SAME' padding.

  Args:
    inputs, outputs: channels.
    groups: number of groups, which divides both.
    size: size of the square kernels.
    bias, init, dtype: as in `Dense`.
  """

  def __init__(self, inputs: int, outputs: int, groups: int, size: int = 3, *, rngs: nnx.Rngs, bias: bool = True,
               init: Initializer = nnx.initializers.lecun_normal(), dtype=jnp.float32):
    self.kernel = nnx.Param(init(rngs.params(), (size, size, inputs // groups, outputs), jnp.float32))
    self.bias = nnx.Param(jnp.zeros(outputs)) if bias else None
    self.groups, self.dtype = groups, dtype

  def __call__(self, x_BHWC: Array, key: Key | None = None) -> Array:
    kernel_HWIO = dense(self.kernel.get_value()).astype(self.dtype)
    y_BHWC = _place(jax.lax.conv_general_dilated(
      _place(x_BHWC.astype(self.dtype)), kernel_HWIO, (1, 1), 'SAME', dimension_numbers=cpu_convolutions.NHWC,
      feature_group_count=self.groups))
    return y_BHWC if self.bias is None else y_BHWC + self.bias.get_value().astype(self.dtype)


class ConvTranspose(nnx.Module):
  """A transposed convolution that enlarges images by `stride`; see `conv_transpose`.

  Args:
    inputs, outputs: channels.
    size: size of the square kernel.
    stride: upsampling factor.
    bias, init, dtype: as in `Dense`.
  """

  reads_unreduced = True

  def __init__(self, inputs: int, outputs: int, size: int = 4, stride: int = 2, *, rngs: nnx.Rngs, bias: bool = True,
               init: Initializer = nnx.initializers.lecun_normal(), dtype=jnp.float32):
    self.kernel = nnx.Param(init(rngs.params(), (size, size, inputs, outputs), jnp.float32))
    self.bias = nnx.Param(jnp.zeros(outputs)) if bias else None
    self.spectral = None
    self.stride, self.dtype, self.axes = stride, dtype, (None, None)

  def __call__(self, x_BHWC: Array, key: Key | None = None) -> Array:
    return _affine(self, x_BHWC, functools.partial(conv_transpose, stride=self.stride), key)


def _affine(layer: Dense | Conv | ConvTranspose, x: Array, linear: Linear, key: Key | None,
            narrow: Linear | None = None) -> Array:
  """Applies `linear` to x and the (optionally normalised) kernel and adds the bias; `narrow` as in `Kernel.apply`."""
  x = x.astype(layer.dtype)
  kernel: Any = layer.kernel.get_value()
  kernel = kernel if layer.spectral is None else layer.spectral(reduction.plain(dense(kernel)), key)
  if not isinstance(kernel, Kernel):
    y = linear(x, kernel)
  else:
    y = kernel.astype(layer.dtype).apply(x, linear, narrow)
    y = y if isinstance(layer, Dense) else _place(y, layer.axes[1])
  return y if layer.bias is None else y + reduction.broadcast(layer.bias.get_value(), y.shape, y.dtype)


def double(x_BHWC: Array) -> Array:
  """Doubles the resolution by nearest-neighbour interpolation."""
  batch, height, width, channels = x_BHWC.shape
  x = jnp.broadcast_to(x_BHWC[:, :, None, :, None], (batch, height, 2, width, 2, channels))
  return x.reshape(batch, 2 * height, 2 * width, channels)


def double_linear(x_BHWC: Array) -> Array:
  """Doubles the resolution by bilinear interpolation; the values at the edges go on outside of the image.

  A new pixel lies a quarter of an old one beside the centre of the nearest, and has 3/4 of it and 1/4 of the next.
  """
  for axis in (1, 2):
    size = x_BHWC.shape[axis]
    part = functools.partial(jax.lax.slice_in_dim, x_BHWC, axis=axis)
    before = jnp.concatenate([part(0, 1), part(0, size - 1)], axis)
    after = jnp.concatenate([part(1, size), part(size - 1, size)], axis)
    pairs = jnp.stack([0.75 * x_BHWC + 0.25 * before, 0.75 * x_BHWC + 0.25 * after], axis + 1)
    x_BHWC = pairs.reshape(*x_BHWC.shape[:axis], 2 * size, *x_BHWC.shape[axis + 1:])
  return x_BHWC


def halve(x_BHWC: Array) -> Array:
  """Halves the resolution by the mean of 2 by 2 pixels."""
  batch, height, width, channels = x_BHWC.shape
  return jnp.mean(x_BHWC.reshape(batch, height // 2, 2, width // 2, 2, channels), axis=(2, 4))


def around(conv: Callable[[Array], Array], x_BHWC: Array) -> Array:
  """A convolution of size 3 and stride 2 with one pixel of zeros on each side, as `Conv2d(..., 3, 2, 1)` of torch.

  Args:
    conv: the convolution with 'SAME' padding, which on even sizes pads below and to the right alone.
    x_BHWC: images of even sides.
  """
  # Of a padded image it reads what is wanted, and one row and one column beyond it.
  return conv(jnp.pad(x_BHWC, ((0, 0), (1, 1), (1, 1), (0, 0))))[:, :-1, :-1]


def unshuffle(x_BHWC: Array) -> Array:
  """Makes 2 by 2 pixels 4 channels, those of a channel one after the other, as `pixel_unshuffle` of torch."""
  batch, height, width, channels = x_BHWC.shape
  x = x_BHWC.reshape(batch, height // 2, 2, width // 2, 2, channels)
  return x.transpose(0, 1, 3, 5, 2, 4).reshape(batch, height // 2, width // 2, 4 * channels)


def shuffle(x_BHWC: Array) -> Array:
  """The inverse of `unshuffle`."""
  batch, height, width, channels = x_BHWC.shape
  x = x_BHWC.reshape(batch, height, width, channels // 4, 2, 2)
  return x.transpose(0, 1, 4, 2, 5, 3).reshape(batch, 2 * height, 2 * width, channels // 4)
