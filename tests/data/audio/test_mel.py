"""Log-mel frames: bands of tones, time, loudness; sound files, whole, streamed and damaged."""

import io
import struct
import wave

import numpy as np
import pytest
from scipy.io import wavfile
import soundfile

from genjax.data.audio.mel import LogMel, fit, mel_filters, read_wav, resample
from genjax.types import UserError

SMALL = LogMel(rate=8_000, bands=20, window=200, hop=80)


def tone(hertz, samples=8_000):
  return 0.5 * np.sin(2 * np.pi * hertz * np.arange(samples) / 8_000)


def test_bands_have_unit_area_and_rise_as_mels_do():
  filters_KF = mel_filters(10, 8_000, 8_000)  # frequencies 1 Hz apart
  np.testing.assert_allclose(filters_KF.sum(axis=0), 1.0, atol=1e-3)
  peaks_F = filters_KF.argmax(axis=0)
  assert np.ptp(np.diff(peaks_F[peaks_F < 1000])) <= 1  # even below 1 kHz
  ratios = peaks_F[5:] / peaks_F[4:-1]
  np.testing.assert_allclose(ratios, ratios[0], atol=5e-3)  # and in ratio above


@pytest.mark.parametrize('hertz', [300, 1000, 3200])
def test_a_tone_is_loudest_in_its_band(hertz):
  frames_SF = SMALL(tone(hertz))
  assert frames_SF.shape == (100, 20) and frames_SF.dtype == np.float32
  assert (frames_SF[2:-2].argmax(axis=1) == mel_filters(20, 200, 8_000)[hertz // 40].argmax()).all()


def test_silence_and_loudness():
  """Silence lies two units below the loudest band; ten times the amplitude is half a unit more."""
  sound_N = fit(tone(500, 4_000), 8_000)
  frames_SF = SMALL(sound_N)
  np.testing.assert_allclose(frames_SF[55:], frames_SF.max() - 2.0, atol=1e-6)
  np.testing.assert_allclose(SMALL(10 * sound_N), frames_SF + 0.5, atol=1e-5)
  np.testing.assert_array_equal(SMALL(np.zeros(800)), -1.5)
  assert len(fit(sound_N, 100)) == 100


def test_a_tone_at_another_rate_is_the_same_tone():
  """That of 400 Hz stays; that of 3 kHz is above half of 4 kHz and goes."""
  np.testing.assert_allclose(resample(tone(400), 8_000, 16_000)[::2], tone(400), atol=1e-5)
  np.testing.assert_allclose(resample(tone(400) + tone(3_000), 8_000, 4_000), tone(400)[::2], atol=1e-5)
  assert len(resample(tone(400, 801), 8_000, 16_000)) == 1602


def test_wav_files(tmp_path):
  values_N = np.asarray([0, 1, -1, 32767, -32768], np.int16)
  kinds = {
    'int16': values_N, 'int32': values_N.astype(np.int32) * 2**16, 'float32': values_N.astype(np.float32) / 2**15,
    'stereo': np.stack([values_N, values_N], axis=1)
  }
  for name, stored in kinds.items():
    wavfile.write(tmp_path / name, 8_000, stored)
    np.testing.assert_array_equal(read_wav(tmp_path / name, 8_000) * 2**15, values_N)
  wavfile.write(tmp_path / 'uint8', 8_000, np.asarray([0, 128, 255], np.uint8))
  np.testing.assert_array_equal(read_wav(tmp_path / 'uint8', 8_000) * 128, [-128, 0, 127])
  with wave.open(str(tmp_path / 'int24'), 'wb') as file:
    file.setparams((1, 3, 8_000, 0, 'NONE', ''))
    file.writeframes(b''.join((256 * value).to_bytes(3, 'little', signed=True) for value in values_N.tolist()))
  np.testing.assert_array_equal(read_wav(tmp_path / 'int24', 8_000) * 2**15, values_N)
  wavfile.write(tmp_path / 'fast', 16_000, tone(400).astype(np.float32))
  np.testing.assert_array_equal(read_wav(tmp_path / 'fast', 8_000),
                                resample(tone(400).astype(np.float32), 16_000, 8_000))
  wavfile.write(tmp_path / 'empty', 8_000, values_N[:0])
  with pytest.raises(UserError, match='empty has no samples'):
    read_wav(tmp_path / 'empty', 8_000)
  (tmp_path / 'text').write_text('no sound')
  (tmp_path / 'cut').write_bytes((tmp_path / 'int16').read_bytes()[:30])
  for name in ('text', 'cut', 'absent'):
    with pytest.raises(UserError, match='cannot read .*as a .wav file'):
      read_wav(tmp_path / name, 8_000)


VALUES_N = (np.arange(-50, 50) * 300).astype(np.int16)


def wav(data, rate=8_000, channels=1, bits=16, kind=1, size=None, riff=None, after=b''):
  """The bytes of a .wav file; `size` and `riff` stand in the places of the true sizes."""
  size, riff = len(data) if size is None else size, 36 + len(data) if riff is None else riff
  form = struct.pack('<IHHIIHH', 16, kind, channels, rate, rate * channels * bits // 8, channels * bits // 8, bits)
  return b''.join([b'RIFF', struct.pack('<I', riff), b'WAVEfmt ', form, b'data', struct.pack('<I', size), data, after])


@pytest.mark.parametrize(
  'sizes',
  [dict(size=0),
   dict(size=0, riff=0),
   dict(size=2**32 - 1, riff=2**32 - 1),
   dict(size=2**31 - 1),
   dict(size=400)], ids=str)
def test_sizes_that_a_stream_left_open_or_a_copy_cut(tmp_path, sizes):
  (tmp_path / 'x.wav').write_bytes(wav(VALUES_N.tobytes(), **sizes))
  np.testing.assert_array_equal(read_wav(tmp_path / 'x.wav', 8_000) * 2**15, VALUES_N)
  (tmp_path / 'silent.wav').write_bytes(wav(bytes(160), **sizes))
  np.testing.assert_array_equal(read_wav(tmp_path / 'silent.wav', 8_000), np.zeros(80))


def test_half_a_sample_at_the_end_is_left_out(tmp_path):
  (tmp_path / 'x.wav').write_bytes(wav(VALUES_N.tobytes())[:-1])
  np.testing.assert_array_equal(read_wav(tmp_path / 'x.wav', 8_000) * 2**15, VALUES_N[:-1])


def test_one_sample_is_a_sound_at_any_rate(tmp_path):
  (tmp_path / 'x.wav').write_bytes(wav(VALUES_N[:1].tobytes()))
  for rate in (8_000, 16_000, 1_000):
    assert len(read_wav(tmp_path / 'x.wav', rate)) == max(1, rate // 8_000)


def test_headers_and_samples_that_are_no_sound(tmp_path):
  note = b'LIST' + struct.pack('<I', 5) + b'notes'
  broken = {
    'rate': wav(VALUES_N.tobytes(), rate=0), 'channels': wav(VALUES_N.tobytes(), channels=0), 'none': wav(
      b'', after=note), 'bits': wav(VALUES_N.tobytes(), bits=0), 'nothing': b'', 'header': wav(VALUES_N.tobytes())[:20]
  }
  for bad in (np.nan, np.inf, -np.inf):
    broken[str(bad)] = wav(np.asarray([0, bad, 0.5], np.float32).tobytes(), kind=3, bits=32)
  broken['large'] = wav(np.asarray([0, 1e300, 0.5], np.float64).tobytes(), kind=3, bits=64)
  for name, data in broken.items():
    (tmp_path / f'{name}.wav').write_bytes(data)
    words = r'.*number 2' if name in ('nan', 'inf', '-inf',
                                      'large') else ' has no samples' if name == 'none' else ' as a .wav file: '
    with pytest.raises(UserError, match=rf'{name}\.wav{words}'):
      read_wav(tmp_path / f'{name}.wav', 8_000)


@pytest.mark.parametrize('ending', ['flac', 'ogg', 'aiff'])
def test_other_formats_are_what_soundfile_reads(tmp_path, ending):
  path = tmp_path / f'a b@c.v2 ü.{ending}'
  stereo_NC = np.stack([VALUES_N, VALUES_N // 2], axis=1)
  soundfile.write(path, np.tile(stereo_NC, (40, 1)), 8_000)
  expected_NC, rate = soundfile.read(path, dtype='float32')
  np.testing.assert_array_equal(read_wav(path, rate), expected_NC.mean(axis=1))


def test_flac_of_unknown_length(tmp_path):
  """A stream cannot write the number of samples into what it began with; libsndfile does not read such files to their
  end."""
  file = io.BytesIO()
  soundfile.write(file, VALUES_N, 8_000, format='FLAC')
  data = bytearray(file.getvalue())
  data[21] &= 0xF0  # the number's high four bits, and the low 32
  data[22:26] = bytes(4)
  (tmp_path / 'x.flac').write_bytes(bytes(data))
  with pytest.raises(UserError, match=r'cannot read .*x\.flac'):
    read_wav(tmp_path / 'x.flac', 8_000)


def test_bad_options_and_sounds():
  with pytest.raises(UserError, match='must be at least 1'):
    LogMel(hop=0)
  for sound in (np.zeros(100), np.zeros((2, 500))):
    with pytest.raises(UserError, match='more than 100 samples'):
      SMALL(sound)
