"""Dense layers and their matrix products."""

import dataclasses
import functools
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from genjax import reduction, sharding
from genjax.nn import cpu
from genjax.nn.kernels import Kernel
from genjax.types import Array


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
  """`jax.lax.dot_general` of the last axis of x and a matrix.

  On CPUs all other axes of x are merged into one (see `genjax.nn.cpu`), unless a mesh splits the sequence. A `Kernel`
  is multiplied by its own method, which calls this function for its arrays. A kernel of another dtype than x is cast to
  the dtype of x, and its gradient is summed in float32; it may be `genjax.reduction.Unreduced`.
  """
  options = {'precision': precision, 'preferred_element_type': preferred_element_type, 'out_sharding': out_sharding}
  kernel = kernel if isinstance(kernel, Kernel) else reduction.in_terms(kernel)
  if isinstance(kernel, Kernel):
    return kernel.product(x, dimensions, functools.partial(dot_general, **options))
  last = dimensions[0][0] == (x.ndim - 1,) and dimensions[1] == ((), ())
  flat = last and cpu.is_target() and sharding.shards('sequence') == 1
  alone = flat and sharding.active() is None
  if reduction.is_unreduced(kernel) or kernel.dtype != x.dtype:
    assert last, 'the last axis of x meets an axis of a matrix'
    return reduction.multiply(x, kernel, Matrix(dimensions[0][1][0], flat, alone, precision, preferred_element_type))
  if flat:
    return cpu.matrix_product(x, kernel, dimensions[0][1][0], alone, options)
  return jax.lax.dot_general(x, kernel, dimensions, **options)


@dataclasses.dataclass(frozen=True)
class Matrix:
  """The product of the last axis of x with a matrix, as a `genjax.products.Product`.

  Attributes:
    axis: the contracted axis of the matrix.
    flat: whether the axes of x before the last are merged, see `dot_general`.
    alone: whether one device computes the whole product.
    precision, preferred_element_type: as for `jax.lax.dot_general`.
  """

  axis: int
  flat: bool
  alone: bool
  precision: Any = None
  preferred_element_type: Any = None

  def __call__(self, x: Array, weight: Array) -> Array:
    options = {'precision': self.precision, 'preferred_element_type': self.preferred_element_type}
    if self.flat:
      return cpu.matrix_product(x, weight.astype(x.dtype), self.axis, self.alone, options)
    return jax.lax.dot_general(x, weight.astype(x.dtype), (((x.ndim - 1,), (self.axis,)), ((), ())), **options)

  def in_type_of_x(self, x: Array, weight: Array) -> Array:
    """See `genjax.products.Product`."""
    return dataclasses.replace(self, preferred_element_type=None)(x, weight)

  def gradient(self, x: Array, slope: Array, shape: tuple[int, ...], parts: int) -> Array:
    """See `genjax.products.Product`."""
    split: tuple[Any, ...] = (x, slope)
    if parts:
      split = tuple(reduction.by_parts(column, parts) for column in split)
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


def matmul(x: Array, kernel: Any, preferred_element_type: Any = None) -> Array:
  """x W over the last axis of x, by `dot_general`."""
  return dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())), preferred_element_type=preferred_element_type)


def project(x: Array, weight_VD: Array | Kernel, preferred_element_type: Any = None) -> Array:
  """x W^T over the last axis of x, by `dot_general`."""
  return dot_general(x, weight_VD, (((x.ndim - 1,), (1,)), ((), ())), preferred_element_type=preferred_element_type)
