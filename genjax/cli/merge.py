"""`genjax merge --workdir=RUN --out=DIR`: writes a run with adapters as a run of its own, with the adapters merged into
its parameters.

The new run has the config of the old one without `config.lora`; it samples and evaluates alike, to rounding, without
its base, and may be a base itself. Averages are merged, too; the state of the optimizer begins anew.
"""

import argparse
import contextlib
from typing import Any

from genjax import config as config_lib
from genjax.runs import assets, builders, extensions, outputs
from genjax.runs import workdir as workdir_lib
from genjax.training.monitoring import logs
from genjax.training.state import TrainState
from genjax.types import UserError, expanded


def main(argv: list[str]) -> int:
  """Merges; returns the exit code."""
  parser = argparse.ArgumentParser('genjax merge', description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--workdir', required=True, help='a run with adapters')
  parser.add_argument('--out', required=True, help='the run directory to write, new or empty')
  workdir_lib.add_step(parser)
  parser.add_argument('--set', nargs='+', action='extend', default=[], metavar='KEY=VALUE',
                      help='init_from=RUN_DIR if the base was moved')
  args = parser.parse_args(argv)
  out = outputs.folder(args.out, '--out', new=True)
  config, paths = workdir_lib.read_config(args.workdir)
  if not builders.adapted(config):
    raise UserError(f'--workdir={args.workdir} is a run without adapters; there is nothing to merge')
  # Not the base as it was rounded for training
  _, run = workdir_lib.open_run(args.workdir, args.set, args.step, exact=True)
  merged: Any = run.experiment.objective  # the one that has adapters
  plain = config_lib.from_plain(_without_adapters(config_lib.plain(config)))
  experiment = builders.build(plain, paths)
  assets.put(plain, assets.described(experiment.assets, experiment.files))
  params = merged.merge(run.params(averaged=False), run.frozen)
  averages = merged.context(run.state.context(run.frozen), merged=True).ema
  state = TrainState(step=run.state.step, params=params, mutable=run.state.mutable,
                     opt={group: experiment.optimizers[group].init(tree) for group, tree in params.items()},
                     ema={group: averages[group] for group in experiment.ema})
  workdir_lib.prepare(str(out), '--out')
  description = workdir_lib.describe(plain, experiment.train.fingerprint(), paths)
  description.update(extensions.keep(out, extensions.kept(expanded(args.workdir))))
  with contextlib.closing(workdir_lib.checkpoints(out, config)) as saved:
    saved.save(run.step, state, {**description, 'config': config_lib.plain(plain)}, None)
  assets.write(out, experiment.files)
  workdir_lib.write_json(out / 'run.json', description)
  workdir_lib.write_json(out / 'config.json', config_lib.plain(plain))
  logs.say(f'wrote {out}, step {run.step}')
  return 0


def _without_adapters(config: dict[str, Any]) -> dict[str, Any]:
  """The config of the merged run."""
  kept = {name: value for name, value in config['assets'].items() if name != 'base'}
  return {**config, 'assets': kept, 'init_from': '', 'lora': {**config['lora'], 'rank': 0, 'paths': []}}
