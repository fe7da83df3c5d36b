"""Kernels that are more than one array: small trees in the place of one, which know how to multiply.

A network's parameters may hold a `Kernel` where its layers expect the array of a kernel. Layers multiply through its
methods; where a kernel is used otherwise (divided by a norm, transposed into an output layer, reshaped) they take the
array that it stands for, by `dense`. A subclass is registered as a pytree, so that a scan over layers slices it, and
gradients, layouts and copies reach its arrays.
"""

from collections.abc import Callable
from typing import Any
import zlib

import jax
from jax.sharding import PartitionSpec

from genjax.types import Array, Key, Tree, leaf_name

# (x, matrix, dimension numbers as of `jax.lax.dot_general`) -> their product
Multiply = Callable[[Array, Array, Any], Array]
# (x, kernel) -> what is linear in both, with the last axis of the kernel as its last axis
Linear = Callable[[Array, Array], Array]


class Kernel:
  """What stands in the place of the array of a kernel.

  shape, dtype, ndim: those of that array; after a scan has sliced it, of a slice.
  """

  shape: tuple[int, ...]
  dtype: Any

  @property
  def ndim(self) -> int:
    """Number of axes."""
    return len(self.shape)

  def astype(self, dtype: Any) -> 'Kernel':
    """The kernel as a layer of this compute type reads it."""
    raise NotImplementedError

  def dense(self) -> Array:
    """The one array that it stands for."""
    raise NotImplementedError

  def __jax_array__(self) -> Array:
    """For `jax.numpy` and operators, so that whatever else an objective does with a kernel is right."""
    return self.dense()

  def product(self, x: Array, dimensions: Any, multiply: Multiply) -> Array:
    """multiply(x, kernel, dimensions), a product of x with a matrix.

    Args:
      x: its last axis is contracted.
      dimensions: as of `jax.lax.dot_general`, with no batch dimensions.
      multiply: the product with a matrix that is one array, in the type that the layer computes in.
    """
    return multiply(x, self.dense(), dimensions)

  def apply(self, x: Array, function: Linear, narrow: Linear | None = None) -> Array:
    """function(x, kernel), such as a convolution.

    Args:
      x: the input.
      function: of x and a kernel that is one array.
      narrow: the same for kernels of any number of outputs, where `function` takes none but this one.
    """
    del narrow
    return function(x, self.dense())

  def keyed(self, key: Key) -> 'Kernel':
    """The kernel for one application in training; `key` is for what it draws."""
    del key
    return self

  def on_part(self, index: Array) -> 'Kernel':
    """The kernel where each device has a part of the input and `index` tells these parts from each other."""
    del index
    return self

  def layout(self, spec: PartitionSpec) -> Any:
    """The kernel with `PartitionSpec`s in the place of its arrays, where the array that it stands for would lie by
    `spec`."""
    raise NotImplementedError


def dense(kernel: Any) -> Array:
  """The array of a kernel, whatever stands in its place."""
  return kernel.dense() if isinstance(kernel, Kernel) else kernel


def keyed(params: Tree, key: Key | None) -> Tree:
  """The parameters, with a key of its own for each `Kernel` among them; as they are without a key."""
  if key is None:
    return params

  def one(path: tuple, leaf: Any) -> Any:
    return leaf.keyed(jax.random.fold_in(key, zlib.crc32(leaf_name(path).encode()))) if isinstance(leaf,
                                                                                                   Kernel) else leaf

  return jax.tree_util.tree_map_with_path(one, params, is_leaf=lambda leaf: isinstance(leaf, Kernel))
