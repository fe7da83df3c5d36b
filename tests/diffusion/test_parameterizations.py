"""Parameterizations: every one turns a perfect prediction back into the data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.diffusion import parameterizations, schedules

PROCESSES = sorted(set(schedules.PROCESSES) - {'vp_betas'})  # it needs betas
NAMES = sorted(parameterizations.PARAMETERIZATIONS)


def _times(process):
  # flow's end has alpha = 0, where noise alone does not determine the data
  return jnp.array([0.03, 0.4, 0.93]) * process.start


@pytest.mark.parametrize('process_name', PROCESSES)
@pytest.mark.parametrize('name', NAMES)
def test_a_perfect_prediction_gives_back_the_data(process_name, name):
  process, parameterization = schedules.PROCESSES[process_name](), parameterizations.PARAMETERIZATIONS[name]()
  x0, noise = jax.random.normal(jax.random.key(0), (2, 3, 4))
  t = _times(process)
  x = process.diffuse(x0, noise, t)
  seen = []

  def predict(scaled, time):
    seen.append((scaled, time))
    return parameterization.prediction(process, x0, noise, t)

  x0_hat = parameterization.denoise(process, predict, x, t)
  # In the units of x_t: far out, x_t keeps few digits of the data.
  scale = float(jnp.max(jnp.abs(x))) / float(jnp.min(process.alpha(t)))
  np.testing.assert_allclose(x0_hat, x0, atol=1e-5 * scale)
  np.testing.assert_allclose(seen[0][1], process.embed(t))
  np.testing.assert_allclose(seen[0][0], parameterization.scale_input(process, t)[:, None] * x, rtol=1e-6)


def test_targets_are_what_their_names_say():
  process, t = schedules.vp_linear(), jnp.float32([10.0, 700.0])
  alpha, sigma = process.alpha(t), process.sigma(t)
  x0, noise = jax.random.normal(jax.random.key(0), (2, 2, 4))
  expected = {'epsilon': noise, 'x0': x0, 'v': alpha[:, None] * noise - sigma[:, None] * x0}
  for name, value in expected.items():
    got = parameterizations.PARAMETERIZATIONS[name]().prediction(process, x0, noise, t)
    np.testing.assert_allclose(got, value, atol=1e-6)
  flow = parameterizations.velocity().prediction(schedules.flow(), x0, noise, jnp.float32([0.2, 0.9]))
  np.testing.assert_allclose(flow, noise - x0, atol=1e-6)


def test_edm_coefficients_are_those_of_the_paper():
  process, parameterization, data_std = schedules.edm(), parameterizations.edm(0.5), 0.5
  sigma = jnp.float32([0.01, 0.5, 20.0])
  skip, out = parameterization.coefficients(process, sigma)
  np.testing.assert_allclose(skip, data_std ** 2 / (sigma ** 2 + data_std ** 2), rtol=1e-5)
  np.testing.assert_allclose(out, sigma * data_std / jnp.sqrt(sigma ** 2 + data_std ** 2), rtol=1e-5)
  np.testing.assert_allclose(parameterization.scale_input(process, sigma), 1 / jnp.sqrt(sigma ** 2 + data_std ** 2),
                             rtol=1e-5)
  np.testing.assert_allclose(process.embed(sigma), jnp.log(sigma) / 4)


@pytest.mark.parametrize('process_name', PROCESSES)
def test_edm_inputs_and_targets_have_unit_variance(process_name):
  process, parameterization = schedules.PROCESSES[process_name](), parameterizations.edm(0.5)
  x0_key, noise_key = jax.random.split(jax.random.key(1))
  x0 = 0.5 * jax.random.normal(x0_key, (3, 50_000))
  noise = jax.random.normal(noise_key, x0.shape)
  t = _times(process)
  x = process.diffuse(x0, noise, t) * parameterization.scale_input(process, t)[:, None]
  target = parameterization.prediction(process, x0, noise, t)
  np.testing.assert_allclose(jnp.std(x, axis=1), 1, rtol=0.02)
  np.testing.assert_allclose(jnp.std(target, axis=1), 1, rtol=0.02)
  np.testing.assert_allclose(jnp.mean(x * target, axis=1), 0, atol=0.02)


def test_denoise_takes_one_time_for_all_and_low_precision_predictions():
  process, parameterization = schedules.flow(), parameterizations.velocity()
  x = jnp.ones((2, 3))
  predict = lambda scaled, time: jnp.full(scaled.shape, 0.5, jnp.bfloat16) * (time[:, None] > 0)
  x0_hat = parameterization.denoise(process, predict, x, 0.4)
  assert x0_hat.dtype == jnp.float32
  np.testing.assert_allclose(x0_hat, 1 - 0.4 * 0.5, rtol=1e-6)
