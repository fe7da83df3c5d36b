"""NADE, the neural autoregressive distribution estimator (Larochelle and Murray 2011)."""

import dataclasses

from flax import nnx
import jax
import jax.numpy as jnp

from genjax import checks
from genjax.nn.functional import Network, network
from genjax.types import Array, Key

ACTIVATIONS = {'relu': jax.nn.relu, 'sigmoid': jax.nn.sigmoid}
BLOCK = 32  # most entries whose hidden units are in memory together


@dataclasses.dataclass(frozen=True)
class NadeConfig:
  """Options of the network.

  Attributes:
    dims: number D of entries of a vector; their order is that in which they stand.
    hidden: hidden units H before each entry.
    activation: of the hidden units, one of `ACTIVATIONS`; the paper has 'sigmoid'.
    dtype: compute type, 'float32' or 'bfloat16'; parameters and the sums before the activation are float32.

  Raises:
    UserError: sizes that cannot be built, or an unknown activation.
  """

  dims: int
  hidden: int = 500
  activation: str = 'relu'
  dtype: str = 'float32'

  orderings = 1

  def __post_init__(self):
    checks.whole(self, 1, 'dims', 'hidden')
    checks.dtype(self)
    if self.activation not in ACTIVATIONS:
      raise checks.OutOfRange(f'activation must be one of {tuple(ACTIVATIONS)}, got {self.activation!r}')


class _Nade(nnx.Module):

  def __init__(self, config: NadeConfig, rngs: nnx.Rngs):
    normal = nnx.initializers.variance_scaling
    shape = config.dims, config.hidden
    self.input_kernel = nnx.Param(normal(2.0, 'fan_in', 'normal')(rngs.params(), shape, jnp.float32))
    self.output_kernel = nnx.Param(normal(2.0, 'fan_out', 'normal')(rngs.params(), shape, jnp.float32))
    self.hidden_bias = nnx.Param(jnp.zeros(config.hidden))
    self.bias = nnx.Param(jnp.zeros(config.dims))
    self.config = config

  def __call__(self, x_BD: Array, which: Array | int = 0, key: Key | None = None, generate: bool = False) -> Array:
    return self.generate(x_BD) if generate else self.logits(x_BD)

  def logits(self, x_BD: Array) -> Array:
    """All logits, a block of K entries at a time; the backward pass computes hidden units again."""
    config, rows = self.config, len(x_BD)
    size = next(size for size in range(min(BLOCK, config.dims), 0, -1) if config.dims % size == 0)
    before_KK = jnp.tril(jnp.ones((size, size), config.dtype), -1)
    blocks = lambda leaf: leaf.reshape(-1, size, *leaf.shape[1:])

    def block(sum_BH: Array, scanned: tuple[Array, ...]) -> tuple[Array, Array]:
      x_KB, input_KH, output_KH, bias_K = scanned
      x_BK, input_KH = x_KB.T.astype(config.dtype), input_KH.astype(config.dtype)
      before_BKK = x_BK[:, None] * before_KK
      added_BKH = jnp.matmul(before_BKK, input_KH, preferred_element_type=jnp.float32)
      hidden_BKH = ACTIVATIONS[config.activation](sum_BH[:, None] + added_BKH)
      logit_BK = jnp.sum(hidden_BKH * output_KH, axis=-1) + bias_K  # fused, so that hidden units are not stored
      return sum_BH + jnp.matmul(x_BK, input_KH, preferred_element_type=jnp.float32), logit_BK.T

    sum_BH = jnp.broadcast_to(self.hidden_bias[...], (rows, config.hidden))
    scanned = blocks(x_BD.T), blocks(self.input_kernel[...]), blocks(self.output_kernel[...]), blocks(self.bias[...])
    _, logit_RKB = jax.lax.scan(jax.checkpoint(block), sum_BH, scanned)
    return logit_RKB.reshape(config.dims, rows).T

  def generate(self, uniform_ND: Array) -> Array:
    """Draws one entry after the other."""

    def step(sum_NH: Array, scanned: tuple[Array, ...]) -> tuple[Array, Array]:
      uniform_N, input_H, output_H, bias = scanned
      logit_N = ACTIVATIONS[self.config.activation](sum_NH) @ output_H + bias
      x_N = (uniform_N < jax.nn.sigmoid(logit_N)).astype(jnp.float32)
      return sum_NH + x_N[:, None] * input_H, x_N

    sum_NH = jnp.broadcast_to(self.hidden_bias[...], (len(uniform_ND), self.config.hidden))
    scanned = uniform_ND.T, self.input_kernel[...], self.output_kernel[...], self.bias[...]
    return jax.lax.scan(step, sum_NH, scanned)[1].T


def nade(config: NadeConfig) -> Network:
  """The network, with the calls of `genjax.models.autoregressive.made.made`; there is one ordering, so `which` has no
  effect."""
  return network(lambda rngs: _Nade(config, rngs))
