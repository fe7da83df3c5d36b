"""Tiny original files in the layouts of the real ones."""

import gzip
import io
import pathlib
import pickle
import tarfile

import numpy as np
from PIL import Image
import pytest

from genjax.data.prepared.builders import MNIST, Cifar10

COUNTS = {'train': 20, 'test': 10}


def idx(array):
  """An array as the contents of an idx file."""
  header = np.array([0x0800 + array.ndim, *array.shape], '>i4').tobytes()
  return header + array.astype(np.uint8).tobytes()


def images(split, shape):
  generator = np.random.default_rng(len(split))
  count = COUNTS[split]
  return generator.integers(0, 256, (count, *shape), dtype=np.uint8), (np.arange(count) % 10).astype(np.uint8)


@pytest.fixture
def mnist_folder(tmp_path, monkeypatch):
  """Train files are compressed, test files are not."""
  monkeypatch.setattr(MNIST, 'COUNTS', COUNTS)
  folder = tmp_path / 'mnist'
  folder.mkdir()
  for split, stem in (('train', 'train'), ('test', 't10k')):
    image_NHW, label_N = images(split, (28, 28))
    for name, data in ((f'{stem}-images-idx3-ubyte', idx(image_NHW)), (f'{stem}-labels-idx1-ubyte', idx(label_N))):
      if split == 'train':
        (folder / f'{name}.gz').write_bytes(gzip.compress(data))
      else:
        (folder / name).write_bytes(data)
  return folder


def write_cifar(folder: pathlib.Path, layout: str):
  """Writes the tiny CIFAR-10 in one of its layouts; train comes in five batches."""
  folder.mkdir()
  files = {}
  for split in COUNTS:
    image_NHWC, label_N = images(split, (32, 32, 3))
    planes_NP = image_NHWC.transpose(0, 3, 1, 2).reshape(len(image_NHWC), -1)
    if layout == 'grids':
      grid = np.zeros((2500, 32, 32, 3), np.uint8)
      grid[: len(image_NHWC)] = image_NHWC
      pixels = grid.reshape(50, 50, 32, 32, 3).swapaxes(1, 2).reshape(1600, 1600, 3)
      Image.fromarray(pixels).save(folder / f'{split}_00.webp', lossless=True, quality=0)
      np.save(folder / f'{split}_labels.npy', label_N)
      continue
    parts = 5 if split == 'train' else 1
    for number, rows in enumerate(np.split(np.arange(len(image_NHWC)), parts), 1):
      name = f'data_batch_{number}' if split == 'train' else 'test_batch'
      if layout == 'python':
        files[name] = pickle.dumps({b'data': planes_NP[rows], b'labels': label_N[rows].tolist()}, protocol=2)
      else:
        files[name + '.bin'] = np.concatenate([label_N[rows, None], planes_NP[rows]], axis=1).tobytes()
  if layout == 'archive':
    with tarfile.open(folder / 'cifar-10-binary.tar.gz', 'w:gz') as tar:
      for name, data in files.items():
        member = tarfile.TarInfo(f'cifar-10-batches-bin/{name}')
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
  else:
    for name, data in files.items():
      (folder / name).write_bytes(data)


@pytest.fixture
def cifar_counts(monkeypatch):
  monkeypatch.setattr(Cifar10, 'COUNTS', COUNTS)
  return COUNTS


@pytest.fixture
def tiny_images():
  """(split, shape of an image) -> the images and labels that the tiny files hold."""
  return images


@pytest.fixture
def cifar_folder(cifar_counts, tmp_path):
  """Layout -> folder with the tiny CIFAR-10."""

  def write(layout):
    write_cifar(tmp_path / 'cifar', layout)
    return tmp_path / 'cifar'

  return write
