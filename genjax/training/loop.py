"""The one training loop. Hooks log, evaluate, sample and save; the loop only steps."""

from collections.abc import Sequence
from typing import Protocol

from genjax.training.run import Run
from genjax.training.step import Metrics


class Hook(Protocol):
  """Something that happens around steps. Each hook decides by itself at which steps it acts."""

  def start(self, run: Run) -> None:
    """Before the first step of this process."""

  def before_step(self, run: Run, columns: dict) -> None:
    """With the batch of the next step, on the host."""

  def after_step(self, run: Run, metrics: Metrics) -> None:
    """After step number `run.step`; the metrics may still be computing."""

  def end(self, run: Run) -> None:
    """After the last step."""

  def close(self) -> None:
    """Always, also after an error: release what is open, keep what is complete."""


def train(run: Run, hooks: Sequence[Hook]) -> None:
  """Trains until `run.settings.steps` steps are finished.

  The batch of a step is a function of (seed, step), so a run that starts at a restored step continues exactly.

  Args:
    run: with its state set, by `Run.initialise` or `Run.restore`.
    hooks: called in order.

  Raises:
    NonFiniteError: a loss, gradient or parameter is not finite.
  """
  try:
    for hook in hooks:
      hook.start(run)
    if run.step < run.settings.steps:
      for columns in run.experiment.train.iterate(run.step, run.rows(run.settings.batch_size)):
        for hook in hooks:
          hook.before_step(run, columns)
        metrics = run.train_step(columns)
        for hook in hooks:
          hook.after_step(run, metrics)
        if run.step >= run.settings.steps:
          break
    run.check_finite()
    for hook in hooks:
      hook.end(run)
  finally:
    for hook in hooks:
      hook.close()
