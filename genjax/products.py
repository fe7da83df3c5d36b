"""Bilinear functions of activations and a parameter, with their derivatives and batching rules.

`genjax.reduction` uses them.
"""

import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from genjax.types import Array


class Product(Protocol):
  """A bilinear function of activations and a parameter. Must be hashable: it is static in traced programs."""

  def __call__(self, x: Array, weight: Array) -> Array:
    """Computes the product in the dtype of x."""
    ...

  def in_type_of_x(self, x: Array, weight: Array) -> Array:
    """The product in the dtype of x, even if `__call__` returns another one, such as float32 logits."""
    ...

  def gradient(self, x: Array, slope: Array, shape: tuple[int, ...], parts: int) -> Array:
    """Returns the float32 gradient of the weight.

    With `parts` = 0 it has the weight's `shape`; with `parts` > 0 a new first axis holds one term per part of the
    batch.
    """
    ...


@dataclasses.dataclass(frozen=True)
class Adjoint:
  """The adjoint of a product in x: (slope of the product, weight) -> slope of x."""

  product: Product
  shape: tuple[int, ...]
  dtype: Any

  def __call__(self, slope: Array, weight: Array) -> Array:
    like_x = jnp.zeros(self.shape, self.dtype)
    return jax.vjp(lambda x: self.product.in_type_of_x(x, weight), like_x)[1](slope.astype(self.dtype))[0]

  in_type_of_x = __call__

  def gradient(self, x: Array, slope: Array, shape: tuple[int, ...], parts: int) -> Array:
    return self.product.gradient(slope, x, shape, parts)


@dataclasses.dataclass(frozen=True)
class Mapped:
  """A product under `jax.vmap` over the first axis of x, and with `both` over that of the weight too."""

  product: Product
  both: bool

  def __call__(self, x: Array, weight: Array) -> Array:
    return jax.vmap(self.product, (0, 0 if self.both else None))(x, weight)

  def in_type_of_x(self, x: Array, weight: Array) -> Array:
    return jax.vmap(self.product.in_type_of_x, (0, 0 if self.both else None))(x, weight)

  def gradient(self, x: Array, slope: Array, shape: tuple[int, ...], parts: int) -> Array:
    if self.both:
      one = lambda x, slope: self.product.gradient(x, slope, shape[1:], parts)
      return jax.vmap(one, out_axes=1 if parts else 0)(x, slope)
    if not _of_one_weight(self.product):
      return jnp.sum(jax.vmap(lambda x, slope: self.product.gradient(x, slope, shape, parts))(x, slope), axis=0)
    # All share one weight, so the mapped axis just adds rows.
    joined = lambda column: column.reshape(-1, *column.shape[2:]) if column.ndim > 2 else column
    return self.product.gradient(joined(x), joined(slope), shape, parts)


def _of_one_weight(product: Any) -> bool:
  if isinstance(product, Mapped) and product.both:
    return False
  return not isinstance(product, (Mapped, Adjoint)) or _of_one_weight(product.product)


def adjoint(product: Any, x: Any) -> Any:
  """The adjoint of a product (or `Adjoint`) in its first argument x, whose shape and dtype it keeps."""
  return product.product if isinstance(product, Adjoint) else Adjoint(product, x.shape, x.dtype)
