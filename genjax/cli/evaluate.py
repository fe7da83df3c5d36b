"""`genjax evaluate --workdir=DIR`: the metrics of a run on its held-out split, as JSON with a metric card.

Averaged parameters are used where the run has them. The result goes to standard output and to evaluation.json.
"""

import argparse
import pathlib

import numpy as np

from genjax import checks, distributed
from genjax.cli import flags, hosts
from genjax.runs import extensions, outputs, scoring
from genjax.runs import workdir as workdir_lib
from genjax.types import UserError, expanded, strict_json


def arguments() -> argparse.ArgumentParser:
  """The flags of the command."""
  parser = argparse.ArgumentParser('genjax evaluate', description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--workdir', required=True, help='a run directory')
  flags.add_step(parser)
  extensions.add_flag(parser)
  flags.add_averages(parser)
  parser.add_argument('--seed', type=int, default=0, help='of the samples that sample-based metrics draw')
  parser.add_argument('--set', nargs='+', action='extend', default=[], metavar='KEY=VALUE',
                      help='e.g. sampler.steps=25')
  parser.add_argument('--no-samples', action='store_true', help='leave out the metrics that draw samples')
  parser.add_argument('--per-example', metavar='PATH.npz',
                      help='write the value of each held-out example, in the order of the split')
  hosts.add(parser)
  return parser


def main(argv: list[str]) -> int:
  """Evaluates; returns the exit code."""
  args = arguments().parse_args(argv)
  if args.per_example and not args.per_example.endswith('.npz'):
    raise UserError(f'--per-example takes a path that ends in .npz, got {args.per_example}')
  each_out = outputs.file(args.per_example, '--per-example') if args.per_example else None
  checks.seed('--seed', args.seed)
  distributed.join(hosts.options(args))
  samples = not args.no_samples
  config, run = workdir_lib.open_run(args.workdir, args.set, args.step,
                                     check=lambda run: scoring.check(run, samples, flags.averaged(args),
                                                                     expanded(args.workdir)),
                                     imports=args.imports)
  if each_out:
    workdir_lib.prepare(str(each_out.parent), '--per-example')
  evaluation = scoring.evaluate(config, run, flags.averaged(args), samples, args.seed)
  if distributed.is_first():
    if each_out:
      np.savez_compressed(each_out, **evaluation.examples)  # type: ignore[arg-type]
    print(strict_json(evaluation.as_json(), indent=2))
  scoring.keep(pathlib.Path(args.workdir), evaluation)
  return 0
