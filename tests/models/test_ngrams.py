"""Models of a window of symbols: published counts, the tree against a loop, what its normalisation is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.models.ngrams import BigramConfig, MlpConfig, WavenetConfig, ngrams
from genjax.nn.functional import count
from genjax.types import UserError

WINDOW = np.asarray([[0, 3, 1, 4], [1, 1, 2, 0]])


def random_params(config):
  network = ngrams(config)
  params, mutable = network.init(jax.random.key(0))
  generator = np.random.default_rng(0)
  params, mutable = jax.tree.map(lambda leaf: leaf + 0.3 * np.abs(generator.normal(size=leaf.shape)), (params, mutable))
  return network, params, mutable


@pytest.mark.parametrize(('config', 'published'), [(BigramConfig(27), 27 * 27), (MlpConfig(27), 12_097),
                                                   (WavenetConfig(27), 76_579)])
def test_the_notebooks_print_these_parameter_counts(config, published):
  assert count(jax.eval_shape(ngrams(config).init, jax.random.key(0))[0]) == published


def test_the_tree_is_a_loop_over_pairs():
  network, params, mutable = random_params(WavenetConfig(5, levels=2, width=3, hidden=4))
  logits, same = network.apply(params, mutable, WINDOW)
  for row, window in enumerate(WINDOW):
    nodes = [params['embedding']['embedding'][symbol] for symbol in window]
    for level in ('0', '1'):
      layer, norm = params['layers'][level], mutable['layers'][level]['norm']['norm']
      joined = []
      for left, right in zip(nodes[::2], nodes[1::2]):
        x = jnp.concatenate([left, right]) @ layer['dense']['kernel']
        x = (x - norm['mean']) / jnp.sqrt(norm['var'] + 1e-5)
        joined.append(jnp.tanh(x * layer['norm']['norm']['scale'] + layer['norm']['norm']['bias']))
      nodes = joined
    (root,) = nodes
    np.testing.assert_allclose(logits[row], root @ params['out']['kernel'] + params['out']['bias'], rtol=2e-5)
  assert jax.tree.all(jax.tree.map(jnp.array_equal, mutable, same)), 'running averages stand still without a key'


def test_training_normalises_by_all_rows_and_places():
  """Statistics over both axes are what the notebook calls the fixed batch norm."""
  network, params, mutable = random_params(WavenetConfig(5, levels=2, width=3, hidden=4, momentum=0.75))
  _, after = network.apply(params, mutable, WINDOW, key=jax.random.key(0))
  x_BKD = params['embedding']['embedding'][WINDOW].reshape(4, 6) @ params['layers']['0']['dense']['kernel']
  before, after = (tree['layers']['0']['norm']['norm'] for tree in (mutable, after))
  np.testing.assert_allclose(after['mean'], 0.75 * before['mean'] + 0.25 * x_BKD.mean(axis=0), rtol=1e-5)
  np.testing.assert_allclose(after['var'], 0.75 * before['var'] + 0.25 * x_BKD.var(axis=0), rtol=1e-5)


def test_a_bigram_reads_the_last_symbol():
  network, params, mutable = random_params(BigramConfig(5))
  np.testing.assert_array_equal(network.apply(params, mutable, WINDOW[:, -1:])[0],
                                params['logits']['embedding'][np.asarray([4, 0])])


def test_without_a_norm_there_is_a_bias():
  params, mutable = jax.eval_shape(ngrams(MlpConfig(5, momentum=0.0)).init, jax.random.key(0))
  assert set(params['layers']['0']) == {'dense'} and 'bias' in params['layers']['0']['dense'] and not mutable


def test_logits_are_float32():
  network, params, mutable = random_params(MlpConfig(5, window=4, dtype='bfloat16'))
  logits = network.apply(params, mutable, WINDOW)[0]
  exact = ngrams(MlpConfig(5, window=4)).apply(params, mutable, WINDOW)[0]
  assert logits.dtype == jnp.float32
  np.testing.assert_allclose(logits, exact, atol=0.05 * float(jnp.abs(exact).max()))


@pytest.mark.parametrize(('make', 'words'), [
  (lambda: MlpConfig(5, window=0), 'window'), (lambda: WavenetConfig(5, levels=0), 'levels'),
  (lambda: MlpConfig(5, momentum=1.0), 'momentum'), (lambda: WavenetConfig(5, dtype='int8'), 'dtype')])
def test_bad_options_are_refused(make, words):
  with pytest.raises(UserError, match=words):
    make()
