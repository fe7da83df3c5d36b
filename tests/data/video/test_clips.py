"""Clips are cut from films by their times: frames equal PyAV's, at any rate of any container."""

from fractions import Fraction
import json
import pathlib

import av
import numpy as np
from PIL import Image
import pytest

from genjax.data import folder as folder_lib
from genjax.data import pipeline
from genjax.data.video import clips, films
from genjax.data.video.clips import ClipOptions
from genjax.types import UserError

RATES = (Fraction(24), Fraction(25), Fraction(30000, 1001), Fraction(60))
CODECS = {'.mp4': ('libx264', 'yuv420p'), '.mov': ('libx264', 'yuv444p'), '.webm': ('libvpx-vp9', 'yuv420p'),
          '.mkv': ('ffv1', 'bgr0'), '.avi': ('mpeg4', 'yuv420p')}
SIDE = 32
FULL = (SIDE, SIDE, 3)


def numbered(count: int) -> np.ndarray:
  """Frames whose grey tells their number: frame n has 4 n."""
  return np.full((count, *FULL), (4 * np.arange(count, dtype=np.uint8))[:, None, None, None], np.uint8)


def number_of(frames_THWC: np.ndarray) -> list[int]:
  return np.round(frames_THWC.reshape(len(frames_THWC), -1).mean(axis=1) / 4).astype(int).tolist()


def write(path: pathlib.Path, frames_THWC: np.ndarray, rate=Fraction(25), stamps=None, turn=0, **options):
  """Writes a film; `stamps` are the times of its frames in ms."""
  codec, pixels = CODECS[path.suffix]
  with av.open(str(path), 'w') as container:
    stream = container.add_stream(codec, rate=rate, options={name: str(value) for name, value in options.items()})
    stream.height, stream.width, stream.pix_fmt = *frames_THWC.shape[1:3], pixels
    if turn:
      stream.set_display_rotation(turn)
    if stamps is not None:
      stream.codec_context.time_base = Fraction(1, 1000)
    for number, frame_HWC in enumerate(frames_THWC):
      frame = av.VideoFrame.from_ndarray(frame_HWC, format='rgb24')
      if stamps is not None:
        frame.pts, frame.time_base = stamps[number], Fraction(1, 1000)
      container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
  return path


def decoded(path: pathlib.Path) -> np.ndarray:
  """All frames as PyAV gives them."""
  with av.open(str(path)) as container:
    return np.stack([frame.to_ndarray(format='rgb24') for frame in container.decode(video=0)])


@pytest.mark.parametrize('ending', CODECS)
def test_frames_and_times_of_every_container_and_rate(tmp_path, ending):
  for rate in RATES:
    path = write(tmp_path / f'{float(rate):.2f}{ending}', numbered(50), rate, g=12)
    expected = decoded(path)
    with films.opened(path) as film:
      times, facts = film.times(), film.facts()
    assert len(times) == 50 and (facts.height, facts.width) == (SIDE, SIDE)
    np.testing.assert_allclose([float(time) for time in times], np.arange(50) / float(rate), atol=6e-4)
    assert float(facts.seconds) == pytest.approx(50 / float(rate), abs=1e-3)
    # All frames at the rate of the file, as frames that come, and the first and last eight
    for options in (ClipOptions(50, FULL), ClipOptions(50, FULL, rate=float(rate)), ClipOptions(50, FULL, rate=rate)):
      np.testing.assert_array_equal(clips.read(path, options), expected)
    last = ClipOptions(8, FULL, rate=rate, start='random')
    np.testing.assert_array_equal(clips.read(path, last, 0.0), expected[:8])
    np.testing.assert_array_equal(clips.read(path, last, 1 - 1e-9), expected[-8:])
    # At other rates: the last frame that begins at or before each time, of which .webm and .mkv keep whole ms
    stored = times if ending in ('.webm', '.mkv') else [n / rate for n in range(50)]
    slack = Fraction(1, 2000) if ending in ('.webm', '.mkv') else 0
    for wanted in (8, 10.0, 24, 29.97, 90):
      count = int(50 / rate * Fraction(str(wanted)))
      shown = [max(n for n in range(50) if stored[n] <= k / Fraction(str(wanted)) + slack)
               for k in range(count)]
      np.testing.assert_array_equal(clips.read(path, ClipOptions(count, FULL, rate=wanted)), expected[shown])


def test_real_film(tmp_path, shared_data):
  """A film of the sample videos, stored without loss, comes back as it was, from the file and from its bytes."""
  entry = next(entry for entry in json.loads((shared_data / 'video-real64' / 'index.json').read_text())
               if entry['frames'] <= 40)
  with Image.open(shared_data / 'video-real64' / entry['file']) as sheet:
    sheet = np.asarray(sheet.convert('RGB'))
  grid = sheet.reshape(sheet.shape[0] // 64, 64, sheet.shape[1] // 64, 64, 3).swapaxes(1, 2).reshape(-1, 64, 64, 3)
  frames = np.ascontiguousarray(grid[:entry['frames']])
  path = write(tmp_path / 'film.mkv', frames, Fraction(entry['fps']))
  options = ClipOptions(len(frames), (64, 64, 3), rate=entry['fps'])
  np.testing.assert_array_equal(clips.read(path, options), frames)
  np.testing.assert_array_equal(clips.read(path.read_bytes(), options), frames)
  path = write(tmp_path / 'film.mp4', frames, Fraction(entry['fps']))
  np.testing.assert_array_equal(clips.read(path, options), decoded(path))
  half = clips.read(path, ClipOptions(len(frames) // 2, (64, 64, 3), rate=entry['fps'] / 2))
  np.testing.assert_array_equal(half, decoded(path)[:len(frames) // 2 * 2:2])


def test_variable_rates(tmp_path):
  """Times are those of the file: 20 frames of 50 ms, then 10 of 200 ms, after a first one at 0.3 s."""
  stamps = [300 + 50 * n for n in range(20)] + [1300 + 200 * n for n in range(10)]
  path = write(tmp_path / 'film.mp4', numbered(30), stamps=stamps, g=7)
  with films.opened(path) as film:
    np.testing.assert_allclose([float(time) for time in film.times()], (np.asarray(stamps) - 300) / 1000, atol=1e-6)
  shown = number_of(clips.read(path, ClipOptions(14, FULL, rate=5)))
  assert shown == [0, 4, 8, 12, 16, 20, 21, 22, 23, 24, 25, 26, 27, 28]


def test_parts_and_strides(tmp_path):
  path = write(tmp_path / 'film.mp4', numbered(50), g=10)
  assert number_of(clips.read(path, ClipOptions(4, FULL, stride=5))) == [0, 5, 10, 15]
  assert number_of(clips.read(path, ClipOptions(4, FULL, stride=5, start='middle'))) == [17, 22, 27, 32]
  assert number_of(clips.read(path, ClipOptions(4, FULL, rate=25, start='middle'))) == [23, 24, 25, 26]
  assert number_of(clips.read(path, ClipOptions(4, FULL, rate=25, stride=2))) == [0, 2, 4, 6]
  starts = {number_of(clips.read(path, ClipOptions(4, FULL, rate=25, start='random'), draw))[0]
            for draw in np.linspace(0, 0.999, 200)}
  assert starts == set(range(47))  # every start that leaves four frames, none else


def test_a_source_draws_parts_by_seed_and_position(tmp_path):
  for number in range(3):
    write(tmp_path / f'{number}.mp4', numbered(40), g=10)

  def batches(start):
    options = folder_lib.Options('clips', decoding=ClipOptions(4, FULL, rate=25, start=start))
    return pipeline.Pipeline(lambda: folder_lib.open_folder(tmp_path, 'train', options), 6, seed=3)

  first, again = batches('random').batch(0)['clip'], batches('random').batch(0)['clip']
  assert first.shape == (6, 4, *FULL) and first.dtype == np.uint8
  np.testing.assert_array_equal(first, again)
  starts = [number_of(clip)[0] for clip in first]
  assert len(set(starts)) > 2
  rows = np.asarray([1, 4])
  np.testing.assert_array_equal(batches('random').batch(0, rows)['clip'], first[rows])
  assert [number_of(clip)[0] for clip in batches('first').batch(0)['clip']] == [0] * 6
  json.dumps(batches('random').fingerprint())


@pytest.mark.parametrize('turn', [90, 180, 270])
def test_films_are_turned_as_they_say(tmp_path, turn):
  frames = np.zeros((4, 32, 48, 3), np.uint8)
  frames[:, :12, :12] = 255  # top left
  path = write(tmp_path / 'film.mp4', frames, turn=turn)
  with films.opened(path) as film:
    facts, (frame,) = film.facts(), film.at([Fraction(0)])
  expected = np.rot90(frames[0], turn // 90)  # the display matrix turns counterclockwise
  assert frame.shape == expected.shape == (facts.height, facts.width, 3)
  assert np.abs(frame.astype(int) - expected).mean() < 12


def test_pictures_that_move_and_folders_of_frames(tmp_path):
  frames = numbered(6)
  pictures = [Image.fromarray(frame) for frame in frames]
  durations = [40, 40, 200, 40, 40, 40]
  for ending, options in (('.webp', dict(lossless=True)), ('.gif', {})):
    path = tmp_path / f'film{ending}'
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=durations, loop=0, **options)
    with films.opened(path) as film:
      assert [float(time) for time in film.times()] == [0, 0.04, 0.08, 0.28, 0.32, 0.36]
      assert float(film.facts().seconds) == 0.4
    np.testing.assert_array_equal(clips.read(path, ClipOptions(6, FULL)), frames)
    assert number_of(clips.read(path.read_bytes(), ClipOptions(10, FULL, rate=25))) == [0, 1, 2, 2, 2, 2, 2, 3, 4, 5]
  folder = tmp_path / 'frames'
  folder.mkdir()
  exif = Image.Exif()
  exif[0x0112] = 3  # upside down
  for number in range(12):
    Image.fromarray(numbered(12)[number]).save(folder / f'frame{number}.png', exif=exif)
  assert number_of(clips.read(folder, ClipOptions(12, FULL))) == list(range(12))  # 2 before 10
  assert number_of(clips.read(folder, ClipOptions(4, FULL, rate=5, folder_rate=15))) == [0, 3, 6, 9]
  contents = [path.read_bytes() for path in films.frames_of(folder)]
  assert number_of(clips.read(contents, ClipOptions(4, FULL, start='middle'))) == [4, 5, 6, 7]


def test_sizes(tmp_path):
  frames = np.zeros((4, 32, 64, 3), np.uint8)
  frames[:, :, 16:48] = 200  # the middle square
  path = write(tmp_path / 'film.mkv', frames)
  with pytest.raises(UserError, match='32 x 64 pixels.*set resize'):
    clips.read(path, ClipOptions(4, (16, 16, 3)))
  cropped = clips.read(path, ClipOptions(4, (16, 16, 3), resize='bilinear', crop=True))
  stretched = clips.read(path, ClipOptions(4, (16, 16, 3), resize='bilinear'))
  # The filter reaches one pixel beyond the cut
  assert cropped[:, :, 1:-1].min() == 200 and stretched[..., 0, :].max() == 0
  expected = Image.fromarray(frames[0]).resize((16, 16), Image.Resampling.BILINEAR)
  np.testing.assert_array_equal(stretched[0], np.asarray(expected))
  grey = clips.read(path, ClipOptions(4, (32, 64, 1)))
  np.testing.assert_array_equal(grey[0, ..., 0], np.asarray(Image.fromarray(frames[0]).convert('L')))


def test_short_films(tmp_path):
  path = write(tmp_path / 'film.mp4', numbered(10))
  for options, words in ((ClipOptions(11, FULL), 'has 10 frames, and a clip of 11 with stride 1 needs 11'),
                         (ClipOptions(11, FULL, rate=25), 'lasts 0.400 s, 10 frames at 25 a second.* has 11'),
                         (ClipOptions(6, FULL, rate=12.5), '5 frames at 12.5 a second.* has 6')):
    with pytest.raises(clips.Short, match=rf'film\.mp4 {words}' if words[0] in 'hl' else words):
      clips.read(path, options)
  for options in (ClipOptions(12, FULL, short='repeat'), ClipOptions(12, FULL, rate=25, short='repeat')):
    assert number_of(clips.read(path, options)) == [*range(10), 9, 9]
  assert number_of(clips.read(path, ClipOptions(10, FULL, rate=25))) == list(range(10))


def test_broken_films_are_named(tmp_path):
  good = write(tmp_path / 'good.mp4', numbered(50), g=10)
  data = good.read_bytes()
  (tmp_path / 'text.mp4').write_text('no film')
  (tmp_path / 'empty.mp4').write_bytes(b'')
  (tmp_path / 'head.mp4').write_bytes(data[:len(data) // 2])
  (tmp_path / 'empty').mkdir()
  Image.new('RGB', (8, 8)).save(tmp_path / 'still.gif')
  (tmp_path / 'bad').mkdir()
  (tmp_path / 'bad' / '0.png').write_bytes(b'\x89PNG')
  bad = [tmp_path / name for name in ('text.mp4', 'empty.mp4', 'head.mp4', 'empty', 'still.gif', 'bad', 'gone.mp4')]
  short = write(tmp_path / 'short.mp4', numbered(3))
  found = clips.scan([good, *bad, short], ClipOptions(8, FULL))
  assert found.kept == (0,) and list(found.broken) == list(map(str, bad)) and list(found.short) == [str(short)]
  assert all(name in told for name, told in found.broken.items())
  for path in bad:
    with pytest.raises(films.Broken, match=path.name):
      clips.read(path, ClipOptions(8, FULL))


def test_a_film_that_ends_before_its_header_says(tmp_path):
  """The header of a .mov stands first here, so that a copy that broke off has a header that promises all."""
  with av.open(str(tmp_path / 'film.mp4'), 'w', options={'movflags': 'faststart'}) as container:
    stream = container.add_stream('libx264', rate=25, options={'g': '5', 'qp': '0'})
    stream.height, stream.width, stream.pix_fmt = 64, 64, 'yuv420p'
    noise = np.random.default_rng(0)
    for _ in range(50):
      frame = av.VideoFrame.from_ndarray(noise.integers(0, 256, (64, 64, 3), np.uint8), format='rgb24')
      container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
  data = (tmp_path / 'film.mp4').read_bytes()
  assert clips.read(data, ClipOptions(50, (64, 64, 3))).shape[0] == 50
  cut = tmp_path / 'cut.mp4'
  cut.write_bytes(data[:len(data) // 2])
  with pytest.raises(films.Broken, match=r'cut\.mp4'):
    clips.read(cut, ClipOptions(50, (64, 64, 3), rate=25))
  with pytest.raises(films.Broken, match=r'cut\.mp4'):
    clips.read(cut, ClipOptions(50, (64, 64, 3)))


def test_only_what_a_clip_needs_is_decoded(tmp_path, monkeypatch):
  path = write(tmp_path / 'film.mp4', np.concatenate([numbered(60)] * 10), g=20)
  seen = []
  inside = films._Video._decode

  def count(self, start):
    for frame in inside(self, start):
      seen.append(frame.pts)
      yield frame

  monkeypatch.setattr(films._Video, '_decode', count)
  clips.read(path, ClipOptions(4, FULL, rate=25, start='random'), 0.8)
  assert len(seen) < 40 < 600


def test_options_are_checked():
  for name, wrong in (('frames', 0), ('rate', -1.0), ('start', 'end'), ('short', 'drop'), ('resize', 'cubic'),
                      ('shape', (8, 8, 4))):
    with pytest.raises(UserError, match=name):
      ClipOptions(**{'frames': 4, 'shape': FULL, name: wrong})
