"""What a config may hold: options with their types, defaults and meanings.

A builder says by a function `options(config) -> dict[str, Section]` which functions and dataclasses take the options of
which section of its config. Types and defaults are read from their signatures, meanings from their docstrings, in which
each option stands on a line of its own under `Args:`, `Attributes:` or `Options:`.
"""

import ast
from collections.abc import Callable, Mapping, Sequence
import dataclasses
import difflib
import inspect
import re
import sys
import types
import typing
from typing import Any

from genjax.types import UserError

REQUIRED = inspect.Parameter.empty  # the default of an option that a config must set
_HEADINGS = ('Args:', 'Attributes:', 'Options:')
_ENTRY = re.compile(r'  (\*{0,2}[\w.]+): (\S.*)')  # in a docstring without the indent of its function
_TRUTH = {'true': True, 'false': False, '1': True, '0': False}


@dataclasses.dataclass(frozen=True)
class Option:
  """One key that a config may set.

  Attributes:
    key: dotted, such as 'model.width'.
    kind: annotation of its type.
    default: its value where the config does not set it; `REQUIRED` if the config must.
    meaning: what its docstring says.
  """

  key: str
  kind: Any
  default: Any = REQUIRED
  meaning: str = ''

  def read(self, text: str) -> Any:
    """The value that a text from the command line stands for.

    Raises:
      UserError: it is of another type.
    """
    try:
      return _read(text, self.kind)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
      default = '' if self.default is REQUIRED else f' (default {self.default!r})'
      raise UserError(f'config key {self.key} takes {type_name(self.kind)}{default}, got {text!r}') from error


@dataclasses.dataclass(frozen=True)
class Section:
  """The options of one section of a config.

  Attributes:
    takes: functions and dataclasses; their keywords are the options.
    computed: keywords that no config sets -> what the builder computes them from, '' to say nothing of it.
    defaults: defaults that the builder chooses in place of those of the signatures.
    names: the values of the key `name`, if the section has one.
    name: the value of `name` where the config does not set it; `REQUIRED` if the config must.
    others: value of a key `chooser` -> functions that would take the options with it, for messages.
    chooser: that key, '' for `name` of the section itself.
  """

  takes: tuple[Callable[..., Any], ...] = ()
  computed: Mapping[str, str] = dataclasses.field(default_factory=dict)
  defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  names: tuple[str, ...] = ()
  name: Any = REQUIRED
  others: Mapping[str, tuple[Callable[..., Any], ...]] = dataclasses.field(default_factory=dict)
  chooser: str = ''

  def elsewhere(self, where: str) -> dict[str, str]:
    """Options by key -> the settings with which there are such, in words."""
    found: dict[str, list[str]] = {}
    for name, functions in self.others.items():
      for key in Section(functions, self.computed).options(where):
        found.setdefault(key, []).append(name)
    return {key: f'{self.chooser or _join(where, "name")}={" or ".join(names)}' for key, names in found.items()}

  def options(self, where: str) -> dict[str, Option]:
    """Options by key; `where` is the key of the section."""
    found = {}
    if self.names:
      key = _join(where, 'name')
      found[key] = Option(key, str, self.name, 'which one: ' + ', '.join(self.names) + '.')
    for function in self.takes:
      kinds, told = _annotations(function), meanings(function)
      for name, parameter in inspect.signature(function).parameters.items():
        key = _join(where, name)
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL) or name in self.computed or key in found:
          continue
        found[key] = Option(key, kinds.get(name, Any), self.defaults.get(name, _default(function, parameter)),
                            _with_choices(told.get(name, ''), function))
    return found


def named(table: Mapping[str, Callable[..., Any] | None], config: Any, *, computed: Mapping[str, str] | None = None,
          name: Any = REQUIRED) -> Section:
  """The section whose key `name` chooses the function or class that takes the other options.

  Args:
    table: name -> function or class; None for a name without options.
    config: the section, or None where the config has none.
    computed: see `Section`.
    name: the name where the config has none.
  """
  chosen = (config or {}).get('name', name)
  taken = table.get(chosen) if isinstance(chosen, str) else None  # of an unknown name the builder says what it expects
  others = {other: (function,) for other, function in table.items() if function}
  return Section((taken,) if taken else (), computed or {}, names=tuple(table), name=name, others=others)


@dataclasses.dataclass(frozen=True)
class Known:
  """All that is known of the options of a config.

  Attributes:
    options: key -> option.
    computed: key that no config sets -> what it is computed from.
    elsewhere: key -> the settings with which there would be such an option.
    templates: options of entries whose names the config chooses; in their keys, such as 'parts.NAME.dtype', NAME stands
      for any name. One that ends in '.kind' makes the entry, which then has options of its own.
    builder: module path of the builder, for messages.
  """

  options: Mapping[str, Option]
  computed: Mapping[str, str] = dataclasses.field(default_factory=dict)
  elsewhere: Mapping[str, str] = dataclasses.field(default_factory=dict)
  builder: str = ''
  templates: Sequence[Option] = ()

  def template(self, key: str) -> Option | None:
    """The option of a key whose name the config chooses, or None."""
    for option in self.templates:
      pattern = re.escape(option.key).replace('NAME', r'[a-zA-Z_]\w*')
      if re.fullmatch(pattern, key, re.ASCII):
        return dataclasses.replace(option, key=key)
    return None

  def _maker(self, key: str) -> str:
    """The key `kind` that would make the entry which a key belongs to, '' for none."""
    kind = f'{key.rpartition(".")[0]}.kind'
    return kind if kind not in self.options and self.template(kind) else ''

  def find(self, key: str, spelled: Sequence[str] = ()) -> Option:
    """The option of a key.

    Args:
      key: without 'config.' before it.
      spelled: further keys that the config has, for messages.

    Raises:
      UserError: there is none, or the builder computes it. The message names the nearest keys.
    """
    if key in self.options:
      return self.options[key]
    if option := self.template(key):
      return option
    if key in self.computed:
      source = f'; it follows from {self.computed[key]}' if self.computed[key] else ''
      raise UserError(f'config key {key!r} cannot be set: {self.builder} computes it{source}')
    if key in self.elsewhere:
      raise UserError(f'config key {key!r} is an option only with {self.elsewhere[key]}')
    if maker := self._maker(key):
      raise UserError(f'config key {key!r}: the config has no {maker.rpartition(".")[0]}; to add it, set '
                      f'--config.{maker}=KIND as well')
    near = nearest(key, [*spelled, *self.options])
    hint = f' Did you mean {near[0]!r}?' if near else ''
    others = f' Near it are {", ".join(near[1:])}.' if near[1:] else ''
    raise UserError(f'unknown config key {key!r}.{hint}{others} genjax inspect --config=... --options lists all')


def known(sections: Mapping[str, Section], builder: str = '') -> Known:
  """The options of all sections; the key of a section is dotted, '' for the config itself."""
  options: dict[str, Option] = {}
  computed: dict[str, str] = {}
  for where, section in sections.items():
    options.update(section.options(where))
    computed.update({_join(where, name): source for name, source in section.computed.items()})
  elsewhere = {key: told for where, section in sections.items() for key, told in section.elsewhere(where).items()}
  return Known(options, computed, elsewhere, builder)


def nearest(key: str, keys: Sequence[str], count: int = 4) -> list[str]:
  """Up to `count` keys that look like one, the most alike first: as a whole, or by their last part."""
  leaf = key.rpartition('.')[2]

  def likeness(other: str) -> float:
    whole = difflib.SequenceMatcher(None, key, other).ratio()
    return max(whole, 0.95 * difflib.SequenceMatcher(None, leaf, other.rpartition('.')[2]).ratio())

  ranked = sorted(((likeness(other), other) for other in dict.fromkeys(keys)), key=lambda pair: -pair[0])
  return [other for value, other in ranked[:count] if value >= 0.6]


def _with_choices(meaning: str, function: Callable[..., Any]) -> str:
  """A meaning with the names that a table has in the place of the table's own: 'one of `NORMS`'."""

  def names(match: re.Match[str]) -> str:
    module, _, name = match[1].rpartition('.')
    table = getattr(sys.modules.get(module or function.__module__), name, None)
    known = isinstance(table, (Mapping, tuple)) and all(isinstance(key, str) for key in table)
    return f'one of {", ".join(table)}' if known and table else match[0]

  return re.sub(r'one of `([\w.]+)`', names, meaning)


def meanings(function: Callable[..., Any]) -> dict[str, str]:
  """name -> meaning, of the lines `name: meaning` under the headings of a docstring."""
  if inspect.isclass(function):  # what a base class has is told there
    documented = [vars(base).get('__doc__') for base in reversed(function.__mro__)]
    return {name: meaning for text in documented for name, meaning in _entries(text or '').items()}
  return _entries(function.__doc__ or '')


def _entries(docstring: str) -> dict[str, str]:
  text = inspect.cleandoc(docstring)
  found: dict[str, str] = {}
  listed, name = False, ''
  for line in text.splitlines():
    if line and not line.startswith(' '):
      listed, name = line in _HEADINGS, ''
    elif listed and (entry := _ENTRY.fullmatch(line)):
      name = entry[1].lstrip('*')
      found[name] = entry[2]
    elif listed and name and line.startswith('    '):
      found[name] += f' {line.strip()}'
    else:
      name = ''
  return found


def type_name(kind: Any) -> str:
  """A type in words: 'tuple of int', 'int or None'."""
  origin, parts = typing.get_origin(kind), typing.get_args(kind)
  if origin in (typing.Union, types.UnionType):
    return ' or '.join(type_name(part) for part in parts)
  if kind in (tuple, Any) or origin is tuple and not parts:
    return 'any' if kind is Any else 'tuple'
  if origin is tuple:
    return f'tuple of {type_name(parts[0])}' if parts[-1] is ... else f'{len(parts)} {type_name(parts[0])}'
  if _is_mapping(kind):
    return 'dict'
  if _is_sequence(kind):
    return 'tuple'
  return 'None' if kind is types.NoneType else getattr(kind, '__name__', str(kind))


def _join(where: str, name: str) -> str:
  return f'{where}.{name}' if where else name


def _annotations(function: Callable[..., Any]) -> dict[str, Any]:
  try:
    return typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
  except NameError:  # names that are imported for type checkers alone; then any value will do
    return {}


def _default(function: Callable[..., Any], parameter: inspect.Parameter) -> Any:
  """The default of a parameter; of a field of a dataclass, what its factory makes."""
  if dataclasses.is_dataclass(function):
    for field in dataclasses.fields(function):
      if field.name == parameter.name and field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
  return parameter.default


def _is_mapping(kind: Any) -> bool:
  """Whether a dict is what a config has in its place; dataclasses are made of dicts."""
  origin = typing.get_origin(kind) or kind
  return inspect.isclass(origin) and (issubclass(origin, Mapping) or dataclasses.is_dataclass(origin))


def _is_sequence(kind: Any) -> bool:
  origin = typing.get_origin(kind) or kind
  return inspect.isclass(origin) and issubclass(origin, Sequence) and not issubclass(origin, str)


def _read(text: str, kind: Any) -> Any:
  """A text as a value of a type; ValueError, SyntaxError or TypeError where it is none."""
  if typing.get_origin(kind) in (typing.Union, types.UnionType):
    parts = typing.get_args(kind)
    if types.NoneType in parts and text.strip().lower() in ('none', 'null'):
      return None
    # Text last: every text is one. Beside text, a tuple is what has commas or brackets
    for part in sorted(parts, key=lambda part: part is str):
      word = str in parts and _is_sequence(part) and not (',' in text or text[:1] in '([')
      if part is not types.NoneType and not word:
        try:
          return _read(text, part)
        except (ValueError, SyntaxError, TypeError):
          continue
    raise ValueError(text)
  if kind is str:
    return text
  if kind is bool:
    if text.strip().lower() not in _TRUTH:
      raise ValueError(text)
    return _TRUTH[text.strip().lower()]
  if kind in (int, float):
    return kind(text)
  if kind is Any:
    try:
      return ast.literal_eval(text)
    except (ValueError, SyntaxError):
      return text
  try:
    value = ast.literal_eval(text)
  except (ValueError, SyntaxError):  # words without quotes
    if not _is_sequence(kind) or text[:1] in '([{':
      raise
    value = tuple(part.strip() for part in text.split(',') if part.strip())
  return _fit(value, kind)


def _fit(value: Any, kind: Any) -> Any:
  """A literal as a value of a type; a number for a tuple of one."""
  origin, parts = typing.get_origin(kind) or kind, typing.get_args(kind)
  if kind is Any:
    return value
  if _is_mapping(kind):
    if not isinstance(value, Mapping):
      raise TypeError(value)
    return dict(value)
  if _is_sequence(kind):
    items = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    if origin is tuple and parts and parts[-1] is not ... and len(parts) != len(items):
      raise ValueError(value)
    return tuple(_fit(item, parts[0]) for item in items) if parts else items
  if kind is float and isinstance(value, int) and not isinstance(value, bool):
    return float(value)
  if kind is str and isinstance(value, (int, float)):
    return str(value)
  if type(value) is not kind:
    raise TypeError(value)
  return value
