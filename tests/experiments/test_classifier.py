"""Classifiers of images by config: both models train by one objective; options that do not fit."""

import importlib

import jax
import numpy as np
import pytest

from genjax.experiments import classifier
from genjax.objectives.base import Context
from genjax.types import UserError

CONTEXT = Context(step=0, mutable={'net': {}}, ema={}, frozen={})


def config(**model):
  made = importlib.import_module('genjax.configs.classifiers.mnist_classifier').get_config('model=vit,smoke')
  made.model.update(model)
  return made


def test_a_vision_transformer_reads_its_images():
  """The loss of a label falls along its gradient, which reaches every parameter but the biases of keys, which change no
  softmax."""
  objective = classifier.build(config()).objective
  params = jax.jit(lambda key: objective.init(key, {}).params)(jax.random.key(0))
  batch = {'image': np.random.default_rng(0).integers(0, 256, (4, 28, 28, 1)).astype(np.uint8), 'label': np.arange(4)}
  loss = lambda params: objective.loss(params, CONTEXT, batch, jax.random.key(0)).loss
  value, slopes = jax.jit(jax.value_and_grad(loss))(params)
  slopes['net']['blocks']['attention']['key'].pop('bias')
  assert all(np.abs(leaf).max() > 1e-6 for leaf in jax.tree.leaves(slopes))
  assert value == pytest.approx(np.log(10), abs=0.3)


def test_options_that_do_not_fit():
  with pytest.raises(UserError, match=r'config.model: patch must divide .*\(28, 28\), got 5'):
    classifier.build(config(patch=5))
  with pytest.raises(UserError, match='config.model.name'):
    classifier.build(config(name='resnet'))


def test_images_of_another_size_or_other_labels():
  small = config()
  small.data.update(name='digits', shape=(28, 28, 1))
  with pytest.raises(
      UserError, match=r'config.data.shape is \(28, 28, 1\), but images of digits are \(8, 8, 1\); .*resize=bilinear'):
    classifier.build(small).train.batch(0)
  small.data.update(resize='bilinear')
  assert classifier.build(small).train.batch(0)['image'].shape[1:] == (28, 28, 1)
  small.data.update(num_classes=9)
  with pytest.raises(
      UserError, match='config.data.num_classes is 9, but labels of digits are 0 to 9; set it to at least 10'):
    classifier.build(small).train.batch(0)
