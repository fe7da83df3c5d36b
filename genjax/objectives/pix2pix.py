"""Pictures from pictures, learned from pairs: pix2pix (Isola et al. 2017), and enlargement with a critic of patches and
a perceptual distance (SRGAN, Ledig et al. 2017; ESRGAN, Wang et al. 2018).

The critic sees the source beside the picture, or the picture alone. Its phase comes first, and reads a picture that the
generator draws in training mode, with dropout: the function that the generator's phase trains.
"""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from genjax import checks
from genjax.nn.functional import Network
from genjax.objectives import gan_losses
from genjax.objectives.base import Context, Output, Phase, Variables
from genjax.objectives.kinds import Perceptual
from genjax.objectives.pixels import as_image, centred, psnr
from genjax.types import Array, Batch, Key, Params, Tree, UserError

GENERATOR, CRITIC, PERCEPTUAL = 'generator', 'critic', 'perceptual'  # groups
SOURCE, TARGET = 'source', 'image'  # columns, uint8
STATISTICS = ('running', 'picture')


PatchLoss = Callable[[Array, Array], Array]  # of real and generated logits


def _mean(name: str) -> tuple[PatchLoss, PatchLoss]:
  """Losses of `genjax.objectives.gan_losses`, as means over all patches."""
  critic, generator = gan_losses.LOSSES[name]
  return lambda real, fake: jnp.mean(critic(real, fake)), lambda real, fake: jnp.mean(generator(fake))


def _relative(real: Array, fake: Array) -> Array:
  """Real pictures look more real than generated ones do on average, and these less (ESRGAN, section 3.2)."""
  return LOSSES['vanilla'][0](real - jnp.mean(fake), fake - jnp.mean(real))


# Name -> loss of the critic and of the generator; means over all patches.
LOSSES: dict[str, tuple[PatchLoss, PatchLoss]] = {
  'vanilla': _mean('non_saturating'), 'lsgan': _mean('lsgan'), 'hinge': _mean('hinge'),
  'relativistic': (_relative, lambda real, fake: _relative(fake, real)),
}


@dataclasses.dataclass(frozen=True)
class Pix2Pix:
  """Groups 'generator' and 'critic'; without a critic the generator learns from the distances alone.

  Attributes:
    generator: source B h w c in [-1, 1] -> picture B H W C in [-1, 1].
    critic: picture, behind the source if `conditional` -> logits of patches B h w; None for none.
    perceptual: a distance whose parameters are the frozen group 'perceptual'; None for none.
    modes: which of 'statistics' and 'drop' change what the generator draws. One with either takes `batch` and `drop`,
      see `genjax.models.adversarial.unet_generator`.
    loss: of critic and generator, one of `LOSSES`.
    conditional: whether the critic sees the source, too.
    l1: factor of the mean absolute difference of values in [-1, 1].
    adversarial: factor of the generator's term by the critic.
    critic_weight: factor of the critic's loss; the published code halves it.
    perceptual_weight: factor of the perceptual distance.
    statistics: what normalises when pictures are drawn: 'running' averages, or those of each 'picture' alone, as the
      paper does with batch normalisation and one picture at a time.
    drop: whether there is dropout when pictures are drawn, as in the paper; then a seed gives each picture others.

  Raises:
    UserError: an unknown name, a number out of range, a mode at test that the generator does not have, or a weight of
      what is not there.
  """

  generator: Network
  critic: Network | None = None
  perceptual: Perceptual | None = None
  modes: tuple[str, ...] = ()
  loss: str = 'vanilla'
  conditional: bool = True
  l1: float = 100.0
  adversarial: float = 1.0
  critic_weight: float = 0.5
  perceptual_weight: float = 1.0
  statistics: str = 'running'
  drop: bool = False

  def __post_init__(self):
    checks.between(self, ('l1', 'adversarial', 'critic_weight', 'perceptual_weight'), at_least=0)
    if self.loss not in LOSSES:
      raise UserError(f'config.objective.loss must be one of {sorted(LOSSES)}, got {self.loss!r}')
    if self.statistics not in STATISTICS:
      raise UserError(f'config.sampler.statistics must be one of {STATISTICS}, got {self.statistics!r}')
    if self.statistics != 'running' and 'statistics' not in self.modes:
      raise UserError(f'config.sampler.statistics={self.statistics!r} is of batch normalisation, and this generator '
                      "has none, so that it has no effect; leave it at 'running', or train a U-Net with "
                      "config.model.norm='batch'")
    if self.drop and 'drop' not in self.modes:
      raise UserError('config.sampler.drop=True is of dropout, and this generator has none, so that it has no effect; '
                      'leave it at False, or train a U-Net with config.model.dropout above 0 and at least 6 '
                      'config.model.layers: all but 5 have dropout')
    if self.critic is None:
      checks.idle(self, ('adversarial', 'critic_weight'), 'without a critic; set config.critic')
    if self.perceptual is None:
      checks.idle(self, ('perceptual_weight',), f'without a distance; set config.parts.{PERCEPTUAL}')
    judged, compared = self.critic is not None and self.adversarial, self.perceptual is not None
    if not judged and not self.l1 and not (compared and self.perceptual_weight):
      raise UserError('the generator learns nothing: give it a critic with config.objective.adversarial above 0, '
                      f'config.objective.l1 above 0, or config.parts.{PERCEPTUAL} with perceptual_weight above 0')

  def init(self, key: Key, frozen: Params) -> Variables:
    """Returns initial variables of the networks."""
    pairs = {name: net.init(jax.random.fold_in(key, number)) for number, (name, net) in enumerate(self._nets.items())}
    return Variables({name: pair[0] for name, pair in pairs.items()}, {name: pair[1] for name, pair in pairs.items()})

  def phases(self) -> tuple[Phase, ...]:
    """Critic, generator."""
    first = (Phase(CRITIC, (CRITIC,), self._criticise),) if self.critic is not None else ()
    return (*first, Phase(GENERATOR, (GENERATOR,), self._draw))

  def evaluate(self, params: Params, context: Context, batch: Batch, key: Key) -> dict[str, Array]:
    """Per example 'l1', the mean absolute difference of pixels from 0 to 1, and 'psnr' in dB of what `sample` draws."""
    image = self._sampled(params, context, jax.random.split(key, len(batch[SOURCE])), batch[SOURCE])
    return differences(image, batch[TARGET])

  def sample(self, params: Params, context: Context, keys: Key, conditions: Mapping[str, Array]) -> dict[str, Array]:
    """Draws a picture from each source, one by one: 'image' uint8 N H W C, and the 'source' it was drawn from."""
    return {TARGET: self._sampled(params, context, keys, conditions[SOURCE]), SOURCE: conditions[SOURCE]}

  @property
  def _nets(self) -> dict[str, Network]:
    return {GENERATOR: self.generator, **({} if self.critic is None else {CRITIC: self.critic})}

  def _sampled(self, params: Params, context: Context, keys: Key, source_BHWC: Array) -> Array:
    net, mutable = params[GENERATOR], context.mutable[GENERATOR]
    x_BHWC = centred(source_BHWC)
    if self.statistics == 'running' and not self.drop:
      return as_image(self.generator.apply(net, mutable, x_BHWC)[0])

    def one(key: Key, x_HWC: Array) -> Array:  # a batch of one: its statistics are those of the picture
      options = dict(batch=self.statistics == 'picture', drop=self.drop)
      return self.generator.apply(net, mutable, x_HWC[None], key=key, **options)[0][0]

    return as_image(jax.vmap(one)(keys, x_BHWC))

  def _criticise(self, params: Params, context: Context, batch: Batch, key: Key) -> Output:
    draw_key, real_key, fake_key = jax.random.split(key, 3)
    source, real = centred(batch[SOURCE]), centred(batch[TARGET])
    fake, _ = self.generator.apply(params[GENERATOR], context.mutable[GENERATOR], source, key=draw_key)
    real_logit, mutable = self._judge(params, context.mutable[CRITIC], source, real, real_key)
    fake_logit, mutable = self._judge(params, mutable, source, jax.lax.stop_gradient(fake), fake_key)
    metrics = {'logit_real': jnp.mean(real_logit), 'logit_fake': jnp.mean(fake_logit)}
    loss = self.critic_weight * LOSSES[self.loss][0](real_logit, fake_logit)
    return Output(loss, metrics, {**context.mutable, CRITIC: mutable}, float(len(real)))

  def _draw(self, params: Params, context: Context, batch: Batch, key: Key) -> Output:
    draw_key, fake_key, real_key = jax.random.split(key, 3)
    source, real = centred(batch[SOURCE]), centred(batch[TARGET])
    fake, mutable = self.generator.apply(params[GENERATOR], context.mutable[GENERATOR], source, key=draw_key)
    metrics = {'l1': jnp.mean(jnp.abs(fake - real))}
    loss = self.l1 * metrics['l1']
    if self.critic is not None:
      logit, _ = self._judge(params, context.mutable[CRITIC], source, fake, fake_key)
      other = logit
      if self.loss == 'relativistic':
        other, _ = self._judge(params, context.mutable[CRITIC], source, real, real_key)
      metrics['adversarial'] = LOSSES[self.loss][1](other, logit)
      loss = loss + self.adversarial * metrics['adversarial']
    if self.perceptual is not None:
      assert self.perceptual.loss is not None  # the builder checks it
      metrics[PERCEPTUAL] = jnp.mean(self.perceptual.loss(context.frozen[PERCEPTUAL], fake, real))
      loss = loss + self.perceptual_weight * metrics[PERCEPTUAL]
    return Output(loss, metrics, {**context.mutable, GENERATOR: mutable}, float(len(real)))

  def _judge(self, params: Params, mutable: Tree, source: Array, x: Array, key: Key) -> tuple[Any, Tree]:
    """Logits of patches, and the critic's new mutable tree."""
    assert self.critic is not None
    seen = jnp.concatenate([source, x], axis=-1) if self.conditional else x
    return self.critic.apply(params[CRITIC], mutable, seen, key=key)


def differences(image_BHWC: Array, other_BHWC: Array) -> dict[str, Array]:
  """'l1' and 'psnr' of uint8 pictures, each B, with pixels from 0 to 1."""
  difference = (image_BHWC.astype(jnp.float32) - other_BHWC.astype(jnp.float32)) / 255.0
  return {'l1': jnp.mean(jnp.abs(difference), axis=(1, 2, 3)), 'psnr': psnr(image_BHWC, other_BHWC)}
