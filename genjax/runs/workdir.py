"""The run directory. It describes itself: `sample`, `evaluate` and resume need nothing else.

    config.json     the config, with what the run found in its data under `assets`
    tokenizer.json, tokenizer_config.json, ...      files that `assets` names
    run.json        versions, seed, implementation of random numbers, data fingerprint, import paths, imports, parts,
                    numbers of parameters, FLOPs of a step
    code/           the Python files of a builder from outside genjax, see `genjax.runs.builder_code`
    imports/        the files that --import named, see `genjax.runs.extensions`
    checkpoints/    Orbax checkpoints, by step
    status.json     what the run is doing, overwritten in place
    train.lock      held while the run trains, see `genjax.runs.lock`
    events.jsonl    resumes, skipped updates, roll-backs, failures, see `genjax.training.events`
    loggers.json    under which names loggers know the run, see `genjax.training.loggers`
    metrics.jsonl, tensorboard/, samples/, summary.json, evaluation.json, watchdog.txt
"""

from collections.abc import Callable, Mapping, Sequence
import functools
import hashlib
import importlib.metadata
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
from genjax.runs import bases, builder_code, builders, extensions
from genjax.runs import checkpoints as checkpoints_lib
from genjax.runs.bases import read_config
from genjax.training import keys
from genjax.training.experiment import Experiment
from genjax.training.monitoring.logs import say
from genjax.training.run import Run
from genjax.types import UserError, expanded


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


@functools.cache
def source() -> str:
  """A checksum of the project's code that decides a run's numbers: not of commands, studies, plans and configs."""
  digest = hashlib.sha256()
  for folder, folders, names in os.walk(builder_code.LIBRARY, followlinks=True):
    here = pathlib.Path(folder).relative_to(builder_code.LIBRARY)
    folders[:] = sorted(name for name in folders if (here / name).as_posix() not in _IDLE and name != '__pycache__')
    for name in sorted(names):
      if name.endswith('.py'):
        digest.update(f'{(here / name).as_posix()}\n'.encode() + pathlib.Path(folder, name).read_bytes())
  return digest.hexdigest()[:16]


_IDLE = ('cli', 'studies', 'planning', 'configs')


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


def describe(config: Config, data: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Any]:
  """What run.json holds, and what goes into every checkpoint beside the config. `data`: what identifies the data."""
  return {'versions': versions(), 'source': source(), 'seed': config.seed, 'random': keys.implementation(),
          'data': dict(data), 'paths': [path for path in dict.fromkeys(paths) if not builder_code.is_run(path)],
          'devices': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
          'processes': jax.process_count(), 'machine': platform.platform(), 'cpus': os.cpu_count()}


def load(workdir: str, assignments: Sequence[str] = (), exact: bool = False,
         imports: Sequence[str] = ()) -> tuple[Config, Experiment]:
  """The config of a run, with changes such as 'sampler.steps=25', and its experiment; `exact`: with the base of
  adapters in float32; `imports`: files to load after those that the run keeps, see `genjax.runs.extensions`.

  Raises:
    UserError: no run directory, or a change of something that is trained in.
  """
  config, paths = read_config(workdir)
  extensions.load(imports)
  adapts = ('init_from=',) if builders.adapted(config) else ()
  free = ('sampler.', 'evaluation.', 'data.', 'mesh.', 'batch_size', 'parts.', *adapts)
  # What is called name first: it decides which other options there are
  for assignment in sorted(assignments, key=lambda text: not text.partition('=')[0].endswith('.name')):
    if not assignment.startswith(free) and not _sampling(config, paths, assignment):
      raise UserError(
        '--set changes how a run is sampled and evaluated: sampler.*, evaluation.*, data.*, mesh.*, batch_size, '
        'parts.NAME of a part that was moved, what the builder names in SAMPLING, and init_from of a run with adapters '
        'whose base was moved; got '
        f'{assignment!r}. What a run was trained with stands in {pathlib.Path(workdir) / "config.json"}')
    config_lib.override(config, assignment)
  config_lib.check(config)
  bases.locate(config, expanded(workdir), assignments)
  if exact and builders.adapted(config):
    with config.unlocked():
      config.lora.dtype = 'float32'
  return config, bases.attach(config, builders.build(config, paths))


def _sampling(config: Config, paths: Sequence[str], assignment: str) -> bool:
  """Whether a change is of a key that sampling alone reads: one of those that the builder's module names in
  `SAMPLING`."""
  return assignment.partition('=')[0] in getattr(builders.find(config, paths), 'SAMPLING', ())


def open_run(workdir: str, assignments: Sequence[str] = (), step: int | str | None = None,
             report: Callable[[str], None] = say, check: Callable[[Run], None] = lambda run: None,
             exact: bool = False, imports: Sequence[str] = ()) -> tuple[Config, Run]:
  """A run with the state of its newest checkpoint, or of the one of `step`, a number or 'best'.

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
  saved = checkpoints_lib.of_run(expanded(workdir), config)
  try:
    state = saved.restore(run.target, report, checkpoints_lib.chosen(saved, step))
  finally:
    saved.close()
  if state is None:
    raise UserError(f'{workdir} has no complete checkpoint yet; train it with genjax train, or wait for the first one '
                    f'(every {config.checkpoint.every} steps)')
  run.restore(state)
  report(f'{workdir}: step {run.step}')
  return config, run
