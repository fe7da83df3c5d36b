"""The train step: phases, groups, accumulation, averages."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genjax.models.transformers import decoder as models
from genjax.objectives import base
from genjax.objectives.base import Context, Output, Phase, Variables
from genjax.objectives.language import LanguageModel
from genjax.training import state as state_lib
from genjax.training import step as step_lib
from genjax.types import UserError


class Two:
  """Two groups, three phases: `first` trains a, `second` (every 2) trains b, `third` trains both."""

  def __init__(self, phases=None):
    self._phases = phases or (Phase('first', ('a',), self.loss), Phase('second', ('b',), self.loss, every=2))

  def init(self, key, frozen):
    return Variables({'a': {'w': jnp.array([1.0, 2.0])}, 'b': {'w': jnp.array([3.0])}}, {'count': jnp.zeros(())})

  def phases(self):
    return self._phases

  def loss(self, params, context, batch, key):
    prediction = batch['x'] @ params['a']['w'] + params['b']['w'][0]
    loss, weight = base.weighted_mean((prediction - batch['y']) ** 2, batch['weights'])
    return Output(loss, {'seen': context.mutable['count']}, {'count': context.mutable['count'] + 1}, weight)

  evaluate = sample = None


BATCH = {'x': jnp.arange(16.0).reshape(8, 2) / 10, 'y': jnp.linspace(-1, 1, 8), 'weights': jnp.arange(8.0)}
OPTIMIZERS = {'a': optax.sgd(0.1), 'b': optax.adam(0.1)}


def start(objective, optimizers=OPTIMIZERS, ema=None):
  return state_lib.create(objective, optimizers, ema or {}, 0, {})


def equal(a, b):
  return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_a_phase_changes_its_groups_only():
  objective = Two()
  state = start(objective)
  step = step_lib.make_step(objective, OPTIMIZERS, {}, 0)
  after, metrics = step(state, {}, BATCH, ('first',))
  assert equal(after.params['b'], state.params['b']) and equal(after.opt['b'], state.opt['b'])
  assert not equal(after.params['a'], state.params['a'])
  assert set(metrics) == {'first/loss', 'first/seen', 'first/gradient_norm'}


def test_the_update_is_the_gradient_of_the_loss():
  objective = Two()
  state = start(objective)
  step = step_lib.make_step(objective, OPTIMIZERS, {}, 0)
  after, metrics = step(state, {}, BATCH, ('first',))
  x, y, w = (np.asarray(BATCH[name], np.float64) for name in ('x', 'y', 'weights'))
  residual = x @ [1.0, 2.0] + 3.0 - y
  gradient = 2 * (w * residual) @ x / w.sum()
  np.testing.assert_allclose(after.params['a']['w'], [1.0, 2.0] - 0.1 * gradient, rtol=1e-5)
  assert float(metrics['first/loss']) == pytest.approx((w * residual**2).sum() / w.sum(), rel=1e-5)
  assert float(metrics['first/gradient_norm']) == pytest.approx(np.linalg.norm(gradient), rel=1e-5)


def test_later_phases_see_what_earlier_ones_did():
  objective = Two()
  step = step_lib.make_step(objective, OPTIMIZERS, {}, 0)
  state = start(objective)
  after, metrics = step(state, {}, BATCH, ('first', 'second'))
  first, _ = step(state, {}, BATCH, ('first',))
  expected = objective.loss(first.params, Context(0, first.mutable, {}, {}), BATCH, None).loss
  assert float(metrics['second/loss']) == pytest.approx(float(expected), rel=1e-6)
  assert (float(metrics['first/seen']), float(metrics['second/seen']), float(after.mutable['count'])) == (0, 1, 2)


def test_due():
  phases = Two().phases()
  assert [base.due(phases, step) for step in range(3)] == [('first', 'second'), ('first',), ('first', 'second')]


@pytest.mark.parametrize('microbatches', [2, 4])
def test_accumulation_equals_the_full_batch_with_unequal_weights(microbatches):
  objective = Two()
  state = start(objective)
  whole, expected = step_lib.make_step(objective, OPTIMIZERS, {}, 0)(state, {}, BATCH, ('first',))
  parts, actual = step_lib.make_step(objective, OPTIMIZERS, {}, 0, microbatches)(state, {}, BATCH, ('first',))
  np.testing.assert_allclose(parts.params['a']['w'], whole.params['a']['w'], rtol=1e-6)
  np.testing.assert_allclose(actual['first/loss'], expected['first/loss'], rtol=1e-6)
  np.testing.assert_allclose(actual['first/gradient_norm'], expected['first/gradient_norm'], rtol=1e-6)
  assert float(parts.mutable['count']) == microbatches


def test_accumulation_on_a_language_model():
  config = models.TransformerConfig(vocab=11, context=8, layers=2, heads=2, width=8)
  objective = LanguageModel(models.transformer(config), functools.partial(models.init_cache, config), 8)
  optimizers = {'net': optax.sgd(1.0)}
  tokens = jax.random.randint(jax.random.key(0), (8, 9), 0, 11)
  weights = (jax.random.uniform(jax.random.key(1), (8, 8)) < jnp.linspace(0.1, 1.0, 8)[:, None]).astype(jnp.float32)
  state = start(objective, optimizers)
  batch = {'tokens': tokens, 'weights': weights}
  whole, _ = jax.jit(step_lib.make_step(objective, optimizers, {}, 0), static_argnums=3)(state, {}, batch, ('lm',))
  parts, _ = jax.jit(step_lib.make_step(objective, optimizers, {}, 0, 4), static_argnums=3)(state, {}, batch, ('lm',))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), parts.params, whole.params)


def test_averages_follow_their_recursion_and_are_copies():
  objective = Two()
  ema = {'a': 0.5}
  state = start(objective, ema=ema)
  assert state.ema['a']['w'].unsafe_buffer_pointer() != state.params['a']['w'].unsafe_buffer_pointer()
  step = step_lib.make_step(objective, OPTIMIZERS, ema, 0)
  average = np.asarray(state.params['a']['w'])
  for number in range(12):
    state, _ = step(state, {}, BATCH, ('first',))
    decay = min(0.5, (1 + number) / (10 + number))
    average = decay * average + (1 - decay) * np.asarray(state.params['a']['w'])
  np.testing.assert_allclose(state.ema['a']['w'], average, rtol=1e-5)


def test_keys_depend_on_seed_step_and_phase():
  def loss(params, context, batch, key):
    return Output(jnp.sum(params['a']['w']) + jnp.sum(params['b']['w']), {'drawn': jax.random.uniform(key)})

  objective = Two((Phase('first', ('a',), loss), Phase('second', ('b',), loss)))
  drawn = set()
  for seed in (0, 1):
    state = start(objective)
    step = step_lib.make_step(objective, OPTIMIZERS, {}, seed)
    for _ in range(2):
      state, metrics = step(state, {}, BATCH, ('first', 'second'))
      drawn |= {float(metrics['first/drawn']), float(metrics['second/drawn'])}
  assert len(drawn) == 8


def check(phases, groups=('a', 'b'), optimizers=('a', 'b'), ema=()):
  base.check_groups(phases, dict.fromkeys(groups), dict.fromkeys(optimizers), dict.fromkeys(ema))


def test_groups_must_agree():
  first, second = Two().phases()
  check((first, second))
  with pytest.raises(UserError, match=r"no phase trains: \['b'\].*\['a', 'b'\]"):
    check((first,))
  with pytest.raises(UserError, match=r"unknown groups: \['b'\].*\['a'\]"):
    check((first, second), groups=('a',))
  with pytest.raises(UserError, match='one optimizer per parameter group'):
    check((first, second), optimizers=('a',))
  with pytest.raises(UserError, match=r"config.ema names unknown groups \['c'\]"):
    check((first, second), ema=('c',))
  with pytest.raises(UserError, match='must differ'):
    check((first, second, first))
