"""Kinds of conditions, except texts, clips and sounds: what each reads, and how it enters the network."""

from collections.abc import Mapping
import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np

from genjax import checks
from genjax import config as config_lib
from genjax.data.images import decoding, resizing
from genjax.data.pipeline import Columns
from genjax.experiments import parts
from genjax.experiments.condition_interface import Common, Made, Scope
from genjax.objectives import codecs
from genjax.training.experiment import Condition
from genjax.types import Array, Params, UserError, expanded

SCALE = 1000.0  # numbers reach the network as 0 .. 1000, as times do
NO_NUMBER = -SCALE  # stands for the absence of a number
NO_COLOUR = 128  # of all pixels: stands for the absence of a picture


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classes(Common):
  """A class label; the network has a table of vectors for them, which are added to the embedded time.

  Attributes:
    column: of the data.
    num_classes: number of classes; 0 for config.data.num_classes.
  """

  column: str = 'label'
  num_classes: int = 0

  def __post_init__(self):
    super().__post_init__()
    checks.whole(self, 0, 'num_classes')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture(Common):
  """A picture, joined to the channels of what is denoised. It is resized, and mirrored, as the images are.

  Attributes:
    column: of the data, with uint8 pixels.
    part: an autoencoder of config.parts, whose latents are joined; '' joins the pixels.
    channels: of the picture, 1 or 3.
  """

  column: str
  part: str = ''
  channels: int = 3

  def __post_init__(self):
    super().__post_init__()
    if self.channels not in (1, 3):
      raise checks.OutOfRange(f'channels must be 1 or 3, got {self.channels!r}')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mask(Common):
  """A mask, joined to the channels of what is denoised as 0 or 1: a grey picture, white above 127.

  Attributes:
    column: of the data, with uint8 pixels.
  """

  column: str = 'mask'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Numbers(Common):
  """Numbers, such as a size, a rate or the time of day. The network embeds each by Fourier features.

  Attributes:
    column: of the data: of one number or of several; or the names of several columns.
    count: how many numbers they are in all.
    low: a usual smallest value; the network reads (value - low) / (high - low) * 1000.
    high: a usual largest value.
    absent: the numbers that stand for none; () for one that is far from the usual range.
  """

  column: str | tuple[str, ...]
  count: int = 0
  low: float = 0.0
  high: float = SCALE
  absent: tuple[float, ...] = ()

  def __post_init__(self):
    super().__post_init__()
    checks.whole(self, 0, 'count')
    if not self.low < self.high:
      raise checks.OutOfRange(f'high must be above low, got low={self.low} and high={self.high}')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vector(Common):
  """A vector, such as an embedding; the network projects it and adds it to the embedded time.

  Attributes:
    column: of the data.
    width: numbers of the vector.
  """

  column: str
  width: int

  def __post_init__(self):
    super().__post_init__()
    checks.whole(self, 1, 'width')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokens(Common):
  """Vectors that the network attends to, such as those of a text encoder that ran before; zeros stand for none.

  Attributes:
    column: of the data, with a row of `length` vectors.
    width: numbers of each vector.
    length: vectors of a row.
  """

  column: str
  width: int
  length: int

  def __post_init__(self):
    super().__post_init__()
    checks.whole(self, 1, 'width', 'length')


def classes(scope: Scope, options: Classes) -> Made:
  """See `Classes`."""
  count = options.num_classes or scope.config.data.get('num_classes', 0)
  if not count:
    raise UserError(f'{scope.where} is of classes, and how many there are is not known: set {scope.where}.num_classes '
                    'or config.data.num_classes')
  label = Condition.label(count, scope.name)

  def take(columns: Columns) -> np.ndarray:
    found = np.asarray(columns[options.column])
    if found.dtype.kind not in 'iu' or found.ndim != 1:
      raise UserError(f'{scope.where} reads the column {options.column!r}, which must hold whole numbers, the classes, '
                      f'got {found[0]!r}')
    if found.min(initial=0) < 0 or found.max(initial=0) >= count:  # `count` itself stands for no class
      raise UserError(f'{scope.where} has {count} classes, and the column {options.column!r} of the data has values '
                      f'from {found.min()} to {found.max()}; set {scope.where}.num_classes to at least '
                      f'{found.max() + 1}')
    return found.astype(np.int32)

  return Made(
    reads=(options.column,), take=take,
    encode=lambda rows: {'label': rows}, columns={'label': jax.ShapeDtypeStruct((), np.int32)},
    null={'label': np.asarray(count, np.int32)}, give=lambda frozen, columns: {'label': columns['label']},
    parse=label.parse, describe=label.describe, row=jax.ShapeDtypeStruct((), np.int32), numbered=count,
    network={'num_classes': count})


def picture(scope: Scope, options: Picture) -> Made:
  """See `Picture`."""
  column, part, encoder = scope.column('pixels'), None, None
  shape = (*scope.shape[:2], options.channels)
  if options.part:
    part = parts.open(scope.config, options.part, 'autoencoder')
    encoder = part.functions
    shape = encoder.shape
    if tuple(encoder.latent[:2]) != tuple(scope.shape[:2]):
      raise UserError(f'{scope.where}.part={options.part!r} makes latents of {encoder.latent[:2]} from pictures of '
                      f'{encoder.shape[:2]}, which cannot be joined to what is denoised, of {scope.shape[:2]}')

  codec = codecs.latents(options.part, encoder) if encoder else codecs.pixels(column)

  def give(frozen: Params, columns: Mapping[str, Array]) -> Mapping[str, Any]:
    seen = {encoder.column: columns[column]} if encoder else columns
    return {'image': codec.encode(frozen, seen, None)}

  channels = encoder.latent[-1] if encoder else options.channels
  return _pixels(scope, options.column, column, tuple(shape), NO_COLOUR, give, channels, filter_of(scope), part)


def mask(scope: Scope, options: Mask) -> Made:
  """See `Mask`."""
  column = scope.column('pixels')
  return _pixels(scope, options.column, column, (*scope.shape[:2], 1), 0,
                 lambda frozen, columns: {'image': (columns[column] > 127).astype(np.float32)}, 1, 'nearest', None)


def _pixels(scope: Scope, source: str, column: str, shape: tuple[int, int, int], absent: int, give: Any, channels: int,
            how: str, part: parts.Part | None) -> Made:
  """A condition of uint8 pixels.

  Args:
    scope, give, part: see `Made`.
    source: column of the data.
    column: of batches.
    shape: of a row.
    absent: value of all pixels where there is none.
    channels: that it joins to the input.
    how: filter of resizing.
  """
  crop = bool(scope.config.data.get('crop', False))

  def convert(value: Any) -> np.ndarray:
    pixels = np.asarray(value)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
      raise UserError(f'condition {scope.name!r} takes uint8 pixels H W C with 1 or 3 channels, got {pixels.dtype} of '
                      f'shape {pixels.shape}')
    return pixels if pixels.shape == shape else resizing.resize(pixels, shape, how, crop)

  return Made(
    reads=(source,), take=lambda columns: np.stack([convert(pixels) for pixels in columns[source]]),
    encode=lambda rows: {column: rows}, columns={column: jax.ShapeDtypeStruct(shape, np.uint8)},
    null={column: np.full(shape, absent, np.uint8)}, give=give,
    parse=lambda path: convert(read_picture(path, shape[2])), convert=convert, path=True,
    describe=f'the path of a picture, which is resized to {shape[0]} x {shape[1]}',
    row=jax.ShapeDtypeStruct(shape, np.uint8), network={'image_channels': channels}, mirrored=(column,), part=part,
    facts={'shape': list(shape), 'filter': how, 'crop': crop})


def numbers(scope: Scope, options: Numbers) -> Made:
  """See `Numbers`."""
  column = scope.column('numbers')
  names = (options.column,) if isinstance(options.column, str) else options.column
  count = options.count or len(names)
  scale = SCALE / (options.high - options.low)

  def take(columns: Columns) -> np.ndarray:
    rows = []
    for name in names:
      try:
        row_BN = np.asarray(list(columns[name]), np.float32).reshape(len(columns[name]), -1)
      except (TypeError, ValueError):  # texts, or lists of several lengths
        row_BN = np.full((1, 1), np.nan, np.float32)
      if not np.isfinite(row_BN).all():
        shown = ', '.join(repr(value) for value in list(columns[name])[:3])
        raise UserError(f'{scope.where} reads the column {name!r}, which must hold finite numbers, as many in each '
                        f'row, got {shown}; correct the data, or name another column in {scope.where}.column')
      rows.append(row_BN)
    found = np.concatenate(rows, axis=1)
    if found.shape[1] != count:
      raise UserError(f'{scope.where}.count is {count}, and the columns {list(names)} hold {found.shape[1]} numbers a '
                      'row')
    return found

  if len(options.absent) not in (0, count):
    raise UserError(f'{scope.where}.absent must be {count} numbers or (), got {options.absent}')

  def encode(rows: np.ndarray) -> Columns:
    return {column: ((rows - np.float32(options.low)) * np.float32(scale)).astype(np.float32)}

  none = encode(np.asarray(options.absent, np.float32))[column] if options.absent else np.full(count, NO_NUMBER,
                                                                                              np.float32)
  return Made(
    reads=tuple(names), take=take, encode=encode,
    columns={column: jax.ShapeDtypeStruct((count,), np.float32)}, null={column: none},
    give=lambda frozen, columns: {'numbers': columns[column]}, parse=lambda text: _listed(scope.name, text, count),
    convert=lambda value: _checked(scope.name, value, count),
    describe='a number' if count == 1 else f'{count} numbers, {", ".join(names) if len(names) == count else "a,b,..."}',
    row=jax.ShapeDtypeStruct((count,), np.float32), network={'numbers': count},
    facts={'low': options.low, 'high': options.high})


def vector(scope: Scope, options: Vector) -> Made:
  """See `Vector`."""
  column, width = scope.column('vector'), options.width

  def parse(path: str) -> np.ndarray:
    try:
      return _checked(scope.name, np.load(expanded(path), allow_pickle=False), width)
    except (OSError, ValueError) as error:
      raise UserError(f'condition {scope.name!r} takes the path of a .npy file with {width} numbers, got {path!r}: '
                      f'{error}') from error

  return Made(
    reads=(options.column,),
    take=lambda columns: np.stack([_checked(options.column, row, width) for row in columns[options.column]]),
    encode=lambda rows: {column: rows}, columns={column: jax.ShapeDtypeStruct((width,), np.float32)},
    null={column: np.zeros(width, np.float32)}, give=lambda frozen, columns: {'vector': columns[column]}, parse=parse,
    convert=lambda value: _checked(scope.name, value, width), path=True,
    describe=f'the path of a .npy file with {width} numbers', row=jax.ShapeDtypeStruct((width,), np.float32),
    network={'vector_width': width})


def tokens(scope: Scope, options: Tokens) -> Made:
  """See `Tokens`."""
  column, shape = scope.column('tokens'), (options.length, options.width)

  def convert(value: Any) -> np.ndarray:
    row = np.asarray(value)
    if row.shape != shape or row.dtype.kind != 'f' or not np.isfinite(row).all():
      raise UserError(f'condition {scope.name!r} takes finite numbers of shape {shape}, got {row.dtype} of shape '
                      f'{row.shape}')
    return row.astype(np.float32)

  def parse(path: str) -> np.ndarray:
    try:
      return convert(np.load(expanded(path), allow_pickle=False))
    except (OSError, ValueError) as error:
      raise UserError(f'condition {scope.name!r} takes the path of a .npy file with numbers of shape {shape}, got '
                      f'{path!r}: {error}') from error

  return Made(
    reads=(options.column,), take=lambda columns: np.stack([convert(row) for row in columns[options.column]]),
    encode=lambda rows: {column: rows}, columns={column: jax.ShapeDtypeStruct(shape, np.float32)},
    null={column: np.zeros(shape, np.float32)}, give=lambda frozen, columns: {'tokens': columns[column]}, parse=parse,
    convert=convert, path=True, describe=f'the path of a .npy file with numbers of shape {shape}',
    row=jax.ShapeDtypeStruct(shape, np.float32), network={'token_width': options.width})


def _listed(name: str, text: str, count: int) -> np.ndarray:
  """Numbers 'a,b' of the command line."""
  try:
    return _checked(name, [float(piece) for piece in text.split(',')], count)
  except ValueError as error:
    raise UserError(f'condition {name!r} takes {_counted(count)}, got {text!r}') from error


def _checked(name: str, value: Any, count: int) -> np.ndarray:
  """float32 of so many numbers."""
  try:
    row = np.asarray(value, np.float32)
  except (TypeError, ValueError) as error:
    raise UserError(f'condition {name!r} takes {_counted(count)}, got {value!r}') from error
  if row.size != count or row.ndim > 1 or not np.isfinite(row).all():
    raise UserError(f'condition {name!r} takes {_counted(count)}, got {row.size}: {np.array2string(row, threshold=8)}')
  return row.reshape(count)


def _counted(count: int) -> str:
  return 'one number' if count == 1 else f'{count} numbers a row'


def filter_of(scope: Scope) -> str:
  """The filter by which images are resized."""
  name = scope.config.data.get('resize', '') or 'bilinear'
  return name if name in resizing.FILTERS else config_lib.choose(resizing.FILTERS, name, 'config.data.resize')


def read_picture(path: str, channels: int) -> np.ndarray:
  """A picture of a file, uint8 H W C; with 4 channels, the last of which is its transparency, 255 for none.

  Raises:
    UserError: there is none, or Pillow cannot read it.
  """
  try:
    data = pathlib.Path(expanded(path)).read_bytes()
    return decoding.decode_transparent(data) if channels == 4 else decoding.decode(data, channels)
  except OSError as error:
    raise UserError(f'cannot read the picture {path}: {error.strerror or error}') from error
  except decoding.Broken as error:
    raise UserError(f'cannot read the picture {path}: {error}; expected one of {", ".join(decoding.ENDINGS)}'
                    ) from error
