"""Encoded data: rows against the autoencoder, the same bytes whatever happens, stale folders refused, and training on
it as on pixels."""

import json
import pathlib
import shutil
import signal
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.cli import configs
from genjax.cli.main import main
from genjax.data import packed
from genjax.experiments import parts
from genjax.objectives.kinds import Autoencoder, TextEncoder
from genjax.runs import bases, builders, encoding
from genjax.training.run import Run
from genjax.types import UserError

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / 'system'))
from processes import ROOT, finish, start

DATA = f'--config={ROOT}/configs/diffusion/digits_edm.py:smoke'
SMALL = ['--config.data.train=train[:37]', '--config.data.heldout=test[:8]']


@pytest.fixture(scope='module')
def autoencoder(smoke_run):
  return smoke_run('autoencoders/kl')


def encode(autoencoder, out, *flags, shards=3, batch=8):
  return main(['data', 'encode', DATA, *SMALL, f'--workdir={autoencoder}', f'--out={out}', f'--shards={shards}',
               f'--batch={batch}', *flags])


@pytest.fixture(scope='module')
def encoded(autoencoder, tmp_path_factory):
  out = tmp_path_factory.mktemp('encoded') / 'digits'
  assert encode(autoencoder, out) == 0
  return out


def contents(folder):
  return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def build(*flags):
  """An experiment whose parts are read."""
  config = configs.parse('train', [DATA, *SMALL, *flags], '')[0].config
  return config, bases.attach(config, builders.build(config), report=lambda text: None)


def on_latents(autoencoder, encoded, *flags):
  return build(f'--config.parts.autoencoder={autoencoder}', f'--config.data.name={encoded}',
               '--config.data.content=latents', '--config.data.train=train', '--config.data.heldout=heldout', *flags)


def test_rows_are_what_the_autoencoder_gives(autoencoder, encoded):
  _, experiment = build(f'--config.parts.autoencoder={autoencoder}')
  group = experiment.frozen['autoencoder']
  part = functions_of(autoencoder)
  for split, pixels in (('train', experiment.train), ('heldout', experiment.heldout)):
    reader = packed.Reader(encoded, split)
    assert len(reader) == len(pixels.source)
    rows, columns = reader.get(np.arange(len(reader))), pixels.source.get(np.arange(len(reader)))
    np.testing.assert_array_equal(rows['label'], columns['label'])
    mean, log_variance = jax.jit(part.encode)(group, columns['image'])
    np.testing.assert_allclose(rows['image_mean'], mean, atol=1e-5)
    np.testing.assert_allclose(rows['image_log_variance'], log_variance, atol=1e-5)
    assert rows['image_mean'].shape == (len(reader), 4, 4, 3) and rows['image_mean'].dtype == np.float32


def functions_of(autoencoder):
  """The functions of the autoencoder in a run directory."""
  config = configs.parse('train', [DATA, f'--config.parts.autoencoder={autoencoder}'], '')[0].config
  return parts.open(config, 'autoencoder', 'autoencoder').functions


def test_latents_of_encoded_data_are_those_of_the_pixels(autoencoder, encoded):
  _, pixels = build(f'--config.parts.autoencoder={autoencoder}')
  _, latents = on_latents(autoencoder, encoded)
  assert pixels.objective.shape == latents.objective.shape == (4, 4, 3)
  first, then = (jax.jit(experiment.objective.codec.encode) for experiment in (pixels, latents))
  for step in (0, 7):  # the second lies in the second epoch
    batches = [experiment.train.batch(step) for experiment in (pixels, latents)]
    np.testing.assert_array_equal(batches[0]['label'], batches[1]['label'])
    for key in (jax.random.key(step), None):
      x, y = first(pixels.frozen, batches[0], key), then(latents.frozen, batches[1], key)
      np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6)
  assert not set(batches[1]) - {'image_mean', 'image_log_variance', 'label'}
  latents.check_columns(batches[1])
  image = jax.jit(latents.objective.codec.decode)(latents.frozen, y)['image']
  assert image.shape == (8, 8, 8, 1) and image.dtype == jnp.uint8


@pytest.mark.slow
def test_training_on_encoded_data_is_training_on_pixels(autoencoder, encoded):
  losses = []
  for config, experiment in (build(f'--config.parts.autoencoder={autoencoder}'), on_latents(autoencoder, encoded)):
    run = Run(experiment, builders.settings(config))
    run.initialise()
    batches = experiment.train.iterate(0, run.rows(config.batch_size))
    losses.append([float(run.train_step(next(batches))['diffusion/loss']) for _ in range(6)])
    sample = run.sample(4, seed=0)
    assert sample['image'].shape == (4, 8, 8, 1) and sample['image'].dtype == np.uint8
  assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.slow
def test_a_run_on_encoded_data_is_trained_and_sampled_by_command(autoencoder, encoded, tmp_path, capsys):
  flags = [DATA, f'--config.parts.autoencoder={autoencoder}', f'--config.data.name={encoded}', '--config.steps=1',
           '--config.data.content=latents', '--config.data.train=train', '--config.data.heldout=heldout',
           '--config.evaluate_every=0', '--config.sample_every=0']
  assert main(['train', *flags, f'--workdir={tmp_path / "run"}']) == 0
  assert json.loads((tmp_path / 'run' / 'run.json').read_text())['data']['name'] == 'encoded'
  assert main(['sample', f'--workdir={tmp_path / "run"}', '--num=2', f'--out={tmp_path}/s.npz', '--set',
               f'data.name={tmp_path / "gone"}']) == 0  # samples need the autoencoder, not the data
  assert np.load(tmp_path / 's.npz')['image'].shape == (2, 8, 8, 1)


def test_bytes_are_independent_of_interruptions(autoencoder, encoded, tmp_path, monkeypatch, capsys):
  write = packed.Writer.write

  def killed(self, number, rows):
    if number == 1:
      (self.folder / 'data-00001-of-00003.array_record.partial').write_bytes(b'half')
      raise KeyboardInterrupt
    write(self, number, rows)

  with monkeypatch.context() as patch:
    patch.setattr(packed.Writer, 'write', killed)
    assert encode(autoencoder, tmp_path / 'out') == 130
  assert not (tmp_path / 'out' / 'schema.json').exists()
  assert main(['data', 'encode', DATA, f'--workdir={autoencoder}', f'--out={tmp_path / "out"}', '--shards=3',
               '--batch=8', *SMALL]) == 0
  assert contents(tmp_path / 'out') == contents(encoded)
  before = {path: path.stat().st_mtime_ns for path in (tmp_path / 'out').iterdir()}
  assert encode(autoencoder, tmp_path / 'out') == 0  # a finished folder is left alone
  assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / 'out').iterdir()}


def test_rows_depend_on_neither_shards_nor_the_number_of_devices(autoencoder, encoded, tmp_path):
  """The values of a row are those of its place in a batch; another division gives them up to rounding."""
  assert encode(autoencoder, tmp_path / 'out', shards=1) == 0
  rows = [packed.Reader(folder, 'train').get(np.arange(37)) for folder in (encoded, tmp_path / 'out')]
  for name in rows[0]:
    np.testing.assert_allclose(rows[0][name], rows[1][name], atol=1e-5)


@pytest.mark.slow
def test_kills_and_two_processes_give_the_same_bytes(autoencoder, encoded, tmp_path):
  argv = ['-m', 'genjax.cli.main', 'data', 'encode', DATA, *SMALL, f'--workdir={autoencoder}', '--shards=3',
          '--batch=8']
  for processes, devices in ((1, 2), (2, 2)):  # more devices than cores have more threads, which round otherwise
    out = tmp_path / f'out-{processes}'
    started = start([*argv, f'--out={out}'], processes, devices)
    deadline = time.monotonic() + 200
    while not list(out.glob('data-*')):  # killed while it writes
      assert time.monotonic() < deadline and all(process.poll() is None for process in started)
      time.sleep(0.005)
    for process in started:
      process.send_signal(signal.SIGKILL)
    finish(started)
    for code, _, said in finish(start([*argv, f'--out={out}'], processes, devices)):
      assert code == 0, said
    assert contents(out) == contents(encoded)


def test_two_commands_do_not_write_one_folder(autoencoder, tmp_path, capsys):
  with encoding._alone(tmp_path / 'out'):
    assert encode(autoencoder, tmp_path / 'out') == 2
  assert 'is being written by another process' in capsys.readouterr().err


def test_flips_are_rows_of_their_own(autoencoder, encoded, tmp_path):
  assert encode(autoencoder, tmp_path / 'out', '--config.data.flip=True') == 0
  plain, both = packed.Reader(encoded, 'train'), packed.Reader(tmp_path / 'out', 'train')
  assert len(both) == 74 and len(packed.Reader(tmp_path / 'out', 'heldout')) == 8
  rows = both.get(np.arange(74))
  np.testing.assert_allclose(rows['image_mean'][::2], plain.get(np.arange(37))['image_mean'], atol=1e-5)
  _, experiment = build(f'--config.parts.autoencoder={autoencoder}')
  image, part = experiment.train.source.get(np.arange(37))['image'], functions_of(autoencoder)
  mirrored, _ = jax.jit(part.encode)(experiment.frozen['autoencoder'], image[:, :, ::-1])
  np.testing.assert_allclose(rows['image_mean'][1::2], mirrored, atol=1e-5)
  np.testing.assert_array_equal(rows['label'][1::2], rows['label'][::2])
  # A config that flips may train on flipped rows, and on no others
  on_latents(autoencoder, tmp_path / 'out', '--config.data.flip=True')[1].train.batch(0)
  with pytest.raises(UserError, match='was encoded with config.data.flip=False, and now it is True'):
    on_latents(autoencoder, encoded, '--config.data.flip=True')[1].train.batch(0)


def test_float16_halves_the_folder(autoencoder, encoded, tmp_path):
  assert encode(autoencoder, tmp_path / 'out', '--dtype=float16') == 0
  rows, full = (packed.Reader(folder, 'train').get(np.arange(37)) for folder in (tmp_path / 'out', encoded))
  assert rows['image_mean'].dtype == np.float16
  np.testing.assert_allclose(rows['image_mean'], full['image_mean'], rtol=1e-3, atol=1e-4)
  _, experiment = on_latents(autoencoder, tmp_path / 'out')
  assert experiment.train.batch(0)['image_mean'].dtype == np.float32


@pytest.mark.parametrize(('flags', 'told'), [
  (['--config.data.train=train[:38]'], 'data.train.split was train[:37] and is train[:38]'),
  (['--config.data.flip=True'], 'pictures.flip was False and is True'),
  (['--dtype=float16'], 'dtype was float32 and is float16'),
  (['--shards=2'], 'count was 3 and is 2'),
])
def test_a_folder_of_another_key_says_what_changed(autoencoder, encoded, capsys, flags, told):
  before = contents(encoded)
  assert encode(autoencoder, encoded, *flags) == 2
  assert told in capsys.readouterr().err
  assert contents(encoded) == before


def test_another_autoencoder_is_refused_by_writing_and_by_training(autoencoder, encoded, tmp_path, capsys):
  other = f'{autoencoder}@1'
  assert encode(other, encoded) == 2
  assert 'autoencoder.sha256 was' in capsys.readouterr().err
  with pytest.raises(UserError, match='digits was made with other parameters .* name the run and the step'):
    on_latents(other, encoded)


@pytest.mark.parametrize(('workdir', 'flags', 'told'), [
  ('quickstart', [], 'is no autoencoder'),
  ('nothing', [], 'is not there'),
  ('autoencoders/kl', ['--config.data.resize=bilinear', '--config.data.shape=(16, 16, 1)'],
   'reads pictures uint8 (8, 8, 1)'),
  ('autoencoders/kl', ['--config.data.binarize=dynamic'], "binarize='dynamic' draws every picture anew"),
  ('autoencoders/kl', ['--config.data.content=latents'], 'pictures are encoded'),
  ('autoencoders/kl', ['--batch=0'], '--batch must be at least 1'),
  ('autoencoders/kl', ['--dtype=int8'], '--dtype must be one of'),
  ('autoencoders/kl', ['--shards=100'], 'the number of shards must be from 1'),
])
def test_bad_input_is_refused_before_anything_is_written(smoke_run, tmp_path, capsys, workdir, flags, told):
  run = tmp_path / 'nothing' if workdir == 'nothing' else smoke_run(workdir)
  assert encode(run, tmp_path / 'out', *flags) == 2
  assert told in capsys.readouterr().err
  assert not (tmp_path / 'out').exists() or not list((tmp_path / 'out').iterdir())


def test_training_refuses_what_is_not_encoded(autoencoder, encoded, tmp_path):
  with pytest.raises(UserError, match='needs encoded data.*genjax data encode'):
    on_latents(autoencoder, tmp_path)[1].train.batch(0)
  with pytest.raises(UserError, match='config.data.shape is .15, 16, 1., the shape of the pictures'):
    on_latents(autoencoder, encoded, '--config.data.shape=(15, 16, 1)')
  with pytest.raises(UserError, match='latents in .* are .*; name the autoencoder that made them'):
    assert on_latents(autoencoder, encoded, '--config.data.shape=(16, 16, 1)')[1].train.source
  writer = packed.Writer(tmp_path / 'packed', 1, {'kind': 'pictures'}, 2)
  writer.write(0, [{'image': np.zeros((8, 8, 1), np.uint8)}] * 2)
  writer.close()
  with pytest.raises(UserError, match='holds packed data that is not encoded'):
    on_latents(autoencoder, tmp_path / 'packed')
  source = on_latents(autoencoder, encoded, '--config.data.num_classes=3')[1].train.source
  with pytest.raises(UserError, match='has labels from 0 to 9; set it to at least 10'):
    source.get(np.arange(len(source)))


def test_a_damaged_shard_is_named_and_written_again(autoencoder, encoded, tmp_path):
  folder = shutil.copytree(encoded, tmp_path / 'encoded')
  shard = folder / 'data-00001-of-00003.array_record'
  whole = shard.read_bytes()
  shard.write_bytes(whole[:200] + bytes(64) + whole[264:])
  source = on_latents(autoencoder, folder)[1].train.source
  with pytest.raises(UserError, match='data-00001-of-00003.array_record is damaged'):
    source.get(np.arange(len(source)))
  shard.unlink()
  with pytest.raises(UserError, match='data-00001-of-00003.array_record is missing'):
    on_latents(autoencoder, folder)
  assert encode(autoencoder, folder) == 0
  assert contents(folder) == contents(encoded)


class Pictures:
  """Five pictures with captions of several lengths."""

  def __len__(self):
    return 5

  def get(self, indices):
    text = np.empty(len(indices), object)
    text[:] = ['a' * int(index + 1) for index in indices]
    return {'image': np.broadcast_to(np.uint8(indices)[:, None, None, None], (len(indices), 2, 2, 1)), 'text': text}

  def fingerprint(self):
    return {'checksum': 'x'}


def test_captions_are_encoded_beside_pictures():
  def tokenize(texts, truncate):
    if not truncate and max(map(len, texts)) > 4:
      raise UserError('a caption is too long')
    lengths = np.minimum([len(text) for text in texts], 4)
    mask = np.arange(4) < lengths[:, None]
    return np.where(mask, 7, 0).astype(np.int32), mask

  def embed(group, ids, mask):
    tokens = group['table'] * ids[..., None].astype(jnp.float32)
    return {'tokens': tokens, 'mask': mask, 'pooled': tokens.sum(1)}

  picture = Autoencoder((2, 2, 1), (1, 1, 1), lambda group, x: (x[:, :1, :1] * 1.0, -1.0 * x[:, :1, :1]),
                        lambda group, z: z, lambda group: (0.0, 1.0))
  functions = {'autoencoder': picture, 'text': TextEncoder(3, 4, tokenize, embed)}
  frozen = {'autoencoder': {}, 'text': {'table': jnp.ones(3)}}
  rows = encoding.Rows({'train': Pictures(), 'heldout': Pictures()}, mirrored=True)
  assert rows.splits == {'train': 10, 'heldout': 5}
  encoder = encoding.Encoder(functions, frozen, encoding.Options('run', batch=4, truncate=True))
  found = list(encoder.rows(rows, range(3, 15)))  # across the border of the splits
  numbers = [1, 2, 2, 3, 3, 4, 4, 0, 1, 2, 3, 4]
  assert [row['text'] for row in found] == ['a' * (number + 1) for number in numbers]
  assert [float(row['image_mean'].item()) for row in found] == numbers
  assert [int(row['text_mask'].sum()) for row in found] == [min(number + 1, 4) for number in numbers]
  assert found[0]['text_tokens'].shape == (4, 3) and found[0]['text_mask'].dtype == np.uint8
  np.testing.assert_array_equal([row['text_pooled'][0] for row in found],
                                [7 * min(number + 1, 4) for number in numbers])
  with pytest.raises(UserError, match='too long'):
    list(encoding.Encoder(functions, frozen, encoding.Options('run', batch=4)).rows(rows, range(15)))


def test_numbers_that_are_too_large_for_float16_are_refused():
  encoder = encoding.Encoder({'autoencoder': Autoencoder((1,), (1,), lambda group, x: (x, x), None, None)}, {},
                             encoding.Options('run', dtype='float16'))
  with pytest.raises(UserError, match='--dtype=float16 cannot hold'):
    encoder._stored(np.float32([1e6]))
