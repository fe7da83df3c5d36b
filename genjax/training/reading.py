"""Finds the dtypes in which a function reads its arrays, from its jaxpr.

An array that is only read after conversion to one narrower dtype can be stored in that dtype. The function then
computes the same, up to the order in which XLA adds.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from genjax import reduction
from genjax.types import Tree

# Operations that only rearrange entries, so that converting before them equals converting after them.
VIEWS = ('reshape', 'transpose', 'squeeze', 'slice', 'dynamic_slice', 'broadcast_in_dim', 'expand_dims', 'copy', 'rev',
         'sharding_constraint')
# Operations that run a jaxpr once on their operands, with the parameter that holds it.
CALLS = {'jit': 'jaxpr', 'pjit': 'jaxpr', 'closed_call': 'call_jaxpr', 'remat2': 'jaxpr', 'checkpoint': 'jaxpr',
         'custom_jvp_call': 'call_jaxpr', 'custom_vjp_call': 'call_jaxpr', 'shard_map': 'jaxpr'}


def read_types(function: Callable[..., Any], tree: Tree, *rest: Any) -> Tree:
  """The dtype in which each array can be stored without changing the results of a function.

  Args:
    function: called as function(tree, *rest).
    tree: arrays or shapes.
    rest: further arguments, arrays or shapes.

  Returns:
    A tree of dtypes: if the function converts a floating-point array to one narrower dtype wherever it reads it, that
    dtype; else the array's own.
  """
  leaves, structure = jax.tree.flatten(tree)
  jaxpr = jax.make_jaxpr(function)(tree, *rest).jaxpr
  found: list[set[Any]] = [set() for _ in leaves]
  numbers = [*range(len(leaves)), *[None] * (len(jaxpr.invars) - len(leaves))]
  _as_they_are(_follow(jaxpr, numbers, found), found)
  return jax.tree.unflatten(structure, [_narrowed(leaf.dtype, types) for leaf, types in zip(leaves, found)])


def _narrowed(dtype: Any, types: set[Any]) -> Any:
  dtype, only = jnp.dtype(dtype), next(iter(types)) if len(types) == 1 else None
  if only is None or not (jnp.issubdtype(only, jnp.floating) and jnp.issubdtype(dtype, jnp.floating)):
    return dtype
  return only if only.itemsize < dtype.itemsize else dtype


def _follow(jaxpr: Any, numbers: Sequence[int | None], found: list[set[Any]]) -> list[int | None]:
  """Adds to `found` the dtypes in which a jaxpr reads its numbered arguments. Returns the numbers of its results."""
  known = {variable: number for variable, number in zip(jaxpr.invars, numbers) if number is not None}
  for equation in jaxpr.eqns:
    # literals have a value
    given = [None if hasattr(variable, 'val') else known.get(variable) for variable in equation.invars]
    if any(number is not None for number in given):
      results = _results(equation, given, found)
      known.update({variable: number for variable, number in zip(equation.outvars, results) if number is not None})
  return [None if hasattr(variable, 'val') else known.get(variable) for variable in jaxpr.outvars]


def _results(equation: Any, given: list[int | None], found: list[set[Any]]) -> list[int | None]:
  """The numbers of the results of an equation that reads numbered arrays."""
  name = equation.primitive.name
  nothing: list[int | None] = [None] * len(equation.outvars)
  if name == 'convert_element_type':
    found[given[0]].add(jnp.dtype(equation.params['new_dtype']))  # type: ignore[index]
    return nothing
  if name == reduction.PRODUCT:  # of activations and a parameter, which is read in the dtype of the activations
    if given[1] is not None:
      found[given[1]].add(jnp.dtype(equation.invars[0].aval.dtype))
    _as_they_are(given[:1], found)
    return nothing
  if name in VIEWS:
    return given[:1]
  if name == 'optimization_barrier':
    return given
  if name in CALLS:
    inner = equation.params[CALLS[name]]
    return _follow(getattr(inner, 'jaxpr', inner), given, found)
  if name == 'scan':
    inner, consts, carry = equation.params['jaxpr'].jaxpr, equation.params['num_consts'], equation.params['num_carry']
    results = _follow(inner, [*given[:consts], *[None] * carry, *given[consts + carry:]], found)
    _as_they_are([*given[consts:consts + carry], *results], found)
    return nothing
  _as_they_are(given, found)
  return nothing


def _as_they_are(numbers: Sequence[int | None], found: list[set[Any]]) -> None:
  """Records that arrays are read, or returned, without a conversion."""
  for number in numbers:
    if number is not None:
      found[number].add(None)
