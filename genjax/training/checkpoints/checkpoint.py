"""Checkpoints by Orbax: written in the background, committed atomically; keeps the newest n and the best one.

A checkpoint holds the training state, the description of the run as JSON (config, versions, data), and the checksums of
its files, which are verified before reading.
"""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import logging
import math
import pathlib
import shutil
from typing import Any, TypeVar

from etils import epath
import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from genjax import distributed
from genjax.training.checkpoints import integrity
from genjax.training.optimization import directions
from genjax.training.state import TrainState
from genjax.types import StorageError, UserError

# Files in which Orbax notes the commit: they change at the commit, after the checksums.
_COMMIT_FILES = ('_CHECKPOINT_METADATA', 'commit_success.txt')
_PIECE_BYTES = 2**22  # bytes
# Orbax warns about every checkpoint without OCDBT.
logging.getLogger('absl').addFilter(lambda record: 'Skipping merge of OCDBT' not in record.getMessage())

T = TypeVar('T')


class Checkpoints:
  """The checkpoints of one run, in `directory`/<step>.

  Args:
    directory: folder; created when the first checkpoint is saved.
    keep: number of newest checkpoints to keep.
    best: name of an evaluation metric; the checkpoint with its best value is kept too. '' for none. A checkpoint whose
      metric is NaN or infinite is never the best.
    mode: 'min' or 'max': which value is the best.
    asynchronous: write in the background while training continues.
    at_once: limits the bytes of arrays that are written at a time (at least the largest array), to save memory; every
      piece then has its own file. 0 writes all arrays at once to few files, which is fastest.

  Raises:
    UserError: the mode is unknown, or keep < 1.
  """

  def __init__(self, directory: pathlib.Path, keep: int = 2, best: str = '', mode: str = 'min',
               asynchronous: bool = True, at_once: int = 0):
    if mode not in ('min', 'max'):
      raise UserError(f"config.checkpoint.mode must be 'min' or 'max', got {mode!r}")
    if keep < 1:
      raise UserError(f'config.checkpoint.keep must be at least 1, got {keep}')
    self._interim: set[int] = set()
    policies: list[Any] = [_Newest(keep, self._interim)]
    # Only finite metrics are saved; this handles checkpoints of other programs.
    worst = math.inf if mode == 'min' else -math.inf
    get_best = (lambda metrics: metrics[best] if _is_number(metrics[best]) else worst) if best else None
    if get_best:
      policies.append(checkpoint_managers.BestN(get_metric_fn=get_best, reverse=mode == 'min', n=1,
                                                keep_checkpoints_without_metrics=False))
    self.directory = directory
    self.best = best
    self.asynchronous = asynchronous
    self._writing: int | None = None  # the step that may still be written in the background
    # The policies decide what is kept. best_fn makes Orbax store the metric, so that a resumed run finds it. Saving is
    # always asynchronous, because Orbax only then calls back between writing and committing.
    self._options = ocp.CheckpointManagerOptions(
      preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies), best_fn=get_best, best_mode=mode,
      enable_async_checkpointing=True, async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
      create=True)
    # no OCDBT, which buffers up to 2 GiB
    limit: Any = {'save_concurrent_gb': at_once / 1e9, 'use_ocdbt': False}
    self._handlers = {'state': ocp.StandardCheckpointHandler(
      **limit), 'run': ocp.JsonCheckpointHandler()} if at_once else None
    self._piece = max(_PIECE_BYTES, at_once // 128) if at_once else None
    self._manager: ocp.CheckpointManager | None = None

  def save(self, step: int, state: TrainState, description: Mapping[str, Any], metrics: Mapping[str, float] | None,
           interim: bool = False) -> None:
    """Saves a state. Returns when the arrays are copied; the files are written in the background.

    Args:
      step: number of finished steps.
      state: the training state.
      description: JSON-able facts about the run.
      metrics: the evaluation at this step, if there was one.
      interim: whether this is an unscheduled checkpoint of a run that is being stopped. It does not count as one of the
        newest and is deleted when a later one is saved, so that a resumed run keeps the same checkpoints as an
        uninterrupted one.

    Raises:
      UserError: `metrics` lacks the metric for the best checkpoint.
      StorageError: this checkpoint, or the one before, could not be written.
    """
    self.wait()
    if self.best and metrics is not None and self.best not in metrics:
      raise UserError(f'config.checkpoint.best={self.best!r} is not an evaluation metric; they are {sorted(metrics)}')
    best = {self.best: metrics[self.best]} if self.best and metrics and _is_number(metrics[self.best]) else None
    pieces = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=self._piece), state)
    args = ocp.args.Composite(state=ocp.args.StandardSave(state, pieces),
                              run=ocp.args.JsonSave(dict(description)))  # type: ignore[call-arg]
    manager = self._open()
    self._writing = step
    self._interim.discard(step)
    if interim:
      self._interim.add(step)
    try:
      manager.save(step, args=args, metrics=best, custom_metadata={'checksums': integrity.NAME})
    except Exception as error:  # Orbax and its storage raise many types
      raise self._failed(error) from error
    if not self.asynchronous:
      self.wait()

  def check(self) -> None:
    """Raises errors of background writing. Cheap enough to call after every step.

    Raises:
      StorageError: the newest checkpoint could not be written.
    """
    if self._manager is not None and self._writing is not None and not self._manager.is_saving_in_progress():
      self.wait()

  def steps(self, interim: bool = True) -> list[int]:
    """Steps of the complete checkpoints, oldest first; without unscheduled ones if `interim` is False.

    All processes must call it; they get the answer of process 0.
    """
    # Opening creates the folder, and Orbax then waits for all processes. So all of them open it, or none.
    if not distributed.broadcast(self.directory.exists(), 'whether there are checkpoints'):
      return []
    return distributed.broadcast([step for step in self._complete() if interim or step not in self._interim],
                                 'steps of checkpoints')

  def best_step(self) -> int:
    """The step of the checkpoint with the best metric.

    All processes must call it; they get the answer of process 0.

    Raises:
      UserError: this run does not keep its best checkpoint, or none has been evaluated yet.
    """
    steps = self.steps()
    if not self.best:
      raise UserError(
        f'{self.directory} has no best checkpoint: the run was trained without config.checkpoint.best, the name of an '
        f'evaluation metric; name one of the steps {steps}')
    best = distributed.broadcast(self._best() if steps else None, 'step of the best checkpoint')
    if best is None:
      raise UserError(
        f'no checkpoint in {self.directory} has the metric {self.best!r} yet; there are {steps} (NaN and infinity do '
        'not count)')
    return best

  def _best(self) -> int | None:
    best = self._open().best_step()
    measured = None if best is None else self._open().metrics(best)
    return best if measured and _is_number(measured[self.best]) else None

  def _complete(self) -> list[int]:
    """Steps of the complete checkpoints, as this process sees them."""
    return sorted(self._open().all_steps()) if self.directory.exists() else []

  def restore(self, target: TrainState, report: Callable[[str], None], step: int | None = None,
              before: int | None = None) -> TrainState | None:
    """Restores the newest readable state, or the one of `step`.

    Args:
      target: the state as `jax.ShapeDtypeStruct`s with shardings. The arrays get this layout, whatever mesh wrote them.
      report: called with a line about each checkpoint that is skipped because it cannot be read.
      step: restore exactly this checkpoint.
      before: restore the newest scheduled checkpoint (see `save`) before this step.

    Returns:
      The state, or None when there is no checkpoint.

    Raises:
      UserError: there are checkpoints but none can be read; or `step` is not among them.
    """
    steps = self.steps()
    self._report_unfinished(steps, report)
    if step is not None:
      if step not in steps:
        raise UserError(f'no checkpoint of step {step} in {self.directory}; there are {steps}')
      steps = [step]
    if before is not None:
      steps = [candidate for candidate in self.steps(interim=False) if candidate < before]
    args = ocp.args.Composite(state=ocp.args.StandardRestore(target))  # type: ignore[call-arg]
    return self._first_readable(steps, lambda candidate: self._open().restore(candidate, args=args)['state'], report)

  def load(self, report: Callable[[str], None], step: int | None = None,
           parts: Sequence[str] = ('params', 'mutable', 'ema')) -> tuple[int, dict[str, Any]]:
    """Loads parts of the newest readable checkpoint, or of the one of `step`, from any model and devices.

    Args:
      report, step: see `restore`.
      parts: fields of `TrainState` to read. 'params' are the parameters for evaluation, see `TrainState.evaluated`.

    Returns:
      The step, and a dict from part to nested dicts of NumPy arrays.

    Raises:
      UserError: there is no checkpoint, none can be read, or there is none of `step`.
    """
    steps = self.steps()
    self._report_unfinished(steps, report)
    if not steps or step is not None and step not in steps:
      raise UserError(
        f'no checkpoint{"" if step is None else f" of step {step}"} in {self.directory}; there are {steps}')

    def read(candidate: int) -> tuple[int, dict[str, Any]]:
      folder = (self.directory / str(candidate) / 'state').absolute()
      with contextlib.closing(ocp.PyTreeCheckpointHandler()) as handler:
        saved: Any = handler.metadata(epath.Path(folder))
        tree = {name: part for name, part in saved.tree.items() if name in parts}
        averages = directions.averages(saved.tree.get('opt'))
        if 'params' in parts and 'opt' not in parts and jax.tree.leaves(averages):
          tree['opt'] = averages
        how = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        args = ocp.args.PyTreeRestore(item=tree, restore_args=how, partial_restore=True)  # type: ignore[call-arg]
        found = handler.restore(epath.Path(folder), args=args)
      if 'params' in parts:
        kept = found.get('opt', {})
        found['params'] = {group: jax.tree.map(np.asarray, directions.evaluated(kept.get(group), params))
                           for group, params in found['params'].items()}
      return candidate, {name: part for name, part in found.items() if name in parts}

    return self._first_readable(steps if step is None else [step], read, report)

  def description(self, step: int) -> dict[str, Any]:
    """The description that was saved with the checkpoint of `step`."""
    args = ocp.args.Composite(run=ocp.args.JsonRestore())  # type: ignore[call-arg]
    return self._open().restore(step, args=args)['run']

  def _first_readable(self, steps: Sequence[int], read: Callable[[int], Any], report: Callable[[str], None]) -> Any:
    """Returns `read(step)` for the newest step with intact files; None without steps."""
    failures = []
    for candidate in reversed(steps):
      folder, result, failure = self.directory / str(candidate), None, ''
      try:
        damage = integrity.problems(folder) if distributed.is_first() else []  # one process reads every file
        if damage is None and integrity.NAME in (folder / _COMMIT_FILES[0]).read_text():
          damage = [f'{integrity.NAME} is missing']
        if damage is None:
          report(f'checkpoint {folder} has no {integrity.NAME} and is read without being verified')
        elif damage:
          more = f' and {len(damage) - 3} more' if len(damage) > 3 else ''
          failure = f'step {candidate}: {"; ".join(damage[:3])}{more}'
      except Exception as error:
        failure = _told(candidate, error)
      # If one process cannot read a checkpoint, none uses it. Reading waits for all processes, so they agree before and
      # after it.
      unread = _all_said(failure, 'checked')
      if not unread:
        try:
          result = read(candidate)
        except Exception as error:  # Orbax raises many types of errors for damaged files
          failure = _told(candidate, error)
        unread = _all_said(failure, 'restored')
      if not unread:
        return result
      failures.append(unread[0])
      report(f'checkpoint {folder} cannot be read and is skipped ({failures[-1]})')
    if failures:
      raise UserError(
        f'no checkpoint in {self.directory} can be read: {"; ".join(failures)}. Restore the folder from a copy, or '
        'start with a new --workdir')
    return None

  def discard_after(self, step: int) -> None:
    """Removes unreadable checkpoints newer than `step` and unfinished ones, which would block saving.

    `step` -1 removes all of them; use it if no checkpoint could be restored.
    """
    steps = self.steps()
    for newer in [candidate for candidate in steps if candidate > step]:
      self._open().delete(newer)
      self._interim.discard(newer)
    if distributed.is_first():
      for entry in self._unfinished(steps):
        shutil.rmtree(entry)
    distributed.barrier('checkpoints are cleared')

  def wait(self) -> None:
    """Blocks until everything is written.

    Raises:
      StorageError: it could not be written.
    """
    if self._manager is None or self._writing is None:
      return
    try:
      self._manager.wait_until_finished()
      folder = self.directory / str(self._writing)
      if distributed.is_first():
        integrity.write(folder, {'interim': self._writing in self._interim}, only=_COMMIT_FILES)
      self._writing = None
    except Exception as error:  # Orbax and its storage raise many types
      raise self._failed(error) from error

  def close(self) -> None:
    """Waits and releases the threads.

    Raises:
      StorageError: see `wait`.
    """
    if self._manager is not None:
      try:
        self.wait()
      finally:
        manager, self._manager = self._manager, None
        manager.close()

  def _open(self) -> ocp.CheckpointManager:
    if self._manager is None:
      self._manager = ocp.CheckpointManager(self.directory.absolute(), options=self._options,
                                            item_handlers=self._handlers)
      self._interim.update(step for step in self._manager.all_steps()
                           if integrity.note(self.directory / str(step)).get('interim', False))
    return self._manager

  def _seal(self) -> None:
    """Called between writing and committing: adds the checksums to the checkpoint."""
    if self._writing is None or not distributed.is_first():
      return
    final = self.directory / str(self._writing)
    folders = [final] if final.exists() else sorted(self.directory.glob(f'{self._writing}.*'),
                                                    key=lambda path: path.stat().st_mtime)
    integrity.write(folders[-1], {'interim': self._writing in self._interim}, without=_COMMIT_FILES)

  def _failed(self, error: Exception) -> StorageError:
    """Makes the error for a checkpoint that could not be written."""
    step, self._writing = self._writing, None
    reason = (str(error).splitlines() or [''])[0][:1000]
    free = shutil.disk_usage(self.directory if self.directory.exists() else self.directory.parent).free
    complete = [kept for kept in self._complete() if kept != step]
    return StorageError(
      f'the checkpoint of step {step} could not be written to {self.directory} ({type(error).__name__}: {reason}); '
      f'{free / 2**20:.0f} MiB are free there. '
      + (f'The last good checkpoint is step {complete[-1]}. ' if complete else 'There is no checkpoint yet. ')
      + 'Make room, or make the disk writable, and run the same command to go on')

  def _report_unfinished(self, steps: Sequence[int], report: Callable[[str], None]) -> None:
    """Reports checkpoints that were unfinished when the run ended; Orbax does not list them."""
    for entry in self._unfinished(steps):
      report(f'checkpoint {entry} was not finished and is ignored')

  def _unfinished(self, steps: Sequence[int]) -> list[pathlib.Path]:
    complete = {str(step) for step in steps}
    entries = sorted(self.directory.iterdir()) if self.directory.exists() else []
    return [entry for entry in entries
            if entry.is_dir() and entry.name not in complete and entry.name.split('.')[0].isdigit()]


class _Newest:
  """Orbax policy that keeps the newest `keep` scheduled checkpoints and unscheduled ones after them."""

  def __init__(self, keep: int, interim: set[int]):
    self.keep, self.interim = keep, interim

  def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
    """Returns whether to keep each checkpoint, oldest first."""
    regular = [info.step for info in checkpoints if info.step not in self.interim]
    kept, newest = set(regular[-self.keep:]), regular[-1] if regular else -1
    return [info.step in kept or info.step in self.interim and info.step > newest for info in checkpoints]


def _is_number(value: Any) -> bool:
  return value is not None and math.isfinite(value)


def _told(step: int, error: Exception) -> str:
  return f'step {step}: {type(error).__name__}: {(str(error).splitlines() or [""])[0][:200]}'


def _all_said(failure: str, name: str) -> list[str]:
  """The failures of all processes."""
  return [text for text in distributed.gather(failure, name) if text]


def abstract(shapes: T, shardings: T) -> T:
  """Joins shapes and layouts in one tree, the target of `restore`."""
  return jax.tree.map(lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes,
                      shardings)
