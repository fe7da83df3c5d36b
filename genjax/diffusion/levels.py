"""Solvers in the noise level sigma / alpha of k-diffusion, and DEIS in its logarithm.

Signature and notation are those of `genjax.diffusion.samplers`. With rho = sigma / alpha the probability-flow ODE is
d(x / alpha) / d rho = eps_hat.
"""


import jax
import jax.numpy as jnp
import numpy as np

from genjax.diffusion.schedules import Process
from genjax.diffusion.solvers import last_of_few
from genjax.diffusion.stepping import Denoise, finish, noise, over_times
from genjax.types import Array, Key

_ORDER = 4  # of `lms`


def lms(denoise: Denoise, x_BX: Array, process: Process, times: Array, keys_B: Key) -> Array:
  """Linear multistep method of order 4 in the noise level: `LMSDiscreteScheduler`. The first steps have less."""
  del keys_B
  times = jnp.asarray(times, jnp.float32)

  def step(carry, row):
    x_BX, past = carry
    t, s, weights = row
    past = (process.noise(x_BX, denoise(x_BX, t), t), *past[:-1])
    change_BX = jnp.tensordot(weights, jnp.stack(past), 1)
    return (process.alpha(s) * (x_BX / process.alpha(t) + change_BX), past), None

  rows = (times[:-1], times[1:], _integrals(process.noise_to_signal(times)))
  return jax.lax.scan(step, (x_BX, (jnp.zeros_like(x_BX),) * _ORDER), rows)[0][0]


def _integrals(levels: Array) -> Array:
  """Integrals of the Lagrange polynomials through the last levels over each step, N4."""
  count = len(levels) - 1
  back = np.arange(count)[:, None] - np.arange(_ORDER)
  exists_N4 = jnp.asarray(back >= 0)
  nodes_N4 = levels[np.maximum(back, 0)]
  middle, half = (levels[1:] + levels[:-1]) / 2, (levels[1:] - levels[:-1]) / 2
  others = exists_N4[:, None, :] & ~np.eye(_ORDER, dtype=bool)
  gaps = jnp.where(others, nodes_N4[:, :, None] - nodes_N4[:, None, :], 1.0)
  total = jnp.zeros_like(nodes_N4)
  for place in (-(3 ** -0.5), 3 ** -0.5):  # two points are exact for polynomials of degree 3
    at = (middle + place * half)[:, None, None]
    total += jnp.prod(jnp.where(others, (at - nodes_N4[:, None, :]) / gaps, 1.0), axis=2)
  return jnp.where(exists_N4, half[:, None] * total, 0.0)


def dpm2(denoise: Denoise, x_BX: Array, process: Process, times: Array, keys_B: Key) -> Array:
  """The midpoint method in the noise level, with the middle in its logarithm: `KDPM2DiscreteScheduler`, the "DPM2" of
  k-diffusion after Karras et al. (2022). Two evaluations a step, one in the last.

  The process's time must be the noise level sigma / alpha; `spacings.grid` sees to it for processes of whole times.
  """
  return dpm2_ancestral(denoise, x_BX, process, times, keys_B, eta=0.0)


def dpm2_ancestral(denoise: Denoise, x_BX: Array, process: Process, times: Array, keys_B: Key, *,
                   eta: float = 1.0) -> Array:
  """`dpm2` with new noise in each step: `KDPM2AncestralDiscreteScheduler`.

  Args:
    eta: share of the noise; 0 is `dpm2`.
  """

  def step(x_BX, t, s, index):
    up = eta * s * jnp.sqrt(jnp.maximum(1 - (s / t) ** 2, 0.0))
    down = jnp.sqrt(jnp.maximum(s ** 2 - up ** 2, 0.0))
    middle = jnp.sqrt(t * down)
    begin_BX = x_BX / process.alpha(t)
    middle_BX = begin_BX + (middle - t) * process.noise(x_BX, denoise(x_BX, t), t)
    middle_BX = process.alpha(middle) * middle_BX
    x_BX = begin_BX + (down - t) * process.noise(middle_BX, denoise(middle_BX, middle), middle)
    return process.alpha(s) * (x_BX + up * noise(keys_B, index, x_BX) if eta else x_BX)

  times = jnp.asarray(times, jnp.float32)
  return finish(denoise, over_times(step, x_BX, times[:-1]), process, times)


def deis(denoise: Denoise, x_BX: Array, process: Process, times: Array, keys_B: Key) -> Array:
  """DEIS of order 2 in log rho (Zhang & Chen 2023, rho-AB): `DEISMultistepScheduler`. The first step has order 1, and
  so has the last if the noise ends at 0 or if there are few steps."""
  del keys_B
  last = last_of_few(times)

  def integral(rho, here, other):
    """The integral of (log rho - log other) / (log here - log other)."""
    return rho * (jnp.log(jnp.maximum(rho, 1e-30)) - jnp.log(other) - 1) / (jnp.log(here) - jnp.log(other))

  def step(carry, t, s, index):
    x_BX, previous_BX, previous_rho = carry
    rho, target = process.noise_to_signal(t), process.noise_to_signal(s)
    noise_BX = process.noise(x_BX, denoise(x_BX, t), t)
    first_order = (index == 0) | (index == last) | (target <= 0)
    earlier = jnp.where(index == 0, 2 * rho, previous_rho)
    now = integral(target, rho, earlier) - integral(rho, rho, earlier)
    before = integral(target, earlier, rho) - integral(rho, earlier, rho)
    now, before = jnp.where(first_order, target - rho, now), jnp.where(first_order, 0.0, before)
    x_BX = process.alpha(s) * (x_BX / process.alpha(t) + now * noise_BX + before * previous_BX)
    return x_BX, noise_BX, rho

  return over_times(step, (x_BX, jnp.zeros_like(x_BX), jnp.float32(1.0)), times)[0]
