"""Files of a run directory: a reader sees the old or the new one, never a part."""

from collections.abc import Mapping
import hashlib
import pathlib
from typing import Any

from genjax import distributed
from genjax.types import strict_json


def write(folder: pathlib.Path, files: Mapping[str, bytes]) -> None:
  """Writes files, name -> bytes, below a folder; of several processes the first does."""
  if distributed.is_first():
    for name, data in files.items():
      path = folder / name
      path.parent.mkdir(parents=True, exist_ok=True)
      _replace(path, data)


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes a JSON file; of several processes the first does."""
  if distributed.is_first():
    _replace(path, (strict_json(value, indent=2) + '\n').encode())


def checksum(data: bytes) -> str:
  """SHA-256 in hexadecimal digits."""
  return hashlib.sha256(data).hexdigest()


def _replace(path: pathlib.Path, data: bytes) -> None:
  partial = path.with_name(f'{path.name}.partial')
  partial.write_bytes(data)
  partial.replace(path)
