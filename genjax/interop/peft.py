"""Import and export of PEFT adapters (adapter_config.json, adapter_model.safetensors) for the public decoders.

    model = interop.load('path/of/a/llama', dtype='float32')
    adapter = peft.load('path/of/an/adapter', model)
    params = lora.merge(model.params, adapter.params, adapter.options.scale)   # of genjax.nn.lora
    logits_BTV, _ = model.network.apply(params, model.mutable, tokens_BT)
    interop.save('path/of/a/merged/model', model, params)
    peft.save('path/of/a/copy', model, adapter)

If a public module holds several kernels side by side (GPT-2's c_attn: queries, keys and values), PEFT has one A for all
of them. `load` copies it to each kernel. `save` writes one A if all are still equal; otherwise, e.g. after training, it
writes block matrices of all A and B, whose rank is the sum. Adapters of experts are written for each matrix of each
expert, the format of PEFT for experts that are modules. PEFT converts them if transformers holds all experts in one
tensor; `load` does not read that format.
"""

from collections.abc import Mapping
import math
import os
import pathlib
import re
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import safetensors
from safetensors.numpy import load_file, save_file

from genjax.interop import files, mapping
from genjax.interop.decoders import ARCHITECTURES
from genjax.interop.entries import Entries, read_json
from genjax.interop.mapping import Row
from genjax.interop.weights import Model
from genjax.nn import lora
from genjax.types import Tree, UserError, expanded, listed, named_leaves, unflatten

CONFIG = 'adapter_config.json'
WEIGHTS = 'adapter_model.safetensors'
_NAME = re.compile(r'base_model\.model\.(?P<module>.+)\.lora_(?P<part>[AB])\.weight')
# Entries that are read, and entries without effect on the result of an adapter. All others must be absent, false or
# empty.
_READ_ENTRIES = ('r', 'lora_alpha', 'lora_dropout', 'use_rslora', 'target_modules', 'exclude_modules',
                 'layers_to_transform', 'bias', 'peft_type', 'init_lora_weights')
_WITHOUT_EFFECT = ('auto_mapping', 'base_model_name_or_path', 'fan_in_fan_out', 'inference_mode', 'layers_pattern',
                   'loftq_config', 'eva_config', 'megatron_core', 'peft_version', 'qalora_group_size', 'revision',
                   'task_type')
_HARMLESS_INITS = (None, True, False, 'gaussian', 'eva', 'orthogonal')  # initializations that don't change the base


class Adapter(NamedTuple):
  """An adapter of a public model. options: paths are those of the adapted kernels. params: see `genjax.nn.lora`."""

  options: lora.Options
  params: Tree


def load(folder: str | os.PathLike, model: Model) -> Adapter:
  """Reads an adapter and converts it to float32.

  Args:
    folder: has adapter_config.json and adapter_model.safetensors.
    model: the base, from `genjax.interop.load`.

  Raises:
    UserError: an option is not supported (DoRA, trained biases, fully saved modules, different ranks per module, ...),
      files are pickles or damaged, or tensors do not fit the base. The message lists them.
  """
  folder = expanded(folder)
  path = folder / CONFIG
  entries = Entries(read_json(path, 'the description of an adapter'), str(path))
  options = _read_options(entries)
  tensors = _without_base(folder, _read_tensors(folder), model)
  modules = _modules(model)
  named = {match['module'] for name in tensors if (match := _NAME.fullmatch(name))}
  # Adapters of a model without output layer have names without prefix, like the weights of such a model.
  prefix = '' if named & set(modules) else ARCHITECTURES[model.architecture].prefix
  modules = {name.removeprefix(prefix): place for name, place in modules.items()}
  found = _match(folder, tensors, modules, options.rank)
  expected = _expected(entries, modules)
  if expected is not None and expected != set(found):
    missing, beyond = (listed(sorted(names)) or 'nothing' for names in (expected - set(found), set(found) - expected))
    raise UserError(
      f'{folder}: {WEIGHTS} and the target_modules of {CONFIG} disagree; missing: {missing}; beyond them: {beyond}')
  leaves: dict[str, Any] = {}
  for row in dict.fromkeys(modules[name][0] for name in found):
    names = [name.removesuffix('.weight').removeprefix(prefix) for name in row.names]
    leaves.update(_stacked(row, [found.get(name) for name in names], options.rank))
  kernels = sorted({name.rpartition('/')[0] for name in leaves})
  return Adapter(lora.Options(options.rank, options.alpha, tuple(map(re.escape, kernels)), options.dropout),
                 unflatten(leaves))


def save(folder: str | os.PathLike, model: Model, adapter: Adapter, base: str | None = None) -> None:
  """Writes a folder that PEFT loads. Writing is atomic.

  Args:
    folder: a new folder, or an empty one.
    model: the base.
    adapter: its parameters, and rank, alpha and dropout of its options, are written.
    base: name or path of the base model for PEFT.

  Raises:
    UserError: an adapted kernel belongs to no public module or has another shape than in the base, or the folder is not
      empty.
    StorageError: the disk cannot be written.
  """
  leaves = {name: np.asarray(leaf, np.float32) for name, leaf in named_leaves(adapter.params).items()}
  rows = _rows(model)
  held = {leaf for row in rows for leaf in row.tensor.leaves}
  if strange := sorted({name.rpartition('/')[0] for name in leaves} - held):
    raise UserError(f'{model.architecture} has no modules for adapters of {listed(strange)}')
  adapted = [row for row in rows if any(f'{leaf}/A' in leaves for leaf in row.tensor.leaves)]
  if not adapted:
    raise UserError('there is no adapter to write: its parameters are empty')
  experts = any(map(_of_experts, adapted))
  # If transformers holds all experts in one tensor, PEFT needs adapters for all matrices of an expert.
  low = {row: joined(row, leaves) for row in rows if row in adapted or experts and _of_experts(row)}
  rank = max(a.shape[-1] for a, _ in low.values())
  tensors: dict[str, np.ndarray] = {}
  for row, (a_NIR, b_NRO) in low.items():
    more = rank - a_NIR.shape[-1]
    for name, a_IR, b_RO in zip(row.names, a_NIR, b_NRO, strict=True):
      module = f'base_model.model.{name.removesuffix(".weight")}'
      tensors[f'{module}.lora_A.weight'] = np.ascontiguousarray(np.pad(a_IR, ((0, 0), (0, more))).T)
      tensors[f'{module}.lora_B.weight'] = np.ascontiguousarray(np.pad(b_RO, ((0, more), (0, 0))).T)
  alpha = adapter.options.scale * rank
  config = {
    'peft_type': 'LORA',
    'task_type': 'CAUSAL_LM',
    'inference_mode': True,
    'base_model_name_or_path': base,
    'bias': 'none',
    'r': rank,
    'lora_alpha': int(alpha) if alpha == int(alpha) else alpha,
    'lora_dropout': 0.0 if experts else adapter.options.dropout,  # PEFT requires 0 for tensors of all experts
    'target_modules': sorted(re.split(r'\{\w+\}\.', row.tensor.name.removesuffix('.weight'))[-1] for row in low),
    'fan_in_fan_out': any(not row.tensor.transposed for row in low),
    'init_lora_weights': True,
    'use_rslora': False
  }
  with files.new_folder(expanded(folder)) as partial:
    files.write_json(partial / CONFIG, config)
    save_file(tensors, partial / WEIGHTS, metadata={'format': 'pt'})


def _rows(model: Model) -> list[Row]:
  """The rows of the architecture's table that hold kernels."""
  if model.architecture not in ARCHITECTURES:
    raise UserError(
      f'PEFT adapters are supported for {sorted(ARCHITECTURES)}, but this model is a {model.architecture}; '
      'genjax merge makes a run of the adapted model, which genjax export writes')
  rows = mapping.rows(ARCHITECTURES[model.architecture], model.config, named_leaves(model.params))
  return [row for row in rows if all(map(lora.is_kernel, row.tensor.leaves))]


def _of_experts(row: Row) -> bool:
  return any(leaf.endswith(lora.EXPERTS_SUFFIX) for leaf in row.tensor.leaves)


def _modules(model: Model) -> dict[str, tuple[Row, tuple[int, ...]]]:
  """Public module -> its row and its index there: layer and expert, if any."""
  return {
    name.removesuffix('.weight'): (row, place) for row in _rows(model) for name, place in zip(row.names, row.places)
  }


def _read_options(entries: Entries) -> lora.Options:
  """Rank, alpha and dropout; the paths are ignored."""
  entries.only('peft_type', 'LORA', 'other kinds of adapters have other mathematics')
  entries.only('bias', 'none', 'biases are not trained')
  initial = entries.values.get('init_lora_weights')
  if not any(initial is known or initial == known for known in _HARMLESS_INITS):
    raise UserError(
      f'{entries.where}: init_lora_weights is {initial!r}, which may change the weights of the base; genjax supports '
      f'only {_HARMLESS_INITS}; convert it by save_pretrained(..., path_initial_model_for_weight_conversion=...)')
  if foreign := {
      name: value for name, value in entries.values.items() if value and name not in (*_READ_ENTRIES, *_WITHOUT_EFFECT)
  }:
    raise UserError(f'{entries.where} has options that genjax does not support: '
                    + ', '.join(f'{name}={value!r}' for name, value in sorted(foreign.items())))
  rank, alpha = entries.integer('r'), entries.number('lora_alpha')
  if entries.flag('use_rslora', False):
    alpha *= math.sqrt(rank)  # the scale is alpha / sqrt(rank) there (Kalajdzievski 2023)
  rate = entries.values.get('lora_dropout') or 0.0
  return lora.Options(rank, alpha, ('.*',), float(rate))


def _read_tensors(folder: pathlib.Path) -> dict[str, np.ndarray]:
  path = folder / WEIGHTS
  if not path.is_file():
    pickles = sorted(file.name for pattern in files.PICKLES for file in folder.glob(pattern))
    why = (
      f'; it has {listed(pickles)}, a pickle, which genjax does not open, since a pickle runs any code that its author '
      'put there: ask for safetensors' if pickles else '')
    raise UserError(f'{folder} lacks {WEIGHTS}{why}')
  try:
    return load_file(path)
  except (OSError, safetensors.SafetensorError) as error:
    raise UserError(
      f'{path} is not a complete safetensors file ({error}): truncated or damaged; copy it again') from error


def _without_base(folder: pathlib.Path, tensors: dict[str, np.ndarray], model: Model) -> dict[str, np.ndarray]:
  """Removes copies of the base's output layer, which PEFT may save; they must equal this base's."""
  params = named_leaves(model.params)
  for row in _rows(model):
    copy = tensors.get(name := f'base_model.model.{row.names[0].removesuffix(".weight")}.base_layer.weight')
    if copy is not None and not row.tensor.layered:
      if not np.array_equal(copy, row.join([np.asarray(params[leaf]) for leaf in row.tensor.leaves])):
        raise UserError(f'{folder}: {name} differs from the base; the adapter was trained on another base')
      tensors = {other: tensor for other, tensor in tensors.items() if other != name}
  return tensors


def _match(folder: pathlib.Path, tensors: Mapping[str, np.ndarray], modules: Mapping[str, tuple[Row, tuple[int, ...]]],
           rank: int) -> dict[str, dict[str, np.ndarray]]:
  """Module -> its A (R I) and B (O R). An error lists all tensors that do not fit."""
  found: dict[str, dict[str, np.ndarray]] = {}
  unknown, wrong = [], []
  for name, tensor in tensors.items():
    match = _NAME.fullmatch(name)
    if match is None or match['module'] not in modules:
      unknown.append(name)
      continue
    row = modules[match['module']][0]
    outputs, inputs = row.shape if row.tensor.transposed else row.shape[::-1]
    shape = (rank, inputs) if match['part'] == 'A' else (outputs, rank)
    if tensor.shape != shape:
      wrong.append(f'{name} has {tensor.shape}, not {shape}')
    found.setdefault(match['module'], {})[match['part']] = tensor
  alone = sorted(module for module, parts in found.items() if len(parts) < 2)
  problems = [
    f'{len(names)} {what}: {listed(names)}' for names, what in ((sorted(unknown), 'without a place in the base'),
                                                                (sorted(wrong),
                                                                 'of another shape'), (alone, 'with A or B only'))
    if names
  ]
  if problems or not found:
    raise UserError(f'{folder}: its tensors are not adapters of this base; '
                    + ('; '.join(problems) or f'{WEIGHTS} is empty'))
  return found


def _expected(entries: Entries, modules: Mapping[str, tuple[Row, tuple[int, ...]]]) -> set[str] | None:
  """The modules that the config names, by PEFT's rules; None if it names none."""
  wanted, without = (entries.values.get(name) for name in ('target_modules', 'exclude_modules'))
  layers = entries.values.get('layers_to_transform')
  layers = [layers] if isinstance(layers, int) else layers
  if wanted is None or wanted == 'all-linear':
    return None

  def named(module: str, patterns: Any) -> bool:
    if isinstance(patterns, str):
      return re.fullmatch(patterns, module) is not None
    return any(module == name or module.endswith(f'.{name}') for name in patterns or ())

  return {module for module, (row, place) in modules.items() if named(module, wanted) and not named(module, without)
          and (not layers or row.tensor.layered and place[0] in layers)}


def _stacked(row: Row, parts: list[dict[str, np.ndarray] | None], rank: int) -> dict[str, jnp.ndarray]:
  """The adapters of a row's kernels: one A and B per public module, zeros for a module without adapter."""
  outputs, inputs = row.shape if row.tensor.transposed else row.shape[::-1]
  stack = lead(row)
  a = np.zeros((*stack, inputs, rank), np.float32)
  b = np.zeros((*stack, rank, outputs), np.float32)
  for place, part in zip(row.places, parts):
    if part is not None:
      a[place], b[place] = part['A'].T, part['B'].T
  leaves = {}
  for leaf, own in zip(row.tensor.leaves, np.split(b, np.cumsum(row.widths)[:-1], axis=-1)):
    leaves.update({f'{leaf}/A': jnp.asarray(a), f'{leaf}/B': jnp.asarray(own)})
  return leaves


def lead(row: Row) -> tuple[int, ...]:
  """The numbers of layers and experts of a row's kernels, if any."""
  return tuple(last + 1 for last in row.places[-1])


def joined(row: Row, leaves: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
  """A (N I R) and B (N R O) of the N public modules of a row; R is 0 if no kernel has an adapter."""
  inputs = row.shape[1] if row.outputs_first else row.shape[0]
  present: dict[int, tuple[np.ndarray, np.ndarray]] = {}
  for number, (leaf, width) in enumerate(zip(row.tensor.leaves, row.widths)):
    if f'{leaf}/A' in leaves:
      a, b = leaves[f'{leaf}/A'], leaves[f'{leaf}/B']
      if a.shape[:-1] != (*lead(row), inputs) or b.shape != (*lead(row), a.shape[-1], width):
        raise UserError(f'the adapter of {leaf} has A {a.shape} and B {b.shape}, which do not fit the base')
      present[number] = a.reshape(-1, *a.shape[-2:]), b.reshape(-1, *b.shape[-2:])
  first = next(iter(present.values()))[0] if present else np.zeros((len(row.names), inputs, 0), np.float32)
  shared = all(np.array_equal(a, first) for a, _ in present.values())
  offset, blocks = 0, []
  total = first.shape[-1] if shared else sum(a.shape[-1] for a, _ in present.values())
  for number, width in enumerate(row.widths):
    block = np.zeros((len(row.names), total, width), np.float32)
    if number in present:
      b = present[number][1]
      start = 0 if shared else offset
      block[:, start:start + b.shape[1]] = b
      offset += b.shape[1]
    blocks.append(block)
  a = first if shared else np.concatenate([a for a, _ in present.values()], axis=-1)
  return a, np.concatenate(blocks, axis=-1)
