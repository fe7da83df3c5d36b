"""What a page tells of a run beside its curves and samples, read from its folder."""

from collections.abc import Iterator, Mapping
import dataclasses
import json
import math
import pathlib
from typing import Any

import tqdm

from genjax import config as config_lib
from genjax.runs import scoring
from genjax.studies import jobs, listing, queues

LINES = 40  # last lines of a log
_TAIL = 32_768  # bytes at its end that are looked at
_MOST = 400  # events
_WIDTH = 2000  # characters of a value
_SECTIONS = {'startup': 'start-up', 'compile': 'compilation', 'data': 'waiting for data', 'step': 'steps',
             'lost': 'steps done again', 'evaluate': 'evaluation', 'sample': 'samples', 'save': 'checkpoints',
             'other': 'other'}

Pairs = list[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Measured:
  """Metrics that were measured together.

  Attributes:
    title: what they are.
    values: name -> value; None for one that is not finite.
    card: field -> text, what the values depend on; empty where there is no card.
  """

  title: str
  values: dict[str, float | None]
  card: Pairs


@dataclasses.dataclass(frozen=True)
class Event:
  """Something that happened.

  Attributes:
    time: when, as text; '' where that is not known.
    step: after which step.
    kind: 'started', 'resumed', 'skipped', 'rolled back', 'stopped', 'failed' or 'finished'.
    text: more.
  """

  time: str
  step: int
  kind: str
  text: str


@dataclasses.dataclass(frozen=True)
class Log:
  """The end of a log: its file and its last lines."""

  name: str
  text: str


@dataclasses.dataclass(frozen=True)
class Facts:
  """One run.

  Attributes:
    info: what it does.
    about: what a reader asks first.
    sections: title -> facts: config, data, versions, machine.
    measured: metrics with their cards.
    time: section, seconds, and share of all.
    events: in the order in which they happened.
    left_out: events that are not among them.
    logs: ends of logs, of a run that failed.
  """

  info: listing.Info
  about: Pairs
  sections: dict[str, Pairs]
  measured: list[Measured]
  time: list[tuple[str, float, float]]
  events: list[Event]
  left_out: int
  logs: list[Log]


def read(path: pathlib.Path, name: str = '', config: Mapping[str, Any] | None = None) -> Facts:
  """The facts of a run.

  Args:
    path: its folder.
    name: what to call it; by default as the folder.
    config: that it will have, for a run that has not begun.
  """
  config = listing.load(path / 'config.json') or dict(config or {})
  run, summary = listing.load(path / 'run.json'), listing.load(path / 'summary.json')
  status = listing.load(path / 'status.json')
  info = listing.read(path, name, config)
  events = _events(path, summary, status)
  sections = {
    'Config': pairs(config), 'Data': pairs(run.get('data', {})), 'Versions': _versions(run),
    'Machine': [(label, shown(run[key])) for label, key in (
      ('machine', 'machine'), ('devices', 'devices'), ('processes', 'processes'), ('cores', 'cpus')) if key in run]}
  return Facts(info, _about(info, config, run, summary), {title: found for title, found in sections.items() if found},
               list(_measured(path, summary)), _time(summary, status), events[-_MOST:], max(0, len(events) - _MOST),
               _logs(path, info, events))


def shown(value: Any) -> str:
  """A value as text, cut off where it is very long."""
  text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
  return text if len(text) <= _WIDTH else f'{text[:_WIDTH]}… ({len(text)} characters)'


def pairs(value: Any) -> Pairs:
  """Dotted key -> text."""
  return [(key, shown(entry)) for key, entry in config_lib.flatten(value).items()]


def amount(count: float) -> str:
  """A large number with a unit: '1.2 M'."""
  for unit in ('', ' k', ' M', ' G', ' T', ' P'):
    if abs(count) < 1000:
      return f'{count:.4g}{unit}'
    count /= 1000
  return f'{count:.4g} E'


def size(count: float) -> str:
  """Bytes, such as '1.2 MB'."""
  return f'{amount(count)}B' if count >= 1000 else f'{count:.0f} B'


def duration(seconds: float) -> str:
  """Such as 01:30; what is short with its tenths."""
  return f'{seconds:.1f} s' if seconds < 10 else tqdm.tqdm.format_interval(seconds)


def _about(info: listing.Info, config: Mapping[str, Any], run: Mapping[str, Any], summary: Mapping[str, Any]) -> Pairs:
  found = [('state', f'{info.state} ({info.doing})' if info.doing else info.state),
           ('step', f'{info.step} of {info.steps}')]
  if info.eta and info.state in (listing.RUNNING, listing.INTERRUPTED):
    found.append(('time to go', duration(info.eta)))
  found += [('config file', info.config)] if info.config else []
  found += [('builder', str(config.get('experiment', '')))]
  found += [(key.replace('_', ' '), str(config[key])) for key in ('seed', 'batch_size') if key in config]
  parameters = run.get('parameters')
  if parameters:
    groups = ', '.join(f'{group} {amount(count)}' for group, count in parameters.items())
    total = sum(parameters.values())
    found.append(('parameters', f'{total:,}' + (f' ({groups})' if len(parameters) > 1 else '')))
    if run.get('frozen_parameters'):
      found.append(('frozen parameters', f'{run["frozen_parameters"]:,}'))
  else:
    found.append(('parameters', 'not recorded; genjax inspect counts them'))
  if flops := run.get('step_flops') or _step_flops(info.metrics):
    found.append(('FLOPs of a step', amount(flops)))
    found.append(('FLOPs of all steps so far', amount(flops * info.step)))
  if rate := info.metrics.get('model_flops_per_second'):
    found.append(('FLOPs a second', amount(rate)))
  if seconds := summary.get('seconds'):
    found.append(('wall time', duration(seconds)))
  found.append(('disk used', size(listing.disk(info.path))))
  return found


def _step_flops(metrics: Mapping[str, float]) -> float:
  """Of a run that does not record it: from what it measured of its speed."""
  rate = metrics.get('steps_per_second', 0)
  return metrics.get('model_flops_per_second', 0) / rate if rate else 0.0


def _versions(run: Mapping[str, Any]) -> Pairs:
  found = [(name, shown(version)) for name, version in run.get('versions', {}).items()]
  return found + [(label, shown(run[key])) for label, key in (
    ('code of genjax', 'source'), ('random numbers', 'random'), ('files of the builder', 'code'),
    ('imports', 'imports')) if run.get(key)]


def _measured(path: pathlib.Path, summary: Mapping[str, Any]) -> Iterator[Measured]:
  evaluation = listing.load(path / scoring.NAME)
  if evaluation:
    yield Measured('Evaluation', _numbers(evaluation.get('metrics', {})), pairs(evaluation.get('card', {})))
  for key, title in (('heldout', 'Held out, at the end of training'), ('train', 'Training, the last log')):
    if isinstance(summary.get(key), dict) and summary[key]:
      card = summary.get('card') if key == 'heldout' else None
      yield Measured(title, _numbers(summary[key]), pairs(card or {}))


def _numbers(values: Mapping[str, Any]) -> dict[str, float | None]:
  return {name: value if isinstance(value, (int, float)) and math.isfinite(value) else None
          for name, value in values.items()}


def _time(summary: Mapping[str, Any], status: Mapping[str, Any]) -> list[tuple[str, float, float]]:
  seconds = summary.get('time', {}).get('seconds') or status.get('seconds', {})
  total = sum(seconds.values())
  return [(_SECTIONS.get(str(name), str(name)), value, value / total) for name, value in seconds.items()
          if value and total]


def _events(path: pathlib.Path, summary: Mapping[str, Any], status: Mapping[str, Any]) -> list[Event]:
  """What the run wrote of them. Of a run that wrote none, what its other files say."""
  found = []
  try:
    lines = (path / listing.EVENTS).read_text(errors='replace').splitlines()
  except OSError:
    lines = []
  for line in lines:
    try:
      entry = json.loads(line)
      found.append(Event(str(entry['time']), int(entry['step']), str(entry['event']), shown(entry.get('text', ''))))
    except (ValueError, KeyError, TypeError):  # a line that is cut off
      continue
  if found:
    return found
  if status.get('attempt', 1) > 1:
    found.append(Event('', int(status.get('reached', 0)), 'resumed', f'{status["attempt"]} attempts in all'))
  for back, step in summary.get('rollbacks', []):
    found.append(Event('', step, 'rolled back', f'to step {back}'))
  if skipped := summary.get('skipped'):
    found.append(Event('', int(summary.get('step', 0)), 'skipped', f'{skipped} updates of the last attempt'))
  return found


def _logs(path: pathlib.Path, info: listing.Info, events: list[Event]) -> list[Log]:
  """The end of what a failed run printed, what its cluster says, and what its watchdogs found."""
  failed = info.state == listing.FAILED or 'exit code' in info.doing or 'signal' in info.doing or (
    bool(events) and events[-1].kind == 'failed')
  found = [path / jobs.LOG, *sorted(path.glob('job_*.log'))] if failed else []  # of each process of the run
  queue = queues.read(path)
  if queue.get('log') and (failed or info.state in (listing.WAITING, listing.INTERRUPTED)):
    found.append(pathlib.Path(queue['log']))  # a job may end before the run begins
  return [log for log in map(_tail, [*found, path / 'watchdog.txt', *sorted(path.glob('watchdog_*.txt'))]) if log.text]


def _tail(path: pathlib.Path) -> Log:
  try:
    with open(path, 'rb') as file:
      file.seek(max(0, path.stat().st_size - _TAIL))
      text = file.read().decode(errors='replace')
  except OSError:
    return Log(path.name, '')
  lines = [line.rpartition('\r')[2] for line in text.rstrip().split('\n')]  # a bar is drawn over and over
  return Log(path.name, '\n'.join(lines[-LINES:]))
