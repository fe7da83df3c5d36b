"""docs/clips_and_sounds.md: its builders train on films and recordings, and samples come out as such."""

import json
import os
import pathlib
import re
import sys

import av
from ml_collections import ConfigDict as Config
import numpy as np
from PIL import Image
import pytest
import soundfile

import genjax
from genjax import options as options_lib
from genjax.artifacts import Clip, Sound
from genjax.cli.main import main
from genjax.data.pipeline import RowRandom
from genjax.data.video import clips as readers
from genjax.experiments import clips, render, sounds
from genjax.types import UserError

ROOT = pathlib.Path(__file__).parent.parent.parent
PAGE = (ROOT / 'docs' / 'clips_and_sounds.md').read_text()


def frames_of(shared: pathlib.Path) -> list[tuple[np.ndarray, float, str]]:
  """The shortest clips of video-real64: frames, rate and caption."""
  found = []
  for entry in sorted(json.loads((shared / 'video-real64' / 'index.json').read_text()), key=lambda row: row['frames']):
    with Image.open(shared / 'video-real64' / entry['file']) as sheet:
      sheet = np.asarray(sheet.convert('RGB'))
    rows, columns = sheet.shape[0] // 64, sheet.shape[1] // 64
    frames = sheet.reshape(rows, 64, columns, 64, 3).swapaxes(1, 2).reshape(-1, 64, 64, 3)[:entry['frames']]
    found.append((np.ascontiguousarray(frames), entry['fps'], entry['caption']))
  return found[:8]


@pytest.fixture
def films(tmp_path, shared_data):
  """A folder of captioned .mp4 files."""
  folder = tmp_path / 'films'
  folder.mkdir()
  lines = []
  for number, (frames, rate, caption) in enumerate(frames_of(shared_data)):
    with av.open(str(folder / f'{number}.mp4'), 'w') as container:
      stream = container.add_stream('libx264', rate=round(rate))
      stream.height, stream.width, stream.pix_fmt = 64, 64, 'yuv420p'
      for frame in frames:
        container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
      container.mux(stream.encode(None))
    lines.append(json.dumps({'file_name': f'{number}.mp4', 'text': caption}))
  (folder / 'metadata.jsonl').write_text('\n'.join(lines) + '\n')
  return folder


@pytest.fixture
def words(tmp_path, shared_data):
  """A folder of spoken digits of three rates, one folder a digit."""
  with np.load(shared_data / 'fsdd' / 'fsdd.npz') as file:
    recordings, digits = np.split(file['audio'], file['offsets'][1:-1]), file['digit']
  for number in range(0, 3000, 120):
    path = tmp_path / 'words' / str(digits[number]) / f'{number}.wav'
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, recordings[number], (8000, 16_000, 11_025)[number // 120 % 3])
  return tmp_path / 'words'


@pytest.fixture
def page(tmp_path, monkeypatch):
  """The files of the page, in the folder that commands run in."""
  for name, text in re.findall(r'```python\n# (\w+\.py)\n(.*?)```', PAGE, re.S):
    (tmp_path / name).write_text(text)
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('GENJAX_CACHE', str(tmp_path / 'cache'))
  yield tmp_path
  for name in ('film_builder', 'sound_builder'):
    sys.modules.pop(name, None)


def run(command: str, *more: str) -> None:
  assert command in PAGE
  assert main([*command.replace('FOLDER', os.environ['DATA']).split()[1:], *more]) == 0


def test_films(page, films, monkeypatch):
  """Trained on, sampled, written in every form, and the folder of samples read as data again."""
  monkeypatch.setenv('DATA', str(films))
  run('genjax train --config=films.py --workdir=runs/films --config.data.name=FOLDER', '--config.steps=2',
      '--config.sample_every=2', '--config.sample_num=3', '--config.batch_size=4')
  drawn = page / 'runs' / 'films' / 'samples'
  assert sorted(path.suffix for path in drawn.iterdir()) == ['.mp4', '.webp']
  run('genjax sample --workdir=runs/films --num=4 --out=films.mp4')
  with av.open('films.mp4') as container:
    stream = container.streams.video[0]
    assert stream.frames == 8 and stream.average_rate == 5
  opened = genjax.open('runs/films')
  samples = opened.sample(4, seed=7)
  for ending in ('gif', 'webp'):
    assert opened.write(samples, f'x.{ending}') == [pathlib.Path(f'x.{ending}')]
    assert readers.read(page / f'x.{ending}', readers.ClipOptions(8, (32, 32, 3), resize='nearest')).shape[0] == 8
  opened.write(samples, 'drawn', seed=7, start=20)
  lines = [json.loads(line) for line in pathlib.Path('drawn/metadata.jsonl').read_text().splitlines()]
  assert lines == [{'file_name': f'{row:06d}.mp4', 'row': row, 'seed': 7} for row in range(20, 24)]
  config = Config({'data': dict(name='drawn', train='train', heldout='train', frames=8, shape=(32, 32, 3), rate=5.0),
                   'batch_size': 4, 'seed': 0})
  columns = clips.open_source(config, 'train', more=('seed', 'row')).get(np.arange(4))
  assert columns['seed'].tolist() == [7] * 4 and sorted(columns['row'].tolist()) == [20, 21, 22, 23]
  grey = np.asarray([0.299, 0.587, 0.114])
  difference = columns['clip'] @ grey - samples['clip'][columns['row'] - 20] @ grey
  assert np.abs(difference).mean() < 12  # of noise, whose colours 4:2:0 does not keep
  config.data.update(name=str(films), resize='bilinear')
  texts = clips.open_source(config, 'train', more=('text',)).get(np.arange(8))['text'].tolist()
  lines = (films / 'metadata.jsonl').read_text().splitlines()
  assert sorted(texts) == sorted(json.loads(line)['text'] for line in lines)


def test_words(page, words, monkeypatch):
  monkeypatch.setenv('DATA', str(words))
  run('genjax train --config=digits_spoken.py --workdir=runs/spoken --config.data.name=FOLDER', '--config.steps=2',
      '--config.sample_every=2', '--config.sample_num=2', '--config.batch_size=4')
  drawn = page / 'runs' / 'spoken' / 'samples'
  assert sorted(path.name for path in drawn.iterdir()) == ['step_0000002_samples.wav',
                                                           'step_0000002_samples_spectrogram.png']
  run('genjax sample --workdir=runs/spoken --num=4 --out=spoken.wav')
  sound, rate = soundfile.read('spoken.wav')
  assert rate == 8000 and len(sound) == 4 * 4096 + 3 * 2000
  opened = genjax.open('runs/spoken')
  samples = opened.sample(4)
  opened.write(samples, 'spoken.flac')
  np.testing.assert_array_equal(soundfile.read('spoken.flac')[0], sound)
  opened.write(samples, 'said')
  config = Config({'data': dict(name='said', train='train', heldout='train', seconds=0.512, rate=8000)})
  columns = sounds.open_source(config, 'train', more=('row',)).get(np.arange(4))
  for row, said in zip(columns['row'].tolist(), columns['sound'], strict=True):
    np.testing.assert_array_equal(said, sound[row * 6096:row * 6096 + 4096].astype(np.float32))
    np.testing.assert_allclose(said, samples['sound'][row], atol=2**-15)
  with pytest.raises(UserError, match=r"renders 'samples' as \.wav \(sound\), got .*; use \.wav, \.flac, \.npz or"):
    opened.write(samples, 'x.mp4')


@pytest.mark.parametrize(('lib', 'kind', 'column', 'data'), [
  (clips, Clip, 'clip', dict(name='random_clips', frames=4, shape=(8, 8, 3), flip=True)),
  (sounds, Sound, 'sound', dict(name='random_sounds', seconds=0.1, rate=8000, channels=2)),
])
def test_what_a_builder_gets(lib, kind, column, data):
  config = Config({'data': dict(data, train='train', heldout='heldout', num_classes=3), 'batch_size': 4, 'seed': 0})
  batch = lib.batches(config, 'train').batch(0)
  assert {name: (values.shape[1:], values.dtype) for name, values in batch.items()} == {
    name: (row.shape, row.dtype) for name, row in lib.example(config).items()}
  assert set(batch['label'].tolist()) <= {0, 1, 2} and list(lib.conditions(config)) == ['label']
  assert len(lib.batches(config, 'heldout', shuffle=False).source) == 16
  (shown,), each = lib.render(config)(batch).values(), lib.items(config)(batch)
  assert isinstance(shown, kind) and len(each) == 4 and all(isinstance(item, kind) for item in each)
  if kind is Clip:
    np.testing.assert_array_equal(each[1].frames_THWC, batch['clip'][1])
    assert each[1].caption == str(batch['label'][1])
  else:
    np.testing.assert_array_equal(each[1].samples_SC, batch['sound'][1])
  known = options_lib.known({'data': lib.DATA})
  assert all(option.meaning for option in known.options.values()) and 'data.short' in known.options


@pytest.mark.parametrize(('lib', 'changes', 'words'), [
  (clips, dict(start='end'), 'config.data.start must be one of'),
  (clips, dict(heldout_start='random'), 'config.data.heldout_start'),
  (clips, dict(threads=0), 'config.data.threads'),
  (clips, dict(framez=3), "Did you mean 'frames'"),
  (clips, dict(name='no/such/folder'), "a folder of clips, 'random_clips' or a data source of your own, got 'no/such"),
  (clips, dict(train='test'), 'split'),
  (sounds, dict(seconds=0.0), 'config.data.seconds'),
  (sounds, dict(channels=5), 'config.data.channels'),
  (sounds, dict(name=''), "a folder of sounds, 'random_sounds'"),
])
def test_what_is_refused(lib, changes, words):
  data = dict(name='random_clips', frames=4, shape=(8, 8, 3)) if lib is clips else dict(
    name='random_sounds', seconds=0.1, rate=8000)
  config = Config({'data': {**data, 'train': 'train', 'heldout': 'heldout', **changes}, 'batch_size': 4, 'seed': 0})
  with pytest.raises(UserError, match=re.escape(words)):
    lib.batches(config, config.data.train).batch(0)


def test_a_short_film_is_named_before_training(page, films, monkeypatch, capsys):
  monkeypatch.setenv('DATA', str(films))
  argv = ['train', '--config=films.py', '--workdir=runs/long', f'--config.data.name={films}', '--config.steps=1',
          '--config.data.frames=16', '--config.data.rate=8.0', '--config.batch_size=4']
  assert main(argv) == 2
  told = capsys.readouterr().err
  assert '0.mp4' in told and 'short' in told and not (page / 'runs' / 'long' / 'checkpoints').exists()


def test_flips_are_of_whole_clips():
  clip = np.random.default_rng(0).integers(0, 256, (64, 3, 4, 5, 3), np.uint8)
  flipped = clips.flip({'clip': clip}, RowRandom(0, np.arange(64)))['clip']
  same = [np.array_equal(one, other) for one, other in zip(flipped, clip)]
  mirrored = [np.array_equal(one, other[:, :, ::-1]) for one, other in zip(flipped, clip)]
  assert all(a != b for a, b in zip(same, mirrored)) and 16 < sum(same) < 48


def test_grids_of_clips_have_captions_below():
  clip = np.full((3, 2, 16, 24, 3), 90, np.uint8)
  plain, told = render.clips(clip, 8.0), render.clips(clip, 8.0, ['a dog', 'a cat that walks along a wall', ''])
  assert plain.frames_THWC.shape[0] == told.frames_THWC.shape[0] == 2 and plain.rate == told.rate == 8.0
  (height, width), channels = told.frames_THWC.shape[1:3], told.frames_THWC.shape[3]
  assert channels == 3 and width == 2 * 97 + 1 and height > 2 * 65
  first = told.frames_THWC[0, 1:1 + 64, 1:97]
  assert (first == 90).all()
  below = told.frames_THWC[0, 65:65 + 12, 1:97]
  assert below.min() < 100 and below.max() == 255
  third = told.frames_THWC[0, height // 2 + 65:-1, 1:97]
  assert third.min() == 255  # no caption
  long = render.clips(clip[:1], 8.0, ['word ' * 100])
  assert long.frames_THWC.shape[1] < 64 + 50 and long.caption.startswith('word')


def test_sounds_come_one_after_the_other():
  sound = render.sounds(np.ones((3, 100, 2), np.float32), 1000, pause=0.01)
  assert sound.samples_SC.shape == (320, 2) and sound.samples_SC[100:110].max() == 0 and sound.samples_SC[110:].any()
