"""The LSTM encoder-decoder: a cell by hand, padding of the source, its cache, published sizes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.models.recurrent import LstmConfig, lstm, start_cache
from genjax.nn.functional import count
from genjax.types import UserError

CONFIGS = {'one-hot': LstmConfig(7, 5, hidden=6), 'learned': LstmConfig(7, hidden=6, embedding=3)}
SOURCE, TARGET = np.asarray([[1, 2, 3, 4], [6, 5, 0, 0]]), np.asarray([[1, 2, 4], [3, 0, 2]])
MASK = np.asarray([[1, 1, 1, 1], [1, 1, 0, 0]], np.float32)


@functools.cache
def fixture(name):
  network = lstm(CONFIGS[name])
  params, mutable = jax.jit(network.init)(jax.random.key(0))
  generator = np.random.default_rng(0)
  params = jax.tree.map(lambda leaf: np.float32(leaf + 0.3 * generator.normal(size=leaf.shape)), params)
  return network, params, mutable


def run(params, x_TI):
  """The equations of Gers et al. 2000, one vector after the other; returns all outputs and the last cell."""
  sigmoid = lambda x: 1 / (1 + np.exp(-x))
  hidden = params['recurrent_kernel'].shape[0]
  output, cell, outputs = np.zeros(hidden), np.zeros(hidden), []
  for x in np.asarray(x_TI, np.float64):
    gates = x @ params['input_kernel'] + output @ params['recurrent_kernel'] + params['bias']
    enter, keep, new, show = np.split(np.asarray(gates, np.float64), 4)
    cell = sigmoid(keep) * cell + sigmoid(enter) * np.tanh(new)
    output = sigmoid(show) * np.tanh(cell)
    outputs.append(output)
  return np.stack(outputs), cell


def test_an_encoder_is_its_equations():
  _, params, _ = fixture('one-hot')
  cache = start_cache(CONFIGS['one-hot'], params, SOURCE, MASK, 3)
  for row, tokens in enumerate(([1, 2, 3, 4], [6, 5])):
    outputs, cell = run(params['encoder']['lstm'], np.eye(7)[tokens])
    np.testing.assert_allclose(cache['cell'][row, 0, 0], cell, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(cache['output'][row, 0, 0], outputs[-1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('name', CONFIGS)
def test_a_cache_gives_what_teacher_forcing_gives(name):
  network, params, mutable = fixture(name)
  whole_BTV, _ = network.apply(params, mutable, SOURCE, TARGET, MASK)
  assert whole_BTV.shape == (2, 3, CONFIGS[name].outputs) and whole_BTV.dtype == jnp.float32
  cache = start_cache(CONFIGS[name], params, SOURCE, MASK, 3)
  for place in range(3):
    (logits_B1V, cache), _ = network.apply(params, mutable, None, TARGET[:, place:place + 1], cache=cache,
                                           position=place)
    np.testing.assert_allclose(logits_B1V[:, 0], whole_BTV[:, place], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('name', CONFIGS)
def test_padding_of_the_source_is_not_read_and_the_rest_is(name):
  network, params, mutable = fixture(name)
  before = network.apply(params, mutable, SOURCE, TARGET, MASK)[0]
  np.testing.assert_array_equal(before, network.apply(params, mutable, np.where(MASK, SOURCE, 3), TARGET, MASK)[0])
  moved = np.asarray([[1, 2, 3, 4], [0, 0, 6, 5]])  # padding first
  after = network.apply(params, mutable, moved, TARGET, np.asarray([[1, 1, 1, 1], [0, 0, 1, 1]]))[0]
  np.testing.assert_allclose(before, after, rtol=1e-5, atol=1e-6)
  changed = network.apply(params, mutable, np.where(SOURCE == 2, 5, SOURCE), TARGET, MASK)[0]
  assert np.abs(np.asarray(before - changed))[0].max(axis=1).min() > 1e-4
  np.testing.assert_array_equal(before[1], changed[1])


def test_factors_of_the_logits():
  network, params, mutable = fixture('one-hot')
  (hidden, weight), _ = network.apply(params, mutable, SOURCE, TARGET, MASK, project=False)
  np.testing.assert_allclose(hidden @ weight.T, network.apply(params, mutable, SOURCE, TARGET, MASK)[0], rtol=1e-5,
                             atol=1e-6)


def test_parameter_count_of_flax_example():
  """Two LSTMs on 15 letters with 512 units, and a dense layer."""
  cell = 4 * 512 * (15 + 512 + 1)
  assert count(jax.eval_shape(lstm(LstmConfig(15)).init, jax.random.key(0))[0]) == 2 * cell + 15 * 512 + 15


def test_bfloat16_keeps_cells_and_logits():
  config = LstmConfig(7, 5, hidden=6, dtype='bfloat16')
  _, params, mutable = fixture('one-hot')
  exact = lstm(CONFIGS['one-hot']).apply(params, mutable, SOURCE, TARGET, MASK)[0]
  logits = lstm(config).apply(params, mutable, SOURCE, TARGET, MASK)[0]
  assert logits.dtype == start_cache(config, params, SOURCE, MASK, 3)['cell'].dtype == jnp.float32
  np.testing.assert_allclose(logits, exact, atol=0.05)


def test_bad_options_are_refused():
  with pytest.raises(UserError, match='hidden'):
    LstmConfig(7, hidden=0)
  with pytest.raises(UserError, match='embedding'):
    LstmConfig(7, embedding=-1)
