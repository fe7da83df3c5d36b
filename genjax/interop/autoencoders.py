"""Public autoencoders of latent diffusion in the layout of `diffusers`: AutoencoderKL."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from genjax.interop.entries import Entries
from genjax.interop.images import sides
from genjax.interop.mapping import OLDER_ATTENTION, Architecture, Tensor, both, convolution, pixelwise, refuse
from genjax.models.autoencoders.kl import Kl, autoencoder
from genjax.types import Tree, UserError

_DOWN, _UP = 'DownEncoderBlock2D', 'UpDecoderBlock2D'
_ATTENDS = {_DOWN: 'AttnDownEncoderBlock2D', _UP: 'AttnUpDecoderBlock2D'}


def _read(entries: Entries, stored: Mapping[str, Any]) -> Kl:
  entries.only('act_fn', 'silu', 'residual blocks have SiLUs')
  widths: Any = entries.values.get('block_out_channels') or (64,)
  down, up = (entries.values.get(f'{way}_block_types') or (kind,) for way, kind in (('down', _DOWN), ('up', _UP)))
  attends = [kind == _ATTENDS[_DOWN] for kind in down]
  wanted = tuple(_blocks(attends, kind) for kind in (_DOWN, _UP))
  if (list(down), list(up)) != wanted or len(widths) != len(attends):
    raise UserError(f'{entries.where}: down_block_types must be {_DOWN} or {_ATTENDS[_DOWN]}, one for each entry of '
                    f'block_out_channels, and up_block_types {_UP} or {_ATTENDS[_UP]}, in reverse, got {down} and {up} '
                    f'for {list(widths)}')
  projections = [entries.flag(name, True) for name in ('use_quant_conv', 'use_post_quant_conv')]
  if len(set(projections)) > 1:
    raise UserError(f'{entries.where}: use_quant_conv and use_post_quant_conv must be both true or both false')
  channels = entries.integer('in_channels', 3)
  entries.only('out_channels', channels, 'as many channels go out as come in')
  return Kl(shape=(*sides(entries, 'sample_size', 32), channels), latent=entries.integer('latent_channels', 4),
            **stages_of(widths), blocks=entries.integer('layers_per_block', 1),
            attention=tuple(2 ** stage for stage, there in enumerate(attends) if there),
            groups=entries.integer('norm_num_groups', 32), projections=projections[0],
            middle_attention=entries.flag('mid_block_add_attention', True))


def _blocks(attends: list[bool], kind: str) -> list[str]:
  """The names of the blocks of a side, in the order of computation."""
  names = [_ATTENDS[kind] if there else kind for there in attends]
  return names if kind == _DOWN else names[::-1]


def stages_of(widths: Any) -> dict[str, Any]:
  """The channels of the stages, as multiples of the first if they are that."""
  if any(width % widths[0] for width in widths):
    return dict(base=widths[0], channels=tuple(widths))
  return dict(base=widths[0], multipliers=tuple(width // widths[0] for width in widths))


def _write(config: Kl) -> dict[str, Any]:
  refuse('AutoencoderKL', config, heads=(1,))
  height, width, channels = config.shape
  attends = [2 ** stage in config.attention for stage in range(len(config.widths))]
  return {
    'sample_size': height if height == width else [height, width], 'in_channels': channels, 'out_channels': channels,
    'latent_channels': config.latent, 'block_out_channels': list(config.widths),
    'down_block_types': _blocks(attends, _DOWN), 'up_block_types': _blocks(attends, _UP),
    'layers_per_block': config.blocks, 'norm_num_groups': config.groups, 'use_quant_conv': config.projections,
    'use_post_quant_conv': config.projections, 'mid_block_add_attention': config.middle_attention}


def moments(config: Any, source: Mapping[str, Any], scaling: float = 0.18215) -> Tree:
  """The moments of the latents that shift and scale in config.json stand for, as `KlAutoencoder` keeps them.

  Args:
    config: options of an autoencoder.
    source: config.json.
    scaling: the factor of one that tells none.

  Raises:
    UserError: an entry is no number, or no list of as many as the latent has channels.
  """

  def of(name: str, usual: float) -> np.ndarray:
    value = source.get(name)
    found = np.asarray(usual if value is None else value)
    if found.dtype.kind not in 'if' or found.shape not in ((), (config.latent,)) or not np.isfinite(found).all():
      raise UserError(f'config.json: {name} must be a number, or {config.latent} of them, got {value!r}')
    return np.broadcast_to(found.astype(np.float64), (config.latent,))

  scale = of('scaling_factor', scaling) / of('latents_std', 1.0)
  mean = of('latents_mean', 0.0) + of('shift_factor', 0.0)
  if (scale <= 0).any():
    raise UserError(f'config.json: scaling_factor and latents_std must be above 0, got {source.get("scaling_factor")!r}'
                    f' and {source.get("latents_std")!r}')
  return {'encoder': {}, 'decoder': {}, 'moments': {
    'mean': mean.astype(np.float32), 'square': (scale ** -2 + mean ** 2).astype(np.float32)}}


def _measured(mutable: Tree) -> dict[str, Any]:
  """Shift and scale as entries of config.json: one scale for all channels if they agree, else one for each."""
  mean, square = (np.asarray(mutable['moments'][name], np.float64) for name in ('mean', 'square'))
  deviation = np.sqrt(np.maximum(square - mean ** 2, 1e-8))
  if np.ptp(mean) < 1e-6 and np.ptp(deviation) < 1e-6 * deviation.max():
    shift = float(mean[0])
    return {'scaling_factor': float(1 / deviation[0]), 'shift_factor': shift or None, 'latents_mean': None,
            'latents_std': None}
  return {'scaling_factor': 1.0, 'shift_factor': None, 'latents_mean': mean.tolist(), 'latents_std': deviation.tolist()}


def _tensors(config: Kl) -> tuple[Tensor, ...]:
  rows = [*convolution('quant_conv', 'encoder/moments'), *convolution('post_quant_conv', 'decoder/latent')]
  for side, way, samplers, resize, count in (('encoder', 'down', 'downsamplers', 'shrink', config.blocks),
                                             ('decoder', 'up', 'upsamplers', 'enlarge', config.blocks + 1)):
    rows += [*convolution(f'{side}.conv_in', f'{side}/first'), *convolution(f'{side}.conv_out', f'{side}/last'),
             *both(f'{side}.conv_norm_out', f'{side}/norm', kernel='scale')]
    for stage in range(len(config.widths)):
      for block in range(count):
        rows += [*_residual(f'{side}.{way}_blocks.{stage}.resnets.{block}', f'{side}/{way}/{stage}/blocks/{block}'),
                 *_attention(f'{side}.{way}_blocks.{stage}.attentions.{block}',
                             f'{side}/{way}/{stage}/attention/{block}')]
      rows += convolution(f'{side}.{way}_blocks.{stage}.{samplers}.0.conv', f'{side}/{resize}/{stage}')
    for block in range(2):
      rows += _residual(f'{side}.mid_block.resnets.{block}', f'{side}/middle/blocks/{block}')
    rows += _attention(f'{side}.mid_block.attentions.0', f'{side}/middle/attention')
  return tuple(rows)


def _attention(theirs: str, ours: str) -> list[Tensor]:
  return [*both(f'{theirs}.group_norm', f'{ours}/norm', kernel='scale'),
          *(row for public, own in (('to_q', 'query'), ('to_k', 'key'), ('to_v', 'value'), ('to_out.0', 'out'))
            for row in both(f'{theirs}.{public}', f'{ours}/attention/{own}'))]


def _residual(theirs: str, ours: str) -> list[Tensor]:
  return [*both(f'{theirs}.norm1', f'{ours}/norm_in', kernel='scale'), *convolution(f'{theirs}.conv1',
                                                                                   f'{ours}/conv_in'),
          *both(f'{theirs}.norm2', f'{ours}/norm_out', kernel='scale'), *convolution(f'{theirs}.conv2',
                                                                                    f'{ours}/conv_out'),
          *pixelwise(f'{theirs}.conv_shortcut', f'{ours}/shortcut')]


KL = Architecture(
  'AutoencoderKL', Kl, autoencoder, _tensors, prefix='', ignored=(), aliases={}, read=_read, write=_write, spellings={},
  defaults={'act_fn': 'silu'}, layout='diffusers', mutable=moments, measured=_measured,
  renamed=OLDER_ATTENTION)

ARCHITECTURES = {KL.name: KL}
