"""Ladder variational autoencoders: two levels of latents, inferred from the top down (Sonderby et al. 2016)."""

from collections.abc import Mapping
import dataclasses
import math

import jax
import jax.numpy as jnp

from genjax import checks
from genjax.diffusion.conditioning import Given
from genjax.nn.functional import Network
from genjax.objectives.base import Context, Variables
from genjax.objectives.vae import Parts, Vae, inputs, kl_to_standard_normal, log_prior_ratio, pixels
from genjax.types import Array, Batch, Key, Params

Gaussian = tuple[Array, Array]  # mean and log variance, each B Z


@dataclasses.dataclass(frozen=True)
class LadderVae(Vae):
  """p(x, z1, z2) = N(z2; 0, I) p(z1 | z2) p(x | z1), with q(z2 | x) q(z1 | x, z2).

  q(z1 | x, z2) is the product of what the image says of z1 and of p(z1 | z2), weighted by their precisions (eq. 17 to
  19 of the paper). A unit of z1 of which the image says nothing so costs nothing. The paper's networks have batch
  normalisation; these have none. `latent` is the width of z1, whose mean is the code of an image for reconstructions
  and interpolations.

  Attributes:
    prior: z2, B U -> mean and log variance of p(z1 | z2), each B Z.
    upper: width U of z2.

  The encoder gives two pairs of mean and log variance: of z1, B Z, and of q(z2 | x), B U.
  """

  prior: Network = dataclasses.field(kw_only=True)
  upper: int = dataclasses.field(kw_only=True)

  def __post_init__(self):
    super().__post_init__()
    checks.whole(self, 1, 'upper')

  def init(self, key: Key, frozen: Params) -> Variables:
    base = super().init(key, frozen)
    prior, mutable = self.prior.init(jax.random.fold_in(key, 1))
    return Variables({'net': {**base.params['net'], 'prior': prior}}, {**base.mutable, 'prior': mutable})

  def _parts(self, params: Params, context: Context, x_BHWC: Array, given: Given, key: Key) -> Parts:
    """As for one level, with the KL terms of both; 'kl_upper' is that of z2 alone."""
    log_likelihood_KB, log_weight_KB, lower_KB, upper_B = self._drawn(params, context, x_BHWC, given, key, self.samples,
                                                                      self.samples)
    bound = None if self.samples == 1 else (
      jnp.mean(jax.nn.logsumexp(log_weight_KB, axis=0)) - math.log(self.samples))
    kl = jnp.mean(lower_KB) + jnp.mean(upper_B)
    # perceptrons have no variables that change without gradients
    return Parts(-jnp.mean(log_likelihood_KB), kl, bound, context.mutable, {'kl_upper': jnp.mean(upper_B)})

  def _weights(self, params: Params, context: Context, batch: Batch, key: Key, samples: int,
               chunk: int = 1) -> tuple[Array, Array, Array]:
    log_likelihood_KB, log_weight_KB, lower_KB, upper_B = self._drawn(
      params, context, pixels(batch['image']), self.told(context, batch), key, samples, chunk)
    return log_likelihood_KB, log_weight_KB, lower_KB[0] + upper_B

  def _drawn(self, params: Params, context: Context, x_BHWC: Array, given: Given, key: Key, samples: int,
             chunk: int) -> tuple[Array, Array, Array, Array]:
    """For K draws of (z2, z1): log p(x | z1), log p(x, z1, z2) - log q(z1, z2 | x), and the KL term of z1 given z2,
    each K B; and the KL term of z2, B. `chunk` draws are decoded at once."""
    image, upper = self._infer(params, context, x_BHWC, given)

    def draw(key: Key) -> tuple[Array, Array, Array]:
      upper_key, lower_key = jax.random.split(key)
      noise_BU = jax.random.normal(upper_key, upper[0].shape)
      z_BU = upper[0] + jnp.exp(upper[1] / 2) * noise_BU
      prior = self._prior(params, context, z_BU)
      lower = product(image, prior)
      noise_BZ = jax.random.normal(lower_key, lower[0].shape)
      z_BZ = lower[0] + jnp.exp(lower[1] / 2) * noise_BZ
      log_likelihood_B = self.log_likelihood(self._decode(params, context, z_BZ, given), x_BHWC)
      # relative to p(z1 | z2), z1 is a draw from N(0, I)
      relative_BZ = (z_BZ - prior[0]) * jnp.exp(-prior[1] / 2)
      log_weight_B = (log_likelihood_B + log_prior_ratio(relative_BZ, noise_BZ, lower[1] - prior[1])
                      + log_prior_ratio(z_BU, noise_BU, upper[1]))
      return log_likelihood_B, log_weight_B, kl(lower, prior)

    keys = jax.random.split(key, samples)
    log_likelihood_KB, log_weight_KB, kl_KB = jax.vmap(draw)(keys) if samples == chunk else jax.lax.map(
      draw, keys, batch_size=chunk if chunk > 1 else None)
    return log_likelihood_KB, log_weight_KB, kl_KB, kl_to_standard_normal(*upper)

  def sample(self, params: Params, context: Context, keys: Key, conditions: Mapping[str, Array]) -> dict[str, Array]:
    """Draws 'image' uint8 N H W C: the mean of p(x | z1) for z2 and z1 from their priors."""
    keys_N2 = jax.vmap(jax.random.split)(keys)
    normal = lambda keys, width: jax.vmap(lambda key: jax.random.normal(key, (width,)))(keys)
    mean_NZ, log_variance_NZ = self._prior(params, context, normal(keys_N2[:, 0], self.upper))
    z_NZ = mean_NZ + jnp.exp(log_variance_NZ / 2) * normal(keys_N2[:, 1], self.latent)
    return {'image': self.decode(params, context, z_NZ, self.told(context, conditions))}

  def posterior(self, params: Params, context: Context, image_BHWC: Array, given: Given | None = None) -> Gaussian:
    """Mean and log variance of q(z1 | x, z2) at the mean of q(z2 | x)."""
    image, upper = self._infer(params, context, pixels(image_BHWC), given)
    return product(image, self._prior(params, context, upper[0]))

  def _infer(self, params: Params, context: Context, x_BHWC: Array, given: Given | None) -> tuple[Gaussian, Gaussian]:
    return self.encoder.apply(params['net']['encoder'], context.mutable['encoder'], x_BHWC, *inputs(given))[0]

  def _prior(self, params: Params, context: Context, z_BU: Array) -> Gaussian:
    return self.prior.apply(params['net']['prior'], context.mutable['prior'], z_BU)[0]


def product(one: Gaussian, other: Gaussian) -> Gaussian:
  """Mean and log variance of the normalised product of two diagonal Gaussians."""
  log_variance_BZ = -jnp.logaddexp(-one[1], -other[1])
  mean_BZ = jnp.exp(log_variance_BZ) * (one[0] * jnp.exp(-one[1]) + other[0] * jnp.exp(-other[1]))
  return mean_BZ, log_variance_BZ


def kl(one: Gaussian, other: Gaussian) -> Array:
  """KL(one || other) of diagonal Gaussians, shape B, in nats."""
  relative_BZ = (one[0] - other[0]) * jnp.exp(-other[1] / 2)
  return kl_to_standard_normal(relative_BZ, one[1] - other[1])
