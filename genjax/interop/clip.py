"""Public CLIPs as options of `genjax.models.transformers.clip`: both towers, or one with or without its head."""

from collections.abc import Mapping
from typing import Any

from genjax.interop.entries import Entries
from genjax.interop.images import sides
from genjax.interop.mapping import ACTIVATIONS, Architecture, Tensor, activation_name, both, refuse
from genjax.models.transformers.clip import ClipConfig, ClipImage, ClipText, encoder
from genjax.types import UserError


def _tower(entries: Entries, width: int, heads: int, mlp_width: int) -> dict[str, Any]:
  """What both towers have; absent entries have the values of `transformers`."""
  return dict(
    layers=entries.integer('num_hidden_layers', 12), heads=entries.integer('num_attention_heads', heads),
    width=entries.integer('hidden_size', width), mlp_width=entries.integer('intermediate_size', mlp_width),
    activation=entries.choice('hidden_act', ACTIVATIONS, 'quick_gelu'), norm_eps=entries.number('layer_norm_eps', 1e-5),
    init_scale=entries.number('initializer_range', 0.02))


def _text(entries: Entries) -> ClipText:
  return ClipText(**_tower(entries, 512, 8, 2048), vocab=entries.integer('vocab_size', 49408),
                  context=entries.integer('max_position_embeddings', 77), end=entries.integer('eos_token_id', 49407, 0))


def _image(entries: Entries) -> ClipImage:
  patch, patch_width = sides(entries, 'patch_size', 32)
  if patch != patch_width:
    raise UserError(f'{entries.where}: patches are {patch} by {patch_width} pixels; genjax only has square ones')
  shape = (*sides(entries, 'image_size', 224), entries.integer('num_channels', 3))
  return ClipImage(**_tower(entries, 768, 12, 3072), shape=shape, patch=patch)


def _inner(entries: Entries, name: str) -> Entries:
  return entries.inner(name) or Entries({}, f'{entries.where}: {name}')


def _read_both(entries: Entries, stored: Mapping[str, Any]) -> ClipConfig:
  return ClipConfig(_text(_inner(entries, 'text_config')), _image(_inner(entries, 'vision_config')),
                    entries.integer('projection_dim', 512))


def _read_text(entries: Entries, stored: Mapping[str, Any]) -> ClipConfig:
  width = entries.integer('projection_dim', 512) if 'text_projection.weight' in stored else 0
  return ClipConfig(_text(entries), None, width)


def _read_image(entries: Entries, stored: Mapping[str, Any]) -> ClipConfig:
  width = entries.integer('projection_dim', 512) if 'visual_projection.weight' in stored else 0
  return ClipConfig(None, _image(entries), width)


def _entries(tower: Any, width: int) -> dict[str, Any]:
  found: dict[str, Any] = {
    'num_hidden_layers': tower.layers, 'num_attention_heads': tower.heads, 'hidden_size': tower.width,
    'intermediate_size': tower.mlp_width or 4 * tower.width, 'hidden_act': activation_name(tower.activation),
    'layer_norm_eps': tower.norm_eps, 'initializer_range': tower.init_scale, 'projection_dim': width or tower.width}
  if isinstance(tower, ClipText):
    return {**found, 'model_type': 'clip_text_model', 'vocab_size': tower.vocab, 'eos_token_id': tower.end,
            'max_position_embeddings': tower.context}
  height, wide, channels = tower.shape
  return {**found, 'model_type': 'clip_vision_model', 'patch_size': tower.patch, 'num_channels': channels,
          'image_size': height if height == wide else [height, wide]}


def _write_both(config: ClipConfig) -> dict[str, Any]:
  if config.text is None or config.image is None:
    raise UserError('clip has both towers')
  return {'architectures': ['CLIPModel'], 'projection_dim': config.width,
          'text_config': _entries(config.text, config.width), 'vision_config': _entries(config.image, config.width)}


def _write_text(config: ClipConfig) -> dict[str, Any]:
  refuse('clip_text_model', config, image=(None,))
  return {'architectures': ['CLIPTextModelWithProjection' if config.width else 'CLIPTextModel'],
          **_entries(config.text, config.width)}


def _write_image(config: ClipConfig) -> dict[str, Any]:
  refuse('clip_vision_model', config, text=(None,))
  return {'architectures': ['CLIPVisionModelWithProjection' if config.width else 'CLIPVisionModel'],
          **_entries(config.image, config.width)}


def _tensors(config: ClipConfig) -> tuple[Tensor, ...]:
  """Rows without their parameters are left out, so one table has all."""
  rows: list[Tensor] = [Tensor('logit_scale', ('scale',))]
  for ours, theirs, norm, head in (('text', 'text_model', 'final_layer_norm', 'text_projection'),
                                   ('image', 'vision_model', 'post_layernorm', 'visual_projection')):
    layer = f'{theirs}.encoder.layers.{{layer}}'
    projections = (('q_proj', 'query'), ('k_proj', 'key'), ('v_proj', 'value'), ('out_proj', 'out'))
    rows += [*(row for name, own in projections
               for row in both(f'{layer}.self_attn.{name}', f'{ours}/blocks/attention/{own}')),
             *both(f'{layer}.layer_norm1', f'{ours}/blocks/attention_norm', kernel='scale'),
             *both(f'{layer}.layer_norm2', f'{ours}/blocks/mlp_norm', kernel='scale'),
             *both(f'{layer}.mlp.fc1', f'{ours}/blocks/up'), *both(f'{layer}.mlp.fc2', f'{ours}/blocks/down'),
             *both(f'{theirs}.{norm}', f'{ours}/head/norm', kernel='scale'),
             Tensor(f'{theirs}.embeddings.position_embedding.weight', (f'{ours}/embedding/position/embedding',)),
             Tensor(f'{head}.weight', (f'{ours}/head/projection/kernel',), transposed=True)]
  return (*rows, Tensor('text_model.embeddings.token_embedding.weight', ('text/embedding/token/embedding',)),
          Tensor('vision_model.embeddings.class_embedding', ('image/embedding/class_token',)),
          Tensor('vision_model.embeddings.patch_embedding.weight', ('image/embedding/patches/kernel',),
                 image_kernel=True),
          *both('vision_model.pre_layrnorm', 'image/embedding/norm', kernel='scale'))


def _architecture(name: str, prefix: str, read: Any, write: Any) -> Architecture:
  return Architecture(
    name, ClipConfig, encoder, _tensors, prefix=prefix, ignored=(r'(.*\.)?embeddings\.position_ids',), aliases={},
    read=read, write=write, defaults={}, spellings={}, bare=lambda config: bool(prefix) and not config.width)


ARCHITECTURES = {
  architecture.name: architecture for architecture in (
    _architecture('clip', '', _read_both, _write_both),
    _architecture('clip_text_model', 'text_model.', _read_text, _write_text),
    _architecture('clip_vision_model', 'vision_model.', _read_image, _write_image))}
