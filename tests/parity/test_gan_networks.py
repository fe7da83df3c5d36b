"""Residual GANs against torch-mimicry, with random weights: images, logits, and the losses of a training step."""

import importlib
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.models.adversarial.residual import VARIANTS, ResidualGan
from genjax.objectives.gan import LOSSES, Gan

torch = pytest.importorskip('torch', reason='parity tests need the extra [parity]')
torch.set_num_threads(1)  # its threads wait for each other on busy machines
pytestmark = pytest.mark.slow

BLOCK = {'c1': 'conv_in', 'c2': 'conv_out', 'c_sc': 'shortcut', 'b1': 'norm_in', 'b2': 'norm_out'}
ATTENTION = {'theta': 'query', 'phi': 'key', 'g': 'value', 'o': 'out', 'gamma': 'gain'}


@pytest.fixture
def mimicry(monkeypatch):
  """The networks of torch-mimicry; what it has beside them needs TensorFlow."""
  pytest.importorskip('importlib.util').find_spec('torch_mimicry') or pytest.skip(
    'torch-mimicry is absent (pip install --no-deps torch-mimicry==0.1.16)')
  for name in ('metrics', 'training', 'datasets'):
    monkeypatch.setitem(sys.modules, f'torch_mimicry.{name}', types.ModuleType(f'torch_mimicry.{name}'))
  return importlib.import_module('torch_mimicry.nets')


def converted(theirs, variables, start):
  """Our variables with the values of a network of theirs."""
  params, mutable = jax.tree.map(lambda leaf: np.full(leaf.shape, np.nan, np.float32), variables)  # all are replaced
  blocks = sorted(name for name, _ in theirs.named_children() if name.startswith('block'))
  for module_name, module in theirs.named_modules():
    if not any(True for _ in module.parameters(recurse=False)) and not isinstance(module, torch.nn.BatchNorm2d):
      continue
    path = ours(module_name, blocks)
    place = lambda tree, path=path: _at(tree, path)
    if module_name.endswith('attn_block'):
      place(params)['gain'] = module.gamma.detach().numpy()
    elif isinstance(module, torch.nn.BatchNorm2d):
      norm = _at(mutable, path)['norm']
      norm['mean'], norm['var'] = module.running_mean.numpy(), module.running_var.numpy()
      if module.affine:
        place(params)['norm'].update(scale=module.weight.detach().numpy(), bias=module.bias.detach().numpy())
    elif isinstance(module, torch.nn.Embedding) and not spectral(module):
      scale, bias = np.split(module.weight.detach().numpy(), 2, axis=1)
      place(params)['scale']['embedding'], place(params)['bias']['embedding'] = scale, bias
    else:
      linear(module, place(params), _at(mutable, path) if spectral(module) else None,
             start if module_name == 'l1' and start else 0)
  return jax.tree.map(jnp.asarray, (params, mutable))


def linear(module, params, mutable, start):
  """A kernel and a bias; of a spectral norm also the singular vector."""
  weight = getattr(module, 'weight_orig', module.weight).detach().numpy()
  kernel = weight if isinstance(module, torch.nn.Embedding) else np.moveaxis(weight, (0, 1), (-1, -2))
  bias = None if getattr(module, 'bias', None) is None else module.bias.detach().numpy()
  if mutable is not None:
    left = getattr(module, 'weight_u', None)
    left = (module.sn_u[0] if left is None else left).numpy()
    right = left @ weight.reshape(len(left), -1)  # ours has the vector of the outputs: those of an embedding are second
    mutable['spectral']['u'] = right / np.linalg.norm(right) if isinstance(module, torch.nn.Embedding) else left
  if start:  # theirs has the channels before the places
    order = np.arange(kernel.shape[-1]).reshape(-1, start, start).transpose(1, 2, 0).ravel()
    kernel, bias = kernel[:, order], bias[order]
    if mutable is not None:
      mutable['spectral']['u'] = mutable['spectral']['u'][order]
  assert params['kernel'].shape == kernel.shape
  params['kernel'] = kernel
  if bias is not None:
    params['bias'] = bias


def ours(name, blocks):
  """The path of a module of theirs in our trees."""
  first, *rest = name.split('.')
  if first == 'attn_block':
    return ['attention', *(ATTENTION[part] for part in rest)]
  if first in blocks:
    inner = [BLOCK[rest[0]]]
    return ['blocks', str(blocks.index(first)), *inner]  # `bn` and `embed` of a conditional norm are its parts
  if first == 'l_y':
    return ['head', 'embed']
  if first.startswith('l'):
    return ['project'] if first == 'l1' else ['head', 'output']
  return ['norm'] if first.startswith('b') else ['out']


def _at(tree, path):
  for name in path:
    tree = tree[name]
  return tree


def settled(network, *inputs):
  """Gives running averages values, and singular vectors those that power iteration comes to."""
  with torch.no_grad():
    for module in network.modules():
      if spectral(module):
        kernel = getattr(module, 'weight_orig', module.weight)
        u, _, v = torch.linalg.svd(kernel.flatten(1), full_matrices=False)
        for name, value in (('weight_u', u[:, 0]), ('weight_v', v[0]), ('sn_u', u[None, :, 0])):
          if hasattr(module, name):
            getattr(module, name).copy_(value)
    network.train()
    for _ in range(3):
      network(*inputs)


def spectral(module):
  """Whether it has the spectral norm of torch, or mimicry's own."""
  return hasattr(module, 'weight_orig') or hasattr(module, 'sn_u')


CASES = {
  'sngan_32': ('sngan.SNGANGenerator32', 'sngan.SNGANDiscriminator32', 16, 8),
  'sngan_48': ('sngan.SNGANGenerator48', 'sngan.SNGANDiscriminator48', 16, 32),
  'wgan_gp_32': ('wgan_gp.WGANGPGenerator32', 'wgan_gp.WGANGPDiscriminator32', 16, 8),
  'cgan_pd_32': ('cgan_pd.CGANPDGenerator32', 'cgan_pd.CGANPDDiscriminator32', 16, 8),
  'sagan_32': ('sagan.SAGANGenerator32', 'sagan.SAGANDiscriminator32', 16, 16),
}


@pytest.mark.parametrize('name', CASES)
def test_a_step_gives_the_losses_of_mimicry(name, mimicry):
  generator_name, discriminator_name, generator_width, discriminator_width = CASES[name]
  options = dict(VARIANTS[name])
  full = ResidualGan(**options)
  ratio = lambda widths, width: tuple(each * width // max(widths) for each in widths)
  model = ResidualGan(**{**options, 'generator_widths': ratio(full.generator_widths, generator_width), 'latent': 5,
                         'discriminator_widths': ratio(full.discriminator_widths, discriminator_width)})
  classes = {'num_classes': 10} if model.num_classes else {}
  torch.manual_seed(0)
  find = lambda path: getattr(getattr(mimicry, path.split('.')[0]), path.split('.')[1])
  generator = find(generator_name)(nz=5, ngf=generator_width, **classes)
  discriminator = find(discriminator_name)(ndf=discriminator_width, **classes)
  with torch.no_grad():
    for network in (generator, discriminator):
      if hasattr(network, 'attn_block'):
        network.attn_block.gamma.fill_(0.7)  # at its first value the attention adds nothing
  random = np.random.default_rng(0)
  latent_BZ = random.standard_normal((4, 5), np.float32)
  real_BHWC = random.uniform(-1, 1, (4, model.size, model.size, 3)).astype(np.float32)
  label_B = np.array([1, 0, 9, 1]) if classes else None
  told = [] if label_B is None else [torch.tensor(label_B)]
  their_real = torch.tensor(real_BHWC.transpose(0, 3, 1, 2))
  settled(generator, torch.tensor(latent_BZ), *told)
  settled(discriminator, their_real, *told)
  pair = model.generator(), model.discriminator()
  start = model.size >> (len(model.generator_widths) - 1)
  ours_g = converted(generator, jax.eval_shape(pair[0].init, jax.random.key(0)), start)
  ours_d = converted(discriminator, jax.eval_shape(pair[1].init, jax.random.key(0)), 0)
  label_BP = None if label_B is None else label_B[:, None]
  gan = Gan(*pair, latent=5, num_classes=model.num_classes)

  def step(training):
    key = jax.random.key(0) if training else None
    fake, _ = pair[0].apply(*ours_g, latent_BZ, label_B, key=key)
    logits = [pair[1].apply(*ours_d, x, label_BP, key=key)[0] for x in (real_BHWC, fake)]
    square = gan._square_gradient({'discriminator': ours_d[0]}, ours_d[1], jnp.asarray(real_BHWC),
                                  None if label_B is None else jnp.asarray(label_B))
    return fake, *logits, square

  for training in (False, True):
    found = jax.jit(step, static_argnums=0)(training)
    for network in (generator, discriminator):
      network.train(training)
    their_real.requires_grad_(not training)
    fake = generator(torch.tensor(latent_BZ), *told)
    logits = [discriminator(x, *told)[:, 0] for x in (their_real, fake)]
    expected = [fake.detach().numpy().transpose(0, 2, 3, 1), *(logit.detach().numpy() for logit in logits)]
    for mine, their in zip(found, expected):
      np.testing.assert_allclose(mine, their, rtol=0, atol=1e-4 * np.abs(their).max())
    if not training:
      gradient, = torch.autograd.grad(logits[0].sum(), their_real)
      np.testing.assert_allclose(found[3], (gradient**2).sum((1, 2, 3)).numpy(), rtol=1e-3)
    logits = [logit.detach() for logit in logits]
    loss = 'wgan_gp' if name.startswith('wgan') else 'hinge'
    theirs = (float(discriminator.compute_gan_loss(output_real=logits[0][:, None], output_fake=logits[1][:, None])),
              float(generator.compute_gan_loss(logits[1][:, None])))
    mine = LOSSES[loss][0](found[1], found[2]).mean(), LOSSES[loss][1](found[2]).mean()
    np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)
