"""Checksums of a folder of files: written when the folder is complete, verified before it is used."""

from collections.abc import Mapping, Sequence
import concurrent.futures
import hashlib
import json
import pathlib
from typing import Any

from genjax.types import strict_json

NAME = 'checksums.json'


def write(folder: pathlib.Path, facts: Mapping[str, Any], without: Sequence[str] = (),
          only: Sequence[str] | None = None) -> None:
  """Atomically writes `folder`/checksums.json with `facts` and the size and SHA-256 of every file.

  Args:
    folder: the folder.
    facts: JSON-able facts to store beside the checksums; see `note`.
    without: names directly in `folder` to exclude.
    only: names directly in `folder` to (re)compute; the entries of the others are kept.
  """
  files = _known(folder) if only is not None else {}
  files.update(_digests(folder, [path for path in _files(folder) if not (path.parent == folder and path.name in without)
                                 and (only is None or path.parent == folder and path.name in only)]))
  partial = folder / f'{NAME}.partial'
  text = strict_json({**facts, 'algorithm': 'sha256', 'files': files}, indent=1)
  partial.write_text(strict_json({'sha256': _sha256(text.encode())}) + '\n' + text + '\n')
  partial.replace(folder / NAME)


def note(folder: pathlib.Path) -> dict[str, Any]:
  """The facts beside the checksums; empty if the file is missing or damaged (`problems` reports that)."""
  try:
    return {key: value for key, value in _read(folder).items() if key not in ('algorithm', 'files')}
  except (OSError, ValueError):
    return {}


def problems(folder: pathlib.Path) -> list[str] | None:
  """Differences from the checksums, one line per file; None if there are no checksums."""
  if not (folder / NAME).exists():
    return None
  try:
    known = _known(folder)
  except ValueError:
    return [f'{NAME} is damaged']
  actual = _digests(folder, [path for path in _files(folder) if path.relative_to(folder).as_posix() in known])
  found = [f'{name} is missing' for name in sorted(set(known) - set(actual))]
  for name in sorted(actual):
    if known[name]['bytes'] != actual[name]['bytes']:
      found.append(f'{name} has {actual[name]["bytes"]} bytes, expected {known[name]["bytes"]}')
    elif known[name] != actual[name]:
      found.append(f'{name} has other bytes than were written')
  return found


def _read(folder: pathlib.Path) -> dict[str, Any]:
  """Reads the record. Raises a ValueError if it is damaged."""
  head, _, text = (folder / NAME).read_text().partition('\n')
  if json.loads(head) != {'sha256': _sha256(text.removesuffix('\n').encode())} or not text.endswith('\n'):
    raise ValueError(f'{NAME} is damaged')
  return json.loads(text)


def _known(folder: pathlib.Path) -> dict[str, dict[str, Any]]:
  return _read(folder)['files']


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
  return [path for path in sorted(folder.rglob('*')) if path.is_file() and path.name not in (NAME, f'{NAME}.partial')]


def _digests(folder: pathlib.Path, files: Sequence[pathlib.Path]) -> dict[str, dict[str, Any]]:
  """Relative path -> size and SHA-256. Hashing releases the interpreter lock, so threads help."""
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    return dict(pool.map(lambda path: (path.relative_to(folder).as_posix(), _digest(path)), files))


def _digest(path: pathlib.Path) -> dict[str, Any]:
  with open(path, 'rb') as file:
    return {'bytes': path.stat().st_size, 'sha256': hashlib.file_digest(file, 'sha256').hexdigest()}


def _sha256(data: bytes) -> str:
  return hashlib.sha256(data).hexdigest()
