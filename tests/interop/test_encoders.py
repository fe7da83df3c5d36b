"""Encoders and encoder-decoders as public weights and back, on small folders that genjax wrote."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from genjax import interop
from genjax.interop import files
from genjax.models.transformers.bert import BertConfig, encoder
from genjax.models.transformers.seq2seq import Seq2SeqConfig, seq2seq
from genjax.models.transformers.t5 import t5, t5_1_1
from genjax.models.transformers.vit import VitConfig
from genjax.models.transformers.vit import encoder as image_encoder
from genjax.models.transformers.whisper import OPTIONS
from genjax.types import UserError

SIZES = dict(vocab=19, context=12, layers=2, heads=2, width=6, mlp_width=7)
MARIAN = Seq2SeqConfig(**SIZES, init='normal', output_bias=True, activation='silu', decoder_layers=1)
CONFIGS = {
  'bert_model': BertConfig(**SIZES),
  'bert_masked_lm': BertConfig(**SIZES, pooler=False, masked_lm=True, activation='relu'),
  'bert_pretraining': BertConfig(**SIZES, masked_lm=True, next_sentence=True, types=3),
  'bert_classifier': BertConfig(**SIZES, classes=5),
  'marian': MARIAN,
  't5': t5('small', **SIZES, head_dim=5, decoder_layers=3),
  't5_1_1': t5_1_1('small', **SIZES, head_dim=5, decoder_layers=2),
  't5_encoder': t5_1_1('small', **SIZES, head_dim=5, decoder_layers=0, tied=True),
  'whisper': Seq2SeqConfig(**SIZES, frames=5, source_context=9, decoder_layers=1, init='normal', **OPTIONS),
  'vit_model': VitConfig((6, 9, 2), 0, patch=3, layers=2, heads=2, width=6, mlp_width=7, pooler=True,
                         activation='relu'),
  'vit_classifier': VitConfig((6, 6, 3), 5, patch=2, layers=2, heads=2, width=6, mlp_width=7),
}
NETWORKS = {BertConfig: encoder, Seq2SeqConfig: seq2seq, VitConfig: image_encoder}


def random_params(config):
  network = NETWORKS[type(config)](config)
  leaves, structure = jax.tree.flatten(jax.eval_shape(network.init, jax.random.key(0))[0])
  return jax.tree.unflatten(structure, [np.random.default_rng(number).normal(size=leaf.shape).astype(np.float32)
                                        for number, leaf in enumerate(leaves)])


@pytest.fixture
def saved(tmp_path):
  def save(name):
    interop.save(tmp_path / name, CONFIGS[name], random_params(CONFIGS[name]), architecture=name.split('_')[0])
    return tmp_path / name

  return save


@pytest.mark.parametrize('name', CONFIGS)
def test_round_trip(name, saved, tmp_path):
  folder = saved(name)
  model = interop.load(folder)
  assert model.architecture == name.split('_')[0]
  assert model.config == CONFIGS[name]
  jax.tree.map(np.testing.assert_array_equal, model.params, random_params(CONFIGS[name]))
  interop.save(tmp_path / 'second', model)
  for file in ('config.json', files.SINGLE):
    assert (tmp_path / 'second' / file).read_bytes() == (folder / file).read_bytes()


@pytest.mark.parametrize(('name', 'present', 'absent'), [
  # A bare model has no prefix
  ('bert_model', 'embeddings.word_embeddings.weight', 'bert.embeddings.word_embeddings.weight'),
  ('bert_masked_lm', 'bert.embeddings.word_embeddings.weight', 'cls.predictions.decoder.weight'),  # tied
  ('t5', 'decoder.block.2.layer.2.DenseReluDense.wi.weight', 'lm_head.weight'),
  ('t5_1_1', 'encoder.block.1.layer.1.DenseReluDense.wi_0.weight', 'encoder.block.1.layer.1.DenseReluDense.wi.weight'),
  ('t5_encoder', 'encoder.final_layer_norm.weight', 'decoder.final_layer_norm.weight'),
  ('whisper', 'model.encoder.embed_positions.weight', 'model.encoder.layers.0.self_attn.k_proj.bias'),
  ('vit_model', 'embeddings.cls_token', 'vit.embeddings.cls_token'),
  ('vit_classifier', 'vit.embeddings.cls_token', 'pooler.dense.weight'),
])
def test_names(name, present, absent, saved):
  tensors = load_file(saved(name) / files.SINGLE)
  assert present in tensors and absent not in tensors


def test_layouts(saved):
  """Linear layers are (out, in), convolutions (out, in, ...); a bias of logits is a row; of two projections the first
  is the gate."""
  tensors, params = load_file(saved('marian') / files.SINGLE), random_params(CONFIGS['marian'])
  np.testing.assert_array_equal(tensors['final_logits_bias'], params['head']['token_bias'][None])
  np.testing.assert_array_equal(tensors['model.encoder.layers.1.fc1.weight'],
                                params['encoder']['blocks']['up']['kernel'][1].T)
  tensors = load_file(saved('vit_model') / files.SINGLE)
  kernel = random_params(CONFIGS['vit_model'])['embedding']['patches']['kernel']
  np.testing.assert_array_equal(tensors['embeddings.patch_embeddings.projection.weight'],
                                np.moveaxis(kernel, (3, 2), (0, 1)))
  tensors, blocks = load_file(saved('t5_1_1') / files.SINGLE), random_params(CONFIGS['t5_1_1'])['encoder']['blocks']
  np.testing.assert_array_equal(tensors['encoder.block.1.layer.1.DenseReluDense.wi_0.weight'],
                                blocks['gate']['kernel'][1].T)


def set_entry(**entries):
  def damage(folder):
    path = folder / 'config.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))
  return damage


def drop_tensor(name):
  def damage(folder):
    tensors = load_file(folder / files.SINGLE)
    del tensors[name]
    save_file(tensors, folder / files.SINGLE)
  return damage


@pytest.mark.parametrize(
  ('name', 'damage', 'message'),
  [('bert_model', set_entry(position_embedding_type='relative_key'), "position_embedding_type is 'relative_key'"),
   ('bert_model', set_entry(is_decoder=True), 'is_decoder is True'),
   ('bert_model', set_entry(num_attention_heads=4), r'config\.json: width \(6\) must be a multiple of heads \(4\)'),
   ('bert_model', drop_tensor('encoder.layer.1.output.dense.bias'),
    r'1 missing: bert\.encoder\.layer\.1\.output\.dense\.bias'),
   ('bert_classifier', drop_tensor('bert.pooler.dense.weight'), 'a token classifier'),
   ('marian', set_entry(decoder_ffn_dim=9), r'of another shape: .*decoder\.layers\.0\.fc1'),
   ('marian', set_entry(share_encoder_decoder_embeddings=False), r'2 missing: .*decoder\.embed_tokens'),
   ('marian', set_entry(normalize_before=True), 'normalize_before is True'),
   ('marian',
    drop_tensor('model.decoder.layers.0.encoder_attn.q_proj.bias'), r'1 missing: .*encoder_attn\.q_proj\.bias'),
   ('whisper', set_entry(scale_embedding=True), 'scale_embedding is True'),
   ('vit_model', set_entry(qkv_bias=False), r'without a place in the model: .*attention\.key\.bias'),
   ('vit_model', set_entry(image_size='large'), "image_size must be a whole number .* got 'large'"),
   ('vit_model', set_entry(patch_size=[3, 2]), '3 by 2 pixels'),
   ('vit_model', set_entry(image_size=[6, 8]), r'config\.json: patch must divide'),
   ('t5', set_entry(feed_forward_proj='gated-tanh'), "feed_forward_proj is 'gated-tanh'"),
   ('t5', set_entry(num_decoder_layers=2), r'without a place in the model: decoder\.block\.2\.'),
   ('t5_1_1', set_entry(tie_word_embeddings=True,
                        scale_decoder_outputs=True), 'lm_head.weight and shared.weight differ'),])
def test_bad_folders(name, damage, message, saved):
  folder = saved(name)
  damage(folder)
  with pytest.raises(UserError, match=message):
    interop.load(folder)


@pytest.mark.parametrize(('config', 'architecture', 'message'), [
  (BertConfig(**SIZES, masked_lm=True, classes=2), 'bert', 'bert has no model with masked_lm=True.*BertForPreTraining'),
  (BertConfig(**SIZES), 't5', r"architecture must be one of \['bert'\], got 't5'"),
  (dataclasses.replace(
    MARIAN, key_bias=False), None, r'no public architecture.*marian has no key_bias=False.*t5 has no positions'),
  (dataclasses.replace(MARIAN, decoder_layers=0), 'marian', 'marian has no decoder_layers=0'),
  (dataclasses.replace(CONFIGS['t5'], tied=False), 't5', 'output_scale=True with tied=False'),
  (dataclasses.replace(CONFIGS['t5'], activation='gelu',
                       gated=True), 't5', "t5 has no activation='gelu' with gated=True"),
  (dataclasses.replace(CONFIGS['whisper'], frames=0,
                       source_context=0), 'whisper', 'whisper has no decoder_layers=1 with frames=0'),
  (dataclasses.replace(CONFIGS['vit_classifier'], pooler=True), 'vit', 'vit with classes has no pooler=True'),
  ({'vocab': 3}, None, 'that of a config of genjax.models, and dict is none'),
])
def test_configs_without_a_public_architecture(config, architecture, message, tmp_path):
  with pytest.raises(UserError, match=message):
    interop.save(tmp_path / 'out', config, {}, architecture=architecture)
  assert not list(tmp_path.iterdir())
