"""Codecs: pixels and latents there and back, draws of posteriors, and encoded columns in the place of images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.objectives import codecs
from genjax.objectives.kinds import Autoencoder

SHIFT, SCALE = np.array([0.5, -1.0], np.float32), np.array([2.0, 0.25], np.float32)


def fake(column='image'):
  """An autoencoder of 2 x 2 images with one latent pixel of two channels; its group holds one factor."""

  def encode(group, image_BHWC):
    x_BHWC = image_BHWC.astype(jnp.float32)
    mean = group['factor'] * jnp.stack([x_BHWC.mean((1, 2, 3)), x_BHWC[:, 0, 0, 0]], -1)[:, None, None]
    return mean, jnp.log(0.01) + 0 * mean

  def decode(group, z_BX):
    return jnp.round(jnp.broadcast_to(z_BX[..., :1], (len(z_BX), 2, 2, 1)) / group['factor']).astype(jnp.uint8)

  return Autoencoder((2, 2, 1), (1, 1, 2), encode, decode, lambda group: (SHIFT, SCALE), column)


FROZEN = {'part': {'factor': jnp.float32(0.1)}}
IMAGES = np.arange(3 * 4, dtype=np.uint8).reshape(3, 2, 2, 1)


def test_pixels_there_and_back():
  codec = codecs.pixels()
  x = codec.encode({}, {'image': IMAGES}, jax.random.key(0))
  assert codec.bounded and float(codec.encode({}, {'image': np.uint8([[[[255]]]])}, None).max()) == 1.0
  np.testing.assert_array_equal(codec.decode({}, x)['image'], IMAGES)


def test_latents_are_the_mean_without_a_key_shifted_and_scaled():
  codec = codecs.latents('part', fake())
  x = codec.encode(FROZEN, {'image': IMAGES, 'label': np.arange(3)}, None)
  mean, _ = fake().encode(FROZEN['part'], IMAGES)
  np.testing.assert_allclose(x, (mean - SHIFT) * SCALE, rtol=1e-6)
  assert x.shape == (3, 1, 1, 2) and x.dtype == jnp.float32 and not codec.bounded
  constant = np.full((2, 2, 2, 1), 7, np.uint8)
  decoded = codec.decode(FROZEN, codec.encode(FROZEN, {'image': constant}, None))
  assert list(decoded) == ['image']
  np.testing.assert_array_equal(decoded['image'], constant)


def test_a_key_draws_from_the_posterior():
  codec, many = codecs.latents('part', fake()), np.repeat(IMAGES[:1], 4000, axis=0)
  x = codec.encode(FROZEN, {'image': many}, jax.random.key(1))
  z = np.asarray(x / SCALE + SHIFT)[:, 0, 0]
  np.testing.assert_allclose(z.std(axis=0), 0.1, rtol=0.05)  # the log variance is log 0.01
  np.testing.assert_allclose(z.mean(axis=0), fake().encode(FROZEN['part'], IMAGES[:1])[0][0, 0, 0], atol=0.01)
  assert (codec.encode(FROZEN, {'image': many}, jax.random.key(1)) == x).all()
  assert (codec.encode(FROZEN, {'image': many}, jax.random.key(2)) != x).any()


@pytest.mark.parametrize('key', [None, 3])
@pytest.mark.parametrize('column', ['image', 'view'])
def test_encoded_columns_give_what_the_images_give(key, column):
  autoencoder, key = fake(column), None if key is None else jax.random.key(key)
  mean, log_variance = autoencoder.encode(FROZEN['part'], IMAGES)
  columns = {f'{column}_mean': np.asarray(mean), f'{column}_log_variance': np.asarray(log_variance)}
  first, then = codecs.latents('part', autoencoder), codecs.encoded('part', autoencoder)
  x = first.encode(FROZEN, {column: IMAGES}, key)
  np.testing.assert_array_equal(then.encode(FROZEN, columns, key), x)
  half = {name: value.astype(np.float16) for name, value in columns.items()}
  assert then.encode(FROZEN, half, key).dtype == jnp.float32
  np.testing.assert_allclose(then.encode(FROZEN, half, key), x, atol=3e-3)
  np.testing.assert_array_equal(then.decode(FROZEN, x)[column], first.decode(FROZEN, x)[column])
