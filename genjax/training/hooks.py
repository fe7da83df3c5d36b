"""Hooks of the loop: log, evaluate, sample, save, roll back, profile.

Each acts at steps divisible by its own `every`; 0 is never. A process that was stopped while it evaluated or sampled
had finished the step and saved it; so a hook that is due at the step where a run goes on catches up in `start`.
"""

from collections.abc import Callable, Mapping
import math
import sys
from typing import Any

import jax
import numpy as np

from genjax import distributed
from genjax.artifacts import Artifact
from genjax.tables import Table
from genjax.training import drawing, stopping
from genjax.training.checkpoints.checkpoint import Checkpoints
from genjax.training.monitoring import logs, progress, rates
from genjax.training.run import Run
from genjax.training.step import Metrics
from genjax.types import NonFiniteError


class Hook:
  """A hook that does nothing: the base of the others."""

  def start(self, run: Run) -> None:
    """See `genjax.training.loop.Hook`."""

  def before_step(self, run: Run, columns: dict) -> None:
    """See `genjax.training.loop.Hook`."""

  def after_step(self, run: Run, metrics: Metrics) -> None:
    """See `genjax.training.loop.Hook`."""

  def reads(self, run: Run, step: int) -> bool:
    """See `genjax.training.loop.Hook`. A hook of one's own that overrides `after_step` reads every step unless it says
    otherwise."""
    return type(self).after_step is not Hook.after_step

  def end(self, run: Run) -> None:
    """See `genjax.training.loop.Hook`."""

  def recover(self, run: Run, error: NonFiniteError) -> bool:
    """See `genjax.training.loop.Hook`."""
    return False

  def stop(self, run: Run) -> None:
    """See `genjax.training.loop.Hook`."""

  def close(self) -> None:
    """See `genjax.training.loop.Hook`."""

  # The next three are called in the first process of a run only, so that a hook that writes a file writes it once.

  def on_log(self, run: Run, step: int, values: Mapping[str, float]) -> None:
    """Every `config.log_every` steps: name -> mean since the last time, learning rates and speed, as in
    metrics.jsonl."""

  def on_evaluate(self, run: Run, step: int, values: Mapping[str, float]) -> None:
    """After each evaluation while training, and after the one at the end: name -> held-out metric."""

  def on_sample(self, run: Run, step: int, samples: Mapping[str, np.ndarray],
                pictures: Mapping[str, Artifact]) -> None:
    """Whenever samples are drawn: name -> rows, as `Run.sample` gives them, and name -> what is shown of them and of
    previews: a text, a picture (uint8 H W C), a clip or a sound."""


def tell(run: Run, event: str, *values: Any) -> None:
  """Calls a method such as 'on_log' of all hooks of a run that have it, with the run, its step and `values`."""
  for hook in run.hooks if distributed.is_first() else ():
    if method := getattr(hook, event, None):
      method(run, run.step, *values)


# Hooks of one's own: name -> function or class of the run directory, a pathlib.Path.
HOOKS: Table[Callable[..., Hook]] = Table('hook', {}, takes=('workdir',))


def is_due(step: int, every: int) -> bool:
  """Whether something that happens every `every` steps happens after `step` steps."""
  return bool(every) and step % every == 0


def is_due_before_the_end(run: Run, every: int, step: int | None = None) -> bool:
  """The same, by default for the step of now, for what happens at the end anyway, and not before the first step."""
  step = run.step if step is None else step
  return 0 < step < run.settings.steps and is_due(step, every)


class Log(Hook):
  """Mean metrics since the last line, learning rates, throughput and model FLOP/s: to the terminal, JSON lines,
  TensorBoard and the other hooks.

  On a terminal there is one live line, and messages stand above it; elsewhere a line is printed each time. With
  `every` 0 there is one for the last step alone.
  """

  def __init__(self, writer: logs.Writer, every: int):
    self.writer, self.every = writer, every
    self.last: dict[str, float] = {}
    self._bar: progress.Bar | None = None
    self._metrics: list[Metrics] = []
    self._steps = self._flops = 0
    self._since = 0.0

  def start(self, run: Run) -> None:
    self.writer.start(run.step)
    if sys.stderr.isatty() and distributed.is_first():
      self._bar = progress.Bar(run.settings.steps, run.step, logs.title().removesuffix(': '))
    self._since = run.clock.training_seconds()

  def before_step(self, run: Run, columns: dict) -> None:
    self._flops += run.step_flops(columns=columns)

  def after_step(self, run: Run, metrics: Metrics) -> None:
    if not self.every:
      self._metrics.clear()  # those of all steps would fill the memory
    self._metrics.append(metrics)
    self._steps += 1
    if self._bar is not None:
      self._bar.advance()
    if is_due(run.step, self.every) or run.step == run.settings.steps:
      self._write(run)

  def reads(self, run: Run, step: int) -> bool:
    return is_due(step, self.every) or step == run.settings.steps

  def recover(self, run: Run, error: NonFiniteError) -> bool:
    self._begin_interval(run)
    return False

  def stop(self, run: Run) -> None:
    if self._metrics:
      self._write(run)

  def _begin_interval(self, run: Run) -> None:
    self._metrics, self._steps, self._flops, self._since = [], 0, 0, run.clock.training_seconds()

  def _write(self, run: Run) -> None:
    values: dict[str, list[float]] = {}
    with run.clock.section('lost' if run.step <= run.reached else 'step'):
      fetched = jax.device_get(self._metrics)  # waits for the newest step
    for metrics in fetched:
      for name, value in metrics.items():
        # What a skipped step computed says nothing of the model.
        if name == 'skipped' or not metrics.get('skipped', 0.0) or math.isfinite(value):
          values.setdefault(name, []).append(float(value))
    seconds = max(run.clock.training_seconds() - self._since, 1e-9)
    steps = self._steps
    unit = run.experiment.unit
    rate = steps * run.settings.batch_size * run.experiment.units_per_example / seconds
    means = {name: float(np.mean(entries)) for name, entries in values.items()}
    learning = rates.learning_rates(run.experiment.optimizers, run.state.opt)
    report = getattr(run.experiment.train, 'report', None)  # of data that counts what it has read
    self.last = {**means, **learning, **(report(run.step) if report else {}), f'{unit}_per_second': rate,
                 'steps_per_second': steps / seconds, 'model_flops_per_second': self._flops / seconds}
    self.writer.scalars(run.step, self.last)
    tell(run, 'on_log', self.last)
    remaining = (run.settings.steps - run.step) * seconds / steps
    shown = f'{_shown(means, learning)}  {rate:.3g} {unit}/s  {self._flops / seconds / 1e9:.3g} GFLOP/s'
    if self._bar is not None:
      self._bar.show(shown)
    else:
      logs.say(f'step {run.step}/{run.settings.steps}  {shown}  ETA {progress.interval(remaining)}')
    skipped = round(sum(values.get('skipped', [])))
    if skipped:
      logs.say(
        f'step {run.step}  {skipped} of the last {len(fetched)} updates skipped: a loss or gradient was not finite')
    self._begin_interval(run)

  def close(self) -> None:
    if self._bar is not None:
      self._bar.close()
      self._bar = None
    self.writer.close()


def _shown(means: Mapping[str, float], learning: Mapping[str, float]) -> str:
  """Losses, gradient norms and learning rates in short: names without their phase or group where there is one."""
  parts = []
  for quantity, values in (('loss', means), ('gradient_norm', means), ('learning_rate', learning)):
    found = {name: value for name, value in values.items() if quantity in name.split('/')}
    parts += [f'{quantity if len(found) == 1 else name} {value:.3g}' for name, value in found.items()]
  return '  '.join(parts)


class Evaluate(Hook):
  """Held-out metrics with averaged parameters, named 'heldout/<name>'; the last step is evaluated in full.

  needed: the metrics belong into the checkpoint of their step, so a process that is asked to stop finishes them first.
  """

  def __init__(self, writer: logs.Writer, every: int, max_batches: int, needed: bool = False):
    self.writer, self.every, self.max_batches = writer, every, max_batches
    self._within = stopping.finishing if needed else stopping.deferred

  def start(self, run: Run) -> None:
    if is_due_before_the_end(
        run, self.every) and not distributed.broadcast(self.writer.has(run.step, 'heldout/'), 'evaluated'):
      self._evaluate(run, self.max_batches)

  def after_step(self, run: Run, metrics: Metrics) -> None:
    if is_due_before_the_end(run, self.every):
      self._evaluate(run, self.max_batches)

  def reads(self, run: Run, step: int) -> bool:
    return is_due_before_the_end(run, self.every, step)

  def end(self, run: Run) -> None:
    # A process that went on at the last step evaluates again, for its summary; the line may be there already.
    self._evaluate(run, 0, write=not self.writer.has(run.step, 'heldout/'))

  def _evaluate(self, run: Run, max_batches: int, write: bool = True) -> None:
    with run.clock.section('evaluate'), self._within():
      values = run.evaluate(max_batches=max_batches)
    run.evaluation = (run.step, values)
    if write:
      self.writer.scalars(run.step, {f'heldout/{name}': value for name, value in values.items()})
    tell(run, 'on_evaluate', values)
    logs.say(f'step {run.step}  held out: ' + '  '.join(f'{name} {value:.5g}' for name, value in values.items()))


class Sample(Hook):
  """Samples with averaged parameters, rendered to files and TensorBoard; always the same noise."""

  def __init__(self, writer: logs.Writer, every: int, num: int):
    self.writer, self.every, self.num = writer, every, num
    self.files: list[str] = []

  def start(self, run: Run) -> None:
    if is_due_before_the_end(run, self.every) and not distributed.broadcast(self.writer.sampled(run.step), 'sampled'):
      self._sample(run)

  def after_step(self, run: Run, metrics: Metrics) -> None:
    if is_due_before_the_end(run, self.every):
      self._sample(run)

  def reads(self, run: Run, step: int) -> bool:
    return is_due_before_the_end(run, self.every, step)

  def end(self, run: Run) -> None:
    if self.every:
      self._sample(run)

  def _sample(self, run: Run) -> None:
    with run.clock.section('sample'):
      try:
        drawn, preview = run.sample(self.num, run.settings.seed), run.preview()
      except drawing.NotFinite as error:  # an early model may diverge under guidance; training goes on
        logs.say(f'no samples of step {run.step}: {error}')
        return
      pictures = {
        name: value for columns in (drawn, preview) if columns for name, value in run.experiment.render(columns).items()
      }
      self.files = [str(path) for name, value in pictures.items()
                    for path in self.writer.artifact(run.step, name, value)]
    tell(run, 'on_sample', drawn, pictures)


class Save(Hook):
  """Checkpoints; a state is checked to be finite before it is saved, so the newest checkpoint is always a good one.

  The last step is saved before it is evaluated in full, so that a kill in between loses nothing; where the best
  checkpoint is kept, its metric belongs into the checkpoint, and the last step is saved after its evaluation.
  """

  def __init__(self, checkpoints: Checkpoints, every: int, description: Mapping[str, Any]):
    self.checkpoints, self.every, self.description = checkpoints, every, description
    self._saved: int | None = None

  def start(self, run: Run) -> None:
    self._saved = run.step if run.step in self.checkpoints.steps() else None

  def after_step(self, run: Run, metrics: Metrics) -> None:
    self.checkpoints.check()
    last = run.step == run.settings.steps
    if not self.checkpoints.best if last else is_due(run.step, self.every):
      self.save(run)

  def reads(self, run: Run, step: int) -> bool:
    return is_due(step, self.every) or step == run.settings.steps

  def end(self, run: Run) -> None:
    if self._saved != run.step:
      self.save(run)

  def stop(self, run: Run) -> None:
    if run.step in self.checkpoints.steps():
      return
    try:
      self.save(run, interim=not is_due_before_the_end(run, self.every) and run.step != run.settings.steps)
    except NonFiniteError as error:
      if run.settings.nonfinite != 'rollback':
        raise
      # Run again from the last checkpoint, the step will be found out and rolled back as if nothing had stopped the
      # run.
      logs.say(f'step {run.step} is not saved: {error}')

  def save(self, run: Run, interim: bool = False) -> None:
    """Saves the state of now; see `genjax.training.checkpoints.checkpoint.Checkpoints.save`."""
    with run.clock.section('lost' if run.step <= run.reached else 'step'):
      run.check_finite()  # waits for the newest step
    with run.clock.section('save'):
      evaluation = run.evaluation[1] if run.evaluation and run.evaluation[0] == run.step else None
      self.checkpoints.save(run.step, run.state, {**self.description, 'rollbacks': run.rollbacks}, evaluation, interim)
    self._saved = run.step

  def close(self) -> None:
    self.checkpoints.wait()


class RollBack(Hook):
  """After a number that is not finite: the last checkpoint of the schedule, and the batches after the bad step.

  The state that goes on is saved at once under the number of the bad step, so a process that dies later goes on from
  it. Checkpoints of stopped processes are not used, so that a stopped and resumed run rolls back where an undisturbed
  one does.
  """

  def __init__(self, save: Save):
    self._save = save

  def recover(self, run: Run, error: NonFiniteError) -> bool:
    if run.settings.nonfinite != 'rollback' or len(run.rollbacks) >= run.settings.nonfinite_limit:
      return False
    checkpoints = self._save.checkpoints
    checkpoints.wait()
    with run.clock.section('lost', 'rollback'):
      state = checkpoints.restore(run.target, logs.say, before=error.step)
      if state is None:
        run.initialise()
        state = run.state
      checkpoints.discard_after(int(state.step))
      run.roll_back(state, error.step)
    logs.say(
      f'{error}: back to step {run.rollbacks[-1][0]}, going on with the batches after step {error.step} (rollback '
      f'{len(run.rollbacks)} of at most {run.settings.nonfinite_limit})')
    self._save.save(run)
    return True


class StopTogether(Hook):
  """Of several processes, all stop after the same step when one is asked to stop."""

  def after_step(self, run: Run, metrics: Metrics) -> None:
    distributed.stop_together(run.step)

  def reads(self, run: Run, step: int) -> bool:
    return False


class Profile(Hook):
  """A trace for TensorBoard or Perfetto of `steps` steps, from step `begin` on."""

  def __init__(self, directory: str, begin: int, steps: int):
    self.directory, self.begin, self.steps = directory, begin, steps
    self._tracing = False

  def before_step(self, run: Run, columns: dict) -> None:
    if self.steps and run.step == self.begin and not self._tracing:  # a call has several batches
      jax.profiler.start_trace(self.directory)
      self._tracing = True

  def after_step(self, run: Run, metrics: Metrics) -> None:
    if self._tracing and run.step >= self.begin + self.steps:
      jax.block_until_ready(metrics)
      self.close()

  def reads(self, run: Run, step: int) -> bool:
    return bool(self.steps) and step in (self.begin, self.begin + self.steps)

  def close(self) -> None:
    if self._tracing:
      jax.profiler.stop_trace()
      self._tracing = False
