"""Solvers in lambda = log(alpha / sigma) beside `dpmpp_2m`: DPM-Solver++ with noise or in single steps, and UniPC.

Signature and notation are those of `genjax.diffusion.samplers`. A step from t to s has h = lambda_s - lambda_t. Where
lambda is infinite, at pure noise and at clean data, it is bounded, and steps have order 1.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from genjax.diffusion.schedules import Process, transition
from genjax.diffusion.stepping import Denoise, noise, over_times
from genjax.types import Array, Key

_LEAST = 1e-9  # bound of alpha and sigma in lambda
_FEW_STEPS = 15  # with fewer steps the last one has order 1, as in diffusers; it always has where sigma ends at 0


def log_ratio(process: Process, t: Array) -> Array:
  """lambda, bounded."""
  return jnp.log(jnp.maximum(process.alpha(t), _LEAST)) - jnp.log(jnp.maximum(process.sigma(t), _LEAST))


def decay(process: Process, t: Array, s: Array) -> Array:
  """exp(-h) for a step from t to s, without lambda: it is 0 where lambda is infinite."""
  return process.sigma(s) / process.sigma(t) * transition(process, t, s)[0]


def last_of_few(times: Array) -> int:
  """The index of a last step that has order 1 because there are few steps; -1 for none."""
  return len(times) - 2 if len(times) - 1 < _FEW_STEPS else -1


def dpmpp_2m_sde(denoise: Denoise, x_BX: Array, process: Process, times: Array, keys_B: Key) -> Array:
  """DPM-Solver++(2M) of the reverse-time SDE (Lu et al. 2022b, appendix; SDE-DPM-Solver++).

  Order 2 but for the first and the last step, and new noise in each.
  """
  last = last_of_few(times)

  def step(carry, t, s, index):
    x_BX, previous_x0_BX, previous_h = carry
    kept = decay(process, t, s)
    h = log_ratio(process, s) - log_ratio(process, t)
    x0_BX = denoise(x_BX, t)
    first_order = (index == 0) | (index == last) | (process.sigma(s) <= 0)
    weight = jnp.where(first_order, 0.0, h / (2 * previous_h))
    estimate_BX = x0_BX + weight * (x0_BX - previous_x0_BX)
    mean_BX = process.sigma(s) / process.sigma(t) * kept * x_BX + process.alpha(s) * (1 - kept ** 2) * estimate_BX
    deviation = process.sigma(s) * jnp.sqrt(jnp.maximum(1 - kept ** 2, 0.0))
    return mean_BX + deviation * noise(keys_B, index, x_BX), x0_BX, h

  return over_times(step, (x_BX, jnp.zeros_like(x_BX), jnp.float32(1.0)), times)[0]


def dpmpp_2s(denoise: Denoise, x_BX: Array, process: Process, times: Array, keys_B: Key) -> Array:
  """DPM-Solver++(2S), a single-step method of order 2 over pairs of neighbouring steps (Lu et al. 2022b, algorithm 1).

  The last step has order 1, and so has the one before it if the number of steps is even.
  """
  del keys_B
  count = len(times) - 1

  def step(carry, t, s, index):
    x_BX, base_BX, base_x0_BX, base_t = carry
    x0_BX = denoise(x_BX, t)
    second = (index % 2 == 1) & (index < count - 1)
    base_BX, base_t = jnp.where(second, base_BX, x_BX), jnp.where(second, base_t, t)
    here, there = log_ratio(process, t), log_ratio(process, base_t)
    ratio = (log_ratio(process, s) - there) / jnp.where(second, here - there, 1.0)
    slope_BX = jnp.where(second, ratio * (x0_BX - base_x0_BX) / 2, 0.0)
    base_x0_BX = jnp.where(second, base_x0_BX, x0_BX)
    kept = decay(process, base_t, s)
    moved_BX = (process.sigma(s) / process.sigma(base_t) * base_BX
                + process.alpha(s) * (1 - kept) * (base_x0_BX + slope_BX))
    return moved_BX, base_BX, base_x0_BX, base_t

  zero_BX = jnp.zeros_like(x_BX)
  return over_times(step, (x_BX, zero_BX, zero_BX, jnp.float32(0.0)), times)[0]


def dpmpp_sde(denoise: Denoise, x_BX: Array, process: Process, times: Array, keys_B: Key) -> Array:
  """DPM-Solver++ of the reverse-time SDE in single steps with a middle in log sigma (`DPMSolverSDEScheduler`; the
  "DPM++ SDE" of k-diffusion). Two evaluations a step, one in the last.

  The process's time must be the noise level sigma / alpha; `spacings.grid` sees to it for processes of whole times.
  """
  count = len(times) - 1

  def towards(x_BX, x0_BX, t, s, noise_BX):
    """From level t to s: down to where noise brings it back to s."""
    # Smaller than s also in float32, where s is 0.
    up = s * jnp.sqrt(jnp.maximum(1 - (s / t) ** 2, 0.0))
    down = jnp.sqrt(jnp.maximum(s ** 2 - up ** 2, 0.0))
    x_BX = x_BX / process.alpha(t)
    return process.alpha(s) * (x0_BX + down / t * (x_BX - x0_BX) + up * noise_BX)

  def step(x_BX, t, s, index):
    middle = jnp.sqrt(t * s)
    # Both are increments of one Brownian motion over sigma, which share the part from t to the middle.
    first_BX, second_BX = noise(keys_B, index, x_BX), noise(keys_B, index + count, x_BX)
    share = jnp.sqrt((t - middle) / (t - s))
    both_BX = share * first_BX + jnp.sqrt(1 - share ** 2) * second_BX
    middle_BX = towards(x_BX, denoise(x_BX, t), t, middle, first_BX)
    return towards(x_BX, denoise(middle_BX, middle), t, s, both_BX)

  times = jnp.asarray(times, jnp.float32)
  x_BX, t, s = over_times(step, x_BX, times[:-1]), times[-2], times[-1]
  x0_BX = denoise(x_BX, t)
  return jnp.where(s > 0, towards(x_BX, x0_BX, t, s, noise(keys_B, jnp.asarray(count - 1), x_BX)), x0_BX)


def unipc(denoise: Denoise, x_BX: Array, process: Process, times: Array, keys_B: Key, *, order: int = 2) -> Array:
  """UniPC with B(h) = exp(h) - 1 (Zhao et al. 2023, algorithms 1 and 2): each evaluation corrects the step before it.

  Args:
    order: of the predictor, 1 to 3; the corrector has one more. The first steps and the last have less.

  Raises:
    ValueError: another order.
  """
  del keys_B
  if order not in (1, 2, 3):
    raise ValueError(f'order must be 1, 2 or 3, got {order}')
  times = jnp.asarray(times, jnp.float32)
  count = len(times) - 1
  orders = np.minimum(order, np.minimum(np.arange(count) + 1, count - np.arange(count)))
  predictor_N3, corrector_N4 = _weights(process, times, orders)
  kept_N = jax.vmap(lambda t, s: decay(process, t, s))(times[:-1], times[1:])
  rows = (times[:-1], times[1:], kept_N, predictor_N3, jnp.roll(times[:-1], 1), jnp.roll(kept_N, 1),
          jnp.roll(corrector_N4, 1, axis=0), jnp.arange(count) == 0)

  def moved(x_BX, t, s, kept, weights, known):
    estimate_BX = jnp.tensordot(weights, jnp.stack(known), 1)
    return process.sigma(s) / process.sigma(t) * x_BX + process.alpha(s) * (1 - kept) * estimate_BX

  def step(carry, row):
    x_BX, before_BX, known = carry
    t, s, kept, predictor, previous_t, previous_kept, corrector, first = row
    x0_BX = denoise(x_BX, t)
    corrected_BX = moved(before_BX, previous_t, t, previous_kept, corrector, (x0_BX, *known))
    x_BX = jnp.where(first, x_BX, corrected_BX)
    known = (x0_BX, *known[:2])
    return (moved(x_BX, t, s, kept, predictor, known), x_BX, known), None

  zero_BX = jnp.zeros_like(x_BX)
  return jax.lax.scan(step, (x_BX, zero_BX, (zero_BX,) * 3), rows)[0][0]


def _weights(process: Process, times: Array, orders: np.ndarray) -> tuple[Array, Array]:
  """Weights of the estimates for every step.

  Returns:
    N3, of the predictor: for those at t, and at the two times before it. N4, of the corrector: for those at s, at t,
    and at the two times before it.
  """
  place = log_ratio(process, times)
  h = place[1:] - place[:-1]
  earlier = lambda back: (jnp.concatenate([jnp.zeros(back), place[:-1]])[:len(h)] - place[:-1]) / h
  exists = lambda back: jnp.asarray(np.arange(len(orders)) >= back)
  near = jnp.where(exists(1), earlier(1), -1.0)
  far = jnp.where(exists(2), earlier(2), -2.0)
  # The integrals of the interpolating polynomials (Zhao et al. 2023, eq. 4): phi_2, phi_3, phi_4 over phi_1.
  first = -jnp.expm1(-h)
  second = jnp.where(h < 1, _series(h, 1), 1 - first / h)
  third = jnp.where(h < 1, _series(h, 2), 0.5 - second / h)
  fourth = jnp.where(h < 1, _series(h, 3), 1 / 6 - third / h)
  b1, b2, b3 = second / first, 2 * third / first, 6 * fourth / first
  two, three = jnp.asarray(orders == 2), jnp.asarray(orders == 3)
  zero, half = jnp.zeros_like(h), jnp.full_like(h, 0.5)
  # Slopes (m_earlier - m_t) / r are weighted so that polynomials up to the order are integrated exactly.
  steep = (b2 - far * b1) / (near - far)
  predictor = _slopes(jnp.where(three, steep, jnp.where(two, half, zero)), jnp.where(three, b1 - steep, zero), zero,
                      near, far)
  linear = (b1 - b2) / (1 - near)
  corner = ((b3 - b2) - far * (b2 - b1)) / (near - far)
  inner, outer = corner / (near - 1), ((b2 - b1) - corner) / (far - 1)
  weight_near = jnp.where(three, inner, jnp.where(two, linear, zero))
  weight_far = jnp.where(three, outer, zero)
  ahead = jnp.where(two | three, b1 - weight_near - weight_far, half)
  return predictor[:, 1:], _slopes(weight_near, weight_far, ahead, near, far)


def _series(h: Array, order: int) -> Array:
  """The sum of (-1)^(k + 1) h^k / (k + order)! over k from 1 on: what the closed form loses to rounding for small h."""
  terms = [(-1) ** (power + 1) / math.factorial(power + order) for power in range(1, 11)]
  return jnp.polyval(jnp.asarray([*terms[::-1], 0.0], h.dtype), h)


def _slopes(near_weight: Array, far_weight: Array, ahead: Array, near: Array, far: Array) -> Array:
  """Weights N4 of the estimates at s, t and the two times before from weights of their slopes."""
  return jnp.stack([ahead, 1 - ahead - near_weight / near - far_weight / far, near_weight / near, far_weight / far], 1)
