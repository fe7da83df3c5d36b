"""Guidance of denoisers with known answers."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.diffusion.guidance import guided

X = jnp.arange(6.0).reshape(3, 2)
T = jnp.float32(0.5)


def _denoise(x_BX, t, given):
  """Linear in what it is told, and in x."""
  return x_BX * t + given['text'][:, None] * jnp.array([1.0, 3.0]) + 10.0 * given['image'][:, None]


def _told(text, image=0.0):
  return {'text': jnp.full(3, text) + jnp.arange(3), 'image': jnp.full(3, image)}


NULL, IMAGE, ALL = _told(-1.0, -2.0), _told(-1.0, 4.0), _told(2.0, 4.0)


def _counted():
  seen = []

  def denoise(x_BX, t, given):
    seen.append(x_BX.shape[0])
    return _denoise(x_BX, t, given)

  return denoise, seen


@pytest.mark.parametrize('scale', [0.0, 0.5, 1.0, 2.5])
def test_guidance_extrapolates_from_null_to_conditional(scale):
  conditional, null = (_denoise(X, T, told) for told in (ALL, NULL))
  found = guided(_denoise, [NULL, ALL], [scale])(X, T)
  np.testing.assert_allclose(found, null + scale * (conditional - null), rtol=1e-6)
  if scale in (0.0, 1.0):
    np.testing.assert_array_equal(found, conditional if scale else null)


@pytest.mark.parametrize('scales', list(itertools.product([0.0, 1.0, 1.5, 7.5], repeat=2)))
def test_two_scales_are_equation_3_of_brooks(scales):
  image, text = scales
  null, only, both = (_denoise(X, T, told) for told in (NULL, IMAGE, ALL))
  found = guided(_denoise, [NULL, IMAGE, ALL], scales)(X, T)
  np.testing.assert_allclose(found, null + image * (only - null) + text * (both - only), rtol=1e-5, atol=1e-5)


def test_any_number_of_scales():
  branches = [_told(float(index), -float(index)) for index in range(5)]
  scales, estimates = [1.5, 0.5, 2.0, 3.0], [_denoise(X, T, told) for told in branches]
  expected = estimates[0] + sum(
    scale * (after - before) for scale, before, after in zip(scales, estimates, estimates[1:]))
  np.testing.assert_allclose(guided(_denoise, branches, scales)(X, T), expected, rtol=1e-5)
  with pytest.raises(ValueError, match='one scale less than branches'):
    guided(_denoise, branches, [1.0])


@pytest.mark.parametrize('scales, rows', [
  ([1.0], 3), ([0.0], 3), ([2.0], 6), ([], 3), ([1.0, 1.0], 3), ([2.0, 2.0], 6), ([1.0, 2.0], 6), ([2.0, 0.0], 6),
  ([0.0, 0.0], 3), ([0.0, 1.0], 9), ([1.5, 7.5], 9)])
def test_one_call_of_one_batch_with_the_branches_that_count(scales, rows):
  denoise, seen = _counted()
  guided(denoise, [NULL, IMAGE, ALL][-len(scales) - 1:], scales)(X, T)
  assert seen == [rows]


def test_the_network_is_told_trees():
  denoise = lambda x, t, told: x + told['residuals'][0] + 2 * told['residuals'][1]
  told = lambda one, two: {'residuals': (jnp.full((3, 2), one), jnp.full((3, 2), two))}
  found = guided(denoise, [told(0.0, 1.0), told(3.0, -1.0)], [4.0])(X, T)
  np.testing.assert_allclose(found, X + 2 + 4 * (1 - 2), rtol=1e-6)


@pytest.mark.parametrize('scale', [0.0, 3.0])
def test_interval_limits_guidance(scale):
  limited = guided(_denoise, [NULL, ALL], [scale], interval=(0.2, 0.6))
  always = guided(_denoise, [NULL, ALL], [scale])
  for t in (0.1, 0.2, 0.7):
    np.testing.assert_allclose(limited(X, jnp.float32(t)), _denoise(X, t, ALL), rtol=1e-6)
  for t in (0.4, 0.6):
    np.testing.assert_allclose(limited(X, jnp.float32(t)), always(X, jnp.float32(t)), rtol=1e-6)


def test_interval_may_be_of_another_level_than_the_time():
  limited = guided(_denoise, [NULL, ALL], [3.0], interval=(0.5, 2.0), level=lambda t: t / (1 - t))
  always = guided(_denoise, [NULL, ALL], [3.0])
  # Levels 0.43, 0.67, 1.5, 2.3, inf
  for t, inside in ((0.3, False), (0.4, True), (0.6, True), (0.7, False), (1.0, False)):
    expected = always(X, jnp.float32(t)) if inside else _denoise(X, t, ALL)
    np.testing.assert_allclose(limited(X, jnp.float32(t)), expected, rtol=1e-6)


@pytest.mark.parametrize('phi', [0.0, 0.7, 1.0])
@pytest.mark.parametrize('scales', [(7.5,), (0.0,), (1.5, 7.5)])
def test_rescaling_is_equation_16_of_lin(scales, phi):
  branches = [NULL, IMAGE, ALL][-len(scales) - 1:]
  plain = np.asarray(guided(_denoise, branches, scales)(X, T))
  conditional = np.asarray(_denoise(X, T, ALL))
  ratio = np.std(conditional, axis=1, keepdims=True) / np.std(plain, axis=1, keepdims=True)
  found = guided(_denoise, branches, scales, rescale=phi)(X, T)
  np.testing.assert_allclose(found, phi * ratio * plain + (1 - phi) * plain, rtol=1e-5)
  if phi == 1:
    np.testing.assert_allclose(np.std(found, axis=1), np.std(conditional, axis=1), rtol=1e-5)


def test_rescaling_of_each_row_is_its_own():
  alone = guided(lambda x, t, told: _denoise(x, t, told), [{name: value[:1] for name, value in told.items()}
                                                           for told in (NULL, ALL)], [5.0], rescale=0.7)(X[:1], T)
  np.testing.assert_allclose(alone, guided(_denoise, [NULL, ALL], [5.0], rescale=0.7)(X, T)[:1], rtol=1e-6)


@pytest.mark.parametrize('interval', [None, (0.2, 0.6)])
def test_what_else_a_network_predicts_is_that_of_all_conditions(interval):
  pair = lambda x, t, told: (_denoise(x, t, told), 7.0 * told['text'][:, None] + x)
  estimate, rest = guided(pair, [NULL, IMAGE, ALL], [2.0, 3.0], interval=interval)(X, jnp.float32(0.4))
  np.testing.assert_allclose(estimate, guided(_denoise, [NULL, IMAGE, ALL], [2.0, 3.0])(X, jnp.float32(0.4)))
  np.testing.assert_allclose(rest, pair(X, 0.4, ALL)[1])


def test_it_is_compiled_with_a_traced_time():
  step = jax.jit(guided(_denoise, [NULL, ALL], [3.0], interval=(0.2, 0.6), rescale=0.5))
  for t in (0.1, 0.5):
    eager = guided(_denoise, [NULL, ALL], [3.0 if t == 0.5 else 1.0], rescale=0.5)(X, jnp.float32(t))
    np.testing.assert_allclose(step(X, jnp.float32(t)), eager, rtol=1e-5)
