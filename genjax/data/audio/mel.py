"""Log-mel frames of sound, the input of Whisper (Radford et al. 2022, section 2.2), in numpy.

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

_LINEAR_HERTZ = 200 / 3  # Hz per mel below `_BREAK_HERTZ`
_BREAK_HERTZ = 1000.0  # Hz; the mel scale is linear below and logarithmic above
_LOG_STEP = np.log(6.4) / 27  # ln(frequency) per mel above `_BREAK_HERTZ`
MIN_POWER = 1e-10  # smallest power of a band
DYNAMIC_RANGE = 8.0  # dynamic range in decades below the loudest band
_BLOCK = 2**18  # samples read at a time
_MAX_CHUNK_SIZE = 2**32 - 2  # bytes of a .wav chunk, an even number


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
    """Number of frames of so many samples."""
    return samples // self.hop

  def __call__(self, sound_N: np.ndarray) -> np.ndarray:
    """Returns float32 S F: (log10 of the power of each band, clipped to 8 below the maximum, + 4) / 4.

    Frame s is centred on sample s * hop. The sound is mirrored at its ends.

    Args:
      sound_N: samples in [-1, 1].

    Raises:
      UserError: there are fewer samples than a frame needs.
    """
    half = self.window // 2
    if sound_N.ndim != 1 or len(sound_N) <= max(half, self.hop - 1):
      raise UserError(
        f'log-mel frames need one channel of more than {max(half, self.hop - 1)} samples, got an array of shape '
        f'{sound_N.shape}; pad it with zeros')
    padded_N = np.pad(sound_N.astype(np.float64), half, mode='reflect')
    pieces_SN = np.lib.stride_tricks.sliding_window_view(padded_N, self.window)[::self.hop][:self.frames(len(sound_N))]
    hann_N = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.window) / self.window)
    power_SK = np.abs(np.fft.rfft(pieces_SN * hann_N)) ** 2
    log_SF = np.log10(np.maximum(power_SK @ mel_filters(self.bands, self.window, self.rate), MIN_POWER))
    return ((np.maximum(log_SF, log_SF.max() - DYNAMIC_RANGE) + 4) / 4).astype(np.float32)


@functools.cache
def mel_filters(bands: int, window: int, rate: int) -> np.ndarray:
  """Triangular mel filters K F, evenly spaced in mel from 0 to rate / 2, each with area 1 in Hz.

  The mel scale is that of Slaney's Auditory Toolbox (1998), linear below 1 kHz and logarithmic above, as in librosa.

  Args:
    bands: F.
    window: samples of the Fourier transform; it has K = window // 2 + 1 frequencies spaced by rate / window.
    rate: samples per second.
  """
  edge_F = _hertz(np.linspace(0.0, _mel(rate / 2), bands + 2))
  frequency_K1 = np.fft.rfftfreq(window, 1 / rate)[:, None]
  low_F, centre_F, high_F = edge_F[:-2], edge_F[1:-1], edge_F[2:]
  rise_KF = (frequency_K1 - low_F) / (centre_F - low_F)
  fall_KF = (high_F - frequency_K1) / (high_F - centre_F)
  return np.maximum(0.0, np.minimum(rise_KF, fall_KF)) * (2 / (high_F - low_F))


def _mel(hertz: float) -> float:
  if hertz < _BREAK_HERTZ:
    return hertz / _LINEAR_HERTZ
  return _BREAK_HERTZ / _LINEAR_HERTZ + np.log(hertz / _BREAK_HERTZ) / _LOG_STEP


def _hertz(mel_F: np.ndarray) -> np.ndarray:
  first = _BREAK_HERTZ / _LINEAR_HERTZ
  return np.where(mel_F < first, mel_F * _LINEAR_HERTZ, _BREAK_HERTZ * np.exp(_LOG_STEP * (mel_F - first)))


def read_wav(path: str | os.PathLike[str], rate: int) -> np.ndarray:
  """Reads a sound file as float32 N in [-1, 1]: the mean of its channels, resampled to `rate`.

  If a file is shorter than its header says, or its header has no length, this reads the samples that are there.

  Args:
    path: a .wav file with integers or floating-point numbers of any depth, or another format of libsndfile, such as
      .flac and .mp3.
    rate: samples per second of the result.

  Raises:
    UserError: the file cannot be read, has no samples, or has samples that are not finite.
  """
  path = expanded(path)
  try:
    with soundfile.SoundFile(io.BytesIO(with_size(path.read_bytes()))) as file:
      stored_rate, blocks = file.samplerate, [file.read(_BLOCK, 'float32', always_2d=True)]
      while len(blocks[-1]) == _BLOCK:  # in blocks, because a header may claim more samples than fit in memory
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
      f'{wrong_N[0] + 1}; write it again from its source')
  return resample(sound_NC.mean(axis=1), stored_rate, rate)


def with_size(data: bytes) -> bytes:
  """Fills in the size of the sound in a .wav file from a stream, which has 0 there. Other files are unchanged."""
  if data[:4] != b'RIFF' or data[8:12] != b'WAVE' or (start := _chunk(data, 12, b'data')) is None:
    return data
  size = len(data) - start - 8
  if data[start + 4:start + 8] != bytes(4) or _chunk(data, start + 8) in (len(data), len(data) + 1):
    return data  # the size is known, or other chunks follow and there is no sound
  return b''.join([
    data[:4],
    struct.pack('<I', min(len(data) - 8, _MAX_CHUNK_SIZE)), data[8:start + 4],
    struct.pack('<I', min(size, _MAX_CHUNK_SIZE)), data[start + 8:]
  ])


def _chunk(data: bytes, place: int, name: bytes = b'') -> int | None:
  """The offset of the chunk `name`, searched from chunk offset `place`; without a name, the end of the last chunk."""
  while place + 8 <= len(data) and data[place:place + 4] != name and all(
      32 <= byte < 127 for byte in data[place:place + 4]):
    place += 8 + int.from_bytes(data[place + 4:place + 8], 'little')
    place += place % 2  # chunks begin at even offsets
  return place if not name or data[place:place + 4] == name and place + 8 <= len(data) else None


def resample(sound_N: np.ndarray, rate: int, wanted: int) -> np.ndarray:
  """Resamples a sound to another rate in samples per second; removes frequencies above half the new rate."""
  if rate == wanted:
    return sound_N
  samples = max(1, round(len(sound_N) * wanted / rate))
  return (np.fft.irfft(np.fft.rfft(sound_N)[:samples // 2 + 1], samples) * (samples / len(sound_N))).astype(np.float32)


def fit(sound_N: np.ndarray, samples: int) -> np.ndarray:
  """Cuts a sound to so many samples, or appends silence."""
  return np.pad(sound_N[:samples], (0, max(0, samples - len(sound_N))))
