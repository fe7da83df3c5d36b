"""Samples of runs as they stand in a page: as many as fit, over all of training.

Small files are taken as they are. Larger pictures become WebP of at most `SIDE` pixels, sounds become MP3, and clips
are scaled down where PyAV is installed. Of each series the last samples are taken first, then the first ones, then
those in between, so that whatever fits is spread over training.
"""

import base64
from collections.abc import Iterator, Sequence
import dataclasses
import io
import os
import pathlib
import re
from typing import Any
import warnings

from PIL import Image

SMALL = 64_000  # bytes that are taken as they are
SIDE = 1024  # pixels
STEPS = 64  # of one series
FRAMES, CLIP_SIDE = 96, 256  # of a clip that is made smaller
LARGEST = 2_000_000_000  # bytes of a file that is still read
TEXT = 4000  # characters
MISSES = 8  # files that do not fit before no more are tried
_NAME = re.compile(r'step_(\d+)_(.+)\.(png|jpg|webp|gif|mp4|wav|flac|txt)')
_TYPES = {'.png': 'image/png', '.jpg': 'image/jpeg', '.webp': 'image/webp', '.gif': 'image/gif', '.mp4': 'video/mp4',
          '.wav': 'audio/wav', '.flac': 'audio/flac', '.mp3': 'audio/mpeg'}
_SPECTROGRAM = '_spectrogram'
# A sample may have several files; the first of these endings is the one that a page shows.
_ORDER = ('.mp4', '.wav', '.flac', '.gif', '.png', '.jpg', '.webp', '.txt')
_KINDS = {'.mp4': 'clip', '.wav': 'sound', '.flac': 'sound', '.txt': 'text'}


@dataclasses.dataclass(frozen=True)
class File:
  """A sample of one step: its file, its size, and for a sound the picture of its spectrogram."""

  step: int
  path: pathlib.Path
  size: int
  spectrogram: pathlib.Path | None = None


@dataclasses.dataclass(frozen=True)
class Series:
  """Samples of one name.

  Attributes:
    name: of the samples.
    kind: 'picture', 'clip', 'sound' or 'text'.
    files: by step.
    size: bytes of all of them.
  """

  name: str
  kind: str
  files: list[File]
  size: int


@dataclasses.dataclass(frozen=True)
class Item:
  """A sample in the page: its step, a data address or a text, and a data address of its spectrogram or ''."""

  step: int
  content: str
  spectrogram: str = ''

  @property
  def cost(self) -> int:
    """Bytes in the page, with what stands around it. A character of a text may become an entity."""
    content = len(self.content) if self.content.startswith('data:') else 6 * len(self.content)
    return content + len(self.spectrogram) + 400


@dataclasses.dataclass
class Shown:
  """A series with what the page has of it.

  Attributes:
    series: all of it.
    items: those in the page, by step.
    unreadable: steps whose file is no picture, clip or sound.
    smaller: whether some are smaller, or coarser, than their files.
  """

  series: Series
  items: list[Item] = dataclasses.field(default_factory=list)
  unreadable: list[int] = dataclasses.field(default_factory=list)
  smaller: bool = False

  @property
  def left_out(self) -> int:
    """How many samples are not in the page."""
    return len(self.series.files) - len(self.items)


class _NoRoom(Exception):
  """A file does not fit, and cannot be made smaller."""


def find(path: pathlib.Path) -> list[Series]:
  """The series in the folder `samples` of a run."""
  found: dict[str, dict[int, dict[str, os.DirEntry]]] = {}
  try:
    entries = sorted(os.scandir(path / 'samples'), key=lambda entry: entry.name)
  except OSError:
    return []
  for entry in entries:
    if (match := _NAME.fullmatch(entry.name)) and entry.is_file():
      found.setdefault(match[2], {}).setdefault(int(match[1]), {})[f'.{match[3]}'] = entry
  series = []
  for name, steps in found.items():
    whole = found.get(name.removesuffix(_SPECTROGRAM), {})
    if name.endswith(_SPECTROGRAM) and any(_KINDS.get(ending) == 'sound' for files in whole.values()
                                           for ending in files):
      continue
    pictures = found.get(name + _SPECTROGRAM, {})
    ending = next(ending for ending in _ORDER if ending in next(iter(steps.values())))
    files = []
    for step, endings in sorted(steps.items()):
      chosen = next(ending for ending in _ORDER if ending in endings)
      picture = pictures.get(step, {}).get('.png')
      files.append(File(step, pathlib.Path(endings[chosen].path), endings[chosen].stat().st_size,
                        pathlib.Path(picture.path) if picture else None))
    kept = [file for file in files if _kind(file.path) == _KINDS.get(ending, 'picture')]
    series.append(Series(name, _KINDS.get(ending, 'picture'), kept, sum(file.size for file in kept)))
  return series


def _kind(path: pathlib.Path) -> str:
  return _KINDS.get(path.suffix, 'picture')


def choose(runs: Sequence[Sequence[Series]], room: int) -> list[list[Shown]]:
  """What fits into a page.

  Args:
    runs: the series of each run.
    room: bytes that they may take.

  Returns:
    For each run, its series with what is shown of them.
  """
  shown = [[Shown(series) for series in found] for found in runs]
  queue = [(rank, index, one, file) for index, one in enumerate(one for found in shown for one in found)
           for rank, file in enumerate(_spread(one.series.files))]
  misses = 0
  for _, _, one, file in sorted(queue, key=lambda entry: entry[:2]):
    if misses >= MISSES:
      break
    try:
      item, smaller = _item(file, one.series.kind, room)
    except _NoRoom:
      misses += 1
      continue
    if item is None:
      one.unreadable.append(file.step)
    elif item.cost > room:
      misses += 1
    else:
      room -= item.cost
      one.items.append(item)
      one.smaller |= smaller
  for found in shown:
    for one in found:
      one.items.sort(key=lambda item: item.step)
  return shown


def _spread(files: Sequence[File]) -> Iterator[File]:
  """The last file, the first, the one in the middle, and so on: at most `STEPS`, at equal distances."""
  count = min(len(files), STEPS)
  chosen = [files[round(index * (len(files) - 1) / max(count - 1, 1))] for index in range(count)]
  if count == 1:
    chosen = [files[-1]]
  given: set[int] = set()
  parts = 1
  while len(given) < count:
    for index in [round(part * (count - 1) / parts) for part in range(parts, -1, -1)]:
      if index not in given:
        given.add(index)
        yield chosen[index]
    parts *= 2


def _item(file: File, kind: str, room: int) -> tuple[Item | None, bool]:
  """A sample as it stands in the page, None for one that cannot be read; whether it is smaller than its file."""
  try:
    if file.size > LARGEST:
      return None, False
    if kind == 'text':
      text = file.path.read_text(errors='replace')
      return Item(file.step, text[:TEXT]), len(text) > TEXT
    if kind == 'picture':
      ending, data, smaller = _picture(file.path, file.size)
      return Item(file.step, _address(ending, data)), smaller
    if kind == 'clip':
      data = _clip(file, room)
      return Item(file.step, _address(file.path.suffix, data)), len(data) < file.size
    ending, data = _sound(file)
    spectrogram = ''
    if file.spectrogram:
      spectrogram = _address(*_picture(file.spectrogram, file.spectrogram.stat().st_size)[:2])
    return Item(file.step, _address(ending, data), spectrogram), ending == '.mp3'
  except _NoRoom:
    raise
  except Exception:  # what decoders raise on damaged files has no common class below this
    return None, False


def _address(ending: str, data: bytes) -> str:
  return f'data:{_TYPES[ending]};base64,{base64.b64encode(data).decode()}'


def _picture(path: pathlib.Path, size: int) -> tuple[str, bytes, bool]:
  """Ending and bytes of a picture, and whether it is coarser than its file."""
  with warnings.catch_warnings():
    warnings.simplefilter('error', Image.DecompressionBombWarning)
    with Image.open(path) as picture:
      if size <= SMALL or getattr(picture, 'is_animated', False):
        picture.load()  # a damaged one is no sample
        return path.suffix, path.read_bytes(), False
      picture.thumbnail((SIDE, SIDE))
      file = io.BytesIO()
      picture.convert('RGBA' if 'A' in picture.getbands() else 'RGB').save(file, 'WEBP', quality=80)
  data = file.getvalue()
  return ('.webp', data, True) if len(data) < size else (path.suffix, path.read_bytes(), False)


def _sound(file: File) -> tuple[str, bytes]:
  """A sound as MP3, or as it is where it is small, or has a rate that MP3 lacks."""
  import soundfile  # not at the top: it loads a library that pages without sounds do not need
  samples_SC, rate = soundfile.read(file.path)
  if file.size > SMALL:
    out = io.BytesIO()
    try:
      soundfile.write(out, samples_SC, rate, format='MP3')
      return '.mp3', out.getvalue()
    except (soundfile.LibsndfileError, ValueError):
      pass
  return file.path.suffix, file.path.read_bytes()


def _clip(file: File, room: int) -> bytes:
  """A clip as it is, or a smaller one where it is large and PyAV is there."""
  if file.size <= max(SMALL, min(room // 40, 1_000_000)):
    return file.path.read_bytes()
  try:
    import av  # pyright: ignore[reportMissingImports]  # an extra
  except ImportError:
    if file.size * 4 / 3 > room:
      raise _NoRoom from None
    return file.path.read_bytes()
  return _smaller_clip(av, file.path)


def _smaller_clip(av: Any, path: pathlib.Path) -> bytes:
  """At most `FRAMES` frames of at most `CLIP_SIDE` pixels."""
  out = io.BytesIO()
  with av.open(str(path)) as source, av.open(out, 'w', format='mp4') as target:
    video = source.streams.video[0]
    scale = min(1.0, CLIP_SIDE / max(video.width, video.height))
    stream = target.add_stream('libx264', rate=video.average_rate, options={'crf': '28', 'threads': '1'})
    stream.width, stream.height = (max(2, round(side * scale / 2) * 2) for side in (video.width, video.height))
    stream.pix_fmt = 'yuv420p'
    for index, frame in enumerate(source.decode(video)):
      if index == FRAMES:
        break
      smaller = frame.reformat(stream.width, stream.height, 'yuv420p')
      smaller.pts = None
      target.mux(stream.encode(smaller))
    target.mux(stream.encode(None))
  return out.getvalue()
