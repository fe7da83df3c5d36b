"""The times and noise levels of a sampler, as `diffusers` and as `schedules.sampling_times` space them.

`diffusers` counts its timesteps from 0; the time of a discrete process here is a timestep + 1. Its schedulers are of
three kinds, and the sampler tells which (`KINDS`):

    whole    whole times of the process: DDIM, DDPM, PNDM, LCM, TCD
    levels   noise levels sigma / alpha, interpolated between whole times: Euler, Euler ancestral, Heun, DPM++ SDE
    open     noise levels, too, but the n steps begin at the first n of n + 1 times: DPM++ 2M, UniPC and kin

A grid of noise levels is a process of its own, whose time is the level: the network is told the time that belongs to a
level, rounded where `diffusers` rounds it. So samplers need to know nothing of this.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from genjax.diffusion import schedules
from genjax.diffusion.schedules import Process
from genjax.types import Array, UserError

KINDS = {  # sampler -> (kind, spacing where none is named); others are 'whole' and take that of the process
  'pndm': ('whole', 'leading'), 'lcm': ('whole', 'distilled'), 'tcd': ('whole', 'distilled'),
  'euler_discrete': ('levels', 'linspace'), 'euler_ancestral': ('levels', 'linspace'),
  'heun_discrete': ('levels', 'linspace'), 'dpmpp_sde': ('levels', 'linspace'), 'dpmpp_2m': ('open', ''),
  'lms': ('levels', 'linspace'), 'dpm2': ('levels', 'linspace'), 'dpm2_ancestral': ('levels', 'linspace'),
  'deis': ('open', 'linspace'), 'dpmpp_2m_sde': ('open', 'linspace'), 'dpmpp_2s': ('open', 'linspace'),
  'unipc': ('open', 'linspace')}
# Those that divide by alpha, which is 0 at the start of a flow
LEVELS_ONLY = ('heun_discrete', 'pndm', 'dpmpp_sde', 'lms', 'dpm2', 'dpm2_ancestral', 'deis')
_ROUNDED = ('dpm2', 'dpm2_ancestral')  # those of kind 'levels' that are told whole times with Karras levels
WHOLE_ONLY = ('tcd',)  # samplers of whole times
SPACINGS = ('leading', 'linspace', 'trailing', 'distilled')  # beside those of `schedules.sampling_times`
SIGMAS = ('karras', 'exponential', 'beta', 'lu')
_UNIT_STEPS = 1000  # timesteps of flows in `diffusers`
_RHO, _BETA = 7.0, 0.6  # of Karras et al. (2022), and both parameters of the beta distribution
_ALMOST_NOISE = 2.0 ** -24  # alpha^2 that takes the place of 0 in noise levels


@dataclasses.dataclass(frozen=True)
class Spacing:
  """What the times of a sampler depend on, beside the process and the sampler.

  Attributes:
    steps: number of steps.
    name: 'uniform', 'quadratic' or 'karras', see `schedules.sampling_times`; 'leading', 'linspace', 'trailing' (Lin et
      al. 2024, table 2) or 'distilled' (times of LCM and TCD); '' for the sampler's own.
    sigmas: '' for the noise levels of the times, or how levels lie between the first and the last one: 'karras',
      'exponential' (uniform in their logarithm), 'beta', 'lu' (as 'exponential', but the network is told the nearest
      whole time, where a sampler of kind 'open' tells the one below otherwise).
    offset: added to the timesteps of 'leading'.
    final: 'data', or 'first': sampling ends at the first whole time, whose noise stays.
    shift: of a flow: above 1 moves times towards noise.
    tokens: number of tokens of an example, for `shift_by_tokens`; 0 if unknown.
    shift_by_tokens: (tokens, mu, more tokens, mu): the shift is exp(mu), mu linear in the number of tokens; () for
      `shift`.
    original_steps: of 'distilled': number of steps of the teacher.
    rho, sigma_min, sigma_max: of the spacing 'karras', see `schedules.sampling_times`.
  """

  steps: int
  name: str = ''
  sigmas: str = ''
  offset: int = 0
  final: str = 'data'
  shift: float = 1.0
  tokens: int = 0
  shift_by_tokens: tuple[float, ...] = ()
  original_steps: int = 50
  rho: float = 7.0
  sigma_min: float = 0.002
  sigma_max: float = 0.0


@dataclasses.dataclass(frozen=True)
class Grid:
  """The times of a sampler.

  Attributes:
    times: N + 1 decreasing times.
    process: the process whose times they are; None for the model's.
    scale: deviation of the starting noise; 0 for sigma at the first time.
  """

  times: tuple[float, ...]
  process: Process | None = None
  scale: float = 0.0


def grid(process: Process, sampler: str, spacing: Spacing) -> Grid:
  """The times at which a sampler visits a process.

  Args:
    process: the process.
    sampler: name of the sampler, which tells the kind.
    spacing: what else they depend on.

  Raises:
    UserError: an unknown name, a number out of range, or options that have no meaning together.
  """
  kind, own = KINDS.get(sampler, ('whole', ''))
  if sampler in LEVELS_ONLY and not process.steps and process.spacing != 'karras':
    raise UserError(f"config.sampler.name={sampler!r} needs noise levels sigma / alpha, which are infinite at the "
                    "start of a flow; use 'flow_euler', 'heun', 'unipc' or 'dpmpp_2m'")
  if sampler in WHOLE_ONLY and not process.steps:
    raise UserError(f"config.sampler.name={sampler!r} needs a process of whole times, such as 'vp_scaled_linear'")
  flow = not process.steps and process.spacing != 'karras'
  if not process.steps:
    own = 'linspace' if flow and sampler == 'unipc' else ''
  name = spacing.name or own
  _check(process, name, spacing, flow)
  if spacing.shift_by_tokens:
    spacing = dataclasses.replace(spacing, shift=math.exp(mu(spacing.tokens, spacing.shift_by_tokens)))
  if process.steps and (name in SPACINGS or spacing.sigmas or kind == 'levels' or spacing.final == 'first'):
    return _discrete(process, kind, name or 'linspace', spacing, sampler in _ROUNDED)
  if flow and name == 'linspace':
    return _flow(process, kind, sampler, spacing)
  if spacing.sigmas:  # a process whose time is the noise level
    largest = spacing.sigma_max or process.start
    return Grid((*_between(spacing.sigmas, largest, spacing.sigma_min, spacing.steps).tolist(), 0.0))
  times = schedules.sampling_times(process, spacing.steps, name or None, shift=spacing.shift, rho=spacing.rho,
                                   sigma_min=spacing.sigma_min, sigma_max=spacing.sigma_max)
  return Grid(tuple(times.tolist()))


def mu(tokens: int, line: tuple[float, ...]) -> float:
  """The logarithm of the shift for a number of tokens, on the line through two points (Flux, SD3.5).

  Args:
    tokens: of one example.
    line: (tokens, mu, more tokens, mu).
  """
  base, base_mu, most, most_mu = line
  return base_mu + (tokens - base) * (most_mu - base_mu) / (most - base)


def _check(process: Process, name: str, spacing: Spacing, flow: bool) -> None:
  """Refuses what has no meaning, before anything is computed."""
  old = ('uniform', 'quadratic', 'karras')
  if name and name not in (*old, *SPACINGS):
    raise UserError(f'config.sampler.spacing must be one of {sorted((*old, *SPACINGS))}, got {name!r}')
  if spacing.sigmas and spacing.sigmas not in SIGMAS:
    raise UserError(f'config.sampler.sigmas must be one of {SIGMAS}, or empty, got {spacing.sigmas!r}')
  if spacing.final not in ('data', 'first'):
    raise UserError(f"config.sampler.final must be 'data' or 'first', got {spacing.final!r}")
  if spacing.sigmas and flow:
    raise UserError(f'config.sampler.sigmas={spacing.sigmas!r} spaces noise levels sigma / alpha, which are infinite '
                    "at the start of a flow; leave it empty, and set config.sampler.shift to move times towards noise")
  if spacing.sigmas and name in ('karras', 'quadratic', 'distilled'):
    raise UserError(f'config.sampler.sigmas={spacing.sigmas!r} and spacing={name!r} both say where the steps lie; '
                    "leave one of them empty")
  if name in SPACINGS and not process.steps and not (flow and name == 'linspace'):
    raise UserError(f"config.sampler.spacing={name!r} needs a process of whole times, such as 'vp_linear'; this one "
                    f"takes {['uniform', 'quadratic', 'linspace'] if flow else ['karras', 'uniform', 'quadratic']}")
  if spacing.offset and name != 'leading':
    raise UserError(f"config.sampler.offset belongs to the spacing 'leading' and has no effect on {name!r}; leave it "
                    f'at 0, got {spacing.offset}')
  if spacing.original_steps != 50 and name != 'distilled':
    raise UserError("config.sampler.original_steps belongs to the spacing 'distilled' and has no effect on "
                    f'{name!r}; leave it at 50, got {spacing.original_steps}')
  if spacing.final == 'first' and not process.steps:
    raise UserError("config.sampler.final='first' needs a process of whole times, such as 'vp_linear'; use 'data'")
  if spacing.shift_by_tokens:
    _check_line(spacing, flow)
  if not 0 < spacing.shift < math.inf:
    raise UserError(f'sampler.shift must be a finite number above 0, got {spacing.shift}')
  if (name in SPACINGS or spacing.sigmas) and process.spacing != 'karras' and (
      spacing.rho, spacing.sigma_min, spacing.sigma_max) != (7.0, 0.002, 0.0):
    raise UserError("sampler.rho, sigma_min and sigma_max belong to the process 'edm'; leave them at 7, 0.002 and 0, "
                    f'got {spacing.rho:g}, {spacing.sigma_min:g} and {spacing.sigma_max:g}')
  if (spacing.shift != 1.0 or spacing.shift_by_tokens) and not flow and (name in SPACINGS or spacing.sigmas):
    raise UserError("config.sampler.shift moves the times of the process 'flow'; leave it at 1.0 here, got "
                    f'{spacing.shift:g}')


def _check_line(spacing: Spacing, flow: bool) -> None:
  line = spacing.shift_by_tokens
  if len(line) != 4 or not 0 < line[0] < line[2]:
    raise UserError('config.sampler.shift_by_tokens must be () or (tokens, mu, more tokens, mu), such as (256, 0.5, '
                    f'4096, 1.15), got {tuple(line)}')
  if not flow:
    raise UserError("config.sampler.shift_by_tokens moves the times of the process 'flow'; leave it empty here")
  if spacing.shift != 1.0:
    raise UserError(f'config.sampler.shift={spacing.shift:g} and shift_by_tokens both shift the times; leave shift at '
                    '1.0 or shift_by_tokens empty')
  if spacing.tokens < 1:
    raise UserError('config.sampler.shift_by_tokens needs a network that divides an example into patches, such as '
                    "'dit' or 'mmdit'; set config.sampler.shift")


def timesteps(count: int, kind: str, name: str, spacing: Spacing) -> np.ndarray:
  """The decreasing timesteps of a discrete process, in the count of `diffusers`: 0 to `count` - 1.

  Args:
    count: number of whole times of the process.
    kind: see the module.
    name: the spacing.
    spacing: steps, offset and original_steps count.

  Raises:
    UserError: there are too many steps, or a timestep falls out of range.
  """
  steps = spacing.steps
  if not 1 <= steps <= count:
    raise UserError(f'sampler.steps must be a whole number from 1 to {count}, the number of steps of the process, got '
                    f'{steps}')
  points = steps + (kind == 'open')
  if name == 'leading':
    found = (np.arange(points) * (count // points))[::-1][:steps] + float(spacing.offset)
  elif name == 'linspace':
    found = np.linspace(0, count - 1, points)[::-1][:steps]
    found = found if kind == 'levels' else np.round(found)
  elif name == 'distilled':
    found = _distilled(count, spacing)
  else:  # 'uniform' has the times of 'trailing'
    found = np.round(np.arange(count, 0, -count / steps))[:steps] - 1
  if not 0 <= found[-1] <= found[0] <= count - 1:
    raise UserError(f'config.sampler.offset={spacing.offset} puts the first timestep at {found[0]:g}; the process has '
                    f'timesteps 0 to {count - 1}')
  if len(np.unique(found)) < steps:
    raise UserError(f'sampler.steps={steps} visits a time twice with the spacing {name!r}; use fewer steps')
  return found


def _distilled(count: int, spacing: Spacing) -> np.ndarray:
  """The timesteps of LCM and TCD: some of those of the teacher's sampler (Luo et al. 2023)."""
  original, steps = spacing.original_steps, spacing.steps
  if not steps <= original <= count:
    raise UserError(f'config.sampler.original_steps must lie between the steps ({steps}) and those of the process '
                    f'({count}), got {original}')
  teacher = (np.arange(1, original + 1) * (count // original) - 1.0)[::-1]
  return teacher[np.floor(np.linspace(0, original, steps, endpoint=False)).astype(int)]


def _discrete(process: Process, kind: str, name: str, spacing: Spacing, rounded: bool) -> Grid:
  """The grid of a process of whole times."""
  if name == 'quadratic':
    found = np.asarray(schedules.sampling_times(process, spacing.steps, name)[:-1], np.float64) - 1
  else:
    found = timesteps(process.steps, kind, name, spacing)
  if kind == 'whole' and not spacing.sigmas:
    return Grid((*(found + 1).tolist(), 1.0 if spacing.final == 'first' else 0.0), scale=1.0)
  known = noise_levels(process)
  levels = np.interp(found, np.arange(process.steps), known)
  if spacing.sigmas:
    ends = (levels[0], levels[-1]) if kind == 'levels' else (known[-1], known[0])
    levels = _between(spacing.sigmas, *ends, spacing.steps)
    found = np.interp(np.log(levels), np.log(known), np.arange(process.steps))
    if rounded and spacing.sigmas == 'karras':
      found = np.round(found)
    if kind != 'levels':  # those of diffusers round two of them and cut the others
      found = np.round(found) if spacing.sigmas in ('karras', 'lu') else np.floor(found)
  if (np.diff(levels) >= 0).any():
    raise UserError(f'{spacing.steps} steps visit pure noise more than once, where noise levels do not differ; use the '
                    "sampler 'ddim' or 'ddpm', or a process whose signal lasts longer")
  last = known[0] if spacing.final == 'first' else 0.0
  return Grid((*levels.tolist(), float(last)), of_levels(process, known, levels, found),
              scale=1.0 if kind != 'levels' or name == 'leading' else 0.0)


def noise_levels(process: Process) -> np.ndarray:
  """sigma / alpha at the whole times of a discrete process; a finite one takes the place of pure noise."""
  if process.log_alpha_bar:
    square = np.exp(np.asarray(process.log_alpha_bar))
    alpha, sigma = np.sqrt(square), np.sqrt(-np.expm1(process.log_alpha_bar))
  else:
    times = jnp.arange(1, process.steps + 1, dtype=jnp.float32)
    both = jax.jit(lambda t: (process.alpha(t), process.sigma(t)))(times)
    alpha, sigma = (np.asarray(part, np.float64) for part in both)
  found = sigma / np.where(alpha > 0, alpha, 1.0)
  largest, noise = found[alpha > 0].max(), math.sqrt(1 / _ALMOST_NOISE - 1)
  return np.where(alpha > 0, found, noise if noise > largest else 2 * largest)


def _between(sigmas: str, largest: float, smallest: float, steps: int) -> np.ndarray:
  """Decreasing noise levels between two ends."""
  ramp = np.linspace(0.0, 1.0, steps)
  if sigmas == 'karras':
    high, low = largest ** (1 / _RHO), smallest ** (1 / _RHO)
    return (high + ramp * (low - high)) ** _RHO
  if sigmas == 'beta':
    return smallest + special.betaincinv(_BETA, _BETA, 1 - ramp) * (largest - smallest)
  return np.exp(np.linspace(math.log(largest), math.log(smallest), steps))


def of_levels(process: Process, known: np.ndarray, levels: np.ndarray, found: np.ndarray) -> Process:
  """The process whose time is the noise level sigma / alpha, with alpha^2 + sigma^2 = 1.

  Args:
    process: a process of whole times.
    known: its levels at whole times, increasing.
    levels: the levels that are visited.
    found: the timestep that the network is told at each of them; between them it is interpolated.
  """
  visited, logs = jnp.asarray(levels, jnp.float32), jnp.asarray(np.log(known), jnp.float32)
  told = jnp.asarray(found, jnp.float32)
  # Levels fall from float64 to float32 only here, and differ from the listed ones by one rounding.
  close = 1e-6

  def embed(level: Array) -> Array:
    level = jnp.asarray(level, jnp.float32)
    nearest = jnp.argmin(jnp.abs(level[..., None] / visited - 1), axis=-1)
    between = jnp.interp(jnp.log(level), logs, jnp.arange(len(known), dtype=jnp.float32))
    # `Process.embed` of the process may count otherwise than timesteps do.
    time = jnp.where(jnp.abs(level / visited[nearest] - 1) <= close, told[nearest], between) + 1
    return process.embed(time)

  alpha = lambda level: jax.lax.rsqrt(1 + level ** 2)
  return dataclasses.replace(process, alpha=alpha, sigma=lambda level: level * alpha(level), start=float(levels[0]),
                             embed=embed)


def _flow(process: Process, kind: str, sampler: str, spacing: Spacing) -> Grid:
  """The grids that `diffusers` makes for flows when a pipeline names no times: they end above 0."""
  shifted = lambda t: spacing.shift * t / (1 + (spacing.shift - 1) * t)
  smallest, steps = 1 / _UNIT_STEPS, spacing.steps
  if kind != 'open':
    # The scheduler shifts its smallest time when it is made, and all times again when they are listed.
    smallest = smallest if spacing.shift_by_tokens else shifted(smallest)
    return Grid((*shifted(np.linspace(1, smallest, steps)).tolist(), 0.0))
  if sampler == 'unipc':
    times = np.minimum(shifted(np.linspace(1, smallest, steps + 1)[:-1]), 1 - 1e-6)
  else:
    times = shifted(1 - np.linspace(smallest, 1, steps + 1))[:-1]
  visited = jnp.asarray(times, jnp.float32)
  told = jnp.asarray(np.floor(times * _UNIT_STEPS), jnp.float32)  # diffusers cuts these timesteps to whole ones

  def embed(t: Array) -> Array:
    return told[jnp.argmin(jnp.abs(jnp.asarray(t, jnp.float32)[..., None] - visited), axis=-1)]

  return Grid((*times.tolist(), 0.0), dataclasses.replace(process, embed=embed), scale=1.0)
