"""Public image encoders as options of `genjax.models.transformers.vit`: ViT, with the heads in a folder."""

from collections.abc import Mapping
from typing import Any

from genjax.interop.entries import Entries
from genjax.interop.mapping import ACTIVATIONS, Architecture, Tensor, activation_name, both, refuse
from genjax.models.transformers.vit import VitConfig, encoder
from genjax.types import UserError


def sides(entries: Entries, name: str, default: int | None = None) -> tuple[int, int]:
  """Height and width in pixels, from an entry with two numbers or one for both.

  Raises:
    UserError: it has neither.
  """
  value: Any = entries.values.get(name)
  value = default if value is None else value
  sides = value if isinstance(value, (list, tuple)) else [value, value]
  if len(sides) != 2 or any(isinstance(side, bool) or not isinstance(side, int) or side < 1 for side in sides):
    raise UserError(f'{entries.where}: {name} must be a whole number of at least 1, or two of them, got {value!r}')
  return sides[0], sides[1]


def _read(entries: Entries, stored: Mapping[str, Any]) -> VitConfig:
  width, (patch, patch_width) = entries.integer('hidden_size'), sides(entries, 'patch_size')
  entries.only('pooler_output_size', width, 'the pooler keeps the width')
  entries.only('pooler_act', 'tanh', 'the pooler ends with tanh')
  if patch != patch_width:
    raise UserError(f'{entries.where}: patches are {patch} by {patch_width} pixels; genjax only has square ones')
  return VitConfig(shape=(*sides(entries, 'image_size'), entries.integer('num_channels', 3)), patch=patch, width=width,
                   num_classes=stored['classifier.weight'].shape[0] if 'classifier.weight' in stored else 0,
                   layers=entries.integer('num_hidden_layers'), heads=entries.integer('num_attention_heads'),
                   mlp_width=entries.integer('intermediate_size'),
                   norm_eps=entries.number('layer_norm_eps', 1e-12), activation=entries.choice(
                     'hidden_act', ACTIVATIONS, 'gelu'), qkv_bias=entries.flag('qkv_bias', True), pooler=any(
                       name.endswith('pooler.dense.weight') for name in stored), init_scale=entries.number(
                         'initializer_range', 0.02))


def _write(config: VitConfig) -> dict[str, Any]:
  refuse('vit', config, norm=('layer',))
  if config.num_classes:
    refuse('vit with classes', config, pooler=(False,))
  height, width, channels = config.shape
  labels = {'num_labels': config.num_classes} if config.num_classes else {}
  return {
    'architectures': ['ViTForImageClassification' if config.num_classes else 'ViTModel'],
    'image_size': height if height == width else [height, width], 'num_channels': channels, 'patch_size': config.patch,
    'qkv_bias': config.qkv_bias, 'num_hidden_layers': config.layers, 'num_attention_heads': config.heads, 'hidden_size':
      config.width, 'intermediate_size': config.mlp_width or 4 * config.width, 'layer_norm_eps': config.norm_eps,
    'hidden_act': activation_name(config.activation), 'initializer_range': config.init_scale, **labels
  }


_LAYER = 'vit.encoder.layer.{layer}'

_TENSORS = (Tensor('vit.embeddings.cls_token', ('embedding/class_token',),
                   one_row=True), Tensor('vit.embeddings.position_embeddings', ('embedding/position',), one_row=True),
            Tensor('vit.embeddings.patch_embeddings.projection.weight', ('embedding/patches/kernel',),
                   image_kernel=True),
            Tensor('vit.embeddings.patch_embeddings.projection.bias', ('embedding/patches/bias',)),
            *(row for name in ('query', 'key', 'value')
              for row in both(f'{_LAYER}.attention.attention.{name}', f'blocks/attention/{name}')),
            *both(f'{_LAYER}.attention.output.dense', 'blocks/attention/out'),
            *both(f'{_LAYER}.layernorm_before', 'blocks/attention_norm', kernel='scale'),
            *both(f'{_LAYER}.intermediate.dense', 'blocks/up'), *both(f'{_LAYER}.output.dense', 'blocks/down'),
            *both(f'{_LAYER}.layernorm_after', 'blocks/mlp_norm', kernel='scale'),
            *both('vit.layernorm', 'heads/norm', kernel='scale'), *both('vit.pooler.dense', 'heads/pooler'),
            *both('classifier', 'heads/classifier'),
           )

VIT = Architecture(
  'vit', VitConfig, encoder, lambda config: _TENSORS, prefix='vit.', ignored=(), aliases={}, read=_read, write=_write,
  spellings={'hidden_act': ACTIVATIONS}, bare=lambda config: not config.num_classes,
  defaults={'hidden_dropout_prob': 0.0, 'attention_probs_dropout_prob': 0.0})

ARCHITECTURES = {VIT.name: VIT}
