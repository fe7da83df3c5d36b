"""Functions that are linear in activations and linear in a parameter, and what becomes of them under derivatives and
`jax.vmap`.

`genjax.reduction` computes with them.
"""

import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from genjax.types import Array


class Product(Protocol):
  """A function that is linear in activations and linear in a parameter. Hashable: it is a static part of a traced
  program."""

  def __call__(self, x: Array, weight: Array) -> Array:
    """The product, computed in the type of x."""
    ...

  def in_type_of_x(self, x: Array, weight: Array) -> Array:
    """The same in the type of x, where the product itself gives another, such as logits in float32."""
    ...

  def gradient(self, x: Array, slope: Array, shape: tuple[int, ...], parts: int) -> Array:
    """The gradient of the weight in float32: of its shape, or with `parts` > 0 one term a part of the batch, on a new
    first axis."""
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
  """A product under `jax.vmap`: the first axis of x is mapped, and with `both` that of the weight too."""

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
    # One weight for all: what is mapped are rows too.
    joined = lambda column: column.reshape(-1, *column.shape[2:]) if column.ndim > 2 else column
    return self.product.gradient(joined(x), joined(slope), shape, parts)


def _of_one_weight(product: Any) -> bool:
  if isinstance(product, Mapped) and product.both:
    return False
  return not isinstance(product, (Mapped, Adjoint)) or _of_one_weight(product.product)


def adjoint(product: Any, x: Any) -> Any:
  """The adjoint of a product, or of an adjoint, in its first argument, of which x has the type."""
  return product.product if isinstance(product, Adjoint) else Adjoint(product, x.shape, x.dtype)
