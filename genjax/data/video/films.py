"""Frames of a film by their times: video files through PyAV, animated pictures and folders of frames through Pillow.

Times are seconds after the first frame, as fractions, so that nothing is rounded. They are the presentation timestamps
of the file, not numbers of frames divided by a rate, and hold for files of variable rate.
"""

import bisect
from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
from fractions import Fraction
import functools
import io
import math
import pathlib
import re
from typing import Any, Protocol

import numpy as np
from PIL import Image, ImageSequence

from genjax.data.images import decoding
from genjax.types import UserError

Media = pathlib.Path | bytes | Sequence[bytes]  # a file, a folder of frames; or what a file or what each frame holds

VIDEOS = ('.mp4', '.mov', '.m4v', '.webm', '.mkv', '.avi')
ANIMATIONS = ('.gif', '.webp')
FRAMES = ('.png', '.jpg', '.jpeg', '.webp', '.bmp', '.tif', '.tiff')  # endings in a folder of frames
_MILLISECOND = Fraction(1, 1000)
_UNTIMED = 100  # ms that browsers show a frame for where an animated picture says 0


class Broken(UserError):
  """A file that cannot be read, or whose frames end before its header says."""


@dataclasses.dataclass(frozen=True)
class Facts:
  """What a film is.

  Attributes:
    seconds: from the first frame to the end of the last one.
    height, width: of a frame as it is shown, in pixels.
    rate: mean number of frames a second.
    pixel: width of a pixel over its height; 1 for square pixels.
  """

  seconds: Fraction
  height: int
  width: int
  rate: Fraction
  pixel: Fraction = Fraction(1)


class Film(Protocol):
  """An open film."""

  def facts(self) -> Facts: ...

  def times(self) -> Sequence[Fraction]:
    """When each frame begins, in order."""
    ...

  def at(self, times: Sequence[Fraction]) -> list[np.ndarray]:
    """The frames that are shown at ascending times, uint8 H W 3: the last one that begins at or before each time."""
    ...


def name_of(media: Media) -> str:
  """How messages name it."""
  if isinstance(media, pathlib.Path):
    return str(media)
  return f'a clip of {len(media)} {"bytes" if isinstance(media, bytes) else "frames"}'


@contextlib.contextmanager
def opened(media: Media, rate: float = 0.0) -> Iterator[Film]:
  """Opens a film.

  Args:
    media: a video, an animated .gif or .webp, a folder of pictures in the natural order of their names (2 before 10);
      or the bytes of a file, or those of each picture.
    rate: frames a second of a folder of pictures, which has no times.

  Raises:
    Broken: it cannot be read. Also while frames are read.
    UserError: PyAV is missing.
  """
  name = name_of(media)
  if isinstance(media, pathlib.Path) and not media.exists():
    raise Broken(f'{name} does not exist')
  try:
    if isinstance(media, pathlib.Path) and media.is_dir():
      yield _Folder(frames_of(media), name, rate)
    elif not isinstance(media, (pathlib.Path, bytes)):
      yield _Folder(media, name, rate)
    elif _is_animation(media):
      with Image.open(media if isinstance(media, pathlib.Path) else io.BytesIO(media)) as picture:
        yield _Animation(picture, name)
    else:
      av = pyav()
      with av.open(str(media) if isinstance(media, pathlib.Path) else io.BytesIO(media)) as container:
        yield _Video(container, name)
  except (OSError, EOFError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
    if isinstance(error, UserError):
      raise
    reason = getattr(error, 'strerror', None) or str(error) or type(error).__name__
    raise Broken(f'cannot read {name} as a clip: {reason}') from error


def pyav() -> Any:
  """PyAV.

  Raises:
    UserError: it is not installed.
  """
  try:
    import av  # not at the top: it is needed for videos alone
  except ImportError as error:
    raise UserError('videos are read and written by PyAV, which is not installed; '
                    'pip install "genjax-research[media]"') from error
  return av


def frames_of(folder: pathlib.Path) -> list[pathlib.Path]:
  """The pictures of a folder in the natural order of their names: frame2 before frame10."""
  found = [path for path in folder.iterdir() if path.suffix.lower() in FRAMES and not path.name.startswith('.')]
  # The parts of every name are text, number, text, ..., so that equals are compared with equals.
  return sorted(found, key=lambda path: [int(part) if number % 2 else part
                                         for number, part in enumerate(re.split(r'(\d+)', path.name))])


def _is_animation(media: pathlib.Path | bytes) -> bool:
  if isinstance(media, pathlib.Path):
    return media.suffix.lower() in ANIMATIONS
  return media[:4] == b'GIF8' or media[:4] == b'RIFF' and media[8:12] == b'WEBP'


class _Pictures:
  """A film whose frames Pillow reads; all times are known."""

  def __init__(self, starts: Sequence[Fraction], end: Fraction, size: tuple[int, int]):
    self._starts, self._end, self._size = list(starts), end, size

  def facts(self) -> Facts:
    rate = len(self._starts) / self._end if self._end else Fraction(0)
    return Facts(self._end, self._size[1], self._size[0], rate)

  def times(self) -> Sequence[Fraction]:
    return self._starts

  def at(self, times: Sequence[Fraction]) -> list[np.ndarray]:
    wanted = [bisect.bisect_right(self._starts, time) - 1 for time in times]
    shown = self._read(sorted(set(wanted)))
    return [shown[number] for number in wanted]

  def _read(self, numbers: list[int]) -> dict[int, np.ndarray]:
    raise NotImplementedError


class _Folder(_Pictures):

  def __init__(self, frames: Sequence[pathlib.Path | bytes], name: str, rate: float):
    if not frames:
      raise Broken(f'{name} has no frames: expected pictures ({", ".join(FRAMES)})')
    self._frames, self._name = frames, name
    height, width = self._decoded(0).shape[:2]
    step = 1 / exact(rate) if rate else Fraction(1)
    super().__init__([number * step for number in range(len(frames))], len(frames) * step, (width, height))

  def _read(self, numbers: list[int]) -> dict[int, np.ndarray]:
    return {number: self._decoded(number) for number in numbers}

  def _decoded(self, number: int) -> np.ndarray:
    frame = self._frames[number]
    try:
      return decoding.decode(frame.read_bytes() if isinstance(frame, pathlib.Path) else frame, 3)
    except decoding.Broken as error:
      named = str(frame) if isinstance(frame, pathlib.Path) else f'{number} of {self._name}'
      raise Broken(f'cannot read the frame {named}: {error}') from error


class _Animation(_Pictures):

  def __init__(self, picture: Image.Image, name: str):
    self._picture, starts, now = picture, [], Fraction(0)
    for frame in ImageSequence.Iterator(picture):
      frame.load()  # the duration of a .webp frame is known once it is decoded
      starts.append(now)
      now += (int(frame.info.get('duration', 0)) or _UNTIMED) * _MILLISECOND
    if len(starts) < 2:
      raise Broken(f'{name} is a single picture, not a clip')
    super().__init__(starts, now, picture.size)

  def _read(self, numbers: list[int]) -> dict[int, np.ndarray]:
    found = {}
    for number in numbers:
      self._picture.seek(number)
      found[number] = np.asarray(decoding.flat(self._picture.copy(), decoding.WHITE).convert('RGB'))
    return found


class _Video:
  """A film that PyAV decodes, from the keyframe before the first time that is asked for."""

  def __init__(self, container: Any, name: str):
    self._container, self._name = container, name
    films = [stream for stream in container.streams.video if 'attached_pic' not in str(stream.disposition)]
    if not films:
      raise Broken(f'{name} has no pictures, only {[stream.type for stream in container.streams]}')
    self._stream = films[0]
    self._tick = self._stream.time_base

  @functools.cached_property
  def _head(self) -> Any:
    """The first frame."""
    for frame in self._decode(0):
      return frame
    raise Broken(f'cannot read {self._name} as a clip: it has no frames')

  @functools.cached_property
  def _tail(self) -> tuple[int, int]:
    """The timestamps of the last frame and of its end, from the last packets: headers round the length, or lack it."""
    last, shown = self._head.pts, self._head.duration or 0
    for packet in self._packets(_FAR):
      if packet.pts is not None and packet.pts >= last and not packet.is_discard:
        last, shown = packet.pts, packet.duration or shown
    rate = self._stream.average_rate
    end = last + (shown or (round(1 / rate / self._tick) if rate else 0) or 1)
    length = self._stream.duration or 0
    if end < (self._stream.start_time or 0) + 0.9 * length - 2 * shown:
      raise Broken(f'cannot read {self._name} as a clip: its frames end at {self._seconds(end):.3f} s, though its '
                   f'header says {float(length * self._tick):.3f} s; write it again from its source')
    return last, end

  def facts(self) -> Facts:
    frame = self._head
    seconds = (self._tail[1] - frame.pts) * self._tick
    height, width = (frame.width, frame.height) if frame.rotation % 180 else (frame.height, frame.width)
    pixel = self._stream.sample_aspect_ratio or Fraction(1)
    return Facts(seconds, height, width, self._stream.average_rate or Fraction(0),
                 1 / pixel if frame.rotation % 180 else pixel)

  def times(self) -> Sequence[Fraction]:
    stamps = sorted(packet.pts for packet in self._packets(self._head.pts) if packet.pts is not None)
    return [(stamp - self._head.pts) * self._tick for stamp in stamps if stamp >= self._head.pts]

  def at(self, times: Sequence[Fraction]) -> list[np.ndarray]:
    # Half a tick later, because containers round timestamps: in a .webm of 24 frames a second the second frame begins
    # at 42 ms, and is meant by 1 / 24 s. Longer ticks than its milliseconds are those of frames, and exact.
    slack = self._tick / 2 if self._tick <= _MILLISECOND else 0
    limits = [self._head.pts + math.floor((time + slack) / self._tick) for time in times]
    found = self._shown(limits, limits[0])
    if found is None:  # the file led to a place behind the frame: from its beginning
      found = self._shown(limits, self._head.pts)
    if found is None:
      raise Broken(f'cannot read {self._name} as a clip: no frame is shown at {float(times[0]):.3f} s')
    return found

  def _shown(self, limits: list[int], start: int) -> list[np.ndarray] | None:
    """The last frames at or before timestamps; None where decoding from `start` begins behind the first of them."""
    frames: list[Any] = []
    before = None
    for frame in self._decode(start):
      while len(frames) < len(limits) and frame.pts > limits[len(frames)]:
        if before is None:
          return None
        frames.append(before)
      if len(frames) == len(limits):
        break
      before = frame
    if before is None:
      return None
    if len(frames) < len(limits) and before.pts < min(self._tail[0], limits[-1]):
      raise Broken(f'cannot read {self._name} as a clip: no frame behind {self._seconds(before.pts):.3f} s can be '
                   f'decoded, and there are some until {self._seconds(self._tail[1]):.3f} s; write it again from its '
                   'source')
    frames += [before] * (len(limits) - len(frames))
    pictures: dict[int, np.ndarray] = {}
    for frame in frames:
      if frame.pts not in pictures:
        pictures[frame.pts] = np.rot90(frame.to_ndarray(format='rgb24'), frame.rotation // 90)
    return [pictures[frame.pts] for frame in frames]

  def _seconds(self, stamp: int) -> float:
    return float((stamp - self._head.pts) * self._tick)

  def _decode(self, start: int) -> Iterator[Any]:
    """Frames from the keyframe at or before a timestamp on."""
    with self._readable():
      self._container.seek(start, stream=self._stream, backward=True, any_frame=False)
      for frame in self._container.decode(self._stream):
        if frame.pts is not None:
          yield frame

  def _packets(self, start: int) -> Iterator[Any]:
    with self._readable():
      self._container.seek(start, stream=self._stream, backward=True, any_frame=False)
      yield from self._container.demux(self._stream)

  @contextlib.contextmanager
  def _readable(self) -> Iterator[None]:
    try:
      yield
    except pyav().FFmpegError as error:
      raise Broken(f'cannot read {self._name} as a clip: {error.strerror or error}') from error


_FAR = 2**62  # a timestamp behind the end of every film


def exact(rate: float | Fraction) -> Fraction:
  """A rate as a fraction: 29.97 is 2997/100, as it is written."""
  return rate if isinstance(rate, Fraction) else Fraction(str(rate))
