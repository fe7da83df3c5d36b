"""Images brought to one size: against Pillow's rules and the published preprocessing of ViT."""

import numpy as np
from PIL import Image
import pytest

from genjax.data import sources
from genjax.data.images import resizing
from genjax.types import UserError


def gradient(height, width, channels=3):
  """Images whose red grows with the column and whose green grows with the row, both linearly."""
  rows, columns = np.mgrid[:height, :width]
  image = np.stack([255 * columns / (width - 1), 255 * rows / (height - 1), np.full(rows.shape, 90)], axis=-1)
  return np.round(image[..., :channels]).astype(np.uint8)


def resized(image, shape, filter='bilinear', crop=False):
  source = resizing.Resized(sources.Arrays({'image': image[None], 'label': np.array([7])}), shape, filter, crop)
  columns = source.get(np.zeros(1, np.int64))
  assert columns['label'] == 7 and columns['image'].dtype == np.uint8
  return columns['image'][0]


def test_a_stretched_gradient_keeps_its_corners():
  found = resized(gradient(32, 64), (16, 16, 3))
  expected = (np.arange(16) + 0.5) / 16 * 64 - 0.5  # columns of the original that columns of the result stand for
  np.testing.assert_allclose(found[8, 1:-1, 0], 255 * expected[1:-1] / 63, atol=1.5)
  assert (found[..., 2] == 90).all()


def test_a_crop_is_the_middle():
  image = gradient(32, 64)
  np.testing.assert_array_equal(resized(image, (32, 32, 3), 'nearest', crop=True), image[:, 16:48])
  np.testing.assert_array_equal(resized(image, (16, 64, 3), 'nearest', crop=True), image[8:24])
  np.testing.assert_array_equal(resized(image, (32, 64, 3), 'lanczos', crop=True), image)


def test_grey_and_coloured():
  grey = gradient(8, 8, 1)
  coloured = resized(grey, (8, 8, 3))
  np.testing.assert_array_equal(coloured, np.repeat(grey, 3, axis=-1))
  np.testing.assert_array_equal(resized(coloured, (8, 8, 1)), grey)


def test_images_of_several_sizes():
  images = np.empty(2, object)
  images[:] = [gradient(5, 9), gradient(20, 11)]
  source = resizing.Resized(sources.Arrays({'image': images}, {'checksum': 'x'}), (6, 7, 3), 'bicubic')
  assert source.get(np.array([1, 0, 1]))['image'].shape == (3, 6, 7, 3)
  assert source.fingerprint() == {
    'checksum': 'x', 'examples': 2, 'resize': 'bicubic', 'shape': [6, 7, 3], 'crop': False
  }


@pytest.mark.parametrize('size', [12, 224])
@pytest.mark.parametrize(('filter', 'resample'), [('bilinear', Image.Resampling.BILINEAR),
                                                  ('bicubic', Image.Resampling.BICUBIC)])
def test_equal_to_the_published_preprocessing(size, filter, resample):
  transformers = pytest.importorskip('transformers', reason='parity tests need the extra [parity]')
  from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
  image = np.random.default_rng(0).integers(0, 256, (32, 40, 3)).astype(np.uint8)
  processor = ViTImageProcessorPil(size={'height': size, 'width': size}, resample=resample)
  expected = processor(image, return_tensors='np')['pixel_values'][0].transpose(1, 2, 0)
  np.testing.assert_allclose(resized(image, (size, size, 3), filter) / 127.5 - 1, expected, atol=1e-6)
  assert transformers


@pytest.mark.parametrize(('image', 'shape', 'filter', 'message'), [
  (gradient(4, 4), (2, 2, 3), 'linear', r"config\.data\.resize must be one of \['bicubic', .*got 'linear'"),
  (gradient(4, 4), (2, 2, 4), 'bilinear', r'1 or 3 channels, got config\.data\.shape \(2, 2, 4\)'),
  (gradient(4, 4).astype(np.float32), (2, 2, 3), 'bilinear', r'got float32 \(4, 4, 3\)'),
])
def test_bad_input(image, shape, filter, message):
  with pytest.raises(UserError, match=message):
    resized(image, shape, filter)


def test_one_image_is_resized_as_a_source_resizes_it():
  image = np.random.default_rng(0).integers(0, 256, (10, 14, 3)).astype(np.uint8)
  source = resizing.Resized(sources.Arrays({'image': image[None]}), (6, 6, 1), 'bicubic', True)
  np.testing.assert_array_equal(resizing.resize(image, (6, 6, 1), 'bicubic', True),
                                source.get(np.asarray([0]))['image'][0])
