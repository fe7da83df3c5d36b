"""Adapters of an objective with two groups, averages, mutable variables and frozen ones of its own."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.nn import kernels, lora
from genjax.nn.linear import dot_general
from genjax.objectives.base import Context, Output, Phase, Variables
from genjax.objectives.lora import BASE, Lora
from genjax.types import UserError

FROZEN = {'teacher': {'kernel': jnp.full((3, 2), 0.5)}}
OPTIONS = lora.Options(2, 4.0, ('.*kernel',))


class Toy:
  """'student' follows a teacher and its own average; 'judge' is trained every other step; the mutable tree counts."""

  def init(self, key, frozen):
    one, two = jax.random.split(key)
    return Variables({'student': {'layer': {'kernel': jax.random.normal(one, (3, 2)), 'bias': jnp.ones(2)}},
                      'judge': {'kernel': jax.random.normal(two, (2, 1))}}, {'count': jnp.float32(7)})

  def phases(self):
    return Phase('student', ('student',), self.student), Phase('judge', ('judge',), self.judge, every=2)

  def forward(self, params, batch):
    return batch['x'] @ params['student']['layer']['kernel'] + params['student']['layer']['bias']

  def student(self, params, context, batch, key):
    assert set(context.frozen) == {'teacher'}
    error = self.forward(params, batch) - batch['x'] @ context.frozen['teacher']['kernel']
    noise = jax.random.normal(key, error.shape)
    pull = sum(jnp.sum(context.ema[group]['layer']['kernel']) for group in context.ema if group == 'student')
    return Output(
      jnp.mean((error + 0.1 * noise)**2) + pull, {'pull': pull}, {'count': context.mutable['count'] + 1}, len(error))

  def judge(self, params, context, batch, key):
    params = kernels.keyed(params, key)  # as networks do
    return Output(
      jnp.mean(dot_general(self.forward(params, batch), params['judge']['kernel'], (((1,), (0,)), ((), ())))**2))

  def evaluate(self, params, context, batch, key):
    return {'value': jnp.sum(self.forward(params, batch), axis=-1) + context.mutable['count']}

  def sample(self, params, context, keys, conditions):
    noise = jax.vmap(lambda key: jax.random.normal(key, (3,)))(keys)
    return {'sample': self.forward(params, {'x': noise}) @ params['judge']['kernel']}


BATCH = {'x': jax.random.normal(jax.random.key(9), (5, 3))}


def adapted(groups=('student', 'judge'), options=OPTIONS):
  """The objective, its variables, everything frozen, and a context without averages."""
  base = Toy()
  variables = base.init(jax.random.key(0), FROZEN)
  frozen = {**FROZEN, BASE: {'params': variables.params, 'mutable': variables.mutable}}
  objective = Lora(base, options, groups)
  own = objective.init(jax.random.key(1), frozen)
  return objective, own, frozen, Context(jnp.int32(0), own.mutable, {}, frozen)


def moved(params):
  return jax.tree.map(lambda leaf: leaf + 0.1, params)


def test_groups_phases_and_mutable():
  objective, variables, frozen, _ = adapted()
  assert [(phase.name, phase.trains, phase.every) for phase in objective.phases()] == [
    ('student', ('lora_student',), 1), ('judge', ('lora_judge',), 2)]
  assert set(variables.params) == {'lora_student', 'lora_judge'}
  assert variables.mutable == {'count': 7.0} and variables.mutable['count'] is not frozen[BASE]['mutable']['count']
  objective, variables, _, _ = adapted(('judge',))
  # The student stands still
  assert [(phase.name, phase.trains) for phase in objective.phases()] == [('judge', ('lora',))]
  assert set(variables.params) == {'lora'}


def test_begins_as_its_base_bit_for_bit():
  objective, variables, frozen, context = adapted()
  base, plain, key = Toy(), frozen[BASE]['params'], jax.random.key(5)
  own = dataclasses.replace(context, frozen=FROZEN)
  for ours, theirs in zip(objective.phases(), base.phases(), strict=True):
    found, expected = ours.loss(variables.params, context, BATCH, key), theirs.loss(plain, own, BATCH, key)
    np.testing.assert_array_equal(found.loss, expected.loss)
    assert found.mutable == expected.mutable and found.weight == expected.weight
  np.testing.assert_array_equal(objective.evaluate(variables.params, context, BATCH, key)['value'],
                                base.evaluate(plain, own, BATCH, key)['value'])
  keys = jax.random.split(key, 4)
  np.testing.assert_array_equal(objective.sample(variables.params, context, keys, {})['sample'],
                                base.sample(plain, own, keys, {})['sample'])


def test_losses_and_samples_are_those_of_the_merged_base():
  objective, variables, frozen, context = adapted()
  params, base, key = moved(variables.params), Toy(), jax.random.key(5)
  merged = {'student': {'layer': {**frozen[BASE]['params']['student']['layer']}}, 'judge': {}}
  for group, path in (('student', ('layer',)), ('judge', ())):
    node, pair = merged[group], params[f'lora_{group}']
    kernel = frozen[BASE]['params'][group]
    for part in path:
      node, pair, kernel = node[part], pair[part], kernel[part]
    node['kernel'] = kernel['kernel'] + 2.0 * pair['kernel']['A'] @ pair['kernel']['B']
  np.testing.assert_allclose(objective.merge(params, frozen)['judge']['kernel'], merged['judge']['kernel'], rtol=1e-5)
  own = dataclasses.replace(context, frozen=FROZEN)
  for ours, theirs in zip(objective.phases(), base.phases(), strict=True):
    np.testing.assert_allclose(
      ours.loss(params, context, BATCH, key).loss,
      theirs.loss(merged, own, BATCH, key).loss, rtol=1e-5)
  keys = jax.random.split(key, 4)
  np.testing.assert_allclose(
    objective.sample(params, context, keys, {})['sample'],
    base.sample(merged, own, keys, {})['sample'], rtol=1e-4, atol=1e-5)


def test_averages_are_merged_for_the_base():
  objective, variables, frozen, context = adapted()
  average = moved(variables.params['lora_student'])
  context = dataclasses.replace(context, ema={'lora_student': average})
  seen = objective.context(context, merged=True)
  assert set(seen.ema) == {'student'} and set(seen.frozen) == {'teacher'}
  expected = lora.merge(frozen[BASE]['params']['student'], average, OPTIONS.scale)
  jax.tree.map(np.testing.assert_array_equal, seen.ema['student'], expected)
  beside = objective.context(context).ema['student']['layer']['kernel']  # what losses see
  np.testing.assert_array_equal(beside.dense(), expected['layer']['kernel'])
  output = objective.phases()[0].loss(variables.params, context, BATCH, jax.random.key(0))
  assert float(output.metrics['pull']) == pytest.approx(float(jnp.sum(expected['layer']['kernel'])), rel=1e-5)


def test_dropout_is_of_training_only_and_a_function_of_the_key():
  objective, variables, _, context = adapted(options=dataclasses.replace(OPTIONS, dropout=0.5))
  params, phase = moved(variables.params), objective.phases()[1]
  losses = [float(phase.loss(params, context, BATCH, jax.random.key(seed)).loss) for seed in (0, 0, 1, 2, 3)]
  assert losses[0] == losses[1] and len(set(losses)) > 2
  plain, _, _, _ = adapted()
  key = jax.random.key(0)
  found, expected = (one.evaluate(params, context, BATCH, key)['value'] for one in (objective, plain))
  np.testing.assert_array_equal(found, expected)


def test_paths_are_checked_at_init():
  with pytest.raises(
      UserError, match="matches no parameter. The kernels of \\['judge', 'student'\\]: layer/kernel, kernel"):
    adapted(options=lora.Options(2, 4.0, ('nothing/.*',)))
