"""Public autoencoders whose latents have no variance, in the layout of `diffusers`: AutoencoderTiny, AutoencoderDC."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from genjax.interop.autoencoders import moments
from genjax.interop.entries import REQUIRED, Entries
from genjax.interop.mapping import (
  ACTIVATIONS,
  Architecture,
  Form,
  Tensor,
  activation_name,
  both,
  convolution,
  pixelwise,
)
from genjax.models.autoencoders import dc, tiny
from genjax.models.autoencoders.dc import DcAe
from genjax.models.autoencoders.tiny import Tiny
from genjax.types import Tree, UserError

SIDE = 32  # these folders tell no size of images; latents of any size that the factor divides are read


def _each(entries: Entries, name: str, usual: tuple[Any, ...] | Any = REQUIRED) -> tuple[Any, ...]:
  """An entry with a value for each stage."""
  value: Any = entries.values.get(name)
  value = usual if value is None else value
  if not isinstance(value, (list, tuple)) or not value:
    raise UserError(f'{entries.where}: {name} must be a list with an entry for each stage, got {value!r}')
  return tuple(value)


def _shape(entries: Entries, factor: int) -> tuple[int, int, int]:
  channels = entries.integer('in_channels', 3)
  entries.only('out_channels', channels, 'as many channels go out as come in')
  side = max(SIDE, factor)
  return side, side, channels


def _alike(mutable: Tree) -> tuple[float, float]:
  """Shift and scale of all channels together, since these folders have one number for all."""
  mean, square = (float(np.mean(np.asarray(mutable['moments'][name], np.float64))) for name in ('mean', 'square'))
  return mean, 1 / float(np.sqrt(max(square - mean ** 2, 1e-8)))


def _read_tiny(entries: Entries, stored: Mapping[str, Any]) -> Tiny:
  entries.only('upsampling_scaling_factor', 2, 'a stage doubles the resolution')
  entries.only('upsample_fn', 'nearest', 'pixels are repeated')
  channels: dict[str, Any] = {f'{side}_channels': _each(entries, f'{side}_block_out_channels', (64,) * 4)
                              for side in ('encoder', 'decoder')}
  blocks: dict[str, Any] = {f'{side}_blocks': _each(entries, f'num_{side}_blocks', usual)
                            for side, usual in (('encoder', (1, 3, 3, 3)), ('decoder', (3, 3, 3, 1)))}
  return Tiny(shape=_shape(entries, 2 ** (len(blocks['encoder_blocks']) - 1)),
              latent=entries.integer('latent_channels', 4), **channels, **blocks,
              activation=entries.choice('act_fn', ACTIVATIONS, 'relu'))


def _write_tiny(config: Tiny) -> dict[str, Any]:
  return {
    'in_channels': config.shape[-1], 'out_channels': config.shape[-1], 'latent_channels': config.latent,
    'encoder_block_out_channels': list(config.encoder_channels),
    'decoder_block_out_channels': list(config.decoder_channels), 'num_encoder_blocks': list(config.encoder_blocks),
    'num_decoder_blocks': list(config.decoder_blocks), 'act_fn': activation_name(config.activation)}


def _measured_tiny(mutable: Tree) -> dict[str, Any]:
  shift, scale = _alike(mutable)
  return {'scaling_factor': scale, 'shift_factor': shift}


def _tensors_tiny(config: Tiny) -> tuple[Tensor, ...]:
  """The rows of a sequence of layers that the public files number: those without parameters count, too."""
  rows: list[Tensor] = []
  for side, way, join, counts in (('encoder', 'down', 'shrink', config.encoder_blocks),
                                  ('decoder', 'up', 'enlarge', config.decoder_blocks)):
    number = 0

    def add(make: Callable[[str, str], Any], ours: str, skipped: int = 0, side: str = side) -> None:
      nonlocal number
      rows.extend(make(f'{side}.layers.{number}', f'{side}/{ours}'))
      number += 1 + skipped

    add(convolution, 'first', skipped=int(side == 'decoder'))  # its activation
    for stage, count in enumerate(counts):
      if stage and side == 'encoder':
        add(convolution, f'{join}/{stage - 1}')
      for block in range(count):
        add(_block, f'{way}/{stage}/{block}')
      if side == 'decoder' and stage + 1 < len(counts):
        number += 1  # what repeats pixels
        add(convolution, f'{join}/{stage}')
    add(convolution, 'last')
  return tuple(rows)


def _block(theirs: str, ours: str) -> list[Tensor]:
  return [row for index in range(3) for row in convolution(f'{theirs}.conv.{2 * index}', f'{ours}/convs/{index}')]


TINY = Architecture(
  'AutoencoderTiny', Tiny, tiny.autoencoder, _tensors_tiny, prefix='', ignored=(), aliases={}, read=_read_tiny,
  write=_write_tiny, spellings={'act_fn': ACTIVATIONS}, defaults={}, layout='diffusers',
  mutable=lambda config, source: moments(config, source, 1.0), measured=_measured_tiny)

_RESIDUAL, _ATTENDS = 'ResBlock', 'EfficientViTBlock'
_SHRINK = {'conv': 'conv', 'pixel_unshuffle': 'pixels'}
_ENLARGE = {'interpolate': 'conv', 'pixel_shuffle': 'pixels'}


def _read_dc(entries: Entries, stored: Mapping[str, Any]) -> DcAe:
  usual_widths = (128, 256, 512, 512, 1024, 1024)
  widths: dict[str, Any] = {f'{side}_channels': _each(entries, f'{side}_block_out_channels', usual_widths)
                            for side in ('encoder', 'decoder')}
  stages = len(widths['encoder_channels'])
  blocks: dict[str, Any] = {f'{side}_blocks': _each(entries, f'{side}_layers_per_block', usual)
                            for side, usual in (('encoder', (2, 2, 2, 3, 3, 3)), ('decoder', (3, 3, 3, 3, 3, 3)))}
  attention, scales = _attention(entries, stages)
  norms = _all_alike(entries, 'decoder_norm_types', stages, 'rms_norm')
  if norms != 'rms_norm':
    raise UserError(f'{entries.where}: decoder_norm_types is {norms!r}, and genjax has a DC-AE with rms_norm only, '
                    'such as that of Sana')
  activation = _all_alike(entries, 'decoder_act_fns', stages, 'silu')
  names = Entries({'decoder_act_fns': activation}, entries.where)
  return DcAe(
    shape=_shape(entries, 2 ** (stages - 1)), latent=entries.integer('latent_channels', 32), **widths, **blocks,
    attention=attention, head_dim=entries.integer('attention_head_dim', 32), scales=scales,
    shrink=entries.choice('downsample_block_type', _SHRINK, 'pixel_unshuffle'),
    enlarge=entries.choice('upsample_block_type', _ENLARGE, 'pixel_shuffle'),
    encoder_shortcut=entries.flag('encoder_out_shortcut', True),
    decoder_shortcut=entries.flag('decoder_in_shortcut', True),
    activation=names.choice('decoder_act_fns', ACTIVATIONS),
    last_activation=entries.choice('decoder_conv_act_fn', ACTIVATIONS, 'relu'))


def _all_alike(entries: Entries, name: str, stages: int, usual: str) -> str:
  """An entry with one value for all stages, or the same for each."""
  value: Any = entries.values.get(name)
  value = usual if value is None else value
  found = [value] * stages if isinstance(value, str) else list(value)
  if len(set(found)) != 1 or len(found) != stages:
    raise UserError(f'{entries.where}: {name} must be the same for all stages, got {value!r}; a DC-AE with several is '
                    'not supported')
  return found[0]


def _attention(entries: Entries, stages: int) -> tuple[int, tuple[int, ...]]:
  """How many of the last stages have linear attention, and its scales; alike on both sides."""
  found = set()
  for side in ('encoder', 'decoder'):
    kinds: Any = entries.values.get(f'{side}_block_types') or _RESIDUAL
    kinds = [kinds] * stages if isinstance(kinds, str) else list(kinds)
    scales = _each(entries, f'{side}_qkv_multiscales', ((), (), (), (5,), (5,), (5,)))
    attention = kinds.count(_ATTENDS)
    wanted = [_RESIDUAL] * (stages - attention) + [_ATTENDS] * attention
    used = {tuple(scale) for scale in scales[stages - attention:stages]} if attention else {(5,)}
    if kinds != wanted or len(used) > 1 or len(scales) < stages:
      raise UserError(f'{entries.where}: {side}_block_types must be {_RESIDUAL}, then {_ATTENDS} in the last stages, '
                      f'with one tuple of {side}_qkv_multiscales in these, got {kinds} and {scales}')
    found.add((attention, used.pop()))
  if len(found) > 1:
    raise UserError(f'{entries.where}: encoder and decoder must have {_ATTENDS} in the same stages with the same '
                    f'scales, got {sorted(found)}')
  return found.pop()


def _write_dc(config: DcAe) -> dict[str, Any]:
  plain = len(config.encoder_channels) - config.attention
  kinds = [_RESIDUAL] * plain + [_ATTENDS] * config.attention
  scales = [[] for _ in range(plain)] + [list(config.scales) for _ in range(config.attention)]
  named = lambda table, value: next(name for name, own in table.items() if own == value)
  return {
    'in_channels': config.shape[-1], 'latent_channels': config.latent, 'attention_head_dim': config.head_dim,
    'encoder_block_types': kinds, 'decoder_block_types': kinds,
    'encoder_block_out_channels': list(config.encoder_channels),
    'decoder_block_out_channels': list(config.decoder_channels),
    'encoder_layers_per_block': list(config.encoder_blocks), 'decoder_layers_per_block': list(config.decoder_blocks),
    'encoder_qkv_multiscales': scales, 'decoder_qkv_multiscales': scales, 'decoder_norm_types': 'rms_norm',
    'decoder_act_fns': activation_name(config.activation), 'decoder_conv_act_fn': activation_name(
      config.last_activation),
    'downsample_block_type': named(_SHRINK, config.shrink), 'upsample_block_type': named(_ENLARGE, config.enlarge),
    'encoder_out_shortcut': config.encoder_shortcut, 'decoder_in_shortcut': config.decoder_shortcut}


def _measured_dc(mutable: Tree) -> dict[str, Any]:
  return {'scaling_factor': float(np.mean(np.asarray(mutable['moments']['square'], np.float64)) ** -0.5)}


def _tensors_dc(config: DcAe) -> tuple[Tensor, ...]:
  rows: list[Tensor] = [*both('decoder.norm_out', 'decoder/norm', kernel='scale')]
  stages = len(config.encoder_channels)
  for side, ends, counts in (('encoder', ('first', 'last'), config.encoder_blocks),
                             ('decoder', ('last', 'first'), config.decoder_blocks)):
    outer, inner = ('conv_in', 'conv_out') if side == 'encoder' else ('conv_out', 'conv_in')
    theirs, ours = ('', '') if counts[0] else ('.conv', '/conv')
    rows += convolution(f'{side}.{outer}{theirs}', f'{side}/{ends[0]}{ours}')
    rows += convolution(f'{side}.{inner}', f'{side}/{ends[1]}')
    (way, join), joined = ('down', 'shrink') if side == 'encoder' else ('up', 'enlarge'), 0
    for stage, count in enumerate(counts):
      joins = bool(count) and stage + 1 < stages
      first = int(joins and side == 'decoder')
      for block in range(count):
        theirs, ours = f'{side}.{way}_blocks.{stage}.{block + first}', f'{side}/{way}/{stage}/{block}'
        rows += (_attends if stage >= stages - config.attention else _residual)(theirs, ours)
      if joins:
        rows += convolution(f'{side}.{way}_blocks.{stage}.{0 if first else count}.conv', f'{side}/{join}/{joined}/conv')
        joined += 1
  return tuple(rows)


def _residual(theirs: str, ours: str) -> list[Tensor]:
  return [*convolution(f'{theirs}.conv1', f'{ours}/conv_in'), *convolution(f'{theirs}.conv2', f'{ours}/conv_out'),
          *both(f'{theirs}.norm', f'{ours}/norm', kernel='scale')]


# A convolution of size 1 with groups G, O G I 1 1 there, is G matrices I O here.
_GROUPED = Form(lambda shape: (shape[0] * shape[2], shape[1], 1, 1),
                lambda tensor: tensor[..., 0, 0].reshape(-1, tensor.shape[1], tensor.shape[1]).swapaxes(1, 2),
                lambda weight: weight.swapaxes(1, 2).reshape(-1, weight.shape[1], 1, 1))


def _attends(theirs: str, ours: str) -> list[Tensor]:
  rows = [Tensor(f'{theirs}.attn.to_{name[0]}.weight', (f'{ours}/attention/{name}/kernel',), transposed=True)
          for name in ('query', 'key', 'value')]
  for index in range(8):  # rows without parameters are left out
    scale = f'{theirs}.attn.to_qkv_multiscale.{index}'
    rows += [Tensor(f'{scale}.proj_in.weight', (f'{ours}/attention/scales/{index}/conv/kernel',), image_kernel=True),
             Tensor(f'{scale}.proj_out.weight', (f'{ours}/attention/scales/{index}/weight',), form=_GROUPED)]
  return [*rows, Tensor(f'{theirs}.attn.to_out.weight', (f'{ours}/attention/out/kernel',), transposed=True),
          *both(f'{theirs}.attn.norm_out', f'{ours}/attention/norm', kernel='scale'),
          *pixelwise(f'{theirs}.conv_out.conv_inverted', f'{ours}/mlp/up'),
          *convolution(f'{theirs}.conv_out.conv_depth', f'{ours}/mlp/conv'),
          *pixelwise(f'{theirs}.conv_out.conv_point', f'{ours}/mlp/down'),
          *both(f'{theirs}.conv_out.norm', f'{ours}/mlp/norm', kernel='scale')]


DC = Architecture(
  'AutoencoderDC', DcAe, dc.autoencoder, _tensors_dc, prefix='', ignored=(), aliases={}, read=_read_dc,
  write=_write_dc, spellings={}, defaults={}, layout='diffusers',
  mutable=lambda config, source: moments(config, source, 1.0), measured=_measured_dc)

ARCHITECTURES = {TINY.name: TINY, DC.name: DC}
