"""A run: an experiment placed on a mesh. Steps it, evaluates it and samples from it; knows no model family."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
import math
from typing import Any

import jax
import numpy as np

from genjax import sharding
from genjax.objectives import base
from genjax.training import averages, calls, drawing, scoring
from genjax.training import step as step_lib
from genjax.training.experiment import Columns, Experiment
from genjax.training.monitoring import allocator
from genjax.training.monitoring.clock import Clock
from genjax.training.program import Program
from genjax.training.progress import Progress
from genjax.training.settings import Settings
from genjax.training.state import TrainState
from genjax.types import Params


class Run:
  """An experiment on a mesh. Making one checks everything that can be checked without computing.

  Attributes:
    experiment, settings: as given.
    program: what is compiled for the mesh, see `genjax.training.program`.
    mesh, phases, target: those of the program.
    state: the training state; set by `initialise` or `restore`.
    step: finished steps, on the host.
    evaluation: the newest held-out metrics and the step that they belong to.
    clock: where the time goes.
    reached: steps that an earlier process had finished; until then steps are run again, and their time counts as lost.
    skipped: steps of this process whose update was skipped.
    rollbacks: [step restored, step with a number that is not finite], one for each time the run was rolled back.
    hooks: those of the loop that trains it.

  Raises:
    UserError: see `genjax.training.program.Program`.
  """

  state: TrainState
  hooks: Sequence[Any] = ()

  def __init__(self, experiment: Experiment, settings: Settings, devices: Sequence[Any] | None = None,
               clock: Clock | None = None):
    """Lays the experiment out on `devices`: by default all that are present, or those of a topology, to compile for it
    only."""
    self.experiment, self.settings = experiment, settings
    self.clock = clock or Clock()
    self.program = Program(experiment, settings, devices)
    self.mesh, self.phases, self.target = self.program.mesh, self.program.phases, self.program.target
    self._progress = Progress(settings, self.phases)
    self._checked = False
    self._compiled: set[tuple[Any, ...]] = set()
    self.step = self.reached = 0
    self.rollbacks: list[list[int]] = []
    self.evaluation: tuple[int, dict[str, float]] | None = None

  @property
  def skipped(self) -> int:
    """Steps of this process whose update was skipped."""
    return self._progress.skipped

  @property
  def frozen(self) -> Params:
    """Frozen parameters, placed like trained ones."""
    return self.program.frozen

  @property
  def frozen_target(self) -> Params:
    """Frozen parameters as shapes with layouts."""
    return self.program.frozen_target

  @property
  def batch_shards(self) -> int:
    """Into how many parts the mesh splits a batch."""
    return sharding.batch_shards(self.mesh)

  def batch_target(self) -> dict[str, jax.ShapeDtypeStruct]:
    """A training batch as shapes with layouts."""
    return self.program.batch_target()

  def heldout_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
    """A held-out batch as shapes."""
    return self.program.heldout_shapes()

  def evaluation_names(self) -> set[str]:
    """What `evaluate` will give, found without computing."""
    return self.program.evaluation_names()

  def lower_step(self, due: tuple[str, ...] | None = None) -> jax.stages.Lowered:
    """The function that `train_step` calls, lowered for the devices of the mesh, which need not be present.

    Args:
      due: names of the phases that run; by default all of them, the costliest step there is.
    """
    return self.program.lower_step(due)

  def initialise(self) -> None:
    """Sets the state before the first step."""
    self.state = self.program.initial_state()
    self.step = 0

  def restore(self, state: TrainState) -> None:
    """Continues from a state that a checkpoint gave."""
    self.state = state
    self.step = self.clock.step = int(state.step)

  def roll_back(self, state: TrainState, step: int) -> None:
    """Goes on after `step` with an earlier state: the steps in between count as done, so their batches are not used
    again."""
    self.rollbacks.append([int(state.step), step])
    self._progress.forget()
    self.restore(dataclasses.replace(state, step=sharding.put_tree(np.int32(step), self.target.step.sharding)))

  def rows(self, batch_size: int) -> slice | np.ndarray:
    """Rows of the global batch that this process loads."""
    return sharding.local_rows(self.mesh, batch_size)

  def params(self, averaged: bool | str) -> Params:
    """Trained parameters as they are used.

    Args:
      averaged: whether averaged ones are used where there are any; or the name of an average, which stands in for the
        one that is evaluated by default in the groups that have it.

    Raises:
      UserError: no group has an average of that name.
    """
    if isinstance(averaged, str):
      chosen = averages.named(self.experiment.ema, averaged)
      return {**self.state.averaged(), **{group: self.state.ema[key] for group, key in chosen.items()}}
    return self.state.averaged() if averaged else self.state.evaluated()

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
      if not self._checked or self.experiment.cut or self.experiment.shapes:
        self.experiment.check_columns(columns)
        self._checked = True
    due, count = base.due(self.phases, self.step), len(batches)
    program = due, tuple(column.shape for column in batches[0].values())
    with self.clock.section('lost' if self.step < self.reached else 'step',
                            '' if program in self._compiled else 'compile'):
      if self.settings.steps_per_call == 1:
        self.state, metrics = self.program.step(self.state, self.frozen, sharding.put_batch(batches[0], self.mesh), due)
        entries = [metrics]
      else:
        stacked = sharding.put_batch(calls.stack(batches, self.settings.steps_per_call), self.mesh, axis=1)
        self.state, metrics = self.program.steps(self.state, self.frozen, stacked, due, np.int32(count))
        entries = calls.split(metrics, count)
      self._compiled.add(program)
      self._progress.add(self.step + 1, entries)
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
    self._progress.check(behind)
    if not behind:
      self._progress.check_state(self.step, lambda: bool(self.program.is_finite(self.state)))

  def step_flops(self, due: tuple[str, ...] | None = None, columns: Columns | None = None) -> int:
    """Analytic FLOPs, over all devices, of a step with the phases `due`; by default of the next call of `train_step`.

    Args:
      due: names of phases.
      columns: the batch, whose rows may be shorter than those of the experiment's `example`; without it they are as
        long.
    """
    return self.program.step_flops(base.due(self.phases, self.step) if due is None else due, columns or {})

  def sizes(self) -> dict[str, Any]:
    """'parameters': group -> how many are trained; 'frozen_parameters'; 'step_flops': of the first step, in which
    all phases run."""
    count = lambda tree: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
    return {'parameters': {group: count(tree) for group, tree in self.target.params.items()},
            'frozen_parameters': count(self.frozen_target),
            'step_flops': self.step_flops(base.due(self.phases, 0))}

  def evaluate(self, averaged: bool | str = True, max_batches: int = 0) -> dict[str, float]:
    """Means of the objective's per-example values over the held-out split.

    Args:
      averaged: see `params`.
      max_batches: stop after so many batches; 0 is the whole split.

    Returns:
      name -> mean, weighted by the entry 'weight' if the objective gives one; 'examples' counts the examples.
    """
    return scoring.means(sums for sums, _ in scoring.batches(self, averaged, max_batches))

  def scores(self, averaged: bool | str = True) -> tuple[dict[str, float], Columns]:
    """What `evaluate` gives, and, from the same pass, the values of each example: name -> array in the order of the
    split."""
    scored = list(scoring.batches(self, averaged, max_batches=0))
    return scoring.means(sums for sums, _ in scored), scoring.values(values for _, values in scored)

  def conditions(self, num: int, given: Mapping[str, np.ndarray] | None = None, start: int = 0) -> Columns:
    """Rows of all conditions: those given, and the experiment's defaults for the others, from row `start` on. A default
    may need data that a run lacks."""
    return drawing.rows(self.experiment.conditions, num, given, start)

  def sample(self, num: int, seed: int, conditions: Mapping[str, np.ndarray] | None = None, averaged: bool | str = True,
             chunk: int = 256, start: int = 0) -> Columns:
    """Samples; row i is a function of (seed, start + i) and its conditions, whatever the chunk.

    Args:
      num: how many, N.
      seed: of the noise.
      conditions: name -> N rows; the experiment's defaults stand in for missing ones.
      averaged: see `params`.
      chunk: how many are computed at once.
      start: of a longer draw, the first row that is drawn here. Texts are as long as the longest of these rows.

    Returns:
      name -> N rows: what the objective generates, and the conditions.
    """
    return drawing.joined(drawing.chunks(self, self.program.sample, num, seed, conditions, averaged, chunk, start))

  def sample_parts(self, num: int, seed: int, conditions: Mapping[str, np.ndarray] | None = None,
                   averaged: bool | str = True, size: int = drawing.PART, chunk: int = 256,
                   start: int = 0) -> Iterator[Columns]:
    """What `sample` gives, in parts of at most `size` rows that are drawn when they are asked for."""
    return drawing.cut(
      drawing.chunks(self, self.program.sample, num, seed, conditions, averaged, chunk, start), size)

  def stream(self, seed: int, conditions: Mapping[str, np.ndarray], emit: Callable[[Any, Any], None],
             averaged: bool | str = True) -> Columns:
    """Row 0 of `sample`, handed out piece by piece as it is drawn.

    Args:
      seed, conditions, averaged: as for `sample`.
      emit: called with (index, pieces of one row), see `genjax.objectives.base.Objective`.

    Raises:
      UserError: see `check_stream`.
    """
    self.check_stream()
    return drawing.joined(drawing.chunks(self, drawing.telling(self, emit), 1, seed, conditions, averaged, chunk=1))

  def check_stream(self) -> None:
    """Checks that `stream` can be called.

    Raises:
      UserError: the experiment does not generate piece by piece, or several devices take part.
    """
    drawing.check_stream(self)

  def preview(self) -> Columns:
    """What the experiment shows beside samples, from averaged parameters and the first held-out batch."""
    return drawing.preview(self)
