"""Configs as plain data: build by name with strict keywords, compare, write and read.

A config is an `ml_collections.ConfigDict`. Builders in `experiments/` turn it into objects, so the layers below never
see one. A run directory stores its config as plain JSON.
"""

from collections.abc import Callable, Mapping
import difflib
import importlib
import inspect
import json
import math
import numbers
from typing import Any, TypeVar

import ml_collections

from genjax import checks
from genjax import options as options_lib
from genjax.types import UserError

T = TypeVar('T')

Config = Any  # an `ml_collections.ConfigDict`, whose entries have no static types


def suggestion(name: str, known: Any) -> str:
  """Returns ' Did you mean X?' for the closest known name, or ''."""
  near = difflib.get_close_matches(str(name), [str(item) for item in known], n=1)
  return f' Did you mean {near[0]!r}?' if near else ''


def choose(table: Mapping[str, T], name: str, where: str) -> T:
  """Looks up a table entry by name.

  Raises:
    UserError: the name is unknown. The message lists the known ones; `where` is the config key in it, e.g.
      'config.model.name'.
  """
  if name not in table:
    raise UserError(f'{where} must be one of {sorted(table)}, got {name!r}.{suggestion(name, table)}')
  return table[name]


def plain(config: Any) -> Any:
  """Converts a ConfigDict to nested dicts, lists and scalars."""
  if isinstance(config, (ml_collections.ConfigDict, Mapping)):
    return {key: plain(value) for key, value in config.items()}
  if isinstance(config, (tuple, list)):
    return [plain(value) for value in config]
  return config


def build(function: Callable[..., T], options: Mapping[str, Any], where: str, **extra: Any) -> T:
  """Calls `function(**options, **extra)` after checking the keywords against its signature.

  Args:
    function: a function or dataclass.
    options: keywords from the config; the entry 'name' is ignored.
    where: the config key of the options, for messages, e.g. 'config.model'.
    **extra: keywords that the builder computes; a config may not set them.

  Raises:
    UserError: a keyword is unknown, missing or reserved for the builder, or the function raises a ValueError.
  """
  given = {key: _frozen(value) for key, value in options.items() if key != 'name'}
  parameters = inspect.signature(function).parameters
  if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
    for key in given:
      if key not in parameters or key in extra:
        allowed = sorted(set(parameters) - set(extra))
        anew = f' One flag gives all options anew: --{where}="{dict(name=options.get("name"))}"'
        raise UserError(f'{where}.{key} is not an option of {function.__name__}; it takes {allowed}.'
                        f'{suggestion(key, allowed)}{anew if "name" in options else ""}')
  missing = [name for name, parameter in parameters.items() if parameter.default is parameter.empty
             and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
             and name not in given and name not in extra]
  if missing:
    raise UserError(f'{where} lacks {missing}, which {function.__name__} needs; add them to the config, or set '
                    f'--{where}.{missing[0]}=VALUE')
  try:
    return function(**given, **extra)
  except checks.OutOfRange as error:
    raise UserError(f'{where}.{error}') from error
  except ValueError as error:
    raise UserError(f'{where}: {error}') from error


def flatten(config: Any, prefix: str = '') -> dict[str, Any]:
  """Flattens nested dicts to one dict with dotted keys. Empty dicts disappear."""
  if not isinstance(config, (Mapping, ml_collections.ConfigDict)):
    return {prefix: plain(config)}
  flat: dict[str, Any] = {}
  for key, value in config.items():
    flat.update(flatten(value, f'{prefix}.{key}' if prefix else str(key)))
  return flat


def difference(old: Any, new: Any) -> dict[str, tuple[Any, Any]]:
  """Dotted keys whose values differ between two configs, with both values; '(absent)' marks a missing key."""
  old_flat, new_flat = flatten(old), flatten(new)
  keys = sorted(set(old_flat) | set(new_flat))
  pairs = {key: (old_flat.get(key, '(absent)'), new_flat.get(key, '(absent)')) for key in keys}
  return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


BUILDERS = 'genjax.runs.builders'  # whose function `options` knows what the builder of a config takes
STEPS = 2**31 - 1  # more, and the counter of steps, 32 bits, would overflow
PARTS = ('parts.', 'evaluation.parts.')  # beginnings of keys whose entries have names of their own
# Key of configs.common.base -> the smallest number that it takes.
MIN_VALUES = {
  'steps': 0, 'batch_size': 1, 'microbatches': 1, 'log_every': 0, 'evaluate_every': 0, 'evaluate_batches': 0,
  'histograms_every': 0, 'sample_every': 0, 'sample_num': 1, 'checkpoint.every': 0, 'checkpoint.keep': 1,
  'nonfinite.limit': 1, 'profile.start': 0, 'profile.steps': 0, 'lora.rank': 0, 'data.threads': 1
}


def check(config: Config) -> None:
  """Checks everything about a config that needs no builder, before any work starts.

  All numbers must be finite, keys called `dtype` must name a compute dtype, and the keys common to all configs must
  lie in their ranges.

  Raises:
    UserError: a value is invalid; the message names its key.
  """
  flat = flatten(config)
  with checks.under('config'):
    for key, value in flat.items():
      if any(
          isinstance(number, numbers.Real) and not isinstance(number, int) and not math.isfinite(number)
          for number in _numbers(value)):
        raise checks.OutOfRange(f'{key} must be finite, got {value!r}')
      if strange := [entry for entry in _numbers(value) if not isinstance(entry, (str, int, float, type(None)))]:
        raise checks.OutOfRange(
          f'{key} must be text, a number, True, False, None or a list of such, got {strange[0]!r} of type '
          f'{type(strange[0]).__name__}; of numpy numbers take .item()')
      own = key.startswith(PARTS) or key == 'lora.dtype' and value == ''  # '' and names of parts have other rules
      if key.rpartition('.')[2] == 'dtype' and not own:
        checks.dtype({key: value}, key)
    for key, least in MIN_VALUES.items():
      checks.whole(flat, least, key)
    checks.between(flat, ('steps',), at_most=STEPS)
    checks.between(flat, ('watchdog_seconds', 'lora.alpha'), at_least=0)
    checks.rates(flat, 'lora.dropout')
    if flat.get('seed') is not None:
      checks.seed('seed', flat['seed'])


def _numbers(value: Any) -> list[Any]:
  """What stands in nested sequences, and in the dicts in them."""
  items = value.values() if isinstance(value, Mapping) else value
  return [number for item in items for number in _numbers(item)] if isinstance(
    value, (list, tuple, Mapping)) else [value]


def from_plain(tree: Mapping[str, Any]) -> Config:
  """Inverse of `plain`: returns a locked config, with tuples instead of lists."""
  return ml_collections.ConfigDict(_frozen(tree)).lock()


def override(config: Config, assignment: str) -> None:
  """Applies `key.path=value` to a config in place.

  The value must have the type that the config has there or, where the config does not spell the key, the type of the
  option that its builder or a part of it has, see `genjax.options`.

  Raises:
    UserError: no '=', an unknown key (with the nearest ones), or a value of another type.
  """
  path, equals, text = assignment.partition('=')
  known = flatten(config)
  if not equals:
    raise UserError(f'expected key=value, got {assignment!r}; for example sampler.steps=25')
  if path not in known or path.startswith(PARTS):
    # Found when it is needed: what a builder takes is known above this module
    assign(config, {path: text}, lambda: importlib.import_module(BUILDERS).options(config))
    return
  old = known[path]
  try:
    value = text if isinstance(old, str) else json.loads(text.lower() if isinstance(old, bool) else text)
  except (ValueError, RecursionError):  # not JSON, or more digits or brackets than Python parses
    value = text
  if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
    value = float(text)  # of the text: an int may be too large
  if isinstance(old, list) and not isinstance(value, list):  # a sequence without brackets
    value = options_lib.Option(path, tuple).read(text)
  value, old = _frozen(value), _frozen(old)
  if old is not None and type(value) is not type(old):
    raise UserError(f'config key {path} takes {type(old).__name__} (now {old!r}), got {text!r}')
  _put(config, path, value)


def assign(config: Config, texts: Mapping[str, str | bool], known: Callable[[], options_lib.Known]) -> None:
  """Sets keys, also those that a config does not spell, in place.

  Args:
    config: the config.
    texts: key -> value as text, or True or False of a flag without one.
    known: gives the options of the config. It is asked again after each `name`, and each `kind` of a new entry, which
      decide what their section takes.

  Raises:
    UserError: an unknown key, one that the builder computes, or a value of another type.
  """
  found = known()
  for key, text in sorted(texts.items(), key=lambda item: not item[0].endswith(('.name', '.kind'))):
    if key not in found.options and not found.template(key) and isinstance(text, str) and key in flatten(config):
      override(config, f'{key}={text}')
      continue
    option = found.find(key, list(flatten(config)))
    if isinstance(text, bool) and option.kind is not bool:
      raise UserError(f'config key {key} takes {options_lib.type_name(option.kind)}; write --config.{key}=VALUE')
    _put(config, key, option.read(str(text)))
    if key.endswith(('.name', '.kind')):
      found = known()


def spells(config: Config, key: str) -> bool:
  """Whether a config has a key, of a value or of a section."""
  node = config
  for part in key.split('.'):
    part, index, _ = part.partition('[')
    if not isinstance(node, ml_collections.ConfigDict) or part not in node:
      return False
    if index:  # an entry of a sequence
      return True
    node = node[part]
  return True


def _put(config: Config, key: str, value: Any) -> None:
  """Sets a key, and makes the sections that it stands in. A part is its path, or a section with a path in it."""
  *parents, leaf = key.split('.')
  if key.startswith(PARTS):
    place = parents.index('parts')
    above = config if not place else config.get('evaluation') or {}
    parts, rest = above.get('parts') or {}, parents[place + 1:]
    if not rest and isinstance(parts.get(leaf), ml_collections.ConfigDict):
      parents, leaf = [*parents, leaf], 'path'
    elif len(rest) == 1 and isinstance(parts.get(rest[0]), str):
      path = parts[rest[0]]
      with config.unlocked():
        del parts[rest[0]]  # a value of another type cannot take its place
        parts[rest[0]] = ml_collections.ConfigDict({'path': path})
  with config.unlocked():
    node = config
    for parent in parents:
      if not isinstance(node.get(parent), ml_collections.ConfigDict):
        node[parent] = ml_collections.ConfigDict()
      node = node[parent]
    if leaf in node and isinstance(value, dict) != isinstance(node[leaf], ml_collections.ConfigDict):
      del node[leaf]  # a ConfigDict refuses a dict in the place of a number, and the other way round
    try:
      node[leaf] = value
    except ValueError as error:  # a dict whose keys have dots
      raise UserError(f'config key {key}: {error} Write a list of dicts where it takes one') from None


def _frozen(value: Any) -> Any:
  """Converts lists to tuples and configs to dicts, so that dataclasses built from them are hashable."""
  if isinstance(value, (ml_collections.ConfigDict, Mapping)):
    return {key: _frozen(item) for key, item in value.items()}
  return tuple(_frozen(item) for item in value) if isinstance(value, (list, tuple)) else value
