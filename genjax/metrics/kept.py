"""Rows that a metric needs again: on disk, so that memory holds one part of the samples at a time."""

import tempfile

import numpy as np


class Rows:
  """Rows that come in parts, in a temporary file (in $TMPDIR)."""

  def __init__(self):
    self._count = 0
    self._file = tempfile.TemporaryFile()  # noqa: SIM115, `close` closes it
    self._row: np.ndarray | None = None

  def __len__(self) -> int:
    return self._count

  def add(self, x_N: np.ndarray) -> None:
    """Adds rows, all of one shape and type."""
    x_N = np.ascontiguousarray(x_N)
    if self._row is None:
      self._row = x_N[:0].copy()
    if (x_N.shape[1:], x_N.dtype) != (self._row.shape[1:], self._row.dtype):
      raise ValueError(f'rows are {self._row.dtype} {self._row.shape[1:]}, got {x_N.dtype} {x_N.shape[1:]}')
    self._file.write(x_N.data)
    self._count += len(x_N)

  def rows(self) -> np.ndarray:
    """The rows, which are read from the file when they are indexed."""
    if self._row is None or not self._count:
      return np.zeros(0) if self._row is None else self._row
    self._file.flush()
    return np.memmap(self._file, self._row.dtype, 'r', shape=(self._count, *self._row.shape[1:]))

  def close(self) -> None:
    """Removes the file."""
    self._file.close()


class FirstOfClasses:
  """The first rows of each class among rows that come in parts, as `Rows`.

  Args:
    num_classes: K; rows of other classes are left out.
    limit: how many rows of a class.
  """

  def __init__(self, num_classes: int, limit: int = 1000):
    self._limit = limit
    self._count_K = np.zeros(num_classes, int)
    self._rows = Rows()
    self._labels: list[np.ndarray] = []

  def add(self, x_N: np.ndarray, label_N: np.ndarray) -> None:
    """Adds rows and their classes."""
    label_N = np.asarray(label_N)
    chosen = []
    for label in range(len(self._count_K)):
      found = np.flatnonzero(label_N == label)[:self._limit - self._count_K[label]]
      self._count_K[label] += len(found)
      chosen.append(found)
    take = np.sort(np.concatenate(chosen))
    self._rows.add(np.asarray(x_N)[take])
    self._labels.append(label_N[take])

  def rows(self) -> tuple[np.ndarray, np.ndarray]:
    """The rows, which are read from the file when they are indexed, and their classes."""
    return self._rows.rows(), np.concatenate(self._labels) if self._labels else np.zeros(0, int)

  def close(self) -> None:
    """Removes the file."""
    self._rows.close()
