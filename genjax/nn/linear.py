"""Dense layers, whose products XLA's CPU code sees as products of two matrices."""

from typing import Any

from flax import nnx
import jax

from genjax import sharding
from genjax.types import Array


class Linear(nnx.Linear):
  """y = x W + b over the last axis of x, as `flax.nnx.Linear`, with the product of `dot_general`."""

  def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs, **options: Any):
    super().__init__(inputs, outputs, dot_general=dot_general, rngs=rngs, **options)


def dot_general(x: Array, kernel: Array, dimensions: Any, precision: Any = None, preferred_element_type: Any = None,
                out_sharding: Any = None) -> Array:
  """`jax.lax.dot_general` of x and a matrix; on CPUs the axes of x that are not contracted, all but its last, are one.

  With several of them, the gradient of the kernel contracts several axes, and XLA for CPUs then lays out what comes before it, norms
  say, for these products: a stack of layers took twice the time. A sequence that is split over devices keeps its axis.
  """
  options = {'precision': precision, 'preferred_element_type': preferred_element_type, 'out_sharding': out_sharding}
  last = dimensions[0][0] == (x.ndim - 1,) and dimensions[1] == ((), ())
  if not (last and x.ndim > 2 and sharding.platform() == 'cpu' and sharding.shards('sequence') == 1):
    return jax.lax.dot_general(x, kernel, dimensions, **options)
  y = jax.lax.dot_general(x.reshape(-1, x.shape[-1]), kernel, (((1,), dimensions[0][1]), ((), ())), **options)
  return y.reshape(*x.shape[:-1], y.shape[-1])


def project(x: Array, weight_VD: Array, preferred_element_type: Any = None) -> Array:
  """x W^T over the last axis of x, by `dot_general`."""
  return dot_general(x, weight_VD, (((x.ndim - 1,), (1,)), ((), ())), preferred_element_type=preferred_element_type)
