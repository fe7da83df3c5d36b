"""What SDXL is told of each picture: its original size, what was cut off, and the size that it is shown in."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from genjax.data.images.aspect import Size, nearest
from genjax.data.images.resizing import middle
from genjax.data.pipeline import Columns, RowRandom, Source, columns_of, read

# Each of two numbers in pixels, float32, the vertical one first (Podell et al. 2023, section 2.2). A condition of kind
# 'numbers' with these columns has the order of the published models.
COLUMNS = ('original_size', 'crop_offset', 'target_size')


class Sized:
  """Pictures with further columns of `COLUMNS`, as they will be once they are resized.

  Args:
    source: pictures in their own sizes, which its attribute `index` has.
    columns: which are added.
    targets: sizes (height, width) that pictures are resized to, each to the one with the nearest proportions; () for
      pictures that stay as they are.
    crop: whether the middle is cut out, or the whole is stretched.
  """

  def __init__(self, source: Source, columns: Sequence[str], targets: Sequence[Size], crop: bool):
    self._source, self._columns = source, tuple(columns)
    self.index, self.classes = getattr(source, 'index', {}), getattr(source, 'classes', {})
    size_N2 = np.asarray(self.index['size'], np.float64)
    target_N2 = np.asarray(targets, np.float64)[nearest(size_N2, targets)] if targets else size_N2
    offset_N2 = np.zeros_like(size_N2)
    if crop and targets:
      offset_N2 = np.asarray([_offset(size, target) for size, target in zip(size_N2, target_N2)])
    self._facts = {'original_size': size_N2, 'crop_offset': offset_N2, 'target_size': target_N2}

  def __len__(self) -> int:
    return len(self._source)

  def get(self, indices: np.ndarray) -> Columns:
    return {**self._source.get(indices), **self._told(indices)}

  def draw(self, indices: np.ndarray, random: RowRandom) -> Columns:
    """As `get`, with what the source draws."""
    return {**read(self._source, indices, random), **self._told(indices)}

  def read_columns(self, indices: np.ndarray, names: Sequence[str]) -> Columns:
    """See `genjax.data.pipeline.columns_of`."""
    own = {name: value for name, value in self._told(indices).items() if name in names}
    return {**columns_of(self._source, indices, [name for name in names if name not in own]), **own}

  def fingerprint(self) -> dict[str, Any]:
    return {**self._source.fingerprint(), 'sizes': list(self._columns)}

  def _told(self, indices: np.ndarray) -> Columns:
    return {name: self._facts[name][indices].astype(np.float32) for name in self._columns}


def _offset(size_2: np.ndarray, target_2: np.ndarray) -> tuple[float, float]:
  """Pixels, of the picture after resizing, that are cut off above and on the left."""
  height, width = size_2
  left, top, _, bottom = middle((width, height), target_2[1] / target_2[0])
  scale = target_2[0] / (bottom - top)
  return round(top * scale), round(left * scale)
