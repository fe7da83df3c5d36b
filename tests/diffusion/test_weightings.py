"""Loss weights against the formulas of the papers, for every parameterization."""

import jax.numpy as jnp
import numpy as np
import pytest

from genjax.diffusion import parameterizations, schedules, weightings
from genjax.types import UserError

T = jnp.float32([1.0, 30.0, 250.0, 600.0, 1000.0])
PROCESS = schedules.vp_linear()
SNR = (PROCESS.alpha(T) / PROCESS.sigma(T)) ** 2


def _weights(weighting, name, process=PROCESS, t=T):
  return weighting(process, parameterizations.PARAMETERIZATIONS[name](), t)


@pytest.mark.parametrize('gamma', [5.0, 1.0])
def test_min_snr(gamma):
  least = np.minimum(SNR, gamma)
  assert (least < SNR).any() and (least == SNR).any()
  weighting = weightings.min_snr(gamma)
  np.testing.assert_allclose(_weights(weighting, 'x0'), least, rtol=1e-5)
  np.testing.assert_allclose(_weights(weighting, 'epsilon'), least / SNR, rtol=1e-5)
  np.testing.assert_allclose(_weights(weighting, 'v'), least / (SNR + 1), rtol=1e-5)


def test_other_weightings_for_the_noise():
  np.testing.assert_allclose(_weights(weightings.truncated_snr(), 'epsilon'), np.maximum(SNR, 1) / SNR, rtol=1e-5)
  np.testing.assert_allclose(_weights(weightings.p2(0.5, 2.0), 'epsilon'), (2.0 + SNR) ** -0.5, rtol=1e-5)
  np.testing.assert_allclose(_weights(weightings.sigmoid(1.5), 'epsilon'), 1 / (1 + np.exp(np.log(SNR) - 1.5)),
                             rtol=1e-5)
  assert (_weights(weightings.uniform(), 'v') == 1).all()


@pytest.mark.parametrize('name', sorted(weightings.WEIGHTINGS))
@pytest.mark.parametrize('process, parameterizations_', [
    (schedules.vp_cosine(beta_max=1.0), ('v', 'x0')), (schedules.vp_linear(beta_end=1.0), ('v', 'x0')),
    (schedules.flow(), ('v', 'x0', 'velocity')), (schedules.edm(), ('edm', 'x0', 'epsilon'))])
def test_weights_are_finite_from_data_to_pure_noise(name, process, parameterizations_):
  t = jnp.linspace(0.001, 1.0, 100) * process.start
  t = jnp.ceil(t) if process.steps else t
  for parameterization in parameterizations_:
    weights = _weights(weightings.WEIGHTINGS[name](), parameterization, process, t)
    assert jnp.isfinite(weights).all() and (weights >= 0).all()


def test_min_snr_weighs_the_same_error_of_the_data_alike():
  """Whatever is predicted, the weighted error is min(snr, gamma) |x0 - x0_hat|^2."""
  x0, noise, wrong = jnp.full((5, 1), 0.3), jnp.full((5, 1), -0.8), 0.1
  for process, names in ((PROCESS, ('epsilon', 'x0', 'v')), (schedules.flow(), ('x0', 'v', 'velocity'))):
    t = T / 1000 * process.start if process.steps == 0 else T
    t = jnp.clip(t, 0.05, None)
    snr = (process.alpha(t) / process.sigma(t)) ** 2
    for name in names:
      parameterization = parameterizations.PARAMETERIZATIONS[name]()
      x = process.diffuse(x0, noise, t)
      prediction = parameterization.prediction(process, x0, noise, t) + wrong
      x0_hat = parameterization.denoise(process, lambda *_, p=prediction: p, x, t)
      np.testing.assert_allclose(_weights(weightings.min_snr(), name, process, t) * wrong ** 2,
                                 np.minimum(snr, 5.0) * np.square(x0_hat - x0)[:, 0], rtol=2e-2, atol=1e-9)


@pytest.mark.parametrize('make', [lambda: weightings.min_snr(0.0), lambda: weightings.min_snr(float('nan')),
                                  lambda: weightings.p2(k=-1.0), lambda: weightings.sigmoid(float('inf'))])
def test_numbers_out_of_range_are_user_errors(make):
  with pytest.raises(UserError, match='weighting'):
    make()
