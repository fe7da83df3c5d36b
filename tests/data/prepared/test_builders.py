"""Sets written from original files hold those files, and plain TFDS reads them as its own."""

import hashlib
import pathlib
import tokenize

import numpy as np
import pytest
import tensorflow_datasets as tfds

from genjax.data.prepared import originals, prepare
from genjax.data.prepared.builders import BUILDERS
from genjax.data.sources import open_tfds
from genjax.data.text.documents import open_documents
from genjax.types import UserError


def assert_holds(source, image_NHWC, label_N):
  """The source holds these examples, in whatever order."""
  got = source.get(np.arange(len(source)))
  assert got['image'].dtype == np.uint8 and got['label'].dtype == np.int32
  pairs = sorted((image.tobytes(), int(label)) for image, label in zip(got['image'], got['label'], strict=True))
  assert pairs == sorted((image.tobytes(), int(label)) for image, label in zip(image_NHWC, label_N, strict=True))
  assert got['image'].shape == image_NHWC.shape


@pytest.mark.parametrize('name', ['mnist', 'fashion_mnist'])
def test_mnist_from_idx_files(mnist_folder, tiny_images, tmp_path, name, capsys):
  data_dir = tmp_path / 'data'
  for split in ('train', 'test'):
    image_NHW, label_N = tiny_images(split, (28, 28))
    assert_holds(open_tfds(name, split, data_dir=data_dir, originals=mnist_folder), image_NHW[..., None], label_N)
  output = capsys.readouterr()
  assert output.out == '' and output.err.count(f'preparing {name} 3.0.1 in {data_dir} from {mnist_folder}') == 1
  assert [path.name for path in (data_dir / name).iterdir() if path.name.startswith('incomplete')] == []


@pytest.mark.parametrize('layout', ['binary', 'python', 'archive', 'grids'])
def test_cifar10_from_every_layout(cifar_counts, cifar_folder, tiny_images, tmp_path, layout):
  folder = cifar_folder(layout)
  splits = originals.read_cifar10(folder, cifar_counts)
  for split in cifar_counts:
    for got, wanted in zip(splits[split], tiny_images(split, (32, 32, 3)), strict=True):
      np.testing.assert_array_equal(got, wanted)
  if layout == 'grids':
    for split in cifar_counts:
      source = open_tfds('cifar10', split, data_dir=tmp_path / 'data', originals=folder)
      assert_holds(source, *tiny_images(split, (32, 32, 3)))
    ids = open_tfds('cifar10', 'test', columns=['id'], data_dir=tmp_path / 'data').get(np.arange(10))['id']
    assert sorted(ids) == [f'test_{index:05d}' for index in range(10)]


def test_plain_tfds_reads_them(mnist_folder, cifar_folder, tiny_images, tmp_path):
  data_dir = str(tmp_path / 'data')
  (tmp_path / 'input.txt').write_text('To be, or not to be, that is the question: whether')
  for name, folder in (('mnist', mnist_folder), ('cifar10', cifar_folder('binary')), ('tiny_shakespeare', tmp_path)):
    prepare.open_builder(name, data_dir, folder)
    theirs = tfds.builder(name, data_dir=data_dir)
    assert theirs.version == BUILDERS[name].VERSION
    code = tfds.builder_cls(name)(data_dir=str(tmp_path / 'nothing')).info.features
    assert set(code) == set(BUILDERS[name].FEATURES)
    for feature in code:
      mine, wanted = BUILDERS[name].FEATURES[feature], code[feature]
      assert (type(mine), mine.shape, mine.np_dtype) == (type(wanted), wanted.shape, wanted.np_dtype)
    assert len(tfds.data_source(name, split='train', data_dir=data_dir)) == (1 if 'speare' in name else 20)
  example = tfds.data_source('mnist', split='test', data_dir=data_dir)[0]
  image_NHW, label_N = tiny_images('test', (28, 28))
  match = [i for i in range(10) if (image_NHW[i] == example['image'][..., 0]).all()]
  assert len(match) == 1 and label_N[match[0]] == example['label']


def test_tiny_shakespeare_is_split_as_by_tfds(tmp_path):
  text = ''.join(chr(97 + i % 26) for i in range(207)) + 'é'
  (tmp_path / 'input.txt').write_text(text, encoding='utf-8')
  splits = ('train', 'validation', 'test')
  parts = [''.join(open_documents('tiny_shakespeare', split, tmp_path / 'data', tmp_path)) for split in splits]
  assert ''.join(parts) == text and [len(part) for part in parts] == [187, 10, 11]
  assert ''.join(open_documents('tiny_shakespeare', 'validation+test', tmp_path / 'data')) == text[187:]


def test_digits_are_all_there_and_stratified(tmp_path):
  from sklearn.datasets import load_digits

  digits = load_digits()
  train, test = (open_tfds('digits', split, data_dir=tmp_path) for split in ('train', 'test'))
  assert (len(train), len(test)) == (1437, 360)
  both = open_tfds('digits', 'train+test', data_dir=tmp_path)
  assert_holds(both, np.round(digits.images * 255 / 16).astype(np.uint8)[..., None], digits.target)
  share = np.bincount(test.columns['label']) / np.bincount(both.columns['label'])
  np.testing.assert_allclose(share, 0.2, atol=1 / 170)
  assert both.columns['image'].max() == 255


def test_python_stdlib(tmp_path):
  builder = prepare.open_builder('python_stdlib', tmp_path)
  modules = {}
  for split in ('train', 'validation', 'test'):
    names = [example['path'].decode() for example in builder.as_data_source(split=split)]
    assert names == sorted(names)
    modules[split] = names
    for name in names:
      bucket = hashlib.sha256(name.encode()).digest()[0]
      assert split == ('train' if bucket < 230 else 'validation' if bucket < 243 else 'test')
  everything = sum(modules.values(), [])
  assert {'argparse.py', 'json/decoder.py', 'pathlib.py'} <= set(everything)
  assert not {'test', 'tests', 'site-packages', 'idlelib'} & {part for name in everything for part in name.split('/')}
  size = {split: len(''.join(open_documents('python_stdlib', split, tmp_path))) for split in modules}
  assert size['train'] > 5_000_000 and 0.8 < size['train'] / sum(size.values()) < 0.97
  with tokenize.open(tokenize.__file__) as file:
    assert file.read() in ''.join(
      text for split in modules for text in open_documents('python_stdlib', split, tmp_path))


def overwrite(path: pathlib.Path, change):
  path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
  ('name', 'change', 'message'),
  [
    ('train-images-idx3-ubyte.gz', lambda data: data[:-40], r'train-images-idx3-ubyte.gz is not a complete gzip file'),
    ('train-images-idx3-ubyte.gz', lambda data: b'hello', r'train-images-idx3-ubyte.gz is not a complete gzip file'),
    ('t10k-images-idx3-ubyte', lambda data: data[:-1], r't10k-images-idx3-ubyte: expected 7856 bytes, got 7855'),
    ('t10k-images-idx3-ubyte', lambda data: b'\1' + data[1:], r'expected the idx magic number 2051, got 16779267'),
    ('t10k-images-idx3-ubyte', lambda data: b'', r'expected the idx magic number 2051, got 0'),
    ('t10k-labels-idx1-ubyte', lambda data: data[:7] + b'\11' + data[8:], r'shape \(10,\), the header says \(9,\)'),
    ('t10k-labels-idx1-ubyte', lambda data: data[:-1] + b'\12', r'expected labels from 0 to 9, got 10'),
  ],
)
def test_broken_idx_files_leave_nothing(mnist_folder, tmp_path, name, change, message):
  overwrite(mnist_folder / name, change)
  with pytest.raises(UserError, match=message):
    prepare.open_builder('mnist', tmp_path / 'data', mnist_folder)
  assert not (tmp_path / 'data' / 'mnist').exists()


def test_missing_original_files_are_named(mnist_folder, tmp_path):
  (mnist_folder / 't10k-labels-idx1-ubyte').unlink()
  expected = 'expected the file t10k-labels-idx1-ubyte.gz or t10k-labels-idx1-ubyte in .*found t10k-images'
  with pytest.raises(UserError, match=expected):
    prepare.open_builder('mnist', tmp_path / 'data', mnist_folder)
  empty = tmp_path / 'empty'
  empty.mkdir()
  with pytest.raises(UserError, match='expected data_batch_1.bin.*found nothing'):
    prepare.open_builder('cifar10', tmp_path / 'data', empty)
  with pytest.raises(UserError, match='input.txt.*found nothing'):
    prepare.open_builder('tiny_shakespeare', tmp_path / 'data', empty)


@pytest.mark.parametrize(
  ('layout', 'name', 'change', 'message'),
  [
    ('binary', 'data_batch_3.bin', lambda data: data[:-1], r'data_batch_3.bin: expected 12292 bytes, got 12291'),
    ('binary', 'test_batch.bin', lambda data: b'\12' + data[1:], 'expected labels from 0 to 9, got 10'),
    ('python', 'data_batch_2', lambda data: data[:-20], 'data_batch_2 is not a Python batch of CIFAR-10'),
    ('python', 'data_batch_2', lambda data: b'cos\nsystem\n(S"true"\ntR.', 'it contains os.system, which no'),
    ('archive', 'cifar-10-binary.tar.gz', lambda data: data[:-200], r'not a complete tar.gz archive'),
    ('grids', 'train_00.webp', lambda data: data[: len(data) // 2], r'train_00.webp is not a complete image'),
    ('grids', 'test_labels.npy', lambda data: data[:-1], r'test_labels.npy is not a NumPy array file'),
  ],
)
def test_broken_cifar10_files(cifar_counts, cifar_folder, layout, name, change, message):
  folder = cifar_folder(layout)
  overwrite(folder / name, change)
  with pytest.raises(UserError, match=message):
    originals.read_cifar10(folder, cifar_counts)


@pytest.mark.slow
def test_real_mnist(shared_data, tmp_path):
  folder = shared_data / 'mnist'
  train, test = (open_tfds('mnist', split, data_dir=tmp_path, originals=folder) for split in ('train', 'test'))
  assert np.bincount(train.columns['label']).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
  assert np.bincount(test.columns['label']).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
  assert train.columns['image'].mean() / 255 == pytest.approx(0.1307, abs=1e-4)  # the usual normalization constant


@pytest.mark.slow
def test_real_cifar10(shared_data, tmp_path):
  folder = shared_data / 'cifar10'
  train, test = (open_tfds('cifar10', split, data_dir=tmp_path, originals=folder) for split in ('train', 'test'))
  assert np.bincount(train.columns['label']).tolist() == [5000] * 10
  assert np.bincount(test.columns['label']).tolist() == [1000] * 10
  mean = train.columns['image'].reshape(-1, 3).mean(0) / 255
  np.testing.assert_allclose(mean, [0.4914, 0.4822, 0.4465], atol=1e-4)  # the usual normalization constants


def test_real_tiny_shakespeare(shared_data, tmp_path):
  folder = shared_data / 'tinyshakespeare'
  parts = [
    ''.join(open_documents('tiny_shakespeare', split, tmp_path, folder)) for split in ('train', 'validation+test')
  ]
  assert [len(part) for part in parts] == [1_003_854, 111_540]
  assert len(set(''.join(parts))) == 65


def test_names_are_split_once_and_for_all(tmp_path, shared_data):
  splits = {split: open_documents('names', split, tmp_path, shared_data / 'names') for split in ('train', 'test')}
  names = (shared_data / 'names' / 'names.txt').read_text().split()
  assert {split: len(part) for split, part in splits.items()} == {'train': 31_033, 'test': 1000}
  assert sorted(splits['train'] + splits['test']) == sorted(names)
  order = iter(names)
  assert all(name in order for name in splits['test'])  # as in the file
  share = sum(names.index(name) < len(names) / 2 for name in splits['test']) / 1000
  assert share > 0.4  # from all of it
  (tmp_path / 'few').mkdir()
  (tmp_path / 'few' / 'names.txt').write_text('emma\n\nolivia\n')
  with pytest.raises(UserError, match='expected more than the 1000 names that become the test split, got 2'):
    open_documents('names', 'train', tmp_path / 'other', tmp_path / 'few')


def test_sst2_of_original_files(tmp_path):
  folder = tmp_path / 'sst'
  folder.mkdir()
  for part, lines in (('train', '1 a cr\xe8me br\xfbl\xe9e \x85 of a film .\n0 no movement\n'), ('dev', '0 bad\n'),
                      ('test', '1 1 good\n')):
    (folder / f'stsa.binary.{part}').write_bytes(lines.encode('latin-1'))
  found = open_tfds('sst2', 'train', ('sentence', 'label'), tmp_path / 'data', folder).get(np.arange(2))
  assert found['sentence'].tolist() == ['a cr\xe8me br\xfbl\xe9e \x85 of a film .', 'no movement'
                                       ] and found['label'].tolist() == [1, 0]
  assert open_documents('sst2', 'validation+test', tmp_path / 'data', field='sentence') == ['bad', '1 good']
  for line in ('2 neutral', 'bad', '1 ', ''):
    (folder / 'stsa.binary.dev').write_text(f'0 bad\n{line}\n')
    with pytest.raises(
        UserError, match=r'stsa.binary.dev, line 2: expected a label from 0 to 1, a space and a sentence'):
      open_documents('sst2', 'train', tmp_path / 'other', folder, 'sentence')


def test_sst2_of_the_published_files(shared_data, tmp_path):
  labels = {split: open_tfds('sst2', split, ('label',), tmp_path, shared_data / 'sst').columns['label']
            for split in ('train', 'validation', 'test')}
  assert {split: (len(part), int(part.sum())) for split, part in labels.items()} == {
    'train': (6920, 3610), 'validation': (872, 444), 'test': (1821, 909)}


def test_chorales_of_original_files(tmp_path):
  path = tmp_path / 'jsb-chorales-quarter.json'
  path.write_text('{"train": [[[67, 60, 48], []], [[72]]], "valid": [[[60]]], "test": [[[60]]]}')
  assert open_documents('jsb_chorales', 'train', tmp_path / 'data', tmp_path) == ['48 60 67\n', '72']
  for text in ('[]', '{"train": [], "valid": []}', '{"train": [[60]], "valid": [], "test": []}', 'x',
               '{"train": [[[1, 2, 3, 4, 5]]], "valid": [], "test": []}',
               '{"train": [[[128]]], "valid": [], "test": []}'):
    path.write_text(text)
    with pytest.raises(UserError, match='expected "train", "valid" and "test", lists of chorales'):
      open_documents('jsb_chorales', 'train', tmp_path / 'other', tmp_path)


def test_chorales_of_the_published_files(shared_data, tmp_path):
  steps = {
    split:
      sum(
        len(text.split('\n')) for text in open_documents('jsb_chorales', split, tmp_path, shared_data / 'jsb-chorales'))
    for split in ('train', 'validation', 'test')
  }
  assert steps == {'train': 13_807, 'validation': 4602, 'test': 4725}
