"""The rows of `genjax reproduce`. A module here with a tuple ROWS is found by itself; its TITLE heads them on the page
of results."""

import functools
import importlib
import pkgutil

from genjax.studies.baselines import Row


@functools.cache
def families() -> dict[str, tuple[Row, ...]]:
  """Title -> rows of a module."""
  names = sorted(module.name for module in pkgutil.iter_modules(__path__))
  modules = {name: importlib.import_module(f'{__name__}.{name}') for name in names}
  return {getattr(module, 'TITLE', name.capitalize()): tuple(module.ROWS) for name, module in modules.items()}


@functools.cache
def table() -> dict[str, Row]:
  """Name -> row, cheapest first; those that need an accelerator last."""
  found = [row for rows in families().values() for row in rows]
  names = [row.name for row in found]
  if twice := {name for name in names if names.count(name) > 1}:
    raise ValueError(f'rows have one name: {sorted(twice)}')
  cost = lambda row: (row.minutes is None, row.minutes or row.accelerator_minutes or 0)
  return {row.name: row for row in sorted(found, key=cost)}
