"""Losses of tokens: chunks equal the formula in value and gradient, and hold the logits of one chunk only."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import sharding
from genjax.models.transformers import decoder as models
from genjax.objectives import cross_entropy
from genjax.objectives.base import Context
from genjax.objectives.language import LanguageModel

CONTEXT = Context(step=0, mutable={}, ema={}, frozen={})


def inputs(rows=3, length=20, width=8, vocab=13, dtype=jnp.float32):
  rng = np.random.default_rng(0)
  hidden = jnp.asarray(rng.normal(size=(rows, length, width)), dtype)
  return hidden, jnp.asarray(rng.normal(size=(vocab, width)),
                             jnp.float32), jnp.asarray(rng.integers(0, vocab, (rows, length)), jnp.int32)


@pytest.mark.parametrize('chunks', [1, 2, 5, 7, 20])  # 7 does not divide 20
def test_equals_the_formula(chunks):
  hidden, weight, target = inputs()
  logits = np.asarray(hidden, np.float64) @ np.asarray(weight, np.float64).T
  expected = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, np.asarray(target)[..., None], -1)[..., 0]
  loss, hit = jax.jit(cross_entropy.token_losses, static_argnums=3)(hidden, weight, target, chunks)
  np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-5)
  np.testing.assert_array_equal(hit, logits.argmax(-1) == np.asarray(target))
  assert 0 < hit.sum() < hit.size


@pytest.mark.parametrize('chunks', [2, 7])
def test_gradients_equal_those_of_one_chunk(chunks):
  hidden, weight, target = inputs()
  weights = jnp.asarray(np.random.default_rng(1).uniform(size=target.shape), jnp.float32).at[0].set(0)

  def loss(arrays, chunks):
    losses, hits = cross_entropy.token_losses(*arrays, target, chunks)
    return jnp.sum(losses * weights) + jnp.sum(hits)

  (expected, slopes), (actual, chunked) = (
    jax.jit(jax.value_and_grad(functools.partial(loss, chunks=count)))((hidden, weight)) for count in (1, chunks))
  np.testing.assert_allclose(actual, expected, rtol=1e-6)
  for ours, theirs in zip(chunked, slopes):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert np.abs(theirs).max() > 0.1


def test_half_precision_sums_gradients_in_single():
  """Chunk by chunk in bfloat16 the gradient of the output layer is as good as the plain one."""
  hidden, weight, target = inputs(rows=4, length=256, dtype=jnp.bfloat16)

  @functools.partial(jax.jit, static_argnums=1)
  def slope(hidden, chunks):
    return jax.grad(lambda weight: jnp.sum(cross_entropy.token_losses(hidden, weight, target, chunks)[0]))(weight)

  exact = slope(hidden.astype(jnp.float32), 1)
  errors = [float(jnp.abs(slope(hidden, chunks) - exact).max()) for chunks in (1, 64)]
  assert errors[1] <= 1.5 * errors[0] + 1e-3


@pytest.mark.parametrize('tied', [False, True])
def test_a_language_model_in_chunks(tied, monkeypatch):
  """The loss, its gradient and the evaluation of a model whose logits are over the limit are those of one whose are
  not."""
  config = models.TransformerConfig(vocab=11, context=12, layers=2, heads=2, width=8, tied=tied)
  objective = LanguageModel(models.transformer(config), functools.partial(models.init_cache, config), config.context)
  params = jax.jit(lambda key: objective.init(key, {}).params)(jax.random.key(0))
  tokens = jax.random.randint(jax.random.key(1), (4, 13), 0, 11)
  batch = {'tokens': tokens, 'weights': jnp.ones((4, 12)).at[1, 3:].set(0)}

  def everything():
    def loss(params):
      return objective.loss(params, CONTEXT, batch, jax.random.key(0)).loss
    # Compiled anew: the limit is read while tracing
    return jax.jit(lambda params: (jax.value_and_grad(loss)(params), objective.evaluate(
      params, CONTEXT, batch, jax.random.key(0))))(params)

  plain = everything()
  monkeypatch.setattr(cross_entropy, 'MAX_LOGITS', 4 * 11 * 4)
  assert cross_entropy.chunk_count(4, 12, 11) == 3
  assert 'scan' in str(jax.make_jaxpr(lambda: cross_entropy.token_losses(*inputs()))())
  jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=1e-6), everything(), plain)


def test_memory():
  """4,096 tokens over 32,768: the step holds the logits of a chunk, not the 512 MiB of all."""
  hidden, weight, target = (jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in (
    ((4, 1024, 64), jnp.bfloat16), ((32768, 64), jnp.float32), ((4, 1024), jnp.int32)))

  def temporaries(chunks):
    def loss(hidden, weight, target):
      return jnp.mean(cross_entropy.token_losses(hidden, weight, target, chunks)[0])
    return jax.jit(jax.grad(loss, (0, 1))).lower(hidden, weight, target).compile().memory_analysis().temp_size_in_bytes

  logits = 4 * 1024 * 32768 * 4
  assert temporaries(1) > logits
  assert temporaries(16) < logits / 6


def test_the_number_of_chunks():
  count = cross_entropy.chunk_count
  assert count(8, 256, 8192) == 1  # small: the plain formula
  assert count(16, 1024, 50257) == 16  # 12.3 chunks would do, 16 divides
  assert count(8, 1021, 131072) == 16  # a prime length: padded
  mesh = jax.sharding.AbstractMesh((4, 2, 2, 1, 1), sharding.MESH_AXES)
  with sharding.use(mesh):
    assert count(16, 1024, 50256) == 1  # a sixteenth of the logits on each device
    assert count(256, 1024, 50256) == 16
