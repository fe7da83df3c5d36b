"""Public diffusion transformers: DiT and SiT in their original layout and in that of diffusers, and PixArt."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from genjax.interop.entries import Entries
from genjax.interop.mapping import Architecture, Form, Tensor, both, refuse
from genjax.models.denoisers.dit import DiT, network
from genjax.models.denoisers.pixart import SIZES, PixArt
from genjax.models.denoisers.pixart import network as pixart_network
from genjax.nn.embeddings import sincos_positions
from genjax.types import UserError

DIFFUSERS, ORIGINAL, PIXART = 'DiTTransformer2DModel', 'DiT', 'PixArtTransformer2DModel'
_POSITIONS = 'pos_embed'
_ACTIVATIONS = {'gelu-approximate': 'gelu_tanh', 'gelu': 'gelu'}
# Entries that change what the networks of diffusers compute, with the only value that is supported.
_FIXED = {'attention_bias': True, 'attention_type': 'default', 'dropout': 0.0, 'norm_elementwise_affine': False,
          'upcast_attention': False}
_FEATURES = 256  # Fourier features of times
# What public networks do not have, for `refuse`.
_PLAIN = dict(mlp_ratio=(4.0,), vocabulary=(0,), vector_width=(0,), image_channels=(0,), frequencies=(_FEATURES,),
              norm=('layer',), block=('adaln_zero',))


def _patch(patch: int) -> Form:
  """A convolution D C H W of the size of a patch <-> a matrix of rows, columns and channels of a patch by D."""
  def kernel(array: np.ndarray) -> np.ndarray:
    return array.transpose(2, 3, 1, 0).reshape(-1, len(array))

  return Form(lambda shape: (shape[1], shape[0] // patch ** 2, patch, patch), kernel,
              lambda array: array.reshape(patch, patch, -1, array.shape[1]).transpose(3, 2, 0, 1))


def _enters(theirs: str, patch: int) -> tuple[Tensor, ...]:
  return (Tensor(f'{theirs}.weight', ('embed/patch/kernel',), form=_patch(patch)),
          Tensor(f'{theirs}.bias', ('embed/patch/bias',)))


def _two(theirs: str, ours: str, names: tuple[str, str] = ('linear_1', 'linear_2')) -> tuple[Tensor, ...]:
  """The two layers of a small MLP."""
  return (*both(f'{theirs}.{names[0]}', f'{ours}/up'), *both(f'{theirs}.{names[1]}', f'{ours}/down'))


def _attention(theirs: str, ours: str) -> tuple[Tensor, ...]:
  return tuple(row for part, own in (('to_q', 'query'), ('to_k', 'key'), ('to_v', 'value'), ('to_out.0', 'out'))
               for row in both(f'{theirs}.{part}', f'{ours}/{own}'))


_BLOCK = 'transformer_blocks.{layer}'
_EMBEDDERS = (*_two('timestep_embedder', 'embed/time'),
              Tensor('class_embedder.embedding_table.weight', ('embed/label/table/embedding',)))


def _tensors(config: DiT) -> tuple[Tensor, ...]:
  return (
    *_enters('pos_embed.proj', config.patch),
    *(Tensor(f'transformer_blocks.0.norm1.emb.{row.name}', row.leaves, row.transposed) for row in _EMBEDDERS),
    *both(f'{_BLOCK}.norm1.linear', 'blocks/modulation'), *_attention(f'{_BLOCK}.attn1', 'blocks/attention'),
    *both(f'{_BLOCK}.ff.net.0.proj', 'blocks/mlp/up'), *both(f'{_BLOCK}.ff.net.2', 'blocks/mlp/down'),
    *both('proj_out_1', 'head/modulation'), *both('proj_out_2', 'head/out'))


def _copies(config: DiT) -> dict[str, str]:
  """diffusers gives each block the embedders of time and label; those of the first block stand for all."""
  names = [f'norm1.emb.{row.name}' for row in _EMBEDDERS]
  return {f'transformer_blocks.{layer}.{name}': f'transformer_blocks.0.{name}' for layer in range(1, config.depth)
          for name in names}


def _original_tensors(config: DiT) -> tuple[Tensor, ...]:
  block = 'blocks.{layer}'
  return (
    *_enters('x_embedder.proj', config.patch), *_two('t_embedder.mlp', 'embed/time', ('0', '2')),
    Tensor('y_embedder.embedding_table.weight', ('embed/label/table/embedding',)),
    *both(f'{block}.attn.qkv', *(f'blocks/attention/{name}' for name in ('query', 'key', 'value'))),
    *both(f'{block}.attn.proj', 'blocks/attention/out'), *both(f'{block}.mlp.fc1', 'blocks/mlp/up'),
    *both(f'{block}.mlp.fc2', 'blocks/mlp/down'), *both(f'{block}.adaLN_modulation.1', 'blocks/modulation'),
    *both('final_layer.adaLN_modulation.1', 'head/modulation'), *both('final_layer.linear', 'head/out'))


def _pixart_tensors(config: PixArt) -> tuple[Tensor, ...]:
  embedders = (('timestep', 'time'), ('resolution', 'resolution'), ('aspect_ratio', 'aspect'))
  return (
    *_enters('pos_embed.proj', config.patch),
    *(row for theirs, ours in embedders for row in _two(f'adaln_single.emb.{theirs}_embedder', f'embed/{ours}')),
    *both('adaln_single.linear', 'embed/modulation'), *_two('caption_projection', 'embed/tokens'),
    Tensor(f'{_BLOCK}.scale_shift_table', ('blocks/modulation',)),
    *_attention(f'{_BLOCK}.attn1', 'blocks/attention'), *_attention(f'{_BLOCK}.attn2', 'blocks/cross'),
    *both(f'{_BLOCK}.ff.net.0.proj', 'blocks/mlp/up'), *both(f'{_BLOCK}.ff.net.2', 'blocks/mlp/down'),
    Tensor('scale_shift_table', ('head/modulation',)), *both('proj_out', 'head/out'))


def _sizes(entries: Entries, sample: int, outputs: int | None) -> dict[str, Any]:
  """The options with the same entries in DiT and PixArt of diffusers; with the defaults of the two."""
  for name, value in _FIXED.items():
    entries.only(name, value, 'another one is another network')
  side, heads = entries.integer('sample_size', sample), entries.integer('num_attention_heads', 16)
  channels = entries.integer('in_channels', 4)
  made = entries.integer('out_channels', outputs or channels)
  if made not in (channels, 2 * channels):
    raise UserError(f'{entries.where}: out_channels must be in_channels ({channels}) or twice that, with learned '
                    f'variances, got {made}')
  return dict(
    shape=(side, side, channels), patch=entries.integer('patch_size', 2), heads=heads,
    width=heads * entries.integer('attention_head_dim', 72), depth=entries.integer('num_layers', 28),
    learn_sigma=made != channels, activation=entries.choice('activation_fn', _ACTIVATIONS, 'gelu-approximate'))


def _written(name: str, config: DiT) -> dict[str, Any]:
  refuse(name, config, **_PLAIN, activation=tuple(_ACTIVATIONS.values()))
  if config.shape[0] != config.shape[1]:
    raise UserError(f'{name} has square latents, got shape={config.shape}')
  return {
    'sample_size': config.shape[0], 'patch_size': config.patch, 'in_channels': config.shape[2],
    'out_channels': config.shape[2] * (2 if config.learn_sigma else 1), 'num_layers': config.depth,
    'num_attention_heads': config.heads, 'attention_head_dim': config.width // config.heads,
    'activation_fn': next(name for name, own in _ACTIVATIONS.items() if own == config.activation)}


def _read_dit(entries: Entries, stored: Mapping[str, Any]) -> DiT:
  entries.only('norm_type', 'ada_norm_zero', 'it is the norm of DiT')
  sizes = _sizes(entries, 32, None)
  return DiT(**sizes, span=sizes['shape'][0] / sizes['patch'], num_classes=entries.integer('num_embeds_ada_norm', 1000),
             frequency_shift=1, mlp_epsilon=entries.number('norm_eps', 1e-5))


def _write_dit(config: DiT) -> dict[str, Any]:
  refuse(DIFFUSERS, config, frequency_shift=(1,), attention_epsilon=(1e-6,), numbers=(0,), token_width=(0,),
         span=(0.0, config.shape[0] / config.patch))
  return {**_written(DIFFUSERS, config), **_labelled(DIFFUSERS, config, 'num_embeds_ada_norm'),
          'norm_eps': config.mlp_epsilon}


def _labelled(name: str, config: DiT, entry: str) -> dict[str, int]:
  if not config.num_classes:
    raise UserError(f'{name} has classes; this network has none')
  return {entry: config.num_classes}


def _read_original(entries: Entries, stored: Mapping[str, Any]) -> DiT:
  entries.number('class_dropout_prob', 0.1)  # without dropout there is no row for "no class"
  side, channels = entries.integer('input_size', 32), entries.integer('in_channels', 4)
  return DiT(shape=(side, side, channels), patch=entries.integer('patch_size', 2),
             width=entries.integer('hidden_size', 1152), depth=entries.integer('depth', 28),
             heads=entries.integer('num_heads', 16), mlp_ratio=entries.number('mlp_ratio', 4.0),
             num_classes=entries.integer('num_classes', 1000), learn_sigma=entries.flag('learn_sigma', True))


def _write_original(config: DiT) -> dict[str, Any]:
  refuse(ORIGINAL, config, **{**_PLAIN, 'mlp_ratio': (config.mlp_ratio,)}, numbers=(0,), token_width=(0,),
         frequency_shift=(0,), attention_epsilon=(1e-6,), mlp_epsilon=(1e-6,), activation=('gelu_tanh',), span=(0.0,))
  if config.shape[0] != config.shape[1]:
    raise UserError(f'{ORIGINAL} has square latents, got shape={config.shape}')
  return {'input_size': config.shape[0], 'patch_size': config.patch, 'in_channels': config.shape[2],
          'hidden_size': config.width, 'depth': config.depth, 'num_heads': config.heads, 'mlp_ratio': config.mlp_ratio,
          'learn_sigma': config.learn_sigma, **_labelled(ORIGINAL, config, 'num_classes')}


def _constants(config: DiT) -> dict[str, np.ndarray]:
  side = config.shape[0] // config.patch
  return {_POSITIONS: sincos_positions(side, side, config.width)[None]}


def _read_pixart(entries: Entries, stored: Mapping[str, Any]) -> PixArt:
  entries.only('norm_type', 'ada_norm_single', 'it is the norm of PixArt')
  sizes = _sizes(entries, 128, 8)
  side, width = sizes['shape'][0], sizes['width']
  caption, crossed = (entries.integer(name, default, 0) for name, default in (('caption_channels', 0),
                                                                              ('cross_attention_dim', 1152)))
  if caption and crossed != width:
    raise UserError(f'{entries.where}: cross_attention_dim must be {width}, the width of the transformer, to which '
                    f'captions are projected, got {crossed}')
  told = entries.flag('use_additional_conditions', side == 128)  # diffusers' default follows the size, too
  epsilon = entries.number('norm_eps', 1e-6)
  return PixArt(**sizes, token_width=caption or crossed, project=caption > 0, numbers=SIZES if told else 0,
                span=side / sizes['patch'] / entries.number('interpolation_scale', max(side // 64, 1)),
                attention_epsilon=epsilon, mlp_epsilon=epsilon)


def _write_pixart(config: PixArt) -> dict[str, Any]:
  refuse(PIXART, config, num_classes=(0,), frequency_shift=(0,), number_features=(_FEATURES,),
         mlp_epsilon=(config.attention_epsilon,))
  grid = config.shape[0] / config.patch
  scale = grid / (config.span or grid)
  return {**_written(PIXART, config), 'caption_channels': config.token_width if config.project else None,
          'cross_attention_dim': config.width if config.project else config.token_width,
          'use_additional_conditions': config.numbers > 0, 'norm_eps': config.attention_epsilon,
          'interpolation_scale': int(scale) if scale == int(scale) else scale}


def _architecture(name: str, config: type, make: Any, tensors: Any, read: Any, write: Any, **more: Any) -> Architecture:
  return Architecture(name, config, make, tensors, prefix='', aliases={}, read=read, write=write, spellings={},
                      layout='diffusers', **{'ignored': (), 'defaults': {}, **more})


ARCHITECTURES = {
  DIFFUSERS: _architecture(DIFFUSERS, DiT, network, _tensors, _read_dit, _write_dit, copies=_copies,
                           defaults={'norm_type': 'ada_norm_zero'}),
  ORIGINAL: _architecture(ORIGINAL, DiT, network, _original_tensors, _read_original, _write_original,
                          ignored=(_POSITIONS,), constants=_constants),
  PIXART: _architecture(PIXART, PixArt, pixart_network, _pixart_tensors, _read_pixart, _write_pixart,
                        defaults={'norm_type': 'ada_norm_single', 'num_embeds_ada_norm': 1000})}
