"""Trains a config in a run directory, or resumes it."""

from collections.abc import Sequence
import contextlib
import pathlib
from typing import Any

from genjax import config as config_lib
from genjax import distributed
from genjax.config import Config
from genjax.runs import assets, atomic, bases, builder_code, builders, extensions, lock, same, scoring, sources
from genjax.runs import checkpoints as checkpoints_lib
from genjax.runs import workdir as workdir_lib
from genjax.training import events, hooks, loggers, loop, rehearsal, stopping
from genjax.training.checkpoints import warm_start
from genjax.training.checkpoints.checkpoint import Checkpoints
from genjax.training.monitoring import logs
from genjax.training.monitoring.clock import Clock, Status
from genjax.training.monitoring.histograms import Histograms
from genjax.training.monitoring.watchdog import Watchdog
from genjax.training.run import Run
from genjax.types import NonFiniteError, UserError, strict_json


def train(config: Config, workdir: str, paths: list[str] | tuple[str, ...] = (), begin: float | None = None,
          imports: Sequence[str] = (), more_hooks: Sequence[loop.Hook] = (), named: str = '') -> Run:
  """Trains a config in a run directory, or resumes it; returns the run at its last step.

  Args:
    config: locked config.
    workdir: the run directory.
    paths: folders to import the builder from.
    begin: `time.perf_counter()` of when the command began; by default now.
    more_hooks: called after those of the experiment.
    imports: files or modules to load before the builder runs, see `genjax.runs.extensions`; the run keeps them.
    named: what the config is called, such as 'configs/quickstart.py:smoke'; run.json keeps it for lists of runs.

  Raises:
    UserError: bad input, before anything is computed.
    NonFiniteError: training stopped on NaN or infinity.
    StorageError: a checkpoint could not be written.
    Stopped: the process was asked to stop; what was finished is saved.
  """
  config_lib.check(config)
  loggers.check(config.get('loggers', ()))
  path = workdir_lib.prepare(workdir)
  with lock.hold(path), contextlib.closing(Clock(begin)) as clock:
    clock.listen()
    return _train(config, path, paths, clock, imports, more_hooks, named)


def _train(config: Config, path: pathlib.Path, paths: list[str] | tuple[str, ...], clock: Clock,
           imports: Sequence[str], more_hooks: Sequence[loop.Hook], named: str) -> Run:
  workdir_lib.compilation_cache()
  before = config.steps
  known = distributed.broadcast((path / 'config.json').exists(), 'whether the run exists')
  same.check_alike(config)
  if not known and config.get('init_from') and not builders.adapted(config):
    bases.from_run(config.init_from)[0].close()
  if known:
    workdir_lib.wait_for(path / 'config.json')
    before = same.check_same(path, config)
    same.check_random(path)
    bases.locate(config, path)
    imports = extensions.resumed(path, imports)
    assets.put(config, assets.read(path))
  elif builders.adapted(config):
    assets.put(config, bases.inherited(config))
  else:
    bases.forget(config)
  extensions.load(imports)
  experiment = bases.attach(config, builders.build(config, paths))
  code = builder_code.of(config.experiment, paths)
  run = Run(experiment, builders.settings(config), clock=clock)
  checkpoints = checkpoints_lib.of_run(path, config)
  run.step_flops()  # traces the step: losses that do not fit the shapes fail here
  rehearsal.check(run, config.sample_num if config.sample_every else None)
  _check_best(config, run)
  assets.put(config, assets.described(experiment.assets, experiment.files))
  description = {**workdir_lib.describe(config, experiment.train.fingerprint(), paths), **sources.record(config, path),
                 **extensions.keep(path, imports), **run.sizes()}
  distributed.check_equal(description['data'], 'the data')
  if describe := getattr(experiment.train, 'describe', None):
    logs.say(describe())
  if known:
    _check_data(path, description)
    extensions.record(path, description)
    bases.update(path, description)
    if config.steps > before:
      _grow(config, path, before)
  else:
    # In this order: a process that dies in between leaves no config, and so a run that has not begun.
    atomic.write(path, experiment.files)
    builder_code.keep(path, code)
    atomic.write_json(path / 'run.json', {**description, 'named': '' if named.endswith('.json') else named})
    atomic.write_json(path / 'config.json', config_lib.plain(config))
    workdir_lib.wait_for(path / 'config.json')
  stopping.check()  # a signal that something before swallowed
  clock.status = _status(path)
  try:
    _set_state(config, path, run, checkpoints)
    builder_code.update(path, config.experiment, code, run.step)
    run.reached = clock.status.reached if clock.status else 0
    writer = logs.Writer(path, {'config': strict_json(config_lib.plain(config), indent=1)})
    log = hooks.Log(writer, config.log_every)
    sample = hooks.Sample(writer, config.sample_every, config.sample_num)
    save = hooks.Save(checkpoints, config.checkpoint.every, {**description, 'config': config_lib.plain(config)})
    happened = events.Events(path)
    stopping.check()
    with stopping.deferred(), happened.told(run):
      clock.started()
      loop.train(run, [
        Watchdog(path / ('watchdog.txt' if distributed.is_first() else f'watchdog_{distributed.number()}.txt'),
                 config.get('watchdog_seconds', 0)),
        *experiment.hooks,
        *more_hooks,
        *extensions.hooks(path, imports),
        *loggers.make(config.get('loggers', ()), path, config_lib.flatten(config)),
        log,
        Histograms(writer, config.get('histograms_every', 0)),
        hooks.Profile(str(path / 'profile'), config.profile.start, config.profile.steps),
        hooks.Evaluate(writer, config.evaluate_every, config.evaluate_batches, needed=bool(checkpoints.best)),
        sample,
        save,
        hooks.RollBack(save),
        happened,
        hooks.StopTogether(),
      ])
      checkpoints.close()
      _summarise(config, path, run, log, sample)
  except NonFiniteError:
    kept = checkpoints.steps()
    logs.say(f'the last good checkpoint is step {kept[-1]} in {path / "checkpoints"}' if kept else
             f'no checkpoint had been saved yet (config.checkpoint.every={config.checkpoint.every})')
    raise
  finally:
    checkpoints.close()
  return run


def _grow(config: Config, path: pathlib.Path, before: int) -> None:
  """Gives a run more steps: it is not finished any more, and keeps its new number."""
  if distributed.is_first():
    (path / 'summary.json').unlink(missing_ok=True)
  atomic.write_json(path / 'config.json', config_lib.plain(config))
  bent = [
    f'{group} ({", ".join(shapes)})' for group, options in config.optimizers.items() if (shapes := _schedules(options))
  ]
  logs.say(f'{path}: config.steps grows from {before} to {config.steps}. ' + (
    f'The learning rates of {", ".join(bent)} now end there: the steps to come have other rates than they would have '
    'had'
    if bent else 'No learning rate depends on it'))


def _schedules(options: Config) -> list[str]:
  """The schedules of an optimizer and of its parts that end with the run."""
  if 'steps' in options:
    return []
  parts = [how for _, how in config_lib.plain(options.get('parts', ()))]
  shapes = [given.get('schedule', 'constant') for given in (options, *parts)]
  return list(dict.fromkeys(shape for shape in shapes if shape != 'constant'))


def _status(path: pathlib.Path) -> Status | None:
  """Of several processes, the first keeps the account."""
  if not distributed.is_first():
    return None
  status = Status(path / 'status.json')
  if status.damaged:
    logs.say(f'{path / "status.json"} is damaged: the times of earlier attempts are not counted')
  return status


def _set_state(config: Config, path: pathlib.Path, run: Run, checkpoints: Checkpoints) -> None:
  """The state to go on from: of the newest checkpoint, of another run, or the initial one."""
  state = checkpoints.restore(run.target, logs.say)
  if state is not None:
    run.restore(state)
    run.rollbacks = checkpoints.description(run.step).get('rollbacks', [])
    checkpoints.discard_after(run.step)
    logs.say(f'resuming {path} at step {run.step} of {run.settings.steps}')
    return
  checkpoints.discard_after(-1)
  run.initialise()
  if config.get('init_from') and not builders.adapted(config):
    source, step = bases.from_run(config.init_from)
    with contextlib.closing(source):
      warm_start.apply(run, source, step, logs.say, **config_lib.plain(config.init))
  logs.say(f'training {run.settings.steps} steps' + ('' if logs.title() else f' in {path}'))


def _check_best(config: Config, run: Run) -> None:
  """The metric that decides which checkpoint is best exists, and is measured whenever a checkpoint is saved."""
  best, every = config.checkpoint.best, config.evaluate_every
  if best and best not in run.evaluation_names():
    raise UserError(
      f'config.checkpoint.best={best!r} is not a held-out metric; they are {sorted(run.evaluation_names())}')
  if best and config.checkpoint.every and (not every or config.checkpoint.every % every):
    raise UserError(
      f'config.checkpoint.best needs an evaluation at each checkpoint: '
      f'config.checkpoint.every={config.checkpoint.every} '
      f'must be a multiple of config.evaluate_every={every}')


def _check_data(path: pathlib.Path, description: dict[str, Any]) -> None:
  """A run continues on the data that it began with."""
  old = assets.read_json(path / 'run.json')['data']
  pairs = config_lib.difference(old, description['data'])
  if pairs:
    raise UserError(f'the data of {path} changed since the run began: '
                    + ', '.join(f'{key} was {was!r} and is {now!r}' for key, (was, now) in pairs.items())
                    + '. Restore the data, or start a new --workdir')


def _summarise(config: Config, path: pathlib.Path, run: Run, log: hooks.Log, sample: hooks.Sample) -> None:
  """The end of a run: metrics, where things are, what to do next."""
  heldout = run.evaluation[1] if run.evaluation else {}
  time = run.clock.summary()
  atomic.write_json(
    path / 'summary.json', {
      'step': run.step, 'seconds': round(time['wall_seconds'], 1), 'train': log.last, 'heldout': heldout,
      'card': scoring.card(config, run, int(heldout.get('examples', 0))),
      'samples': sample.files, 'skipped': run.skipped, 'rollbacks': run.rollbacks, 'time': time
    })
  logs.say(f'\nfinished step {run.step} in {time["wall_seconds"]:.0f} s: '
           + ', '.join(f'{name} {seconds:.0f}' for name, seconds in time['seconds'].items() if seconds >= 0.5)
           + (f'; {time["attempts"]} attempts' if time['attempts'] > 1 else ''))
  for name, value in heldout.items():
    logs.say(f'  held out {name:<24} {value:.6g}')
  if logs.title():  # work for another one, whose folder is none that a person asked for
    return
  logs.say(f'  checkpoints, logs            {path / "checkpoints"}, {path / "metrics.jsonl"}, {path / "tensorboard"}')
  for file in sample.files:
    logs.say(f'  samples                      {file}')
  commands = [f'genjax sample --workdir={path} --num=64 --out={path / "samples"}'] if sample.files else []
  logs.say('\n  '.join(['next:', *commands, f'genjax evaluate --workdir={path}']))
