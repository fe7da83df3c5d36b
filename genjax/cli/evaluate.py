"""`genjax evaluate --workdir=DIR`: the metrics of a run on its held-out split, as JSON with a metric card.

Averaged parameters are used where the run has them. The result goes to standard output and to evaluation.json.
"""

import argparse
import os
import pathlib

import numpy as np

from genjax import checks, distributed
from genjax import config as config_lib
from genjax.cli import hosts
from genjax.metrics.card import Card
from genjax.runs import extensions, outputs
from genjax.runs import workdir as workdir_lib
from genjax.training import rehearsal
from genjax.training.monitoring import logs
from genjax.training.run import Run
from genjax.types import UserError, strict_json


def main(argv: list[str]) -> int:
  """Evaluates; returns the exit code."""
  parser = argparse.ArgumentParser('genjax evaluate', description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--workdir', required=True, help='a run directory')
  workdir_lib.add_step(parser)
  extensions.add_flag(parser)
  parser.add_argument('--raw', action='store_true', help='use the parameters themselves, not their averages')
  parser.add_argument('--seed', type=int, default=0, help='of the samples that sample-based metrics draw')
  parser.add_argument('--set', nargs='+', action='extend', default=[], metavar='KEY=VALUE',
                      help='e.g. sampler.steps=25')
  parser.add_argument('--no-samples', action='store_true', help='leave out the metrics that draw samples')
  parser.add_argument('--per-example', metavar='PATH.npz',
                      help='write the value of each held-out example, in the order of the split')
  hosts.add(parser)
  args = parser.parse_args(argv)
  if args.per_example and not args.per_example.endswith('.npz'):
    raise UserError(f'--per-example takes a path that ends in .npz, got {args.per_example}')
  each_out = outputs.file(args.per_example, '--per-example') if args.per_example else None
  checks.seed('--seed', args.seed)
  distributed.join(hosts.options(args))

  def check(run: Run) -> None:
    rehearsal.check(run, None)
    for metric in () if args.no_samples else run.experiment.metrics:
      metric.check()

  config, run = workdir_lib.open_run(args.workdir, args.set, args.step, check=check, imports=args.imports)
  averaged = not args.raw
  if each_out:
    workdir_lib.prepare(str(each_out.parent), '--per-example')
  values, each = run.scores(averaged)
  if each_out and distributed.is_first():
    np.savez_compressed(each_out, **each)  # type: ignore[arg-type]
  if run.experiment.summarise:
    values.update(run.experiment.summarise(each))
  examples = int(values.pop('examples'))
  result = {f'heldout/{name}': value for name, value in values.items()}
  cards = {}

  def draw(num, conditions):
    return run.sample(num, args.seed, conditions, averaged)

  for metric in () if args.no_samples else run.experiment.metrics:
    result.update({f'{metric.name}/{name}': value for name, value in metric.compute(draw, args.seed).items()})
    cards[metric.name] = dict(metric.card)
  card = Card(
    step=run.step,
    data=run.experiment.heldout.fingerprint(),
    examples=examples,
    parameters=f'averaged {sorted(run.experiment.ema)}' if averaged and run.experiment.ema else 'raw',
    seed=args.seed,
    sampler=config_lib.plain(config.sampler),
    measures=cards,
    versions=workdir_lib.versions(),
  )
  report = {'metrics': result, 'card': card.as_json()}
  if distributed.is_first():
    print(strict_json(report, indent=2))
  kept = pathlib.Path(args.workdir) / 'evaluation.json'
  if os.access(args.workdir, os.W_OK):
    workdir_lib.write_json(kept, report)
  else:
    logs.say(f'{kept} is not written: the run belongs to another user, or to a read-only disk')
  return 0
