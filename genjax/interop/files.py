"""Folders of safetensors files: lazy reading with known shapes, and atomic writing."""

from collections.abc import Callable, Collection, Iterator, Mapping
import contextlib
import dataclasses
import math
import os
import pathlib
import shutil
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import safetensors
from safetensors.numpy import save_file

from genjax.interop.entries import read_json
from genjax.types import StorageError, UserError, listed, strict_json

SINGLE = 'model.safetensors'
INDEX = 'model.safetensors.index.json'
# Library -> stem of its files of weights, and the entry of config.json that names the architecture
LAYOUTS = {'transformers': ('model', 'model_type'), 'diffusers': ('diffusion_pytorch_model', '_class_name')}
SHARD_BYTES = 5 * 10 ** 9  # of one file, as transformers 4 and the public repositories have it
PICKLES = ('*.bin', '*.pt', '*.pth', '*.ckpt', '*.pkl')
DTYPES = {'F32': np.dtype('float32'), 'F16': np.dtype('float16'), 'BF16': np.dtype(jnp.bfloat16)}


@dataclasses.dataclass(frozen=True)
class Stored:
  """The location, shape and dtype of a stored tensor."""

  path: pathlib.Path
  name: str
  shape: tuple[int, ...]
  dtype: np.dtype

  def read(self, rows: slice | None = None) -> np.ndarray:
    """Reads the tensor, or some of its rows.

    Opens the file only for this: pages of an open file count as memory of the process.
    """
    try:
      with safetensors.safe_open(self.path, 'numpy') as file:
        return file.get_tensor(self.name) if rows is None else file.get_slice(self.name)[rows]
    except (OSError, safetensors.SafetensorError) as error:
      raise UserError(f'{self.path}: tensor {self.name} cannot be read: {error}') from error


def has_variant(folder: pathlib.Path, variant: str) -> bool:
  """Whether a folder has its weights in files of a variant, such as model.fp16.safetensors."""
  return any(any(folder.glob(f'{stem}{pattern}')) for stem, _ in LAYOUTS.values()
             for pattern in (f'.{variant}.safetensors', f'.safetensors.index.{variant}.json'))


def open_folder(folder: pathlib.Path, variant: str = '') -> dict[str, Stored]:
  """The tensors of a folder by name. Reads only the headers of its files.

  Args:
    folder: the folder.
    variant: 'fp16' for the files model.fp16.safetensors or diffusion_pytorch_model.fp16.safetensors; '' for those
      without such an ending or, where there are none, those of fp16.

  Raises:
    UserError: there are no safetensors files, or none of the variant, one is missing or damaged, or a dtype is not
      supported.
  """
  # A folder may hold the same weights in half precision, too; those are read where there are no others.
  stems = [stem for stem, _ in LAYOUTS.values()]
  for stem, end in [(stem, end) for end in ([f'.{variant}'] if variant else ['', '.fp16']) for stem in stems]:
    if (folder / f'{stem}{end}.safetensors').exists():
      return open_file(folder / f'{stem}{end}.safetensors')
    if (index := folder / f'{stem}.safetensors.index{end}.json').exists():
      return _open_shards(folder, index)
  if variant:
    there = sorted(path.name for path in folder.glob('*.safetensors'))
    raise UserError(f'{folder} has no weights of the variant {variant!r}, files such as '
                    f'{SINGLE.replace(".", f".{variant}.")}; there are {listed(there) or "none"}')
  if pickles := sorted(path.name for pattern in PICKLES for path in folder.glob(pattern)):
    raise UserError(
      f'{folder} has its weights in pickle files ({listed(pickles)}), which genjax does not open, because a pickle can '
      f'run any code. Ask for {SINGLE}, or convert them by save_pretrained(..., safe_serialization=True) of '
      'transformers, on a machine that may run such code')
  raise UserError(f'{folder} has neither {SINGLE} nor {INDEX}, and nothing like them that begins with '
                  f'{stems[-1]}, as in folders of diffusers')


def _open_shards(folder: pathlib.Path, index: pathlib.Path) -> dict[str, Stored]:
  places = read_json(index, 'the index of the shards').get('weight_map')
  if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
    raise UserError(f'{index} must have a weight_map from tensor names to file names')
  files = sorted(set(places.values()))
  if outside := [file for file in files if pathlib.PurePath(file).name != file]:
    raise UserError(f'{index} names files outside of its folder: {listed(outside)}')
  if absent := [file for file in files if not (folder / file).is_file()]:
    raise UserError(f'{folder} lacks {len(absent)} of the {len(files)} shards that {index.name} names: '
                    f'{listed(absent)}')
  shards = {file: open_file(folder / file) for file in files}
  if lost := sorted(f'{name} ({file})' for name, file in places.items() if name not in shards[file]):
    raise UserError(f'{folder}: shards lack tensors that {index.name} lists: {listed(lost)}')
  return {name: shards[file][name] for name, file in places.items()}


def open_file(path: pathlib.Path, unread: Collection[str] = ()) -> dict[str, Stored]:
  """The tensors of a file by name, but for those in `unread`. Reads only its header.

  Raises:
    UserError: it is damaged, or a dtype is not supported.
  """
  found, unknown = {}, []
  try:
    with safetensors.safe_open(path, 'numpy') as file:
      for name in file.keys():  # noqa: SIM118  # not a dict
        if name in unread:
          continue
        tensor = file.get_slice(name)
        dtype = tensor.get_dtype()
        if dtype not in DTYPES:
          unknown.append(f'{name} ({dtype})')
        else:
          found[name] = Stored(path, name, tuple(tensor.get_shape()), DTYPES[dtype])
  except (OSError, safetensors.SafetensorError) as error:
    raise _damaged(path, error) from error
  if unknown:
    raise UserError(f'{path} has tensors of types other than {sorted(DTYPES)}: {listed(unknown)}')
  return found


def names(path: pathlib.Path) -> list[str]:
  """The names of the tensors in a file.

  Raises:
    UserError: it is damaged.
  """
  try:
    with safetensors.safe_open(path, 'numpy') as file:
      return list(file.keys())
  except (OSError, safetensors.SafetensorError) as error:
    raise _damaged(path, error) from error


def _damaged(path: pathlib.Path, error: Exception) -> UserError:
  return UserError(f'{path} is not a complete safetensors file ({error}): truncated or damaged; copy it again')


class Pending(NamedTuple):
  """A tensor to write: its shape and dtype, and a function that makes it when needed."""

  name: str
  shape: tuple[int, ...]
  dtype: np.dtype
  make: Callable[[], np.ndarray]

  @property
  def size(self) -> int:
    """Bytes."""
    return math.prod(self.shape) * self.dtype.itemsize


def write_tensors(folder: pathlib.Path, tensors: list[Pending], shard_bytes: int, stem: str = 'model') -> None:
  """Writes tensors in the given order to one file, or to several with an index if they exceed `shard_bytes`.

  Memory holds the tensors of at most one file at a time, plus the copy that the library writes.
  """
  shards: list[list[Pending]] = [[]]
  room = shard_bytes
  for tensor in tensors:
    if tensor.size > room and shards[-1]:
      shards.append([])
      room = shard_bytes
    shards[-1].append(tensor)
    room -= tensor.size
  names = [f'{stem}.safetensors']
  if len(shards) > 1:
    names = [f'{stem}-{number:05d}-of-{len(shards):05d}.safetensors' for number in range(1, len(shards) + 1)]
    places = {tensor.name: name for name, shard in zip(names, shards) for tensor in shard}
    index = {'metadata': {'total_size': sum(tensor.size for tensor in tensors)}, 'weight_map': places}
    write_json(folder / f'{stem}.safetensors.index.json', index)
  for name, shard in zip(names, shards):
    # readers for torch check the format
    save_file({tensor.name: tensor.make() for tensor in shard}, folder / name, metadata={'format': 'pt'})


def write_json(path: pathlib.Path, value: Mapping[str, Any]) -> None:
  """Writes a JSON object with sorted keys."""
  path.write_text(strict_json(value, indent=2, sort_keys=True) + '\n', encoding='utf-8')


@contextlib.contextmanager
def new_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a temporary folder that is renamed to `folder` at the end, or removed on failure.

  Raises:
    UserError: `folder` exists and is not empty, or its parent does not exist.
    StorageError: the disk cannot be written.
  """
  if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
    raise UserError(f'{folder} exists and is not an empty folder; choose a new one, or remove it')
  partial = folder.absolute().with_name(f'.{folder.absolute().name}.{os.getpid()}.partial')
  try:
    partial.mkdir(parents=True)
  except OSError as error:
    raise UserError(f'{folder} cannot be created: {error}') from error
  try:
    yield partial
    partial.rename(folder)
  except (OSError, safetensors.SafetensorError) as error:
    raise StorageError(f'{folder} could not be written: {error}') from error
  finally:
    shutil.rmtree(partial, ignore_errors=True)
