"""Writes the model of a run as a folder that Hugging Face's transformers or PEFT loads."""

import contextlib
import importlib
import pathlib
from typing import Any

from genjax.config import Config
from genjax.runs import assets, builders
from genjax.runs import checkpoints as checkpoints_lib
from genjax.runs import workdir as workdir_lib
from genjax.runs.importing import PUBLIC
from genjax.training.monitoring import logs


def export(workdir: pathlib.Path, to: pathlib.Path, step: int | str | None = None, averaged: bool = True,
           dtype: str | None = None) -> str:
  """Writes a run's model to a folder, or, of a run with adapters, these.

  Args:
    workdir: the run directory.
    to: a new folder, see `genjax.runs.outputs.folder`.
    step: of the checkpoint, a number or 'best'; None for the newest.
    averaged: use averaged parameters where the run has them.
    dtype: of the tensors; None for that of the parameters.

  Returns:
    What was written, in words.

  Raises:
    UserError: no run, no checkpoint, or a model that no public architecture has. Nothing is left behind.
  """
  config = assets.read_config(workdir)
  kept = assets.contents(workdir, config)
  public: Any = importlib.import_module(PUBLIC)
  public.check(config, kept)
  with contextlib.closing(checkpoints_lib.of_run(workdir, config)) as saved:
    step, trees = saved.load(logs.say, checkpoints_lib.chosen(saved, step), ('params', 'ema') if averaged else
                             ('params',))
  params = {**trees['params'], **(trees.get('ema') or {})}
  if builders.adapted(config):
    _, experiment = workdir_lib.load(str(workdir))
    public.write_adapter(to, config, params, experiment.frozen, kept)
    return f'wrote the adapters of step {step} of {workdir} to {to}'
  public.write(to, config, params, kept, dtype)
  return f'wrote step {step} of {workdir} to {to}{_missing(config, kept)}'


def _missing(config: Config, kept: dict[str, bytes]) -> str:
  if kept or 'vocabulary' not in config.data:
    return ''
  return f', without a tokenizer: transformers has none for the vocabulary {config.data.vocabulary!r}'
