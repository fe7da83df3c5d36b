"""Public U-Nets on pixels in the layout of `diffusers`: UNet2DModel, the network of DDPM and its kin."""

from collections.abc import Mapping
from typing import Any

from genjax.interop.entries import Entries
from genjax.interop.images import sides
from genjax.interop.mapping import OLDER_ATTENTION, Architecture, Tensor, both, convolution, pixelwise, refuse
from genjax.models.denoisers.unet import UNet, network
from genjax.types import UserError

_PLAIN, _ATTENDS = ('DownBlock2D', 'UpBlock2D'), ('AttnDownBlock2D', 'AttnUpBlock2D')
_RESIDUAL = ('ResnetDownsampleBlock2D', 'ResnetUpsampleBlock2D')
# Entries that change what the network computes, with the only value that is supported; an absent one has it.
_FIXED = {
  'act_fn': 'silu', 'center_input_sample': False, 'class_embed_type': None, 'mid_block_scale_factor': 1,
  'mid_block_type': 'UNetMidBlock2D', 'time_embedding_dim': None, 'time_embedding_type': 'positional'}
# What an entry means that was left out of config.json
_USUAL = {'block_out_channels': (224, 448, 672, 896), 'down_block_types': (_PLAIN[0], *[_ATTENDS[0]] * 3),
          'up_block_types': (*[_ATTENDS[1]] * 3, _PLAIN[1])}


def _listed(entries: Entries, name: str) -> tuple[Any, ...]:
  value: Any = entries.values.get(name, _USUAL[name])
  if not isinstance(value, (list, tuple)) or not value:
    raise UserError(f'{entries.where}: {name} must be a list with an entry for each level, got {value!r}')
  return tuple(value)


def _read(entries: Entries, stored: Mapping[str, Any]) -> UNet:
  for name, value in _FIXED.items():
    entries.only(name, value, 'another one is another network')
  widths, down, up = (_listed(entries, name) for name in _USUAL)
  if not len(widths) == len(down) == len(up):
    raise UserError(f'{entries.where}: {", ".join(_USUAL)} must have an entry for each level, got {len(widths)}, '
                    f'{len(down)} and {len(up)}')
  kinds = {_PLAIN[0]: _PLAIN[1], _ATTENDS[0]: _ATTENDS[1], _RESIDUAL[0]: _RESIDUAL[1]}
  if unknown := sorted(map(str, set(down) - set(kinds))):
    raise UserError(f'{entries.where}: down_block_types must be among {sorted(kinds)}, got {unknown}')
  if up != (wanted := tuple(kinds[name] for name in reversed(down))):
    raise UserError(f'{entries.where}: up_block_types must mirror down_block_types, {list(wanted)}, got {list(up)}')
  inputs, outputs = entries.integer('in_channels', 3), entries.integer('out_channels', 3)
  if inputs < outputs:
    raise UserError(f'{entries.where}: in_channels must be at least out_channels, got {inputs} and {outputs}')
  classes = entries.integer('num_class_embeds', 0, 0)
  # A side that has each resolution once will do where none is told.
  height, width = sides(entries, 'sample_size', max(32, 2 ** (len(widths) - 1)))
  if entries.values.get('attention_head_dim', 8) is None:
    heads: dict[str, Any] = {'heads': 1}
  else:
    heads = {'head_dim': entries.integer('attention_head_dim', 8)}
  return UNet(
    shape=(height, width, outputs), image_channels=inputs - outputs, base=widths[0], channels=widths,
    blocks=entries.integer('layers_per_block', 2),
    attention=tuple(height >> level for level, kind in enumerate(down) if kind == _ATTENDS[0]), **heads,
    groups=entries.integer('norm_num_groups', 32), dropout=0.0, epsilon=entries.number('norm_eps', 1e-5),
    time_shift=entries.integer('freq_shift', 0, 0), sines_first=not entries.flag('flip_sin_to_cos', True),
    padding='after' if entries.integer('downsample_padding', 1, 0) == 0 else 'around',
    resample=_resample(entries, down), scale_shift=_scale_shift(entries), middle_attention=_middle(entries),
    num_classes=classes, null_class=not classes)


def _resample(entries: Entries, down: tuple[str, ...]) -> str:
  """How levels are joined. Blocks with attention follow an entry, the others their name."""
  kinds = {'conv': 'conv', 'resnet': 'residual'}
  told = [entries.choice(f'{way}sample_type', kinds, 'conv') for way in ('down', 'up')]
  per_block = {_PLAIN[0]: ['conv', 'conv'], _RESIDUAL[0]: ['residual', 'residual'], _ATTENDS[0]: told}
  # The last level on the way down goes nowhere; on the way up it is the first, and goes on.
  found = [per_block[kind][0] for kind in down[:-1]] + [per_block[kind][1] for kind in down[1:]]
  if len(set(found)) > 1:
    raise UserError(f'{entries.where}: all levels must be joined alike, by convolutions or by residual blocks '
                    f"(downsample_type, upsample_type, {', '.join(_RESIDUAL)}), got {list(down)} and {told}")
  return found[0] if found else 'conv'


def _scale_shift(entries: Entries) -> bool:
  return entries.choice('resnet_time_scale_shift', {'default': False, 'scale_shift': True}, 'default')


def _middle(entries: Entries) -> str:
  """What stands before the attention in the middle: a norm, unless the condition scales and none is asked for."""
  if not entries.flag('add_attention', True):
    return 'none'
  groups, told = entries.integer('norm_num_groups', 32), entries.values.get('attn_norm_num_groups')
  entries.only('attn_norm_num_groups', groups, 'all norms have as many groups')
  return 'plain' if told is None and _scale_shift(entries) else 'normed'


def _write(config: UNet) -> dict[str, Any]:
  refuse('UNet2DModel', config, norm=('group',), cross_attention=((),), vector_width=(0,), numbers=(0,),
         token_width=(0,), vocabulary=(0,))
  if config.middle_attention == 'plain' and not config.scale_shift:
    raise UserError('UNet2DModel has a norm before the attention in the middle, unless scale_shift is set')
  if not config.head_dim and config.heads != 1:
    raise UserError(f'UNet2DModel has one attention head, or heads of head_dim channels, got heads={config.heads}')
  height, width, channels = config.shape
  plain = _RESIDUAL if config.resample == 'residual' else _PLAIN
  kinds = [_ATTENDS if height >> level in config.attention else plain for level in range(len(config.widths))]
  kind = 'resnet' if config.resample == 'residual' else 'conv'
  # "no class" is the last row of the table here, and one class more there.
  classes = config.num_classes + config.null_class if config.num_classes else None
  return {
    'sample_size': height if height == width else [height, width], 'in_channels': channels + config.image_channels,
    'out_channels': channels, 'block_out_channels': list(config.widths), 'layers_per_block': config.blocks,
    'down_block_types': [name for name, _ in kinds], 'up_block_types': [name for _, name in reversed(kinds)],
    'attention_head_dim': config.head_dim or None, 'norm_num_groups': config.groups, 'norm_eps': config.epsilon,
    'attn_norm_num_groups': config.groups if config.scale_shift and config.middle_attention == 'normed' else None,
    'add_attention': config.middle_attention != 'none', 'freq_shift': config.time_shift,
    'flip_sin_to_cos': not config.sines_first, 'downsample_padding': 0 if config.padding == 'after' else 1,
    'downsample_type': kind, 'upsample_type': kind, 'num_class_embeds': classes,
    'resnet_time_scale_shift': 'scale_shift' if config.scale_shift else 'default'}


def _tensors(config: UNet) -> tuple[Tensor, ...]:
  rows = [
    *both('time_embedding.linear_1', 'time/up'), *both('time_embedding.linear_2', 'time/down'),
    Tensor('class_embedding.weight', ('label/table/embedding',) if config.null_class else ('label/embedding',)),
    *convolution('conv_in', 'first'), *both('conv_norm_out', 'norm', kernel='scale'), *convolution('conv_out', 'last')]
  levels = len(config.widths)
  for way, count in (('down', config.blocks), ('up', config.blocks + 1)):
    for level in range(levels):
      for index in range(count):
        rows += [*_residual(f'{way}_blocks.{level}.resnets.{index}', f'{way}/{level}/{index}'),
                 *_attention(f'{way}_blocks.{level}.attentions.{index}', f'{way}/{level}/{index}')]
  rows += [*_residual('mid_block.resnets.0', 'middle/0'), *_attention('mid_block.attentions.0', 'middle/0'),
           *_residual('mid_block.resnets.1', 'middle/1')]
  between = convolution if config.resample == 'conv' else _residual
  end = '.conv' if config.resample == 'conv' else ''
  for level in range(levels - 1):
    rows += [*between(f'down_blocks.{level}.downsamplers.0{end}', f'shrink/{level}'),
             *between(f'up_blocks.{level}.upsamplers.0{end}', f'enlarge/{level}')]
  return tuple(rows)


def _residual(theirs: str, ours: str) -> tuple[Tensor, ...]:
  return (*both(f'{theirs}.norm1', f'{ours}/norm_in', kernel='scale'), *convolution(f'{theirs}.conv1',
                                                                                   f'{ours}/conv_in'),
          *both(f'{theirs}.time_emb_proj', f'{ours}/condition'),
          *both(f'{theirs}.norm2', f'{ours}/norm_out', kernel='scale'), *convolution(f'{theirs}.conv2',
                                                                                    f'{ours}/conv_out'),
          *pixelwise(f'{theirs}.conv_shortcut', f'{ours}/shortcut'))


def _attention(theirs: str, ours: str) -> list[Tensor]:
  return [*both(f'{theirs}.group_norm', f'{ours}/norm_attention', kernel='scale'),
          *(row for public, own in (('to_q', 'query'), ('to_k', 'key'), ('to_v', 'value'), ('to_out.0', 'out'))
            for row in both(f'{theirs}.{public}', f'{ours}/attention/{own}'))]


PIXEL_UNET = Architecture(
  'UNet2DModel', UNet, network, _tensors, prefix='', ignored=(), aliases={}, read=_read, write=_write, spellings={},
  defaults={'act_fn': 'silu'}, layout='diffusers',
  renamed=OLDER_ATTENTION)

ARCHITECTURES = {PIXEL_UNET.name: PIXEL_UNET}
