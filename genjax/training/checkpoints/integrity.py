"""Checksums of a folder of files: written once the folder is complete, verified before it is believed."""

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
  """Writes `folder`/checksums.json: `facts`, and the size and SHA-256 of every file. Readers see the old or the new
  one.

  Args:
    folder: what to describe.
    facts: JSON-able, kept beside the checksums; see `note`.
    without: names directly in `folder` that are left out.
    only: names directly in `folder` that are (re)computed; what is known of the others stays.
  """
  files = _known(folder) if only is not None else {}
  files.update(_digests(folder, [path for path in _files(folder) if not (path.parent == folder and path.name in without)
                                 and (only is None or path.parent == folder and path.name in only)]))
  partial = folder / f'{NAME}.partial'
  text = strict_json({**facts, 'algorithm': 'sha256', 'files': files}, indent=1)
  partial.write_text(strict_json({'sha256': _sha256(text.encode())}) + '\n' + text + '\n')
  partial.replace(folder / NAME)


def note(folder: pathlib.Path) -> dict[str, Any]:
  """The facts beside the checksums; nothing where there are none, or they are damaged (`problems` says so)."""
  try:
    return {key: value for key, value in _read(folder).items() if key not in ('algorithm', 'files')}
  except (OSError, ValueError):
    return {}


def problems(folder: pathlib.Path) -> list[str] | None:
  """What differs from the checksums, a line a file; None where there are no checksums."""
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
  """The record; ValueError if it is not what was written."""
  head, _, text = (folder / NAME).read_text().partition('\n')
  if json.loads(head) != {'sha256': _sha256(text.removesuffix('\n').encode())} or not text.endswith('\n'):
    raise ValueError(f'{NAME} is damaged')
  return json.loads(text)


def _known(folder: pathlib.Path) -> dict[str, dict[str, Any]]:
  return _read(folder)['files']


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
  return [path for path in sorted(folder.rglob('*')) if path.is_file() and path.name not in (NAME, f'{NAME}.partial')]


def _digests(folder: pathlib.Path, files: Sequence[pathlib.Path]) -> dict[str, dict[str, Any]]:
  """Relative path -> size and SHA-256; hashing lets go of the interpreter, so threads help and training goes on."""
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    return dict(pool.map(lambda path: (path.relative_to(folder).as_posix(), _digest(path)), files))


def _digest(path: pathlib.Path) -> dict[str, Any]:
  with open(path, 'rb') as file:
    return {'bytes': path.stat().st_size, 'sha256': hashlib.file_digest(file, 'sha256').hexdigest()}


def _sha256(data: bytes) -> str:
  return hashlib.sha256(data).hexdigest()
