"""`genjax import --from=DIR --workdir=RUN`: makes a run directory of a public model in the layout of Hugging Face's
transformers.

DIR has config.json, model.safetensors or its shards, and a tokenizer: tokenizer.json, tokenizer.model, spiece.model,
vocab.txt, or Marian's source.spm, target.spm and vocab.json; a decoder may be without. The run stands before its first
step and has no data of its own:

  genjax sample   --workdir=RUN --prompt='Once upon a time'
  genjax evaluate --workdir=RUN --set data.name=tiny_shakespeare data.heldout=test
  genjax train    --config=RUN/config.json --config.init_from=RUN --workdir=TUNED --config.steps=1000
  --config.optimizers.net.name=adamw \\
                  --config.data.name=tiny_shakespeare --config.data.heldout=validation

With --base, DIR is a folder of PEFT with adapter_config.json and adapter_model.safetensors, and the run has adapters of
the run BASE.
"""

import argparse
from collections.abc import Mapping
import contextlib
import importlib
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from genjax import config as config_lib
from genjax.config import Config
from genjax.interop.files import new_folder
from genjax.runs import assets, builders
from genjax.runs import workdir as workdir_lib
from genjax.training.experiment import Condition
from genjax.training.monitoring import logs
from genjax.training.run import Run
from genjax.training.state import TrainState
from genjax.types import UserError, listed, named_leaves

PUBLIC = 'genjax.experiments.public'  # makes configs of public models
MARGIN = 2**20  # bytes
DTYPES = ('float32', 'bfloat16', 'float16')


def main(argv: list[str]) -> int:
  """Imports; returns the exit code.

  Raises:
    UserError: a folder that is no whole model, or one that genjax cannot run; a workdir that is not empty. Nothing is
      left behind.
  """
  parser = argparse.ArgumentParser('genjax import', description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--from', dest='source', required=True, metavar='DIR',
                      help='the folder, or its config.json or model.safetensors')
  parser.add_argument('--workdir', required=True, help='a new run directory')
  parser.add_argument('--base', metavar='RUN', help='the run directory of the model whose adapters are imported')
  parser.add_argument('--dtype', choices=DTYPES, default='float32',
                      help='of the parameters in the checkpoint; a run computes with float32')
  args = parser.parse_args(argv)
  source, workdir = pathlib.Path(args.source), pathlib.Path(args.workdir)
  if source.is_file() and source.suffix not in ('.json', '.safetensors'):
    raise UserError(
      f'--from={source}: expected a folder with config.json and safetensors, or one of these files; pickles and other '
      'formats are not opened')
  if (workdir / 'config.json').exists():
    raise UserError(f'--workdir={workdir} holds a run already; name a new folder')
  workdir_lib.compilation_cache()
  with new_folder(workdir) as partial:
    public, where = importlib.import_module(PUBLIC), source.parent if source.is_file() else source
    imported = _read_adapter(public, where, pathlib.Path(args.base)) if args.base else public.read(where, args.dtype)
    parameters, conditions = _write(partial, source, *imported)
  told = [
    f'sample --workdir={workdir} --num=1 ' + (f'--conditions={name}=...' if condition.fill is None else '--prompt=...')
    for name, condition in conditions.items()
  ] or [f'evaluate --workdir={workdir} --set data.name=...']
  logs.say(f'{workdir}: {parameters:,} parameters of {source}, a run at step 0\n'
           f'next:\n  genjax {told[0]}\n  genjax import --help')
  return 0


def _read_adapter(public: Any, folder: pathlib.Path, base: pathlib.Path) -> Any:
  """What `public` makes of adapters, for the newest step of their base."""
  config = assets.read_config(base)
  with contextlib.closing(workdir_lib.checkpoints(base, config)) as saved:
    _, trees = saved.load(logs.say, parts=('params',))
  imported = public.read_adapter(folder, config, trees['params'], assets.contents(base, config))
  with imported.config.unlocked():
    imported.config.init_from = str(base.absolute())
  assets.put(imported.config, workdir_lib.inherited(imported.config))
  return imported


def _write(folder: pathlib.Path, source: pathlib.Path, config: Config, params, mutable,
           files) -> tuple[int, Mapping[str, Condition]]:
  """Writes the run to a folder; returns the number of its parameters, and what it can be asked for."""
  paths = [os.getcwd()]
  experiment = workdir_lib.attach(config, builders.build(config, paths))
  run = Run(experiment, builders.settings(config))
  files = {**experiment.files, **files}
  kept = {**experiment.assets, **({'vocabulary': config.data.vocabulary} if 'vocabulary' in config.data else {})}
  assets.write(folder, files)
  assets.put(config, assets.described(kept, files))
  state = TrainState(
    step=jnp.zeros((), jnp.int32), params=params, mutable=mutable, ema={},
    opt={group: experiment.optimizers[group].init(tree) for group, tree in params.items()})
  here, there = (
    {name: leaf.shape for name, leaf in named_leaves(tree).items()} for tree in (state.params, run.target.params))
  if here != there:
    different = [f'{name} {shape}' for name, shape in sorted(set(here.items()) ^ set(there.items()))]
    raise UserError(f'{source}: its parameters are not those of {config.experiment}: {listed(different)}')
  description = workdir_lib.describe(config, {'imported_from': str(source.absolute())}, paths)
  at_once = max(leaf.nbytes for leaf in jax.tree.leaves(params)) + MARGIN
  with contextlib.closing(workdir_lib.checkpoints(folder, config, at_once)) as saved:
    saved.save(0, state, {**description, 'config': config_lib.plain(config)}, None)
  workdir_lib.write_json(folder / 'run.json', description)
  workdir_lib.write_json(folder / 'config.json', config_lib.plain(config))
  return sum(leaf.size for leaf in jax.tree.leaves(params)), experiment.conditions
