"""Where the time of a run goes, and the status file that says it while the run goes on.

Every moment since the command began belongs to exactly one section, the innermost one that is open, so the seconds of
the sections add up to the wall time. Compilation is taken out of whatever section it happens in, by what jax reports of
it.
"""

import collections
from collections.abc import Iterator, Mapping
import contextlib
import json
import os
import pathlib
import threading
import time
from typing import Any

import jax

from genjax.types import strict_json

SECTIONS = ('startup', 'compile', 'data', 'step', 'lost', 'evaluate', 'sample', 'save', 'other')
TRAINING = ('data', 'step', 'lost', 'other')  # what throughput is measured over
_COMPILING = ('/jax/core/compile/jaxpr_trace_duration', '/jax/core/compile/jaxpr_to_mlir_module_duration',
              '/jax/core/compile/backend_compile_duration')
_RECORD = 1024  # bytes of the status file: written over in place, in one system call


class Status:
  """`status.json` of a run directory: attempt, process, what is being done, finished steps, seconds by section so far.

  It is overwritten in place at every change, so that what a killed process did is known to the next one. A disk that
  has become full still takes it; one that has become read-only is found here.

  Args:
    path: the file. What an earlier attempt left in it is read before it is overwritten.

  Attributes:
    attempt: 1 for the first process that works on the run.
    reached: steps that earlier attempts had finished.
    before: section -> seconds of earlier attempts.
    damaged: whether the file was there and could not be read: what earlier attempts did is then unknown.
  """

  def __init__(self, path: pathlib.Path):
    self.attempt, self.reached, self.damaged = 1, 0, False
    self.before: dict[str, float] = {}
    if path.exists():
      try:
        old = json.loads(path.read_text())
        self.attempt, self.reached, self.before = old['attempt'] + 1, max(old['step'],
                                                                          old['reached']), dict(old['seconds'])
      except (ValueError, KeyError, TypeError):
        self.damaged = True
    self._file: int | None = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)

  def write(self, doing: str, step: int, seconds: Mapping[str, float]) -> None:
    """Replaces the record; `seconds` are those of this attempt."""
    if self._file is None:
      return
    record = {'attempt': self.attempt, 'process': os.getpid(), 'doing': doing, 'step': step, 'reached': self.reached,
              'seconds': {name: round(value, 4) for name, value in self.total(seconds).items()}}
    os.pwrite(self._file, strict_json(record).encode().ljust(_RECORD - 1) + b'\n', 0)

  def total(self, seconds: Mapping[str, float]) -> dict[str, float]:
    """Seconds by section of this attempt and those before."""
    return {name: self.before.get(name, 0.0) + seconds.get(name, 0.0) for name in SECTIONS}

  def close(self) -> None:
    """Releases the file."""
    if self._file is not None:
      os.close(self._file)
      self._file = None


class Clock:
  """Counts the seconds of a run by section.

  Use it from one thread.

  Args:
    begin: `time.perf_counter()` of when the command began; by default now.
    status: where to say what is being done.

  Attributes:
    step: finished steps, for the status.
    first_step: seconds from the beginning to the end of the first step of this process; None before.
    beaten: `time.perf_counter()` of the last sign of progress, see `beat`.
  """

  def __init__(self, begin: float | None = None, status: Status | None = None):
    self._begin = self._mark = self.beaten = time.perf_counter() if begin is None else begin
    self._open = ['startup']
    self._seconds: dict[str, float] = collections.defaultdict(float)
    self._compiled: list[tuple[float, float]] = []
    self._thread = threading.get_ident()
    self.status = status
    self.step = 0
    self.first_step: float | None = None
    self._listening = False

  def listen(self) -> None:
    """Begins to count compilation, until `close`."""
    jax.monitoring.register_event_duration_secs_listener(self._compiling)
    self._listening = True

  def started(self) -> None:
    """Start-up is over: what stands in no section is 'other' from here on."""
    self._charge()
    self._open[0] = 'other'

  @contextlib.contextmanager
  def section(self, name: str, doing: str = '') -> Iterator[None]:
    """Time inside belongs to section `name`; the status calls it `doing`, by default the same."""
    self._charge()
    self._open.append(name)
    self._say(doing or name)
    try:
      yield
    finally:
      self._charge()
      self._open.pop()

  def beat(self) -> None:
    """Something was finished: a step, a batch of an evaluation, a chunk of samples."""
    self.beaten = time.perf_counter()

  def finished_step(self, step: int) -> None:
    """So many steps are finished."""
    self.step = step
    if self.first_step is None:
      self.first_step = time.perf_counter() - self._begin
    self.beat()

  def seconds(self) -> dict[str, float]:
    """Section -> seconds until now; they add up to `wall` of the same moment."""
    self._charge()
    return {name: self._seconds[name] for name in SECTIONS}

  def training_seconds(self) -> float:
    """Seconds of training: steps, their data, and the small things around them."""
    seconds = self.seconds()
    return sum(seconds[name] for name in TRAINING)

  def summary(self) -> dict[str, Any]:
    """What `summary.json` says: of all attempts together, except the time to the first step, which is this
    process's."""
    now = self.seconds()
    total = self.status.total(now) if self.status else now
    wall = sum(total.values())
    return {'attempts': self.status.attempt if self.status else 1, 'wall_seconds': wall, 'seconds': total,
            'attempt_wall_seconds': self._mark - self._begin, 'attempt_seconds': now,
            'time_to_first_step': self.first_step, 'goodput': total['step'] / wall if wall else 0.0}

  def close(self) -> None:
    """The last word of the status; stops listening to jax."""
    if self._listening:
      jax.monitoring.unregister_event_duration_listener(self._compiling)
      self._listening = False
    if self.status is not None:
      self._charge()
      self._say('ended')
      self.status.close()

  def _say(self, doing: str) -> None:
    if self.status is not None:
      self.status.write(doing, self.step, self._seconds)

  def _charge(self) -> None:
    now = time.perf_counter()
    self._seconds[self._open[-1]] += now - self._mark
    self._mark = now

  def _compiling(self, event: str, duration_secs: float, **_: Any) -> None:
    """Moves what jax reports as tracing, lowering or compiling from the open section; nested reports count once."""
    if event not in _COMPILING or threading.get_ident() != self._thread:
      return
    self._charge()
    begin, inner = self._mark - duration_secs, 0.0
    while self._compiled and self._compiled[-1][1] > begin:
      start, end = self._compiled.pop()
      inner += end - max(start, begin)
    self._compiled.append((begin, self._mark))
    fresh = max(0.0, duration_secs - inner)
    self._seconds['compile'] += fresh
    self._seconds[self._open[-1]] -= fresh
