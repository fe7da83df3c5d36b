"""Loads public weights into genjax's parameters, and saves parameters as public weights."""

from collections.abc import Mapping
import dataclasses
import math
import os
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genjax.interop import (
  autoencoders,
  clip,
  decoders,
  deterministic,
  dits,
  encoders,
  features,
  files,
  images,
  mapping,
  mmdits,
  origins,
  pixel_unets,
  quantized,
  seq2seq,
  unets,
)
from genjax.interop.entries import Entries, read_json
from genjax.interop.mapping import Architecture, Row
from genjax.nn.functional import Network
from genjax.types import Tree, UserError, expanded, listed, named_leaves, unflatten

ARCHITECTURES = {**clip.ARCHITECTURES, **decoders.ARCHITECTURES, **encoders.ARCHITECTURES, **features.ARCHITECTURES,
                 **images.ARCHITECTURES, **seq2seq.ARCHITECTURES, **autoencoders.ARCHITECTURES,
                 **deterministic.ARCHITECTURES, **quantized.ARCHITECTURES, **mmdits.ARCHITECTURES,
                 **unets.ARCHITECTURES, **pixel_unets.ARCHITECTURES, **dits.ARCHITECTURES}
DTYPES = ('float32', 'bfloat16', 'float16')
ALIGNMENT = 64  # bytes; JAX uses a host array with this alignment without a copy
_TYPE_ENTRIES = ('dtype', 'torch_dtype')


@dataclasses.dataclass(frozen=True)
class Model:
  """A public model.

  architecture: its `model_type`. config: its options, of the class that the model file has; it computes in float32,
  whatever the parameters have. network: its functions, network.apply(params, mutable, tokens_BT)[0] being the logits B
    T V of a decoder. params,
  mutable: its variables. source: the config.json that it came with, of which `save` keeps what genjax has no options
    for.
  """

  architecture: str
  config: Any
  network: Network
  params: Tree
  mutable: Tree
  source: Mapping[str, Any]


def load(folder: str | os.PathLike, dtype: str | None = None, variant: str = '') -> Model:
  """Reads a folder in the layout of `transformers`: config.json, and model.safetensors or its shards.

  Tensors are read one by one into their final arrays, so memory holds the model and one tensor. Config, names, shapes
  and files are checked before the first tensor is read.

  Args:
    folder: the folder.
    dtype: dtype of the parameters, one of `DTYPES`; None for that of the files. Use 'float32' for training.
    variant: which files are read, see `genjax.interop.files.open_folder`.

  Returns:
    The model, on the default device.

  Raises:
    UserError: the architecture is unknown, an option is not supported, files are pickles, missing or damaged, tensors
      are missing, unexpected or of another shape, or `dtype` cannot represent a number.
  """
  wanted = _dtype(dtype)
  return _filled(describe(folder, variant), wanted)


def from_tensors(where: str, source: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Model:
  """A model of tensors in memory.

  Args:
    where: where they come from, for messages.
    source: what config.json would hold.
    tensors: public name -> tensor.

  Raises:
    UserError: see `load`.
  """
  held = {name: _Held(name, tensor) for name, tensor in tensors.items()}
  return _filled(_described(where, where, source, held), None)


@dataclasses.dataclass(frozen=True)
class _Held:
  """A tensor in memory, as a `genjax.interop.files.Stored`."""

  name: str
  tensor: np.ndarray

  @property
  def shape(self) -> tuple[int, ...]:
    return self.tensor.shape

  @property
  def dtype(self) -> np.dtype:
    return self.tensor.dtype

  def read(self) -> np.ndarray:
    return self.tensor


def _filled(found: 'Description', wanted: np.dtype | None) -> Model:
  """The model of a description, with its tensors."""
  leaves = {}
  for row in found.rows:
    leaves.update(_read(row, found.stored, found.shapes, wanted))
  return dataclasses.replace(found.model(), params=unflatten(leaves))


@dataclasses.dataclass(frozen=True)
class Description:
  """What a folder of public weights holds, from its config.json and the headers of its files.

  architecture, config, network, source: see `Model`. shapes: path -> shape of its parameters, which are float32
  here. rows: how stored tensors become parameters. stored: public name -> tensor.
  """

  architecture: str
  config: Any
  network: Network
  source: Mapping[str, Any]
  shapes: Mapping[str, Any]
  rows: list[Row]
  stored: Mapping[str, Any]

  def model(self) -> Model:
    """The model with shapes in the place of its parameters."""
    mutable = ARCHITECTURES[self.architecture].mutable(self.config, self.source)
    return Model(self.architecture, self.config, self.network, unflatten(self.shapes), mutable, self.source)


def describe(folder: str | os.PathLike, variant: str = '') -> Description:
  """Reads everything about a folder but its tensors, and checks it; for arguments see `load`.

  Raises:
    UserError: see `load`.
  """
  folder = expanded(folder)
  if not folder.is_dir():
    raise UserError(f'{folder} is not a folder; expected a folder with config.json and {files.SINGLE}')
  path = folder / 'config.json'
  source = read_json(path, 'the description of the model')
  _named(source, str(path))
  return _described(str(folder), str(path), source, files.open_folder(folder, variant))


def _named(source: Mapping[str, Any], path: str) -> Architecture:
  """The architecture that a config.json names; diffusers writes no model_type."""
  entry = next((name for _, name in files.LAYOUTS.values() if name in source), 'model_type')
  return Entries(source, path).choice(entry, ARCHITECTURES)


def _described(folder: str, path: str, source: Mapping[str, Any], stored: Mapping[str, Any]) -> Description:
  """Checks a config.json and the tensors beside it; `folder` and `path` are for messages."""
  architecture = _named(source, path)
  stored = _renamed(stored, architecture.renamed)
  try:
    config = architecture.read(Entries(source, path), stored)
  except ValueError as error:
    raise UserError(f'{path}: {error}') from error
  network, shapes = _network(architecture, config, path)
  rows = mapping.rows(architecture, config, shapes)
  return Description(architecture.name, config, network, source, shapes, rows,
                     _match(folder, architecture, rows, stored, architecture.copies(config)))


def save(folder: str | os.PathLike, model: Any, params: Tree = None, *, mutable: Tree = None,
         architecture: str | None = None, dtype: str | None = None, shard_bytes: int = files.SHARD_BYTES) -> None:
  """Writes a folder that `transformers` loads. Writing is atomic.

  Tensors of a model from `load` are written with their original bytes.

  Args:
    folder: a new folder, or an empty one.
    model: a `Model` from `load`, or the options of a model. Dropout is not saved.
    params: its parameters; None for those of a `Model`.
    mutable: its variables that are no parameters, such as the moments of latents; None for those that it came with.
    architecture: the `model_type` to write; None for that of a `Model`, or the first that supports the options.
    dtype: dtype of the tensors, one of `DTYPES`; None for that of the parameters.
    shard_bytes: if tensors have more bytes, they are split over several files.

  Raises:
    UserError: the architecture does not support an option, the parameters do not fit the config, or the folder is not
      empty.
    StorageError: the disk cannot be written.
  """
  config, source = (model.config, model.source) if isinstance(model, Model) else (model, {})
  if isinstance(model, Model):
    architecture, params = architecture or model.architecture, model.params if params is None else params
  chosen, entries = _describe(config, architecture)
  leaves = named_leaves(params)
  _, shapes = _network(chosen, config, 'the config')
  _check_params(leaves, shapes)
  wanted = _dtype(dtype)
  types = {path: wanted or np.dtype(leaf.dtype) for path, leaf in leaves.items()}
  if strange := sorted(f'{path} ({kind})' for path, kind in types.items() if kind.name not in DTYPES):
    raise UserError(f'parameters of types other than {DTYPES}: {listed(strange)}')
  rows = mapping.rows(chosen, config, shapes)
  prefix = chosen.prefix if chosen.bare(config) else ''
  pending = [
    tensor._replace(name=tensor.name.removeprefix(prefix)) for row in rows for tensor in _pending(row, leaves, types)
  ]
  named = {tensor.name: tensor for tensor in pending}
  pending += [named[name]._replace(name=copy) for copy, name in chosen.copies(config).items()]
  stem, entry = files.LAYOUTS[chosen.layout]
  pending += [files.Pending(name, values.shape, pending[0].dtype, lambda values=values: values.astype(
    pending[0].dtype)) for name, values in chosen.constants(config).items()]
  same = source if source.get(entry) == chosen.name else {}
  for name, options in chosen.spellings.items():
    if name in same and options.get(same[name]) == options[entries[name]]:
      entries[name] = same[name]
  kept = {name: value for name, value in same.items() if name not in ('rope_parameters', origins.ENTRY, *_TYPE_ENTRIES)}
  # Every version of transformers reads the older name of the dtype entry.
  told = {'torch_dtype': pending[0].dtype.name} if chosen.layout == 'transformers' else {}
  measured = chosen.measured(mutable) if mutable else {}
  described = {**chosen.defaults, **kept, **entries, **measured, entry: chosen.name, **told}
  with files.new_folder(expanded(folder)) as partial:
    files.write_json(partial / 'config.json', described)
    files.write_tensors(partial, pending, shard_bytes, stem)


def architecture_of(config: Any) -> str:
  """The `model_type` that `save` uses by default for options.

  Raises:
    UserError: no public architecture supports all options.
  """
  return _describe(config, None)[0].name


def _dtype(name: str | None) -> np.dtype | None:
  if name is not None and name not in DTYPES:
    raise UserError(f'dtype must be one of {DTYPES} or None, got {name!r}')
  return None if name is None else np.dtype(jnp.dtype(name))


def _renamed(stored: Mapping[str, Any], renamed: Mapping[str, str]) -> dict[str, Any]:
  stored = dict(stored)
  for pattern, replacement in renamed.items():
    stored = {re.sub(pattern, replacement, name): tensor for name, tensor in stored.items()}
  return stored


def _network(architecture: Architecture, config: Any, where: str) -> tuple[Network, dict[str, Any]]:
  """The network, and path -> shape of its parameters."""
  try:
    network = architecture.network(config)
  except ValueError as error:
    raise UserError(f'{where}: {error}') from error
  return network, named_leaves(jax.eval_shape(network.init, jax.random.key(0))[0])


def _match(folder: str, architecture: Architecture, rows: list[Row], stored: Mapping[str, Any],
           copies: Mapping[str, str]) -> dict[str, Any]:
  """The stored tensor for every name of the table. An error lists all names that do not fit."""
  shapes = {name: row.shape for row in rows for name in row.names}
  aliases = {alias: name for alias, name in architecture.aliases.items() if name in shapes}
  known = {**shapes, **{alias: shapes[name] for alias, name in {**aliases, **copies}.items()}}
  found: dict[str, Any] = {}
  unmapped, wrong = [], []
  for name, tensor in stored.items():
    public = name if name in known else architecture.prefix + name
    if public in known and public not in found:
      found[public] = tensor
      if tensor.shape != known[public]:
        wrong.append(f'{name} has {tensor.shape}, config.json asks for {known[public]}')
    elif not any(re.fullmatch(pattern, name.removeprefix(architecture.prefix)) for pattern in architecture.ignored):
      unmapped.append(name)
  missing = [name for name in (*shapes, *copies) if name not in found]
  problems = [
    f'{len(names)} {what}: {listed(names)}' for names, what in ((missing, 'missing'), (sorted(unmapped),
                                                                                       'without a place in the model'),
                                                                (sorted(wrong), 'of another shape')) if names
  ]
  if problems:
    raise UserError(f'{folder}: its tensors are not those of the {architecture.name} that config.json describes; '
                    + '; '.join(problems))
  for alias, name in aliases.items():
    if alias in found and alias not in shapes and not _equal(found[alias], found[name]):
      raise UserError(
        f'{folder}: {alias} and {name} differ, but config.json says that they are tied (tie_word_embeddings); '
        'set that to false if they should differ')
  for copy, name in copies.items():
    if not _equal(found[copy], found[name]):
      raise UserError(f'{folder}: {copy} and {name} differ. A {architecture.name} holds one tensor under both names, '
                      'and genjax has it once: it cannot read a model in which they were trained apart')
  return found


def _equal(first: Any, second: Any) -> bool:
  """Whether two stored tensors are equal to the last bit."""
  one, other = first.read(), second.read()
  return one.dtype == other.dtype and np.array_equal(one.view(np.uint8), other.view(np.uint8))


def _read(row: Row, stored: Mapping[str, files.Stored], shapes: Mapping[str, Any],
          wanted: np.dtype | None) -> dict[str, jax.Array]:
  """Reads the parameters of one row, for all layers."""
  kinds = {stored[name].dtype for name in row.names}
  dtype = wanted or np.dtype(jnp.result_type(*kinds))
  arrays = {leaf: _aligned(tuple(shapes[leaf].shape), dtype) for leaf in row.tensor.leaves}
  for place, name in zip(row.places, row.names):
    tensor = stored[name].read()
    for array, part in zip(arrays.values(), row.split(tensor)):
      _cast(part, array[(*place, ...)], stored[name])
  return {leaf: jax.device_put(array) for leaf, array in arrays.items()}


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
  size = math.prod(shape) * dtype.itemsize
  raw = np.empty(size + ALIGNMENT, np.uint8)
  start = -raw.ctypes.data % ALIGNMENT
  return raw[start:start + size].view(dtype).reshape(shape)


def _cast(values: np.ndarray, slot: np.ndarray, stored: Any) -> None:
  """Copies values with a cast. Only float16 may be too small for public weights."""
  with np.errstate(over='ignore'):
    slot[...] = values
  if slot.dtype == np.float16 and values.dtype != slot.dtype and np.isinf(slot).sum() > np.isinf(values).sum():
    raise UserError(f"{getattr(stored, 'name', stored)} has numbers beyond float16's 65504; use bfloat16 or float32")


def _describe(config: Any, name: str | None) -> tuple[Architecture, dict[str, Any]]:
  """The architecture, and the entries of its config.json."""
  fitting = {
    key: architecture for key, architecture in ARCHITECTURES.items() if isinstance(config, architecture.config)
  }
  if name is not None or not fitting:
    if name not in fitting:
      known = (f'one of {sorted(fitting)}' if fitting else
               f'that of a config of genjax.models, and {type(config).__name__} is none')
      raise UserError(f'architecture must be {known}, got {name!r}')
    return fitting[name], fitting[name].write(config)
  reasons = []
  for architecture in fitting.values():
    try:
      return architecture, architecture.write(config)
    except UserError as error:
      reasons.append(str(error))
  raise UserError('no public architecture has the options of this config: ' + '; '.join(reasons))


def _check_params(leaves: Mapping[str, Any], shapes: Mapping[str, Any]) -> None:
  missing, extra = sorted(set(shapes) - set(leaves)), sorted(set(leaves) - set(shapes))
  wrong = [f'{path} has {tuple(leaves[path].shape)}, not {tuple(shape.shape)}' for path, shape in shapes.items()
           if path in leaves and tuple(leaves[path].shape) != tuple(shape.shape)]
  kinds = ((missing, 'missing'), (extra, 'unknown'), (wrong, 'of another shape'))
  problems = [f'{what}: {listed(names)}' for names, what in kinds if names]
  if problems:
    raise UserError('the parameters are not those of the config; ' + '; '.join(problems))


def _pending(row: Row, leaves: Mapping[str, Any], types: Mapping[str, np.dtype]) -> list[files.Pending]:
  """The tensors of a row, made lazily when they are written."""
  dtype = np.dtype(jnp.result_type(*(types[leaf] for leaf in row.tensor.leaves)))

  def make(place: tuple[int, ...]) -> np.ndarray:
    parts = []
    for leaf in row.tensor.leaves:
      values = np.asarray(leaves[leaf])[place]
      part = np.empty(values.shape, dtype)
      _cast(values, part, leaf)
      parts.append(part)
    return row.join(parts)

  return [
    files.Pending(name, row.shape, dtype, lambda place=place: make(place))
    for place, name in zip(row.places, row.names)
  ]
