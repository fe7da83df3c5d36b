"""Losses and penalties against closed forms, the separation of the two groups, packing and sampling."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from genjax.models.adversarial.dcgan import Dcgan, PointGan
from genjax.nn.functional import Network
from genjax.objectives.base import Context, check_groups, due
from genjax.objectives.gan import LOSSES, Gan, pack
from genjax.training import state as state_lib
from genjax.training import step as step_lib
from genjax.types import UserError

LABELLED = Dcgan(size=8, channels=1, latent=4, generator_width=4, discriminator_width=4, spectral=True, num_classes=3,
                 pack=2)


def linear(width: int) -> Network:
  """A discriminator whose gradient with respect to its input is its weight."""

  def apply(params, mutable, x, label=None, key=None):
    return x @ params['weight'] + params['bias'], mutable

  return Network(lambda key: ({'weight': jnp.arange(1.0, width + 1), 'bias': jnp.zeros(())}, {}), apply)


def points(**options) -> Gan:
  size = options.get('pack', 1)
  model = PointGan(generator_widths=(8,), discriminator_widths=(8,), pieces=2, pack=size)
  return Gan(model.generator(), linear(2 * size), model.latent, kind='point', **options)


def images(**options) -> tuple[Gan, dict]:
  gan = Gan(LABELLED.generator(), LABELLED.discriminator(), LABELLED.latent, num_classes=3, pack=2, **options)
  pixels = jax.random.randint(jax.random.key(7), (8, 8, 8, 1), 0, 256).astype(jnp.uint8)
  return gan, {'image': pixels, 'label': jnp.arange(8) % 3}


def start(gan: Gan, seed: int = 0):
  variables = jax.jit(gan.init)(jax.random.key(seed), {})
  return variables.params, Context(step=jnp.int32(0), mutable=variables.mutable, ema={}, frozen={})


def phase(gan: Gan, name: str):
  return next(phase for phase in gan.phases() if phase.name == name)


def same(a, b) -> bool:
  return all(
    jax.tree.leaves(jax.tree.map(lambda x, y: x.tobytes() == y.tobytes(), jax.device_get(a), jax.device_get(b))))


def test_phases_and_groups():
  gan = points(r1_gamma=1.0, r1_every=4, discriminator_steps=2)
  params, _ = start(gan)
  groups = dict.fromkeys(params)
  check_groups(gan.phases(), params, groups, {'generator': 0.9})
  assert [due(gan.phases(), step) for step in range(4)] == [
    ('discriminator', 'r1', 'generator'), ('discriminator',), ('discriminator', 'generator'), ('discriminator',)]
  assert [phase.name for phase in points().phases()] == ['discriminator', 'generator']


@pytest.mark.parametrize('loss', ['non_saturating', 'wgan_gp'])
def test_each_phase_changes_its_own_mutable_only(loss):
  """Discriminator phase: the generator's statistics stay as they are, bit by bit, and the other way round."""
  gan, batch = images(loss=loss, r1_gamma=1.0)
  params, context = start(gan)

  def mutable_after(name):
    mutable = jax.jit(phase(gan, name).loss)(params, context, batch, jax.random.key(1)).mutable
    return context.mutable if mutable is None else mutable

  discriminator, r1, generator = (mutable_after(name) for name in ('discriminator', 'r1', 'generator'))
  assert same(discriminator['generator'], context.mutable['generator'])
  assert not same(discriminator['discriminator'], context.mutable['discriminator'])
  assert same(r1, context.mutable)
  assert same(generator['discriminator'], context.mutable['discriminator'])
  assert not same(generator['generator'], context.mutable['generator'])


def test_training_the_discriminator_leaves_the_generator_bitwise_unchanged():
  """Through the train step, with the generator due on every third step only."""
  gan, batch = images(discriminator_steps=3, r1_gamma=1.0, r1_every=1)
  optimizers = {group: optax.adam(1e-2) for group in ('generator', 'discriminator')}
  state = state_lib.create(gan, optimizers, {'generator': 0.9}, 0, {})
  run = jax.jit(step_lib.make_step(gan, optimizers, {'generator': 0.9}, 0), static_argnums=3)
  before = run(state, {}, batch, due(gan.phases(), 0))[0]
  after = run(before, {}, batch, due(gan.phases(), 1))[0]
  assert int(after.step) == 2
  for part in ('params', 'mutable', 'opt'):
    assert same(getattr(before, part)['generator'], getattr(after, part)['generator'])
    assert not same(getattr(before, part)['discriminator'], getattr(after, part)['discriminator'])
  assert same(before.ema, after.ema)
  assert not same(state.params['generator'], before.params['generator'])


def test_losses_at_known_logits():
  logit, log2 = jnp.zeros(()), np.log(2.0)
  discriminator, generator = LOSSES['non_saturating']
  np.testing.assert_allclose(discriminator(logit, logit), 2 * log2, rtol=1e-6)
  np.testing.assert_allclose(generator(logit), log2, rtol=1e-6)
  # -log D(real) - log(1 - D(fake)) with D = sigmoid(logit)
  np.testing.assert_allclose(discriminator(jnp.float32(2.0), jnp.float32(-1.0)),
                             -np.log(1 / (1 + np.exp(-2.0))) - np.log(1 - 1 / (1 + np.exp(1.0))), rtol=1e-5)
  discriminator, generator = LOSSES['hinge']
  np.testing.assert_allclose(discriminator(jnp.array([0.0, 2.0, 0.5]), jnp.array([0.0, -2.0, 3.0])), [2.0, 0.0, 4.5])
  np.testing.assert_allclose(generator(jnp.array([3.0, -1.0])), [-3.0, 1.0])
  np.testing.assert_allclose(LOSSES['wgan_gp'][0](jnp.float32(3.0), jnp.float32(1.0)), -2.0)


def test_r1_of_a_linear_discriminator():
  """gamma / 2 |w|^2, times the lazy interval; w = (1, 2, 3, 4) for packs of two points."""
  gan = points(pack=2, r1_gamma=0.5, r1_every=16)
  params, context = start(gan)
  output = phase(gan, 'r1').loss(params, context, {'point': jnp.ones((6, 2))}, jax.random.key(0))
  np.testing.assert_allclose(output.loss, 0.5 * 0.5 * 16 * (1 + 4 + 9 + 16), rtol=1e-6)
  assert output.weight == 6


def test_gradient_penalty_of_a_linear_discriminator():
  """lambda (|w| - 1)^2 + mean fake - mean real."""
  gan = points(loss='wgan_gp', penalty=10.0)
  params, context = start(gan)
  output = phase(gan, 'discriminator').loss(params, context, {'point': jnp.ones((8, 2))}, jax.random.key(0))
  wasserstein = output.metrics['logit_fake'] - output.metrics['logit_real']
  np.testing.assert_allclose(output.loss, wasserstein + 10 * (np.sqrt(5.0) - 1.0)**2, rtol=1e-5)
  np.testing.assert_allclose(output.metrics['logit_real'], 3.0, rtol=1e-6)


def test_pack_joins_neighbours_and_mixes_nothing():
  x = jnp.arange(4 * 2 * 3 * 2).reshape(4, 2, 3, 2)
  packed = pack(x, 2)
  assert packed.shape == (2, 2, 3, 4)
  np.testing.assert_array_equal(packed[1, ..., :2], x[2])
  np.testing.assert_array_equal(packed[1, ..., 2:], x[3])
  np.testing.assert_array_equal(pack(jnp.arange(6).reshape(3, 2), 3), [[0, 1, 2, 3, 4, 5]])
  assert pack(x, 1) is x


def test_pack_needs_a_divisible_batch():
  gan = points(pack=3)
  params, context = start(gan)
  with pytest.raises(UserError, match='multiples of 3, got 8'):
    phase(gan, 'discriminator').loss(params, context, {'point': jnp.ones((8, 2))}, jax.random.key(0))


def test_labels_reach_both_networks():
  gan, batch = images()
  params, context = start(gan)
  other = dict(batch, label=(batch['label'] + 1) % 3)
  for name in ('discriminator', 'generator'):
    loss = jax.jit(phase(gan, name).loss)
    losses = [loss(params, context, columns, jax.random.key(0)).loss for columns in (batch, other)]
    assert losses[0] != losses[1]
  with pytest.raises(UserError, match="needs 'label', got"):
    gan.sample(params, context, jax.random.split(jax.random.key(0), 2), {})


def test_samples_depend_on_their_own_key_and_label_only():
  gan, _ = images()
  params, context = start(gan)
  keys, label = jax.random.split(jax.random.key(3), 5), jnp.array([0, 1, 2, 0, 1])
  sample = jax.jit(gan.sample)
  together = sample(params, context, keys, {'label': label})['image']
  assert together.shape == (5, 8, 8, 1) and together.dtype == jnp.uint8
  apart = jnp.concatenate([sample(params, context, keys[row:row + 1], {'label': label[row:row + 1]})['image']
                           for row in range(5)])
  np.testing.assert_allclose(together.astype(int), apart.astype(int), atol=1)  # rounding to grey levels
  assert len(np.unique(np.asarray(together).reshape(5, -1), axis=0)) == 5


@pytest.mark.parametrize(('distribution', 'low', 'high'), [('normal', -10, -1.5), ('uniform', -1.0, -0.8)])
def test_latent_distributions(distribution, low, high):
  gan = points(distribution=distribution)
  latent = gan._latent(jax.random.key(0), (500,))
  assert latent.shape == (500, 2) and low <= float(jnp.min(latent)) < high
  np.testing.assert_allclose(jnp.mean(latent), 0.0, atol=0.1)


def test_evaluation_is_per_example_and_leaves_out_packs_with_padding():
  gan, batch = images()
  params, context = start(gan)
  values = jax.jit(gan.evaluate)(params, context, dict(batch, mask=jnp.array([1, 1, 1, 1, 1, 0, 0, 0.0])),
                                 jax.random.key(0))
  assert {value.shape for value in values.values()} == {(8,)}
  np.testing.assert_array_equal(values['weight'], [1, 1, 1, 1, 0, 0, 0, 0])
  np.testing.assert_array_equal(values['logit_real'][::2], values['logit_real'][1::2])
  expected = jax.nn.softplus(-values['logit_real']) + jax.nn.softplus(values['logit_fake'])
  np.testing.assert_allclose(values['discriminator_loss'], expected, rtol=1e-6)


def test_gradient_penalties_see_each_sample_alone():
  """A discriminator with batch normalisation in inference mode: the gradient at a row does not depend on other rows."""
  model = Dcgan(size=16, channels=1, latent=2, generator_width=2, discriminator_width=2, pack=2)
  gan = Gan(model.generator(), model.discriminator(), model.latent, pack=2)
  params, context = start(gan)
  assert context.mutable['discriminator']
  real = jax.random.normal(jax.random.key(1), (8, 16, 16, 1))
  penalty = jax.jit(lambda x: gan._square_gradient(params, context.mutable['discriminator'], x, None))
  whole, half = penalty(real), penalty(real[:4])
  np.testing.assert_allclose(whole[:2], half, rtol=1e-4)


@pytest.mark.parametrize(('options', 'message'), [
  (dict(loss='hing'), 'config.objective.loss must be one of'),
  (dict(distribution='cauchy'), 'config.objective.distribution must be one of'),
  (dict(discriminator_steps=0), 'discriminator_steps must be at least 1'),
  (dict(r1_gamma=-1.0), 'must not be negative'),
])
def test_bad_options(options, message):
  with pytest.raises(UserError, match=message):
    dataclasses.replace(points(), **options)


def test_missing_column():
  gan = points()
  params, context = start(gan)
  with pytest.raises(UserError, match="needs the column 'point', the data has"):
    phase(gan, 'discriminator').loss(params, context, {'image': jnp.zeros((2, 8, 8, 1))}, jax.random.key(0))
