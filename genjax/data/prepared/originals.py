"""Readers of the original files of standard data sets. Each file is checked."""

import codecs
from collections.abc import Iterator, Sequence
import contextlib
import gzip
import io
import itertools
import json
import pathlib
import pickle
import tarfile
import tempfile
from typing import Any
import zlib

import numpy as np
from PIL import Image

from genjax.types import UserError, listed

Splits = dict[str, tuple[np.ndarray, np.ndarray]]  # split -> images, labels

_IDX_UINT8 = 0x0800  # type code of an idx file; the low byte of the magic number is the number of axes
_CIFAR_ROW = 1 + 3 * 32 * 32
_GRID_SIZE = 50  # images along a side of one .webp file


def read_bytes(path: pathlib.Path) -> bytes:
  """Reads a file; decompresses it if the name ends in .gz.

  Raises:
    UserError: the file cannot be read, or is not a complete gzip file.
  """
  try:
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix.lower() == '.gz' else data
  except (EOFError, gzip.BadGzipFile, zlib.error) as error:
    raise UserError(f'{path} is not a complete gzip file ({error}); download or copy it again') from None
  except OSError as error:
    raise UserError(f'cannot read {path}: {error.strerror or error}') from None


def find(folder: pathlib.Path, *names: str) -> pathlib.Path:
  """The first of the files `names` that exists in the folder.

  Raises:
    UserError: none of them exists.
  """
  for name in names:
    if (folder / name).is_file():
      return folder / name
  raise UserError(f'expected the file {" or ".join(names)} in {folder}; found {_listing(folder)}')


def read_lines(path: pathlib.Path, encoding: str = 'utf-8') -> list[str]:
  """Reads the lines of a text file, without line ends and byte order mark.

  Raises:
    UserError: the file cannot be read, or has another encoding.
  """
  data = read_bytes(path)
  data = data.removeprefix(codecs.BOM_UTF8) if encoding == 'utf-8' else data
  try:
    # Not splitlines, which also splits at other characters that a sentence may contain.
    return [line.removesuffix('\r') for line in data.decode(encoding).removesuffix('\n').split('\n')] if data else []
  except UnicodeDecodeError as error:
    line = data.count(b'\n', 0, error.start) + 1
    raise UserError(f'{path}, line {line}: expected {encoding.upper()} text, got {error}') from None


def read_labelled(path: pathlib.Path, classes: int) -> list[tuple[int, str]]:
  """Reads (label, sentence) from the lines of a Latin-1 file: a label, a space, a sentence.

  Raises:
    UserError: the file cannot be read, or a line has another form.
  """
  examples = []
  for number, line in enumerate(read_lines(path, 'latin-1'), 1):
    label, _, sentence = line.partition(' ')
    if label not in map(str, range(classes)) or not sentence:
      raise UserError(
        f'{path}, line {number}: expected a label from 0 to {classes - 1}, a space and a sentence, got {line[:40]!r}')
    examples.append((int(label), sentence))
  return examples


def read_chorales(path: pathlib.Path) -> dict[str, list[list[list[int]]]]:
  """Reads split -> chorales -> time steps -> MIDI numbers of at most four notes, ascending.

  Raises:
    UserError: the file cannot be read, or has another form.
  """
  expected = (f'{path}: expected "train", "valid" and "test", lists of chorales, each a list of steps of at most four '
              'MIDI numbers')
  try:
    parts = json.loads(read_bytes(path))
    splits = {split: [[sorted(map(int, notes)) for notes in chorale] for chorale in parts[name]]
              for split, name in (('train', 'train'), ('validation', 'valid'), ('test', 'test'))}
  except (ValueError, TypeError, KeyError) as error:
    raise UserError(f'{expected}; got {type(error).__name__}: {error}') from None
  for chorale in itertools.chain.from_iterable(splits.values()):
    strange = [
      notes for notes in chorale
      if len(notes) > 4 or len(set(notes)) < len(notes) or not all(0 <= note < 128 for note in notes)
    ]
    if strange:
      raise UserError(f'{expected}; got {strange[0]}')
  return splits


def read_parallel(paths: Sequence[pathlib.Path]) -> list[list[str]]:
  """Reads the lines of parallel text files, which have one sentence in several languages on the same line.

  Raises:
    UserError: a file cannot be read or is not UTF-8, or the numbers of lines differ.
  """
  sides = [read_lines(path) for path in paths]
  counts = {str(path): len(side) for path, side in zip(paths, sides)}
  if len(set(counts.values())) > 1:
    raise UserError(f'parallel text files must have equally many lines, got {counts}')
  return sides


def read_idx(path: pathlib.Path, shape: tuple[int, ...]) -> np.ndarray:
  """Reads a uint8 array of the given shape from an idx file (LeCun, Cortes and Burges 1998).

  The layout is a big-endian int32 magic number, one int32 for the length of each axis, then the values.

  Raises:
    UserError: the magic number, the axes or the size are wrong.
  """
  data = read_bytes(path)
  header = 4 * (1 + len(shape))
  magic = int.from_bytes(data[:4], 'big')
  if magic != _IDX_UINT8 + len(shape):
    expected = _IDX_UINT8 + len(shape)
    raise UserError(f'{path}: expected the idx magic number {expected}, got {magic}; is it another file?')
  axes = tuple(np.frombuffer(data[4:header], '>i4').tolist())
  if axes != shape:
    raise UserError(f'{path}: expected an array of shape {shape}, the header says {axes}')
  if len(data) != header + np.prod(shape):
    raise UserError(f'{path}: expected {header + np.prod(shape)} bytes, got {len(data)}; download or copy it again')
  return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def read_mnist(folder: pathlib.Path, counts: dict[str, int]) -> Splits:
  """Split -> (images uint8 N 28 28 1, labels uint8 N) from the four idx files, compressed or not."""
  splits = {}
  for split, count in counts.items():
    stem = {'train': 'train', 'test': 't10k'}[split]
    image_name, label_name = f'{stem}-images-idx3-ubyte', f'{stem}-labels-idx1-ubyte'
    image_NHW = read_idx(find(folder, image_name + '.gz', image_name), (count, 28, 28))
    label_path = find(folder, label_name + '.gz', label_name)
    splits[split] = image_NHW[..., None], _labels(read_idx(label_path, (count,)), label_path)
  return splits


def read_cifar10(folder: pathlib.Path, counts: dict[str, int]) -> Splits:
  """Split -> (images uint8 N 32 32 3, labels uint8 N) from any known layout.

  Supported are the official binary and Python batches (in the folder, in their usual subfolder or in their archive),
  and grids of 50 by 50 images (`train_00.webp` ...) with `train_labels.npy`.
  """
  with _unpacked(folder, 'cifar-10-binary.tar.gz', 'cifar-10-python.tar.gz') as root:
    for place in (root, root / 'cifar-10-batches-bin', root / 'cifar-10-batches-py'):
      if (place / 'data_batch_1.bin').is_file():
        return _cifar_batches(place, '.bin', counts)
      if (place / 'data_batch_1').is_file():
        return _cifar_batches(place, '', counts)
    if (root / 'train_labels.npy').is_file():
      return {split: _cifar_grids(root, split, count) for split, count in counts.items()}
    raise UserError(
      'expected data_batch_1.bin, data_batch_1, cifar-10-binary.tar.gz, cifar-10-python.tar.gz or train_labels.npy '
      f'with train_00.webp in {folder}; found {_listing(folder)}')


def _cifar_batches(folder: pathlib.Path, suffix: str, counts: dict[str, int]) -> Splits:
  """Reads rows of one label byte and the red, green and blue planes of 32 by 32 bytes."""
  names = {'train': [f'data_batch_{number}{suffix}' for number in range(1, 6)], 'test': ['test_batch' + suffix]}
  splits = {}
  for split, count in counts.items():
    parts = []
    for name in names[split]:
      path = find(folder, name)
      if suffix:
        data, expected = read_bytes(path), count // len(names[split]) * _CIFAR_ROW
        if len(data) != expected:
          raise UserError(f'{path}: expected {expected} bytes, got {len(data)}; download or copy it again')
        rows = np.frombuffer(data, np.uint8).reshape(-1, _CIFAR_ROW)
      else:
        rows = _cifar_pickle(path, count // len(names[split]))
      _labels(rows[:, 0], path)
      parts.append(rows)
    rows = np.concatenate(parts)
    splits[split] = rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), rows[:, 0]
  return splits


def _cifar_pickle(path: pathlib.Path, count: int) -> np.ndarray:
  """uint8 (count, 3073): label, then planes."""
  try:
    batch = _ArrayUnpickler(io.BytesIO(read_bytes(path)), encoding='bytes').load()
    image_NP, label_N = np.asarray(batch[b'data'], np.uint8), np.asarray(batch[b'labels'], np.uint8)
  except UserError:
    raise
  except Exception as error:  # a broken pickle may raise any error
    raise UserError(f'{path} is not a Python batch of CIFAR-10 ({error}); download or copy it again') from None
  if image_NP.shape != (count, _CIFAR_ROW - 1) or label_N.shape != (count,):
    raise UserError(
      f'{path}: expected {count} images of {_CIFAR_ROW - 1} bytes and {count} labels, '
      f'got arrays of shape {image_NP.shape} and {label_N.shape}')
  return np.concatenate([label_N[:, None], image_NP], axis=1)


class _ArrayUnpickler(pickle.Unpickler):
  """Loads only arrays, containers and bytes, because a pickle could otherwise run any code."""

  _ALLOWED = frozenset({'_reconstruct', 'ndarray', 'dtype', 'encode', 'scalar'})

  def find_class(self, module: str, name: str) -> Any:
    if module.split('.')[0] in ('numpy', '_codecs') and name in self._ALLOWED:
      return super().find_class(module, name)
    raise pickle.UnpicklingError(f'it contains {module}.{name}, which no CIFAR-10 batch does')


def _cifar_grids(folder: pathlib.Path, split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
  path = find(folder, f'{split}_labels.npy')
  try:
    label_N = np.load(io.BytesIO(read_bytes(path)), allow_pickle=False)
  except (ValueError, EOFError) as error:
    raise UserError(f'{path} is not a NumPy array file ({error}); download or copy it again') from None
  if label_N.shape != (count,) or label_N.dtype != np.uint8:
    raise UserError(f'{path}: expected uint8 labels of shape ({count},), got {label_N.dtype} {label_N.shape}')
  grids = [_grid(find(folder, f'{split}_{number:02d}.webp')) for number in range(-(-count // _GRID_SIZE**2))]
  return np.concatenate(grids)[:count], _labels(label_N, path)


def _grid(path: pathlib.Path) -> np.ndarray:
  """uint8 (2500, 32, 32, 3), row-major."""
  try:
    with Image.open(io.BytesIO(read_bytes(path))) as image:
      pixels = np.asarray(image.convert('RGB'))
  except OSError as error:
    raise UserError(f'{path} is not a complete image ({error}); download or copy it again') from None
  if pixels.shape != (_GRID_SIZE * 32, _GRID_SIZE * 32, 3):
    raise UserError(
      f'{path}: expected an image of {_GRID_SIZE * 32} by {_GRID_SIZE * 32} pixels, got shape {pixels.shape}')
  return pixels.reshape(_GRID_SIZE, 32, _GRID_SIZE, 32, 3).swapaxes(1, 2).reshape(-1, 32, 32, 3)


def _labels(label_N: np.ndarray, path: pathlib.Path) -> np.ndarray:
  if label_N.max(initial=0) > 9:
    raise UserError(f'{path}: expected labels from 0 to 9, got {label_N.max()}')
  return label_N


@contextlib.contextmanager
def _unpacked(folder: pathlib.Path, *archives: str) -> Iterator[pathlib.Path]:
  """Yields the folder, or a temporary folder with the contents of its first archive."""
  archive = next((folder / name for name in archives if (folder / name).is_file()), None)
  if archive is None:
    yield folder
    return
  with tempfile.TemporaryDirectory() as temporary:
    try:
      with tarfile.open(archive) as tar:
        tar.extractall(temporary, filter='data')
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
      raise UserError(f'{archive} is not a complete tar.gz archive ({error}); download or copy it again') from None
    yield pathlib.Path(temporary)


def _listing(folder: pathlib.Path) -> str:
  """Describes the contents of a folder, for error messages."""
  if not folder.is_dir():
    return 'no such folder'
  names = sorted(path.name for path in folder.iterdir())
  return listed(names, 8) or 'nothing'
