"""Makes a run directory of a public model in the layout of Hugging Face's transformers, or of adapters of PEFT."""

from collections.abc import Iterator, Mapping
import contextlib
import importlib
import os
import pathlib
import shutil
import tempfile
from typing import Any

import jax
import jax.numpy as jnp

from genjax import config as config_lib
from genjax.config import Config
from genjax.interop.files import new_folder
from genjax.runs import assets, atomic, bases, builders, sources
from genjax.runs import checkpoints as checkpoints_lib
from genjax.runs import workdir as workdir_lib
from genjax.training.experiment import Condition
from genjax.training.monitoring import logs
from genjax.training.run import Run
from genjax.training.state import TrainState
from genjax.types import UserError, listed, named_leaves

PUBLIC = 'genjax.experiments.public'  # makes configs of public models
MARGIN = 2**20  # bytes
COMPONENTS, INDEX = '_components', 'model_index.json'
NOTHING: Mapping[str, Any] = {}
DTYPES = ('float32', 'bfloat16', 'float16')


def import_model(source: pathlib.Path, workdir: pathlib.Path, base: pathlib.Path | None = None,
                 dtype: str = 'float32', variant: str = '',
                 more: Mapping[str, Any] = NOTHING) -> tuple[int, Mapping[str, Condition]]:
  """Makes a run before its first step of a public model; see `genjax import --help`.

  Args:
    source: the folder, or its config.json or model.safetensors; or an original file, see `genjax.interop.original`.
    workdir: a new run directory. What stands for an original file of a whole pipeline is beside it, in a folder whose
      name ends with `COMPONENTS`.
    base: the run of the model whose adapters are imported, if `source` has adapters.
    dtype: of the parameters in the checkpoint, one of `DTYPES`.
    variant: 'fp16' reads files such as model.fp16.safetensors.
    more: what an original file does not hold, options of `genjax.interop.original_folder.Options`; of adapters,
      `component` leaves those of text encoders out.

  Returns:
    The number of parameters, and the conditions that samples of the run take.

  Raises:
    UserError: a folder that is no whole model, or one that genjax cannot run; a workdir that is not empty. Nothing is
      left behind.
  """
  if source.is_file() and source.suffix not in ('.json', '.safetensors'):
    raise UserError(
      f'--from={source}: expected a folder with config.json and safetensors, or one of these files; pickles and other '
      'formats are not opened. safetensors.torch.save_file converts a pickle, on a machine that may run its code')
  if (workdir / 'config.json').exists():
    raise UserError(f'--workdir={workdir} holds a run already; name a new folder')
  workdir_lib.compilation_cache()
  with new_folder(workdir) as partial, _folder_of(source, workdir, base, more) as where:
    public = importlib.import_module(PUBLIC)
    imported = public.read(where, dtype, variant) if base is None else _read_adapter(public, where, base,
                                                                                     more.get('component', ''))
    return _write(partial, source, *imported)


@contextlib.contextmanager
def _folder_of(source: pathlib.Path, workdir: pathlib.Path, base: pathlib.Path | None,
               more: Mapping[str, Any]) -> Iterator[pathlib.Path]:
  """The folder to read: that of `source`, or one that is made of an original file. It is kept only for a pipeline,
  whose parts stay where they are, and not if the import fails."""
  if base is not None or not is_original(source):
    if unused := sorted(set(more) - ({'component'} if base else set())):
      raise UserError(f'--from={source} is no original file, and {", ".join(f"--{name}" for name in unused)} '
                      f'{"says" if len(unused) == 1 else "say"} what such a file does not hold; leave it out')
    yield source.parent if source.is_file() and base is None else source
    return
  with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(temporary)
    for line in importlib.import_module(PUBLIC).write_original(folder, source, more):
      logs.say(line)
    if not (folder / INDEX).is_file():
      yield folder
      return
    kept = workdir.with_name(workdir.name + COMPONENTS)
    with new_folder(kept) as partial:
      shutil.copytree(folder, partial, dirs_exist_ok=True)
  try:
    yield kept
  except BaseException:
    shutil.rmtree(kept, ignore_errors=True)
    raise
  logs.say(f'{kept} stands for {source}; the run reads both, so let them be where they are')


def is_original(source: pathlib.Path) -> bool:
  """Whether a path is an original file, see `genjax.interop.original`.

  Raises:
    UserError: it is damaged.
  """
  return importlib.import_module(PUBLIC).is_original(source)


def unpack(source: pathlib.Path, folder: pathlib.Path, more: Mapping[str, Any] = NOTHING) -> list[str]:
  """Makes a folder of `diffusers` that stands for an original file, or for a component of it, as a part of runs.

  Args:
    source: the file.
    folder: a new folder.
    more: what the file does not hold, see `import_model`.

  Returns:
    What was assumed, in words.

  Raises:
    UserError: see `genjax.interop.original_folder.write`. Nothing is left behind.
  """
  with new_folder(folder) as partial:
    return importlib.import_module(PUBLIC).write_original(partial, source, more)


def convert(source: pathlib.Path, kind: str, folder: pathlib.Path) -> tuple[int, str]:
  """Makes a folder of public weights of a published file of a feature network; see `genjax import --help`.

  Args:
    source: the published file.
    kind: the `model_type` of the folder, such as 'vgg16_lpips'.
    folder: a new folder.

  Returns:
    The number of parameters, and the name that the weights have in metrics.

  Raises:
    UserError: see `genjax.interop.conversion.convert`.
  """
  return importlib.import_module(PUBLIC).convert(source, kind, folder)


def _read_adapter(public: Any, source: pathlib.Path, base: pathlib.Path, component: str) -> Any:
  """What `public` makes of adapters, for the newest step of their base."""
  config = assets.read_config(base)
  with contextlib.closing(checkpoints_lib.of_run(base, config)) as saved:
    _, trees = saved.load(logs.say, parts=('params',))
  imported = public.read_adapter(source, config, trees['params'], assets.contents(base, config), component)
  with imported.config.unlocked():
    imported.config.init_from = str(base.absolute())
  assets.put(imported.config, bases.inherited(imported.config))
  return imported


def _write(folder: pathlib.Path, source: pathlib.Path, config: Config, params: Any, mutable: Any,
           files: Mapping[str, bytes]) -> tuple[int, Mapping[str, Condition]]:
  """Writes the run to a folder; returns the number of its parameters, and what it can be asked for."""
  paths = [os.getcwd()]
  experiment = bases.identified(config, builders.build(config, paths))
  run = Run(experiment, builders.settings(config))
  params = params() if callable(params) else params  # after the parts were read, so that memory never holds both
  files = {**experiment.files, **files}
  kept = {**experiment.assets, **({'vocabulary': config.data.vocabulary} if 'vocabulary' in config.data else {})}
  atomic.write(folder, files)
  assets.put(config, assets.described(kept, files))
  state = TrainState(
    step=jnp.zeros((), jnp.int32), params=params, mutable=mutable, ema={},
    opt={group: experiment.optimizers[group].init(tree) for group, tree in params.items()})
  here, there = (
    {name: leaf.shape for name, leaf in named_leaves(tree).items()} for tree in (state.params, run.target.params))
  if here != there:
    different = [f'{name} {shape}' for name, shape in sorted(set(here.items()) ^ set(there.items()))]
    raise UserError(f'{source}: its parameters are not those of {config.experiment}: {listed(different)}')
  description = {**workdir_lib.describe(config, {'imported_from': str(source.absolute())}, paths),
                 **sources.record(config, folder)}
  at_once = max(leaf.nbytes for leaf in jax.tree.leaves(params)) + MARGIN
  with contextlib.closing(checkpoints_lib.of_run(folder, config, at_once)) as saved:
    saved.save(0, state, {**description, 'config': config_lib.plain(config)}, None)
  atomic.write_json(folder / 'run.json', description)
  atomic.write_json(folder / 'config.json', config_lib.plain(config))
  return sum(leaf.size for leaf in jax.tree.leaves(params)), experiment.conditions
