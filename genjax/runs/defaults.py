"""What keys of a config stand for where it lacks them, as the configs of runs from before these keys do.

A key is added with the value that leaves everything as it was before. So a run that lacks the key had that value.
"""

from collections.abc import Sequence
import importlib
from typing import Any

import ml_collections

from genjax import config as config_lib
from genjax.config import Config

COMMON = 'genjax.configs.common'  # what configs have in common
# Tables of `COMMON` with defaults of what builders take -> the section that they are of.
TABLES = {'IMAGES': 'data', 'SAMPLING': 'sampler', 'TOKENS': 'sampler', 'IMAGE_EVALUATION': 'evaluation'}
NEEDED = ('experiment', 'steps', 'batch_size')  # they have no default


def known() -> dict[str, Any]:
  """Dotted key -> default."""
  common: Any = importlib.import_module(COMMON)
  tables = {f'{section}.{key}': config_lib.plain(value) for name, section in TABLES.items()
            for key, value in getattr(common, name).items()}
  base = config_lib.flatten(common.base(steps=0, batch_size=1))
  return {key: value for key, value in {**tables, **base}.items() if key not in NEEDED}


def fill(config: Config) -> None:
  """Adds the keys that every config has to one that lacks them."""
  with config.unlocked():
    _fill(config, importlib.import_module(COMMON).base(steps=0, batch_size=1))


def _fill(config: Any, base: Any) -> None:
  for key, value in base.items():
    if key not in config:
      config[key] = value
    elif isinstance(value, ml_collections.ConfigDict) and isinstance(config[key], ml_collections.ConfigDict):
      _fill(config[key], value)


def differences(old: Any, new: Any, ignored: Sequence[str] = ()) -> dict[str, tuple[Any, Any]]:
  """Dotted keys in which two configs differ, with both values; a missing key has its default, or is '(absent)'.

  Args:
    old, new: configs, or plain dicts.
    ignored: beginnings of keys that may differ.
  """
  absent, defaults = '(absent)', known()
  pairs = {}
  for key, values in config_lib.difference(old, new).items():
    was, now = (defaults.get(key, absent) if value == absent else value for value in values)
    if was != now and not key.startswith(tuple(ignored)):
      pairs[key] = values
  return pairs
