"""Tables of parts by name: what a config may name, and where a file of one's own adds to it.

Each table stands beside the parts that it lists, for example `genjax.diffusion.samplers.SAMPLERS`. docs/extending.md
shows one of each.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import inspect
import re
from typing import Any, TypeVar

from genjax.types import UserError

T = TypeVar('T')


class Table(dict[str, T]):
  """A dict of parts by name that can be added to.

  Args:
    kind: what one entry is called in messages, e.g. 'sampler'.
    entries: name -> part.
    takes: names of the arguments that an entry is called with by position; None where entries are not functions.
    keywords: names of the arguments that it is called with by keyword.
  """

  def __init__(self, kind: str, entries: Mapping[str, T], takes: Sequence[str] | None = None,
               keywords: Sequence[str] = ()):
    super().__init__(entries)
    self.kind, self.takes, self.keywords = kind, takes, tuple(keywords)

  def add(self, name: str, value: T) -> None:
    """Adds an entry, which configs may name from now on. A function that is defined anew, as by a cell of a notebook
    that runs twice, takes the place of its former self.

    Args:
      name: letters, digits, '_' and '-'.
      value: the part, of the same form as the other entries.

    Raises:
      UserError: the name is taken or not a name, or the part cannot be called as the others are.
    """
    if not isinstance(name, str) or not re.fullmatch(r'\w[\w-]*', name):
      raise UserError(f"the name of a {self.kind} must be letters, digits, '_' and '-', got {name!r}")
    if name in self and _origin(self[name]) != _origin(value):
      raise UserError(f'a {self.kind} named {name!r} exists already; choose another name')
    if self.takes is not None:
      self._check_call(name, value)
    sizes = {len(entry) for entry in self.values() if isinstance(entry, tuple)}
    if sizes and not (isinstance(value, tuple) and len(value) in sizes):
      raise UserError(f'{self.kind} {name!r} must be a tuple of {min(sizes)} parts, as the others are, got {value!r}')
    self[name] = value
    if _recording:
      _recording[-1].append((self, name))

  def _check_call(self, name: str, value: Any) -> None:
    """Checks that an entry can be called as this table's entries are."""
    expected = ', '.join([*(self.takes or ()), *(f'{keyword}=...' for keyword in self.keywords)])
    if not callable(value):
      raise UserError(f'{self.kind} {name!r} must be a function or a class, called with ({expected}), got {value!r}')
    try:
      signature = _signature(value)
    except (TypeError, ValueError):  # some functions written in C tell no signature
      return
    # What a table calls with options of a config has no fixed arguments; its options are checked when it is called.
    if not self.takes and not self.keywords:
      return
    try:
      signature.bind(*(self.takes or ()), **dict.fromkeys(self.keywords))
    except TypeError as error:
      raise UserError(f'{self.kind} {name!r} is called with ({expected}), but takes {signature}: {error}') from error


def _origin(value: Any) -> Any:
  """Where a part is defined."""
  if isinstance(value, tuple):
    return tuple(map(_origin, value))
  return (value.__module__, value.__qualname__) if hasattr(value, '__qualname__') else value


def _signature(value: Callable[..., Any]) -> inspect.Signature:
  """The signature of a call. That of a class is its __init__'s, since a metaclass may hide it."""
  if not inspect.isclass(value):
    return inspect.signature(value)
  signature = inspect.signature(value.__init__)
  return signature.replace(parameters=list(signature.parameters.values())[1:])


Added = list[tuple[Table, str]]
_recording: list[Added] = []


@contextlib.contextmanager
def recorded() -> Iterator[Added]:
  """Within the context, the list that it gives collects what is added to any table."""
  added: Added = []
  _recording.append(added)
  try:
    yield added
  finally:
    _recording.remove(added)


def remove(added: Added) -> None:
  """Takes entries out of their tables again."""
  for table, name in added:
    table.pop(name, None)
  added.clear()
