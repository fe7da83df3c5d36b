"""Contrastive learning of pictures and their texts: the softmax of CLIP, or the sigmoid of SigLIP.

Every picture of the global batch is compared with every text of it, on any mesh: arrays of a step are global, and so
are the cosines here.
"""

from collections.abc import Callable, Mapping
import dataclasses
import math

import jax
import jax.numpy as jnp

from genjax import checks, sharding
from genjax.nn.functional import Network
from genjax.objectives.base import Context, Output, Phase, Variables
from genjax.types import Array, Batch, Key, Params, Tree, UserError

LOSSES = ('softmax', 'sigmoid')
FAR = -1e9  # logit of what is not compared
SIGMOID = math.log(10.0), -10.0  # initial logarithm of the scale, and bias (Zhai et al. 2023, section 3.2)


@dataclasses.dataclass(frozen=True)
class Contrastive:
  """Pairs of pictures and texts; group 'net'. Batches hold `image` (uint8 B H W C), and tokens and their mask.

  Attributes:
    net: see `genjax.models.transformers.clip.encoder`, with both towers.
    read: uint8 images -> what the image tower reads.
    ids, mask: columns of the tokens (int32 B L) and of their mask.
    loss: 'softmax' picks the own text out of all of the batch, and the own picture (Radford et al. 2021, figure 3);
      'sigmoid' says of each pair whether it is one (Zhai et al. 2023, algorithm 1), with a learned bias.
    largest: largest scale of cosines, as in the paper.
    same: whether pairs with equal texts are negatives of each other, as in the papers; else the loss leaves them out.

  Raises:
    UserError: an unknown loss, or a scale that is not above 0.
  """

  net: Network
  read: Callable[[Array], Array]
  ids: str
  mask: str
  loss: str = 'softmax'
  largest: float = 100.0
  same: bool = False

  def __post_init__(self):
    checks.positive(self, 'largest')
    if self.loss not in LOSSES:
      raise UserError(f'config.objective.loss must be one of {LOSSES}, got {self.loss!r}')

  def init(self, key: Key, frozen: Params) -> Variables:
    """Returns initial variables; nothing is frozen."""
    params, _ = self.net.init(key)
    if self.loss == 'sigmoid':
      scale, bias = (jnp.asarray(value, jnp.float32) for value in SIGMOID)
      params = {**params, 'scale': scale, 'bias': bias}
    return Variables({'net': params})

  def phases(self) -> tuple[Phase, ...]:
    """One phase."""
    return (Phase('contrastive', ('net',), self.step),)

  def step(self, params: Params, context: Context, batch: Batch, key: Key) -> Output:
    """The loss in nats; logs how often the own text, and the own picture, is the nearest."""
    logits_BB, compared_BB = self.logits(params, batch)
    found = _losses(logits_BB, compared_BB, self.loss == 'sigmoid')
    metrics = {name: jnp.mean(value) for name, value in found.items() if name != 'loss'}
    return Output(jnp.mean(found['loss']), {**metrics, 'scale': self.scale(params['net'])},
                  weight=float(len(logits_BB)))

  def evaluate(self, params: Params, context: Context, batch: Batch, key: Key) -> dict[str, Array]:
    """Per pair 'loss', 'text_of_image' and 'image_of_text' (0 or 1), each of shape B, among those of the batch."""
    logits_BB, compared_BB = self.logits(params, batch)
    real_B = batch['mask'] > 0 if 'mask' in batch else jnp.ones(len(logits_BB), bool)
    return _losses(logits_BB, compared_BB & real_B[:, None] & real_B[None] | jnp.eye(len(logits_BB), dtype=bool),
                   self.loss == 'sigmoid')

  def logits(self, params: Params, batch: Batch) -> tuple[Array, Array]:
    """Scaled cosines of all pictures (rows) and all texts (columns), float32 B B, and which of them are compared, bool
    B B."""
    ids_BL, mask_BL = batch[self.ids], batch[self.mask]
    image_BD = self.image(params['net'], batch['image'])
    text_BD = self.text(params['net'], ids_BL, mask_BL)
    cosine_BB = jnp.matmul(image_BD, text_BD.T, precision=jax.lax.Precision.HIGHEST)
    cosine_BB = sharding.constrain(cosine_BB, 'batch', None, name='cosines B B')
    logits_BB = self.scale(params['net']) * cosine_BB + params['net'].get('bias', 0.0)
    own_BB = jnp.eye(len(ids_BL), dtype=bool)
    if self.same:
      return logits_BB, jnp.ones_like(own_BB)
    words_BL = jnp.where(mask_BL > 0, ids_BL, -1)
    return logits_BB, own_BB | jnp.any(words_BL[:, None] != words_BL[None], axis=-1)

  def image(self, net: Tree, image_BHWC: Array) -> Array:
    """Vectors of unit length, float32 B D, of images uint8 B H W C."""
    return unit(self.net.apply(net, {}, self.read(image_BHWC))[0]['image'])

  def text(self, net: Tree, ids_BL: Array, mask_BL: Array) -> Array:
    """Vectors of unit length, float32 B D, of texts: tokens int32 B L and their mask B L."""
    return unit(self.net.apply(net, {}, ids_BT=ids_BL, mask_BT=mask_BL)[0]['text'])

  def scale(self, net: Tree) -> Array:
    """The scale of cosines (the inverse temperature), a float32 scalar of at most `largest`."""
    return jnp.exp(jnp.minimum(net['scale'].astype(jnp.float32), math.log(self.largest)))

  def sample(self, params: Params, context: Context, keys: Key, conditions: Mapping[str, Array]) -> dict[str, Array]:
    """Raises an error, because nothing is generated.

    Raises:
      UserError: always.
    """
    raise UserError('expected a generative model, got one that compares pictures and texts; evaluate it with genjax '
                    'evaluate, and train with config.sample_every=0')


def unit(x_BD: Array) -> Array:
  """Rows of unit length, float32 B D."""
  x_BD = x_BD.astype(jnp.float32)
  return x_BD * jax.lax.rsqrt(jnp.sum(x_BD * x_BD, axis=-1, keepdims=True) + 1e-12)


def _losses(logits_BB: Array, compared_BB: Array, sigmoid: bool) -> dict[str, Array]:
  """Values of each pair: its share of the loss, and whether it is nearest to itself in both directions."""
  held_BB = jnp.where(compared_BB, logits_BB, FAR)
  own_B = jnp.diagonal(logits_BB)
  if sigmoid:
    sign_BB = 2.0 * jnp.eye(len(logits_BB)) - 1.0
    loss_B = -jnp.sum(jnp.where(compared_BB, jax.nn.log_sigmoid(sign_BB * logits_BB), 0.0), axis=1)
  else:
    loss_B = 0.5 * (jax.nn.logsumexp(held_BB, axis=0) + jax.nn.logsumexp(held_BB, axis=1)) - own_B
  nearest = {name: (jnp.max(jnp.where(jnp.eye(len(own_B), dtype=bool), FAR, held_BB), axis=axis) < own_B)
             for name, axis in (('text_of_image', 1), ('image_of_text', 0))}
  return {'loss': loss_B, **{name: value.astype(jnp.float32) for name, value in nearest.items()}}
