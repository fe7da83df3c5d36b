"""Variational autoencoders (Kingma & Welling 2014): ELBO, beta-VAE, importance-weighted autoencoders, conditions."""

from collections.abc import Mapping
import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from genjax import checks
from genjax.diffusion import conditioning
from genjax.diffusion.conditioning import Conditioners, Given
from genjax.nn.functional import Network
from genjax.objectives.base import Context, Output, Phase, Variables
from genjax.types import Array, Batch, Key, Params, Tree, UserError

LIKELIHOODS = ('bernoulli', 'gaussian')
BOUNDS = ('elbo', 'importance_weighted')


class Parts(NamedTuple):
  """What a loss is made of, in nats per image: means over a batch of -log p(x | z) and of the KL term, the bound of
  several importance weights (None for one), the new mutable trees, and further metrics."""

  distortion: Array
  kl: Array
  bound: Array | None
  mutable: Tree
  more: Mapping[str, Array] = {}


@dataclasses.dataclass(frozen=True)
class Vae:
  """p(x, z) = N(z; 0, I) p(x | z), with q(z | x) a diagonal Gaussian.

  Attributes:
    encoder: images B H W C in [0, 1] -> (mean, log variance), each B Z.
    decoder: latents B Z -> B H W C, the logits of a Bernoulli or the mean of a Gaussian.
    latent: width Z of the latent.
    likelihood: 'bernoulli' or 'gaussian'.
    scale: standard deviation of the Gaussian, in units of the [0, 1] pixel range.
    beta: factor of the KL term (Higgins et al. 2017).
    kl_warmup: steps over which that factor grows linearly from 0 (Sonderby et al. 2016).
    importance_samples: number k of samples of the bound in evaluation.
    bound: what training maximises, one of `BOUNDS`: the ELBO, or the bound of `samples` importance weights (Burda et
      al. 2016), which is the ELBO for one sample.
    samples: latents that training draws for an image. The ELBO is their mean.
    capacity: target C of the KL term in nats (Burgess et al. 2018, eq. 8); 0 for none. The KL term is then
      beta |KL - C|, with the mean KL of a batch (or of a microbatch), and beta is the paper's gamma.
    capacity_steps: steps over which C grows linearly from 0.
    conditioners: name -> condition that both networks read, so that this is p(x | z, c) with q(z | x, c) (Sohn et al.
      2015); see `genjax.diffusion.conditioning`.

  Batches: 'image' uint8 B H W C. Everything is in nats per image.

  Raises:
    UserError: an unknown likelihood or a number outside its range.
  """

  encoder: Network
  decoder: Network
  latent: int
  likelihood: str = 'bernoulli'
  scale: float = 0.1
  beta: float = 1.0
  kl_warmup: int = 0
  importance_samples: int = 50
  bound: str = 'elbo'
  samples: int = 1
  capacity: float = 0.0
  capacity_steps: int = 0
  conditioners: Conditioners = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    if self.likelihood not in LIKELIHOODS:
      raise UserError(f'config.objective.likelihood must be one of {LIKELIHOODS}, got {self.likelihood!r}')
    checks.positive(self, 'scale')
    checks.between(self, ('beta', 'capacity'), at_least=0)
    checks.whole(self, 0, 'kl_warmup', 'capacity_steps')
    checks.whole(self, 1, 'latent', 'importance_samples', 'samples')
    if self.bound not in BOUNDS:
      raise UserError(f'config.objective.bound must be one of {BOUNDS}, got {self.bound!r}')
    if self.bound == 'importance_weighted' and (self.beta != 1 or self.kl_warmup):
      raise UserError('the importance-weighted bound has no KL term of its own; set config.objective.beta to 1 and '
                      f'kl_warmup to 0, got {self.beta} and {self.kl_warmup}, or bound to "elbo"')
    if self.capacity and (self.kl_warmup or self.bound != 'elbo'):
      raise UserError(f'config.objective.capacity={self.capacity} is a target of the KL term: set kl_warmup to 0 and '
                      f'bound to "elbo", got {self.kl_warmup} and {self.bound!r}')
    if self.capacity_steps and not self.capacity:
      raise UserError(f'config.objective.capacity_steps={self.capacity_steps} is of config.objective.capacity, which '
                      'is 0; set both or none')

  def init(self, key: Key, frozen: Params) -> Variables:
    encoder_key, decoder_key = jax.random.split(key)
    encoder, encoder_mutable = self.encoder.init(encoder_key)
    decoder, decoder_mutable = self.decoder.init(decoder_key)
    return Variables({'net': {'encoder': encoder, 'decoder': decoder}},
                     {'encoder': encoder_mutable, 'decoder': decoder_mutable})

  def phases(self) -> tuple[Phase, ...]:
    return (Phase('elbo', ('net',), self.loss),)

  def loss(self, params: Params, context: Context, batch: Batch, key: Key) -> Output:
    """Mean of distortion + beta * KL, in nats per image; or the negative importance-weighted bound.

    That bound is log 1/k sum_k p(x, z_k) / q(z_k | x), with latents z_k that are reparameterised (Burda et al. 2016,
    eq. 8 and 13). With one latent its expectation is the ELBO, whose KL term is then computed in closed form.
    """
    x_BHWC = pixels(batch['image'])
    parts = self._parts(params, context, x_BHWC, self.told(context, batch), key)
    distortion, kl = parts.distortion, parts.kl
    ramp = jnp.minimum(1.0, (context.step + 1) / self.kl_warmup) if self.kl_warmup else 1.0
    metrics = {'distortion': distortion, 'kl': kl, 'negative_elbo': distortion + kl, **parts.more}
    if self.capacity:
      share = jnp.minimum(1.0, (context.step + 1) / self.capacity_steps) if self.capacity_steps else 1.0
      loss = distortion + self.beta * jnp.abs(kl - share * self.capacity)
    else:
      loss = distortion + self.beta * ramp * kl
    if self.bound == 'importance_weighted' and parts.bound is not None:
      loss = -parts.bound
    return Output(loss, metrics, parts.mutable, weight=x_BHWC.shape[0])

  def told(self, context: Context, columns: Mapping[str, Array]) -> Given:
    """What both networks read of conditions, from the columns of a batch or of a request; {} without conditions."""
    return conditioning.given(self.conditioners, context.frozen, columns) if self.conditioners else {}

  def _parts(self, params: Params, context: Context, x_BHWC: Array, given: Given, key: Key) -> Parts:
    encoder_key, noise_key, decoder_key = jax.random.split(key, 3)
    (mean_BZ, log_variance_BZ), encoder = self.encoder.apply(
      params['net']['encoder'], context.mutable['encoder'], x_BHWC, *inputs(given), key=encoder_key)
    decode = lambda z_NZ, given: self.decoder.apply(
      params['net']['decoder'], context.mutable['decoder'], z_NZ, *inputs(given), key=decoder_key)
    kl = jnp.mean(kl_to_standard_normal(mean_BZ, log_variance_BZ))
    if self.samples == 1:
      out_BHWC, decoder = decode(draw_posterior(mean_BZ, log_variance_BZ, noise_key), given)
      distortion, bound = -jnp.mean(self.log_likelihood(out_BHWC, x_BHWC)), None
    else:
      noise_KBZ = jax.random.normal(noise_key, (self.samples, *mean_BZ.shape))
      z_KBZ = mean_BZ + jnp.exp(log_variance_BZ / 2) * noise_KBZ
      # all latents of a batch at once, N = K B
      out_NHWC, decoder = decode(z_KBZ.reshape(-1, self.latent), _repeated(given, self.samples))
      log_likelihood_KB = jax.vmap(self.log_likelihood, (0, None))(
        out_NHWC.reshape(self.samples, *x_BHWC.shape), x_BHWC)
      distortion = -jnp.mean(log_likelihood_KB)
      log_weight_KB = log_likelihood_KB + log_prior_ratio(z_KBZ, noise_KBZ, log_variance_BZ)
      bound = jnp.mean(jax.nn.logsumexp(log_weight_KB, axis=0)) - math.log(self.samples)
    return Parts(distortion, kl, bound, {'encoder': encoder, 'decoder': decoder})

  def log_likelihood(self, out_BHWC: Array, x_BHWC: Array) -> Array:
    """log p(x | z), shape B, from the decoder's output."""
    if self.likelihood == 'bernoulli':
      log_BHWC = x_BHWC * out_BHWC - jax.nn.softplus(out_BHWC)
    else:
      log_BHWC = -0.5 * jnp.square((x_BHWC - out_BHWC) / self.scale) - math.log(self.scale * math.sqrt(2 * math.pi))
    return jnp.sum(log_BHWC, axis=(1, 2, 3))

  def evaluate(self, params: Params, context: Context, batch: Batch, key: Key) -> dict[str, Array]:
    """In nats per image: 'negative_elbo' (one sample), its parts 'distortion' and 'kl', and 'negative_bound_<k>'.

    The importance-weighted bound log 1/k sum_k p(x, z_k) / q(z_k | x) (Burda et al. 2016, eq. 8) lies between the ELBO
    and log p(x). Its negative can serve as the anomaly score of an image.
    """
    log_likelihood_KB, log_weight_KB, kl_B = self._weights(params, context, batch, key, self.importance_samples)
    bound_B = jax.nn.logsumexp(log_weight_KB, axis=0) - math.log(self.importance_samples)
    return {'negative_elbo': kl_B - log_likelihood_KB[0], 'distortion': -log_likelihood_KB[0], 'kl': kl_B,
            f'negative_bound_{self.importance_samples}': -bound_B}

  def log_evidence(self, params: Params, context: Context, batch: Batch, key: Key, samples: int,
                   chunk: int = 1) -> Array:
    """An estimate of log p(x) in nats, shape B: the importance-weighted bound of many samples, such as 5,000.

    Args:
      params, context, batch: as for `evaluate`.
      key: of the samples.
      samples: how many are drawn for an image.
      chunk: how many of them are decoded at once. It changes the memory that is needed, and nothing else.
    """
    _, log_weight_KB, _ = self._weights(params, context, batch, key, samples, chunk)
    return jax.nn.logsumexp(log_weight_KB, axis=0) - math.log(samples)

  def _weights(self, params: Params, context: Context, batch: Batch, key: Key, samples: int,
               chunk: int = 1) -> tuple[Array, Array, Array]:
    """log p(x | z_k) and log p(x, z_k) - log q(z_k | x), each K B, for K draws of q; and KL(q || prior), B."""
    x_BHWC, given = pixels(batch['image']), self.told(context, batch)
    (mean_BZ, log_variance_BZ), _ = self.encoder.apply(params['net']['encoder'], context.mutable['encoder'], x_BHWC,
                                                       *inputs(given))

    def draw(key: Key) -> tuple[Array, Array]:
      noise_BZ = jax.random.normal(key, mean_BZ.shape)
      z_BZ = mean_BZ + jnp.exp(log_variance_BZ / 2) * noise_BZ
      log_likelihood_B = self.log_likelihood(self._decode(params, context, z_BZ, given), x_BHWC)
      return log_likelihood_B, log_likelihood_B + log_prior_ratio(z_BZ, noise_BZ, log_variance_BZ)

    log_likelihood_KB, log_weight_KB = jax.lax.map(draw, jax.random.split(key, samples),
                                                   batch_size=chunk if chunk > 1 else None)
    return log_likelihood_KB, log_weight_KB, kl_to_standard_normal(mean_BZ, log_variance_BZ)

  def sample(self, params: Params, context: Context, keys: Key, conditions: Mapping[str, Array]) -> dict[str, Array]:
    """Draws 'image' uint8 N H W C: the mean of p(x | z) for z from the prior."""
    z_NZ = jax.vmap(lambda key: jax.random.normal(key, (self.latent,)))(keys)
    return {'image': self._image(self._decode(params, context, z_NZ, self.told(context, conditions)))}

  def reconstruct(self, params: Params, context: Context, image_BHWC: Array, given: Given | None = None) -> Array:
    """The mean of p(x | z) at the mean of q(z | x), uint8 B H W C; `given` is what `told` gives."""
    return self.decode(params, context, self._encode(params, context, image_BHWC, given), given)

  def interpolate(self, params: Params, context: Context, first_BHWC: Array, last_BHWC: Array, points: int,
                  given: Given | None = None) -> Array:
    """Decodes `points` equidistant latents from one image to another, ends included: uint8 B points H W C. With
    conditions, those of the first image are kept."""
    first_BZ, last_BZ = (self._encode(params, context, image, given) for image in (first_BHWC, last_BHWC))
    share_P = jnp.linspace(0.0, 1.0, points)
    z_BPZ = first_BZ[:, None] + share_P[None, :, None] * (last_BZ - first_BZ)[:, None]
    kept = {name: jnp.repeat(value, points, axis=0) for name, value in (given or {}).items()}
    image = self.decode(params, context, z_BPZ.reshape(-1, self.latent), kept)
    return image.reshape(first_BZ.shape[0], points, *image.shape[1:])

  def posterior(self, params: Params, context: Context, image_BHWC: Array,
                given: Given | None = None) -> tuple[Array, Array]:
    """Mean and log variance of q(z | x), each B Z."""
    return self.encoder.apply(params['net']['encoder'], context.mutable['encoder'], pixels(image_BHWC),
                              *inputs(given))[0]

  def decode(self, params: Params, context: Context, z_BZ: Array, given: Given | None = None) -> Array:
    """The mean of p(x | z), uint8 B H W C."""
    return self._image(self._decode(params, context, z_BZ, given))

  def _encode(self, params: Params, context: Context, image_BHWC: Array, given: Given | None) -> Array:
    return self.posterior(params, context, image_BHWC, given)[0]

  def _decode(self, params: Params, context: Context, z_BZ: Array, given: Given | None) -> Array:
    return self.decoder.apply(params['net']['decoder'], context.mutable['decoder'], z_BZ, *inputs(given))[0]

  def _image(self, out_BHWC: Array) -> Array:
    mean_BHWC = jax.nn.sigmoid(out_BHWC) if self.likelihood == 'bernoulli' else out_BHWC
    return jnp.round(255 * jnp.clip(mean_BHWC, 0.0, 1.0)).astype(jnp.uint8)


def inputs(given: Given | None) -> tuple[Given, ...]:
  """The further inputs of a network: none where it reads no conditions."""
  return (given,) if given else ()


def _repeated(given: Given, times: int) -> Given:
  """What is told of B rows, for rows K B."""
  return {name: jnp.tile(value, (times, *[1] * (value.ndim - 1))) for name, value in given.items()}


def pixels(image: Array) -> Array:
  """uint8 0 .. 255 -> float32 0 .. 1."""
  return image.astype(jnp.float32) / 255


def draw_posterior(mean_BX: Array, log_variance_BX: Array, key: Key) -> Array:
  """A draw from N(mean, variance), reparameterised (Kingma & Welling 2014, section 2.4)."""
  return mean_BX + jnp.exp(log_variance_BX / 2) * jax.random.normal(key, mean_BX.shape)


def kl_to_standard_normal(mean_BZ: Array, log_variance_BZ: Array) -> Array:
  """KL(N(mean, variance) || N(0, I)), shape B, in nats (Kingma & Welling 2014, appendix B)."""
  return 0.5 * jnp.sum(jnp.square(mean_BZ) + jnp.exp(log_variance_BZ) - 1.0 - log_variance_BZ, axis=-1)


def log_prior_ratio(z_XZ: Array, noise_XZ: Array, log_variance_XZ: Array) -> Array:
  """log p(z) - log q(z | x) of z = mean + deviation * noise, over the last axis; the normalising constants cancel."""
  return 0.5 * jnp.sum(jnp.square(noise_XZ) - jnp.square(z_XZ) + log_variance_XZ, axis=-1)
