"""Noise of training: offset noise and perturbed inputs, against what the network is shown and asked."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.diffusion import parameterizations, samplers, schedules
from genjax.nn.functional import Network
from genjax.objectives.base import Context
from genjax.objectives.codecs import identity
from genjax.objectives.diffusion import Diffusion, Sampler
from genjax.types import UserError

SHAPE, SIZE = (6, 5, 2), 400
CONTEXT = Context(step=jnp.int32(0), mutable={}, ema={}, frozen={})


def shown_and_asked(**options):
  """What a network reads at the last time of a process that ends at pure noise, and the noise that it has to predict:
  its loss is that of predicting nothing."""
  seen = []

  def record(params, mutable, x, time, given, key=None):
    seen.append(x)
    return params['w'] * 0 * x, mutable

  process = schedules.flow()
  sampler = Sampler(functools.partial(samplers.SAMPLERS['euler']), tuple(schedules.sampling_times(process, 2).tolist()))
  objective = Diffusion(Network(lambda key: ({'w': jnp.ones(())}, {}), record), SHAPE, process,
                        parameterizations.PARAMETERIZATIONS['velocity'](), sampler, codec=identity(),
                        quantile=lambda u: jnp.full_like(u, 1.0 - 1e-4), **options)
  params = {'net': {'w': jnp.ones(())}}
  batch = {'image': jnp.zeros((SIZE, *SHAPE))}

  @jax.jit
  def run():
    loss = objective.loss(params, CONTEXT, batch, jax.random.key(3)).loss
    return seen[-1], loss, objective.evaluate(params, CONTEXT, batch, jax.random.key(4))['loss']

  return run()


@pytest.fixture(scope='module')
def plain():
  return shown_and_asked()


def test_offset_noise_is_one_number_a_channel_and_is_learned(plain):
  offset, loss, evaluated = shown_and_asked(offset_noise=0.5)
  difference = np.asarray(offset - plain[0])
  np.testing.assert_allclose(difference, np.broadcast_to(difference[:, :1, :1], difference.shape), atol=1e-5)
  assert difference[:, 0, 0].std() == pytest.approx(0.5, rel=0.1)
  assert abs(np.corrcoef(difference[:, 0, 0].T)[0, 1]) < 0.2  # channels have their own
  assert loss - plain[1] == pytest.approx(0.25, rel=0.2)  # the power of the target grows
  np.testing.assert_array_equal(evaluated, plain[2])


def test_perturbed_inputs_are_seen_and_not_learned(plain):
  perturbed, loss, evaluated = shown_and_asked(input_perturbation=0.3)
  difference = np.asarray(perturbed - plain[0])
  assert difference.std() == pytest.approx(0.3, rel=0.05) and difference.mean() == pytest.approx(0, abs=0.02)
  np.testing.assert_array_equal(loss, plain[1])
  np.testing.assert_array_equal(evaluated, plain[2])


def test_refused():
  for options in (dict(offset_noise=-0.1), dict(input_perturbation=0.1, noise_column='noise')):
    with pytest.raises(UserError, match='offset_noise'):
      shown_and_asked(**options)
