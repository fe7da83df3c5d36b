"""Captions and other columns of files: metadata.jsonl, as of Hugging Face's imagefolder, or a .txt beside each file."""

import codecs
from collections.abc import Mapping, Sequence
import json
import math
import pathlib
import posixpath
from typing import Any

import numpy as np

from genjax.data.text import documents
from genjax.types import UserError, listed

METADATA = 'metadata.jsonl'
FILE_NAME = 'file_name'  # the field that names the file, relative to the folder of metadata.jsonl
_LARGEST = float(np.finfo(np.float32).max)  # columns of numbers with a point, and of lists, are float32
Columns = dict[str, dict[str, Any]]  # column -> name of a file -> its value


def read(root: pathlib.Path, tables: Sequence[str], texts: Sequence[str], names: Sequence[str],
         field: str = 'text') -> Columns:
  """The columns that files have beside their contents.

  Each line of a metadata.jsonl is a JSON object: `file_name`, and what else is known of this file. A text file is the
  caption of the file of the same name with another ending; of a folder in which no file has one, text files are none.

  Args:
    root: the folder of all.
    tables: paths in it of the files called metadata.jsonl.
    texts: paths in it of the text files.
    names: paths in it of the files.
    field: the field of metadata.jsonl that becomes the column 'text'.

  Returns:
    column -> name -> value. Captions are the column 'text'.

  Raises:
    UserError: a line or text file names no file, a file has two captions, a caption two files, or a file cannot be
      read; the message names file and line.
  """
  columns: Columns = {}
  places: dict[str, str] = {}  # name -> what describes it
  known = set(names)
  for table in tables:
    for number, line in _lines(root / table):
      where = f'{root / table}, line {number}'
      values = _object(line, where)
      name = posixpath.normpath(posixpath.join(posixpath.dirname(table), values.pop(FILE_NAME)))
      if name not in known:
        raise UserError(f'{where}: names {name!r}, and {root} has no such file{_hint(root, name)}; correct or remove '
                        'this line')
      if name in places:
        raise UserError(f'{where}: describes {name!r}, which {places[name]} describes already; remove one of them')
      places[name] = where
      if field in values and not isinstance(values[field], str | None) and not are_texts(values[field]):
        raise UserError(f'{where}: {field!r} must be a text, or a list of texts of which one is drawn whenever the '
                        f'file is read, got {values[field]!r}')
      for key, value in values.items():
        if value is not None:
          text = documents.whole(value, where) if isinstance(value, str) else (
            [documents.whole(one, where) for one in value] if are_texts(value) else value)
          columns.setdefault('text' if key == field else key, {})[name] = text
  _read_texts(root, texts, names, places, columns)
  return columns


def _read_texts(root: pathlib.Path, texts: Sequence[str], names: Sequence[str], places: dict[str, str],
                columns: Columns) -> None:
  """Adds the captions of text files."""
  by_stem: dict[str, list[str]] = {}
  for name in names:
    by_stem.setdefault(posixpath.splitext(name)[0], []).append(name)
  captioned = {posixpath.dirname(text) for text in texts if posixpath.splitext(text)[0] in by_stem}
  captions = columns.get('text', {})
  for text in texts:
    if posixpath.dirname(text) not in captioned:
      continue
    found = by_stem.get(posixpath.splitext(text)[0], [])
    if not found:
      raise UserError(f'{root / text}: no file beside it has this name with another ending, so it captions nothing; '
                      'rename or remove it, or ignore all captions with config.data.captions=none')
    if len(found) > 1:
      raise UserError(f'{root / text}: is the caption of {listed(found)}, and a caption belongs to one file; rename '
                      'one of them')
    if found[0] in captions:
      raise UserError(f'{root / text}, line 1: captions {found[0]!r}, which {places[found[0]]} captions already; '
                      'remove one of them')
    places[found[0]] = str(root / text)
    captions[found[0]] = ''.join(documents.read(root / text)).strip()
  if captions:
    columns['text'] = captions


def described(table: pathlib.Path) -> dict[str, str]:
  """The lines of a metadata.jsonl, by the file that each describes.

  Raises:
    UserError: it cannot be read, or a line is no JSON object that names a file.
  """
  return {posixpath.normpath(_object(line, f'{table}, line {number}')[FILE_NAME]): line
          for number, line in _lines(table)}


def complete(column: str, values: Mapping[str, Any], names: Sequence[str], where: pathlib.Path) -> list[Any]:
  """The values of a column in the order of the files, all of one type. A missing text is ''.

  Where a value is a list of texts, all are: a text counts as a list of one.

  Raises:
    UserError: a value is missing that is no text, or values are of several types.
  """
  if any(are_texts(value) for value in values.values()) and all(
      isinstance(value, str) or are_texts(value) for value in values.values()):
    lists = {name: [value] if isinstance(value, str) else value for name, value in values.items()}
    return [lists.get(name, ['']) for name in names]
  kinds = {type(value) for value in values.values()}
  if kinds == {int, float}:
    kinds = {float}
  strange = [f'{value!r} for {name!r}' for name, value in values.items() if not _fits(value, kinds == {float})]
  if len(kinds) != 1 or strange:
    told = sorted(kind.__name__ for kind in kinds) if len(kinds) != 1 else strange[0]
    raise UserError(f'{where}: column {column!r} must hold texts, whole numbers of 64 bits, numbers '
                    f'of at most {_LARGEST:.1e} or lists of numbers only, got '
                    f'{told}; correct {METADATA}')
  kind = next(iter(kinds))
  # A file without a caption has an empty one, but a file without a label is of no class.
  if (kind is not str or column == 'label') and (missing := [name for name in names if name not in values]):
    raise UserError(f'{where}: {len(missing)} files have no {column!r}, the first is {missing[0]!r}; add it to '
                    f'{METADATA}')
  return [kind(values.get(name, '')) for name in names]


def are_texts(value: Any) -> bool:
  """Whether a value is a list of at least one text, and of nothing else."""
  return isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value)


def _fits(value: Any, floating: bool) -> bool:
  """Whether a value of a column, of float32 or of others, is a text, a number or an array of numbers."""
  if isinstance(value, list):
    try:
      found = np.asarray(value)
      return found.dtype.kind in 'iuf' and bool(np.all(np.abs(found.astype(np.float64)) <= _LARGEST))
    except ValueError:  # lists of several lengths
      return False
  if isinstance(value, float) or floating and type(value) is int:
    return abs(value) <= _LARGEST
  return isinstance(value, str) or type(value) is int and -2**63 <= value < 2**63


def _lines(path: pathlib.Path) -> list[tuple[int, str]]:
  """The lines that are not empty, with their numbers from 1."""
  try:
    text = path.read_bytes().removeprefix(codecs.BOM_UTF8).decode('utf-8')
  except OSError as error:
    raise UserError(f'{path} cannot be read: {error.strerror}') from None
  except UnicodeDecodeError as error:
    line = error.object[:error.start].count(b'\n') + 1
    raise UserError(f'{path}, line {line}: expected UTF-8 text, got {error}; convert it with iconv -t utf-8') from None
  return [(number, line) for number, line in enumerate(text.split('\n'), 1) if line.strip()]


def _object(line: str, where: str) -> dict[str, Any]:
  try:
    values = json.loads(line, parse_float=_number, parse_constant=_number, object_pairs_hook=_fields)
  except (ValueError, RecursionError) as error:
    raise UserError(f'{where}: expected a JSON object, got {error}') from None
  if not isinstance(values, dict) or not isinstance(values.get(FILE_NAME), str):
    what = f'{FILE_NAME}={values.get(FILE_NAME)!r}' if isinstance(values, dict) else type(values).__name__
    raise UserError(f'{where}: expected a JSON object whose {FILE_NAME!r} is the path of one file, got {what}')
  return values


def _fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  """The fields of an object; ValueError if one is told twice."""
  names = [name for name, _ in pairs]
  if twice := [name for name in names if names.count(name) > 1]:
    raise ValueError(f'the field {twice[0]!r} twice; remove one of them')
  return dict(pairs)


def _number(text: str) -> float:
  """A number with a point or an exponent; ValueError for NaN and infinities, also those of too large an exponent."""
  if not math.isfinite(value := float(text)):
    raise ValueError(f'{text}, and numbers are finite ones of 64 bits; correct it, or leave the field out')
  return value


def _hint(root: pathlib.Path, name: str) -> str:
  """Why a file that exists is none of the data."""
  path = root / name
  if name.startswith(('/', '../')):
    return f' (names are relative to the folder of {METADATA}, and below {root})'
  return ' of this kind (hidden files and other endings do not count)' if path.is_file() else ''
