"""Packing: 200 pictures of all formats and modes, broken ones and captions among them, packed, trained on and sampled;
bytes whatever the interruption; sounds and clips."""

import io
import json
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import time
import types

import numpy as np
from PIL import Image
import pytest

from genjax.cli.main import main
from genjax.configs.diffusion import digits_edm
from genjax.data import folder, kinds, packed
from genjax.data.audio.sounds import SoundOptions
from genjax.data.video.clips import ClipOptions
from genjax.experiments import images
from genjax.types import UserError

ROOT = pathlib.Path(__file__).parents[2]
pictures = types.SimpleNamespace(**runpy.run_path(str(ROOT / 'tests' / 'data' / 'pictures.py')))
BROKEN = (8, 17, 150)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
  monkeypatch.setenv('GENJAX_CACHE', str(tmp_path_factory.getbasetemp() / 'cache'))


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """A folder of 200 pictures, three broken, 60 with captions; and what the others must become."""
  root = tmp_path_factory.mktemp('data') / 'set'
  return root, pictures.write(root, 200, broken=BROKEN, captioned=60)


@pytest.fixture(scope='module')
def packed_set(made):
  root, _ = made
  out = root.with_name('packed')
  assert main(['data', 'pack', f'--input={root}', f'--out={out}', '--shards=3', '--broken=skip', '--workers=2']) == 0
  return out


def contents(path):
  return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


def test_broken_pictures_are_refused_with_their_names(made, tmp_path, capsys):
  assert main(['data', 'pack', f'--input={made[0]}', f'--out={tmp_path / "x"}']) == 2
  error = capsys.readouterr().err
  assert '3 of 200 pictures cannot be decoded' in error and '--broken=skip' in error
  assert all(f'picture{number:03d}' in error for number in BROKEN) and not (tmp_path / 'x').exists()


def test_packed_pictures_are_those_of_the_folder(made, packed_set):
  root, expected = made
  options = folder.Options(broken='skip')
  files, source = folder.Files(root, options), folder.open_folder(root, 'train', options)
  reader = packed.Reader(packed_set)
  shards = folder.open_folder(packed_set)
  assert source.fingerprint() == shards.fingerprint() and shards.classes == {0: 'cat', 1: 'dog', 2: 'owl'}
  assert files.names == [str(name) for name in reader.get(np.arange(197))['name']]
  rows, packed_rows = source.get(np.arange(197)), shards.get(np.arange(197))
  for row, name in enumerate(files.names):
    image = packed_rows['image'][row]
    np.testing.assert_array_equal(image, rows['image'][row])
    assert image.shape == expected[name].shape
    assert np.abs(image.astype(float) - expected[name]).max() <= (6 if name.lower().endswith(('jpg', 'jpeg')) else 1)
    number = int(name[-20:].partition('picture')[2][:3])
    assert packed_rows['text'][row] == (f'picture number {number}' if number < 60 else '')
    assert packed_rows['label'][row] == rows['label'][row] == number % 3
  raw = reader.get(np.array([5]))
  assert raw['image'][0] == (root / raw['name'][0]).read_bytes()


def config_of(name, **data):
  config = digits_edm.get_config('smoke')
  config.data.update(dict(dict(name=str(name), train='train[:90%]', heldout='train[90%:]', shape=(8, 8, 3),
                               num_classes=3, resize='bilinear', crop=True, broken='skip'), **data))
  return config


def test_batches_of_both_are_equal_and_are_what_pillow_makes(made, packed_set):
  root, expected = made
  first, second = (images.batches(config_of(name), 'train[:90%]') for name in (root, packed_set))
  assert first.fingerprint() == second.fingerprint() and first.fingerprint()['examples'] == 177
  names = folder.Files(root, folder.Options(broken='skip')).names
  for step in (0, 30):
    columns, others = first.batch(step), second.batch(step)
    assert set(columns) == {'image', 'label'}
    index_B = first.indices(step * 8 + np.arange(8))
    for row, index in enumerate(index_B):
      np.testing.assert_array_equal(columns['image'][row], others['image'][row])
      whole = np.broadcast_to(expected[names[index]], (*expected[names[index]].shape[:2], 3))
      side, height, width = min(whole.shape[:2]), *whole.shape[:2]
      box = ((width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2)
      picture = Image.fromarray(np.round(whole).astype(np.uint8)).resize((8, 8), Image.Resampling.BILINEAR, box)
      assert np.abs(columns['image'][row].astype(int) - np.asarray(picture)).max() <= 4


def test_packed_pictures_are_trained_on_and_sampled(packed_set, tmp_path):
  flags = [f'--config={ROOT}/configs/diffusion/digits_edm.py:smoke', f'--config.data.name={packed_set}',
           '--config.data.train=train[:90%]', '--config.data.heldout=train[90%:]', '--config.data.shape=(8,8,3)',
           '--config.data.num_classes=3', '--config.data.resize=bilinear', '--config.data.crop=True',
           '--config.model.depth=1', '--config.sample_every=0']
  assert main(['train', *flags, f'--workdir={tmp_path / "run"}']) == 0
  data = json.loads((tmp_path / 'run' / 'run.json').read_text())['data']
  assert data['broken'] == 3 and data['examples'] == 177
  config = json.loads((tmp_path / 'run' / 'config.json').read_text())
  assert config['assets']['classes'] == [[0, 'cat'], [1, 'dog'], [2, 'owl']]
  assert main(['sample', f'--workdir={tmp_path / "run"}', '--num=2', f'--out={tmp_path / "samples.npz"}',
               '--conditions=label=2']) == 0
  assert np.load(tmp_path / 'samples.npz')['image'].shape == (2, 8, 8, 3)


def flags_of(packed_set, *more):
  return [f'--config={ROOT}/configs/diffusion/digits_edm.py:smoke', '--config.data.train=train[:90%]',
          '--config.data.heldout=train[90%:]', '--config.data.shape=(8,8,3)', '--config.data.num_classes=0',
          '--config.sampler.guidance=1.0', '--config.model.depth=1', '--config.sample_every=0', *more]


def test_the_log_counts_the_sets_of_a_mixture(made, packed_set, tmp_path):
  sets = [{'name': str(packed_set), 'weight': 3}, {'name': str(made[0]), 'weight': 1, 'broken': 'skip'}]
  flags = flags_of(packed_set, '--config.data.name=', f'--config.data.mixture={sets}', '--config.data.resize=bilinear')
  assert main(['train', *flags, f'--workdir={tmp_path / "run"}']) == 0
  lines = [json.loads(line) for line in (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()]
  counts = [(line[f'data/{packed_set}/examples'], line[f'data/{made[0]}/examples']) for line in lines[:2]]
  assert sum(counts[0]) == 8 and sum(counts[1]) == 16 and abs(counts[1][1] - 4) <= 1
  assert lines[1][f'data/{packed_set}/epochs'] == pytest.approx(counts[1][0] / 177)


def test_inspect_tells_the_fill_of_buckets_and_refuses_names_with_dots(packed_set, capsys):
  flags = flags_of(packed_set, f'--config.data.name={packed_set}', '--config.data.buckets=((8,8),(8,12),(12,8))')
  assert main(['inspect', *flags]) == 0
  table = capsys.readouterr().out.splitlines()[-4:]
  assert 'batches an epoch' in table[0] and sum(int(line.split()[3]) for line in table[1:]) == 177
  assert main(['inspect', *flags_of(packed_set, '--config.data.name=', "--config.data.mixture={'a.b': 1.0}")]) == 2
  assert 'config key data.mixture' in capsys.readouterr().err


@pytest.mark.parametrize(('data', 'message'), [
  (dict(num_classes=2), r'num_classes is 2, but labels of .* go up to 2: 0 cat, 1 dog, 2 owl; set it to at least 3'),
  (dict(resize=''), r'of 177 pictures of .* have other sizes, such as \d+ x \d+; resize them by config\.data\.resize'),
  (dict(heldout='test'), r"has no split 'test'; it has train \(197\)"),
  (dict(name='./nowhere'), r'config\.data\.name=\./nowhere does not exist; expected a folder of pictures')])
def test_a_set_that_does_not_fit_the_config(packed_set, data, message):
  config = config_of(packed_set)
  config.data.update(data)
  read = lambda: (images.batches(config, config.data.train).batch(0),
                  images.batches(config, config.data.heldout, shuffle=False).fingerprint())
  with pytest.raises(UserError, match=message):
    read()


def test_sets_smaller_than_a_batch_and_gaps_in_labels(tmp_path):
  Image.fromarray(pictures.smooth(9, 12, 0)).save(tmp_path / 'alone.png')
  config = config_of(tmp_path, )
  config.data.update(train='train', heldout='train', num_classes=0)
  batch = images.batches(config, 'train').batch(3)
  assert batch['image'].shape == (8, 8, 8, 3) and (batch['image'] == batch['image'][0]).all()
  (held,) = images.batches(config, 'train', shuffle=False).epoch()
  assert held['mask'].tolist() == [1] + [0] * 7
  for name in ('1', '7'):
    (tmp_path / 'gaps' / name).mkdir(parents=True)
    Image.fromarray(pictures.smooth(9, 12, 0)).save(tmp_path / 'gaps' / name / 'x.png')
  config.data.update(name=str(tmp_path / 'gaps'), num_classes=8)
  assert set(images.batches(config, 'train').batch(0)['label'].tolist()) == {1, 7}
  assert images.assets(config) == {'classes': [[1, '1'], [7, '7']]}


def test_mixtures_of_a_config(made, packed_set, tmp_path):
  root, _ = made
  Image.fromarray(pictures.smooth(9, 12, 0)).convert('L').save(tmp_path / 'alone.png')
  config = config_of('', num_classes=0)
  config.data.mixture = (dict(name=str(packed_set), weight=0.75),
                         dict(name=str(tmp_path), weight=0.25, train='train', heldout='train', crop=False))
  pipeline = images.batches(config, config.data.train)
  batch = pipeline.batch(0)
  assert batch['image'].shape == (8, 8, 8, 3) and len(pipeline.source) == 178
  report = pipeline.report(1000)
  assert report[f'data/{tmp_path}/examples'] == report[f'data/{tmp_path}/epochs'] == pytest.approx(2000, abs=2)
  del config.data.mixture  # a ConfigDict takes no dict in the place of a tuple; a flag does
  config.data.mixture = {'digits': 1.0, 'mnist': 3}
  assert [entry[:2] for entry in images.image_sets.entries(config.data)] == [('digits', 1.0), ('mnist', 3)]
  for mixture, message in (([{'name': 'a'}], 'list of dicts with name and weight, got'), (['a'], 'list of dicts'),
                           ([{'name': 'a', 'weight': 1, 'spilt': 1}], "'a' has 'spilt'; a set has name, weight and")):
    del config.data.mixture
    config.data.mixture = mixture
    with pytest.raises(UserError, match=message):
      images.batches(config, config.data.train)
  del config.data.mixture
  config.data.update(name='digits', mixture={'mnist': 1.0})
  with pytest.raises(UserError, match="config.data.name is 'digits', and config.data.mixture names sets, too"):
    images.batches(config, config.data.train)


CODE = """
import pathlib, sys, time
from genjax.data import folder, packing
row = packing._row
packing._row = lambda *given: (time.sleep(float(sys.argv[3])), row(*given))[1]
packing.pack(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), folder.Options(broken='skip'), 5, int(sys.argv[4]))
"""


def test_bytes_after_kill_9_are_those_of_an_undisturbed_run(made, tmp_path):
  root, _ = made
  pack = lambda out, seconds, workers: subprocess.Popen(
    [sys.executable, '-c', CODE, str(root), str(tmp_path / out), str(seconds), str(workers)], stderr=subprocess.DEVNULL)
  killed = pack('a', 0.02, 1)
  deadline = time.monotonic() + 120
  while not (tmp_path / 'a' / 'data-00001-of-00005.array_record.json').exists():
    assert killed.poll() is None and time.monotonic() < deadline
    time.sleep(0.02)
  os.kill(killed.pid, signal.SIGKILL)
  killed.wait()
  assert not (tmp_path / 'a' / 'schema.json').exists()
  before = (tmp_path / 'a' / 'data-00000-of-00005.array_record').stat().st_mtime_ns
  for out, workers in (('a', 3), ('b', 1)):
    assert main(['data', 'pack', f'--input={root}', f'--out={tmp_path / out}', '--shards=5', '--broken=skip',
                 f'--workers={workers}']) == 0
  assert (tmp_path / 'a' / 'data-00000-of-00005.array_record').stat().st_mtime_ns == before
  assert contents(tmp_path / 'a') == contents(tmp_path / 'b')


def test_pictures_encoded_anew(made, tmp_path, capsys):
  root, _ = made
  pack = lambda out, *flags: main(
    ['data', 'pack', f'--input={root}', f'--out={tmp_path / out}', '--broken=skip', *flags])
  assert pack('a', '--size=10', '--resize=bicubic') == 0
  before = folder.open_folder(root, 'train', folder.Options(broken='skip'))
  after = folder.open_folder(tmp_path / 'a')
  assert before.fingerprint()['checksum'] != after.fingerprint()['checksum']
  for row in range(0, 197, 20):
    old, new = (source.get(np.array([row]))['image'][0] for source in (before, after))
    height, width = old.shape[:2]
    size = (round(height * 10 / min(height, width)), round(width * 10 / min(height, width)))
    expected = Image.fromarray(old.squeeze(-1) if old.shape[2] == 1 else old)
    expected = expected.resize(size[::-1], Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(new.squeeze(), np.asarray(expected))
    assert tuple(after.index['size'][row]) == size
  assert pack('b', '--size=6x8', '--crop', '--format=jpg', '--quality=90') == 0
  data = packed.Reader(tmp_path / 'b').get(np.array([0]))['image'][0]
  assert Image.open(io.BytesIO(data)).format == 'JPEG' and Image.open(io.BytesIO(data)).size == (8, 6)
  capsys.readouterr()
  for flags, message in ((['--size=0'], '--size takes N'), (['--size=2x3x4'], '--size takes N'),
                         (['--crop'], 'set it'), (['--size=9', '--crop'], 'keeps all of them'),
                         (['--quality=0'], '--quality must be at least 1'), (['--workers=0'], '--workers must be'),
                         (['--shards=900'], 'from 1 to that of the examples, 197, got 900')):
    assert pack('c', *flags) == 2
    assert message in capsys.readouterr().err
  assert main(['data', 'pack', f'--input={tmp_path / "a"}', f'--out={tmp_path / "d"}']) == 2
  assert 'is packed already' in capsys.readouterr().err


def test_sounds_and_clips(tmp_path):
  soundfile = pytest.importorskip('soundfile')
  for number, rate in enumerate((8000, 11025, 16000)):
    (tmp_path / 'sounds' / str(number)).mkdir(parents=True)
    wave = np.sin(np.arange(rate) * (number + 1) / 20) * 0.5
    soundfile.write(tmp_path / 'sounds' / str(number) / 'x.wav', wave, rate)
  frames = [Image.fromarray(pictures.smooth(12, 16, number)) for number in range(5)]
  (tmp_path / 'clips' / 'loose').mkdir(parents=True)
  frames[0].save(tmp_path / 'clips' / 'a.gif', save_all=True, append_images=frames[1:], duration=100)
  for number, frame in enumerate(frames):
    frame.save(tmp_path / 'clips' / 'loose' / f'{number}.png')
  for name, decoding, shape in (('sounds', SoundOptions(0.5, 8000, start='middle'), (3, 4000)),
                                ('clips', ClipOptions(3, (12, 16, 3), rate=10.0), (2, 3, 12, 16, 3))):
    assert main(['data', 'pack', f'--input={tmp_path / name}', f'--kind={name}',
                 f'--out={tmp_path / (name + "-packed")}']) == 0
    options = folder.Options(kind=name, decoding=decoding)
    sources = [folder.open_folder(tmp_path / path, 'train', options) for path in (name, f'{name}-packed')]
    first, second = (source.get(np.arange(len(source))) for source in sources)
    column = kinds.KINDS[name].column
    assert first[column].shape == shape and sources[0].fingerprint() == sources[1].fingerprint()
    np.testing.assert_array_equal(first[column], second[column])
    long = type(decoding)(**{**vars(decoding), **({'seconds': 2.0} if name == 'sounds' else {'frames': 6})})
    for path in (name, f'{name}-packed'):
      with pytest.raises(UserError, match='are shorter than what is cut from them:\n.*(x.wav|loose|a.gif)'):
        folder.open_folder(tmp_path / path, 'train', folder.Options(kind=name, decoding=long))


def test_a_field_called_name_is_refused(tmp_path, capsys):
  (tmp_path / 'set').mkdir()
  Image.new('RGB', (4, 4)).save(tmp_path / 'set' / 'a.png')
  (tmp_path / 'set' / 'metadata.jsonl').write_text('{"file_name": "a.png", "name": "Ada"}')
  assert main(['data', 'pack', f'--input={tmp_path}/set', f'--out={tmp_path}/packed']) == 2
  assert "field 'name'" in capsys.readouterr().err and not (tmp_path / 'packed').exists()
