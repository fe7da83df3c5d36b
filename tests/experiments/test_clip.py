"""CLIPs as parts: a space of images and texts, text encoders, features; tokenizers of both kinds."""

import json

import jax
import numpy as np
import pytest

from genjax import interop
from genjax.data.text import clip_tokens
from genjax.experiments import public_configs
from genjax.models.transformers.clip import ClipConfig, ClipImage, ClipText, encoder
from genjax.runs import importing
from genjax.types import UserError

MERGES = ['c a', 'ca t</w>', 'd o', 'do g</w>']
LETTERS = 'abcdefghijklmnopqrstuvwxyz'
VOCABULARY = [*LETTERS, *(letter + '</w>' for letter in LETTERS), *(''.join(pair.split()) for pair in MERGES), '!',
              clip_tokens.START, clip_tokens.END]
END = len(VOCABULARY) - 1
TEXT = ClipText(3, 2, 8, vocab=END + 1, context=9, end=END)
MODELS = {'clip': ClipConfig(TEXT, ClipImage(2, 2, 8, shape=(8, 8, 3), patch=4), 6),
          'clip_text_model': ClipConfig(TEXT, None, 0),
          'clip_vision_model': ClipConfig(None, ClipImage(2, 2, 8, shape=(8, 8, 3), patch=4), 0)}


@pytest.fixture
def public(tmp_path):
  def save(name, **entries):
    folder = tmp_path / name
    interop.save(folder, MODELS[name], encoder(MODELS[name]).init(jax.random.key(1))[0])
    if 'vision' not in name:
      (folder / 'vocab.json').write_text(json.dumps({token: index for index, token in enumerate(VOCABULARY)}))
      (folder / 'merges.txt').write_text('\n'.join(['#version: 0.2', *MERGES]) + '\n')
    described = json.loads((folder / 'config.json').read_text())
    (folder / 'config.json').write_text(json.dumps({**described, **entries}))
    return folder

  return save


def test_joint(public, opened, images):
  folder = public('clip')
  joint, group = opened(folder, 'joint')
  assert (joint.shape, joint.width, joint.length, joint.name) == ((8, 8, 3), 6, 9, 'clip')
  assert joint.resize == 'bicubic antialias 8 crop'
  ids, mask = joint.tokenize(['Cat dog', 'a'], False)
  cat, dog, a = (VOCABULARY.index(token) for token in ('cat</w>', 'dog</w>', 'a</w>'))
  assert ids.tolist() == [[END - 1, cat, dog, *[END] * 6], [END - 1, a, *[END] * 7]]
  assert mask.sum(axis=1).tolist() == [4, 3]
  image = images(2, 8, 8, 3)
  seen, read = joint.image(group, image), joint.text(group, ids, mask)
  np.testing.assert_allclose(np.linalg.norm(seen, axis=1), 1, rtol=1e-5)
  np.testing.assert_allclose(np.linalg.norm(read, axis=1), 1, rtol=1e-5)
  pixels = (image / np.float32(255) - public_configs.CLIP_MEAN) / public_configs.CLIP_DEVIATION
  expected, _ = encoder(MODELS['clip']).apply(interop.load(folder).params, {}, pixels.astype(np.float32), ids)
  for found, name in ((seen, 'image'), (read, 'text')):
    unit = expected[name] / np.linalg.norm(expected[name], axis=1, keepdims=True)
    np.testing.assert_allclose(found, unit, rtol=1e-3, atol=1e-4)
  np.testing.assert_allclose(joint.scale(group), 1 / 0.07, rtol=1e-5)
  assert joint.image(group, images(1, 20, 13, 3)).shape == (1, 6)
  with pytest.raises(UserError, match='has 13 tokens, and the encoder reads at most 9'):
    joint.tokenize(['abcdefghijk'], False)
  cut, _ = joint.tokenize(['abcdefghijk'], True)
  assert cut[0, -1] == END and len(cut[0]) == 9
  features, group = opened(folder, 'features')
  assert set(group['params']['net']) == {'image'} and features.width == 6
  np.testing.assert_allclose(features.extract(group, image), expected['image'], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(('entries', 'output', 'skip'), [
  ({}, 'hidden', 0), ({'clip_skip': 1}, 'hidden', 1), ({'clip_skip': 1, 'clip_norm': False}, 'raw', 1)])
def test_text_encoder(entries, output, skip, public, opened):
  folder = public('clip_text_model', **entries)
  text, group = opened(folder, 'text_encoder')
  ids, mask = text.tokenize(['cat', 'a dog'], False)
  found = text.encode(group, ids, mask)
  expected, _ = encoder(MODELS['clip_text_model']).apply(interop.load(folder).params, {}, ids_BT=ids, skip=skip)
  np.testing.assert_allclose(found['tokens'], expected[output], rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(found['pooled'], expected['text'], rtol=1e-4, atol=1e-5)
  assert found['mask'].all()  # padding counts, as Stable Diffusion has it


def test_a_text_encoder_without_padding(public, opened):
  text, group = opened(public('clip', clip_padding=False), 'text_encoder')
  assert set(group['params']['net']) == {'text'}
  ids, mask = text.tokenize(['cat'], False)
  found = text.encode(group, ids, mask)
  assert np.array_equal(found['mask'], mask) and not np.any(found['tokens'][0, 3:]) and found['pooled'].shape == (1, 6)


def test_tokenizers_of_both_kinds(public, tmp_path):
  folder = public('clip_text_model')
  older, start, end, padding = clip_tokens.open_clip_tokenizer(folder)
  (tmp_path / 'newer').mkdir()
  for name, data in older.files().items():
    (tmp_path / 'newer' / name).write_bytes(data)
  newer, *rest = clip_tokens.open_clip_tokenizer(tmp_path / 'newer')
  assert [start, end, padding] == rest == [END - 1, END, END]
  text = ' A  CAT,  a dog\nsitting'
  assert newer.encode(text).tolist() == older.encode(text).tolist() and older.decode(newer.encode('a cat')) == 'a cat'
  (folder / 'tokenizer_config.json').write_text(json.dumps({'pad_token': '!'}))
  assert clip_tokens.open_clip_tokenizer(folder)[3] == VOCABULARY.index('!')


def test_what_does_not_fit(public, tmp_path, opened):
  folder = public('clip_text_model')
  with pytest.raises(UserError, match='clip_text_model has no image tower, which this kind of part needs'):
    opened(folder, 'joint')
  with pytest.raises(UserError, match='clip_vision_model has no text tower'):
    opened(public('clip_vision_model'), 'text_encoder')
  described = json.loads((folder / 'config.json').read_text())
  for entries, message in (({'clip_skip': 3}, 'must be from 0 to 2'), ({'eos_token_id': 5}, 'pools texts at token 5'),
                           ({'clip_norm': 'no'}, 'must be true or false')):
    (folder / 'config.json').write_text(json.dumps({**described, **entries}))
    with pytest.raises(UserError, match=message):
      opened(folder, 'text_encoder')
  (folder / 'config.json').write_text(json.dumps({**described, 'eos_token_id': 2}))
  opened(folder, 'text_encoder')
  (folder / 'merges.txt').unlink()
  with pytest.raises(UserError, match='has no tokenizer of CLIP'):
    opened(folder, 'text_encoder')
  with pytest.raises(UserError, match='only extracts features'):
    importing.import_model(folder, tmp_path / 'run')
