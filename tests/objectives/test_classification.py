"""Classification: cross entropy against closed forms, augmentation, and a short run on real digits."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.models import classifier
from genjax.objectives import base, classification
from genjax.objectives.classification import Classification
from genjax.types import UserError


@pytest.fixture(scope='module')
def small():
  net = classifier.network(classifier.Classifier((8, 8, 1), 3, width=4, features=6))
  objective = Classification(net, smoothing=0.1, shift=1)
  variables = jax.jit(objective.init)(jax.random.key(0), {})
  return objective, variables, base.Context(step=jnp.zeros((), jnp.int32), mutable=variables.mutable, ema={}, frozen={})


def batch(size=6):
  generator = np.random.default_rng(0)
  return {'image': generator.integers(0, 256, (size, 8, 8, 1), np.uint8), 'label': np.arange(size, dtype=np.int32) % 3}


def test_cross_entropy_of_known_probabilities():
  log_BK = jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]])) + 3.0  # a constant changes nothing
  np.testing.assert_allclose(classification.cross_entropy(log_BK, jnp.array([0, 2])), -np.log([0.5, 0.7]), rtol=1e-5)


def test_label_smoothing_is_the_cross_entropy_of_the_smoothed_target():
  logits_BK = jax.random.normal(jax.random.key(0), (5, 4))
  label_B = jnp.array([0, 1, 2, 3, 0])
  target_BK = 0.7 * np.eye(4)[label_B] + 0.3 / 4
  expected = -(target_BK * jax.nn.log_softmax(logits_BK)).sum(axis=-1)
  np.testing.assert_allclose(classification.cross_entropy(logits_BK, label_B, 0.3), expected, rtol=1e-5)


def test_smoothed_loss_is_least_at_the_smoothed_target():
  """Perfect confidence costs; the minimum is the entropy of the target."""
  target_K = 0.9 * np.eye(4)[1] + 0.1 / 4
  label = jnp.array([1])
  least = classification.cross_entropy(jnp.log(target_K)[None], label, 0.1)
  np.testing.assert_allclose(least, -(target_K * np.log(target_K)).sum(), rtol=1e-5)
  assert classification.cross_entropy(100.0 * jnp.eye(4)[1:2], label, 0.1) > least


def test_shift_moves_whole_pixels_and_repeats_the_edge():
  image_BHWC = jnp.broadcast_to(jnp.arange(5.0)[:, None] * 10 + jnp.arange(6.0), (200, 5, 6))[..., None]
  moved_BHWC = np.asarray(classification.augment(jax.random.key(0), image_BHWC, 1, False))
  padded_HW = np.pad(np.asarray(image_BHWC[0, ..., 0]), 1, mode='edge')
  possible = [padded_HW[row:row + 5, column:column + 6] for row in range(3) for column in range(3)]
  seen = {next(index for index, image in enumerate(possible) if (image == moved).all()) for moved in moved_BHWC[..., 0]}
  assert seen == set(range(9))


def test_flip_mirrors_about_half_and_nothing_else():
  image_BHWC = jnp.broadcast_to(jnp.arange(6.0), (200, 5, 6))[..., None]
  moved_BHWC = np.asarray(classification.augment(jax.random.key(0), image_BHWC, 0, True))
  mirrored_B = (moved_BHWC == np.asarray(image_BHWC)[:, :, ::-1]).all(axis=(1, 2, 3))
  same_B = (moved_BHWC == np.asarray(image_BHWC)).all(axis=(1, 2, 3))
  assert (mirrored_B ^ same_B).all() and 70 < mirrored_B.sum() < 130


def test_evaluate_gives_one_value_an_example_without_smoothing_or_augmentation(small):
  objective, variables, context = small
  columns = batch()
  values = jax.jit(objective.evaluate)(variables.params, context, columns, jax.random.key(0))
  logits_BK, _ = jax.jit(objective.predict)(variables.params, context, columns['image'])
  assert set(values) == {'loss', 'accuracy'}
  np.testing.assert_allclose(values['loss'], classification.cross_entropy(logits_BK, columns['label']), rtol=1e-5)
  np.testing.assert_array_equal(values['accuracy'], np.argmax(logits_BK, axis=-1) == columns['label'])


def test_loss_moves_the_statistics_and_logs_the_accuracy(small):
  objective, variables, context = small
  (phase,) = objective.phases()
  output = jax.jit(phase.loss)(variables.params, context, batch(), jax.random.key(0))
  assert phase.trains == ('net',) and set(variables.params) == {'net'}
  assert output.weight == 6.0 and 0.0 <= float(output.metrics['accuracy']) <= 1.0
  assert jax.tree.structure(output.mutable) == jax.tree.structure(variables.mutable)
  assert any(not np.allclose(a, b) for a, b in zip(jax.tree.leaves(output.mutable), jax.tree.leaves(variables.mutable)))


def test_a_classifier_does_not_sample(small):
  objective, variables, context = small
  with pytest.raises(UserError, match='expected a generative model, got a classifier'):
    objective.sample(variables.params, context, jax.random.split(jax.random.key(0), 2), {})


@pytest.mark.parametrize(('options', 'message'), [(dict(smoothing=1.0), r'smoothing must lie in \[0, 1\), got 1.0'),
                                                    (dict(shift=-1), 'shift must not be negative, got -1')])
def test_bad_options(options, message, small):
  with pytest.raises(UserError, match=message):
    Classification(small[0].net, **options)


def test_learns_digits():
  """A few epochs on the real training digits, judged on the real held-out ones."""
  from genjax.runs import builders
  from genjax.training import loop
  from genjax.training.run import Run

  config = importlib.import_module('genjax.configs.classifiers.digits_classifier').get_config()
  config.steps, config.model.width = 80, 16
  run = Run(builders.build(config.lock()), builders.settings(config))
  run.initialise()
  before = run.evaluate()
  loop.train(run, [])
  after = run.evaluate()
  assert before['examples'] == after['examples'] == 360
  assert before['accuracy'] < 0.4
  assert after['accuracy'] > 0.9
