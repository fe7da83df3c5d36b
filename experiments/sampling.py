"""config.sampler of diffusion: the sampler, its times and guidance."""

from collections.abc import Mapping
import dataclasses
import functools
import inspect
import math
from typing import Any

from genjax import checks
from genjax import config as config_lib
from genjax.diffusion import multistep, samplers, schedules, spacings
from genjax.interop.schedulers import SCHEDULERS
from genjax.objectives.diffusion import Sampler
from genjax.options import Section
from genjax.types import UserError


@dataclasses.dataclass(frozen=True)
class SamplerOptions:
  """config.sampler.

  Attributes:
    name: one of `samplers.SAMPLERS`, or a class of `genjax.interop.schedulers.SCHEDULERS`, such as 'PNDMScheduler'.
    steps: number of steps.
    spacing: 'uniform', 'quadratic' or 'karras', see `schedules.sampling_times`; 'leading', 'linspace', 'trailing' or
      'distilled', see `spacings`; '' for the sampler's or the process's own.
    sigmas: how noise levels sigma / alpha lie between the first and the last one: 'karras', 'exponential', 'beta' or
      'lu'; '' for those of the times.
    offset: of 'leading': added to each timestep (`steps_offset` of diffusers).
    final: 'data', or 'first': sampling ends at the first whole time, whose noise stays (`set_alpha_to_one=False` or
      `final_sigmas_type='sigma_min'` of diffusers).
    original_steps: of 'distilled': number of steps of the sampler that LCM and TCD were distilled with.
    shift: of 'uniform' and of flows: above 1 moves times towards noise (Esser et al. 2024, eq. 23).
    shift_by_tokens: of flows, in place of `shift`: (tokens, mu, more tokens, mu), so that the shift is exp(mu) with mu
      linear in the number of tokens of an example, such as (256, 0.5, 4096, 1.15); () for `shift`.
    rho: of 'karras': above 1 puts more steps near the data (Karras et al. 2022, eq. 5).
    sigma_min: of 'karras': sigma of the last step before the data, in units of the data.
    sigma_max: of 'karras': sigma of the first step; 0 for the start of the process.
    guidance: scale of classifier-free guidance by all conditions together; 1 is the conditional model.
    guidances: condition -> its own scale, in place of `guidance`, nested in the order of the names, see
      `genjax.objectives.diffusion.Sampler`.
    rescale: brings the guided estimate back to the deviation of the conditional one, 1 all the way (Lin et al. 2024).
    interval: (low, high), only noise levels sigma / alpha above low and up to high are guided; () for all. On `flow`,
      sigma / alpha is t / (1 - t).
    clip: bound on |x0_hat|; 0 for none.
    threshold: quantile of |x0_hat| for dynamic thresholding (Saharia et al. 2022, section 2.3); 0 for none.
    threshold_max: largest bound of dynamic thresholding.
    options: keywords of the sampler's function.

  Raises:
    UserError: an interval that is none, or a negative clip.
  """

  name: str
  steps: int
  spacing: str = ''
  sigmas: str = ''
  offset: int = 0
  final: str = 'data'
  original_steps: int = 50
  shift: float = 1.0
  shift_by_tokens: tuple[float, ...] = ()
  rho: float = 7.0
  sigma_min: float = 0.002
  sigma_max: float = 0.0
  guidance: float = 1.0
  guidances: Mapping[str, float] = dataclasses.field(default_factory=dict)
  rescale: float = 0.0
  interval: tuple[float, ...] = ()
  clip: float = 0.0
  threshold: float = 0.0
  threshold_max: float = 1.0
  options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    checks.whole(self, 1, 'steps', 'original_steps')
    checks.whole(self, 0, 'offset')
    checks.between(self, ('guidance', 'clip'), at_least=0)
    checks.between(self, ('rescale', 'threshold'), at_least=0, at_most=1)
    checks.between(self, ('threshold_max',), at_least=1)
    checks.between(self.options, ('eta',), at_least=0)
    interval = self.interval
    numbers = all(isinstance(value, (int, float)) for value in interval)
    if interval and not (numbers and len(interval) == 2 and 0 <= interval[0] < interval[1]):
      raise UserError('config.sampler.interval must be () or two noise levels sigma / alpha, the lower of at least 0 '
                      f'first, got {tuple(interval)}')


def sampler(options: SamplerOptions, process: schedules.Process, learned: bool = False, tokens: int = 0) -> Sampler:
  """The sampler that config.sampler describes.

  Args:
    options: config.sampler.
    process: the process.
    learned: the model learns variances; `ancestral` takes them unless its options name others.
    tokens: number of tokens of an example, for `shift_by_tokens`; 0 if the network has none.

  Raises:
    UserError: an unknown sampler, spacing or option, a number out of range, or options without meaning together.
  """
  name, method = named(options.name)
  keywords = dict(options.options)
  config_lib.build(_check_only(method), keywords, 'config.sampler.options', **dict.fromkeys(_shared(method)))
  if method is samplers.ancestral:
    keywords.setdefault('variance', 'learned' if learned else 'small')
  _check_values(name, keywords, options.steps, process)
  spacing = spacings.Spacing(
    options.steps, options.spacing or _class_spacing(options, process), options.sigmas, options.offset, options.final,
    options.shift, tokens, tuple(options.shift_by_tokens), options.original_steps, options.rho, options.sigma_min,
    options.sigma_max)
  grid = spacings.grid(process, name, spacing)
  low_high = (float(options.interval[0]), float(options.interval[1])) if options.interval else None
  return Sampler(functools.partial(method, **keywords), grid.times,
                 guidance=1.0 if options.guidances else options.guidance, guidances=dict(options.guidances),
                 rescale=options.rescale, interval=low_high, clip=options.clip,
                 learned=keywords.get('variance') == 'learned', process=grid.process, scale=grid.scale,
                 threshold=options.threshold, threshold_max=options.threshold_max)


def _check_values(name: str, keywords: Mapping[str, Any], steps: int, process: schedules.Process) -> None:
  """Refuses values of options that a sampler would refuse while it runs."""
  known = {'variance': samplers.VARIANCES, 'predicts': multistep.PREDICTS, 'order': (1, 2, 3)}
  for option, allowed in known.items():
    if option in keywords and keywords[option] not in allowed:
      raise UserError(f'config.sampler.options.{option} must be one of {allowed}, got {keywords[option]!r}')
  if name == 'tcd':
    checks.between({'options.eta': keywords.get('eta', 0.3)}, ('options.eta',), at_most=1)
  if keywords.get('runge_kutta') and steps < 4:
    raise UserError(f'config.sampler.options.runge_kutta=True needs at least 4 steps, got {steps}')
  pure = process.log_alpha_bar[-1:] == (-math.inf,)
  if name == 'pndm' and keywords.get('predicts', 'epsilon') == 'epsilon' and pure:
    raise UserError('the process begins at pure noise, where the noise that pndm extrapolates tells nothing of the '
                    "data; set config.sampler.options.predicts='v', or another sampler")


def sections(config: Any) -> dict[str, Section]:
  """The sections sampler and sampler.options of a config of diffusion."""
  name = config.sampler.get('name')
  method = samplers.SAMPLERS.get(SCHEDULERS[name].sampler if name in SCHEDULERS else name)
  return {
    'sampler': Section((SamplerOptions,), names=(*samplers.SAMPLERS, *SCHEDULERS)),
    'sampler.options': Section((method,) if method else (), dict.fromkeys(_shared(method) if method else (), ''),
                               chooser='sampler.name',
                               others={name: (other,) for name, other in samplers.SAMPLERS.items()})}


def named(name: str) -> tuple[str, Any]:
  """The name and the function of a sampler, which may have the name of a class of `diffusers`.

  Raises:
    UserError: it is unknown.
  """
  own = SCHEDULERS[name].sampler if name in SCHEDULERS else name
  if own not in samplers.SAMPLERS:
    config_lib.choose({**samplers.SAMPLERS, **SCHEDULERS}, name, 'config.sampler.name')
  return own, samplers.SAMPLERS[own]


def tokens(model: Any, shape: tuple[int, ...]) -> int:
  """Number of tokens of an example, 0 for a network without patches.

  Args:
    model: options of the network.
    shape: of an example, channels last.
  """
  patch = getattr(model, 'patch', 0)
  return math.prod(size // patch for size in shape[:-1]) if patch else 0


def _class_spacing(options: SamplerOptions, process: schedules.Process) -> str:
  """The spacing that a class of `diffusers` has if its file names none; '' for another name."""
  row = SCHEDULERS.get(options.name)
  spacing = row.defaults.get('timestep_spacing', '') if row and process.steps else ''
  return '' if row and row.sampler in ('lcm', 'tcd') else spacing


def _shared(method: Any) -> list[str]:
  """The arguments of a sampler that every sampler has, which are no options."""
  return list(inspect.signature(method).parameters)[:len(samplers.SAMPLERS.takes or ())]


def _check_only(method: Any) -> Any:
  """A function with the method's signature that does nothing, for checking options before any computation."""
  return functools.wraps(method)(lambda **keywords: None)
