"""A perceptron that denoises points: what flow matching between distributions in the plane needs."""

import dataclasses
import math

from flax import nnx
import jax.numpy as jnp

from genjax import checks
from genjax.nn.blocks import ACTIVATIONS
from genjax.nn.conv import Dense
from genjax.nn.functional import Network
from genjax.nn.functional import network as make
from genjax.types import Array, Key, UserError


@dataclasses.dataclass(frozen=True)
class Mlp:
  """Options of the network; the defaults are those of TorchCFM's examples in the plane (Tong et al. 2023).

  Attributes:
    shape: of one example.
    hidden: widths of the hidden layers.
    activation: of the hidden layers, one of `genjax.nn.blocks.ACTIVATIONS`.
    time_scale: factor of the embedded time, which joins the inputs; 0.001 brings those of `flow` to 0 .. 1.
    dtype: compute type, 'float32' or 'bfloat16'; parameters are float32.

  Raises:
    UserError: an unknown activation, or a number out of range.
  """

  shape: tuple[int, ...]
  hidden: tuple[int, ...] = (64, 64, 64)
  activation: str = 'selu'
  time_scale: float = 0.001
  dtype: str = 'float32'

  def __post_init__(self):
    checks.whole(self, 1, 'shape', 'hidden')
    checks.dtype(self)
    if self.activation not in ACTIVATIONS:
      raise UserError(f'config.model.activation must be one of {tuple(ACTIVATIONS)}, got {self.activation!r}')


class MlpDenoiser(nnx.Module):
  """(x_BX, embedded time B) -> prediction B X, float32."""

  def __init__(self, config: Mlp, rngs: nnx.Rngs):
    size, dtype = math.prod(config.shape), jnp.dtype(config.dtype)
    init = nnx.initializers.lecun_normal()  # which self-normalising networks need (Klambauer et al. 2017)
    widths = (size + 1, *config.hidden)
    self.layers = nnx.List([Dense(width, following, init=init, dtype=dtype, rngs=rngs)
                            for width, following in zip(widths, widths[1:])])
    self.out = Dense(widths[-1], size, init=init, dtype=dtype, rngs=rngs)
    self.activation, self.time_scale = ACTIVATIONS[config.activation], config.time_scale

  def __call__(self, x_BX: Array, time_B: Array, given=None, key: Key | None = None) -> Array:
    h_BD = jnp.concatenate([x_BX.reshape(len(x_BX), -1), self.time_scale * time_B[:, None]], axis=-1)
    for layer in self.layers:
      h_BD = self.activation(layer(h_BD))
    return self.out(h_BD).astype(jnp.float32).reshape(x_BX.shape)


def network(config: Mlp) -> Network:
  """(x_BX, time_B, given) -> prediction; it reads no conditions."""
  return make(lambda rngs: MlpDenoiser(config, rngs))


AXES = ((r'layers/\d+/kernel', (None, 'mlp')), (r'out/kernel', ('mlp', None)))
