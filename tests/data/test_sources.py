"""Reading prepared sets: splits, columns, the stored columns, and what is said about bad requests."""

import mmap

import numpy as np
import pytest
import tensorflow_datasets as tfds

from genjax.data import sources
from genjax.data.prepared import prepare
from genjax.data.sources import Arrays, open_tfds
from genjax.types import UserError


@pytest.fixture
def data_dir(mnist_folder, tmp_path):
  prepare.open_builder('mnist', tmp_path / 'data', mnist_folder)
  return tmp_path / 'data'


def test_arrays():
  source = Arrays({'a': np.arange(4), 'b': np.eye(4)}, {'name': 'x'})
  assert len(source) == 4 and source.get(np.array([2, 0]))['b'].tolist() == np.eye(4)[[2, 0]].tolist()
  assert source.fingerprint() == Arrays({'b': np.eye(4), 'a': np.arange(4)}, {'name': 'x'}).fingerprint()
  assert source.fingerprint()['checksum'] != Arrays({'a': np.arange(4), 'b': np.ones((4, 4))}).fingerprint()['checksum']
  with pytest.raises(UserError, match="equal lengths, got {'a': 4, 'b': 3}"):
    Arrays({'a': np.arange(4), 'b': np.eye(3)})


def test_splits_are_those_of_tfds(data_dir):
  train, test = (open_tfds('mnist', split, data_dir=data_dir).columns['image'] for split in ('train', 'test'))
  wanted = {
    'train[:90%]': train[:18],
    'train[90%:]': train[18:],
    'train[:4]': train[:4],
    'train[-3:]': train[-3:],
    'test+train[5:7]': np.concatenate([test, train[5:7]]),
  }
  for split, image_NHWC in wanted.items():
    source = open_tfds('mnist', split, data_dir=data_dir)
    np.testing.assert_array_equal(source.get(np.arange(len(source)))['image'], image_NHWC)
    theirs = tfds.data_source('mnist', split=split, data_dir=str(data_dir)) if '+' not in split else None
    if theirs is not None:
      np.testing.assert_array_equal([example['image'] for example in theirs], image_NHWC)


def test_records_and_stored_columns_agree(data_dir, monkeypatch):
  indices = np.array([29, 0, 20, 19, 0])
  stored = open_tfds('mnist', 'train+test', data_dir=data_dir)
  monkeypatch.setattr(sources, '_CACHE_LIMIT', 0)
  read = open_tfds('mnist', 'train+test', data_dir=data_dir)
  assert type(stored) is not type(read) and len(stored) == len(read) == 30
  left, right = stored.get(indices), read.get(indices)
  assert left.keys() == right.keys()
  for name in left:
    np.testing.assert_array_equal(left[name], right[name])
    assert left[name].dtype == right[name].dtype


def test_columns_are_decoded_once_and_again_after_a_change(data_dir, mnist_folder, monkeypatch):
  stored = []
  store = sources._store
  monkeypatch.setattr(sources, '_store', lambda *arguments: (stored.append(1), store(*arguments)))
  first = open_tfds('mnist', 'train', data_dir=data_dir)
  second = open_tfds('mnist', 'train', data_dir=data_dir)
  assert len(stored) == 1 and first.fingerprint() == second.fingerprint()
  base = second.columns['image']
  while isinstance(base, np.ndarray):
    base = base.base
  assert isinstance(base, mmap.mmap)  # not read into memory, so that processes share the pages

  labels = mnist_folder / 't10k-labels-idx1-ubyte'
  labels.write_bytes(labels.read_bytes()[:-1] + b'\0')
  before = open_tfds('mnist', 'test', data_dir=data_dir).fingerprint()
  folder = data_dir / 'mnist' / '3.0.1'
  folder.rename(data_dir / 'old')
  after = open_tfds('mnist', 'test', data_dir=data_dir, originals=mnist_folder).fingerprint()
  assert after['checksum'] != before['checksum']
  assert open_tfds('mnist', 'train', data_dir=data_dir).fingerprint() == first.fingerprint()


def test_interrupted_decoding_is_not_believed(data_dir, monkeypatch):
  stack = sources._stack
  monkeypatch.setattr(sources, '_stack', lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
  with pytest.raises(KeyboardInterrupt):
    open_tfds('mnist', 'train', data_dir=data_dir)
  assert not [path for path in (data_dir / 'mnist' / 'columns').rglob('*') if path.is_file()]
  monkeypatch.setattr(sources, '_stack', stack)
  assert open_tfds('mnist', 'train', data_dir=data_dir).columns['image'].any()


def test_columns_by_name(data_dir):
  source = open_tfds('mnist', 'train', columns=['label'], data_dir=data_dir)
  assert list(source.get(np.arange(2))) == ['label']
  one = open_tfds('mnist', 'train', columns=['label', 'image'], data_dir=data_dir).fingerprint()
  assert one == open_tfds('mnist', 'train', data_dir=data_dir).fingerprint()


def test_data_dir_from_the_environment(data_dir, monkeypatch):
  monkeypatch.setenv('TFDS_DATA_DIR', str(data_dir))
  assert len(open_tfds('mnist', 'test')) == 10


@pytest.mark.parametrize(
  ('request_', 'message'),
  [
    ({'name': 'mnits', 'split': 'train'}, "unknown data set 'mnits'.*did you mean mnist"),
    ({'name': 'zzzzzzzz', 'split': 'train'}, 'unknown data set .*genjax data list'),
    ({'name': 'mnist:2.0.0', 'split': 'train'}, 'mnist:2.0.0 is not prepared in .*version 3.0.1 can be prepared'),
    ({'name': 'mnist', 'split': 'validation'}, r"no split 'validation'.*train \(20\), test \(10\)"),
    ({'name': 'mnist', 'split': 'train['}, r"no split 'train\['.*train \(20\)"),
    ({'name': 'mnist', 'split': 'train[:21]'}, 'incompatible with 20 examples'),
    ({'name': 'mnist', 'split': 'train[:0]'}, "split 'train\\[:0\\]' of mnist has no examples"),
    ({'name': 'mnist', 'split': 'train', 'columns': ['img']}, "no column 'img'; it has image, label"),
  ],
)
def test_bad_requests(data_dir, request_, message):
  with pytest.raises(UserError, match=message):
    open_tfds(**request_, data_dir=data_dir)
