"""Public U-Nets of latent diffusion in the layout of `diffusers`: Stable Diffusion 1 and 2, SDXL and kin."""

from collections.abc import Mapping
from typing import Any

from genjax.interop.entries import Entries
from genjax.interop.images import sides
from genjax.interop.mapping import Architecture, Tensor, both, convolution, pixelwise, refuse
from genjax.models.denoisers.latent_unet import LatentUNet, network_of
from genjax.types import UserError

_TRANSFORMER, _PLAIN = ('CrossAttnDownBlock2D', 'CrossAttnUpBlock2D'), ('DownBlock2D', 'UpBlock2D')
# Entries that change what the network computes, with the only value that is supported; an absent one has it.
_FIXED = {
  'act_fn': 'silu', 'attention_type': 'default', 'center_input_sample': False, 'class_embed_type': None,
  'class_embeddings_concat': False, 'conv_in_kernel': 3, 'conv_out_kernel': 3, 'cross_attention_norm': None,
  'downsample_padding': 1, 'dual_cross_attention': False, 'encoder_hid_dim': None, 'encoder_hid_dim_type': None,
  'flip_sin_to_cos': True, 'freq_shift': 0, 'mid_block_only_cross_attention': None, 'mid_block_scale_factor': 1,
  'mid_block_type': 'UNetMidBlock2DCrossAttn', 'norm_eps': 1e-5, 'num_attention_heads': None,
  'resnet_out_scale_factor': 1.0, 'resnet_skip_time_act': False, 'resnet_time_scale_shift': 'default',
  'reverse_transformer_layers_per_block': None, 'time_embedding_act_fn': None, 'time_embedding_dim': None,
  'time_embedding_type': 'positional', 'timestep_post_act': None, 'addition_embed_type_num_heads': 64}
_SDXL = 'text_time'


def _levels(entries: Entries, name: str, count: int, default: Any) -> tuple[Any, ...]:
  """An entry that has one value for all levels, or one for each."""
  value: Any = entries.values.get(name)
  value = default if value is None else value
  values = tuple(value) if isinstance(value, (list, tuple)) else (value,) * count
  if len(values) != count:
    raise UserError(f'{entries.where}: {name} must be one value or one for each of the {count} levels, got {value!r}')
  return values


def _read(entries: Entries, stored: Mapping[str, Any]) -> LatentUNet:
  for name, value in _FIXED.items():
    entries.only(name, value, 'another one is another network')
  widths: Any = entries.values.get('block_out_channels')
  if not isinstance(widths, (list, tuple)) or not widths:
    raise UserError(f'{entries.where}: block_out_channels must list the channels of the levels, got {widths!r}')
  channels, levels = tuple(widths), len(widths)
  down, up = (_levels(entries, f'{way}_block_types', levels, None) for way in ('down', 'up'))
  for kinds in (down, up):
    if unknown := sorted(map(str, set(kinds) - {*_TRANSFORMER, *_PLAIN})):
      raise UserError(f'{entries.where}: blocks must be among {(*_TRANSFORMER, *_PLAIN)}, got {unknown}')
  attends = [kind in _TRANSFORMER for kind in down]
  if attends[::-1] != [kind in _TRANSFORMER for kind in up]:
    raise UserError(f'{entries.where}: up_block_types must have transformers where down_block_types have them, in '
                    f'reverse, got {down} and {up}')
  depths = _levels(entries, 'transformer_layers_per_block', levels, 1)
  blocks = _levels(entries, 'layers_per_block', levels, 2)
  if len(set(blocks)) != 1:
    raise UserError(f'{entries.where}: layers_per_block must be the same for all levels, got {blocks}')
  outputs, inputs = entries.integer('out_channels', 4), entries.integer('in_channels', 4)
  classes = entries.values.get('num_class_embeds')
  only = _levels(entries, 'only_cross_attention', levels, False)
  if isinstance(entries.values.get('only_cross_attention'), bool) and any(only):
    raise UserError(f'{entries.where}: only_cross_attention must be given by level, since one value counts for the '
                    'middle, too, which always attends to the pixels here')
  return LatentUNet(
    shape=(*sides(entries, 'sample_size', 64), outputs), image_channels=inputs - outputs, channels=channels,
    blocks=blocks[0], depths=tuple(depth if attend else 0 for depth, attend in zip(depths, attends)),
    middle_depth=depths[-1],
    heads=_levels(entries, 'attention_head_dim', levels, 8),  # diffusers calls the number of heads so
    only_cross=only if any(only) else (), groups=entries.integer('norm_num_groups', 32),
    token_width=entries.integer('cross_attention_dim', 1280), num_classes=classes or 0, null_class=not classes,
    guidance_features=entries.integer('time_cond_proj_dim', 0, 0),
    linear_projection=entries.flag('use_linear_projection', False), **_added(entries))


def _added(entries: Entries) -> dict[str, Any]:
  """What is added to the embedded time: a pooled text and six numbers, or five for a refiner.

  config.json tells the channels of both together. A refiner has one text encoder, whose pooled vector is as wide as its
  tokens.
  """
  kind = entries.values.get('addition_embed_type')
  if kind is None:
    return {}
  if kind != _SDXL:
    raise UserError(f'{entries.where}: addition_embed_type must be null or {_SDXL!r}, got {kind!r}')
  features, width = entries.integer('addition_time_embed_dim', 256), entries.integer(
    'projection_class_embeddings_input_dim')
  numbers = 5 if width - 5 * features == entries.values.get('cross_attention_dim') else 6
  if width <= numbers * features:
    raise UserError(f'{entries.where}: projection_class_embeddings_input_dim must leave channels for a text beside '
                    f'{numbers} numbers of {features} features, got {width}')
  return dict(vector_width=width - numbers * features, numbers=numbers, number_features=features)


def _write(config: LatentUNet) -> dict[str, Any]:
  refuse('UNet2DConditionModel', config, vocabulary=(0,), null_class=(True, False) if not config.num_classes else
         (False,))
  if not config.middle_depth or config.token_width == 0:
    raise UserError('UNet2DConditionModel has a transformer in its middle, which reads tokens; this network has none')
  height, width, channels = config.shape
  depths = [depth or 1 for depth in config.depths]
  depths[-1] = config.depths[-1] or config.middle_depth
  if depths[-1] != config.middle_depth:
    raise UserError('UNet2DConditionModel has as many transformer blocks in the middle as in the last level, got '
                    f'{config.middle_depth} and {config.depths[-1]}')
  added = {'addition_embed_type': _SDXL, 'addition_time_embed_dim': config.number_features,
           'projection_class_embeddings_input_dim': config.vector_width + config.numbers * config.number_features}
  if bool(config.numbers) != bool(config.vector_width):
    raise UserError('UNet2DConditionModel adds a vector and numbers together, or neither; this network reads '
                    f'vector_width={config.vector_width} and numbers={config.numbers}')
  return {
    'sample_size': height if height == width else [height, width], 'in_channels': channels + config.image_channels,
    'out_channels': channels, 'block_out_channels': list(config.channels), 'layers_per_block': config.blocks,
    'down_block_types': [_TRANSFORMER[0] if depth else _PLAIN[0] for depth in config.depths],
    'up_block_types': [_TRANSFORMER[1] if depth else _PLAIN[1] for depth in reversed(config.depths)],
    'transformer_layers_per_block': depths, 'attention_head_dim': list(config.heads),
    'only_cross_attention': list(config.only_cross) or False, 'norm_num_groups': config.groups,
    'cross_attention_dim': config.token_width, 'num_class_embeds': config.num_classes or None,
    'time_cond_proj_dim': config.guidance_features or None, 'use_linear_projection': config.linear_projection,
    **(added if config.numbers else {'addition_embed_type': None})}


def _tensors(config: LatentUNet) -> tuple[Tensor, ...]:
  rows = [
    *both('time_embedding.linear_1', 'embed/time/up'), *both('time_embedding.linear_2', 'embed/time/down'),
    Tensor('time_embedding.cond_proj.weight', ('embed/guidance/kernel',), transposed=True),
    *both('add_embedding.linear_1', 'embed/added/up'), *both('add_embedding.linear_2', 'embed/added/down'),
    Tensor('class_embedding.weight', ('embed/label/embedding',)),
    *convolution('conv_in', 'first'), *both('conv_norm_out', 'last/norm', kernel='scale'),
    *convolution('conv_out', 'last/conv')]
  levels = len(config.channels)
  for way, count in (('down', config.blocks), ('up', config.blocks + 1)):
    for level in range(levels):
      for index in range(count):
        rows += _stage(f'{way}_blocks.{level}', index, f'{way}/{level}/{index}', config.linear_projection)
  for index in range(2):
    rows += _stage('mid_block', index, f'middle/{index}', config.linear_projection)
  for level in range(levels - 1):
    rows += [*convolution(f'down_blocks.{level}.downsamplers.0.conv', f'shrink/{level}/conv'),
             *convolution(f'up_blocks.{level}.upsamplers.0.conv', f'enlarge/{level}')]
  return tuple(rows)


def _stage(theirs: str, index: int, ours: str, linear: bool) -> list[Tensor]:
  """A residual block and its transformer."""
  residual, attention = f'{theirs}.resnets.{index}', f'{theirs}.attentions.{index}'
  block = f'{attention}.transformer_blocks.{{layer}}'
  project = both if linear else pixelwise
  return [
    *both(f'{residual}.norm1', f'{ours}/residual/norm_in', kernel='scale'),
    *convolution(f'{residual}.conv1', f'{ours}/residual/conv_in'),
    *both(f'{residual}.time_emb_proj', f'{ours}/residual/condition'),
    *both(f'{residual}.norm2', f'{ours}/residual/norm_out', kernel='scale'),
    *convolution(f'{residual}.conv2', f'{ours}/residual/conv_out'),
    *pixelwise(f'{residual}.conv_shortcut', f'{ours}/residual/shortcut'),
    *both(f'{attention}.norm', f'{ours}/enter/norm', kernel='scale'),
    *project(f'{attention}.proj_in', f'{ours}/enter/project'),
    *project(f'{attention}.proj_out', f'{ours}/leave/project'),
    *(row for public, name in (('attn1', 'attention'), ('attn2', 'cross'))
      for part, own in (('to_q', 'query'), ('to_k', 'key'), ('to_v', 'value'), ('to_out.0', 'out'))
      for row in both(f'{block}.{public}.{part}', f'{ours}/blocks/{name}/{own}')),
    *(row for number, name in enumerate(('attention_norm', 'cross_norm', 'mlp_norm'), 1)
      for row in both(f'{block}.norm{number}', f'{ours}/blocks/{name}', kernel='scale')),
    *both(f'{block}.ff.net.0.proj', f'{ours}/blocks/up', f'{ours}/blocks/gate'),
    *both(f'{block}.ff.net.2', f'{ours}/blocks/down')]


UNET = Architecture(
  'UNet2DConditionModel', LatentUNet, network_of, _tensors, prefix='', ignored=(), aliases={}, read=_read, write=_write,
  spellings={}, defaults={}, layout='diffusers')

ARCHITECTURES = {UNET.name: UNET}
