"""`genjax runs DIR [--watch]`: what the runs below a folder are doing: state, step, ETA, last metrics, disk used.

It reads, and disturbs no run.
"""

import argparse
import collections
from collections.abc import Sequence
import contextlib
import pathlib
import time

from genjax.studies import board, listing
from genjax.types import UserError, expanded, strict_json

SECONDS = 2.0  # between two looks
SIZES = 30.0  # between two measurements of the disk
HEADER = ('run', 'config', *board.HEADER[1:], 'disk')


def main(argv: list[str]) -> int:
  """Prints the runs; returns the exit code."""
  parser = argparse.ArgumentParser('genjax runs', description=__doc__, allow_abbrev=False,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('folder', metavar='DIR', help='a run directory, or a folder with runs anywhere below it')
  parser.add_argument('--watch', action='store_true', help='again and again, until Ctrl-C')
  parser.add_argument('--metrics', default='', metavar='NAME,...', help='which metrics to show (default: losses)')
  parser.add_argument('--json', action='store_true', help='print JSON')
  args = parser.parse_args(argv)
  folder = expanded(args.folder)
  if not folder.is_dir():
    raise UserError(f'{args.folder} is no folder; expected one with runs below it')
  if args.watch and args.json:
    raise UserError('--json prints once; leave out --watch')
  look = _Look(folder, [word for word in args.metrics.split(',') if word])
  infos = look.infos()
  if not infos and not args.watch:
    raise UserError(f'{args.folder} holds no runs; expected run directories, of genjax train or genjax sweep, below it')
  if args.json:
    print(strict_json([_plain(info) for info in infos], indent=2))
  elif not args.watch:
    print(board.text(HEADER, look.rows()))
  else:
    with contextlib.suppress(KeyboardInterrupt), board.Board(look.rows, look.summary, HEADER) as shown:
      while True:
        shown.look()
        time.sleep(SECONDS)
  return 0


class _Look:
  """The runs below a folder. Sizes are measured anew only now and then: runs hold many files."""

  def __init__(self, folder: pathlib.Path, wanted: Sequence[str]):
    self._folder, self._wanted = folder, wanted
    self._sizes: dict[pathlib.Path, tuple[float, int]] = {}

  def infos(self) -> list[listing.Info]:
    """What each run does."""
    return [listing.read(path, path.relative_to(self._folder).as_posix() if path != self._folder else path.name)
            for path in listing.find(self._folder)]

  def rows(self, active: Sequence[str] = ()) -> list[list[str]]:
    """What the table shows."""
    infos = self.infos()
    return [[row[0], info.config or info.experiment, *row[1:], _shown(self._size(info.path))]
            for info, row in zip(infos, listing.rows(infos, self._wanted))]

  def summary(self, active: Sequence[str] = ()) -> str:
    """All runs in one line."""
    counts = collections.Counter(info.state for info in self.infos())
    return ', '.join(f'{counts[state]} {state}' for state in listing.STATES if counts[state]) or 'no runs yet'

  def _size(self, path: pathlib.Path) -> int:
    now = time.monotonic()
    if path not in self._sizes or now - self._sizes[path][0] > SIZES:
      self._sizes[path] = now, listing.disk(path)
    return self._sizes[path][1]


def _plain(info: listing.Info) -> dict:
  return {'run': info.name, 'path': str(info.path), 'config': info.config or info.experiment,
          'builder': info.experiment, 'state': info.state, 'doing': info.doing, 'step': info.step, 'steps': info.steps,
          'eta_seconds': info.eta, 'metrics': info.metrics, 'disk_bytes': listing.disk(info.path)}


def _shown(count: int) -> str:
  """Bytes with three digits and a unit."""
  size = float(count)
  for unit in ('B', 'kB', 'MB', 'GB'):
    if size < 1000:
      return f'{size:.3g} {unit}'
    size /= 1000
  return f'{size:.3g} TB'
