"""Embeddings and patches."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.nn import embeddings


@pytest.mark.parametrize('shift', [0, 1])
def test_timestep_embedding_has_its_closed_form(shift):
  got = embeddings.timestep_embedding(jnp.array([0.0, 3.0]), 8, shift=shift)
  frequency = 10_000.0 ** (-np.arange(4) / (4 - shift))
  np.testing.assert_allclose(got[0], [1, 1, 1, 1, 0, 0, 0, 0], atol=1e-6)
  np.testing.assert_allclose(got[1], np.concatenate([np.cos(3 * frequency), np.sin(3 * frequency)]), atol=1e-5)


def test_timestep_and_label_modules_have_their_shapes():
  time = embeddings.TimestepEmbedding(8, 16, rngs=nnx.Rngs(0))
  assert time(jnp.arange(3.0)).shape == (3, 16)
  label = embeddings.LabelEmbedding(10, 16, rngs=nnx.Rngs(0))
  assert label.table.embedding[...].shape == (11, 16)
  assert (label(jnp.array([10])) == label.table.embedding[...][10]).all()


def test_positions_are_separable_and_distinct():
  positions = embeddings.sincos_positions(3, 5, 16)
  grid = positions.reshape(3, 5, 16)
  assert (grid[:, 2, :8] == grid[0, 2, :8]).all() and (grid[1, :, 8:] == grid[1, 0, 8:]).all()
  np.testing.assert_allclose(grid[0, 3, 0], np.sin(3.0), rtol=1e-6)  # the first half tells the column
  np.testing.assert_allclose(grid[2, 0, 8], np.sin(2.0), rtol=1e-6)
  assert len(np.unique(positions.round(4), axis=0)) == 15
  with pytest.raises(ValueError, match='multiple of 4'):
    embeddings.sincos_positions(2, 2, 6)


@pytest.mark.parametrize('patch, height, width', [(1, 3, 2), (2, 4, 6), (4, 8, 4)])
def test_patchify_round_trip_and_layout(patch, height, width):
  x = jax.random.normal(jax.random.key(0), (2, height, width, 3))
  patches = embeddings.patchify(x, patch)
  assert patches.shape == (2, height * width // patch ** 2, 3 * patch ** 2)
  np.testing.assert_array_equal(patches[1, 1].reshape(patch, patch, 3),
                                x[1, :patch, patch:2 * patch] if width > patch else x[1, patch:2 * patch, :patch])
  np.testing.assert_array_equal(embeddings.unpatchify(patches, patch, height, width), x)


@pytest.mark.parametrize('width', [6, 7])
def test_positions_of_a_line_are_sines_and_then_cosines(width):
  frequency = 10_000.0 ** (-2 * np.arange(4) / width)
  expected = np.concatenate([np.sin(5 * frequency[:width - width // 2]), np.cos(5 * frequency[:width // 2])])
  np.testing.assert_allclose(embeddings.sincos(np.arange(9), width)[5], expected, rtol=1e-12)


def test_buckets_of_distances():
  """Of 16 on a side, 8 are single distances; those up to 128 lie on a logarithmic scale, e.g. 8 * 16^(1/8) = 11.3
  begins the tenth."""
  both = lambda offset: int(embeddings.relative_buckets(jnp.int32(offset), 32, 128, True))
  assert [both(offset) for offset in (0, -1, -7, -8, -11, -12, -127, -128, -5000)] == [0, 1, 7, 8, 8, 9, 15, 15, 15]
  assert [both(offset) for offset in (1, 7, 11, 12, 5000)] == [17, 23, 24, 25, 31]
  past = [
    int(embeddings.relative_buckets(jnp.int32(offset), 32, 128, False)) for offset in (3, 0, -15, -16, -19, -127, -5000)
  ]
  assert past == [0, 0, 15, 16, 17, 31, 31]
  with pytest.raises(ValueError, match='relative positions need'):
    embeddings.relative_buckets(jnp.int32(0), 32, 8, True)


def test_the_bias_of_relative_positions_depends_on_distances():
  module = embeddings.RelativeBias(3, 8, 9, True, rngs=nnx.Rngs(0))
  whole_HTS = module(jnp.arange(12), jnp.arange(12))
  assert whole_HTS.shape == (3, 12, 12)
  np.testing.assert_array_equal(whole_HTS[:, 1:, 1:], whole_HTS[:, :-1, :-1])
  np.testing.assert_array_equal(module(7 + jnp.arange(1), jnp.arange(12))[:, 0], whole_HTS[:, 7])
