"""BERT: published sizes, padding, heads."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import sharding
from genjax.models.transformers.bert import AXES, MASKED_LM_AXES, BertConfig, bert, encoder
from genjax.nn.functional import count
from genjax.types import UserError

SMALL = BertConfig(vocab=23, context=12, layers=2, heads=3, width=12, mlp_width=20, masked_lm=True, next_sentence=True,
                   classes=4)


def shapes(config):
  return jax.eval_shape(encoder(config).init, jax.random.key(0))[0]


@pytest.fixture(scope='module')
def model():
  params, mutable = encoder(SMALL).init(jax.random.key(0))
  leaves, structure = jax.tree.flatten(params)
  noise = [leaf + 0.3 * jax.random.normal(jax.random.key(number), leaf.shape) for number, leaf in enumerate(leaves)]
  tokens_BT = jax.random.randint(jax.random.key(1), (2, 10), 0, 23)
  apply = jax.jit(encoder(SMALL).apply, static_argnames='project')
  return apply, jax.tree.unflatten(structure, noise), mutable, tokens_BT


@pytest.mark.parametrize(
  ('size', 'options', 'published'),
  [
    # Devlin et al. 2018 and Turc et al. 2019, counted from the published models, with the pooler.
    ('tiny', {}, 4_385_920),
    ('mini', {}, 11_170_560),
    ('small', {}, 28_763_648),
    ('medium', {}, 41_373_184),
    ('base', {}, 109_482_240),
    ('large', {}, 335_141_888),
    ('base', {'masked_lm': True, 'next_sentence': True}, 110_106_428),
  ])
def test_published_parameter_counts(size, options, published):
  assert count(shapes(bert(size, **options))) == published


@pytest.mark.parametrize('padding', ['left', 'right'])
def test_padding_changes_nothing_that_is_read(padding, model):
  """What stands on padding is not seen; positions are part of a token, so the tokens stay where they are."""
  apply, params, mutable, tokens_BT = model
  mask_BT = jnp.ones((2, 10), int).at[1, slice(0, 3) if padding == 'left' else slice(7, 10)].set(0)
  other_BT = jnp.where(mask_BT, tokens_BT, (tokens_BT + 5) % 23)
  outputs, changed = (apply(params, mutable, tokens, mask_BT=mask_BT)[0] for tokens in (tokens_BT, other_BT))
  np.testing.assert_array_equal(outputs['tokens'][mask_BT == 1], changed['tokens'][mask_BT == 1])
  unmasked = apply(params, mutable, tokens_BT)[0]['tokens']
  np.testing.assert_allclose(outputs['tokens'][0], unmasked[0], atol=1e-5)
  assert np.abs(outputs['tokens'][1][mask_BT[1] == 1] - unmasked[1][mask_BT[1] == 1]).max() > 1e-3


def test_every_token_sees_every_other(model):
  apply, params, mutable, tokens_BT = model
  slope = jax.jacobian(lambda x: apply({**params, 'embedding': {**params['embedding'], 'position': {'embedding': x}}},
                                       mutable, tokens_BT[:1, :4])[0]['hidden'][0, :, 0])(
                                         params['embedding']['position']['embedding'])
  assert np.abs(slope[:, :4]).max(axis=2).min() > 0


def test_logits_at_chosen_places_and_from_their_parts(model):
  apply, params, mutable, tokens_BT = model
  positions_BP = jnp.asarray([[0, 7, 3], [9, 9, 1]])
  outputs = apply(params, mutable, tokens_BT)[0]
  chosen = apply(params, mutable, tokens_BT, positions_BP=positions_BP)[0]
  expected = jnp.take_along_axis(outputs['tokens'], positions_BP[..., None], axis=1)
  np.testing.assert_allclose(chosen['tokens'], expected, atol=1e-5)
  hidden_BPE, weight_VE = apply(params, mutable, tokens_BT, positions_BP=positions_BP, project=False)[0]['tokens']
  np.testing.assert_allclose(hidden_BPE @ weight_VE.T, expected, atol=1e-5)


def test_heads_are_those_of_the_config(model):
  apply, params, mutable, tokens_BT = model
  assert {name: value.shape for name, value in apply(params, mutable, tokens_BT)[0].items()} == {
    'hidden': (2, 10, 12), 'tokens': (2, 10, 23), 'pooled': (2, 12), 'next_sentence': (2, 2), 'classes': (2, 4)}
  bare = dataclasses.replace(SMALL, pooler=False, masked_lm=False, next_sentence=False, classes=0)
  outputs, _ = encoder(bare).apply({name: params[name] for name in shapes(bare)}, mutable, tokens_BT)
  assert set(outputs) == {'hidden'}
  types_BT = jnp.ones_like(tokens_BT)
  assert np.abs(apply(params, mutable, tokens_BT, types_BT)[0]['hidden'] - outputs['hidden']).max() > 1e-3


def test_dropout_draws_by_the_key():
  network = encoder(dataclasses.replace(SMALL, dropout=0.5))
  params, mutable = network.init(jax.random.key(0))
  tokens_BT = jnp.ones((1, 6), int)
  one, same, other = (
    network.apply(params, mutable, tokens_BT, key=jax.random.key(seed))[0]['hidden'] for seed in (1, 1, 2))
  np.testing.assert_array_equal(one, same)
  assert np.abs(one - other).max() > 0.1


def test_tensor_parallel_rules_match():
  mesh = jax.sharding.AbstractMesh((1, 2, 2, 1, 1), sharding.MESH_AXES)
  config = dataclasses.replace(SMALL, heads=4)
  placed = sharding.param_shardings(shapes(config), mesh, (*AXES, *MASKED_LM_AXES), {'vocab': None})
  assert placed['blocks']['down']['kernel'].spec[1] == 'tensor'


def test_sequences_beyond_the_context(model):
  _, params, mutable, _ = model
  with pytest.raises(UserError, match='12 positions .* 13 tokens'):
    encoder(SMALL).apply(params, mutable, jnp.zeros((1, 13), int))


@pytest.mark.parametrize(('options', 'message'), [({'pooler': False, 'next_sentence': True}, 'set pooler=True'),
                                                  ({'activation': 'swish'}, 'activation must be one of'),
                                                  ({'heads': 5}, r'width \(12\) must be a multiple of heads \(5\)'),
                                                  ({'attention': 'fast'}, 'attention must be one of'),])
def test_bad_options(options, message):
  with pytest.raises(ValueError, match=message):
    BertConfig(**{**dict(vocab=23, context=12, layers=2, heads=3, width=12), **options})
  with pytest.raises(ValueError, match="size must be one of .*got 'huge'"):
    bert('huge')
