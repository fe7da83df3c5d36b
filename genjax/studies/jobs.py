"""Runs the commands of a sweep on this machine, each in a process of its own, several at a time.

What is to be done comes from a source: a list of tasks, or a search that decides on the next one when another ends.

Beside what a run writes itself, its folder gets job.log, what its commands print, and job.json: the last command, its
exit code, and with which flags it was evaluated. A process dies with the sweep that started it, however that ends, so
that nothing writes beside the sweep which goes on in its place.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
import datetime
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import threading
import time
from typing import Any, Protocol

from genjax.runs import atomic, lock, scoring
from genjax.studies import listing, shares

LOG = 'job.log'
STARTER = pathlib.Path(__file__).with_name('starter.py')
POLL = 0.2  # seconds between two looks at the processes
PATIENCE = 60.0  # seconds that processes get to save, and that the lock of a run is waited for
_STOPPING = (signal.SIGINT, signal.SIGTERM)


@dataclasses.dataclass(frozen=True)
class Task:
  """What is to be done for one run.

  Attributes:
    name: of the run.
    folder: its run directory.
    steps: how many it takes in all.
    train: the command that trains or resumes it.
    evaluate: the command that evaluates it then; empty for none.
    flags: of that command, which decide whether an evaluation is done again.
    job: the name that a cluster gave to what works on it; empty on this machine.
    process: which of the processes of the run this is; the first one keeps job.json.
  """

  name: str
  folder: pathlib.Path
  steps: int
  train: tuple[str, ...]
  evaluate: tuple[str, ...] = ()
  flags: tuple[str, ...] = ()
  job: str = ''
  process: int = 0

  def pending(self) -> list[tuple[str, tuple[str, ...]]]:
    """The commands that are still needed, by name."""
    trained = self.is_trained()
    if listing.load(self.folder / listing.JOB).get(listing.PRUNED) is not None:
      return []
    commands = [] if trained else [('train', self.train)]
    if self.evaluate and not (trained and self._evaluated()):
      commands.append(('evaluate', self.evaluate))
    return commands

  def is_trained(self) -> bool:
    """Whether the run has taken all its steps."""
    return listing.is_finished(self.folder, {'steps': self.steps})

  def _evaluated(self) -> bool:
    """Whether the run was evaluated as this task would: by a task like it, or at its end by hand."""
    card = listing.load(self.folder / scoring.NAME).get('card')
    flags = listing.load(self.folder / listing.JOB).get('evaluated')
    return card is not None and (flags == list(self.flags) or flags is None and card.get('step') == self.steps)


class Observer(Protocol):
  """Whom `run` tells what happens."""

  def say(self, line: str) -> None:
    """A line that stays."""
    ...

  def look(self, active: Sequence[str]) -> None:
    """Called a few times a second, with the names of the runs that processes work on."""
    ...


class Source(Protocol):
  """Where tasks come from."""

  def next(self) -> Task | None:
    """A task to begin; None where there is none until another one ends."""
    ...

  def unwanted(self, task: Task) -> str:
    """Why the training of a task should end early, '' to let it go on; asked a few times a second."""
    ...

  def ended(self, task: Task, why: str, code: int) -> None:
    """Called when a task has ended: why it failed, '' if it did not, and the exit code of its last command."""
    ...


class Listed:
  """What is pending of a list of tasks, in its order."""

  def __init__(self, tasks: Sequence[Task]):
    self._waiting = [task for task in tasks if task.pending()]
    self.codes: dict[str, int] = {}  # of the tasks that have ended, by name

  def next(self) -> Task | None:
    """The next one of the list."""
    return self._waiting.pop(0) if self._waiting else None

  def unwanted(self, task: Task) -> str:
    """Every task goes on to its end."""
    return ''

  def ended(self, task: Task, why: str, code: int) -> None:
    """Keeps the code."""
    self.codes[task.name] = code


class _Job:
  """The processes of one task, one after the other."""

  def __init__(self, task: Task, slot: int, jobs: int):
    self.task, self.slot, self.jobs = task, slot, jobs
    self.commands = task.pending()
    self.failed = ''  # why, in words
    self.code = 0
    self._unwanted = ''
    self._log = LOG if not task.process else f'job_{task.process}.log'
    self._begin, self._left = time.monotonic(), 0.0
    self._process: subprocess.Popen | None = None
    self._name = ''

  def advance(self) -> str:
    """Starts what is next, or looks after it; returns a line of what happened, '' for nothing."""
    if self._process is None:
      return self._start()
    code = self._process.poll()
    if code is None or self._waits_for_first(code):
      return ''
    self._process, self.code = None, code
    self._record(exit=code)
    del self.commands[0]
    if self._unwanted:
      self.commands = []
      return f'{self.task.name}: {self._unwanted}'
    if code == 0 and (self._name != 'train' or self.task.is_trained()):
      seconds = time.monotonic() - self._begin
      return '' if self.commands else f'{self.task.name}: done in {seconds:.0f} s'
    told = listing.reason({'command': self._name, 'exit': code}) if code else f'{self._name}: stopped before its end'
    return self._fail(f'{told}; its log is {self.task.folder / self._log}')

  def _waits_for_first(self, code: int) -> bool:
    """Whether the process has ended well and the first one of its run has yet to write that it is finished."""
    if not self.task.process or code or self._name != 'train' or self.task.is_trained():
      return False
    self._left = self._left or time.monotonic()
    return time.monotonic() - self._left < PATIENCE

  def end_early(self, why: str) -> None:
    """Asks the process to save and to end, for good."""
    if not self._unwanted:
      self._unwanted = why
      self.signal(signal.SIGTERM)

  @property
  def training(self) -> bool:
    """Whether a training is under way."""
    return self._process is not None and self._name == 'train'

  def _fail(self, why: str) -> str:
    self.failed, self.commands = why, []
    return f'{self.task.name}: {why}'

  def _start(self) -> str:
    folder = self.task.folder
    self._name, command = self.commands[0]
    if not self.task.process and lock.is_held(folder):
      # Of a process that is about to end, or of somebody who trains the run elsewhere.
      if time.monotonic() - self._begin > PATIENCE:
        return self._fail(f'not started, since another process trains in {folder}, see {folder / lock.NAME}')
      return ''
    folder.mkdir(parents=True, exist_ok=True)
    self._record(command=self._name, exit=None, log=self._log)
    cores = ','.join(map(str, shares.cores(self.slot, self.jobs)))
    starter = [sys.executable, '-I', '-S', str(STARTER), str(os.getpid()), cores if self.jobs > 1 else '']
    with open(folder / self._log, 'ab') as log:
      now = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
      log.write(f'\n{now}  $ {shlex.join(command)}\n'.encode())
      log.flush()
      # In a session of its own: Ctrl-C at the terminal is for the sweep, which then asks its processes to save.
      self._process = subprocess.Popen([*starter, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                       env={**os.environ, **shares.environment(self.slot, self.jobs)},
                                       start_new_session=True)
    return f'{self.task.name}: {self._name}'

  def _record(self, **facts: Any) -> None:
    if self.task.process:
      return
    path = self.task.folder / listing.JOB
    if self._name == 'evaluate' and facts.get('exit') == 0:
      facts['evaluated'] = list(self.task.flags)
    known = {key: value for key, value in listing.load(path).items() if key != 'job'}
    atomic.write_json(path, {**known, **facts, **({'job': self.task.job} if self.task.job else {})})

  @property
  def done(self) -> bool:
    """Whether there is nothing more to do."""
    return self._process is None and not self.commands

  def signal(self, number: int) -> None:
    """Sends a signal to the process, if one runs."""
    if self._process is not None and self._process.poll() is None:
      self._process.send_signal(number)

  @property
  def runs(self) -> bool:
    """Whether a process runs."""
    return self._process is not None and self._process.poll() is None


def run(tasks: Sequence[Task] | Source, jobs: int, observer: Observer) -> tuple[dict[str, str], str | None]:
  """Does what is pending of all tasks, in their order.

  A failed task does not stop the others. SIGTERM or SIGINT makes all processes save and end; a second one ends them at
  once.

  Args:
    tasks: what is to be done, or what decides on it.
    jobs: how many at a time; each has its share of the machine, see `genjax.studies.shares`.
    observer: whom to tell.

  Returns:
    Why tasks failed, by name, and the name of the signal that stopped it all, or None.
  """
  source: Source = Listed(tasks) if isinstance(tasks, Sequence) else tasks
  active: dict[int, _Job] = {}
  failed: dict[str, str] = {}
  with _noted() as signals:
    while not signals:
      for slot in range(jobs):
        if slot not in active and (task := source.next()) is not None:
          active[slot] = _Job(task, slot, jobs)
      if not active:
        break
      for slot, job in list(active.items()):
        _advance(job, source, observer)
        if job.done:
          failed.update({job.task.name: job.failed} if job.failed else {})
          source.ended(job.task, job.failed, job.code)
          del active[slot]
      observer.look([job.task.name for job in active.values()])
      if active:
        time.sleep(POLL)
    if signals:
      _stop(list(active.values()), signals, observer)
    return failed, signal.Signals(signals[0]).name if signals else None


def _advance(job: _Job, source: Source, observer: Observer) -> None:
  if line := job.advance():
    observer.say(line)
  if job.training and (why := source.unwanted(job.task)):
    job.end_early(why)


def _stop(active: Sequence[_Job], signals: list[int], observer: Observer) -> None:
  """Asks all processes to save and to end, and ends those that do not in time."""
  observer.say(f'stopping: {len(active)} processes save and end; once more ends them at once')
  for job in active:
    job.signal(signal.SIGTERM)
  deadline = time.monotonic() + PATIENCE
  while any(job.runs for job in active) and time.monotonic() < deadline and len(signals) == 1:
    time.sleep(POLL)
  for job in active:
    job.signal(signal.SIGKILL)
  while any(job.runs for job in active):
    time.sleep(POLL)


@contextlib.contextmanager
def _noted() -> Iterator[list[int]]:
  """Inside, SIGTERM and SIGINT are noted in the list that it gives; threads other than the main one get no signals."""
  signals: list[int] = []
  if threading.current_thread() is not threading.main_thread():
    yield signals
    return
  handler: Callable[..., None] = lambda number, frame: signals.append(number)
  before = {number: signal.signal(number, handler) for number in _STOPPING}
  try:
    yield signals
  finally:
    for number, known in before.items():
      signal.signal(number, known)
