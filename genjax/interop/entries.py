"""Entries of a public config.json, each read with its type checked."""

from collections.abc import Mapping
import json
import pathlib
from typing import Any

from genjax.types import UserError

REQUIRED: Any = object()  # the default of an entry that has none


class Entries:
  """A JSON object whose entries are read by type.

  An entry that is absent or null takes the default, which is what `transformers` takes for it; without one it is
  required.

  Args:
    values: the object.
    where: what to call it in messages.
  """

  def __init__(self, values: Mapping[str, Any], where: str):
    self.values, self.where = values, where

  def integer(self, name: str, default: Any = REQUIRED, least: int = 1) -> int:
    """A whole number of at least `least`.

    Raises:
      UserError: the entry is missing or is none.
    """
    value = self._value(name, default)
    if value is not default and (isinstance(value, bool) or not isinstance(value, int) or value < least):
      raise UserError(f'{self.where}: {name} must be a whole number of at least {least}, got {value!r}')
    return value

  def number(self, name: str, default: Any = REQUIRED) -> float:
    """A number above 0.

    Raises:
      UserError: the entry is missing or is none.
    """
    value = self._value(name, default)
    if value is not default and (isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0):
      raise UserError(f'{self.where}: {name} must be a number above 0, got {value!r}')
    return float(value)

  def flag(self, name: str, default: bool) -> bool:
    """True or false.

    Raises:
      UserError: the entry is neither.
    """
    value = self._value(name, default)
    if not isinstance(value, bool):
      raise UserError(f'{self.where}: {name} must be true or false, got {value!r}')
    return value

  def choice(self, name: str, known: Mapping[str, Any], default: Any = REQUIRED) -> Any:
    """What `known` has for the entry.

    Raises:
      UserError: it has nothing for it.
    """
    value = self._value(name, default)
    if not isinstance(value, str) or value not in known:
      raise UserError(f'{self.where}: {name} is {value!r}, which genjax does not have; it has {sorted(known)}')
    return known[value]

  def inner(self, name: str) -> 'Entries | None':
    """The entries of an object within this one; None where it is absent, null or empty.

    Raises:
      UserError: the entry is no object.
    """
    value = self.values.get(name)
    if value is not None and not isinstance(value, Mapping):
      raise UserError(f'{self.where}: {name} must be an object, got {value!r}')
    return Entries(value, f'{self.where}: {name}') if value else None

  def only(self, name: str, expected: Any, why: str) -> None:
    """Refuses any other value of an option that genjax does not have.

    Raises:
      UserError: the entry is present and is not `expected`.
    """
    value = self.values.get(name)
    if value is not None and value != expected:
      raise UserError(f'{self.where}: {name} is {value!r}, and genjax has only {expected!r}: {why}')

  def _value(self, name: str, default: Any) -> Any:
    value = self.values.get(name)
    if value is None and default is REQUIRED:
      raise UserError(f'{self.where} lacks {name}')
    return default if value is None else value


def read_json(path: pathlib.Path, purpose: str) -> dict[str, Any]:
  """The object in a JSON file.

  Args:
    path: the file.
    purpose: what it is read for, for messages.

  Raises:
    UserError: there is no such file, or it holds no JSON object.
  """
  try:
    value = json.loads(path.read_text(encoding='utf-8-sig'))
  except FileNotFoundError as error:
    raise UserError(f'{path} does not exist; it is {purpose}') from error
  except (OSError, ValueError) as error:
    raise UserError(f'{path} is {purpose}, and cannot be read as JSON: {error}') from error
  if not isinstance(value, dict):
    raise UserError(f'{path} is {purpose}, and must hold a JSON object, got {type(value).__name__}')
  return value
