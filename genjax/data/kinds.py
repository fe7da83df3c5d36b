"""Kinds of files that are an example each: pictures, clips, sounds. What differs between them stands here alone."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from fractions import Fraction
import pathlib
from typing import Any

import numpy as np

from genjax.data.audio import sounds
from genjax.data.images import decoding
from genjax.data.video import clips, films
from genjax.tables import Table

Media = pathlib.Path | bytes  # a file or a folder of frames, or what a file holds
Facts = Mapping[str, Sequence[int]]  # name -> whole numbers
BROKEN = (decoding.Broken, films.Broken, sounds.Broken)  # raised for files that cannot be decoded


@dataclasses.dataclass(frozen=True)
class Pictures:
  """How pictures are decoded.

  Attributes:
    channels: 1 for grey, 3 for colour, 0 for what a file has.
    background: red, green and blue of what lies behind transparent pixels.
  """

  channels: int = 0
  background: tuple[int, int, int] = decoding.WHITE


@dataclasses.dataclass(frozen=True)
class Kind:
  """A kind of files.

  Attributes:
    name: such as 'pictures'.
    column: name of the column that they become.
    endings: of their names, in lower case.
    options: dataclass of how they are decoded.
    decode: (media, options, number drawn from [0, 1) or None) -> the value of the column for one example. It raises one
      of `BROKEN` for damaged files.
    check: media -> facts that are needed before an example is decoded, such as the size of a picture. It raises one of
      `BROKEN`.
    fits: (facts, options) -> whether a file is long enough; None where all are.
    frames: endings of the files of a folder that is one example, such as the frames of a clip; () for none.
  """

  name: str
  column: str
  endings: tuple[str, ...]
  options: type
  decode: Callable[[Media, Any, float | None], np.ndarray]
  check: Callable[[Media], dict[str, Sequence[int]]]
  fits: Callable[[Facts, Any], bool] | None = None
  frames: tuple[str, ...] = ()


def _bytes(media: Media) -> bytes:
  return media.read_bytes() if isinstance(media, pathlib.Path) else media


def _decode_picture(media: Media, options: Pictures, draw: float | None) -> np.ndarray:
  return decoding.decode(_bytes(media), options.channels, options.background)


def _check_picture(media: Media) -> dict[str, Sequence[int]]:
  return {'size': decoding.size(_bytes(media))}


def _check_clip(media: Media) -> dict[str, Sequence[int]]:
  """Of a folder of frames, which has no times, the seconds are those at one frame a second."""
  with films.opened(media, 1.0) as film:
    facts, count = film.facts(), len(film.times())
  timed = not isinstance(media, list) and not (isinstance(media, pathlib.Path) and media.is_dir())
  return {'size': (facts.height, facts.width), 'seconds': facts.seconds.as_integer_ratio(), 'frames': (count, timed)}


def _clip_fits(facts: Facts, options: clips.ClipOptions) -> bool:
  span = (options.frames - 1) * options.stride
  if options.short == 'repeat':
    return True
  if not options.rate:
    return facts['frames'][0] > span
  seconds = Fraction(*map(int, facts['seconds']))
  if not facts['frames'][1]:
    seconds = seconds / films.exact(options.folder_rate or options.rate)
  return seconds > span / films.exact(options.rate)


def _check_sound(media: Media) -> dict[str, Sequence[int]]:
  facts = sounds.probe(media, sounds.SoundOptions(1.0, 8000, short='pad'))
  sounds.read(media, sounds.SoundOptions(facts.samples / facts.rate, facts.rate, short='pad'))  # finds every damage
  return {'sound': (facts.samples, facts.rate, facts.channels)}


def _sound_fits(facts: Facts, options: sounds.SoundOptions) -> bool:
  samples, rate, _ = facts['sound']
  return options.short not in ('error', 'skip') or -(-samples * options.rate // rate) >= options.samples


KINDS: Table[Kind] = Table('kind of files', {
  'pictures': Kind('pictures', 'image', decoding.ENDINGS, Pictures, _decode_picture, _check_picture),
  'clips': Kind('clips', 'clip', (*films.VIDEOS, *films.ANIMATIONS), clips.ClipOptions, clips.read, _check_clip,
                _clip_fits, films.FRAMES),
  'sounds': Kind('sounds', 'sound', sounds.SOUNDS, sounds.SoundOptions, sounds.read, _check_sound, _sound_fits)})
