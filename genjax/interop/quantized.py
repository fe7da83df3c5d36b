"""Public autoencoders with a codebook in the layout of `diffusers`: VQModel, as VQGAN and latent diffusion have it."""

from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np

from genjax.interop import autoencoders
from genjax.interop.entries import Entries
from genjax.interop.images import sides
from genjax.interop.mapping import Architecture, Tensor
from genjax.models.autoencoders.vq import VqGan, Whole, autoencoder
from genjax.nn.quantizers import VectorQuantizer
from genjax.types import Tree, UserError

_DOWN = {'DownEncoderBlock2D': False, 'AttnDownEncoderBlock2D': True}  # block -> whether it has attention
_UP = {'UpDecoderBlock2D': False, 'AttnUpDecoderBlock2D': True}
_COMMITMENT, _CODEBOOK = 1.0, 0.25  # the weights of both terms in the published code, whose `beta` is the latter


def _read(entries: Entries, stored: Mapping[str, Any]) -> Whole:
  entries.only('act_fn', 'silu', 'residual blocks have SiLUs')
  entries.only('mid_block_add_attention', True, 'the middle has attention')
  entries.only('norm_type', 'group', 'norms see nothing of the codes')
  entries.only('lookup_from_codebook', False, 'what is decoded are vectors, which are quantized')
  widths: Any = entries.values.get('block_out_channels') or (64,)
  stages = len(widths)
  down = [_known(entries, 'down_block_types', _DOWN, kind)
          for kind in entries.values.get('down_block_types') or ('DownEncoderBlock2D',)]
  up = [_known(entries, 'up_block_types', _UP, kind)
        for kind in entries.values.get('up_block_types') or ('UpDecoderBlock2D',)]
  if len(down) != stages or down != up[::-1]:
    raise UserError(f'{entries.where}: down_block_types and up_block_types must be {stages} each, and have attention '
                    'at the same resolutions')
  channels = entries.integer('in_channels', 3)
  entries.only('out_channels', channels, 'as many channels go out as come in')
  latent = entries.integer('latent_channels', 3)
  width = entries.integer('vq_embed_dim', latent)
  size = entries.integer('num_vq_embeddings', 256)
  model = VqGan(shape=(*sides(entries, 'sample_size', 32), channels), latent=latent, width=width,
                **autoencoders.stages_of(widths), blocks=entries.integer('layers_per_block', 1),
                groups=entries.integer('norm_num_groups', 32),
                attention=tuple(2 ** stage for stage, attends in enumerate(down) if attends))
  return Whole(model, VectorQuantizer(size, width, learned='gradient', commitment=_COMMITMENT,
                                      codebook_weight=_CODEBOOK, spread=1 / size))


def _known(entries: Entries, name: str, kinds: Mapping[str, bool], kind: Any) -> bool:
  if kind not in kinds:
    raise UserError(f'{entries.where}: {name} must be of {list(kinds)}, got {kind!r}')
  return kinds[kind]


def _write(config: Whole) -> dict[str, Any]:
  model, quantizer = config.model, config.quantizer
  if model.heads != 1 or not model.projections:
    raise UserError('VQModel is written with attention of one head and with 1 x 1 convolutions around the codes, got '
                    f'heads={model.heads}, projections={model.projections}')
  height, width, channels = model.shape
  attends = [2 ** stage in model.attention for stage in range(len(model.widths))]
  names = [{attends: name for name, attends in kinds.items()} for kinds in (_DOWN, _UP)]
  return {
    'sample_size': height if height == width else [height, width], 'in_channels': channels, 'out_channels': channels,
    'latent_channels': model.latent, 'vq_embed_dim': quantizer.width, 'num_vq_embeddings': quantizer.size,
    'block_out_channels': list(model.widths),
    'down_block_types': [names[0][each] for each in attends],
    'up_block_types': [names[1][each] for each in attends[::-1]],
    'layers_per_block': model.blocks, 'norm_num_groups': model.groups}


def _mutable(config: Whole, source: Mapping[str, Any]) -> Tree:
  """The moments that scaling_factor stands for; the use of codes is not in public files."""
  found = autoencoders.moments(dataclasses.replace(config.model, latent=config.quantizer.width, width=0), source)
  unused = {'size': np.zeros(config.quantizer.size, np.float32), 'weight': np.zeros((), np.float32)}
  return {**found, 'codebook': unused}


def _tensors(config: Whole) -> tuple[Tensor, ...]:
  return *autoencoders.KL.tensors(config.model), Tensor('quantize.embedding.weight', ('codebook/embedding',))


VQ = Architecture(
  'VQModel', Whole, autoencoder, _tensors, prefix='', ignored=(), aliases={}, read=_read, write=_write, spellings={},
  defaults={'act_fn': 'silu', 'norm_type': 'group'}, layout='diffusers', mutable=_mutable,
  measured=autoencoders.KL.measured, renamed=autoencoders.KL.renamed)

ARCHITECTURES = {VQ.name: VQ}
