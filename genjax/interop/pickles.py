"""Reads arrays out of pickles without running their code: nothing but arrays and plain containers is admitted.

A pickle names functions to call. The unpicklers here look these names up in a short table, and refuse all others.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
import dataclasses
import io
import pathlib
import pickle
from typing import Any
import zipfile
import zlib

import jax.numpy as jnp
import numpy as np

from genjax.types import UserError

_MAGIC, _PROTOCOL = 0x1950a86a20f9469cfc6c, 1001  # of files that torch wrote before version 1.6
_ARRAYS = {('numpy', 'ndarray'): np.ndarray, ('numpy', 'dtype'): np.dtype}
_STORAGES = {'FloatStorage': np.dtype('<f4'), 'DoubleStorage': np.dtype('<f8'), 'HalfStorage': np.dtype('<f2'),
             'LongStorage': np.dtype('<i8'), 'IntStorage': np.dtype('<i4'), 'BFloat16Storage': np.dtype(jnp.bfloat16)}


class _Restricted(pickle.Unpickler):
  """An unpickler that knows the names of a table only."""

  def __init__(self, file: Any, known: Mapping[tuple[str, str], Any], where: str,
               storage: Callable[[tuple], Any] | None = None):
    super().__init__(file)
    self._known, self._where, self._storage = known, where, storage

  def find_class(self, module_name: str, global_name: str) -> Any:
    if (module_name, global_name) not in self._known:
      raise UserError(f'{self._where} names {module_name}.{global_name}, which is no array: it is not opened, because '
                      'a pickle can run any code')
    return self._known[module_name, global_name]

  def persistent_load(self, pid: Any) -> Any:
    if self._storage is None or not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != 'storage':
      raise UserError(f'{self._where} refers to {pid!r}, which is no tensor')
    return self._storage(pid)


def read_arrays(data: bytes, where: str) -> Any:
  """Nested dicts of NumPy arrays in a pickle.

  Args:
    data: the pickle.
    where: its name in messages.

  Raises:
    UserError: it is damaged, or has anything else in it.
  """
  reconstruct = np.zeros(0).__reduce__()[0]
  known = {**_ARRAYS, **{(f'numpy.{core}.multiarray', '_reconstruct'): reconstruct for core in ('core', '_core')}}
  tree = _load(_Restricted(io.BytesIO(data), known, where), where)
  _check(tree, where)
  return tree


def _load(unpickler: pickle.Unpickler, where: str) -> Any:
  try:
    return unpickler.load()
  except UserError:
    raise
  except Exception as error:  # a damaged pickle raises errors of many types
    raise UserError(f'{where} is no pickle of arrays, or is damaged: {type(error).__name__}: {error}') from error


def _check(tree: Any, where: str) -> None:
  if isinstance(tree, Mapping):
    for name, value in tree.items():
      _check(value, f'{where}: {name}')
  elif not isinstance(tree, np.ndarray) or tree.dtype.kind != 'f':
    raise UserError(f'{where} must be an array of floating-point numbers, got {type(tree).__name__}')


@dataclasses.dataclass(frozen=True)
class _Tensor:
  """A tensor whose numbers are in a storage that may not have been read yet."""

  key: str
  dtype: np.dtype
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]

  def array(self, storages: Mapping[str, bytes], where: str) -> np.ndarray:
    """The tensor as an array of its own."""
    data = storages.get(self.key, b'')
    whole = np.frombuffer(data, self.dtype, len(data) // self.dtype.itemsize)  # a file may be cut inside of a number
    steps = [(size - 1) * stride for size, stride in zip(self.shape, self.strides)]
    last = self.offset + sum(steps)
    if 0 in self.shape:
      return np.zeros(self.shape, self.dtype)
    if len(self.shape) != len(self.strides) or min((*self.shape, *self.strides, self.offset), default=0) < 0 or (
        last >= whole.size):
      raise UserError(f'{where}: a tensor of shape {self.shape} lies outside of its storage of {whole.size} numbers')
    strides = tuple(stride * self.dtype.itemsize for stride in self.strides)
    return np.lib.stride_tricks.as_strided(whole[self.offset:], self.shape, strides, writeable=False).copy()


def read_torch(path: pathlib.Path) -> dict[str, np.ndarray]:
  """The tensors of a file of `torch.save`, a dict of names to tensors; torch is not needed.

  Args:
    path: the file, in the format of zip files (torch 1.6 and later), or in the older one.

  Raises:
    UserError: it is damaged, or has anything but tensors in it.
  """
  where = str(path)
  try:
    with path.open('rb') as file:
      found, storages = (_zipped if zipfile.is_zipfile(path) else _older)(file, where)
  except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
    raise UserError(f'{where} cannot be read: {error}') from error
  if not isinstance(found, Mapping) or not all(isinstance(tensor, _Tensor) for tensor in found.values()):
    raise UserError(f'{where} must hold tensors by name, as torch.save(model.state_dict(), ...) writes them')
  return {str(name): tensor.array(storages, f'{where}: {name}') for name, tensor in found.items()}


def _tensors(file: Any, where: str, keys: dict[str, np.dtype]) -> Any:
  """The pickle of a file of torch; `keys` is filled with its storages."""

  def storage(pid: tuple) -> tuple[str, np.dtype]:
    keys[str(pid[2])] = pid[1]
    return str(pid[2]), pid[1]

  def rebuild(stored: tuple[str, np.dtype], offset: int, size: tuple, stride: tuple, *rest: Any) -> _Tensor:
    return _Tensor(*stored, offset, tuple(size), tuple(stride))

  known = {('collections', 'OrderedDict'): OrderedDict, ('torch._utils', '_rebuild_tensor_v2'): rebuild,
           ('torch._utils', '_rebuild_parameter'): lambda tensor, *rest: tensor,
           **{('torch', kind): dtype for kind, dtype in _STORAGES.items()}}
  return _load(_Restricted(file, known, where, storage), where)


def _zipped(file: Any, where: str) -> tuple[Any, dict[str, bytes]]:
  with zipfile.ZipFile(file) as archive:
    names = set(archive.namelist())
    pickled = next((name for name in names if name.endswith('/data.pkl')), None)
    if pickled is None:
      raise UserError(f'{where} has no data.pkl: it is no file of torch.save')
    folder = pickled.removesuffix('data.pkl')
    if f'{folder}byteorder' in names and archive.read(f'{folder}byteorder') != b'little':
      raise UserError(f'{where} has its numbers in big-endian order, which is not supported')
    keys: dict[str, np.dtype] = {}
    found = _tensors(io.BytesIO(archive.read(pickled)), where, keys)
    if lost := sorted(key for key in keys if f'{folder}data/{key}' not in names):
      raise UserError(f'{where} lacks the numbers of {len(lost)} tensors: it is damaged; copy it again')
    return found, {key: archive.read(f'{folder}data/{key}') for key in keys}


def _older(file: Any, where: str) -> tuple[Any, dict[str, bytes]]:
  header = [_load(_Restricted(file, {}, where), where) for _ in range(3)]
  if header[:2] != [_MAGIC, _PROTOCOL] or not (isinstance(header[2], dict) and header[2].get('little_endian')):
    raise UserError(f'{where} is no file of torch.save')
  keys: dict[str, np.dtype] = {}
  found = _tensors(file, where, keys)
  order = _load(_Restricted(file, {}, where), where)
  if not isinstance(order, list) or sorted(map(str, order)) != sorted(keys):
    raise UserError(f'{where} lists other numbers than those of its tensors: it is damaged; copy it again')
  storages = {}
  for key in map(str, order):
    size = int(np.frombuffer(file.read(8).ljust(8, b'\0'), '<i8')[0]) * keys[key].itemsize
    storages[key] = file.read(max(size, 0))
  return found, storages
