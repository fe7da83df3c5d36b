"""Update directions: how an optimizer transforms gradients, before weight decay and the learning rate.

Each function here is one optimizer, and its keywords are the options that this optimizer takes.
"""

import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from genjax.types import Tree, leaf_name

KERNELS = r'(.*/)?(kernel|\w+_kernel)'
# paths of the first and last layers of this library's networks
END_LAYERS = (r'(.*/)?(embed|embedding|input|first|last|head|logits|output|project|(encoder|decoder)/out'
              r'|(layers|stages)/0)/.*')


def adam(*, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, b2_end: float = 0.0,
         b2_steps: int = 0) -> optax.GradientTransformation:
  """Adam (Kingma & Ba 2015).

  Args:
    b1: decay of the average of the gradient.
    b2: decay of the average of its square.
    eps: added to the root of that average.
    b2_end: b2 goes to this value by a cosine over b2_steps.
    b2_steps: updates after which b2_end is reached; 0 leaves b2 as it is.
  """
  return _changing_adam(b1, b2, eps, b2_end, b2_steps) if b2_steps else optax.scale_by_adam(b1, b2, eps)


def _changing_adam(b1: float, b2: float, eps: float, b2_end: float, b2_steps: int) -> optax.GradientTransformation:
  """Adam whose b2 changes. As in R3GAN the second moment is corrected as if b2 had been the present one all along."""

  def update(updates: Tree, state: Any, params: Tree = None) -> tuple[Tree, Any]:
    done = jnp.minimum(state.count.astype(jnp.float32) / b2_steps, 1.0)
    now = b2_end + (b2 - b2_end) * (0.5 + 0.5 * jnp.cos(jnp.pi * done))
    return optax.scale_by_adam(b1, now, eps).update(updates, state, params)

  return optax.GradientTransformation(optax.scale_by_adam(b1, b2, eps).init, update)


def sgd(*, momentum: float = 0.0) -> optax.GradientTransformation:
  """The gradient, or with momentum m the sum m * sum + gradient.

  Args:
    momentum: m; 0 for the gradient alone.
  """
  return optax.trace(momentum) if momentum else optax.identity()


def rmsprop(*, b2: float = 0.999, eps: float = 1e-8) -> optax.GradientTransformation:
  """The gradient over the root of its second moment, corrected at the start as Adam's is: Adam with b1 = 0.

  Args:
    b2: decay of the average of the gradient's square.
    eps: added to the root of that average.
  """
  return optax.scale_by_rms(b2, eps, eps_in_sqrt=False, bias_correction=True)


def lion(*, b1: float = 0.9, b2: float = 0.99) -> optax.GradientTransformation:
  """The sign of an interpolated momentum (Chen et al. 2023).

  Args:
    b1: weight of the momentum in the update; the gradient has the rest.
    b2: decay of the momentum.
  """
  return optax.scale_by_lion(b1, b2)


def adafactor(*, momentum: float = 0.0, eps: float = 1e-30, factor_from: int = 128) -> optax.GradientTransformation:
  """Adafactor (Shazeer & Stern 2018), with updates relative to the root mean square of each parameter.

  Args:
    momentum: decay of an average of the updates; 0 for none.
    eps: added to the square of the gradient.
    factor_from: the second moment of an array whose two largest axes have so many entries or more is kept as a product
      of two averages.
  """
  factored = optax.scale_by_factored_rms(min_dim_size_to_factor=factor_from, epsilon=eps)
  relative = (factored, optax.clip_by_block_rms(1.0), optax.scale_by_param_block_rms())
  return optax.chain(*relative, optax.ema(momentum, debias=False)) if momentum else optax.chain(*relative)


def sm3(*, momentum: float = 0.9, eps: float = 1e-8) -> optax.GradientTransformation:
  """SM3-II (Anil et al. 2019): one second moment for each place on each axis.

  Args:
    momentum: decay of the average of the updates.
    eps: added to the second moment.
  """
  inner = optax.scale_by_sm3(momentum, eps=eps)

  def update(updates: Tree, state: Any, params: Tree = None) -> tuple[Tree, Any]:
    new, state = inner.update(_with_axis(updates), state, params)
    return jax.tree.map(lambda value, like: value.reshape(like.shape), new, updates), state

  return optax.GradientTransformation(lambda params: inner.init(_with_axis(params)), update)


def _with_axis(tree: Tree) -> Tree:
  """Reshapes scalars to vectors, because SM3 needs axes."""
  return jax.tree.map(lambda leaf: leaf.reshape(leaf.shape or (1,)), tree)


def schedule_free(*, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> optax.GradientTransformation:
  """The direction of z in schedule-free AdamW (Defazio et al. 2024).

  Args:
    b1: weight of the average x in the point at which gradients are taken, see `averaging`.
    b2: decay of the average of the gradient's square.
    eps: added to the root of that average.
  """
  del b1
  return rmsprop(b2=b2, eps=eps)


def averaging(inner: optax.GradientTransformation, rate: optax.Schedule, b1: float) -> optax.GradientTransformation:
  """Schedule-free averaging of z: gradients are taken at y = (1 - b1) z + b1 x, and the average x is the result.

  `evaluated` computes x from y and the state.
  """
  # optax counts steps from 1 here, but from 0 in scale_by_schedule.
  return optax.contrib.schedule_free(inner, lambda count: rate(count - 1), b1=b1)


def muon(*, momentum: float = 0.95, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, rms: float = 0.2,
         matrices: str = KERNELS, ends: str = END_LAYERS) -> optax.GradientTransformation:
  """Muon (Jordan et al. 2024) for the matrices of a network, Adam for everything else.

  Five Newton-Schulz iterations replace the momentum by an approximation of the nearest matrix with orthonormal rows or
  columns.

  Args:
    momentum: decay of the momentum of the matrices.
    b1: decay of Adam's average of the gradient.
    b2: decay of Adam's average of its square.
    eps: added to the root of that average.
    rms: the update of a matrix I O is multiplied by rms * sqrt(max(I, O)), which gives it the root mean square that
      Adam's updates have, about 0.2, so that one learning rate and one weight decay serve both (Liu et al. 2025,
      Eq. 4). 0 multiplies by sqrt(max(1, O / I)) instead, as Jordan has it, which wants a learning rate of its own.
    matrices: regular expression of the paths of the kernels that are matrices.
    ends: regular expression of the paths of those among them that Adam has: the first and the last layers.
  """

  def dimensions(tree: Tree) -> Tree:
    return jax.tree_util.tree_map_with_path(lambda path, leaf: axes(leaf_name(path), leaf.ndim), tree)

  def labels(tree: Tree) -> Tree:
    return jax.tree_util.tree_map_with_path(
      lambda path, leaf: 'muon' if is_matrix(leaf_name(path), leaf.ndim, matrices, ends) else 'adam', tree)

  def by_shape(updates: Tree, params: Tree) -> Tree:
    size = lambda path, leaf: leaf * _factor(leaf_name(path), leaf.shape, rms)
    return jax.tree_util.tree_map_with_path(size, updates)

  orthogonal = optax.contrib.scale_by_muon(beta=momentum, weight_dimension_numbers=dimensions)
  matrix = optax.chain(orthogonal, optax.stateless(by_shape))
  return optax.partition({'muon': matrix, 'adam': adam(b1=b1, b2=b2, eps=eps)}, labels)


def is_matrix(name: str, rank: int, matrices: str = KERNELS, ends: str = END_LAYERS) -> bool:
  """Returns whether Muon trains a parameter."""
  return rank >= 2 and bool(re.fullmatch(matrices, name)) and not re.fullmatch(ends, name)


def axes(name: str, rank: int) -> optax.contrib.MuonDimensionNumbers:
  """The input and output axes of the matrices in a kernel; the other axes count matrices.

  Kernels are I O in a dense layer and L I O in a stack (attention has all heads on one axis), H W I O and L H W I O in
  convolutions, whose inputs are H W I, and E I O and L E I O in experts, whose names end in `_kernel`.
  """
  convolution = rank > 3 and not name.endswith('_kernel')
  return optax.contrib.MuonDimensionNumbers((rank - 4, rank - 3, rank - 2) if convolution else (rank - 2,), (rank - 1,))


def _factor(name: str, shape: tuple[int, ...], rms: float) -> float:
  """The factor that makes the size of an orthogonal update independent of the shape of its matrix."""
  numbers: Any = axes(name, len(shape))
  inputs, outputs = (math.prod(shape[axis] for axis in part) for part in (numbers.reduction_axis, numbers.output_axis))
  return rms * math.sqrt(max(inputs, outputs)) if rms else math.sqrt(max(1.0, outputs / inputs))


def evaluated(state: Any, params: Tree) -> Tree:
  """The parameters for evaluation: the average x of schedule-free training, else `params`.

  Args:
    state: the state of any optax transformation, or its nested dicts from a checkpoint.
    params: the parameters at which gradients are taken.
  """
  is_average = lambda node: _averages(node) is not None
  for node in jax.tree.leaves(state, is_leaf=is_average):
    found = _averages(node)
    if found:
      b1, z = found
      at = dict(jax.tree_util.tree_leaves_with_path(z))
      params = jax.tree_util.tree_map_with_path(
        lambda path, y, b1=b1, at=at: _x(y, at[path], b1) if path in at else y, params)
  return params


@jax.jit
def _x(y: Any, z: Any, b1: Any) -> Any:
  return (y - (1.0 - b1) * z) / b1


def _averages(node: Any) -> tuple[Any, Tree] | None:
  """b1 and z of a schedule-free state, else None."""
  if isinstance(node, optax.contrib.ScheduleFreeState):
    return node.b1, node.z
  if _is_saved_average(node):
    return node['b1'], node['z']
  return None


def _is_saved_average(node: Any) -> bool:
  return isinstance(node, dict) and {'b1', 'z'} <= set(node) <= set(optax.contrib.ScheduleFreeState._fields)


def averages(saved: Any) -> Any:
  """The parts of a checkpointed state (nested dicts and lists) that `evaluated` reads; None for the rest."""
  if _is_saved_average(saved):
    return {name: saved[name] for name in ('b1', 'z')}
  if isinstance(saved, dict):
    return {name: averages(node) for name, node in saved.items()}
  return [averages(node) for node in saved] if isinstance(saved, (list, tuple)) else None
