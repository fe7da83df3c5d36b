"""Optimizers by name: updates against formulas, options in their ranges."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genjax.training.optimization import directions, optimizers
from genjax.types import UserError, named_leaves, unflatten

GRADIENTS = np.array([[0.3, -5.0, 2.0], [1e-3, 0.0, -0.7], [0.2, 4.0, -0.1]])  # step, entry
START = np.array([1.0, -2.0, 0.5])
WIDE = {'kernel': True, 'bias': False}


def run(name, gradients=GRADIENTS, start=START, **options):
  """The parameter after each update, in the place of a kernel."""
  optimizer = optimizers.make(name, options.pop('lr', 0.1), 10, **options)
  params = {'kernel': jnp.asarray(start, jnp.float32)}
  state, seen = optimizer.init(params), []
  for gradient in gradients:
    updates, state = optimizer.update({'kernel': jnp.asarray(gradient, jnp.float32)}, state, params)
    params = optax.apply_updates(params, updates)
    seen.append(np.asarray(params['kernel'], np.float64))
  return np.stack(seen)


def expected(direction, start=START, gradients=GRADIENTS, lr=0.1, weight_decay=0.0):
  """The same by the formula of a direction (step, gradient, parameter) -> array."""
  parameter, seen = np.array(start, np.float64), []
  for step, gradient in enumerate(gradients, 1):
    parameter = parameter - lr * (direction(step, gradient, parameter) + weight_decay * parameter)
    seen.append(parameter)
  return np.stack(seen)


def moments(b1, b2, eps):
  """Adam's direction."""
  first = second = 0.0

  def direction(step, gradient, parameter):
    nonlocal first, second
    first, second = b1 * first + (1 - b1) * gradient, b2 * second + (1 - b2) * gradient**2
    return first / (1 - b1**step) / (np.sqrt(second / (1 - b2**step)) + eps)

  return direction


def momentum(factor):
  total = 0.0

  def direction(step, gradient, parameter):
    nonlocal total
    total = factor * total + gradient
    return total

  return direction


def signs(b1, b2):
  """Lion's direction (Chen et al. 2023, program 1)."""
  average = 0.0

  def direction(step, gradient, parameter):
    nonlocal average
    result = np.sign(b1 * average + (1 - b1) * gradient)
    average = b2 * average + (1 - b2) * gradient
    return result

  return direction


def unfactored(beta):
  """Adafactor's direction of a vector (Shazeer & Stern 2018, algorithm 5), with a momentum of what it gives."""
  second = average = 0.0

  def direction(step, gradient, parameter):
    nonlocal second, average
    decay = 1 - step**-0.8
    second = decay * second + (1 - decay) * (gradient**2 + 1e-30)
    update = gradient / np.sqrt(second)
    update = update / max(1.0, math.sqrt(np.mean(update**2)))
    average = beta * average + (1 - beta) * update * max(1e-3, math.sqrt(np.mean(parameter**2)))
    return average

  return direction


def maxima(beta):
  """SM3's direction of a vector, which is Adagrad's, with a momentum of what it gives."""
  total = average = 0.0

  def direction(step, gradient, parameter):
    nonlocal total, average
    total = total + gradient**2
    average = beta * average + (1 - beta) * np.where(total > 0, gradient / np.sqrt(total + 1e-8), 0.0)
    return average

  return direction


@pytest.mark.parametrize(('name', 'options', 'direction'), [
  ('adam', {}, moments(0.9, 0.999, 1e-8)), ('adam', dict(b1=0.5, b2=0.9, eps=1e-3), moments(0.5, 0.9, 1e-3)),
  ('adamw', dict(weight_decay=0.1), moments(0.9, 0.999, 1e-8)),
  ('sgd', {}, momentum(0.0)), ('sgd', dict(momentum=0.9, weight_decay=0.1), momentum(0.9)),
  ('rmsprop', {}, moments(0.0, 0.999, 1e-8)), ('rmsprop', dict(b2=0.9, eps=1e-2), moments(0.0, 0.9, 1e-2)),
  ('lion', dict(weight_decay=0.1), signs(0.9, 0.99)), ('lion', dict(b1=0.95, b2=0.98), signs(0.95, 0.98)),
  ('adafactor', dict(weight_decay=0.1), unfactored(0.0)), ('adafactor', dict(momentum=0.9), unfactored(0.9)),
  ('sm3', dict(weight_decay=0.1), maxima(0.9))])
def test_updates_are_those_of_the_papers(name, options, direction):
  right = expected(direction, weight_decay=options.get('weight_decay', 0.0))
  np.testing.assert_allclose(run(name, **options), right, rtol=2e-5)


def test_b2_of_adam_changes():
  """By a cosine over two updates from 0.5 to 0.9; the correction is that of the present b2."""
  seen = run('adam', b1=0.0, b2=0.5, b2_end=0.9, b2_steps=2, eps=1e-30)
  second, expected, value = np.zeros(3), [], START
  for step, (gradient, b2) in enumerate(zip(GRADIENTS, (0.5, 0.7, 0.9))):
    second = b2 * second + (1 - b2) * gradient**2
    value = value - 0.1 * gradient / (np.sqrt(second / (1 - b2 ** (step + 1))) + 1e-30)
    expected.append(value)
  np.testing.assert_allclose(seen, expected, rtol=1e-5)


def test_factored_moments_are_those_of_optax():
  gradients, start = np.random.default_rng(0).normal(size=(3, 6, 8)), np.random.default_rng(1).normal(size=(6, 8))
  reference, params = optax.adafactor(0.1, min_dim_size_to_factor=4), {'kernel': jnp.asarray(start, jnp.float32)}
  state = reference.init(params)
  for gradient in gradients:
    updates, state = reference.update({'kernel': jnp.asarray(gradient, jnp.float32)}, state, params)
    params = optax.apply_updates(params, updates)
  np.testing.assert_allclose(run('adafactor', gradients, start, factor_from=4)[-1], params['kernel'], rtol=1e-5)


@pytest.mark.parametrize('name', ['adamw', 'lion', 'sgd', 'adafactor', 'sm3', 'muon', 'schedule_free'])
def test_weight_decay_is_decoupled_and_multiplied_by_the_rate(name):
  options = {'momentum': 0.9} if name in ('sgd', 'adafactor', 'muon') else {}
  shape = (2, 2)
  seen = run(name, np.zeros((10, *shape)), np.ones(shape), lr=1e-4, weight_decay=0.1, **options)
  z = (1 - 1e-4 * 0.1) ** np.arange(1, 11)
  x = np.cumsum(z) / np.arange(1, 11)  # schedule-free averages z evenly at a constant rate
  # Its decay is of y, the point between z and x where gradients are taken.
  right = 0.1 * z + 0.9 * x if name == 'schedule_free' else z
  np.testing.assert_allclose(seen, np.broadcast_to(right[:, None, None], seen.shape), rtol=2e-6)
  if name == 'adafactor':
    np.testing.assert_allclose(seen[-1], 0.9999, rtol=1e-6)


def test_weight_decay_leaves_biases_alone():
  optimizer = optimizers.make('adamw', 0.1, 10, weight_decay=0.5)
  params = {'layer': {'kernel': jnp.ones(2), 'bias': jnp.ones(2)}}
  zero = {'layer': {'kernel': jnp.zeros(2), 'bias': jnp.zeros(2)}}
  updates, _ = optimizer.update(zero, optimizer.init(params), params)
  np.testing.assert_allclose(updates['layer']['kernel'], -0.05, rtol=1e-6)
  np.testing.assert_allclose(updates['layer']['bias'], 0.0)


def test_clipping_limits_the_norm_of_the_group():
  optimizer = optimizers.make('sgd', 1.0, 10, clip=1.0)
  params = {'a': jnp.zeros(1), 'b': jnp.zeros(1)}
  updates, _ = optimizer.update({'a': jnp.array([3.0]), 'b': jnp.array([4.0])}, optimizer.init(params), params)
  assert float(optax.tree.norm(updates)) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize(('name', 'make'), [
  ('adam', optax.adam), ('adamw', lambda rate: optax.adamw(rate, mask=WIDE)),
  ('lion', lambda rate: optax.lion(rate, mask=WIDE)),
  ('sgd', lambda rate: optax.chain(optax.add_decayed_weights(0.0, WIDE), optax.sgd(rate)))])
def test_states_are_those_that_checkpoints_hold(name, make):
  params = {'kernel': jnp.ones((2, 2)), 'bias': jnp.ones(2)}
  reference = optax.chain(optax.clip_by_global_norm(1.0), make(optax.constant_schedule(0.1)))
  state = optimizers.make(name, 0.1, 10, clip=1.0).init(params)
  assert jax.tree.structure(state) == jax.tree.structure(reference.init(params))


def test_scalars_have_a_second_moment_too():
  assert run('sm3', np.array([0.5, 0.5]), np.array(1.0), momentum=0.0)[0] == pytest.approx(0.9, rel=1e-5)


def test_schedules():
  rate = optimizers.learning_rate(1.0, 110, 10, 'cosine', 0.1)
  assert [round(float(rate(step)), 4) for step in (0, 4, 9, 10, 60, 110)] == [0.1, 0.5, 1.0, 1.0, 0.55, 0.1]
  rate = optimizers.learning_rate(2.0, 100, 0, 'linear', 0.0)
  assert [float(rate(step)) for step in (0, 50, 100)] == [2.0, 1.0, 0.0]
  assert float(optimizers.learning_rate(3.0, 100, 0, 'constant', 0.0)(99)) == 3.0
  rate, = optimizers.from_config({'net': dict(name='sgd', lr=2.0, schedule='drop', end=0.25, drop_at=0.75, warmup=4)},
                                 44)['net'].rates.values()
  assert [float(rate(step)) for step in (0, 4, 33, 34, 44)] == [0.5, 2.0, 2.0, 0.5, 0.5]
  rate, = optimizers.from_config({'net': dict(name='sgd', lr=2.0, schedule='constant_linear', decay_at=0.25, end=0.5,
                                              warmup=4)}, 44)['net'].rates.values()
  assert [float(rate(step)) for step in (0, 4, 14, 29, 44)] == [0.5, 2.0, 2.0, 1.5, 1.0]


def test_constant_then_linear_is_the_schedule_of_pix2pix():
  """The rule of its published code, epoch by epoch: 1 - max(0, epochs - 100) / 100 with 100 + 100 epochs."""
  rate = optimizers.learning_rate(2e-4, 200, 0, 'constant_linear', 0.0)
  epochs = np.arange(200)
  np.testing.assert_allclose([float(rate(epoch)) for epoch in epochs],
                             2e-4 * (1 - np.maximum(0, epochs - 100) / 100), rtol=1e-5)
  for share, last in ((0.0, 1.0), (1.0, 2.0)):  # linear from the start, and constant to the end
    rate = optimizers.learning_rate(2.0, 10, 0, 'constant_linear', 0.0, decay_at=share)
    assert (float(rate(0)), float(rate(5)), float(rate(9))) == (2.0, last, pytest.approx(0.2 if share == 0 else 2.0))


def test_schedule_free_learning_evaluates_the_weighted_average_of_its_own_sequence():
  """Defazio et al. 2024, with a warm-up: the weight of a step is the square of the largest rate so far."""
  optimizer = optimizers.make('schedule_free', 0.1, 10, warmup=3, b1=0.8, b2=0.9)
  params = {'layer': {'kernel': jnp.asarray(START, jnp.float32)}}
  state, z, x, second, total = optimizer.init(params), START, START, 0.0, 0.0
  for step, gradient in enumerate(np.concatenate([GRADIENTS, GRADIENTS]), 1):
    rate = 0.1 * min(1.0, step / 3)
    second = 0.9 * second + 0.1 * gradient**2
    z = z - rate * gradient / (np.sqrt(second / (1 - 0.9**step)) + 1e-8)
    total += rate**2
    x = x + rate**2 / total * (z - x)
    updates, state = optimizer.update({'layer': {'kernel': jnp.asarray(gradient, jnp.float32)}}, state, params)
    params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params['layer']['kernel'], 0.2 * z + 0.8 * x, rtol=1e-4)
    np.testing.assert_allclose(directions.evaluated(state, params)['layer']['kernel'], x, rtol=1e-4)


def test_other_optimizers_evaluate_what_they_train():
  optimizer, params = optimizers.make('adam', 0.1, 10), {'kernel': jnp.ones(3)}
  assert directions.evaluated(optimizer.init(params), params) is params


def orthogonal(matrix):
  """Muon's five Newton-Schulz iterations (Jordan et al. 2024)."""
  x = matrix / (np.linalg.norm(matrix) + 1e-8)
  x = x.T if matrix.shape[0] > matrix.shape[1] else x
  for _ in range(5):
    gram = x @ x.T
    x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
  return x.T if matrix.shape[0] > matrix.shape[1] else x


@pytest.mark.parametrize('rms', [0.2, 0.0])
def test_muon_makes_every_matrix_of_a_stack_orthogonal(rms):
  matrices = {'blocks/attention/query/kernel': (2, 4, 6), 'blocks/experts/up_kernel': (2, 3, 6, 4),
              'dense/kernel': (5, 7), 'middle/conv/kernel': (3, 3, 2, 5), 'stages/1/conv/kernel': (2, 3, 3, 2, 5)}
  others = {'blocks/attention/query/bias': (2, 6), 'embedding/token/embedding': (9, 4), 'head/out/kernel': (4, 9)}
  draw = np.random.default_rng(0)
  gradients = {name: draw.normal(size=shape) for name, shape in {**matrices, **others}.items()}
  params = unflatten({name: jnp.zeros(value.shape) for name, value in gradients.items()})
  optimizer = optimizers.make('muon', 0.1, 10, rms=rms)
  single = unflatten({name: jnp.asarray(value, jnp.float32) for name, value in gradients.items()})
  updates = named_leaves(optimizer.update(single, optimizer.init(params), params)[0])

  def matrix(gradient):
    inputs, outputs = gradient.shape
    size = rms * math.sqrt(max(inputs, outputs)) if rms else math.sqrt(max(1, outputs / inputs))
    return -0.1 * size * orthogonal(gradient)

  def each(gradient, last):
    """Of each matrix of an array whose last axes, flattened to inputs and outputs, are one."""
    lead = gradient.shape[:gradient.ndim - last]
    flat = gradient.reshape(-1, math.prod(gradient.shape[gradient.ndim - last:-1]), gradient.shape[-1])
    return np.stack([matrix(part) for part in flat]).reshape(*lead, *gradient.shape[gradient.ndim - last:])

  for name in matrices:
    right = each(gradients[name], 4 if 'conv' in name else 2)
    np.testing.assert_allclose(updates[name], right, rtol=2e-3, atol=2e-5, err_msg=name)
  # What is no matrix, and the ends of the network, are Adam's, whose first update is the rate.
  for name in others:
    np.testing.assert_allclose(np.abs(updates[name]), 0.1, rtol=1e-3, err_msg=name)


@pytest.mark.parametrize(('options', 'words'), [
  (dict(name='adamm'), 'adamm'), (dict(name=3), 'name'), (dict(schedule='step'), 'step'),
  (dict(warmup=11), 'warmup'), (dict(wd=1.0), 'wd'), (dict(weight_decay=0.1), 'adamw'),
  (dict(momentum=0.9), 'adam has no option .momentum'), (dict(name='sgd', b1=0.9), 'b1'),
  (dict(name='sgd', eps=1e-8), 'eps'), (dict(name='lion', eps=1e-8), 'eps'), (dict(name='adafactor', b2=0.9), 'b2'),
  (dict(name='rmsprop', momentum=0.9), 'momentum'), (dict(name='sm3', b2=0.9), 'b2'),
  (dict(name='schedule_free', momentum=0.9), 'momentum'),
  (dict(name='schedule_free', schedule='cosine'), 'schedule'), (dict(name='schedule_free', b1=0.0), 'b1'),
  (dict(clip=-1.0), r'\.clip'), (dict(clip=float('inf')), r'\.clip'), (dict(lr=-0.1), r'\.lr'),
  (dict(lr=float('nan')), r'\.lr'), (dict(lr=True), r'\.lr'), (dict(lr='0.1'), r'\.lr'), (dict(lr=None), r'\.lr'),
  (dict(lr=1e39), r'\.lr'), (dict(b1=1.0), r'\.b1'), (dict(b1=-0.1), r'\.b1'), (dict(b2=1.5), r'\.b2'),
  (dict(b2=1 - 1e-9), r'\.b2'), (dict(eps=-1e-8), r'\.eps'), (dict(eps=0.0), r'\.eps'),
  (dict(eps=float('inf')), r'\.eps'), (dict(name='adamw', weight_decay=-0.1), r'\.weight_decay'),
  (dict(name='adamw', weight_decay=float('nan')), r'\.weight_decay'),
  (dict(name='sgd', momentum=1.0), r'\.momentum'), (dict(name='sgd', momentum=-0.5), r'\.momentum'),
  (dict(warmup=-1), r'\.warmup'), (dict(warmup=1.5), r'\.warmup'), (dict(warmup=True), r'\.warmup'),
  (dict(end=-0.1), r'\.end'), (dict(end=2.0), r'\.end'), (dict(end=float('nan')), r'\.end'),
  (dict(decay_at=-0.5), r'\.decay_at'),
  (dict(drop_at=1.5), r'\.drop_at'), (dict(schedule=3), 'schedule'), (dict(name='adamw', decay='('), r'\.decay'),
  (dict(name='adamw', decay=3), r'\.decay'), (dict(name='muon', rms=-1.0), r'\.rms'),
  (dict(name='adafactor', factor_from=1.5), r'\.factor_from')])
def test_bad_options_name_the_config_key(options, words):
  with pytest.raises(UserError, match=f'config.optimizers.net.*{words}'):
    optimizers.from_config({'net': {'name': 'adam', 'lr': 0.1, **options}}, 10)


def test_what_every_optimizer_needs():
  with pytest.raises(UserError, match=r"config.optimizers.net lacks \['name', 'lr'\]"):
    optimizers.from_config({'net': {}}, 10)


def test_muon_without_a_matrix_is_refused():
  optimizer = optimizers.from_config({'net': dict(name='muon', lr=0.1)}, 10)['net']
  with pytest.raises(UserError, match='config.optimizers.net: muon finds no matrix among head/kernel, layer/bias'):
    optimizer.init({'layer': {'bias': jnp.ones(2)}, 'head': {'kernel': jnp.ones((2, 2))}})
