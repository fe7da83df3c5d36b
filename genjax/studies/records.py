"""Runs as a table needs them: what they are, what they measured, and whether they may stand in one table."""

from collections.abc import Mapping, Sequence
import dataclasses
import hashlib
import json
import pathlib
from typing import Any

from genjax import config as config_lib
from genjax.runs import atomic, defaults, same, scoring
from genjax.studies import compare, listing, names, sweeps
from genjax.types import UserError

_CODE = ('versions', 'source', 'code')  # what tells the code of one run from that of another
_IGNORED = (*same.PLACEMENT, 'assets.')


@dataclasses.dataclass(frozen=True)
class Record:
  """One run of a table.

  Attributes:
    name: of its folder.
    path: its folder.
    overrides: key -> value, of a sweep; empty for a run that is in none.
    config: the whole config, by dotted key.
    info: what it does.
    heldout: name -> held-out value at the end of training.
    card: of these values; empty for a run of before they had one.
    evaluation: what `genjax evaluate` wrote, or None.
    code: versions and checksums of the code that it was trained with; empty for one that has not begun.
  """

  name: str
  path: pathlib.Path
  overrides: dict[str, Any]
  config: dict[str, Any]
  info: listing.Info
  heldout: dict[str, float]
  card: dict[str, Any]
  evaluation: dict[str, Any] | None
  code: dict[str, Any]

  @property
  def finished(self) -> bool:
    """Whether it has taken all its steps."""
    return self.info.state == listing.FINISHED

  def value(self, key: str) -> Any:
    """The value of a key: of the overrides, of the config, or its default."""
    return self.overrides[key] if key in self.overrides else self.config.get(key, defaults.known().get(key))


@dataclasses.dataclass(frozen=True)
class Study:
  """All runs of a folder.

  Attributes:
    folder: the folder.
    records: its runs; of a sweep in the order of the sweep.
    keys: what the runs differ in, repetitions aside.
    labels: key -> what tables call it.
    is_sweep: whether the folder is one of `genjax sweep`.
    former: how many runs lie there that the sweep no longer yields.
  """

  folder: pathlib.Path
  records: list[Record]
  keys: tuple[str, ...]
  labels: dict[str, str]
  is_sweep: bool
  former: int = 0


def read(folder: pathlib.Path, over: Sequence[str]) -> Study:
  """The runs of a folder.

  Args:
    folder: that of a sweep, or one with run directories in it.
    over: keys whose values are repetitions.

  Raises:
    UserError: there are no runs.
  """
  found = sweeps.stored(folder)
  if found is not None:
    current = [run for run in found['runs'] if run['current']]
    records = [_record(folder / run['name'], run['name'], run['overrides'], sweeps.given_config(folder, run['name']))
               for run in current]
    varied = dict.fromkeys(key for record in records for key in record.overrides)
    keys = [key for key in found['labels'] if key in varied and key not in over]
    return Study(folder, records, tuple(keys), found['labels'], True, len(found['runs']) - len(current))
  paths = listing.find(folder)
  if not paths:
    raise UserError(f'{folder} holds no runs; name the folder of a sweep, or one with run directories in it')
  records = [_record(path, path.relative_to(folder).as_posix(), {}, listing.load(path / 'config.json'))
             for path in paths]
  keys = [key for key in differing(records) if key not in over]
  return Study(folder, records, tuple(keys), names.labels([*keys, *over], {}), False)


def _record(path: pathlib.Path, name: str, overrides: dict[str, Any], config: Mapping[str, Any]) -> Record:
  facts, summary = listing.load(path / 'run.json'), listing.load(path / 'summary.json')
  code = {key: facts[key] for key in _CODE if key in facts}
  if facts:
    code['builder'] = _digest(path / 'code')
  evaluation: dict[str, Any] | None = listing.load(path / scoring.NAME)
  if not all(isinstance(evaluation.get(part), dict) for part in ('metrics', 'card')):  # none, or a file of another tool
    evaluation = None
  return Record(name, path, overrides, config_lib.flatten(config), listing.read(path, name, config),
                compare.heldout(summary), summary.get('card') or {}, evaluation, code)


def _digest(folder: pathlib.Path) -> str:
  """A checksum of the builder that a run keeps, '' for one of genjax."""
  digest = hashlib.sha256()
  files = sorted(path for path in folder.rglob('*.py')) if folder.is_dir() else []
  for path in files:
    digest.update(f'{path.relative_to(folder).as_posix()}\n{atomic.checksum(path.read_bytes())}\n'.encode())
  return digest.hexdigest()[:16] if files else ''


def differing(records: Sequence[Record]) -> list[str]:
  """Keys of configs in which runs differ, in the order of the configs; where a run is computed is none."""
  found = set()
  for record in records[1:]:
    found |= set(defaults.differences(records[0].config, record.config, ignored=_IGNORED))
  order = list(dict.fromkeys(key for record in records for key in record.config))
  return sorted(found, key=order.index)


def groups(study: Study, by: Sequence[str], over: Sequence[str]) -> dict[tuple[str, ...], list[Record]]:
  """The runs by setting: values of the keys `by`, as text -> runs that differ in `over` alone.

  Raises:
    Incomparable: runs of a setting differ in more, or whole settings do.
  """
  found: dict[tuple[str, ...], list[Record]] = {}
  for record in study.records:
    found.setdefault(tuple(names.shown(record.value(key)) for key in by), []).append(record)
  free = {*by, *over}
  varied = {key for key in study.keys if len({json.dumps(record.value(key)) for record in study.records}) > 1}
  hidden = [key for key in study.keys if key in varied - free]
  if not hidden:
    hidden = list(dict.fromkeys(key for runs in found.values() for key in differing(runs) if key not in free))
  if hidden:
    told = '\n'.join(f'  {key}: {", ".join(dict.fromkeys(names.shown(record.value(key)) for record in study.records))}'
                     for key in hidden)
    raise compare.Incomparable(
      f'the runs differ in more than the table groups by, {", ".join(by) or "nothing"}:\n{told}\nGroup by that too, '
      f'--by={",".join([*by, *hidden])}, or make repetitions of it, --over={",".join([*over, *hidden])}', hidden)
  for runs in found.values():
    _check_repetitions(runs, over)
  return found


def _check_repetitions(runs: Sequence[Record], over: Sequence[str]) -> None:
  """Each repetition is there once."""
  first: dict[tuple, Record] = {}
  for record in runs:
    key = repetition(record, over)
    if key in first:
      raise UserError(f'{first[key].name} and {record.name} are runs of one config; the second is no repetition. '
                      'Move one of them out of the folder')
    first[key] = record


def repetition(record: Record, over: Sequence[str]) -> tuple[str, ...]:
  """Which repetition a run is: what pairs runs of different settings."""
  return tuple(names.shown(record.value(key)) for key in over)


def check_code(records: Sequence[Record], allow: Sequence[str]) -> list[str]:
  """Checks that all runs were trained by the same code.

  Args:
    records: the runs.
    allow: fields that may differ, such as 'source' or 'versions'.

  Returns:
    The fields that differ and may.

  Raises:
    Incomparable: they differ in others.
  """
  begun = [record for record in records if record.code]
  facts = [config_lib.flatten(record.code) for record in begun]
  found = {}
  for field in dict.fromkeys(field for one in facts for field in one):
    values = list(dict.fromkeys(json.dumps(one.get(field, compare.ABSENT)) for one in facts))
    if len(values) > 1:
      found[field] = values
  known = [*_CODE, *dict.fromkeys(field for one in facts for field in one)]
  if fields := compare.refused(found, [name for name in allow if _is_code(name, facts)], known):
    lines = '\n'.join(f'  {field}: {" | ".join(found[field])}' for field in fields)
    raise compare.Incomparable(
      f'the runs were trained by different code:\n{lines}\nTrain them anew, or say so in the table: '
      f'--allow={fields[0]}', fields)
  return list(found)


def _is_code(name: str, facts: Sequence[Mapping[str, Any]]) -> bool:
  """Whether an allowed field is one of the code, and not one of a metric card."""
  return name in (*_CODE, 'builder') or any(name in one for one in facts)


def check_cards(records: Sequence[Record], allow: Sequence[str], evaluated: bool = True) -> list[str]:
  """Checks that all runs were measured alike. What a run's own config says of its sampler is part of its setting.

  Args:
    records: runs, with evaluations if these are compared.
    evaluated: whether values of evaluations are compared, or the held-out ones of the end of training.
    allow: fields that may differ.

  Returns:
    The fields that differ and may.

  Raises:
    Incomparable: they differ in others.
  """
  cards = [_measured(record, evaluated) for record in records]
  found = compare.differences(cards)
  known = ['checkpoint', *dict.fromkeys(field for record in records
                                        for field in config_lib.flatten(_card(record, evaluated)))]
  code = [config_lib.flatten(record.code) for record in records]
  fields = compare.refused(found, [name for name in allow if not _is_code(name, code)], known)
  if fields:
    told = {field: dict.fromkeys(value if isinstance(value, str) else json.dumps(value) for value in found[field])
            for field in fields}
    lines = '\n'.join(f'  {field}: {" | ".join(values)}' for field, values in told.items())
    raise compare.Incomparable(f'the runs were not measured alike:\n{lines}\nEvaluate them alike, or say so in the '
                               f'table: --allow={fields[0]}', fields)
  return list(found)


def _card(record: Record, evaluated: bool) -> dict[str, Any]:
  return record.evaluation['card'] if evaluated and record.evaluation else record.card


def _measured(record: Record, evaluated: bool) -> dict[str, Any]:
  """A card without what its run's config says, with which checkpoint was evaluated."""
  card = dict(_card(record, evaluated))
  own = {key.removeprefix('sampler.'): value for key, value in record.config.items() if '.' in key}
  sampler = config_lib.flatten(card.get('sampler', {}))
  card['sampler'] = {key: value for key, value in sampler.items() if own.get(key) != value}
  if not evaluated:
    return card
  card['checkpoint'] = 'last' if card.get('step') == record.config.get('steps') else 'another one'
  return card
