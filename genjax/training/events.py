"""What happens to a run beside its steps, in `events.jsonl` of its folder.

One JSON object a line: time, step, event and text. Lines are only added, also by attempts that are undone later. A
process that is killed leaves no line; the next one tells that it resumed, and which step had been reached.
"""

from collections.abc import Iterator, Mapping
import contextlib
import datetime
import pathlib

from genjax import distributed
from genjax.training import hooks, stopping
from genjax.training.run import Run
from genjax.types import NonFiniteError, strict_json

NAME = 'events.jsonl'


class Events(hooks.Hook):
  """Writes 'started', 'resumed', 'skipped', 'rolled back', 'stopped', 'failed' and 'finished'; of several processes
  the first does. It stands behind `genjax.training.hooks.RollBack`, whose work it tells.

  Args:
    workdir: the run directory.
  """

  def __init__(self, workdir: pathlib.Path):
    self._path = workdir / NAME
    self._skipped = self._rollbacks = 0

  def start(self, run: Run) -> None:
    self._skipped, self._rollbacks = run.skipped, len(run.rollbacks)
    attempt = run.clock.status.attempt if run.clock.status else 1
    if run.step or attempt > 1:
      reached = f'; step {run.reached} had been reached' if run.reached > run.step else ''
      self._add(run.step, 'resumed', f'attempt {attempt}{reached}')
    else:
      self._add(0, 'started', f'{run.settings.steps} steps')

  def on_log(self, run: Run, step: int, values: Mapping[str, float]) -> None:
    if run.skipped > self._skipped:
      count = run.skipped - self._skipped
      self._add(step, 'skipped', f'{count} update{"s" if count > 1 else ""}: a loss or gradient was not finite')
      self._skipped = run.skipped

  def end(self, run: Run) -> None:
    self.on_log(run, run.step, {})  # the newest step of a log is checked after it

  def recover(self, run: Run, error: NonFiniteError) -> bool:
    if len(run.rollbacks) > self._rollbacks:
      self._rollbacks = len(run.rollbacks)
      self._add(error.step, 'rolled back', f'{error}; to step {run.rollbacks[-1][0]}')
    return False

  @contextlib.contextmanager
  def told(self, run: Run) -> Iterator[None]:
    """Tells how the work inside ends.

    Raises:
      Stopped: and whatever else the work raises.
    """
    try:
      yield
    except stopping.Stopped as stopped:
      self._add(run.step, 'stopped', f'by {stopped.signal}')
      raise
    except KeyboardInterrupt:
      self._add(run.step, 'stopped', 'at once, by a second interrupt')
      raise
    except Exception as error:
      self._add(error.step if isinstance(error, NonFiniteError) else run.step, 'failed',
                f'{type(error).__name__}: {error}')
      raise
    self._add(run.step, 'finished', '')

  def _add(self, step: int, event: str, text: str) -> None:
    if not distributed.is_first():
      return
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
    # A full disk must not hide the error that is told
    with contextlib.suppress(OSError), open(self._path, 'a') as file:
      file.write(strict_json({'time': now, 'step': step, 'event': event, 'text': text}) + '\n')
