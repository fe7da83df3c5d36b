"""Text documents from TFDS data sets, text files and JSON lines, by name, path, folder or pattern."""

import codecs
from collections.abc import Callable, Iterator
import contextlib
import functools
import glob
import gzip
import itertools
import json
import os
import pathlib
import re
import sys
from typing import IO, Any, cast
import zlib

from genjax.data import sources
from genjax.data.prepared import prepare
from genjax.types import UserError, expanded, listed

LINES = ('.jsonl', '.jsonlines', '.ndjson')  # one JSON object per line, each a document
ENDINGS = ('.txt', *LINES)  # of the files that are read in a folder, optionally with .gz
# Endings of files that are not plain text, or contain documents in another format.
UNSUPPORTED_ENDINGS = ('.ipynb', '.tar', '.tgz', '.zip', '.zst', '.bz2', '.xz', '.lz4', '.rar', '.7z', '.parquet',
                       '.arrow', '.npy', '.npz', '.pdf')
_ENDINGS = ' or '.join([', '.join(ENDINGS[:-1]), ENDINGS[-1]])


def open_documents(name: str, split: str, data_dir: prepare.Path | None = None, originals: prepare.Path | None = None,
                   field: str = 'text') -> list[str]:
  """The documents of a split, in order.

  Args:
    name: name of a data set, path of a file or folder, or a pattern such as 'books/**/*.jsonl.gz' (see `find`).
    split: as for `open_tfds`. Files have only 'train'. Its slices count documents: 'train[:90%]', 'train[90%:]'; those
      of a single document count characters.
    data_dir, originals: see `open_tfds`.
    field: the feature or JSON field with the text.

  Raises:
    UserError: the data set, file, field or split does not exist.
  """
  paths = find(name)
  if paths is not None:
    documents = [document for path in paths for document in read(path, field)]
    if not documents:
      raise UserError(
        f'{name} has no text: {listed([str(path) for path in paths], 4)} {"are" if len(paths) > 1 else "is"} empty')
    if len(documents) == 1:
      return [documents[0][part_of(name, split, len(documents[0]), 'characters')]]
    return documents[part_of(name, split, len(documents), 'documents')]
  builder = prepare.open_builder(name, data_dir, originals)
  features: Any = builder.info.features
  if field not in features:
    raise UserError(
      f'{name} has no feature {field!r}, it has {", ".join(features)}; choose a data set of text, or set '
      'config.data.field')
  return sources.read_texts(builder, split, field)


def place(name: str) -> pathlib.Path | None:
  """The path that a name refers to, existing or not; None for the name of a data set.

  A file or folder named like a data set does not hide the data set: './mnist' is a path, 'mnist/part' is a path if such
  a file exists, and 'glue/sst2' is a data set.
  """
  if not name:
    return None
  path = expanded(name)
  if not prepare.is_known(name) or os.sep in name and (os.path.exists(path)
                                                       or glob.has_magic(name)) and not prepare.is_variant(name):
    return path
  if os.path.exists(path):
    _say_hidden(name)
  return None


@functools.cache
def _say_hidden(name: str) -> None:
  print(f'{name} is taken for the data set of this name; for what is called so here write ./{name}', file=sys.stderr,
        flush=True)


def find(name: str) -> list[pathlib.Path] | None:
  """The files that a name refers to, in order; None for the name of a data set. See `place` and `files`."""
  path = place(name)
  if path is None:
    return None
  meant = os.sep in name or name.startswith(('.', '~')) or glob.has_magic(name) or _bare(path).endswith(ENDINGS)
  return files(os.fspath(path)) if meant or os.path.exists(path) else None


def files(text: str) -> list[pathlib.Path]:
  """The files of documents that a path refers to, in order.

  The path is that of a file, of a folder, or a pattern with *, ?, [...] or **. A folder refers to all files in it and
  its subfolders that end in `ENDINGS` (in upper or lower case), without hidden files and folders.

  Raises:
    UserError: the path is invalid, refers to no file, or to a file in an unsupported format.
  """
  path = expanded(text)
  if os.path.isdir(path):
    found = sorted(file for file in path.rglob('*') if file.is_file() and _bare(file).endswith(ENDINGS)
                   and not any(part.startswith('.') for part in file.relative_to(path).parts))
    if not found:
      raise UserError(f'the folder {path} has no files that end in {_ENDINGS}; give a pattern, as {path}/*.md')
    return found
  if os.path.isfile(path):
    found = [path]
  elif glob.has_magic(text):
    found = sorted(pathlib.Path(file) for file in glob.glob(os.fspath(path), recursive=True) if os.path.isfile(file))
    if not found:
      raise UserError(f'no file matches {text}')
  else:
    raise UserError(f'the text file {path} does not exist; expected a path of a file or the name of a data set')
  if foreign := [file for file in found if _is_foreign(_bare(file))]:
    raise UserError(
      f'{foreign[0]}: genjax reads plain text, and JSON lines in files that end in {" or ".join(LINES)}, also with '
      ".gz. Rename JSON lines that end otherwise; convert a JSON list by jq -c '.[]'")
  return found


def _is_foreign(name: str) -> bool:
  """Returns whether a file with this name is not supported, including JSON with other endings than `LINES`."""
  if name.endswith(UNSUPPORTED_ENDINGS):
    return True
  return not name.endswith(ENDINGS) and any('json' in part for part in name.split('.')[1:])


def has_lines(path: pathlib.Path) -> bool:
  """Returns whether a file has JSON lines, by its name; each line is a document. Any other file is one document."""
  return _bare(path).endswith(LINES)


def _bare(path: pathlib.Path) -> str:
  """The name of a file in lower case, without .gz."""
  return path.name.lower().removesuffix('.gz')


def read(path: pathlib.Path, field: str = 'text', first: int = 0) -> Iterator[str]:
  """Reads the documents of a file from number `first` on: its JSON lines, or its whole text.

  The file may be compressed (.gz). A byte order mark is removed. An empty text file has no documents.

  Raises:
    UserError: the file cannot be read, is not UTF-8, or a line lacks the field; the message names the line.
  """
  if has_lines(path):
    for number, line in itertools.islice(_lines(path), first, None):
      yield _field(line, field, f'{path}, line {number}')
  elif not first:
    with _reading(path) as file:
      data = file.read().removeprefix(codecs.BOM_UTF8)
    if data:
      yield _decoded(data, path)


def count(path: pathlib.Path) -> int:
  """The number of documents that `read` yields, without parsing them; errors as for `read`."""
  if has_lines(path):
    return sum(1 for _ in _lines(path))
  with _reading(path) as file:
    return int(bool(file.read(len(codecs.BOM_UTF8) + 1).removeprefix(codecs.BOM_UTF8)))


def _lines(path: pathlib.Path) -> Iterator[tuple[int, bytes]]:
  """Yields the numbers, from 1, and bytes of the lines that are not empty."""
  number = 0
  with _reading(path, lambda: f' after line {number}') as file:
    for number, line in enumerate(file, 1):  # splits only at newlines
      text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
      if text.strip():
        yield number, text


@contextlib.contextmanager
def _reading(path: pathlib.Path, where: Callable[[], str] = str) -> Iterator[IO[bytes]]:
  """Opens a (compressed) file for reading bytes. Failures become a UserError with the path and `where`."""
  try:
    with gzip.open(path, 'rb') if path.suffix.lower() == '.gz' else open(path, 'rb') as file:
      yield cast(IO[bytes], file)
  except (OSError, EOFError, zlib.error) as error:
    raise UserError(f'cannot read {path}{where()}: {getattr(error, "strerror", None) or error}') from None


def _decoded(data: bytes, path: pathlib.Path) -> str:
  try:
    return data.decode('utf-8')
  except UnicodeDecodeError as error:
    if data.startswith(b'\x1f\x8b'):
      raise UserError(f'{path} is compressed by gzip but does not end in .gz; rename it to {path}.gz') from None
    wide = ' (it begins as UTF-16 does)' if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else ''
    line = data.count(b'\n', 0, error.start) + 1
    raise UserError(
      f'{path}, line {line}: expected UTF-8 text, got {error}{wide}; convert it with iconv -t utf-8') from None


def part_of(name: prepare.Path, split: str, total: int, what: str) -> slice:
  """The slice that a split selects from `total` documents, characters or tokens.

  Raises:
    UserError: the split is not 'train' or a slice of it, or is empty.
  """
  match = re.fullmatch(r'train(?:\[(-?\d+%?)?:(-?\d+%?)?\])?', split)
  if match is None:
    raise UserError(f"{name} has only the split 'train' and slices of it such as 'train[:90%]', got {split!r}")
  part = slice(*(_bound(bound, total) for bound in match.groups()))
  if not len(range(total)[part]):
    raise UserError(f'split {split!r} of {name} ({total} {what}) is empty; choose a larger part')
  return part


def _field(line: bytes, field: str, where: str) -> str:
  try:
    value = json.loads(line.decode('utf-8'))
  except (ValueError, RecursionError) as error:
    raise UserError(f'{where}: expected a JSON object, got {error}') from None
  if not isinstance(value, dict) or not isinstance(value.get(field), str):
    has = sorted(value) if isinstance(value, dict) else type(value).__name__
    raise UserError(
      f'{where}: expected a JSON object with a text {field!r}, got {has}; config.data.field (--field) names it')
  return whole(value[field], where)


def whole(text: str, where: str) -> str:
  """Returns the text if it can be encoded.

  Raises:
    UserError: it has half of a surrogate pair.
  """
  try:
    text.encode('utf-8')
  except UnicodeEncodeError as error:
    raise UserError(
      f'{where}: character {error.start + 1} of the text is {text[error.start]!a}, half of a surrogate '
      'pair, not a character; replace it, for example by \\ufffd') from None
  return text


def _bound(bound: str | None, total: int) -> int | None:
  """A bound of a slice as a number. Percentages are rounded down; -10% is 10% from the end."""
  if bound is None or not bound.endswith('%'):
    return None if bound is None else int(bound)
  percent = int(bound[:-1])
  return total * (percent if percent >= 0 else max(0, 100 + percent)) // 100
