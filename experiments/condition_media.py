"""Conditions that are clips, joined to the input, and sounds, whose frames the network attends to."""

from collections.abc import Mapping
import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np

from genjax import checks
from genjax.data.audio import sounds
from genjax.data.audio.mel import LogMel
from genjax.data.images import resizing
from genjax.data.pipeline import Columns
from genjax.data.video import clips
from genjax.experiments.condition_interface import Common, Made, Scope
from genjax.experiments.condition_kinds import NO_COLOUR, filter_of
from genjax.objectives.pixels import centred
from genjax.types import Array, Params, UserError, expanded


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clip(Common):
  """Frames of a clip, joined to the channels of what is denoised, one after the other.

  Attributes:
    column: of the data, with uint8 frames T H W C.
    frames: how many; of a longer clip the first.
    rate: frames a second of what is read of a file that `sample` is given; 0 takes the frames as they come.
    channels: of a frame, 1 or 3.
  """

  column: str = 'clip'
  frames: int
  rate: float = 0.0
  channels: int = 3

  def __post_init__(self):
    super().__post_init__()
    checks.whole(self, 1, 'frames')
    checks.between(self, ('rate',), at_least=0)
    if self.channels not in (1, 3):
      raise checks.OutOfRange(f'channels must be 1 or 3, got {self.channels!r}')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sound(Common):
  """A sound; the network attends to its log-mel frames.

  Attributes:
    column: of the data, with float32 samples in -1 .. 1 of one channel.
    seconds: length of the sound; files that `sample` is given are cut, or end in silence.
    rate: samples a second.
    bands: mel bands of a frame, see `genjax.data.audio.mel.LogMel`.
    window: samples in a Hann window and its Fourier transform.
    hop: samples from one frame to the next.
  """

  column: str = 'sound'
  seconds: float
  rate: int = 16_000
  bands: int = 80
  window: int = 400
  hop: int = 160

  def __post_init__(self):
    super().__post_init__()
    checks.positive(self, 'seconds')
    checks.whole(self, 1, 'rate', 'bands', 'window', 'hop')


def clip(scope: Scope, options: Clip) -> Made:
  """See `Clip`."""
  height, width = scope.shape[:2]
  shape = (options.frames, height, width, options.channels)
  joined = (height, width, options.frames * options.channels)
  column, how, crop = scope.column('frames'), filter_of(scope), bool(scope.config.data.get('crop', False))
  read = clips.ClipOptions(frames=options.frames, shape=shape[1:], rate=options.rate, resize=how, crop=crop)

  def convert(value: Any) -> np.ndarray:
    frames = np.asarray(value)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] not in (1, 3) or len(frames) < options.frames:
      raise UserError(f'condition {scope.name!r} takes at least {options.frames} frames, uint8 T H W C with 1 or 3 '
                      f'channels, got {frames.dtype} of shape {frames.shape}')
    frames = frames[:options.frames]
    if frames.shape == shape:
      return frames
    return np.stack([resizing.resize(frame, shape[1:], how, crop) for frame in frames])

  return Made(
    reads=(options.column,), take=lambda columns: np.stack([convert(frames) for frames in columns[options.column]]),
    encode=lambda rows: {column: rows.transpose(0, 2, 3, 1, 4).reshape(len(rows), *joined)},
    columns={column: jax.ShapeDtypeStruct(joined, np.uint8)}, null={column: np.full(joined, NO_COLOUR, np.uint8)},
    give=lambda frozen, columns: {'image': centred(columns[column])},
    parse=lambda path: clips.read(pathlib.Path(expanded(path)), read), convert=convert, path=True,
    describe=f'the path of a clip, of which {options.frames} frames are taken and resized to {height} x {width}',
    row=jax.ShapeDtypeStruct(shape, np.uint8), network={'image_channels': joined[2]}, mirrored=(column,),
    facts={'shape': list(shape), 'filter': how, 'crop': crop})


def sound(scope: Scope, options: Sound) -> Made:
  """See `Sound`."""
  column, samples = scope.column('frames'), round(options.seconds * options.rate)
  mel = LogMel(options.rate, options.bands, options.window, options.hop)
  shape = (mel.frames(samples), options.bands)
  read = sounds.SoundOptions(seconds=options.seconds, rate=options.rate, short='pad')
  if samples <= max(options.window // 2, options.hop - 1):
    raise UserError(f'{scope.where}.seconds is {options.seconds}, {samples} samples: less than one frame needs')

  def convert(value: Any) -> np.ndarray:
    found = np.asarray(value)
    if found.dtype.kind != 'f' or found.shape != (samples,):
      raise UserError(f'condition {scope.name!r} takes {samples} float samples ({options.seconds} s, one channel), got '
                      f'{found.dtype} of shape {found.shape}')
    return found.astype(np.float32)

  def give(frozen: Params, columns: Mapping[str, Array]) -> Mapping[str, Any]:
    return {'tokens': columns[column], 'tokens_mask': np.ones(columns[column].shape[:2], bool)}

  def take(columns: Columns) -> np.ndarray:
    return np.stack([convert(row) for row in columns[options.column]])

  return Made(
    reads=(options.column,), take=take, encode=lambda rows: {column: np.stack([mel(row) for row in rows])},
    columns={column: jax.ShapeDtypeStruct(shape, np.float32)}, null={column: np.zeros(shape, np.float32)}, give=give,
    parse=lambda path: sounds.read(pathlib.Path(expanded(path)), read), convert=convert, path=True,
    describe=f'the path of a sound, of which {options.seconds:g} s are read',
    row=jax.ShapeDtypeStruct((samples,), np.float32), network={'token_width': options.bands},
    facts=dataclasses.asdict(mel))
