"""Pictures of one domain from those of another, in the style that a latent or a picture gives: StarGAN v2 (Choi et al.
2020, section 2).

One generator, told a style, draws all domains. The mapping network makes a style of a latent and a domain, the style
encoder of a picture and its domain. The discriminator has a logit for each domain. All four have two updates a step,
one with styles of latents and one with styles of pictures, but the mapping network and the style encoder, which learn
from latents alone, as in the published code.
"""

from collections.abc import Mapping
import dataclasses
import functools

import jax
import jax.numpy as jnp

from genjax import checks, sharding
from genjax.nn.functional import Network
from genjax.objectives.base import Context, Output, Phase, Variables
from genjax.objectives.gan_losses import LOSSES
from genjax.objectives.pixels import as_image, centred
from genjax.types import Array, Batch, Key, Params, UserError

GENERATOR, MAPPING, ENCODER, CRITIC = 'generator', 'mapping', 'style_encoder', 'discriminator'  # groups
IMAGE, DOMAIN, SOURCE, REFERENCE = 'image', 'label', 'source', 'reference'  # columns
_CRITIC_LOSS, _GENERATOR_LOSS = LOSSES['non_saturating']


@dataclasses.dataclass(frozen=True)
class StarGan:
  """Groups 'generator', 'mapping', 'style_encoder' and 'discriminator', none of which keeps statistics.

  Attributes:
    generator: (pictures B H W C in [-1, 1], styles B S) -> pictures.
    mapping: (latents B Z, domains B) -> styles B S.
    style_encoder: (pictures, domains B) -> styles B S.
    discriminator: (pictures, domains B) -> logits B.
    latent: width Z of a latent, which is normal.
    domains: number of domains, the classes of column `label`.
    r1: factor of half the squared gradient at real pictures.
    style: factor of the difference of a style and that of the picture drawn with it.
    diversity: factor of the difference of pictures that are drawn of one source with two styles, which grows.
    diversity_steps: steps over which that factor falls to 0 linearly; 0 leaves it constant.
    cycle: factor of the difference of a source and what is drawn of its drawing with its own style.
    l2: factor of half the sum of squares of the parameters that a phase trains, the weight decay of the code.

  Raises:
    UserError: a number out of range.
  """

  generator: Network
  mapping: Network
  style_encoder: Network
  discriminator: Network
  latent: int
  domains: int
  r1: float = 1.0
  style: float = 1.0
  diversity: float = 1.0
  diversity_steps: int = 100_000
  cycle: float = 1.0
  l2: float = 1e-4

  def __post_init__(self):
    checks.between(self, ('r1', 'style', 'diversity', 'cycle', 'l2'), at_least=0)
    checks.whole(self, 1, 'latent')
    checks.whole(self, 2, 'domains')
    checks.whole(self, 0, 'diversity_steps')

  def init(self, key: Key, frozen: Params) -> Variables:
    """Returns initial variables of the networks."""
    params = {}
    for number, name in enumerate((GENERATOR, MAPPING, ENCODER, CRITIC)):
      params[name], mutable = getattr(self, name).init(jax.random.fold_in(key, number))
      if jax.tree.leaves(mutable):
        raise UserError(f'the {name} of StarGAN v2 keeps no statistics; use instance normalisation')
    return Variables(params, {})

  def phases(self) -> tuple[Phase, ...]:
    """Discriminator and generator, each with styles of latents and with styles of pictures."""
    critic, makers = (CRITIC,), (GENERATOR, MAPPING, ENCODER)
    criticise = lambda latents: functools.partial(self._criticise, latents, critic)
    return (Phase('discriminator_latent', critic, criticise(True)),
            Phase('discriminator_reference', critic, criticise(False)),
            Phase('generator_latent', makers, functools.partial(self._generate, True, makers)),
            Phase('generator_reference', (GENERATOR,), functools.partial(self._generate, False, (GENERATOR,))))

  def evaluate(self, params: Params, context: Context, batch: Batch, key: Key) -> dict[str, Array]:
    """Per example, of a drawing in the next domain with a random style: 'style', the mean absolute difference of that
    style and the drawing's; 'cycle', that of pixels from 0 to 1 after there and back."""
    real, domain = centred(batch[IMAGE]), batch[DOMAIN]
    other = (domain + 1) % self.domains
    style = self._apply(params, MAPPING, jax.random.normal(key, (len(real), self.latent)), other)
    fake = self._apply(params, GENERATOR, real, style)
    back = self._apply(params, GENERATOR, fake, self._apply(params, ENCODER, real, domain))
    return {'style': jnp.mean(jnp.abs(self._apply(params, ENCODER, fake, other) - style), axis=1),
            'cycle': jnp.mean(jnp.abs(back - real), axis=(1, 2, 3)) / 2}

  def sample(self, params: Params, context: Context, keys: Key, conditions: Mapping[str, Array]) -> dict[str, Array]:
    """Draws each source in the domain `label`, with the style of a reference of that domain, or else of a latent.

    Returns:
      'image' uint8 N H W C, and the 'source' it was drawn from.
    """
    domain = conditions[DOMAIN]
    if REFERENCE in conditions:
      style = self._apply(params, ENCODER, centred(conditions[REFERENCE]), domain)
    else:
      latent = jax.vmap(lambda key: jax.random.normal(key, (self.latent,)))(keys)
      style = self._apply(params, MAPPING, latent, domain)
    x = self._apply(params, GENERATOR, centred(conditions[SOURCE]), style)
    return {IMAGE: as_image(x), SOURCE: conditions[SOURCE]}

  def _apply(self, params: Params, name: str, x: Array, told: Array) -> Array:
    return getattr(self, name).apply(params[name], {}, x, told)[0]

  def _styles(self, params: Params, batch: Batch, key: Key, latents: bool) -> tuple[Array, list[Array]]:
    """Domains that are drawn, those of other rows of the batch, and two styles of each."""
    keys = jax.random.split(key, 3)
    domain = batch[DOMAIN]
    row = jax.random.permutation(keys[0], len(domain))
    target = jnp.take(domain, row)
    if latents:
      return target, [self._apply(params, MAPPING, jax.random.normal(one, (len(domain), self.latent)), target)
                      for one in keys[1:]]
    rows = (row, another(domain, row, keys[1]))
    taken = [centred(jnp.take(batch[IMAGE], one, axis=0)) for one in rows]
    shown = [sharding.constrain(x, 'batch', None, None, None, name='references B H W C') for x in taken]
    return target, [self._apply(params, ENCODER, x, target) for x in shown]

  def _criticise(self, latents: bool, trains: tuple[str, ...], params: Params, context: Context, batch: Batch,
                 key: Key) -> Output:
    real, domain = centred(batch[IMAGE]), batch[DOMAIN]
    target, (style, _) = self._styles(params, batch, key, latents)
    fake = jax.lax.stop_gradient(self._apply(params, GENERATOR, real, style))

    def total(x: Array) -> tuple[Array, Array]:
      logit = self._apply(params, CRITIC, x, domain)
      return jnp.sum(logit), logit

    slope, logit_real = jax.grad(total, has_aux=True)(real)
    logit_fake = self._apply(params, CRITIC, fake, target)
    square = jnp.mean(jnp.sum(jnp.square(slope), axis=(1, 2, 3)))
    loss = jnp.mean(_CRITIC_LOSS(logit_real, logit_fake)) + 0.5 * self.r1 * square + self._decay(params, trains)
    metrics = {'logit_real': jnp.mean(logit_real), 'logit_fake': jnp.mean(logit_fake), 'square_gradient': square}
    return Output(loss, metrics, None, float(len(real)))

  def _generate(self, latents: bool, trains: tuple[str, ...], params: Params, context: Context, batch: Batch,
                key: Key) -> Output:
    """Equation 5 of the paper."""
    real, domain = centred(batch[IMAGE]), batch[DOMAIN]
    target, (style, other) = self._styles(params, batch, key, latents)
    fake = self._apply(params, GENERATOR, real, style)
    second = jax.lax.stop_gradient(self._apply(params, GENERATOR, real, other))
    back = self._apply(params, GENERATOR, fake, self._apply(params, ENCODER, real, domain))
    metrics = {'adversarial': jnp.mean(_GENERATOR_LOSS(self._apply(params, CRITIC, fake, target))),
               'style': jnp.mean(jnp.abs(self._apply(params, ENCODER, fake, target) - style)),
               'diversity': jnp.mean(jnp.abs(fake - second)), 'cycle': jnp.mean(jnp.abs(back - real))}
    left = jnp.maximum(1.0 - context.step / self.diversity_steps, 0.0) if self.diversity_steps else 1.0
    loss = (metrics['adversarial'] + self.style * metrics['style'] - self.diversity * left * metrics['diversity']
            + self.cycle * metrics['cycle'] + self._decay(params, trains))
    return Output(loss, metrics, None, float(len(real)))

  def _decay(self, params: Params, trains: tuple[str, ...]) -> Array:
    leaves = jax.tree.leaves([params[name] for name in trains]) if self.l2 else []
    return 0.5 * self.l2 * sum((jnp.sum(jnp.square(leaf)) for leaf in leaves), start=jnp.zeros(()))


def another(domain_B: Array, row_B: Array, key: Key) -> Array:
  """For each of some rows a random other one of the same domain; the row itself where there is no other."""
  allowed_BB = (domain_B == jnp.take(domain_B, row_B)[:, None]) & (jnp.arange(len(domain_B)) != row_B[:, None])
  drawn_B = jnp.argmax(jnp.where(allowed_BB, jax.random.uniform(key, allowed_BB.shape), -1.0), axis=1)
  return jnp.where(jnp.any(allowed_BB, axis=1), drawn_B, row_B)
