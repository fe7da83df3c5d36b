"""pix2pix: losses in closed form, whose gradients go where, and its modes at test."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.nn.functional import Network
from genjax.objectives.base import Context
from genjax.objectives.pix2pix import LOSSES, Pix2Pix
from genjax.types import UserError


def scaled(value):
  """A network that multiplies by a number."""
  return Network(lambda key: ({'by': jnp.float32(value)}, {}),
                 lambda params, mutable, x, key=None: (params['by'] * x, mutable))


PAIRS = Pix2Pix(scaled(0.5), scaled(2.0), loss='lsgan', conditional=False)


def started(objective):
  variables = jax.jit(lambda key: objective.init(key, {}))(jax.random.key(0))
  return variables.params, Context(step=jnp.int32(0), mutable=variables.mutable, ema={}, frozen={})


def batch(shape=(2, 4, 4, 1)):
  random = np.random.default_rng(0)
  return {name: random.integers(0, 256, shape).astype(np.uint8) for name in ('source', 'image')}


def test_losses_and_what_they_train():
  params, context = started(PAIRS)
  columns = batch()
  image, source = (columns[name] / 127.5 - 1.0 for name in ('image', 'source'))
  critic, generator = PAIRS.phases()
  assert critic.trains == ('critic',) and generator.trains == ('generator',)
  found = float(critic.loss(params, context, columns, jax.random.key(0)).loss)
  assert found == pytest.approx(0.5 * (np.mean((2 * image - 1) ** 2) + np.mean((2 * 0.5 * source) ** 2)), rel=1e-5)
  found = float(generator.loss(params, context, columns, jax.random.key(0)).loss)
  assert found == pytest.approx(np.mean((source - 1) ** 2) + 100 * np.mean(np.abs(0.5 * source - image)), rel=1e-5)
  alone = dataclasses.replace(PAIRS, critic=None)
  assert [phase.name for phase in alone.phases()] == ['generator']


def test_the_relativistic_loss_compares_with_the_mean():
  real, fake = np.array([2.0, 0.0], np.float32), np.array([-1.0, 0.5], np.float32)
  softplus = lambda x: np.log1p(np.exp(x))
  above, below = real - fake.mean(), fake - real.mean()
  critic, generator = LOSSES['relativistic']
  assert float(critic(real, fake)) == pytest.approx(softplus(-above).mean() + softplus(below).mean(), rel=1e-5)
  assert float(generator(real, fake)) == pytest.approx(softplus(-below).mean() + softplus(above).mean(), rel=1e-5)


def test_modes_at_test():
  """Statistics of each picture alone do not depend on others, and dropout depends on the key of a row alone
  (junyanz/pytorch-CycleGAN-and-pix2pix#555 and #693)."""

  def apply(params, mutable, x, key=None, batch=None, drop=None):
    x = x - (jnp.mean(x) if batch else mutable['mean'])
    return params['by'] * (x * jax.random.bernoulli(key, 0.5, x.shape) if drop else x), mutable

  net = Network(lambda key: ({'by': jnp.float32(0.5)}, {'mean': jnp.float32(0.2)}), apply)
  objective = Pix2Pix(net, modes=('statistics', 'drop'))
  params, context = started(objective)
  columns = batch()['source']

  @jax.jit
  def drawn(columns, keys):
    made = {}
    for statistics, drop in (('running', False), ('picture', False), ('picture', True)):
      mode = dataclasses.replace(objective, statistics=statistics, drop=drop)
      made[statistics, drop] = mode.sample(params, context, keys, {'source': columns})['image']
    return tuple(made.values())

  keys = jax.random.split(jax.random.key(1), 2)
  first = drawn(columns, keys)
  exchanged = drawn(columns[::-1], keys)
  for mode in (0, 1):
    np.testing.assert_array_equal(first[mode], exchanged[mode][::-1])
  assert (first[2] != exchanged[2][::-1]).any()  # the keys stayed where they were
  assert (first[0] != first[1]).any() and (first[1] != first[2]).any()


def test_what_makes_no_sense_is_refused():
  with pytest.raises(UserError, match='sampler.drop=True is of dropout, and this generator has none'):
    dataclasses.replace(PAIRS, modes=('statistics',), drop=True)
  with pytest.raises(UserError, match="statistics='picture' is of batch normalisation, and this generator has none"):
    dataclasses.replace(PAIRS, modes=('drop',), statistics='picture')
  for weight in ('adversarial', 'critic_weight'):
    with pytest.raises(UserError, match=f'{weight}=0.2 has no effect without a critic; set config.critic'):
      dataclasses.replace(PAIRS, critic=None, **{weight: 0.2})
  with pytest.raises(UserError, match='perceptual_weight=0.2 has no effect without a distance'):
    dataclasses.replace(PAIRS, perceptual_weight=0.2)
  with pytest.raises(UserError, match='statistics must be one of'):
    dataclasses.replace(PAIRS, statistics='batch')
  with pytest.raises(UserError, match='learns nothing'):
    dataclasses.replace(PAIRS, critic=None, l1=0.0)
  with pytest.raises(UserError, match='loss must be one of'):
    dataclasses.replace(PAIRS, loss='wgan')
