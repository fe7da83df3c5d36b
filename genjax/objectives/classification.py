"""Image classification: cross entropy with label smoothing, random shifts and flips."""

from collections.abc import Mapping
import dataclasses

import jax
import jax.numpy as jnp

from genjax import checks
from genjax.nn.functional import Network
from genjax.objectives.base import Context, Output, Phase, Variables
from genjax.objectives.pixels import centred
from genjax.types import Array, Batch, Key, Params, UserError


@dataclasses.dataclass(frozen=True)
class Classification:
  """Cross entropy of labels given images; group 'net'. Batches hold `image` (uint8 B H W C) and `label` (B).

  Attributes:
    net: images in [-1, 1] -> (logits_BK, features_BD).
    smoothing: share of the target's mass that is spread evenly over all classes (Szegedy et al. 2016, section 7).
    shift: training images move by up to so many pixels along both axes; the edge is repeated.
    flip: whether half of the training images are mirrored.

  Raises:
    UserError: a number out of range.
  """

  net: Network
  smoothing: float = 0.0
  shift: int = 0
  flip: bool = False

  def __post_init__(self):
    checks.rates(self, 'smoothing')
    checks.whole(self, 0, 'shift')

  def init(self, key: Key, frozen: Params) -> Variables:
    """Returns initial variables; nothing is frozen."""
    params, mutable = self.net.init(key)
    return Variables({'net': params}, {'net': mutable})

  def phases(self) -> tuple[Phase, ...]:
    """One phase."""
    return (Phase('classification', ('net',), self.loss),)

  def loss(self, params: Params, context: Context, batch: Batch, key: Key) -> Output:
    """Mean cross entropy in nats; logs the accuracy."""
    augment_key, net_key = jax.random.split(key)
    image_BHWC = augment(augment_key, centred(batch['image']), self.shift, self.flip)
    (logits_BK, _), mutable = self.net.apply(params['net'], context.mutable['net'], image_BHWC, key=net_key)
    loss = jnp.mean(cross_entropy(logits_BK, batch['label'], self.smoothing))
    metrics = {'accuracy': jnp.mean(hits(logits_BK, batch['label']))}
    return Output(loss, metrics, {'net': mutable}, weight=float(len(batch['label'])))

  def evaluate(self, params: Params, context: Context, batch: Batch, key: Key) -> dict[str, Array]:
    """Per-example 'loss' (cross entropy in nats, without smoothing) and 'accuracy' (0 or 1), each of shape B."""
    logits_BK, _ = self.predict(params, context, batch['image'])
    return {'loss': cross_entropy(logits_BK, batch['label']), 'accuracy': hits(logits_BK, batch['label'])}

  def predict(self, params: Params, context: Context, image_BHWC: Array) -> tuple[Array, Array]:
    """(logits_BK, features_BD) of uint8 images, without augmentation."""
    (logits_BK, features_BD), _ = self.net.apply(params['net'], context.mutable['net'], centred(image_BHWC))
    return logits_BK, features_BD

  def sample(self, params: Params, context: Context, keys: Key, conditions: Mapping[str, Array]) -> dict[str, Array]:
    """Raises an error, because a classifier does not generate.

    Raises:
      UserError: always.
    """
    raise UserError('expected a generative model, got a classifier, which has nothing to sample; evaluate it with '
                    'genjax evaluate, and train with config.sample_every=0')


def augment(key: Key, image_BHWC: Array, shift: int, flip: bool) -> Array:
  """Shifts each image by a uniform number of pixels in -shift .. shift along both axes, and flips half of them."""
  batch, height, width, channels = image_BHWC.shape
  shift_key, flip_key = jax.random.split(key)
  if shift:
    padded_BHWC = jnp.pad(image_BHWC, ((0, 0), (shift, shift), (shift, shift), (0, 0)), mode='edge')
    corner_B2 = jax.random.randint(shift_key, (batch, 2), 0, 2 * shift + 1)
    crop = lambda image, corner: jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), (height, width, channels))
    image_BHWC = jax.vmap(crop)(padded_BHWC, corner_B2)
  if flip:
    mirrored_B = jax.random.bernoulli(flip_key, 0.5, (batch,))
    image_BHWC = jnp.where(mirrored_B[:, None, None, None], image_BHWC[:, :, ::-1], image_BHWC)
  return image_BHWC


def cross_entropy(logits_BK: Array, label_B: Array, smoothing: float = 0.0) -> Array:
  """Cross entropy in nats, of shape B, against (1 - smoothing) one_hot(label) + smoothing / K."""
  log_BK = jax.nn.log_softmax(logits_BK.astype(jnp.float32))
  right_B = jnp.take_along_axis(log_BK, label_B[:, None], axis=-1)[:, 0]
  return -(1.0 - smoothing) * right_B - smoothing * jnp.mean(log_BK, axis=-1)


def hits(logits_BK: Array, label_B: Array) -> Array:
  """Float32 B: 1 if the most likely class is the label, else 0."""
  return (jnp.argmax(logits_BK, axis=-1) == label_B).astype(jnp.float32)
