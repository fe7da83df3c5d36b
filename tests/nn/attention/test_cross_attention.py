"""Attention to a memory: against self-attention's formula, padding, cache."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.nn.attention.cross_attention import CrossAttention
from genjax.nn.attention.self_attention import Attention


def random(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


def test_of_a_sequence_to_itself_is_self_attention():
  one, other = Attention(16, 4, rngs=nnx.Rngs(0)), CrossAttention(16, 4, rngs=nnx.Rngs(0))
  x_BTD = random(1, 2, 7, 16)
  np.testing.assert_allclose(other(x_BTD, other.project(x_BTD)), one(x_BTD), atol=1e-6)


@pytest.mark.parametrize('cached', [False, True])
@pytest.mark.parametrize('scaled', [False, True])
def test_padding_is_as_if_it_were_not_there(cached, scaled):
  module = CrossAttention(12, 3, head_dim=5, scaled=scaled, rngs=nnx.Rngs(0))
  x_BTD, memory_BSD = random(1, 2, 4, 12), random(2, 2, 6, 12)
  visible_BS = jnp.asarray([[0, 0, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])
  y = module(x_BTD, module.project(memory_BSD), visible_BS=visible_BS, cached=cached)
  for row, seen in enumerate((slice(2, 6), slice(0, 3))):
    alone = module(x_BTD[row:row + 1], module.project(memory_BSD[row:row + 1, seen]))
    np.testing.assert_allclose(y[row], alone[0], atol=1e-6)


@pytest.mark.parametrize('kind', [Attention, CrossAttention])
def test_without_scaling_scores_are_the_bare_products(kind):
  """The fresh query kernel is smaller by sqrt(head_dim), so that fresh outputs are the same; the scores grow with the
  kernel."""
  plain, bare = (kind(16, 4, scaled=scaled, rngs=nnx.Rngs(0)) for scaled in (True, False))
  x_BTD = random(1, 2, 5, 16)
  memory = (plain.project(x_BTD),) if kind is CrossAttention else ()
  np.testing.assert_allclose(plain.query.kernel[...] / 2, bare.query.kernel[...], rtol=1e-6)
  np.testing.assert_allclose(bare(x_BTD, *memory), plain(x_BTD, *memory), atol=1e-6)


def test_segments_of_self_attention():
  module = Attention(16, 4, causal=True, rngs=nnx.Rngs(0))
  x_BTD = random(1, 1, 7, 16)
  y_BTD = module(x_BTD, segments_BT=jnp.asarray([[0, 0, 0, 4, 4, 4, 4]]))
  np.testing.assert_allclose(y_BTD[:, 3:], module(x_BTD[:, 3:]), atol=1e-6)
  with pytest.raises(ValueError, match='segments and masks need attention without'):
    module(x_BTD, segments_BT=jnp.zeros((1, 7), int), layer=(jnp.zeros((1, 4, 9, 4)),) * 2, position=0)
