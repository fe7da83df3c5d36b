"""Parts of a tree that are trained in their own way."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

from genjax.training.optimization import optimizers
from genjax.types import UserError, named_leaves

PARAMS = {'embedding': {'embedding': [1.0, -0.0, 3.0]}, 'blocks': {'kernel': [1.0, 2.0], 'bias': [0.5]},
          'head': {'kernel': [4.0]}}
GRADIENTS = {'embedding': {'embedding': [100.0, 100.0, -100.0]}, 'blocks': {'kernel': [3.0, 0.0], 'bias': [0.0]},
             'head': {'kernel': [4.0]}}


def arrays(tree):
  is_leaf = lambda leaf: isinstance(leaf, list)
  return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree, is_leaf=is_leaf)


def step(optimizer, steps=1, params=PARAMS, gradients=GRADIENTS):
  """Parameters by path, and the state, after some updates."""
  params = arrays(params)
  state = optimizer.init(params)
  for _ in range(steps):
    updates, state = jax.jit(optimizer.update)(arrays(gradients), state, params)
    params = optax.apply_updates(params, updates)
  return named_leaves(params), state


def make(parts, name='sgd', **options):
  return optimizers.from_config({'net': {'name': name, 'lr': 0.1, 'parts': parts, **options}}, 10)['net']


def test_frozen_parameters_keep_every_bit_and_have_no_state():
  optimizer = make((('embedding/.*', dict(frozen=True)),), name='adamw', weight_decay=0.5)
  after, state = step(optimizer, steps=3)
  assert np.asarray(after['embedding/embedding']).tobytes() == np.asarray([1.0, -0.0, 3.0], np.float32).tobytes()
  assert not np.array_equal(after['head/kernel'], [4.0])
  kept = [name for name in named_leaves(state) if 'embedding' in name]
  assert not kept and len(named_leaves(state)) > 3
  nodes = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, optax.MaskedNode))
  assert any(isinstance(node, optax.MaskedNode) for node in nodes)


def test_the_norm_that_is_clipped_is_that_of_what_is_trained():
  after, _ = step(make((('embedding/.*', dict(frozen=True)),), clip=1.0))  # the norm of 3 and 4 is 5
  np.testing.assert_allclose(after['blocks/kernel'], [1.0 - 0.1 * 3 / 5, 2.0], rtol=1e-6)
  np.testing.assert_allclose(after['head/kernel'], [4.0 - 0.1 * 4 / 5], rtol=1e-6)


@pytest.mark.parametrize('name', [name for name in optimizers.OPTIMIZERS if name not in ('muon', 'adam', 'rmsprop')])
def test_a_scale_multiplies_the_whole_update(name):
  """Weight decay with it; the other parameters are trained as without the rule."""
  plain, _ = step(make((), name=name, weight_decay=0.3), steps=1)
  scaled, _ = step(make((('blocks/.*', dict(scale=0.25)),), name=name, weight_decay=0.3), steps=1)
  before = named_leaves(arrays(PARAMS))
  for path in plain:
    factor = 0.25 if path.startswith('blocks/') else 1.0
    right = factor * (plain[path] - before[path])
    np.testing.assert_allclose(scaled[path] - before[path], right, rtol=1e-5, atol=1e-7, err_msg=path)
  assert not np.array_equal(plain['blocks/kernel'], before['blocks/kernel'])


def test_a_scale_acts_on_the_sequence_that_schedule_free_learning_averages():
  """Scaled by s, it is schedule-free learning at the rate s * lr."""
  scaled, _ = step(make((('.*', dict(scale=0.25)),), name='schedule_free'), steps=5)
  slower, _ = step(make((), name='schedule_free', lr=0.025), steps=5)
  for path, value in scaled.items():
    np.testing.assert_allclose(value, slower[path], rtol=1e-6, err_msg=path)


def test_another_optimizer_has_a_part_at_its_own_rate():
  parts = (('.*bias', dict(name='sgd', lr=2.0, momentum=0.5)), ('embedding/.*', dict(name='lion')))
  optimizer = make(parts, name='adam', warmup=2)
  gradients = {**GRADIENTS, 'blocks': {'kernel': [3.0, 1.0], 'bias': [1.0]}}
  after, state = step(optimizer, gradients=gradients)
  np.testing.assert_allclose(after['blocks/bias'], [0.5 - 1.0])  # half of the rate 2: its warm-up is that of the group
  np.testing.assert_allclose(after['embedding/embedding'], [0.95, -0.05, 3.05], rtol=1e-6)
  np.testing.assert_allclose(after['blocks/kernel'], [0.95, 1.95], rtol=1e-6)
  assert len([name for name in named_leaves(state) if name.endswith('blocks/bias')]) == 1


def test_the_first_rule_counts():
  after, _ = step(make((('blocks/kernel', dict(scale=0.5)), ('blocks/.*', dict(frozen=True)))))
  np.testing.assert_allclose(after['blocks/kernel'], [1.0 - 0.5 * 0.1 * 3, 2.0], rtol=1e-6)
  assert after['blocks/bias'] == 0.5


def test_parts_come_from_configs_as_files_hold_them():
  parts = (('blocks/.*', dict(scale=0.5)), ('head/.*', dict(frozen=True)))
  config = ml_collections.ConfigDict({'net': dict(name='sgd', lr=0.1, parts=parts)})
  for options in (config, json.loads(json.dumps(config.to_dict()))):
    after, _ = step(optimizers.from_config(options, 10)['net'])
    np.testing.assert_allclose(after['blocks/kernel'], [0.85, 2.0], rtol=1e-6)
    assert after['head/kernel'] == 4.0


@pytest.mark.parametrize(('parts', 'words'), [
  ((('nothing/.*', dict(frozen=True)),),
   r"parts\[0\]: 'nothing/.\*' matches no parameter. The parameters are blocks/bias, blocks/kernel, "),
  ((('blocks/.*', dict(scale=0.5)), ('.*bias', dict(frozen=True))), r'parts\[1\]: earlier rules already match'),
  ((('.*', dict(frozen=True)),), 'parts: .* nothing is left to train')])
def test_rules_that_do_not_fit_the_parameters(parts, words):
  with pytest.raises(UserError, match=f'config.optimizers.net.{words}'):
    make(parts).init(arrays(PARAMS))


@pytest.mark.parametrize(('parts', 'words'), [
  ('frozen', 'parts must be a sequence'), ({'.*': 1}, 'parts must be a sequence'), ((('.*',),), r'parts\[0\] must be'),
  ((('.*', 0.5),), r'parts\[0\] must be'), (((3, dict(frozen=True)),), r'parts\[0\] must be'),
  ((('(', dict(frozen=True)),), r'parts\[0\]: .* no regular expression'),
  ((('.*', dict(frozen=False)),), r'parts\[0\]: frozen must be True'),
  ((('.*', dict(scale=0.0)),), r'parts\[0\].scale must be .* frozen=True'),
  ((('.*', dict(scale=-1.0)),), r'parts\[0\].scale'),
  ((('.*', dict(scale=True)),), r'parts\[0\].scale'), ((('.*', dict(scale=float('nan'))),), r'parts\[0\].scale'),
  ((('.*', dict(scale=0.5, frozen=True)),), r'parts\[0\] must be'), ((('.*', dict(lr=0.5)),), r'parts\[0\] must be'),
  ((('.*', dict(name='sgdd')),), r'parts\[0\] name'),
  ((('.*', dict(name='sgd', b1=0.5)),), r'parts\[0\]: sgd has no option .b1'),
  ((('.*', dict(name='sgd', clip=1.0)),), r'parts\[0\]: sgd has no option .clip'),
  ((('.*', dict(name='sgd', lr=-1.0)),), r'parts\[0\].lr')])
def test_rules_of_another_form(parts, words):
  with pytest.raises(UserError, match=f'config.optimizers.net.{words}'):
    make(parts)


def test_what_trains_each_parameter_in_words():
  shapes = {'embedding': (8, 4), 'blocks/kernel': (2, 4, 4), 'blocks/bias': (2, 4), 'head/kernel': (4, 8)}
  parts = (('embedding', dict(frozen=True)), ('blocks/.*', dict(scale=0.1)), ('head/.*', dict(name='sgd', lr=1.0)))
  assert optimizers.describe(dict(name='muon', lr=0.1, parts=parts), shapes) == {
    'embedding': 'frozen', 'blocks/kernel': 'muon x 0.1', 'blocks/bias': 'adamw x 0.1', 'head/kernel': 'sgd'}


def test_gradients_of_what_stands_still_are_not_computed():
  optimizer = make((('embedding/.*', dict(frozen=True)),))

  def loss(params):
    leaves = named_leaves(optimizers.stop_frozen(optimizer, params))
    return jnp.sum(leaves['embedding/embedding']) ** 2 * jnp.sum(leaves['head/kernel'])

  gradients = named_leaves(jax.grad(loss)(arrays(PARAMS)))
  np.testing.assert_array_equal(gradients['embedding/embedding'], 0.0)
  np.testing.assert_array_equal(gradients['head/kernel'], 16.0)
  assert optimizers.stop_frozen(optax.sgd(0.1), PARAMS) is PARAMS


def test_the_norm_that_is_reported_is_that_of_what_is_trained(small_run):
  run = small_run()
  plain = run.experiment.objective

  class More(type(plain)):
    """With a parameter of a large gradient."""

    def init(self, key, frozen):
      variables = super().init(key, frozen)
      return variables._replace(params={**variables.params, 'a': {**variables.params['a'], 'v': jnp.ones(3)}})

    def loss(self, params, context, batch, key):
      output = super().loss(params, context, batch, key)
      return output._replace(loss=output.loss + 1e3 * jnp.sum(params['a']['v']))

  still = optimizers.from_config({'a': dict(name='sgd', lr=0.1, parts=(('v', dict(frozen=True)),))}, 12)
  experiment = dataclasses.replace(run.experiment, objective=More(), optimizers={**run.experiment.optimizers, **still})
  run = type(run)(experiment, run.settings)
  run.initialise()
  metrics = run.train_step(next(experiment.train.iterate(0, slice(None))))
  assert float(metrics['first/gradient_norm']) < 100.0 < float(metrics['first/loss'])
  np.testing.assert_array_equal(run.state.params['a']['v'], 1.0)
