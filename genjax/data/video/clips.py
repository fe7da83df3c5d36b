"""Clips of a number of frames at a rate, cut from films: which part of a film, what a short one becomes, and sizes.

A clip of T frames at `rate` from time t takes the frames that are shown at t, t + 1 / rate, ..., t + (T - 1) / rate: of
each time the last frame that begins at or before it, by the timestamps of the file. A film of 30 frames a second gives
every frame at 30, every second one at 15, and each twice at 60.
"""

from collections.abc import Callable, Sequence
import dataclasses
from fractions import Fraction
import math
from typing import Any

import numpy as np
from PIL import Image

from genjax import checks
from genjax.data import scanning
from genjax.data.images import resizing
from genjax.data.scanning import Scan
from genjax.data.video import films
from genjax.data.video.films import Broken, Facts, Film, Media
from genjax.types import UserError

STARTS = ('first', 'middle', 'random')
SHORTS = ('error', 'skip', 'repeat')


class Short(UserError):
  """A film that is shorter than a clip."""


@dataclasses.dataclass(frozen=True)
class ClipOptions:
  """How clips are cut from films.

  Attributes:
    frames: number of frames T.
    shape: (H, W, C) of a frame, C 1 or 3.
    rate: frames a second; 0 takes the frames of the file as they come, whatever their times.
    stride: every how many frames one is taken.
    start: which part of a longer film: 'first', 'middle' or 'random'.
    short: what becomes of a shorter film: 'error', 'skip', or 'repeat' its last frame.
    resize: filter that brings frames of other sizes to `shape`, see `genjax.data.images.resizing.FILTERS`; '' for none.
    crop: whether resizing keeps proportions and cuts off what is outside of `shape`.
    folder_rate: frames a second of a film that is a folder of pictures; 0 for `rate`.

  Raises:
    OutOfRange, UserError: an unknown name, or a number out of range.
  """

  frames: int
  shape: tuple[int, int, int]
  rate: float = 0.0
  stride: int = 1
  start: str = 'first'
  short: str = 'error'
  resize: str = ''
  crop: bool = False
  folder_rate: float = 0.0

  def __post_init__(self):
    checks.whole(self, 1, 'frames', 'stride', 'shape')
    checks.between(self, ('rate', 'folder_rate'), at_least=0)
    if len(self.shape) != 3 or self.shape[2] not in (1, 3):
      raise checks.OutOfRange(f'shape must be height, width and channels (1 or 3) of a frame, got {tuple(self.shape)}')
    for name, known in (('start', STARTS), ('short', SHORTS), ('resize', ('', *resizing.FILTERS))):
      if (value := getattr(self, name)) not in known:
        raise checks.OutOfRange(f'{name} must be one of {known}, got {value!r}')


def read(media: Media, options: ClipOptions, draw: float | None = None) -> np.ndarray:
  """One clip, uint8 T H W C.

  Args:
    media: see `genjax.data.video.films.opened`.
    options: how it is cut.
    draw: uniform in [0, 1), the place of a random start; without one a random clip is the first.

  Raises:
    Broken: the film cannot be read.
    Short: it is shorter than the clip, unless `options.short` is 'repeat'.
    UserError: it has another size than `options.shape` and no filter changes it.
  """
  with films.opened(media, options.folder_rate or options.rate) as film:
    facts = film.facts()
    frames = film.at(_times(film, facts, options, draw, films.name_of(media)))
  return np.stack([_fit(frame_HWC, options, facts, films.name_of(media)) for frame_HWC in frames])


def probe(media: Media, options: ClipOptions) -> Facts:
  """What a film is, from its first frame and its header.

  Raises:
    Broken, Short, UserError: see `read`.
  """
  with films.opened(media, options.folder_rate or options.rate) as film:
    facts = film.facts()
    _times(film, facts, options, None, films.name_of(media))
    if not options.resize and (facts.height, facts.width) != tuple(options.shape[:2]):
      raise _other_size(films.name_of(media), (facts.height, facts.width), options)
    return facts


def scan(media: Sequence[Media], options: ClipOptions, told: Callable[[int], Any] = lambda number: None) -> Scan:
  """Opens every film and decodes its first frame.

  Args:
    media: films.
    options: how clips are cut; films that `options.short` lengthens are not short.
    told: is called with the number of each film before it is opened, for a progress bar.

  Raises:
    UserError: a film has another size and no filter changes it.
  """
  return scanning.scan(media, lambda item: probe(item, options), films.name_of, Broken, Short, told)


def _times(film: Film, facts: Facts, options: ClipOptions, draw: float | None, name: str) -> list[Fraction]:
  """The times of the frames of a clip."""
  if not options.rate:
    return _counted(list(film.times()), options, draw, name)
  step = options.stride / films.exact(options.rate)
  # The last frame of a film is shown until its end: a clip fits if its last time lies before that.
  span = (options.frames - 1) * step
  spare = facts.seconds - span
  if spare <= 0 and options.short != 'repeat':
    raise Short(f'{name} lasts {float(facts.seconds):.3f} s, {math.ceil(facts.seconds / step)} frames at '
                f'{float(1 / step):g} a second, and a clip has {options.frames}; {_REMEDY}')
  middle = max(Fraction(0), (facts.seconds - options.frames * step) / 2)
  # So much before its end that the last time cannot be rounded to the end.
  drawn = max(Fraction(0), min(spare * Fraction(draw or 0.0), spare - Fraction(1, 1000)))
  first = {'first': Fraction(0), 'middle': middle, 'random': drawn}[options.start]
  return [min(first + number * step, facts.seconds) for number in range(options.frames)]


_REMEDY = "ask for fewer frames, or set short to 'skip' or 'repeat'"


def _counted(times: list[Fraction], options: ClipOptions, draw: float | None, name: str) -> list[Fraction]:
  """The times of a clip of frames as they come."""
  spare = len(times) - 1 - (options.frames - 1) * options.stride
  if spare < 0 and options.short != 'repeat':
    raise Short(f'{name} has {len(times)} frames, and a clip of {options.frames} with stride {options.stride} needs '
                f'{(options.frames - 1) * options.stride + 1}; {_REMEDY}')
  spare = max(0, spare)
  first = {'first': 0, 'middle': spare // 2, 'random': int((draw or 0.0) * (spare + 1))}[options.start]
  return [times[min(first + number * options.stride, len(times) - 1)] for number in range(options.frames)]


def _fit(frame_HWC: np.ndarray, options: ClipOptions, facts: Facts, name: str) -> np.ndarray:
  """A frame in the size and with the channels that are asked for."""
  height, width, channels = options.shape
  picture = Image.fromarray(frame_HWC)
  if channels == 1:
    picture = picture.convert('L')
  if picture.size != (width, height):
    if not options.resize:
      raise _other_size(name, (picture.height, picture.width), options)
    box = resizing.middle(picture.size, width / height / float(facts.pixel)) if options.crop else None
    picture = picture.resize((width, height), resizing.FILTERS[options.resize], box)
  return np.asarray(picture).reshape(height, width, channels)


def _other_size(name: str, size: tuple[int, int], options: ClipOptions) -> UserError:
  return UserError(f'{name} has frames of {size[0]} x {size[1]} pixels, and clips of {options.shape[0]} x '
                   f'{options.shape[1]} are asked for; set resize, for example to bilinear')
