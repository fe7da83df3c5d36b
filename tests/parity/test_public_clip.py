"""Imported CLIP models against `transformers`: random small ones, in and out, with both rules of pooling."""

import json

import jax
import numpy as np
import pytest

from genjax import interop
from genjax.data.text import clip_tokens

torch = pytest.importorskip('torch', reason='parity tests need the extra [parity]')
transformers = pytest.importorskip('transformers', reason='parity tests need the extra [parity]')
torch.set_num_threads(1)  # its threads wait for each other on busy machines
pytestmark = pytest.mark.slow

TEXT = dict(vocab_size=50, hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=3,
            max_position_embeddings=12, initializer_range=0.3, bos_token_id=48, eos_token_id=49, pad_token_id=49)
IMAGE = dict(hidden_size=20, intermediate_size=36, num_hidden_layers=2, num_attention_heads=2, image_size=28,
             patch_size=7, initializer_range=0.3)
CASES = {
  'CLIPModel': {}, 'CLIPModel_legacy': {'eos_token_id': 2}, 'CLIPModel_gelu': {'hidden_act': 'gelu'},
  'CLIPTextModel': {}, 'CLIPTextModelWithProjection': {'eos_token_id': 2}, 'CLIPVisionModel': {},
  'CLIPVisionModelWithProjection': {}}


def published(case, folder):
  torch.manual_seed(0)
  name, more = case.partition('_')[0], CASES[case]
  text = {**TEXT, **more}
  image = {**IMAGE, **{key: value for key, value in more.items() if key == 'hidden_act'}}
  if 'Text' in name:
    options = transformers.CLIPTextConfig(**text, projection_dim=16)
  elif 'Vision' in name:
    options = transformers.CLIPVisionConfig(**image, projection_dim=16)
  else:
    options = transformers.CLIPConfig(text_config=text, vision_config=image, projection_dim=16)
  model = getattr(transformers, name)(options)
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.add_(0.1 * torch.randn_like(parameter))
  model.save_pretrained(folder)
  return model.eval()


def near(found, expected):
  expected = expected.detach().numpy()
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize('case', CASES)
def test_outputs_and_round_trip(case, tmp_path):
  theirs = published(case, tmp_path / 'public')
  ours = interop.load(tmp_path / 'public')
  rng = np.random.default_rng(0)
  image = rng.normal(size=(2, 28, 28, 3)).astype(np.float32)
  ids = np.array([[48, 5, 7, 3, 49, 49, 49], [48, 4, 49, 49, 49, 49, 49]], np.int32)
  pixels, tokens = torch.tensor(image.transpose(0, 3, 1, 2)), torch.tensor(ids)
  interop.save(tmp_path / 'copy', ours)
  assert (tmp_path / 'copy' / 'model.safetensors').read_bytes() == (tmp_path / 'public'
                                                                    / 'model.safetensors').read_bytes()
  interop.save(tmp_path / 'own', ours.config, ours.params, architecture=ours.architecture)
  again, report = type(theirs).from_pretrained(tmp_path / 'own', output_loading_info=True)
  assert not any(report[kind] for kind in ('missing_keys', 'unexpected_keys', 'mismatched_keys'))
  apply = jax.jit(ours.network.apply, static_argnames='skip')
  with torch.no_grad():
    for model in (theirs, again.eval()):
      if 'Vision' in case:
        found, expected = apply(ours.params, {}, image)[0], model(pixels)
        near(found['image'], expected.image_embeds if 'Projection' in case else expected.pooler_output)
      elif 'Text' in case:
        found, expected = apply(ours.params, {}, ids_BT=ids)[0], model(tokens, output_hidden_states=True)
        near(found['text'], expected.text_embeds if 'Projection' in case else expected.pooler_output)
        near(found['hidden'], expected.last_hidden_state)
        for skip in (1, 2):
          raw = apply(ours.params, {}, ids_BT=ids, skip=skip)[0]
          near(raw['raw'], expected.hidden_states[-1 - skip])
          near(raw['text'], torch.tensor(np.asarray(found['text'])))
      else:
        found, expected = apply(ours.params, {}, image, ids)[0], model(tokens, pixels)
        unit = {name: found[name] / np.linalg.norm(found[name], axis=1, keepdims=True) for name in ('image', 'text')}
        near(unit['image'], expected.image_embeds)
        near(unit['text'], expected.text_embeds)
        near(np.exp(ours.params['scale']) * unit['text'] @ unit['image'].T, expected.logits_per_text)


def test_tokens(tmp_path):
  letters = 'abcdefghijklmnopqrstuvwxyz'
  merges = ['c a', 'ca t</w>', 'd o', 'do g</w>']
  vocabulary = [*letters, *(letter + '</w>' for letter in letters), *(''.join(pair.split()) for pair in merges), '!',
                clip_tokens.START, clip_tokens.END]
  (tmp_path / 'vocab.json').write_text(json.dumps({token: index for index, token in enumerate(vocabulary)}))
  (tmp_path / 'merges.txt').write_text('\n'.join(['#version: 0.2', *merges]) + '\n')
  names = {f'{kind}_token': clip_tokens.END for kind in ('eos', 'unk', 'pad')}
  (tmp_path / 'tokenizer_config.json').write_text(json.dumps(
    {'tokenizer_class': 'CLIPTokenizer', 'bos_token': clip_tokens.START, **names}))
  theirs = transformers.CLIPTokenizer.from_pretrained(tmp_path)
  ours, start, end, _ = clip_tokens.open_clip_tokenizer(tmp_path)
  for text in (' A  CAT,  a dog\nsitting', "it's a dog's cat", 'abc 12 x!', '!!cat'):
    assert theirs(text)['input_ids'] == [start, *ours.encode(text).tolist(), end]
