"""Diffusion processes (noise schedules), distributions of training times, and grids of sampling times.

All families are one process x_t = alpha(t) x0 + sigma(t) eps with eps ~ N(0, I): flow matching, variance-preserving
diffusion and EDM only differ in alpha and sigma. Suffix X stands for all axes of one example.
"""

from collections.abc import Callable
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from genjax import checks
from genjax.tables import Table
from genjax.types import Array, UserError

Quantile = Callable[[Array], Array]  # u in (0, 1) -> time: the quantile function of a distribution of times


@dataclasses.dataclass(frozen=True)
class Process:
  """x_t = alpha(t) x0 + sigma(t) eps, from data at t = 0 to (nearly) pure noise at t = `start`.

  Attributes:
    alpha, sigma: time -> coefficient, elementwise, differentiable.
    start: the noisiest time.
    embed: time -> input of the network's time embedding.
    steps: number of discrete steps if only the whole times 1 .. steps are trained, else 0.
    quantile: default distribution of training times.
    spacing: default grid of sampling times.
    log_alpha_bar: log alpha^2 at the whole times 1 .. steps, if alpha comes from a table; -inf at pure noise.
  """

  alpha: Callable[[Array], Array]
  sigma: Callable[[Array], Array]
  start: float
  embed: Callable[[Array], Array]
  quantile: Quantile
  steps: int = 0
  spacing: str = 'uniform'
  log_alpha_bar: tuple[float, ...] = dataclasses.field(default=(), repr=False)

  def diffuse(self, x0_BX: Array, noise_BX: Array, t_B: Array) -> Array:
    """Returns x_t for given data, noise and times (B or a scalar)."""
    return expand(self.alpha(t_B), x0_BX) * x0_BX + expand(self.sigma(t_B), x0_BX) * noise_BX

  def noise(self, x_BX: Array, x0_BX: Array, t: Array) -> Array:
    """The noise between x0 and x_t; needs sigma(t) > 0."""
    return (x_BX - self.alpha(t) * x0_BX) / self.sigma(t)

  def derivatives(self, t: Array) -> tuple[Array, Array]:
    """d alpha / dt and d sigma / dt."""
    t = jnp.asarray(t, jnp.float32)
    one = jnp.ones_like(t)
    return jax.jvp(self.alpha, (t,), (one,))[1], jax.jvp(self.sigma, (t,), (one,))[1]

  def log_snr(self, t: Array) -> Array:
    """Logarithm of the signal-to-noise ratio alpha^2 / sigma^2; -inf at pure noise, +inf at clean data."""
    return 2 * (jnp.log(self.alpha(t)) - jnp.log(self.sigma(t)))

  def noise_to_signal(self, t: Array) -> Array:
    """sigma / alpha, the noise level of Karras et al. (2022) for any process; +inf at pure noise."""
    return self.sigma(t) / self.alpha(t)

  def polar(self, t: Array) -> tuple[Array, Array]:
    """Returns (r, phi) with alpha = r cos(phi), sigma = r sin(phi). The angle phi is finite at pure noise too."""
    alpha, sigma = self.alpha(t), self.sigma(t)
    return jnp.hypot(alpha, sigma), jnp.arctan2(sigma, alpha)


def expand(value_B: Array, like_BX: Array) -> Array:
  """Adds trailing axes of length 1 to values B (or a scalar), to multiply `like_BX`."""
  value_B = jnp.asarray(value_B, jnp.float32)
  return value_B.reshape(value_B.shape + (1,) * (like_BX.ndim - value_B.ndim)) if value_B.ndim else value_B


def transition(process: Process, t: Array, s: Array) -> tuple[Array, Array]:
  """q(x_t | x_s) = N(r x_s, w I) for s < t: returns r = alpha_t / alpha_s and w = sigma_t^2 - r^2 sigma_s^2."""
  alpha_s = process.alpha(s)
  # Between two times of pure noise any r is correct; 0 draws new noise.
  ratio = jnp.where(alpha_s > 0, process.alpha(t) / jnp.where(alpha_s > 0, alpha_s, 1.0), 0.0)
  return ratio, jnp.maximum(process.sigma(t) ** 2 - ratio ** 2 * process.sigma(s) ** 2, 0.0)


def flow() -> Process:
  """Straight paths from data to noise: alpha = 1 - t, sigma = t (Lipman et al. 2023; Liu et al. 2023)."""
  return Process(alpha=lambda t: 1.0 - t, sigma=lambda t: 1.0 * t, start=1.0, embed=lambda t: 1000.0 * t,
                 quantile=uniform(1.0))


def vp_linear(steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02, rescale: bool = False) -> Process:
  """DDPM's variance-preserving process with linearly increasing beta (Ho et al. 2020, section 4).

  Args:
    steps: number of discrete steps.
    beta_start: beta of the first step.
    beta_end: beta of the last step; 1 ends at pure noise.
    rescale: end at pure noise, see `rescaled`.

  Raises:
    UserError: fewer than one step, or a beta out of range.
  """
  _check_betas(steps, beta_start, beta_end)
  return _table(np.linspace(beta_start, beta_end, steps, dtype=np.float64), 'vp_linear', rescale)


def vp_scaled_linear(steps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012,
                     rescale: bool = False) -> Process:
  """The variance-preserving process with a linearly increasing root of beta, of latent diffusion (Rombach et al. 2022;
  their code calls it "linear", `diffusers` "scaled_linear").

  Args:
    steps: number of discrete steps.
    beta_start: beta of the first step.
    beta_end: beta of the last step.
    rescale: end at pure noise, see `rescaled`.

  Raises:
    UserError: fewer than one step, or a beta out of range.
  """
  _check_betas(steps, beta_start, beta_end)
  return _table(np.linspace(beta_start ** 0.5, beta_end ** 0.5, steps) ** 2, 'vp_scaled_linear', rescale)


def vp_sigmoid(steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02, rescale: bool = False) -> Process:
  """The variance-preserving process whose beta follows a sigmoid from -6 to 6 (Xu et al. 2022).

  Args:
    steps: number of discrete steps.
    beta_start: lower limit of beta.
    beta_end: upper limit of beta.
    rescale: end at pure noise, see `rescaled`.

  Raises:
    UserError: fewer than one step, or a beta out of range.
  """
  _check_betas(steps, beta_start, beta_end)
  share = 1 / (1 + np.exp(-np.linspace(-6.0, 6.0, steps)))
  return _table(beta_start + share * (beta_end - beta_start), 'vp_sigmoid', rescale)


def vp_betas(betas: tuple[float, ...] = (), rescale: bool = False) -> Process:
  """The variance-preserving process of given betas.

  Args:
    betas: beta of every step, from the data to the noise.
    rescale: end at pure noise, see `rescaled`.

  Raises:
    UserError: none, or one out of range.
  """
  if not betas:
    raise UserError("process 'vp_betas' needs betas, one number for every step; 'vp_linear' computes them")
  return _table(np.asarray(betas, np.float64), 'vp_betas', rescale)


def vp_cosine(steps: int = 1000, offset: float = 0.008, beta_max: float = 0.999, rescale: bool = False) -> Process:
  """The cosine schedule with beta clipped (Nichol & Dhariwal 2021, eq. 17).

  Args:
    steps: number of discrete steps.
    offset: prevents tiny betas near the data.
    beta_max: upper bound of beta; with 1 the process ends at pure noise.
    rescale: makes the process end at pure noise, see `rescaled`.

  Raises:
    UserError: fewer than one step, or a beta out of range.
  """
  options = {'steps': steps, 'offset': offset, 'beta_max': beta_max}
  checks.whole(options, 1, 'steps')
  checks.between(options, ('offset',), at_least=0)
  checks.between(options, ('beta_max',), above=0, at_most=1)
  time = np.arange(steps + 1, dtype=np.float64) / steps
  alpha_bar = np.cos((time + offset) / (1 + offset) * np.pi / 2) ** 2
  return _table(np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], beta_max), 'vp_cosine', rescale)


def edm(sigma_max: float = 80.0, mean: float = -1.2, std: float = 1.2) -> Process:
  """alpha = 1, sigma = t; ln sigma ~ N(mean, std^2) in training (Karras et al. 2022, table 1).

  Args:
    sigma_max: sigma at which sampling starts, in units of the data.
    mean: of ln sigma in training.
    std: standard deviation of ln sigma in training.
  """
  checks.positive({'sigma_max': sigma_max, 'std': std}, 'sigma_max', 'std')
  return Process(alpha=jnp.ones_like, sigma=lambda t: 1.0 * t, start=sigma_max, embed=lambda t: jnp.log(t) / 4,
                 quantile=log_normal(mean, std), spacing='karras')


# Functions of options of config.objective.process -> Process
PROCESSES: Table[Callable[..., Process]] = Table(
  'process', {'flow': flow, 'vp_linear': vp_linear, 'vp_scaled_linear': vp_scaled_linear, 'vp_cosine': vp_cosine,
              'vp_sigmoid': vp_sigmoid, 'vp_betas': vp_betas, 'edm': edm}, takes=())


def rescaled(alpha_T: np.ndarray) -> np.ndarray:
  """Shifts and scales alpha so that the last is 0 and the first is kept (zero SNR; Lin et al. 2024, algorithm 1)."""
  if len(alpha_T) < 2:
    raise UserError('rescale=True needs a process of at least 2 steps, got 1')
  return (alpha_T - alpha_T[-1]) * alpha_T[0] / (alpha_T[0] - alpha_T[-1])


def _check_betas(steps: int, beta_start: float, beta_end: float) -> None:
  options = {'steps': steps, 'beta_start': beta_start, 'beta_end': beta_end}
  checks.whole(options, 1, 'steps')
  checks.between(options, ('beta_start', 'beta_end'), above=0, at_most=1)


def _table(beta_T: np.ndarray, name: str, rescale: bool) -> Process:
  """The variance-preserving process of a table of betas: log alpha^2 is exact at whole times and linear in between.

  Where alpha^2 underflows float32, alpha is exactly 0: the process is pure noise. In the one step before, alpha is
  linear.
  """
  if not ((beta_T > 0) & (beta_T <= 1)).all() or (beta_T[:-1] == 1).any():
    raise UserError(f'process {name} needs betas above 0 and below 1 (the last may be 1); got '
                    f'{beta_T.min():g} to {beta_T.max():g}')
  with np.errstate(divide='ignore'):  # log 0 at pure noise
    log_alpha_bar_T = np.cumsum(np.log1p(-beta_T))
    if rescale:
      log_alpha_bar_T = 2 * np.log(rescaled(np.exp(0.5 * log_alpha_bar_T)))
  steps = len(beta_T)
  last = int(np.sum(log_alpha_bar_T > _MIN_LOG_ALPHA_SQUARE))  # last whole time with signal
  log_alpha_bar = np.concatenate([[0.0], log_alpha_bar_T[:last]]).astype(np.float32)
  grid = np.arange(last + 1, dtype=np.float32)

  def log_square(t: Array) -> Array:
    return jnp.interp(t, grid, log_alpha_bar)

  def alpha(t: Array) -> Array:
    signal = jnp.exp(0.5 * log_square(t))
    return signal if last == steps else signal * jnp.where(t > last + 1, 0.0, jnp.where(t > last, last + 1 - t, 1.0))

  def sigma(t: Array) -> Array:
    # expm1 computes 1 - alpha^2 accurately if alpha is close to 1
    square = -jnp.expm1(log_square(t))
    return jnp.sqrt(square if last == steps else jnp.where(t > last, 1.0 - alpha(t) ** 2, square))

  return Process(alpha=alpha, sigma=sigma, start=float(steps), embed=lambda t: t - 1.0,
                 quantile=uniform(float(steps), whole=True), steps=steps,
                 log_alpha_bar=(*log_alpha_bar_T[:last].tolist(), *[-np.inf] * (steps - last)))


_MIN_LOG_ALPHA_SQUARE = -87.0  # smallest log alpha^2; below it alpha^2 is not a normal float32 and counts as 0


def uniform(start: float, whole: bool = False) -> Quantile:
  """Uniform times on (0, start), or on the whole numbers 1 .. start."""
  if whole:
    return lambda u: jnp.clip(jnp.floor(u * start) + 1.0, 1.0, start)
  return lambda u: start * _inside(u)


def logit_normal(mean: float = 0.0, std: float = 1.0) -> Quantile:
  """Times on (0, 1) with logit t ~ N(mean, std^2) (Esser et al. 2024, section 3.1).

  Args:
    mean: of logit t; above 0 favours noise.
    std: standard deviation of logit t.
  """
  checks.positive({'std': std}, 'std')
  return lambda u: jax.nn.sigmoid(mean + std * _standard_normal(u))


def log_normal(mean: float = -1.2, std: float = 1.2) -> Quantile:
  """Times on (0, inf) with ln t ~ N(mean, std^2) (Karras et al. 2022, table 1).

  Args:
    mean: of ln t.
    std: standard deviation of ln t.
  """
  checks.positive({'std': std}, 'std')
  return lambda u: jnp.exp(mean + std * _standard_normal(u))


def mode(scale: float = 1.29) -> Quantile:
  """Heavy-tailed times on (0, 1) with a mode in the middle (Esser et al. 2024, eq. 20).

  The quantile function is u + scale (u - sin^2(pi u / 2)).

  Args:
    scale: 0 is uniform; positive values favour the middle, negative ones the ends.

  Raises:
    UserError: `scale` is outside of [-1, 2 / (pi - 2)], where the map is not monotonic.
  """
  largest = 2.0 / (np.pi - 2.0)
  if not -1.0 <= scale <= largest:
    raise UserError(f'times mode needs a scale from -1 to {largest:.4f}, got {scale}')
  # The paper's map decreases from 1 to 0. It is used at 1 - u here, which makes it a quantile function.
  quantile = lambda u: u + scale * (u - jnp.sin(0.5 * jnp.pi * u) ** 2)
  return lambda u: quantile(_inside(u))


def cosmap() -> Quantile:
  """Times on (0, 1) with the signal-to-noise ratios of the cosine schedule (Esser et al. 2024, section 3.1).

  The density is 2 / (pi (1 - 2 t + 2 t^2)).
  """

  def quantile(u: Array) -> Array:
    angle = 0.5 * jnp.pi * _inside(u)
    return jnp.sin(angle) / (jnp.sin(angle) + jnp.cos(angle))

  return quantile


def _inside(u: Array) -> Array:
  """Clips u away from 0 and 1: at t = 0 some targets divide by sigma = 0."""
  return jnp.clip(u, 1e-4, 1.0 - 1e-4)


def _standard_normal(u: Array) -> Array:
  return jax.scipy.special.ndtri(jnp.clip(u, 1e-6, 1.0 - 1e-6))


# Functions of options of config.objective.times -> Quantile
QUANTILES: Table[Callable[..., Quantile]] = Table(
  'distribution of times', {'logit_normal': logit_normal, 'log_normal': log_normal, 'mode': mode, 'cosmap': cosmap},
  takes=())
UNIT_TIMES = ('logit_normal', 'mode', 'cosmap')  # those on (0, 1), for `flow`
UNBOUNDED_TIMES = ('log_normal',)  # for `edm`


def levels(key: Array, count: int, stratified: bool) -> Array:
  """Draws uniform u in [0, 1), for use with a quantile function.

  Stratified draws have one value in each of `count` equal strata, in random order. This reduces the variance of the
  batch mean (Kingma et al. 2021, appendix I.1).
  """
  shift_key, order_key = jax.random.split(key)
  if not stratified:
    return jax.random.uniform(shift_key, (count,))
  return (jax.random.permutation(order_key, count) + jax.random.uniform(shift_key)) / count


def sampling_times(process: Process, steps: int, spacing: str | None = None, *, rho: float = 7.0,
                   sigma_min: float = 0.002, sigma_max: float = 0.0, shift: float = 1.0) -> np.ndarray:
  """The decreasing times t_0 = start, ..., t_steps = 0 of a sampler.

  Args:
    process: the process; a discrete one gets whole times, because its network is trained only on these.
    steps: number of steps N; the result has N + 1 times.
    spacing: 'uniform', 'quadratic' (denser near the data; Song et al. 2021, appendix D.2), 'karras' (for processes with
      sigma = t; Karras et al. 2022, eq. 5), or None for the process's own.
    rho, sigma_min, sigma_max: constants of 'karras'; sigma_max = 0 means the process's start.
    shift: for 'uniform': t becomes s t / (1 + (s - 1) t); above 1 this moves times towards noise (Esser et al. 2024,
      eq. 23).

  Raises:
    UserError: the spacing is unknown, `steps` is below 1 or above the number of discrete steps, 'karras' is used on a
      process where time is not sigma, or an option is out of range or has no effect on the spacing.
  """
  spacing = spacing or process.spacing
  if steps < 1 or (process.steps and steps > process.steps):
    limit = f' to {process.steps}, the number of steps of the process' if process.steps else ''
    raise UserError(f'sampler.steps must be a whole number from 1{limit}, got {steps}')
  _check_spacing(process, spacing, rho=rho, sigma_min=sigma_min, sigma_max=sigma_max, shift=shift)
  level = np.linspace(1.0, 0.0, steps + 1)
  if spacing == 'uniform':
    times = process.start * shift * level / (1 + (shift - 1) * level)
  elif spacing == 'quadratic':
    times = process.start * level ** 2
  else:
    ramp = np.linspace(0.0, 1.0, steps) if steps > 1 else np.zeros(1)
    large, small = (sigma_max or process.start) ** (1 / rho), sigma_min ** (1 / rho)
    times = np.append((large + ramp * (small - large)) ** rho, 0.0)
  if process.steps:
    times = np.round(times)
    # Rounding may make times equal; keep each at least one step above the next.
    for i in range(steps - 1, -1, -1):
      times[i] = max(times[i], times[i + 1] + 1)
    times = np.minimum(times, process.steps - np.arange(steps + 1))
  return times.astype(np.float32)


def _check_spacing(process: Process, spacing: str, **options: float) -> None:
  """Raises a UserError for options without effect in `sampling_times` and for numbers out of range."""
  if spacing not in _SPACINGS:
    raise UserError(f'config.sampler.spacing must be one of {sorted(_SPACINGS)}, got {spacing!r}')
  if spacing == 'karras' and process.spacing != 'karras':
    raise UserError("config.sampler.spacing='karras' needs the process 'edm'; use 'uniform' or 'quadratic'")
  for name, default in _SPACING_DEFAULTS.items():
    if name not in _SPACINGS[spacing] and options[name] != default:
      needs = next(known for known, names in _SPACINGS.items() if name in names)
      raise UserError(f'sampler.{name} belongs to the spacing {needs!r} and has no effect on {spacing!r}; leave it at '
                      f'{default:g}, got {options[name]}')
    least = 0.0 if name == 'sigma_max' else np.nextafter(0.0, 1.0)
    if not least <= options[name] < np.inf:
      zero = '0 or ' if not least else ''
      raise UserError(f'sampler.{name} must be {zero}a finite number above 0, got {options[name]}')
  largest = options['sigma_max'] or process.start
  if spacing == 'karras' and not options['sigma_min'] < largest:
    raise UserError(f'sampler.sigma_min must be below the largest sigma, {largest:g}, got {options["sigma_min"]}')


# spacing -> its constants
_SPACINGS = {'uniform': ('shift',), 'quadratic': (), 'karras': ('rho', 'sigma_min', 'sigma_max')}
_SPACING_DEFAULTS = {'shift': 1.0, 'rho': 7.0, 'sigma_min': 0.002, 'sigma_max': 0.0}  # their defaults
