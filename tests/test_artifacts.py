"""Artifacts become files that others read: Pillow, PyAV, soundfile, TensorBoard."""

from fractions import Fraction
import io
import sys

import av
import numpy as np
from PIL import Image
import pytest
import soundfile
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from genjax import artifacts
from genjax.artifacts import Clip, Sound
from genjax.data.video import films
from genjax.training.monitoring import logs
from genjax.types import UserError


def moving(frames: int, height: int, width: int, channels: int = 3) -> np.ndarray:
  """A bright square that moves to the right over a ramp."""
  clip = np.zeros((frames, height, width, channels), np.uint8)
  clip[:] = np.linspace(0, 120, width).astype(np.uint8)[:, None]
  for number, frame in enumerate(clip):
    frame[4:12, 2 * number:2 * number + 8] = 250
  return clip


def shown(data: bytes) -> tuple[np.ndarray, list[float], float]:
  """Frames, their times and the length of a film."""
  with films.opened(data) as film:
    times = film.times()
    return np.stack(film.at(times)), [float(time) for time in times], float(film.facts().seconds)


def test_pictures():
  random = np.random.default_rng(0)
  for channels in (1, 3, 4):
    picture = random.integers(0, 256, (13, 7, channels), np.uint8)
    for ending in artifacts.endings(picture):
      with Image.open(io.BytesIO(artifacts.encode(picture, ending))) as image:
        assert image.size == (7, 13) and image.format == {'.jpg': 'JPEG'}.get(ending, ending[1:].upper())
        if ending in ('.png', '.webp') and channels < 4:
          np.testing.assert_array_equal(np.asarray(image.convert('L' if channels == 1 else 'RGB')).reshape(13, 7, -1),
                                        picture)


@pytest.mark.parametrize('rate', [8, 24, 29.97, 60])
def test_clips(rate):
  for size, channels in (((32, 48), 3), ((31, 45), 1)):
    clip = Clip(moving(12, *size, channels), rate, 'a square')
    colours = clip.frames_THWC.repeat(3 // channels, axis=3)
    for ending in artifacts.endings(clip):
      frames, times, seconds = shown(artifacts.encode(clip, ending))
      if ending == '.gif' and rate > 50:  # every second frame
        assert len(frames) == 6 and seconds == pytest.approx(12 / rate, abs=0.011)
        continue
      # Whole ms in .webp, whole 10 ms in .gif, exact in .mp4
      tick = {'.mp4': 1e-6, '.webp': 1e-3, '.gif': 1e-2}[ending]
      np.testing.assert_allclose(times, np.arange(12) / rate, atol=tick)
      assert seconds == pytest.approx(12 / rate, abs=tick)
      if ending == '.webp':
        np.testing.assert_array_equal(frames, colours)
      elif ending == '.mp4':
        assert frames.shape[1:3] == (32, 48 if channels == 3 else 46)  # even
        assert np.abs(frames[:, :size[0], :size[1]].astype(int) - colours).mean() < 6


def test_what_an_mp4_is():
  data = artifacts.encode(Clip(moving(6, 17, 33), 24, 'a square'), '.mp4')
  assert artifacts.encode(Clip(moving(6, 17, 33), 24, 'a square'), '.mp4') == data
  with av.open(io.BytesIO(data)) as container:
    (stream,) = container.streams
    assert stream.codec_context.name == 'h264' and stream.codec_context.pix_fmt == 'yuv420p'
    assert stream.average_rate == 24 and stream.frames == 6 and container.metadata['title'] == 'a square'
  with av.open(io.BytesIO(artifacts.encode(Clip(moving(6, 16, 32), 30000 / 1001), '.mp4'))) as container:
    assert container.streams.video[0].average_rate == Fraction(30000, 1001)


def test_sounds():
  random = np.random.default_rng(0)
  for shape in ((500,), (500, 1), (500, 2)):
    sound = Sound(random.uniform(-1, 1, shape).astype(np.float32), 22_050)
    for ending in artifacts.endings(sound):
      read, rate = soundfile.read(io.BytesIO(artifacts.encode(sound, ending)), dtype='float32')
      assert rate == 22_050
      np.testing.assert_allclose(read.reshape(shape), sound.samples_SC, atol=1 / 2**15)
  beyond = Sound(np.asarray([2.0, -2.0, np.nan, np.inf, 0.5], np.float32), 8000)
  read, _ = soundfile.read(io.BytesIO(artifacts.encode(beyond, '.wav')))
  np.testing.assert_allclose(read, [1, -1, 0, 0, 0.5], atol=1 / 2**15)


def test_a_spectrogram_shows_where_a_tone_is():
  time = np.arange(16_000) / 16_000
  low, high = (artifacts.spectrogram(Sound(np.sin(2 * np.pi * hertz * time), 16_000)) for hertz in (300.0, 5000.0))
  rows = [picture.astype(int).sum(axis=(1, 2)).argmax() for picture in (low, high)]
  assert low.dtype == np.uint8 and low.shape[0] == 160 and low.shape[1] <= 1024 and rows[1] < 40 < 120 < rows[0]
  half = np.where(time < 0.5, np.sin(2 * np.pi * 1000 * time), 0.0)
  bright = artifacts.spectrogram(Sound(half, 16_000)).astype(int).sum(axis=(0, 2))
  assert bright[:len(bright) // 2 - 8].min() > 0 and bright[len(bright) // 2 + 8:].max() == 0
  assert artifacts.spectrogram(Sound(np.zeros(3, np.float32), 8000)).shape[0] == 160


def test_files_by_their_endings(tmp_path):
  clip, sound, picture = Clip(moving(3, 16, 16), 8), Sound(np.zeros(100), 8000), np.zeros((4, 4, 3), np.uint8)
  for value, usual in ((clip, '.mp4'), (sound, '.wav'), (picture, '.png'), ('a text', '.txt')):
    assert artifacts.write(tmp_path / 'new' / 'x.v2', value).name == f'x.v2{usual}'
    for ending in artifacts.endings(value):
      assert artifacts.write(tmp_path / f'y{ending}', value) == tmp_path / f'y{ending}'
  for value, ending in ((clip, '.png'), (sound, '.mp4'), (picture, '.wav'), ('a text', '.png')):
    with pytest.raises(UserError, match=rf'a {artifacts.word(value)} is written as .*, got .\{ending}'):
      artifacts.write(tmp_path / f'z{ending}', value)
  assert not list(tmp_path.glob('z*'))
  for wrong in (lambda: Clip(np.zeros((2, 4, 4, 3)), 8), lambda: Clip(moving(2, 16, 16), 0),
                lambda: Sound(np.zeros(4, np.int16), 8000), lambda: Sound(np.zeros(0), 8000)):
    with pytest.raises(ValueError, match='got'):
      wrong()


def test_without_pyav_the_package_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, 'av', None)
  for asked in (lambda: artifacts.encode(Clip(moving(2, 16, 16), 8), '.mp4'), lambda: artifacts.check('.mp4'),
                lambda: artifacts.check_shown(Clip(moving(2, 16, 16), 8))):
    with pytest.raises(UserError, match=r'pip install "genjax-research\[media\]"'):
      asked()
  artifacts.check('.webp')
  assert artifacts.encode(Clip(moving(2, 16, 16), 8), '.webp')[:4] == b'RIFF'


def test_without_an_h264_encoder_others_are_named(monkeypatch):
  monkeypatch.setattr(av, 'codecs_available', {'vp9'})
  with pytest.raises(UserError, match=r'no encoder libx264.*write \.gif or \.webp'):
    artifacts.check('.mp4')


def test_logs_and_tensorboard(tmp_path):
  writer = logs.Writer(tmp_path)
  writer.start(0)
  clip = writer.artifact(5, 'clip', Clip(moving(4, 16, 16), 8))
  sound = writer.artifact(5, 'sound', Sound(np.zeros((800, 2)), 8000))
  writer.close()
  assert [path.name for path in clip] == ['step_0000005_clip.mp4', 'step_0000005_clip.webp']
  assert [path.name for path in sound] == ['step_0000005_sound.wav', 'step_0000005_sound_spectrogram.png']
  board = EventAccumulator(str(tmp_path / 'tensorboard'))
  board.Reload()
  assert sorted(board.Tags()['images']) == ['clip', 'sound_spectrogram'] and board.Tags()['audio'] == ['sound']
  with Image.open(io.BytesIO(board.Images('clip')[0].encoded_image_string)) as image:
    assert image.format == 'GIF' and image.n_frames == 4  # type: ignore[attr-defined]
  (audio,) = board.Audio('sound')
  read, rate = soundfile.read(io.BytesIO(audio.encoded_audio_string))
  assert (audio.sample_rate, audio.length_frames, audio.content_type) == (8000, 800, 'audio/wav')
  assert rate == 8000 and read.shape == (800, 2)


def test_notebooks_show_clips_and_play_sounds():
  assert 'data:image/webp;base64,' in Clip(moving(2, 16, 16), 8)._repr_html_()
  assert '<audio controls' in Sound(np.zeros(100), 8000)._repr_html_()
