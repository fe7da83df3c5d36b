"""Autoregressive models of binary images: the exact likelihood, pixel after pixel."""

from collections.abc import Mapping
import dataclasses
import math

import jax
import jax.numpy as jnp

from genjax import checks
from genjax.nn.functional import Network
from genjax.objectives.base import Context, Output, Phase, Variables
from genjax.types import Array, Batch, Key, Params


@dataclasses.dataclass(frozen=True)
class Autoregressive:
  """p(x) = mean_m prod_d p_m(x_d | the pixels before d in ordering m), with x_d 0 or 1; group 'net'.

  network: pixels B D and the number of an ordering -> logits B D, and with `generate` draws of pixels, as
    `genjax.models.autoregressive.made.made` has them. shape: (H, W, C) of the images. orderings: their number M.

  Batches: 'image' uint8 B H W C, of which values from 128 on are 1. Everything is in nats per image.
  """

  network: Network
  shape: tuple[int, int, int]
  orderings: int = 1

  def __post_init__(self):
    checks.whole(self, 1, 'shape', 'orderings')

  def init(self, key: Key, frozen: Params) -> Variables:
    params, mutable = self.network.init(key)
    return Variables({'net': params}, mutable)

  def phases(self) -> tuple[Phase, ...]:
    return (Phase('likelihood', ('net',), self.loss),)

  def loss(self, params: Params, context: Context, batch: Batch, key: Key) -> Output:
    """Mean negative log-likelihood under one ordering, drawn for the batch: a bound on that of the mixture."""
    order_key, network_key = jax.random.split(key)
    x_BD = _binary(batch['image'])
    which = jax.random.randint(order_key, (), 0, self.orderings)
    logits_BD, mutable = self.network.apply(params['net'], context.mutable, x_BD, which, key=network_key)
    return Output(-jnp.mean(_log_likelihood(logits_BD, x_BD)), {}, mutable, weight=len(x_BD))

  def evaluate(self, params: Params, context: Context, batch: Batch, key: Key) -> dict[str, Array]:
    """'nll', the negative log-likelihood in nats per image, and 'bits_per_dim'."""
    x_BD = _binary(batch['image'])

    def under(which: Array) -> Array:
      return _log_likelihood(self.network.apply(params['net'], context.mutable, x_BD, which)[0], x_BD)

    log_MB = jax.lax.map(under, jnp.arange(self.orderings))
    nll_B = math.log(self.orderings) - jax.nn.logsumexp(log_MB, axis=0)
    return {'nll': nll_B, 'bits_per_dim': nll_B / (math.log(2) * math.prod(self.shape))}

  def sample(self, params: Params, context: Context, keys: Key, conditions: Mapping[str, Array]) -> dict[str, Array]:
    """Draws 'image' uint8 N H W C of 0 and 255. Each row has an ordering of its own; all orderings are computed."""
    pair_N2 = jax.vmap(jax.random.split)(keys)
    uniform_ND = jax.vmap(lambda key: jax.random.uniform(key, (math.prod(self.shape),)))(pair_N2[:, 0])
    which_N = jax.vmap(lambda key: jax.random.randint(key, (), 0, self.orderings))(pair_N2[:, 1])

    def add(which: Array, x_ND: Array) -> Array:
      drawn_ND, _ = self.network.apply(params['net'], context.mutable, uniform_ND, which, generate=True)
      return jnp.where((which_N == which)[:, None], drawn_ND, x_ND)

    x_ND = jax.lax.fori_loop(0, self.orderings, add, jnp.zeros_like(uniform_ND))
    return {'image': (x_ND * 255).astype(jnp.uint8).reshape(-1, *self.shape)}


def _binary(image_BHWC: Array) -> Array:
  return (image_BHWC >= 128).astype(jnp.float32).reshape(len(image_BHWC), -1)


def _log_likelihood(logits_BD: Array, x_BD: Array) -> Array:
  """log p(x), shape B."""
  return jnp.sum(x_BD * logits_BD - jax.nn.softplus(logits_BD), axis=1)
