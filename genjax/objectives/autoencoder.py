"""Autoencoders whose latents are pictures for another model to generate (Rombach et al. 2022, section 3.1)."""

from collections.abc import Callable, Mapping
import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from genjax import checks
from genjax.nn.functional import Network
from genjax.objectives.base import Context, Output, Phase, Variables
from genjax.objectives.judges import Judges
from genjax.objectives.pixels import as_image, centred, psnr
from genjax.objectives.vae import draw_posterior, kl_to_standard_normal
from genjax.types import Array, Batch, Key, Params, Tree, UserError

RECONSTRUCTIONS = ('l1', 'l2', 'laplace', 'gaussian')
NORMALISATIONS = ('channels', 'all')
_LEARNED = ('laplace', 'gaussian')  # those with a learned scale
_LEAST_VARIANCE = 1e-8  # a channel that is constant has no scale


class Forward(NamedTuple):
  """What one pass through encoder and decoder gives: the images in [-1, 1], the decoder's output, the posterior, the
  new mutable trees, and what the last layer of the decoder read, see `Judges.decode`."""

  x_BHWC: Array
  out_BHWC: Array
  mean_BX: Array
  log_variance_BX: Array
  mutable: dict[str, Tree]
  hidden_BHWC: Array | None = None


class LatentAutoencoder:
  """What objectives of autoencoders whose latents are for other models have in common: `forward`, `loss`, `encode` and
  `decode` are those of the subclass, as are the options `judges` and `normalisation`."""

  judges: Judges
  normalisation: str
  forward: Callable[..., Any]
  loss: Callable[..., Output]
  encode: Callable[..., tuple[Array, Array]]
  decode: Callable[..., Array]

  def phases(self) -> tuple[Phase, ...]:
    return (Phase('autoencoder', ('net',), self.loss), *self.judges.phases(self.forward))

  def reconstruct(self, params: Params, context: Context, image_BHWC: Array) -> Array:
    """What the decoder makes of images by way of `encode`, without a draw; uint8 B H W C."""
    return self.decode(params, context.mutable, self.encode(params, context.mutable, image_BHWC)[0])

  def moments(self, mutable: Tree) -> tuple[Array, Array]:
    """(shift, scale), each of shape Z, or scalars if all channels are measured together: (z - shift) * scale has mean 0
    and deviation 1 over the training data."""
    averages = mutable['moments']
    return shift_scale(averages if self.normalisation == 'channels' else jax.tree.map(jnp.mean, averages))


@dataclasses.dataclass(frozen=True)
class KlAutoencoder(LatentAutoencoder):
  """Reconstruction plus a small KL divergence of the posterior from N(0, I). Group 'net', phase 'autoencoder'; with a
  critic also the group and the phase 'critic'.

  The loss is that of the published code, divided by the number of pixel values H W C; its perceptual and adversarial
  terms are those of `judges`. A subclass with further terms or phases begins with `forward`.

  While it trains, the first two moments of the latent's channels are averaged in `mutable`, so that any checkpoint
  knows with which shift and scale its latents have mean 0 and deviation 1, see `moments`.

  Attributes:
    encoder: images B H W C in [-1, 1] -> (mean, log variance), each B h w Z.
    decoder: latents B h w Z -> images B H W C.
    latent: (h, w, Z).
    reconstruction: 'l1' or 'l2', the mean absolute or squared error; 'laplace' or 'gaussian', the negative
      log-likelihood with one learned scale for all pixel values.
    kl_weight: factor of the KL divergence, against errors that are summed over an image.
    normalisation: 'channels' measures shift and scale of each channel of the latent, 'all' of all together.
    decay: of the averages of the latent's moments, per step.
    judges: what judges reconstructions beside their pixels.

  Batches: 'image' uint8 B H W C.

  Raises:
    UserError: an unknown name or a number outside its range.
  """

  encoder: Network
  decoder: Network
  latent: tuple[int, ...]
  reconstruction: str = 'l1'
  kl_weight: float = 1e-6
  normalisation: str = 'channels'
  decay: float = 0.99
  judges: Judges = Judges()

  def __post_init__(self):
    for name, known in (('reconstruction', RECONSTRUCTIONS), ('normalisation', NORMALISATIONS)):
      if getattr(self, name) not in known:
        raise UserError(f'config.objective.{name} must be one of {known}, got {getattr(self, name)!r}')
    checks.whole(self, 1, 'latent')
    checks.between(self, ('kl_weight',), at_least=0)
    checks.rates(self, 'decay')

  def init(self, key: Key, frozen: Params) -> Variables:
    encoder_key, decoder_key = jax.random.split(key)
    encoder, encoder_mutable = self.encoder.init(encoder_key)
    decoder, decoder_mutable = self.decoder.init(decoder_key)
    learned = {'log_scale': jnp.zeros(())} if self.reconstruction in _LEARNED else {}
    judging, judging_mutable = self.judges.init(key)
    return Variables({'net': {'encoder': encoder, 'decoder': decoder, **learned}, **judging},
                     {'encoder': encoder_mutable, 'decoder': decoder_mutable, 'moments': first_moments(self.latent),
                      **judging_mutable})

  def loss(self, params: Params, context: Context, batch: Batch, key: Key) -> Output:
    """Mean over images of error + weight * KL, in units of one pixel value."""
    made = self.forward(params, context, batch, key)
    judged = self.judges.loss(
      params, context, self.decoder, made.hidden_BHWC, made.out_BHWC, made.x_BHWC,
      lambda out_BHWC, distance_B: jnp.mean(self.error(params, out_BHWC, made.x_BHWC, distance_B)), key)
    kl = jnp.mean(_kl(made.mean_BX, made.log_variance_BX))
    loss = judged.loss + self.kl_weight * kl / math.prod(made.x_BHWC.shape[1:])
    metrics = {'error': judged.error, 'kl': kl,
               'latent_deviation': jnp.mean(1.0 / shift_scale(made.mutable['moments'])[1]), **judged.metrics}
    return Output(loss, metrics, made.mutable, weight=float(made.x_BHWC.shape[0]))

  def forward(self, params: Params, context: Context, batch: Batch, key: Key) -> Forward:
    """Encodes, draws from the posterior, decodes."""
    x_BHWC = centred(batch['image'])
    encoder_key, noise_key, decoder_key = jax.random.split(key, 3)
    (mean_BX, log_variance_BX), encoder = self.encoder.apply(
      params['net']['encoder'], context.mutable['encoder'], x_BHWC, key=encoder_key)
    z_BX = draw_posterior(mean_BX, log_variance_BX, noise_key)
    out_BHWC, hidden_BHWC, decoder = self.judges.decode(self.decoder, params, context, z_BX, decoder_key)
    moments = averaged_moments(context, mean_BX, log_variance_BX, self.decay)
    return Forward(x_BHWC, out_BHWC, mean_BX, log_variance_BX,
                   {**context.mutable, 'encoder': encoder, 'decoder': decoder, 'moments': moments}, hidden_BHWC)

  def error(self, params: Params, out_BHWC: Array, x_BHWC: Array, distance_B: Array | None = None) -> Array:
    """The error of reconstructions, shape B, in units of one pixel value.

    Args:
      params: have the learned scale, if there is one.
      out_BHWC, x_BHWC: reconstructions and originals in [-1, 1].
      distance_B: what is added to the error of each pixel value before the scale divides it.
    """
    difference_BHWC = jnp.abs(x_BHWC - out_BHWC)
    error_BHWC = difference_BHWC if self.reconstruction in ('l1', 'laplace') else jnp.square(difference_BHWC)
    if distance_B is not None:
      error_BHWC = error_BHWC + distance_B[:, None, None, None]
    if self.reconstruction in _LEARNED:
      log_scale = params['net']['log_scale']
      error_BHWC = error_BHWC / jnp.exp(log_scale) + log_scale
      # log N has half of the squared error over the variance, and half of the log variance
      error_BHWC = error_BHWC + math.log(2) if self.reconstruction == 'laplace' else 0.5 * (
        error_BHWC + math.log(2 * math.pi))
    return jnp.mean(error_BHWC, axis=(1, 2, 3))

  def evaluate(self, params: Params, context: Context, batch: Batch, key: Key) -> dict[str, Array]:
    """Of reconstructions from the mean of the posterior: 'loss' as in training, without a critic's term; 'l1' and 'mse'
    in units of pixels in [-1, 1]; 'psnr' in dB of uint8 images; 'kl' in nats per image; and 'perceptual', if there is
    such a distance."""
    x_BHWC = centred(batch['image'])
    mean_BX, log_variance_BX = self.encode(params, context.mutable, batch['image'])
    out_BHWC = self.decoder.apply(params['net']['decoder'], context.mutable['decoder'], mean_BX)[0]
    kl_B = _kl(mean_BX, log_variance_BX)
    distance_B = self.judges.distance(context, out_BHWC, x_BHWC)
    loss_B = self.error(params, out_BHWC, x_BHWC, distance_B) + self.kl_weight * kl_B / math.prod(x_BHWC.shape[1:])
    return {'loss': loss_B, **pixel_errors(out_BHWC, batch['image']), 'kl': kl_B, **self.judges.named(distance_B)}

  def sample(self, params: Params, context: Context, keys: Key, conditions: Mapping[str, Array]) -> dict[str, Array]:
    """'image' uint8 N H W C of latents that are Gaussian noise with the measured moments: what the decoder makes of a
    model that knows nothing but these."""
    shift, scale = self.moments(context.mutable)
    noise_NX = jax.vmap(lambda key: jax.random.normal(key, self.latent))(keys)
    return {'image': self.decode(params, context.mutable, noise_NX / scale + shift)}

  def encode(self, params: Params, mutable: Tree, image_BHWC: Array) -> tuple[Array, Array]:
    """Images uint8 -> mean and log variance of the posterior, float32, neither shifted nor scaled."""
    return self.encoder.apply(params['net']['encoder'], mutable.get('encoder', {}), centred(image_BHWC))[0]

  def decode(self, params: Params, mutable: Tree, z_BX: Array) -> Array:
    """Latents as the encoder gives them -> images uint8."""
    return as_image(self.pixels(params, mutable, z_BX))

  def pixels(self, params: Params, mutable: Tree, z_BX: Array) -> Array:
    """The images of `decode` before they are cut off at -1 and 1 and rounded."""
    return self.decoder.apply(params['net']['decoder'], mutable.get('decoder', {}), z_BX)[0]


def first_moments(latent: tuple[int, ...]) -> Tree:
  """The moments of the latent's channels before any is seen: mean 0 and deviation 1."""
  return {'mean': jnp.zeros(latent[-1]), 'square': jnp.ones(latent[-1])}


def averaged_moments(context: Context, mean_BX: Array, log_variance_BX: Array, decay: float) -> Tree:
  """The averages of the moments of draws from the posterior, after one batch more."""
  mean_BX, log_variance_BX = jax.lax.stop_gradient((mean_BX, log_variance_BX))
  axes = tuple(range(mean_BX.ndim - 1))
  new = {'mean': jnp.mean(mean_BX, axis=axes),
         'square': jnp.mean(jnp.square(mean_BX) + jnp.exp(log_variance_BX), axis=axes)}
  # At first less, as for averaged parameters: the initial values are soon forgotten
  part = jnp.minimum(decay, context.step / (10.0 + context.step))
  return jax.tree.map(lambda old, new: part * old + (1.0 - part) * new, context.mutable['moments'], new)


def shift_scale(averages: Tree) -> tuple[Array, Array]:
  """(shift, scale) of averages of values and squares."""
  variance = averages['square'] - jnp.square(averages['mean'])
  return averages['mean'], jax.lax.rsqrt(jnp.maximum(variance, _LEAST_VARIANCE))


def pixel_errors(out_BHWC: Array, image_BHWC: Array) -> dict[str, Array]:
  """Of reconstructions in [-1, 1] and originals uint8, each of shape B: 'l1' and 'mse' in units of pixels in [-1, 1],
  'psnr' in dB of uint8 images."""
  x_BHWC, axes = centred(image_BHWC), tuple(range(1, image_BHWC.ndim))
  return {'l1': jnp.mean(jnp.abs(x_BHWC - out_BHWC), axis=axes),
          'mse': jnp.mean(jnp.square(x_BHWC - out_BHWC), axis=axes), 'psnr': psnr(as_image(out_BHWC), image_BHWC)}


def _kl(mean_BX: Array, log_variance_BX: Array) -> Array:
  size = mean_BX.shape[0]
  return kl_to_standard_normal(mean_BX.reshape(size, -1), log_variance_BX.reshape(size, -1))
