"""Public encoder-decoders as options of `genjax.models.transformers.seq2seq`: Marian, Whisper, T5 (1.0 and 1.1)."""

from collections.abc import Mapping
from typing import Any

from genjax.interop.entries import Entries
from genjax.interop.mapping import ACTIVATIONS, Architecture, Tensor, activation_name, both, refuse
from genjax.models.transformers.seq2seq import Seq2SeqConfig, seq2seq
from genjax.models.transformers.t5 import CONTEXT
from genjax.types import UserError

_PROJECTIONS = ('query', 'key', 'value', 'out')


def _read_marian(entries: Entries, stored: Mapping[str, Any]) -> Seq2SeqConfig:
  entries.only('normalize_before', False, 'norms come after what they are for')
  entries.only('normalize_embedding', False, 'embeddings have no norm')
  entries.only('add_final_layer_norm', False, 'the last block ends with a norm already')
  entries.only('static_position_embeddings', True, 'positions are sinusoidal')
  sizes = _read_sizes(entries)
  entries.only('tie_word_embeddings', True, 'the output layer is the transposed embedding')
  target_vocab = 0
  if entries.flag('share_encoder_decoder_embeddings', True):
    entries.only('decoder_vocab_size', sizes['vocab'], 'source and target share a vocabulary')
  else:
    target_vocab = entries.integer('decoder_vocab_size', sizes['vocab'])
  return Seq2SeqConfig(**sizes, target_vocab=target_vocab, context=entries.integer('max_position_embeddings', 1024),
                       embedding_scale=entries.flag('scale_embedding',
                                                    False), output_bias='final_logits_bias' in stored)


def _read_sizes(entries: Entries) -> dict[str, Any]:
  """The options with the same names in Marian and Whisper."""
  vocab, heads, mlp_width = (
    entries.integer(name) for name in ('vocab_size', 'encoder_attention_heads', 'encoder_ffn_dim'))
  decoder_heads, decoder_mlp_width = entries.integer('decoder_attention_heads',
                                                     heads), entries.integer('decoder_ffn_dim', mlp_width)
  return {
    'vocab': vocab, 'layers': entries.integer('encoder_layers'), 'decoder_layers': entries.integer('decoder_layers'),
    'heads': heads, 'decoder_heads': 0 if decoder_heads == heads else decoder_heads,
    'width': entries.integer('d_model'), 'mlp_width': mlp_width,
    'decoder_mlp_width': 0 if decoder_mlp_width == mlp_width else decoder_mlp_width, 'init': 'normal', 'init_scale':
      entries.number('init_std', 0.02), 'tied': entries.flag('tie_word_embeddings', True), 'activation': entries.choice(
        'activation_function', ACTIVATIONS, 'gelu')
  }


def _write_sizes(config: Seq2SeqConfig) -> dict[str, Any]:
  mlp_width = config.mlp_width or 4 * config.width
  return {
    'vocab_size': config.vocab, 'encoder_layers': config.layers, 'decoder_layers': config.depth,
    'd_model': config.width, 'encoder_attention_heads': config.heads,
    'decoder_attention_heads': config.decoder_heads or config.heads, 'encoder_ffn_dim': mlp_width,
    'decoder_ffn_dim': config.decoder_mlp_width or mlp_width, 'tie_word_embeddings': config.tied,
    'activation_function': activation_name(config.activation), 'init_std': config.init_scale
  }


def _write_marian(config: Seq2SeqConfig) -> dict[str, Any]:
  refuse('marian', config, positions=('sinusoidal',), pre_norm=(False,), key_bias=(True,), frames=(0,), tied=(True,),
         **_alike(config))
  if not config.depth:
    raise UserError('marian has no decoder_layers=0')
  return {**_write_sizes(config), 'decoder_vocab_size': config.target_vocab or config.vocab,
          'share_encoder_decoder_embeddings': not config.target_vocab,
          'max_position_embeddings': config.context,
          'scale_embedding': config.embedding_scale}


def _alike(config: Seq2SeqConfig) -> dict[str, tuple]:
  """The options that are fixed in Marian and Whisper."""
  return dict(norm=('layer',), norm_eps=(1e-5,), gated=(False,), bias=(True,), scaled=(True,), output_scale=(False,),
              head_dim=(0, config.width // config.heads))


def _marian_attention(theirs: str, ours: str) -> tuple[Tensor, ...]:
  return tuple(row for name, ours_name in zip(('q', 'k', 'v', 'out'), _PROJECTIONS)
               for row in both(f'{theirs}.{name}_proj', f'{ours}/{ours_name}'))


def _marian_layer(side: str) -> tuple[Tensor, ...]:
  theirs, ours = f'model.{side}.layers.{{layer}}', f'{side}/blocks'
  return (
    *_marian_attention(f'{theirs}.self_attn', f'{ours}/attention'),
    *both(f'{theirs}.self_attn_layer_norm', f'{ours}/attention_norm', kernel='scale'),
    *_marian_attention(f'{theirs}.encoder_attn', f'{ours}/cross'),
    *both(f'{theirs}.encoder_attn_layer_norm', f'{ours}/cross_norm', kernel='scale'),
    *both(f'{theirs}.fc1', f'{ours}/up'),
    *both(f'{theirs}.fc2', f'{ours}/down'),
    *both(f'{theirs}.final_layer_norm', f'{ours}/mlp_norm', kernel='scale'),
  )


_MARIAN_TENSORS = (
  *_marian_layer('encoder'),
  *_marian_layer('decoder'),
  Tensor('final_logits_bias', ('head/token_bias',), one_row=True),
)


def _marian_tensors(config: Seq2SeqConfig) -> tuple[Tensor, ...]:
  tables = {'model.encoder.embed_tokens.weight': 'embedding', 'model.decoder.embed_tokens.weight': 'target_embedding'}
  if not config.target_vocab:
    tables = {'model.shared.weight': 'embedding'}
  return (*(Tensor(name, (f'{path}/embedding',)) for name, path in tables.items()), *_MARIAN_TENSORS)


MARIAN = Architecture(
  'marian', Seq2SeqConfig, seq2seq, _marian_tensors,
  prefix='model.', ignored=(r'(encoder|decoder)\.embed_positions\.weight',),  # fixed sinusoidal positions
  aliases=dict.fromkeys(('model.encoder.embed_tokens.weight', 'model.decoder.embed_tokens.weight', 'lm_head.weight'),
                        'model.shared.weight'),
  read=_read_marian, write=_write_marian, spellings={'activation_function': ACTIVATIONS},
  # Public vocabularies end with padding, which also starts a target. These are the defaults for unknown numbers.
  defaults={'architectures': ['MarianMTModel'], 'dropout': 0.0, 'pad_token_id': 0,
            'decoder_start_token_id': 0, 'eos_token_id': 1, 'forced_eos_token_id': None})

def _read_whisper(entries: Entries, stored: Mapping[str, Any]) -> Seq2SeqConfig:
  entries.only('scale_embedding', False, 'embeddings are not scaled')
  return Seq2SeqConfig(**_read_sizes(entries), context=entries.integer('max_target_positions', 448),
                       frames=entries.integer('num_mel_bins', 80), source_context=entries.integer(
                         'max_source_positions',
                         1500), positions='learned', pre_norm=True, key_bias=False, embedding_scale=False)


def _write_whisper(config: Seq2SeqConfig) -> dict[str, Any]:
  refuse('whisper', config, positions=('learned',), pre_norm=(True,), key_bias=(False,), embedding_scale=(False,),
         output_bias=(False,), target_vocab=(0,), **_alike(config))
  if not config.depth or not config.frames:
    raise UserError(f'whisper has no decoder_layers={config.depth} with frames={config.frames}; both are above 0')
  return {**_write_sizes(config), 'max_target_positions': config.context, 'max_source_positions': config.source_context,
          'num_mel_bins': config.frames, 'scale_embedding': False}


_WHISPER_TENSORS = (*both('model.encoder.conv1', 'encoder/input/frames/first'),
                    *both('model.encoder.conv2', 'encoder/input/frames/second'),
                    Tensor('model.encoder.embed_positions.weight', ('encoder/input/frames/sinusoids',)),
                    Tensor('model.decoder.embed_tokens.weight', ('embedding/embedding',)),
                    Tensor('model.decoder.embed_positions.weight',
                           ('decoder/input/position/embedding',)), *_marian_layer('encoder'), *_marian_layer('decoder'),
                    Tensor('proj_out.weight', ('head/out/kernel',), transposed=True),
                    *(row for side in ('encoder', 'decoder')
                      for row in both(f'model.{side}.layer_norm', f'{side}/ending/norm', kernel='scale')),
                   )

WHISPER = Architecture(
  'whisper', Seq2SeqConfig, seq2seq, lambda config: _WHISPER_TENSORS, prefix='model.', ignored=(),
  aliases={'proj_out.weight': 'model.decoder.embed_tokens.weight'}, read=_read_whisper, write=_write_whisper,
  spellings={'activation_function': ACTIVATIONS},
  # Token numbers that every vocabulary has; published ones come with the model.
  defaults={'architectures': ['WhisperForConditionalGeneration'], 'dropout': 0.0, 'pad_token_id': 0, 'bos_token_id': 0,
            'decoder_start_token_id': 0, 'eos_token_id': 1, 'begin_suppress_tokens': None})

# feed_forward_proj -> (activation, gated)
_FEED_FORWARD = {
  'relu': ('relu', False), 'gelu': ('gelu', False), 'gelu_new': ('gelu_tanh', False), 'silu': ('silu', False),
  'gated-relu': ('relu', True), 'gated-gelu': ('gelu_tanh', True), 'gated-silu': ('silu', True)
}


def _read_t5(entries: Entries, stored: Mapping[str, Any]) -> Seq2SeqConfig:
  activation, gated = entries.choice('feed_forward_proj', _FEED_FORWARD, 'relu')
  layers = entries.integer('num_layers')
  # In these models tie_word_embeddings also decides whether the output is scaled; transformers 5 has a separate entry.
  scaled = entries.flag('scale_decoder_outputs', entries.flag('tie_word_embeddings', True))
  decodes = any(name.startswith('decoder.block.') for name in stored)
  return Seq2SeqConfig(
    vocab=entries.integer('vocab_size'), context=entries.integer('n_positions', CONTEXT), layers=layers,
    decoder_layers=entries.integer('num_decoder_layers', layers) if decodes else 0, heads=entries.integer('num_heads'),
    width=entries.integer('d_model'), head_dim=entries.integer('d_kv'), mlp_width=entries.integer('d_ff'),
    positions='relative', relative_buckets=entries.integer('relative_attention_num_buckets', 32),
    relative_distance=entries.integer('relative_attention_max_distance', 128), norm='rms', norm_eps=entries.number(
      'layer_norm_epsilon', 1e-6), pre_norm=True, activation=activation, gated=gated, bias=False, scaled=False,
    embedding_scale=False, tied=scaled or 'lm_head.weight' not in stored, output_scale=scaled, init='fan_in')


def _write_t5(config: Seq2SeqConfig) -> dict[str, Any]:
  refuse('t5', config, positions=('relative',), norm=('rms',), pre_norm=(True,), bias=(False,), scaled=(False,),
         embedding_scale=(False,), output_bias=(False,), target_vocab=(0,), frames=(0,),
         decoder_heads=(0, config.heads), decoder_mlp_width=(0, config.mlp_width))
  projections = [name for name, options in _FEED_FORWARD.items() if options == (config.activation, config.gated)]
  if not projections:
    raise UserError(f't5 has no activation={config.activation!r} with gated={config.gated}')
  if config.output_scale and not config.tied:
    raise UserError('t5 has no output_scale=True with tied=False')
  return {
    'architectures': ['T5ForConditionalGeneration' if config.depth else 'T5EncoderModel'], 'is_encoder_decoder': bool(
      config.depth), 'vocab_size': config.vocab, 'n_positions': config.context, 'num_layers': config.layers,
    'num_decoder_layers': config.depth or config.layers, 'num_heads': config.heads, 'd_model': config.width,
    'd_kv': config.head_dim or config.width // config.heads, 'd_ff': config.mlp_width or 4 * config.width,
    'relative_attention_num_buckets': config.relative_buckets, 'relative_attention_max_distance':
      config.relative_distance, 'layer_norm_epsilon': config.norm_eps, 'feed_forward_proj': projections[0],
    'tie_word_embeddings': config.output_scale, 'scale_decoder_outputs': config.output_scale
  }


def _t5_side(side: str, gated: bool) -> tuple[Tensor, ...]:
  ours, theirs = f'{side}/blocks', f'{side}.block.{{layer}}.layer'
  parts = {'attention': '0.SelfAttention', 'cross': '1.EncDecAttention'
          } if side == 'decoder' else {'attention': '0.SelfAttention'}
  mlp = len(parts)
  ups = {'gate': 'wi_0', 'up': 'wi_1'} if gated else {'up': 'wi'}

  def linear(name: str, path: str) -> Tensor:
    return Tensor(f'{theirs}.{name}.weight', (f'{ours}/{path}/kernel',), transposed=True)

  return (Tensor(f'{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight',
                 (f'{side}/relative/table/embedding',)), *(linear(f'{place}.{short}', f'{part}/{name}')
                                                           for part, place in parts.items()
                                                           for short, name in zip('qkvo', _PROJECTIONS)),
          *(Tensor(f'{theirs}.{place[0]}.layer_norm.weight', (f'{ours}/{part}_norm/scale',))
            for part, place in parts.items()),
          *(linear(f'{mlp}.DenseReluDense.{name}', path) for path, name in ups.items()),
          linear(f'{mlp}.DenseReluDense.wo',
                 'down'), Tensor(f'{theirs}.{mlp}.layer_norm.weight', (f'{ours}/mlp_norm/scale',)),
          Tensor(f'{side}.final_layer_norm.weight', (f'{side}/ending/norm/scale',)),
         )


def _t5_tensors(config: Seq2SeqConfig) -> tuple[Tensor, ...]:
  return (Tensor('shared.weight',
                 ('embedding/embedding',)), *_t5_side('encoder', config.gated), *_t5_side('decoder', config.gated),
          Tensor('lm_head.weight', ('head/out/kernel',), transposed=True))


T5 = Architecture(
  't5',
  Seq2SeqConfig,
  seq2seq,
  _t5_tensors,
  prefix='',
  # in the first published files, unused
  ignored=(r'decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight',),
  aliases=dict.fromkeys(('encoder.embed_tokens.weight', 'decoder.embed_tokens.weight', 'lm_head.weight'),
                        'shared.weight'),
  read=_read_t5,
  write=_write_t5,
  spellings={},
  defaults={'dropout_rate': 0.0, 'pad_token_id': 0, 'eos_token_id': 1, 'decoder_start_token_id': 0})

ARCHITECTURES = {architecture.name: architecture for architecture in (MARIAN, WHISPER, T5)}
