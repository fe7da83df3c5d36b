"""Networks that predict a symbol from a window of the K symbols before it: bigrams, an MLP, and a tree of layers."""

import dataclasses

from flax import nnx
import jax.numpy as jnp

from genjax import checks
from genjax.nn.conv import Dense
from genjax.nn.embeddings import Embed
from genjax.nn.functional import Network, network
from genjax.nn.norms import BatchNorm
from genjax.types import Array, Key

OUTPUT_SCALE = 0.1  # of the last layer's initial weights, so that the first predictions are not confident


@dataclasses.dataclass(frozen=True)
class BigramConfig:
  """A table with the logits of the next symbol for each symbol.

  Attributes:
    vocab: number of symbols V.
  """

  vocab: int

  window = 1

  def __post_init__(self):
    checks.whole(self, 1, 'vocab')


@dataclasses.dataclass(frozen=True)
class MlpConfig:
  """One hidden layer on the joined vectors of all symbols (Bengio et al. 2003), with batch normalisation.

  Attributes:
    vocab: number of symbols V.
    window: number of symbols K that are read.
    width: size D of the vector of a symbol.
    hidden: units of the hidden layer.
    momentum: weight of the old running averages in an update of the batch norm; 0 leaves the norm out.
    dtype: compute type, 'float32' or 'bfloat16'; parameters and logits are float32.
  """

  vocab: int
  window: int = 3
  width: int = 10
  hidden: int = 200
  momentum: float = 0.9
  dtype: str = 'float32'

  def __post_init__(self):
    checks.whole(self, 1, 'vocab', 'window', 'width', 'hidden')
    checks.rates(self, 'momentum')
    checks.dtype(self)

  @property
  def groups(self) -> tuple[int, ...]:
    """How many neighbours each hidden layer joins."""
    return (self.window,)


@dataclasses.dataclass(frozen=True)
class WavenetConfig:
  """A tree of layers that each join pairs of neighbours, as the dilated convolutions of WaveNet do (van den Oord et al.
  2016). It has no gates and no residual connections.

  Attributes:
    vocab: number of symbols V.
    levels: hidden layers; the window has 2^levels symbols.
    width: size D of the vector of a symbol.
    hidden: units of each hidden layer.
    momentum: weight of the old running averages in an update of the batch norms; 0 leaves the norms out.
    dtype: compute type, 'float32' or 'bfloat16'; parameters and logits are float32.
  """

  vocab: int
  levels: int = 3
  width: int = 24
  hidden: int = 128
  momentum: float = 0.9
  dtype: str = 'float32'

  def __post_init__(self):
    checks.whole(self, 1, 'vocab', 'levels', 'width', 'hidden')
    checks.rates(self, 'momentum')
    checks.dtype(self)

  @property
  def window(self) -> int:
    """Number of symbols K that are read."""
    return 2**self.levels

  @property
  def groups(self) -> tuple[int, ...]:
    """How many neighbours each hidden layer joins."""
    return (2,) * self.levels


Config = BigramConfig | MlpConfig | WavenetConfig


class _Bigram(nnx.Module):

  def __init__(self, config: BigramConfig, rngs: nnx.Rngs):
    self.logits = Embed(config.vocab, config.vocab, embedding_init=nnx.initializers.normal(1.0), rngs=rngs)

  def __call__(self, symbol_BK: Array, key: Key | None = None) -> Array:
    return self.logits(symbol_BK[:, -1])


class _Join(nnx.Module):
  """B K D -> B K/group E: a dense layer on each group of neighbours, batch norm and tanh."""

  def __init__(self, inputs: int, group: int, config: MlpConfig | WavenetConfig, rngs: nnx.Rngs):
    dtype = jnp.dtype(config.dtype)
    self.dense = Dense(group * inputs, config.hidden, bias=not config.momentum, dtype=dtype, rngs=rngs)
    self.norm = BatchNorm(config.hidden, momentum=config.momentum, dtype=dtype,
                          rngs=rngs) if config.momentum else None
    self.group = group

  def __call__(self, x_BKD: Array, key: Key | None) -> Array:
    rows, places, width = x_BKD.shape
    y_BKE = self.dense(x_BKD.reshape(rows, places // self.group, self.group * width))
    return jnp.tanh(y_BKE if self.norm is None else self.norm(y_BKE, key))


class _Tree(nnx.Module):

  def __init__(self, config: MlpConfig | WavenetConfig, rngs: nnx.Rngs):
    dtype = jnp.dtype(config.dtype)
    self.embedding = Embed(config.vocab, config.width, embedding_init=nnx.initializers.normal(1.0), dtype=dtype,
                           rngs=rngs)
    widths = (config.width, *[config.hidden] * len(config.groups))
    self.layers = nnx.List([_Join(inputs, group, config, rngs) for inputs, group in zip(widths, config.groups)])
    init = nnx.initializers.variance_scaling(OUTPUT_SCALE**2, 'fan_in', 'normal')
    self.out = Dense(config.hidden, config.vocab, init=init, rngs=rngs)

  def __call__(self, symbol_BK: Array, key: Key | None = None) -> Array:
    x_BKD = self.embedding(symbol_BK)
    for layer in self.layers:
      x_BKD = layer(x_BKD, key)
    return self.out(x_BKD[:, 0])


def ngrams(config: Config) -> Network:
  """The network: symbols int32 B K -> float32 logits B V of the symbol after them."""
  if isinstance(config, BigramConfig):
    return network(lambda rngs: _Bigram(config, rngs))
  return network(lambda rngs: _Tree(config, rngs))
