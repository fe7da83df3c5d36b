"""Services that are told what a run logs, beside its own files and TensorBoard: Weights & Biases and MLflow.

`config.loggers` names them. Where they are, and as whom they are spoken to, is the matter of their own environment
variables, such as WANDB_MODE and MLFLOW_TRACKING_URI: it is no property of a run. A run that resumes goes on under the
name in loggers.json of its folder. A service that fails does not end a run, which keeps all numbers in metrics.jsonl.
"""

from collections.abc import Callable, Mapping, Sequence
import html
import importlib.util
import json
import os
import pathlib
import re
import tempfile
import time
from typing import Any
import uuid

import numpy as np

from genjax import artifacts, distributed
from genjax.artifacts import Artifact
from genjax.tables import Table
from genjax.training import hooks
from genjax.training.monitoring import logs
from genjax.training.run import Run
from genjax.types import UserError, listed, strict_json

NAME = 'loggers.json'
PROJECT = 'genjax'  # of services that sort runs, where their environment variable names none
_PARAMETER = 500  # characters of a value that MLflow shows beside a run


class Logger(hooks.Hook):
  """A service; the base of the others. Only the first process of a run speaks to it.

  Args:
    workdir: the run directory.
    config: the whole config, as dotted key -> plain value.

  Attributes:
    service: its name in `LOGGERS`, and that of its package and extra.
    advice: what helps if it cannot be started.
  """

  service = ''
  advice = ''

  def __init__(self, workdir: pathlib.Path, config: Mapping[str, Any]):
    self.workdir, self.config = workdir, config
    self._works = False
    self._status = 'failed'

  def start(self, run: Run) -> None:
    if not distributed.is_first():
      return
    path = self.workdir / NAME
    known = _known(path)
    try:
      with run.clock.section('startup'):  # a server that is slow to answer is no part of training
        name = self.open(known.get(self.service, ''))
    except UserError:
      raise
    except Exception as error:  # each service has errors of its own
      raise UserError(f'config.loggers: {self.service} cannot be started: {_hidden(error)}. {self.advice}, or leave '
                      f'{self.service} out of config.loggers') from error
    whole = path.with_name(f'.{NAME}')  # a process that is killed leaves no half of it
    whole.write_text(strict_json({**known, self.service: name}, indent=1) + '\n')
    os.replace(whole, path)
    self._works = True

  def on_log(self, run: Run, step: int, values: Mapping[str, float]) -> None:
    self._tell(self.numbers, step, values)

  def on_evaluate(self, run: Run, step: int, values: Mapping[str, float]) -> None:
    self._tell(self.numbers, step, {f'heldout/{name}': value for name, value in values.items()})

  def on_sample(self, run: Run, step: int, samples: Mapping[str, np.ndarray],
                pictures: Mapping[str, Artifact]) -> None:
    for name, value in pictures.items() if self._works else ():
      with tempfile.TemporaryDirectory() as folder:
        files = artifacts.write_shown(pathlib.Path(folder) / f'step_{step:07d}_{name}', value)
        self._tell(self.sample, step, name, files)

  def end(self, run: Run) -> None:
    self._status = 'finished'

  def stop(self, run: Run) -> None:
    self._status = 'stopped'

  def close(self) -> None:
    self._tell(self.shut, self._status)
    self._works = False

  def _tell(self, tell: Callable[..., None], *values: Any) -> None:
    """Speaks to the service. Its first error is said, and nothing more is told."""
    if not self._works:
      return
    try:
      tell(*values)
    except Exception as error:
      self._works = False
      logs.say(f'{self.service} failed and is told no more of this run, whose numbers are in metrics.jsonl: '
               f'{_hidden(error)}')

  def open(self, name: str) -> str:
    """Begins with no name, or goes on under one; returns the name."""
    raise NotImplementedError

  def numbers(self, step: int, values: Mapping[str, float]) -> None:
    """Name -> number, as in metrics.jsonl."""
    raise NotImplementedError

  def sample(self, step: int, name: str, files: Sequence[pathlib.Path]) -> None:
    """The files of one sample, see `genjax.artifacts.write_shown`; they are removed then."""
    raise NotImplementedError

  def shut(self, status: str) -> None:
    """The process ends: 'finished', 'stopped' or 'failed'."""
    raise NotImplementedError


def _hidden(text: object) -> str:
  """A message without the password of an address, such as https://me:secret@host: logs and reports keep it."""
  return re.sub(r'(://)[^/\s@]+@', r'\1***@', str(text))


def _known(path: pathlib.Path) -> dict[str, str]:
  """Service -> name of the run.

  Raises:
    UserError: the file is damaged.
  """
  try:
    found = json.loads(path.read_text()) if path.exists() else {}
  except ValueError as error:
    raise UserError(f'{path} is damaged ({error}); restore it from a copy, or remove it: the loggers then begin new '
                    'runs') from error
  if not isinstance(found, dict):
    raise UserError(f'{path} must have names of runs by service, got {found!r}; restore it from a copy, or remove it')
  return found


class WeightsAndBiases(Logger):
  """Weights & Biases. WANDB_MODE=offline writes into the folder wandb of the run directory, for `wandb sync`."""

  service = 'wandb'
  advice = 'Log in with `wandb login`, or write to files with WANDB_MODE=offline'

  def open(self, name: str) -> str:
    import wandb  # pyright: ignore[reportMissingImports]  # an extra
    self._module = wandb
    name = name or uuid.uuid4().hex[:8]
    offline = os.environ.get('WANDB_MODE') in ('offline', 'dryrun')
    # Offline there is no former state to read: each process writes a folder of its own, under one name.
    self._run = wandb.init(
      project=os.environ.get('WANDB_PROJECT', PROJECT), id=name, resume=None if offline else 'allow',
      name=os.environ.get('WANDB_NAME', self.workdir.resolve().name), dir=str(self.workdir), config=dict(self.config),
      settings=wandb.Settings(console='off', silent=True))
    return name

  def numbers(self, step: int, values: Mapping[str, float]) -> None:
    self._run.log(dict(values), step=step)

  def sample(self, step: int, name: str, files: Sequence[pathlib.Path]) -> None:
    kinds = {'.png': self._module.Image, '.wav': self._module.Audio,
             '.mp4': lambda path: self._module.Video(path, format='mp4'),
             '.txt': lambda path: self._module.Html(f'<pre>{html.escape(pathlib.Path(path).read_text())}</pre>')}
    found = {name + file.stem.partition(name)[2]: kinds[file.suffix](str(file)) for file in files
             if file.suffix in kinds}
    self._run.log(found, step=step)

  def shut(self, status: str) -> None:
    # A run that was stopped goes on later; for W&B it has crashed if its exit code says so.
    self._run.finish(exit_code=0 if status == 'finished' else 1)


class MLflow(Logger):
  """MLflow, at MLFLOW_TRACKING_URI: a server, or by default mlflow.db in the current folder.

  A number whose step is known there already, as after a resume, is not told twice.
  """

  service = 'mlflow'
  advice = 'Set MLFLOW_TRACKING_URI to a server that answers or to sqlite:///FILE'

  def open(self, name: str) -> str:
    import mlflow  # pyright: ignore[reportMissingImports]  # an extra
    from mlflow import entities
    self._metric = entities.Metric
    self._client = mlflow.MlflowClient()
    self._known: dict[str, int] = {}
    if name:
      self._go_on(name)
    else:
      name = self._begin(entities)
    self._name = name
    return name

  def _begin(self, entities: Any) -> str:
    experiment = os.environ.get('MLFLOW_EXPERIMENT_NAME', PROJECT)
    found = self._client.get_experiment_by_name(experiment)
    number = found.experiment_id if found else self._client.create_experiment(experiment)
    name = self._client.create_run(number, run_name=self.workdir.resolve().name).info.run_id
    # What a value may be long differs between stores; the whole config is a file.
    entries = [entities.Param(key, text if len(text) <= _PARAMETER else f'{text[:_PARAMETER - 1]}…')
               for key, text in ((key, str(value)) for key, value in self.config.items())]
    for first in range(0, len(entries), 100):  # the most that a server takes at once
      self._client.log_batch(name, params=entries[first:first + 100])
    self._client.log_dict(name, dict(self.config), 'config.json')
    return name

  def _go_on(self, name: str) -> None:
    try:
      run = self._client.get_run(name)
    except Exception as error:
      raise UserError(
        f'config.loggers: {self.workdir / NAME} says that mlflow knows this run as {name}, and it is not at '
        f'{_hidden(self._client.tracking_uri)}: {_hidden(error)}. Set MLFLOW_TRACKING_URI as it was, or remove that '
        'file to begin a new one') from error
    for key in run.data.metrics:
      self._known[key] = max(entry.step for entry in self._client.get_metric_history(name, key))
    self._client.update_run(name, status='RUNNING')

  def numbers(self, step: int, values: Mapping[str, float]) -> None:
    now = round(time.time() * 1000)
    fresh = [self._metric(key, float(value), now, step) for key, value in values.items()
             if step > self._known.get(key, -1)]
    for first in range(0, len(fresh), 1000):
      self._client.log_batch(self._name, metrics=fresh[first:first + 1000])

  def sample(self, step: int, name: str, files: Sequence[pathlib.Path]) -> None:
    for file in files:
      self._client.log_artifact(self._name, str(file), 'samples')

  def shut(self, status: str) -> None:
    self._client.set_terminated(self._name, {'finished': 'FINISHED', 'stopped': 'KILLED'}.get(status, 'FAILED'))


LOGGERS: Table[Callable[..., Logger]] = Table('logger', {'wandb': WeightsAndBiases, 'mlflow': MLflow},
                                              takes=('workdir', 'config'))


def check(names: Any) -> None:
  """Checks that the loggers are known, and their packages installed.

  Raises:
    UserError: they are not.
  """
  if isinstance(names, str) or not all(isinstance(name, str) for name in names):
    raise UserError(f"config.loggers is a list of names such as ('wandb', 'mlflow'), got {names!r}")
  for name in names:
    if name not in LOGGERS:
      raise UserError(f"config.loggers has {name!r}, and there are {listed(sorted(LOGGERS))}; several are given as "
                      "('wandb', 'mlflow')")
    if name in ('wandb', 'mlflow') and importlib.util.find_spec(name) is None:
      raise UserError(f"config.loggers has {name!r}, whose package is not installed: pip install "
                      f"'genjax-research[{name}]', or leave it out")
  if len(set(names)) < len(names):
    raise UserError(f'config.loggers names one twice: {names!r}')


def make(names: Sequence[str], workdir: pathlib.Path, config: Mapping[str, Any]) -> list[Logger]:
  """The hooks of the loggers that a config names; `config`: dotted key -> plain value."""
  return [LOGGERS[name](workdir, config) for name in names]
