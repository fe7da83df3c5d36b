"""Sound as log-mel frames: what Whisper reads (Radford et al. 2022, section 2.2), in numpy.

Suffixes: N samples, S frames, K frequencies, F mel bands.
"""

import dataclasses
import functools
import io
import os
import struct

import numpy as np
import soundfile

from genjax import checks
from genjax.types import UserError, expanded

_LINEAR_HERTZ = 200 / 3  # width of a mel below `_BREAK`
_BREAK = 1000.0  # Hz
_LOG_STEP = np.log(6.4) / 27  # of ln(frequency) a mel above
FLOOR = 1e-10  # of the power in a band
RANGE = 8.0  # decades below the loudest band that are told apart
_BLOCK = 2**18  # samples read at a time
_LARGEST = 2**32 - 2  # bytes of a chunk of a .wav file, an even number


@dataclasses.dataclass(frozen=True)
class LogMel:
  """Options of log-mel frames; the defaults are Whisper's.

  Attributes:
    rate: samples a second.
    bands: mel bands F, 128 in Whisper's large-v3.
    window: samples in a Hann window and its Fourier transform.
    hop: samples from one frame to the next.

  Raises:
    UserError: a number below 1.
  """

  rate: int = 16_000
  bands: int = 80
  window: int = 400
  hop: int = 160

  def __post_init__(self):
    checks.whole(self, 1, 'rate', 'bands', 'window', 'hop')

  def frames(self, samples: int) -> int:
    """Frames of so many samples."""
    return samples // self.hop

  def __call__(self, sound_N: np.ndarray) -> np.ndarray:
    """float32 S F: (log10 of the power in each band, at most 8 below the loudest, + 4) / 4.

    Frame s is centred on sample s hop; beyond the ends the sound is mirrored.

    Args:
      sound_N: samples, full scale being -1 to 1.

    Raises:
      UserError: fewer samples than a frame takes.
    """
    half = self.window // 2
    if sound_N.ndim != 1 or len(sound_N) <= max(half, self.hop - 1):
      raise UserError(
        f'log-mel frames need one channel of more than {max(half, self.hop - 1)} samples, got an array of shape '
        f'{sound_N.shape}; fill it up with zeros')
    padded_N = np.pad(sound_N.astype(np.float64), half, mode='reflect')
    pieces_SN = np.lib.stride_tricks.sliding_window_view(padded_N, self.window)[::self.hop][:self.frames(len(sound_N))]
    hann_N = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.window) / self.window)
    power_SK = np.abs(np.fft.rfft(pieces_SN * hann_N)) ** 2
    log_SF = np.log10(np.maximum(power_SK @ mel_filters(self.bands, self.window, self.rate), FLOOR))
    return ((np.maximum(log_SF, log_SF.max() - RANGE) + 4) / 4).astype(np.float32)


@functools.cache
def mel_filters(bands: int, window: int, rate: int) -> np.ndarray:
  """Triangles K F over the frequencies of a Fourier transform, evenly spaced in mel from 0 to rate / 2, each of area 1
  in Hz.

  The mel scale is that of Slaney's Auditory Toolbox (1998), linear to 1 kHz and logarithmic above; as in librosa.

  Args:
    bands: F.
    window: samples of the transform, whose K = window // 2 + 1 frequencies are spaced by rate / window.
    rate: samples a second.
  """
  edge_F = _hertz(np.linspace(0.0, _mel(rate / 2), bands + 2))
  frequency_K1 = np.fft.rfftfreq(window, 1 / rate)[:, None]
  low_F, centre_F, high_F = edge_F[:-2], edge_F[1:-1], edge_F[2:]
  rise_KF = (frequency_K1 - low_F) / (centre_F - low_F)
  fall_KF = (high_F - frequency_K1) / (high_F - centre_F)
  return np.maximum(0.0, np.minimum(rise_KF, fall_KF)) * (2 / (high_F - low_F))


def _mel(hertz: float) -> float:
  return hertz / _LINEAR_HERTZ if hertz < _BREAK else _BREAK / _LINEAR_HERTZ + np.log(hertz / _BREAK) / _LOG_STEP


def _hertz(mel_F: np.ndarray) -> np.ndarray:
  first = _BREAK / _LINEAR_HERTZ
  return np.where(mel_F < first, mel_F * _LINEAR_HERTZ, _BREAK * np.exp(_LOG_STEP * (mel_F - first)))


def read_wav(path: str | os.PathLike[str], rate: int) -> np.ndarray:
  """The samples of a sound file, float32 N, full scale being -1 to 1: the mean of its channels, resampled if it has
  another rate.

  Of a file that is shorter than its header says, or whose header leaves its length open, this is the sound that is
  there.

  Args:
    path: a .wav file of integers or floating-point numbers of any depth, or another format of libsndfile, such as .flac
      and .mp3.
    rate: wanted samples a second.

  Raises:
    UserError: it cannot be read, has no samples, or some that are no finite numbers.
  """
  path = expanded(path)
  try:
    with soundfile.SoundFile(io.BytesIO(_with_size(path.read_bytes()))) as file:
      stored_rate, blocks = file.samplerate, [file.read(_BLOCK, 'float32', always_2d=True)]
      while len(blocks[-1]) == _BLOCK:  # not all at once: a header may promise more than there is memory
        blocks.append(file.read(_BLOCK, 'float32', always_2d=True))
  except (OSError, soundfile.SoundFileError) as error:
    reason = getattr(error, 'strerror', None) or getattr(error, 'error_string', error)
    raise UserError(f'cannot read {path} as a {path.suffix or ".wav"} file: {reason}') from None
  sound_NC = np.concatenate(blocks)
  if not sound_NC.size:
    raise UserError(f'{path} has no samples')
  if len(wrong_N := np.flatnonzero(~np.isfinite(sound_NC).all(axis=1))):
    raise UserError(
      f'{path}: {len(wrong_N)} of its {len(sound_NC)} samples are NaN or infinite, the first is number '
      f'{wrong_N[0] + 1}; '
      'write it anew from its source')
  return resample(sound_NC.mean(axis=1), stored_rate, rate)


def _with_size(data: bytes) -> bytes:
  """The bytes of a .wav file, of which the writer may have been a stream that left 0 for the size of the sound; any
  other file as it is."""
  if data[:4] != b'RIFF' or data[8:12] != b'WAVE' or (start := _chunk(data, 12, b'data')) is None:
    return data
  size = len(data) - start - 8
  if data[start + 4:start + 8] != bytes(4) or _chunk(data, start + 8) in (len(data), len(data) + 1):
    return data  # the size is known, or what follows are chunks and there is no sound
  return b''.join([
    data[:4],
    struct.pack('<I', min(len(data) - 8, _LARGEST)), data[8:start + 4],
    struct.pack('<I', min(size, _LARGEST)), data[start + 8:]
  ])


def _chunk(data: bytes, place: int, name: bytes = b'') -> int | None:
  """Where the chunk of a name begins, from a place on at which one begins; without a name, where the last chunk
  ends."""
  while place + 8 <= len(data) and data[place:place + 4] != name and all(
      32 <= byte < 127 for byte in data[place:place + 4]):
    place += 8 + int.from_bytes(data[place + 4:place + 8], 'little')
    place += place % 2  # chunks begin at even places
  return place if not name or data[place:place + 4] == name and place + 8 <= len(data) else None


def resample(sound_N: np.ndarray, rate: int, wanted: int) -> np.ndarray:
  """The sound at another rate, in samples a second: no frequency is added, and those beyond half the new rate are left
  out."""
  if rate == wanted:
    return sound_N
  samples = max(1, round(len(sound_N) * wanted / rate))
  return (np.fft.irfft(np.fft.rfft(sound_N)[:samples // 2 + 1], samples) * (samples / len(sound_N))).astype(np.float32)


def fit(sound_N: np.ndarray, samples: int) -> np.ndarray:
  """The sound cut to so many samples, or with silence after it."""
  return np.pad(sound_N[:samples], (0, max(0, samples - len(sound_N))))
