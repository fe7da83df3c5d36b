"""`genjax merge --workdir=RUN --out=DIR`: writes a run with adapters as a run of its own, with the adapters merged into
its parameters.

The new run has the config of the old one without `config.lora`; it samples and evaluates alike, to rounding, without
its base, and may be a base itself. Averages are merged, too; the state of the optimizer begins anew.
"""

import argparse

from genjax.cli import flags
from genjax.runs import merging, outputs
from genjax.training.monitoring import logs


def main(argv: list[str]) -> int:
  """Merges; returns the exit code."""
  parser = argparse.ArgumentParser('genjax merge', description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--workdir', required=True, help='a run with adapters')
  parser.add_argument('--out', required=True, help='the run directory to write, new or empty')
  flags.add_step(parser)
  parser.add_argument('--set', nargs='+', action='extend', default=[], metavar='KEY=VALUE',
                      help='init_from=RUN_DIR if the base was moved')
  args = parser.parse_args(argv)
  out = outputs.folder(args.out, '--out', new=True)
  step = merging.merge(args.workdir, out, args.set, args.step)
  logs.say(f'wrote {out}, step {step}')
  return 0
