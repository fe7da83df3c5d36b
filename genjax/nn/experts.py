"""A mixture of experts: several MLPs, of which a router gives each token a few (Shazeer et al. 2017), without a limit
on their load.

Suffixes: B batch, T tokens, D width, M hidden units, E experts, C choices of a token, N tokens in a row, R = N C routed
  rows.

Each token is multiplied by the experts that it chose and by no other: its copies are sorted by expert, and
`jax.lax.ragged_dot` multiplies runs of rows by one matrix each. On TPUs that costs R D M multiply-adds a matrix, C
times those of one MLP; XLA for other platforms may make E masked products of it, which cost what computing every expert
for every token does, E / C times as much. On a mesh that splits experts every device sorts all rows of its tokens and
multiplies those of its own experts; the sum over devices joins them. No token is dropped, so a device must have room
for all R rows, whoever chose them.
"""

from collections.abc import Callable
import math
from typing import Any

from flax import nnx
import jax
from jax.experimental.pallas.ops.tpu.megablox.gmm import tgmm
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from genjax import reduction, sharding
from genjax.nn import derivatives
from genjax.nn.kernels import Kernel, Multiply
from genjax.nn.linear import Linear, matmul
from genjax.types import Array, Key

Activation = Callable[[Array], Array]
ROWS = (512, 128)  # of a block of the TPU kernel, the first that divides them; its other sides are at most `SIDE`
SIDE = 1024
LANES = 128  # the least side of a block of kernels


class Experts(nnx.Module):
  """The MLPs and their router: y = sum over the chosen e of w_e down_e(activation(gate_e x) * up_e x).

  The softmax of the router, in float32, is over all experts; w are its largest values, divided by their sum (Jiang et
  al. 2024).

  Args:
    width, mlp_width: D, M.
    experts, choices: E, and C of them a token.
    activation: of the hidden units.
    gated: False for activation(up_e x) alone.
    dtype: compute type; parameters are float32.
    kernel_init, out_init: initializers of the kernels into and out of the hidden units; the first is the router's too.

  Raises:
    ValueError: choices that are not between 1 and the number of experts.
  """

  reads_unreduced = True

  def __init__(self, width: int, mlp_width: int, experts: int, choices: int, *, activation: Activation,
               gated: bool = True, dtype: Any = jnp.float32, kernel_init: Any, out_init: Any, rngs: nnx.Rngs):
    if not 1 <= choices <= experts:
      raise ValueError(f'a token has 1 to {experts} experts, as many as there are, got {choices}')
    self.choices, self.activation, self.dtype = choices, activation, dtype
    self.router = Linear(width, experts, use_bias=False, dtype=dtype, kernel_init=kernel_init, rngs=rngs)
    # One draw for each expert, so that what an initializer makes of the shape of a kernel holds for it.
    stacked = lambda init, *shape: nnx.Param(
      jax.vmap(lambda key: init(key, shape, jnp.float32))(jax.random.split(rngs.params(), experts)))
    self.up_kernel = stacked(kernel_init, width, mlp_width)
    self.gate_kernel = stacked(kernel_init, width, mlp_width) if gated else None
    self.down_kernel = stacked(out_init, mlp_width, width)

  def __call__(self, x_BTD: Array, weights_BT: Array | None = None, key: Key | None = None) -> tuple[Array, Array]:
    """(y_BTD, load), the second for `balance`: tokens count by their weights, 1 by default. Routing has no use for a
    key."""
    del key
    logits_BTE = matmul(x_BTD.astype(self.dtype), self.router.kernel.get_value(), jnp.float32)
    probability_BTE = jax.nn.softmax(logits_BTE, axis=-1)
    weight_BTC, expert_BTC = jax.lax.top_k(probability_BTE, self.choices)
    weight_BTC /= jnp.sum(weight_BTC, axis=-1, keepdims=True)
    kernels = [
      kernel.get_value() for kernel in (self.up_kernel, self.gate_kernel, self.down_kernel) if kernel is not None
    ]
    y_BTD = _spread(self.activation, x_BTD.astype(self.dtype), weight_BTC, expert_BTC, *kernels)
    return y_BTD, _load(probability_BTE, expert_BTC, weights_BT)


def empty_load(experts: int) -> Array:
  """The load of no tokens."""
  return jnp.zeros((3, experts), jnp.float32)


def balance(load: Array) -> Array:
  """The load-balancing loss E sum_e f_e P_e (Fedus et al. 2021, eq. 4 to 6), C where all experts have the same share.

  f is the share of tokens that chose an expert, which for C choices adds up to C, P the mean of its probability; both
  are over the tokens of all layers whose loads were added up, as published with Mixtral. Gradients go through P.
  """
  chosen_E, probability_E, total_E = load
  total_E = jnp.maximum(total_E, 1e-12)
  return load.shape[1] * jnp.sum(chosen_E / total_E * (probability_E / total_E))


def _load(probability_BTE: Array, expert_BTC: Array, weights_BT: Array | None) -> Array:
  """Sums over tokens, 3 E: how many chose each expert, the probabilities of the experts, and of how many tokens."""
  weights_BT = jnp.ones(expert_BTC.shape[:2]) if weights_BT is None else weights_BT
  experts = probability_BTE.shape[-1]
  chosen_E = jnp.einsum('bt,btce->e', weights_BT, jax.nn.one_hot(expert_BTC, experts))
  probability_E = jnp.einsum('bt,bte->e', weights_BT, probability_BTE)
  return jnp.stack([chosen_E, probability_E, jnp.broadcast_to(jnp.sum(weights_BT), (experts,))])


def _multiply(x: Array, kernel: Array | Kernel, multiply: Multiply) -> Array:
  """The product of the last axis of x with a matrix, or, as `multiply` has it, with one of several."""
  dimensions = (((x.ndim - 1,), (0,)), ((), ()))
  return kernel.product(x, dimensions, multiply) if isinstance(kernel, Kernel) else multiply(x, kernel, dimensions)


def _spread(activation: Activation, x_BTD: Array, weight_BTC: Array, expert_BTC: Array, *kernels: Any) -> Array:
  """`_mix`, on a mesh on every device for its tokens, experts and hidden units."""
  placement = sharding.active()
  if placement is None:
    return _mix(activation, (), x_BTD, weight_BTC, expert_BTC, *(kernel.astype(x_BTD.dtype) for kernel in kernels))
  batch, length = x_BTD.shape[:2]
  axes = lambda logical, size: placement.mesh_axes(logical) if size % placement.shards(logical) == 0 else ()
  tokens = PartitionSpec(axes('batch', batch) or None, axes('sequence', length) or None, None)
  experts, hidden = placement.mesh_axes('experts'), placement.mesh_axes('mlp')
  inward, outward = PartitionSpec(experts or None, None, hidden
                                  or None), PartitionSpec(experts or None, hidden or None, None)
  # Each device adds to the sum; its gradient is the same for all of them and is not summed.
  parts = PartitionSpec((*experts, *hidden) or None, *tokens)
  rows = (*axes('batch', batch), *axes('sequence', length))
  operands, specs = zip(*(_operand(kernel, spec, x_BTD.dtype, placement.mesh, rows)
                                for kernel, spec in zip(kernels, [*[inward] * (len(kernels) - 1), outward])))

  def mix(x_BTD: Array, weight_BTC: Array, expert_BTC: Array, *operands: Any) -> Array:
    *into, out = (operand.on_part(_index(rows)) if isinstance(operand, Kernel) else reduction.carried(
      operand[0], operand[1][0]) for operand in operands)
    out = out.on_part(_index(hidden)) if isinstance(out, Kernel) else out  # it reads a part of the hidden units
    return _mix(activation, experts, x_BTD, weight_BTC, expert_BTC, *into, out)[None]

  run = jax.shard_map(mix, mesh=placement.mesh, out_specs=parts, in_specs=(tokens, tokens, tokens, *specs),
                      check_vma=False)
  return jnp.sum(run(x_BTD, weight_BTC, expert_BTC, *operands), axis=0)


def _operand(kernel: Any, spec: PartitionSpec, dtype: Any, mesh: sharding.AnyMesh, rows: tuple[str,
                                                                                               ...]) -> tuple[Any, Any]:
  """What devices get of the kernels of experts, and how it lies: a `Kernel`, or what `genjax.reduction.carriers`
  gives."""
  if isinstance(kernel, Kernel):
    kernel = jax.tree.map(reduction.plain, kernel, is_leaf=reduction.is_unreduced).astype(dtype)
    return kernel, kernel.layout(spec)
  return reduction.carriers(kernel, dtype,
                            math.prod(mesh.shape[axis] for axis in rows)), (spec, PartitionSpec(rows or None, *spec))


def _index(axes: tuple[str, ...]) -> Array:
  """The number of this device along mesh axes; 0 for none."""
  return jax.lax.axis_index(axes) if axes else jnp.int32(0)


def _mix(activation: Activation, axes: tuple[str, ...], x_BTD: Array, weight_BTC: Array, expert_BTC: Array,
         *kernels: Array | Kernel) -> Array:
  """The weighted sum of what the chosen experts make of each token.

  Args:
    activation: see `Experts`.
    axes: mesh axes over which experts are split.
    x_BTD, weight_BTC, expert_BTC: tokens, their weights and choices.
    kernels: up, gate if there is one, and down, of the experts that are here.
  """
  inward, down_EMD = kernels[:-1], kernels[-1]
  choices, experts = expert_BTC.shape[-1], down_EMD.shape[0]
  expert_R = expert_BTC.reshape(-1)
  if axes:
    expert_R = expert_R - experts * jax.lax.axis_index(axes)
    expert_R = jnp.where((expert_R >= 0) & (expert_R < experts), expert_R, experts)  # those of other devices come last
  order_R = jnp.argsort(expert_R)
  rank_R = jnp.argsort(order_R)
  size_E = jnp.sum(expert_R[:, None] == jnp.arange(experts), axis=0, dtype=jnp.int32)
  # Products leave rows of no group open, and so do their gradients: they are masked on the way in and out.
  kept = (lambda rows, here_R: jnp.where(here_R[:, None], rows, 0)) if axes else (lambda rows, here_R: rows)
  x_RD = _permute(jnp.repeat(x_BTD.reshape(-1, x_BTD.shape[-1]), choices, axis=0), order_R, rank_R)
  x_RD = kept(x_RD, jnp.arange(len(order_R)) < jnp.sum(size_E))
  grouped = lambda rows, kernel, dimensions: _product(rows.astype(x_BTD.dtype), kernel, size_E)
  up_RM, *gate_RM = (_multiply(x_RD, kernel, grouped) for kernel in inward)
  h_RM = activation(gate_RM[0]) * up_RM if gate_RM else activation(up_RM)
  y_RD = kept(_permute(_multiply(h_RM, down_EMD, grouped), rank_R, order_R), expert_R < experts)
  return jnp.einsum('btcd,btc->btd', y_RD.reshape(*expert_BTC.shape, -1), weight_BTC.astype(y_RD.dtype))


# x in an order; the gradient is that of the inverse, a gather where autodiff would scatter.
_permute = derivatives.define(lambda x_RD, order_R, inverse_R: x_RD[order_R],
                              lambda x_RD, order_R, inverse_R: (x_RD[order_R], (order_R, inverse_R)),
                              lambda saved, tangents: tangents[0][saved[0]],
                              lambda saved, gradient_RD: (gradient_RD[saved[1]], None, None))


def _rows_by_kernels(x_RD: Array, kernel_EDM: Array, size_E: Array) -> Array:
  """Rows R D times the kernel E D M of their group: `size_E` counts the rows of the groups, which follow each other; R
  M.

  Of a longer type, a kernel is read in that of the rows, and its gradient has its own.
  """
  return jax.lax.ragged_dot(x_RD, kernel_EDM.astype(x_RD.dtype), size_E)


def _product_derivative(saved: tuple[Array, Array, Array], tangents: tuple[Array | None, ...]) -> Array:
  x_RD, kernel_EDM, size_E = saved
  return derivatives.along(lambda x_RD, kernel_EDM: _rows_by_kernels(x_RD, kernel_EDM, size_E), (x_RD, kernel_EDM),
                           tangents[:2])


def _product_backward(saved: tuple[Array, Array, Array], gradient_RM: Array):
  x_RD, kernel_EDM, size_E = saved
  across = jax.lax.RaggedDotDimensionNumbers((((1,), (2,)), ((), ())), [0], [0])
  x_gradient_RD = jax.lax.ragged_dot_general(gradient_RM, kernel_EDM.astype(x_RD.dtype), size_E, across)
  rows = next((rows for rows in ROWS if len(x_RD) % rows == 0), 0)
  # Too narrow for blocks, such as the matrices of adapters
  if sharding.platform() != 'cpu' and min(kernel_EDM.shape[1:]) < LANES:
    return x_gradient_RD, _narrow_gradient(x_RD, gradient_RM, size_E).astype(kernel_EDM.dtype), None
  # Where XLA has no kernel for these products and would compute each of them E times
  if sharding.platform() == 'tpu' and rows:
    blocks = rows, *(min(side, SIDE) for side in kernel_EDM.shape[1:])
    return x_gradient_RD, tgmm(x_RD.T, gradient_RM, size_E, kernel_EDM.dtype, blocks,
                               num_actual_groups=len(kernel_EDM)), None
  down = jax.lax.RaggedDotDimensionNumbers((((0,), (0,)), ((), ())), [0], [])
  kernel_gradient_EDM = jax.lax.ragged_dot_general(x_RD, gradient_RM, size_E, down,
                                                   preferred_element_type=kernel_EDM.dtype)
  return x_gradient_RD, kernel_gradient_EDM, None


def _narrow_gradient(x_RD: Array, gradient_RM: Array, size_E: Array) -> Array:
  """The gradient of kernels E D M in float32 as one product, of the wider of both with the narrower once for each
  expert."""
  end_E, row_R1 = jnp.cumsum(size_E), jnp.arange(len(x_RD))[:, None]
  own_RE = (row_R1 >= end_E - size_E) & (row_R1 < end_E)
  spread = lambda rows: jnp.where(own_RE[:, :, None], rows[:, None], 0)
  formula, *operands = (('rd,rem->edm', x_RD, spread(gradient_RM)) if x_RD.shape[1] > gradient_RM.shape[1] else
                        ('red,rm->edm', spread(x_RD), gradient_RM))
  return jnp.einsum(formula, *operands, preferred_element_type=jnp.float32)


_product = derivatives.define(
  _rows_by_kernels, lambda x_RD, kernel_EDM, size_E:
  (_rows_by_kernels(x_RD, kernel_EDM, size_E), (x_RD, kernel_EDM, size_E)), _product_derivative, _product_backward)
