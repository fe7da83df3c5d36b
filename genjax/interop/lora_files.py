"""Files of low-rank adapters of image models, of `diffusers`, PEFT and kohya, in both directions.

    model = interop.load('path/of/a/unet', dtype='float32')
    adapter = lora_files.load('pytorch_lora_weights.safetensors', model)
    params = lora.merge(model.params, adapter.params, adapter.options.scale)   # of genjax.nn.lora
    lora_files.save('path/of/a/folder', model, adapter)                        # diffusers loads this

Modules may have different ranks and alphas in a file. An adapter of genjax has one rank and one scale: smaller A and B
are filled up with zeros, which stay zeros in training and are left out of files, and B takes what its scale differs.
"""

import collections
from collections.abc import Mapping
import functools
import os
import pathlib
import re
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
from safetensors.numpy import save_file

from genjax.interop import files, lora_keys, mapping, peft, weights
from genjax.interop.entries import read_json
from genjax.interop.lora_keys import Low
from genjax.interop.mapping import Row
from genjax.interop.peft import Adapter
from genjax.interop.weights import Model
from genjax.nn import lora
from genjax.types import UserError, expanded, listed, named_leaves, unflatten

WEIGHTS = 'pytorch_lora_weights.safetensors'
FORMATS = ('diffusers', 'kohya')
# Architecture -> the prefix of its names in a file of diffusers
PREFIXES = {'UNet2DConditionModel': 'unet.'}


def only(component: str, model: Model) -> bool:
  """Whether a choice of a component leaves adapters of text encoders out.

  Raises:
    UserError: another component than the denoiser is chosen.
  """
  name = PREFIXES.get(model.architecture, 'transformer.')[:-1]
  if component not in ('', name):
    raise UserError(f'--component={component}: a run has adapters of its {name} only')
  return bool(component)


def load(path: str | os.PathLike, model: Model, only: bool = False) -> Adapter:
  """Reads the adapters of a denoiser and converts them to float32.

  Args:
    path: a safetensors file, or a folder with one.
    model: the base, from `genjax.interop.load`.
    only: leave out adapters of text encoders; else there may be none.

  Raises:
    UserError: a tensor has no place in the base, an option is not supported, or the file is a pickle or damaged. The
      message names all such tensors.
  """
  path = _file(expanded(path))
  held = _tensors(path)
  others = collections.Counter(kind for name in held if (kind := lora_keys.component(name)[0]))
  if others and not only:
    told = ', '.join(f'{kind} ({count} tensors)' for kind, count in others.items())
    raise UserError(f'{path} has adapters of {told}. The text encoders of a run are parts of it, which stand still: '
                    f'--component={PREFIXES.get(model.architecture, "transformer.")[:-1]} imports the adapters of the '
                    'denoiser alone, and leaves the others out')
  own = {name: tensor for name, tensor in held.items() if not lora_keys.component(name)[0]}
  modules = _modules(model)
  told = functools.cache(lambda prefix: _scales(path, prefix))
  lows = lora_keys.read(own, modules, lora_keys.names_of(model.architecture, model.config), told, str(path))
  wrong = [problem for module, low in lows.items() if (problem := _misfit(module, low, modules[module][0]))]
  if wrong:
    raise UserError(f'{path}: {len(wrong)} adapters do not fit the base: {listed(wrong)}')
  return _adapter(lows, modules)


def save(folder: str | os.PathLike, model: Model, adapter: Adapter, layout: str = FORMATS[0]) -> None:
  """Writes a folder with a file of adapters. Writing is atomic.

  Args:
    folder: a new folder, or an empty one.
    model: the base.
    adapter: its parameters, and the scale of its options, are written.
    layout: 'diffusers', or 'kohya', which has alphas as tensors. Kohya calls the modules of SDXL, SD3 and Flux by their
      original names, and those of other U-Nets by the names of `diffusers`.

  Raises:
    UserError: an adapted kernel belongs to no public module, an unknown layout, or the folder is not empty.
    StorageError: the disk cannot be written.
  """
  if layout not in FORMATS:
    raise UserError(f'the layout of a file of adapters must be one of {FORMATS}, got {layout!r}')
  lows = _lows(model, adapter)
  header: dict[str, str] = {}
  if layout == 'diffusers':
    tensors, header = lora_keys.of_diffusers(lows, PREFIXES.get(model.architecture, 'transformer.'))
  else:
    names = lora_keys.names_of(model.architecture, model.config)
    by_original = model.architecture in PREFIXES and not getattr(model.config, 'numbers', 0)
    tensors = lora_keys.of_kohya(lows, None if by_original or not names.rows else names)
  with files.new_folder(expanded(folder)) as partial:
    save_file({name: np.asarray(tensor, order='C') for name, tensor in tensors.items()}, partial / WEIGHTS,
              metadata={'format': 'pt', **header})


def _file(path: pathlib.Path) -> pathlib.Path:
  """The file of a folder: that of diffusers, that of PEFT, or the only one."""
  if path.is_dir():
    found = [path / name for name in (WEIGHTS, peft.WEIGHTS) if (path / name).is_file()] or sorted(
      path.glob('*.safetensors'))
    if len(found) > 1 and found[0].name not in (WEIGHTS, peft.WEIGHTS):
      raise UserError(f'{path} has several files, {listed([file.name for file in found])}; name one of them')
    if not found:
      pickles = [file.name for pattern in files.PICKLES for file in path.glob(pattern)]
      why = f'; {listed(pickles)} may run any code when it is opened: ask for safetensors' if pickles else ''
      raise UserError(f'{path} has no file of adapters, such as {WEIGHTS}{why}')
    path = found[0]
  if path.suffix != '.safetensors':
    raise UserError(f'{path}: adapters are read from safetensors files; pickles may run any code when they are opened')
  if not path.is_file():
    raise UserError(f'{path} does not exist; name a safetensors file of adapters, or its folder')
  return path


def _tensors(path: pathlib.Path) -> dict[str, np.ndarray]:
  """The tensors of a file, in float32."""
  return {name: stored.read().astype(np.float32) for name, stored in files.open_file(path).items()}


def _scales(path: pathlib.Path, prefix: str) -> lora_keys.Scales:
  """What the header, or adapter_config.json beside a file of PEFT, says of alphas."""
  beside = path.with_name(peft.CONFIG)
  if path.name == peft.WEIGHTS and beside.is_file():
    return lora_keys.checked(read_json(beside, 'the description of adapters'), str(beside))
  try:
    with safetensors.safe_open(path, 'numpy') as file:
      header = file.metadata() or {}
  except (OSError, safetensors.SafetensorError) as error:
    raise UserError(f'{path} cannot be read: {error}') from error
  return lora_keys.scales(header, prefix if prefix.endswith('.') else '', str(path))


def _modules(model: Model) -> dict[str, tuple[Row, tuple[int, ...]]]:
  """Public module -> its row and its index there."""
  architecture = weights.ARCHITECTURES[model.architecture]
  rows = mapping.rows(architecture, model.config, named_leaves(model.params))
  kernels = [row for row in rows if all(map(lora.is_kernel, row.tensor.leaves)) and _adaptable(row)]
  return {name.removesuffix('.weight'): (row, place) for row in kernels for name, place in zip(row.names, row.places)
          if name.endswith('.weight')}


def _adaptable(row: Row) -> bool:
  """Whether A and B of a public module are those of a kernel: other arrangements may only concern its outputs."""
  return row.outputs_first and not (row.tensor.form is not None and row.tensor.form.inputs)


def _misfit(module: str, low: Low, row: Row) -> str:
  """How an adapter does not fit a module; '' if it does."""
  outputs, inputs, *kernel = row.shape
  rank = len(low.a)
  a, b = low.a.shape, low.b.shape
  same = (a == (rank, inputs, *kernel) or not any(size > 1 for size in kernel) and a[:2] == (rank, inputs)
          and a[2:] in ((), (1, 1)))
  if same and b[:2] == (outputs, rank) and b[2:] in ((), (1, 1)):
    return ''
  return f'{module} {row.shape} has A {a} and B {b}'


def _adapter(lows: Mapping[str, Low], modules: Mapping[str, tuple[Row, tuple[int, ...]]]) -> Adapter:
  """The adapters of all rows, with the rank of the largest and the scale of the most."""
  rank = max(len(low.a) for low in lows.values())
  scale = collections.Counter(low.scale for low in lows.values()).most_common(1)[0][0]
  leaves: dict[str, Any] = {}
  for row in dict.fromkeys(modules[module][0] for module in lows):
    own = [lows.get(name.removesuffix('.weight')) for name in row.names]
    leaves.update(_leaves(row, own, rank, scale))
  kernels = sorted({name.rpartition('/')[0] for name in leaves})
  return Adapter(lora.Options(rank, scale * rank, tuple(map(re.escape, kernels))), unflatten(leaves))


def _leaves(row: Row, lows: list[Low | None], rank: int, scale: float) -> dict[str, Any]:
  """A and B of a row's kernels: zeros for a module without an adapter."""
  outputs, inputs, *kernel = row.shape
  spatial = kernel if row.tensor.image_kernel else []
  lead = peft.lead(row)
  a = np.zeros((*lead, *spatial, inputs, rank), np.float32)
  b = np.zeros((*lead, rank, outputs), np.float32)
  for place, low in zip(row.places, lows):
    if low is None:
      continue
    own = len(low.a)
    a[(*place, ..., slice(own))] = low.a.transpose(2, 3, 1, 0) if spatial else low.a.reshape(own, inputs).T
    up = low.b.reshape(outputs, own)
    up = up.T if row.tensor.form is None else row.tensor.form.read(up)
    b[(*place, slice(own))] = up if low.scale == scale else up * np.float32(low.scale / scale)
  leaves = {}
  for leaf, part in zip(row.tensor.leaves, np.split(b, np.cumsum(row.widths)[:-1], axis=-1)):
    leaves |= {f'{leaf}/A': jnp.asarray(a), f'{leaf}/B': jnp.asarray(part)}
  return leaves


def _lows(model: Model, adapter: Adapter) -> dict[str, Low]:
  """The adapters of public modules, each with the rank that it uses."""
  leaves = {name: np.asarray(leaf, np.float32) for name, leaf in named_leaves(adapter.params).items()}
  rows = list(dict.fromkeys(row for row, _ in _modules(model).values()))
  held = {leaf for row in rows for leaf in row.tensor.leaves}
  if strange := sorted({name.rpartition('/')[0] for name in leaves} - held):
    raise UserError(f'{model.architecture} has no modules for adapters of {listed(strange)}')
  lows: dict[str, Low] = {}
  for row in rows:
    if not any(f'{leaf}/A' in leaves for leaf in row.tensor.leaves):
      continue
    a, b = _public(row, leaves)
    for name, down, up in zip(row.names, a, b):
      used = [index for index in range(len(down)) if down[index].any() or up[:, index].any()]
      if used:
        lows[name.removesuffix('.weight')] = Low(down[used], up[:, used], adapter.options.scale)
  if not lows:
    raise UserError('there is no adapter to write: its parameters are empty')
  return lows


def _public(row: Row, leaves: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
  """A (N R I, or N R I H W) and B (N O R, or N O R 1 1) of the N public modules of a row."""
  if row.tensor.image_kernel:
    (leaf,) = row.tensor.leaves
    a, b = leaves[f'{leaf}/A'], leaves[f'{leaf}/B']
    return a.transpose(3, 2, 0, 1)[None], b.T[None, :, :, None, None]
  a_NIR, b_NRO = peft.joined(row, leaves)
  up = b_NRO.transpose(0, 2, 1) if row.tensor.form is None else np.stack([row.tensor.form.write(b) for b in b_NRO])
  a = a_NIR.transpose(0, 2, 1)
  return (a[..., None, None], up[..., None, None]) if row.tensor.pixel_kernel else (a, up)
