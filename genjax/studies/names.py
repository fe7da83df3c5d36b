"""Names of runs, from what their settings change: 'parameterization=x,guidance=1.5,seed=0'."""

from collections.abc import Iterable, Mapping
import json
import re
from typing import Any

from genjax.runs import atomic

LONGEST = 120  # characters of a name: a folder's may have 255 bytes, and tables show them


def labels(keys: Iterable[str], known: Mapping[str, str]) -> dict[str, str]:
  """Key -> what names call it: its last words, as few as tell it from the others.

  A key keeps the label that it had before, so that names stay when a sweep grows.

  Args:
    keys: dotted keys, in the order in which names have them.
    known: labels of before.
  """
  found = dict(known)
  new = [key for key in dict.fromkeys(keys) if key not in found]
  endings = {key: _endings(key) for key in new}
  for key in new:
    others = {ending for other in new if other != key for ending in endings[other]} | set(found.values())
    others |= {'seed'} - {key}
    choices = (*endings[key], key, f'config.{key}')
    found[key] = next(ending for ending in choices if ending not in others or ending == key not in found.values())
  return found


def _endings(key: str) -> list[str]:
  """'model.depth' -> 'depth', 'model.depth'. A last word 'name' says nothing: that of its section goes first."""
  words = key.removeprefix('arg.').split('.')
  if len(words) > 1 and words[-1] == 'name':
    words = words[:-1]
  return ['.'.join(words[start:]) for start in reversed(range(len(words)))]


def name(setting: Mapping[str, Any], known: Mapping[str, str]) -> str:
  """The name of the run of a setting: a function of the setting and of the labels of its keys.

  Args:
    setting: key -> value.
    known: what `labels` returned.
  """
  text = ','.join(f'{_clean(known[key])}={_clean(shown(setting[key]))}' for key in known if key in setting) or 'base'
  if len(text) <= LONGEST:
    return text
  digest = atomic.checksum(json.dumps(setting, sort_keys=True, default=str).encode())[:8]
  return f'{text[:LONGEST - 9]}-{digest}'


def shown(value: Any) -> str:
  """A value in a name or a table."""
  if value is None or isinstance(value, bool):
    return str(value).lower()
  if isinstance(value, float):
    return f'{value:g}' if float(f'{value:g}') == value else repr(value)
  if isinstance(value, (list, tuple)):
    return 'x'.join(map(shown, value))
  if isinstance(value, Mapping):
    return '+'.join(f'{key}={shown(item)}' for key, item in value.items())
  return str(value)


def _clean(text: str) -> str:
  """A text of characters that every shell and file system leaves alone."""
  return re.sub(r'[^\w.+-]+', '-', text, flags=re.ASCII)
