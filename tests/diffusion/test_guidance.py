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


def test_interval_may_be_of_another_level_than_the_time():
  x, label = jnp.ones((2, 2)), jnp.array([0, 2])
  guided = classifier_free(_denoise, label, NULL, 3.0, interval=(0.5, 2.0), level=lambda t: t / (1 - t))
  always = classifier_free(_denoise, label, NULL, 3.0)
  # Levels 0.43, 0.67, 1.5, 2.3, inf
  for t, inside in ((0.3, False), (0.4, True), (0.6, True), (0.7, False), (1.0, False)):
    expected = always(x, jnp.float32(t)) if inside else _denoise(x, t, label)
    np.testing.assert_allclose(guided(x, jnp.float32(t)), expected, rtol=1e-6)


@pytest.mark.parametrize('interval', [None, (0.2, 0.6)])
def test_what_else_a_network_predicts_is_that_of_the_labels(interval):
  pair = lambda x, t, label: (_denoise(x, t, label), 7.0 * label[:, None] + x)
  x, t, label = jnp.ones((2, 2)), jnp.float32(0.4), jnp.array([0, 2])
  estimate, rest = classifier_free(pair, label, NULL, 3.0, interval=interval)(x, t)
  np.testing.assert_allclose(estimate, classifier_free(_denoise, label, NULL, 3.0)(x, t))
  np.testing.assert_allclose(rest, pair(x, t, label)[1])
