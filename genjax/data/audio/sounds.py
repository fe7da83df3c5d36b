"""Sounds of a length at a rate, cut from sound files: read by soundfile, resampled by scipy.

A part of a file is the same part of the whole file resampled: as much around it is read as the filter reaches, and
nothing else.
"""

from collections.abc import Callable, Sequence
import contextlib
import dataclasses
import io
import math
import pathlib
from typing import Any

import numpy as np
import soundfile

from genjax import checks
from genjax.data import scanning
from genjax.data.audio import mel
from genjax.data.scanning import Scan
from genjax.types import UserError

Media = pathlib.Path | bytes  # a file, or what it holds

SOUNDS = ('.wav', '.flac', '.mp3', '.ogg', '.opus', '.aif', '.aiff', '.au', '.w64')
STARTS = ('first', 'middle', 'random')
SHORTS = ('error', 'skip', 'pad', 'repeat')
_REACH = 10  # samples of the lower rate on each side that scipy's filter of `resample_poly` reads


class Broken(UserError):
  """A file that cannot be read as sound."""


class Short(UserError):
  """A file that is shorter than what is asked for."""


@dataclasses.dataclass(frozen=True)
class SoundOptions:
  """How sounds are cut from files.

  Attributes:
    seconds: their length.
    rate: samples a second; files of other rates are resampled.
    channels: 1, the mean of the channels of a file, or 2.
    start: which part of a longer file: 'first', 'middle' or 'random'.
    short: what becomes of a shorter file: 'error', 'skip', 'pad' with silence at its end, or 'repeat' it.

  Raises:
    OutOfRange: an unknown name, or a number out of range.
  """

  seconds: float
  rate: int
  channels: int = 1
  start: str = 'first'
  short: str = 'error'

  def __post_init__(self):
    checks.whole(self, 1, 'rate', 'channels')
    checks.positive(self, 'seconds')
    checks.require('channels', self.channels, at_most=2)
    for name, value, known in (('start', self.start, STARTS), ('short', self.short, SHORTS)):
      if value not in known:
        raise checks.OutOfRange(f'{name} must be one of {known}, got {value!r}')
    if not self.samples:
      raise checks.OutOfRange(f'seconds must be at least one sample at {self.rate} a second, got {self.seconds}')

  @property
  def samples(self) -> int:
    """Number of samples S."""
    return round(self.seconds * self.rate)

  @property
  def shape(self) -> tuple[int, ...]:
    """Of one sound: (S,), or (S, 2)."""
    return (self.samples,) if self.channels == 1 else (self.samples, self.channels)


@dataclasses.dataclass(frozen=True)
class Facts:
  """What a file is.

  Attributes:
    samples: of each channel.
    rate: samples a second.
    channels: how many.
  """

  samples: int
  rate: int
  channels: int


def read(media: Media, options: SoundOptions, draw: float | None = None) -> np.ndarray:
  """One sound in -1 .. 1, float32 S or S 2.

  Args:
    media: a file that libsndfile reads (`SOUNDS`), or its bytes.
    options: how it is cut.
    draw: uniform in [0, 1), the place of a random start; without one a random sound is the first.

  Raises:
    Broken: it cannot be read, or has samples that are not finite.
    Short: it is shorter, unless `options.short` is 'pad' or 'repeat'.
    UserError: two channels are asked for, and it has more.
  """
  name = name_of(media)
  with _opened(media) as file:
    facts = Facts(file.frames, file.samplerate, file.channels)
    length = _checked(facts, options, name)
    spare = max(0, length - options.samples)
    first = {'first': 0, 'middle': spare // 2, 'random': int((draw or 0.0) * (spare + 1))}[options.start]
    sound_SC = _part(file, facts, first, min(length, options.samples), options.rate)
  if not np.isfinite(sound_SC).all():
    raise Broken(f'{name} has samples that are NaN or infinite; write it again from its source')
  if len(sound_SC) < options.samples:
    mode = 'constant' if options.short == 'pad' else 'wrap'
    sound_SC = np.pad(sound_SC, ((0, options.samples - len(sound_SC)), (0, 0)), mode)
  if options.channels == 1:
    return sound_SC.mean(axis=1, dtype=np.float32)
  return np.repeat(sound_SC, 2, axis=1) if facts.channels == 1 else sound_SC


def probe(media: Media, options: SoundOptions) -> Facts:
  """What a file is, from its header.

  Raises:
    Broken, Short, UserError: see `read`.
  """
  with _opened(media) as file:
    facts = Facts(file.frames, file.samplerate, file.channels)
  _checked(facts, options, name_of(media))
  return facts


def scan(media: Sequence[Media], options: SoundOptions, told: Callable[[int], Any] = lambda number: None) -> Scan:
  """Reads the header of every file.

  Args:
    media: files.
    options: how sounds are cut; files that `options.short` lengthens are not short.
    told: is called with the number of each file before it is opened, for a progress bar.

  Raises:
    UserError: two channels are asked for, and a file has more.
  """
  return scanning.scan(media, lambda item: probe(item, options), name_of, Broken, Short, told)


def resample(sound_SC: np.ndarray, rate: int, wanted: int) -> np.ndarray:
  """Resamples along the first axis by scipy's polyphase filter, `scipy.signal.resample_poly` with its default window.

  Sample n of the result is the sound at time n / wanted; there are ceil(S wanted / rate) of them.
  """
  if rate == wanted:
    return sound_SC
  from scipy import signal  # not at the top: it takes a while to import
  common = math.gcd(rate, wanted)
  return signal.resample_poly(sound_SC, wanted // common, rate // common, axis=0).astype(np.float32)


def name_of(media: Media) -> str:
  """How messages name it."""
  return str(media) if isinstance(media, pathlib.Path) else f'a sound of {len(media)} bytes'


@contextlib.contextmanager
def _opened(media: Media):
  name = name_of(media)
  try:
    with soundfile.SoundFile(str(media) if isinstance(media, pathlib.Path) else io.BytesIO(media)) as file:
      if file.frames:
        yield file
        return
    data = media.read_bytes() if isinstance(media, pathlib.Path) else media  # a stream, whose header has no length
    with soundfile.SoundFile(io.BytesIO(mel.with_size(data))) as file:
      yield file
  except (OSError, soundfile.SoundFileError) as error:
    reason = getattr(error, 'strerror', None) or getattr(error, 'error_string', error)
    raise Broken(f'cannot read {name} as a sound: {reason}') from error


def _checked(facts: Facts, options: SoundOptions, name: str) -> int:
  """The number of samples of a whole file at the rate that is asked for."""
  if not facts.samples:
    raise Broken(f'{name} has no samples')
  if options.channels == 2 and facts.channels > 2:
    raise UserError(f'{name} has {facts.channels} channels, and 2 are asked for; set channels=1 for their mean')
  length = -(-facts.samples * options.rate // facts.rate)
  if length < options.samples and options.short in ('error', 'skip'):
    raise Short(f'{name} has {facts.samples / facts.rate:.3f} s, and {options.seconds:g} s are asked for; '
                "ask for fewer seconds, or set short to 'skip', 'pad' or 'repeat'")
  return length


def _part(file: soundfile.SoundFile, facts: Facts, first: int, samples: int, rate: int) -> np.ndarray:
  """`samples` samples from number `first` of the resampled file on, float32 S C."""
  common = math.gcd(facts.rate, rate)
  up, down = rate // common, facts.rate // common
  reach = 0 if up == down else -(-_REACH * max(up, down) // up) + 1
  # Samples of the two rates coincide at multiples of `down`, so there the part begins.
  begin = max(0, (first * down // up - reach) // down * down)
  end = min(facts.samples, (first + samples) * down // up + 1 + reach)
  file.seek(begin)
  sound_SC = file.read(end - begin, 'float32', always_2d=True)
  if len(sound_SC) < end - begin:
    raise Broken(f'{file.name} ends after {begin + len(sound_SC)} samples, though its header says {facts.samples}')
  offset = first - begin * up // down
  return resample(sound_SC, facts.rate, rate)[offset:offset + samples]
