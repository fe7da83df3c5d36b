"""`genjax train --config=FILE[:args] --workdir=DIR [--config.key=value ...]`

Trains a config in a run directory. Run again on the same directory, it resumes from the newest checkpoint; on the
directory of another config it refuses and shows the differing keys.
"""

import pathlib
import time
from typing import Any

from absl import flags
import ml_collections

from genjax import config as config_lib
from genjax import distributed
from genjax.cli import configs, hosts
from genjax.cli import workdir as workdir_lib
from genjax.config import Config
from genjax.training import hooks, logs, loop
from genjax.training.run import Run
from genjax.types import NonFiniteError, UserError


def main(argv: list[str]) -> int:
  """Trains; returns the exit code."""

  def define(values: flags.FlagValues) -> None:
    flags.DEFINE_string('workdir', '', 'the run directory; it is made if it does not exist', flag_values=values)
    hosts.define(values)

  values, paths = configs.parse('train', argv, __doc__ or '', define)
  if not values.workdir:
    raise UserError('--workdir=DIR is needed: the folder of the run')
  distributed.join(hosts.options(values), stops=True)
  train(values.config, values.workdir, paths)
  return 0


def train(config: Config, workdir: str, paths: list[str] | tuple[str, ...] = ()) -> Run:
  """Trains a config in a run directory, or resumes it; returns the run at its last step.

  Args:
    config: locked config.
    workdir: the run directory.
    paths: folders to import the builder from.

  Raises:
    UserError: bad input, before anything is computed.
    NonFiniteError: training stopped on NaN or infinity.
  """
  begin = time.perf_counter()
  workdir_lib.compilation_cache()
  path = workdir_lib.prepare(workdir)
  known = distributed.broadcast((path / 'config.json').exists(), 'whether the run exists')
  workdir_lib.check_alike(config)
  if known:
    workdir_lib.wait_for(path / 'config.json')
    workdir_lib.check_same(path, config)
    _set_assets(config, workdir_lib.read_json(path / 'config.json').get('assets', {}))
  experiment = configs.build(config, paths)
  run = Run(experiment, configs.settings(config))
  checkpoints = workdir_lib.checkpoints(path, config)
  run.step_flops()  # traces the step: losses that do not fit the shapes fail here
  _check_best(config, run)
  _set_assets(config, dict(experiment.assets))
  description = workdir_lib.describe(config, experiment, paths)
  distributed.check_equal(description['data'], 'the data')
  if known:
    _check_data(path, description)
  else:
    workdir_lib.write_json(path / 'config.json', config_lib.plain(config))
    workdir_lib.write_json(path / 'run.json', description)
    workdir_lib.wait_for(path / 'run.json')

  try:
    state = checkpoints.restore(run.target, logs.say)
    if state is None:
      run.initialise()
      logs.say(f'training {run.settings.steps} steps in {path}')
    else:
      run.restore(state)
      checkpoints.discard_after(run.step)
      logs.say(f'resuming {path} at step {run.step} of {run.settings.steps}')
    writer = logs.Writer(path)
    log = hooks.Log(writer, config.log_every)
    sample = hooks.Sample(writer, config.sample_every, config.sample_num)
    loop.train(run, [
      *experiment.hooks,
      log,
      hooks.Profile(str(path / 'profile'), config.profile.start, config.profile.steps),
      hooks.Evaluate(writer, config.evaluate_every, config.evaluate_batches),
      sample,
      hooks.Save(checkpoints, config.checkpoint.every, {**description, 'config': config_lib.plain(config)}),
      hooks.StopTogether(),
    ])
  except NonFiniteError:
    kept = checkpoints.steps()
    logs.say(f'the last good checkpoint is step {kept[-1]} in {path / "checkpoints"}' if kept else
             f'no checkpoint had been saved yet (config.checkpoint.every={config.checkpoint.every})')
    raise
  finally:
    checkpoints.close()
  _summarise(path, run, log, sample, time.perf_counter() - begin)
  return run


def _set_assets(config: Config, assets: dict[str, Any]) -> None:
  with config.unlocked():
    config.assets = ml_collections.ConfigDict(assets)


def _check_best(config: Config, run: Run) -> None:
  """The metric that decides which checkpoint is best exists, and is measured whenever a checkpoint is saved."""
  best, every = config.checkpoint.best, config.evaluate_every
  if best and best not in run.evaluation_names():
    raise UserError(f'config.checkpoint.best={best!r} is not a held-out metric; they are {sorted(run.evaluation_names())}')
  if best and config.checkpoint.every and (not every or config.checkpoint.every % every):
    raise UserError(f'config.checkpoint.best needs an evaluation at each checkpoint: config.checkpoint.every={config.checkpoint.every} '
                    f'must be a multiple of config.evaluate_every={every}')


def _check_data(path: pathlib.Path, description: dict[str, Any]) -> None:
  """A run continues on the data that it began with."""
  old = workdir_lib.read_json(path / 'run.json')['data']
  pairs = config_lib.difference(old, description['data'])
  if pairs:
    raise UserError(f'the data of {path} changed since the run began: '
                    + ', '.join(f'{key} was {was!r} and is {now!r}' for key, (was, now) in pairs.items())
                    + '. Restore the data, or start a new --workdir')


def _summarise(path: pathlib.Path, run: Run, log: hooks.Log, sample: hooks.Sample, seconds: float) -> None:
  """The end of a run: metrics, where things are, what to do next."""
  heldout = run.evaluation[1] if run.evaluation else {}
  workdir_lib.write_json(path / 'summary.json', {
    'step': run.step, 'seconds': round(seconds, 1), 'train': log.last, 'heldout': heldout, 'samples': sample.files})
  logs.say(f'\nfinished step {run.step} in {seconds:.0f} s')
  for name, value in heldout.items():
    logs.say(f'  held out {name:<24} {value:.6g}')
  logs.say(f'  checkpoints, logs            {path / "checkpoints"}, {path / "metrics.jsonl"}, {path / "tensorboard"}')
  for file in sample.files:
    logs.say(f'  samples                      {file}')
  commands = [f'genjax sample --workdir={path} --num=64 --out={path / "samples"}'] if sample.files else []
  logs.say('\n  '.join(['next:', *commands, f'genjax evaluate --workdir={path}']))
