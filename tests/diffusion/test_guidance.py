"""Classifier-free guidance on a denoiser with known answers."""

import jax.numpy as jnp
import numpy as np
import pytest

from genjax.diffusion.guidance import classifier_free

NULL = 3


def _denoise(x_BX, t, label_B):
  return x_BX * t + 10.0 * label_B[:, None]


@pytest.mark.parametrize('scale', [0.0, 0.5, 1.0, 2.5])
def test_guidance_extrapolates_from_null_to_conditional(scale):
  x, t, label = jnp.arange(6.0).reshape(3, 2), jnp.float32(0.5), jnp.array([0, 1, 2])
  conditional, null = _denoise(x, t, label), _denoise(x, t, jnp.full(3, NULL))
  guided = classifier_free(_denoise, label, NULL, scale)(x, t)
  np.testing.assert_allclose(guided, null + scale * (conditional - null), rtol=1e-6)
  if scale in (0.0, 1.0):
    np.testing.assert_array_equal(guided, conditional if scale else null)


@pytest.mark.parametrize('scale, batch', [(1.0, 3), (0.0, 3), (2.0, 6)])
def test_one_evaluation_of_one_batch(scale, batch):
  seen = []

  def denoise(x_BX, t, label_B):
    seen.append(x_BX.shape[0])
    return _denoise(x_BX, t, label_B)

  classifier_free(denoise, jnp.arange(3), NULL, scale)(jnp.ones((3, 2)), jnp.float32(0.5))
  assert seen == [batch]


def test_interval_limits_guidance():
  x, label = jnp.ones((2, 2)), jnp.array([0, 2])
  guided = classifier_free(_denoise, label, NULL, 3.0, interval=(0.2, 0.6))
  always = classifier_free(_denoise, label, NULL, 3.0)
  for t in (0.1, 0.7):
    np.testing.assert_allclose(guided(x, jnp.float32(t)), _denoise(x, t, label), rtol=1e-6)
  np.testing.assert_allclose(guided(x, jnp.float32(0.4)), always(x, jnp.float32(0.4)))
