"""MADE, the masked autoencoder for distribution estimation (Germain, Gregor, Murray and Larochelle 2015)."""

import dataclasses

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from genjax import checks, reduction
from genjax.nn import linear
from genjax.nn.functional import Network, network
from genjax.nn.kernels import dense
from genjax.types import Array, Key

ORDERS = ('random', 'raster')


@dataclasses.dataclass(frozen=True)
class MadeConfig:
  """Options of the network.

  Attributes:
    dims: number D of entries of a vector.
    hidden: widths of the hidden layers.
    orderings: number M of sets of masks. Training draws one for each batch; the model is the mixture of all, evenly
      weighted.
    order: order of the entries in each set of masks: 'random', or 'raster' for the order in which they stand.
    dtype: compute type, 'float32' or 'bfloat16'; parameters and logits are float32.

  Raises:
    UserError: sizes that cannot be built, or an unknown order.
  """

  dims: int
  hidden: tuple[int, ...] = (500,)
  orderings: int = 1
  order: str = 'random'
  dtype: str = 'float32'

  def __post_init__(self):
    checks.whole(self, 2, 'dims')
    checks.whole(self, 1, 'hidden', 'orderings')
    checks.dtype(self)
    if not self.hidden:
      raise checks.OutOfRange(f'hidden must name at least one layer, got {self.hidden}')
    if self.order not in ORDERS:
      raise checks.OutOfRange(f'order must be one of {ORDERS}, got {self.order!r}')


def degrees(config: MadeConfig) -> tuple[np.ndarray, ...]:
  """The degree of each unit of the inputs and the hidden layers under each ordering, int32 M units (section 4).

  The degree of an input is its place in the ordering, from 0 on. A hidden unit of degree m sees inputs of degree up to
  m, and the output of degree m sees hidden units of degree below m. They depend on the config alone.
  """
  rows: list[list[np.ndarray]] = []
  for ordering in range(config.orderings):
    generator = np.random.default_rng([0, ordering])
    found = [generator.permutation(config.dims) if config.order == 'random' else np.arange(config.dims)]
    for width in config.hidden:
      least = found[-1].min() if len(found) > 1 else 0
      found.append(generator.integers(least, config.dims - 1, width))
    rows.append(found)
  return tuple(np.stack(layer).astype(np.int32) for layer in zip(*rows))


class _Masked(nnx.Module):
  """A dense layer; initial values as in `torch.nn.Linear`."""

  def __init__(self, inputs: int, outputs: int, rngs: nnx.Rngs):
    init = nnx.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')
    self.kernel = nnx.Param(init(rngs.params(), (inputs, outputs), jnp.float32))
    bound = inputs**-0.5
    self.bias = nnx.Param(jax.random.uniform(rngs.params(), (outputs,), jnp.float32, -bound, bound))


class _Made(nnx.Module):

  def __init__(self, config: MadeConfig, rngs: nnx.Rngs):
    widths = (config.dims, *config.hidden, config.dims)
    self.layers = nnx.List([_Masked(inputs, outputs, rngs) for inputs, outputs in zip(widths, widths[1:])])
    self.config = config

  def masked(self, which: Array | int) -> tuple[list[Array], Array]:
    """The kernels of all layers under one ordering, and the degree of each entry."""
    # Without the barrier XLA would compute masks of a fixed ordering while compiling, which takes longer than a step.
    degree = jax.lax.optimization_barrier(tuple(jnp.asarray(layer)[which] for layer in degrees(self.config)))
    masks = [first[:, None] <= second[None] for first, second in zip(degree, degree[1:])]
    masks.append(degree[-1][:, None] < degree[0][None])
    kernels = [reduction.plain(dense(layer.kernel.get_value())) for layer in self.layers]
    dtype = jnp.dtype(self.config.dtype)
    return [jnp.where(mask, kernel, 0).astype(dtype) for mask, kernel in zip(masks, kernels)], degree[0]

  def __call__(self, x_BD: Array, which: Array | int = 0, key: Key | None = None, generate: bool = False) -> Array:
    if generate:
      return self.generate(x_BD, which)
    kernels, _ = self.masked(which)
    return self.after(x_BD.astype(self.config.dtype), kernels, 0)

  def after(self, x: Array, kernels: list[Array], first: int) -> Array:
    """The layers from number `first` on."""
    for number in range(first, len(kernels)):
      x = jax.nn.relu(x) if number else x
      bias, last = self.layers[number].bias[...], number == len(self.layers) - 1
      x = linear.matmul(x, kernels[number], jnp.float32 if last else None)
      x += bias.astype(x.dtype)
    return x

  def generate(self, uniform_ND: Array, which: Array | int) -> Array:
    """Draws one entry after the other. Only the sums of the first layer and one output are computed for each."""
    (first_DH, *middle, last_HD), degree_D = self.masked(which)
    first, last = self.layers[0].bias[...], self.layers[-1].bias[...]

    def step(carry: tuple[Array, Array], entry: Array) -> tuple[tuple[Array, Array], None]:
      sum_NH, x_ND = carry
      hidden_NH = jax.nn.relu(self.after(sum_NH, [first_DH, *middle], 1))
      logit_N = jnp.matmul(hidden_NH, last_HD[:, entry], preferred_element_type=jnp.float32) + last[entry]
      x_N = (uniform_ND[:, entry] < jax.nn.sigmoid(logit_N)).astype(x_ND.dtype)
      return (sum_NH + x_N[:, None].astype(sum_NH.dtype) * first_DH[entry], x_ND.at[:, entry].set(x_N)), None

    sum_NH = jnp.broadcast_to(first.astype(first_DH.dtype), (len(uniform_ND), first_DH.shape[1]))
    (_, x_ND), _ = jax.lax.scan(step, (sum_NH, jnp.zeros_like(uniform_ND)), jnp.argsort(degree_D))
    return x_ND


def made(config: MadeConfig) -> Network:
  """The network.

  apply(params, mutable, x_BD, which=0, key=None) returns float32 logits B D. x_BD is 0 or 1, and the logit of an entry
  depends on the entries before it in ordering number `which`. Another call:

    apply(params, mutable, uniform_ND, which, generate=True) returns entries drawn one after the other, float32 N D: an
      entry is 1 where its number, uniform in [0, 1), is below its probability.
  """
  return network(lambda rngs: _Made(config, rngs))
