"""Diffusion and flow matching of pixels, or of latents with another codec; from noise, or from other data.

With a source, a process that ends in x_start = source carries one distribution to another: sampling begins at an
example of the source. Examples that belong together, such as two pictures of one scene, come as one row of a batch;
rows that are unpaired are coupled by the data, see `genjax.data.coupling`.
"""

from collections.abc import Callable, Mapping
import dataclasses

import jax
import jax.numpy as jnp

from genjax import checks
from genjax.diffusion import conditioning, guidance, samplers, schedules, variance, weightings
from genjax.diffusion.conditioning import Conditioners, Given
from genjax.diffusion.parameterizations import Parameterization
from genjax.diffusion.schedules import Process, Quantile
from genjax.diffusion.weightings import Weighting
from genjax.nn.functional import Network
from genjax.objectives.base import EXACT, FINITE, NOISE, Context, Output, Phase, Variables
from genjax.objectives.codecs import Codec, pixels
from genjax.types import Array, Batch, Key, Params, UserError

_CODEC = 0xC0DEC  # folded into the key of a step for what the codec draws, so that the other draws stay as they are
Denoise = Callable[[Array, Array], guidance.Estimate]


@dataclasses.dataclass(frozen=True)
class Sampler:
  """How samples are made.

  Attributes:
    method: a function of `samplers` with its options bound.
    times: decreasing times of `schedules.sampling_times`.
    guidance: scale of guidance, see `guidance.guided`: of all conditions together that training drops, against none
      of them. Conditions that are never dropped are in both.
    guidances: name of a condition -> its scale, in place of `guidance`. They are nested in this order: the first
      condition is guided without the others, each next one with those before it (Brooks et al. 2023, eq. 3). Conditions
      without a scale are always present.
    rescale: phi of Lin et al. (2024), see `guidance.guided`; 0 for none.
    interval: (low, high), guidance where low < sigma / alpha <= high only; None for all noise levels. sigma / alpha is
      the sigma of Karras et al. (2022) and Kynkäänniemi et al. (2024), on any process.
    clip: bound on |x0_hat| in every step; 0 for none.
    learned: whether the method reads what the network learned of variances.
    process: the process whose times `times` are, see `spacings.Grid`; None for the model's.
    scale: deviation of the starting noise; 0 for sigma at the first time.
    threshold: dynamic thresholding by this quantile of |x0_hat|, see `thresholded`; 0 for none.
    threshold_max: largest bound of dynamic thresholding.
  """

  method: Callable[..., Array]
  times: tuple[float, ...]
  guidance: float = 1.0
  guidances: Mapping[str, float] = dataclasses.field(default_factory=dict)
  rescale: float = 0.0
  interval: tuple[float, float] | None = None
  clip: float = 0.0
  learned: bool = False
  process: Process | None = None
  scale: float = 0.0
  threshold: float = 0.0
  threshold_max: float = 1.0

  def __post_init__(self):
    checks.between(self, ('guidance', 'clip'), at_least=0)
    checks.between(self, ('rescale', 'threshold'), at_least=0, at_most=1)
    checks.between(self, ('threshold_max',), at_least=1)
    if self.clip and self.threshold:
      raise UserError(f'clip={self.clip} and threshold={self.threshold} both bound the estimate of the data; set one')
    checks.between({f'guidances.{name}': scale for name, scale in self.guidances.items()},
                   tuple(f'guidances.{name}' for name in self.guidances), at_least=0)
    if self.guidances and self.guidance != 1.0:
      raise UserError(f'guidance={self.guidance} is one scale of all conditions and guidances={dict(self.guidances)} '
                      'one of each; set one of them, and leave guidance at 1.0 for the other')

  def steps(self, conditioners: Conditioners) -> tuple[tuple[tuple[str, ...], float], ...]:
    """The conditions that guidance adds one after the other, with their scales.

    Raises:
      UserError: an unknown condition, or one that training never drops.
    """
    droppable = tuple(name for name, condition in conditioners.items() if condition.dropout)
    steps = tuple(((name,), scale) for name, scale in self.guidances.items())
    if not steps and self.guidance != 1.0:
      steps = ((droppable, self.guidance),)
    for names, scale in steps:
      unknown = [name for name in names if name not in conditioners]
      never = [name for name in names if name not in droppable]
      if unknown or never or not names:
        why = 'is of no condition of the model' if unknown else 'needs a condition that training drops at times'
        raise UserError(f'guidance by {scale}{f" of {list(names)}" if names else ""} {why}; the conditions, with their '
                        f'dropout, are { {name: condition.dropout for name, condition in conditioners.items()} }')
    return steps


@dataclasses.dataclass(frozen=True)
class Diffusion:
  """One network that denoises; group 'net', one phase 'diffusion'.

  Attributes:
    net: (x_BX, time_B, given) -> prediction; `given` is what it reads of conditions, see `genjax.nn.conditioning`.
    shape: shape of one example in the space that is diffused.
    process: how data becomes noise, see `genjax.diffusion.schedules`.
    parameterization: what the network predicts, see `genjax.diffusion.parameterizations`.
    sampler: how samples are made.
    quantile: distribution of training times; None for the process's own.
    stratified: whether the training times of a batch fill equal strata once each, see `schedules.levels`.
    conditioners: name -> condition, see `genjax.diffusion.conditioning`; class labels are `conditioning.classes`.
    joint_dropout: probability with which training drops all conditions of `conditioners` together that it drops at all,
      beside the dropout of each. Guidance by one scale needs the model without any of several conditions, which their
      own dropouts seldom give; Brooks et al. (2023) take 0.05.
    codec: from data to the space that is diffused, and back.
    evaluation_times: number of times at which the error of a held-out example is measured, see `evaluate`.
    weighting: weights of training's error by time, see `weightings`.
    learned_variance: whether the network has twice the channels, the second half for the variance of the reverse
      process, see `variance`.
    source: what takes the place of noise: columns of a batch, or of the user's request, -> x at the start of the
      process; None for noise. Nothing is drawn in this codec.
    noise_column: column of training and held-out batches with noise in the space that is diffused, coupled with the
      data; '' draws it independently. Samples begin at new noise either way.

  Raises:
    UserError: a source on a process that does not end in it, or beside a noise column; a parameterization that gives
      no estimate at the start of the process, learned variances on a process that has none to learn, a sampler that
      reads learned variances where none are learned, or guidance of a condition that is never dropped.
  """

  net: Network
  shape: tuple[int, ...]
  process: Process
  parameterization: Parameterization
  sampler: Sampler
  quantile: Quantile | None = None
  stratified: bool = True
  conditioners: Conditioners = dataclasses.field(default_factory=dict)
  joint_dropout: float = 0.0
  codec: Codec = dataclasses.field(default_factory=pixels)
  evaluation_times: int = 8
  weighting: Weighting = dataclasses.field(default_factory=weightings.uniform)
  learned_variance: bool = False
  source: Codec | None = None
  noise_column: str = ''

  def __post_init__(self):
    checks.whole(self, 1, 'shape', 'evaluation_times')
    if self.source is not None:
      self._check_source()
    checks.rates(self, 'joint_dropout')
    self.parameterization.check(self.process)
    self.sampler.steps(self.conditioners)
    if self.learned_variance:
      variance.check(self.process)
    elif self.sampler.learned:
      raise UserError('config.sampler.options.variance="learned" needs a model trained with '
                      "config.model.learn_sigma=True; use 'small' or 'large'")

  @property
  def noise_shape(self) -> tuple[int, ...]:
    """Shape of a row of `base.NOISE`; () where samples begin at a source."""
    return () if self.source is not None else tuple(self.shape)

  def init(self, key: Key, frozen: Params) -> Variables:
    params, mutable = self.net.init(key)
    return Variables({'net': params}, {'net': mutable} if mutable else {})

  def phases(self) -> tuple[Phase, ...]:
    return (Phase('diffusion', ('net',), self.loss),)

  def loss(self, params: Params, context: Context, batch: Batch, key: Key) -> Output:
    """Mean squared error of the prediction at random times, weighted by `weighting`.

    A learned variance adds steps / 1000 times the variational bound in bits per dimension, without gradient to the
    estimate of the data. This is the hybrid loss of Nichol & Dhariwal (2021, eq. 16): 0.001 times the sum over all
    steps, as in the published code.
    """
    x0_BX = self.codec.encode(context.frozen, batch, jax.random.fold_in(key, _CODEC))
    size = x0_BX.shape[0]
    time_key, noise_key, drop_key, net_key = jax.random.split(key, 4)
    t_B = self._quantile(schedules.levels(time_key, size, self.stratified))
    given = conditioning.given(self.conditioners, context.frozen, batch, drop_key, self.joint_dropout)
    noise_BX = self._end(context, batch, x0_BX, noise_key)
    error_B, bound_B, mutable = self._error(params, context.mutable, x0_BX, noise_BX, t_B, given, net_key)
    error_B = self.weighting(self.process, self.parameterization, t_B) * error_B
    metrics = {}
    if bound_B is not None:
      metrics = {'error': jnp.mean(error_B), 'bound': jnp.mean(bound_B)}
      error_B = error_B + self.process.steps / 1000 * bound_B
    return Output(jnp.mean(error_B), metrics, mutable={'net': mutable} if mutable else None, weight=float(size))

  def evaluate(self, params: Params, context: Context, batch: Batch, key: Key) -> dict[str, Array]:
    """The unweighted squared error of each example, averaged over `evaluation_times` times.

    The times are the midpoints of equal strata of the training distribution, the same for all examples and runs.
    """
    x0_BX = self.codec.encode(context.frozen, batch, None)
    size, times = x0_BX.shape[0], self.evaluation_times
    given = conditioning.given(self.conditioners, context.frozen, batch)

    def add(total_B, index):
      t_B = jnp.full(size, self._quantile((index + 0.5) / times))
      noise_BX = self._end(context, batch, x0_BX, jax.random.fold_in(key, index))
      return total_B + self._error(params, context.mutable, x0_BX, noise_BX, t_B, given, None)[0] / times, None

    return {'loss': jax.lax.scan(add, jnp.zeros(size), jnp.arange(times))[0]}

  def sample(self, params: Params, context: Context, keys: Key, conditions: Mapping[str, Array]) -> dict[str, Array]:
    """Samples, in the columns of the codec.

    `conditions` holds the columns that the conditioners read. Rows 'negative_COLUMN' stand in the place of the null of
    a column where guidance takes the condition away. With a source it holds the columns of that, too. `base.NOISE` and
    `base.EXACT` ask for more; of each sample `base.FINITE` is returned, too.
    """
    keys_N2 = jax.vmap(jax.random.split)(keys)
    process = self.sampler.process or self.process
    if self.source is None:
      if NOISE in conditions:
        x_NX = (self.sampler.scale or process.sigma(jnp.float32(self.sampler.times[0]))) * conditions[NOISE]
      else:
        x_NX = samplers.prior(process, keys_N2[:, 0], self.shape, self.sampler.times[0], self.sampler.scale)
    else:
      x_NX = self.source.encode(context.frozen, conditions, None)

    def denoise(x_NX: Array, t: Array, given: Given) -> guidance.Estimate:
      raw_NX = None

      def predict(scaled_NX: Array, time_N: Array) -> Array:
        nonlocal raw_NX
        prediction_NX, raw_NX, _ = self._apply(params, context.mutable, scaled_NX, time_N, given, None)
        return prediction_NX

      x0_hat_NX = self.parameterization.denoise(process, predict, x_NX, t)
      return (x0_hat_NX, raw_NX) if self.sampler.learned and raw_NX is not None else x0_hat_NX

    steps = self.sampler.steps(self.conditioners)
    without = [[name for names, _ in steps[index:] for name in names] for index in range(len(steps) + 1)]
    branches = conditioning.branches(self.conditioners, context.frozen, conditions, len(keys), without)
    guided = guidance.guided(denoise, branches, [scale for _, scale in steps], self.sampler.interval,
                             process.noise_to_signal, self.sampler.rescale)
    guided = _bounded(guided, self.sampler)
    x_NX = self.sampler.method(guided, x_NX, process, jnp.asarray(self.sampler.times), keys_N2[:, 1])
    columns, finite_N = self.codec.sampled(context.frozen, x_NX, EXACT in conditions)
    return {**columns, FINITE: finite_N}

  @property
  def _quantile(self) -> Quantile:
    return self.quantile or self.process.quantile

  def _check_source(self) -> None:
    start = jnp.float32(self.process.start)
    alpha, sigma = float(self.process.alpha(start)), float(self.process.sigma(start))
    if self.noise_column:
      raise UserError(f'a source takes the place of noise; leave out noise_column={self.noise_column!r}')
    if self.learned_variance:
      raise UserError('a source takes the place of noise, and learned variances are those of noise; set '
                      'config.model.learn_sigma to False')
    if abs(alpha) > 1e-6 or abs(sigma - 1) > 1e-6 or self.sampler.times[0] != self.process.start:
      raise UserError(
        "samples begin at the source, so that the process must end in it: config.objective.process 'flow' does. This "
        f'one has alpha={alpha:g} and sigma={sigma:g} at its start {self.process.start:g}, and sampling begins at '
        f'{self.sampler.times[0]:g}')

  def _end(self, context: Context, batch: Batch, x0_BX: Array, key: Key) -> Array:
    """What the data becomes along the process: noise, or the source."""
    if self.source is not None:
      return self.source.encode(context.frozen, batch, None)
    return batch[self.noise_column] if self.noise_column else jax.random.normal(key, x0_BX.shape)

  def _apply(self, params: Params, mutable, x_BX: Array, time_B: Array, given: Given, key: Key | None):
    """The prediction, the output for learned variances or None, and the new mutable tree."""
    output_BX, mutable = self.net.apply(params['net'], mutable.get('net', {}), x_BX, time_B, given, key=key)
    return (*jnp.split(output_BX, 2, axis=-1), mutable) if self.learned_variance else (output_BX, None, mutable)

  def _error(self, params: Params, mutable, x0_BX: Array, noise_BX: Array, t_B: Array, given: Given,
             key: Key | None):
    """The mean squared error per example, the bound of a learned variance or None, and the new mutable tree."""
    x_BX = self.process.diffuse(x0_BX, noise_BX, t_B)
    scaled_BX = schedules.expand(self.parameterization.scale_input(self.process, t_B), x_BX) * x_BX
    prediction_BX, raw_BX, mutable = self._apply(params, mutable, scaled_BX, self.process.embed(t_B), given, key)
    prediction_BX = prediction_BX.astype(jnp.float32)
    target_BX = self.parameterization.prediction(self.process, x0_BX, noise_BX, t_B)
    error_B = jnp.mean(((prediction_BX - target_BX) ** 2).reshape(x0_BX.shape[0], -1), axis=1)
    if raw_BX is None:
      return error_B, None, mutable
    known_BX = jax.lax.stop_gradient(prediction_BX)
    x0_hat_BX = self.parameterization.denoise(self.process, lambda scaled_BX, time_B: known_BX, x_BX, t_B)
    return error_B, variance.bound(self.process, raw_BX, x0_hat_BX, x0_BX, x_BX, t_B, self.codec.bounded), mutable


def thresholded(x0_BX: Array, quantile: float, largest: float) -> Array:
  """Dynamic thresholding (Saharia et al. 2022, section 2.3): a row is clipped to [-s, s] and divided by s, where s is a
  quantile of its absolute values, at least 1 and at most `largest`."""
  bound_B = jnp.quantile(jnp.abs(x0_BX).reshape(x0_BX.shape[0], -1), quantile, axis=1)
  bound_BX = schedules.expand(jnp.clip(bound_B, 1.0, largest), x0_BX)
  return jnp.clip(x0_BX, -bound_BX, bound_BX) / bound_BX


def _bounded(denoise: Denoise, sampler: Sampler) -> Denoise:
  """The denoiser with x0_hat clipped or thresholded as the sampler says."""
  if sampler.clip:
    bound = lambda x0_NX: jnp.clip(x0_NX, -sampler.clip, sampler.clip)
  elif sampler.threshold:
    bound = lambda x0_NX: thresholded(x0_NX, sampler.threshold, sampler.threshold_max)
  else:
    return denoise

  def bounded(x_NX: Array, t: Array) -> guidance.Estimate:
    estimate = denoise(x_NX, t)
    return (bound(estimate[0]), estimate[1]) if isinstance(estimate, tuple) else bound(estimate)

  return bounded
