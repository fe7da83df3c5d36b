"""Mixture of experts: a router sends each token to a few of several MLPs (Shazeer et al. 2017). No capacity limit.

Suffixes: B batch, T tokens, D width, M hidden units, E experts, C choices of a token, N tokens in a row, R = N C routed
  rows.

Only the chosen experts compute a token. The C copies of each token are sorted by expert, and `jax.lax.ragged_dot`
multiplies each group of rows by one matrix. On TPUs that costs R D M multiply-adds per matrix, C times those of one
MLP. On other platforms XLA may compute E masked products instead, which cost as much as computing every expert for
every token, E / C times more. On a mesh that splits experts, every device sorts all rows of its tokens and multiplies
the rows of its own experts; a sum over devices combines the results. No token is dropped, so each device needs memory
for all R rows.
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
TPU_BLOCK_ROWS = (512, 128)  # block sizes of the TPU kernel along rows; it uses the first one that divides them
MAX_TPU_BLOCK_SIDE = 1024
LANES = 128  # smallest block size along the other axes


class Experts(nnx.Module):
  """The MLPs and their router: y = sum over the chosen e of w_e down_e(activation(gate_e x) * up_e x).

  The router is a float32 softmax over all experts. w are its C largest values, divided by their sum (Mixtral, Jiang et
  al. 2024).

  Args:
    width, mlp_width: D, M.
    experts, choices: number of experts E, and of experts per token C.
    activation: of the hidden units.
    gated: False uses activation(up_e x) only.
    dtype: compute type; parameters are float32.
    kernel_init, out_init: initializers of the kernels into (also of the router) and out of the hidden units.

  Raises:
    ValueError: `choices` is not between 1 and the number of experts.
  """

  reads_unreduced = True

  def __init__(self, width: int, mlp_width: int, experts: int, choices: int, *, activation: Activation,
               gated: bool = True, dtype: Any = jnp.float32, kernel_init: Any, out_init: Any, rngs: nnx.Rngs):
    if not 1 <= choices <= experts:
      raise ValueError(f'a token needs between 1 and all {experts} experts, got {choices}')
    self.choices, self.activation, self.dtype = choices, activation, dtype
    self.router = Linear(width, experts, use_bias=False, dtype=dtype, kernel_init=kernel_init, rngs=rngs)
    # Each expert is initialized on its own, because an initializer depends on the shape of the kernel.
    stacked = lambda init, *shape: nnx.Param(
      jax.vmap(lambda key: init(key, shape, jnp.float32))(jax.random.split(rngs.params(), experts)))
    self.up_kernel = stacked(kernel_init, width, mlp_width)
    self.gate_kernel = stacked(kernel_init, width, mlp_width) if gated else None
    self.down_kernel = stacked(out_init, mlp_width, width)

  def __call__(self, x_BTD: Array, weights_BT: Array | None = None, key: Key | None = None) -> tuple[Array, Array]:
    """Returns (y_BTD, load), with the load for `balance`. Tokens count by their weights (default 1). Ignores `key`."""
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
  """The load-balancing loss E sum_e f_e P_e (Fedus et al. 2021, eq. 4 to 6). It is C for a uniform load.

  f is the share of tokens that chose an expert (they sum to C), and P is its mean router probability. Both are over the
  tokens of all layers whose loads were added, as in Mixtral's published code. Gradients flow through P.
  """
  chosen_E, probability_E, total_E = load
  total_E = jnp.maximum(total_E, 1e-12)
  return load.shape[1] * jnp.sum(chosen_E / total_E * (probability_E / total_E))


def _load(probability_BTE: Array, expert_BTC: Array, weights_BT: Array | None) -> Array:
  """Sums over tokens, 3 E: how many chose each expert, the experts' probabilities, and the number of tokens."""
  weights_BT = jnp.ones(expert_BTC.shape[:2]) if weights_BT is None else weights_BT
  experts = probability_BTE.shape[-1]
  chosen_E = jnp.einsum('bt,btce->e', weights_BT, jax.nn.one_hot(expert_BTC, experts))
  probability_E = jnp.einsum('bt,bte->e', weights_BT, probability_BTE)
  return jnp.stack([chosen_E, probability_E, jnp.broadcast_to(jnp.sum(weights_BT), (experts,))])


def _multiply(x: Array, kernel: Array | Kernel, multiply: Multiply) -> Array:
  """Multiplies the last axis of x with a matrix, or by `multiply` with one of several matrices."""
  dimensions = (((x.ndim - 1,), (0,)), ((), ()))
  return kernel.product(x, dimensions, multiply) if isinstance(kernel, Kernel) else multiply(x, kernel, dimensions)


def _spread(activation: Activation, x_BTD: Array, weight_BTC: Array, expert_BTC: Array, *kernels: Any) -> Array:
  """Computes `_mix`. On a mesh each device does so for its own tokens, experts and hidden units."""
  placement = sharding.active()
  if placement is None:
    return _mix(activation, (), x_BTD, weight_BTC, expert_BTC, *(kernel.astype(x_BTD.dtype) for kernel in kernels))
  batch, length = x_BTD.shape[:2]
  axes = lambda logical, size: placement.mesh_axes(logical) if size % placement.shards(logical) == 0 else ()
  tokens = PartitionSpec(axes('batch', batch) or None, axes('sequence', length) or None, None)
  experts, hidden = placement.mesh_axes('experts'), placement.mesh_axes('mlp')
  inward, outward = PartitionSpec(experts or None, None, hidden
                                  or None), PartitionSpec(experts or None, hidden or None, None)
  # Each device adds its share of the sum. The gradient of the sum is equal on all devices and is not summed.
  parts = PartitionSpec((*experts, *hidden) or None, *tokens)
  rows = (*axes('batch', batch), *axes('sequence', length))
  operands, specs = zip(*(_operand(kernel, spec, x_BTD.dtype, placement.mesh, rows)
                                for kernel, spec in zip(kernels, [*[inward] * (len(kernels) - 1), outward])))

  def mix(x_BTD: Array, weight_BTC: Array, expert_BTC: Array, *operands: Any) -> Array:
    *into, out = (operand.on_part(_index(rows)) if isinstance(operand, Kernel) else reduction.carried(
      operand[0], operand[1][0]) for operand in operands)
    out = out.on_part(_index(hidden)) if isinstance(out, Kernel) else out  # only part of the hidden units
    return _mix(activation, experts, x_BTD, weight_BTC, expert_BTC, *into, out)[None]

  run = jax.shard_map(mix, mesh=placement.mesh, out_specs=parts, in_specs=(tokens, tokens, tokens, *specs),
                      check_vma=False)
  return jnp.sum(run(x_BTD, weight_BTC, expert_BTC, *operands), axis=0)


def _operand(kernel: Any, spec: PartitionSpec, dtype: Any, mesh: sharding.AnyMesh, rows: tuple[str,
                                                                                               ...]) -> tuple[Any, Any]:
  """An operand for `shard_map` and its layout: a `Kernel`, or the result of `genjax.reduction.carriers`."""
  if isinstance(kernel, Kernel):
    kernel = jax.tree.map(reduction.plain, kernel, is_leaf=reduction.is_unreduced).astype(dtype)
    return kernel, kernel.layout(spec)
  return reduction.carriers(kernel, dtype,
                            math.prod(mesh.shape[axis] for axis in rows)), (spec, PartitionSpec(rows or None, *spec))


def _index(axes: tuple[str, ...]) -> Array:
  """The index of this device along mesh axes; 0 without axes."""
  return jax.lax.axis_index(axes) if axes else jnp.int32(0)


def _mix(activation: Activation, axes: tuple[str, ...], x_BTD: Array, weight_BTC: Array, expert_BTC: Array,
         *kernels: Array | Kernel) -> Array:
  """The weighted sum of the outputs of the chosen experts for each token.

  Args:
    activation: see `Experts`.
    axes: mesh axes over which experts are split.
    x_BTD, weight_BTC, expert_BTC: tokens, their weights and choices.
    kernels: up, optionally gate, and down of the experts on this device.
  """
  inward, down_EMD = kernels[:-1], kernels[-1]
  choices, experts = expert_BTC.shape[-1], down_EMD.shape[0]
  expert_R = expert_BTC.reshape(-1)
  if axes:
    expert_R = expert_R - experts * jax.lax.axis_index(axes)
    expert_R = jnp.where((expert_R >= 0) & (expert_R < experts), expert_R, experts)  # other devices' rows are last
  order_R = jnp.argsort(expert_R)
  rank_R = jnp.argsort(order_R)
  size_E = jnp.sum(expert_R[:, None] == jnp.arange(experts), axis=0, dtype=jnp.int32)
  # `ragged_dot` leaves rows outside all groups undefined, in gradients too, so they are masked before and after.
  kept = (lambda rows, here_R: jnp.where(here_R[:, None], rows, 0)) if axes else (lambda rows, here_R: rows)
  x_RD = _permute(jnp.repeat(x_BTD.reshape(-1, x_BTD.shape[-1]), choices, axis=0), order_R, rank_R)
  x_RD = kept(x_RD, jnp.arange(len(order_R)) < jnp.sum(size_E))
  grouped = lambda rows, kernel, dimensions: _product(rows.astype(x_BTD.dtype), kernel, size_E)
  up_RM, *gate_RM = (_multiply(x_RD, kernel, grouped) for kernel in inward)
  h_RM = activation(gate_RM[0]) * up_RM if gate_RM else activation(up_RM)
  y_RD = kept(_permute(_multiply(h_RM, down_EMD, grouped), rank_R, order_R), expert_R < experts)
  return jnp.einsum('btcd,btc->btd', y_RD.reshape(*expert_BTC.shape, -1), weight_BTC.astype(y_RD.dtype))


# Reorders rows. The gradient is a gather by the inverse order, where autodiff would scatter.
_permute = derivatives.define(lambda x_RD, order_R, inverse_R: x_RD[order_R],
                              lambda x_RD, order_R, inverse_R: (x_RD[order_R], (order_R, inverse_R)),
                              lambda saved, tangents: tangents[0][saved[0]],
                              lambda saved, gradient_RD: (gradient_RD[saved[1]], None, None))


def _rows_by_kernels(x_RD: Array, kernel_EDM: Array, size_E: Array) -> Array:
  """Multiplies rows R D, sorted in groups of `size_E` rows, by the kernel of their group (E D M) to R M.

  A kernel of a wider dtype is cast to that of the rows; its gradient keeps the dtype of the kernel.
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
  rows = next((rows for rows in TPU_BLOCK_ROWS if len(x_RD) % rows == 0), 0)
  # too narrow for the blocks of the TPU kernel, e.g. the matrices of adapters
  if sharding.platform() != 'cpu' and min(kernel_EDM.shape[1:]) < LANES:
    return x_gradient_RD, _narrow_gradient(x_RD, gradient_RM, size_E).astype(kernel_EDM.dtype), None
  # without this kernel XLA would compute each product E times
  if sharding.platform() == 'tpu' and rows:
    blocks = rows, *(min(side, MAX_TPU_BLOCK_SIDE) for side in kernel_EDM.shape[1:])
    return x_gradient_RD, tgmm(x_RD.T, gradient_RM, size_E, kernel_EDM.dtype, blocks,
                               num_actual_groups=len(kernel_EDM)), None
  down = jax.lax.RaggedDotDimensionNumbers((((0,), (0,)), ((), ())), [0], [])
  kernel_gradient_EDM = jax.lax.ragged_dot_general(x_RD, gradient_RM, size_E, down,
                                                   preferred_element_type=kernel_EDM.dtype)
  return x_gradient_RD, kernel_gradient_EDM, None


def _narrow_gradient(x_RD: Array, gradient_RM: Array, size_E: Array) -> Array:
  """The float32 gradient of narrow kernels E D M as one product, with the narrower operand repeated per expert."""
  end_E, row_R1 = jnp.cumsum(size_E), jnp.arange(len(x_RD))[:, None]
  own_RE = (row_R1 >= end_E - size_E) & (row_R1 < end_E)
  spread = lambda rows: jnp.where(own_RE[:, :, None], rows[:, None], 0)
  formula, *operands = (('rd,rem->edm', x_RD, spread(gradient_RM)) if x_RD.shape[1] > gradient_RM.shape[1] else
                        ('red,rm->edm', spread(x_RD), gradient_RM))
  return jnp.einsum(formula, *operands, preferred_element_type=jnp.float32)


_product = derivatives.define(
  _rows_by_kernels, lambda x_RD, kernel_EDM, size_E:
  (_rows_by_kernels(x_RD, kernel_EDM, size_E), (x_RD, kernel_EDM, size_E)), _product_derivative, _product_backward)
