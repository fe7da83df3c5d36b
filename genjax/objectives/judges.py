"""What judges reconstructions beside their pixels: a perceptual distance, and a critic that is trained along (Esser et
al. 2021, section 3.1; Rombach et al. 2022, section 3.1). Autoencoders of all kinds share it."""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from genjax import checks
from genjax.nn.functional import Network
from genjax.objectives.base import Context, Output, Phase
from genjax.objectives.gan import LOSSES
from genjax.objectives.kinds import Perceptual
from genjax.types import Array, Batch, Key, Params, Tree, UserError

CRITIC = 'critic'  # group, phase, and entry of the mutable tree
PERCEPTUAL = 'perceptual'  # frozen group
# Name -> losses of `genjax.objectives.gan`. The published code has -logit for the generator in both.
CRITIC_LOSSES = {'hinge': LOSSES['hinge'], 'vanilla': (LOSSES['non_saturating'][0], LOSSES['hinge'][1])}
_TINY = 1e-4  # added to the norm of the critic's gradient

Likelihood = Callable[[Array, Array | None], Array]


class Judged(NamedTuple):
  """loss: scalar to minimise. error: its share without the critic. metrics: scalars to log."""

  loss: Array
  error: Array
  metrics: Mapping[str, Array]


@dataclasses.dataclass(frozen=True)
class Judges:
  """A perceptual distance, and a critic (discriminator); without either, reconstructions are judged by their pixels
  alone.

  The critic's term has the factor `critic_weight` times, if `adaptive`, |gradient of the error| / (|gradient of the
  critic's term| + 1e-4), both with respect to the kernel of the decoder's last layer (Esser et al. 2021, equation 7).
  With several microbatches each of them has a ratio of its own.

  Attributes:
    critic: images B H W C in [-1, 1] -> logits of patches; None for none.
    perceptual: the distance, whose parameters are the frozen group 'perceptual'; None for none.
    perceptual_weight: factor of the distance, which is added to the error of each pixel value.
    critic_weight: factor of the critic's term.
    critic_start: step at which the critic, and its term, begin.
    critic_loss: 'hinge' or 'vanilla', the binary cross-entropy.
    adaptive: whether that factor is multiplied by the ratio of the gradients of error and term at the last layer.
    adaptive_most: largest adaptive weight.

  Raises:
    UserError: an unknown loss, a number outside its range, a distance that cannot be differentiated, or a weight of
      what is not there.
  """

  critic: Network | None = None
  perceptual: Perceptual | None = None
  perceptual_weight: float = 1.0
  critic_weight: float = 0.5
  critic_start: int = 0
  critic_loss: str = 'hinge'
  adaptive: bool = True
  adaptive_most: float = 1e4

  def __post_init__(self):
    checks.whole(self, 0, 'critic_start')
    checks.between(self, ('perceptual_weight', 'critic_weight', 'adaptive_most'), at_least=0)
    if self.critic_loss not in CRITIC_LOSSES:
      raise UserError(f'config.objective.critic_loss must be one of {sorted(CRITIC_LOSSES)}, got {self.critic_loss!r}')
    if self.critic is None:
      checks.idle(self, ('critic_weight', 'critic_start'), 'without a critic; set config.critic')
    if self.perceptual is None:
      checks.idle(self, ('perceptual_weight',), f'without a distance; set config.parts.{PERCEPTUAL}')
    if self.perceptual is not None and self.perceptual.loss is None:
      raise UserError(f'config.parts.{PERCEPTUAL} only measures, and a loss needs gradients; name a folder of '
                      'vgg16_lpips or alexnet_lpips, or a classifier')

  def init(self, key: Key) -> tuple[Params, Tree]:
    """Parameters by group, and mutable variables."""
    if self.critic is None:
      return {}, {}
    params, mutable = self.critic.init(jax.random.fold_in(key, 1))
    return {CRITIC: params}, {CRITIC: mutable}

  def phases(self, forward: Callable[[Params, Context, Batch, Key], Any]) -> tuple[Phase, ...]:
    """The phase of the critic, if there is one.

    Args:
      forward: of the autoencoder: gives an object with x_BHWC and out_BHWC, in training mode.
    """
    if self.critic is None:
      return ()

    def loss(params: Params, context: Context, batch: Batch, key: Key) -> Output:
      made = forward(params, context, batch, key)
      return self._critic(params, context, made.x_BHWC, jax.lax.stop_gradient(made.out_BHWC), key)

    return (Phase(CRITIC, (CRITIC,), loss, start=self.critic_start),)

  def decode(self, decoder: Network, params: Params, context: Context, z_BX: Array,
             key: Key) -> tuple[Array, Array | None, Tree]:
    """What a decoder makes of latents in training mode, what its last layer read, if `loss` needs that, and its new
    mutable tree."""
    own, mutable = params['net']['decoder'], context.mutable['decoder']
    if self.critic is None or not self.adaptive:
      out_BHWC, mutable = decoder.apply(own, mutable, z_BX, key=key)
      return out_BHWC, None, mutable
    hidden_BHWC, mutable = decoder.apply(own, mutable, z_BX, key=key, part='hidden')
    return decoder.apply(own, mutable, hidden_BHWC, part='last')[0], hidden_BHWC, mutable

  def distance(self, context: Context, out_BHWC: Array, x_BHWC: Array) -> Array | None:
    """The weighted perceptual distance, float32 B; None without one."""
    if self.perceptual is None:
      return None
    assert self.perceptual.loss is not None
    return self.perceptual_weight * self.perceptual.loss(context.frozen[PERCEPTUAL], out_BHWC, x_BHWC)

  def named(self, distance: Array | None) -> dict[str, Array]:
    """A `distance` as an entry of metrics, without its weight."""
    return {} if distance is None or not self.perceptual_weight else {PERCEPTUAL: distance / self.perceptual_weight}

  def loss(self, params: Params, context: Context, decoder: Network, hidden_BHWC: Array | None, out_BHWC: Array,
           x_BHWC: Array, likelihood: Likelihood, key: Key) -> Judged:
    """The loss of reconstructions.

    Args:
      params: of all groups.
      context: see `Context`.
      decoder: whose output is judged.
      hidden_BHWC: from `decode`.
      out_BHWC, x_BHWC: reconstructions and originals in [-1, 1].
      likelihood: (reconstructions, weighted distance or None) -> scalar error.
      key: of the step.
    """

    def error_of(out_BHWC: Array) -> tuple[Array, Mapping[str, Array]]:
      distance_B = self.distance(context, out_BHWC, x_BHWC)
      return likelihood(out_BHWC, distance_B), {name: jnp.mean(value) for name, value in self.named(distance_B).items()}

    if self.critic is None:
      error, metrics = error_of(out_BHWC)
      return Judged(error, error, metrics)
    judge_key, critic = jax.random.fold_in(key, 1), self.critic

    def fooled(out_BHWC: Array) -> Array:
      logit_BHW, _ = critic.apply(params[CRITIC], context.mutable[CRITIC], out_BHWC, key=judge_key)
      return jnp.mean(CRITIC_LOSSES[self.critic_loss][1](logit_BHW))

    def late() -> tuple[Array, Array, Mapping[str, Array]]:
      if self.adaptive:
        return self._adapted(params, context, decoder, hidden_BHWC, out_BHWC, error_of, fooled)
      error, metrics = error_of(out_BHWC)
      term = fooled(out_BHWC)
      return error + self.critic_weight * term, error, {
        **metrics, 'adversarial': term, 'critic_weight': jnp.float32(self.critic_weight)}

    def early() -> tuple[Array, Array, Mapping[str, Array]]:
      error, metrics = error_of(out_BHWC)
      return error, error, {**metrics, 'adversarial': jnp.zeros(()), 'critic_weight': jnp.zeros(())}

    begun = context.step >= self.critic_start
    judged: Any = jax.lax.cond(begun, late, early) if self.critic_start else late()
    return Judged(*judged)

  def _adapted(self, params: Params, context: Context, decoder: Network, hidden_BHWC: Array | None, out_BHWC: Array,
               error_of: Callable[[Array], tuple[Array, Mapping[str, Array]]],
               fooled: Callable[[Array], Array]) -> tuple[Array, Array, Mapping[str, Array]]:
    """Loss, error and metrics with an adaptive weight. The gradients that give the weight are also those of the loss,
    so that neither judge runs twice."""
    fixed_BHWC = jax.lax.stop_gradient(out_BHWC)
    (error, metrics), error_slope = jax.value_and_grad(error_of, has_aux=True)(fixed_BHWC)
    term, term_slope = jax.value_and_grad(fooled)(fixed_BHWC)
    own, hidden_BHWC = jax.lax.stop_gradient((params['net']['decoder'], hidden_BHWC))

    def last(kernel: Array) -> Array:
      last_params = {**own, 'last': {**own['last'], 'kernel': kernel}}
      return decoder.apply(last_params, context.mutable['decoder'], hidden_BHWC, part='last')[0]

    _, back = jax.vjp(last, own['last']['kernel'])
    norms = [jnp.linalg.norm(back(slope)[0]) for slope in (error_slope, term_slope)]
    weight = self.critic_weight * jnp.clip(norms[0] / (norms[1] + _TINY), 0.0, self.adaptive_most)
    slope_BHWC, weight, term = jax.lax.stop_gradient((error_slope + weight * term_slope, weight, term))
    # 0, with the gradient of both; that of a learned scale comes from `error`
    passed = jnp.sum((out_BHWC - fixed_BHWC) * slope_BHWC)
    return error + weight * term + passed, jax.lax.stop_gradient(error), {
      **metrics, 'adversarial': term, 'critic_weight': weight}

  def _critic(self, params: Params, context: Context, x_BHWC: Array, out_BHWC: Array, key: Key) -> Output:
    """Real and reconstructed images pass through the critic in two calls, as in `genjax.objectives.gan`."""
    assert self.critic is not None
    keys = jax.random.split(jax.random.fold_in(key, 1))
    real_BHW, mutable = self.critic.apply(params[CRITIC], context.mutable[CRITIC], x_BHWC, key=keys[0])
    fake_BHW, mutable = self.critic.apply(params[CRITIC], mutable, out_BHWC, key=keys[1])
    loss = 0.5 * jnp.mean(CRITIC_LOSSES[self.critic_loss][0](real_BHW, fake_BHW))
    metrics = {'logit_real': jnp.mean(real_BHW), 'logit_fake': jnp.mean(fake_BHW)}
    return Output(loss, metrics, {**context.mutable, CRITIC: mutable}, float(x_BHWC.shape[0]))
