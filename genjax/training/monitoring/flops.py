"""Analytic FLOPs of a function, counted on its jaxpr: matrix products and convolutions, two FLOPs a multiply-add.

Unlike a compiler's own count this one multiplies the body of a scan by its length and that of a Pallas kernel by its
grid, needs no compilation and no memory, and so gives the cost of a 70 B model in seconds.
"""

from collections.abc import Callable
import math
from typing import Any

import jax

from genjax import reduction


def count(function: Callable[..., Any], *args: Any, static_argnums: tuple[int, ...] = ()) -> int:
  """FLOPs of `function(*args)`; the arguments may be `jax.ShapeDtypeStruct`s."""
  return _count(jax.make_jaxpr(function, static_argnums=static_argnums)(*args).jaxpr)


def _count(jaxpr: Any) -> int:
  total = 0
  for equation in jaxpr.eqns:
    name = equation.primitive.name
    if name == 'dot_general':
      total += _dot(equation)
    elif name == 'ragged_dot_general':
      total += _ragged_dot(equation)
    elif name == 'conv_general_dilated':
      total += _convolution(equation)
    elif name == reduction.PRODUCT:
      operands = (jax.ShapeDtypeStruct(variable.aval.shape, variable.aval.dtype) for variable in equation.invars)
      total += _count(jax.make_jaxpr(equation.params['product'])(*operands).jaxpr)
    elif name in _FUSED_ATTENTION:
      total += _fused_attention(equation)
    elif name == 'derivative':
      total += _derivative(equation)
    elif name == 'scan':
      total += equation.params['length'] * _count(equation.params['jaxpr'].jaxpr)
    elif name == 'cond':
      total += max(_count(branch.jaxpr) for branch in equation.params['branches'])
    elif name == 'pallas_call':
      # A kernel may skip blocks that a mask leaves empty; which, stands in its data. Here every block of the grid
      # counts.
      grid = equation.params['grid_mapping'].grid
      if all(isinstance(size, int) for size in grid):
        total += math.prod(grid) * _count(equation.params['jaxpr'])
      else:  # as long as the data says: only the kernel knows what to expect
        total += equation.params['cost_estimate'].flops
    elif name == 'shard_map':
      # The body is what one device does. The name of its axes has changed within the versions of jax that are
      # supported.
      axes = equation.params.get('newly_manual_axes', equation.params.get('manual_axes'))
      total += math.prod(equation.params['mesh'].shape[axis] for axis in axes) * _count(equation.params['jaxpr'])
    else:
      # A while loop has no known length: its body counts once. Everything else that nests runs its body once.
      total += sum(_count(inner) for value in equation.params.values() for inner in _jaxprs(value))
  return total


def _fused_attention(equation: Any) -> int:
  """Scores and weighted values, 2 T S (D + D) a head, and in the backward pass their four gradients: what the formula
  as it stands costs.

  Neither the half of the scores that a causal mask hides is left out, nor are those counted that the kernel computes
  again; a sliding window leaves no more keys than it is long.
  """
  query, key, value = (variable.aval.shape for variable in equation.invars[:3])
  axes = (0, 2, 1, 3) if equation.params['layout'] else (0, 1, 2, 3)  # batch, length, heads, channels
  batch, queries, heads, channels = (query[axis] for axis in axes)
  keys = key[axes[1]]
  keys = min(keys, equation.params['sliding_window_length'] or keys)
  return _FUSED_ATTENTION[equation.primitive.name] * 2 * batch * heads * queries * keys * (channels + value[3])


# Primitives of cuDNN's attention in `jax.nn.dot_product_attention`, whose work no jaxpr shows -> products, in those of
# the forward pass.
_FUSED_ATTENTION = {
  'dot_product_attention_fwd_wrapper': 1, 'dot_product_attention_fwd': 1, 'dot_product_attention_bwd_wrapper': 2,
  'dot_product_attention_bwd': 2
}


def _derivative(equation: Any) -> int:
  """The forward-mode derivative of a function of `genjax.nn.derivatives`, which is traced when it is lowered."""
  rule = equation.params['rule']
  shapes = [jax.ShapeDtypeStruct(variable.aval.shape, variable.aval.dtype) for variable in equation.invars]
  return count(lambda *values: rule.derivative(values[:rule.saved], values[rule.saved:]), *shapes)


def _jaxprs(value: Any) -> list[Any]:
  """The jaxprs in a parameter of an equation."""
  values = value if isinstance(value, (tuple, list)) else (value,)
  closed = [getattr(item, 'jaxpr', item) for item in values]
  return [item for item in closed if hasattr(item, 'eqns')]


def _dot(equation: Any) -> int:
  """2 x output size x contracted size."""
  (contracted, _), _ = equation.params['dimension_numbers']
  left = equation.invars[0].aval.shape
  return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)


def _ragged_dot(equation: Any) -> int:
  """As if there were one group: every row is multiplied by one matrix. Rows of no group count too."""
  numbers = equation.params['ragged_dot_dimension_numbers']
  (_, contracted), (_, batch) = numbers.dot_dimension_numbers
  left, right = (variable.aval.shape for variable in equation.invars[:2])
  shared = (*contracted, *batch, *numbers.rhs_group_dimensions)
  return 2 * math.prod(left) * math.prod(size for axis, size in enumerate(right) if axis not in shared)


def _convolution(equation: Any) -> int:
  """2 x output size x kernel size x input channels per group; a dilated input (a gradient) has zeros that cost
  nothing."""
  numbers = equation.params['dimension_numbers']
  kernel = equation.invars[1].aval.shape
  input_channels = kernel[numbers.rhs_spec[1]]
  taps = math.prod(kernel[axis] for axis in numbers.rhs_spec[2:])
  dilation = math.prod(equation.params['lhs_dilation'])
  return 2 * math.prod(
    equation.outvars[0].aval.shape) * input_channels * taps // (dilation * equation.params['batch_group_count'])
