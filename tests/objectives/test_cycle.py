"""CycleGAN: its pool against the published rule in Python, its losses term by term, and what it refuses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.nn.functional import Network
from genjax.objectives.base import Context, check_groups
from genjax.objectives.cycle import Cycle, shown
from genjax.types import UserError

SHAPE = (2, 2, 1)
SHAPES = {'image': SHAPE, 'source': SHAPE}


def scaled(value):
  """A network that multiplies by a number; as a critic it gives its input without channels."""
  return Network(lambda key: ({'by': jnp.float32(value)}, {}),
                 lambda params, mutable, x, key=None: (params['by'] * x, mutable))


CYCLE = Cycle(scaled(2.0), scaled(-0.5), {'image': scaled(3.0), 'source': scaled(4.0)}, SHAPES, pool=3,
              counterparts=True)


def started(cycle):
  variables = cycle.init(jax.random.key(0), {})
  return variables.params, Context(step=jnp.int32(0), mutable=variables.mutable, ema={}, frozen={})


def batch():
  random = np.random.default_rng(0)
  return {name: random.integers(0, 256, (4, *SHAPE)).astype(np.uint8) for name in SHAPES}


def test_a_pool_shows_what_the_published_rule_shows():
  """One picture after the other: kept while the pool fills; then shown, or with probability 1/2 exchanged."""
  size, count, fakes = 3, 1, np.arange(1.0, 9.0, dtype=np.float32).reshape(8, 1, 1, 1)
  start = np.zeros((size, 1, 1, 1), np.float32)
  start[0] = 100.0
  key = jax.random.key(5)
  coin_key, place_key = jax.random.split(key)
  coins = np.asarray(jax.random.bernoulli(coin_key, 0.5, (8,)))
  places = np.asarray(jax.random.randint(place_key, (8,), 0, size))
  kept, expected = [100.0], []
  for fake, coin, place in zip(fakes.ravel().tolist(), coins, places):
    if len(kept) < size:
      kept.append(fake)
      expected.append(fake)
    elif coin:
      expected.append(kept[place])
      kept[place] = fake
    else:
      expected.append(fake)
  assert len(set(expected) - set(fakes.ravel().tolist())) or len(set(expected)) < 8  # some come from the pool
  pool, found = jax.jit(shown)(start, jnp.int32(count), fakes, key)
  np.testing.assert_array_equal(found.ravel(), expected)
  np.testing.assert_array_equal(pool.ravel(), kept)


def test_losses_are_those_of_the_paper():
  params, context = started(CYCLE)
  check_groups(CYCLE.phases(), params, dict.fromkeys(params), {})
  columns = batch()
  image, source = (columns[name] / 127.5 - 1.0 for name in ('image', 'source'))
  generate, criticise = (jax.jit(phase.loss) for phase in CYCLE.phases())
  output = generate(params, context, columns, jax.random.key(1))
  adversarial = np.mean((3 * 2 * source - 1) ** 2) + np.mean((4 * -0.5 * image - 1) ** 2)
  back = np.mean(np.abs(-source - source)) + np.mean(np.abs(-image - image))
  identity = np.mean(np.abs(2 * image - image)) + np.mean(np.abs(-0.5 * source - source))
  assert float(output.loss) == pytest.approx(adversarial + 10 * back + 5 * identity, rel=1e-5)
  assert output.mutable is None
  output = criticise(params, context, columns, jax.random.key(1))
  pool = output.mutable['pool']
  assert int(pool['count']) == 3
  filled = np.isclose(pool['image'], 2 * source[:3]).all(axis=(1, 2, 3))
  assert filled.sum() >= 2  # the first three filled it, and the fourth may have taken a place
  without = dataclasses.replace(CYCLE, pool=0)
  params, context = started(without)
  loss = without.phases()[1].loss(params, context, columns, jax.random.key(1)).loss
  expected = sum(np.mean((by * real - 1) ** 2) + np.mean((by * fake) ** 2)
                 for by, real, fake in ((3, image, 2 * source), (4, source, -0.5 * image)))
  assert float(loss) == pytest.approx(0.5 * expected, rel=1e-5)


def test_identity_is_on_by_default_and_needs_equal_shapes():
  """Without it generators are free to exchange colours, as users find (junyanz/pytorch-CycleGAN-and-pix2pix#1301)."""
  assert Cycle.identity == 0.5
  with pytest.raises(UserError, match='identity=0.5 .* equal shapes'):
    dataclasses.replace(CYCLE, shapes={'image': (2, 2, 3), 'source': SHAPE})
  with pytest.raises(UserError, match='identity=0.5 is multiplied by config.objective.cycle, which is 0'):
    dataclasses.replace(CYCLE, cycle=0.0)
  with pytest.raises(UserError, match='without pairs'):
    dataclasses.replace(CYCLE, loss='relativistic')
  with pytest.raises(UserError, match='direction'):
    dataclasses.replace(CYCLE, direction='sideways')


def test_directions_and_counterparts():
  params, context = started(CYCLE)
  columns = batch()
  keys = jax.random.split(jax.random.key(0), 4)
  for direction, by in (('forward', 2.0), ('back', -0.5)):
    drawn = dataclasses.replace(CYCLE, direction=direction).sample(params, context, keys, {'source': columns['source']})
    expected = np.clip(by * (columns['source'] / 127.5 - 1), -1, 1) * 127.5 + 127.5
    assert np.abs(np.asarray(drawn['image']).astype(float) - expected).max() <= 0.51
    np.testing.assert_array_equal(drawn['source'], columns['source'])
  values = CYCLE.evaluate(params, context, columns, keys[0])
  assert set(values) == {'cycle', 'l1', 'psnr'} and all(value.shape == (4,) for value in values.values())
  assert set(dataclasses.replace(CYCLE, counterparts=False).evaluate(params, context, columns, keys[0])) == {'cycle'}
