"""What GANs add to their losses, on critics whose gradients are known in closed form."""

import dataclasses

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from genjax.nn.conv import Dense
from genjax.nn.functional import Network, network
from genjax.objectives.augmentation import Adaptive, Fixed
from genjax.objectives.base import Context
from genjax.objectives.gan import Gan
from genjax.objectives.gan_losses import LOSSES, RELATIVE, crowding, margins, signs
from genjax.objectives.pixels import blurred
from genjax.types import UserError

RANDOM = np.random.default_rng(0)
A, B = RANDOM.normal(size=(3, 3)).astype(np.float32), RANDOM.normal(size=3).astype(np.float32)
REAL, SHIFT = RANDOM.normal(size=(8, 3)).astype(np.float32), np.float32([0.5, -1.0, 2.0])
KEY = jax.random.key(4)


def quadratic():
  """x^T A x / 2 + b x; its features are x and 2 x."""

  def apply(params, mutable, x, label=None, key=None, part=''):
    flat = x.reshape(len(x), -1)
    logit = 0.5 * jnp.einsum('bi,ij,bj->b', flat, params['a'], flat) + flat @ params['b']
    return ((logit, (x, 2.0 * x)) if part else logit), mutable

  return Network(lambda key: ({'a': A, 'b': B}, {}), apply)


def shifted():
  """Latents, moved."""

  def apply(params, mutable, latent, label=None, key=None):
    return latent + params['shift'], mutable

  return Network(lambda key: ({'shift': SHIFT}, {}), apply)


def made(**options):
  gan = Gan(shifted(), quadratic(), 3, kind='point', **options)
  return gan, gan.init(jax.random.key(0), {})


def run(gan, variables, name, batch, step=0, gradient=''):
  """The output of a phase, and the gradient with respect to a group."""
  phase = next(phase for phase in gan.phases() if phase.name == name)

  def loss(params, mutable):
    output = phase.loss(params, Context(step=step, mutable=mutable, ema={}, frozen={}), batch, KEY)
    return output.loss, output

  value = jax.jit(jax.value_and_grad(loss, has_aux=True)) if gradient else jax.jit(loss)
  if not gradient:
    return value(variables.params, variables.mutable)[1]
  (_, output), slopes = value(variables.params, variables.mutable)
  return output, slopes[gradient]


def slope(x):
  return x @ (A + A.T) / 2 + B


def of_squares(weight, x):
  """Gradients with respect to A and b of the mean of weight / 2 |slope|^2, with a weight for each row."""
  scaled = weight[:, None] * slope(x)
  outer = np.einsum('bi,bj->ij', scaled, x) / len(x)
  return {'a': (outer + outer.T) / 2, 'b': scaled.mean(axis=0)}


def test_r1_and_its_gradient_in_closed_form():
  gan, variables = made(r1_gamma=0.5, r1_every=4)
  output, found = run(gan, variables, 'r1', {'point': REAL}, gradient='discriminator')
  square = (slope(REAL)**2).sum(axis=1).mean()  # of each sample, over all its axes
  np.testing.assert_allclose(output.metrics['square_gradient'], square, rtol=1e-5)
  np.testing.assert_allclose(output.loss, 4 * 0.25 * square, rtol=1e-5)
  expected = of_squares(np.full(8, 4 * 0.5), REAL)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)


def test_gradient_penalty_and_its_gradient_in_closed_form():
  gan, variables = made(loss='wgan_gp', penalty=10.0)
  output, found = run(gan, variables, 'discriminator', {'point': REAL}, gradient='discriminator')
  latent_key, _, _, _, mix_key = jax.random.split(KEY, 5)
  fake = np.asarray(jax.random.normal(latent_key, (8, 3))) + SHIFT
  share = np.asarray(jax.random.uniform(mix_key, (8, 1)))
  mixed = share * REAL + (1 - share) * fake
  norm = np.linalg.norm(slope(mixed), axis=1)
  np.testing.assert_allclose(output.metrics['penalty'], ((norm - 1)**2).mean(), rtol=1e-4)
  expected = of_squares(10.0 * 2 * (norm - 1) / norm, mixed)
  outer = lambda x: np.einsum('bi,bj->ij', x, x) / 2 / len(x)
  expected = {'a': expected['a'] + outer(fake) - outer(REAL), 'b': expected['b'] + (fake - REAL).mean(axis=0)}
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), found, expected)


def test_r1_and_r2_in_every_step_with_a_falling_gamma():
  """As R3GAN has them: terms of the loss, whose weight ends at a tenth by a cosine."""
  gan, variables = made(loss='relativistic', r1_gamma=0.2, r2_gamma=0.4, r1_every=0, gamma_end=0.1, gamma_steps=100)
  assert [phase.name for phase in gan.phases()] == ['discriminator', 'generator']
  fake = np.asarray(jax.random.normal(jax.random.split(KEY, 5)[0], (8, 3))) + SHIFT
  value = lambda x: 0.5 * np.einsum('bi,ij,bj->b', x, A, x) + x @ B
  adversarial = np.logaddexp(0, value(fake) - value(REAL)).mean()
  squares = 0.1 * (slope(REAL)**2).sum(axis=1).mean() + 0.2 * (slope(fake)**2).sum(axis=1).mean()
  for step, share in ((0, 1.0), (50, 0.55), (100, 0.1), (1000, 0.1)):
    output = run(gan, variables, 'discriminator', {'point': REAL}, step)
    np.testing.assert_allclose(output.loss, adversarial + share * squares, rtol=1e-4)
  latent = np.asarray(jax.random.normal(jax.random.split(KEY, 3)[0], (8, 3))) + SHIFT
  generator = run(gan, variables, 'generator', {'point': REAL})
  np.testing.assert_allclose(generator.loss, np.logaddexp(0, value(REAL) - value(latent)).mean(), rtol=1e-4)


def test_losses_at_known_logits():
  real, fake = np.float32([1.0, 0.0]), np.float32([0.0, 3.0])
  np.testing.assert_allclose(LOSSES['lsgan'][0](real, fake), [0.0, 10.0])
  np.testing.assert_allclose(LOSSES['lsgan'][1](fake), [1.0, 4.0])
  np.testing.assert_allclose(RELATIVE['relativistic'][0](real, fake), np.log1p(np.exp([-1.0, 3.0])), rtol=1e-5)
  np.testing.assert_allclose(RELATIVE['relativistic'][1](real, fake), np.log1p(np.exp([1.0, -3.0])), rtol=1e-5)
  np.testing.assert_allclose(margins('lsgan', real, fake), [[0.5, -0.5], [0.5, -2.5]])
  for loss in ('relativistic', 'wgan_gp'):  # no constant that is added to all logits changes these
    np.testing.assert_allclose(margins(loss, real + 5.0, fake + 5.0), [[1.0, -3.0], [1.0, -3.0]])
  np.testing.assert_array_equal(signs(np.float32([2.0, -0.1, 0.0, np.nan])), [1, -1, 0, 0])


PIXELS = np.full((4, 1, 1, 3), 255, np.uint8)  # seen as ones


def pictures(**options):
  gan = Gan(shifted_pictures(), quadratic(), 3, **options)
  return gan, gan.init(jax.random.key(0), {})


def shifted_pictures():
  def apply(params, mutable, latent, label=None, key=None):
    return (0.0 * latent + params['shift'])[:, None, None], mutable

  return Network(lambda key: ({'shift': SHIFT}, {}), apply)


def value(x):
  return 0.5 * x @ A @ x + x @ B


def test_the_discriminator_sees_augmented_pictures_in_every_phase():
  """An augmentation that doubles: logits of doubles, and R1 by the chain rule with respect to pictures before it."""
  gan, variables = pictures(augment=Fixed(lambda x, key: 2.0 * x), r1_gamma=1.0, r1_every=1, loss='hinge')
  ones, batch = np.ones(3, np.float32), {'image': PIXELS}
  metrics = run(gan, variables, 'discriminator', batch).metrics
  np.testing.assert_allclose(metrics['logit_real'], value(2 * ones), rtol=1e-4)
  np.testing.assert_allclose(metrics['logit_fake'], value(2 * SHIFT), rtol=1e-4)
  np.testing.assert_allclose(run(gan, variables, 'r1', batch).loss, 0.5 * np.sum((2 * slope(2 * ones))**2), rtol=1e-4)
  output, found = run(gan, variables, 'generator', batch, gradient='generator')
  np.testing.assert_allclose(output.loss, -value(2 * SHIFT), rtol=1e-4)
  np.testing.assert_allclose(found['shift'], -2 * slope(2 * SHIFT), rtol=1e-4)


def test_consistency_and_feature_matching():
  """Under a change by one of all channels; features are pictures and their doubles."""
  gan, variables = pictures(consistency=2.0, consistency_fake=3.0, perturb=lambda x, key: x + 1.0, loss='wgan_gp',
                            penalty=0.0, feature_matching=5.0)
  ones, batch = np.ones(3, np.float32), {'image': PIXELS}
  output = run(gan, variables, 'discriminator', batch)
  changes = [(value(x + 1) - value(x))**2 for x in (ones, SHIFT)]
  np.testing.assert_allclose([output.metrics['consistency'], output.metrics['consistency_fake']], changes, rtol=1e-4)
  np.testing.assert_allclose(output.loss, value(SHIFT) - value(ones) + 2 * changes[0] + 3 * changes[1], rtol=1e-4)
  output, found = run(gan, variables, 'generator', batch, gradient='generator')
  distance = np.mean((ones - SHIFT)**2) * (1 + 4)
  np.testing.assert_allclose(output.metrics['features'], distance, rtol=1e-4)
  np.testing.assert_allclose(output.loss, -value(SHIFT) + 5 * distance, rtol=1e-4)
  np.testing.assert_allclose(found['shift'], -slope(SHIFT) + 5 * 5 * 2 * (SHIFT - ones) / 3, rtol=1e-4)


def test_instance_noise_falls_to_nothing():
  """The mean of |x|^2 is that of the samples and the variance of the noise of each coordinate."""
  network = Network(lambda key: ({'w': jnp.ones(())}, {}),
                    lambda params, mutable, x, label=None, key=None: (params['w'] * jnp.sum(x**2, axis=1), mutable))
  gan = Gan(shifted(), network, 3, kind='point', instance_noise=2.0, instance_noise_steps=10)
  variables = gan.init(jax.random.key(0), {})
  points = np.zeros((4000, 3), np.float32)
  for step, deviation in ((0, 2.0), (5, 1.0), (10, 0.0), (20, 0.0)):
    found = run(gan, variables, 'discriminator', {'point': points}, step).metrics['logit_real']
    np.testing.assert_allclose(found, 3 * deviation**2, rtol=0.05)


class Spectral(nnx.Module):
  """One layer with a spectral norm."""

  def __init__(self, rngs):
    self.layer = Dense(3, 2, spectral=True, rngs=rngs)

  def __call__(self, x, label=None, key=None):
    return jnp.sum(self.layer(x, key), axis=1)


def test_power_iterations_run_once_a_step_and_find_the_largest_singular_value():
  gan = Gan(shifted(), network(Spectral), 3, kind='point', one_iteration=True)
  variables = gan.init(jax.random.key(0), {})
  kernel = np.asarray(variables.params['discriminator']['layer']['kernel'], np.float64)

  def iterated(u, times):
    for _ in range(times):
      v = kernel @ u
      u = kernel.T @ v / np.linalg.norm(kernel.T @ v)
    return u

  u = np.asarray(variables.mutable['discriminator']['layer']['spectral']['u'], np.float64)
  after = lambda gan, variables: run(gan, variables, 'discriminator', {'point': REAL}).mutable
  vector = lambda mutable: mutable['discriminator']['layer']['spectral']['u']
  np.testing.assert_allclose(vector(after(gan, variables)), iterated(u, 1), rtol=1e-4, atol=1e-5)
  twice = dataclasses.replace(gan, one_iteration=False)
  np.testing.assert_allclose(vector(after(twice, variables)), iterated(u, 2), rtol=1e-4, atol=1e-5)
  step = jax.jit(lambda mutable: next(iter(gan.phases())).loss(
    variables.params, Context(step=0, mutable=mutable, ema={}, frozen={}), {'point': REAL}, KEY).mutable)
  mutable = variables.mutable
  for _ in range(60):
    mutable = step(mutable)
  u = np.asarray(vector(mutable), np.float64)
  v = kernel @ u / np.linalg.norm(kernel @ u)
  assert v @ kernel @ u == pytest.approx(np.linalg.svd(kernel)[1][0], rel=1e-5)


def distances(points):
  """Means over all pairs, and over nearest neighbours."""
  distance = np.linalg.norm(points[:, None] - points[None], axis=2)
  return distance.sum() / (len(points) * (len(points) - 1)), (distance + np.diag(np.full(len(points), np.inf))).min(
    axis=1).mean()


def test_crowding():
  """Ratios of both means; all samples at one place are at no distance, and pairs are nearest to each other."""
  points, others = RANDOM.normal(size=(2, 16, 2)).astype(np.float32)
  measure = jax.jit(crowding)
  found = measure(points, 3.0 * others + 5.0)
  expected = 3.0 * np.divide(distances(others), distances(points))
  np.testing.assert_allclose([found['pairwise'], found['nearest']], expected, rtol=1e-3)
  np.testing.assert_allclose(measure(points, np.ones((16, 2), np.float32))['pairwise'], 0.0, atol=1e-3)
  found = measure(points, np.repeat(others[:8], 2, axis=0))
  assert found['nearest'] < 0.01 and found['pairwise'] > 0.5


@pytest.mark.parametrize(('options', 'message'), [
  (dict(augment=Adaptive(lambda x, strength, key: x)), 'these samples are points'),
  (dict(r2_gamma=-1.0), 'r2_gamma must not be negative'),
  (dict(instance_noise=-1.0), 'instance_noise must not be negative'),
  (dict(gamma_end=0.1), 'gamma_end=0.1 is reached after config.objective.gamma_steps'),
  (dict(r1_every=4), 'r1_every=4 has no effect without R1 and R2; set r1_gamma or r2_gamma above 0, or leave r1_every '
   'at 16'),
  (dict(gamma_end=0.1, gamma_steps=9), 'gamma_end=0.1 has no effect without R1 and R2'),
  (dict(r1_gamma=1.0, gamma_steps=9), 'gamma_steps=9 has no effect with gamma_end=1'),
  (dict(penalty=10.0, loss='hinge'), "penalty=10.0 has no effect with loss='hinge'; set loss to 'wgan_gp', or leave"),
  (dict(instance_noise_steps=5), 'instance_noise_steps=5 has no effect with instance_noise=0'),
  (dict(blur_steps=5), 'blur_steps=5 has no effect with blur=0'),
])
def test_bad_options(options, message):
  with pytest.raises(UserError, match=message):
    made(**options)


@pytest.mark.parametrize('sigma', [0.2, 0.4, 1.1, 2.5])
def test_blur_is_a_correlation_with_the_published_taps(sigma):
  """2^-(t / sigma)^2 up to floor(3 sigma) pixels, of sum 1, with zeros outside; SciPy's correlation."""
  image = RANDOM.normal(size=(2, 9, 7, 3)).astype(np.float32)
  found = jax.jit(lambda image, sigma: blurred(image, sigma, 2.5))(image, sigma)
  reach = int(3 * sigma)
  taps = np.exp2(-(np.arange(-reach, reach + 1) / sigma)**2)
  expected = image.astype(np.float64)
  for axis in (1, 2):
    expected = scipy.ndimage.correlate1d(expected, taps / taps.sum(), axis=axis, mode='constant')
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_what_the_discriminator_sees_is_blurred_less_and_less():
  net = Network(lambda key: ({'w': np.ones((), np.float32)}, {}),
                lambda params, mutable, x, label=None, key=None: (params['w'] * x[:, 2, 2, 0], mutable))
  fake = Network(lambda key: ({}, {}), lambda params, mutable, latent, label=None, key=None: (
    jnp.zeros((len(latent), 5, 5, 1)), mutable))
  gan = Gan(fake, net, 1, blur=1.0, blur_steps=4)
  variables = gan.init(jax.random.key(0), {})
  image = np.full((4, 5, 5, 1), 0, np.uint8)
  image[:, 2, 2] = 255  # 1 among -1: the logit is 2 w_0^2 - 1 of what is not cut off at the edges
  for step, sigma in ((0, 1.0), (2, 0.5), (4, 0.0), (9, 0.0)):
    reach = int(3 * sigma)
    taps = np.exp2(-(np.arange(-reach, reach + 1) / max(sigma, 1.0 if not reach else sigma))**2)
    row = np.zeros(5)
    for offset, weight in zip(range(-reach, reach + 1), taps / taps.sum()):
      if 0 <= 2 + offset < 5:
        row[2 + offset] = weight
    expected = 2 * row[2]**2 - row.sum()**2
    logit = run(gan, variables, 'discriminator', {'image': image}, step=step).metrics['logit_real']
    np.testing.assert_allclose(logit, expected, atol=1e-5)
  with pytest.raises(UserError, match='blur must not be negative'):
    Gan(fake, net, 1, blur=-1.0)
  with pytest.raises(UserError, match='augment, blur and consistency change pictures'):
    Gan(fake, net, 1, kind='point', blur=1.0)


def test_a_loss_may_be_added_but_not_under_the_name_of_one_of_pairs(monkeypatch):
  monkeypatch.setitem(LOSSES, 'mine', (lambda real, fake: 2.0 * (fake - real), lambda fake: -3.0 * fake))
  assert made(loss='mine')[0]._discriminator_loss(jnp.float32(1.0), jnp.float32(4.0)) == 6.0
  monkeypatch.setitem(LOSSES, 'relativistic', LOSSES['hinge'])
  with pytest.raises(UserError, match="'relativistic' is a loss of pairs already"):
    made(loss='relativistic')
