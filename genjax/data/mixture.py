"""Weighted mixtures of sets: each batch has rows of several sources, in given shares."""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
from typing import Any

import numpy as np

from genjax import checks
from genjax.data import pipeline
from genjax.data.interleaving import Interleaved, whole
from genjax.data.pipeline import Columns, Pipeline, RowRandom, Source
from genjax.types import UserError

BLOCK = 10_000  # positions in which the shares are exact, to a place
SET = 'set'  # in `Joined.index`: the number of the set of each example


class Joined:
  """Several sources, one after the other, as one.

  Columns that not all of them have are left out, except texts, which are '' where there are none.

  Args:
    sources: name -> source.

  Attributes:
    names: of the sources.
    index: facts of the examples that all sources have in their `index`, and `SET`.

  Raises:
    UserError: sources number the same labels by different classes, or have columns of different types.
  """

  def __init__(self, sources: Mapping[str, Source]):
    self.names, self._sources = tuple(sources), list(sources.values())
    self._ends_K = np.cumsum([len(source) for source in self._sources])
    known = [getattr(source, 'index', {}) for source in self._sources]
    shared = [name for name in known[0] if all(name in index for index in known)]
    self.index = {name: np.concatenate([index[name] for index in known]) for name in shared}
    self.index[SET] = np.repeat(np.arange(len(self.names)), [len(source) for source in self._sources])
    self._columns = _shared(sources)
    named = {name: dict(found) for name, source in sources.items() if (found := getattr(source, 'classes', {}))}
    self.classes = {label: name for found in named.values() for label, name in found.items()}
    for name, found in named.items():
      for label, called in found.items():
        if self.classes[label] != called:
          raise UserError(f'a mixture needs one numbering of classes: label {label} is {called!r} in {name} and '
                          f'{self.classes[label]!r} in another set; name the class folders alike, or tell labels as '
                          'numbers in metadata.jsonl')

  def __len__(self) -> int:
    return int(self._ends_K[-1])

  def get(self, indices: np.ndarray) -> Columns:
    return self._read(indices, lambda source, index_B, rows: source.get(index_B))

  def draw(self, indices: np.ndarray, random: RowRandom) -> Columns:
    """As `get`, with what the sources draw."""
    return self._read(indices, lambda source, index_B, rows: pipeline.read(source, index_B, random.some(rows)))

  def read_columns(self, indices: np.ndarray, names: Sequence[str]) -> Columns:
    """See `genjax.data.pipeline.columns_of`."""
    return self._read(indices, lambda source, index_B, rows: pipeline.columns_of(source, index_B, names), names)

  def fingerprint(self) -> dict[str, Any]:
    parts = {name: source.fingerprint() for name, source in zip(self.names, self._sources)}
    return {'mixture': parts, 'examples': len(self)}

  def _read(self, indices: np.ndarray, read: Any, names: Sequence[str] | None = None) -> Columns:
    set_B = np.searchsorted(self._ends_K, indices, side='right')
    found = []
    for number in np.unique(set_B).tolist():
      rows = np.flatnonzero(set_B == number)
      first = int(self._ends_K[number]) - len(self._sources[number])
      found.append((rows, read(self._sources[number], indices[rows] - first, rows)))
    return {name: _merged([(rows, columns[name]) for rows, columns in found if name in columns], len(indices))
            for name, text in self._columns.items() if names is None
            or name in names and (text or any(name in columns for _, columns in found))}


def _shared(sources: Mapping[str, Source]) -> dict[str, bool]:
  """The columns of a joined source, known from the first example of each, and whether they are texts."""
  firsts = {name: source.get(np.zeros(1, np.int64)) for name, source in sources.items()}
  shared: dict[str, bool] = {}
  for column in dict.fromkeys(column for columns in firsts.values() for column in columns):
    kinds = {name: columns[column] for name, columns in firsts.items() if column in columns}
    texts = [isinstance(values[0], str) for values in kinds.values()]
    dtypes = {name: np.asarray(values[0]).dtype.name for name, values in kinds.items()}
    if all(texts):
      shared[column] = True
    elif len(kinds) == len(firsts):
      if any(texts) or len(set(dtypes.values())) > 1:
        raise UserError(f'the sets of a mixture have columns {column!r} of several types, {dtypes}; a batch needs one')
      shared[column] = False
  return shared


def _merged(parts: list[tuple[np.ndarray, np.ndarray]], size: int) -> np.ndarray:
  """A column of rows of several sets."""
  shapes = {part.shape[1:] for _, part in parts}
  if parts and len(shapes) == 1 and not any(part.dtype == object for _, part in parts):
    column = np.empty((size, *shapes.pop()), parts[0][1].dtype)
    for rows, part in parts:
      column[rows] = part
    return column
  column = np.full(size, '', object)  # texts, or arrays of several shapes
  for rows, part in parts:
    for row, value in zip(rows.tolist(), part):
      column[row] = value
  return column


@dataclasses.dataclass
class Mixture(Pipeline):
  """A `Pipeline` of a `Joined` source that takes its sets in given shares.

  Which set a row is of, and which example of it, is a function of (seed, position). Each set has its own epochs: all
  of its examples come once before one comes again. Unshuffled, and in `epoch`, the sets follow one another whole.

  Attributes:
    weights: of the sets, of any sum.
    names: of the sets, for the log.

  Raises:
    UserError: there are no weights, or one is not above 0 or too small.
  """

  weights: Sequence[float] = ()
  names: Sequence[str] = ()

  def __post_init__(self):
    super().__post_init__()
    check_weights(self.weights)
    self._turns = Interleaved(whole(self.weights, BLOCK), self.seed)

  @functools.cached_property
  def _sizes_K(self) -> np.ndarray:
    source: Any = self.source
    if SET not in getattr(source, 'index', {}):
      raise UserError(f'a mixture reads a genjax.data.mixture.Joined, got {type(source).__name__}')
    return np.bincount(source.index[SET], minlength=len(self.weights))

  def indices(self, positions_B: np.ndarray) -> np.ndarray:
    if not self.shuffle:
      return super().indices(positions_B)
    set_B, place_B = self._turns.find(positions_B)
    first_K = np.cumsum([0, *self._sizes_K[:-1]])
    index_B = np.empty_like(positions_B)
    for number in np.unique(set_B).tolist():
      rows = set_B == number
      size = int(self._sizes_K[number])
      index_B[rows] = first_K[number] + pipeline.shuffled(place_B[rows], size, f'{self.seed} set {number}')
    return index_B

  def report(self, step: int) -> dict[str, float]:
    """What the log tells: examples of each set that `step` steps have read, and epochs of it."""
    count_K = self._turns.before(step * self.batch_size)
    names = self.names or [str(number) for number in range(len(self.weights))]
    return {key: value for name, count, size in zip(names, count_K.tolist(), self._sizes_K.tolist())
            for key, value in ((f'data/{name}/examples', count), (f'data/{name}/epochs', count / size))}


def check_weights(weights: Sequence[float]) -> None:
  """Checks the weights of a mixture.

  Raises:
    UserError: there are none, or one is not above 0, or too small to be read once in `BLOCK` examples.
  """
  for weight in weights:
    checks.require('mixture', weight, above=0, meaning='a set that should not be read is left out')
  if not weights:
    raise UserError('a mixture needs at least one set with its weight')
  if 0 in whole(weights, BLOCK):
    raise UserError(f'a mixture takes a set at least once in {BLOCK} examples; the weights {list(weights)} say less '
                    'for one of them: give it more, or leave it out')
