"""What lies in a folder of one's own files: examples in order, splits, classes, captions. Nothing is decoded here."""

from collections.abc import Mapping, Sequence
import dataclasses
import hashlib
import os
import pathlib
from typing import Any

from genjax.data import captions
from genjax.data.kinds import KINDS, Kind
from genjax.types import UserError, listed

SPLITS = {'train': 'train', 'test': 'test', 'validation': 'validation', 'valid': 'validation', 'val': 'validation'}


@dataclasses.dataclass(frozen=True)
class Listing:
  """The examples of a folder.

  Attributes:
    root: the folder.
    kind: of its files.
    splits: name of a split -> paths of its files in the folder, in order.
    labels: path -> label; empty without classes.
    classes: label -> name of the class; a label that no class has is missing.
    columns: column -> path -> value, see `genjax.data.captions`.
    unlabelled: why there are no labels, for messages.
  """

  root: pathlib.Path
  kind: Kind
  splits: Mapping[str, tuple[str, ...]]
  labels: Mapping[str, int]
  classes: Mapping[int, str]
  columns: captions.Columns
  unlabelled: str = ''


def read(root: pathlib.Path, kind: str = '', field: str = 'text', captioned: bool = True) -> Listing:
  """Lists a folder.

  Hidden files and folders are ignored. Folders called train and test or validation (also valid, val) are splits; all
  other folders are classes. Classes are numbered in the order of their names; if all names are numbers, these are the
  labels, and where two names are one number, as 1 and 01, there are no labels. A column 'label' of metadata.jsonl goes
  before folders. Within a split, files stand in the order of a hash of their paths, so that a slice such as
  'train[:90%]' has files of all classes.

  Args:
    root: the folder.
    kind: one of `KINDS`; '' for what lies there.
    field: see `genjax.data.captions.read`.
    captioned: whether captions are read.

  Raises:
    UserError: no such folder, one inside that cannot be listed, no files or files of several kinds, or captions that
      do not fit, see `genjax.data.captions.read`.
  """
  if not root.is_dir():
    raise UserError(f'{root} is no folder; expected one with pictures, clips or sounds')
  paths = _walk(root)
  chosen = KINDS[kind] if kind else _guessed(root, paths)
  names = _examples(root, paths, chosen)
  if not names:
    endings = sorted({pathlib.PurePosixPath(path).suffix.lower() or 'no ending' for path in paths})
    raise UserError(f'{root} has no {chosen.name}: expected files that end in {", ".join(chosen.endings)}, got '
                    f'{listed(endings) or "nothing"}')
  tables = [path for path in paths if pathlib.PurePosixPath(path).name == captions.METADATA]
  texts = [path for path in paths if path.lower().endswith('.txt')]
  columns = captions.read(root, tables, texts, names, field) if captioned else {}
  if chosen.column in columns:
    raise UserError(f'{root}: a {captions.METADATA} has the field {chosen.column!r}, which is what the {chosen.name} '
                    'themselves become; rename the field')
  tops = {pathlib.PurePosixPath(name).parts[0] if '/' in name else '' for name in names}
  split = 'train' in tops and tops <= SPLITS.keys()
  splits: dict[str, list[str]] = {}
  for name in sorted(names, key=_place):
    splits.setdefault(SPLITS[name.partition('/')[0]] if split else 'train', []).append(name)
  order = [name for name in dict.fromkeys(SPLITS.values()) if name in splits]
  labels, classes, why = _labels(root, names, split, columns.pop('label', {}))
  return Listing(root, chosen, {name: tuple(splits[name]) for name in order}, labels, classes, columns, why)


def _walk(root: pathlib.Path) -> list[str]:
  """All files that are not hidden, as sorted paths with '/'."""
  found, above = [], {}  # folder -> it and those that it was reached through, without links

  def refuse(error: OSError) -> None:
    raise UserError(f'{error.filename} cannot be listed: {error.strerror}; make it readable, or move it away')

  for folder, folders, files in os.walk(root, onerror=refuse, followlinks=True):
    above[folder] = [*above.get(os.path.dirname(folder), ()), os.path.realpath(folder)]
    # A link to a folder that leads to it would list that one's files again and again.
    folders[:] = sorted(name for name in folders if not name.startswith('.')
                        and not _holds(os.path.realpath(os.path.join(folder, name)), above[folder]))
    inside = pathlib.Path(folder).relative_to(root)
    found += [(inside / name).as_posix() for name in files if not name.startswith('.')]
  return sorted(found)


def _holds(folder: str, paths: Sequence[str]) -> bool:
  """Whether one of some paths is a folder or lies in it."""
  return any(os.path.commonpath([folder, path]) == folder for path in paths)


def _guessed(root: pathlib.Path, paths: Sequence[str]) -> Kind:
  """The kind of the files that lie there. Animations count as pictures, which have their endings too."""
  found = {}
  for kind in KINDS.values():
    endings = [ending for ending in kind.endings if kind.name == 'pictures' or ending not in KINDS['pictures'].endings]
    if path := next((path for path in paths if path.lower().endswith(tuple(endings))), ''):
      found[kind.name] = path
  if len(found) != 1:
    told = ', '.join(f'{name} ({path})' for name, path in found.items()) or 'none'
    raise UserError(f'{root} must hold files of one kind among {", ".join(KINDS)}, got {told}')
  return KINDS[next(iter(found))]


def _examples(root: pathlib.Path, paths: Sequence[str], kind: Kind) -> list[str]:
  """The files of a kind, and the folders of frames that are one example."""
  names = [path for path in paths if path.lower().endswith(kind.endings)]
  if not kind.frames:
    return names
  loose = [path for path in paths if path.lower().endswith(kind.frames) and not path.lower().endswith(kind.endings)]
  return sorted({*names, *(path.rpartition('/')[0] for path in loose if '/' in path)})


def _place(name: str) -> tuple[bytes, str]:
  return hashlib.blake2b(name.encode(errors='surrogateescape'), digest_size=8).digest(), name


def _labels(root: pathlib.Path, names: Sequence[str], split: bool,
            told: Mapping[str, Any]) -> tuple[dict[str, int], dict[int, str], str]:
  """Labels of the files, names of the classes, and why there are none."""
  if told:
    values = dict(zip(names, captions.complete('label', told, names, root)))
  else:
    values = {}
    for name in names:
      folders = name.split('/')[1 if split else 0:-1]
      if not folders:
        return {}, {}, f'{name} lies in no class folder'
      values[name] = folders[0]
  whole, why = _numbered(root, values)
  if why:
    return {}, {}, why
  return whole, {whole[name]: str(values[name]) for name in sorted(names, key=lambda name: whole[name])}, ''


def _numbered(root: pathlib.Path, values: Mapping[str, Any]) -> tuple[dict[str, int], str]:
  """Classes as numbers: as they are, or in the order of their names; and why there are none."""
  found = sorted(set(values.values()))
  if all(isinstance(value, str) for value in found):
    numbers = [int(name) for name in found] if all(name.isdecimal() for name in found) else range(len(found))
    known, names = dict(zip(found, numbers)), dict(zip(reversed(numbers), reversed(found)))
    if same := [name for name in found if names[known[name]] != name]:
      return {}, (f'the classes {names[known[same[0]]]!r} and {same[0]!r} are the same number; rename one of them, or '
                  'join them')
    return {name: known[value] for name, value in values.items()}, ''
  if not all(isinstance(value, int) and value >= 0 for value in found):
    raise UserError(f"{root}: column 'label' must hold names, or whole numbers of at least 0, got {found[0]!r}; "
                    f'correct {captions.METADATA}')
  return dict(values), ''
