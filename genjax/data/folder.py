"""A folder of one's own pictures, clips or sounds as a source, with labels, captions and further columns.

The folder holds the files themselves, or what `genjax data pack` made of them; both give the same examples.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import hashlib
import pathlib
import sys
from typing import Any

import numpy as np

from genjax import distributed
from genjax.data import captions, checking, listing, packed
from genjax.data import splits as splits_lib
from genjax.data.kinds import BROKEN, KINDS, Kind
from genjax.data.pipeline import Columns, RowRandom, Source
from genjax.types import UserError, expanded

POLICIES = ('refuse', 'skip')
CAPTIONS = ('any', 'none')
_SAID: set[tuple[str, str]] = set()


@dataclasses.dataclass(frozen=True)
class Options:
  """How a folder is read.

  Attributes:
    kind: 'pictures', 'clips' or 'sounds'; '' for what lies there.
    columns: columns to read beside the files themselves, such as 'label' and 'text'; None for all that there are.
    broken: what a file that cannot be decoded does: 'refuse' lists all of them, 'skip' leaves them out.
    field: the field of metadata.jsonl that is the caption.
    captions: 'any', or 'none' to ignore captions.
    decoding: how files are decoded, an object of `Kind.options`; None for its defaults.

  Raises:
    UserError: an unknown name.
  """

  kind: str = ''
  columns: tuple[str, ...] | None = None
  broken: str = 'refuse'
  field: str = 'text'
  captions: str = 'any'
  decoding: Any = None

  def __post_init__(self):
    for name, known in (('kind', ('', *KINDS)), ('broken', POLICIES), ('captions', CAPTIONS)):
      if (value := getattr(self, name)) not in known:
        raise UserError(f'config.data.{name} must be one of {known}, got {value!r}')


class Files:
  """The files of a folder that can be decoded, as a source of their paths, with labels, captions and other columns.

  Attributes:
    root: the folder.
    kind: of its files.
    names: paths in it, in order.
    splits: name of a split -> number of its files.
    classes: label -> name.
    values: column -> its values, one a file.
    index: name -> array with one entry a file, see `Kind.check`.
    lacking: column that does not exist -> why.
    broken: path -> why it cannot be decoded, of the files that are left out.
    checksum: of names, contents and columns of all.

  Raises:
    UserError: see `genjax.data.listing.read`; or files are broken, and that is refused.
  """

  def __init__(self, root: pathlib.Path, options: Options):
    found = listing.read(root, options.kind, options.field, options.captions == 'any')
    everything = [name for names in found.splits.values() for name in names]
    with distributed.first_then_others(f'checking {root}'):
      checked = checking.check(root, everything, found.kind)
    self.broken = {name: checked[name].broken for name in everything if checked[name].broken}
    _report(root, self.broken, len(everything), found.kind, options.broken)
    good = {split: [name for name in names if name not in self.broken] for split, names in found.splits.items()}
    self.root, self.kind, self.classes = root, found.kind, dict(found.classes)
    self.names = [name for names in good.values() for name in names]
    self.splits = {split: len(names) for split, names in good.items()}
    self.lacking = {'label': found.unlabelled} if found.unlabelled else {}
    columns: dict[str, Mapping[str, Any]] = {**found.columns, **({'label': found.labels} if found.labels else {})}
    self.values = {}
    for column, told in columns.items():
      try:
        self.values[column] = captions.complete(column, told, self.names, root)
      except UserError as error:
        self.lacking[column] = str(error).removeprefix(f'{root}: ')
    self.index = {fact: np.asarray([checked[name].facts[fact] for name in self.names], np.int64)
                  for fact in (checked[self.names[0]].facts if self.names else ())}
    digest = hashlib.sha256()
    for row, name in enumerate(self.names):
      told = [self.values[column][row] for column in sorted(self.values)]
      digest.update(repr((name, checked[name].digest, told)).encode(errors='surrogateescape'))
    self.checksum = digest.hexdigest()[:16]

  def __len__(self) -> int:
    return len(self.names)

  def get(self, indices: np.ndarray) -> Columns:
    media = np.empty(len(indices), object)
    media[:] = [self.root / self.names[index] for index in indices]
    rows = {name: [values[index] for index in indices] for name, values in self.values.items()}
    return {self.kind.column: media, **{name: _array(values) for name, values in rows.items()}}


class Decoded:
  """A source that decodes files when they are read.

  Args:
    source: of paths or contents in the column of `kind`, and of other columns.
    kind: of the files.
    decoding: an object of `kind.options`.
    index: name -> array with one entry an example, see `Kind.check`.
    classes: label -> name.
    facts: for the fingerprint.

  Attributes:
    index, classes: as given.
  """

  def __init__(self, source: Any, kind: Kind, decoding: Any, index: Mapping[str, np.ndarray],
               classes: Mapping[int, str], facts: Mapping[str, Any]):
    self._source, self._kind, self._decoding, self._facts = source, kind, decoding, dict(facts)
    self.index, self.classes = dict(index), dict(classes)

  def __len__(self) -> int:
    return len(self._source)

  def get(self, indices: np.ndarray) -> Columns:
    return self._read(indices, [None] * len(indices), None)

  def draw(self, indices: np.ndarray, random: RowRandom) -> Columns:
    """As `get`, with parts of files chosen at random where `decoding.start` asks for that, and one of several texts."""
    drawn = getattr(self._decoding, 'start', '') == 'random'
    return self._read(indices, random.uniform().tolist() if drawn else [None] * len(indices), random)

  def read_columns(self, indices: np.ndarray, names: Sequence[str]) -> Columns:
    """Columns of examples, without decoding their files."""
    found = _one_text(self._source.get(indices), None)
    return {name: found[name] for name in names if name in found and name != self._kind.column}

  def names(self) -> list[str]:
    """Paths of the files in their folder, one an example."""
    return self._source.names()

  def fingerprint(self) -> dict[str, Any]:
    return {**self._facts, **{name: list(value) if isinstance(value, tuple) else value
                              for name, value in dataclasses.asdict(self._decoding).items()}, 'examples': len(self)}

  def _read(self, indices: np.ndarray, draws: Sequence[float | None], random: RowRandom | None) -> Columns:
    columns = self._source.get(indices)
    media = columns.pop(self._kind.column)
    columns = _one_text(columns, random)
    values = [self._decode(item, draw) for item, draw in zip(media, draws, strict=True)]
    return {self._kind.column: _stacked(values), **columns}

  def _decode(self, media: Any, draw: float | None) -> np.ndarray:
    try:
      return self._kind.decode(media, self._decoding, draw)
    except (*BROKEN, OSError) as error:
      name = f'{media}: ' if isinstance(media, pathlib.Path) and str(media) not in str(error) else ''
      raise UserError(f'{name}{error}. It is damaged or gone since the {self._kind.name} were checked; restore it'
                      ) from error


class _Rows:
  """Some rows of a source, with some of its columns, and with facts of each row as further columns."""

  def __init__(self, source: Any, row_N: np.ndarray, names: Sequence[str], known: Mapping[str, np.ndarray]):
    self._source, self._row_N, self._names, self._known = source, row_N, names, known

  def __len__(self) -> int:
    return len(self._row_N)

  def get(self, indices: np.ndarray) -> Columns:
    row_B = self._row_N[indices]
    columns = self._source.get(row_B)
    return {name: self._known[name][row_B].astype(np.float32) if name in self._known else columns[name]
            for name in self._names}

  def names(self) -> list[str]:
    if isinstance(self._source, Files):
      return [self._source.names[row] for row in self._row_N]
    return [str(name) for name in self._source.get(self._row_N)['name']]


def open_folder(path: str | pathlib.Path, split: str = 'train', options: Options | None = None) -> Source:
  """The examples of a split of a folder, decoded when they are read.

  Columns: 'image' uint8 H W C, 'clip' uint8 T H W C or 'sound' float32 S; 'label' int32, where classes are told by
  folders or metadata; 'text', where there are captions; whatever else metadata.jsonl tells; if asked for, facts such as
  'size', float32 (height, width). Values of several shapes come as an object array.

  Args:
    path: a folder of files, see `genjax.data.listing.read`, or one that `genjax data pack` wrote.
    split: see `genjax.data.splits`.
    options: how it is read.

  Returns:
    A source. Its attribute `index` has facts of each example, such as 'size' (H, W), and `classes` the names of labels.

  Raises:
    UserError: broken or short files, captions that do not fit, a missing split or column.
  """
  options = options or Options()
  root = expanded(path)
  if packed.is_packed(root):
    reader = packed.Reader(root, '+'.join(packed.read_schema(root)['splits']))
    return _opened(root, split, options, _facts_of(root, reader, options), reader)
  files = Files(root, options)
  facts = dict(kind=files.kind.name, checksum=files.checksum, splits=files.splits, classes=files.classes,
               columns=tuple(files.values), index=files.index, lacking=files.lacking, broken=len(files.broken))
  return _opened(root, split, options, facts, files)


def classes(path: str | pathlib.Path, kind: str = '') -> dict[int, str]:
  """Label -> name of the class, found without decoding anything; {} without classes.

  Raises:
    UserError: see `genjax.data.listing.read`.
  """
  root = expanded(path)
  if packed.is_packed(root):
    return {int(label): name for label, name in packed.read_schema(root)['key'].get('classes', {}).items()}
  return dict(listing.read(root, kind).classes)


def _facts_of(root: pathlib.Path, reader: packed.Reader, options: Options) -> dict[str, Any]:
  """What a packed folder tells of itself."""
  key = reader.schema['key']
  if key.get('kind') not in KINDS or options.kind not in ('', key['kind']):
    raise UserError(f'{root} holds packed {key.get("kind", "data of another kind")}, and '
                    f'{options.kind or ", ".join(KINDS)} are asked for; name another folder in config.data.name')
  column = KINDS[key['kind']].column
  return dict(kind=key['kind'], checksum=key['checksum'], splits=reader.schema['splits'],
              classes={int(label): name for label, name in key['classes'].items()}, index=reader.index,
              columns=tuple(name for name in reader.names if name not in (column, 'name')), lacking=key['lacking'],
              broken=key['broken'])


def _opened(root: pathlib.Path, split: str, options: Options, facts: Mapping[str, Any], source: Any) -> Decoded:
  kind = KINDS[facts['kind']]
  wanted = facts['columns'] if options.columns is None else options.columns
  for column in wanted:
    if column not in facts['columns'] and (column in facts['lacking'] or column not in facts['index']):
      why = facts['lacking'].get(column, f'it has {", ".join(facts["columns"]) or "none"} beside the {kind.name}')
      raise UserError(f'{root} has no column {column!r}: {why}. {_REMEDIES.get(column, _REMEDY)}')
  row_N = splits_lib.select(str(root), split, facts['splits'])
  decoding = kind.options() if options.decoding is None else options.decoding
  row_N = _long_enough(root, row_N, facts, kind, decoding, source)
  told = {'data': kind.name, 'checksum': facts['checksum'], 'split': split, 'columns': sorted(wanted),
          'broken': facts['broken']}
  known = {name: facts['index'][name] for name in wanted if name in facts['index'] and name not in facts['columns']}
  return Decoded(_Rows(source, row_N, (kind.column, *wanted), known), kind, decoding,
                 {name: values[row_N] for name, values in facts['index'].items()}, facts['classes'], told)


_REMEDY = 'Tell it for every file in metadata.jsonl'
_REMEDIES = {
  'label': 'Put the files into one folder a class, tell a label in metadata.jsonl, or set config.data.num_classes=0',
  'text': 'Write captions into metadata.jsonl (config.data.field names the field) or into a .txt beside each file'
}


def _long_enough(root: pathlib.Path, row_N: np.ndarray, facts: Mapping[str, Any], kind: Kind, decoding: Any,
                 source: Any) -> np.ndarray:
  """The rows whose files are as long as what is cut from them."""
  if kind.fits is None:
    return row_N
  fits_N = np.asarray([kind.fits({name: values[row] for name, values in facts['index'].items()}, decoding)
                       for row in row_N])
  if fits_N.all():
    return row_N
  if isinstance(source, Files):
    told = [source.names[row] for row in row_N[~fits_N]]
  else:
    told = list(source.get(row_N[~fits_N][:100]).get('name', ()))
  if decoding.short != 'skip':
    raise UserError(f'{root}: {int((~fits_N).sum())} of {len(row_N)} {kind.name} are shorter than what is cut from '
                    f'them:\n  ' + '\n  '.join(told) + "\nask for less, or set short to 'skip' or to what fills "
                    'them up')
  if not fits_N.any():
    raise UserError(f'{root}: all {len(row_N)} {kind.name} are shorter than what is cut from them; ask for less')
  return row_N[fits_N]


def _report(root: pathlib.Path, broken: Mapping[str, str], total: int, kind: Kind, policy: str) -> None:
  """Refuses broken files, or says that they are left out."""
  if not broken:
    return
  lines = '\n'.join(f'  {root / name}: {why}' for name, why in broken.items())
  said = f'{root}: {len(broken)} of {total} {kind.name} cannot be decoded'
  if policy == 'refuse' or len(broken) == total:
    remedy = ', or leave them out: config.data.broken=skip (genjax data pack --broken=skip)'
    raise UserError(f'{said}:\n{lines}\nRepair or remove them{remedy if len(broken) < total else ""}')
  if distributed.is_first() and (said, lines) not in _SAID:  # several splits of a folder say it once
    _SAID.add((said, lines))
    print(f'{said} and are left out:\n{lines}', file=sys.stderr, flush=True)


def _one_text(columns: Columns, random: RowRandom | None) -> Columns:
  """The columns, with one text in the place of each list of texts: one that is drawn, or without `random` the first."""
  found = dict(columns)
  for name, values in columns.items():
    if values.dtype == object and len(values) and captions.are_texts(values[0]):
      draws = [0.0] * len(values) if random is None else random.apart(name).uniform().tolist()
      found[name] = _stacked([texts[int(draw * len(texts))] for texts, draw in zip(values, draws, strict=True)])
  return found


def _array(values: list[Any]) -> np.ndarray:
  first = values[0] if values else 0
  if captions.are_texts(first):
    column = np.empty(len(values), object)
    for row, texts in enumerate(values):  # numpy would take lists of one length for a further axis
      column[row] = texts
    return column
  if isinstance(first, int):
    return np.asarray(values, np.int32 if all(-2**31 <= value < 2**31 for value in values) else np.int64)
  if isinstance(first, float):
    return np.asarray(values, np.float32)
  return _stacked(values if isinstance(first, str) else [np.asarray(value, np.float32) for value in values])


def _stacked(values: list[Any]) -> np.ndarray:
  """One array; of values of several shapes, and of texts, an object array."""
  if values and isinstance(values[0], np.ndarray) and len({value.shape for value in values}) == 1:
    return np.stack(values)
  column = np.empty(len(values), object)
  column[:] = values
  return column
