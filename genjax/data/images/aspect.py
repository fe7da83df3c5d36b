"""Aspect buckets: pictures of all proportions in batches of one shape each (NovelAI 2022; Podell et al. 2023, SDXL)."""

from collections.abc import Iterator, Sequence
import dataclasses
import functools
from typing import Any

import numpy as np

from genjax import checks
from genjax.data import pipeline
from genjax.data.images import resizing
from genjax.data.interleaving import Interleaved
from genjax.data.pipeline import Columns, Pipeline, RowRandom
from genjax.types import UserError

Size = tuple[int, int]  # height and width
WIDEST = 4.0  # largest proportion of the sizes that an area gives, as in SDXL


def sizes(buckets: Sequence[Any], multiple: int) -> tuple[Size, ...]:
  """The sizes that config.data.buckets names, without repetition.

  Args:
    buckets: pairs of height and width, and areas. An area of A pixels stands for all sizes of at most A pixels whose
      heights and widths are multiples of `multiple` and at most `WIDEST` times each other: for each height the largest
      width, and for each width the largest height (NovelAI 2022). SDXL's table of about 1024^2 pixels has these sizes
      and a few smaller ones between them.
    multiple: of areas.

  Raises:
    UserError: there are none, or an entry is neither.
  """
  found: list[Size] = []
  for entry in buckets:
    if isinstance(entry, (tuple, list)):
      if len(entry) != 2:
        raise UserError(f'a bucket is a height and a width, got {tuple(entry)}')
      checks.whole({'buckets': tuple(entry)}, 1, 'buckets')
      found.append((int(entry[0]), int(entry[1])))
    else:
      checks.whole({'buckets': entry}, 1, 'buckets')
      made = _of_area(entry, multiple)
      if not made:
        raise UserError(f'an area of {entry} pixels has no sizes in multiples of {multiple}; set '
                        'config.data.bucket_multiple lower')
      found += made
  if not found:
    raise UserError('config.data.buckets names no sizes')
  return tuple(dict.fromkeys(found))


def _of_area(area: int, multiple: int) -> list[Size]:
  made = set()
  for side in range(multiple, area // multiple + 1, multiple):
    other = area // side // multiple * multiple
    if other and max(side / other, other / side) <= WIDEST:
      made |= {(side, other), (other, side)}  # else wide pictures would have fewer sizes than upright ones
  return sorted(made)


def nearest(size_N2: np.ndarray, buckets: Sequence[Size]) -> np.ndarray:
  """The bucket of each picture, int64 N: the one whose ratio of width to height is nearest, on a logarithmic scale; of
  several, the one whose area is nearest.

  Args:
    size_N2: heights and widths.
    buckets: their sizes.
  """
  logs = lambda size: np.log(np.asarray(size, np.float64))
  picture_N2, bucket_K2 = logs(size_N2), logs(buckets)
  ratio_NK = np.abs((picture_N2[:, 1] - picture_N2[:, 0])[:, None] - (bucket_K2[:, 1] - bucket_K2[:, 0])[None])
  area_NK = np.abs(picture_N2.sum(axis=1)[:, None] - bucket_K2.sum(axis=1)[None])
  return np.lexsort((area_NK, np.round(ratio_NK, 9)), axis=1)[:, 0]


@dataclasses.dataclass
class AspectBuckets(Pipeline):
  """A `Pipeline` of pictures whose batches have one shape each, that of a bucket.

  A picture goes to the bucket with the nearest proportions; there it is resized until it covers the bucket, and its
  middle is cut out. Which bucket a batch is of is a function of (seed, step): the buckets come in turn, evenly, each
  in proportion to its pictures. A bucket has its own epochs, so that all of its pictures come once before one comes
  again, and a bucket with fewer pictures than a batch fills it with several epochs. `epoch` gives one bucket after the
  other.

  The source has the sizes of its pictures in its attribute `index`, as `genjax.data.folder.open_folder` gives.

  Attributes:
    sizes: of the buckets.
    channels: of the images.
    filter: of the resizing.
  """

  sizes: Sequence[Size] = ()
  channels: int = 3
  filter: str = 'bilinear'

  def __post_init__(self):
    super().__post_init__()
    for height, width in self.sizes:
      resizing.check((height, width, self.channels), self.filter)

  @functools.cached_property
  def members(self) -> tuple[np.ndarray, ...]:
    """The pictures of each bucket."""
    source: Any = self.source
    if 'size' not in getattr(source, 'index', {}):
      raise UserError('config.data.buckets needs the sizes of all pictures, which a folder of pictures, packed or not, '
                      f'has, and {type(source).__name__} has not')
    bucket_N = nearest(source.index['size'], self.sizes)
    return tuple(np.flatnonzero(bucket_N == number) for number in range(len(self.sizes)))

  @functools.cached_property
  def _turns(self) -> Interleaved:
    return Interleaved([len(member_N) for member_N in self.members], self.seed)

  def batch(self, step: int, rows: slice | np.ndarray = slice(None)) -> Columns:
    positions_B = self._positions(step)
    bucket, index_B = self._chosen(step)
    return self._sized(bucket, index_B[rows], positions_B[rows])

  def indices(self, positions_B: np.ndarray) -> np.ndarray:
    step_B, row_B = np.divmod(positions_B, self.batch_size)
    chosen = {step: self._chosen(step)[1] for step in np.unique(step_B).tolist()}
    return np.asarray([chosen[step][row] for step, row in zip(step_B.tolist(), row_B.tolist())], np.int64)

  def epoch(self, rows: slice | np.ndarray = slice(None)) -> Iterator[Columns]:
    """Yields every picture once, bucket by bucket; the last batch of each is padded. See `Pipeline.epoch`."""
    size = self.batch_size
    batches = [(bucket, start) for bucket, member_N in enumerate(self.members)
               for start in range(0, len(member_N), size)]

    def read(number: int) -> Columns:
      bucket, start = batches[number]
      place_B = start + np.arange(size)
      member_N = self.members[bucket]
      index_B = member_N[np.minimum(place_B, len(member_N) - 1)]
      columns = self._sized(bucket, index_B[rows], self._positions(number)[rows])
      return dict(columns, mask=(place_B[rows] < len(member_N)).astype(np.float32))

    return self._prefetched(read, 0, len(batches))

  def fingerprint(self) -> dict[str, Any]:
    return {**self.source.fingerprint(), 'buckets': [list(size) for size in self.sizes], 'resize': self.filter,
            'channels': self.channels}

  def describe(self) -> str:
    """The fill of the buckets, as a table."""
    source: Any = self.source
    lines = ['     bucket  pictures   share  batches an epoch  cut off  enlarged']
    total = sum(map(len, self.members))
    for (height, width), member_N in zip(self.sizes, self.members):
      name, count = f'{height} x {width}', len(member_N)
      if not count:
        lines.append(f'{name:>11}  {0:>8}')
        continue
      size_N2 = source.index['size'][member_N]
      scale_N = np.max(np.asarray([height, width]) / size_N2, axis=1)  # until it covers the bucket
      cut = 1 - np.mean(height * width / (size_N2.prod(axis=1) * scale_N**2))
      lines.append(f'{name:>11}  {count:>8}  {count / total:>6.1%}  {count / self.batch_size:>16.2f}  {cut:>7.1%}  '
                   f'{np.mean(scale_N > 1):>8.1%}')
    return '\n'.join(lines)

  def _chosen(self, step: int) -> tuple[int, np.ndarray]:
    """The bucket of a step, and the pictures of its batch."""
    bucket_1, turn_1 = self._turns.find(np.asarray([step]))
    bucket, turn = int(bucket_1[0]), int(turn_1[0])
    place_B = turn * self.batch_size + np.arange(self.batch_size, dtype=np.int64)
    member_N = self.members[bucket]
    if not self.shuffle:
      return bucket, member_N[place_B % len(member_N)]
    return bucket, member_N[pipeline.shuffled(place_B, len(member_N), f'{self.seed} bucket {bucket}')]

  def _sized(self, bucket: int, index_B: np.ndarray, positions_B: np.ndarray) -> Columns:
    random = RowRandom(self.seed, positions_B)
    columns = pipeline.read(self.source, index_B, random)
    shape = (*self.sizes[bucket], self.channels)
    images = [resizing.resize(np.asarray(image), shape, self.filter, crop=True) for image in columns['image']]
    columns = dict(columns, image=np.stack(images) if images else np.zeros((0, *shape), np.uint8))
    return columns if self.transform is None else self.transform(columns, random)
