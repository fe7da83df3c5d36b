"""The training state: exactly what a step donates, and exactly what a checkpoint holds."""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from genjax import sharding
from genjax.objectives.base import Context, Objective
from genjax.training import keys
from genjax.types import Array, Key, Params, Tree


@flax.struct.dataclass
class TrainState:
  """step: finished steps, int32 scalar. params, ema: group -> parameters. mutable: see `Variables`. opt: group -> state."""

  step: Array
  params: Params
  mutable: Tree
  opt: dict[str, Any]
  ema: Params

  def context(self, frozen: Params) -> Context:
    """What losses, evaluation and sampling may read."""
    return Context(step=self.step, mutable=self.mutable, ema=self.ema, frozen=frozen)

  def averaged(self) -> Params:
    """Parameters for evaluation and sampling: the averaged ones where a group has them."""
    return {**self.params, **self.ema}


def create(objective: Objective, optimizers: Mapping[str, optax.GradientTransformation], ema: Mapping[str, float],
           seed: int, frozen: Params) -> TrainState:
  """The state before the first step, a function of the seed. Traceable: `jax.eval_shape` gives its shapes."""
  variables = objective.init(init_key(seed), frozen)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=variables.params,
    mutable=variables.mutable,
    opt={group: optimizers[group].init(variables.params[group]) for group in variables.params},
    # A copy: a buffer that stands twice in a donated state cannot be donated.
    ema={group: jax.tree.map(jnp.copy, variables.params[group]) for group in ema},
  )


def init_key(seed: int) -> Key:
  """The key of the initial variables; see `genjax.training.keys`."""
  return keys.of(seed, 'init')


def shardings(shapes: TrainState, optimizers: Mapping[str, optax.GradientTransformation], mesh: sharding.AnyMesh,
              axes: Mapping[str, sharding.AxesTable], rules: Mapping[str, Any]) -> Any:
  """The layout of a state: optimizer state and averages lie where their parameters lie, the rest on every device.

  Args:
    shapes: the state as `jax.ShapeDtypeStruct`s.
    optimizers: group -> transformation.
    mesh: see `genjax.sharding.make_mesh`.
    axes: group -> table of logical axes.
    rules: logical axis -> mesh axis.

  Raises:
    UserError: see `genjax.sharding.param_shardings`.
  """
  everywhere = sharding.replicated(mesh)
  params = {group: sharding.param_shardings(tree, mesh, axes.get(group, ()), rules) for group, tree in shapes.params.items()}
  opt = {
    group: optax.tree_map_params(optimizers[group], lambda _, place: place, state, params[group],
                                 transform_non_params=lambda _: everywhere)
    for group, state in shapes.opt.items()
  }
  layout: Any = TrainState  # holds layouts in place of arrays
  return layout(step=everywhere, params=params, mutable=jax.tree.map(lambda _: everywhere, shapes.mutable), opt=opt,
                ema={group: params[group] for group in shapes.ema})


def frozen_target(frozen: Params, mesh: sharding.AnyMesh, axes: Mapping[str, sharding.AxesTable], rules: Mapping[str, Any]) -> Params:
  """Frozen parameters as shapes with layouts, placed like trained ones; see `shardings`."""
  shapes = jax.eval_shape(lambda tree: tree, frozen)
  return {group: jax.tree.map(lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), tree,
                              sharding.param_shardings(tree, mesh, axes.get(group, ()), rules))
          for group, tree in shapes.items()}
