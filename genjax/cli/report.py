"""`genjax report DIR`: one HTML page of a run or a sweep, which loads nothing from elsewhere.

DIR is a run directory, the folder of a sweep, or one with run directories in it. The page has config, data and
versions, curves, samples through time, metrics with their cards, times, events, and the table of a sweep with
differences paired by seed. It is written as DIR/report.html. What does not fit in --size is left out, and the page says
so.
"""

import argparse
import sys

from genjax.runs import atomic, outputs
from genjax.studies.report import facts, page
from genjax.types import UserError, expanded


def main(argv: list[str]) -> int:
  """Writes the page; returns the exit code."""
  parser = argparse.ArgumentParser('genjax report', description=__doc__, allow_abbrev=False,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('folder', metavar='DIR', help='a run directory, or the folder of a sweep, or of runs')
  parser.add_argument('--out', default='', metavar='FILE.html', help='where the page goes (default: DIR/report.html)')
  parser.add_argument('--size', default='20MB', metavar='SIZE', help='how large it may be (default: 20MB)')
  for flag, what in (('by', 'keys or labels that tell settings apart'), ('metrics', 'columns of the table')):
    parser.add_argument(f'--{flag}', default='', metavar='NAME,...', help=f'{what}, as for genjax table')
  parser.add_argument('--over', default='seed', metavar='KEY,...', help='keys of repetitions (default: seed)')
  parser.add_argument('--baseline', default='', metavar='LABEL=VALUE,...',
                      help='the setting that the others are held against (default: the first)')
  parser.add_argument('--allow', action='append', default=[], metavar='FIELD', help='as for genjax table')
  args = parser.parse_args(argv)
  folder = expanded(args.folder)
  if not folder.is_dir():
    raise UserError(f'{args.folder} is no folder; expected a run directory, or one with runs below it')
  out = outputs.file(args.out or str(folder / 'report.html'), '--out')
  if out.suffix not in ('.html', '.htm'):
    raise UserError(f'--out={args.out} must end in .html')
  options = page.Options(page.size(args.size), _words(args.by), _words(args.metrics), args.baseline, _words(args.over),
                         tuple(args.allow))
  made = page.make(folder, options)
  out.parent.mkdir(parents=True, exist_ok=True)
  data = made.text.encode('utf-8', errors='backslashreplace')
  atomic.write(out.parent, {out.name: data})
  for sentence in made.left_out[:20]:
    print(f'left out: {sentence}', file=sys.stderr)
  if len(made.left_out) > 20:
    print(f'left out: {len(made.left_out) - 20} more, see the page', file=sys.stderr)
  print(f'report: {out} ({facts.size(len(data))})', file=sys.stderr)
  return 0


def _words(text: str) -> tuple[str, ...]:
  return tuple(word.strip() for word in text.split(',') if word.strip())
