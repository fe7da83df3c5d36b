"""PixArt: published counts, what it reads, its layout on a mesh; options of DiT that public files need."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.interop import mapping, weights
from genjax.models.denoisers import dit, pixart
from genjax.nn.embeddings import sincos_positions
from genjax.types import UserError, named_leaves

# Counted with diffusers 0.42.1 from the published configs; of 'DiT' with its code, which holds the fixed positions.
PUBLIC = {
  'pixart_alpha_512': ('PixArtTransformer2DModel', 610_856_096),
  'pixart_alpha_1024': ('PixArtTransformer2DModel', 611_349_152),
  'pixart_sigma_1024': ('PixArtTransformer2DModel', 610_856_096),
  'DiT-XL/2 of diffusers': ('DiTTransformer2DModel', 749_826_464),
  'DiT-XL/2': ('DiT', 675_129_632)}
SMALL = dict(shape=(6, 4, 3), width=24, depth=2, heads=3, token_width=10, numbers=3)


def config_of(name):
  if name in pixart.VARIANTS:
    return pixart.PixArt(**pixart.VARIANTS[name])
  more = dict(frequency_shift=1, mlp_epsilon=1e-5, span=16.0) if name.endswith('diffusers') else {}
  return dit.DiT(shape=(32, 32, 4), num_classes=1000, learn_sigma=True, **dit.SIZES['XL'], **more)


def shapes(network):
  return jax.eval_shape(network.init, jax.random.key(0))[0]


@pytest.mark.parametrize('name', PUBLIC)
def test_public_counts(name):
  config, (kind, wanted) = config_of(name), PUBLIC[name]
  assert set(pixart.VARIANTS) < set(PUBLIC) and weights.architecture_of(config) == kind
  architecture = weights.ARCHITECTURES[kind]
  rows = mapping.rows(architecture, config, named_leaves(shapes(architecture.network(config))))
  sizes = {tensor: row.size for row in rows for tensor in row.names}
  stored = [sizes[of] for of in architecture.copies(config).values()] + [
    array.size for array in architecture.constants(config).values()]
  assert sum(sizes.values()) + sum(stored) == wanted


def filled(network):
  """Parameters without zeros, so that everything has an effect."""
  generator = np.random.default_rng(0)
  return jax.tree.map(lambda leaf: 0.3 * generator.standard_normal(leaf.shape, np.float32), shapes(network))


def told(**more):
  generator = np.random.default_rng(1)
  return {'tokens': generator.standard_normal((2, 5, 10), np.float32), 'tokens_mask': np.array([[1] * 5, [1, 1, 0, 0,
                                                                                                        0]]),
          'numbers': np.array([[512, 640, 0.8], [1024, 1024, 1]], np.float32), **more}


def test_a_fresh_network_predicts_zero_and_everything_told_matters():
  network = pixart.network(pixart.PixArt(**SMALL))
  params, x_BHWC = filled(network), np.random.default_rng(2).standard_normal((2, 6, 4, 3), np.float32)
  apply = jax.jit(lambda params, time_B, given: network.apply(params, {}, x_BHWC, time_B, given)[0])
  time_B = np.array([10.0, 900.0], np.float32)
  base = apply(params, time_B, told())
  assert base.shape == (2, 6, 4, 6)
  assert not np.any(apply(jax.jit(network.init)(jax.random.key(0))[0], time_B, told()))
  for changed in (told(numbers=told()['numbers'] + np.array([0, 9, 0], np.float32)), told(tokens=2 * told()['tokens'])):
    assert np.abs(apply(params, time_B, changed) - base).max(axis=(1, 2, 3)).min() > 1e-4
  assert np.abs(apply(params, time_B + 50, told()) - base).max(axis=(1, 2, 3)).min() > 1e-4
  two = pixart.network(pixart.PixArt(**SMALL | dict(numbers=2)))
  sizes = told(numbers=told()['numbers'][:, :2])  # height / width is computed
  np.testing.assert_allclose(jax.jit(two.apply)(params, {}, x_BHWC, time_B, sizes)[0], base, atol=1e-5)
  padding = np.array(told()['tokens'])
  padding[1, 2:] = 7.0
  np.testing.assert_array_equal(apply(params, time_B, told(tokens=padding)), base)


def test_scan_equals_unrolled_and_rematerialised():
  values = []
  for options in ({}, dict(unroll=True), dict(remat='full')):
    network = pixart.network(pixart.PixArt(**SMALL, **options))
    x_BHWC, time_B = np.ones((2, 6, 4, 3), np.float32), np.array([3.0, 700.0], np.float32)
    value = jax.value_and_grad(lambda params: jnp.sum(network.apply(params, {}, x_BHWC, time_B, told())[0] ** 2))
    values.append(jax.jit(value)(filled(network)))
  largest = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(values[0][1]))
  for other in values[1:]:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-4 * largest), values[0], other)


@pytest.mark.parametrize('options', [
  {}, dict(numbers=0), dict(project=False), dict(token_width=0, vocabulary=9, text_width=8)])
def test_every_large_parameter_has_axes(options):
  config = pixart.PixArt(**SMALL | options)
  table, leaves = pixart.axes(config), named_leaves(shapes(pixart.network(config)))
  found = {path: next((logical for pattern, logical in table if re.fullmatch(pattern, path)), None) for path in leaves}
  assert all(logical is None or len(logical) == leaves[path].ndim for path, logical in found.items())
  assert [pattern for pattern, _ in table if not any(re.fullmatch(pattern, path) for path in leaves)] == []
  assert all(found[path] for path in leaves if path.endswith('kernel'))


@pytest.mark.parametrize('options, message', [
  (dict(token_width=0), 'attends to a text'), (dict(tokens_enter='context'), 'attends to a text'),
  (dict(numbers=1), 'numbers must be 0, 2'), (dict(vector_width=4), 'reads no vector'),
  (dict(width=20, heads=2), 'multiple of 3'), (dict(block='other'), 'block')])
def test_options_that_do_not_fit(options, message):
  with pytest.raises(UserError, match=message):
    pixart.PixArt(**SMALL | options)


def test_tokens_in_context_are_projected():
  with pytest.raises(UserError, match='project must be True'):
    dit.DiT((4, 4, 1), width=8, depth=1, heads=2, token_width=4, tokens_enter='context', project=False)


def test_positions_of_any_size_reach_over_a_span():
  np.testing.assert_array_equal(sincos_positions(4, 6, 8, 0.0), sincos_positions(4, 6, 8))
  stretched, whole = sincos_positions(8, 12, 8, 4.0), sincos_positions(4, 4, 8)
  np.testing.assert_allclose(stretched[2 * 12 + 6], whole[1 * 4 + 2], rtol=1e-6)


def test_counts_are_those_of_shapes():
  config = pixart.PixArt(**SMALL)
  total = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes(pixart.network(config))))
  tables = 2 * 6 * 24 + 2 * 24  # two blocks and the head
  sizes = 2 * (256 * 8 + 8 + 8 * 8 + 8)
  plain = dit.DiT(**SMALL | dict(numbers=0, learn_sigma=True))
  layers = 2 * (24 * 144 + 144) + 24 * 48 + 48  # the modulations of a DiT
  of_dit = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes(dit.network(plain))))
  assert total == of_dit - layers + 24 * 144 + 144 + tables + sizes
