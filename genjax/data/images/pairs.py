"""Pairs of pictures, one of which a network makes of the other: 'source' and 'image' of each example.

They lie side by side in one picture, or in two folders under equal names, or the source is made of the image: its
edges, or a smaller copy. Unpaired examples are drawn from two folders.
"""

from collections.abc import Callable, Mapping, Sequence
import pathlib
import re
from typing import Any

import numpy as np
from skimage import feature

from genjax.data.images import resizing
from genjax.data.pipeline import Columns, RowRandom, Source, read
from genjax.types import UserError, listed

SOURCE, TARGET = 'source', 'image'
Shape = tuple[int, int, int]
_LISTED = 8  # names in a message


class Halves:
  """Pictures that hold a pair side by side.

  Args:
    source: pictures of any sizes, whose attribute `index` has these.
    right: whether the source is the right half.

  Raises:
    UserError: a picture has an odd width.
  """

  def __init__(self, source: Any, right: bool = False):
    odd_N = np.flatnonzero(np.asarray(source.index['size'])[:, 1] % 2)
    if len(odd_N):
      names = source.names()
      raise UserError(f'{len(odd_N)} of {len(source)} pictures cannot hold two of equal size side by side, because '
                      f'their width is odd: {listed([names[row] for row in odd_N[:_LISTED]])}; cut them, or set '
                      'config.data.pairs')
    self._source, self._right = source, right

  def __len__(self) -> int:
    return len(self._source)

  def get(self, indices: np.ndarray) -> Columns:
    whole = self._source.get(indices)['image']
    halves = _column([image[:, :image.shape[1] // 2] for image in whole]), _column(
      [image[:, image.shape[1] // 2:] for image in whole])
    return {SOURCE: halves[self._right], TARGET: halves[not self._right]}

  def fingerprint(self) -> dict[str, Any]:
    return {**self._source.fingerprint(), 'pairs': 'halves', 'source': 'right' if self._right else 'left'}


class Joined:
  """Pairs of the examples of two sources, whose column 'image' is taken.

  Args:
    source, target: both sides.
    row_N: row of `target` that belongs to each row of `source`; None for the same.
  """

  def __init__(self, source: Source, target: Source, row_N: np.ndarray | None = None):
    self._source, self._target = source, target
    self._row_N = np.arange(len(source)) if row_N is None else row_N

  def __len__(self) -> int:
    return len(self._source)

  def get(self, indices: np.ndarray) -> Columns:
    return {SOURCE: self._source.get(indices)['image'], TARGET: self._target.get(self._row_N[indices])['image']}

  def fingerprint(self) -> dict[str, Any]:
    return _both(self._source, self._target, pairs='names', examples=len(self))


class Unpaired:
  """Examples of two sources that do not belong together: a row of the one with a row of the other, drawn at random.

  There are as many as the longer one has.

  Args:
    source, target: whose column 'image' is taken.
  """

  def __init__(self, source: Source, target: Source):
    self._source, self._target = source, target

  def __len__(self) -> int:
    return max(len(self._source), len(self._target)) if len(self._source) and len(self._target) else 0

  def get(self, indices: np.ndarray) -> Columns:
    return self._rows(indices, indices)

  def draw(self, indices: np.ndarray, random: RowRandom) -> Columns:
    """As `get`, with targets drawn at random."""
    return self._rows(indices, random.apart(TARGET).integers(0, len(self._target)))

  def fingerprint(self) -> dict[str, Any]:
    return _both(self._source, self._target, pairs='none', examples=len(self))

  def _rows(self, source_B: np.ndarray, target_B: np.ndarray) -> Columns:
    return {SOURCE: self._source.get(source_B % len(self._source))['image'],
            TARGET: self._target.get(target_B % len(self._target))['image']}


class Side:
  """One column of a source of pairs, as 'image'."""

  def __init__(self, pairs: Source, column: str):
    self._pairs, self._column = pairs, column

  def __len__(self) -> int:
    return len(self._pairs)

  def get(self, indices: np.ndarray) -> Columns:
    return {'image': self._pairs.get(indices)[self._column]}

  def fingerprint(self) -> dict[str, Any]:
    return {**self._pairs.fingerprint(), 'column': self._column}


class Made:
  """Pictures with sources that are made of them.

  Args:
    source: pictures.
    make: image uint8 H W C -> source uint8.
    facts: what the fingerprint says of that.
  """

  def __init__(self, source: Source, make: Callable[[np.ndarray], np.ndarray], facts: Mapping[str, Any]):
    self._source, self._make, self._facts = source, make, dict(facts)

  def __len__(self) -> int:
    return len(self._source)

  def get(self, indices: np.ndarray) -> Columns:
    images = self._source.get(indices)['image']
    return {SOURCE: np.stack([self._make(image) for image in images]), TARGET: images}

  def fingerprint(self) -> dict[str, Any]:
    return {**self._source.fingerprint(), **self._facts}


class Resized:
  """Pairs at given shapes.

  Args:
    pairs: of any sizes.
    shapes: column -> (H, W, C).
    filter: one of `genjax.data.images.resizing.FILTERS`; '' for pictures that have these sizes. Grey becomes colour,
      and colour grey, without one.
    crop: see `genjax.data.images.resizing.Resized`.

  Raises:
    UserError: there is no such filter; or, when an example is read, it has another size and there is no filter.
  """

  def __init__(self, pairs: Source, shapes: Mapping[str, Shape], filter: str, crop: bool):
    for shape in shapes.values() if filter else ():
      resizing.check(shape, filter)
    self._pairs, self._shapes, self._filter, self._crop = pairs, dict(shapes), filter, crop

  def __len__(self) -> int:
    return len(self._pairs)

  def get(self, indices: np.ndarray) -> Columns:
    return self._sized(self._pairs.get(indices))

  def draw(self, indices: np.ndarray, random: RowRandom) -> Columns:
    """As `get`, with what the pairs draw."""
    return self._sized(read(self._pairs, indices, random))

  def fingerprint(self) -> dict[str, Any]:
    return {**self._pairs.fingerprint(), 'resize': self._filter, 'crop': self._crop,
            'shapes': {name: list(shape) for name, shape in self._shapes.items()}}

  def _sized(self, columns: Columns) -> Columns:
    return {**columns, **{name: np.stack([self._one(name, image) for image in columns[name]])
                          for name in self._shapes}}

  def _one(self, name: str, image_HWC: np.ndarray) -> np.ndarray:
    shape = self._shapes[name]
    if image_HWC.shape == shape:
      return image_HWC
    if image_HWC.shape[:2] == shape[:2]:
      return resizing.resize(image_HWC, shape, 'nearest')
    if not self._filter:
      raise UserError(f'pictures {name!r} must be {shape}, height, width and channels, got {image_HWC.shape}; resize '
                      'them by config.data.resize=bicubic, or change config.data.shape or channels')
    return resizing.resize(image_HWC, shape, self._filter, self._crop)


def matched(source: Any, target: Any) -> Joined:
  """Pairs of two folders by the names of their files, whatever their endings.

  Args:
    source, target: from `genjax.data.folder.open_folder`.

  Raises:
    UserError: a picture has no counterpart, or two have one name.
  """
  places = [_places(side) for side in (source, target)]
  alone = [[name for name in one if name not in other] for one, other in (places, places[::-1])]
  if alone[0] or alone[1]:
    told = ' and '.join(f'{len(names)} of the {side} pictures, such as {listed(names[:_LISTED])}'
                        for side, names in zip(('source', 'target'), alone) if names)
    raise UserError(f'pairs are pictures of equal names in both folders, and these have no counterpart: {told}. Add '
                    'or remove files, or train without pairs: config.objective.name=cycle')
  order = [places[1][name] for name in places[0]]
  return Joined(source, target, np.asarray(order, np.int64))


def _places(side: Any) -> dict[str, int]:
  """Name without its ending -> row, in the order of the rows."""
  found: dict[str, int] = {}
  for row, path in enumerate(side.names()):
    name = pathlib.PurePosixPath(path).with_suffix('').as_posix()
    if name in found:
      raise UserError(f'two pictures are called {name!r} in one folder, with other endings; rename one of them')
    found[name] = row
  return found


def place(root: pathlib.Path, domain: str, split: str) -> tuple[pathlib.Path, str]:
  """The folder of a domain, and its split in there.

  Either the split is in the name, as in trainA and testA of the published sets of CycleGAN; or the folder of the domain
  holds the splits.

  Raises:
    UserError: there is neither folder.
  """
  match = re.match(r'\w+', split)
  base = match[0] if match else split
  if (named := root / f'{base}{domain}').is_dir():
    return named, f'train{split[len(base):]}'
  if (root / domain).is_dir():
    return root / domain, split
  raise UserError(f'{root} must hold a folder {base}{domain}, or {domain} with the split {base!r}; it has neither. '
                  'config.data.domains names both domains')


def edges(image_HWC: np.ndarray, deviation: float = 1.0) -> np.ndarray:
  """Edges (Canny 1986), black on white, uint8 H W 1.

  Args:
    image_HWC: uint8 picture, grey or colour.
    deviation: in pixels, of the Gaussian that smooths it before.
  """
  grey_HW = resizing.resize(image_HWC, (*image_HWC.shape[:2], 1), 'nearest')[..., 0]
  return np.where(feature.canny(grey_HW / 255.0, sigma=deviation), 0, 255).astype(np.uint8)[..., None]


def smaller(image_HWC: np.ndarray, factor: int) -> np.ndarray:
  """A picture with sides divided by `factor`, by Pillow's bicubic filter, which avoids aliasing."""
  height, width, channels = image_HWC.shape
  return resizing.resize(image_HWC, (height // factor, width // factor, channels), 'bicubic')


def enlarged(image_NHWC: np.ndarray, factor: int, filter: str = 'bicubic') -> np.ndarray:
  """Pictures with sides times `factor`."""
  height, width, channels = image_NHWC.shape[1:]
  return np.stack([resizing.resize(image, (height * factor, width * factor, channels), filter)
                   for image in image_NHWC])


def augmented(columns: Columns, random: RowRandom, margin: int = 0, flip: bool = False,
              together: bool = True) -> Columns:
  """Random crops, and half of the pictures mirrored.

  Args:
    columns: 'source' and 'image'; with a margin both are larger by so many pixels than what is cut out.
    random: numbers of the rows.
    margin: pixels.
    flip: whether half is mirrored.
    together: whether both sides of a row are cut and mirrored alike: those of pairs.
  """
  found = dict(columns)
  for name in (SOURCE, TARGET):
    number_B3 = random.apart('pair' if together else name).uniform(3)
    offset_B2 = (number_B3[:, :2] * (margin + 1)).astype(int)
    height, width = (side - margin for side in columns[name].shape[1:3])
    cut = np.stack([image[top:top + height, left:left + width]
                    for image, (top, left) in zip(columns[name], offset_B2.tolist())])
    mirrored_B111 = (number_B3[:, 2] < 0.5)[:, None, None, None] & flip
    found[name] = np.where(mirrored_B111, cut[:, :, ::-1], cut)
  return found


def _column(images: Sequence[np.ndarray]) -> np.ndarray:
  """Pictures of any sizes as a column."""
  column = np.empty(len(images), object)
  for row, image in enumerate(images):
    column[row] = image
  return column


def _both(source: Source, target: Source, **facts: Any) -> dict[str, Any]:
  return {SOURCE: source.fingerprint(), TARGET: target.fingerprint(), **facts}
