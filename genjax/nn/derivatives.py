"""Functions with a custom gradient that also support forward-mode derivatives.

A function with `jax.custom_vjp` does not support `jax.jvp`, but objectives with derivatives along a path need it
(MeanFlow, Geng et al. 2025; sCM, Lu and Song 2024). Here the derivative is one linear operation: forward mode computes
it by `derivative`, reverse mode transposes it by `backward`. Neither calls the other, and both can be differentiated
again.
"""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any

import jax
from jax.core import ShapedArray
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
import jax.numpy as jnp

from genjax.types import Array, UserError

Leaves = Sequence[Any]


def define(value: Callable[..., Any], forward: Callable[..., Any], derivative: Callable[..., Any],
           backward: Callable[..., Any], static: int = 0) -> Callable[..., Any]:
  """Defines a function with custom derivatives in both modes.

  Args:
    value: (*arrays, *options) -> y; arrays and y are trees of arrays.
    forward: (*arrays, *options) -> (y, saved); used instead of `value` for derivatives, with `saved` for the rules
      below.
    derivative: (*options, saved, tangents) -> tangent of y, linear in `tangents`, a tuple with one entry per array;
      None means zero.
    backward: (*options, saved, gradient) -> tuple of one gradient per array, None for no gradient: the transpose of
      `derivative`.
    static: number of trailing arguments that are static options.

  Returns:
    The function (*arrays, *options) -> y.
  """

  def function(*arguments: Any) -> Any:
    count = len(arguments) - static
    arrays, options = arguments[:count], arguments[count:]

    @jax.custom_jvp
    def specialised(*arrays: Any) -> Any:
      return value(*arrays, *options)

    def rule(arrays: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
      y, saved = forward(*arrays, *options)
      return y, _tangent(y, saved, tangents, lambda *given: derivative(*options, *given),
                         lambda *given: backward(*options, *given))

    specialised.defjvp(rule, symbolic_zeros=True)
    return specialised(*arrays)

  return function


def along(function: Callable[..., Any], arrays: Sequence[Any], tangents: Sequence[Any]) -> Any:
  """The tangent of `function(*arrays)` by automatic differentiation; a tangent of None means zero."""
  moving = [index for index, tangent in enumerate(tangents) if tangent is not None]

  def moved(*values: Any) -> Any:
    return function(*(values[moving.index(index)] if index in moving else array for index, array in enumerate(arrays)))

  return jax.jvp(moved, tuple(arrays[index] for index in moving), tuple(tangents[index] for index in moving))[1]


def reverse_only(x: Array, message: str) -> Array:
  """Returns x. Raises a UserError with `message` if it is differentiated in forward mode."""

  def refuse(saved: Any, tangents: Any) -> Any:
    raise UserError(message)

  return define(lambda x: x, lambda x: (x, ()), refuse, lambda saved, gradient: (gradient,))(x)


@dataclasses.dataclass(frozen=True, eq=False)
class _Rule:
  """The linear operation (saved, tangents) -> tangents of y and its transpose, on lists of leaves.

  The transpose maps (saved, gradients of y) to gradients.
  """

  saved: int
  derivative: Callable[[Leaves, Leaves], list[Array]]
  transpose: Callable[[Leaves, Leaves], list[Array]]

  def among(self, live: Sequence[bool]) -> '_Rule':
    """The operation on the tangents marked as `live`; all others are zero."""

    def derivative(saved: Leaves, tangents: Leaves) -> list[Array]:
      left = iter(tangents)
      return self.derivative(saved, [next(left) if one else None for one in live])

    def transpose(saved: Leaves, gradients: Leaves) -> list[Array]:
      return [gradient for gradient, one in zip(self.transpose(saved, gradients), live) if one]

    return _Rule(self.saved, derivative, transpose)


def _tangent(y: Any, saved: Any, tangents: Any, derivative: Callable[..., Any], backward: Callable[..., Any]) -> Any:
  """Applies the linear operation to the tangents that are not zero."""
  y_leaves, y_structure = jax.tree.flatten(y)
  saved_leaves, saved_structure = jax.tree.flatten(saved)
  leaves, structure = jax.tree.flatten(tangents)
  kinds: list[Any] = [leaf.aval if isinstance(leaf, SymbolicZero) else jax.typeof(leaf) for leaf in leaves]
  live = [not isinstance(leaf, SymbolicZero) and kind.dtype != jax.dtypes.float0 for leaf, kind in zip(leaves, kinds)]
  shapes = [jax.ShapeDtypeStruct(kind.shape, kind.dtype) for kind in kinds]

  def along_leaves(saved_leaves: Leaves, tangent_leaves: Leaves) -> list[Array]:
    given = jax.tree.unflatten(structure, tangent_leaves)
    return jax.tree.leaves(derivative(jax.tree.unflatten(saved_structure, saved_leaves), given))

  def back(saved_leaves: Leaves, gradient_leaves: Leaves) -> list[Array]:
    found = backward(jax.tree.unflatten(saved_structure, saved_leaves),
                     jax.tree.unflatten(y_structure, gradient_leaves))
    gradients = []
    for gradient, part in zip(found, jax.tree.unflatten(structure, shapes), strict=True):
      gradients += jax.tree.leaves(part) if gradient is None else jax.tree.leaves(gradient)
    return [jnp.zeros(leaf.shape, leaf.dtype) if isinstance(leaf, jax.ShapeDtypeStruct) else leaf for leaf in gradients]

  rule = _Rule(len(saved_leaves), along_leaves, back).among(live)
  types = tuple(jax.typeof(leaf) for leaf in y_leaves)
  given = [leaf for leaf, one in zip(leaves, live) if one]
  return jax.tree.unflatten(y_structure, _LINEAR.bind(*saved_leaves, *given, rule=rule, types=types))


_LINEAR = Primitive('derivative')
_LINEAR.multiple_results = True


@_LINEAR.def_impl
def _evaluate(*values: Any, rule: _Rule, types: Any) -> list[Array]:
  return rule.derivative(values[:rule.saved], values[rule.saved:])


@_LINEAR.def_abstract_eval
def _types(*values: Any, rule: _Rule, types: Any) -> Any:
  return types


def _differentiate(values: Any, tangents: Any, *, rule: _Rule, types: Any) -> Any:
  """The derivative of the linear operation. In its linear arguments it is the operation itself."""
  y = _LINEAR.bind(*values, rule=rule, types=types)
  live = [not isinstance(tangent, ad.Zero) for tangent in tangents]
  if not any(live[:rule.saved]):
    given = [tangent for tangent, one in zip(tangents, live) if one]
    return y, _LINEAR.bind(*values[:rule.saved], *given, rule=rule.among(live[rule.saved:]), types=types)
  moving = [tangent if one else None for tangent, one in zip(tangents, live)]
  return y, along(lambda *values: _evaluate(*values, rule=rule, types=types), values, moving)


def _transpose(gradients: Any, *values: Any, rule: _Rule, types: Any) -> list[Any]:
  saved, linear = values[:rule.saved], values[rule.saved:]
  found = rule.transpose(saved, [ad.instantiate_zeros(gradient) for gradient in gradients])
  return [None] * rule.saved + [gradient if ad.is_undefined_primal(x) else None for gradient, x in zip(found, linear)]


def _batch(values: Any, axes: Any, *, rule: _Rule, types: Any) -> Any:
  """The rule for `jax.vmap`. All tangents get the mapped axis, so that every row has its own gradients."""
  size = next(x.shape[axis] for x, axis in zip(values, axes) if axis is not None)
  front = [x if axis is None else jnp.moveaxis(x, axis, 0) for x, axis in zip(values, axes)]
  saved, linear = front[:rule.saved], front[rule.saved:]
  linear = [jnp.broadcast_to(x, (size, *x.shape)) if axis is None else x for x, axis in zip(linear, axes[rule.saved:])]
  saved_axes = [None if axis is None else 0 for axis in axes[:rule.saved]]
  mapped = _Rule(rule.saved, lambda saved, tangents: jax.vmap(rule.derivative,
                                                              (saved_axes, 0))(list(saved), list(tangents)),
                 lambda saved, gradients: jax.vmap(rule.transpose, (saved_axes, 0))(list(saved), list(gradients)))
  wide = tuple(ShapedArray((size, *kind.shape), kind.dtype) for kind in types)
  return _LINEAR.bind(*saved, *linear, rule=mapped, types=wide), [0] * len(types)


ad.primitive_jvps[_LINEAR] = _differentiate
ad.primitive_transposes[_LINEAR] = _transpose
batching.primitive_batchers[_LINEAR] = _batch
mlir.register_lowering(_LINEAR, mlir.lower_fun(_evaluate, multiple_results=True))
