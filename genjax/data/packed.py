"""Packed data: examples of any kind in shards of ArrayRecord files, with random access.

    schema.json    what the folder holds: the key of its contents, splits, columns, classes, and each shard's checksum
    index.npz      small numbers of each example that are needed before any is read, such as sizes of pictures
    data-00000-of-00008.array_record, ...    the examples, in order

A record is one example: a MessagePack map, name -> value, with the names in order. A value is a text, bytes (an encoded
file), a number, an array, or a list of such. `genjax data pack` and `genjax data encode` write such folders.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import contextlib
import hashlib
import io
import json
import os
import pathlib
import threading
from typing import Any

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
import msgpack
import numpy as np

from genjax import distributed
from genjax.data import records
from genjax.data import splits as splits_lib
from genjax.data.pipeline import Columns
from genjax.types import StorageError, UserError, strict_json

SCHEMA = 'schema.json'
INDEX = 'index.npz'
FORMAT = 1
_STATE = 'unfinished.json'  # the plan of an unfinished folder
_OPTIONS = 'group_size:1,uncompressed'  # encoded files and latents do not compress


def is_packed(folder: str | os.PathLike[str]) -> bool:
  """Whether a folder holds packed data, complete or not."""
  return any((pathlib.Path(folder) / name).is_file() for name in (SCHEMA, _STATE))


def counted(rows: Iterable[records.Row], count: Callable[[int], Any]) -> Iterator[records.Row]:
  """The same rows; `count` is called with 1 after each was written, for a progress bar."""
  for row in rows:
    yield row
    count(1)


class Writer:
  """Writes a packed folder, shard by shard; can go on after an interruption.

  Shard n holds the examples `rows(n)`. Its bytes depend on these alone: not on interruptions, on who writes which
  shard, or on how many processes do.

      writer = Writer(folder, shards=8, key={'kind': 'pictures', ...}, examples=len(source))
      for number in writer.pending():
        writer.write(number, (example(row) for row in writer.rows(number)))
      writer.close()

  Args:
    folder: the folder; it may hold part of the same data from before.
    shards: number of files, with about equally many examples.
    key: JSON-able facts that decide every byte: what is packed, with the checksum of its source, and how. A folder with
      another key is refused. Readers find it in schema.json.
    examples: number of all examples; or name of a split -> number of its examples, in their order.
    index: name -> array with one entry an example, see `Reader.index`.

  Attributes:
    folder, shards, key, index: as given.
    splits: name of a split -> number of its examples.
    examples: number of all examples.

  Raises:
    UserError: the number of shards is impossible, or the folder holds other data.
    StorageError: the folder cannot be written.
  """

  def __init__(self, folder: str | os.PathLike[str], shards: int, key: Mapping[str, Any],
               examples: int | Mapping[str, int], index: Mapping[str, np.ndarray] | None = None):
    self.folder, self.shards = pathlib.Path(folder), shards
    self.splits = {'train': examples} if isinstance(examples, int) else dict(examples)
    self.examples = sum(self.splits.values())
    self.key, self.index = json.loads(strict_json(key)), dict(index or {})
    if not 1 <= shards <= self.examples:
      raise UserError(f'the number of shards must be from 1 to that of the examples, {self.examples}, got {shards}')
    self._plan = {'format': FORMAT, 'key': self.key, 'splits': self.splits, 'count': shards}
    if distributed.is_first():
      self._begin()
    distributed.barrier(f'{self.folder} is ready')

  def rows(self, number: int) -> range:
    """The examples of a shard."""
    return range(self.examples * number // self.shards, self.examples * (number + 1) // self.shards)

  def pending(self, process: int = 0, processes: int = 1) -> list[int]:
    """The shards that are still to be written; of several processes, those that this one writes."""
    return [number for number in range(process, self.shards, processes) if not self._is_done(number)]

  def write(self, number: int, rows: Iterable[records.Row]) -> None:
    """Writes a shard, which appears once it is complete. Several threads may write different shards.

    Args:
      number: of the shard.
      rows: its examples: name -> text, bytes, number, array or list of such.

    Raises:
      UserError: there are more or fewer examples than `rows(number)`, or they have different columns.
      StorageError: it cannot be written.
    """
    path = self.folder / _name(number, self.shards)
    partial = path.with_name(f'{path.name}.partial')
    with _storing(self.folder):
      partial.unlink(missing_ok=True)
      writer, columns, count = ArrayRecordWriter(str(partial), _OPTIONS), {}, 0
      try:
        for row in rows:
          found = {name: records.kind(row[name]) for name in sorted(row)}
          columns = records.merged(columns, found, path) if count else found
          writer.write(records.pack_row(row))
          count += 1
      finally:
        writer.close()
      if count != len(self.rows(number)):
        raise UserError(f'{path} must get {len(self.rows(number))} examples, got {count}')
      with open(partial, 'rb+') as file:
        digest = hashlib.file_digest(file, 'sha256').hexdigest()
        os.fsync(file.fileno())
      partial.replace(path)
      _write_json(self._note(number), {'file': path.name, 'examples': count, 'file_bytes': path.stat().st_size,
                                       'sha256': digest, 'columns': columns})

  def close(self) -> dict[str, Any]:
    """Writes the index and schema.json once all shards of all processes are there; returns the schema.

    Raises:
      UserError: a shard is missing.
      StorageError: they cannot be written.
    """
    distributed.barrier(f'{self.folder} is written')
    if distributed.is_first() and not (self.folder / SCHEMA).is_file():
      if missing := self.pending():
        raise UserError(f'{self.folder}: {len(missing)} of {self.shards} shards are missing, the first is '
                        f'{_name(missing[0], self.shards)}; run the same command to go on')
      notes = [json.loads(self._note(number).read_text()) for number in range(self.shards)]
      columns: dict[str, Any] = {}
      for note in notes:
        found = note.pop('columns')
        columns = records.merged(columns, found, self.folder / note['file']) if columns else found
      digest = hashlib.sha256(strict_json([[note['sha256'] for note in notes], self.splits]).encode()).hexdigest()
      with _storing(self.folder):
        if self.index:
          _write(self.folder / INDEX, _npz(self.index))
        _write_json(self.folder / SCHEMA, {**self._plan, 'examples': self.examples, 'columns': columns,
                                           'checksum': digest[:16], 'shards': notes})
        for path in (*(self._note(number) for number in range(self.shards)), self.folder / _STATE):
          path.unlink(missing_ok=True)
    distributed.barrier(f'{self.folder} is complete')
    return read_schema(self.folder)

  def _begin(self) -> None:
    """Checks what is in the folder, and begins or goes on."""
    folder = self.folder
    known = next((folder / name for name in (SCHEMA, _STATE) if (folder / name).is_file()), None)
    if known is None and folder.exists() and (not folder.is_dir() or any(
        path.suffix != '.partial' for path in folder.iterdir())):
      raise UserError(f'{folder} exists and holds no packed data; choose a new folder')
    if known is not None and known.name == _STATE and not any(folder.glob('data-*.json')):
      known = None  # nothing is finished, so that another plan loses nothing
    if known is not None:
      self._check_same(known)
    with _storing(folder):
      folder.mkdir(parents=True, exist_ok=True)
      for path in folder.glob('*.partial'):
        path.unlink()
      if known is not None and known.name == SCHEMA:
        self._reopen(json.loads(known.read_text()))
      elif known is None:
        _write_json(folder / _STATE, self._plan)

  def _check_same(self, known: pathlib.Path) -> None:
    try:
      found = json.loads(known.read_text())
      different = {name: (found[name], value) for name, value in self._plan.items() if found[name] != value}
    except (ValueError, KeyError, TypeError):
      raise UserError(f'{known} is damaged; remove the folder {self.folder} and write it again') from None
    if different:
      told = [f'{name} was {old} and is {new}' for name, (old, new) in _leaves(different).items() if old != new]
      raise UserError(f'{self.folder} holds other data: {"; ".join(told)}. Choose another folder, or remove that one')

  def _reopen(self, schema: dict[str, Any]) -> None:
    """Of a complete folder whose shards are not all there, those that are count as done."""
    files = {shard['file']: shard for shard in schema['shards']}
    if all((self.folder / name).is_file() and (self.folder / name).stat().st_size == shard['file_bytes']
           for name, shard in files.items()):
      return
    _write_json(self.folder / _STATE, self._plan)
    for number in range(self.shards):
      shard = files[_name(number, self.shards)]
      _write_json(self._note(number), {**shard, 'columns': schema['columns']})
    (self.folder / SCHEMA).unlink()

  def _is_done(self, number: int) -> bool:
    path, note = self.folder / _name(number, self.shards), self._note(number)
    if (self.folder / SCHEMA).is_file():
      return True
    return note.is_file() and path.is_file() and json.loads(note.read_text())['file_bytes'] == path.stat().st_size

  def _note(self, number: int) -> pathlib.Path:
    """Where the entry of a finished shard is until all are finished."""
    return self.folder / f'{_name(number, self.shards)}.json'


class Reader:
  """A source of packed examples.

  Texts and encoded files come as object arrays of str and bytes, whole numbers as int32 (int64 where they need it),
  other numbers as float32, arrays as they were written: stacked if their shapes are equal, else as object arrays.

  Args:
    folder: written by `Writer`.
    split: splits and slices of them, see `genjax.data.splits`.
    columns: which to read; None for all.

  Attributes:
    folder: its path.
    schema: the contents of schema.json.
    index: name -> array with one entry an example of this split.
    names: the columns that `get` gives.

  Raises:
    UserError: the folder is missing, incomplete or changed; or it has no such split or column.
  """

  def __init__(self, folder: str | os.PathLike[str], split: str = 'train', columns: Sequence[str] | None = None):
    self.folder = pathlib.Path(folder)
    self.schema = read_schema(self.folder)
    self.names = tuple(self.schema['columns']) if columns is None else tuple(columns)
    if unknown := [name for name in self.names if name not in self.schema['columns']]:
      raise UserError(f'{self.folder} has no column {unknown[0]!r}; it has {", ".join(self.schema["columns"])}')
    self._split = split
    self._index_N = splits_lib.select(str(self.folder), split, self.schema['splits'])
    self._ends = np.cumsum([shard['examples'] for shard in self.schema['shards']])
    self._readers: dict[int, Any] = {}
    self._lock = threading.Lock()
    stored = _read_index(self.folder) if (self.folder / INDEX).is_file() else {}
    self.index = {name: values[self._index_N] for name, values in stored.items()}

  def __len__(self) -> int:
    return len(self._index_N)

  def get(self, indices: np.ndarray) -> Columns:
    rows = list(self.rows(indices))
    return {name: records.column([row[name] for row in rows], self.schema['columns'][name]) for name in self.names}

  def rows(self, indices: np.ndarray) -> Iterator[dict[str, Any]]:
    """The examples as they were written, one by one."""
    for place in self._index_N[np.asarray(indices)].tolist():
      shard = int(np.searchsorted(self._ends, place, side='right'))
      path = self.folder / self.schema['shards'][shard]['file']
      first = int(self._ends[shard]) - self.schema['shards'][shard]['examples']
      try:
        yield records.unpack_row(self._reader(shard).read([place - first])[0])
      except (RuntimeError, ValueError, IndexError, OSError, msgpack.UnpackException) as error:
        raise UserError(f'{path} is damaged ({str(error).splitlines()[0] if str(error) else type(error).__name__}); '
                        'remove this file and run the command that wrote it again, or copy it again') from None

  def fingerprint(self) -> dict[str, Any]:
    return {'checksum': self.schema['checksum'], 'split': self._split, 'columns': sorted(self.names),
            'examples': len(self)}

  def _reader(self, shard: int) -> Any:
    with self._lock:
      if shard not in self._readers:
        entry = self.schema['shards'][shard]
        reader = ArrayRecordReader(str(self.folder / entry['file']), 'readahead_buffer_size:0,max_parallelism:0')
        if reader.num_records() != entry['examples']:
          raise ValueError(f'it has {reader.num_records()} examples instead of {entry["examples"]}')
        self._readers[shard] = reader
      return self._readers[shard]


def read_schema(folder: pathlib.Path) -> dict[str, Any]:
  """The contents of schema.json, whose shards are there.

  Raises:
    UserError: it or a shard is missing, incomplete or of another size.
  """
  if not (folder / SCHEMA).is_file():
    why = 'is incomplete: run the command that writes it again, and it goes on' if (
      folder / _STATE).is_file() else 'holds no packed data; expected a folder that `genjax data pack` wrote'
    raise UserError(f'{folder} {why}')
  try:
    schema = json.loads((folder / SCHEMA).read_text())
    if schema['format'] != FORMAT:
      raise UserError(f'{folder / SCHEMA} has format {schema["format"]}, and this version of genjax reads {FORMAT}; '
                      'pack the data again')
    wrong = [shard['file'] for shard in schema['shards'] if not (folder / shard['file']).is_file()
             or (folder / shard['file']).stat().st_size != shard['file_bytes']]
  except (ValueError, KeyError, TypeError):
    raise UserError(f'{folder / SCHEMA} is damaged; copy the folder again, or pack the data again') from None
  if wrong:
    raise UserError(f'{folder / wrong[0]} is missing, or its size is another than in {SCHEMA}; copy it again, or run '
                    'the command that wrote it again')
  return schema


def _leaves(pairs: Mapping[str, tuple[Any, Any]]) -> dict[str, tuple[Any, Any]]:
  """Pairs of dicts as pairs of their entries, which messages can tell."""
  flat: dict[str, tuple[Any, Any]] = {}
  for name, (old, new) in pairs.items():
    if isinstance(old, dict) and isinstance(new, dict):
      names = sorted({*old, *new})
      flat.update({f'{name}.{key}': pair for key, pair in _leaves(
        {key: (old.get(key), new.get(key)) for key in names}).items()})
    else:
      flat[name] = (old, new)
  return flat


def _read_index(folder: pathlib.Path) -> dict[str, np.ndarray]:
  try:
    with np.load(folder / INDEX) as file:
      return {name: file[name] for name in file.files}
  except Exception as error:  # a damaged zip file raises anything
    raise UserError(f'{folder / INDEX} is damaged ({error}); copy it again, or pack the data again') from None


def _npz(arrays: Mapping[str, np.ndarray]) -> bytes:
  buffer = io.BytesIO()
  np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
  return buffer.getvalue()


@contextlib.contextmanager
def _storing(folder: pathlib.Path) -> Iterator[None]:
  """Turns failures of the disk into a `StorageError`."""
  try:
    yield
  except OSError as error:
    raise StorageError(f'{folder} could not be written: {error}. Make room, or make it writable, and run the same '
                       'command to go on') from error


def _name(number: int, shards: int) -> str:
  return f'data-{number:05d}-of-{shards:05d}.array_record'


def _write_json(path: pathlib.Path, value: Any) -> None:
  _write(path, (strict_json(value, indent=1) + '\n').encode())


def _write(path: pathlib.Path, data: bytes) -> None:
  """Writes a file atomically."""
  partial = path.with_name(f'{path.name}.partial')
  with open(partial, 'wb') as file:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())
  partial.replace(path)
