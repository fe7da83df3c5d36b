"""Examples with random access: arrays in memory, and prepared TFDS data sets read without TensorFlow."""

from collections.abc import Callable, Mapping, Sequence
import hashlib
import json
import logging
import os
import pathlib
import sys
import tempfile
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from genjax import distributed
from genjax.data.prepared import prepare
from genjax.tables import Table
from genjax.types import UserError

Columns = dict[str, np.ndarray]
Part = tuple[str, int, int]  # name of a split, first example, end

_CACHE_LIMIT = 2**30  # largest size in bytes of a split's decoded columns on disk
_CHUNK = 1024  # examples decoded at a time

# Hides TFDS' hint that OpenCV decodes faster; here Pillow decodes each image only once.
logging.getLogger('absl').addFilter(lambda record: 'OpenCV is not installed' not in record.getMessage())


class Arrays:
  """A source of stacked columns of equal length. The fingerprint has `facts`, the number of examples and a checksum."""

  def __init__(self, columns: Mapping[str, np.ndarray], facts: Mapping[str, Any] | None = None):
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) != 1:
      raise UserError(f'columns must have equal lengths, got {lengths}')
    self.columns = dict(columns)
    self._facts = dict(facts or {})

  def __len__(self) -> int:
    return len(next(iter(self.columns.values())))

  def get(self, indices: np.ndarray) -> Columns:
    return {name: column[indices] for name, column in self.columns.items()}

  def fingerprint(self) -> dict[str, Any]:
    if 'checksum' not in self._facts:
      digest = hashlib.sha256()
      for name, column in sorted(self.columns.items()):
        digest.update(f'{name} {column.dtype} {column.shape}'.encode())
        digest.update(np.ascontiguousarray(column).data)
      self._facts['checksum'] = digest.hexdigest()[:16]
    return dict(self._facts, examples=len(self))


# Data of one's own: a name for config.data.name -> function of config.data and of the name of a split, which returns an
# object with __len__ and get, see `genjax.data.pipeline.Source`.
SOURCES: Table[Callable[..., Any]] = Table('data source', {}, takes=('data', 'split'))


class Named:
  """A source that `SOURCES` names.

  Its fingerprint is the source's own where it has a method of that name; else name, split, size and a checksum of the
  first and the last example.

  Args:
    name: in `SOURCES`.
    data: config.data.
    split: name of the split.

  Raises:
    UserError: the object that the function returns has no `__len__` or no `get`.
  """

  def __init__(self, name: str, data: Any, split: str):
    self._source = SOURCES[name](data, split)
    self._facts = {'name': name, 'split': split}
    if hasattr(self._source, 'draw'):  # of random parts of examples, see `genjax.data.pipeline.read`
      self.draw = lambda indices, random: dict(self._source.draw(indices, random))
    if lacking := [method for method in ('__len__', 'get') if not callable(getattr(self._source, method, None))]:
      raise UserError(f'the data source {name!r} must return an object with __len__ and get(indices), got '
                      f'{type(self._source).__name__} without {lacking[0]}')

  def __len__(self) -> int:
    return len(self._source)

  def get(self, indices: np.ndarray) -> Columns:
    return dict(self._source.get(indices))

  def fingerprint(self) -> dict[str, Any]:
    if hasattr(self._source, 'fingerprint'):
      return {**self._facts, **self._source.fingerprint()}
    if not len(self):
      return {**self._facts, 'examples': 0}
    ends = Arrays(self.get(np.asarray([0, len(self) - 1])))
    return {**self._facts, **ends.fingerprint(), 'examples': len(self)}


class Records:
  """A source that decodes examples on demand. Columns with examples of different shapes are object arrays."""

  def __init__(self, parts: Sequence[Any], columns: Sequence[str], features: Any, facts: Mapping[str, Any]):
    self._parts, self._names, self._features, self._facts = parts, columns, features, facts
    self._ends = np.cumsum([len(part) for part in parts])

  def __len__(self) -> int:
    return int(self._ends[-1])

  def get(self, indices: np.ndarray) -> Columns:
    examples: list[Any] = [None] * len(indices)
    part_B = np.searchsorted(self._ends, indices, side='right')
    for number, part in enumerate(self._parts):
      rows = np.flatnonzero(part_B == number)
      first = self._ends[number] - len(part)
      for row, example in zip(rows, part.__getitems__((indices[rows] - first).tolist())):
        examples[row] = example
    return {name: _stack([example[name] for example in examples], self._features[name]) for name in self._names}

  def fingerprint(self) -> dict[str, Any]:
    return dict(self._facts, examples=len(self))


def open_tfds(
  name: str,
  split: str,
  columns: Sequence[str] | None = None,
  data_dir: prepare.Path | None = None,
  originals: prepare.Path | None = None,
) -> Arrays | Records:
  """Opens a split of a TFDS data set.

  Prepares the data set first if needed: from an installed package, from the folder `originals` of the original files,
  or by download. Columns of fixed shape are decoded once and stored beside the prepared data, up to 1 GiB per split;
  the rest is decoded on demand.

  Args:
    name: 'mnist', 'python_stdlib:3.11.7', 'name/config:version'.
    split: 'train', 'train[:90%]', 'validation+test'.
    columns: features to read; by default all but text.
    data_dir: where prepared sets are; by default TFDS_DATA_DIR, else ~/tensorflow_datasets.
    originals: folder with the original files.

  Returns:
    Images as uint8 N H W C, labels as int32 N.

  Raises:
    UserError: the name, split or column is unknown, or the data set cannot be prepared or read.
  """
  builder = prepare.open_builder(name, data_dir, originals)
  features: Any = builder.info.features
  parts = split_parts(builder.info, split)
  names = _select(name, features, columns)
  facts = {'name': builder.name, 'version': str(builder.version), 'split': split, 'columns': sorted(names)}
  if builder.builder_config is not None:
    facts['config'] = builder.builder_config.name
  fixed = all(_is_fixed(features[column]) for column in names)
  largest = max(builder.info.splits[part].num_examples for part, _, _ in parts)
  if fixed and largest * sum(_example_bytes(features[column]) for column in names) <= _CACHE_LIMIT:
    with distributed.first_then_others(f'decoding {name}'):
      stored = [(*_stored_columns(builder, part, names), first, end) for part, first, end in parts]
    arrays = {
      column: _join([part_columns[column][first:end] for part_columns, _, first, end in stored]) for column in names
    }
    checksum = _hash([[checksums[column] for column in sorted(names)] for _, checksums, _, _ in stored])
    return Arrays(arrays, dict(facts, checksum=checksum))
  sources = [_data_source(builder, f'{part}[{first}:{end}]') for part, first, end in parts]
  return Records(sources, names, features, dict(facts, checksum=_hash(_sizes(builder))))


def split_parts(info: Any, split: str) -> list[Part]:
  """'train[:90%]+test' -> [(name of a split, first, end), ...], without empty parts.

  Raises:
    UserError: the split is missing, invalid or empty.
  """
  try:
    instructions = tfds.core.ReadInstruction.from_spec(split).to_absolute(info.splits)
    sizes = {name: info.splits[name].num_examples for name in info.splits}
    parts = [(part.splitname, *slice(part.from_, part.to).indices(sizes[part.splitname])[:2]) for part in instructions]
  except (ValueError, AssertionError, KeyError) as error:
    known = ', '.join(f'{name} ({info.splits[name].num_examples})' for name in info.splits)
    raise UserError(
      f'{info.name} has no split {split!r} ({prepare.first_line(error)}); it has {known}, which can be sliced and '
      "joined as in 'train[:90%]+test'"
    ) from None
  parts = [part for part in parts if part[1] < part[2]]
  if not parts:
    raise UserError(f'split {split!r} of {info.name} has no examples; choose a larger part')
  return parts


def read_texts(builder: tfds.core.DatasetBuilder, split: str, column: str) -> list[str]:
  """Reads a text feature of every record of a split, in order."""
  texts = []
  for part, first, end in split_parts(builder.info, split):
    source = _data_source(builder, f'{part}[{first}:{end}]')
    for number, example in enumerate(source.__getitems__(list(range(len(source)))), first):
      try:
        texts.append(example[column].decode('utf-8'))
      except UnicodeDecodeError as error:
        raise UserError(
          f'{builder.name}, {column} of record {number} of {part}: expected UTF-8 text, got {error}') from None
  return texts


def _select(name: str, features: Any, columns: Sequence[str] | None) -> list[str]:
  known = sorted(features)  # TFDS has no fixed order
  if columns is None:
    columns = [column for column in known if not isinstance(features[column], tfds.features.Text)]
  if unknown := [column for column in columns if column not in known]:
    raise UserError(f'{name} has no column {unknown[0]!r}; it has {", ".join(known)}')
  if not columns:
    raise UserError(f'{name} has text only ({", ".join(known)}); name the columns, or read it as text')
  return list(columns)


def _is_fixed(feature: Any) -> bool:
  if not isinstance(feature.shape, tuple) or None in feature.shape or feature.np_dtype is None:
    return False
  return np.dtype(feature.np_dtype).kind in 'buif'


def _dtype(feature: Any) -> np.dtype:
  return np.dtype(np.int32 if isinstance(feature, tfds.features.ClassLabel) else feature.np_dtype)


def _example_bytes(feature: Any) -> int:
  return int(np.prod(feature.shape)) * _dtype(feature).itemsize


def _stack(values: list[Any], feature: Any) -> np.ndarray:
  if _is_fixed(feature):
    return np.stack(values).astype(_dtype(feature), copy=False)
  values = [value.decode('utf-8') if isinstance(value, bytes) else value for value in values]
  arrays = [value for value in values if isinstance(value, np.ndarray)]
  if len(arrays) == len(values) and len({value.shape for value in arrays}) == 1:
    return np.stack(arrays)
  result = np.empty(len(values), object)
  result[:] = values
  return result


def _join(columns: list[np.ndarray]) -> np.ndarray:
  return columns[0] if len(columns) == 1 else np.concatenate(columns)


def _data_source(builder: Any, split: str) -> Any:
  try:
    return builder.as_data_source(split=split)
  except NotImplementedError:
    raise UserError(
      f'{builder.name} in {builder.data_path} is prepared in a format without random access; prepare it again with '
      f'`tfds build {builder.name} --file_format=array_record` in another data directory') from None


def _sizes(builder: tfds.core.DatasetBuilder) -> list[Any]:
  """Facts that distinguish two preparations without reading the examples."""
  splits = builder.info.splits
  return [[name, splits[name].num_bytes, list(splits[name].shard_lengths)] for name in sorted(splits)]


def _hash(value: Any) -> str:
  return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def _stored_columns(builder: tfds.core.DatasetBuilder, split: str, names: list[str]) -> tuple[Columns, dict[str, str]]:
  """Memory-mapped columns of a whole split and their checksums. The first call decodes and stores them.

  The name of the folder depends on the record files (names, sizes, times), so a data set that is prepared again is
  decoded again.
  """
  data_path = pathlib.Path(builder.data_path)
  files = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in sorted(data_path.iterdir())]
  key = _hash([str(data_path), files])
  home = data_path.parent
  if not os.access(home, os.W_OK):
    home = pathlib.Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser() / 'genjax' / builder.name
  folder = home / 'columns' / f'{data_path.name}-{key}' / split
  for name in names:
    if not (folder / name).exists():
      _store(builder, split, folder)
  columns = {name: np.asarray(np.load(folder / name / 'values.npy', mmap_mode='r')) for name in names}
  return columns, {name: (folder / name / 'sha256').read_text() for name in names}


def _store(builder: tfds.core.DatasetBuilder, split: str, folder: pathlib.Path) -> None:
  """Writes every column of fixed shape to a temporary folder and moves that into place, so none is partial."""
  features: Any = builder.info.features
  source = _data_source(builder, split)
  names = [name for name in features if _is_fixed(features[name])]
  if len(source) >= 10_000:
    print(f'decoding {len(source)} examples of {builder.name} {split}, once', file=sys.stderr, flush=True)
  folder.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(dir=folder.parent, prefix='.partial-', ignore_cleanup_errors=True) as temporary:
    partial = pathlib.Path(temporary)
    columns = {}
    for name in names:
      (partial / name).mkdir()
      columns[name] = np.lib.format.open_memmap(
        partial / name / 'values.npy', 'w+', _dtype(features[name]), (len(source), *features[name].shape)
      )
    digests = {name: hashlib.sha256() for name in names}
    for first in range(0, len(source), _CHUNK):
      examples = source.__getitems__(list(range(first, min(first + _CHUNK, len(source)))))
      for name in names:
        chunk = _stack([example[name] for example in examples], features[name])
        columns[name][first : first + len(chunk)] = chunk
        digests[name].update(np.ascontiguousarray(chunk).data)
    for name in names:
      columns[name].flush()
      (partial / name / 'sha256').write_text(digests[name].hexdigest())
      try:
        (partial / name).rename(folder / name)
      except OSError:  # another process was faster and wrote the same
        if not (folder / name).exists():
          raise
