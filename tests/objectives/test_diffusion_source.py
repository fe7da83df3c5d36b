"""Flows from a source in place of noise, and noise that the data couples: objectives with known answers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.diffusion import parameterizations, samplers, schedules
from genjax.nn.functional import Network
from genjax.objectives.base import Context
from genjax.objectives.codecs import identity, pixels
from genjax.objectives.diffusion import Diffusion, Sampler
from genjax.types import UserError

CONTEXT = Context(step=jnp.int32(0), mutable={}, ema={}, frozen={})
PARAMS = {'net': {}}


def make(apply, process='flow', steps=4, start=None, shape=(2,), codec=None, **options):
  process = schedules.PROCESSES[process]()
  times = schedules.sampling_times(process, steps).tolist()
  times[0] = times[0] if start is None else start
  net = Network(lambda key: ({}, {}), lambda params, mutable, x, time, given, key=None: (apply(x, time), mutable))
  name = 'velocity' if process.start == 1 else 'v'
  return Diffusion(net, shape, process, parameterizations.PARAMETERIZATIONS[name](),
                   Sampler(functools.partial(samplers.euler), tuple(times)), codec=codec or identity('point'),
                   **options)


BATCH = {'point': jax.random.normal(jax.random.key(0), (64, 2)) + 4,
         'source': jax.random.normal(jax.random.key(1), (64, 2)) - 4}
SHIFT = jnp.array([3.0, -1.0])


def test_the_target_is_from_data_to_source():
  """Where the source is the data and a constant, the velocity is that constant and the loss of it is 0."""
  batch = {'point': BATCH['point'], 'source': BATCH['point'] + SHIFT}
  objective = make(lambda x, time: jnp.broadcast_to(SHIFT, x.shape), source=identity('source'))
  assert objective.loss(PARAMS, CONTEXT, batch, jax.random.key(2)).loss == pytest.approx(0, abs=1e-9)
  np.testing.assert_allclose(objective.evaluate(PARAMS, CONTEXT, batch, jax.random.key(2))['loss'], 0, atol=1e-9)
  wrong = objective.loss(PARAMS, CONTEXT, BATCH, jax.random.key(2)).loss
  assert wrong == pytest.approx(float(jnp.mean((BATCH['source'] - BATCH['point'] - SHIFT) ** 2)), rel=1e-5)


@pytest.mark.parametrize('steps', [1, 5])
def test_samples_begin_at_the_source(steps):
  objective = make(lambda x, time: jnp.broadcast_to(SHIFT, x.shape), steps=steps, source=identity('source'))
  keys = jax.random.split(jax.random.key(0), 64)
  found = objective.sample(PARAMS, CONTEXT, keys, {'source': BATCH['source']})['point']
  np.testing.assert_allclose(found, BATCH['source'] - SHIFT, atol=1e-5)


def test_pictures_to_pictures():
  """A bridge between pictures needs nothing but another codec: here from each picture to its negative."""
  image = jnp.asarray(np.random.default_rng(0).integers(0, 256, (5, 2, 2, 1)), jnp.uint8)
  objective = make(lambda x, time: jnp.zeros_like(x), shape=(2, 2, 1), codec=pixels('image'), source=pixels('source'))
  output = objective.loss(PARAMS, CONTEXT, {'image': image, 'source': 255 - image}, jax.random.key(0))
  assert output.loss == pytest.approx(float(jnp.mean((2 * (image / 127.5 - 1)) ** 2)), rel=1e-5)
  found = objective.sample(PARAMS, CONTEXT, jax.random.split(jax.random.key(0), 5), {'source': image})
  np.testing.assert_array_equal(found['image'], image)


def test_coupled_noise_is_read_and_samples_draw_their_own():
  zero = lambda x, time: jnp.zeros_like(x)
  objective = make(zero, noise_column='noise')
  batch = {'point': BATCH['point'], 'noise': BATCH['source']}
  output = objective.loss(PARAMS, CONTEXT, batch, jax.random.key(0))
  assert output.loss == pytest.approx(float(jnp.mean((batch['noise'] - batch['point']) ** 2)), rel=1e-5)
  keys = jax.random.split(jax.random.key(0), 64)
  np.testing.assert_array_equal(objective.sample(PARAMS, CONTEXT, keys, {})['point'],
                                make(zero).sample(PARAMS, CONTEXT, keys, {})['point'])


@pytest.mark.parametrize(('options', 'words'), [
  (dict(process='vp_linear'), "process 'flow'"), (dict(process='edm'), "process 'flow'"),
  (dict(noise_column='noise'), 'leave out noise_column'), (dict(start=0.9), 'sampling begins at 0.9')])
def test_a_source_that_sampling_would_not_begin_at_is_refused(options, words):
  with pytest.raises(UserError, match=words):
    make(lambda x, time: x, source=identity('source'), **options)
