"""Sets of images that a user names: folders of pictures, weighted mixtures of sets, and the sizes of aspect buckets."""

from collections.abc import Callable, Mapping, Sequence
import os
import pathlib
from typing import Any

import ml_collections
import numpy as np

from genjax import config as config_lib
from genjax.config import Config
from genjax.data import folder, kinds, mixture, pipeline
from genjax.data.images import aspect
from genjax.data.text import documents
from genjax.types import UserError, listed

MULTIPLE = 64  # of the heights and widths that an area gives, as in SDXL
# What a set of a mixture may have otherwise than config.data
OWN = ('train', 'heldout', 'data_dir', 'originals', 'resize', 'crop', 'broken', 'field', 'captions', 'background',
       'label')
Entry = tuple[str, float, Config]  # name of a set, its weight, its config.data


def place(name: str) -> pathlib.Path | None:
  """The folder that config.data.name means; None for the name of a data set.

  Raises:
    UserError: it is a path, and there is no such folder.
  """
  if not name:
    return None
  path = documents.place(name)
  if path is None or path.is_dir():
    return path
  if os.sep in name or name.startswith(('.', '~')):
    what = 'is a file' if path.exists() else 'does not exist'
    raise UserError(f'config.data.name={name} {what}; expected a folder of pictures, or the name of a data set')
  return None


def open_pictures(data: Config, split: str, columns: Sequence[str]) -> pipeline.Source:
  """The pictures of a folder, in their own sizes, with further columns; see `genjax.data.folder.open_folder`.

  Raises:
    UserError: see `open_folder`; or a label is outside of the classes.
  """
  decoding = kinds.Pictures(data.shape[2] if data.shape[2] in (1, 3) else 0, tuple(data.get('background', (255,) * 3)))
  source: Any = folder.open_folder(data.name, split, folder.Options(
    'pictures', tuple(columns), data.get('broken', 'refuse'), data.get('field', 'text'), data.get('captions', 'any'),
    decoding))
  largest = max(source.classes, default=-1)
  if data.num_classes and largest >= data.num_classes:
    named = listed([f'{label} {name}' for label, name in source.classes.items()])
    raise UserError(f'config.data.num_classes is {data.num_classes}, but labels of {data.name} go up to {largest}: '
                    f'{named}; set it to at least {largest + 1}')
  return source


def check_sizes(source: Any, shape: Sequence[int], name: str, beside: int = 1) -> None:
  """Checks before any is decoded that pictures have the size of config.data.shape.

  Args:
    source: pictures of a folder.
    shape: config.data.shape.
    name: config.data.name, for messages.
    beside: parts of this shape that a picture holds side by side.

  Raises:
    UserError: some do not.
  """
  size_N2, wanted = source.index['size'], (shape[0], beside * shape[1])
  wrong_N2 = size_N2[(size_N2 != np.asarray(wanted)).any(axis=1)]
  if len(wrong_N2):
    height, width = wrong_N2[0].tolist()
    needed = f', which takes pictures of {wanted[0]} x {wanted[1]}' if beside > 1 else ''
    raise UserError(
      f'config.data.shape is {tuple(shape)}{needed}, but {len(wrong_N2)} of {len(size_N2)} pictures of {name} have '
      f'other sizes, such as {height} x {width}; resize them by config.data.resize=bilinear and config.data.crop=True')


def classes(config: Config) -> dict[str, Any]:
  """What a run keeps of the classes of a folder: {'classes': [[label, name], ...]}, or nothing.

  Raises:
    UserError: see `genjax.data.listing.read`.
  """
  kept = config_lib.plain(config.assets).get('classes')
  if kept is not None or not config.data.num_classes:
    return {'classes': kept} if kept else {}
  named = [data for _, _, data in entries(config.data)] if config.data.get('mixture') else [config.data]
  names = [data.name for data in named if data.get('label', -1) < 0]
  found: dict[int, str] = {}
  for name in names:
    path = place(name) if name else None
    if path is not None:
      found.update(folder.classes(path, 'pictures'))
  return {'classes': [[label, found[label]] for label in sorted(found)]} if found else {}


def entries(data: Config) -> list[Entry]:
  """The sets of config.data.mixture.

  It is a dict, name -> weight, or a list of dicts with name, weight and whatever of `OWN` differs from config.data.

  Raises:
    UserError: it is neither, or an entry has no name, no weight or an unknown key; or config.data.name is set too.
  """
  given = config_lib.plain(data.mixture)
  if data.get('name'):
    raise UserError(f"config.data.name is {data.name!r}, and config.data.mixture names sets, too; set "
                    "config.data.name=''")
  rows = [dict(name=name, weight=weight) for name, weight in given.items()] if isinstance(given, Mapping) else given
  found: list[Entry] = []
  for row in rows:
    if not isinstance(row, Mapping) or not isinstance(row.get('name'), str) or 'weight' not in row:
      raise UserError('config.data.mixture is a dict of name -> weight, or a list of dicts with name and weight, got '
                      f'{row!r}')
    if unknown := sorted(row.keys() - {'name', 'weight', *OWN}):
      raise UserError(f'config.data.mixture: {row["name"]!r} has {unknown[0]!r}; a set has name, weight and '
                      f'{", ".join(OWN)}.{config_lib.suggestion(unknown[0], OWN)}')
    own = ml_collections.ConfigDict({key: value for key, value in data.items() if key != 'mixture'})
    own.update({key: tuple(value) if isinstance(value, list) else value
                for key, value in row.items() if key != 'weight'})
    taken = [name for name, _, _ in found]
    number = 1 + sum(other == row['name'] or other.startswith(f'{row["name"]} (') for other in taken)
    found.append((row['name'] if number == 1 else f'{row["name"]} ({number})', row['weight'], own))
  mixture.check_weights([weight for _, weight, _ in found])
  return found


def join(data: Config, split: str, opened: Callable[[Config, str], pipeline.Source]) -> mixture.Joined:
  """The sets of a mixture as one source; `opened` gives that of one config.data and split.

  A set whose `heldout` is '' is trained on alone.

  Raises:
    UserError: no set is held out.
  """
  role = 'train' if split == data.train else 'heldout' if split == data.heldout else ''
  parts = {name: (own, own[role] if role else split) for name, _, own in entries(data)}
  if role == 'heldout' and not any(part for _, part in parts.values()):
    raise UserError("config.data.mixture has heldout='' for all sets; leave it out for one, which is then held out")
  return mixture.Joined({name: opened(own, part) for name, (own, part) in parts.items()
                         if part or role != 'heldout'})


def bucket_sizes(data: Config) -> tuple[aspect.Size, ...]:
  """The sizes of config.data.buckets, () for none.

  Raises:
    UserError: they are none, or config.data.shape is none of them; or config.data has what buckets exclude.
  """
  if not (given := config_lib.plain(data.get('buckets', ()))):
    return ()
  sizes = aspect.sizes(given, data.get('bucket_multiple', MULTIPLE))
  if tuple(data.shape[:2]) not in sizes:
    raise UserError(f'config.data.shape {tuple(data.shape)} must have the size of a bucket, which samples get; they '
                    f'are {listed([f"{height} x {width}" for height, width in sizes], 40)}')
  for option, without in (('binarize', 'none'), ('content', 'pixels'), ('mixture', ())):
    if (value := config_lib.plain(data.get(option, without))) and value != without:
      raise UserError(f'config.data.{option}={value!r} does not go with config.data.buckets; leave one of them out')
  return sizes


def check_buckets(data: Config, multiple: int, what: str) -> None:
  """Checks that a network takes the sizes of all buckets.

  Raises:
    UserError: one is no multiple of what the network divides images by.
  """
  for height, width in bucket_sizes(data):
    if height % multiple or width % multiple:
      raise UserError(f'config.data.buckets has {height} x {width}, and {what} needs multiples of {multiple}')
