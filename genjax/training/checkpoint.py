"""Checkpoints through Orbax: written in the background, committed atomically, the newest n and the best one kept.

A checkpoint holds the training state, and beside it, as JSON, the description of the run (config, versions, data).
"""

from collections.abc import Callable, Mapping
import pathlib
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from genjax.training.state import TrainState
from genjax.types import UserError

T = TypeVar('T')


class Checkpoints:
  """The checkpoints of one run, in `directory`/<step>.

  Args:
    directory: folder; made when the first checkpoint is saved.
    keep: how many of the newest to keep.
    best: name of an evaluation metric whose best checkpoint is kept too; '' for none.
    mode: 'min' or 'max', what is best.
    asynchronous: write in the background while training goes on.

  Raises:
    UserError: an unknown mode, or keep < 1.
  """

  def __init__(self, directory: pathlib.Path, keep: int = 2, best: str = '', mode: str = 'min', asynchronous: bool = True):
    if mode not in ('min', 'max'):
      raise UserError(f"config.checkpoint.mode must be 'min' or 'max', got {mode!r}")
    if keep < 1:
      raise UserError(f'config.checkpoint.keep must be at least 1, got {keep}')
    policies: list[Any] = [checkpoint_managers.LatestN(keep)]
    get_best = (lambda metrics: metrics[best]) if best else None
    if get_best:
      policies.append(checkpoint_managers.BestN(get_metric_fn=get_best, reverse=mode == 'min', n=1,
                                                keep_checkpoints_without_metrics=False))
    self.directory = directory
    self.best = best
    # The policies decide what is kept; best_fn makes Orbax write the metric to disk, where a resumed run finds it.
    self._options = ocp.CheckpointManagerOptions(
      preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies), best_fn=get_best, best_mode=mode,
      enable_async_checkpointing=asynchronous, create=True)
    self._manager: ocp.CheckpointManager | None = None

  def save(self, step: int, state: TrainState, description: Mapping[str, Any], metrics: Mapping[str, float] | None) -> None:
    """Saves a state; returns when the arrays are copied, while the files are still being written.

    Args:
      step: finished steps.
      state: the training state.
      description: JSON-able facts of the run.
      metrics: the evaluation at this step, if there was one.

    Raises:
      UserError: the metric that decides what is best is not among `metrics`.
    """
    if self.best and metrics is not None and self.best not in metrics:
      raise UserError(f'config.checkpoint.best={self.best!r} is not an evaluation metric; they are {sorted(metrics)}')
    best = {self.best: metrics[self.best]} if self.best and metrics else None
    args = ocp.args.Composite(state=ocp.args.StandardSave(state), run=ocp.args.JsonSave(dict(description)))  # type: ignore[call-arg]
    self._open().save(step, args=args, metrics=best)

  def steps(self) -> list[int]:
    """Steps of the complete checkpoints, oldest first."""
    return sorted(self._open().all_steps()) if self.directory.exists() else []

  def restore(self, target: TrainState, report: Callable[[str], None], step: int | None = None) -> TrainState | None:
    """The newest readable state, or the one of `step`.

    Args:
      target: the state as `jax.ShapeDtypeStruct`s with shardings; the arrays come back laid out like it, whatever mesh
        wrote them.
      report: called with a line about each checkpoint that is skipped because it cannot be read.
      step: restore exactly this one.

    Returns:
      The state, or None when there is no checkpoint.

    Raises:
      UserError: there are checkpoints, and none can be read; or `step` is not among them.
    """
    self._report_unfinished(report)
    steps = self.steps()
    if step is not None:
      if step not in steps:
        raise UserError(f'no checkpoint of step {step} in {self.directory}; there are {steps}')
      steps = [step]
    failures = []
    for candidate in reversed(steps):
      try:
        args = ocp.args.Composite(state=ocp.args.StandardRestore(target))  # type: ignore[call-arg]
        return self._open().restore(candidate, args=args)['state']
      except Exception as error:  # Orbax raises many types for damaged files
        failures.append(f'step {candidate}: {type(error).__name__}: {str(error).splitlines()[0][:200]}')
        report(f'checkpoint {self.directory / str(candidate)} cannot be read and is skipped ({failures[-1]})')
    if failures:
      raise UserError(f'no checkpoint in {self.directory} can be read: {"; ".join(failures)}. Restore the folder from a copy, or '
                      'start with a new --workdir')
    return None

  def discard_after(self, step: int) -> None:
    """Removes checkpoints newer than `step`: unreadable ones, which would stand in the way of saving that step again."""
    for newer in [candidate for candidate in self.steps() if candidate > step]:
      self._open().delete(newer)

  def wait(self) -> None:
    """Blocks until everything is written; raises what went wrong in the background."""
    if self._manager is not None:
      self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits and releases the threads."""
    if self._manager is not None:
      self._manager.close()
      self._manager = None

  def _open(self) -> ocp.CheckpointManager:
    if self._manager is None:
      self._manager = ocp.CheckpointManager(self.directory.absolute(), options=self._options)
    return self._manager

  def _report_unfinished(self, report: Callable[[str], None]) -> None:
    """Says which checkpoints were being written when the run ended; Orbax never lists them as complete."""
    if not self.directory.exists():
      return
    complete = {str(step) for step in self.steps()}
    for entry in sorted(self.directory.iterdir()):
      if entry.is_dir() and entry.name not in complete and entry.name.split('.')[0].isdigit():
        report(f'checkpoint {entry} was not finished and is ignored')


def abstract(shapes: T, shardings: T) -> T:
  """Shapes and layouts in one tree: what `restore` needs."""
  return jax.tree.map(lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes, shardings)
