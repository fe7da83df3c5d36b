"""`genjax sweep --config=FILE[:args] --workdir=DIR [--config.key=value ...]`: trains what `sweep()` of a config yields.

Every setting becomes a run directory below DIR, named after what it changes. All are checked before the first begins.
Run again, it skips what is finished and resumes what is not; after a change of sweep() it adds the new runs. Without
--config it goes on with the sweep of DIR. docs/sweeps.md shows how to write sweep().
"""

import argparse
from collections.abc import Sequence
import dataclasses
import pathlib
import re
import shlex
import sys

import jax

from genjax import config as config_lib
from genjax.cli import evaluate
from genjax.config import suggestion
from genjax.runs import extensions, lock
from genjax.runs import workdir as workdir_lib
from genjax.studies import board, jobs, listing, sweeps
from genjax.training.monitoring.progress import interval
from genjax.types import UserError

FAILED = 9  # the exit code when a run of the sweep failed


def main(argv: list[str]) -> int:
  """Runs the sweep; returns the exit code."""
  args, rest = _parser().parse_known_args(argv)
  fixed = _fixed(rest)
  if not args.jobs.isdecimal() or int(args.jobs) < 1:
    raise UserError(f'--jobs must be a whole number of at least 1, got {args.jobs!r}')
  folder = sweeps.folder(args.workdir) if args.workdir or not (args.list and args.config) else None
  # The checks build models, and must not take the accelerators that the runs need.
  jax.config.update('jax_platforms', 'cpu')
  sweep = _sweep(args, fixed, folder)
  if args.evaluate is not None:
    _check_evaluation(sweep, shlex.split(args.evaluate))
  if args.list or folder is None:
    rows = [(setting.name, '  '.join(f'{key}={value!r}' for key, value in setting.overrides.items()))
            for setting in sweep.settings]
    print(board.text(('run', 'overrides'), rows))
    return 0
  workdir_lib.prepare(str(folder))
  with lock.hold(folder):
    sweeps.write(sweep, folder)
    return _run(sweep, folder, int(args.jobs), args.evaluate)


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser('genjax sweep', description=__doc__, allow_abbrev=False,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--config', default='', metavar='FILE[:args]', help='a config file with a function sweep()')
  parser.add_argument('--workdir', default='', metavar='DIR', help='the folder of the runs')
  parser.add_argument('--list', action='store_true', help='print names and overrides of the runs, and begin none')
  parser.add_argument('--jobs', default='1', metavar='N',
                      help='runs at a time, each with its share of the cores and accelerators (default: 1)')
  parser.add_argument('--evaluate', nargs='?', const='', metavar='FLAGS',
                      help="evaluate each run when it is trained, for tables; e.g. --evaluate='--no-samples'")
  extensions.add_flag(parser)
  return parser


def _sweep(args: argparse.Namespace, fixed: dict[str, str], folder: pathlib.Path | None) -> sweeps.Sweep:
  """The sweep of --config, or that of the folder; checked."""
  if not args.config:
    if fixed or args.imports:
      raise UserError('--config.KEY=VALUE and --import are of a new sweep; give --config=FILE, or leave them out to go '
                      'on with that of --workdir')
    assert folder is not None
    return sweeps.reopened(folder)
  before = sweeps.stored(folder) if folder else None
  sweep = sweeps.read(args.config, fixed, args.imports, before['labels'] if before else None)
  if folder:
    sweeps.check_folder(sweep, folder)
  return sweep


def _fixed(rest: list[str]) -> dict[str, str]:
  """Flags --config.KEY=VALUE that all runs get."""
  found = {}
  for arg in rest:
    flag = re.fullmatch(r'--?config\.([\w.]+)=(.*)', arg, re.DOTALL)
    if flag is None:
      known = ('--config', '--workdir', '--list', '--jobs', '--evaluate', '--import')
      raise UserError(f'unexpected argument {arg!r}.{suggestion(arg.partition("=")[0], known)} Expected '
                      '--config.KEY=VALUE for what all runs change, or a flag of genjax sweep --help')
    found[flag[1]] = flag[2]
  return found


def _check_evaluation(sweep: sweeps.Sweep, flags: list[str]) -> None:
  """Checks the flags of `genjax evaluate` on every config, before a run begins."""
  args = evaluate.arguments().parse_args(['--workdir=RUN', *flags])
  for setting in sweep.settings:
    config = config_lib.from_plain(setting.config)
    for assignment in args.set:
      config_lib.override(config, assignment)


def _run(sweep: sweeps.Sweep, folder: pathlib.Path, count: int, flags: str | None) -> int:
  tasks = sweeps.tasks(sweep, folder, None if flags is None else shlex.split(flags))
  look = _Look(sweep, folder, count)
  with board.Board(look.rows, look.summary) as shown:
    shown.say(f'{len(tasks)} runs in {folder}, {sum(bool(task.pending()) for task in tasks)} to do, {count} at a time')
    failed, stopped = jobs.run(tasks, count, shown)
  if stopped:
    print(f'genjax sweep: stopped by {stopped}; what was trained is saved, run the same command to go on',
          file=sys.stderr)
    return 0
  print(look.summary())
  print(f'next: genjax table {folder}')
  if failed:
    for name, why in failed.items():
      print(f'genjax sweep: {name} failed: {why}', file=sys.stderr)
    return FAILED
  return 0


class _Look:
  """What the runs of a sweep do."""

  def __init__(self, sweep: sweeps.Sweep, folder: pathlib.Path, count: int):
    self._sweep, self._folder, self._count = sweep, folder, count
    self._finished: dict[str, listing.Info] = {}

  def _infos(self, active: Sequence[str]) -> list[listing.Info]:
    found = []
    for setting in self._sweep.settings:
      info = self._finished.get(setting.name) or listing.read(self._folder / setting.name, setting.name, setting.config)
      if info.state == listing.FINISHED:
        self._finished[setting.name] = info
        if setting.name in active:  # its training has ended, and its process has not
          info = dataclasses.replace(info, state=listing.RUNNING, doing='evaluate')
      found.append(info)
    return found

  def rows(self, active: Sequence[str]) -> list[list[str]]:
    """What the table shows."""
    return list(listing.rows(self._infos(active)))

  def summary(self, active: Sequence[str] = ()) -> str:
    """All runs in one line."""
    infos = self._infos(active)
    counts = {state: sum(info.state == state for info in infos) for state in listing.STATES}
    told = ', '.join(f'{count} {state}' for state, count in counts.items() if count)
    eta = self._eta(infos)
    return f'{told} of {len(infos)}' + (f'; ETA {interval(eta)}' if eta else '')

  def _eta(self, infos: list[listing.Info]) -> float | None:
    """Seconds of training to go, from those that the steps of all runs have taken."""
    rates = [info.rate for info in infos if info.rate]
    to_go = sum(info.steps - info.step for info in infos if info.state not in (listing.FINISHED, listing.FAILED))
    return to_go * sum(rates) / len(rates) / self._count if rates else None
