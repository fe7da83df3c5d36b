"""The run directory. It describes itself: `sample`, `evaluate` and resume need nothing else.

    config.json     the config, with what the run found in its data under `assets`
    tokenizer.json, tokenizer_config.json, ...      files that `assets` names
    run.json        versions, seed, implementation of random numbers, data fingerprint, import paths, kept code
    code/           Python files of the user's that the run needs, see `genjax.runs.code`
    checkpoints/    Orbax checkpoints, by step
    status.json     what the run is doing, overwritten in place
    train.lock      held while the run trains, see `genjax.runs.lock`
    metrics.jsonl, tensorboard/, samples/, summary.json, evaluation.json, watchdog.txt
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
import contextlib
import dataclasses
import importlib.metadata
import json
import os
import pathlib
import platform
import tempfile
import time
from typing import Any

import jax

from genjax import config as config_lib
from genjax import distributed
from genjax.config import Config
from genjax.runs import assets, builders, extensions
from genjax.runs.assets import read_json
from genjax.training import keys
from genjax.training.checkpoints import warm_start
from genjax.training.checkpoints.checkpoint import Checkpoints
from genjax.training.experiment import Experiment
from genjax.training.monitoring.logs import say
from genjax.training.run import Run
from genjax.types import UserError, expanded, strict_json

# Where a run is computed, and what watches it; results do not depend on it, so a resumed run may change it.
PLACEMENT = ('mesh.', 'rules.', 'watchdog_seconds', 'data.threads')
BEST = 'best'  # in the place of a step


def compilation_cache() -> None:
  """Keeps compiled programs between processes, in $JAX_COMPILATION_CACHE_DIR or the user's cache folder."""
  if not os.environ.get('JAX_COMPILATION_CACHE_DIR'):
    jax.config.update('jax_compilation_cache_dir', str(pathlib.Path('~/.cache/genjax/xla').expanduser()))
  # Short ones too: a run that is started again should not spend its time on compiling what it had.
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.2)


def versions() -> dict[str, str]:
  """Versions of what decides a run's numbers."""
  names = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'tensorflow-datasets', 'numpy')
  found = {name: importlib.metadata.version(name) for name in names}
  from genjax import __version__
  return {'genjax': __version__, 'python': platform.python_version(), **found}


def prepare(path: str, flag: str = '--workdir') -> pathlib.Path:
  """Makes the folder that a flag names, and checks that it can be written.

  Raises:
    UserError: it cannot be made or written, or is the address of a bucket.
  """
  if '://' in path:
    raise UserError(
      f'{flag}={path} is an address, and a folder is needed: mount the bucket (gcsfuse, s3fs) and name its folder')
  workdir = expanded(path)
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=workdir):
      pass
  except OSError as error:
    raise UserError(f'{flag}={path} cannot be written: {error.strerror or error}; choose a folder that can') from error
  return workdir


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes a JSON file so that a reader sees the old or the new one, never a part; of several processes the first
  does."""
  if not distributed.is_first():
    return
  partial = path.with_name(path.name + '.partial')
  partial.write_text(strict_json(value, indent=2) + '\n')
  partial.replace(path)


def wait_for(path: pathlib.Path, seconds: float = 60.0) -> None:
  """Waits until this process sees a file that the first one wrote: network file systems take a moment.

  Raises:
    UserError: it does not appear.
  """
  distributed.barrier(f'{path.name} is written')
  deadline = time.monotonic() + seconds
  while not path.exists():
    if time.monotonic() > deadline:
      raise UserError(
        f'process 0 wrote {path}, and here it does not appear; --workdir must be a folder that all processes share')
    time.sleep(0.1)


def check_alike(config: Config) -> None:
  """Checks that all processes were started with one config and run the same versions.

  Raises:
    UserError: they do not; the message shows the differing keys.
  """
  facts = json.loads(
    json.dumps({'config': config_lib.plain(config), 'versions': versions(), 'random': keys.implementation()}))
  pairs = config_lib.difference(distributed.broadcast(facts, 'config and versions'), facts)
  found = [f'{key} is {here!r} there and {first!r} in process 0' for key, (first, here) in pairs.items()]
  for process, different in enumerate(distributed.gather(found, 'differences of config and versions')):
    if different:
      raise UserError(f'process {process} was started otherwise than process 0: {", ".join(different)}. '
                      'Start all processes with one command and one environment')


def describe(config: Config, data: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Any]:
  """What run.json holds, and what goes into every checkpoint beside the config. `data`: what identifies the data."""
  return {'versions': versions(), 'seed': config.seed, 'random': keys.implementation(), 'data': dict(data),
          'paths': list(paths), 'devices': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
          'processes': jax.process_count(), 'machine': platform.platform(), 'cpus': os.cpu_count()}


def check_same(workdir: pathlib.Path, config: Config) -> int:
  """Checks that a config is the one of an existing run directory, placement aside, and perhaps of more steps.

  Returns:
    config.steps of that run.

  Raises:
    UserError: it is another; the message shows the differing keys.
  """
  old = read_json(workdir / 'config.json')
  new = config_lib.plain(config)
  for config_of in (old, new):
    config_of['experiment'] = builders.current_name(config_of['experiment'])
  pairs = {
    key: pair for key, pair in config_lib.difference(old, new).items() if not key.startswith((*PLACEMENT, 'assets.'))
  }
  if pairs.get('steps') and new['steps'] > old['steps']:
    del pairs['steps']
  if pairs:
    lines = '\n'.join(f'  {key}: {was!r} there, {now!r} now' + (' (it may only grow)' if key == 'steps' else '')
                      for key, (was, now) in pairs.items())
    raise UserError(
      f'--workdir={workdir} holds a run of another config:\n{lines}\nUse another --workdir, or go on with the config '
      f'of that run: genjax train --workdir={workdir}')
  return old['steps']


def check_random(workdir: pathlib.Path) -> None:
  """Checks that random numbers are drawn as those of an existing run directory were.

  Raises:
    UserError: by another implementation; the steps would go on with other numbers than those of one undisturbed run.
  """
  before, now = read_json(workdir / 'run.json').get('random'), keys.implementation()
  if before is not None and before != now:  # runs of before it was recorded have none
    raise UserError(
      f'--workdir={workdir} holds a run whose random numbers are drawn by {before!r}, and this process draws them by '
      f'{now!r}; set JAX_DEFAULT_PRNG_IMPL and JAX_THREEFRY_PARTITIONABLE as they were, or use another --workdir')


def read_config(workdir: str) -> tuple[Config, list[str]]:
  """The config of a run, and the folders from which its builder is imported. What the run imports is loaded.

  Raises:
    UserError: no run directory, or what it imports is missing, was changed or fails.
  """
  path = expanded(workdir)
  extensions.load_kept(path)
  return assets.read_config(path), read_json(path / 'run.json')['paths']


def load(workdir: str, assignments: Sequence[str] = (), exact: bool = False,
         imports: Sequence[str] = ()) -> tuple[Config, Experiment]:
  """The config of a run, with changes such as 'sampler.steps=25', and its experiment; `exact`: with the base of
  adapters in float32; `imports`: files to load after those that the run keeps, see `genjax.runs.extensions`.

  Raises:
    UserError: no run directory, or a change of something that is trained in.
  """
  config, paths = read_config(workdir)
  extensions.load(imports)
  free = ('sampler.', 'evaluation.', 'data.', 'mesh.', 'batch_size', *(('init_from=',) if builders.adapted(config) else
                                                                       ()))
  # What is called name first: it decides which other options there are
  for assignment in sorted(assignments, key=lambda text: not text.partition('=')[0].endswith('.name')):
    if not assignment.startswith(free):
      raise UserError(
        '--set changes how a run is sampled and evaluated: sampler.*, evaluation.*, data.*, mesh.*, batch_size, and '
        f'init_from of a run with adapters whose base was moved; got {assignment!r}. What a run was trained with '
        'stands in '
        f'{pathlib.Path(workdir) / "config.json"}')
    config_lib.override(config, assignment)
  config_lib.check(config)
  if exact and builders.adapted(config):
    with config.unlocked():
      config.lora.dtype = 'float32'
  return config, attach(config, builders.build(config, paths))


def inherited(config: Config) -> dict[str, Any]:
  """What the base of a run with adapters found in its data, such as an alphabet: the adapters read and write in it,
  too."""
  return {name: value for name, value in assets.read(_base(config)).items() if name != 'base'}


def attach(config: Config, experiment: Experiment, report: Callable[[str], None] = say) -> Experiment:
  """The experiment with the frozen groups that are shapes read from `config.init_from`; any other experiment as it is.

  Raises:
    UserError: no run is named, or it lacks what is wanted, has adapters of its own, or is not the one that this run
      began with.
  """
  if not builders.adapted(config):
    return experiment
  base = read_json(_base(config) / 'config.json')
  if builders.adapted(base):
    raise UserError(
      f'config.init_from={config.init_from!r} is itself a run with adapters; write it as a run of its own with genjax '
      'merge, '
      'and name that one')
  pairs = config_lib.difference(base['model'], config.model)
  if pairs:
    report('config.model is not that of the base: '
           + ', '.join(f'{key} {there!r} there, {here!r} here' for key, (there, here) in pairs.items()))
  known = config.assets.get('base')
  saved, step = source(config.init_from)
  with contextlib.closing(saved):
    step = known.step if known and step is None else step
    if known and step not in (steps := saved.steps()):
      raise UserError(
        f'these adapters were trained on step {step} of their base, and config.init_from={config.init_from!r} has '
        f'{steps}'
      )
    frozen, facts = warm_start.fill(experiment.frozen, saved, step, report, **config_lib.plain(config.init))
  if known and facts['sha256'] != known.sha256:
    raise UserError(
      f'config.init_from={config.init_from!r}: its parameters of step {facts["step"]} are not the ones that these '
      'adapters '
      f'were trained on (step {known.step}, sha256 {known.sha256[:12]}, not {facts["sha256"][:12]}); name that run '
      'with '
      '--set init_from=RUN_DIR')
  return dataclasses.replace(experiment, frozen=frozen, assets={**experiment.assets, 'base': facts})


def _base(config: Config) -> pathlib.Path:
  """The folder of the run whose parameters are adapted."""
  if not config.init_from:
    raise UserError('config.lora adapts the parameters of another run: name it, --config.init_from=RUN_DIR')
  workdir, _ = run_and_step(config.init_from)
  if not (workdir / 'config.json').exists():
    raise UserError(
      f'config.init_from={config.init_from!r}, the run whose parameters are adapted, is not there: {workdir} has no '
      'config.json. Name it with --config.init_from=RUN_DIR; genjax sample and evaluate take --set init_from=RUN_DIR')
  return workdir


def checkpoints(workdir: pathlib.Path, config: Config, at_once: int = 0) -> Checkpoints:
  """The checkpoints of a run, kept as its config says; `at_once`: see `Checkpoints`."""
  options = {key: value for key, value in config.checkpoint.items() if key != 'every'}
  return Checkpoints(workdir / 'checkpoints', **options, at_once=at_once)


def source(text: str) -> tuple[Checkpoints, int | None]:
  """The checkpoints that `config.init_from` names, RUN_DIR or RUN_DIR@STEP, and the step if it names one.

  Raises:
    UserError: no run directory, a step that is no number, or no such checkpoint.
  """
  workdir, step = run_and_step(text)
  saved = checkpoints(workdir, config_lib.from_plain(read_json(workdir / 'config.json')))
  steps = saved.steps()
  if not steps or step is not None and step not in steps:
    raise UserError(
      f'config.init_from={text!r}: no checkpoint{"" if step is None else f" of step {step}"} there; there are {steps}')
  return saved, step


def run_and_step(text: str) -> tuple[pathlib.Path, int | None]:
  """The folder and the step of RUN_DIR or RUN_DIR@STEP; where there is a folder of the whole name, with its @, it is
  that one.

  Raises:
    UserError: there is the folder before the last @, and what comes after it is no step.
  """
  whole = expanded(text)
  path, at, step = text.rpartition('@')
  if not at or whole.exists() or os.sep in step:
    return whole, None
  if not (step.isascii() and step.isdecimal()):
    if not expanded(path).exists():
      return whole, None
    raise UserError(f'config.init_from={text!r}: expected RUN_DIR or RUN_DIR@STEP, and {step!r} is no step')
  return expanded(path), int(step)


def add_step(parser: argparse.ArgumentParser) -> None:
  """Adds the flag that chooses a checkpoint, for `chosen`."""
  parser.add_argument(
    '--step', type=_step, metavar='N|best',
    help="a checkpoint other than the newest: its step, or 'best', the one with "
    'the best config.checkpoint.best')


def _step(text: str) -> int | str:
  if text != BEST and not text.isdecimal():
    raise argparse.ArgumentTypeError(f'expected the number of a step, or {BEST!r}, got {text!r}')
  return text if text == BEST else int(text)


def chosen(saved: Checkpoints, step: int | str | None) -> int | None:
  """The step that --step names; None for the newest.

  Raises:
    UserError: the best one is asked for, and the run has none.
  """
  return saved.best_step() if step == BEST else None if step is None else int(step)


def adapter_of(base: str, adapter: str, assignments: Sequence[str]) -> list[str]:
  """The changes with which `load` opens a run with adapters on the base in `base`, wherever it was trained.

  Raises:
    UserError: `adapter` is no run with adapters.
  """
  if not builders.adapted(read_config(adapter)[0]):
    raise UserError(f'--adapter={adapter} is a run without adapters; sample it with --workdir={adapter}')
  return [*assignments, f'init_from={base}']


def open_run(workdir: str, assignments: Sequence[str] = (), step: int | str | None = None,
             report: Callable[[str], None] = say, check: Callable[[Run], None] = lambda run: None,
             exact: bool = False, imports: Sequence[str] = ()) -> tuple[Config, Run]:
  """A run with the state of its newest checkpoint, or of the one of `step`, a number or `BEST`.

  Args:
    workdir, assignments, imports: see `load`.
    step: of the checkpoint.
    report: called with lines for the user.
    check: called with the run before its state is read, to refuse what will not go.

  Raises:
    UserError: no run directory, no checkpoint, none that can be read, or no best one.
  """
  compilation_cache()
  config, experiment = load(workdir, assignments, exact, imports)
  run = Run(experiment, builders.settings(config))
  check(run)
  saved = checkpoints(expanded(workdir), config)
  try:
    state = saved.restore(run.target, report, chosen(saved, step))
  finally:
    saved.close()
  if state is None:
    raise UserError(f'{workdir} has no complete checkpoint yet; train it with genjax train, or wait for the first one '
                    f'(every {config.checkpoint.every} steps)')
  run.restore(state)
  report(f'{workdir}: step {run.step}')
  return config, run
