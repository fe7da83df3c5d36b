"""Vision Transformer: published sizes, patches and their positions, heads."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import sharding
from genjax.models.transformers.vit import AXES, VitConfig, classifier, encoder, vit
from genjax.nn.functional import count
from genjax.types import UserError

SMALL = VitConfig(shape=(6, 9, 2), num_classes=4, patch=3, layers=2, heads=2, width=8, mlp_width=12, pooler=True)


def shapes(config):
  return jax.eval_shape(encoder(config).init, jax.random.key(0))[0]


@functools.cache
def model():
  params, _ = jax.jit(encoder(SMALL).init)(jax.random.key(0))
  leaves, structure = jax.tree.flatten(params)
  noise = [leaf + 0.3 * np.random.default_rng(number).normal(size=leaf.shape) for number, leaf in enumerate(leaves)]
  return jax.tree.unflatten(structure, noise), jax.random.normal(jax.random.key(1), (3, *SMALL.shape))


@pytest.mark.parametrize(('size', 'published'), [
  # Counted from the published models, with the output layer of ImageNet.
  ('Ti/16', 5_717_416), ('S/16', 22_050_664), ('B/16', 86_567_656), ('L/16', 304_326_632), ('H/14', 632_045_800)])
def test_published_parameter_counts(size, published):
  assert count(shapes(vit(size))) == published


def test_tokens_are_patches_row_by_row():
  """Exchanging two patches and their positions changes nothing that the class token reads; either alone does."""
  params, image = model()
  apply = jax.jit(encoder(SMALL).apply)
  moved = image.at[:, :3, :3].set(image[:, 3:, 6:]).at[:, 3:, 6:].set(image[:, :3, :3])
  order = np.asarray([0, 6, 2, 3, 4, 5, 1])
  reordered = {**params, 'embedding': {**params['embedding'], 'position': params['embedding']['position'][order]}}
  expected = apply(params, {}, image)[0]['classes']
  np.testing.assert_allclose(apply(reordered, {}, moved)[0]['classes'], expected, atol=1e-5)
  for other in (apply(params, {}, moved), apply(reordered, {}, image)):
    assert np.abs(other[0]['classes'] - expected).max() > 1e-3


def test_heads_are_those_of_the_config():
  params, image = model()
  outputs, _ = jax.jit(encoder(SMALL).apply)(params, {}, image)
  assert {name: value.shape for name, value in outputs.items()
         } == {'hidden': (3, 7, 8), 'pooled': (3, 8), 'classes': (3, 4)}
  assert set(shapes(dataclasses.replace(SMALL, num_classes=0, pooler=False))['heads']) == {'norm'}
  (logits_BK, features_BD), _ = jax.jit(classifier(SMALL).apply)(params, {}, image)
  np.testing.assert_allclose(logits_BK, outputs['classes'], atol=1e-5)
  np.testing.assert_allclose(features_BD, outputs['hidden'][:, 0], atol=1e-5)


def test_half_precision_computes_in_it_and_dropout_draws_by_the_key():
  params, image = model()
  half = dataclasses.replace(SMALL, dtype='bfloat16', dropout=0.5)
  outputs, _ = jax.eval_shape(encoder(half).apply, params, {}, image)
  logits = outputs.pop('classes')
  assert {value.dtype for value in outputs.values()} == {jnp.dtype('bfloat16')} and logits.dtype == jnp.float32
  apply = jax.jit(classifier(half).apply)
  one, same, other = (apply(params, {}, image, key=jax.random.key(seed))[0][0] for seed in (1, 1, 2))
  assert one.dtype == jnp.float32
  np.testing.assert_array_equal(one, same)
  assert np.abs(one - other).max() > 0.1


def test_tensor_parallel_rules_match():
  mesh = jax.sharding.AbstractMesh((1, 2, 2, 1, 1), sharding.MESH_AXES)
  placed = sharding.param_shardings(shapes(SMALL), mesh, AXES, {})
  assert placed['blocks']['down']['kernel'].spec[1] == 'tensor'


def test_bad_options_and_images():
  with pytest.raises(ValueError, match=r'patch must divide height and width of the images, \(6, 9\), got 2'):
    dataclasses.replace(SMALL, patch=2)
  with pytest.raises(ValueError, match="size must be one of .*got 'B'"):
    vit('B')
  with pytest.raises(UserError, match='at least 2 classes, got 0'):
    classifier(dataclasses.replace(SMALL, num_classes=0))
  params, image = model()
  with pytest.raises(UserError, match=r'images of shape \(6, 9, 2\), got \(6, 6, 2\)'):
    encoder(SMALL).apply(params, {}, image[:, :, :6])
