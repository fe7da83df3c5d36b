"""Writes the model of a run as a folder that Hugging Face's transformers or PEFT loads, or any model as safetensors."""

from collections.abc import Iterator
import contextlib
import importlib
import pathlib
from typing import Any

from genjax.config import Config
from genjax.runs import assets, bases, builders, exporting_safetensors, sources
from genjax.runs import checkpoints as checkpoints_lib
from genjax.runs import workdir as workdir_lib
from genjax.runs.importing import PUBLIC
from genjax.training import averages
from genjax.training.monitoring import logs
from genjax.types import UserError

# The public layout of a model, by either name of the library that reads it; and parameters by their paths
FORMATS = ('transformers', 'diffusers', 'kohya', 'safetensors')


def export(workdir: pathlib.Path, to: pathlib.Path, step: int | str | None = None, averaged: bool = True,
           dtype: str | None = None, layout: str = FORMATS[0]) -> str:
  """Writes a run's model to a folder, or, of a run with adapters, these.

  Args:
    workdir: the run directory.
    to: a new folder, see `genjax.runs.outputs.folder`.
    step: of the checkpoint, a number or 'best'; None for the newest.
    averaged: use averaged parameters where the run has them.
    dtype: of the tensors; None for that of the parameters.
    layout: 'transformers' or 'diffusers', the public layout of the model, of its adapters, or of the pipeline that it
      is with its parts; 'kohya', of adapters of an image model; or 'safetensors', see
      `genjax.runs.exporting_safetensors`, which any model has.

  Returns:
    What was written, in words.

  Raises:
    UserError: no run, no checkpoint, or a model that no public architecture has. Nothing is left behind.
  """
  if layout not in FORMATS:
    raise UserError(f'the format of an export must be one of {FORMATS}, got {layout!r}')
  config = assets.read_config(workdir)
  bases.locate(config, workdir)
  kept = assets.contents(workdir, config)
  public: Any = importlib.import_module(PUBLIC)
  any_model = layout == 'safetensors'
  if layout == 'kohya' and not builders.adapted(config):
    raise UserError(f'--format=kohya writes the adapters of a run, and {workdir} has none')
  if not any_model:
    with _telling_of_safetensors():
      public.check(config, kept)
  parts = ('params', *(('ema',) if averaged else ()), 'mutable')
  with contextlib.closing(checkpoints_lib.of_run(workdir, config)) as saved:
    step, trees = saved.load(logs.say, checkpoints_lib.chosen(saved, step), parts)
  means = averages.evaluated(trees.get('ema') or {})
  params = {**trees['params'], **means}
  if any_model:
    exporting_safetensors.write(to, workdir, config, step, params, trees.get('mutable') or {}, dtype,
                                averaged=list(means))
    return f'wrote step {step} of {workdir} to {to}; {to / exporting_safetensors.README} says how to read it'
  if builders.adapted(config):
    _, experiment = workdir_lib.load(str(workdir))
    public.write_adapter(to, config, params, experiment.frozen[sources.BASE]['params'], kept, layout)
    return f'wrote the adapters of step {step} of {workdir} to {to}'
  with _telling_of_safetensors():
    public.write(to, config, params, kept, dtype, trees.get('mutable'))
  return f'wrote step {step} of {workdir} to {to}{_missing(config, kept)}'


@contextlib.contextmanager
def _telling_of_safetensors() -> Iterator[None]:
  """Adds to the message about a model without a public layout how it can be written."""
  try:
    yield
  except UserError as error:
    raise UserError(f'{error}. --format=safetensors writes any model') from error


def _missing(config: Config, kept: dict[str, bytes]) -> str:
  if kept or 'vocabulary' not in config.data:
    return ''
  return f', without a tokenizer: transformers has none for the vocabulary {config.data.vocabulary!r}'
