"""Several captions of a picture: one is drawn whenever it is read."""

import json

import numpy as np
from PIL import Image
import pytest

from genjax.data import folder, packing
from genjax.data.pipeline import Pipeline, RowRandom, columns_of
from genjax.types import UserError

TEXTS = {'a.png': ['a cat', 'a small cat', 'an animal'], 'b.png': 'a dog', 'c.png': ['a bird', 'a wing']}


def write(path, texts=TEXTS):
  path.mkdir(parents=True, exist_ok=True)
  for number, name in enumerate(texts):
    Image.fromarray(np.full((4, 4, 3), 40 * number, np.uint8)).save(path / name)
  (path / 'metadata.jsonl').write_text('\n'.join(json.dumps({'file_name': name, 'text': text})
                                                 for name, text in texts.items() if text is not None))
  return path


def of(source, columns):
  """Texts by picture, whose level tells which one it is."""
  return {'abc'[int(image[0, 0, 0]) // 40]: text for image, text in zip(columns['image'], columns['text'])}


@pytest.mark.parametrize('packed', [False, True])
def test_one_is_drawn_by_the_key_of_a_reading(tmp_path, packed):
  root = write(tmp_path / 'own')
  options = folder.Options('pictures', ('text',))
  if packed:
    packing.pack(root, tmp_path / 'packed', folder.Options('pictures'))
    root = tmp_path / 'packed'
  source = folder.open_folder(root, 'train', options)
  assert of(source, source.get(np.arange(3))) == {'a': 'a cat', 'b': 'a dog', 'c': 'a bird'}
  assert set(columns_of(source, np.arange(3), ('text',))['text']) == {'a cat', 'a dog', 'a bird'}
  drawn = [of(source, source.draw(np.arange(3), RowRandom(0, np.arange(3) + 3 * step))) for step in range(40)]
  counts = [sum(texts['a'] == text for texts in drawn) for text in TEXTS['a.png']]
  assert min(counts) >= 5 and {texts['b'] for texts in drawn} == {'a dog'}
  again = Pipeline(lambda: source, 3, seed=1)
  assert (again.batch(7)['text'] == again.batch(7)['text']).all()
  np.testing.assert_array_equal(again.batch(7)['text'][1:2], again.batch(7, slice(1, 2))['text'])


def test_pictures_without_a_caption_have_an_empty_one(tmp_path):
  source = folder.open_folder(write(tmp_path, {**TEXTS, 'b.png': None}), 'train', folder.Options('pictures', ('text',)))
  assert of(source, source.get(np.arange(3)))['b'] == ''


@pytest.mark.parametrize('wrong', [['a', 3], 5, []])
def test_captions_that_are_no_texts(tmp_path, wrong):
  with pytest.raises(UserError, match="line 1: 'text' must be a text, or a list of texts"):
    folder.open_folder(write(tmp_path, {'a.png': wrong}), 'train', folder.Options('pictures', ('text',)))


def test_random_numbers_apart_change_no_others():
  one, other = RowRandom(0, np.arange(4)), RowRandom(0, np.arange(4))
  apart = one.apart('text').uniform()
  np.testing.assert_array_equal(one.uniform(3), other.uniform(3))
  assert (apart != other.apart('other').uniform()).all()
  np.testing.assert_array_equal(apart, other.apart('text').uniform())
