"""Some classes of a data set alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from genjax.data.pipeline import Columns, RowRandom, Source, columns_of, read
from genjax.types import UserError, listed

_CHUNK = 4096  # examples whose labels are read at a time


class Selected:
  """The examples of a source with some labels, in their order; labels stay as they are.

  Args:
    source: examples with a column 'label'.
    classes: labels, or names of classes of a source that has names for them (a folder of pictures).
    labelled: whether the column 'label' is kept.

  Raises:
    UserError: the source has no such class, or no example of them.
  """

  def __init__(self, source: Source, classes: Sequence[int | str], labelled: bool = True):
    self.classes = dict(getattr(source, 'classes', {}))
    self.labels = labels_of(classes, self.classes)
    self._source, self._labelled = source, labelled
    label_N = all_labels(source)
    self._row_N = np.flatnonzero(np.isin(label_N, self.labels))
    if not len(self._row_N):
      raise UserError(f'config.data.classes={tuple(classes)} names classes of which the data has no example; its '
                      f'labels are {listed([str(label) for label in np.unique(label_N)])}')
    self.index = {name: values[self._row_N] for name, values in getattr(source, 'index', {}).items()}

  def __len__(self) -> int:
    return len(self._row_N)

  def get(self, indices: np.ndarray) -> Columns:
    return self._kept(self._source.get(self._row_N[indices]))

  def draw(self, indices: np.ndarray, random: RowRandom) -> Columns:
    """As `get`, with what the source draws."""
    return self._kept(read(self._source, self._row_N[indices], random))

  def read_columns(self, indices: np.ndarray, names: Sequence[str]) -> Columns:
    """See `genjax.data.pipeline.columns_of`."""
    return columns_of(self._source, self._row_N[indices], names)

  def fingerprint(self) -> dict[str, Any]:
    return {**self._source.fingerprint(), 'classes': list(self.labels), 'examples': len(self)}

  def _kept(self, columns: Columns) -> Columns:
    return columns if self._labelled else {name: value for name, value in columns.items() if name != 'label'}


def all_labels(source: Source) -> np.ndarray:
  """The labels of all examples, without decoding pictures where the source allows that."""
  parts = [columns_of(source, np.arange(start, min(start + _CHUNK, len(source))), ('label',))['label']
           for start in range(0, len(source), _CHUNK)]
  return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def labels_of(classes: Sequence[int | str], names: Mapping[int, str]) -> tuple[int, ...]:
  """The labels that classes stand for: numbers as they are, names by the table.

  Raises:
    UserError: an unknown name.
  """
  known = {name: label for label, name in names.items()}
  found = []
  for entry in classes:
    if isinstance(entry, str) and entry not in known:
      have = f'its classes are {listed(list(known))}' if known else 'its classes have no names; give numbers'
      raise UserError(f'config.data.classes names {entry!r}, which the data does not have: {have}')
    found.append(known[entry] if isinstance(entry, str) else int(entry))
  return tuple(sorted(set(found)))
