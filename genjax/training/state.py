"""The training state, which steps update in place (donate) and checkpoints store."""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from genjax import sharding
from genjax.objectives.base import Context, Objective
from genjax.training import averages, keys
from genjax.training.optimization import directions
from genjax.types import Array, Key, Params, Tree


@flax.struct.dataclass
class TrainState:
  """The training state.

  Attributes:
    step: number of finished steps, int32 scalar.
    params: group -> parameters.
    ema: group -> its average; 'GROUP@NAME' -> further ones, see `genjax.training.averages`.
    mutable: see `Variables`.
    opt: group -> optimizer state.
  """

  step: Array
  params: Params
  mutable: Tree
  opt: dict[str, Any]
  ema: Params

  def context(self, frozen: Params) -> Context:
    """The context for losses, evaluation and sampling."""
    return Context(step=self.step, mutable=self.mutable, ema=self.ema, frozen=frozen)

  def evaluated(self) -> Params:
    """The parameters for evaluation: `params`, or the averages of a schedule-free optimizer."""
    return {group: directions.evaluated(self.opt[group], tree) for group, tree in self.params.items()}

  def averaged(self) -> Params:
    """Parameters for evaluation and sampling, averaged for the groups that have averages."""
    return {**self.evaluated(), **averages.evaluated(self.ema)}


def create(objective: Objective, optimizers: Mapping[str, optax.GradientTransformation], ema: Mapping[str, Any],
           seed: int, frozen: Params) -> TrainState:
  """The initial state, a function of the seed. It can be traced, e.g. by `jax.eval_shape` for its shapes."""
  variables = objective.init(init_key(seed), frozen)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=variables.params,
    mutable=variables.mutable,
    opt={group: optimizers[group].init(variables.params[group]) for group in variables.params},
    # Copied, because a buffer cannot be in a donated state twice.
    ema={key: jax.tree.map(jnp.copy, variables.params[average.group]) for key, average in averages.parse(ema).items()},
  )


def init_key(seed: int) -> Key:
  """The key of the initial variables; see `genjax.training.keys`."""
  return keys.of(seed, 'init')


def shardings(shapes: TrainState, optimizers: Mapping[str, optax.GradientTransformation], mesh: sharding.AnyMesh,
              axes: Mapping[str, sharding.AxesTable], rules: Mapping[str, Any]) -> Any:
  """The layout of a state: averages and optimizer states like their parameters, the rest on every device.

  Optimizer states of another shape than the parameter (e.g. factored moments) are on every device too, unless they are
  large compared to the parameters: then they are split over the axis 'fsdp'.

  Args:
    shapes: the state as `jax.ShapeDtypeStruct`s.
    optimizers: group -> any optax transformation.
    mesh: see `genjax.sharding.make_mesh`.
    axes: group -> table of logical axes.
    rules: logical axis -> mesh axis.

  Raises:
    UserError: see `genjax.sharding.param_shardings`.
  """
  everywhere = sharding.replicated(mesh)
  params = {
    group: sharding.param_shardings(tree, mesh, axes.get(group, ()), rules) for group, tree in shapes.params.items()
  }
  opt = {group: _beside(shapes.opt[group], shapes.params[group], params[group], mesh) for group in optimizers}
  layout: Any = TrainState  # holds layouts in place of arrays
  return layout(step=everywhere, params=params, mutable=jax.tree.map(lambda _: everywhere, shapes.mutable), opt=opt,
                ema={key: params[averages.group_of(key)] for key in shapes.ema})


def _beside(state: Tree, params: Tree, places: Tree, mesh: sharding.AnyMesh) -> Tree:
  """The layout of an optimizer's state. The path of a leaf contains the path of its parameter."""
  known = {
    path: (leaf.shape, place)
    for (path, leaf), place in zip(jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(places))
  }

  def place(path: tuple, leaf: Any) -> Any:
    for start in range(len(path) + 1):
      for stop in range(len(path), start - 1, -1):
        shape, place = known.get(path[start:stop], (None, None))
        if shape == leaf.shape:
          return place
    return leaf

  mixed = jax.tree_util.tree_map_with_path(place, state)  # layouts, and shapes without one
  is_place = lambda leaf: isinstance(leaf, jax.sharding.Sharding)
  leaves, structure = jax.tree.flatten(mixed)
  others = iter(sharding.shape_shardings([leaf for leaf in leaves if not is_place(leaf)], mesh, beside=params))
  return jax.tree.unflatten(structure, [leaf if is_place(leaf) else next(others) for leaf in leaves])


def frozen_target(frozen: Params, mesh: sharding.AnyMesh, axes: Mapping[str, sharding.AxesTable],
                  rules: Mapping[str, Any]) -> Params:
  """Frozen parameters as shapes with layouts, placed like trained ones; see `shardings`."""
  shapes = jax.eval_shape(lambda tree: tree, frozen)
  return {group: jax.tree.map(lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), tree,
                              sharding.param_shardings(tree, mesh, axes.get(group, ()), rules))
          for group, tree in shapes.items()}
