"""`genjax train --config=FILE[:args] --workdir=DIR [--config.key=value ...]`

Trains a config in a run directory. Run again on the same directory, it resumes from the newest checkpoint; on the
directory of another config it refuses and shows the differing keys. SIGTERM, or Ctrl-C once, saves the last finished
step. A run takes more steps with `genjax train --workdir=DIR --config.steps=MORE`; without --config it goes on with its
own config.
"""

from absl import flags

from genjax import distributed
from genjax.cli import configs, hosts
from genjax.runs import training
from genjax.types import UserError


def main(argv: list[str], begin: float | None = None) -> int:
  """Trains; returns the exit code. `begin`: `time.perf_counter()` of when the command began."""

  def define(values: flags.FlagValues) -> None:
    flags.DEFINE_string('workdir', '', 'the run directory; it is made if it does not exist', flag_values=values)
    hosts.define(values)

  argv = configs.of_workdir(argv)
  values, paths = configs.parse('train', argv, __doc__ or '', define)
  if not values.workdir:
    raise UserError('--workdir=DIR is needed: the folder of the run')
  distributed.join(hosts.options(values), stops=True)
  training.train(values.config, values.workdir, paths, begin, imports=values['import'].value,
                 named=configs.named(argv))
  return 0
