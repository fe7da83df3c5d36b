"""`genjax reproduce [--list] [NAME ...]`: trains and evaluates baselines, and holds them against published values.

NAME is a row of --list, or a pattern such as 'mnist_*'; '*' is all rows. With --minutes=N all rows are meant of which
a run takes at most N minutes. What is missing in --workdir is run, what was interrupted goes on, and finished runs are
only compared. The exit code is 0 if every row asked for lies in its bands, else 1, with what is outside and by how
much. docs/reproduce.md tells more.
"""

import argparse
from collections.abc import Sequence
import pathlib
import sys

import jax

from genjax.runs import atomic, outputs
from genjax.studies import board, listing, originals, reproducing, results, results_page, rows, shares, verdicts
from genjax.studies.baselines import Row
from genjax.types import UserError, expanded

OUTSIDE = 1  # the exit code when a row is not inside its bands


def main(argv: list[str]) -> int:
  """Runs rows, keeps results, writes the page; returns the exit code."""
  args = _parser().parse_args(argv)
  jobs, minutes = _whole(args.jobs), _minutes(args.minutes)
  place = _place(args.originals)
  own = reproducing.own_rows(expanded(args.rows)) if args.rows else {}
  table = {**rows.table(), **own}
  reproducing.check_table(table)
  accelerator = bool(shares.accelerators())
  asked = args.names or minutes is not None
  chosen = reproducing.choose(table, args.names, minutes, accelerator) if asked or args.list else []
  if asked and not chosen:
    raise UserError(f'no row of {", ".join(args.names) or "genjax"} costs at most {minutes:g} minutes here; '
                    '`genjax reproduce --list` shows what they cost')
  if not chosen and not (args.keep or args.page):
    raise UserError('name the rows to reproduce, such as quickstart, or give --minutes=30 for all that cost at most '
                    'that; `genjax reproduce --list` shows them')
  page = outputs.file(args.page, '--page') if args.page else None
  folder = _results_folder(args.keep, page)
  if page and folder and not (args.keep or folder.is_dir()):
    raise UserError(f'--page={args.page} is made of the results in {folder}, and there is no such folder; name one by '
                    '--keep=DIR')
  workdir = outputs.folder(args.workdir, '--workdir').absolute()
  if (workdir / 'config.json').exists():
    raise UserError(f'--workdir={args.workdir} is a run directory; the rows need a folder of their own')
  jax.config.update('jax_platforms', 'cpu')  # the runs need the accelerators
  if args.list:
    return _list(table, chosen, workdir, place, args.format)
  code = _run(table, chosen, workdir, place, jobs, accelerator) if chosen else 0
  if args.keep:
    assert folder is not None
    _keep(rows.table(), workdir, place, accelerator, folder)
  if page:
    assert folder is not None
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(results_page.of_folder(folder), encoding='utf-8')
    print(f'page: {page}')
  return code


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser('genjax reproduce', description=__doc__, allow_abbrev=False,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('names', nargs='*', metavar='NAME', help='rows, or patterns of their names')
  parser.add_argument('--list', action='store_true', help='print the rows and what is known of them, and run none')
  parser.add_argument('--format', default='text', help=f'of --list: {", ".join(results_page.FORMS)}')
  parser.add_argument('--minutes', default='', metavar='N', help='only rows of which a run takes at most N minutes')
  parser.add_argument('--workdir', default='runs/reproduce', metavar='DIR',
                      help='the folder of the runs (default: runs/reproduce)')
  parser.add_argument('--jobs', default='1', metavar='N', help='runs at a time (default: 1)')
  parser.add_argument('--from', dest='originals', default='', metavar='FOLDER',
                      help='a folder with a folder of original files for each data set that is not prepared yet')
  parser.add_argument('--rows', default='', metavar='FILE', help='a Python file with ROWS of your own')
  parser.add_argument('--keep', default='', metavar='DIR', help='write the results of --workdir there, a file a row')
  parser.add_argument('--page', default='', metavar='FILE',
                      help='write the page of results, from the files of --keep, or of the folder called as the page')
  return parser


def _whole(text: str) -> int:
  if not text.isdecimal() or int(text) < 1:
    raise UserError(f'--jobs must be a whole number of at least 1, got {text!r}')
  return int(text)


def _minutes(text: str) -> float | None:
  try:
    found = float(text) if text else None
  except ValueError:
    found = -1.0
  if found is not None and not found > 0:
    raise UserError(f'--minutes must be a number above 0, got {text!r}')
  return found


def _place(text: str) -> pathlib.Path | None:
  if text and not expanded(text).is_dir():
    raise UserError(f'--from={text} is no folder; name one with the original files of data sets, such as '
                    'FOLDER/mnist and FOLDER/names')
  return expanded(text) if text else None


def _results_folder(keep: str, page: pathlib.Path | None) -> pathlib.Path | None:
  if keep:
    return outputs.folder(keep, '--keep')
  return page.with_suffix('') if page else None


def _list(table: dict[str, Row], chosen: Sequence[Row], workdir: pathlib.Path, place: pathlib.Path | None,
          form: str) -> int:
  """Prints the rows with the state of their runs; nothing is prepared."""
  known = {}
  for row in table.values():
    if (workdir / row.name).is_dir():
      try:
        known[row.name] = reproducing.plan(table, row, workdir, place).collect()
      except UserError as error:
        print(f'genjax reproduce: {error}', file=sys.stderr)
  sets = {name for row in chosen for name in row.data}
  lacking = {name: why for name in sorted(sets) if (why := originals.lacking(name, place))}
  print(results_page.listed({row.name: row for row in chosen}, known, lacking, form), end='')
  return 0


def _run(table: dict[str, Row], chosen: Sequence[Row], workdir: pathlib.Path, place: pathlib.Path | None, jobs: int,
         accelerator: bool) -> int:
  needed = reproducing.with_needed(table, chosen)
  planned = [reproducing.plan(table, row, workdir, place) for row in needed]
  lacking = reproducing.missing(planned, place, accelerator)
  for name, why in lacking.items():
    print(f'genjax reproduce: {name} is not run: {why}', file=sys.stderr)
  ready = [one for one in planned if one.row.name not in lacking]
  look = _Look(ready, accelerator, jobs)
  with board.Board(look.rows, look.summary) as shown:
    if more := [one.row.name for one in ready if one.row not in chosen]:
      shown.say(f'rows that these stand on, or are compared with, go along: {", ".join(more)}')
    shown.say(look.begin(workdir))
    failed, stopped = reproducing.run(ready, jobs, shown)
  known = {}
  for one in planned:
    known[one.row.name] = one.collect(lacking.get(one.row.name, ''))
    if one.folder.is_dir():
      atomic.write_json(one.folder / results.FILE, known[one.row.name].as_json())
  print(results_page.summary(chosen, known))
  for name, why in failed.items():
    print(f'genjax reproduce: {name} failed: {why}', file=sys.stderr)
  if stopped:
    print(f'genjax reproduce: stopped by {stopped}; what was trained is saved, run the same command to go on',
          file=sys.stderr)
  said = [line for row in chosen for line in verdicts.complaints(row, verdicts.of(row, known), known.get(row.name))]
  for line in said:
    print(f'genjax reproduce: {line}', file=sys.stderr)
  return OUTSIDE if said or failed else 0


def _keep(table: dict[str, Row], workdir: pathlib.Path, place: pathlib.Path | None, accelerator: bool,
          folder: pathlib.Path) -> None:
  """Writes the results of all rows of genjax."""
  planned = [reproducing.plan(table, row, workdir, place) for row in table.values()]
  why = {}
  for one in planned:
    lacking = [name for name in one.row.data if originals.lacking(name, place)]
    needs = 'it needs an accelerator' if reproducing.cost(one.row, accelerator) is None else ''
    absent = [name for name in one.row.weights.values() if originals.no_weights(workdir, name)]
    why[one.row.name] = needs or ('its data is absent: ' + ', '.join(lacking) if lacking else '') or (
      f'its weights are absent: {", ".join(absent)}' if absent else '')
  kept = results.keep({one.row.name: one.collect(why[one.row.name]) for one in planned}, folder)
  print(f'results of {sum(bool(result.runs) for result in kept.values())} of {len(kept)} rows: {folder}')


class _Look:
  """What the runs of rows do, for the board."""

  def __init__(self, planned: Sequence[reproducing.Planned], accelerator: bool, jobs: int):
    self._planned, self._jobs = planned, jobs
    self._minutes = sum((reproducing.cost(one.row, accelerator) or 0) * sum(
      bool(task.pending()) for task in one.tasks.values()) for one in planned)

  def begin(self, workdir: pathlib.Path) -> str:
    """The first line."""
    tasks = [task for one in self._planned for task in one.tasks.values()]
    return (f'{len(self._planned)} rows, {len(tasks)} runs in {workdir}, {sum(bool(task.pending()) for task in tasks)} '
            f'to do, about {self._minutes / self._jobs:.3g} minutes')

  def _infos(self) -> list[listing.Info]:
    return [listing.read(task.folder, task.name, setting.config) for one in self._planned
            for task, setting in zip(one.tasks.values(), one.sweep.settings)]

  def rows(self, active: Sequence[str]) -> list[list[str]]:
    """What the table shows."""
    return list(listing.rows(self._infos()))

  def summary(self, active: Sequence[str] = ()) -> str:
    """All runs in one line."""
    infos = self._infos()
    counts = {state: sum(info.state == state for info in infos) for state in listing.STATES}
    return ', '.join(f'{count} {state}' for state, count in counts.items() if count) + f' of {len(infos)}'
