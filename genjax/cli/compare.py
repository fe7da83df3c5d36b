"""`genjax compare RUN RUN ... [--allow=FIELD]`: evaluations side by side, if they were measured alike.

Each RUN is a run directory that was evaluated, or an evaluation.json. Where their metric cards differ in data, split,
counts, extractor, resizing, sampler, guidance, averages or version of the metrics, it refuses with exit code 8 and
names the fields.
"""

import argparse
import sys

from genjax.studies import board, compare
from genjax.types import UserError, strict_json


def main(argv: list[str]) -> int:
  """Compares; returns the exit code."""
  parser = argparse.ArgumentParser('genjax compare', description=__doc__, allow_abbrev=False,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('runs', nargs='*', metavar='RUN', help='run directories, or evaluation.json files')
  parser.add_argument('--allow', action='append', default=[], metavar='FIELD',
                      help="compare although this differs, and say so: a field, a section ('sampler') or a last word "
                      "('guidance')")
  parser.add_argument('--json', action='store_true', help='print JSON')
  args = parser.parse_args(argv)
  if len(args.runs) < 2:
    raise UserError(f'genjax compare takes at least two run directories, got {len(args.runs)}; the runs of a sweep '
                    'stand side by side in `genjax table DIR`')
  found = dict(zip(compare.names(args.runs), map(compare.read, args.runs)))
  try:
    differing = compare.check(found, args.allow)
  except compare.Incomparable as error:
    print(f'genjax compare: refused: {error}', file=sys.stderr)
    return compare.EXIT_CODE
  if args.json:
    print(strict_json({'evaluations': found, 'different': differing}, indent=2))
    return 0
  print(board.text(compare.header(found), compare.rows(found)))
  print('\n' + board.text(('card', *found), compare.told(found)))
  if differing:
    print('\nNOT MEASURED ALIKE\n' + board.text(('card', *found), compare.lines(differing)))
  return 0
