"""The diffusion objective with networks whose losses and samples are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.diffusion import conditioning, parameterizations, samplers, schedules, weightings
from genjax.nn.functional import Network
from genjax.objectives.base import Context
from genjax.objectives.codecs import identity, pixels
from genjax.objectives.diffusion import Diffusion, Sampler
from genjax.types import UserError

SHAPE = (2, 3, 1)
PLAIN = identity()
LABELS = {'label': conditioning.classes(3)}


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


def _zero(params, mutable, x, time, given, key=None):
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

  def perfect(params, mutable, x, time, given, key=None):
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

  def record(params, mutable, x, time, given, key=None):
    seen.append(given)
    return 0 * x, mutable

  objective = _objective(record, conditioners={'label': conditioning.classes(3, 0.25)})
  batch = _batch(4000)
  objective.loss(_variables(objective), _context(), batch, jax.random.key(0))
  label = np.asarray(seen[0]['label'])
  assert np.mean(label == 3) == pytest.approx(0.25, abs=0.03)
  assert (label[label != 3] == np.asarray(batch['label'])[label != 3]).all()
  objective.evaluate(_variables(objective), _context(), _batch(6), jax.random.key(0))
  assert len(seen) == 2  # a scan traces the network once
  without = _objective(record)
  without.loss(_variables(without), _context(), batch, jax.random.key(0))
  assert seen[2] == {}


def test_evaluation_is_per_example_and_averages_over_stratified_times():
  def time_only(params, mutable, x, time, given, key=None):
    # Predicts x0 and is wrong by the time: its error is t^2.
    return jnp.broadcast_to(time[:, None, None, None] / 1000, x.shape), mutable

  objective = _objective(time_only, parameterization='x0', evaluation_times=4)
  values = objective.evaluate(_variables(objective), _context(), {'image': jnp.zeros((5, *SHAPE))}, jax.random.key(0))
  np.testing.assert_allclose(values['loss'], np.full(5, np.mean((np.array([1, 3, 5, 7]) / 8) ** 2)), rtol=1e-5)


def test_training_times_come_from_the_given_distribution():
  seen = []

  def record(params, mutable, x, time, given, key=None):
    seen.append(time / 1000)
    return 0 * x, mutable

  objective = _objective(record, quantile=schedules.logit_normal(1.0, 0.5))
  objective.loss(_variables(objective), _context(), _batch(512), jax.random.key(0))
  assert jnp.mean(jax.scipy.special.logit(seen[0])) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize('method', ['euler', 'ancestral', 'dpmpp_2m'])
def test_rows_of_samples_depend_on_their_key_and_label_only(method):
  def denoiser(params, mutable, x, time, given, key=None):
    return jnp.tanh(x) * time[:, None, None, None] / 1000 + given['label'][:, None, None, None], mutable

  objective = _objective(denoiser, method=method, conditioners=LABELS, guidance=2.0)
  keys, labels = jax.random.split(jax.random.key(0), 4), jnp.array([0, 1, 2, 0])
  sample = lambda rows: objective.sample(_variables(objective), _context(), keys[rows], {'label': labels[rows]})['image'
                                                                                                                ]
  whole = sample(slice(None))
  np.testing.assert_allclose(whole, jnp.concatenate([sample(slice(0, 2)), sample(slice(2, 4))]), atol=1e-5)
  assert whole.shape == (4, *SHAPE) and len(np.unique(np.asarray(whole)[:, 0, 0, 0])) == 4


def test_clipping_bounds_the_estimate_of_the_data():
  far = lambda params, mutable, x, time, given, key=None: (jnp.full_like(x, 7.0), mutable)
  for clip, expected in ((0.0, 7.0), (1.0, 1.0)):
    objective = _objective(far, parameterization='x0', clip=clip)
    sampled = objective.sample(_variables(objective), _context(), jax.random.split(jax.random.key(0), 2), {})['image']
    np.testing.assert_allclose(sampled, expected, rtol=1e-6)


def _learned(apply, parameterization='epsilon', method='ancestral', **options):
  process = schedules.vp_linear()
  net = Network(lambda key: ({'w': jnp.ones(()), 'raw': jnp.zeros(())}, {}), apply)
  keywords = {'variance': 'learned'} if method == 'ancestral' else {}
  sampler = Sampler(functools.partial(samplers.SAMPLERS[method], **keywords),
                    tuple(schedules.sampling_times(process, 20).tolist()), learned=method == 'ancestral',
                    clip=options.pop('clip', 0.0), guidance=options.pop('guidance', 1.0))
  return Diffusion(net, SHAPE, process, parameterizations.PARAMETERIZATIONS[parameterization](), sampler,
                   learned_variance=True, **{'codec': PLAIN, **options})


def _halves(params, mutable, x, time, given, key=None):
  return jnp.concatenate([params['w'] * 0.1 * x, jnp.zeros_like(x) + params['raw']], axis=-1), mutable


@pytest.mark.parametrize('parameterization', ['epsilon', 'x0', 'v'])
def test_the_variance_learns_from_the_bound_and_the_prediction_does_not(parameterization):
  objective, batch = _learned(_halves, parameterization), _batch(64)
  plain = lambda params, mutable, x, time, given, key=None: (params['w'] * 0.1 * x, mutable)
  simple = _objective(plain, 'vp_linear', parameterization)
  params = {'net': {'w': jnp.float32(1.0), 'raw': jnp.float32(0.3)}}
  loss = lambda objective: lambda params: objective.loss(params, _context(), batch, jax.random.key(1))

  def compiled(objective):
    return jax.jit(jax.value_and_grad(lambda params: (loss(objective)(params).loss, loss(objective)(params)),
                                      has_aux=True))(params)

  ((_, output), gradient), ((_, error), alone) = compiled(objective), compiled(simple)
  gradient, alone = gradient['net'], alone['net']
  assert gradient['w'] == pytest.approx(float(alone['w']), rel=1e-5) and gradient['w'] != 0
  assert gradient['raw'] != 0
  assert output.metrics['error'] == pytest.approx(float(error.loss), rel=1e-5)
  assert output.loss == pytest.approx(float(output.metrics['error'] + output.metrics['bound']), rel=1e-5)  # 1000 steps
  values = [jax.jit(one.evaluate)(params, _context(), batch, jax.random.key(0))['loss'] for one in (objective, simple)]
  np.testing.assert_allclose(*values, rtol=1e-5)


@pytest.mark.parametrize('method, options', [('ancestral', dict(conditioners=LABELS, guidance=2.0, clip=1.0)),
                                             ('ancestral', {}), ('ddim', dict(clip=1.0))])
def test_sampling_a_learned_variance(method, options):
  objective = _learned(_halves, 'v', method, **options)
  params, keys = objective.init(jax.random.key(0), {}).params, jax.random.split(jax.random.key(1), 4)
  sample = jax.jit(lambda raw: objective.sample({'net': {**params['net'], 'raw': jnp.float32(raw)}}, _context(), keys,
                                                {'label': jnp.arange(4) % 3})['image'])
  assert sample(0.0).shape == (4, *SHAPE) and jnp.isfinite(sample(0.0)).all()
  assert (sample(-1.0) != sample(1.0)).any() == (method == 'ancestral')


def test_objectives_that_cannot_be_are_refused():
  with pytest.raises(UserError, match="'epsilon' gives no estimate"):
    _objective(_zero, 'flow', 'epsilon')
  with pytest.raises(UserError, match='learn_sigma=True learns the variances'):
    Diffusion(**{**vars(_objective(_zero)), 'learned_variance': True})
  with pytest.raises(UserError, match='variance="learned" needs a model trained with'):
    Diffusion(**{**vars(_learned(_halves)), 'learned_variance': False})


def test_weights_change_the_loss_and_not_the_evaluation():
  weighted = dict(weighting=weightings.min_snr())
  objective, plain = (_objective(_zero, 'vp_linear', 'v', **options) for options in (weighted, {}))
  params, batch = _variables(plain), _batch(4000)
  t = jnp.arange(1.0, 1001.0)
  snr = (plain.process.alpha(t) / plain.process.sigma(t)) ** 2
  expected = jnp.mean(jnp.minimum(snr, 5) / (snr + 1))  # the target has unit power at every time
  assert objective.loss(params, _context(), batch, jax.random.key(1)).loss == pytest.approx(float(expected), rel=0.05)
  values = [one.evaluate(params, _context(), batch, jax.random.key(0))['loss'] for one in (objective, plain)]
  np.testing.assert_array_equal(*values)


def test_sampling_begins_at_the_first_time_of_the_sampler():
  objective = _objective(lambda params, mutable, x, time, given, key=None: (0 * x, mutable), 'edm', 'velocity')
  times = schedules.sampling_times(objective.process, 1, sigma_max=3.0)
  objective = Diffusion(**{**vars(objective), 'sampler': Sampler(samplers.euler, tuple(times.tolist()))})
  keys = jax.random.split(jax.random.key(0), 500)  # the velocity 0 leaves x where it began
  assert jnp.std(objective.sample(_variables(objective), _context(), keys, {})['image']) == pytest.approx(3.0, rel=0.05)


def test_guidance_keeps_to_an_interval_of_noise_levels():
  seen = []

  def record(params, mutable, x, time, given, key=None):
    jax.debug.callback(lambda time: seen.append((time.shape[0], float(time[0]) / 1000)), time)
    return 0 * x, mutable

  objective = _objective(record, conditioners=LABELS, guidance=2.0)
  sampler = Sampler(objective.sampler.method, objective.sampler.times, guidance=2.0, interval=(0.5, 2.0))
  objective = Diffusion(**{**vars(objective), 'sampler': sampler})
  keys = jax.random.split(jax.random.key(0), 2)
  jax.block_until_ready(objective.sample(_variables(objective), _context(), keys, {'label': jnp.array([0, 1])}))
  jax.effects_barrier()
  guided = sorted(t for rows, t in seen if rows == 4)
  assert guided == pytest.approx([0.375, 0.5, 0.625]) and len(seen) == 8  # t / (1 - t) of 0.6, 1 and 1.67


def test_pixels_map_bytes_to_a_symmetric_interval_and_back():
  codec = pixels()
  image = jnp.arange(256, dtype=jnp.uint8).reshape(1, 16, 16, 1)
  x = codec.encode({}, {'image': image}, None)
  assert x.dtype == jnp.float32 and x.min() == -1 and x.max() == 1
  np.testing.assert_array_equal(codec.decode({}, x)['image'], image)
  np.testing.assert_array_equal(codec.decode({}, jnp.array([-3.0, 3.0]))['image'], [0, 255])


def test_network_state_is_passed_on():
  apply = lambda params, mutable, x, time, given, key=None: (0 * x, {'count': mutable['count'] + 1})
  objective = _objective(apply)
  objective = Diffusion(
    **{**vars(objective), 'net': Network(lambda key: ({'w': jnp.zeros(())}, {'count': jnp.int32(0)}), apply)})
  variables = objective.init(jax.random.key(0), {})
  context = Context(step=jnp.int32(0), mutable=variables.mutable, ema={}, frozen={})
  output = objective.loss(variables.params, context, _batch(2), jax.random.key(0))
  assert output.mutable == {'net': {'count': 1}}
