"""A run: an experiment placed on a mesh. Steps it, evaluates it and samples from it; knows no model family."""

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genjax import checks, distributed, reduction, sharding
from genjax.objectives import base
from genjax.training import calls, keys, stopping
from genjax.training import state as state_lib
from genjax.training import step as step_lib
from genjax.training.checkpoints import checkpoint
from genjax.training.experiment import Columns, Experiment
from genjax.training.monitoring import allocator, flops
from genjax.training.monitoring.clock import Clock
from genjax.training.settings import Settings
from genjax.training.state import TrainState
from genjax.types import NonFiniteError, Params, UserError


class Run:
  """An experiment on a mesh. Making one checks everything that can be checked without computing.

  Attributes:
    experiment, settings, mesh: as given.
    phases: the phases of the objective.
    target: the state as shapes with layouts.
    state: the training state; set by `initialise` or `restore`.
    step: finished steps, on the host.
    evaluation: the newest held-out metrics and the step that they belong to.
    clock: where the time goes.
    reached: steps that an earlier process had finished; until then steps are run again, and their time counts as lost.
    skipped: steps of this process whose update was skipped.
    rollbacks: [step restored, step with a number that is not finite], one for each time the run was rolled back.
    hooks: those of the loop that trains it.

  Raises:
    UserError: see `genjax.sharding` and `genjax.objectives.base.check_groups`; among them a layer whose arrays the mesh
      does not divide.
  """

  state: TrainState
  hooks: Sequence[Any] = ()

  def __init__(self, experiment: Experiment, settings: Settings, devices: Sequence[Any] | None = None,
               clock: Clock | None = None):
    """Lays the experiment out on `devices`: by default all that are present, or those of a topology, to compile for it
    only."""
    self.experiment, self.settings = experiment, settings
    self.clock = clock or Clock()
    self.mesh = sharding.make_mesh(settings.mesh, devices)
    sharding.check_batch(self.mesh, settings.batch_size, settings.microbatches)
    objective = experiment.objective
    self.phases = objective.phases()
    variables = jax.eval_shape(objective.init, state_lib.init_key(settings.seed), experiment.frozen)
    base.check_groups(self.phases, variables.params, experiment.optimizers, experiment.ema)
    self._create = functools.partial(state_lib.create, objective, experiment.optimizers, experiment.ema, settings.seed)
    shapes = jax.eval_shape(self._create, experiment.frozen)
    layout = state_lib.shardings(shapes, experiment.optimizers, self.mesh, experiment.axes, settings.rules)
    self.target = checkpoint.abstract(shapes, layout)
    self._layout = layout
    everywhere = sharding.replicated(self.mesh)
    under = functools.partial(sharding.under, self.mesh, settings.rules)  # whoever traces it, with the mesh of this run
    self._step = under(reduction.sums_in(settings.reduce)(step_lib.make_step(
      objective, experiment.optimizers, experiment.ema, settings.seed, settings.microbatches,
      skip_nonfinite=settings.nonfinite == 'skip', layout=layout.params)))
    if self.mesh.size > sharding.batch_shards(self.mesh):
      # Axes beside the batch's may not divide what a network computes: found by tracing, which costs nothing but a
      # second.
      due = tuple(phase.name for phase in self.phases)
      batch = experiment.batch_shapes(settings.batch_size)
      jax.eval_shape(lambda state, frozen, batch: self._step(state, frozen, batch, due), self.target, experiment.frozen,
                     batch)
    # Without out_shardings the second call would see other layouts than the first and compile again.
    step = jax.jit(self._step, static_argnums=3, donate_argnums=0, out_shardings=(layout, everywhere))
    self._jit_step = distributed.compiled_together(step, 'the step')
    steps = jax.jit(calls.looped(self._step), static_argnums=3, donate_argnums=0, out_shardings=(layout, everywhere))
    self._jit_steps = distributed.compiled_together(steps, 'the steps of a call')
    evaluate, sample = (
      jax.jit(under(function), out_shardings=everywhere) for function in (self._evaluate_batch, objective.sample))
    self._jit_evaluate = distributed.compiled_together(evaluate, 'evaluation')
    self._jit_sample = distributed.compiled_together(sample, 'sampling')
    preview = jax.jit(under(experiment.preview), out_shardings=everywhere) if experiment.preview else None
    self._jit_preview = distributed.compiled_together(preview, 'the preview') if preview else None
    self._jit_finite = distributed.compiled_together(jax.jit(_all_finite, out_shardings=everywhere),
                                                     'the check of the state')
    self._jit_keys = jax.jit(jax.vmap(jax.random.fold_in, in_axes=(None, 0)),
                             out_shardings=sharding.batch_sharding(self.mesh))
    self._flops: dict[tuple[Any, ...], int] = {}
    self._pending: collections.deque[tuple[int, step_lib.Metrics]] = collections.deque()
    self._checked = False
    self._compiled: set[tuple[Any, ...]] = set()
    self._skipped_in_a_row = 0
    self.step = self.reached = self.skipped = 0
    self.rollbacks: list[list[int]] = []
    self.evaluation: tuple[int, dict[str, float]] | None = None

  @functools.cached_property
  def frozen(self) -> Params:
    """Frozen parameters, placed like trained ones."""
    return sharding.put_tree(self.experiment.frozen, jax.tree.map(lambda leaf: leaf.sharding, self.frozen_target))

  @functools.cached_property
  def frozen_target(self) -> Params:
    """Frozen parameters as shapes with layouts."""
    return state_lib.frozen_target(self.experiment.frozen, self.mesh, self.experiment.axes, self.settings.rules)

  def batch_target(self) -> dict[str, jax.ShapeDtypeStruct]:
    """A training batch as shapes with layouts."""
    shapes, place = self.experiment.batch_shapes(self.settings.batch_size), sharding.batch_sharding(self.mesh)
    return {name: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=place) for name, shape in shapes.items()}

  def lower_step(self, due: tuple[str, ...] | None = None) -> jax.stages.Lowered:
    """The function that `train_step` calls, lowered for the devices of the mesh, which need not be present.

    Args:
      due: names of the phases that run; by default all of them, the costliest step there is.
    """
    due = tuple(phase.name for phase in self.phases) if due is None else due
    return self._jit_step.lower(self.target, self.frozen_target, self.batch_target(), due)

  def initialise(self) -> None:
    """Sets the state before the first step."""
    create = distributed.compiled_together(jax.jit(self._create, out_shardings=self._layout), 'the initial state')
    self.state = create(self.frozen)
    self.step = 0

  def restore(self, state: TrainState) -> None:
    """Continues from a state that a checkpoint gave."""
    self.state = state
    self.step = self.clock.step = int(state.step)

  def roll_back(self, state: TrainState, step: int) -> None:
    """Goes on after `step` with an earlier state: the steps in between count as done, so their batches are not used
    again."""
    self.rollbacks.append([int(state.step), step])
    self._pending.clear()
    self.restore(dataclasses.replace(state, step=sharding.put_tree(np.int32(step), self.target.step.sharding)))

  def rows(self, batch_size: int) -> slice | np.ndarray:
    """Rows of the global batch that this process loads."""
    return sharding.local_rows(self.mesh, batch_size)

  def train_step(self, columns: Columns) -> step_lib.Metrics:
    """One step on one batch (rows of this process); returns metrics that may still be computing."""
    return self.train_steps([columns])[0]

  def train_steps(self, batches: Sequence[Columns]) -> list[step_lib.Metrics]:
    """One call of as many steps as there are batches (rows of this process), at most `settings.steps_per_call`; see
    `genjax.training.calls`.

    Returns:
      The metrics of each step, which may still be computing.
    """
    for columns in batches:
      if not self._checked or self.experiment.cut:
        self._check_columns(columns)
        self._checked = True
    due, count = base.due(self.phases, self.step), len(batches)
    program = due, tuple(column.shape for column in batches[0].values())
    with self.clock.section('lost' if self.step < self.reached else 'step',
                            '' if program in self._compiled else 'compile'):
      if self.settings.steps_per_call == 1:
        self.state, metrics = self._jit_step(self.state, self.frozen, sharding.put_batch(batches[0], self.mesh), due)
        entries = [metrics]
      else:
        stacked = sharding.put_batch(calls.stack(batches, self.settings.steps_per_call), self.mesh, axis=1)
        self.state, metrics = self._jit_steps(self.state, self.frozen, stacked, due, np.int32(count))
        entries = calls.split(metrics, count)
      self._compiled.add(program)
      self._pending.extend(zip(range(self.step + 1, self.step + count + 1), entries))
      self.step += count
      self.check_finite(behind=count)
      on_cpu = sharding.platform() == 'cpu'
      if self.clock.first_step is None or on_cpu:  # there, two steps at a time would hold the temporary arrays of both
        jax.block_until_ready(metrics)
      if on_cpu:
        allocator.return_excess()
    self.clock.finished_step(self.step)
    return entries

  def steps_of_next_call(self, reads: Callable[[int], bool]) -> int:
    """See `genjax.training.calls.length`."""
    return calls.length(self.settings, self.phases, self.step, reads, self.reached)

  def check_finite(self, behind: int = 0) -> None:
    """Checks the metrics of the steps that have not been checked, except the newest `behind`.

    Waiting for the newest step would idle the accelerator between steps; what is saved is checked with `behind` 0.

    Raises:
      NonFiniteError: a loss or gradient norm is NaN or infinite (where such steps are skipped: more often in a row than
        the limit), or, with `behind` 0, an entry of the state is.
    """
    while len(self._pending) > behind:
      step, metrics = self._pending.popleft()
      bad = next(((phase, quantity, value)
                  for phase in base.due(self.phases, step - 1)
                  for quantity in ('loss', 'gradient_norm')
                  if not math.isfinite(value := float(metrics[f'{phase}/{quantity}']))), None)
      self._skipped_in_a_row = 0 if bad is None else self._skipped_in_a_row + 1
      if bad is None:
        continue
      if self.settings.nonfinite != 'skip' or self._skipped_in_a_row > self.settings.nonfinite_limit:
        raise NonFiniteError(step, *bad)
      self.skipped += 1
    if not behind and not bool(self._jit_finite(self.state)):
      raise NonFiniteError(self.step, ', '.join(base.due(self.phases, max(0, self.step - 1))),
                           'a parameter or optimizer entry', math.nan)

  def step_flops(self, due: tuple[str, ...] | None = None, columns: Columns | None = None) -> int:
    """Analytic FLOPs, over all devices, of a step with the phases `due`; by default of the next call of `train_step`.

    Args:
      due: names of phases.
      columns: the batch, whose rows may be shorter than those of the experiment's `example`; without it they are as
        long.
    """
    names = base.due(self.phases, self.step) if due is None else due
    shapes = self.experiment.batch_shapes(self.settings.batch_size)
    given = columns or {}
    for name in self.experiment.cut & given.keys():
      shapes[name] = jax.ShapeDtypeStruct((self.settings.batch_size, *given[name].shape[1:]), shapes[name].dtype)
    known = names, tuple(shape.shape for shape in shapes.values())
    if known not in self._flops:
      self._flops[known] = flops.count(self._step, self.target, self.experiment.frozen, shapes, names,
                                       static_argnums=(3,))
    return self._flops[known]

  def evaluation_names(self) -> set[str]:
    """What `evaluate` will give, found without computing."""
    context = self.target.context(self.experiment.frozen)
    evaluate = sharding.under(self.mesh, self.settings.rules, self.experiment.objective.evaluate)
    params = jax.eval_shape(TrainState.averaged, self.target)
    values = jax.eval_shape(evaluate, params, context, self.heldout_shapes(), jax.random.key(0))
    return set(values) - {'weight'}

  def heldout_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
    """A held-out batch as shapes."""
    size = self.experiment.heldout.batch_size
    return {**self.experiment.batch_shapes(size), 'mask': jax.ShapeDtypeStruct((size,), np.float32)}

  def _check_columns(self, columns: Columns) -> None:
    """The data gives what the builder announced."""
    announced = {name: (tuple(row.shape), np.dtype(row.dtype).name) for name, row in self.experiment.example.items()}
    given = {name: (column.shape[1:], column.dtype.name) for name, column in columns.items()}
    for name in self.experiment.cut & announced.keys() & given.keys():
      longest, length = announced[name][0][0], given[name][0][0]
      announced[name] = (min(longest, length), *announced[name][0][1:]), announced[name][1]
    if announced != given:
      raise UserError(
        f'the batches have columns {given} (shape of a row, dtype), but the experiment was built for {announced}; '
        'change config.data or the builder')

  def params(self, averaged: bool) -> Params:
    """Trained parameters as they are used, the averaged ones where there are any and they are asked for."""
    return self.state.averaged() if averaged else self.state.evaluated()

  def evaluate(self, averaged: bool = True, max_batches: int = 0) -> dict[str, float]:
    """Means of the objective's per-example values over the held-out split.

    Args:
      averaged: use averaged parameters.
      max_batches: stop after so many batches; 0 is the whole split.

    Returns:
      name -> mean, weighted by the entry 'weight' if the objective gives one; 'examples' counts the examples.
    """
    return self._means(sums for sums, _ in self._evaluated(averaged, max_batches))

  def scores(self, averaged: bool = True) -> tuple[dict[str, float], Columns]:
    """What `evaluate` gives, and, from the same pass, the values of each example: name -> array in the order of the
    split."""
    batches = list(self._evaluated(averaged, 0))
    means = self._means(sums for sums, _ in batches)
    names = [name for name in batches[0][1] if name != 'mask']
    return means, {name: np.concatenate([values[name][values['mask'] > 0] for _, values in batches]) for name in names}

  def _means(self, batches: Iterable[Columns]) -> dict[str, float]:
    """Sums of batches -> means over the split."""
    totals: dict[str, float] = collections.defaultdict(float)
    for sums in batches:
      for name, value in sums.items():
        totals[name] += float(value)
    examples, weight = totals.pop('examples', 0.0), totals.pop('weight', 0.0)
    if not weight:
      raise UserError('the held-out split gave no examples to evaluate on; look at config.data')
    return {**{name: total / weight for name, total in totals.items()}, 'examples': examples}

  def _evaluated(self, averaged: bool, max_batches: int) -> Iterator[tuple[Columns, Columns]]:
    """Sums and per-example values of each held-out batch."""
    key = keys.of(self.settings.seed, 'evaluation')
    params, context = self.params(averaged), self.state.context(self.frozen)
    data = self.experiment.heldout
    for index, columns in enumerate(data.epoch(self.rows(data.batch_size))):
      if max_batches and index == max_batches:
        return
      stopping.check()
      batch = sharding.put_batch(columns, self.mesh)
      yield jax.device_get(self._jit_evaluate(params, context, batch, jax.random.fold_in(key, index)))
      self.clock.beat()

  def _evaluate_batch(self, params: Params, context: base.Context, batch: Mapping[str, jax.Array], key: jax.Array):
    values = dict(self.experiment.objective.evaluate(params, context, batch, key))
    weight = values.pop('weight', jnp.ones_like(batch['mask'])) * batch['mask']
    # The padding of the last batch may hold anything, NaN included: it is chosen away, not multiplied away.
    sums = {name: jnp.sum(jnp.where(batch['mask'] > 0, value * weight, 0.0)) for name, value in values.items()}
    sums = {**sums, 'weight': jnp.sum(weight), 'examples': jnp.sum(batch['mask'])}
    return sums, {**values, 'mask': batch['mask']}

  def sample(self, num: int, seed: int, conditions: Mapping[str, np.ndarray] | None = None, averaged: bool = True,
             chunk: int = 256) -> Columns:
    """Samples; row i is a function of (seed, i) and its conditions, whatever the chunk.

    Args:
      num: how many, N.
      seed: of the noise.
      conditions: name -> N rows; the experiment's defaults stand in for missing ones.
      averaged: use averaged parameters.
      chunk: how many are computed at once.

    Returns:
      name -> N rows: what the objective generates, and the conditions.
    """
    if num < 1:
      raise UserError(f'the number of samples must be at least 1, got {num}')
    checks.seed('seed', seed)
    rows = self.conditions(num, conditions)
    chunk = -(-min(chunk, num) // self.batch_shards) * self.batch_shards
    params, context = self.params(averaged), self.state.context(self.frozen)
    seeds = keys.of(seed, 'sample', keys.ROWS)
    parts = []
    for start in range(0, num, chunk):
      stopping.check()
      take = np.minimum(np.arange(start, start + chunk), num - 1)  # the last chunk repeats its last row as padding
      mine = take[self.rows(chunk)]
      row_keys = self._jit_keys(seeds, sharding.put_batch({'row': mine.astype(np.int32)}, self.mesh)['row'])
      columns = sharding.put_batch({name: value[mine] for name, value in rows.items()}, self.mesh)
      sampled = jax.device_get(self._jit_sample(params, context, row_keys, columns))
      parts.append({name: np.asarray(value)[:num - start] for name, value in sampled.items()})
      self.clock.beat()
    return {**rows, **{name: np.concatenate([part[name] for part in parts]) for name in parts[0]}}

  def conditions(self, num: int, given: Mapping[str, np.ndarray] | None = None) -> Columns:
    """Rows of all conditions: those given, and the experiment's defaults for the others. A default may need data that a
    run lacks."""
    given = given or {}
    rows = {name: given[name] if name in given else condition.stack([condition.default(row) for row in range(num)])
            for name, condition in self.experiment.conditions.items()}
    return {**rows, **given}

  @property
  def batch_shards(self) -> int:
    """Into how many parts the mesh splits a batch."""
    return sharding.batch_shards(self.mesh)

  def stream(self, seed: int, conditions: Mapping[str, np.ndarray], emit: Callable[[Any, Any], None],
             averaged: bool = True) -> Columns:
    """Row 0 of `sample`, handed out piece by piece as it is drawn.

    Args:
      seed, conditions, averaged: as for `sample`.
      emit: called with (index, pieces of one row), see `genjax.objectives.base.Objective`.

    Raises:
      UserError: see `check_stream`.
    """
    self.check_stream()
    objective: Any = self.experiment.objective
    plain, telling = self._jit_sample, functools.partial(objective.sample, emit=emit)
    self._jit_sample = jax.jit(sharding.under(self.mesh, self.settings.rules, telling))
    try:
      return self.sample(1, seed, conditions, averaged)
    finally:
      self._jit_sample = plain

  def check_stream(self) -> None:
    """Checks that `stream` can be called.

    Raises:
      UserError: the experiment does not generate piece by piece, or several devices take part.
    """
    if not getattr(self.experiment.objective, 'emits', False):
      raise UserError('--stream shows a text while it grows, and this run generates none')
    if self.mesh.size > 1:
      raise UserError(f'--stream runs on one device, and config.mesh has {self.mesh.size}; sample without it')

  def preview(self) -> Columns:
    """What the experiment shows beside samples, from averaged parameters and the first held-out batch."""
    if self._jit_preview is None:
      return {}
    data = self.experiment.heldout
    batch = sharding.put_batch(next(data.epoch(self.rows(data.batch_size))), self.mesh)
    return jax.device_get(self._jit_preview(self.params(averaged=True), self.state.context(self.frozen), batch))


def _all_finite(state: TrainState) -> jax.Array:
  leaves = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
  return jnp.all(jnp.asarray([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))
