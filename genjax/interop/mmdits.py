"""Public transformers of latent diffusion in the layout of `diffusers`: Stable Diffusion 3 and Flux."""

from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np

from genjax.interop.entries import Entries
from genjax.interop.mapping import Architecture, Form, Tensor, both, convolution, refuse
from genjax.models.denoisers.mmdit import MmDit, counts, network_of, positions
from genjax.types import UserError

SD3, FLUX = 'SD3Transformer2DModel', 'FluxTransformer2DModel'
_FLUX_PATCH = 2  # of the latents that Flux's pipeline packs; its config.json counts patches of 1
_POSITIONS = 'pos_embed.pos_embed'
# Published scale before shift; here shift before scale.
_HALVES = Form(lambda shape: shape, lambda array: np.roll(array, array.shape[-1] // 2, axis=-1),
               lambda array: np.roll(array, array.shape[-1] // 2, axis=-1))
_HALVES_OF_KERNEL = Form(lambda shape: shape[::-1], lambda array: _HALVES.read(array.T),
                         lambda array: _HALVES.write(array).T)


def _halves(theirs: str, ours: str, **options: Any) -> tuple[Tensor, ...]:
  """A projection to scale and shift."""
  return (Tensor(f'{theirs}.weight', (f'{ours}/kernel',), form=_HALVES_OF_KERNEL, **options),
          Tensor(f'{theirs}.bias', (f'{ours}/bias',), form=_HALVES, **options))


def _enters(patch: int) -> Form:
  """Rows of channels, rows and columns of a patch <-> a kernel H W I O."""
  return Form(lambda shape: (shape[3], shape[2] * patch ** 2),
              lambda array: array.reshape(len(array), -1, patch, patch).transpose(2, 3, 1, 0),
              lambda array: array.transpose(3, 2, 0, 1).reshape(array.shape[3], -1), inputs=True)


def _leaves(patch: int) -> tuple[Form, Form]:
  """Channels, rows and columns of a patch <-> rows, columns and channels; of a kernel, and of a bias."""
  def kernel(array: np.ndarray) -> np.ndarray:
    return array.T.reshape(array.shape[1], -1, patch, patch).transpose(0, 2, 3, 1).reshape(array.shape[::-1])

  def public(array: np.ndarray) -> np.ndarray:
    return array.reshape(len(array), patch, patch, -1).transpose(0, 3, 1, 2).reshape(array.shape).T

  return (Form(lambda shape: shape[::-1], kernel, public),
          Form(lambda shape: shape, lambda array: array.reshape(-1, patch, patch).transpose(1, 2, 0).reshape(-1),
               lambda array: array.reshape(patch, patch, -1).transpose(2, 0, 1).reshape(-1)))


def _heads(theirs: str, names: tuple[str, str, str], norms: str, ours: str, **options: Any) -> tuple[Tensor, ...]:
  """Queries, keys and values, and the norms of queries and keys."""
  rows = [row for name, own in zip(names, ('query', 'key', 'value'))
          for row in _numbered(both(f'{theirs}.{name}', f'{ours}/{own}'), **options)]
  return (*rows, *(Tensor(f'{theirs}.{norms}{letter}.weight', (f'{ours}/{own}_norm/scale',), **options)
                   for letter, own in (('q', 'query'), ('k', 'key'))))


def _numbered(rows: tuple[Tensor, ...], first: int = 0) -> tuple[Tensor, ...]:
  return tuple(dataclasses.replace(row, first=first) for row in rows)


def _joint(config: MmDit) -> list[Tensor]:
  rows: list[Tensor] = []
  first, block = 0, 'transformer_blocks.{layer}'
  for name, count in counts(config).items():
    stream = lambda theirs, ours, first=first, name=name: _numbered(both(f'{block}.{theirs}', f'{name}/{ours}'), first)
    rows += [
      *stream('norm1.linear', 'image/modulation'),
      *(_halves(f'{block}.norm1_context.linear', f'{name}/text/modulation', first=first) if name == 'final' else
        stream('norm1_context.linear', 'text/modulation')),
      *_heads(f'{block}.attn', ('to_q', 'to_k', 'to_v'), 'norm_', f'{name}/image/heads', first=first),
      *_heads(f'{block}.attn', ('add_q_proj', 'add_k_proj', 'add_v_proj'), 'norm_added_', f'{name}/text/heads',
              first=first),
      *_heads(f'{block}.attn2', ('to_q', 'to_k', 'to_v'), 'norm_', f'{name}/image/second', first=first),
      *stream('attn.to_out.0', 'image/out'), *stream('attn.to_add_out', 'text/out'),
      *stream('attn2.to_out.0', 'image/second_out'), *stream('ff.net.0.proj', 'image/up'),
      *stream('ff.net.2', 'image/down'), *stream('ff_context.net.0.proj', 'text/up'),
      *stream('ff_context.net.2', 'text/down')]
    first += count
  return rows


def _embedders() -> list[Tensor]:
  return [row for theirs, ours in (('timestep_embedder', 'time'), ('guidance_embedder', 'guidance'),
                                   ('text_embedder', 'added'))
          for number, name in ((1, 'up'), (2, 'down'))
          for row in both(f'time_text_embed.{theirs}.linear_{number}', f'embed/{ours}/{name}')]


def _tensors(config: MmDit) -> tuple[Tensor, ...]:
  shared = [*_embedders(), *both('context_embedder', 'embed/text'), *_halves('norm_out.linear', 'head/modulation'),
            *_joint(config)]
  if config.positions == 'sincos':
    return (*convolution('pos_embed.proj', 'embed/patch'), *both('proj_out', 'head/out'), *shared)
  kernel, bias = _leaves(config.patch)
  block = 'single_transformer_blocks.{layer}'
  return (
    *shared, Tensor('x_embedder.weight', ('embed/patch/kernel',), form=_enters(config.patch)),
    Tensor('x_embedder.bias', ('embed/patch/bias',)), Tensor('proj_out.weight', ('head/out/kernel',), form=kernel),
    Tensor('proj_out.bias', ('head/out/bias',), form=bias), *both(f'{block}.norm.linear', 'single/modulation'),
    *_heads(f'{block}.attn', ('to_q', 'to_k', 'to_v'), 'norm_', 'single/heads'),
    *both(f'{block}.proj_mlp', 'single/up'), *both(f'{block}.proj_out', 'single/out'))


def _read_sd3(entries: Entries, stored: Mapping[str, Any]) -> MmDit:
  heads, head_dim = entries.integer('num_attention_heads', 18), entries.integer('attention_head_dim', 64)
  entries.only('caption_projection_dim', heads * head_dim, 'the text has the width of the latents')
  channels, patch = entries.integer('in_channels', 16), entries.integer('patch_size', 2)
  size, dual = entries.integer('sample_size', 128), entries.values.get('dual_attention_layers') or ()
  outputs = entries.integer('out_channels', channels)
  if sorted(dual) != list(range(len(dual))):
    raise UserError(f'{entries.where}: dual_attention_layers must be the first layers, got {list(dual)}')
  return MmDit(shape=(size, size, outputs), image_channels=channels - outputs, patch=patch,
               layers=entries.integer('num_layers', 18), dual=len(dual), heads=heads, head_dim=head_dim,
               norm_queries=_normed(entries), token_width=entries.integer('joint_attention_dim', 4096),
               vector_width=entries.integer('pooled_projection_dim', 2048), grid=size // patch,
               largest=entries.integer('pos_embed_max_size', 96))


def _normed(entries: Entries) -> bool:
  kind = entries.values.get('qk_norm')
  if kind not in (None, 'rms_norm'):
    raise UserError(f"{entries.where}: qk_norm must be null or 'rms_norm', got {kind!r}")
  return kind is not None


def _write_sd3(config: MmDit) -> dict[str, Any]:
  refuse(SD3, config, vocabulary=(0,), numbers=(0,), num_classes=(0,), single=(0,), guidance=(False,),
         positions=('sincos',))
  if not config.vector_width or config.shape[0] != config.shape[1] or config.grid * config.patch != config.shape[0]:
    raise UserError(f'{SD3} has square latents, as many positions as patches, and reads a vector; got shape='
                    f'{config.shape}, grid={config.grid}, vector_width={config.vector_width}')
  return {
    'sample_size': config.shape[0], 'patch_size': config.patch, 'out_channels': config.shape[2],
    'in_channels': config.shape[2] + config.image_channels, 'num_layers': config.layers,
    'attention_head_dim': config.head_dim, 'num_attention_heads': config.heads,
    'joint_attention_dim': config.token_width, 'caption_projection_dim': config.width,
    'pooled_projection_dim': config.vector_width, 'pos_embed_max_size': config.largest,
    'dual_attention_layers': list(range(config.dual)), 'qk_norm': 'rms_norm' if config.norm_queries else None}


def _read_flux(entries: Entries, stored: Mapping[str, Any]) -> MmDit:
  entries.only('patch_size', 1, 'latents are packed before')
  inputs = entries.integer('in_channels', 64)
  outputs = entries.integer('out_channels', inputs)
  if inputs % _FLUX_PATCH ** 2 or outputs % _FLUX_PATCH ** 2:
    raise UserError(f'{entries.where}: in_channels and out_channels must be multiples of {_FLUX_PATCH ** 2}, the '
                    f'pixels of a packed patch, got {inputs} and {outputs}')
  # config.json knows no size; 1024 pixels are 128 of the latents that the autoencoder of Flux makes.
  return MmDit(shape=(128, 128, outputs // _FLUX_PATCH ** 2), image_channels=(inputs - outputs) // _FLUX_PATCH ** 2,
               patch=_FLUX_PATCH, layers=entries.integer('num_layers', 19),
               single=entries.integer('num_single_layers', 38), heads=entries.integer('num_attention_heads', 24),
               head_dim=entries.integer('attention_head_dim', 128), norm_queries=True,
               token_width=entries.integer('joint_attention_dim', 4096),
               vector_width=entries.integer('pooled_projection_dim', 768), positions='rope',
               rope_axes=_rope_axes(entries),
               guidance=entries.flag('guidance_embeds', False))


def _rope_axes(entries: Entries) -> tuple[int, int, int]:
  sizes: Any = entries.values.get('axes_dims_rope') or (16, 56, 56)
  if not isinstance(sizes, (list, tuple)) or len(sizes) != 3 or not all(type(size) is int for size in sizes):
    raise UserError(f'{entries.where}: axes_dims_rope must be three whole numbers, got {sizes!r}')
  return sizes[0], sizes[1], sizes[2]


def _write_flux(config: MmDit) -> dict[str, Any]:
  refuse(FLUX, config, vocabulary=(0,), numbers=(0,), num_classes=(0,), dual=(0,), positions=('rope',),
         norm_queries=(True,), patch=(_FLUX_PATCH,))
  if not config.vector_width or not config.single:
    raise UserError(f'{FLUX} reads a vector and has single blocks; got vector_width={config.vector_width}, '
                    f'single={config.single}')
  packed = _FLUX_PATCH ** 2
  return {
    'patch_size': 1, 'in_channels': packed * (config.shape[2] + config.image_channels),
    'out_channels': packed * config.shape[2] if config.image_channels else None, 'num_layers': config.layers,
    'num_single_layers': config.single, 'attention_head_dim': config.head_dim, 'num_attention_heads': config.heads,
    'joint_attention_dim': config.token_width, 'pooled_projection_dim': config.vector_width,
    'guidance_embeds': config.guidance, 'axes_dims_rope': list(config.rope_axes)}


def _constants(config: MmDit) -> dict[str, np.ndarray]:
  return {_POSITIONS: positions(config, (config.largest, config.largest))[None]}


def _architecture(name: str, read: Any, write: Any, **options: Any) -> Architecture:
  return Architecture(name, MmDit, network_of, _tensors, prefix='', aliases={}, read=read, write=write, spellings={},
                      defaults={}, layout='diffusers', **options)


ARCHITECTURES = {
  SD3: _architecture(SD3, _read_sd3, _write_sd3, ignored=(r'pos_embed\.pos_embed',), constants=_constants),
  FLUX: _architecture(FLUX, _read_flux, _write_flux, ignored=())}
