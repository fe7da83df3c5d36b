"""Where a command writes, checked before anything is computed."""

import os
import pathlib
from typing import Any

from genjax.types import UserError, expanded


def file(text: str, flag: str) -> pathlib.Path:
  """The file that a flag names, which may be written; its folder may have to be made.

  Raises:
    UserError: it is a folder, or it or the folder that it would be made in cannot be written.
  """
  path = _path(text, flag)
  if path.is_dir():
    raise UserError(f'{flag}={text} is a folder; name a file')
  if path.exists() and not os.access(path, os.W_OK):
    raise UserError(f'{flag}={text} is there and cannot be written; name another file')
  _check_parent(path, flag, text)
  return path


def folder(text: str, flag: str, new: bool = False) -> pathlib.Path:
  """The folder that a flag names, which may be written or made.

  Args:
    text: of the flag.
    flag: for messages, e.g. '--out'.
    new: it must not exist, or be empty.

  Raises:
    UserError: it cannot be made or written; or it should be new and is not.
  """
  path = _path(text, flag)
  if new and path.exists() and (not path.is_dir() or any(path.iterdir())):
    raise UserError(f'{flag}={text} exists and is not an empty folder; name a new one')
  _check_parent(path / 'file', flag, text)
  return path


def _path(text: Any, flag: str) -> pathlib.Path:
  if not str(text).strip():
    raise UserError(f'{flag} is empty; name a path')
  return expanded(text)


def _check_parent(path: pathlib.Path, flag: str, text: str) -> None:
  """The nearest folder above a path that exists is one in which something may be made."""
  parent = path.absolute().parent
  try:
    while not parent.exists():
      parent = parent.parent
    if parent.is_dir() and os.access(parent, os.W_OK | os.X_OK):
      return
    why = f'{parent} is {"a folder that may not be written" if parent.is_dir() else "no folder"}'
  except OSError as error:
    why = error.strerror or str(error)
  raise UserError(f'{flag}={text} cannot be written: {why}; choose another path')
