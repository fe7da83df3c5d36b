"""The data of pictures that are made from pictures: pairs, or two domains without pairs; see
docs/image_translation.md."""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import jax
import ml_collections
import numpy as np

from genjax import checks
from genjax import config as config_lib
from genjax.config import Config
from genjax.data import folder, kinds, sources
from genjax.data.images import decoding, pairs, resizing
from genjax.data.pipeline import Pipeline, Source
from genjax.experiments import condition_kinds, image_sets, images, imported, sections
from genjax.training.experiment import Condition
from genjax.types import UserError

CONDITION = 'image'  # what `genjax sample` is given
Shape = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Data(sections.Splits):
  """config.data of pairs.

  Attributes:
    name: path of a folder, or name of a TFDS data set.
    shape: (H, W, C) of what is drawn.
    pairs: where pairs come from, one of `PAIRS`: 'halves' of one picture, 'folders' of two domains, 'columns' source
      and image of a data set; or the source is made of the picture: its 'edges', or a 'smaller' copy.
    domains: of 'folders': source and target, two folders inside of `name`, or two paths. Either the split is in their
      names, as in trainA and testA, or they hold the splits.
    reverse: whether the right half, the second domain or the column image is the source.
    source_channels: of the source, 1 or 3; 0 for those of `shape`, or 1 of edges.
    counterparts: of a model without pairs: whether rows of the held-out split belong together.
    factor: of 'smaller': by which the sides of the source are smaller.
    deviation: of 'edges': of the Gaussian that smooths pictures before, in pixels.
    resize: filter that brings pictures of other sizes to `shape`; '' for none.
    crop: whether resizing keeps proportions and cuts off what is outside.
    margin: pixels by which training pictures are larger before a part is cut out at random; 30 in pix2pix.
    flip: whether half of the training pictures are mirrored.
    threads: batches that are decoded at a time; it changes no batch.
    broken: of a folder: 'refuse' files that cannot be decoded, or 'skip' them.
    background: of a folder: red, green and blue behind transparent pixels.
  """

  shape: tuple[int, int, int] = dataclasses.field(kw_only=True)
  pairs: str = dataclasses.field(kw_only=True)
  domains: tuple[str, str] = ('A', 'B')
  reverse: bool = False
  source_channels: int = 0
  counterparts: bool = False
  factor: int = 4
  deviation: float = 1.0
  resize: str = ''
  crop: bool = False
  margin: int = 0
  flip: bool = False
  threads: int = 1
  broken: str = 'refuse'
  background: tuple[int, int, int] = (255, 255, 255)

  def __post_init__(self):
    checks.whole(self, 1, 'shape', 'factor')
    checks.whole(self, 0, 'margin', 'background')
    if len(self.background) != 3 or max(self.background) > 255:
      raise checks.OutOfRange(f'background must be red, green and blue from 0 to 255, got {tuple(self.background)}')
    checks.positive(self, 'deviation')
    config_lib.choose(PAIRS, self.pairs, 'config.data.pairs')
    if len(self.shape) != 3 or self.shape[2] not in (1, 3) or self.source_channels not in (0, 1, 3):
      raise checks.OutOfRange('shape must be height, width and 1 or 3 channels, and source_channels 0, 1 or 3, got '
                              f'{tuple(self.shape)} and {self.source_channels}')
    if len(self.domains) != 2 or self.domains[0] == self.domains[1]:
      raise checks.OutOfRange(f'domains must name two folders, source and target, got {self.domains}')
    if self.pairs == 'smaller' and (self.margin or any(side % self.factor for side in self.shape[:2])):
      raise checks.OutOfRange(f'pairs of smaller pictures need sides that factor={self.factor} divides and margin=0, '
                              f'got shape={tuple(self.shape)} and margin={self.margin}')
    if self.margin and not self.resize:
      raise checks.OutOfRange(f'margin={self.margin} enlarges pictures, which needs a filter in resize: bicubic')

  @property
  def source_shape(self) -> Shape:
    """(h, w, c) of a source."""
    height, width, channels = self.shape
    if self.pairs == 'smaller':
      return height // self.factor, width // self.factor, channels
    return height, width, self.source_channels or (1 if self.pairs == 'edges' else channels)

  def shapes(self, margin: int = 0) -> dict[str, Shape]:
    """Column -> shape of a row, with a margin."""
    return {name: (height + margin, width + margin, channels)
            for name, (height, width, channels) in ((pairs.SOURCE, self.source_shape), (pairs.TARGET, self.shape))}


def read(config: Config) -> Data:
  """config.data.

  Raises:
    UserError: an unknown or bad option.
  """
  return config_lib.build(Data, config.data, 'config.data', name=config.data.name)


def batches(config: Config, split: str, together: bool, training: bool) -> Pipeline:
  """Batches of 'source' and 'image', uint8.

  Args:
    config: the whole config.
    split: of the data.
    together: whether rows are pairs.
    training: whether they are shuffled, cut and mirrored at random.
  """
  data = read(config)
  margin = data.margin if training else 0
  change = functools.partial(pairs.augmented, margin=margin, flip=data.flip, together=together)
  return Pipeline(lambda: open_pairs(config, split, together, margin), config.batch_size, config.seed,
                  change if training and (margin or data.flip) else None, training, threads=data.threads)


def open_pairs(config: Config, split: str, together: bool = True, margin: int = 0) -> Source:
  """The examples of a split: pairs, or rows of both domains that do not belong together.

  Raises:
    UserError: pairs that do not match, an empty domain, or pictures of other sizes that no filter changes.
  """
  data = read(config)
  opened = PAIRS[data.pairs](config, data, split, together, margin)
  return pairs.Resized(opened, data.shapes(margin), data.resize, data.crop)


def example(config: Config) -> dict[str, jax.ShapeDtypeStruct]:
  """The shapes of one row of a batch."""
  return {name: jax.ShapeDtypeStruct(shape, np.uint8) for name, shape in read(config).shapes().items()}


def condition(config: Config, column: str = pairs.SOURCE) -> Condition:
  """The picture that another one is drawn from; by default those of the held-out split.

  Args:
    config: of the run.
    column: which side it is of.
  """
  data = read(config)

  @functools.cache
  def heldout() -> Source:
    return open_pairs(config, data.heldout)

  return picture(CONDITION, data.shapes()[column], data.resize, data.crop,
                 lambda row: heldout().get(np.asarray([row % len(heldout())]))[column][0], pairs.SOURCE)


def picture(name: str, shape: Shape, filter: str, crop: bool, default: Callable[[int], np.ndarray], column: str,
            optional: bool = False) -> Condition:
  """A picture as a condition: a file, each of a folder, or pixels.

  Args:
    name: of the condition, for messages.
    shape: (H, W, C) to which it is resized.
    filter: by which; '' for bicubic.
    crop: whether resizing keeps proportions and cuts off what is outside.
    default: row i where the user gives none.
    column: that the objective reads.
    optional: whether it is left out without a value.
  """

  def convert(value: Any) -> np.ndarray:
    pixels = np.asarray(value)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
      raise UserError(f'condition {name!r} takes uint8 pixels H W C with 1 or 3 channels, got {pixels.dtype} of '
                      f'shape {pixels.shape}')
    return pixels if pixels.shape == shape else resizing.resize(pixels, shape, filter or 'bicubic', crop)

  return Condition(
    parse=lambda path: convert(condition_kinds.read_picture(path, shape[2])), default=default,
    describe=f'the path of a picture, or of a folder of pictures, each resized to {shape[0]} x {shape[1]}', path=True,
    row=jax.ShapeDtypeStruct(shape, np.uint8), convert=convert, encode=lambda rows: {column: rows},
    optional=optional, endings=decoding.ENDINGS)


def _pictures(place: Any, split: str, data: Data, beside: int = 1) -> Any:
  """The pictures of a folder, each of which holds so many parts side by side."""
  colour: Any = tuple(data.background)
  decoding_options = kinds.Pictures(0, colour)
  opened = folder.open_folder(place, split, folder.Options('pictures', (), data.broken, decoding=decoding_options))
  if not data.resize:
    image_sets.check_sizes(opened, data.shape, str(place), beside)
  return opened


def _root(data: Data) -> Any:
  root = image_sets.place(data.name)
  if root is None:
    raise UserError(f'config.data.pairs={data.pairs!r} needs a folder in config.data.name, got {data.name!r}')
  return root


def _apart(opened: Source) -> Source:
  """The two sides of pairs, which are not told which belong together."""
  return pairs.Unpaired(pairs.Side(opened, pairs.SOURCE), pairs.Side(opened, pairs.TARGET))


def _halves(config: Config, data: Data, split: str, together: bool, margin: int) -> Source:
  opened = pairs.Halves(_pictures(_root(data), split, data, beside=2), data.reverse)
  return opened if together else _apart(opened)


def _folders(config: Config, data: Data, split: str, together: bool, margin: int) -> Source:
  domains = data.domains[::-1] if data.reverse else data.domains
  sides = [_pictures(*pairs.place(_root(data), domain, split), data) for domain in domains]
  return pairs.matched(*sides) if together else pairs.Unpaired(*sides)


def _columns(config: Config, data: Data, split: str, together: bool, margin: int) -> Source:
  imported.check_data(config)
  names = (pairs.SOURCE, pairs.TARGET)
  opened: Source = sources.open_tfds(data.name, split, names, *imported.folders(config.data))
  if data.reverse:
    source, target = (pairs.Side(opened, name) for name in names[::-1])
    opened = pairs.Joined(source, target)
  return opened if together else _apart(opened)


def _made(config: Config, data: Data, split: str, together: bool, margin: int) -> Source:
  """Pictures of any image data, with sources that are made of them at the size of training."""
  keys = ('name', 'resize', 'crop', 'data_dir', 'originals', 'broken', 'background')
  given = {key: getattr(data, key) for key in keys}
  alone = ml_collections.ConfigDict({**given, 'shape': data.shapes(margin)[pairs.TARGET], 'num_classes': 0})
  images.check(alone)
  opened = images.open_source(alone, split, config.seed)
  if data.pairs == 'edges':
    make, facts = functools.partial(pairs.edges, deviation=data.deviation), {'deviation': data.deviation}
  else:
    make, facts = functools.partial(pairs.smaller, factor=data.factor), {'factor': data.factor}
  made = pairs.Made(opened, make, {'pairs': data.pairs, **facts})
  return made if together else _apart(made)


# Where pairs come from -> (config, its data, split, whether rows are pairs, margin) -> their source.
PAIRS: dict[str, Callable[[Config, Data, str, bool, int], Source]] = {
  'halves': _halves, 'folders': _folders, 'columns': _columns, 'edges': _made, 'smaller': _made}
