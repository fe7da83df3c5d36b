"""Public decoders as options of `genjax.models.transformers.decoder`: GPT-2, LLaMA 1 to 3, Mistral, Mixtral."""

from collections.abc import Mapping
import math
from typing import Any

from genjax.interop.entries import REQUIRED, Entries
from genjax.interop.mapping import ACTIVATIONS, Architecture, Tensor, activation_name, both, refuse
from genjax.models.transformers.decoder import GATED, TransformerConfig, llama, transformer
from genjax.nn.attention.self_attention import ROPE_SCALINGS, RopeScaling
from genjax.types import UserError

# public names of activations of gated MLPs
GATES = {name: gated for name, own in ACTIVATIONS.items() for gated, gate in GATED.items() if own == gate}


def _read_gpt2(entries: Entries, stored: Mapping[str, Any]) -> TransformerConfig:
  entries.only('scale_attn_weights', True, 'scores are divided by the square root of the head size')
  entries.only('scale_attn_by_inverse_layer_idx', False, 'scores are scaled alike in all layers')
  entries.only('add_cross_attention', False, 'a decoder attends to its own tokens')
  return TransformerConfig(vocab=entries.integer('vocab_size'), context=entries.integer('n_positions'),
                           layers=entries.integer('n_layer'), heads=entries.integer('n_head'),
                           width=entries.integer('n_embd'), mlp_width=entries.integer('n_inner', 0), mlp=entries.choice(
                             'activation_function', ACTIVATIONS, 'gelu_new'), norm_eps=entries.number(
                               'layer_norm_epsilon',
                               1e-5), init_scale=entries.number('initializer_range',
                                                                0.02), tied=entries.flag('tie_word_embeddings', True))


def _write_gpt2(config: TransformerConfig) -> dict[str, Any]:
  refuse('gpt2', config, positions=('learned',), norm=('layer',), mlp=tuple(dict.fromkeys(ACTIVATIONS.values())),
         bias=(True,), attention_bias=(None, True), mlp_bias=(None, True), experts=(0,), window=(0,),
         kv_heads=(0, config.heads), head_dim=(0, config.width // config.heads))
  return {
    'vocab_size': config.vocab, 'n_positions': config.context, 'n_layer': config.layers, 'n_head': config.heads,
    'n_embd': config.width, 'n_inner': config.mlp_width or None, 'activation_function': activation_name(config.mlp),
    'layer_norm_epsilon': config.norm_eps, 'initializer_range': config.init_scale, 'tie_word_embeddings': config.tied
  }


def _read_llama(entries: Entries, kv_heads: int | None = None, theta: float = 1e4, norm_eps: float = 1e-6,
                **options: Any) -> TransformerConfig:
  entries.only('partial_rotary_factor', 1.0, 'rotary positions are on all channels of a head')
  heads, context = entries.integer('num_attention_heads'), entries.integer('max_position_embeddings',
                                                                           options.pop('context', 2048))
  theta, scaling = _read_rope(entries, context, theta)
  return llama(vocab=entries.integer('vocab_size'), context=context, layers=entries.integer('num_hidden_layers'),
               heads=heads, kv_heads=_read_kv_heads(entries, heads, kv_heads or heads), head_dim=entries.integer(
                 'head_dim', 0), width=entries.integer('hidden_size'), mlp_width=entries.integer('intermediate_size'),
               norm_eps=entries.number('rms_norm_eps',
                                       norm_eps), mlp=entries.choice('hidden_act', GATES, 'silu'), tied=entries.flag(
                                         'tie_word_embeddings',
                                         False), rope_theta=theta, rope_scaling=scaling, init_scale=entries.number(
                                           'initializer_range', 0.02), **options)


def _read_kv_heads(entries: Entries, heads: int, absent: int) -> int:
  """Key/value heads: in `transformers` null means as many as query heads; an absent entry has a default."""
  return entries.integer('num_key_value_heads', heads if 'num_key_value_heads' in entries.values else absent)


def _read_rope(entries: Entries, context: int, absent: float) -> tuple[float, RopeScaling | None]:
  """Base and scaling of rotary positions, in the format of transformers 4 (rope_theta, rope_scaling) or 5.

  Version 5 has one entry rope_parameters.
  """
  inner = entries.inner('rope_scaling') or entries.inner('rope_parameters') or Entries({},
                                                                                       f'{entries.where}: rope_scaling')
  inner.only('partial_rotary_factor', 1.0, 'rotary positions are on all channels of a head')
  theta = inner.number('rope_theta', entries.number('rope_theta', absent))
  name = 'rope_type' if inner.values.get('rope_type') is not None else 'type'
  kind = inner.choice(name, {kind: kind for kind in ('default', *ROPE_SCALINGS)}, 'default')
  if kind == 'default':
    return theta, None
  original = context
  if kind in ('llama3', 'yarn'):
    original = entries.integer('original_max_position_embeddings',
                               inner.integer('original_max_position_embeddings', context))
  factor = inner.number('factor', context / original if kind == 'yarn' else REQUIRED)
  options = {}
  if kind == 'llama3':
    options = {
      'low': inner.number('low_freq_factor'), 'high': inner.number('high_freq_factor'), 'original_context': original
    }
  elif kind == 'yarn':
    options = {
      'low': inner.number('beta_slow', 1.0), 'high': inner.number('beta_fast', 32.0), 'original_context': original,
      'truncate': inner.flag('truncate', True), 'amplitude': _read_amplitude(inner, factor)
    }
  try:
    return theta, RopeScaling(kind, factor, **options)
  except ValueError as error:
    raise UserError(f'{inner.where}: {error}') from error


def _read_amplitude(inner: Entries, factor: float) -> float:
  """Yarn's amplitude, 0 for the paper's; transformers may also give it as a quotient of two entries."""
  amplitude, over, under = (inner.number(name, 0.0) for name in ('attention_factor', 'mscale', 'mscale_all_dim'))
  if amplitude or not (over and under):
    return amplitude
  growth = 0.1 * math.log(max(factor, 1.0))
  return (over * growth + 1.0) / (under * growth + 1.0)


def _write_rope(scaling: RopeScaling | None) -> dict[str, Any] | None:
  if scaling is None:
    return None
  rope = {'rope_type': scaling.kind, 'factor': scaling.factor}
  original = {'original_max_position_embeddings': scaling.original_context}
  if scaling.kind == 'llama3':
    return {**rope, **original, 'low_freq_factor': scaling.low, 'high_freq_factor': scaling.high}
  if scaling.kind == 'yarn':
    entries = (('beta_slow', scaling.low, 1.0), ('beta_fast', scaling.high, 32.0), ('truncate', scaling.truncate, True),
               ('attention_factor', scaling.amplitude, 0.0))
    return {**rope, **original, **{name: value for name, value, absent in entries if value != absent}}
  return rope


def _write_llama_core(name: str, config: TransformerConfig) -> dict[str, Any]:
  refuse(name, config, positions=('rope',), norm=('rms',), mlp=tuple(GATED))
  return {
    'vocab_size': config.vocab, 'max_position_embeddings': config.context, 'num_hidden_layers': config.layers,
    'num_attention_heads': config.heads, 'num_key_value_heads': config.kv_heads or config.heads,
    'head_dim': config.head_dim or config.width // config.heads, 'hidden_size': config.width,
    'intermediate_size': config.mlp_width or 4 * config.width, 'rms_norm_eps': config.norm_eps,
    'hidden_act': activation_name(GATED[config.mlp]),
    'initializer_range': config.init_scale, 'tie_word_embeddings': config.tied, 'rope_theta': config.rope_theta,
    'rope_scaling': _write_rope(config.rope_scaling)}


def _write_llama(config: TransformerConfig) -> dict[str, Any]:
  refuse('llama', config, window=(0,), experts=(0,))
  attention, mlp = (config.bias if bias is None else bias for bias in (config.attention_bias, config.mlp_bias))
  return _write_llama_core('llama', config) | {'attention_bias': attention, 'mlp_bias': mlp}


def _read_mistral(entries: Entries, stored: Mapping[str, Any]) -> TransformerConfig:
  entries.only('layer_types', None, 'all layers of a mistral attend alike')
  # An absent entry has transformers' default; null means no window.
  absent = 4096 if 'sliding_window' not in entries.values else 0
  return _read_llama(entries, kv_heads=8, context=4096 * 32, window=entries.integer('sliding_window', absent))


def _write_mistral(config: TransformerConfig) -> dict[str, Any]:
  refuse('mistral', config, experts=(0,))
  return _write_windowed('mistral', config)


def _write_windowed(name: str, config: TransformerConfig) -> dict[str, Any]:
  biases = dict.fromkeys(('attention_bias', 'mlp_bias'), (False, None) if config.bias is False else (False,))
  refuse(name, config, **biases)
  return _write_llama_core(name, config) | {'sliding_window': config.window or None}


def _read_mixtral(entries: Entries, stored: Mapping[str, Any]) -> TransformerConfig:
  entries.only('router_jitter_noise', 0.0, 'a router sees its tokens as they are')
  coefficient = entries.values.get('router_aux_loss_coef')
  return _read_llama(
    entries, kv_heads=8, context=4096 * 32, theta=1e6, norm_eps=1e-5, window=entries.integer('sliding_window', 0),
    experts=entries.integer('num_local_experts', 8), experts_per_token=entries.integer('num_experts_per_tok', 2),
    balance=0.0 if coefficient == 0 else entries.number('router_aux_loss_coef', 0.001))


def _write_mixtral(config: TransformerConfig) -> dict[str, Any]:
  if not config.experts:
    raise UserError('mixtral has no experts=0')
  return _write_windowed('mixtral', config) | {
    'head_dim': config.head_dim or None, 'num_local_experts': config.experts,
    'num_experts_per_tok': config.experts_per_token, 'router_aux_loss_coef': config.balance
  }


_ATTENTION = tuple(f'blocks/attention/{name}' for name in ('query', 'key', 'value'))
_OUT = Tensor('lm_head.weight', ('head/out/kernel',), transposed=True)

_GPT2_TENSORS = (
  Tensor('transformer.wte.weight', ('embedding/token/embedding',)),
  Tensor('transformer.wpe.weight', ('embedding/position/embedding',)),
  *both('transformer.h.{layer}.ln_1', 'blocks/attention_norm', kernel='scale'),
  *both('transformer.h.{layer}.attn.c_attn', *_ATTENTION, transposed=False),  # Conv1D: (in, out)
  *both('transformer.h.{layer}.attn.c_proj', 'blocks/attention/out', transposed=False),
  *both('transformer.h.{layer}.ln_2', 'blocks/mlp_norm', kernel='scale'),
  *both('transformer.h.{layer}.mlp.c_fc', 'blocks/up', transposed=False),
  *both('transformer.h.{layer}.mlp.c_proj', 'blocks/down', transposed=False),
  *both('transformer.ln_f', 'head/norm', kernel='scale'),
  _OUT,
)
GPT2 = Architecture(
  'gpt2',
  TransformerConfig,
  transformer,
  lambda config: _GPT2_TENSORS,
  prefix='transformer.',
  ignored=(r'h\.\d+\.attn\.(bias|masked_bias)',),  # the causal mask
  aliases={'lm_head.weight': 'transformer.wte.weight'},
  read=_read_gpt2,
  write=_write_gpt2,
  defaults={
    'architectures': ['GPT2LMHeadModel'], 'resid_pdrop': 0.0, 'embd_pdrop': 0.0, 'attn_pdrop': 0.0,
    'bos_token_id': None, 'eos_token_id': None
  },
  spellings={'activation_function': ACTIVATIONS})

_GATED = ('gate', 'up', 'down')


def _llama_tensors(config: TransformerConfig) -> tuple[Tensor, ...]:
  return _LLAMA_TENSORS + (_MIXTRAL_MLP if config.experts else _LLAMA_MLP)


_LLAMA_TENSORS = (Tensor('model.embed_tokens.weight', ('embedding/token/embedding',)),
                  Tensor('model.layers.{layer}.input_layernorm.weight', ('blocks/attention_norm/scale',)),
                  *(row for theirs, ours in zip('qkv', _ATTENTION)
                    for row in both(f'model.layers.{{layer}}.self_attn.{theirs}_proj', ours)),
                  *both('model.layers.{layer}.self_attn.o_proj', 'blocks/attention/out'),
                  Tensor('model.layers.{layer}.post_attention_layernorm.weight',
                         ('blocks/mlp_norm/scale',)), Tensor('model.norm.weight', ('head/norm/scale',)), _OUT,
                 )
_LLAMA_MLP = tuple(row for name in _GATED for row in both(f'model.layers.{{layer}}.mlp.{name}_proj', f'blocks/{name}'))
_MIXTRAL_MLP = (Tensor(
  'model.layers.{layer}.block_sparse_moe.gate.weight', ('blocks/experts/router/kernel',),
  transposed=True), *(Tensor(f'model.layers.{{layer}}.block_sparse_moe.experts.{{expert}}.{theirs}.weight',
                             (f'blocks/experts/{ours}_kernel',), transposed=True)
                      for theirs, ours in zip(('w1', 'w3', 'w2'), _GATED)),
               )
_LLAMA_REST: dict[str, Any] = dict(
  tensors=_llama_tensors, prefix='model.', ignored=(r'layers\.\d+\.self_attn\.rotary_emb\.inv_freq',),
  aliases={'lm_head.weight': 'model.embed_tokens.weight'}, spellings={'hidden_act': GATES})


def _read_plain_llama(entries: Entries, stored: Mapping[str, Any]) -> TransformerConfig:
  return _read_llama(entries, attention_bias=entries.flag('attention_bias', False),
                     mlp_bias=entries.flag('mlp_bias', False))


_NO_TOKENS = {'bos_token_id': None, 'eos_token_id': None}
LLAMA = Architecture('llama', TransformerConfig, transformer, read=_read_plain_llama, write=_write_llama,
                     defaults={'architectures': ['LlamaForCausalLM'], **_NO_TOKENS}, **_LLAMA_REST)
MISTRAL = Architecture('mistral', TransformerConfig, transformer, read=_read_mistral, write=_write_mistral,
                       defaults={'architectures': ['MistralForCausalLM'], **_NO_TOKENS}, **_LLAMA_REST)
MIXTRAL = Architecture('mixtral', TransformerConfig, transformer, read=_read_mixtral, write=_write_mixtral,
                       defaults={'architectures': ['MixtralForCausalLM'], **_NO_TOKENS}, **_LLAMA_REST)

ARCHITECTURES = {architecture.name: architecture for architecture in (GPT2, LLAMA, MISTRAL, MIXTRAL)}
