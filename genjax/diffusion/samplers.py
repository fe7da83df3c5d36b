"""Samplers. All share one signature and run as one `jax.lax.scan`:

    sampler(denoise, x_BX, process, times, keys_B, **options) -> samples_BX

    denoise: (x_BX, scalar t) -> x0_hat, the estimate of the data.
    x_BX: the starting point at times[0], usually `prior(...)`.
    process: `schedules.Process`.
    times: N + 1 decreasing times; the last is 0, where sigma is 0.
    keys_B: one typed key per row. The noise of row i depends only on keys_B[i], so batches can be split anywhere.

If sigma = 0 at the last time, every sampler returns x0_hat, the limit of its step. The probability-flow ODE is dx/dt =
alpha' x0_hat + sigma' eps_hat, where eps_hat = (x - alpha x0_hat) / sigma. `euler` and `heun` solve it in t if the
process is smooth in t. A process of discrete times is interpolated and has kinks; there the ODE is solved in the angle
of sigma / alpha. With alpha = r cos(phi) and sigma = r sin(phi),

    d(x / r) / dphi = cos(phi) eps_hat - sin(phi) x0_hat.

The angle is bounded, so the first step of a cosine schedule, from sigma / alpha = 20,000 to 30, is harmless: 50 steps
of `heun` end 0.002 from the exact solution for a Gaussian, but 0.2 from it with sigma / alpha itself as the variable.
Zero terminal SNR is not a special case.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from genjax.diffusion import variance as learned
from genjax.diffusion.schedules import Process, transition
from genjax.tables import Table
from genjax.types import Array, Key

Denoise = Callable[[Array, Array], Any]
VARIANCES = ('small', 'large', 'learned')  # of `ancestral`


def prior(process: Process, keys_B: Key, shape: tuple[int, ...], start: float | None = None) -> Array:
  """Draws noise with the scale at time `start` (default: the process's start), one row of `shape` per key."""
  noise_BX = jax.vmap(lambda key: jax.random.normal(key, shape))(keys_B)
  return process.sigma(jnp.float32(process.start if start is None else start)) * noise_BX


def euler(denoise: Denoise, x_BX: Array, process: Process, times: Array, keys_B: Key) -> Array:
  """Euler's method on the probability-flow ODE; order 1."""
  del keys_B
  slope, advance = probability_flow(process)

  def step(x_BX, t, s, index):
    x0_BX = denoise(x_BX, t)
    return jnp.where(process.sigma(s) > 0, advance(x_BX, slope(x_BX, x0_BX, t), t, s), x0_BX)

  return over_times(step, x_BX, times)


def heun(denoise: Denoise, x_BX: Array, process: Process, times: Array, keys_B: Key) -> Array:
  """Heun's method on the probability-flow ODE, two evaluations per step; order 2 (Karras et al. 2022, algorithm 1)."""
  del keys_B
  slope, advance = probability_flow(process)

  # The scan excludes the last step, which needs only one evaluation.
  def step(x_BX, t, s, index):
    slope_BX = slope(x_BX, denoise(x_BX, t), t)
    euler_BX = advance(x_BX, slope_BX, t, s)
    return advance(x_BX, (slope_BX + slope(euler_BX, denoise(euler_BX, s), s)) / 2, t, s)

  times = jnp.asarray(times, jnp.float32)
  return denoise(over_times(step, x_BX, times[:-1]), times[-2])


def ancestral(denoise: Denoise, x_BX: Array, process: Process, times: Array, keys_B: Key, *,
              variance: str = 'small') -> Array:
  """DDPM's sampler: x_s ~ q(x_s | x_t, x0_hat) (Ho et al. 2020, eq. 6-7).

  Skipped times follow Kingma et al. 2021, eq. 26.

  Args:
    variance: of the noise of a step: 'small', that of the posterior; 'large', that of q(x_t | x_s); 'learned', what the
      network chooses between them: `denoise` then returns (x0_hat, raw), see `variance.log_variance`.

  Raises:
    ValueError: `variance` is unknown.
  """
  if variance not in VARIANCES:
    raise ValueError(f'variance must be one of {VARIANCES}, got {variance!r}')

  def step(x_BX, t, s, index):
    alpha_ratio, forward_variance = transition(process, t, s)
    posterior_weight = process.sigma(s) ** 2 / process.sigma(t) ** 2
    x0_BX, raw_BX = denoise(x_BX, t) if variance == 'learned' else (denoise(x_BX, t), None)
    mean_BX = (alpha_ratio * posterior_weight * x_BX
               + process.alpha(s) * forward_variance / process.sigma(t) ** 2 * x0_BX)
    if raw_BX is not None:
      spread = jnp.exp(learned.log_variance(process, raw_BX, t, s))
    else:
      spread = forward_variance * posterior_weight if variance == 'small' else forward_variance
    spread = jnp.where(process.sigma(s) > 0, spread, 0.0)
    return mean_BX + jnp.sqrt(spread) * noise(keys_B, index, x_BX)

  return over_times(step, x_BX, times)


def ddim(denoise: Denoise, x_BX: Array, process: Process, times: Array, keys_B: Key, *, eta: float = 0.0) -> Array:
  """x_s = alpha_s x0_hat + sqrt(sigma_s^2 - v) eps_hat + sqrt(v) z with v = eta^2 times the posterior variance
  (Song et al. 2021, eq. 12 and 16); order 1 at eta = 0, `ancestral` at eta = 1.

  Args:
    eta: noise that a step adds, over that of `ancestral`; 0 adds none.
  """

  def step(x_BX, t, s, index):
    _, forward_variance = transition(process, t, s)
    sigma_s = process.sigma(s)
    variance = eta ** 2 * forward_variance * sigma_s ** 2 / process.sigma(t) ** 2
    x0_BX = denoise(x_BX, t)
    kept = jnp.sqrt(jnp.maximum(sigma_s ** 2 - variance, 0.0))
    x_BX = process.alpha(s) * x0_BX + kept * process.noise(x_BX, x0_BX, t)
    return x_BX + jnp.sqrt(variance) * noise(keys_B, index, x_BX) if eta else x_BX

  return over_times(step, x_BX, times)


def dpmpp_2m(denoise: Denoise, x_BX: Array, process: Process, times: Array, keys_B: Key) -> Array:
  """DPM-Solver++(2M), a multistep method in lambda = log(alpha / sigma) (Lu et al. 2022b, algorithm 2).

  Order 2 with one evaluation per step; the first and the last step have order 1.
  """
  del keys_B

  def step(carry, t, s, index):
    x_BX, previous_x0_BX, previous_h = carry
    alpha_s, sigma_s, sigma_t = process.alpha(s), process.sigma(s), process.sigma(t)
    # exp(-h) without lambda: it is 0 where lambda is infinite, at pure noise and at clean data.
    decay = (sigma_s / sigma_t) * transition(process, t, s)[0]
    h = -jnp.log(jnp.maximum(decay, 1e-30))
    x0_BX = denoise(x_BX, t)
    first_order = (index == 0) | (sigma_s <= 0) | (decay <= 0)
    weight = jnp.where(first_order, 0.0, h / (2 * previous_h))
    estimate_BX = x0_BX + weight * (x0_BX - previous_x0_BX)
    return (sigma_s / sigma_t) * x_BX + alpha_s * (1 - decay) * estimate_BX, x0_BX, h

  return over_times(step, (x_BX, jnp.zeros_like(x_BX), jnp.float32(1.0)), times)[0]


SAMPLERS: Table[Callable[..., Array]] = Table(
  'sampler', {'euler': euler, 'heun': heun, 'ancestral': ancestral, 'ddim': ddim, 'dpmpp_2m': dpmpp_2m},
  takes=('denoise', 'x_BX', 'process', 'times', 'keys_B'))


def probability_flow(process: Process) -> tuple[Callable[..., Array], Callable[..., Array]]:
  """The probability-flow ODE of a process: slope(x, x0_hat, t), and advance(x, slope, t, s), Euler's step from
  t to s."""
  if not process.steps:

    def slope(x_BX, x0_BX, t):
      alpha_slope, sigma_slope = process.derivatives(t)
      return alpha_slope * x0_BX + sigma_slope * process.noise(x_BX, x0_BX, t)

    return slope, lambda x_BX, slope_BX, t, s: x_BX + (s - t) * slope_BX

  def turn(x_BX, x0_BX, t):
    radius, _ = process.polar(t)
    return (process.alpha(t) * process.noise(x_BX, x0_BX, t) - process.sigma(t) * x0_BX) / radius

  def advance(x_BX, slope_BX, t, s):
    (radius_t, angle_t), (radius_s, angle_s) = process.polar(t), process.polar(s)
    return radius_s * (x_BX / radius_t + (angle_s - angle_t) * slope_BX)

  return turn, advance


def noise(keys_B: Key, index: Array, like_BX: Array) -> Array:
  """Standard normal noise for one step of a sampler.

  Args:
    keys_B: the keys that the sampler got. A row's noise depends on its own key and on `index` only.
    index: number of the step. A sampler that draws twice a step needs a second index, such as `index + len(times)`.
    like_BX: an array of the shape of the noise.
  """
  draw = lambda key: jax.random.normal(jax.random.fold_in(key, index), like_BX.shape[1:])
  return jax.vmap(draw)(keys_B)


def over_times(step: Callable[[Any, Array, Array, Array], Any], carry: Any, times: Array) -> Any:
  """Runs a sampler's step over neighbouring times, as one `jax.lax.scan`.

  Args:
    step: (carry, t, s, index) -> carry, from time t to the smaller time s; `index` counts from 0.
    carry: x_BX, or a tuple with what else a step hands to the next; shapes and types stay the same.
    times: N + 1 decreasing times.

  Returns:
    The carry after the last step.
  """
  times = jnp.asarray(times, jnp.float32)
  steps = (times[:-1], times[1:], jnp.arange(len(times) - 1))
  return jax.lax.scan(lambda carry, step_times: (step(carry, *step_times), None), carry, steps)[0]
