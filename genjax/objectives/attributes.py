"""Classification of several attributes of a picture at once, by a network with one head for each."""

from collections.abc import Mapping
import dataclasses

import jax
import jax.numpy as jnp

from genjax import checks
from genjax.nn.functional import Network
from genjax.objectives.base import Context, Output, Phase, Variables
from genjax.objectives.classification import augment, cross_entropy, hits
from genjax.objectives.pixels import centred
from genjax.types import Array, Batch, Key, Params, UserError


@dataclasses.dataclass(frozen=True)
class Attributes:
  """Sum of the cross entropies of all attributes; group 'net'. Batches hold `image` (uint8 B H W C) and each attribute.

  Attributes:
    net: images in [-1, 1] -> (logits of all attributes one after the other B K, features_BD).
    attributes: name, and column of a batch -> number of its classes.
    shift: training images move by up to so many pixels along both axes.
    blur: how often training images are blurred by (1 2 1) / 4 along both axes, each time mixed with the sharper image
      by a weight from 0 to 1. A judge of generated images must not depend on their finest details.
    noise: largest deviation of noise on training images in [-1, 1]; that of an image is drawn from 0 to it.

  Raises:
    UserError: a number out of range, or no attribute.
  """

  net: Network
  attributes: Mapping[str, int]
  shift: int = 0
  blur: int = 0
  noise: float = 0.0

  def __post_init__(self):
    checks.whole(self, 0, 'shift', 'blur')
    checks.between(self, ('noise',), at_least=0)
    if not self.attributes:
      raise UserError('config.objective.attributes must name at least one column with its number of classes, got none')
    checks.whole(self.attributes, 2, *self.attributes)

  def init(self, key: Key, frozen: Params) -> Variables:
    params, mutable = self.net.init(key)
    return Variables({'net': params}, {'net': mutable})

  def phases(self) -> tuple[Phase, ...]:
    return (Phase('attributes', ('net',), self.loss),)

  def loss(self, params: Params, context: Context, batch: Batch, key: Key) -> Output:
    """Mean over images of the summed cross entropies in nats; logs the share of images with all attributes right."""
    shift_key, blur_key, noise_key, net_key = jax.random.split(key, 4)
    image_BHWC = augment(shift_key, centred(batch['image']), self.shift, False)
    image_BHWC = softened(blur_key, image_BHWC, self.blur)
    if self.noise:
      scale_key, noise_key = jax.random.split(noise_key)
      scale_B = self.noise * jax.random.uniform(scale_key, (image_BHWC.shape[0], 1, 1, 1))
      image_BHWC = image_BHWC + scale_B * jax.random.normal(noise_key, image_BHWC.shape)
    (logits_BK, _), mutable = self.net.apply(params['net'], context.mutable['net'], image_BHWC, key=net_key)
    error_B, right = self._compared(logits_BK, batch)
    metrics = {'accuracy': jnp.mean(_all(right))}
    return Output(jnp.mean(error_B), metrics, {'net': mutable}, weight=float(image_BHWC.shape[0]))

  def evaluate(self, params: Params, context: Context, batch: Batch, key: Key) -> dict[str, Array]:
    """Per-example 'loss', the summed cross entropies; 'accuracy', 1 if all attributes are right; and of each of them
    'accuracy_NAME'."""
    (logits_BK, _), _ = self.net.apply(params['net'], context.mutable['net'], centred(batch['image']))
    error_B, right = self._compared(logits_BK, batch)
    return {'loss': error_B, 'accuracy': _all(right), **{f'accuracy_{name}': value for name, value in right.items()}}

  def predict(self, params: Params, mutable, image_BHWC: Array) -> dict[str, Array]:
    """Attribute -> logits B K of uint8 images."""
    return self.heads(self.net.apply(params['net'], mutable['net'], centred(image_BHWC))[0][0])

  def heads(self, logits_BK: Array) -> dict[str, Array]:
    """The logits of each attribute."""
    found, start = {}, 0
    for name, count in self.attributes.items():
      found[name] = logits_BK[:, start:start + count]
      start += count
    return found

  def sample(self, params: Params, context: Context, keys: Key, conditions: Mapping[str, Array]) -> dict[str, Array]:
    """Raises an error, because a classifier does not generate.

    Raises:
      UserError: always.
    """
    raise UserError('expected a generative model, got a classifier of attributes, which has nothing to sample; '
                    'evaluate it with genjax evaluate, and train with config.sample_every=0')

  def _compared(self, logits_BK: Array, batch: Batch) -> tuple[Array, dict[str, Array]]:
    """The summed cross entropies B, and attribute -> 1 where it is right."""
    heads = self.heads(logits_BK)
    errors = [cross_entropy(logits, batch[name]) for name, logits in heads.items()]
    return sum(errors[1:], errors[0]), {name: hits(logits, batch[name]) for name, logits in heads.items()}


def _all(right: Mapping[str, Array]) -> Array:
  values = list(right.values())
  every = values[0]
  for value in values[1:]:
    every = every * value
  return every


def softened(key: Key, image_BHWC: Array, times: int) -> Array:
  """Images, each blurred `times` times as `Attributes.blur` says."""
  for number in range(times):
    weight_B = jax.random.uniform(jax.random.fold_in(key, number), (image_BHWC.shape[0], 1, 1, 1))
    blurred_BHWC = image_BHWC
    for axis in (1, 2):
      padding = [(1, 1) if at == axis else (0, 0) for at in range(4)]
      wide = jnp.pad(blurred_BHWC, padding, mode='edge')
      size = blurred_BHWC.shape[axis]
      before, here, after = (jax.lax.slice_in_dim(wide, at, at + size, axis=axis) for at in range(3))
      blurred_BHWC = 0.25 * before + 0.5 * here + 0.25 * after
    image_BHWC = (1 - weight_B) * image_BHWC + weight_B * blurred_BHWC
  return image_BHWC
