"""What a run compiles: the functions of an experiment on a mesh, and the layouts of what they take and give."""

from collections.abc import Mapping, Sequence
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genjax import distributed, reduction, sharding
from genjax.objectives import base
from genjax.training import calls, scoring
from genjax.training import state as state_lib
from genjax.training import step as step_lib
from genjax.training.checkpoints import checkpoint
from genjax.training.experiment import Columns, Experiment
from genjax.training.monitoring import flops
from genjax.training.settings import Settings
from genjax.training.state import TrainState
from genjax.types import Params


class Program:
  """The functions of an experiment for the devices of a mesh. Nothing is compiled before it is first called.

  Attributes:
    experiment, settings: as given.
    mesh: of the devices.
    phases: of the objective.
    target: the state as shapes with layouts.
    one_step: (state, frozen, batch, due) -> (state, metrics), neither compiled nor donating; `due` is static.
    step: the same, compiled; the state that it takes is gone afterwards.
    steps: several steps in one call, see `genjax.training.calls.looped`.
    evaluate: see `genjax.training.scoring.of_batch`.
    sample: `Objective.sample`.
    preview: `Experiment.preview`, or None.
    is_finite: state -> whether all of its entries are finite.
    row_keys: (key, numbers of rows) -> a key a row.

  Raises:
    UserError: see `genjax.sharding` and `genjax.objectives.base.check_groups`; among them a layer whose arrays the mesh
      does not divide.
  """

  def __init__(self, experiment: Experiment, settings: Settings, devices: Sequence[Any] | None = None):
    """Lays the experiment out on `devices`, by default all that are present."""
    self.experiment, self.settings = experiment, settings
    self.mesh = sharding.make_mesh(settings.mesh, devices)
    sharding.check_batch(self.mesh, settings.batch_size, settings.microbatches)
    objective = experiment.objective
    self.phases = objective.phases()
    variables = jax.eval_shape(objective.init, state_lib.init_key(settings.seed), experiment.frozen)
    base.check_groups(self.phases, variables.params, experiment.optimizers, experiment.ema)
    self._create = functools.partial(state_lib.create, objective, experiment.optimizers, experiment.ema, settings.seed)
    shapes = jax.eval_shape(self._create, experiment.frozen)
    self._layout = state_lib.shardings(shapes, experiment.optimizers, self.mesh, experiment.axes, settings.rules)
    self.target = checkpoint.abstract(shapes, self._layout)
    self.one_step = self.on_mesh(reduction.sums_in(settings.reduce)(step_lib.make_step(
      objective, experiment.optimizers, experiment.ema, settings.seed, settings.microbatches,
      skip_nonfinite=settings.nonfinite == 'skip', layout=self._layout.params)))
    if self.mesh.size > sharding.batch_shards(self.mesh):
      self._trace_step()
    self._make()
    self._flops: dict[tuple[Any, ...], int] = {}

  def on_mesh(self, function: Any) -> Any:
    """The function, traced with the mesh of this run whoever calls it."""
    return sharding.under(self.mesh, self.settings.rules, function)

  def _trace_step(self) -> None:
    """Axes beside the batch's may not divide what a network computes. Tracing finds that and costs a second."""
    due = tuple(phase.name for phase in self.phases)
    batch = self.experiment.batch_shapes(self.settings.batch_size)
    jax.eval_shape(lambda state, frozen, batch: self.one_step(state, frozen, batch, due), self.target,
                   self.experiment.frozen, batch)

  def _make(self) -> None:
    experiment, everywhere = self.experiment, sharding.replicated(self.mesh)
    together = distributed.compiled_together
    # Without out_shardings the second call would see other layouts than the first and compile again.
    trained = lambda function: jax.jit(function, static_argnums=3, donate_argnums=0,
                                       out_shardings=(self._layout, everywhere))
    self.step = together(trained(self.one_step), 'the step')
    self.steps = together(trained(calls.looped(self.one_step)), 'the steps of a call')
    given = lambda function, name: together(jax.jit(function, out_shardings=everywhere), name)
    self.evaluate = given(self.on_mesh(scoring.of_batch(experiment.objective.evaluate)), 'evaluation')
    self.sample = given(self.on_mesh(experiment.objective.sample), 'sampling')
    self.preview = given(self.on_mesh(experiment.preview), 'the preview') if experiment.preview else None
    self.is_finite = given(_all_finite, 'the check of the state')
    self.row_keys = jax.jit(jax.vmap(jax.random.fold_in, in_axes=(None, 0)),
                            out_shardings=sharding.batch_sharding(self.mesh))

  @functools.cached_property
  def frozen(self) -> Params:
    """Frozen parameters, placed like trained ones."""
    return sharding.put_tree(self.experiment.frozen, jax.tree.map(lambda leaf: leaf.sharding, self.frozen_target))

  @functools.cached_property
  def frozen_target(self) -> Params:
    """Frozen parameters as shapes with layouts."""
    return state_lib.frozen_target(self.experiment.frozen, self.mesh, self.experiment.axes, self.settings.rules)

  def initial_state(self) -> TrainState:
    """The state before the first step."""
    create = distributed.compiled_together(jax.jit(self._create, out_shardings=self._layout), 'the initial state')
    return create(self.frozen)

  def batch_target(self) -> dict[str, jax.ShapeDtypeStruct]:
    """A training batch as shapes with layouts."""
    shapes, place = self.experiment.batch_shapes(self.settings.batch_size), sharding.batch_sharding(self.mesh)
    return {name: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=place) for name, shape in shapes.items()}

  def heldout_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
    """A held-out batch as shapes."""
    size = self.experiment.heldout.batch_size
    return {**self.experiment.batch_shapes(size), 'mask': jax.ShapeDtypeStruct((size,), np.float32)}

  def lower_step(self, due: tuple[str, ...] | None) -> jax.stages.Lowered:
    """See `genjax.training.run.Run.lower_step`."""
    due = tuple(phase.name for phase in self.phases) if due is None else due
    return self.step.lower(self.target, self.frozen_target, self.batch_target(), due)

  def evaluation_names(self) -> set[str]:
    """What evaluation will give, found without computing."""
    evaluate = self.on_mesh(self.experiment.objective.evaluate)
    params = jax.eval_shape(TrainState.averaged, self.target)
    context = self.target.context(self.experiment.frozen)
    values = jax.eval_shape(evaluate, params, context, self.heldout_shapes(), jax.random.key(0))
    return set(values) - {'weight'}

  def step_flops(self, due: tuple[str, ...], columns: Columns | Mapping[str, Any]) -> int:
    """See `genjax.training.run.Run.step_flops`; each case is counted once."""
    shapes = self.experiment.batch_shapes(self.settings.batch_size)
    for name in (self.experiment.cut | self.experiment.shapes.keys()) & columns.keys():
      shapes[name] = jax.ShapeDtypeStruct((self.settings.batch_size, *columns[name].shape[1:]), shapes[name].dtype)
    known = due, tuple(shape.shape for shape in shapes.values())
    if known not in self._flops:
      self._flops[known] = flops.count(self.one_step, self.target, self.experiment.frozen, shapes, due,
                                       static_argnums=(3,))
    return self._flops[known]


def _all_finite(state: TrainState) -> jax.Array:
  leaves = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
  return jnp.all(jnp.asarray([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))
