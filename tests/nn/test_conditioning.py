"""What networks read of conditions: checks, added vectors and numbers, tokens and the learned text encoder."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import sharding
from genjax.nn import conditioning
from genjax.nn.conditioning import Reads
from genjax.nn.functional import count, network
from genjax.types import UserError

ALL = Reads(num_classes=3, vector_width=5, numbers=2, number_features=8, token_width=6, image_channels=2, vocabulary=11,
            text_length=7, text_width=6, text_depth=2, text_heads=2)
SHAPE = (2, 4, 4)


def _given(**changes):
  draw = lambda index, *shape: jax.random.normal(jax.random.key(index), shape)
  return {'label': jnp.array([0, 3]), 'vector': draw(0, 2, 5), 'numbers': jnp.array([[3.0, 800.0], [20.0, 0.5]]),
          'tokens': draw(1, 2, 4, 6), 'tokens_mask': jnp.array([[1, 1, 0, 0], [1, 1, 1, 1]]),
          'ids': jnp.array([[1, 2, 3], [4, 5, 0]]), 'ids_mask': jnp.array([[1, 1, 1], [1, 1, 0]]),
          'image': draw(2, 2, 4, 4, 2), **changes}


def _random(net):
  """Parameters none of which is zero, and the compiled network."""
  generator = np.random.default_rng(0)
  shapes, _ = jax.eval_shape(net.init, jax.random.key(0))
  params = jax.tree.map(lambda leaf: 0.5 * generator.standard_normal(leaf.shape, np.float32), shapes)
  return params, jax.jit(lambda params, *inputs: net.apply(params, {}, *inputs)[0])


def test_a_network_is_told_what_it_reads():
  assert set(ALL.check(_given(), SHAPE)) == set(_given())
  assert Reads().check(None, SHAPE) == Reads().check({}, SHAPE) == {}
  without_masks = {name: value for name, value in _given().items() if 'mask' not in name}
  assert set(ALL.check(without_masks, SHAPE)) == set(without_masks)
  residuals = {'residuals': ()}
  assert Reads().check(residuals, SHAPE, ('residuals',)) == residuals


@pytest.mark.parametrize('reads, changes, match', [
  (Reads(), {'label': jnp.zeros(2)}, r"is told \['label'\], which it does not read: it reads no conditions"),
  (Reads(num_classes=3), {}, r"is not told \['label'\]: it reads \['label'\]"),
  (Reads(num_classes=3), {'label': jnp.zeros(2), 'tokens': jnp.zeros((2, 3, 4))}, r"is told \['tokens'\]"),
  (Reads(num_classes=3), {'label': jnp.zeros(2), 'tokens_mask': jnp.zeros((2, 3))}, r"is told \['tokens_mask'\]"),
  (Reads(), {'residuals': ()}, r"is told \['residuals'\]"),
  (Reads(num_classes=3), {'label': jnp.zeros((2, 1))}, r"'label' of shape \(2,\), got \(2, 1\)"),
  (Reads(token_width=6), {'tokens': jnp.zeros((2, 3, 4))}, r"'tokens' of shape \(2, 'L', 6\), got \(2, 3, 4\)"),
  (Reads(token_width=4), {'tokens': jnp.zeros((2, 3, 4)), 'tokens_mask': jnp.zeros((2, 4))}, "'tokens_mask' must have"),
  (Reads(image_channels=1), {'image': jnp.zeros((2, 8, 8, 1))}, r"'image' of shape \(2, 4, 4, 1\), got \(2, 8, 8, 1\)"),
  (Reads(vocabulary=5, text_length=2), {'ids': jnp.zeros((2, 3), int)}, 'up to text_length=2 tokens, got 3'),
  (Reads(num_classes=3), jnp.zeros(2), 'conditions are a mapping')])
def test_what_it_does_not_read_is_refused(reads, changes, match):
  with pytest.raises(UserError, match=match):
    reads.check(changes, SHAPE)


@pytest.mark.parametrize('options, match', [
  (dict(token_width=-1), 'token_width'), (dict(number_features=7), 'number_features must be even'),
  (dict(vocabulary=5, text_width=8, token_width=6), r'text_width must be token_width \(6\)'),
  (dict(text_width=10, text_heads=4), 'text_width .10. must be a multiple of text_heads')])
def test_options_out_of_range(options, match):
  with pytest.raises(UserError, match=match):
    Reads(**options)


def test_numbers_are_fourier_features_behind_the_vector():
  net = network(lambda rngs: conditioning.Added(ALL, 16, rngs=rngs))
  params, apply = _random(net)
  given = _given()
  frequency = 10_000.0 ** (-np.arange(4) / 4)
  features = [np.concatenate([np.cos(number * frequency), np.sin(number * frequency)], -1)
              for number in np.asarray(given['numbers']).T[..., None]]
  inputs = np.concatenate([given['vector'], *features], axis=-1)
  layer = lambda name, x: x @ params[name]['kernel'] + params[name]['bias']
  hidden = layer('up', inputs)
  np.testing.assert_allclose(apply(params, given), layer('down', hidden / (1 + np.exp(-hidden))), rtol=1e-3, atol=1e-3)
  assert conditioning.added(Reads(num_classes=3), 16) is None


def _tokens(width=0, **changes):
  options = dataclasses.replace(ALL, **changes)
  return network(lambda rngs: conditioning.Tokens(options, width, rngs=rngs))


def test_given_tokens_and_those_of_the_text_encoder_are_joined():
  params, apply = _random(_tokens())
  tokens_BLE, mask_BL = apply(params, _given())
  assert tokens_BLE.shape == (2, 7, 6)
  np.testing.assert_array_equal(mask_BL, [[1, 1, 0, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1, 0]])
  np.testing.assert_array_equal(tokens_BLE[1, :4], _given()['tokens'][1])
  assert (np.asarray(tokens_BLE)[~np.asarray(mask_BL)] == 0).all()
  no_masks = {name: value for name, value in _given().items() if 'mask' not in name}
  assert apply(params, no_masks)[1] is None
  projected, _ = jax.eval_shape(lambda key: _tokens(16).apply(_tokens(16).init(key)[0], {}, _given())[0],
                                jax.random.key(0))
  assert projected.shape == (2, 7, 16)


@pytest.mark.parametrize('width', [0, 8])
def test_padding_changes_no_token(width):
  params, apply = _random(_tokens(width))
  base, _ = apply(params, _given())
  changed = _given(ids=jnp.array([[1, 2, 3], [4, 5, 9]]), tokens=_given()['tokens'].at[0, 2:].set(jnp.nan))
  np.testing.assert_array_equal(base, apply(params, changed)[0])
  # A text is the same with more padding.
  padded = _given(**{name: jnp.pad(_given()[name], ((0, 0), (0, 2))) for name in ('ids', 'ids_mask')})
  np.testing.assert_allclose(apply(params, padded)[0][:, :7], base, atol=1e-5)
  # Each id and each position matters.
  for ids in ([[2, 1, 3], [4, 5, 0]], [[1, 2, 4], [4, 5, 0]]):
    assert not np.allclose(apply(params, _given(ids=jnp.array(ids)))[0][0], base[0])


def test_rows_without_tokens_are_zeros_that_attention_sees():
  params, apply = _random(_tokens())
  empty = _given(tokens_mask=jnp.zeros((2, 4), int), ids_mask=jnp.array([[0, 0, 0], [1, 0, 0]]))
  tokens_BLE, mask_BL = apply(params, empty)
  assert (tokens_BLE[0] == 0).all() and jnp.isfinite(tokens_BLE).all()
  np.testing.assert_array_equal(conditioning.visible(mask_BL), [[1] * 7, [0, 0, 0, 0, 1, 0, 0]])


def test_parameters_of_the_text_encoder_and_their_layout():
  net = _tokens(8)
  params, _ = jax.eval_shape(net.init, jax.random.key(0))
  block = 4 * (6 * 6 + 6) + 6 * 24 + 24 + 24 * 6 + 6 + 2 * 2 * 6
  assert count(params['text']) == 11 * 6 + 7 * 6 + 2 * block + 2 * 6
  assert count(params) == count(params['text']) + 6 * 8 + 8 + 8 * 8 + 8
  added, _ = jax.eval_shape(network(lambda rngs: conditioning.Added(ALL, 16, rngs=rngs)).init, jax.random.key(0))
  tree = {'in': {'added': added, 'tokens': params}}
  table = conditioning.axes(ALL, 'in/', tokens=True)
  sharding.param_shardings(tree, sharding.make_mesh({'data': -1}), table)  # every row matches
  assert conditioning.axes(Reads(num_classes=3), 'in/', tokens=True) == ()
