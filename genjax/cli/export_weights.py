"""`genjax export --workdir=RUN --to=DIR [--format=safetensors]`: writes the model of a run as a folder.

--format=transformers, the default, writes what Hugging Face's transformers loads: config.json, model.safetensors
(several, and their index, from 5 GB on) and the tokenizer, where it is one of pieces of words. Of a run with adapters,
these are written, as a folder that PEFT loads. The models of genjax with a public architecture have this format.

--format=safetensors writes any model: parameters by their paths, the config of the run, and README.md, a page of how to
read them.

Averaged parameters are used where the run has them.
"""

import argparse
from collections.abc import Iterator
import contextlib
import importlib
import pathlib

from genjax.cli.import_weights import DTYPES, PUBLIC
from genjax.runs import assets, builders, exporting_safetensors, outputs
from genjax.runs import workdir as workdir_lib
from genjax.training.monitoring import logs
from genjax.types import UserError

FORMATS = ('transformers', 'safetensors')


def main(argv: list[str]) -> int:
  """Exports; returns the exit code.

  Raises:
    UserError: no run, no checkpoint, or a model that no public architecture has. Nothing is left behind.
  """
  parser = argparse.ArgumentParser('genjax export', description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--workdir', required=True, help='a run directory')
  parser.add_argument('--to', required=True, metavar='DIR', help='a new folder')
  parser.add_argument('--format', choices=FORMATS, default=FORMATS[0], help='of the folder')
  workdir_lib.add_step(parser)
  parser.add_argument('--raw', action='store_true', help='use the parameters themselves, not their averages')
  parser.add_argument('--dtype', choices=DTYPES, help='of the tensors; by default that of the parameters')
  args = parser.parse_args(argv)
  workdir, to = pathlib.Path(args.workdir), outputs.folder(args.to, '--to', new=True)
  config = assets.read_config(workdir)
  kept = assets.contents(workdir, config)
  public = importlib.import_module(PUBLIC)
  any_model = args.format == 'safetensors'
  if not any_model:
    with _telling_of_safetensors():
      public.check(config, kept)
  with contextlib.closing(workdir_lib.checkpoints(workdir, config)) as saved:
    parts = ('params', *(() if args.raw else ('ema',)), *(('mutable',) if any_model else ()))
    step, trees = saved.load(logs.say, workdir_lib.chosen(saved, args.step), parts)
  params = {**trees['params'], **(trees.get('ema') or {})}
  if any_model:
    exporting_safetensors.write(to, workdir, config, step, params, trees.get('mutable') or {}, args.dtype,
                                averaged=list(trees.get('ema') or ()))
    logs.say(f'wrote step {step} of {workdir} to {to}; {to / exporting_safetensors.README} says how to read it')
    return 0
  if builders.adapted(config):
    _, experiment = workdir_lib.load(args.workdir)
    public.write_adapter(to, config, params, experiment.frozen, kept)
    logs.say(f'wrote the adapters of step {step} of {workdir} to {to}')
    return 0
  with _telling_of_safetensors():
    public.write(to, config, params, kept, args.dtype)
  missing = ''
  if not kept and 'vocabulary' in config.data:
    missing = f', without a tokenizer: transformers has none for the vocabulary {config.data.vocabulary!r}'
  logs.say(f'wrote step {step} of {workdir} to {to}{missing}')
  return 0


@contextlib.contextmanager
def _telling_of_safetensors() -> Iterator[None]:
  """Adds to the message about a model without a public layout how it can be written."""
  try:
    yield
  except UserError as error:
    raise UserError(f'{error}. --format=safetensors writes any model') from error
