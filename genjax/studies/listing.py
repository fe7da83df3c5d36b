"""What runs are doing, read from their folders without disturbing them."""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import datetime
import json
import math
import os
import pathlib
import socket
import time
from typing import Any

import tqdm

from genjax.runs import lock
from genjax.studies import queues

EVENTS = 'events.jsonl'  # see `genjax.training.events`
JOB = 'job.json'  # what a sweep says of the processes of a run, see `genjax.studies.jobs`
PRUNED = 'pruned'  # its entry for a run that a search ended early: at which step
STATES = FINISHED, RUNNING, FAILED, INTERRUPTED, QUEUED, WAITING, ENDED = (
  'finished', 'running', 'failed', 'interrupted', 'queued', 'waiting', 'pruned')
_PASSING = ('startup', 'compile', 'lost')  # sections of time that do not grow with the steps
_SILENT = 900  # seconds without a word after which a run on another host counts as interrupted
_SHORT = 100  # characters of an error
_TAIL = 16_384  # bytes at the end of metrics.jsonl that are looked at


@dataclasses.dataclass(frozen=True)
class Info:
  """One run.

  Attributes:
    name: its folder, below the folder that was asked about.
    path: the folder.
    experiment: last word of the module of its builder.
    state: one of `STATES`.
    doing: what a running one does, why a failed one did, the job of a cluster.
    step: finished steps.
    steps: of the whole run.
    rate: seconds of a step so far, with what comes between steps; None where that is not known.
    metrics: name -> its last value.
    config: the config file with its argument, where the run was trained from one.
  """

  name: str
  path: pathlib.Path
  experiment: str
  state: str
  doing: str
  step: int
  steps: int
  rate: float | None
  metrics: dict[str, float]
  config: str = ''

  @property
  def eta(self) -> float | None:
    """Seconds of training to go, where that is known."""
    return None if self.rate is None else (self.steps - self.step) * self.rate


def find(folder: pathlib.Path) -> list[pathlib.Path]:
  """The run directories at or below a folder, by name, with runs that wait in the queue of a cluster.

  Nothing is looked for inside of a run, or in hidden folders.
  """
  found = []
  for path, folders, files in os.walk(folder):
    if 'config.json' in files and 'run.json' in files:
      found.append(pathlib.Path(path))
      folders.clear()
    for name in queues.names(pathlib.Path(path)) if 'sweep.json' in files else ():
      if not (pathlib.Path(path, name) / 'config.json').exists():
        found.append(pathlib.Path(path, name))
    folders[:] = sorted(name for name in folders if not name.startswith('.'))
  return sorted(found)


def read(path: pathlib.Path, name: str = '', config: Mapping[str, Any] | None = None) -> Info:
  """What a run does.

  Args:
    path: its folder, which need not exist yet.
    name: what to call it; by default as the folder.
    config: that it will have, for a run that has not begun.
  """
  known = load(path / 'config.json') or dict(config or {}) or load(queues.hidden(path) / 'config.json')
  status, summary, job = load(path / 'status.json'), load(path / 'summary.json'), load(path / JOB)
  step, steps = _count(status.get('step')), _count(known.get('steps'))
  state, doing = _state(path, known, status, summary, job)
  step = _count(summary.get('step')) if state == FINISHED else step
  spent = sum(seconds for section, seconds in status.get('seconds', {}).items() if section not in _PASSING)
  return Info(name or path.name, path, str(known.get('experiment', '')).rpartition('.')[2], state, doing, step, steps,
              spent / step if step else None, last_metrics(path), str(load(path / 'run.json').get('named', '')))


def _state(path: pathlib.Path, config: Mapping[str, Any], status: Mapping[str, Any], summary: Mapping[str, Any],
           job: Mapping[str, Any]) -> tuple[str, str]:
  queue = queues.read(path)
  asked = queues.state(queue)
  process = _process(path, status)
  if process and (process == 'here' or asked != queues.GONE):  # a killed process of another host cannot be looked for
    told = str(status.get('doing', 'startup')) if process == 'here' else f'on {process}'
    return RUNNING, f'{told}, job {job["job"]}' if job.get('job') else told
  if job.get(PRUNED) is not None:
    return ENDED, f'at step {job[PRUNED]}'
  if is_finished(path, config, summary):
    return FINISHED, reason(job) if job.get('exit') else ''
  if asked == queues.RUNNING:
    return RUNNING, f'startup, job {queue["job"]}'
  if asked == queues.PENDING:
    return QUEUED, f'job {queue["job"]}'
  if job.get('exit'):
    return FAILED, reason(job)
  if failure := _failure(path):
    return FAILED, failure
  told = queues.told(queue, asked)
  return (INTERRUPTED, told) if (path / 'config.json').exists() else (WAITING, told)


def _failure(path: pathlib.Path) -> str:
  """How the last process of a run failed, in short; '' if it did not."""
  try:
    with open(path / EVENTS, 'rb') as file:
      file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
      last = json.loads(file.read().splitlines()[-1])
    return str(last['text']).splitlines()[0][:_SHORT] if last['event'] == 'failed' else ''
  except (OSError, ValueError, LookupError, TypeError):
    return ''


def is_finished(path: pathlib.Path, config: Mapping[str, Any], summary: Mapping[str, Any] | None = None) -> bool:
  """Whether a run has taken all steps of its config."""
  summary = load(path / 'summary.json') if summary is None else summary
  return isinstance(summary.get('step'), int) and summary['step'] >= _count(config.get('steps'))


def _count(value: Any) -> int:
  """A number of steps; 0 for anything else, as in a config.json of another program that lies beside runs."""
  return int(value) if isinstance(value, (int, float)) and math.isfinite(value) else 0


def reason(job: Mapping[str, Any]) -> str:
  """'train: exit code 3', or 'evaluate: signal 9'."""
  code = job.get('exit')
  told = f'signal {-code}' if isinstance(code, int) and code < 0 else f'exit code {code}'
  return f'{job.get("command", "train")}: {told}' + (f', job {job["job"]}' if job.get('job') else '')


def _process(path: pathlib.Path, status: Mapping[str, Any]) -> str:
  """'here', or the host on which a process trains in a folder, or ''. A killed process leaves its word in the lock."""
  said = lock.said(path)
  if said is None:
    return ''
  if said['host'] == socket.gethostname():
    return 'here' if _lives(int(said['process']), str(said['since'])) else ''
  file = path / 'status.json'
  return str(said['host']) if status and time.time() - file.stat().st_mtime < _SILENT else ''


def _lives(process: int, since: str) -> bool:
  """Whether a process of this host still lives that began before a moment: its number may be another one's by now."""
  try:
    os.kill(process, 0)
  except PermissionError:
    pass
  except OSError:
    return False
  try:
    fields = pathlib.Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()
    booted = next(int(line.split()[1]) for line in pathlib.Path('/proc/stat').read_text().splitlines()
                  if line.startswith('btime'))
    began = booted + int(fields[19]) / os.sysconf('SC_CLK_TCK')
    return fields[0] != 'Z' and began <= datetime.datetime.fromisoformat(since).timestamp() + 2
  except (OSError, ValueError, IndexError, StopIteration):  # a system without /proc, or one that hides it
    return True


def last_metrics(path: pathlib.Path) -> dict[str, float]:
  """Name -> its last value among the last lines of metrics.jsonl."""
  try:
    with open(path / 'metrics.jsonl', 'rb') as file:
      file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
      lines = file.read().splitlines()
  except OSError:
    return {}
  found: dict[str, float] = {}
  for line in lines:
    try:
      entry = json.loads(line)
      found.update({name: value for name, value in entry.items() if value is not None and name != 'step'})
    except (ValueError, AttributeError):  # a line that is cut off
      continue
  return found


def headline(metrics: Mapping[str, float], wanted: Sequence[str] = ()) -> str:
  """The metrics that say the most in short: those that are wanted, or the held-out loss, or the losses."""
  chosen = [name for name in wanted if name in metrics]
  if not wanted:
    ends = [name for name in metrics if name.rpartition('/')[2] == 'loss']
    chosen = [name for name in ends if name.startswith('heldout/')] or ends
    heldout = [name for name in metrics if name.startswith('heldout/') and not name.endswith('/examples')]
    chosen = (chosen or heldout)[:3]
  return '  '.join(f'{name} {metrics[name]:.4g}' for name in chosen)


def disk(path: pathlib.Path) -> int:
  """Bytes that a folder takes on its disk."""
  total = 0
  for folder, _, files in os.walk(path):
    for name in files:
      try:
        found = os.lstat(os.path.join(folder, name))
      except OSError:  # a checkpoint that is being replaced
        continue
      total += found.st_blocks * 512
  return total


def load(path: pathlib.Path) -> dict[str, Any]:
  """A JSON object; empty where there is none, or one that is being written."""
  try:
    found = json.loads(path.read_text())
  except (OSError, ValueError):
    return {}
  return found if isinstance(found, dict) else {}


def rows(infos: Sequence[Info], wanted: Sequence[str] = ()) -> Iterator[list[str]]:
  """The cells of a table: run, state, step, ETA, metrics."""
  for info in infos:
    state = f'{info.state} ({info.doing})' if info.doing else info.state
    eta = tqdm.tqdm.format_interval(info.eta) if info.eta and info.state not in (FINISHED, FAILED, ENDED) else ''
    yield [info.name, state, f'{info.step}/{info.steps}', eta, headline(info.metrics, wanted)]
