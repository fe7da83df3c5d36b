"""Pictures from pictures, learned without pairs: CycleGAN (Zhu et al. 2017).

One generator makes targets ('image') of sources, another one makes sources of targets, and each domain has a critic of
patches. The generators' phase comes first, as in the published code. The critics then see pictures that the generators
draw, or drew before: a pool of them is part of the state (Shrivastava et al. 2017, section 2.3).
"""

from collections.abc import Mapping
import dataclasses

import jax
import jax.numpy as jnp

from genjax import checks, sharding
from genjax.nn.functional import Network
from genjax.objectives.base import Context, Output, Phase, Variables
from genjax.objectives.pix2pix import CRITIC, GENERATOR, LOSSES, SOURCE, TARGET, differences
from genjax.objectives.pixels import as_image, centred
from genjax.types import Array, Batch, Key, Params, Tree, UserError

POOL = 'pool'  # in the mutable tree
DOMAINS = (TARGET, SOURCE)
DIRECTIONS = ('forward', 'back')
Shape = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Cycle:
  """Groups 'generator', with 'forward' and 'back' in it, and 'critic', with 'image' and 'source'.

  Attributes:
    forward: sources B H W C in [-1, 1] -> targets in [-1, 1].
    back: targets -> sources.
    critics: 'image' and 'source' -> critic of that domain: pictures -> logits of patches B h w.
    shapes: 'image' and 'source' -> (H, W, C).
    loss: of critics and generators, one of `genjax.objectives.pix2pix.LOSSES` but 'relativistic'.
    cycle: factor of the mean absolute difference of a picture and what comes back of it.
    identity: factor, times `cycle`, of the difference of a target and what the generator of targets makes of it; it
      keeps colours. 0 for none.
    pool: pictures of each domain that the critics are shown again; 0 shows the newest alone.
    critic_weight: factor of a critic's loss; the published code halves it.
    direction: what `sample` draws: 'forward', or 'back' from targets to sources.
    counterparts: whether rows of the held-out split belong together, so that 'l1' and 'psnr' are known.

  Raises:
    UserError: an unknown name, a number out of range, or an identity term of domains with different shapes or without
      a cycle term.
  """

  forward: Network
  back: Network
  critics: Mapping[str, Network]
  shapes: Mapping[str, Shape]
  loss: str = 'lsgan'
  cycle: float = 10.0
  identity: float = 0.5
  pool: int = 50
  critic_weight: float = 0.5
  direction: str = 'forward'
  counterparts: bool = False

  def __post_init__(self):
    checks.between(self, ('cycle', 'identity', 'critic_weight'), at_least=0)
    checks.whole(self, 0, 'pool')
    known = sorted(set(LOSSES) - {'relativistic'})
    if self.loss not in known:
      raise UserError(f'config.objective.loss must be one of {known} without pairs, got {self.loss!r}')
    if self.direction not in DIRECTIONS:
      raise UserError(f'config.sampler.direction must be one of {DIRECTIONS}, got {self.direction!r}')
    if self.identity and not self.cycle:
      raise UserError(f'config.objective.identity={self.identity} is multiplied by config.objective.cycle, which is 0, '
                      'so that it has no effect; set cycle above 0, or identity to 0')
    if self.identity and self.shapes[SOURCE] != self.shapes[TARGET]:
      raise UserError(f'config.objective.identity={self.identity} gives the generators pictures of either domain, '
                      f'which need equal shapes, got {self.shapes[SOURCE]} and {self.shapes[TARGET]}; set it to 0')

  def init(self, key: Key, frozen: Params) -> Variables:
    """Returns initial variables of the four networks, and empty pools."""
    nets = {GENERATOR: dict(zip(DIRECTIONS, (self.forward, self.back))), CRITIC: dict(self.critics)}
    params: dict[str, Tree] = {}
    for number, (group, members) in enumerate(nets.items()):
      params[group] = {}
      for place, (name, net) in enumerate(members.items()):
        params[group][name], mutable = net.init(jax.random.fold_in(key, 2 * number + place))
        if jax.tree.leaves(mutable):
          raise UserError(f'networks of {group}s without pairs keep no statistics; set the norm to instance')
    pools = {domain: jnp.zeros((self.pool, *self.shapes[domain])) for domain in DOMAINS if self.pool}
    return Variables(params, {POOL: {**pools, 'count': jnp.zeros((), jnp.int32)}})

  def phases(self) -> tuple[Phase, ...]:
    """Generators, critics."""
    return Phase(GENERATOR, (GENERATOR,), self._generate), Phase(CRITIC, (CRITIC,), self._criticise)

  def evaluate(self, params: Params, context: Context, batch: Batch, key: Key) -> dict[str, Array]:
    """Per example 'cycle', the mean absolute difference of pixels from 0 to 1 of both domains after there and back;
    with counterparts 'l1' and 'psnr', too, of what `sample` draws."""
    found, given = {}, {}
    for direction, domain in (('forward', SOURCE), ('back', TARGET)):
      given[direction] = self._apply(params, direction, centred(batch[domain]))
      returned = self._apply(params, _opposite(direction), given[direction])
      found[domain] = jnp.mean(jnp.abs(returned - centred(batch[domain])), axis=(1, 2, 3)) / 2
    values = {'cycle': (found[SOURCE] + found[TARGET]) / 2}
    if not self.counterparts:
      return values
    wanted = TARGET if self.direction == 'forward' else SOURCE
    return {**values, **differences(as_image(given[self.direction]), batch[wanted])}

  def sample(self, params: Params, context: Context, keys: Key, conditions: Mapping[str, Array]) -> dict[str, Array]:
    """Draws a picture of the other domain from each: 'image' uint8 N H W C, and the 'source' it was drawn from."""
    x = self._apply(params, self.direction, centred(conditions[SOURCE]))
    return {TARGET: as_image(x), SOURCE: conditions[SOURCE]}

  def _apply(self, params: Params, direction: str, x: Array, key: Key | None = None) -> Array:
    net = self.forward if direction == 'forward' else self.back
    return net.apply(params[GENERATOR][direction], {}, x, key=key)[0]

  def _judge(self, params: Params, domain: str, x: Array, key: Key | None) -> Array:
    return self.critics[domain].apply(params[CRITIC][domain], {}, x, key=key)[0]

  def _generate(self, params: Params, context: Context, batch: Batch, key: Key) -> Output:
    """Equations 1 to 3 of the paper, and the identity term of its section 5.2."""
    real = {domain: centred(batch[domain]) for domain in DOMAINS}
    terms = ('adversarial', 'cycle', 'identity') if self.identity else ('adversarial', 'cycle')
    metrics: dict[str, Array] = {term: jnp.zeros(()) for term in terms}
    for number, (direction, domain, other) in enumerate((('forward', SOURCE, TARGET), ('back', TARGET, SOURCE))):
      keys = jax.random.split(jax.random.fold_in(key, number), 4)
      made = self._apply(params, direction, real[domain], keys[0])
      logit = self._judge(params, other, made, keys[1])
      metrics['adversarial'] += LOSSES[self.loss][1](logit, logit)
      returned = self._apply(params, _opposite(direction), made, keys[2])
      metrics['cycle'] += jnp.mean(jnp.abs(returned - real[domain]))
      if self.identity:
        kept = self._apply(params, direction, real[other], keys[3])
        metrics['identity'] += jnp.mean(jnp.abs(kept - real[other]))
    loss = metrics['adversarial'] + self.cycle * (metrics['cycle'] + self.identity * metrics.get('identity', 0.0))
    return Output(loss, metrics, None, float(len(real[SOURCE])))

  def _criticise(self, params: Params, context: Context, batch: Batch, key: Key) -> Output:
    pools = dict(context.mutable[POOL])
    loss, metrics = jnp.zeros(()), {}
    for number, (direction, domain, other) in enumerate((('forward', SOURCE, TARGET), ('back', TARGET, SOURCE))):
      keys = jax.random.split(jax.random.fold_in(key, number), 4)
      fake = jax.lax.stop_gradient(self._apply(params, direction, centred(batch[domain]), keys[0]))
      if self.pool:
        pools[other], fake = shown(pools[other], context.mutable[POOL]['count'], fake, keys[1])
      real_logit = self._judge(params, other, centred(batch[other]), keys[2])
      fake_logit = self._judge(params, other, fake, keys[3])
      metrics.update({f'{other}_logit_real': jnp.mean(real_logit), f'{other}_logit_fake': jnp.mean(fake_logit)})
      loss = loss + self.critic_weight * LOSSES[self.loss][0](real_logit, fake_logit)
    count = len(batch[SOURCE])
    pools['count'] = jnp.minimum(pools['count'] + count, self.pool)
    return Output(loss, metrics, {**context.mutable, POOL: pools}, float(count))


def shown(pool_NHWC: Array, count: Array, fake_BHWC: Array, key: Key) -> tuple[Array, Array]:
  """What a critic is shown of new pictures: while the pool fills, these; then each with probability 1/2 or in its place
  one of the pool, whose place it takes. One picture after the other, whoever holds it on a mesh.

  Args:
    pool_NHWC: kept pictures.
    count: how many of them there are, int32.
    fake_BHWC: new pictures.
    key: of the draws.

  Returns:
    The new pool, and the pictures that are shown.
  """
  size = pool_NHWC.shape[0]
  coin_key, place_key = jax.random.split(key)
  swapped_B = jax.random.bernoulli(coin_key, 0.5, (fake_BHWC.shape[0],))
  drawn_B = jax.random.randint(place_key, (fake_BHWC.shape[0],), 0, size)
  everywhere = [None] * 4
  fake_BHWC = sharding.constrain(fake_BHWC, *everywhere, name='new pictures of a pool')

  def one(carry: tuple[Array, Array], row: tuple[Array, Array, Array]) -> tuple[tuple[Array, Array], Array]:
    pool_NHWC, count = carry
    fake_HWC, swapped, drawn = row
    filling = count < size
    place = jnp.where(filling, count, drawn)
    before_HWC = jax.lax.dynamic_index_in_dim(pool_NHWC, place, keepdims=False)
    kept_HWC = jnp.where(filling | swapped, fake_HWC, before_HWC)
    pool_NHWC = jax.lax.dynamic_update_index_in_dim(pool_NHWC, kept_HWC, place, 0)
    return (pool_NHWC, jnp.minimum(count + 1, size)), jnp.where(filling | ~swapped, fake_HWC, before_HWC)

  (pool_NHWC, _), shown_BHWC = jax.lax.scan(one, (pool_NHWC, count), (fake_BHWC, swapped_B, drawn_B))
  return pool_NHWC, sharding.constrain(shown_BHWC, 'batch', None, None, None, name='pictures of a pool')


def _opposite(direction: str) -> str:
  return 'back' if direction == 'forward' else 'forward'
