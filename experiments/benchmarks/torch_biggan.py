"""The generator of BigGAN in PyTorch, on genjax's variables, for parity tests and timings; see `torch_twins`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F

from genjax.experiments.benchmarks.timing import Trained
from genjax.experiments.benchmarks.torch_side import DEVICE, Case, no_grad, on_device, tensor, twin
from genjax.experiments.benchmarks.torch_twins import convert, image, layers
from genjax.models.adversarial import biggan
from genjax.objectives.gan import Gan


def sampling(compiled: Callable) -> Case:
  """Samples of BigGAN, conditional; both normalise kernels, and maps by running averages, in each call."""
  config, rows = biggan.BigGan(**biggan.VARIANTS['biggan_cifar10']), 16
  label = np.arange(rows, dtype=np.int32) % 10
  run = Trained(Gan(config.generator(), config.discriminator(), config.latent, num_classes=10),
                {'image': np.zeros((rows, 32, 32, 3), np.uint8), 'label': label})
  state = on_device(convert(jax.device_get(run.state.mutable['generator'])))
  params, labels, conditions = twin(run, 'generator'), tensor(label).long(), {'label': jnp.asarray(label)}
  generate = compiled(lambda z: generator(params, state, z, labels, 4))
  theirs = no_grad(lambda: generate(torch.randn(rows, config.latent, device=DEVICE)))
  return Case(lambda: run.sample(rows, conditions), theirs, f'BigGAN for CIFAR-10, 4.3 M, 32 px, batch {rows}',
              (rows, 'images'), run.sample_flops(rows, conditions))


def generator(p: dict, s: dict, z_BZ: torch.Tensor, label_B: torch.Tensor, start: int, chunks: int = 1) -> torch.Tensor:
  """See `genjax.models.adversarial.biggan.BigGanGenerator`, in inference mode, with the blocks of BigGAN.

  Args:
    p, s: its parameters and its mutable tree, by `torch_twins.convert`.
    z_BZ: latents.
    label_B: labels.
    start: side of the first map.
    chunks: into how many the latent is cut.

  Returns:
    Images B C H W in [-1, 1].
  """
  first_BZ, *others = z_BZ.chunk(chunks, -1)
  told = F.embedding(label_B, p['embed']['embedding']) if 'embed' in p else label_B
  x = image(_affine(p['project'], s['project'], first_BZ), start)
  x = x.contiguous(memory_format=torch.channels_last)
  for index, (stage, states) in enumerate(zip(layers(p['stages']), layers(s['stages']))):
    read = torch.cat([told, others[index]], -1) if others else told
    x = _block(stage['0'], states['0'], x, read)
  x = F.relu(_norm(x, s['norm']['norm'], p['norm']['norm']['scale'], p['norm']['norm']['bias']))
  return _affine(p['out'], s['out'], x).tanh()


def _block(p: dict, s: dict, x_BCHW: torch.Tensor, told_B: torch.Tensor) -> torch.Tensor:
  hidden = F.relu(_told_norm(p['norm_in'], s['norm_in'], x_BCHW, told_B))
  hidden = _affine(p['conv_in'], s['conv_in'], F.interpolate(hidden, scale_factor=2))
  hidden = F.relu(_told_norm(p['norm_out'], s['norm_out'], hidden, told_B))
  shortcut = _affine(p['shortcut'], s['shortcut'], x_BCHW)
  return F.interpolate(shortcut, scale_factor=2) + _affine(p['conv_out'], s['conv_out'], hidden)


def _told_norm(p: dict, s: dict, x_BCHW: torch.Tensor, told_B: torch.Tensor) -> torch.Tensor:
  scale_BC, bias_BC = (F.embedding(told_B, p[name]['embedding']) if 'embedding' in p[name] else
                       _affine(p[name], s[name], told_B) for name in ('scale', 'bias'))
  return _norm(x_BCHW, s['norm']) * (1 + scale_BC[..., None, None]) + bias_BC[..., None, None]


def _norm(x_BCHW: torch.Tensor, s: dict, scale: torch.Tensor | None = None,
          bias: torch.Tensor | None = None) -> torch.Tensor:
  """Batch normalisation by running averages."""
  return F.batch_norm(x_BCHW, s['mean'], s['var'], scale, bias, training=False, eps=1e-5)


def _affine(p: dict, s: dict, x: torch.Tensor) -> torch.Tensor:
  """A dense layer or a convolution with a spectral norm, by its stored singular vector."""
  kernel, u = p['kernel'], s['spectral']['u']
  matrix = kernel.flatten(1)
  v = F.normalize(matrix.T @ u, dim=0)
  kernel = kernel / (u @ matrix @ v)
  if kernel.ndim == 2:
    return F.linear(x, kernel, p.get('bias'))
  return F.conv2d(x, kernel, p.get('bias'), padding=kernel.shape[-1] // 2)
