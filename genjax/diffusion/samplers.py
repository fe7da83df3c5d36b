"""Samplers. All share one signature and run as one `jax.lax.scan`:

    sampler(denoise, x_BX, process, times, keys_B, **options) -> samples_BX

    denoise: (x_BX, scalar t) -> x0_hat, the estimate of the data.
    x_BX: the starting point at times[0], usually `prior(...)`.
    process: `schedules.Process`.
    times: N + 1 decreasing times. The last is 0, where sigma is 0, or above it: then the sample is x at that time.
    keys_B: one typed key per row. The noise of row i depends only on keys_B[i], so batches can be split anywhere.

If sigma = 0 at the last time, every sampler returns x0_hat, the limit of its step. The probability-flow ODE is dx/dt =
alpha' x0_hat + sigma' eps_hat, where eps_hat = (x - alpha x0_hat) / sigma. `euler` and `heun` solve it in t if the
process is smooth in t. A process of discrete times is interpolated and has kinks; there the ODE is solved in the angle
of sigma / alpha. With alpha = r cos(phi) and sigma = r sin(phi),

    d(x / r) / dphi = cos(phi) eps_hat - sin(phi) x0_hat.

The angle is bounded, so the first step of a cosine schedule, from sigma / alpha = 20,000 to 30, is harmless: 50 steps
of `heun` end 0.002 from the exact solution for a Gaussian, but 0.2 from it with sigma / alpha itself as the variable.
Zero terminal SNR is not a special case.

The samplers that `diffusers` names solve it in sigma / alpha: `euler_discrete`, `euler_ancestral`, `flow_euler` and
`heun_discrete`. Euler's method in sigma / alpha is `ddim`, and its ancestral form is `ddim` with eta = 1. Their times
are those of `spacings`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from genjax.diffusion import distilled, levels, multistep, solvers
from genjax.diffusion import variance as learned
from genjax.diffusion.schedules import Process, transition
from genjax.diffusion.stepping import Denoise, finish, noise, over_times
from genjax.tables import Table
from genjax.types import Array, Key

VARIANCES = ('small', 'large', 'learned')  # of `ancestral`


def prior(process: Process, keys_B: Key, shape: tuple[int, ...], start: float | None = None,
          scale: float = 0.0) -> Array:
  """Draws noise with the scale at time `start` (default: the process's start), one row of `shape` per key; or with the
  deviation `scale`, if it is not 0."""
  noise_BX = jax.vmap(lambda key: jax.random.normal(key, shape))(keys_B)
  return (scale or process.sigma(jnp.float32(process.start if start is None else start))) * noise_BX


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
  return finish(denoise, over_times(step, x_BX, times[:-1]), process, times)


def heun_discrete(denoise: Denoise, x_BX: Array, process: Process, times: Array, keys_B: Key) -> Array:
  """Heun's method in the noise level sigma / alpha, on any process: `HeunDiscreteScheduler` of `diffusers`."""
  del keys_B

  def step(x_BX, t, s, index):
    x0_BX = denoise(x_BX, t)
    noise_BX = process.noise(x_BX, x0_BX, t)
    euler_BX = process.alpha(s) * x0_BX + process.sigma(s) * noise_BX
    change_BX = process.noise(euler_BX, denoise(euler_BX, s), s) - noise_BX
    return euler_BX + (process.sigma(s) - process.alpha(s) * process.noise_to_signal(t)) * change_BX / 2

  times = jnp.asarray(times, jnp.float32)
  return finish(denoise, over_times(step, x_BX, times[:-1]), process, times)


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


def ddim(denoise: Denoise, x_BX: Array, process: Process, times: Array, keys_B: Key, *, eta: float = 0.0,
         clip: float = 0.0) -> Array:
  """x_s = alpha_s x0_hat + sqrt(sigma_s^2 - v) eps_hat + sqrt(v) z with v = eta^2 times the posterior variance
  (Song et al. 2021, eq. 12 and 16); order 1 at eta = 0, `ancestral` at eta = 1.

  Args:
    eta: noise that a step adds, over that of `ancestral`; 0 adds none.
    clip: bound on |x0_hat| that leaves eps_hat as it was, as `clip_sample` of `DDIMScheduler` does; 0 for none.
      config.sampler.clip bounds the estimate before eps_hat follows from it.
  """

  def step(x_BX, t, s, index):
    _, forward_variance = transition(process, t, s)
    sigma_s = process.sigma(s)
    variance = eta ** 2 * forward_variance * sigma_s ** 2 / process.sigma(t) ** 2
    x0_BX = denoise(x_BX, t)
    kept = jnp.sqrt(jnp.maximum(sigma_s ** 2 - variance, 0.0))
    kept_BX = kept * process.noise(x_BX, x0_BX, t)
    x_BX = process.alpha(s) * (jnp.clip(x0_BX, -clip, clip) if clip else x0_BX) + kept_BX
    return x_BX + jnp.sqrt(variance) * noise(keys_B, index, x_BX) if eta else x_BX

  return over_times(step, x_BX, times)


def euler_discrete(denoise: Denoise, x_BX: Array, process: Process, times: Array, keys_B: Key) -> Array:
  """Euler's method in the noise level sigma / alpha: `EulerDiscreteScheduler` and `FlowMatchEulerDiscreteScheduler`.

  If the noise does not end at 0, the sample is x / alpha, as theirs is.
  """
  return ddim(denoise, x_BX, process, times, keys_B) / process.alpha(jnp.asarray(times, jnp.float32)[-1])


def euler_ancestral(denoise: Denoise, x_BX: Array, process: Process, times: Array, keys_B: Key, *,
                    eta: float = 1.0) -> Array:
  """Euler's method in the noise level with new noise in each step: `EulerAncestralDiscreteScheduler`.

  Args:
    eta: share of the noise; 0 is `euler_discrete`.
  """
  return ddim(denoise, x_BX, process, times, keys_B, eta=eta)


def dpmpp_2m(denoise: Denoise, x_BX: Array, process: Process, times: Array, keys_B: Key) -> Array:
  """DPM-Solver++(2M), a multistep method in lambda = log(alpha / sigma) (Lu et al. 2022b, algorithm 2).

  Order 2 with one evaluation per step; the first and the last step have order 1. If the noise does not end at 0, the
  last one has order 1 only among fewer than 15 steps, as in `diffusers`.
  """
  del keys_B
  last = solvers.last_of_few(times)

  def step(carry, t, s, index):
    x_BX, previous_x0_BX, previous_h = carry
    alpha_s, sigma_s, sigma_t = process.alpha(s), process.sigma(s), process.sigma(t)
    # exp(-h) without lambda: it is 0 where lambda is infinite, at pure noise and at clean data.
    decay = (sigma_s / sigma_t) * transition(process, t, s)[0]
    h = -jnp.log(jnp.maximum(decay, 1e-30))
    x0_BX = denoise(x_BX, t)
    first_order = (index == 0) | (index == last) | (sigma_s <= 0) | (decay <= 0)
    weight = jnp.where(first_order, 0.0, h / (2 * previous_h))
    estimate_BX = x0_BX + weight * (x0_BX - previous_x0_BX)
    return (sigma_s / sigma_t) * x_BX + alpha_s * (1 - decay) * estimate_BX, x0_BX, h

  return over_times(step, (x_BX, jnp.zeros_like(x_BX), jnp.float32(1.0)), times)[0]


SAMPLERS: Table[Callable[..., Array]] = Table(
  'sampler', {
    'euler': euler, 'heun': heun, 'ancestral': ancestral, 'ddim': ddim, 'dpmpp_2m': dpmpp_2m, 'ddpm': ancestral,
    'euler_discrete': euler_discrete, 'euler_ancestral': euler_ancestral, 'heun_discrete': heun_discrete,
    'flow_euler': euler_discrete, 'pndm': multistep.pndm, 'dpmpp_2m_sde': solvers.dpmpp_2m_sde,
    'dpmpp_2s': solvers.dpmpp_2s, 'dpmpp_sde': solvers.dpmpp_sde, 'unipc': solvers.unipc, 'lcm': distilled.lcm,
    'tcd': distilled.tcd, 'lms': levels.lms, 'dpm2': levels.dpm2, 'dpm2_ancestral': levels.dpm2_ancestral,
    'deis': levels.deis},
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
