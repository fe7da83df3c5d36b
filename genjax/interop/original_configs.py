"""What config.json of `diffusers` and `transformers` would say of components that are in original files.

Sizes follow from the shapes of tensors. What no shape tells is that of the published models: the number of attention
heads, the size of the latents, the scale of the autoencoder.
"""

from collections.abc import Callable, Mapping
import math
from typing import Any, NamedTuple

import numpy as np

from genjax.interop import original_names
from genjax.interop.original_names import Names
from genjax.types import UserError

Shapes = Mapping[str, tuple[int, ...]]
HEAD = 64  # channels of an attention head, where projections around transformers are matrices, and of CLIP
UNET, VAE, CLIP, SD3, FLUX = 'UNet2DConditionModel', 'AutoencoderKL', 'CLIPTextModel', 'SD3Transformer2DModel', \
  'FluxTransformer2DModel'
PROJECTED, T5 = 'CLIPTextModelWithProjection', 'T5EncoderModel'
# Scale, shift of the latents: of Stable Diffusion 1 and 2, SDXL, the enlarger by 4, SD3, Flux
SCALES = {'sd': (0.18215, None), 'sdxl': (0.13025, None), 'x4': (0.08333, None), 'sd3': (1.5305, 0.0609),
          'flux': (0.3611, 0.1159)}


class Told(NamedTuple):
  """What is known of a file beside the component.

  family: 'sd1', 'sd2', 'sdxl', 'refiner', 'x4', 'sd3', 'flux' or ''. scaling: scale and shift that the user gave, or
  None. size: latents along a side; 0 for the usual ones.
  """

  family: str = ''
  scaling: tuple[float, float | None] | None = None
  size: int = 0


class Described(NamedTuple):
  """A component. entries: of its config.json. names: the table of its tensors. skipped: patterns of tensors that it has
  no use for. made: tensors that it has and the file has not."""

  entries: dict[str, Any]
  names: Names
  skipped: tuple[str, ...] = ()
  made: Mapping[str, np.ndarray] = {}


def _numbers(shapes: Shapes, before: str, after: str = '.') -> list[int]:
  """The numbers that follow `before` in names, if `after` follows them."""
  rests = {name[len(before):].partition(after)[0] for name in shapes if name.startswith(before)}
  return sorted(int(rest) for rest in rests if rest.isdigit())


def _of(shapes: Shapes, name: str) -> tuple[int, ...]:
  if name not in shapes:
    raise UserError(f'the file lacks {name}, which tells a size of the model')
  return shapes[name]


def unet(shapes: Shapes, told: Told) -> Described:
  """The U-Net of Stable Diffusion and SDXL."""
  shrinks = [number for number in _numbers(shapes, 'input_blocks.') if f'input_blocks.{number}.0.op.weight' in shapes]
  count = len(_numbers(shapes, 'input_blocks.')) - 1
  blocks = shrinks[0] - 1 if shrinks else count
  levels = len(shrinks) + 1
  if count != levels * (blocks + 1) - 1:
    raise UserError(f'the U-Net has {count} input_blocks, which are not {levels} levels of {blocks} residual blocks')
  places = [1 + level * (blocks + 1) for level in range(levels)]
  channels = [_of(shapes, f'input_blocks.{place}.0.out_layers.3.weight')[0] for place in places]
  depths = [len(_numbers(shapes, f'input_blocks.{place}.1.transformer_blocks.')) for place in places]
  middle = len(_numbers(shapes, 'middle_block.1.transformer_blocks.'))
  inner = 'transformer_blocks.0.attn2.to_k.weight'
  width = _of(shapes, f'middle_block.1.{inner}')[1]
  linear = len(_of(shapes, 'middle_block.1.proj_in.weight')) == 2
  classes = shapes.get('label_emb.weight')
  heads = [number // HEAD for number in channels] if linear and not classes else [8] * levels
  # The first attention reads the tokens, too, if its keys are not made of as many channels as the level has.
  only = [bool(depth) and _of(shapes, f'input_blocks.{place}.1.transformer_blocks.0.attn1.to_k.weight')[1] != number
          for place, depth, number in zip(places, depths, channels)]
  kinds = ['CrossAttn' if depth else '' for depth in depths]
  inputs = _of(shapes, 'input_blocks.0.0.weight')[1]
  added = shapes.get('label_emb.0.0.weight')
  entries: dict[str, Any] = {
    '_class_name': UNET, 'in_channels': inputs, 'out_channels': _of(shapes, 'out.2.weight')[0],
    'block_out_channels': channels, 'layers_per_block': blocks, 'cross_attention_dim': width,
    'down_block_types': [f'{kind}DownBlock2D' for kind in kinds],
    'up_block_types': [f'{kind}UpBlock2D' for kind in reversed(kinds)],
    'transformer_layers_per_block': [*(depth or 1 for depth in depths[:-1]), depths[-1] or middle],
    'attention_head_dim': heads, 'use_linear_projection': linear, 'num_class_embeds': classes[0] if classes else None,
    'only_cross_attention': only if any(only) else False, 'sample_size': told.size or _SIZES.get(told.family, 64),
    'time_cond_proj_dim': shapes.get('time_embed.cond_proj.weight', (0, None))[1]}
  if added:
    entries |= {'addition_embed_type': 'text_time', 'addition_time_embed_dim': 256,
                'projection_class_embeddings_input_dim': added[1]}
  return Described(entries, original_names.unet(tuple(map(bool, depths)), blocks))


def autoencoder(shapes: Shapes, told: Told) -> Described:
  """The autoencoder of latent diffusion."""
  levels = len(_numbers(shapes, 'encoder.down.'))
  widths = [_of(shapes, f'encoder.down.{level}.block.0.conv2.weight')[0] for level in range(levels)]
  latent, family = _of(shapes, 'decoder.conv_in.weight')[1], told.family
  if told.scaling is None and not family and latent not in (4, 16):
    raise UserError(f'the file has an autoencoder of {latent} channels alone, and no tensor tells the scale of its '
                    'latents: give --scaling=SCALE, or --scaling=SCALE,SHIFT')
  usual = 'flux' if latent == 16 and family != 'sd3' else {'refiner': 'sdxl'}.get(family, family)
  scale, shift = told.scaling or SCALES.get(usual, SCALES['sd'])
  attends = bool(_numbers(shapes, f'encoder.down.{levels - 1}.attn.'))
  kinds = [f'{"Attn" if attends and level == levels - 1 else ""}Down' for level in range(levels)]
  entries = {
    '_class_name': VAE, 'in_channels': _of(shapes, 'encoder.conv_in.weight')[1],
    'out_channels': _of(shapes, 'decoder.conv_out.weight')[0], 'latent_channels': latent, 'block_out_channels': widths,
    'layers_per_block': len(_numbers(shapes, 'encoder.down.0.block.')),
    'down_block_types': [f'{kind}EncoderBlock2D' for kind in kinds],
    'up_block_types': [f'{kind.replace("Down", "Up")}DecoderBlock2D' for kind in reversed(kinds)],
    'sample_size': 2 ** (levels - 1) * (told.size or _SIZES.get(family, 64)), 'norm_num_groups': 32,
    'use_quant_conv': 'quant_conv.weight' in shapes, 'use_post_quant_conv': 'post_quant_conv.weight' in shapes,
    'scaling_factor': scale, 'shift_factor': shift, 'force_upcast': True}
  return Described(entries, original_names.autoencoder(levels), (r'loss\..*', r'model_ema\..*'))


def clip(shapes: Shapes, told: Told) -> Described:
  """CLIP-L: the text tower of Stable Diffusion 1, and the first of SDXL and SD3.

  SD3 takes its pooled vector as it is, and its published folder has a projection that changes nothing.
  """
  entries = _named_as_openai(shapes, 'quick_gelu', PROJECTED if told.family == 'sd3' else CLIP)
  made = {'text_projection.weight': np.eye(entries['hidden_size'], dtype=np.float32)} if told.family == 'sd3' else {}
  return Described(entries, original_names.UNCHANGED, (*_UNUSED, r'text_projection\.weight'), made)


def clip_large(shapes: Shapes, told: Told) -> Described:
  """CLIP-bigG as SD3 names it: the second text tower."""
  return Described(_named_as_openai(shapes, 'gelu', PROJECTED), original_names.UNCHANGED, _UNUSED)


def _named_as_openai(shapes: Shapes, activation: str, kind: str) -> dict[str, Any]:
  table = 'text_model.' if any(name.startswith('text_model.') for name in shapes) else ''
  vocab, width = _of(shapes, f'{table}embeddings.token_embedding.weight')
  entries = _tower(width, len(_numbers(shapes, f'{table}encoder.layers.')), vocab,
                   _of(shapes, f'{table}encoder.layers.0.mlp.fc1.weight')[0],
                   _of(shapes, f'{table}embeddings.position_embedding.weight')[0])
  projection = shapes.get('text_projection.weight', (width,))[0] if kind == PROJECTED else width
  return {**entries, 'hidden_act': activation, 'projection_dim': projection, 'architectures': [kind]}


def open_clip(shapes: Shapes, told: Told) -> Described:
  """A text tower named as in open_clip: that of Stable Diffusion 2, without its last block, or the second of SDXL."""
  vocab, width = _of(shapes, 'token_embedding.weight')
  layers = len(_numbers(shapes, 'transformer.resblocks.'))
  whole = told.family != 'sd2'
  entries = _tower(width, layers if whole else layers - 1, vocab,
                   _of(shapes, 'transformer.resblocks.0.mlp.c_fc.weight')[0], _of(shapes, 'positional_embedding')[0])
  entries |= {'hidden_act': 'gelu', 'architectures': [PROJECTED if whole else CLIP],
              'projection_dim': shapes.get('text_projection', (0, 512))[1] if whole else 512}
  unused = () if whole else (rf'transformer\.resblocks\.{layers - 1}\..*', 'text_projection')
  return Described(entries, original_names.OPEN_CLIP, ('logit_scale', 'attn_mask', *unused))


def _tower(width: int, layers: int, vocab: int, mlp: int, context: int) -> dict[str, Any]:
  # Published text encoders say that 2 ends a text, and pool at the largest token.
  return {'model_type': 'clip_text_model', 'hidden_size': width, 'num_hidden_layers': layers, 'vocab_size': vocab,
          'num_attention_heads': width // HEAD, 'intermediate_size': mlp, 'max_position_embeddings': context,
          'eos_token_id': 2, 'bos_token_id': 0, 'pad_token_id': 1, 'layer_norm_eps': 1e-5}


def t5(shapes: Shapes, told: Told) -> Described:
  """The encoder of T5 1.1, named as in `transformers`."""
  vocab, width = _of(shapes, 'shared.weight')
  block = 'encoder.block.0.layer'
  buckets, heads = _of(shapes, f'{block}.0.SelfAttention.relative_attention_bias.weight')
  return Described(
    {'model_type': 't5', 'architectures': [T5], 'd_model': width, 'vocab_size': vocab, 'num_heads': heads,
     'd_kv': _of(shapes, f'{block}.0.SelfAttention.q.weight')[0] // heads, 'feed_forward_proj': 'gated-gelu',
     'd_ff': _of(shapes, f'{block}.1.DenseReluDense.wi_0.weight')[0], 'relative_attention_num_buckets': buckets,
     'num_layers': len(_numbers(shapes, 'encoder.block.')), 'tie_word_embeddings': False, 'is_encoder_decoder': False,
     'eos_token_id': 1, 'pad_token_id': 0, 'decoder_start_token_id': 0},
    original_names.UNCHANGED, ('logit_scale', 'lm_head.weight'))


def stable_diffusion_3(shapes: Shapes, told: Told) -> Described:
  """The MM-DiT of Stable Diffusion 3 and 3.5."""
  layers = len(_numbers(shapes, 'joint_blocks.'))
  width, channels, patch, _ = _of(shapes, 'x_embedder.proj.weight')
  normed = 'joint_blocks.0.x_block.attn.ln_q.weight' in shapes
  head = _of(shapes, 'joint_blocks.0.x_block.attn.ln_q.weight')[0] if normed else HEAD
  dual = [number for number in range(layers) if f'joint_blocks.{number}.x_block.attn2.qkv.weight' in shapes]
  largest = math.isqrt(_of(shapes, 'pos_embed')[1])
  entries = {
    '_class_name': SD3, 'in_channels': channels, 'patch_size': patch, 'num_layers': layers, 'attention_head_dim': head,
    'out_channels': _of(shapes, 'final_layer.linear.weight')[0] // patch ** 2, 'num_attention_heads': width // head,
    'joint_attention_dim': _of(shapes, 'context_embedder.weight')[1], 'caption_projection_dim': width,
    'pooled_projection_dim': _of(shapes, 'y_embedder.mlp.0.weight')[1], 'pos_embed_max_size': largest,
    'dual_attention_layers': dual, 'qk_norm': 'rms_norm' if normed else None, 'sample_size': told.size or 128}
  return Described(entries, original_names.stable_diffusion_3(layers))


def flux(shapes: Shapes, told: Told) -> Described:
  """The MM-DiT of Flux."""
  width, inputs = _of(shapes, 'img_in.weight')
  head, outputs = _of(shapes, 'single_blocks.0.norm.query_norm.scale')[0], _of(shapes, 'final_layer.linear.weight')[0]
  entries = {
    '_class_name': FLUX, 'patch_size': 1, 'in_channels': inputs, 'out_channels': outputs if outputs != inputs else None,
    'num_layers': len(_numbers(shapes, 'double_blocks.')), 'num_single_layers': len(_numbers(shapes, 'single_blocks.')),
    'attention_head_dim': head, 'num_attention_heads': width // head,
    'joint_attention_dim': _of(shapes, 'txt_in.weight')[1], 'pooled_projection_dim': _of(shapes,
                                                                                        'vector_in.in_layer.weight')[1],
    'guidance_embeds': 'guidance_in.in_layer.weight' in shapes, 'axes_dims_rope': _rope(head)}
  return Described(entries, original_names.FLUX)


def _rope(head: int) -> list[int]:
  """The channels of a head for the three positions: 16, 56 and 56 of 128."""
  side = 7 * head // 32 * 2
  return [head - 2 * side, side, side]


_UNUSED = (r'(.*\.)?position_ids', r'logit_scale')
_SIZES = {'sd1': 64, 'sd2': 64, 'sdxl': 128, 'refiner': 128, 'x4': 128, 'sd3': 128, 'flux': 128}
Describe = Callable[[Shapes, Told], Described]
