"""`genjax sweep --config=FILE[:args] --workdir=DIR [--config.key=value ...]`: trains what `sweep()` of a config yields.

Every setting becomes a run directory below DIR, named after what it changes. All are checked before the first begins.
Run again, it skips what is finished and resumes what is not; after a change of sweep() it adds the new runs. Without
--config it goes on with the sweep of DIR. With --slurm or --kubernetes a cluster trains them. docs/sweeps.md shows how
to write sweep(), docs/clusters.md how to use clusters.
"""

import argparse
from collections.abc import Sequence
import contextlib
import dataclasses
import pathlib
import re
import shlex
import sys
import time

import jax

from genjax import config as config_lib
from genjax.cli import evaluate, submitting
from genjax.config import suggestion
from genjax.runs import extensions, lock
from genjax.runs import workdir as workdir_lib
from genjax.studies import board, jobs, listing, queues, search, sweeps
from genjax.training.monitoring.progress import interval
from genjax.types import UserError

FAILED = 9  # the exit code when a run of the sweep failed


def main(argv: list[str]) -> int:
  """Runs the sweep; returns the exit code."""
  args, rest = _parser().parse_known_args(argv)
  fixed = _fixed(rest)
  count = _whole('--jobs', args.jobs) if args.jobs else None
  if args.slurm is not None and args.kubernetes:
    raise UserError('--slurm and --kubernetes are two clusters; give one of them')
  clustered = args.slurm is not None or bool(args.kubernetes)
  only_listed = args.list and args.config and not (args.workdir or clustered or args.task)
  folder = None if only_listed else sweeps.folder(args.workdir)
  # The checks build models, and must not take the accelerators that the runs need.
  jax.config.update('jax_platforms', 'cpu')
  if args.task:
    assert folder is not None
    return submitting.work(folder.absolute(), args.task)
  sweep = _with_trials(_sweep(args, fixed, folder), args.trials, clustered)
  flags = None if args.evaluate is None else shlex.split(args.evaluate)
  if flags is not None:
    _check_evaluation(sweep, flags)
  if clustered:
    assert folder is not None
    return submitting.submit(sweep, folder.absolute(), args, count, flags, lambda: _watch(sweep, folder, flags))
  if args.list or folder is None:
    print(board.text(*_listed(sweep)))
    return 0
  workdir_lib.prepare(str(folder))
  with lock.hold(folder):
    sweeps.write(sweep, folder)
    return _run(sweep, folder, count or 1, flags)


def _whole(flag: str, text: str) -> int:
  """A number of at least 1."""
  if not text.isdecimal() or int(text) < 1:
    raise UserError(f'{flag} must be a whole number of at least 1, got {text!r}')
  return int(text)


def _with_trials(sweep: sweeps.Sweep, text: str, clustered: bool) -> sweeps.Sweep:
  """The sweep with as many trials as --trials says, if it is a search."""
  count = _whole('--trials', text) if text else None
  if sweep.search is None:
    if count:
      raise UserError('--trials is of a search; sweep() yields settings, and each is a run')
    return sweep
  search.check()
  if clustered:
    raise UserError('a search chooses the next setting when a run ends, and so lasts as long as its runs; start it in '
                    'one job of the cluster, with --jobs=N for its GPUs')
  return dataclasses.replace(sweep, search={**sweep.search, 'trials': count}) if count else sweep


def _listed(sweep: sweeps.Sweep) -> tuple[tuple[str, str], list[tuple[str, str]]]:
  """Header and rows of --list."""
  if sweep.search is None:
    return ('run', 'overrides'), [
      (setting.name, '  '.join(f'{key}={value!r}' for key, value in setting.overrides.items()))
      for setting in sweep.settings]
  rows = []
  for key, one in sweep.search['distributions'].items():
    values = ', '.join(map(repr, one['values'])) or f'{one["low"]:g} to {one["high"]:g}'
    rows.append((key, f'{one["kind"]} of {values}'))
  return ('key', f'{sweep.search["trials"]} trials, {sweep.search["metric"]}, {sweep.search["goal"]}'), rows


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser('genjax sweep', description=__doc__, allow_abbrev=False,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--config', default='', metavar='FILE[:args]', help='a config file with a function sweep()')
  parser.add_argument('--workdir', default='', metavar='DIR', help='the folder of the runs')
  parser.add_argument('--list', action='store_true', help='print names and overrides of the runs, and begin none')
  parser.add_argument('--jobs', default='', metavar='N',
                      help='runs at a time, each with its share of the cores and accelerators (default: 1; on '
                      'a cluster as many as there is room for)')
  parser.add_argument('--evaluate', nargs='?', const='', metavar='FLAGS',
                      help="evaluate each run when it is trained, for tables; e.g. --evaluate='--no-samples'")
  parser.add_argument('--trials', default='', metavar='N', help='how many settings a search chooses')
  parser.add_argument('--slurm', nargs='?', const='', metavar='FILE|OPTIONS',
                      help='submit a job array to Slurm, with the lines #SBATCH and the set-up of a file, or with '
                      "options: --slurm='--partition=gpu --gpus-per-node=1'; with --list print its script")
  parser.add_argument('--kubernetes', default='', metavar='FILE',
                      help='write a manifest for Kubernetes, from one of kind Job or JobSet; with --list print it')
  parser.add_argument('--wait', action='store_true', help='with --slurm, show the runs until none is in the queue')
  parser.add_argument('--task', default='', metavar='NUMBER', help='what a job of a cluster starts; not for people')
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
    sweep = sweeps.continued(sweep, folder)
  return sweep


def _fixed(rest: list[str]) -> dict[str, str]:
  """Flags --config.KEY=VALUE that all runs get."""
  found = {}
  for arg in rest:
    flag = re.fullmatch(r'--?config\.([\w.]+)=(.*)', arg, re.DOTALL)
    if flag is None:
      known = ('--config', '--workdir', '--list', '--jobs', '--evaluate', '--import', '--trials', '--slurm',
               '--kubernetes', '--wait')
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


def _run(sweep: sweeps.Sweep, folder: pathlib.Path, count: int, flags: list[str] | None) -> int:
  look = _Look(sweep, folder, count)
  with board.Board(look.rows, look.summary) as shown, contextlib.ExitStack() as stack:
    if sweep.search is not None:
      source = stack.enter_context(contextlib.closing(search.Search(sweep, folder, flags, shown.say)))
      shown.say(f'a search of {sweep.search["trials"]} trials in {folder}, {count} at a time')
    else:
      source = _here(sweeps.tasks(sweep, folder, flags), shown)
      shown.say(f'{len(sweep.settings)} runs in {folder}, {sum(bool(task.pending()) for task in source)} to do, '
                f'{count} at a time')
    failed, stopped = jobs.run(source, count, shown)
  if stopped:
    print(f'genjax sweep: stopped by {stopped}; what was trained is saved, run the same command to go on',
          file=sys.stderr)
    return 0
  print(look.summary())
  if line := search.best(folder):
    print(line)
  print(f'next: genjax table {folder}')
  for name, why in failed.items():
    print(f'genjax sweep: {name} failed: {why}', file=sys.stderr)
  if isinstance(source, search.Search) and source.wrong:
    raise UserError(f'the search has stopped: {source.wrong}. Name one of them in sweep()')
  return FAILED if failed else 0


def _here(tasks: list[jobs.Task], shown: board.Board) -> list[jobs.Task]:
  """The tasks that no cluster works on."""
  found = []
  for task in tasks:
    if queues.state(queue := queues.read(task.folder)) in (queues.PENDING, queues.RUNNING):
      shown.say(f'{task.name}: left to job {queue["job"]} of {queue["engine"]}')
    else:
      found.append(task)
  return found


def _watch(sweep: sweeps.Sweep, folder: pathlib.Path, flags: Sequence[str] | None) -> int:
  """Shows the runs of a sweep until the queue of a cluster has none of them; returns the exit code."""
  look, folders = _Look(sweep, folder, 1), [folder / setting.name for setting in sweep.settings]
  with board.Board(look.rows, look.summary) as shown:
    while any(queues.is_active(path) for path in folders):
      shown.look()
      time.sleep(1.0)
  print(look.summary())
  left = [task for task in sweeps.tasks(sweep, folder, flags) if task.pending()]
  for task in left:
    print(f'genjax sweep: {task.name} {_left(task)}', file=sys.stderr)
  return FAILED if left else 0


def _left(task: jobs.Task) -> str:
  """Why something is left to do of a run that is in no queue."""
  job, info = listing.load(task.folder / listing.JOB), listing.read(task.folder)
  if job.get('exit'):
    return f'failed: {listing.reason(job)}; its log is {task.folder / jobs.LOG}'
  log = pathlib.Path(queues.read(task.folder).get('log') or '/')
  state = 'not evaluated' if info.state == listing.FINISHED else info.state
  return f'is {state}' + (f': {info.doing}' if info.doing else '') + (
    f'; what Slurm says is in {log}' if log.is_file() else '')


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
    ended = (listing.FINISHED, listing.FAILED, listing.ENDED)
    to_go = sum(info.steps - info.step for info in infos if info.state not in ended)
    return to_go * sum(rates) / len(rates) / self._count if rates else None
