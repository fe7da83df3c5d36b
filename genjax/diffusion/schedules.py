"""Diffusion processes, distributions of training times and grids of sampling times.

Every family is one process x_t = alpha(t) x0 + sigma(t) eps with eps ~ N(0, I): flow matching, variance-preserving
diffusion and EDM differ in two scalar functions of time. Suffix X stands for all axes of one example.
"""

from collections.abc import Callable
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from genjax import checks
from genjax.types import Array, UserError

Quantile = Callable[[Array], Array]  # level u in (0, 1) -> time; a distribution of times is its quantile function


@dataclasses.dataclass(frozen=True)
class Process:
  """x_t = alpha(t) x0 + sigma(t) eps, from data at t = 0 to (nearly) pure noise at t = `start`.

  alpha, sigma: time -> coefficient, elementwise, differentiable. start: the noisiest time. embed: time -> number that
  the network is told. steps: number of discrete steps if training uses whole times 1 .. steps only, otherwise 0.
  quantile: default distribution of training times. spacing: default grid of sampling times.
  """

  alpha: Callable[[Array], Array]
  sigma: Callable[[Array], Array]
  start: float
  embed: Callable[[Array], Array]
  quantile: Quantile
  steps: int = 0
  spacing: str = 'uniform'

  def diffuse(self, x0_BX: Array, noise_BX: Array, t_B: Array) -> Array:
    """x_t of the given data, noise and times (B, or a scalar for all)."""
    return expand(self.alpha(t_B), x0_BX) * x0_BX + expand(self.sigma(t_B), x0_BX) * noise_BX

  def noise(self, x_BX: Array, x0_BX: Array, t: Array) -> Array:
    """The noise that takes x0 to x_t; needs sigma(t) > 0."""
    return (x_BX - self.alpha(t) * x0_BX) / self.sigma(t)

  def derivatives(self, t: Array) -> tuple[Array, Array]:
    """d alpha / dt and d sigma / dt."""
    t = jnp.asarray(t, jnp.float32)
    one = jnp.ones_like(t)
    return jax.jvp(self.alpha, (t,), (one,))[1], jax.jvp(self.sigma, (t,), (one,))[1]

  def log_snr(self, t: Array) -> Array:
    """Logarithm of the signal-to-noise ratio alpha^2 / sigma^2."""
    return 2 * (jnp.log(self.alpha(t)) - jnp.log(self.sigma(t)))


def expand(value_B: Array, like_BX: Array) -> Array:
  """Values of shape B (or a scalar) with trailing axes of length 1, to multiply `like_BX`."""
  value_B = jnp.asarray(value_B, jnp.float32)
  return value_B.reshape(value_B.shape + (1,) * (like_BX.ndim - value_B.ndim)) if value_B.ndim else value_B


def flow() -> Process:
  """Straight paths from data to noise: alpha = 1 - t, sigma = t (Lipman et al. 2023; Liu et al. 2023)."""
  return Process(alpha=lambda t: 1.0 - t, sigma=lambda t: 1.0 * t, start=1.0, embed=lambda t: 1000.0 * t,
                 quantile=uniform(1.0))


def vp_linear(steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Process:
  """DDPM's variance-preserving process with linearly growing beta (Ho et al. 2020, section 4)."""
  options = {'steps': steps, 'beta_start': beta_start, 'beta_end': beta_end}
  checks.whole(options, 1, 'steps')
  checks.between(options, ('beta_start', 'beta_end'), above=0, at_most=1)
  return _table(np.linspace(beta_start, beta_end, steps, dtype=np.float64))


def vp_cosine(steps: int = 1000, offset: float = 0.008, beta_max: float = 0.999) -> Process:
  """The cosine schedule with beta clipped (Nichol & Dhariwal 2021, eq. 17)."""
  options = {'steps': steps, 'offset': offset, 'beta_max': beta_max}
  checks.whole(options, 1, 'steps')
  checks.between(options, ('offset',), at_least=0)
  checks.between(options, ('beta_max',), above=0, at_most=1)
  time = np.arange(steps + 1, dtype=np.float64) / steps
  alpha_bar = np.cos((time + offset) / (1 + offset) * np.pi / 2) ** 2
  return _table(np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], beta_max))


def edm(sigma_max: float = 80.0, mean: float = -1.2, std: float = 1.2) -> Process:
  """alpha = 1, sigma = t; ln sigma ~ N(mean, std^2) in training (Karras et al. 2022, table 1)."""
  checks.positive({'sigma_max': sigma_max, 'std': std}, 'sigma_max', 'std')
  return Process(alpha=jnp.ones_like, sigma=lambda t: 1.0 * t, start=sigma_max, embed=lambda t: jnp.log(t) / 4,
                 quantile=log_normal(mean, std), spacing='karras')


PROCESSES = {'flow': flow, 'vp_linear': vp_linear, 'vp_cosine': vp_cosine, 'edm': edm}


def _table(beta_T: np.ndarray) -> Process:
  """Variance-preserving process of a table of betas: exact at whole times, log alpha^2 linear in between."""
  steps = len(beta_T)
  log_alpha_bar = np.concatenate([[0.0], np.cumsum(np.log1p(-beta_T))]).astype(np.float32)
  grid = np.arange(steps + 1, dtype=np.float32)

  def log_square(t: Array) -> Array:
    return jnp.interp(t, grid, log_alpha_bar)

  return Process(alpha=lambda t: jnp.exp(0.5 * log_square(t)),
                 # expm1 keeps the digits of 1 - alpha^2 where alpha is close to 1
                 sigma=lambda t: jnp.sqrt(-jnp.expm1(log_square(t))),
                 start=float(steps), embed=lambda t: t - 1.0, quantile=uniform(float(steps), whole=True), steps=steps)


def uniform(start: float, whole: bool = False) -> Quantile:
  """Times uniform on (0, start), or on the whole numbers 1 .. start."""
  if whole:
    return lambda u: jnp.clip(jnp.floor(u * start) + 1.0, 1.0, start)
  # The ends are left out: at t = 0 some targets divide by sigma = 0.
  return lambda u: start * jnp.clip(u, 1e-4, 1.0 - 1e-4)


def logit_normal(mean: float = 0.0, std: float = 1.0) -> Quantile:
  """Times on (0, 1) with logit t ~ N(mean, std^2) (Esser et al. 2024, section 3.1)."""
  checks.positive({'std': std}, 'std')
  return lambda u: jax.nn.sigmoid(mean + std * _standard_normal(u))


def log_normal(mean: float = -1.2, std: float = 1.2) -> Quantile:
  """Times on (0, inf) with ln t ~ N(mean, std^2) (Karras et al. 2022, table 1)."""
  checks.positive({'std': std}, 'std')
  return lambda u: jnp.exp(mean + std * _standard_normal(u))


def _standard_normal(u: Array) -> Array:
  return jax.scipy.special.ndtri(jnp.clip(u, 1e-6, 1.0 - 1e-6))


QUANTILES = {'logit_normal': logit_normal, 'log_normal': log_normal}


def levels(key: Array, count: int, stratified: bool) -> Array:
  """Levels u in [0, 1), uniform; stratified ones fill `count` equal strata once each, in random order, so that the mean
  of a batch over times varies less (Kingma et al. 2021, appendix I.1)."""
  shift_key, order_key = jax.random.split(key)
  if not stratified:
    return jax.random.uniform(shift_key, (count,))
  return (jax.random.permutation(order_key, count) + jax.random.uniform(shift_key)) / count


def sampling_times(process: Process, steps: int, spacing: str | None = None, *, rho: float = 7.0,
                   sigma_min: float = 0.002, shift: float = 1.0) -> np.ndarray:
  """Decreasing times t_0 = start, ..., t_steps = 0 at which a sampler stands.

  Args:
    process: the process; a discrete one gets whole times, since its network knows no others.
    steps: number of steps N; the result has N + 1 times.
    spacing: 'uniform', 'quadratic' (denser near the data; Song et al. 2021, appendix D.2), 'karras' (for processes with
      sigma = t; Karras et al. 2022, eq. 5), or None for the process's own.
    rho, sigma_min: constants of 'karras'.
    shift: for 'uniform', above 1 moves times towards noise: s t / (1 + (s - 1) t) (Esser et al. 2024, eq. 23).

  Raises:
    UserError: an unknown spacing, fewer than one step, more steps than a discrete process has, or 'karras' on a process
      where time is not sigma.
  """
  spacing = spacing or process.spacing
  if steps < 1 or (process.steps and steps > process.steps):
    limit = f' to {process.steps}, the number of steps of the process' if process.steps else ''
    raise UserError(f'sampler.steps must be a whole number from 1{limit}, got {steps}')
  level = np.linspace(1.0, 0.0, steps + 1)
  if spacing == 'uniform':
    times = process.start * shift * level / (1 + (shift - 1) * level)
  elif spacing == 'quadratic':
    times = process.start * level ** 2
  elif spacing == 'karras':
    if process.spacing != 'karras':
      raise UserError("sampler.spacing='karras' needs the process 'edm'; use 'uniform' or 'quadratic'")
    ramp = np.linspace(0.0, 1.0, steps) if steps > 1 else np.zeros(1)
    large, small = process.start ** (1 / rho), sigma_min ** (1 / rho)
    times = np.append((large + ramp * (small - large)) ** rho, 0.0)
  else:
    raise UserError(f"sampler.spacing must be 'uniform', 'quadratic' or 'karras', got {spacing!r}")
  if process.steps:
    times = np.round(times)
    # Rounding may merge times; each is at least one step above the next.
    for i in range(steps - 1, -1, -1):
      times[i] = max(times[i], times[i + 1] + 1)
    times = np.minimum(times, process.steps - np.arange(steps + 1))
  return times.astype(np.float32)
