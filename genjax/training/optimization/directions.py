"""Directions of descent: what an optimizer makes of gradients, before weight decay and the learning rate.

Each function here is one optimizer, and its keywords are the options that this optimizer takes.
"""

import math
import re
from typing import Any

import jax
import optax
import optax.contrib

from genjax.types import Tree, leaf_name

KERNELS = r'(.*/)?(kernel|\w+_kernel)'
# The first and the last layers of the networks of this library.
ENDS = (r'(.*/)?(embed|embedding|input|first|last|head|logits|output|project|(encoder|decoder)/out|(layers|stages)/0)'
        r'/.*')


def adam(*, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> optax.GradientTransformation:
  """Adam (Kingma & Ba 2015).

  Args:
    b1: decay of the average of the gradient.
    b2: decay of the average of its square.
    eps: added to the root of that average.
  """
  return optax.scale_by_adam(b1, b2, eps)


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
  """Adafactor (Shazeer & Stern 2018), with steps relative to the root mean square of each parameter.

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
  """Scalars as vectors of one entry, since SM3 is defined by axes."""
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
  """Schedule-free learning around the updates of z: gradients are taken at y = (1 - b1) z + b1 x, and x is the result.

  `evaluated` gives x from y and the state.
  """
  # optax counts steps from 1 here, and from 0 where it scales by the rate.
  return optax.contrib.schedule_free(inner, lambda count: rate(count - 1), b1=b1)


def muon(*, momentum: float = 0.95, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, rms: float = 0.2,
         matrices: str = KERNELS, ends: str = ENDS) -> optax.GradientTransformation:
  """Muon (Jordan et al. 2024) for the matrices of a network, Adam for everything else.

  A momentum of the gradient is replaced by the nearest matrix with orthonormal rows or columns, nearly, by five
  Newton-Schulz iterations.

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


def is_matrix(name: str, rank: int, matrices: str = KERNELS, ends: str = ENDS) -> bool:
  """Whether Muon has a parameter."""
  return rank >= 2 and bool(re.fullmatch(matrices, name)) and not re.fullmatch(ends, name)


def axes(name: str, rank: int) -> optax.contrib.MuonDimensionNumbers:
  """The axes of a kernel that are the inputs and outputs of a matrix; the others count matrices.

  I O of a dense layer, L I O of a stack of them, also those of attention, whose outputs or inputs are all heads
  together; H W I O of a convolution and L H W I O of a stack, whose inputs are H W I; E I O and L E I O of experts,
  whose names end in `_kernel`.
  """
  convolution = rank > 3 and not name.endswith('_kernel')
  return optax.contrib.MuonDimensionNumbers((rank - 4, rank - 3, rank - 2) if convolution else (rank - 2,), (rank - 1,))


def _factor(name: str, shape: tuple[int, ...], rms: float) -> float:
  """What makes the size of an orthogonal update independent of the shape of its matrix."""
  numbers: Any = axes(name, len(shape))
  inputs, outputs = (math.prod(shape[axis] for axis in part) for part in (numbers.reduction_axis, numbers.output_axis))
  return rms * math.sqrt(max(inputs, outputs)) if rms else math.sqrt(max(1.0, outputs / inputs))


def evaluated(state: Any, params: Tree) -> Tree:
  """The parameters that training stands for: the x of schedule-free learning, else `params` themselves.

  Args:
    state: of any optax transformation, or the nested dicts that a checkpoint has in its place.
    params: where gradients are taken.
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
  """b1 and z of a schedule-free state; None of anything else."""
  if isinstance(node, optax.contrib.ScheduleFreeState):
    return node.b1, node.z
  if _is_saved_average(node):
    return node['b1'], node['z']
  return None


def _is_saved_average(node: Any) -> bool:
  return isinstance(node, dict) and {'b1', 'z'} <= set(node) <= set(optax.contrib.ScheduleFreeState._fields)


def averages(saved: Any) -> Any:
  """What `evaluated` reads of a state as a checkpoint has it, nested dicts and lists; None in the place of the rest."""
  if _is_saved_average(saved):
    return {name: saved[name] for name in ('b1', 'z')}
  if isinstance(saved, dict):
    return {name: averages(node) for name, node in saved.items()}
  return [averages(node) for node in saved] if isinstance(saved, (list, tuple)) else None
