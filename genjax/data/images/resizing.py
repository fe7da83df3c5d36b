"""Resizing of images when they are read."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from genjax.data.pipeline import Columns, RowRandom, Source, columns_of, read
from genjax.types import UserError

FILTERS = {
  'nearest': Image.Resampling.NEAREST, 'bilinear': Image.Resampling.BILINEAR, 'bicubic': Image.Resampling.BICUBIC,
  'lanczos': Image.Resampling.LANCZOS
}
_MODES = {1: 'L', 3: 'RGB'}  # number of channels -> Pillow's name


class Resized:
  """A source that resizes images to one shape.

  It uses Pillow, whose filters avoid aliasing when an image shrinks. Grey images are converted to colour by repeating
  the channel, and colour images to grey by their luma (ITU-R BT.601).

  Args:
    source: examples with a column 'image', uint8 H W C with 1 or 3 channels, of any sizes.
    shape: height, width and channels (1 or 3) of the results.
    filter: one of `FILTERS`.
    crop: True cuts the largest centred part with the aspect ratio of `shape`; False stretches whole images.

  Raises:
    UserError: the filter is unknown or the number of channels is not 1 or 3; or, when reading an example, it has
      another type.
  """

  def __init__(self, source: Source, shape: tuple[int, int, int], filter: str, crop: bool = False):
    check(shape, filter)
    self._source, self._shape, self._filter, self._crop = source, shape, filter, crop
    self.classes = getattr(source, 'classes', {})

  def __len__(self) -> int:
    return len(self._source)

  def get(self, indices: np.ndarray) -> Columns:
    return self._resized(self._source.get(indices))

  def draw(self, indices: np.ndarray, random: RowRandom) -> Columns:
    """As `get`, with what the source draws."""
    return self._resized(read(self._source, indices, random))

  def read_columns(self, indices: np.ndarray, names: Sequence[str]) -> Columns:
    """See `genjax.data.pipeline.columns_of`; images are not resized."""
    return columns_of(self._source, indices, names)

  def fingerprint(self) -> dict[str, Any]:
    return {**self._source.fingerprint(), 'resize': self._filter, 'shape': list(self._shape), 'crop': self._crop}

  def _resized(self, columns: Columns) -> Columns:
    images: Iterable[Any] = columns['image']
    return dict(columns, image=np.stack([resize(np.asarray(image), self._shape, self._filter, self._crop)
                                         for image in images]))


def check(shape: tuple[int, int, int], filter: str) -> None:
  """Checks the arguments of `resize`.

  Raises:
    UserError: the filter is unknown or the number of channels is not 1 or 3.
  """
  if filter not in FILTERS:
    raise UserError(
      f'config.data.resize must be one of {sorted(FILTERS)}, or empty to keep images unchanged, got {filter!r}')
  if shape[2] not in _MODES:
    raise UserError(f'images can be resized to 1 or 3 channels, got config.data.shape {shape}')


def resize(image_HWC: np.ndarray, shape: tuple[int, int, int], filter: str, crop: bool = False) -> np.ndarray:
  """One image, uint8 H W C with 1 or 3 channels, at another size; the arguments are those of `Resized`."""
  if image_HWC.dtype != np.uint8 or image_HWC.ndim != 3 or image_HWC.shape[2] not in _MODES:
    raise UserError(
      f'only images uint8 H W C with 1 or 3 channels can be resized, got {image_HWC.dtype} {image_HWC.shape}; '
      "set config.data.resize=''")
  height, width, channels = shape
  picture = Image.fromarray(image_HWC[..., 0] if image_HWC.shape[2] == 1 else image_HWC).convert(_MODES[channels])
  box = middle(picture.size, width / height) if crop else None
  return np.asarray(picture.resize((width, height), FILTERS[filter], box)).reshape(shape)


def middle(size: tuple[int, int], proportion: float) -> tuple[float, float, float, float]:
  """Left, top, right and bottom in pixels of the largest centred part with the aspect ratio `proportion`."""
  width, height = size
  part = min(width, height * proportion), min(height, width / proportion)
  left, top = (width - part[0]) / 2, (height - part[1]) / 2
  return left, top, left + part[0], top + part[1]
