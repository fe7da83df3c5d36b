"""Adversarial training (Goodfellow et al. 2014): non-saturating, hinge and Wasserstein losses, lazy R1, packing.

Which phase changes which part of `mutable`:

- The discriminator phase makes fakes with the generator in training mode, for the discriminator must see the generator
  that the generator phase trains, and drops the generator's new batch statistics: they belong to parameters of the
  generator alone and move in its own phase, once a step.
- The discriminator's batch statistics and power iterations move in its own phase. Real and fake samples pass through it
  in two calls (DCGAN): a batch of both would let batch normalisation see the mixture, and the loss would then depend on
  how a batch is composed. The running averages therefore average both kinds.
- The generator phase runs the discriminator in training mode, the function that was just trained, and drops its
changes.
- Gradient penalties and evaluation run the discriminator in inference mode, where a sample's output depends on that
  sample alone, so that its gradient is well defined.
"""

from collections.abc import Callable, Mapping
import dataclasses

import jax
import jax.numpy as jnp

from genjax import checks
from genjax.nn.functional import Network
from genjax.objectives.base import Context, Output, Phase, Variables
from genjax.types import Array, Batch, Key, Params, UserError


def _non_saturating(real: Array, fake: Array) -> Array:
  return jax.nn.softplus(-real) + jax.nn.softplus(fake)


def _hinge(real: Array, fake: Array) -> Array:
  return jax.nn.relu(1.0 - real) + jax.nn.relu(1.0 + fake)


def _wasserstein(real: Array, fake: Array) -> Array:
  return fake - real


# Name -> (discriminator's loss of real and fake logits, generator's loss of fake logits), elementwise.
# 'non_saturating': Goodfellow et al. 2014. 'hinge': Lim and Ye 2017, Miyato et al. 2018. 'wgan_gp': Gulrajani et al.
# 2017.
LOSSES: dict[str, tuple[Callable[[Array, Array], Array], Callable[[Array], Array]]] = {
  'non_saturating': (_non_saturating, lambda fake: jax.nn.softplus(-fake)),
  'hinge': (_hinge, lambda fake: -fake),
  'wgan_gp': (_wasserstein, lambda fake: -fake),
}
KINDS = ('image', 'point')


@dataclasses.dataclass(frozen=True)
class Gan:
  """A generative adversarial network; groups 'generator' and 'discriminator'.

  Attributes:
    generator: (latent B Z, label B or None) -> samples.
    discriminator: (packed samples, packed labels or None) -> logits B/p.
    latent: width Z of the latent.
    distribution: distribution of the latent, 'normal' or 'uniform' on (-1, 1).
    kind: 'image' (column `image`, uint8 B H W C, seen as [-1, 1]) or 'point' (column `point`, float32 B D).
    num_classes: number of classes of column `label`, which conditions both networks; None: unconditional.
    loss: loss of both networks, 'non_saturating', 'hinge' or 'wgan_gp', see `LOSSES`.
    penalty: weight of the gradient penalty of 'wgan_gp'.
    r1_gamma: weight gamma of R1; 0 for none.
    r1_every: R1 runs on every n-th step with gamma multiplied by n (lazy regularisation, Karras et al. 2020b).
    discriminator_steps: the generator is trained on every n-th step only.
    pack: samples that the discriminator judges together.

  Raises:
    UserError: an unknown name, or a number out of range.
  """

  generator: Network
  discriminator: Network
  latent: int
  distribution: str = 'normal'
  kind: str = 'image'
  num_classes: int | None = None
  loss: str = 'non_saturating'
  penalty: float = 10.0
  r1_gamma: float = 0.0
  r1_every: int = 16
  discriminator_steps: int = 1
  pack: int = 1

  def __post_init__(self):
    for name, known in (('loss', sorted(LOSSES)), ('distribution', ('normal', 'uniform')), ('kind', KINDS)):
      if getattr(self, name) not in known:
        raise UserError(f'config.objective.{name} must be one of {list(known)}, got {getattr(self, name)!r}')
    checks.whole(self, 1, 'r1_every', 'discriminator_steps', 'pack', 'latent')
    checks.between(self, ('r1_gamma', 'penalty'), at_least=0)

  def init(self, key: Key, frozen: Params) -> Variables:
    """Fresh variables of both networks."""
    keys = dict(zip(('generator', 'discriminator'), jax.random.split(key)))
    pairs = {group: getattr(self, group).init(keys[group]) for group in keys}
    return Variables({group: pair[0] for group, pair in pairs.items()},
                     {group: pair[1] for group, pair in pairs.items()})

  def phases(self) -> tuple[Phase, ...]:
    """Discriminator, R1 if its weight is not 0, generator."""
    r1 = (Phase('r1', ('discriminator',), self._r1, every=self.r1_every),) if self.r1_gamma > 0 else ()
    return (Phase('discriminator', ('discriminator',), self._discriminator), *r1,
            Phase('generator', ('generator',), self._generator, every=self.discriminator_steps))

  def evaluate(self, params: Params, context: Context, batch: Batch, key: Key) -> dict[str, Array]:
    """How the discriminator tells held-out examples from as many fresh samples, per example.

    Both networks run in inference mode. Examples of one pack share their values.

    Returns:
      logit_real, logit_fake, discriminator_loss (without penalties), accuracy (share of the two judged right, by the
      sign of the logit) and weight (0 where a pack holds padding), each of shape B.
    """
    real, label = self._real(batch), self._label(batch)
    fake, _ = self._fake(params, context, key, label, None, len(real))
    logits = []
    for x in (real, fake):
      logit, _ = self._judge(params, context.mutable['discriminator'], x, label, None)
      logits.append(jnp.repeat(logit, self.pack))
    mask = jnp.ones(len(real)) if batch.get('mask') is None else batch['mask']
    return {
      'logit_real': logits[0],
      'logit_fake': logits[1],
      'discriminator_loss': LOSSES[self.loss][0](*logits),
      'accuracy': 0.5 * (logits[0] > 0) + 0.5 * (logits[1] < 0),
      'weight': jnp.repeat(jnp.min(mask.reshape(-1, self.pack), axis=1), self.pack),
    }

  def sample(self, params: Params, context: Context, keys: Key, conditions: Mapping[str, Array]) -> dict[str, Array]:
    """Samples by the generator in inference mode, which normalises by running averages: rows do not see each other.

    Returns:
      'image' (uint8 N H W C) or 'point' (float32 N D).
    """
    latent = jax.vmap(lambda key: self._latent(key, ()))(keys)
    x, _ = self.generator.apply(params['generator'], context.mutable['generator'], latent, self._label(conditions))
    if self.kind == 'point':
      return {'point': x}
    return {'image': jnp.round(127.5 * (x + 1.0)).clip(0, 255).astype(jnp.uint8)}

  def _discriminator(self, params: Params, context: Context, batch: Batch, key: Key) -> Output:
    latent_key, fake_key, real_judge, fake_judge, mix_key = jax.random.split(key, 5)
    real, label = self._real(batch), self._label(batch)
    fake, _ = self._fake(params, context, latent_key, label, fake_key, len(real))
    logit_real, mutable = self._judge(params, context.mutable['discriminator'], real, label, real_judge)
    logit_fake, mutable = self._judge(params, mutable, fake, label, fake_judge)
    loss = jnp.mean(LOSSES[self.loss][0](logit_real, logit_fake))
    metrics = {'logit_real': jnp.mean(logit_real), 'logit_fake': jnp.mean(logit_fake)}
    if self.loss == 'wgan_gp':
      # Eq. 3 of Gulrajani et al. 2017: gradients at random points between real and fake.
      share = jax.random.uniform(mix_key, (len(real),) + (1,) * (real.ndim - 1))
      square = self._square_gradient(params, mutable, share * real + (1.0 - share) * fake, label)
      metrics['penalty'] = jnp.mean((jnp.sqrt(square + 1e-12) - 1.0)**2)
      loss = loss + self.penalty * metrics['penalty']
    return Output(loss, metrics, {**context.mutable, 'discriminator': mutable}, len(real))

  def _r1(self, params: Params, context: Context, batch: Batch, key: Key) -> Output:
    """Eq. 9 of Mescheder et al. 2018."""
    real, label = self._real(batch), self._label(batch)
    square = jnp.mean(self._square_gradient(params, context.mutable['discriminator'], real, label))
    return Output(0.5 * self.r1_gamma * self.r1_every * square, {'square_gradient': square}, None, len(real))

  def _generator(self, params: Params, context: Context, batch: Batch, key: Key) -> Output:
    latent_key, fake_key, judge_key = jax.random.split(key, 3)
    label, count = self._label(batch), len(batch[self.kind])
    fake, mutable = self._fake(params, context, latent_key, label, fake_key, count)
    logit, _ = self._judge(params, context.mutable['discriminator'], fake, label, judge_key)
    return Output(jnp.mean(LOSSES[self.loss][1](logit)), {}, {**context.mutable, 'generator': mutable}, count)

  def _real(self, batch: Batch) -> Array:
    """Real samples as the discriminator sees them; images in [-1, 1]."""
    if self.kind not in batch:
      raise UserError(f'a GAN of kind {self.kind!r} needs the column {self.kind!r}, the data has {sorted(batch)}; '
                      'change config.data or config.objective.kind')
    return batch['image'] / 127.5 - 1.0 if self.kind == 'image' else batch['point'].astype(jnp.float32)

  def _label(self, columns: Mapping[str, Array]) -> Array | None:
    if self.num_classes is None:
      return None
    if 'label' not in columns:
      raise UserError(f"a conditional GAN needs 'label', got {sorted(columns)}; add it, or set num_classes to None")
    return columns['label']

  def _latent(self, key: Key, shape: tuple[int, ...]) -> Array:
    if self.distribution == 'normal':
      return jax.random.normal(key, (*shape, self.latent))
    return jax.random.uniform(key, (*shape, self.latent), minval=-1.0, maxval=1.0)

  def _fake(self, params: Params, context: Context, key: Key, label: Array | None, mode: Key | None, count: int):
    """(samples, the generator's new mutable tree); `mode` None is inference."""
    return self.generator.apply(params['generator'], context.mutable['generator'], self._latent(key, (count,)), label,
                                key=mode)

  def _judge(self, params: Params, mutable, x: Array, label: Array | None, mode: Key | None):
    """(logits B/p, the discriminator's new mutable tree); `mode` None is inference."""
    label = None if label is None else pack(label[:, None], self.pack)
    return self.discriminator.apply(params['discriminator'], mutable, pack(x, self.pack), label, key=mode)

  def _square_gradient(self, params: Params, mutable, x: Array, label: Array | None) -> Array:
    """Squared norm of the gradient of each pack's logit with respect to that pack, B/p."""

    def total(x: Array) -> Array:
      return jnp.sum(self._judge(params, mutable, x, label, None)[0])

    gradient = jax.grad(total)(x)
    return jnp.sum(gradient.reshape(len(x) // self.pack, -1)**2, axis=1)


def pack(x: Array, size: int) -> Array:
  """Joins `size` neighbouring examples along the last axis: B ... C -> B/p ... pC (Lin et al. 2018, section 3).

  Raises:
    UserError: the number of examples is no multiple of `size`.
  """
  if size == 1:
    return x
  if len(x) % size:
    raise UserError(
      f'a discriminator that sees {size} samples at once needs batches of a multiple of {size}, got {len(x)}; '
      'change config.batch_size or pack')
  parts = x.reshape(-1, size, *x.shape[1:])
  return jnp.moveaxis(parts, 1, -2).reshape(len(parts), *x.shape[1:-1], -1)
