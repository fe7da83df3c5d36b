"""StarGAN v2: its losses term by term on networks of one number each, its references, and what its phases train."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.nn.functional import Network
from genjax.objectives.base import Context, check_groups
from genjax.objectives.stargan import StarGan, another
from genjax.types import UserError

RANDOM = np.random.default_rng(0)
LABEL = np.array([0, 1, 2, 1, 0, 1], np.int32)
BATCH = {'image': RANDOM.integers(0, 256, (6, 2, 2, 1)).astype(np.uint8), 'label': LABEL}
REAL = BATCH['image'] / 127.5 - 1.0


def net(value, function):
  """(number, inputs, what is told) -> outputs."""
  return Network(lambda key: ({'by': jnp.float32(value)}, {}),
                 lambda params, mutable, x, told, key=None: (function(params['by'], x, told), mutable))


# Pictures plus a style; latents times a number and the domain; mean pixels times a number and the domain; and
# by (mean of x^2) + domain as the logit, whose gradient is by 2 x / 4.
GAN = StarGan(
  net(0.5, lambda by, x, style: by * x + style[:, None, None]),
  net(0.3, lambda by, z, domain: by * z * (1 + domain[:, None])),
  net(-0.7, lambda by, x, domain: by * jnp.mean(x, axis=(1, 2)) * (1 + domain[:, None])),
  net(2.0, lambda by, x, domain: by * jnp.mean(x**2, axis=(1, 2, 3)) + domain), latent=1, domains=3, r1=3.0, style=0.5,
  diversity=2.0, diversity_steps=10, cycle=4.0, l2=0.1)


def softplus(x):
  return np.logaddexp(x, 0)


def run(name, gan=GAN, step=4):
  """The output of a phase and its gradients, the domains that it draws, and the two styles, by the key's draws."""
  variables = gan.init(jax.random.key(0), {})
  context = Context(step=jnp.int32(step), mutable={}, ema={}, frozen={})
  phase = next(phase for phase in gan.phases() if phase.name == name)

  @jax.jit
  def both(params, key):
    loss = lambda params: (lambda output: (output.loss, output))(phase.loss(params, context, BATCH, key))
    return (*jax.grad(loss, has_aux=True)(params), gan._styles(params, BATCH, key, name.endswith('latent')))

  gradients, output, (target, styles) = both(variables.params, jax.random.key(3))
  return output, gradients, np.asarray(target), [np.asarray(style, np.float64)[:, :, None, None] for style in styles]


def judged(x, domain):
  return 2.0 * np.mean(x**2, axis=(1, 2, 3)) + domain


def encoded(x, domain):
  return (-0.7 * x.mean(axis=(1, 2)) * (1 + domain[:, None]))[:, :, None, None]


@pytest.mark.parametrize('name', ['discriminator_latent', 'discriminator_reference'])
def test_the_discriminator_judges_in_each_domain(name):
  output, _, target, (style, _) = run(name)
  fake = 0.5 * REAL + style
  square = np.mean(np.sum((2.0 * 2 * REAL / 4)**2, axis=(1, 2, 3)))
  loss = np.mean(softplus(-judged(REAL, LABEL))) + np.mean(softplus(judged(fake, target)))
  assert float(output.loss) == pytest.approx(loss + 3.0 / 2 * square + 0.1 / 2 * 2.0**2, rel=1e-5)
  assert output.metrics['square_gradient'] == pytest.approx(square, rel=1e-5) and output.weight == 6


@pytest.mark.parametrize(('name', 'trained'), [('generator_latent', 0.5**2 + 0.3**2 + 0.7**2),
                                               ('generator_reference', 0.5**2)])
def test_the_generator_has_four_terms(name, trained):
  output, _, target, (style, other) = run(name)
  fake, second = 0.5 * REAL + style, 0.5 * REAL + other
  back = 0.5 * fake + encoded(REAL, LABEL)
  diversity = np.mean(np.abs(fake - second))
  assert diversity > 0.05
  loss = (np.mean(softplus(-judged(fake, target))) + 0.5 * np.mean(np.abs(encoded(fake, target) - style))
          - 2.0 * 0.6 * diversity + 4.0 * np.mean(np.abs(back - REAL)) + 0.1 / 2 * trained)
  assert float(output.loss) == pytest.approx(loss, rel=1e-5)
  # After its steps diversity counts no more
  late = run(name, step=25)[0]
  assert float(late.loss - output.loss) == pytest.approx(2.0 * 0.6 * diversity, rel=1e-4)


def test_the_second_drawing_is_not_trained():
  """With diversity alone the generator's number has no gradient: it moves both drawings alike, were both trained; so
  the slope is that of the first one, the mean sign of the difference times the pixel."""
  alone = dataclasses.replace(GAN, style=0.0, cycle=0.0, l2=0.0, diversity_steps=0)
  without = dataclasses.replace(alone, diversity=0.0)
  _, gradients, _, (style, other) = run('generator_latent', alone)
  found = gradients['generator']['by'] - run('generator_latent', without)[1]['generator']['by']
  sign = np.sign(style - other)
  assert float(found) == pytest.approx(-2.0 * np.mean(sign * REAL), abs=1e-5)


def test_references_are_two_rows_of_a_domain():
  draws = [jax.jit(another)(LABEL, np.arange(6), jax.random.key(seed)) for seed in range(20)]
  rows = np.array(draws)
  np.testing.assert_array_equal(LABEL[rows], np.broadcast_to(LABEL, rows.shape))
  assert (rows[:, 2] == 2).all()  # the only one of its domain
  assert not np.any(rows[:, [0, 1, 3, 4, 5]] == np.array([0, 1, 3, 4, 5]))
  assert set(rows[:, 1]) == {3, 5}
  _, _, target, (style, second) = run('generator_reference')
  expected = encoded(REAL, LABEL).ravel()
  for domain, one, other in zip(target, style.ravel(), second.ravel()):
    among = expected[LABEL == domain]
    assert np.isclose(among, one).any() and np.isclose(among, other).any() and (domain == 2 or one != other)


def test_phases_train_what_the_published_code_trains():
  params = GAN.init(jax.random.key(0), {}).params
  check_groups(GAN.phases(), params, dict.fromkeys(params), {})
  assert [phase.trains for phase in GAN.phases()] == [
    ('discriminator',), ('discriminator',), ('generator', 'mapping', 'style_encoder'), ('generator',)]


def test_samples_have_the_style_of_a_latent_or_of_a_reference():
  params = GAN.init(jax.random.key(0), {}).params
  context = Context(step=jnp.int32(0), mutable={}, ema={}, frozen={})
  keys = jax.random.split(jax.random.key(1), 6)
  told = {'source': BATCH['image'], 'label': (LABEL + 1) % 3}
  latent = np.asarray(jax.vmap(lambda key: jax.random.normal(key, (1,)))(keys), np.float64)
  style = 0.3 * latent * (1 + told['label'][:, None])
  reference = BATCH['image'][::-1]
  other = encoded(reference / 127.5 - 1.0, told['label'])[:, :, 0, 0]
  for columns, expected in ((told, style), ({**told, 'reference': reference}, other)):
    samples = jax.jit(GAN.sample)(params, context, keys, columns)
    pixels = 127.5 * (np.clip(0.5 * REAL + expected[:, :, None, None], -1, 1) + 1)
    assert np.abs(samples['image'] - pixels).max() <= 0.51 and samples['image'].dtype == np.uint8
    np.testing.assert_array_equal(samples['source'], told['source'])
  values = jax.jit(GAN.evaluate)(params, context, BATCH, jax.random.key(2))
  assert {name: value.shape for name, value in values.items()} == {'style': (6,), 'cycle': (6,)}


@pytest.mark.parametrize(('options', 'message'), [
  (dict(r1=-1.0), 'r1 must not be negative'), (dict(domains=1), 'domains must be at least 2'),
  (dict(diversity_steps=-1), 'diversity_steps')])
def test_bad_options(options, message):
  with pytest.raises(UserError, match=message):
    dataclasses.replace(GAN, **options)
