"""The classifier network: shapes, statistics of batches, bad sizes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.models import classifier
from genjax.nn import functional
from genjax.types import UserError


def options(**changes):
  return classifier.Classifier(**{**dict(shape=(7, 8, 1), num_classes=3, width=4, layers=2, features=6), **changes})


@functools.cache
def small():
  """A network with its variables, four images, and what it says of them."""
  net = classifier.network(options(dropout=0.5))
  params, mutable = jax.jit(net.init)(jax.random.key(0))
  apply = jax.jit(net.apply)
  image = jax.random.normal(jax.random.key(1), (4, 7, 8, 1))
  return apply, params, mutable, image, apply(params, mutable, image)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_parameters_and_results_are_float32(dtype):
  net = classifier.network(options(dtype=dtype, convolutions=2))
  params, mutable = jax.eval_shape(net.init, jax.random.key(0))
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
  (logits_BK, features_BD), _ = jax.eval_shape(net.apply, params, mutable, jnp.zeros((5, 7, 8, 1)))
  assert logits_BK.shape == (5, 3) and features_BD.shape == (5, 6)
  assert logits_BK.dtype == features_BD.dtype == jnp.float32


def test_parameter_count():
  """Convolutions without bias, two numbers a channel for each norm, two dense layers with bias."""
  params, _ = jax.eval_shape(classifier.network(options()).init, jax.random.key(0))
  assert functional.count(params) == (9 * 4 + 8) + (9 * 4 * 8 + 16) + (2 * 2 * 8 * 6 + 6) + (6 * 3 + 3)


def test_logits_are_an_affine_function_of_the_features():
  _, params, _, _, ((logits_BK, features_BD), _) = small()
  assert float(features_BD.min()) >= 0.0 and float(features_BD.max()) > 0.0
  expected = features_BD @ params['logits']['kernel'] + params['logits']['bias']
  np.testing.assert_allclose(logits_BK, expected, atol=1e-5)


def test_inference_looks_at_each_image_alone_and_training_moves_the_statistics():
  apply, params, mutable, image, ((all_BK, _), same) = small()
  (one_BK, _), _ = apply(params, mutable, jnp.concatenate([image[:1], 9.0 * image[1:]]))
  np.testing.assert_allclose(all_BK[0], one_BK[0], atol=1e-5)
  assert all(bool((a == b).all()) for a, b in zip(jax.tree.leaves(same), jax.tree.leaves(mutable), strict=True))
  (a_BK, _), moved = apply(params, mutable, image, key=jax.random.key(2))
  (b_BK, _), _ = apply(params, mutable, image, key=jax.random.key(3))
  assert not np.allclose(a_BK, b_BK)  # another key, another dropout
  assert any(not np.allclose(a, b) for a, b in zip(jax.tree.leaves(moved), jax.tree.leaves(mutable), strict=True))


@pytest.mark.parametrize(('change', 'message'), [
  (dict(layers=3), r'halves images of \(7, 8\) pixels to less than one pixel'),
  (dict(width=0), 'width must be at least 1'),
  (dict(num_classes=1), 'at least 2 classes'), (dict(dropout=1.0), r'dropout must lie in \[0, 1\)')])
def test_sizes_that_cannot_be_built(change, message):
  with pytest.raises(UserError, match=message):
    options(**change)
