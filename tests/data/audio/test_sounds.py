"""Sounds are cut from files: samples equal soundfile's, parts are those of the whole, broken files are named."""

import io
import json
import pathlib

import numpy as np
import pytest
from scipy import signal
import soundfile

from genjax.data import folder as folder_lib
from genjax.data import pipeline
from genjax.data.audio import sounds
from genjax.data.audio.sounds import SoundOptions
from genjax.types import UserError

RATES = (8000, 11_025, 16_000, 22_050, 44_100, 48_000)


@pytest.fixture
def digits(shared_data):
  """Ten spoken digits at 8 kHz, int16."""
  with np.load(shared_data / 'fsdd' / 'fsdd.npz') as file:
    return np.split(file['audio'], file['offsets'][1:-1])[:2000:200]


def write(path: pathlib.Path, sound, rate=8000, **options) -> pathlib.Path:
  soundfile.write(path, sound, rate, **options)
  return path


def test_spoken_digits_of_several_rates(tmp_path, digits):
  for number, sound in enumerate(digits):
    rate = RATES[number % len(RATES)]
    path = write(tmp_path / f'{number}{(".wav", ".flac")[number % 2]}', sound, rate)
    stored, _ = soundfile.read(path, dtype='float32')
    np.testing.assert_array_equal(stored, sound / np.float32(2**15))
    same = SoundOptions(len(stored) / rate, rate)
    np.testing.assert_array_equal(sounds.read(path, same), stored)
    np.testing.assert_array_equal(sounds.read(path.read_bytes(), same), stored)
    for wanted in (8000, 16_000, 22_050):
      whole = signal.resample_poly(stored, wanted, rate).astype(np.float32)
      length = 0.25 * len(whole) / wanted  # seconds
      for draw in (0.0, 0.37, 0.999):
        part = sounds.read(path, SoundOptions(length, wanted, start='random'), draw)
        first = int(draw * (len(whole) - len(part) + 1))
        assert part.dtype == np.float32 and len(part) == round(length * wanted)
        np.testing.assert_allclose(part, whole[first:first + len(part)], atol=2e-6)


def test_a_tone_keeps_its_frequency(tmp_path):
  """At any rate: 440 Hz, and of 6 kHz nothing where the rate has no place for it."""
  time = np.arange(44_100) / 44_100
  tones = [0.4 * np.sin(2 * np.pi * hertz * time) for hertz in (440, 6000)]
  path = write(tmp_path / 'tone.wav', sum(tones), 44_100)
  for rate in (8000, 16_000, 48_000):
    sound = sounds.read(path, SoundOptions(1.0, rate))
    level = np.abs(np.fft.rfft(sound)) / rate * 2
    assert level[440] == pytest.approx(0.4, abs=0.01)
    if rate > 12_000:
      assert level[6000] == pytest.approx(0.4, abs=0.01)
    else:
      assert np.delete(level, range(435, 446)).max() < 0.01


def test_channels(tmp_path):
  stereo = np.stack([np.linspace(-0.5, 0.5, 800), np.zeros(800)], axis=1)
  path = write(tmp_path / 'stereo.wav', stereo, subtype='FLOAT')
  np.testing.assert_array_equal(sounds.read(path, SoundOptions(0.1, 8000, channels=2)), stereo.astype(np.float32))
  np.testing.assert_allclose(sounds.read(path, SoundOptions(0.1, 8000)), stereo.mean(axis=1), atol=1e-7)
  mono = write(tmp_path / 'mono.wav', stereo[:, 0], subtype='FLOAT')
  both = sounds.read(mono, SoundOptions(0.1, 8000, channels=2))
  np.testing.assert_array_equal(both, stereo[:, :1].repeat(2, axis=1).astype(np.float32))
  many = write(tmp_path / 'many.wav', np.zeros((800, 4)))
  assert sounds.read(many, SoundOptions(0.1, 8000)).shape == (800,)
  with pytest.raises(UserError, match='4 channels, and 2 are asked for'):
    sounds.read(many, SoundOptions(0.1, 8000, channels=2))


def test_short_files(tmp_path):
  path = write(tmp_path / 'word.wav', np.linspace(0.1, 0.5, 800))
  stored, _ = soundfile.read(path, dtype='float32')
  for short in ('error', 'skip'):
    with pytest.raises(sounds.Short, match=r'word\.wav has 0.100 s, and 0.125 s are asked for'):
      sounds.read(path, SoundOptions(0.125, 8000, short=short))
  padded = sounds.read(path, SoundOptions(0.125, 8000, short='pad'))
  np.testing.assert_array_equal(padded, np.pad(stored, (0, 200)))
  repeated = sounds.read(path, SoundOptions(0.25, 8000, short='repeat'))
  np.testing.assert_array_equal(repeated, np.tile(stored, 3)[:2000])
  assert len(sounds.read(path, SoundOptions(0.125, 16_000, short='pad'))) == 2000
  assert len(sounds.read(path, SoundOptions(0.05, 8000, start='middle'))) == 400
  np.testing.assert_array_equal(sounds.read(path, SoundOptions(0.05, 8000, start='middle')), stored[200:600])


def test_broken_files_are_named(tmp_path):
  good = write(tmp_path / 'good.wav', np.zeros(8000))
  (tmp_path / 'text.wav').write_text('no sound')
  (tmp_path / 'nothing.wav').write_bytes(b'')
  write(tmp_path / 'empty.wav', np.zeros(0))
  write(tmp_path / 'nan.wav', np.asarray([0.0, np.nan] * 4000), subtype='FLOAT')
  data = write(tmp_path / 'cut.flac', np.random.default_rng(0).uniform(-1, 1, 80_000)).read_bytes()
  (tmp_path / 'cut.flac').write_bytes(data[:len(data) // 2])
  short = write(tmp_path / 'short.wav', np.zeros(100))
  header = [tmp_path / name for name in ('text.wav', 'nothing.wav', 'empty.wav', 'gone.wav')]
  found = sounds.scan([good, *header, short], SoundOptions(0.5, 8000))
  assert found.kept == (0,) and list(found.broken) == list(map(str, header)) and list(found.short) == [str(short)]
  for path, seconds in ((tmp_path / 'nan.wav', 0.5), (tmp_path / 'cut.flac', 9.9), *((path, 0.5) for path in header)):
    with pytest.raises(sounds.Broken, match=path.name):
      sounds.read(path, SoundOptions(seconds, 8000))


def test_a_stream_whose_header_has_no_length():
  file = io.BytesIO()
  soundfile.write(file, np.full(1000, 0.25), 8000, format='WAV')
  data = bytearray(file.getvalue())
  place = data.index(b'data')
  data[place + 4:place + 8] = bytes(4)
  assert sounds.read(bytes(data), SoundOptions(0.125, 8000)).tolist() == [0.25] * 1000


def test_only_what_a_sound_needs_is_read(tmp_path, monkeypatch):
  path = write(tmp_path / 'long.wav', np.zeros(8000 * 60))
  asked = []
  inside = soundfile.SoundFile.read
  monkeypatch.setattr(soundfile.SoundFile, 'read',
                      lambda self, frames, *rest, **more: asked.append(frames) or inside(self, frames, *rest, **more))
  sounds.read(path, SoundOptions(1.0, 16_000, start='random'), 0.7)
  assert len(asked) == 1 and asked[0] < 8100


def test_a_source_draws_parts_by_seed_and_position(tmp_path):
  write(tmp_path / 'ramp.wav', np.linspace(0, 1, 8000), subtype='FLOAT')

  def batches(start):
    options = folder_lib.Options('sounds', decoding=SoundOptions(0.1, 8000, start=start))
    return pipeline.Pipeline(lambda: folder_lib.open_folder(tmp_path, 'train', options), 6, seed=3)

  first = batches('random').batch(0)['sound']
  assert first.shape == (6, 800) and first.dtype == np.float32 and len(set(first[:, 0].tolist())) == 6
  np.testing.assert_array_equal(batches('random').batch(0, np.asarray([1, 4]))['sound'], first[[1, 4]])
  assert set(batches('first').batch(0)['sound'][:, 0].tolist()) == {0.0}
  json.dumps(batches('random').fingerprint())


def test_options_are_checked():
  for name, wrong in (('seconds', 0.0), ('seconds', 1e-6), ('rate', 0), ('channels', 3), ('start', 'end'),
                      ('short', 'drop')):
    with pytest.raises(UserError, match=name):
      SoundOptions(**{'seconds': 1.0, 'rate': 8000, name: wrong})
