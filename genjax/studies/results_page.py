"""Tables of baselines: the list of rows, and the page of results, both a function of rows and results alone."""

from collections.abc import Mapping, Sequence
import csv
import dataclasses
import io
import pathlib
import re
from typing import Any

import tqdm

from genjax.studies import board, reproducing, results, rows, verdicts
from genjax.studies.baselines import Row
from genjax.types import UserError

FORMS = ('text', 'markdown', 'csv')
LIST = ('row', 'config', 'measure', 'published', 'accepted', 'seeds', 'minutes', 'data', 'state', 'obtained')
PAGE = ('row', 'measure', 'published', 'accepted', 'obtained', 'seeds', 'time of a run')

_HEAD = """# Results

This page compares what the configs reach with published figures. `genjax reproduce` trained the rows that have a value
and wrote the page; rows that were not trained stand below, with the reason. [Reproduce results](reproduce.md) shows how
to run one. Where a value is published, the accepted band was set before the run; where none is, it lies around our own
result. Values of several seeds are a mean, with the lowest and the highest. The files in `docs/results` hold every
value with its metric card, the config and the versions.

Times are those of training, on machines that other work kept busy; they say little about speed, for which there is
[Speed](speed.md). [Language models](language_results.md), [Translation](translation.md) and
[Speech recognition](speech.md) discuss some rows.
"""
_TAIL = """## What judges samples

The measures of samples are the project's own: `genjax evaluate` trains a classifier on the real set, and its labels and
features judge (its accuracy stands on the card). Where the notes name a judge that was written apart from the project,
that was a check by hand of one run of seed 0, and its value is in no table.

## Against other implementations

`tests/parity` compares outputs and gradients of the transformer, DiT, U-Net, convolutional VAE and DCGAN with the same
architectures in PyTorch on the same parameters, and GPT-2 logits with transformers' `GPT2LMHeadModel`.
`python -m genjax.experiments.benchmarks.speed` times both in turn: [Speed](speed.md).
"""


def listed(table: Mapping[str, Row], known: Mapping[str, results.Result], lacking: Mapping[str, str], form: str) -> str:
  """The rows with what is known of them here, as text that ends with a line break.

  Args:
    table: the rows that are listed.
    known: name -> result.
    lacking: name of a data set -> why it is not there.
    form: one of `FORMS`.

  Raises:
    UserError: an unknown form.
  """
  if form not in FORMS:
    raise UserError(f'--format must be one of {", ".join(FORMS)}, got {form!r}')
  lines = []
  for row in table.values():
    result, found = known.get(row.name), verdicts.of(row, known)
    for index, verdict in enumerate(found):
      whole = form == 'csv' or not index
      facts = (row.name, setting(row), *_cells(verdict)[:3], ', '.join(map(str, row.seeds)), _minutes(row),
               ', '.join(f'{name} (absent)' if name in lacking else name for name in row.data))
      shown = [cell if whole or 2 <= place <= 4 else '' for place, cell in enumerate(facts)]
      lines.append([*shown, _state(row, result, verdict) if whole or verdict.obtained else '', verdict.obtained])
  if form == 'csv':
    file = io.StringIO()
    csv.writer(file, lineterminator='\n').writerows([LIST, *lines])
    return file.getvalue()
  if form == 'text':  # configs would make lines of 250 characters
    return board.text((LIST[0], *LIST[2:]), [[line[0], *line[2:]] for line in lines]) + '\n'
  return board.markdown(LIST, lines) + '\n'


def _state(row: Row, result: results.Result | None, verdict: verdicts.Verdict) -> str:
  """What a line of the list says of the runs."""
  if result is None or not result.runs:
    return next(iter(result.missing.values())).partition(';')[0] if result and result.missing else 'not begun'
  count = sum(seed in result.runs for seed in row.seeds)
  part = '' if count == len(row.seeds) else f'{count} of {len(row.seeds)} seeds'
  return ', '.join(filter(None, [verdict.state, part]))


def summary(chosen: Sequence[Row], known: Mapping[str, results.Result]) -> str:
  """What the rows reached, for the terminal."""
  lines = []
  for row in chosen:
    for index, verdict in enumerate(verdicts.of(row, known)):
      label, published, band, obtained = _cells(verdict)
      lines.append([row.name if not index else '', label, published, band, obtained, verdict.state])
  return board.text(('row', 'measure', 'published', 'accepted', 'obtained', 'state'), lines)


def setting(row: Row) -> str:
  """The config of a row with its overrides, as one writes them."""
  given = {**row.overrides, **{key: f'{name}/seed=…' for key, name in row.uses.items()},
           **{key: f'weights/{name}' for key, name in row.weights.items()}}
  arguments = [f'{key.removeprefix("arg.")}={value}' for key, value in given.items() if key.startswith('arg.')]
  config = row.config + ((',' if ':' in row.config else ':') + ','.join(arguments) if arguments else '')
  flags = (f'--config.{key}={_written(value)}' for key, value in given.items() if not key.startswith('arg.'))
  return ' '.join([config, *flags])


def _written(value: Any) -> str:
  """A value as one writes it in a shell."""
  text = value if isinstance(value, str) else repr(value)
  if '\n' in text:
    return "$'" + text.encode('unicode_escape').decode() + "'"
  return text if re.fullmatch(r'[\w.,/=…:-]*', text) else f'"{text}"'


def of_folder(folder: pathlib.Path) -> str:
  """The page of all rows of genjax with the results of a folder, see `page`."""
  table = rows.table()
  now = {name: reproducing.config(table, row) for name, row in table.items()}
  return page(rows.families(), results.stored(folder, list(table)), now)


def page(families: Mapping[str, Sequence[Row]], known: Mapping[str, results.Result],
         configs: Mapping[str, Mapping[str, Any]]) -> str:
  """docs/results.md.

  Args:
    families: title -> rows.
    known: name -> result.
    configs: name -> config that the row has now, see `results.without_paths`; results of another one are not printed.
  """
  fresh = {row.name: _of_seeds(known[row.name], row) for group in families.values() for row in group
           if row.name in known and known[row.name].evaluate == row.evaluate
           and not results.differences(known[row.name].config, configs[row.name])}
  parts = [_HEAD]
  for family, group in families.items():
    if run := [row for row in group if row.name in fresh and fresh[row.name].runs]:
      parts.append(f'## {family}\n\n{board.markdown(PAGE, [line for row in run for line in _lines(row, fresh)])}\n')
      parts.append('\n'.join(_note(row, fresh[row.name]) for row in run) + '\n')
  if absent := [line for group in families.values() for row in group if (line := _absent(row, known, fresh))]:
    parts.append(f'## Not run here\n\n{board.markdown(("row", "setting", "measure", "published", "why"), absent)}\n')
  return '\n'.join([*parts, _TAIL])


def _of_seeds(result: results.Result, row: Row) -> results.Result:
  """A result without runs of seeds that the row had once."""
  return dataclasses.replace(result, runs={seed: run for seed, run in result.runs.items() if seed in row.seeds})


def _lines(row: Row, known: Mapping[str, results.Result]) -> list[list[str]]:
  result = known[row.name]
  run = [found for seed, found in result.runs.items() if seed in row.seeds]
  spent = [found['seconds'] for found in run if found.get('seconds')]
  time = tqdm.tqdm.format_interval(sum(spent) / len(spent)) if spent else ''
  count = str(len(run)) if len(run) == len(row.seeds) else f'{len(run)} of {len(row.seeds)}'
  lines = []
  for index, verdict in enumerate(verdicts.of(row, known)):
    label, published, band, obtained = _cells(verdict)
    if verdict.state == verdicts.OUTSIDE:
      obtained = f'**{obtained}, outside**'
    first = [f'`{row.name}`', count, time] if not index else [''] * 3
    lines.append([first[0], label, published, band, obtained or verdict.state, *first[1:]])
  return lines


def _note(row: Row, result: results.Result) -> str:
  """A line of a list: the setting, the sources, and how the setting differs from the published one."""
  sources = list(dict.fromkeys(metric.source for metric in row.metrics if metric.source))
  told = f' Source: {"; ".join(sources)}.' if sources else ''
  devices = sorted({_machine(found) for found in result.runs.values() if found.get('devices')})
  flags = f', evaluated with `{" ".join(row.evaluate)}`' if row.evaluate else ''
  where = ', '.join(devices) or 'an unknown machine'
  return f'- `{row.name}`: `{setting(row)}`{flags}, on {where}.{told} {row.note}'.rstrip()


def _machine(found: Mapping[str, Any]) -> str:
  return f'{found.get("cpus", "some")} CPU cores' if found['devices'].endswith(' cpu') else found['devices']


def _absent(row: Row, known: Mapping[str, results.Result], fresh: Mapping[str, results.Result]) -> list[str]:
  """The line of a row of which seeds were not run; empty for one that is complete."""
  result = fresh.get(row.name)
  measured = result.runs if result else {}
  missing = [seed for seed in row.seeds if seed not in measured]
  if not missing:
    return []
  if row.name in known and result is None:
    why = 'its stored result is of another setting'
  else:
    said = dict.fromkeys((result.missing if result else {}).get(seed, _usual(row)) for seed in missing)
    why = '; '.join(said)
  which = f'{verdicts.seeds(missing)}: ' if measured else ''
  first = row.metrics[0]
  return [f'`{row.name}`', f'`{setting(row)}`', first.label or first.name, first.published, f'{which}{why}']


def _usual(row: Row) -> str:
  return 'it needs an accelerator' if row.minutes is None else f'a run takes {row.minutes:g} minutes on two cores'


def _minutes(row: Row) -> str:
  if row.minutes is not None:
    return f'{row.minutes:g}'
  return 'accelerator' + (f', {row.accelerator_minutes:g}' if row.accelerator_minutes else '')


def _cells(verdict: verdicts.Verdict) -> tuple[str, str, str, str]:
  return verdict.label, verdict.published, verdict.band, verdict.obtained
