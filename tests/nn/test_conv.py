"""Convolutions against jax.lax and torch, spectral normalisation against numpy, batch normalisation by its
definition."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.nn import cpu_convolutions
from genjax.nn.conv import Conv, ConvTranspose, Dense, conv, conv_transpose
from genjax.nn.functional import network
from genjax.nn.norms import BatchNorm


@pytest.mark.parametrize(('stride', 'size'), [(2, 4), (2, 2), (2, 6), (3, 6), (1, 3)])
def test_transposed_convolution_equals_lax(stride, size):
  """Forward and both gradients, on an image that is not square."""
  x = jax.random.normal(jax.random.key(0), (2, 5, 4, 3))
  kernel = jax.random.normal(jax.random.key(1), (size, size, 3, 2))

  def run(function):
    weights = jnp.sin(jnp.arange(2 * 5 * 4 * stride**2 * 2.0)).reshape(2, 5 * stride, 4 * stride, 2)
    return jax.value_and_grad(lambda x, kernel: jnp.sum(weights * function(x, kernel)**2), (0, 1))(x, kernel)

  ours = run(lambda x, kernel: conv_transpose(x, kernel, stride))
  reference = run(lambda x, kernel: jax.lax.conv_transpose(x, kernel, (stride, stride), 'SAME'))
  for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(reference)):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(('size', 'stride', 'inputs', 'shape'),
                         [(3, 1, 17, (5, 6)), (4, 2, 18, (6, 8)), (4, 2, 3, (6, 8)), (3, 2, 17, (6, 5)),
                          (5, 1, 2, (4, 4)), (1, 1, 5, (3, 4)), (6, 3, 16, (6, 9)), (4, 4, 16, (8, 4)),])
def test_products_equal_the_convolutions_of_lax(size, stride, inputs, shape):
  """Values, gradients, and the gradient of a gradient's norm, in each of the two directions."""
  x = jax.random.normal(jax.random.key(0), (2, *shape, inputs))
  kernel = jax.random.normal(jax.random.key(1), (size, size, inputs, 4)) / size

  def lax(x, kernel, stride):
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))

  def everything(function):
    def energy(x, kernel):
      return jnp.sum(jnp.sin(function(x, kernel)))

    def penalty(x, kernel):
      return sum(jnp.sum(slope ** 2) for slope in jax.grad(energy, (0, 1))(x, kernel))

    return jax.jit(lambda: (function(x, kernel), jax.grad(energy, (0, 1))(x, kernel), jax.grad(penalty, (0, 1))
                            (x, kernel)))()

  ours = everything(lambda x, kernel: cpu_convolutions.conv(x, kernel, stride))
  reference = everything(lambda x, kernel: lax(x, kernel, stride))
  for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(reference)):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * max(1.0, float(jnp.abs(b).max())))


@pytest.mark.parametrize('size', [3, 5])
def test_transposed_convolution_with_odd_kernels(size):
  """Values and gradients are those of jax.lax, whose definition needs no multiple of the stride."""
  random = np.random.default_rng(size)
  x, kernel = (jnp.asarray(random.normal(size=shape), jnp.float32) for shape in ((2, 4, 5, 3), (size, size, 3, 2)))

  def everything(function):
    energy = lambda x, kernel: jnp.sum(jnp.sin(function(x, kernel)))
    return jax.jit(lambda: (function(x, kernel), jax.grad(energy, (0, 1))(x, kernel)))()

  reference = everything(lambda x, kernel: jax.lax.conv_transpose(x, kernel, (2, 2), 'SAME'))
  for a, b in zip(jax.tree.leaves(everything(conv_transpose)), jax.tree.leaves(reference), strict=True):
    assert a.shape == b.shape
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_parity_with_torch():
  """Conv2d(4, 2, 1) as it is, ConvTranspose2d(4, 2, 1) with its kernel turned by 180 degrees."""
  torch = pytest.importorskip('torch')
  x = np.random.default_rng(0).normal(size=(2, 6, 8, 3)).astype(np.float32)
  kernel = np.random.default_rng(1).normal(size=(4, 4, 3, 5)).astype(np.float32)
  image = torch.tensor(x.transpose(0, 3, 1, 2))
  down = torch.nn.functional.conv2d(image, torch.tensor(kernel.transpose(3, 2, 0, 1)), stride=2, padding=1)
  up = torch.nn.functional.conv_transpose2d(image, torch.tensor(kernel[::-1, ::-1].transpose(2, 3, 0, 1).copy()),
                                            stride=2, padding=1)
  np.testing.assert_allclose(conv(jnp.asarray(x), jnp.asarray(kernel), 2),
                             down.numpy().transpose(0, 2, 3, 1), atol=1e-4)
  np.testing.assert_allclose(conv_transpose(jnp.asarray(x), jnp.asarray(kernel), 2),
                             up.numpy().transpose(0, 2, 3, 1), atol=1e-4)


@pytest.mark.parametrize(('build', 'shape'), [
  (lambda rngs: Dense(12, 7, spectral=True, rngs=rngs), (1, 12)),
  (lambda rngs: Conv(3, 5, 4, 2, spectral=True, rngs=rngs), (1, 8, 8, 3)),
])
def test_spectral_norm_becomes_one(build, shape):
  """After training calls the normalised kernel has spectral norm 1; calls without a key change nothing."""
  layer = network(build)
  params, mutable = layer.init(jax.random.key(0))
  assert set(params) == {'kernel', 'bias'} and set(mutable) == {'spectral'}
  x = jax.random.normal(jax.random.key(1), shape)
  step = jax.jit(lambda mutable: layer.apply(params, mutable, x, key=jax.random.key(2)))
  for _ in range(200):
    _, mutable = step(mutable)
  output, same = layer.apply(params, mutable, x)
  np.testing.assert_array_equal(same['spectral']['u'], mutable['spectral']['u'])
  kernel = np.asarray(params['kernel'])
  norm = np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]), compute_uv=False)[0]
  assert norm > 1.05 or norm < 0.95  # otherwise this test shows nothing
  reference = x @ (kernel / norm) if kernel.ndim == 2 else conv(x, kernel / norm, 2)
  np.testing.assert_allclose(output, reference, rtol=1e-4, atol=1e-5)


def test_spectral_norm_gradient_is_orthogonal_to_scale():
  """The output does not depend on the scale of the kernel, so the gradient along the kernel vanishes."""
  layer = network(lambda rngs: Dense(6, 4, spectral=True, rngs=rngs))
  params, mutable = layer.init(jax.random.key(0))
  x = jax.random.normal(jax.random.key(1), (3, 6))
  gradient = jax.grad(lambda params: jnp.sum(layer.apply(params, mutable, x)[0]**2))(params)
  assert jnp.linalg.norm(gradient['kernel']) > 0.1
  np.testing.assert_allclose(jnp.vdot(gradient['kernel'], params['kernel']), 0.0, atol=1e-4)


def test_batch_norm_uses_the_batch_in_training_and_averages_otherwise():
  layer = network(lambda rngs: BatchNorm(3, rngs=rngs))
  params, mutable = layer.init(jax.random.key(0))
  x = 5.0 + 2.0 * jax.random.normal(jax.random.key(1), (64, 4, 4, 3))
  training, moved = layer.apply(params, mutable, x, key=jax.random.key(2))
  np.testing.assert_allclose(jnp.mean(training, (0, 1, 2)), 0.0, atol=1e-5)
  np.testing.assert_allclose(jnp.var(training, (0, 1, 2)), 1.0, atol=1e-3)
  np.testing.assert_allclose(moved['norm']['mean'], 0.1 * jnp.mean(x, (0, 1, 2)), rtol=1e-5)
  inference, kept = layer.apply(params, mutable, x)
  np.testing.assert_allclose(inference, x, rtol=1e-4)  # fresh averages: mean 0, variance 1
  np.testing.assert_array_equal(kept['norm']['mean'], mutable['norm']['mean'])


def test_half_precision_keeps_parameters_in_single():
  for build in (lambda rngs: ConvTranspose(3, 4, dtype=jnp.bfloat16, rngs=rngs),
                lambda rngs: Conv(3, 4, spectral=True, dtype=jnp.bfloat16, rngs=rngs)):
    layer = network(build)
    params, mutable = layer.init(jax.random.key(0))
    output, mutable = layer.apply(params, mutable, jnp.ones((1, 4, 4, 3)), key=jax.random.key(1))
    assert output.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves((params, mutable))} == {jnp.dtype(jnp.float32)}


def test_layers_are_modules_without_hidden_randomness():
  """A constructed layer holds arrays only, so that a network is its parameters."""
  layer = Conv(1, 2, rngs=nnx.Rngs(0), spectral=True)
  assert not [leaf for leaf in jax.tree.leaves(nnx.state(layer)) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)]
