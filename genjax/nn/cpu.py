"""Workarounds for XLA's CPU backend, in one place. They change the speed, and results by rounding only.

docs/speed.md has the measurements; the times below are milliseconds before and after, on two cores.

  - `matrix_product`, axes: with rows and tokens on two axes, the gradient of a dense kernel contracts both, and XLA
    changes the layout of the operations before it, such as norms, to suit that product. Here x has one axis for both.
    Gradients of the DiT: 671 to 438; of the GPT: 1,145 to 984.
  - `matrix_product`, one row: XLA multiplies one row by a matrix on a single core. A batch of `ROW_PARTS` parts of the
    matrix runs on all cores. Decoding, batch 1: 305 to 236 (14 M parameters), 3,817 to 3,022 (GPT-2 small).
  - `matrix_product`, few rows: with an output layer V D, the rows become columns of the right operand, so that XLA
    reads the matrix in its order in memory.
  - `isolated`: XLA fuses the products of attention's gradient with the code that reads them, or transposes them back.
    A barrier prevents it. Gradients of the GPT: 956 to 912.
  - `unstack`: a loop copies every slice of the stacked layers in each iteration, so decoding copied all weights for
    every token. Separate arrays per layer, with `cache_shape` and `argmax`: 3.3 to 1.4 a token.
  - `cache_shape`: a loop that writes to a key/value cache whose first axis has size 1 copies the cache for every
    token; other shapes are updated in place. With heads before slots: 8.1 to 3.0 a token at batch 8.
  - `argmax`: XLA doesn't vectorise it. Two reductions: 0.15 to 0.02 (8 x 8,192).
  - `genjax.nn.cpu_convolutions`: gradients of convolution kernels (7.1 to 3.8) and transposed convolutions (2.3 to
    1.2) as matrix products; a border around images with fewer pixels than the kernel (1,450 to 60 of one core).

Formulas that suit every platform are written where they belong, also with CPUs in mind: the backward pass of
`genjax.nn.attention.dot_product_attention`, 1 x 1 convolutions as products in `genjax.nn.conv`, and the option `unroll`
of `genjax.nn.functional.stack`. `genjax.training.monitoring.allocator` keeps freed memory.
"""

from typing import Any

import jax
import jax.numpy as jnp

from genjax import sharding
from genjax.types import Array, Tree

ROW_PARTS = 4  # parts of a matrix that one row is multiplied with
MIN_MATRIX_SIZE = 2**16  # entries of a matrix from which parts are faster
MAX_FEW_ROWS = 32  # rows up to which they become columns


def is_target() -> bool:
  """Returns whether the code being traced will run on CPUs."""
  return sharding.platform() == 'cpu'


def isolated(products: Any) -> Any:
  """On CPUs, keeps XLA from fusing products with the code that reads them, and from transposing them back."""
  return jax.lax.optimization_barrier(products) if is_target() else products


def matrix_product(x: Array, kernel: Array, axis: int, one_device: bool, options: dict[str, Any]) -> Array:
  """The product of the last axis of x with `axis` of a matrix; all other axes of x are merged into one.

  Args:
    x: any number of axes.
    kernel: the matrix.
    axis: its axis that is contracted, 0 or 1.
    one_device: whether a single device computes the product; only then small numbers of rows are treated apart.
    options: precision, preferred_element_type and out_sharding of `jax.lax.dot_general`.
  """
  rows = x.size // x.shape[-1]
  if one_device and rows == 1 and kernel.size >= MIN_MATRIX_SIZE and kernel.shape[0] % ROW_PARTS == 0:
    y = _row_product(x.reshape(-1), kernel, axis, options['precision'], options['preferred_element_type'])
  elif one_device and rows <= MAX_FEW_ROWS and axis == 1:
    columns = jax.lax.optimization_barrier(x.reshape(rows, -1).T)
    y = jax.lax.optimization_barrier(jax.lax.dot_general(kernel, columns, (((1,), (0,)), ((), ())), **options)).T
  else:
    y = jax.lax.dot_general(x.reshape(rows, -1), kernel, (((1,), (axis,)), ((), ())), **options)
  return y.reshape(*x.shape[:-1], y.shape[-1])


def _row_product(x_D: Array, kernel: Array, axis: int, precision: Any, preferred_element_type: Any) -> Array:
  """The product of one row with a matrix that is cut into `ROW_PARTS` parts along its first axis."""
  parts = kernel.reshape(ROW_PARTS, -1, kernel.shape[1])
  dtype = preferred_element_type or jnp.result_type(x_D, kernel)
  options = {'precision': precision, 'preferred_element_type': jnp.promote_types(dtype, jnp.float32)}
  if axis == 0:
    y_P1N = jax.lax.dot_general(x_D.reshape(ROW_PARTS, 1, -1), parts, (((2,), (1,)), ((0,), (0,))), **options)
    return y_P1N.sum(axis=0).astype(dtype)
  # Without the barrier XLA merges the parts into one product again.
  x_P1D = jax.lax.optimization_barrier(jnp.broadcast_to(x_D, (ROW_PARTS, 1, x_D.size)))
  return jax.lax.dot_general(x_P1D, parts, (((2,), (2,)), ((0,), (0,))), **options).reshape(1, -1).astype(dtype)


def unstack(params: Tree, depth: int) -> tuple[Tree, ...]:
  """Splits the parameters of a stack into one tree per block, for loops that apply the stack many times.

  The barrier keeps XLA from moving the slices into the loop, where each iteration would copy them.
  """
  return jax.lax.optimization_barrier(tuple(jax.tree.map(lambda leaf: leaf[index], params) for index in range(depth)))


def cache_shape(batch: int, kv_heads: int, slots: int, head_dim: int) -> tuple[int, ...]:
  """The shape of the keys and of the values in a cache: K S D for one row, else B K S D."""
  return (kv_heads, slots, head_dim) if batch == 1 else (batch, kv_heads, slots, head_dim)


def argmax(logits_NV: Array) -> Array:
  """The index of the first maximum of each row, int32 N, by two reductions."""
  most_N1 = jnp.max(logits_NV, axis=-1, keepdims=True)
  vocab = logits_NV.shape[-1]
  return jnp.min(jnp.where(logits_NV == most_N1, jnp.arange(vocab), vocab - 1), axis=-1)
