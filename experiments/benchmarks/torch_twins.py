"""The architectures of genjax in PyTorch, on genjax's parameter trees, for parity tests and timings.

Each function takes parameters that `convert` made from those of a network, and computes the same as the network, in the
way a PyTorch user would write it: `scaled_dot_product_attention`, `channels_last` images, one call per layer. Suffixes
as in genjax.types; images are B C H W in memory format channels_last.
"""

from collections.abc import Sequence
import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from genjax.models.adversarial.dcgan import Dcgan
from genjax.models.denoisers.dit import DiT
from genjax.models.denoisers.unet import UNet
from genjax.models.transformers.decoder import TransformerConfig
from genjax.nn.embeddings import sincos_positions
from genjax.types import Tree


def convert(tree: Tree, transposed: Sequence[str] = (), path: str = '') -> Any:
  """A parameter tree as leaf tensors that require gradients, in torch's layouts.

  Args:
    tree: nested dicts of arrays. Kernels (in, out) become (out, in), HWIO becomes OIHW; a group named 'blocks' is a
      stack of layers and becomes a list.
    transposed: names of groups whose 4D kernels belong to transposed convolutions: HWIO, rotated by 180 degrees,
      becomes IOHW.
  """
  if not isinstance(tree, dict):
    array = torch.tensor(tree.__array__().copy())
    if path.endswith('kernel') and array.ndim == 2:
      array = array.T.contiguous()
    elif path.endswith('kernel') and array.ndim == 4:
      flipped = any(f'/{name}/' in path for name in transposed)
      array = array.flip(0, 1).permute(2, 3, 0, 1).contiguous() if flipped else array.permute(3, 2, 0, 1).contiguous()
      array = array.to(memory_format=torch.channels_last)
    return array.requires_grad_()
  if path.endswith('/blocks'):
    depth = len(next(iter(leaves(tree))))
    return [convert(slice_layer(tree, layer), transposed, f'{path}/{layer}') for layer in range(depth)]
  return {name: convert(value, transposed, f'{path}/{name}') for name, value in tree.items()}


def slice_layer(tree: Tree, layer: int) -> Tree:
  """One layer of a stack."""
  return {name: slice_layer(value, layer) for name, value in tree.items()} if isinstance(tree, dict) else tree[layer]


def leaves(tree: Any) -> list[Any]:
  """Arrays or tensors of nested dicts and lists."""
  if isinstance(tree, dict):
    return [leaf for value in tree.values() for leaf in leaves(value)]
  return [leaf for value in tree for leaf in leaves(value)] if isinstance(tree, list) else [tree]


def layers(tree: dict) -> list[Any]:
  """The entries '0', '1', ... of a list of layers."""
  return [tree[str(index)] for index in range(len(tree))]


def linear(p: dict, x: torch.Tensor) -> torch.Tensor:
  """A dense layer on the last axis."""
  return F.linear(x, p['kernel'], p.get('bias'))


def attention(p: dict, x_BTD: torch.Tensor, heads: int, causal: bool) -> torch.Tensor:
  """See `genjax.nn.attention.self_attention.Attention`, without rotary positions."""
  query, key, value = (
    linear(p[name], x_BTD).unflatten(-1, (heads, -1)).transpose(1, 2) for name in ('query', 'key', 'value'))
  y_BHTD = F.scaled_dot_product_attention(query, key, value, is_causal=causal)
  return linear(p['out'], y_BHTD.transpose(1, 2).flatten(2))


def gpt(p: dict, config: TransformerConfig, tokens_BT: torch.Tensor) -> torch.Tensor:
  """Logits of GPT-2's options: learned positions, layer norm, GELU, tied embedding. No dropout."""
  def norm(p: dict, x: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], p['scale'], p.get('bias'), config.norm_eps)

  table_VD = p['embedding']['token']['embedding']
  x_BTD = F.embedding(tokens_BT, table_VD) + p['embedding']['position']['embedding'][:tokens_BT.shape[1]]
  for block in p['blocks']:
    x_BTD = x_BTD + attention(block['attention'], norm(block['attention_norm'], x_BTD), config.heads, causal=True)
    hidden = F.gelu(linear(block['up'], norm(block['mlp_norm'], x_BTD)),
                    approximate='tanh' if config.mlp == 'gelu_tanh' else 'none')
    x_BTD = x_BTD + linear(block['down'], hidden)
  return F.linear(norm(p['head']['norm'], x_BTD), table_VD)


def gpt2_weights(params: Tree) -> dict[str, torch.Tensor]:
  """Parameters of a GPT-2 under the names and in the layouts of transformers' GPT2LMHeadModel."""
  table, norm, blocks = params['embedding']['token']['embedding'], params['head']['norm'], params['blocks']
  named = {
    'transformer.wte.weight': table, 'lm_head.weight': table, 'transformer.ln_f.weight': norm['scale'],
    'transformer.ln_f.bias': norm['bias'], 'transformer.wpe.weight': params['embedding']['position']['embedding']
  }
  for layer in range(len(blocks['up']['kernel'])):
    block, prefix = slice_layer(blocks, layer), f'transformer.h.{layer}'
    for ours, theirs in (('attention_norm', 'ln_1'), ('mlp_norm', 'ln_2')):
      named |= {f'{prefix}.{theirs}.weight': block[ours]['scale'], f'{prefix}.{theirs}.bias': block[ours]['bias']}
    projections = [block['attention'][name] for name in ('query', 'key', 'value')]
    joined = {kind: np.concatenate([part[kind] for part in projections], axis=-1) for kind in ('kernel', 'bias')}
    pairs = {
      'attn.c_attn': joined, 'attn.c_proj': block['attention']['out'], 'mlp.c_fc': block['up'],
      'mlp.c_proj': block['down']
    }
    for theirs, ours in pairs.items():
      named |= {f'{prefix}.{theirs}.weight': ours['kernel'], f'{prefix}.{theirs}.bias': ours['bias']}
  return {name: torch.tensor(np.asarray(value)) for name, value in named.items()}


def times(p: dict, t_B: torch.Tensor, features: int, shift: int) -> torch.Tensor:
  """See `genjax.nn.embeddings.TimestepEmbedding`."""
  half = features // 2
  frequency = torch.exp(-math.log(10_000) / (half - shift) * torch.arange(half, dtype=torch.float32, device=t_B.device))
  angle = t_B[:, None] * frequency
  return linear(p['down'], F.silu(linear(p['up'], torch.cat([angle.cos(), angle.sin()], -1))))


def dit(p: dict, config: DiT, x_BCHW: torch.Tensor, t_B: torch.Tensor, label_B: torch.Tensor | None = None,
        positions_TD: torch.Tensor | None = None) -> torch.Tensor:
  """See `genjax.models.denoisers.dit.network`. positions_TD: the fixed positions if already on the device."""
  height, width, channels = config.shape
  size, rows, columns = config.patch, height // config.patch, width // config.patch

  def norm(x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift

  patches = x_BCHW.reshape(-1, channels, rows, size, columns, size).permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
  if positions_TD is None:
    positions_TD = torch.as_tensor(sincos_positions(rows, columns, config.width), device=x_BCHW.device)
  x_BTD = linear(p['embed']['patch'], patches) + positions_TD
  condition = times(p['embed']['time'], t_B, config.frequencies, 0)
  if label_B is not None:
    condition = condition + F.embedding(label_B, p['embed']['label']['table']['embedding'])
  condition = F.silu(condition)
  for block in p['blocks']:
    shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = linear(block['modulation'], condition)[:, None].chunk(6, -1)
    x_BTD = x_BTD + gate_a * attention(block['attention'], norm(x_BTD, shift_a, scale_a), config.heads, causal=False)
    hidden = F.gelu(linear(block['mlp']['up'], norm(x_BTD, shift_m, scale_m)), approximate='tanh')
    x_BTD = x_BTD + gate_m * linear(block['mlp']['down'], hidden)
  shift, scale = linear(p['head']['modulation'], condition)[:, None].chunk(2, -1)
  out = linear(p['head']['out'], norm(x_BTD, shift, scale))
  return out.reshape(-1, rows, columns, size, size, out.shape[-1] // size ** 2).permute(0, 5, 1, 3, 2, 4).reshape(
    x_BCHW.shape[0], -1, height, width)


def conv(p: dict, x_BCHW: torch.Tensor, stride: int = 1) -> torch.Tensor:
  """'SAME' padding as in jax.lax: for an odd kernel with stride 2 on an even size, one pixel at the end only."""
  size = p['kernel'].shape[-1]
  total = size - stride
  if total % 2:
    return F.conv2d(F.pad(x_BCHW, (total // 2, total - total // 2) * 2), p['kernel'], p.get('bias'), stride)
  return F.conv2d(x_BCHW, p['kernel'], p.get('bias'), stride, total // 2)


def unet(p: dict, config: UNet, x_BCHW: torch.Tensor, t_B: torch.Tensor,
         label_B: torch.Tensor | None = None) -> torch.Tensor:
  """See `genjax.models.denoisers.unet.network`. No dropout."""
  def norm(p: dict, x: torch.Tensor) -> torch.Tensor:
    return F.group_norm(x, config.groups, p['scale'], p['bias'], 1e-6)

  def stage(p: dict, x: torch.Tensor) -> torch.Tensor:
    hidden = conv(p['conv_in'], F.silu(norm(p['norm_in'], x))) + linear(p['condition'], condition)[:, :, None, None]
    hidden = conv(p['conv_out'], F.silu(norm(p['norm_out'], hidden)))
    if 'shortcut' in p:
      x = F.conv2d(x, p['shortcut']['kernel'][:, :, None, None], p['shortcut']['bias'])
    x = x + hidden
    if 'attention' not in p:
      return x
    tokens = attention(p['attention'],
                       norm(p['norm_attention'], x).flatten(2).transpose(1, 2), config.heads, causal=False)
    return x + tokens.transpose(1, 2).unflatten(2, x.shape[2:])

  condition = times(p['time'], t_B, config.base, 1)
  if label_B is not None:
    condition = condition + F.embedding(label_B, p['label']['table']['embedding'])
  condition = F.silu(condition)
  x = conv(p['first'], x_BCHW)
  skips = [x]
  for index, level in enumerate(layers(p['down'])):
    if index:
      x = conv(p['shrink'][str(index - 1)], x, 2)
      skips.append(x)
    for block in layers(level):
      x = stage(block, x)
      skips.append(x)
  for block in layers(p['middle']):
    x = stage(block, x)
  for index, level in enumerate(layers(p['up'])):
    if index:
      x = conv(p['enlarge'][str(index - 1)], F.interpolate(x, scale_factor=2, mode='nearest'))
    for block in layers(level):
      x = stage(block, torch.cat([x, skips.pop()], 1))
  return conv(p['last'], F.silu(norm(p['norm'], x)))


def conv_transpose(p: dict, x_BCHW: torch.Tensor) -> torch.Tensor:
  """Kernel 4, stride 2, 'SAME'."""
  return F.conv_transpose2d(x_BCHW, p['kernel'], p.get('bias'), 2, 1)


def flat(x_BCHW: torch.Tensor) -> torch.Tensor:
  """B H W C order of the elements, as the project flattens images."""
  return x_BCHW.permute(0, 2, 3, 1).flatten(1)


def image(x_BD: torch.Tensor, side: int) -> torch.Tensor:
  """The inverse of `flat`."""
  return x_BD.unflatten(1, (side, side, -1)).permute(0, 3, 1, 2)


def encoder(p: dict, x_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
  """Mean and log variance; see `genjax.models.autoencoders.vae.ConvEncoder`."""
  for layer in layers(p['layers']):
    x_BCHW = F.relu(conv(layer, x_BCHW, 2))
  mean, log_variance = linear(p['out'], flat(x_BCHW)).chunk(2, -1)
  return mean, log_variance


def decoder(p: dict, z_BZ: torch.Tensor, side: int) -> torch.Tensor:
  """See `genjax.models.autoencoders.vae.ConvDecoder`; `side` is the size of the smallest map."""
  x = image(linear(p['dense'], z_BZ), side)
  for layer in layers(p['layers']):
    x = conv_transpose(layer, F.relu(x))
  return x


def _batch_norm(p: dict, x: torch.Tensor) -> torch.Tensor:
  """Batch normalisation by the statistics of the batch, as in training."""
  return F.batch_norm(x, None, None, p['norm']['scale'], p['norm']['bias'], training=True, eps=1e-5)


def generator(p: dict, config: Dcgan, z_BZ: torch.Tensor) -> torch.Tensor:
  """See `genjax.models.adversarial.dcgan.DcganGenerator`, unconditional, with batch normalisation."""
  stages = layers(p['stages'])
  x = image(linear(p['project'], z_BZ), config.size >> len(stages))
  x = _batch_norm(p['norm'], x)
  for stage in stages:
    x = conv_transpose(stage['linear'], F.relu(x))
    x = _batch_norm(stage['norm'], x) if 'norm' in stage else x
  return x.tanh()


def discriminator(p: dict, config: Dcgan, x_BCHW: torch.Tensor) -> torch.Tensor:
  """See `genjax.models.adversarial.dcgan.DcganDiscriminator`, unconditional, without spectral norm. Logits B."""
  for stage in layers(p['stages']):
    x_BCHW = conv(stage['linear'], x_BCHW, 2)
    x_BCHW = _batch_norm(stage['norm'], x_BCHW) if 'norm' in stage else x_BCHW
    x_BCHW = F.leaky_relu(x_BCHW, 0.2)
  return linear(p['head']['output'], flat(x_BCHW))[:, 0]
