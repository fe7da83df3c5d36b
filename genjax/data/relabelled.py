"""A source all of whose examples have one label: which of several sets they are of is then what a classifier learns."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from genjax.data.pipeline import Columns, RowRandom, Source, columns_of, read


class Relabelled:
  """The examples of a source with one label, in the place of their own.

  Args:
    source: examples.
    label: of all of them.
  """

  def __init__(self, source: Source, label: int):
    self._source, self._label = source, label
    self.index = dict(getattr(source, 'index', {}))

  def __len__(self) -> int:
    return len(self._source)

  def get(self, indices: np.ndarray) -> Columns:
    return self._labelled(self._source.get(indices), indices)

  def draw(self, indices: np.ndarray, random: RowRandom) -> Columns:
    """As `get`, with what the source draws."""
    return self._labelled(read(self._source, indices, random), indices)

  def read_columns(self, indices: np.ndarray, names: Sequence[str]) -> Columns:
    """See `genjax.data.pipeline.columns_of`."""
    found = columns_of(self._source, indices, [name for name in names if name != 'label'])
    return self._labelled(found, indices) if 'label' in names else found

  def fingerprint(self) -> dict[str, Any]:
    return {**self._source.fingerprint(), 'label': self._label}

  def _labelled(self, columns: Columns, indices: np.ndarray) -> Columns:
    return {**columns, 'label': np.full(len(indices), self._label, np.int32)}
