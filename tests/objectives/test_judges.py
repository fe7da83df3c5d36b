"""A critic and a perceptual distance beside pixels: weights, gradients, and when they begin."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genjax.nn.functional import Network
from genjax.objectives.autoencoder import KlAutoencoder
from genjax.objectives.base import Context, check_groups, due
from genjax.objectives.judges import Judges
from genjax.objectives.kinds import Perceptual
from genjax.training import state as state_lib
from genjax.training import step as step_lib
from genjax.types import UserError

IMAGE = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 1)).astype(np.uint8)
BATCH = {'image': IMAGE}


def encode(params, mutable, x, key=None):
  z = x * params['scale']
  return (z, jnp.full_like(z, -30.0)), mutable


def decode(params, mutable, z, key=None, part='all'):
  hidden = z if part == 'last' else jnp.concatenate([z, jnp.tanh(params['inner'] * z)], -1)
  return (hidden if part == 'hidden' else hidden @ params['last']['kernel']), mutable


def judge(params, mutable, x, key=None):
  """Logits 4 x 4, and a count of the calls in training."""
  return params['scale'] * x[..., 0] + params['shift'], {'calls': mutable['calls'] + (key is not None)}


ENCODER = Network(lambda key: ({'scale': jnp.float32(0.9)}, {}), encode)
DECODER = Network(lambda key: ({'inner': jnp.float32(0.7), 'last': {'kernel': jnp.array([[0.8], [0.3]])}}, {}), decode)
CRITIC = Network(lambda key: ({'scale': jnp.float32(2.0), 'shift': jnp.float32(0.1)}, {'calls': jnp.float32(0)}), judge)
APART = Perceptual(None, distance=lambda group, a, b: jnp.zeros(len(a)),
                   loss=lambda group, a, b: group['factor'] * jnp.mean((a - b) ** 4, (1, 2, 3)))
FROZEN = {'perceptual': {'factor': jnp.float32(3.0)}}


def objective(judges=None, **options):
  return KlAutoencoder(ENCODER, DECODER, (4, 4, 1), kl_weight=0.0, judges=judges or Judges(), **options)


def started(made, step=0):
  variables = made.init(jax.random.key(0), {})
  return variables.params, Context(step=jnp.int32(step), mutable=variables.mutable, ema={}, frozen=FROZEN)


def of_params(made, context):
  return jax.jit(jax.value_and_grad(lambda params: made.loss(params, context, BATCH, jax.random.key(1)).loss))


@pytest.mark.parametrize('reconstruction', ['l1', 'laplace'])
@pytest.mark.parametrize('perceptual', [None, APART])
def test_the_adaptive_weight_balances_the_gradients_of_the_last_layer(reconstruction, perceptual):
  """Against the formula: |d error / d kernel| over |d term / d kernel|, and a loss with that weight as a constant."""
  weight = {} if perceptual is None else dict(perceptual_weight=2.0)
  made = objective(Judges(CRITIC, perceptual, critic_weight=0.5, **weight), reconstruction=reconstruction)
  params, context = started(made)
  if reconstruction == 'laplace':
    params['net']['log_scale'] = jnp.float32(-0.7)

  def terms(params):
    out = made.forward(params, context, BATCH, jax.random.key(1))
    distance = None if perceptual is None else 2.0 * APART.loss(FROZEN['perceptual'], out.out_BHWC, out.x_BHWC)
    error = jnp.mean(made.error(params, out.out_BHWC, out.x_BHWC, distance))
    return error, -jnp.mean(CRITIC.apply(params['critic'], {'calls': 0}, out.out_BHWC)[0])

  def plain(params):
    kernel = lambda slopes: jnp.linalg.norm(slopes['net']['decoder']['last']['kernel'])
    norms = [kernel(jax.grad(lambda params: terms(params)[index])(params)) for index in (0, 1)]
    weight = jax.lax.stop_gradient(0.5 * norms[0] / (norms[1] + 1e-4))
    error, term = terms(params)
    return error + weight * term

  wanted, wanted_slope = jax.jit(jax.value_and_grad(plain))(params)
  loss, slope = of_params(made, context)(params)
  assert float(loss) == pytest.approx(float(wanted), rel=1e-5)
  for name in ('encoder', 'decoder', *(('log_scale',) if reconstruction == 'laplace' else ())):
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-7),
                 slope['net'][name], wanted_slope['net'][name])
  output = jax.jit(made.loss)(params, context, BATCH, jax.random.key(1))
  assert float(output.metrics['critic_weight']) > 0 and ('perceptual' in output.metrics) == (perceptual is not None)


def test_the_adaptive_weight_has_a_bound():
  made = objective(Judges(CRITIC, critic_weight=0.5, adaptive_most=0.1))
  params, context = started(made)
  metrics = jax.jit(made.loss)(params, context, BATCH, jax.random.key(1)).metrics
  assert float(metrics['critic_weight']) == pytest.approx(0.05)


def test_a_constant_weight():
  plain, judged = objective(), objective(Judges(CRITIC, critic_weight=0.3, adaptive=False))
  params, context = started(judged)
  output = judged.loss(params, context, BATCH, jax.random.key(1))
  error = plain.loss({'net': params['net']}, context, BATCH, jax.random.key(1)).loss
  assert float(output.loss) == pytest.approx(float(error + 0.3 * output.metrics['adversarial']), rel=1e-5)


def test_a_late_critic_changes_nothing_before():
  made = objective(Judges(CRITIC, critic_start=5))
  assert [due(made.phases(), step) for step in (0, 4, 5, 6)] == [
    ('autoencoder',), ('autoencoder',), ('autoencoder', 'critic'), ('autoencoder', 'critic')]
  params, context = started(made, step=4)
  early, early_slope = of_params(made, context)(params)
  plain, plain_slope = of_params(objective(), context)({'net': params['net']})
  assert float(early) == float(plain)
  jax.tree.map(np.testing.assert_array_equal, early_slope['net'], plain_slope['net'])
  late, _ = of_params(made, context.replace(step=jnp.int32(5)))(params)
  assert float(late) != float(early)


@pytest.mark.parametrize(('name', 'expected'), [
  ('hinge', lambda real, fake: 0.5 * np.mean(np.maximum(0, 1 - real) + np.maximum(0, 1 + fake))),
  ('vanilla', lambda real, fake: 0.5 * np.mean(np.logaddexp(0, -real) + np.logaddexp(0, fake)))])
def test_losses_of_the_critic(name, expected):
  made = objective(Judges(CRITIC, critic_loss=name))
  params, context = started(made)
  output = made.phases()[1].loss(params, context, BATCH, jax.random.key(1))
  passed = made.forward(params, context, BATCH, jax.random.key(1))
  real, fake = (2.0 * np.asarray(x) + 0.1 for x in (passed.x_BHWC, passed.out_BHWC))
  assert float(output.loss) == pytest.approx(expected(real, fake), rel=1e-4)
  assert float(output.mutable['critic']['calls']) == 2 and output.weight == 6
  generator = made.loss(params, context, BATCH, jax.random.key(1))
  assert float(generator.metrics['adversarial']) == pytest.approx(-fake.mean(), rel=1e-3)
  assert float(generator.mutable['critic']['calls']) == 0  # only its own phase changes it


def test_each_phase_trains_its_own_group():
  made = objective(Judges(CRITIC, critic_start=1))
  optimizers = {'net': optax.adam(1e-2), 'critic': optax.adam(1e-2)}
  check_groups(made.phases(), started(made)[0], optimizers, {'net': 0.9})
  state = state_lib.create(made, optimizers, {'net': 0.9}, 0, {})
  step = jax.jit(step_lib.make_step(made, optimizers, {'net': 0.9}, 0), static_argnums=3)
  one, _ = step(state, FROZEN, BATCH, due(made.phases(), 0))
  two, metrics = step(one, FROZEN, BATCH, due(made.phases(), 1))
  same = lambda a, b: all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))
  assert same(state.params['critic'], one.params['critic']) and same(state.opt['critic'], one.opt['critic'])
  assert not same(one.params['critic'], two.params['critic']) and not same(state.params['net'], one.params['net'])
  assert {'critic/loss', 'critic/logit_real', 'autoencoder/adversarial'} <= set(metrics)


def test_evaluation_has_the_distance_without_its_weight():
  made = objective(Judges(perceptual=APART, perceptual_weight=0.5))
  params, context = started(made)
  values = made.evaluate(params, context, BATCH, jax.random.key(0))
  assert values['perceptual'].shape == (6,)
  np.testing.assert_allclose(values['loss'], values['l1'] + 0.5 * values['perceptual'], rtol=1e-4)


@pytest.mark.parametrize(('options', 'match'), [
  (dict(critic_loss='wgan'), r'config.objective.critic_loss must be one of'), (dict(critic_start=-1), 'critic_start'),
  (dict(perceptual_weight=-1.0), 'perceptual_weight'),
  (dict(critic_weight=0.3), 'critic_weight=0.3 has no effect without a critic'),
  (dict(perceptual_weight=0.3), 'perceptual_weight=0.3 has no effect without a distance'),
  (dict(perceptual=dataclasses.replace(APART, loss=None)), 'only measures, and a loss needs gradients')])
def test_bad_options(options, match):
  with pytest.raises(UserError, match=match):
    Judges(**options)
