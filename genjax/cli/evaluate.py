"""`genjax evaluate --workdir=DIR`: the metrics of a run on its held-out split, as JSON with a metric card.

Averaged parameters are used where the run has them. The result goes to standard output and to evaluation.json.

--each=KEY=VALUE,VALUE evaluates once with each value of an option, and prints a table. Each result is kept, with its
card, in DIR/evaluations/KEY=VALUE.json, and evaluation.json stays as it is:

    genjax evaluate --workdir=runs/stylegan2 --each=objective.truncation=0.5,0.7,1 --set \\
      evaluation.measures=frechet,precision_recall evaluation.extractor=judge evaluation.parts.judge=runs/judge
"""

import argparse
from collections.abc import Mapping, Sequence
import functools
import pathlib

import numpy as np

from genjax import checks, distributed
from genjax.cli import flags, hosts
from genjax.config import Config
from genjax.runs import atomic, extensions, outputs, scoring
from genjax.runs import workdir as workdir_lib
from genjax.studies import board
from genjax.training.monitoring import logs
from genjax.training.run import Run
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
  parser.add_argument('--each', default='', metavar='KEY=VALUE,...',
                      help='evaluate with each of these values, and print a table')
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
  if args.each:
    return _each(args)
  config, run = _opened(args, args.set)
  if each_out:
    workdir_lib.prepare(str(each_out.parent), '--per-example')
  evaluation = scoring.evaluate(config, run, flags.averaged(args), not args.no_samples, args.seed)
  if distributed.is_first():
    if each_out:
      np.savez_compressed(each_out, **evaluation.examples)  # type: ignore[arg-type]
    print(strict_json(evaluation.as_json(), indent=2))
  scoring.keep(pathlib.Path(args.workdir), evaluation)
  return 0


def _opened(args: argparse.Namespace, changes: Sequence[str]) -> tuple[Config, Run]:
  """The run with changes, of which it is known that it can be evaluated."""
  check = functools.partial(scoring.check, samples=not args.no_samples, averaged=flags.averaged(args),
                            workdir=expanded(args.workdir))
  return workdir_lib.open_run(args.workdir, changes, args.step, check=check, imports=args.imports)


def _each(args: argparse.Namespace) -> int:
  """Evaluates with each value of an option, and prints a table; returns the exit code."""
  key, equals, text = args.each.partition('=')
  values = [value.strip() for value in text.split(',')]
  files = [f'{key}={value}.json'.replace('/', '_') for value in values]
  if not (key and equals and all(values)) or len(set(files)) < len(files):
    raise UserError('--each takes an option and its values, each once, such as objective.truncation=0.5,0.7,1, got '
                    f'{args.each!r}')
  if any(assignment.partition('=')[0] == key for assignment in args.set):
    raise UserError(f'{key} is set by --set and by --each; leave it out of one of them')
  if args.per_example:
    raise UserError('--per-example writes the values of one evaluation; leave it out, or --each')
  settings = {value: [*args.set, f'{key}={value}'] for value in values}
  for changes in settings.values():
    workdir_lib.load(args.workdir, changes, imports=args.imports)  # a wrong value is known before anything is computed
  folder = expanded(args.workdir) / scoring.FOLDER
  workdir_lib.prepare(str(folder))
  found = {}
  for file, (value, changes) in zip(files, settings.items()):
    config, run = _opened(args, changes)
    logs.say(f'{key}={value}')
    found[value] = scoring.evaluate(config, run, flags.averaged(args), not args.no_samples, args.seed)
    if distributed.is_first():
      atomic.write_json(folder / file, found[value].as_json())
  if distributed.is_first():
    print(_table(key, {value: evaluation.metrics for value, evaluation in found.items()}))
  return 0


def _table(key: str, found: Mapping[str, Mapping[str, float]]) -> str:
  """A line for each value in Markdown: what measures of samples found, or, if there are none, the held-out values."""
  names = list(dict.fromkeys(name for metrics in found.values() for name in metrics))
  shown = [name for name in names if not name.startswith('heldout/')] or names
  return board.markdown([key, *shown], [
    [value, *(f'{metrics[name]:.4g}' if name in metrics else '-' for name in shown)]
    for value, metrics in found.items()], keys=1)
