"""Image data for all builders: splits of a TFDS data set or of a folder of pictures, mixtures of such, with transforms.

Data named 'random_images' or 'random_latents' is noise in the shape of the config, and 'captioned_shapes' are drawn in
it: see `genjax.data.synthetic`. 'scenes' are drawn, too: see `genjax.data.scenes`. 'stacked_mnist' is made of MNIST:
see `genjax.data.images.stacked`.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from genjax import checks
from genjax import config as config_lib
from genjax.config import Config
from genjax.data import mixture as mixture_lib
from genjax.data import packed, pipeline, relabelled, selection, sources, synthetic
from genjax.data.images import aspect, resizing, sizes, stacked
from genjax.data.scenes import drawing
from genjax.experiments import image_sets, imported, sections
from genjax.options import Section
from genjax.training.experiment import Condition
from genjax.types import UserError, expanded

NOISE = {'random_images': synthetic.random_images, 'random_latents': synthetic.random_latents,
         'captioned_shapes': synthetic.captioned_shapes}
NOISE_SPLIT_SIZES = {'train': 2**20, 'heldout': 64}
SCENES = 'scenes'
SCENE_SPLIT_SIZES = {'train': 2**20, 'heldout': 1000}
CONTENTS = {'pixels': np.uint8, 'latents': np.float32}  # contents of the column 'image', and its dtype
BINARIZATIONS = ('none', 'fixed', 'dynamic')


@dataclasses.dataclass(frozen=True)
class Data(sections.Splits):
  """config.data of images.

  Attributes:
    name: of a TFDS data set with the columns image and label, such as 'mnist'; path of a folder of pictures, packed or
      not, see docs/own_data.md; 'random_images', 'random_latents', 'captioned_shapes', 'scenes' or 'stacked_mnist'.
    shape: (H, W, C) of the images.
    num_classes: number of classes; 0 reads no labels.
    classes: labels, or names of class folders, whose examples alone are trained and evaluated on; () for all. Labels
      stay as they are.
    label: what all pictures of the set have for a label, in the place of their own; -1 for their own.
    content: 'pixels', or 'latents' of an encoder that ran before.
    resize: filter that brings images of other sizes to `shape`, see `genjax.data.images.resizing.Resized`; '' for none.
    crop: whether resizing keeps proportions and cuts off what is outside of `shape`.
    flip: whether half of the training images are mirrored.
    binarize: 'none', 'fixed' (one Bernoulli draw of each image, the same in every epoch) or 'dynamic' (drawn anew
      whenever an image is read).
    threads: batches that are decoded at a time; it changes no batch.
    mixture: sets in place of `name`: {name: weight, ...}, or a list of dicts with name, weight and what of these
      options is the set's own.
    buckets: sizes (height, width), or areas in pixels, for models that take several shapes: pictures of all proportions
      are resized to the nearest size, and each batch has one; see `genjax.data.images.aspect`.
    bucket_multiple: of the heights and widths that an area stands for.
    broken: of a folder: 'refuse' files that cannot be decoded, or 'skip' them.
    background: of a folder: red, green and blue behind transparent pixels.
    field: of a folder: the field of metadata.jsonl that is the caption.
    captions: of a folder: 'any', or 'none' to ignore captions.
  """

  shape: tuple[int, int, int] = dataclasses.field(kw_only=True)
  num_classes: int = dataclasses.field(kw_only=True)
  classes: tuple = ()
  label: int = -1
  content: str = 'pixels'
  resize: str = ''
  crop: bool = False
  flip: bool = False
  binarize: str = 'none'
  threads: int = 1
  mixture: Mapping[str, float] | tuple = ()
  buckets: tuple = ()
  bucket_multiple: int = image_sets.MULTIPLE
  broken: str = 'refuse'
  background: tuple[int, int, int] = (255, 255, 255)
  field: str = 'text'
  captions: str = 'any'


DATA = Section((Data,))


def check(data: Config, buckets: bool = False) -> None:
  """Checks the numbers of config.data.

  Args:
    data: config.data.
    buckets: whether the model takes batches of several shapes.

  Raises:
    UserError: a number is out of range, or there are buckets and the model takes one shape.
  """
  with checks.under('config.data'):
    given = config_lib.plain(data)
    checks.whole(given, 1, 'shape')
    checks.whole(given, 0, 'num_classes')
    if len(given['shape']) != 3:
      raise checks.OutOfRange(f'shape must be height, width and channels, got {tuple(given["shape"])}')
    checks.whole(given, 1, 'bucket_multiple')
    checks.whole(given, 0, 'background')
    colour = given.get('background', (0, 0, 0))
    if len(colour) != 3 or max(colour) > 255:
      raise checks.OutOfRange(f'background must be red, green and blue from 0 to 255, got {tuple(colour)}')
  if given.get('buckets') and not buckets:
    raise UserError('config.data.buckets gives batches of several shapes, which models of diffusion take and this one '
                    'does not; use config.data.resize and config.data.crop')
  image_sets.bucket_sizes(data)


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

  how: Any = dict(open=lambda: open_data(config, split, more), batch_size=config.batch_size, seed=config.seed,
                  transform=transform, shuffle=shuffle, threads=data.get('threads', 1))
  if sizes := image_sets.bucket_sizes(data):
    if mirrored:
      raise UserError(f'config.data.buckets gives images several shapes, and the columns {tuple(mirrored)} of '
                      'conditions have one; leave one of both out')
    return aspect.AspectBuckets(**how, sizes=sizes, channels=data.shape[2], filter=data.get('resize', '') or 'bilinear')
  if data.get('mixture'):
    names, weights, _ = zip(*image_sets.entries(data), strict=True)
    return mixture_lib.Mixture(**how, weights=weights, names=names)
  return pipeline.Pipeline(**how)


def open_data(config: Config, split: str, more: Sequence[str] = ()) -> pipeline.Source:
  """The data of `batches`, before it is augmented."""
  if config.data.get('mixture'):
    return image_sets.join(config.data, split, lambda data, part: open_source(data, part, config.seed, more))
  imported.check_data(config)
  return open_source(config.data, split, config.seed, more)


def open_source(data: Config, split: str, seed: int, more: Sequence[str] = ()) -> pipeline.Source:
  """The images of a split, and the columns `more`; see `batches`."""
  if (label := data.get('label', -1)) >= 0:
    if label >= data.num_classes:
      raise UserError(f'config.data.label is {label}, and config.data.num_classes is {data.num_classes}: labels are '
                      'below it')
    alone = config_lib.from_plain({**config_lib.plain(data), 'label': -1, 'num_classes': 0})
    return relabelled.Relabelled(open_source(alone, split, seed, [name for name in more if name != 'label']), label)
  if not (chosen := config_lib.plain(data.get('classes', ()))):
    return _open_source(data, split, seed, more)
  if not isinstance(chosen, list) or any(not isinstance(entry, int | str) for entry in chosen):
    raise UserError(f'config.data.classes must be a list of labels or of names, such as (3,) or ("good",), got '
                    f'{data.classes!r}')
  return selection.Selected(_open_source(data, split, seed, tuple(dict.fromkeys((*more, 'label')))), chosen,
                            bool(data.num_classes) or 'label' in more)


def _open_source(data: Config, split: str, seed: int, more: Sequence[str]) -> pipeline.Source:
  """The images of all classes."""
  source: pipeline.Source
  columns = ('image', 'label') if data.num_classes else ('image',)
  wanted = tuple(dict.fromkeys((*columns, *more)))
  if data.name in NOISE:
    size = config_lib.choose(NOISE_SPLIT_SIZES, split, f'the split of {data.name}')
    source = NOISE[data.name](tuple(data.shape), data.num_classes, size, seed=list(NOISE_SPLIT_SIZES).index(split))
  elif data.name == SCENES:
    size = config_lib.choose(SCENE_SPLIT_SIZES, split, f'the split of {data.name}')
    source = drawing.Scenes(tuple(data.shape), size, list(SCENE_SPLIT_SIZES).index(split), split != 'train')
  elif data.name == stacked.NAME:
    source = stacked.open_split(split, *imported.folders(data), labelled='label' in wanted)
  elif data.name in sources.SOURCES:
    source = _own_source(data, split)
  elif image_sets.place(data.name) is not None:
    told = [column for column in wanted if column in sizes.COLUMNS]
    source = image_sets.open_pictures(data, split, [column for column in wanted[1:] if column not in told])
    if told:
      resized = bool(data.get('resize', '')) or bool(data.get('buckets'))
      targets = image_sets.bucket_sizes(data) or ((data.shape[0], data.shape[1]),)
      crop = bool(data.get('crop', False) or data.get('buckets'))
      source = sizes.Sized(source, told, targets if resized else (), crop)
    if data.get('buckets'):
      return source
    if not data.get('resize', ''):
      image_sets.check_sizes(source, data.shape, data.name)
    source = _resized(source, data)
  else:
    source = sources.open_tfds(data.name, split, wanted, *imported.folders(data))
    if data.num_classes:
      _check_labels(source, data)
    source = _resized(source, data)
  first = source.get(np.zeros(1, np.int64))
  if data.get('buckets'):
    return source
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
  return _resized(source, data)


def _resized(source: pipeline.Source, data: Config) -> pipeline.Source:
  """Images at the size of config.data.shape, if config.data.resize names a filter."""
  if not data.get('resize', ''):
    return source
  return resizing.Resized(source, tuple(data.shape), data.resize, data.get('crop', False))


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


def shapes(config: Config) -> dict[str, tuple[tuple[int, ...], ...]]:
  """The shapes that rows of batches have beside those of `example`: those of buckets."""
  sizes = image_sets.bucket_sizes(config.data)
  return {'image': tuple((*size, config.data.shape[2]) for size in sizes)} if sizes else {}


def assets(config: Config) -> dict[str, Any]:
  """What a run keeps of its data: the names of the classes of a folder; see `image_sets.classes`."""
  if content(config) == 'latents' and not packed.is_packed(expanded(config.data.name)):  # such a run may lack its data
    kept = config_lib.plain(config.assets).get('classes')
    return {'classes': kept} if kept else {}
  return image_sets.classes(config)


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
