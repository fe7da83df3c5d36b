"""Whisper: what is read of frames, their padding, the cache."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax import sharding
from genjax.models.transformers.seq2seq import Seq2SeqConfig, axes, seq2seq, start_cache
from genjax.models.transformers.whisper import OPTIONS, SIZES, whisper
from genjax.nn.functional import count
from genjax.types import UserError

SMALL = Seq2SeqConfig(vocab=11, context=6, layers=2, decoder_layers=1, heads=2, width=8, mlp_width=12, frames=5,
                      source_context=6, **OPTIONS)


@functools.cache
def model():
  params, _ = jax.jit(seq2seq(SMALL).init)(jax.random.key(0))
  leaves, structure = jax.tree.flatten(params)
  params = jax.tree.unflatten(
    structure, [leaf + 0.2 * np.random.default_rng(0).normal(size=leaf.shape) for leaf in leaves])
  frames_BSF = np.random.default_rng(1).normal(size=(2, 12, 5)).astype(np.float32)
  return jax.jit(seq2seq(SMALL).apply), params, frames_BSF, np.random.default_rng(2).integers(0, 11, (2, 6))


@pytest.mark.parametrize(('size', 'published'), [
  # Counted from the published models, fixed positions included.
  ('tiny', 37_760_640), ('base', 72_593_920), ('small', 241_734_912), ('medium', 763_857_920), ('large', 1_543_304_960),
  ('large-v2', 1_543_304_960), ('large-v3', 1_543_490_560), ('large-v3-turbo', 808_878_080)])
def test_published_parameter_counts(size, published):
  assert count(jax.eval_shape(seq2seq(whisper(size)).init, jax.random.key(0))[0]) == published
  assert set(SIZES) >= {'tiny.en', 'base.en', 'small.en', 'medium.en'}


@pytest.mark.parametrize('frames', [7, 8])
def test_padding_counts_as_the_end_of_the_sound(frames):
  apply, params, frames_BSF, target_BT = model()
  mask_BS = np.arange(12) < np.asarray([[12], [frames]])
  noisy_BSF = np.where(mask_BS[..., None], frames_BSF, 100.0)
  found = apply(params, {}, noisy_BSF, target_BT, mask_BS)[0]
  np.testing.assert_allclose(found[0], apply(params, {}, frames_BSF, target_BT)[0][0], atol=1e-5)
  np.testing.assert_allclose(found[1], apply(params, {}, frames_BSF[:, :frames], target_BT)[0][1], atol=1e-5)
  cache = jax.jit(functools.partial(start_cache, SMALL, length=6))(params, noisy_BSF, mask_BS)
  for position in range(6):
    (logits_B1V, cache), _ = apply(params, {}, None, target_BT[:, position:position + 1], cache=cache,
                                   position=position)
    np.testing.assert_allclose(logits_B1V[:, 0], found[:, position], atol=1e-5)


def test_every_frame_is_read_and_positions_stay():
  """Each frame reaches each token; the only parameters without a gradient are the fixed positions."""
  _, params, frames_BSF, target_BT = model()

  def loss(params, frames_BSF):
    return jnp.mean(jax.nn.log_softmax(seq2seq(SMALL).apply(params, {}, frames_BSF, target_BT)[0])[..., 0])

  slopes, slope_BSF = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, frames_BSF)
  assert np.abs(slope_BSF).max(axis=2).min() > 0
  assert not np.abs(slopes['encoder']['input']['frames'].pop('sinusoids')).max()
  assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(slopes))
  assert 'bias' not in params['encoder']['blocks']['attention']['key'] and 'bias' in params['encoder']['blocks'][
    'attention']['value']


def test_tensor_parallel_rules_match():
  mesh = jax.sharding.AbstractMesh((1, 2, 2, 1, 1), sharding.MESH_AXES)
  shapes = jax.eval_shape(seq2seq(SMALL).init, jax.random.key(0))[0]
  placed = sharding.param_shardings(shapes, mesh, axes(SMALL), {'vocab': None})
  assert placed['decoder']['blocks']['cross']['key']['kernel'].spec[2] == 'tensor'


def test_bad_options_and_frames():
  for changes in ({'source_context': 0}, {'frames': 0}, {'target_vocab': 5}, {'positions': 'relative'}):
    with pytest.raises(ValueError, match='go together'):
      dataclasses.replace(SMALL, **changes)
  with pytest.raises(ValueError, match="size must be one of .*got 'huge'"):
    whisper('huge')
  apply, params, frames_BSF, target_BT = model()
  for frames in (frames_BSF[..., :4], np.zeros((2, 13, 5)), frames_BSF[0]):
    with pytest.raises(UserError, match='up to 12 frames of 5 features, got an array of shape'):
      apply(params, {}, frames, target_BT)
