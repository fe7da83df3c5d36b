"""`genjax table DIR`: mean, standard deviation and number of repetitions of each setting of a sweep.

DIR is the folder of a sweep, or one with run directories in it. The best is bold, and unfinished and failed runs are
named. With --baseline come differences, paired by seed, with bootstrap intervals. Runs that differ in more than the
table groups by, in their code, or in how they were measured, are refused with exit code 8.
"""

import argparse
import pathlib
import sys

from genjax.runs import outputs
from genjax.studies import compare, curves, rendering, tables
from genjax.types import UserError, expanded


def main(argv: list[str]) -> int:
  """Prints the table; returns the exit code."""
  parser = argparse.ArgumentParser('genjax table', description=__doc__, allow_abbrev=False,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('folder', metavar='DIR', help='the folder of a sweep, or of runs')
  parser.add_argument('--by', default='', metavar='KEY,...', help='keys or labels that tell settings apart')
  parser.add_argument('--over', default='seed', metavar='KEY,...', help='keys of repetitions (default: seed)')
  parser.add_argument('--metrics', default='', metavar='NAME[:min|max],...',
                      help="columns, and whether less or more is better; 'all' for all")
  parser.add_argument('--baseline', default='', metavar='LABEL=VALUE,...',
                      help='the setting that the others are held against')
  parser.add_argument('--format', default='', help=f'{", ".join(rendering.FORMS)} (default: by --out, or markdown)')
  parser.add_argument('--out', default='', metavar='FILE', help='write there: .md, .tex or .csv')
  parser.add_argument('--curves', default='', metavar='FILE', help='draw curves with bands, too: .png or .svg')
  parser.add_argument('--curve', default='', metavar='METRIC', help='of which metric of metrics.jsonl')
  parser.add_argument('--allow', action='append', default=[], metavar='FIELD',
                      help="a field in which runs or cards may differ, such as 'source' or 'versions'; the table says "
                      'so')
  args = parser.parse_args(argv)
  out = outputs.file(args.out, '--out') if args.out else None
  drawn = outputs.file(args.curves, '--curves') if args.curves else None
  form = args.format or _form(out)
  if form not in rendering.FORMS:
    raise UserError(f'--format must be one of {sorted(rendering.FORMS)}, got {form!r}')
  if args.curve and not drawn:
    raise UserError('--curve says what --curves=FILE draws; give that too')
  if drawn:
    curves.check(drawn)
  try:
    table = tables.make(expanded(args.folder), _words(args.by), _words(args.metrics), args.baseline, _words(args.over),
                        args.allow)
  except compare.Incomparable as error:
    print(f'genjax table: refused: {error}', file=sys.stderr)
    return compare.EXIT_CODE
  text = rendering.render(table, form)
  if drawn:
    metric, found = curves.find(table, args.curve)
    drawn.parent.mkdir(parents=True, exist_ok=True)
    curves.draw(metric, found, drawn)
    print(f'{metric} of {len(found)} settings: {drawn}', file=sys.stderr)
  if out:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding='utf-8')
    print(f'table: {out}', file=sys.stderr)
  else:
    print(text, end='')
  return 0


def _form(out: pathlib.Path | None) -> str:
  """The form of a file, by its ending."""
  if out is None:
    return 'markdown'
  if out.suffix not in rendering.ENDINGS:
    raise UserError(f'--out={out} must end in one of {", ".join(rendering.ENDINGS)}, or --format says the form')
  return rendering.ENDINGS[out.suffix]


def _words(text: str) -> list[str]:
  return [word.strip() for word in text.split(',') if word.strip()]
