"""An LSTM that reads a source and an LSTM that writes a target from its state (Sutskever, Vinyals and Le 2014)."""

import dataclasses
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from genjax import checks
from genjax.nn import linear
from genjax.nn.embeddings import Embed
from genjax.nn.functional import Network, absorb_bias, network
from genjax.types import Array, Key, Tree

State = tuple[Array, Array]  # cell and output of an LSTM, each B H


@dataclasses.dataclass(frozen=True)
class LstmConfig:
  """Options of the encoder and the decoder.

  Attributes:
    vocab: size of the source's vocabulary, in tokens.
    target_vocab: size of the target's vocabulary; 0 for that of the source.
    hidden: units H of each LSTM.
    embedding: size of the learned vector of a token; 0 for one-hot vectors.
    dtype: compute type, 'float32' or 'bfloat16'; parameters and cells are float32.
  """

  vocab: int
  target_vocab: int = 0
  hidden: int = 512
  embedding: int = 0
  dtype: str = 'float32'

  def __post_init__(self):
    checks.whole(self, 1, 'vocab', 'hidden')
    checks.whole(self, 0, 'target_vocab', 'embedding')
    checks.dtype(self)

  @property
  def outputs(self) -> int:
    """Size V of the target's vocabulary."""
    return self.target_vocab or self.vocab


class Lstm(nnx.Module):
  """An LSTM (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000).

  The four parts of a kernel are, in this order, those of the input gate, the forget gate, the new values and the output
  gate, as in `torch.nn.LSTM`.

  Args:
    inputs: size I of the vectors that are read.
    hidden: units H.
    dtype: compute type; the cell is float32.
  """

  def __init__(self, inputs: int, hidden: int, *, rngs: nnx.Rngs, dtype: Any = jnp.float32):
    orthogonal = nnx.initializers.orthogonal()
    recurrent = [orthogonal(rngs.params(), (hidden, hidden), jnp.float32) for _ in range(4)]
    self.input_kernel = nnx.Param(nnx.initializers.lecun_normal()(rngs.params(), (inputs, 4 * hidden), jnp.float32))
    self.recurrent_kernel = nnx.Param(jnp.concatenate(recurrent, axis=1))
    self.bias = nnx.Param(jnp.zeros(4 * hidden))
    self.hidden, self.dtype = hidden, dtype

  def start(self, rows: int) -> State:
    """The state before the first vector: zeros."""
    return jnp.zeros((rows, self.hidden)), jnp.zeros((rows, self.hidden), self.dtype)

  def __call__(self, x_BTI: Array, state: State, mask_BT: Array | None = None) -> tuple[Array, State]:
    """The outputs B T H and the last state. Where the mask is zero, the state stays as it is."""
    recurrent = self.recurrent_kernel.get_value()
    added_BTG = linear.matmul(x_BTI.astype(self.dtype), self.input_kernel.get_value())
    added_BTG += self.bias[...].astype(self.dtype)

    def step(state: State, read: tuple[Array, Array | None]) -> tuple[State, Array]:
      (cell_BH, output_BH), (added_BG, mask_B) = state, read
      gates_BG = (added_BG + linear.matmul(output_BH, recurrent)).astype(jnp.float32)
      enter_BH, keep_BH, new_BH, show_BH = jnp.split(gates_BG, 4, axis=-1)
      cell_BH = jax.nn.sigmoid(keep_BH) * cell_BH + jax.nn.sigmoid(enter_BH) * jnp.tanh(new_BH)
      output_BH = (jax.nn.sigmoid(show_BH) * jnp.tanh(cell_BH)).astype(self.dtype)
      if mask_B is not None:
        read_B1 = mask_B[:, None] != 0
        cell_BH, output_BH = jnp.where(read_B1, cell_BH, state[0]), jnp.where(read_B1, output_BH, state[1])
      return (cell_BH, output_BH), output_BH

    mask_TB = None if mask_BT is None else mask_BT.T
    state, output_TBH = jax.lax.scan(step, state, (added_BTG.swapaxes(0, 1), mask_TB))
    return output_TBH.swapaxes(0, 1), state


class _Side(nnx.Module):
  """Tokens B T -> outputs B T H of an LSTM and its last state."""

  def __init__(self, vocab: int, config: LstmConfig, rngs: nnx.Rngs):
    dtype = jnp.dtype(config.dtype)
    if config.embedding:
      self.embedding = Embed(vocab, config.embedding, embedding_init=nnx.initializers.normal(1.0), dtype=dtype,
                             rngs=rngs)
    self.lstm = Lstm(config.embedding or vocab, config.hidden, dtype=dtype, rngs=rngs)
    self.vocab = 0 if config.embedding else vocab

  def __call__(self, token_BT: Array, state: State | None = None, mask_BT: Array | None = None,
               key: Key | None = None) -> tuple[Array, State]:
    x_BTI = jax.nn.one_hot(token_BT, self.vocab) if self.vocab else self.embedding(token_BT)
    return self.lstm(x_BTI, self.lstm.start(len(token_BT)) if state is None else state, mask_BT)


class _Head(nnx.Module):
  """Outputs B T H -> float32 logits B T V, or with project=False their factors (hidden, weight)."""

  def __init__(self, config: LstmConfig, rngs: nnx.Rngs):
    init = nnx.initializers.variance_scaling(1.0, 'fan_out', 'truncated_normal')
    self.weight = nnx.Param(init(rngs.params(), (config.outputs, config.hidden), jnp.float32))
    self.bias = nnx.Param(jnp.zeros(config.outputs))

  def __call__(self, x_BTH: Array, project: bool = True, key: Key | None = None) -> Any:
    weight_VH, bias_V = self.weight.get_value(), self.bias[...]
    return linear.project(x_BTH, weight_VH, jnp.float32) + bias_V if project else absorb_bias(x_BTH, weight_VH, bias_V)


def lstm(config: LstmConfig) -> Network:
  """The network, with the calls of `genjax.models.transformers.seq2seq.seq2seq` but that for the encoder alone.

  apply(params, mutable, source_BS, target_BT, mask_BS=None, key=None) returns logits B T V of the next target tokens.
  mask_BS is nonzero on source tokens; the encoder does not read the others. Further:

    apply(..., project=False) returns (hidden, weight) instead of the logits hidden weight^T.
    apply(params, mutable, None, target_BT, cache=cache) returns (logits, cache): the target goes on from the cache, see
      `start_cache`. The state has no positions, so `position` has no effect.
  """
  parts = {'encoder': network(lambda rngs: _Side(config.vocab, config, rngs)),
           'decoder': network(lambda rngs: _Side(config.outputs, config, rngs)),
           'head': network(lambda rngs: _Head(config, rngs))}

  def init(key: Key) -> tuple[Tree, Tree]:
    keys = jax.random.split(key, len(parts))
    return {name: part.init(part_key)[0] for (name, part), part_key in zip(parts.items(), keys)}, {}

  def apply(params: Tree, mutable: Tree, source_BS: Array | None, target_BT: Array, mask_BS: Array | None = None,
            key: Key | None = None, cache: Tree = None, position: Array | int = 0,
            project: bool = True) -> tuple[Any, Tree]:
    if cache is None:
      (_, state), _ = parts['encoder'].apply(params['encoder'], {}, source_BS, mask_BT=mask_BS)
    else:
      state = cache['cell'][:, 0, 0], cache['output'][:, 0, 0]
    (x_BTH, state), _ = parts['decoder'].apply(params['decoder'], {}, target_BT, state)
    output, _ = parts['head'].apply(params['head'], {}, x_BTH, project=project)
    return (output if cache is None else (output, _cache(state))), mutable

  return Network(init, apply)


def start_cache(config: LstmConfig, params: Tree, source_BS: Array, mask_BS: Array | None, length: int) -> Tree:
  """The state after the source, for targets of any length. Leaves are B 1 1 H: rows are the fourth axis from the end,
  as in the caches of transformers."""
  encoder = network(lambda rngs: _Side(config.vocab, config, rngs))
  (_, state), _ = encoder.apply(params['encoder'], {}, source_BS, mask_BT=mask_BS)
  return _cache(state)


def _cache(state: State) -> Tree:
  return {'cell': state[0][:, None, None], 'output': state[1][:, None, None]}
