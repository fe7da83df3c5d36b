"""Image data for all builders: splits of a TFDS data set, checked against the config, with its transforms.

Data named 'random_images' or 'random_latents' is noise in the shape of the config, and 'captioned_shapes' are drawn in
it: see `genjax.data.synthetic`.
"""

from collections.abc import Sequence
import dataclasses
import functools

import jax
import numpy as np

from genjax import checks
from genjax import config as config_lib
from genjax.config import Config
from genjax.data import pipeline, sources, synthetic
from genjax.data.images import resizing
from genjax.experiments import imported, sections
from genjax.options import Section
from genjax.training.experiment import Condition
from genjax.types import UserError

NOISE = {'random_images': synthetic.random_images, 'random_latents': synthetic.random_latents,
         'captioned_shapes': synthetic.captioned_shapes}
NOISE_SPLIT_SIZES = {'train': 2**20, 'heldout': 64}
CONTENTS = {'pixels': np.uint8, 'latents': np.float32}  # contents of the column 'image', and its dtype
BINARIZATIONS = ('none', 'fixed', 'dynamic')


@dataclasses.dataclass(frozen=True)
class Data(sections.Splits):
  """config.data of images.

  Attributes:
    name: of a TFDS data set with the columns image and label, such as 'mnist'; 'random_images', 'random_latents' or
      'captioned_shapes'.
    shape: (H, W, C) of the images.
    num_classes: number of classes; 0 reads no labels.
    content: 'pixels', or 'latents' of an encoder that ran before.
    resize: filter that brings images of other sizes to `shape`, see `genjax.data.images.resizing.Resized`; '' for none.
    crop: whether resizing keeps proportions and cuts off what is outside of `shape`.
    flip: whether half of the training images are mirrored.
    binarize: 'none', 'fixed' (one Bernoulli draw of each image, the same in every epoch) or 'dynamic' (drawn anew
      whenever an image is read).
    threads: batches that are decoded at a time; it changes no batch.
  """

  shape: tuple[int, int, int] = dataclasses.field(kw_only=True)
  num_classes: int = dataclasses.field(kw_only=True)
  content: str = 'pixels'
  resize: str = ''
  crop: bool = False
  flip: bool = False
  binarize: str = 'none'
  threads: int = 1


DATA = Section((Data,))


def check(data: Config) -> None:
  """Checks the numbers of config.data.

  Raises:
    UserError: a number is out of range.
  """
  with checks.under('config.data'):
    given = config_lib.plain(data)
    checks.whole(given, 1, 'shape')
    checks.whole(given, 0, 'num_classes')
    if len(given['shape']) != 3:
      raise checks.OutOfRange(f'shape must be height, width and channels, got {tuple(given["shape"])}')


def batches(config: Config, split: str, shuffle: bool = True, more: Sequence[str] = (),
            mirrored: Sequence[str] = ()) -> pipeline.Pipeline:
  """Batches of 'image' uint8 B H W C (float32 for latents) and, with classes, 'label' int32 B.

  Args:
    config: the whole config; for config.data see `Data`.
    split: TFDS split.
    shuffle: whether to shuffle, and to augment: held-out data is neither.
    more: further columns of the data.
    mirrored: columns of batches that are mirrored with the images.

  Raises:
    UserError: images of another shape than config.data.shape that no filter changes, labels outside the classes, an
      unknown filter or binarization.
  """
  data = config.data
  binarize = data.get('binarize', 'none')
  if binarize not in BINARIZATIONS:
    raise UserError(f'config.data.binarize must be one of {BINARIZATIONS}, got {binarize!r}')
  mirror = functools.partial(flip, also=mirrored)
  transforms: list[pipeline.Transform] = [mirror] if data.get('flip', False) and shuffle else []
  transforms += [bernoulli] if binarize == 'dynamic' else []
  transform = functools.partial(_chain, transforms) if transforms else None

  return pipeline.Pipeline(lambda: open_data(config, split, more), config.batch_size, config.seed, transform, shuffle,
                           threads=data.get('threads', 1))


def open_data(config: Config, split: str, more: Sequence[str] = ()) -> pipeline.Source:
  """The data of `batches`, before it is augmented."""
  imported.check_data(config)
  return open_source(config.data, split, config.seed, more)


def open_source(data: Config, split: str, seed: int, more: Sequence[str] = ()) -> pipeline.Source:
  """The images of a split, and the columns `more`; see `batches`."""
  source: pipeline.Source
  if data.name in NOISE:
    size = config_lib.choose(NOISE_SPLIT_SIZES, split, f'the split of {data.name}')
    source = NOISE[data.name](tuple(data.shape), data.num_classes, size, seed=list(NOISE_SPLIT_SIZES).index(split))
  elif data.name in sources.SOURCES:
    source = _own_source(data, split)
  else:
    columns = ('image', 'label') if data.num_classes else ('image',)
    source = sources.open_tfds(data.name, split, tuple(dict.fromkeys((*columns, *more))), *imported.folders(data))
    if data.num_classes:
      _check_labels(source, data)
    if data.get('resize', ''):
      source = resizing.Resized(source, tuple(data.shape), data.resize, data.get('crop', False))
  first = source.get(np.zeros(1, np.int64))
  if first['image'].shape[1:] != tuple(data.shape):
    raise UserError(
      f'config.data.shape is {tuple(data.shape)}, but images of {data.name} are {first["image"].shape[1:]}; '
      'set it to that, or resize images by config.data.resize=bilinear')
  if data.get('binarize', 'none') != 'fixed':
    return source
  everything = source.get(np.arange(len(source)))
  # Seeded by the name of the split, so that training and held-out images have different draws.
  random = np.random.default_rng([seed, *split.encode()])
  drawn = random.random(everything['image'].shape, np.float32) * 255 < everything['image']
  facts = {**source.fingerprint(), 'binarize': 'fixed', 'binarize_seed': seed}
  return sources.Arrays({**everything, 'image': drawn.astype(np.uint8) * np.uint8(255)}, facts)


def _own_source(data: Config, split: str) -> pipeline.Source:
  """Images of a source of the user's, resized if config.data asks for it."""
  source: pipeline.Source = sources.Named(data.name, data, split)
  needed = ('image', 'label') if data.num_classes else ('image',)
  found = source.get(np.zeros(1, np.int64))
  if lacking := [column for column in needed if column not in found]:
    raise UserError(f'the data source {data.name!r} must give the columns {needed}, and lacks {lacking[0]!r}')
  return resizing.Resized(source, tuple(data.shape), data.resize, data.get('crop', False)) if data.get(
    'resize', '') else source


def _check_labels(source: pipeline.Source, data: Config) -> None:
  """Checks labels in memory; data sets that are decoded on demand are too large to check."""
  if isinstance(source, sources.Arrays):
    least, largest = source.columns['label'].min(), source.columns['label'].max()
    if least < 0 or largest >= data.num_classes:
      raise UserError(
        f'config.data.num_classes is {data.num_classes}, but labels of {data.name} are {least} to {largest}; '
        f'set it to at least {largest + 1}')


def example(config: Config) -> dict[str, jax.ShapeDtypeStruct]:
  """The shapes of one row of a batch, without opening the data."""
  label = {'label': jax.ShapeDtypeStruct((), np.int32)} if config.data.num_classes else {}
  return {'image': jax.ShapeDtypeStruct(tuple(config.data.shape), CONTENTS[content(config)]), **label}


def content(config: Config) -> str:
  """The kind of images: 'pixels' or 'latents'.

  Raises:
    UserError: it is neither.
  """
  name = config.data.get('content', 'pixels')
  config_lib.choose(CONTENTS, name, 'config.data.content')
  return name


def conditions(config: Config) -> dict[str, Condition]:
  """The class label, if the data has classes."""
  return {'label': Condition.label(config.data.num_classes)} if config.data.num_classes else {}


def flip(columns: pipeline.Columns, random: pipeline.RowRandom, also: Sequence[str] = ()) -> pipeline.Columns:
  """Mirrors half of the images, and the columns `also` with them."""
  mirrored_B111 = random.uniform()[:, None, None, None] < 0.5
  return {**columns, **{name: np.where(mirrored_B111, columns[name][:, :, ::-1], columns[name])
                        for name in ('image', *also)}}


def bernoulli(columns: pipeline.Columns, random: pipeline.RowRandom) -> pipeline.Columns:
  """Binarizes pixels: 255 with probability pixel / 255, else 0."""
  image = columns['image']
  return dict(columns, image=((random.uniform(*image.shape[1:]) * 255 < image) * 255).astype(np.uint8))


def _chain(transforms, columns: pipeline.Columns, random: pipeline.RowRandom) -> pipeline.Columns:
  for transform in transforms:
    columns = transform(columns, random)
  return columns
