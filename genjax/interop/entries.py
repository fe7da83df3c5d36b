"""Typed access to the entries of a public config.json."""

from collections.abc import Mapping
import json
import pathlib
from typing import Any

from genjax.types import UserError

REQUIRED: Any = object()  # marks an entry without a default


class Entries:
  """A JSON object with typed access to its entries.

  An absent or null entry has the given default, that of `transformers`. An entry without a default is required.

  Args:
    values: the object.
    where: its name in messages.
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
    """The value of `known` for the entry.

    Raises:
      UserError: `known` lacks it.
    """
    value = self._value(name, default)
    if not isinstance(value, str) or value not in known:
      raise UserError(f'{self.where}: {name} is {value!r}, which genjax does not support; it supports {sorted(known)}')
    return known[value]

  def inner(self, name: str) -> 'Entries | None':
    """The entries of a nested object; None if it is absent, null or empty.

    Raises:
      UserError: the entry is not an object.
    """
    value = self.values.get(name)
    if value is not None and not isinstance(value, Mapping):
      raise UserError(f'{self.where}: {name} must be an object, got {value!r}')
    return Entries(value, f'{self.where}: {name}') if value else None

  def only(self, name: str, expected: Any, why: str) -> None:
    """Checks that an unsupported option has its only supported value.

    Raises:
      UserError: the entry is present and is not `expected`.
    """
    value = self.values.get(name)
    if value is not None and value != expected:
      raise UserError(f'{self.where}: {name} is {value!r}, but genjax only supports {expected!r}: {why}')

  def _value(self, name: str, default: Any) -> Any:
    value = self.values.get(name)
    if value is None and default is REQUIRED:
      raise UserError(f'{self.where} lacks {name}')
    return default if value is None else value


def read_json(path: pathlib.Path, purpose: str) -> dict[str, Any]:
  """Reads the object in a JSON file.

  Args:
    path: the file.
    purpose: its purpose, for messages.

  Raises:
    UserError: the file does not exist, or does not hold a JSON object.
  """
  try:
    value = json.loads(path.read_text(encoding='utf-8-sig'))
  except FileNotFoundError as error:
    raise UserError(f'{path} does not exist; it is {purpose}') from error
  except (OSError, ValueError) as error:
    raise UserError(f'{path} is {purpose}, but cannot be read as JSON: {error}') from error
  if not isinstance(value, dict):
    raise UserError(f'{path} is {purpose}; it must hold a JSON object, got {type(value).__name__}')
  return value
