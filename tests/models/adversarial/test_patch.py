"""The critic of patches: the published count, sizes, and norms."""

import jax
import jax.numpy as jnp
import pytest

from genjax.models.adversarial.patch import Patch, critic
from genjax.nn.functional import count
from genjax.types import UserError, named_leaves


def shapes(config, side):
  network = critic(config)
  params, mutable = jax.eval_shape(network.init, jax.random.key(0))
  image = jax.ShapeDtypeStruct((2, side, side + 5, config.channels), jnp.float32)
  return params, mutable, jax.eval_shape(lambda *given: network.apply(*given)[0], params, mutable, image)


def test_the_published_network():
  params, mutable, logits = shapes(Patch(), 256)
  assert count(params) == 2_765_633
  assert logits.shape == (2, 30, 30) and logits.dtype == jnp.float32  # 70 x 70 patches of 256 x 261 pixels
  assert count(mutable) == 2 * (128 + 256 + 512)


@pytest.mark.parametrize(('layers', 'side', 'least'), [(1, 8, 6), (2, 17, 12), (3, 64, 24)])
def test_sizes(layers, side, least):
  config = Patch(layers=layers, width=4, norm='layer')
  assert config.least == least
  _, _, logits = shapes(config, side)
  expected = [side, side + 5]
  for _ in range(layers):
    expected = [(length - 2) // 2 + 1 for length in expected]
  assert logits.shape[1:] == tuple(length - 2 for length in expected)
  assert shapes(config, least)[2].shape[1] == 1


@pytest.mark.parametrize(('norm', 'biases'), [('batch', 2), ('rms', 2), ('none', 4)])
def test_a_bias_before_a_norm_is_left_out(norm, biases):
  names = named_leaves(shapes(Patch(layers=2, width=4, norm=norm), 16)[0])
  assert len([name for name in names if name.endswith('bias') and 'norm' not in name]) == biases


@pytest.mark.parametrize(('options', 'match'), [
  (dict(norm='spectral'), 'norm must be one of'), (dict(layers=0), 'layers'), (dict(dtype='int8'), 'dtype')])
def test_bad_options(options, match):
  with pytest.raises(UserError, match=match):
    Patch(**options)
