"""Whether metrics may be compared: what their cards say of how they were measured.

Data, its split and counts, the extractor and the resizing of measures, sampler and guidance, averages of parameters and
the version of the project's metrics decide. The step, the seed of the samples and versions of packages are told, and do
not: they are what is compared, or noise.
"""

from collections.abc import Mapping, Sequence
import json
import pathlib
from typing import Any

from genjax import config as config_lib
from genjax.runs import assets, scoring
from genjax.types import UserError, expanded

ABSENT = '(absent)'
_TOLD = ('step', 'seed', 'versions')
_PLACES = ('folder', 'part')  # facts of a measure that say where something lies
SUMMARY = 'summary.json'
EXIT_CODE = 8


class Incomparable(Exception):
  """Runs or metrics that may not be compared; the command line exits with 8.

  Attributes:
    fields: what differs, as --allow takes it.
  """

  def __init__(self, message: str, fields: Sequence[str]):
    self.fields = tuple(fields)
    super().__init__(message)


def read(text: str) -> dict[str, Any]:
  """The evaluation of RUN_DIR, or that of a file, as `genjax evaluate` wrote it; of a summary.json, the held-out values
  of the end of training.

  Raises:
    UserError: there is none, or it is no evaluation.
  """
  path = expanded(text)
  path = path / scoring.NAME if path.is_dir() else path
  if not path.is_file():
    raise UserError(f'{path} does not exist; evaluate the run first: genjax evaluate --workdir={path.parent}')
  found = assets.read_json(path)
  if path.name == SUMMARY and isinstance(found, dict) and isinstance(found.get('heldout'), dict):
    found = {'metrics': heldout(found), 'card': found.get('card')}
  if not isinstance(found, dict) or not isinstance(found.get('metrics'), dict) or not isinstance(
      found.get('card'), dict):
    raise UserError(f'{path} is no evaluation; expected what genjax evaluate wrote, with metrics and their card')
  return found


def heldout(summary: Mapping[str, Any]) -> dict[str, Any]:
  """The held-out values of a summary.json, named as in evaluation.json."""
  return {f'heldout/{name}': value for name, value in summary.get('heldout', {}).items() if name != 'examples'}


def deciding(card: Mapping[str, Any], sampled: bool = True) -> dict[str, Any]:
  """The facts of a card that decide, by dotted field. A sampler decides if there are measures of samples."""
  kept = {name: value for name, value in card.items() if name not in _TOLD}
  if not (sampled and card.get('measures')):
    kept.pop('sampler', None)
  return {field: value for field, value in config_lib.flatten(kept).items()
          if field.rpartition('.')[2] not in _PLACES}


def differences(cards: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
  """Fields in which cards differ, with the value of each card.

  A measure that only one of them has decides nothing, since its values stand alone.
  """
  measured = [set(card.get('measures', {})) for card in cards]
  facts = [deciding(card, sampled=sum(map(bool, measured)) > 1) for card in cards]
  found = {}
  for field in dict.fromkeys(field for card in facts for field in card):
    section, _, rest = field.partition('.')
    having = [index for index, card in enumerate(cards) if (section != 'sampler' or measured[index])
              and (section != 'measures' or any(f'{rest}.'.startswith(f'{name}.') for name in measured[index]))]
    values = [facts[index].get(field, ABSENT) for index in having]
    if any(value != values[0] for value in values):
      found[field] = [facts[index].get(field, ABSENT) if index in having else '-' for index in range(len(cards))]
  return found


def refused(found: Mapping[str, Any], allow: Sequence[str], known: Sequence[str] = ()) -> list[str]:
  """The fields of what differs that nobody allowed.

  Args:
    found: by field.
    allow: fields, sections such as 'sampler', or last words such as 'guidance'.
    known: all fields, for the message.

  Raises:
    UserError: one that is allowed is no field at all.
  """
  for name in allow:
    if not any(_covers(name, field) for field in (*known, *found)):
      raise UserError(f'--allow={name} names no field.{config_lib.suggestion(name, list(known) or list(found))} '
                      f'Those that differ are {sorted(found) or "none"}')
  return [field for field in found if not any(_covers(name, field) for name in allow)]


def _covers(name: str, field: str) -> bool:
  return field == name or field.startswith(f'{name}.') or field.rpartition('.')[2] == name


def check(evaluations: Mapping[str, Mapping[str, Any]], allow: Sequence[str] = ()) -> dict[str, list[Any]]:
  """Checks that evaluations may stand side by side.

  Args:
    evaluations: name -> what `read` returned.
    allow: fields in which they may differ, see `refused`.

  Returns:
    The fields in which they differ and may.

  Raises:
    Incomparable: they differ in others; the message shows these.
  """
  cards = [evaluation['card'] for evaluation in evaluations.values()]
  found = differences(cards)
  known = [field for card in cards for field in config_lib.flatten(card)]
  if fields := refused(found, allow, known):
    lines = '\n'.join(f'  {field}: {" | ".join(map(_shown, found[field]))}' for field in fields)
    raise Incomparable(f'{" and ".join(evaluations)} were not measured alike:\n{lines}\nMeasure them alike, or print '
                       f'them with the difference: --allow={fields[0]}', fields)
  return found


def rows(evaluations: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
  """Metrics by line, a column for each evaluation; of two, also their difference."""
  metrics = [evaluation['metrics'] for evaluation in evaluations.values()]
  found = []
  for name in dict.fromkeys(name for values in metrics for name in values):
    values = [given.get(name) for given in metrics]
    cells = ['-' if value is None else f'{value:.6g}' for value in values]
    if len(values) == 2:
      cells.append('-' if None in values else f'{values[1] - values[0]:+.4g}')
    found.append([name, *cells])
  return found


def header(evaluations: Mapping[str, Any]) -> list[str]:
  """The first line of `rows`."""
  return ['metric', *evaluations, *(['difference'] if len(evaluations) == 2 else [])]


def told(evaluations: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
  """What does not decide: the steps, the seeds of samples, and the versions that differ."""
  cards = [evaluation['card'] for evaluation in evaluations.values()]
  facts = [config_lib.flatten({name: card.get(name, ABSENT) for name in _TOLD}) for card in cards]
  fields = dict.fromkeys(field for card in facts for field in card)
  return [[field, *(_shown(card.get(field, ABSENT)) for card in facts)] for field in fields
          if not field.startswith('versions') or len({json.dumps(card.get(field)) for card in facts}) > 1]


def lines(found: Mapping[str, Sequence[Any]]) -> list[list[str]]:
  """Fields that differ, with the value of each evaluation."""
  return [[field, *map(_shown, values)] for field, values in found.items()]


def _shown(value: Any) -> str:
  return value if isinstance(value, str) else json.dumps(value)


def names(texts: Sequence[str]) -> list[str]:
  """What to call evaluations: their folders, as much of the path as tells them apart."""
  paths = [expanded(text).absolute() for text in texts]
  parts = [(path.parent if path.name in (scoring.NAME, SUMMARY) else path).parts for path in paths]
  for count in range(1, max(map(len, parts)) + 1):
    short = [str(pathlib.PurePath(*path[-count:])) for path in parts]
    if len(set(short)) == len(short):
      return short
  raise UserError('an evaluation is named twice; name different ones')
