"""Variances of batch and group norms where the mean is large."""

import jax
import numpy as np

from genjax.models.denoisers import unet
from genjax.nn import functional
from genjax.nn.norms import BatchNorm


def _far(shape):
  """Numbers of unit variance around 5,000: their squares have no digits left for the variance in float32."""
  return 5000.0 + jax.random.normal(jax.random.key(0), shape)


def _normalised(x, axes):
  x = np.asarray(x, np.float64)
  return (x - x.mean(axes, keepdims=True)) / x.std(axes, keepdims=True)


def test_batch_norm_keeps_the_variance_of_far_inputs():
  network, x = functional.network(lambda rngs: BatchNorm(3, rngs=rngs)), _far((64, 4, 4, 3))
  params, mutable = network.init(jax.random.key(0))
  y, mutable = network.apply(params, mutable, x, key=jax.random.key(1))
  np.testing.assert_allclose(y, _normalised(x, (0, 1, 2)), atol=0.01)
  variance = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(mutable) if 'var' in str(path)]
  assert len(variance) == 1
  np.testing.assert_allclose(variance[0], 1.0, atol=0.02)  # 0.9 of the first 1 and 0.1 of the batch's


def test_group_norms_of_the_unet_keep_the_variance_of_far_inputs():
  config = unet.UNet(shape=(8, 8, 1), base=8, multipliers=(1, 2), attention=(), groups=4)

  class Norm(unet.nnx.Module):
    def __init__(self, rngs):
      self.norm = unet._norm(8, config, rngs)

    def __call__(self, x, key=None):
      return self.norm(x)

  network, x = functional.network(Norm), _far((2, 8, 8, 8))
  y, _ = network.apply(*network.init(jax.random.key(0)), x)
  expected = _normalised(x.reshape(2, 64, 4, 2), (1, 3)).reshape(x.shape)
  np.testing.assert_allclose(y, expected, atol=0.01)


def test_every_norm_of_the_unet_takes_two_passes():
  network = unet._Network(unet.UNet(shape=(8, 8, 1), base=8, multipliers=(1, 2), attention=(4,), groups=4),
                          unet.nnx.Rngs(0))
  norms = [module for _, module in unet.nnx.iter_graph(network) if isinstance(module, unet.nnx.GroupNorm)]
  # Whose variance takes two passes whatever
  assert len(norms) > 10 and all(type(norm) is unet.GroupNorm for norm in norms)
