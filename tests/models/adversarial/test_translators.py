"""Generators of pictures from pictures: parity with their layers in torch, modes at test, sizes. Their published counts
are in docs/public.md."""

import re

import jax
import numpy as np
import pytest

from genjax.models.adversarial import enlarger, patch, resnet_generator, unet_generator
from genjax.types import UserError


def started(network):
  """Parameters with random biases, and mutable variables."""
  params, mutable = jax.eval_shape(network.init, jax.random.key(0))
  random = np.random.default_rng(0)
  draw = lambda leaf: random.normal(0, 0.1, leaf.shape).astype(np.float32)
  return jax.tree.map(draw, params), jax.tree.map(lambda leaf: np.abs(draw(leaf)) + 0.5, mutable)


def weights(torch, layer):
  """Kernel O I H W, and bias, for torch."""
  kernel = torch.from_numpy(np.ascontiguousarray(layer['kernel'].transpose(3, 2, 0, 1)))
  return kernel, None if 'bias' not in layer else torch.from_numpy(layer['bias'])


def turned(torch, layer):
  """Kernel I O H W of a transposed convolution, rotated, and bias."""
  kernel = np.ascontiguousarray(layer['kernel'][::-1, ::-1].transpose(2, 3, 0, 1))
  return torch.from_numpy(kernel), None if 'bias' not in layer else torch.from_numpy(layer['bias'])


def nchw(x):
  return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def test_unet_equals_its_layers_in_torch_and_has_modes():
  torch = pytest.importorskip('torch')
  functional = torch.nn.functional
  net = unet_generator.UNetGenerator(source_channels=1, width=4, layers=3).generator()
  params, mutable = started(net)
  x_BHWC = np.random.default_rng(1).normal(0, 1, (2, 16, 8, 1)).astype(np.float32)

  def norm(x, place, kind):
    own = {name: torch.from_numpy(value) for name, value in params[kind][place]['norm'].items()}
    kept = {name: torch.from_numpy(value) for name, value in mutable[kind][place]['norm'].items()}
    return functional.batch_norm(x, kept['mean'], kept['var'], own['scale'], own['bias'])

  seen = [functional.conv2d(torch.from_numpy(nchw(x_BHWC)), *weights(torch, params['down']['0']), 2, 1)]
  for layer in (1, 2):
    x = functional.conv2d(functional.leaky_relu(seen[-1], 0.2), *weights(torch, params['down'][str(layer)]), 2, 1)
    seen.append(norm(x, '0', 'down_norms') if layer == 1 else x)
  x = seen.pop()
  for layer in (0, 1):
    x = functional.conv_transpose2d(functional.relu(x), *turned(torch, params['up'][str(layer)]), 2, 1)
    x = torch.cat([seen.pop(), norm(x, str(layer), 'up_norms')], 1)
  expected = torch.tanh(functional.conv_transpose2d(functional.relu(x), *turned(torch, params['out']), 2, 1))

  @jax.jit
  def modes(params, mutable, x_BHWC):
    apply = lambda **options: net.apply(params, mutable, x_BHWC, **options)[0]
    return apply(), apply(key=jax.random.key(0), batch=True, drop=False)

  running, whole = map(np.asarray, modes(params, mutable, x_BHWC))
  np.testing.assert_allclose(nchw(running), expected.numpy(), atol=2e-5)
  assert np.abs(running - whole).max() > 0.05


@pytest.mark.parametrize('layers, drop, times', [(6, True, 1), (8, True, 3), (8, False, 0)])
def test_all_but_five_layers_have_dropout(layers, drop, times):
  """Three of eight, as published; and none where it is turned off, with a key or without."""
  net = unet_generator.UNetGenerator(width=1, layers=layers).generator()
  x_BHWC = np.zeros((1, 2 ** layers, 2 ** layers, 3), np.float32)

  def drawn(key):
    return net.apply(*net.init(jax.random.key(0)), x_BHWC, key=key, drop=drop)[0]

  assert len(re.findall(r'name=_?bernoulli\b', str(jax.make_jaxpr(drawn)(jax.random.key(1))))) == times


def test_resnet_and_its_critic_equal_their_layers_in_torch():
  torch = pytest.importorskip('torch')
  functional, norm = torch.nn.functional, torch.nn.functional.instance_norm
  net = resnet_generator.ResnetGenerator(width=4, blocks=1).generator()
  critic = patch.critic(patch.Patch(width=4, layers=1, norm='instance'))
  (params, _), (judge, _) = started(net), started(critic)
  x_BHWC = np.random.default_rng(1).normal(0, 1, (2, 12, 8, 3)).astype(np.float32)
  mirrored = lambda x, layer, by: functional.conv2d(functional.pad(x, [by] * 4, 'reflect'), *weights(torch, layer))

  first = torch.from_numpy(nchw(x_BHWC))
  x = functional.relu(norm(mirrored(first, params['first'], 3)))
  for layer in ('0', '1'):
    x = functional.relu(norm(functional.conv2d(x, *weights(torch, params['down'][layer]), 2, 1)))
  convs = params['blocks']['0']['convs']
  x = x + norm(mirrored(functional.relu(norm(mirrored(x, convs['0'], 1))), convs['1'], 1))
  for layer in ('0', '1'):
    x = functional.relu(norm(functional.conv_transpose2d(x, *turned(torch, params['up'][layer]), 2, 1, 1)))
  expected = torch.tanh(mirrored(x, params['last'], 3))
  x = functional.leaky_relu(functional.conv2d(first, *weights(torch, judge['first']), 2, 1), 0.2)
  x = functional.leaky_relu(norm(functional.conv2d(x, *weights(torch, judge['stages']['0']['conv']), 1, 1)), 0.2)
  logits = functional.conv2d(x, *weights(torch, judge['last']), 1, 1)[:, 0]

  found, judged = jax.jit(lambda x: (net.apply(params, {}, x)[0], critic.apply(judge, {}, x)[0]))(x_BHWC)
  np.testing.assert_allclose(nchw(np.asarray(found)), expected.numpy(), atol=2e-5)
  np.testing.assert_allclose(judged, logits.numpy(), atol=2e-5)


def test_enlargers_grow_and_begin_near_interpolation():
  small = enlarger.Enlarger(width=4, blocks=1, factor=2).generator()
  dense = enlarger.Enlarger(width=4, blocks=1, factor=2, kind='dense', growth=4).generator()
  x_BHWC = np.random.default_rng(0).uniform(-1, 1, (1, 5, 4, 3)).astype(np.float32)

  enlarged = lambda net: lambda x: net.apply(*net.init(jax.random.key(1)), x)[0]
  found = jax.jit(enlarged(small))(x_BHWC)
  assert found.shape == jax.eval_shape(enlarged(dense), x_BHWC).shape == (1, 10, 8, 3)
  # Inside of the picture: at its edges some libraries go on otherwise
  linear = jax.image.resize(x_BHWC, found.shape, 'linear')
  assert np.abs(found - linear)[:, 1:-1, 1:-1].mean() < 0.02


def test_options_out_of_range_are_refused():
  for make, match in ((lambda: unet_generator.UNetGenerator(norm='layer'), 'norm'),
                      (lambda: enlarger.Enlarger(factor=3), 'factor'),
                      (lambda: enlarger.Enlarger(source_channels=1), 'channels')):
    with pytest.raises(UserError, match=match):
      make()
