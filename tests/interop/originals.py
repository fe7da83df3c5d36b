"""Original files of small random models of `diffusers`, for tests."""

import numpy as np
from safetensors.numpy import save_file

from genjax.interop import original_names


def renamed(state, names, prefix=''):
  """Tensors by their original names; `names` is the table, read backwards."""
  parts: dict = {}
  for name, tensor in state.items():
    module, _, leaf = name.rpartition('.')
    found = names.originals(name) or tuple((f'{theirs}.{leaf}', part) for theirs, part in names.originals(module))
    theirs, part = found[0]
    parts.setdefault(prefix + theirs, []).append((part, np.asarray(tensor)))
  whole = {}
  for name, pieces in parts.items():
    pieces.sort(key=lambda piece: piece[0].start)
    array = np.concatenate([array for _, array in pieces])
    form = pieces[0][0].form
    if form == original_names.SWAPPED:
      array = np.roll(array, len(array) // 2, axis=0)
    if form == original_names.SQUEEZED and array.ndim == 2:
      array = array[:, :, None, None]
    whole[name] = np.ascontiguousarray(array.T if form == original_names.TRANSPOSED else array)
  return whole


def scales(state, old='weight'):
  """The norms of queries and keys of Flux are called so."""
  return {(name[:-len(old)] + 'scale' if '_norm.' in name else name): tensor for name, tensor in state.items()}


def randomised(model, seed=0):
  """The tensors of a model of torch, random."""
  rng = np.random.default_rng(seed)
  return {name: rng.normal(size=tuple(tensor.shape)).astype(np.float32) for name, tensor in model.state_dict().items()
          if tensor.is_floating_point()}


def write(path, tensors):
  """Writes a file of tensors."""
  save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, path)
  return path
