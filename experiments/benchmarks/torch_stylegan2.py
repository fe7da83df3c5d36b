"""The generator of StyleGAN2 in PyTorch, on genjax's variables, for parity tests and timings; see `torch_twins`."""

from collections.abc import Callable
import math
from typing import Any

import jax
import numpy as np
import torch
import torch.nn.functional as F

from genjax.experiments.benchmarks.timing import Trained
from genjax.experiments.benchmarks.torch_side import DEVICE, Case, no_grad, on_device
from genjax.experiments.benchmarks.torch_twins import convert, layers
from genjax.models.adversarial import style_ops, stylegan2
from genjax.objectives.style import StyleGan


def sampling(compiled: Callable) -> Case:
  """Samples of StyleGAN2, unconditional, with the fixed noise of inference, not truncated."""
  config, rows = stylegan2.StyleGan2(**stylegan2.VARIANTS['stylegan2_auto_32']), 4
  run = Trained(StyleGan(config.generator(), config.discriminator(), config.latent, layers=config.layers,
                         style=config.style, group=config.group, path_weight=0.0),
                {'image': np.zeros((rows, config.size, config.size, 3), np.uint8)})
  params, noise = (on_device(tree) for tree in twin(run.state.params['generator'], run.state.mutable['generator']))
  generate = compiled(lambda z: generator(params, noise, config, z))
  theirs = no_grad(lambda: generate(torch.randn(rows, config.latent, device=DEVICE)))
  count = sum(leaf.size for leaf in jax.tree.leaves(run.state.params['generator']))
  return Case(lambda: run.sample(rows, {}), theirs, f'StyleGAN2, {count / 1e6:.1f} M, {config.size} px, batch {rows}',
              (rows, 'images'), run.sample_flops(rows, {}))


def twin(params: Any, mutable: Any) -> tuple[dict, dict]:
  """Parameters and noise of `generator`, from those of `genjax.models.adversarial.stylegan2.StyleGenerator`.

  A layer that doubles has the kernel of a transposed convolution.
  """
  p = convert(jax.device_get(params))
  for index, layer in enumerate(layers(p['layers'])):
    if index % 2:
      turned = layer['kernel'].detach().flip(2, 3).transpose(0, 1)
      layer['kernel'] = turned.contiguous(memory_format=torch.channels_last).requires_grad_()
  return p, convert(jax.device_get(mutable['layers']))


def generator(p: dict, noise: dict, config: stylegan2.StyleGan2, z_BZ: torch.Tensor) -> torch.Tensor:
  """See `genjax.models.adversarial.stylegan2.StyleGenerator`, in inference mode and without classes.

  Args:
    p, noise: from `twin`.
    config: its options.
    z_BZ: latents.

  Returns:
    Images B C H W around [-1, 1].
  """
  style_BW = z_BZ * (z_BZ.square().mean(-1, keepdim=True) + 1e-8).rsqrt()
  for layer in layers(p['mapping']['layers']):
    style_BW = _active(_dense(layer, style_BW, config.mapping_rate), 0.0)
  x = p['start'].permute(2, 0, 1).expand(len(z_BZ), -1, -1, -1).contiguous(memory_format=torch.channels_last)
  shown, pictures = layers(p['images']), None
  for index, layer in enumerate(layers(p['layers'])):
    x = _styled(layer, noise[str(index)]['noise'], x, style_BW, bool(index % 2), config.clamp)
    if index % 2 == 0:
      seen = _to_image(shown[index // 2], x, style_BW, config.clamp)
      pictures = seen if pictures is None else _enlarge(pictures) + seen
  assert pictures is not None
  return pictures


def _styled(p: dict, noise_HW: torch.Tensor, x: torch.Tensor, style_BW: torch.Tensor, double: bool,
            clamp: float) -> torch.Tensor:
  scale_BI, kernel = _dense(p['affine'], style_BW), p['kernel']
  x = x * scale_BI[..., None, None]
  if double:
    x = _filtered(F.conv_transpose2d(x, kernel, stride=2), pad=(1, 1, 1, 1))
    square_OI = kernel.square().sum((2, 3)).T
  else:
    x, square_OI = F.conv2d(x, kernel, padding=1), kernel.square().sum((2, 3))
  x = x * (scale_BI.square() @ square_OI.T + 1e-8).rsqrt()[..., None, None]
  return _active(x + (p['strength'] * noise_HW) + p['bias'][:, None, None], clamp)


def _to_image(p: dict, x: torch.Tensor, style_BW: torch.Tensor, clamp: float) -> torch.Tensor:
  scale_BI = _dense(p['affine'], style_BW) / math.sqrt(x.shape[1])
  x = F.conv2d(x * scale_BI[..., None, None], p['kernel'], p['bias'])
  return x.clamp(-clamp, clamp) if clamp else x


def _dense(p: dict, x: torch.Tensor, rate: float = 1.0) -> torch.Tensor:
  return F.linear(x, p['kernel'] * (rate / math.sqrt(x.shape[-1])), p['bias'] * rate)


def _active(x: torch.Tensor, clamp: float) -> torch.Tensor:
  x = F.leaky_relu(x, style_ops.SLOPE) * style_ops.GAIN
  return x.clamp(-clamp, clamp) if clamp else x


def _enlarge(x: torch.Tensor) -> torch.Tensor:
  """Zeros behind each pixel, then the filter."""
  rows, channels, height, width = x.shape
  spread = x.new_zeros(rows, channels, 2 * height, 2 * width)
  spread[..., ::2, ::2] = x
  return _filtered(spread, pad=(2, 1, 2, 1))


def _filtered(x: torch.Tensor, pad: tuple[int, int, int, int]) -> torch.Tensor:
  """Twice `genjax.models.adversarial.style_ops.BLUR` along each axis, on every channel."""
  taps, channels = 2 * x.new_tensor(style_ops.BLUR), x.shape[1]
  x = F.pad(x, pad)
  for shape in ((1, 1, 4, 1), (1, 1, 1, 4)):
    x = F.conv2d(x, taps.reshape(shape).expand(channels, -1, -1, -1), groups=channels)
  return x
