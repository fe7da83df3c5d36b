"""The diffusion objective with networks whose losses and samples are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.diffusion import parameterizations, samplers, schedules
from genjax.nn.functional import Network
from genjax.objectives import diffusion
from genjax.objectives.base import Context
from genjax.objectives.diffusion import Codec, Diffusion, Sampler

SHAPE = (2, 3, 1)
PLAIN = Codec(lambda frozen, x: x, lambda frozen, x: x)


def _objective(apply, process='flow', parameterization='velocity', steps=8, method='euler', guidance=1.0, **options):
  process = schedules.PROCESSES[process]()
  net = Network(lambda key: ({'w': jax.random.normal(key, ())}, {}), apply)
  sampler = Sampler(functools.partial(samplers.SAMPLERS[method]),
                    tuple(schedules.sampling_times(process, steps).tolist()), guidance=guidance,
                    clip=options.pop('clip', 0.0))
  return Diffusion(net, SHAPE, process, parameterizations.PARAMETERIZATIONS[parameterization](), sampler,
                   **{'codec': PLAIN, **options})


def _context():
  return Context(step=jnp.int32(0), mutable={}, ema={}, frozen={})


def _zero(params, mutable, x, time, label, key=None):
  return params['w'] * 0 * x, mutable


def _batch(size):
  return {'image': jax.random.normal(jax.random.key(5), (size, *SHAPE)), 'label': jnp.arange(size) % 3}


def _variables(objective):
  return objective.init(jax.random.key(0), {}).params


@pytest.mark.parametrize('process, parameterization, expected', [
    ('vp_linear', 'epsilon', 1.0), ('vp_cosine', 'v', 1.0), ('flow', 'velocity', 2.0), ('flow', 'x0', 1.0)])
def test_loss_of_a_zero_network_is_the_power_of_the_target(process, parameterization, expected):
  objective = _objective(_zero, process, parameterization)
  output = objective.loss(_variables(objective), _context(), _batch(4000), jax.random.key(1))
  assert output.loss == pytest.approx(expected, rel=0.05)
  assert output.weight == 4000


def test_loss_of_a_perfect_network_is_zero():
  x0 = jnp.arange(6.0).reshape(SHAPE) / 3

  def perfect(params, mutable, x, time, label, key=None):
    t = time[:, None, None, None] / 1000
    return (x - x0) / t, mutable  # noise - x0 of a data set of one image

  objective = _objective(perfect)
  batch = {'image': jnp.broadcast_to(x0, (64, *SHAPE))}
  loss = objective.loss(_variables(objective), _context(), batch, jax.random.key(0)).loss
  assert loss < 1e-5
  sampled = objective.sample(_variables(objective), _context(), jax.random.split(jax.random.key(1), 3), {})['image']
  np.testing.assert_allclose(sampled, batch['image'][:3], atol=1e-4)


def test_label_dropout_replaces_the_stated_share_by_the_null_class():
  seen = []

  def record(params, mutable, x, time, label, key=None):
    seen.append(label)
    return 0 * x, mutable

  objective = _objective(record, num_classes=3, label_dropout=0.25)
  batch = _batch(4000)
  objective.loss(_variables(objective), _context(), batch, jax.random.key(0))
  label = np.asarray(seen[0])
  assert np.mean(label == 3) == pytest.approx(0.25, abs=0.03)
  assert (label[label != 3] == np.asarray(batch['label'])[label != 3]).all()
  objective.evaluate(_variables(objective), _context(), _batch(6), jax.random.key(0))
  assert len(seen) == 2  # a scan traces the network once
  without = _objective(record, num_classes=0)
  without.loss(_variables(without), _context(), batch, jax.random.key(0))
  assert seen[2] is None


def test_evaluation_is_per_example_and_averages_over_stratified_times():
  def time_only(params, mutable, x, time, label, key=None):
    # Predicts x0 and is wrong by the time: its error is t^2.
    return jnp.broadcast_to(time[:, None, None, None] / 1000, x.shape), mutable

  objective = _objective(time_only, parameterization='x0', evaluation_times=4)
  values = objective.evaluate(_variables(objective), _context(), {'image': jnp.zeros((5, *SHAPE))}, jax.random.key(0))
  np.testing.assert_allclose(values['loss'], np.full(5, np.mean((np.array([1, 3, 5, 7]) / 8) ** 2)), rtol=1e-5)


def test_training_times_come_from_the_given_distribution():
  seen = []

  def record(params, mutable, x, time, label, key=None):
    seen.append(time / 1000)
    return 0 * x, mutable

  objective = _objective(record, quantile=schedules.logit_normal(1.0, 0.5))
  objective.loss(_variables(objective), _context(), _batch(512), jax.random.key(0))
  assert jnp.mean(jax.scipy.special.logit(seen[0])) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize('method', ['euler', 'ancestral', 'dpmpp_2m'])
def test_rows_of_samples_depend_on_their_key_and_label_only(method):
  def denoiser(params, mutable, x, time, label, key=None):
    return jnp.tanh(x) * time[:, None, None, None] / 1000 + label[:, None, None, None], mutable

  objective = _objective(denoiser, method=method, num_classes=3, guidance=2.0)
  keys, labels = jax.random.split(jax.random.key(0), 4), jnp.array([0, 1, 2, 0])
  sample = lambda rows: objective.sample(_variables(objective), _context(), keys[rows], {'label': labels[rows]})['image']
  whole = sample(slice(None))
  np.testing.assert_allclose(whole, jnp.concatenate([sample(slice(0, 2)), sample(slice(2, 4))]), atol=1e-5)
  assert whole.shape == (4, *SHAPE) and len(np.unique(np.asarray(whole)[:, 0, 0, 0])) == 4


def test_clipping_bounds_the_estimate_of_the_data():
  far = lambda params, mutable, x, time, label, key=None: (jnp.full_like(x, 7.0), mutable)
  for clip, expected in ((0.0, 7.0), (1.0, 1.0)):
    objective = _objective(far, parameterization='x0', clip=clip)
    sampled = objective.sample(_variables(objective), _context(), jax.random.split(jax.random.key(0), 2), {})['image']
    np.testing.assert_allclose(sampled, expected, rtol=1e-6)


def test_pixels_map_bytes_to_a_symmetric_interval_and_back():
  codec = diffusion.pixels()
  image = jnp.arange(256, dtype=jnp.uint8).reshape(1, 16, 16, 1)
  x = codec.encode({}, image)
  assert x.dtype == jnp.float32 and x.min() == -1 and x.max() == 1
  np.testing.assert_array_equal(codec.decode({}, x), image)
  np.testing.assert_array_equal(codec.decode({}, jnp.array([-3.0, 3.0])), [0, 255])


def test_network_state_is_passed_on():
  apply = lambda params, mutable, x, time, label, key=None: (0 * x, {'count': mutable['count'] + 1})
  objective = _objective(apply)
  objective = Diffusion(**{**vars(objective), 'net': Network(lambda key: ({'w': jnp.zeros(())}, {'count': jnp.int32(0)}), apply)})
  variables = objective.init(jax.random.key(0), {})
  context = Context(step=jnp.int32(0), mutable=variables.mutable, ema={}, frozen={})
  output = objective.loss(variables.params, context, _batch(2), jax.random.key(0))
  assert output.mutable == {'net': {'count': 1}}
