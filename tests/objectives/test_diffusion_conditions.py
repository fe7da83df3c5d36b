"""The diffusion objective with several conditions: what the network is told in training and in guided sampling."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.diffusion import conditioning, parameterizations, samplers, schedules
from genjax.diffusion.conditioning import Conditioner
from genjax.nn.functional import Network
from genjax.objectives.base import Context
from genjax.objectives.codecs import identity
from genjax.objectives.diffusion import Diffusion, Sampler
from genjax.types import UserError

SHAPE, PROCESS = (2, 3, 1), schedules.flow()
TIMES = tuple(schedules.sampling_times(PROCESS, 4).tolist())


def _condition(column, dropout, null):
  encode = lambda frozen, columns: {'vector': frozen['scale'] * columns[column][:, None]}
  return Conditioner((column,), {column: np.float32(null)}, dropout, encode)


# What is told is weighed by a power of ten, and the scale of a frozen part.
CONDITIONS = {'picture': _condition('picture', 0.2, -1.0), 'text': _condition('text', 0.1, -2.0),
              'size': _condition('size', 0.0, 0.0)}
FROZEN = {'scale': jnp.float32(2.0)}
ROWS = {'picture': jnp.array([1.0, 2.0]), 'text': jnp.array([3.0, 4.0]), 'size': jnp.array([5.0, 6.0])}


def _apply(params, mutable, x, time, given, key=None):
  return jnp.broadcast_to((given['vector'] @ jnp.array([1.0, 10.0, 100.0]))[:, None, None, None], x.shape), mutable


def _objective(conditioners=None, apply=_apply, joint_dropout=0.0, **options):
  net = Network(lambda key: ({'w': jnp.zeros(())}, {}), apply)
  return Diffusion(net, SHAPE, PROCESS, parameterizations.PARAMETERIZATIONS['x0'](),
                   Sampler(samplers.euler, TIMES, **options), conditioners=conditioners or CONDITIONS, codec=identity(),
                   joint_dropout=joint_dropout)


def _sample(objective, rows):
  context = Context(step=jnp.int32(0), mutable={}, ema={}, frozen=FROZEN)
  keys = jax.random.split(jax.random.key(0), 2)
  sampled = objective.sample({'net': {'w': jnp.zeros(())}}, context, keys, rows)['image']
  return sampled[:, 0, 0, 0]


def _estimate(picture, text, size):
  return 2.0 * (picture + 10 * text + 100 * size)


def test_one_scale_guides_all_conditions_that_are_dropped():
  told, null = _estimate(**ROWS), _estimate(-1.0, -2.0, ROWS['size'])
  for scale in (0.0, 1.0, 3.0):
    np.testing.assert_allclose(_sample(_objective(guidance=scale), ROWS), null + scale * (told - null), rtol=1e-5)


def test_scales_of_conditions_are_nested_in_their_order():
  none = _estimate(-1.0, -2.0, ROWS['size'])
  picture, text = _estimate(ROWS['picture'], -2.0, ROWS['size']), _estimate(-1.0, ROWS['text'], ROWS['size'])
  both = _estimate(**ROWS)
  for names, first in ((('picture', 'text'), picture), (('text', 'picture'), text)):
    found = _sample(_objective(guidances=dict(zip(names, (1.5, 7.5)))), ROWS)
    np.testing.assert_allclose(found, none + 1.5 * (first - none) + 7.5 * (both - first), rtol=1e-5)
  # A condition without a scale is always told.
  found = _sample(_objective(guidances={'text': 4.0}), ROWS)
  np.testing.assert_allclose(found, picture + 4 * (both - picture), rtol=1e-5)


def test_negative_conditions_stand_in_the_nulls_place():
  told, negative = _estimate(**ROWS), _estimate(-1.0, 9.0, ROWS['size'])
  rows = {**ROWS, 'negative_text': jnp.array([9.0, 9.0])}
  np.testing.assert_allclose(_sample(_objective(guidance=3.0), rows), negative + 3 * (told - negative), rtol=1e-5)
  with pytest.raises(UserError, match=r"negative conditions \['text'\] .* takes away none"):
    _sample(_objective(), rows)
  with pytest.raises(UserError, match=r"negative conditions \['size'\] .* takes away \['picture', 'text'\]"):
    _sample(_objective(guidance=3.0), {**ROWS, 'negative_size': jnp.ones(2)})


def test_rescaling_and_the_interval_reach_the_guidance():
  apply = lambda params, mutable, x, time, given, key=None: (
    _apply(params, mutable, x, time, given)[0] * jnp.arange(6.0).reshape(SHAPE), mutable)
  told, null = _estimate(**ROWS), _estimate(-1.0, -2.0, ROWS['size'])
  guided = null + 3 * (told - null)
  full = _objective(apply=apply, guidance=3.0, rescale=1.0)
  half = _objective(apply=apply, guidance=3.0, rescale=0.5)
  last = lambda objective: objective.sample(
    {'net': {'w': jnp.zeros(())}}, Context(step=jnp.int32(0), mutable={}, ema={}, frozen=FROZEN),
    jax.random.split(jax.random.key(0), 2), ROWS)['image'][:, 1, 2, 0] / 5
  np.testing.assert_allclose(last(full), told, rtol=1e-4)
  np.testing.assert_allclose(last(half), (told + guided) / 2, rtol=1e-4)
  never = _objective(apply=apply, guidance=3.0, interval=(1e6, 1e7))
  np.testing.assert_allclose(last(never), told, rtol=1e-5)


def test_training_drops_each_condition_and_all_together_and_evaluation_none():
  seen = []

  def record(params, mutable, x, time, given, key=None):
    seen.append(given['vector'])
    return 0 * x, mutable

  size = 2000
  batch = {'image': jnp.zeros((size, *SHAPE)), **{name: jnp.full(size, 3.0) for name in CONDITIONS}}
  context = Context(step=jnp.int32(0), mutable={}, ema={}, frozen=FROZEN)
  objective = _objective(apply=record, joint_dropout=0.5)
  objective.loss({'net': {'w': jnp.zeros(())}}, context, batch, jax.random.key(1))
  picture, text, always = np.asarray(seen[0]).T / 2
  assert set(np.unique(picture)) == {-1, 3} and set(np.unique(text)) == {-2, 3} and set(np.unique(always)) == {3}
  assert np.mean(picture == -1) == pytest.approx(0.5 + 0.5 * 0.2, abs=0.035)
  assert np.mean((picture == -1) & (text == -2)) == pytest.approx(0.5 + 0.5 * 0.02, abs=0.035)
  small = {name: value[:4] for name, value in batch.items()}
  objective.evaluate({'net': {'w': jnp.zeros(())}}, context, small, jax.random.key(1))
  assert len(seen) == 2 and (seen[1] == 6).all()  # a scan traces the network once


@pytest.mark.parametrize('conditioners, options, match', [
  ({'size': CONDITIONS['size']}, dict(guidance=2.0), "2.0 needs a condition that training drops.*'size': 0.0"),
  ({}, dict(guidance=2.0), 'guidance by 2.0 needs a condition that training drops'),
  (CONDITIONS, dict(guidances={'size': 2.0}), r"guidance by 2.0 of \['size'\] needs a condition that training drops"),
  (CONDITIONS, dict(guidances={'sound': 2.0}), r"guidance by 2.0 of \['sound'\] is of no condition of the model"),
  (CONDITIONS, dict(guidance=2.0, guidances={'text': 2.0}), 'set one of them'),
  (CONDITIONS, dict(guidances={'text': -2.0}), 'guidances.text must not be negative'),
  (CONDITIONS, dict(rescale=1.5), 'rescale must be at least 0 and at most 1')])
def test_guidance_that_cannot_be_is_refused(conditioners, options, match):
  with pytest.raises(UserError, match=match):
    dataclasses.replace(_objective(), conditioners=conditioners, sampler=Sampler(samplers.euler, TIMES, **options))


def test_labels_are_one_condition_among_others():
  conditioners = {'label': conditioning.classes(4, 0.3), **CONDITIONS}
  told = []

  def record(params, mutable, x, time, given, key=None):
    told.append(given)
    return 0 * x, mutable

  objective, key = _objective(conditioners, apply=record), jax.random.key(2)
  batch = {'image': jnp.zeros((64, *SHAPE)), 'label': jnp.arange(64) % 4,
           **{name: jnp.full(64, 3.0) for name in CONDITIONS}}
  context = Context(step=jnp.int32(0), mutable={}, ema={}, frozen=FROZEN)
  objective.loss({'net': {'w': jnp.zeros(())}}, context, batch, key)
  dropped = jax.random.bernoulli(jax.random.split(key, 4)[2], 0.3, (64,))
  np.testing.assert_array_equal(told[0]['label'], jnp.where(dropped, 4, batch['label']))
