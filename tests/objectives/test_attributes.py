"""Classifiers of several attributes: the loss is a sum over heads, and pictures are softened without a shift."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.nn.functional import Network
from genjax.objectives.attributes import Attributes, softened
from genjax.objectives.base import Context
from genjax.types import UserError

CLASSES = {'colour': 3, 'size': 2}
NET = Network(lambda key: ({'w': jnp.eye(5)}, {}),
              lambda params, mutable, x, key=None: ((x[:, 0, :, 0] @ params['w'], x[:, 0, :, 0]), mutable))


@pytest.fixture
def objective():
  return Attributes(NET, CLASSES)


def batch():
  image = np.zeros((2, 1, 5, 1), np.uint8)
  image[0, 0, [1, 4]] = 255  # colour 1, size 1
  image[1, 0, [0, 3]] = 255  # colour 0, size 0
  return {'image': image, 'colour': np.asarray([1, 2]), 'size': np.asarray([1, 0])}


def context():
  return Context(step=jnp.zeros(()), mutable={'net': {}}, ema={}, frozen={})


def test_the_loss_is_the_sum_of_cross_entropies(objective):
  params = {'net': NET.init(None)[0]}
  output = objective.loss(params, context(), batch(), jax.random.key(0))
  found = objective.evaluate(params, context(), batch(), jax.random.key(0))
  logits = batch()['image'][:, 0, :, 0] / 127.5 - 1
  head = lambda part, label: np.log(np.exp(part).sum(-1)) - part[np.arange(2), label]
  wanted = head(logits[:, :3], [1, 2]) + head(logits[:, 3:], [1, 0])
  np.testing.assert_allclose(found['loss'], wanted, rtol=1e-6)
  np.testing.assert_allclose(output.loss, wanted.mean(), rtol=1e-6)
  assert found['accuracy'].tolist() == [1, 0] and found['accuracy_size'].tolist() == [1, 1]
  assert found['accuracy_colour'].tolist() == [1, 0] and float(output.metrics['accuracy']) == 0.5


def test_heads_are_told_apart(objective):
  found = objective.predict({'net': NET.init(None)[0]}, {'net': {}}, batch()['image'])
  assert {name: value.argmax(-1).tolist() for name, value in found.items()} == {'colour': [1, 0], 'size': [1, 0]}


def test_softened_pictures_keep_their_place_and_brightness():
  image = np.zeros((64, 9, 9, 1), np.float32)
  image[:, 4, 4] = 1
  soft = np.asarray(softened(jax.random.key(0), jnp.asarray(image), 2))
  np.testing.assert_allclose(soft.sum((1, 2, 3)), 1, rtol=1e-5)
  np.testing.assert_allclose(soft, soft[:, ::-1, ::-1], atol=1e-6)  # no shift
  assert 0.07 < soft[:, 4, 4].min() < 0.4 and soft[:, 4, 4].max() > 0.6
  np.testing.assert_array_equal(softened(jax.random.key(0), jnp.asarray(image), 0), image)


@pytest.mark.parametrize('attributes', [{}, {'colour': 1}])
def test_attributes_without_classes_are_refused(attributes):
  with pytest.raises(UserError, match='attributes|colour'):
    Attributes(NET, attributes)
