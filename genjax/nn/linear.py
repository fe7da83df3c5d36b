"""Dense layers, whose products XLA's CPU code sees as products of two matrices."""

import dataclasses
import functools
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from genjax import reduction, sharding
from genjax.nn.kernels import Kernel
from genjax.types import Array

PARTS = 4  # of a kernel, for one row
LEAST = 2**16  # entries of a kernel of which parts pay
FEW = 32  # rows


class Linear(nnx.Linear):
  """y = x W + b over the last axis of x, as `flax.nnx.Linear`, with the product of `dot_general`.

  Gradients of kernel and bias are summed in float32, whatever the compute type; see `genjax.reduction`.
  """

  reads_unreduced = True

  def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs, **options: Any):
    super().__init__(inputs, outputs, dot_general=dot_general, rngs=rngs, **options)

  def __call__(self, x: Array, out_sharding: Any = None) -> Array:
    kernel, bias = (None if leaf is None else leaf.get_value() for leaf in (self.kernel, self.bias))
    dtype = self.dtype or jnp.result_type(x.dtype, *(leaf.dtype for leaf in (kernel, bias) if leaf is not None))
    kernel = kernel.astype(dtype) if isinstance(kernel, Kernel) else kernel
    y = dot_general(x.astype(dtype), kernel, (((x.ndim - 1,), (0,)), ((), ())), self.precision,
                    self.preferred_element_type, out_sharding)
    return y if bias is None else y + reduction.broadcast(bias, y.shape, y.dtype)


def dot_general(x: Array, kernel: Any, dimensions: Any, precision: Any = None, preferred_element_type: Any = None,
                out_sharding: Any = None) -> Array:
  """`jax.lax.dot_general` of x and a matrix; on CPUs the axes of x that are not contracted, all but its last, are one.

  A `Kernel` is multiplied by its own method, which multiplies its arrays by this function.

  With several of them, the gradient of the kernel contracts several axes, and XLA for CPUs then lays out what comes
  before it, norms say, for these products: a stack of layers took twice the time. A sequence that is split over devices
    keeps its axis.

  The product of one row is that of `PARTS` parts of the kernel, which XLA for CPUs computes on several cores, and a
  whole one on one. Few rows are the columns of the right operand where they meet the rows of a matrix (V D), which is
  then read as it lies.

  A kernel of another type than x is multiplied in the type of x, and its gradient is summed in float32; it may be
  `genjax.reduction.Unreduced`.
  """
  options = {'precision': precision, 'preferred_element_type': preferred_element_type, 'out_sharding': out_sharding}
  kernel = kernel if isinstance(kernel, Kernel) else reduction.in_terms(kernel)
  if isinstance(kernel, Kernel):
    return kernel.product(x, dimensions, functools.partial(dot_general, **options))
  last = dimensions[0][0] == (x.ndim - 1,) and dimensions[1] == ((), ())
  flat = last and sharding.platform() == 'cpu' and sharding.shards('sequence') == 1
  alone = flat and sharding.active() is None
  if reduction.is_unreduced(kernel) or kernel.dtype != x.dtype:
    assert last, 'the last axis of x meets an axis of a matrix'
    return reduction.multiply(x, kernel, Matrix(dimensions[0][1][0], flat, alone, precision, preferred_element_type))
  return _flat(x, kernel, dimensions[0][1][0], alone, options) if flat else jax.lax.dot_general(
    x, kernel, dimensions, **options)


def _flat(x: Array, kernel: Array, axis: int, alone: bool, options: dict[str, Any]) -> Array:
  """The product with all axes of x but its last as one; `alone`: on one device."""
  rows = x.size // x.shape[-1]
  if alone and rows == 1 and kernel.size >= LEAST and kernel.shape[0] % PARTS == 0:
    y = _of_one_row(x.reshape(-1), kernel, axis, options['precision'], options['preferred_element_type'])
  elif alone and rows <= FEW and axis == 1:
    columns = jax.lax.optimization_barrier(x.reshape(rows, -1).T)
    y = jax.lax.optimization_barrier(jax.lax.dot_general(kernel, columns, (((1,), (0,)), ((), ())), **options)).T
  else:
    y = jax.lax.dot_general(x.reshape(rows, -1), kernel, (((1,), (axis,)), ((), ())), **options)
  return y.reshape(*x.shape[:-1], y.shape[-1])


@dataclasses.dataclass(frozen=True)
class Matrix:
  """The product of the last axis of x with a matrix, as a `genjax.reduction.Product`.

  axis: of the matrix that is contracted.
  flat: all axes of x but its last are one, see `dot_general`.
  alone: it is computed on one device.
  precision, preferred_element_type: as of `jax.lax.dot_general`.
  """

  axis: int
  flat: bool
  alone: bool
  precision: Any = None
  preferred_element_type: Any = None

  def __call__(self, x: Array, weight: Array) -> Array:
    options = {'precision': self.precision, 'preferred_element_type': self.preferred_element_type}
    if self.flat:
      return _flat(x, weight.astype(x.dtype), self.axis, self.alone, options)
    return jax.lax.dot_general(x, weight.astype(x.dtype), (((x.ndim - 1,), (self.axis,)), ((), ())), **options)

  def in_type_of_x(self, x: Array, weight: Array) -> Array:
    """See `genjax.reduction.Product`."""
    return dataclasses.replace(self, preferred_element_type=None)(x, weight)

  def gradient(self, x: Array, slope: Array, shape: tuple[int, ...], parts: int) -> Array:
    """See `genjax.reduction.Product`."""
    split: tuple[Any,
                 ...] = (x, slope) if not parts else tuple(reduction.by_parts(column, parts) for column in (x, slope))
    if split[0] is None:
      return reduction.spread(self.gradient(x, slope, shape, 0), parts)
    lead = 1 if parts else 0
    if self.flat:
      split = tuple(column.reshape(*column.shape[:lead], -1, column.shape[-1]) for column in split)
    left, right = split if self.axis == 0 else split[::-1]
    rows = tuple(range(lead, left.ndim - 1))
    together = tuple(range(lead))
    return jax.lax.dot_general(left, right, ((rows, rows), (together, together)), precision=self.precision,
                               preferred_element_type=reduction.sum_type(x.dtype)).astype(jnp.float32)


def _of_one_row(x_D: Array, kernel: Array, axis: int, precision: Any, preferred_element_type: Any) -> Array:
  """The product by parts of the kernel's first axis, which is contracted (axis 0) or not (axis 1)."""
  parts = kernel.reshape(PARTS, -1, kernel.shape[1])
  dtype = preferred_element_type or jnp.result_type(x_D, kernel)
  options = {'precision': precision, 'preferred_element_type': jnp.promote_types(dtype, jnp.float32)}
  if axis == 0:
    y_P1N = jax.lax.dot_general(x_D.reshape(PARTS, 1, -1), parts, (((2,), (1,)), ((0,), (0,))), **options)
    return y_P1N.sum(axis=0).astype(dtype)
  # Or XLA makes one product of the parts again
  x_P1D = jax.lax.optimization_barrier(jnp.broadcast_to(x_D, (PARTS, 1, x_D.size)))
  return jax.lax.dot_general(x_P1D, parts, (((2,), (2,)), ((0,), (0,))), **options).reshape(1, -1).astype(dtype)


def matmul(x: Array, kernel: Any, preferred_element_type: Any = None) -> Array:
  """x W over the last axis of x, by `dot_general`."""
  return dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())), preferred_element_type=preferred_element_type)


def project(x: Array, weight_VD: Array | Kernel, preferred_element_type: Any = None) -> Array:
  """x W^T over the last axis of x, by `dot_general`."""
  return dot_general(x, weight_VD, (((x.ndim - 1,), (1,)), ((), ())), preferred_element_type=preferred_element_type)
