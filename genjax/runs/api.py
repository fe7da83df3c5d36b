"""What `import genjax` offers to notebooks and scripts: runs that are opened or trained, see docs/python.md."""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import json
import math
import os
import pathlib
import threading
from typing import Any

from genjax import config as config_lib
from genjax.artifacts import Artifact
from genjax.config import Config
from genjax.runs import assets, configs, exporting, outputs, sampling, scoring, training
from genjax.runs import checkpoints as checkpoints_lib
from genjax.runs import codes as codes_lib
from genjax.runs import workdir as workdir_lib
from genjax.training import stopping
from genjax.training.experiment import Columns, Experiment
from genjax.training.loop import Hook
from genjax.training.monitoring import allocator, logs
from genjax.training.run import Run
from genjax.training.state import TrainState
from genjax.types import Params, UserError, expanded

Path = str | os.PathLike[str]


class LoadedRun:
  """A run directory with the parameters of one of its steps: what `open` and `train` return.

  Attributes:
    workdir: the run directory.
    config: the config, with the changes that it was opened with.
    run: the run on the devices: its experiment, state, mesh and compiled functions, see `genjax.training.run.Run`.
  """

  def __init__(self, workdir: Path, config: Config, run: Run):
    self.workdir, self.config, self.run = pathlib.Path(workdir), config, run

  def __repr__(self) -> str:
    return f'LoadedRun({str(self.workdir)!r}, step {self.step} of {self.config.steps}, {self.config.experiment})'

  @property
  def step(self) -> int:
    """The number of finished steps."""
    return self.run.step

  @property
  def steps(self) -> list[int]:
    """The steps of the checkpoints in the run directory, for `open(path, step=...)`."""
    with contextlib.closing(checkpoints_lib.of_run(self.workdir, self.config)) as saved:
      return saved.steps()

  @property
  def experiment(self) -> Experiment:
    """What the builder made: objective, data, optimizers, conditions, metrics."""
    return self.run.experiment

  @property
  def state(self) -> TrainState:
    """The training state: parameters, averages, optimizer state."""
    return self.run.state

  @property
  def params(self) -> Params:
    """Group -> parameters as samples and evaluations use them: the averaged ones where the run has them."""
    return self.run.params(averaged=True)

  @property
  def conditions(self) -> dict[str, str]:
    """What `sample` may be asked for: name -> the values that are allowed, in words."""
    return {name: condition.describe for name, condition in self.experiment.conditions.items()}

  def sample(self, num: int | None = None, *, seed: int = 0, averaged: bool | str = True, chunk: int = 256,
             start: int = 0, noise: Any = None, exact: bool = False, conditions: Mapping[str, Any] | None = None,
             **named: Any) -> Columns:
    """Draws samples; sample i is a function of the seed, start + i and its conditions.

    Args:
      num: how many, N; by default one for each value of the longest condition.
      seed: of the noise.
      averaged: use averaged parameters where the run has them; or the name of an average of config.ema.
      chunk: how many are computed at once.
      start: of a longer draw, the first sample that is drawn here: `sample(100)` is `sample(60)` and
        `sample(40, start=60)`.
      noise: of diffusion: what samples begin with, in the place of drawn noise, an array of N rows with the shape of
        what is diffused, such as (h, w, c) of latents; of deviation 1.
      exact: of diffusion: pictures as float32 from 0 to 1, before they are rounded to uint8.
      conditions: name -> value, for names that are no Python words.
      **named: the same as keywords: `label=3`, `label=[1, 7]`, `prompt='Once'`, `source='a.wav'`. A value is a text, a
        number or an array of one row; lists, and arrays with an axis more, hold several and go round the samples.
        Without a value, a condition has its default. `prompt` is the text that a run takes, whatever its name.

    Returns:
      name -> N rows: what was generated, and the conditions.

    Raises:
      UserError: an unknown condition or a value that it does not take, or more values than samples.
    """
    known = self.experiment.conditions
    given = sampling.read(known, {**(conditions or {}), **named})
    longest = max([0, *map(len, given.values())])
    num = max(1, longest) if num is None else num
    if longest > num and not start:
      raise UserError(f'{num} samples were asked for, and a condition has {longest} values; leave num out to draw one '
                      'sample for each')
    rows = {**sampling.rows(known, given, num, start), **sampling.requests(self.experiment, num, noise, exact)}
    return self.run.sample(num, seed, rows, averaged, chunk, start)

  def codes(self, averaged: bool | str = True, chunk: int = 64) -> codes_lib.Codes:
    """The latents of an autoencoder of pictures: `encode`, `decode`, `interpolate` and `along` an attribute. Those of a
    generator: its `encode` is a projection, and it can `draw` codes and go `through` several.

    Args:
      averaged: use averaged parameters where the run has them; or the name of an average of config.ema.
      chunk: pictures that are encoded or decoded at once.

    Raises:
      UserError: the run is no autoencoder of pictures, or it has conditions.
    """
    return codes_lib.of(self.config, self.run, averaged, chunk)

  def render(self, samples: Columns) -> dict[str, Artifact]:
    """What is shown of samples: name -> a text, a picture (uint8 H W C), a clip or a sound; see `genjax.artifacts`."""
    return dict(self.experiment.render(samples))

  def write(self, samples: Columns, path: Path, *, seed: int | None = None,
            conditions: Mapping[str, Any] | None = None, start: int = 0) -> list[pathlib.Path]:
    """Writes samples as `genjax sample --out=PATH` does; returns the files.

    Args:
      samples: what `sample` returned.
      path: ends in .npz for arrays, in an ending that fits what is shown of them (.png, .jpg, .webp or .gif; .mp4;
        .wav or .flac; .txt), or is a folder for one file of each sample.
      seed, conditions, start: what `sample` was given, for metadata.jsonl of a folder.

    Raises:
      UserError: another ending, or a place that cannot be written.
    """
    out = sampling.destination(os.fspath(path))
    if out.is_folder or out.ending != '.npz':
      sampling.check_ending(self.experiment, samples, out)
    workdir_lib.prepare(str(out.path if out.is_folder else out.path.parent), 'path')
    return sampling.write(samples, self.experiment, out, seed, conditions, start)

  def evaluate(self, *, averaged: bool | str = True, samples: bool = True, seed: int = 0) -> scoring.Evaluation:
    """Evaluates the run on its held-out split, and writes evaluation.json as `genjax evaluate` does.

    Args:
      averaged: use averaged parameters where the run has them; or the name of an average of config.ema.
      samples: compute the measures that draw samples, too. The first time, they may train a classifier to judge with.
      seed: of these samples.

    Returns:
      `metrics` (name -> value), `card` (what they depend on) and `examples` (name -> value of each held-out example).
    """
    scoring.check(self.run, samples, averaged, self.workdir)
    evaluation = scoring.evaluate(self.config, self.run, averaged, samples, seed)
    scoring.keep(self.workdir, evaluation)
    return evaluation

  def export(self, folder: Path, *, format: str = exporting.FORMATS[0], averaged: bool = True,
             dtype: str | None = None) -> pathlib.Path:
    """Writes the model as a folder.

    Args:
      folder: a new folder.
      format: 'transformers', which Hugging Face's transformers loads, or PEFT in the case of adapters; or
        'safetensors', which any model has, with a page of how to read it.
      averaged: use averaged parameters where the run has them.
      dtype: of the tensors, 'float32', 'bfloat16' or 'float16'; None for that of the parameters.

    Returns:
      The folder.

    Raises:
      UserError: no public architecture has such a model, or the folder is not new.
    """
    to = outputs.folder(os.fspath(folder), 'folder', new=True)
    logs.say(exporting.export(self.workdir, to, self.step, averaged, dtype, format))
    return to

  def metrics(self) -> list[dict[str, float]]:
    """What was logged while training, a dict a line of metrics.jsonl, oldest first: 'step' and name -> value."""
    return read_metrics(self.workdir)


def open(path: Path, step: int | str | None = None, *, imports: Sequence[str] = (), **changes: Any) -> LoadedRun:
  """Opens a run directory.

  Args:
    path: the run directory.
    step: of the checkpoint: a number, or 'best'; by default the newest.
    imports: files or modules that add parts by name, as --import has them; those that the run keeps are loaded anyway.
    **changes: keys of the config that decide how a run is sampled and evaluated, for example
      `sampler=dict(steps=25)`, `data=dict(heldout='test')` or `batch_size=32`.

  Raises:
    UserError: no run directory, no such checkpoint, or a change of something that was trained in.
  """
  config, run = workdir_lib.open_run(os.fspath(path), configs.assignments(changes), step, imports=imports)
  return LoadedRun(expanded(path), config, run)


def load_config(name: Path) -> Config:
  """A config to change and to give to `train`.

  Args:
    name: a config file with its argument, such as 'configs/quickstart.py:smoke', or a run directory.

  Raises:
    UserError: there is none, or it fails.
  """
  return configs.load(name)[0]


def train(config: Any, workdir: Path | None = None, *, steps: int | None = None, more_steps: int | None = None,
          hooks: Sequence[Hook] = (), imports: Sequence[str] = (), **changes: Any) -> LoadedRun:
  """Trains a run, or goes on with it, exactly as `genjax train` does, in one process.

  `train('configs/quickstart.py', 'runs/new')` begins a run, or resumes it if it was interrupted.
  `train('runs/new', more_steps=500)` gives a finished run 500 more steps.
  An interrupt saves the last finished step before it is raised.

  Args:
    config: a config (a ConfigDict), a config file with its argument ('configs/quickstart.py:smoke'), or a run directory
      or an opened run, which goes on if `workdir` is left out, and else lends its config.
    workdir: the run directory.
    steps: of the whole run, in place of the config's.
    more_steps: so many more than the run in `workdir` has now.
    hooks: called around steps beside those of the experiment, see `genjax.training.hooks.Hook`.
    imports: files or modules that add parts by name, as --import has them; the run keeps them.
    **changes: keys of the config, for example `optimizers=dict(net=dict(lr=1e-3))` or `batch_size=64`.

  Returns:
    The run at its last step.

  Raises:
    UserError: bad input, before anything is computed.
    NonFiniteError: training stopped on NaN or infinity.
    StorageError: a checkpoint could not be written.
  """
  made, paths, all_imports, source = _config_of(config, imports)
  folder = source if workdir is None else expanded(workdir)
  if folder is None:
    raise UserError('workdir is needed: the folder of the run')
  for assignment in configs.assignments(changes):
    config_lib.override(made, assignment)
  made.steps = _total(folder, made, steps, more_steps)
  config_lib.check(made)
  allocator.keep_freed_memory()
  with _stopping():
    run = training.train(made, str(folder), paths, imports=all_imports, more_hooks=hooks)
  return LoadedRun(folder, made, run)


def _config_of(config: Any, imports: Sequence[str]) -> tuple[Config, list[str], list[str], pathlib.Path | None]:
  """A config of one's own, the folders of its builder, all its imports, and the run directory that it is of."""
  if isinstance(config, LoadedRun):
    config = config.workdir
  if isinstance(config, (str, os.PathLike)):
    return *configs.load(config, imports), expanded(config) if expanded(config).is_dir() else None
  if not hasattr(config, 'experiment'):
    raise UserError(f'expected a config, a config file or a run directory, got {config!r}')
  return configs.copied(config), [os.getcwd()], list(imports), None


def _total(folder: pathlib.Path, config: Config, steps: int | None, more_steps: int | None) -> int:
  """config.steps of the run to come."""
  if steps is not None and more_steps is not None:
    raise UserError(f'steps is that of the whole run, more_steps comes on top of it; give one, got {steps=} and '
                    f'{more_steps=}')
  if more_steps is None:
    return config.steps if steps is None else steps
  if not isinstance(more_steps, int) or more_steps < 1:
    raise UserError(f'more_steps must be a whole number of at least 1, got {more_steps!r}')
  if not (folder / 'config.json').is_file():
    raise UserError(f'more_steps={more_steps} goes on with a run, and {folder} holds none; give steps')
  return assets.read_json(folder / 'config.json')['steps'] + more_steps


@contextlib.contextmanager
def _stopping() -> Iterator[None]:
  """Inside, SIGINT and SIGTERM stop training after the step that is computed, which is saved. Threads get no signals,
  and a command has taken them over before."""
  if threading.current_thread() is not threading.main_thread() or stopping.installed():
    yield
    return
  stopping.install()
  try:
    yield
  except stopping.Stopped as stopped:
    where = 'before training began' if stopped.step is None else f'at step {stopped.step}, which is saved'
    logs.say(f'stopped by {stopped.signal} {where}; train again to go on')
    raise (KeyboardInterrupt if stopped.signal == 'SIGINT' else SystemExit)(stopped.signal) from None
  finally:
    stopping.uninstall()


def read_metrics(workdir: pathlib.Path) -> list[dict[str, float]]:
  """See `LoadedRun.metrics`. A line that was cut off, as by a full disk, is left out."""
  path, found = workdir / 'metrics.jsonl', []
  for line in path.read_text().splitlines() if path.exists() else []:
    try:
      entry = json.loads(line)
      found.append({name: math.nan if value is None else value for name, value in entry.items()})
    except (ValueError, AttributeError):
      continue
  return found
