"""Any model as a folder of safetensors: parameters by path, the config of the run, and a page of how to read them."""

from collections.abc import Sequence
import functools
import math
import pathlib
import shutil
from typing import Any

import jax
import numpy as np

from genjax import __version__
from genjax.config import Config
from genjax.interop import files
from genjax.runs import assets, builder_code, builders, code, sources
from genjax.runs import workdir as workdir_lib
from genjax.training.experiment import Experiment
from genjax.types import Params, Tree, UserError, leaf_name, named_leaves

README = 'README.md'
KINDS = ('params', 'mutable')  # what the name of each tensor begins with


def write(folder: pathlib.Path, workdir: pathlib.Path, config: Config, step: int, params: Params, mutable: Tree,
          dtype: str | None = None, averaged: Sequence[str] = (), shard_bytes: int = files.SHARD_BYTES) -> None:
  """Writes a model as a folder: model.safetensors (or shards and their index), config.json, README.md.

  A tensor is called 'params/<group>/<path>', or 'mutable/<path>' for what changes without gradients, such as batch
  statistics. The files of the run that its builder reads (run.json, a tokenizer) are copied beside them, and so is the
  user's code that the run keeps.

  Args:
    folder: a new folder; it appears when all is written.
    workdir, config: of the run.
    step: of the checkpoint.
    params: group -> parameters.
    mutable: see `genjax.objectives.base.Variables`.
    dtype: of floating tensors; None for their own.
    averaged: groups whose parameters are averaged ones; the page says so.
    shard_bytes: models of more bytes are put in several files.

  Raises:
    UserError: something is at the name of the folder.
    StorageError: the disk refuses.
  """
  leaves = {f'{kind}/{name}': leaf for kind, tree in zip(KINDS, (params, mutable))
            for name, leaf in named_leaves(tree).items()}
  pending = [_pending(name, leaf, dtype) for name, leaf in leaves.items()]
  with files.new_folder(folder) as partial:
    for name in ('config.json', 'run.json', *assets.contents(workdir, config)):
      shutil.copyfile(workdir / name, partial / name)
    for own in (builder_code.FOLDER, code.FOLDER):
      if (workdir / own).is_dir():
        shutil.copytree(workdir / own, partial / own, ignore=shutil.ignore_patterns('__pycache__'))
    files.write_tensors(partial, pending, shard_bytes)
    (partial / README).write_text(_page(config, step, pending, averaged), encoding='utf-8')


def read(folder: str | pathlib.Path) -> tuple[Experiment, Params, Tree]:
  """What `write` wrote: the experiment, whose `objective` holds the networks, its parameters, and `mutable`.

  Raises:
    UserError: no such folder, a damaged one, or one whose tensors are not those of its config; or, of adapters, the run
      that they adapt is not there.
  """
  _, experiment = workdir_lib.load(str(folder))
  tensors = files.open_folder(pathlib.Path(folder))
  init = functools.partial(experiment.objective.init, jax.random.key(0))
  variables = jax.eval_shape(init, experiment.frozen)

  def fill(kind: str, tree: Tree) -> Tree:
    return jax.tree_util.tree_map_with_path(lambda path, leaf: found(f'{kind}/{leaf_name(path)}', leaf.shape), tree)

  def found(name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name not in tensors or tensors[name].shape != shape:
      there = f'has shape {tensors[name].shape}' if name in tensors else 'is missing'
      raise UserError(f'{folder}: tensor {name} {there}, and config.json describes one of shape {shape}; the files are '
                      'not of one export')
    return tensors[name].read()

  return experiment, fill('params', variables.params), fill('mutable', variables.mutable)


def _pending(name: str, leaf: Any, dtype: str | None) -> files.Pending:
  """A tensor to be written, converted when its turn comes."""
  kind = np.dtype(leaf.dtype)
  floating = jax.numpy.issubdtype(kind, jax.numpy.floating)
  kind = jax.numpy.dtype(dtype) if dtype and floating else kind
  return files.Pending(name, tuple(leaf.shape), kind, lambda: np.ascontiguousarray(np.asarray(leaf).astype(kind)))


def _page(config: Config, step: int, tensors: list[files.Pending], averaged: Sequence[str]) -> str:
  """README.md of the folder."""
  trained = {tensor.name.split('/')[1] for tensor in tensors if tensor.name.startswith('params/')}
  kinds = 'the parameters themselves, no averages'
  if averaged:
    others = '' if trained <= set(averaged) else ', and the parameters themselves for other groups'
    kinds = f'averages over training for {", ".join(sorted(averaged))}{others}'
  groups: dict[str, list[files.Pending]] = {}
  for tensor in tensors:
    groups.setdefault('/'.join(tensor.name.split('/')[:2]), []).append(tensor)
  totals = [f'| `{name}/` | {len(part)} | {sum(math.prod(tensor.shape) for tensor in part):,} | '
            f'{sum(tensor.size for tensor in part) / 1e6:.1f} |' for name, part in groups.items()]
  rows = [f'| `{tensor.name}` | {" x ".join(map(str, tensor.shape)) or "scalar"} | {tensor.dtype.name} |'
          for tensor in tensors]
  base = _BASE.format(base=config.init_from) if builders.adapted(config) else ''
  if named := [name for name in sources.names(config) if name != sources.BASE]:
    base += _PARTS.format(parts=', '.join(f'`{sources.options(config, name).path}`' for name in named))
  return _PAGE.format(experiment=config.experiment, step=step, version=__version__, kinds=kinds, base=base,
                      totals='\n'.join(totals), rows='\n'.join(rows))


_BASE = '''
These are low-rank adapters. They act on the parameters of another run, `{base}`, which is not in this folder. `genjax
merge` writes both as one run, which can be exported in turn.
'''

_PARTS = '''
The model stands on other runs, {parts}, which are not in this folder: keep them.
'''

_PAGE = '''# A model of `{experiment}`, step {step}

Written by genjax {version}. The tensors are {kinds}.
{base}
| file | what it holds |
| --- | --- |
| `model.safetensors`, or `model-*.safetensors` with an index | the tensors |
| `config.json` | the config of the run: data, model, objective, optimizers |
| `run.json` | versions and data of the run |

## Read the tensors

```python
import pathlib
from safetensors.numpy import load_file  # JAX: safetensors.flax; PyTorch: safetensors.torch

tensors = {{}}
for path in pathlib.Path('.').glob('*.safetensors'):
  tensors.update(load_file(path))
```

A name is `params/<group>/<path>`, or `mutable/<path>` for what changes without gradients, such as batch statistics.
Each `/` is a level of a nested dict.

- The kernel of a dense layer is inputs x outputs: `y = x @ kernel + bias`. `torch.nn.Linear` keeps the transpose.
- The kernel of a convolution is height x width x inputs x outputs; PyTorch has outputs x inputs x height x width.
- Layers that repeat may be stacked: the first axis of a tensor below `blocks` or `layers` then counts the layers.

## Build the network

```python
from genjax.runs.exporting_safetensors import read

experiment, params, mutable = read('.')
```

`experiment.objective` holds the networks as pure functions. Samples with it:

```python
import jax
from genjax.objectives.base import Context
from genjax.training.experiment import encoded

count = 4
rows = {{name: condition.stack([condition.default(row) for row in range(count)])
        for name, condition in experiment.conditions.items() if not condition.optional}}
context = Context(step={step}, mutable=mutable, ema={{}}, frozen=experiment.frozen)
samples = experiment.objective.sample(params, context, jax.random.split(jax.random.key(0), count),
                                      encoded(experiment.conditions, rows))
```

`experiment.conditions` says what may be asked for. `condition.default` is a value of the held-out data, or of the
config; `condition.parse(TEXT)` gives the row of a value as `genjax sample --conditions` takes it.

## Groups

| begins with | tensors | entries | MB |
| --- | --- | --- | --- |
{totals}

## Tensors

| name | shape | type |
| --- | --- | --- |
{rows}
'''
