"""`genjax export --workdir=RUN --to=DIR`: writes the model of a run as a folder that Hugging Face's transformers loads.

DIR gets config.json, model.safetensors (several, and their index, from 5 GB on) and the tokenizer, where it is one of
pieces of words. Averaged parameters are used where the run has them. Of a run with adapters, these are written, as a
folder that PEFT loads.
"""

import argparse
import contextlib
import importlib
import pathlib

from genjax.cli.import_weights import DTYPES, PUBLIC
from genjax.runs import assets, builders, outputs
from genjax.runs import workdir as workdir_lib
from genjax.training.monitoring import logs


def main(argv: list[str]) -> int:
  """Exports; returns the exit code.

  Raises:
    UserError: no run, no checkpoint, or a model that no public architecture has. Nothing is left behind.
  """
  parser = argparse.ArgumentParser('genjax export', description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--workdir', required=True, help='a run directory')
  parser.add_argument('--to', required=True, metavar='DIR', help='a new folder')
  workdir_lib.add_step(parser)
  parser.add_argument('--raw', action='store_true', help='use the parameters themselves, not their averages')
  parser.add_argument('--dtype', choices=DTYPES, help='of the tensors; by default that of the parameters')
  args = parser.parse_args(argv)
  workdir, to = pathlib.Path(args.workdir), outputs.folder(args.to, '--to', new=True)
  config = assets.read_config(workdir)
  kept = assets.contents(workdir, config)
  public = importlib.import_module(PUBLIC)
  public.check(config, kept)
  with contextlib.closing(workdir_lib.checkpoints(workdir, config)) as saved:
    step, trees = saved.load(logs.say, workdir_lib.chosen(saved, args.step), ('params',) if args.raw else
                             ('params', 'ema'))
  params = {**trees['params'], **(trees.get('ema') or {})}
  if builders.adapted(config):
    _, experiment = workdir_lib.load(args.workdir)
    public.write_adapter(to, config, params, experiment.frozen, kept)
    logs.say(f'wrote the adapters of step {step} of {workdir} to {to}')
    return 0
  public.write(to, config, params, kept, args.dtype)
  missing = ''
  if not kept and 'vocabulary' in config.data:
    missing = f', without a tokenizer: transformers has none for the vocabulary {config.data.vocabulary!r}'
  logs.say(f'wrote step {step} of {workdir} to {to}{missing}')
  return 0
