"""Ladder VAEs: two levels of latents against closed forms and numerical integration."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from genjax.models.autoencoders import ladder
from genjax.nn.functional import Network
from genjax.objectives.base import Context
from genjax.objectives.ladder import LadderVae, kl, product

NONE = Context(step=jnp.int32(0), mutable={'encoder': {}, 'decoder': {}, 'prior': {}}, ema={}, frozen={})
PARAMS = {'net': {'encoder': {}, 'decoder': {}, 'prior': {}}}
X, NOISE, BETWEEN = 204 / 255, 0.5, 0.6  # the pixel, and the deviations of p(x | z1) and of p(z1 | z2)


def constant(value):
  return Network(lambda key: ({}, {}), lambda params, mutable, x, key=None: (value(x), mutable))


def linear(upper, image, **options):
  """z2 ~ N(0, 1), z1 ~ N(z2, 0.6^2), x ~ N(z1, 0.5^2): all marginals are Gaussian. `upper` and `image` are mean and
  variance of q(z2 | x), and of what the image says of z1."""
  full = lambda x, value: jnp.full((len(x), 1), value)
  gaussian = lambda x, pair: (full(x, pair[0]), full(x, math.log(pair[1])))
  return LadderVae(constant(lambda x: (gaussian(x, image), gaussian(x, upper))),
                   constant(lambda z: z.reshape(-1, 1, 1, 1)), 1, 'gaussian', NOISE,
                   prior=constant(lambda z: (z, full(z, 2 * math.log(BETWEEN)))), upper=1, **options)


def exact():
  """The true posteriors: of z2, and what x says of z1, its likelihood."""
  total = NOISE ** 2 + BETWEEN ** 2
  variance = 1 / (1 + 1 / total)
  return (variance * X / total, variance), (X, NOISE ** 2)


def batch(size):
  return {'image': jnp.full((size, 1, 1, 1), 204, jnp.uint8)}


EVIDENCE = stats.norm.logpdf(X, 0, math.sqrt(1 + BETWEEN ** 2 + NOISE ** 2))


def test_product_and_kl_of_gaussians():
  one, other = (jnp.array([[0.3]]), jnp.array([[-0.4]])), (jnp.array([[-1.1]]), jnp.array([[0.5]]))
  grid = np.linspace(-12, 12, 100_001)
  p, q = (stats.norm(float(pair[0][0, 0]), math.exp(float(pair[1][0, 0]) / 2)) for pair in (one, other))
  assert float(kl(one, other)[0]) == pytest.approx(
    np.trapezoid(p.pdf(grid) * (p.logpdf(grid) - q.logpdf(grid)), grid), rel=1e-4)
  both = p.pdf(grid) * q.pdf(grid)
  both /= np.trapezoid(both, grid)
  mean, log_variance = product(one, other)
  expected = np.trapezoid(grid * both, grid)
  assert float(mean[0, 0]) == pytest.approx(expected, rel=1e-4)
  assert math.exp(float(log_variance[0, 0])) == pytest.approx(np.trapezoid((grid - expected) ** 2 * both, grid),
                                                              rel=1e-4)


def test_with_the_true_posteriors_every_bound_is_the_evidence():
  values = linear(*exact(), importance_samples=3).evaluate(PARAMS, NONE, batch(4), jax.random.key(0))
  np.testing.assert_allclose(values['negative_bound_3'], -EVIDENCE, rtol=1e-5)
  evidence = linear(*exact()).log_evidence(PARAMS, NONE, batch(2), jax.random.key(1), 6, chunk=2)
  np.testing.assert_allclose(evidence, EVIDENCE, rtol=1e-5)


def test_the_elbo_lies_below_and_the_bound_tightens():
  far = ((0.0, 1.0), (0.0, 1.0))
  elbo = float(linear(*far).loss(PARAMS, NONE, batch(4000), jax.random.key(0)).loss)
  bounds = [float(linear(*far, samples=k, bound='importance_weighted').loss(PARAMS, NONE, batch(2000),
                                                                            jax.random.key(k)).loss) for k in (5, 50)]
  assert elbo > bounds[0] > bounds[1] > -EVIDENCE - 0.02
  assert bounds[1] + EVIDENCE < 0.1 < elbo + EVIDENCE


def test_units_of_which_the_image_says_nothing_cost_nothing():
  output = linear((0.0, 1.0), (0.0, 1e12)).loss(PARAMS, NONE, batch(16), jax.random.key(0))
  assert float(output.metrics['kl']) == pytest.approx(0.0, abs=1e-4)
  told = linear((0.4, 0.5), (0.0, 1e12)).loss(PARAMS, NONE, batch(16), jax.random.key(0)).metrics
  assert float(told['kl']) == pytest.approx(float(told['kl_upper']), rel=1e-4) and float(told['kl_upper']) > 0.1


def test_networks_reconstruct_and_sample():
  config = ladder.LadderConfig((4, 4, 1), 5, (8,), upper=2, upper_hidden=(6,), num_classes=3)
  encoder, decoder, prior = ladder.networks(config)
  objective = LadderVae(encoder, decoder, 5, prior=prior, upper=2)
  assert {name: tuple(leaf.shape) for name, leaf in (
    ('z1', jax.eval_shape(lambda key: prior.apply(*prior.init(key), jnp.zeros((3, 2))), jax.random.key(0))[0][0]),
  )} == {'z1': (3, 5)}
  variables = jax.jit(lambda key: objective.init(key, {}))(jax.random.key(0))
  assert set(variables.params['net']) == {'encoder', 'decoder', 'prior'}
  context = NONE.replace(mutable=variables.mutable)
  given = {'label': jnp.array([0, 1, 2])}
  image = jnp.full((3, 4, 4, 1), 80, jnp.uint8)
  rebuilt = jax.jit(objective.reconstruct)(variables.params, context, image, given)
  assert rebuilt.shape == image.shape and rebuilt.dtype == jnp.uint8
