"""Artifacts: what a person reads, sees or hears of samples, and the files that they become.

A text is a `str`, a picture an array uint8 H W C (1, 3 or 4 channels); clips and sounds have classes here. Files are
written by Pillow, PyAV and soundfile.
"""

import base64
from collections.abc import Callable, Mapping
import dataclasses
from fractions import Fraction
import io
import math
import pathlib
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from genjax.data.audio import mel
from genjax.data.video import films
from genjax.types import UserError


@dataclasses.dataclass(frozen=True)
class Clip:
  """Frames over time.

  Attributes:
    frames_THWC: uint8, with 1 or 3 channels.
    rate: frames a second.
    caption: what it shows; the title of an .mp4.

  Raises:
    ValueError: the frames are none, or the rate is not positive.
  """

  frames_THWC: np.ndarray
  rate: float
  caption: str = ''

  def __post_init__(self):
    frames = self.frames_THWC
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] not in (1, 3) or not frames.size:
      raise ValueError(f'a clip has frames uint8 T H W C with C 1 or 3, got {frames.dtype} {frames.shape}')
    if not self.rate > 0:
      raise ValueError(f'the rate of a clip is above 0 frames a second, got {self.rate}')

  def _repr_html_(self) -> str:
    """How a notebook shows it."""
    return f'<img src="data:image/webp;base64,{_base64(self, ".webp")}">'


@dataclasses.dataclass(frozen=True)
class Sound:
  """Samples of one or more channels.

  Attributes:
    samples_SC: floating-point numbers in -1 .. 1, S C or S. Files have 16 bits: numbers beyond are cut off, and what is
      not finite is silence.
    rate: samples a second.

  Raises:
    ValueError: the samples are none, or the rate is not positive.
  """

  samples_SC: np.ndarray
  rate: int

  def __post_init__(self):
    samples = self.samples_SC
    if samples.dtype.kind != 'f' or samples.ndim not in (1, 2) or not samples.size:
      raise ValueError(f'a sound has samples float S C or S, got {samples.dtype} {samples.shape}')
    if not self.rate > 0:
      raise ValueError(f'the rate of a sound is above 0 samples a second, got {self.rate}')

  def _repr_html_(self) -> str:
    """How a notebook plays it."""
    return f'<audio controls src="data:audio/wav;base64,{_base64(self, ".wav")}"></audio>'

  def two_axes(self) -> np.ndarray:
    """The samples as S C."""
    return self.samples_SC if self.samples_SC.ndim == 2 else self.samples_SC[:, None]


Artifact = str | np.ndarray | Clip | Sound


class _Kind(NamedTuple):
  """word: for messages. encoders: ending -> function of an artifact that gives the bytes of a file, the usual first."""

  word: str
  encoders: Mapping[str, Callable[[Any], bytes]]


def endings(value: Artifact) -> tuple[str, ...]:
  """The endings of files that an artifact can be written as, the usual one first."""
  return tuple(_kind(value).encoders)


def word(value: Artifact) -> str:
  """What an artifact is: 'text', 'picture', 'clip' or 'sound'."""
  return _kind(value).word


def encode(value: Artifact, ending: str) -> bytes:
  """The bytes of a file of an artifact.

  Raises:
    UserError: an ending that does not fit, or a package that is missing.
  """
  kind = _kind(value)
  if ending not in kind.encoders:
    raise UserError(f'a {kind.word} is written as {", ".join(kind.encoders)}, got {ending!r}')
  return kind.encoders[ending](value)


def check(ending: str) -> None:
  """Checks that the package is there that writes files with an ending.

  Raises:
    UserError: it is missing, or lacks the codec.
  """
  if ending == '.mp4':
    _h264(films.pyav())


def check_shown(value: Artifact) -> None:
  """Checks that `write_shown` can write an artifact; see `check`."""
  for ending in _SHOWN[word(value)]:
    check(ending)


def write(path: pathlib.Path, value: Artifact) -> pathlib.Path:
  """Writes one file of an artifact.

  Args:
    path: with an ending of `endings`, in upper or lower case; without one of `ENDINGS` the usual ending is added.
    value: the artifact.

  Returns:
    The path of the file.

  Raises:
    UserError: see `encode`.
  """
  if path.suffix.lower() not in ENDINGS:
    path = path.with_name(path.name + endings(value)[0])
  data = encode(value, path.suffix.lower())
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(data)
  return path


def write_shown(stem: pathlib.Path, value: Artifact) -> list[pathlib.Path]:
  """Writes the files by which a person looks at an artifact: a text as .txt, a picture as .png, a clip as .mp4 and as
  animated .webp, a sound as .wav and its spectrogram as _spectrogram.png."""
  paths = [write(stem.with_name(stem.name + ending), value) for ending in _SHOWN[word(value)]]
  if isinstance(value, Sound):
    paths.append(write(stem.with_name(f'{stem.name}_spectrogram.png'), spectrogram(value)))
  return paths


def spectrogram(sound: Sound, bands: int = 80, width: int = 1024) -> np.ndarray:
  """The log-mel spectrogram of a sound as a picture, uint8 H W 3: time from left to right, low frequencies below.

  Colours cover the 80 dB below the loudest band.

  Args:
    sound: several channels are added up.
    bands: mel bands, two pixels each.
    width: most pixels.
  """
  sound_N = np.nan_to_num(sound.two_axes().mean(axis=1), posinf=0.0, neginf=0.0)
  window = 2 ** max(5, round(math.log2(sound.rate * 0.05)))  # about 50 ms, so that each low band has a frequency
  hop = max(window // 8, -(-len(sound_N) // width))
  level_SF = mel.LogMel(sound.rate, bands, window, hop)(mel.fit(sound_N, max(len(sound_N), window)))
  share_FS = np.clip(1 - (level_SF.max() - level_SF) / (mel.DYNAMIC_RANGE / 4), 0, 1).T[::-1]
  places = np.linspace(0, 1, len(_COLOURS))
  picture_HWC = np.stack([np.interp(share_FS, places, channel) for channel in np.transpose(_COLOURS)], axis=-1)
  return np.round(picture_HWC).astype(np.uint8).repeat(2, axis=0)


_COLOURS = ((0, 0, 0), (60, 20, 110), (180, 50, 110), (250, 140, 60), (255, 255, 200))  # from quiet to loud
_LEAST_DELAY = 20  # ms; browsers show frames of a .gif with less for 100 ms


def _base64(value: Artifact, ending: str) -> str:
  return base64.b64encode(encode(value, ending)).decode()


def _kind(value: Artifact) -> _Kind:
  if isinstance(value, str):
    return _TEXT
  if isinstance(value, Clip):
    return _CLIP
  return _SOUND if isinstance(value, Sound) else _PICTURE


def _text(text: str) -> bytes:
  """Halves of surrogate pairs as escapes."""
  return text.encode('utf-8', errors='backslashreplace')


def _image(array_HWC: np.ndarray) -> Image.Image:
  return Image.fromarray(array_HWC[..., 0] if array_HWC.shape[-1] == 1 else array_HWC)


def _picture(format: str, **options: Any) -> Callable[[np.ndarray], bytes]:

  def encoded(array_HWC: np.ndarray) -> bytes:
    picture, file = _image(array_HWC), io.BytesIO()
    if format == 'JPEG' and picture.mode == 'RGBA':  # which has no transparency: on white, as it is shown
      picture = Image.alpha_composite(Image.new('RGBA', picture.size, 'white'), picture).convert('RGB')
    picture.save(file, format, **options)
    return file.getvalue()

  return encoded


def _animation(format: str, tick: int, least: int, **options: Any) -> Callable[[Clip], bytes]:
  """Animated pictures, whose frames are shown for whole ticks of so many ms; what is rounded does not add up."""

  def encoded(clip: Clip) -> bytes:
    every = math.ceil(least * clip.rate / 1000) or 1
    frames = [_image(frame_HWC) for frame_HWC in clip.frames_THWC[::every]]
    ends = [round(number * every * 1000 / clip.rate / tick) * tick for number in range(len(frames) + 1)]
    file, durations = io.BytesIO(), np.diff(ends).tolist()
    frames[0].save(file, format, save_all=True, append_images=frames[1:], duration=durations, loop=0, **options)
    return file.getvalue()

  return encoded


def _h264(av: Any) -> str:
  """The name of the H.264 encoder."""
  if 'libx264' not in av.codecs_available:
    raise UserError(f'this PyAV {av.__version__} has no encoder libx264, which writes .mp4; the one of PyPI has it '
                    '(pip install --force-reinstall av), or write .gif or .webp')
  return 'libx264'


def _mp4(clip: Clip) -> bytes:
  """H.264 with 4:2:0 chroma, which everything plays. It needs even sizes: an odd one repeats its last row or column."""
  av = films.pyav()
  codec, file = _h264(av), io.BytesIO()
  _, height, width, channels = clip.frames_THWC.shape
  frames_THWC = np.pad(clip.frames_THWC, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), 'edge')
  frames_THWC = frames_THWC.repeat(3 // channels, axis=3)
  with av.open(file, 'w', format='mp4') as container:
    if clip.caption:
      container.metadata['title'] = clip.caption
    stream = container.add_stream(codec, rate=Fraction(clip.rate).limit_denominator(1001),
                                  options={'crf': '17', 'threads': '1'})  # one thread: the same bytes on any machine
    stream.height, stream.width, stream.pix_fmt = *frames_THWC.shape[1:3], 'yuv420p'
    for frame_HWC in frames_THWC:
      container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_HWC), format='rgb24')))
    container.mux(stream.encode(None))
  return file.getvalue()


def _sound(format: str) -> Callable[[Sound], bytes]:

  def encoded(sound: Sound) -> bytes:
    import soundfile  # not at the top: the library that it loads is needed for sounds alone
    samples_SC = np.nan_to_num(sound.two_axes().astype(np.float64), posinf=0.0, neginf=0.0)
    # As 16-bit files are read: what came from one is written as it was.
    whole_SC = np.clip(np.round(samples_SC * 2**15), -2**15, 2**15 - 1).astype(np.int16)
    file = io.BytesIO()
    soundfile.write(file, whole_SC, int(sound.rate), format=format, subtype='PCM_16')
    return file.getvalue()

  return encoded


_TEXT = _Kind('text', {'.txt': _text})
_PICTURE = _Kind('picture', {
  '.png': _picture('PNG'), '.jpg': _picture('JPEG', quality=95), '.webp': _picture('WEBP', lossless=True),
  '.gif': _picture('GIF')})
_CLIP = _Kind('clip', {
  '.mp4': _mp4, '.webp': _animation('WEBP', 1, 1, lossless=True), '.gif': _animation('GIF', 10, _LEAST_DELAY)})
_SOUND = _Kind('sound', {'.wav': _sound('WAV'), '.flac': _sound('FLAC')})
_SHOWN = {'text': ('.txt',), 'picture': ('.png',), 'clip': ('.mp4', '.webp'), 'sound': ('.wav',)}
ENDINGS = tuple(dict.fromkeys(ending for kind in (_TEXT, _PICTURE, _CLIP, _SOUND) for ending in kind.encoders))
