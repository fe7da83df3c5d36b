"""The one training loop. Hooks log, evaluate, sample and save; the loop only steps."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from genjax.training import calls, stopping
from genjax.training.run import Run
from genjax.training.step import Metrics
from genjax.types import NonFiniteError


class Hook(Protocol):
  """Something that happens around steps. Each hook decides by itself at which steps it acts."""

  def start(self, run: Run) -> None:
    """Before the first step of this process."""

  def before_step(self, run: Run, columns: dict) -> None:
    """With the batch of the next step, on the host."""

  def after_step(self, run: Run, metrics: Metrics) -> None:
    """After step number `run.step`; the metrics may still be computing."""

  def reads(self, run: Run, step: int) -> bool:
    """Whether `after_step` reads the state or the time of exactly this step.

    Such a step ends a call of several (`config.steps_per_call`). A hook without this method is taken to read every
    step.
    """
    ...

  def end(self, run: Run) -> None:
    """After the last step."""

  # What was measured: see `genjax.training.hooks.Hook`. A hook may lack these three.

  def on_log(self, run: Run, step: int, values: Mapping[str, float]) -> None:
    """With what was logged: losses, learning rates, speed."""

  def on_evaluate(self, run: Run, step: int, values: Mapping[str, float]) -> None:
    """With held-out metrics."""

  def on_sample(self, run: Run, step: int, samples: Mapping[str, Any], pictures: Mapping[str, Any]) -> None:
    """With samples and how they are shown."""

  def recover(self, run: Run, error: NonFiniteError) -> bool:
    """After a number that is not finite; True if the run is set to go on from a good state."""
    ...

  def stop(self, run: Run) -> None:
    """The process is asked to stop, and `run.step` steps are finished: keep what would be lost."""

  def close(self) -> None:
    """Always, also after an error: release what is open, keep what is complete."""


def train(run: Run, hooks: Sequence[Hook]) -> None:
  """Trains until `run.settings.steps` steps are finished.

  The batch of a step is a function of (seed, step), so a run that starts at a restored step continues exactly.

  Args:
    run: with its state set, by `Run.initialise` or `Run.restore`.
    hooks: called in order.

  Raises:
    NonFiniteError: a loss, gradient or parameter is not finite, and no hook recovered.
    Stopped: the process was asked to stop; the hooks have saved the last finished step.
  """
  run.hooks = hooks
  try:
    with stopping.deferred():
      try:
        for hook in hooks:
          hook.start(run)
        while not _finish(run, hooks):
          pass
        for hook in hooks:
          hook.end(run)
      except stopping.Stopped as stopped:
        stopped.step = run.step
        for hook in hooks:
          hook.stop(run)
        raise
  finally:
    for hook in hooks:
      hook.close()


def _finish(run: Run, hooks: Sequence[Hook]) -> bool:
  """Runs the remaining steps; False if that met a number that is not finite and a hook recovered."""
  try:
    for batches in _calls(run, hooks):
      for columns in batches:
        for hook in hooks:
          hook.before_step(run, columns)
      first, entries = run.step, run.train_steps(batches)
      last = run.step
      try:
        for run.step, metrics in zip(range(first + 1, last + 1), entries):
          for hook in hooks:
            hook.after_step(run, metrics)
      finally:
        run.step = last  # the step of the state, whatever stopped a hook
    run.check_finite()
  except NonFiniteError as error:
    recovered = [hook.recover(run, error) for hook in hooks]
    if not any(recovered):
      raise
    return False
  return True


def _calls(run: Run, hooks: Sequence[Hook]) -> Iterator[list[dict]]:
  """The batches of the remaining steps, those of one call together."""
  batches, kept = _batches(run), []
  reads = lambda step: any(getattr(hook, 'reads', _always)(run, step) for hook in hooks)
  while run.step < run.settings.steps:
    count = run.steps_of_next_call(reads)
    while len(kept) < count:
      kept.append(next(batches))
    count = count if calls.same_shapes(kept[:count]) else 1
    call, kept = kept[:count], kept[count:]
    yield call


def _always(run: Run, step: int) -> bool:
  return True


def _batches(run: Run) -> Iterator[dict]:
  """The batches of the remaining steps. A process that is asked to stop stops here, also while it waits for data."""
  batches = None
  while True:
    with run.clock.section('data'), stopping.at_once():
      if batches is None:
        batches = iter(run.experiment.train.iterate(run.step, run.rows(run.settings.batch_size)))
      columns = next(batches)
    yield columns
