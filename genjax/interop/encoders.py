"""Public encoders as options of `genjax.models.transformers.bert`: BERT, with the heads in a folder."""

from collections.abc import Mapping
from typing import Any

from genjax.interop.entries import Entries
from genjax.interop.mapping import ACTIVATIONS, Architecture, Tensor, activation_name, both, refuse
from genjax.models.transformers.bert import BertConfig, encoder
from genjax.types import UserError

# (masked_lm, next_sentence, classes) -> class of transformers. Older files of the first may have an unused pooler.
_CLASSES = {(True, False, False): 'BertForMaskedLM', (True, True, False): 'BertForPreTraining',
            (False, False, False): 'BertModel', (False, True, False): 'BertForNextSentencePrediction',
            (False, False, True): 'BertForSequenceClassification'}


def _read(entries: Entries, stored: Mapping[str, Any]) -> BertConfig:
  entries.only('position_embedding_type', 'absolute', 'positions are learned')
  entries.only('is_decoder', False, 'an encoder sees all tokens')
  entries.only('add_cross_attention', False, 'an encoder attends to its own tokens')
  entries.only('tie_word_embeddings', True, 'the output layer is the transposed embedding')
  names = {name.removeprefix('bert.') for name in stored}
  if 'classifier.weight' in names and 'pooler.dense.weight' not in names:
    raise UserError(
      f'{entries.where}: the folder has a token classifier, but genjax only has sequence classifiers, with a pooler')
  return BertConfig(
    vocab=entries.integer('vocab_size'), context=entries.integer('max_position_embeddings'),
    layers=entries.integer('num_hidden_layers'), heads=entries.integer('num_attention_heads'),
    width=entries.integer('hidden_size'), mlp_width=entries.integer('intermediate_size'), types=entries.integer(
      'type_vocab_size', 2), norm_eps=entries.number('layer_norm_eps', 1e-12), activation=entries.choice(
        'hidden_act', ACTIVATIONS, 'gelu'), init_scale=entries.number('initializer_range',
                                                                      0.02), pooler='pooler.dense.weight' in names,
    masked_lm='cls.predictions.bias' in names, next_sentence='cls.seq_relationship.weight' in names,
    classes=stored['classifier.weight'].shape[0] if 'classifier.weight' in stored else 0)


def _write(config: BertConfig) -> dict[str, Any]:
  refuse('bert', config, norm=('layer',))
  kind = (config.masked_lm, config.next_sentence, bool(config.classes))
  if kind not in _CLASSES:
    raise UserError(f'bert has no model with masked_lm={config.masked_lm}, next_sentence={config.next_sentence} and '
                    f'classes={config.classes}; its models are {sorted(_CLASSES.values())}')
  labels = {'num_labels': config.classes} if config.classes else {}
  return {
    'architectures': [_CLASSES[kind]], 'vocab_size': config.vocab, 'max_position_embeddings': config.context,
    'num_hidden_layers': config.layers, 'num_attention_heads': config.heads, 'hidden_size': config.width,
    'intermediate_size': config.mlp_width or 4 * config.width, 'type_vocab_size': config.types,
    'layer_norm_eps': config.norm_eps, 'hidden_act': activation_name(
      config.activation), 'initializer_range': config.init_scale, **labels
  }


_LAYER = 'bert.encoder.layer.{layer}'

_TENSORS = (Tensor('bert.embeddings.word_embeddings.weight', ('embedding/token/embedding',)),
            Tensor('bert.embeddings.position_embeddings.weight', ('embedding/position/embedding',)),
            Tensor('bert.embeddings.token_type_embeddings.weight',
                   ('embedding/type/embedding',)), *both('bert.embeddings.LayerNorm', 'embedding/norm', kernel='scale'),
            *(row for name in ('query', 'key', 'value')
              for row in both(f'{_LAYER}.attention.self.{name}', f'blocks/attention/{name}')),
            *both(f'{_LAYER}.attention.output.dense', 'blocks/attention/out'),
            *both(f'{_LAYER}.attention.output.LayerNorm', 'blocks/attention_norm', kernel='scale'),
            *both(f'{_LAYER}.intermediate.dense', 'blocks/up'), *both(f'{_LAYER}.output.dense', 'blocks/down'),
            *both(f'{_LAYER}.output.LayerNorm', 'blocks/mlp_norm', kernel='scale'),
            *both('bert.pooler.dense', 'heads/pooler'), *both('cls.predictions.transform.dense', 'heads/transform'),
            *both('cls.predictions.transform.LayerNorm', 'heads/transform_norm', kernel='scale'),
            Tensor('cls.predictions.bias', ('heads/token_bias',)), *both('cls.seq_relationship', 'heads/next_sentence'),
            *both('classifier', 'heads/classifier'),
           )

BERT = Architecture(
  'bert', BertConfig, encoder, lambda config: _TENSORS,
  prefix='bert.', ignored=(r'embeddings\.position_ids',),
  aliases={'cls.predictions.decoder.weight': 'bert.embeddings.word_embeddings.weight',
           'cls.predictions.decoder.bias': 'cls.predictions.bias'},
  read=_read, write=_write, spellings={'hidden_act': ACTIVATIONS},
  renamed={r'LayerNorm\.gamma$': 'LayerNorm.weight', r'LayerNorm\.beta$': 'LayerNorm.bias'},
  bare=lambda config: not (config.masked_lm or config.next_sentence or config.classes),
  defaults={'hidden_dropout_prob': 0.0, 'attention_probs_dropout_prob': 0.0, 'pad_token_id': 0})

ARCHITECTURES = {BERT.name: BERT}
