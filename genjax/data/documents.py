"""Documents of text: of a TFDS data set, of text files and of JSON lines, by name, path, folder or pattern."""

from collections.abc import Iterator
import glob
import gzip
import itertools
import json
import os
import pathlib
import re
from typing import Any

from genjax.data import prepare, sources
from genjax.types import UserError

ENDINGS = ('.txt', '.jsonl')  # of the files that are read in a folder, each perhaps with .gz after it


def open_documents(name: str, split: str, data_dir: prepare.Path | None = None, originals: prepare.Path | None = None,
                   field: str = 'text') -> list[str]:
  """The documents of a split, in order.

  Args:
    name: of a data set; or path of a file, of a folder, or a pattern such as 'books/**/*.jsonl.gz' (see `find`).
    split: as for `open_tfds`. Files have only 'train', whose slices count documents: 'train[:90%]', 'train[90%:]'; where there is one
      document, its characters.
    data_dir, originals: see `open_tfds`.
    field: which feature or JSON field is the text.

  Raises:
    UserError: unknown data set, file, field or split.
  """
  paths = find(name)
  if paths is not None:
    documents = [document for path in paths for document in read(path, field)]
    if len(documents) == 1:
      return [documents[0][part_of(name, split, len(documents[0]), 'characters')]]
    return documents[part_of(name, split, len(documents), 'documents')]
  builder = prepare.open_builder(name, data_dir, originals)
  features: Any = builder.info.features
  if field not in features:
    raise UserError(f'{name} has no feature {field!r}, it has {", ".join(features)}; choose a data set of text, or set config.data.field')
  return sources.read_texts(builder, split, field)


def find(name: str) -> list[pathlib.Path] | None:
  """The files that a name stands for, in order; None if it is the name of a data set.

  A path of a file; a folder, which stands for the files below it that end in `ENDINGS`; or a pattern with *, ?, [...] or **.

  Raises:
    UserError: it is none of these and looks like a path, or stands for no file.
  """
  if os.path.isfile(name):
    return [pathlib.Path(name)]
  if os.path.isdir(name):
    found = sorted(path for path in pathlib.Path(name).rglob('*')
                   if path.is_file() and path.name.removesuffix('.gz').endswith(ENDINGS))
    if not found:
      raise UserError(f'the folder {name} has no files that end in {" or ".join(ENDINGS)}; name a pattern, as {name}/*.md')
    return found
  if glob.has_magic(name):
    found = sorted(pathlib.Path(path) for path in glob.glob(name, recursive=True) if os.path.isfile(path))
    if not found:
      raise UserError(f'no file is called {name}')
    return found
  if os.sep in name and (name.startswith(('.', '~', os.sep)) or pathlib.Path(name).suffix):
    raise UserError(f'the text file {name} does not exist; expected a path of a file or the name of a data set')
  return None


def has_lines(path: pathlib.Path) -> bool:
  """Whether a file is called as JSON lines are, each of them a document; any other file is one."""
  return path.name.removesuffix('.gz').endswith('.jsonl')


def read(path: pathlib.Path, field: str = 'text', first: int = 0) -> Iterator[str]:
  """The documents of a file from number `first` on: its lines where it is called .jsonl, else its text; either may be compressed (.gz).

  Raises:
    UserError: it cannot be read, is no UTF-8, or a line has no such field.
  """
  try:
    with gzip.open(path, 'rb') if path.suffix == '.gz' else open(path, 'rb') as file:
      if not has_lines(path):
        yield from [file.read().decode('utf-8')][first:]
        return
      lines = ((number, line) for number, line in enumerate(file, 1) if line.strip())
      for number, line in itertools.islice(lines, first, None):
        yield _field(line, field, f'{path}, line {number}')
  except UnicodeDecodeError as error:
    raise UserError(f'{path}: expected UTF-8 text, got {error}') from None
  except (OSError, EOFError) as error:
    raise UserError(f'cannot read {path}: {getattr(error, "strerror", None) or error}') from None


def count(path: pathlib.Path) -> int:
  """How many documents `read` gives, without reading a text and without parsing JSON; errors as there."""
  if not has_lines(path):
    return 1
  try:
    with gzip.open(path, 'rb') if path.suffix == '.gz' else open(path, 'rb') as file:
      return sum(1 for line in file if line.strip())
  except (OSError, EOFError) as error:
    raise UserError(f'cannot read {path}: {getattr(error, "strerror", None) or error}') from None


def part_of(name: prepare.Path, split: str, total: int, what: str) -> slice:
  """The part that a split names of what has `total` documents, characters or tokens.

  Raises:
    UserError: another split than 'train' and its slices, or an empty one.
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
  except ValueError as error:
    raise UserError(f'{where}: expected a JSON object, got {error}') from None
  if not isinstance(value, dict) or not isinstance(value.get(field), str):
    has = sorted(value) if isinstance(value, dict) else type(value).__name__
    raise UserError(f'{where}: expected a JSON object with a text {field!r}, got {has}; config.data.field (--field) names it')
  return value[field]


def _bound(bound: str | None, total: int) -> int | None:
  """A bound of a slice as a number; percents are rounded towards the start, -10% is 10% from the end."""
  if bound is None or not bound.endswith('%'):
    return None if bound is None else int(bound)
  percent = int(bound[:-1])
  return total * (percent if percent >= 0 else max(0, 100 + percent)) // 100
