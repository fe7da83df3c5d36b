"""What clips and sounds have in common for builders: config.data checked, and the source that it names."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from genjax import checks
from genjax import config as config_lib
from genjax.config import Config
from genjax.data import folder as folder_lib
from genjax.data import pipeline, sources
from genjax.data.kinds import KINDS
from genjax.types import UserError, expanded

NOISE_SPLIT_SIZES = {'train': 2**16, 'heldout': 16}


def read(kind: type, config: Config, cut: Callable[[Any, str], Any]) -> Any:
  """config.data, checked.

  Args:
    kind: dataclass of its options; among them num_classes, threads, start and heldout_start.
    config: the whole config.
    cut: (config.data, start) -> how files are cut, which checks the rest.

  Raises:
    UserError: an unknown key or name, or a number out of range.
  """
  data = config_lib.build(kind, config.data, 'config.data', name=config.data.name)
  with checks.under('config.data'):
    checks.whole(data, 0, 'num_classes')
    checks.whole(data, 1, 'threads')
    if data.heldout_start == 'random':
      raise checks.OutOfRange("heldout_start must be 'first' or 'middle': what is evaluated does not change")
    for start in (data.start, data.heldout_start):
      cut(data, start)
  return data


def open_source(config: Config, data: Any, split: str, files: str, shape: tuple[int, ...], decoding: Any,
                more: Sequence[str], noise: Callable[..., pipeline.Source]) -> pipeline.Source:
  """The clips or sounds of a split, and the columns `more`.

  Args:
    config: the whole config.
    data: config.data, see `read`.
    split: of the data.
    files: what a folder holds, one of `genjax.data.kinds.KINDS`; noise is called 'random_' and this.
    shape: of one example.
    decoding: how files are cut.
    more: further columns.
    noise: (shape, classes, size, seed) -> noise.

  Raises:
    UserError: there is no such data or column, files that are broken or short, examples of another shape, or labels
      outside the classes.
  """
  name, random = data.name, f'random_{files}'
  columns = (*(('label',) if data.num_classes else ()), *more)
  source: Any
  if name == random:
    size = config_lib.choose(NOISE_SPLIT_SIZES, split, f'the split of {random}')
    source = noise(shape, data.num_classes, size, list(NOISE_SPLIT_SIZES).index(split))
  elif name in sources.SOURCES:
    source = sources.Named(name, config.data, split)
  elif name and expanded(name).is_dir():
    options = folder_lib.Options(files, tuple(dict.fromkeys(columns)), data.broken, data.field, decoding=decoding)
    source = folder_lib.open_folder(name, split, options)
    _check_classes(source.classes, data.num_classes, name)
  else:
    raise UserError(f'config.data.name must be a folder of {files}, {random!r} or a data source of your own, got '
                    f'{name!r}, which is none')
  _check_columns(source, {KINDS[files].column: shape}, columns, name)
  return source


def _check_classes(names: Mapping[int, str], num_classes: int, name: str) -> None:
  """Checks that the labels of a folder lie within the classes."""
  if num_classes and names and max(names) >= num_classes:
    raise UserError(f'config.data.num_classes is {num_classes}, but {name} has labels up to {max(names)}; set it to at '
                    f'least {max(names) + 1}')


def _check_columns(source: pipeline.Source, shapes: Mapping[str, tuple[int, ...]], more: Sequence[str],
                   name: str) -> None:
  """Checks the columns of the first example of a source: those of known shapes, and `more` of any shape."""
  found = source.get(np.zeros(1, np.int64)) if len(source) else {}
  for column in (*shapes, *more) if found else ():
    if column not in found:
      raise UserError(f'{name} must give the columns {(*shapes, *more)}, and lacks {column!r}')
    if column in shapes and found[column].shape[1:] != shapes[column]:
      raise UserError(f'config.data asks for a {column} of shape {shapes[column]}, but the first of {name} has '
                      f'{found[column].shape[1:]}; change config.data')
