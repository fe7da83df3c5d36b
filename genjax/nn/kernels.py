"""Kernels that consist of several arrays, such as a matrix with its LoRA adapter.

A network's parameters may hold a `Kernel` in place of the array of a kernel. Layers multiply through its methods. For
other uses (division by a norm, transposition into an output layer, reshaping) they get the equivalent array from
`dense`. A subclass is registered as a pytree, so that scans over layers, gradients, layouts and copies reach its
arrays.
"""

from collections.abc import Callable
from typing import Any
import zlib

import jax
from jax.sharding import PartitionSpec

from genjax.types import Array, Key, Tree, leaf_name

# (x, matrix, dimension numbers of `jax.lax.dot_general`) -> product
Multiply = Callable[[Array, Array, Any], Array]
# (x, kernel) -> y, bilinear; the last axis of y is that of the kernel
Linear = Callable[[Array, Array], Array]


class Kernel:
  """Base class of objects that replace the array of a kernel.

  `shape`, `dtype` and `ndim` are those of that array, or of a slice inside a scan.
  """

  shape: tuple[int, ...]
  dtype: Any

  @property
  def ndim(self) -> int:
    """Number of axes."""
    return len(self.shape)

  def astype(self, dtype: Any) -> 'Kernel':
    """The kernel for a layer with this compute dtype."""
    raise NotImplementedError

  def dense(self) -> Array:
    """The equivalent single array."""
    raise NotImplementedError

  def __jax_array__(self) -> Array:
    """Makes `jax.numpy` functions and operators use the equivalent array."""
    return self.dense()

  def product(self, x: Array, dimensions: Any, multiply: Multiply) -> Array:
    """multiply(x, kernel, dimensions), a product of x with a matrix.

    Args:
      x: input, contracted along its last axis.
      dimensions: as for `jax.lax.dot_general`, without batch dimensions.
      multiply: the product with a single array, in the compute dtype of the layer.
    """
    return multiply(x, self.dense(), dimensions)

  def apply(self, x: Array, function: Linear, narrow: Linear | None = None) -> Array:
    """function(x, kernel), such as a convolution.

    Args:
      x: the input.
      function: function of x and a kernel that is a single array.
      narrow: the same for any number of outputs, if `function` only supports that of this kernel.
    """
    del narrow
    return function(x, self.dense())

  def keyed(self, key: Key) -> 'Kernel':
    """The kernel for one application in training, with the key for its random numbers."""
    del key
    return self

  def on_part(self, index: Array) -> 'Kernel':
    """The kernel on a device that has part `index` of the input."""
    del index
    return self

  def layout(self, spec: PartitionSpec) -> Any:
    """The kernel with a `PartitionSpec` for each of its arrays, if `spec` is the layout of the equivalent array."""
    raise NotImplementedError


def dense(kernel: Any) -> Array:
  """Returns a kernel as a single array."""
  return kernel.dense() if isinstance(kernel, Kernel) else kernel


def keyed(params: Tree, key: Key | None) -> Tree:
  """Gives each `Kernel` among the parameters its own key. Without a key returns them unchanged."""
  if key is None:
    return params

  def one(path: tuple, leaf: Any) -> Any:
    if not isinstance(leaf, Kernel):
      return leaf
    return leaf.keyed(jax.random.fold_in(key, zlib.crc32(leaf_name(path).encode())))

  return jax.tree_util.tree_map_with_path(one, params, is_leaf=lambda leaf: isinstance(leaf, Kernel))
