"""Decoder-only transformers by options: GPT-2, GPT-3, LLaMA, Mistral, Mixtral and mixtures of these."""

from collections.abc import Callable
import dataclasses
import math
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from genjax import checks, sharding
from genjax.nn import cpu
from genjax.nn import linear as linear_lib
from genjax.nn.attention.dot_product_attention import IMPLEMENTATIONS
from genjax.nn.attention.self_attention import Attention, RopeScaling, init_layer
from genjax.nn.blocks import ACTIVATIONS
from genjax.nn.embeddings import Embed
from genjax.nn.experts import Experts, balance, empty_load
from genjax.nn.functional import Network, dropout, network, stack
from genjax.nn.kernels import dense
from genjax.nn.linear import Linear
from genjax.nn.norms import NORMS, short_name
from genjax.tables import Table
from genjax.types import Array, Key, Tree

POSITIONS = ('learned', 'rope')
# Activation(gate x) * up x in the place of activation(up x) (Shazeer 2020)
GATED = {'swiglu': 'silu', 'geglu': 'gelu', 'reglu': 'relu'}


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
  """Options of a decoder. The defaults are GPT-2's (Radford et al. 2019); `llama` gives LLaMA's (Touvron et al. 2023).

  Attributes:
    vocab: size V of the vocabulary, in tokens.
    context: longest sequence T, in tokens; in a config 0 for that of the data.
    layers: number of blocks L.
    heads: number of attention heads H.
    width: channels D of the residual stream.
    kv_heads: number of key/value heads; 0 for as many as heads.
    head_dim: channels of a head; 0 for width / heads.
    mlp_width: hidden units of an MLP; 0 for 4 width.
    positions: 'learned' or 'rope'.
    norm: one of `genjax.nn.norms.NORMS`.
    norm_eps: added to the variance, or to the mean square, in a norm.
    mlp: activation of the MLP: one of `genjax.nn.blocks.ACTIVATIONS` or of `GATED`; 'gelu' is exact.
    bias: whether projections and norms have biases.
    attention_bias: whether projections of attention have biases; None for as `bias` says.
    mlp_bias: whether projections of the MLP have biases; None for as `bias` says.
    experts: number of MLPs in a block, of which each token has `experts_per_token`, see `genjax.nn.experts`; 0 for one
      MLP that all tokens have. Experts have no biases.
    experts_per_token: number of experts that a token has.
    balance: weight of the experts' load-balancing loss in the training loss.
    tied: whether the output layer is the transposed embedding.
    dropout: dropout rate on embeddings and on what each block adds.
    attention_dropout: dropout rate on the weights of attention, after the softmax.
    rope_theta: base of the frequencies of rotary positions.
    rope_scaling: how those frequencies are lowered for long contexts: a `RopeScaling` or a dict of its options; None
      for not at all.
    window: tokens that a token sees, itself included (sliding window, Jiang et al. 2023); 0 for all.
    init_scale: standard deviation of initial weights; what writes to the residual stream has it divided by sqrt(2 L).
    dtype: compute type, 'float32' or 'bfloat16'; parameters are float32.
    attention: implementation: 'auto', 'reference', 'chunked', 'splash' or 'cudnn', see
      `genjax.nn.attention.dot_product_attention.attend`.
    remat: what the backward pass keeps of a block: 'none' everything, 'dots' matrix products, 'full' its inputs only,
      'offload' its inputs in the memory of the host.
    unroll: lay the blocks out one after the other, with equal results: faster steps on CPUs, longer compilation.
    block: class of the blocks, one of `BLOCKS`.
  """

  vocab: int
  context: int
  layers: int
  heads: int
  width: int
  kv_heads: int = 0
  head_dim: int = 0
  mlp_width: int = 0
  positions: str = 'learned'
  norm: str = 'layer'
  norm_eps: float = 1e-5
  mlp: str = 'gelu_tanh'
  bias: bool = True
  attention_bias: bool | None = None
  mlp_bias: bool | None = None
  experts: int = 0
  experts_per_token: int = 2
  balance: float = 0.0
  tied: bool = True
  dropout: float = 0.0
  attention_dropout: float = 0.0
  rope_theta: float = 10_000.0
  rope_scaling: RopeScaling | None = None
  window: int = 0
  init_scale: float = 0.02
  dtype: str = 'float32'
  attention: str = 'auto'
  remat: str = 'none'
  unroll: bool = False
  block: str = 'pre_norm'

  def __post_init__(self):
    object.__setattr__(self, 'norm', short_name(self.norm))
    checks.whole(self, 1, 'vocab', 'context', 'layers', 'heads', 'width')
    checks.whole(self, 0, 'kv_heads', 'head_dim', 'mlp_width', 'window', 'experts')
    checks.rates(self, 'dropout', 'attention_dropout')
    checks.positive(self, 'norm_eps', 'init_scale', 'rope_theta')
    checks.between(self, ('balance',), at_least=0)
    checks.dtype(self)
    checks.heads(self)
    if self.kv_heads and self.heads % self.kv_heads:
      raise checks.OutOfRange(f'heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})')
    if self.positions == 'rope' and (self.head_dim or self.width // self.heads) % 2:
      raise checks.OutOfRange(
        f'head_dim must be even for rotary positions, got {self.head_dim or self.width // self.heads}')
    for name, known in (('positions', POSITIONS), ('norm', tuple(NORMS)), ('mlp', (*ACTIVATIONS, *GATED)),
                        ('attention', IMPLEMENTATIONS), ('block', tuple(BLOCKS))):
      if getattr(self, name) not in known:
        raise ValueError(f'{name} must be one of {known}, got {getattr(self, name)!r}')
    if self.experts and self.mlp_bias:
      raise ValueError('experts have no biases; set mlp_bias to None or False')
    if self.experts and not 1 <= self.experts_per_token <= self.experts:
      raise checks.OutOfRange(f'experts_per_token must be between 1 and experts, got experts={self.experts} and '
                              f'experts_per_token={self.experts_per_token}')
    if self.balance and not self.experts:
      raise ValueError(f'balance is the weight of a loss of experts, got {self.balance} with experts={self.experts}')
    if self.rope_scaling is not None:
      if self.positions != 'rope':
        raise ValueError(f"rope_scaling needs positions='rope', got {self.positions!r}")
      if not isinstance(self.rope_scaling, RopeScaling):  # a dict, from a config
        object.__setattr__(self, 'rope_scaling', _rope_scaling(dict(self.rope_scaling)))


def _rope_scaling(options: dict[str, Any]) -> RopeScaling:
  known = [field.name for field in dataclasses.fields(RopeScaling)]
  if not {'kind', 'factor'} <= set(options) <= set(known):
    raise ValueError(f"rope_scaling takes {known}, needs 'kind' and 'factor', and got {sorted(options)}")
  return RopeScaling(**options)


# What LLaMA chooses: rotary positions, RMSNorm, SwiGLU, no biases, an output layer of its own.
LLAMA = {'positions': 'rope', 'norm': 'rms', 'mlp': 'swiglu', 'bias': False, 'tied': False}


def llama(**options: Any) -> TransformerConfig:
  """LLaMA's choices, see `LLAMA`, unless `options` has others."""
  return TransformerConfig(**{**LLAMA, **options})


class Embedding(nnx.Module):
  """Token embedding B T -> B T D, plus learned positions if the config has them."""

  def __init__(self, config: TransformerConfig, rngs: nnx.Rngs):
    init = nnx.initializers.normal(config.init_scale)
    self.token = Embed(config.vocab, config.width, embedding_init=init, rngs=rngs)
    if config.positions == 'learned':
      self.position = Embed(config.context, config.width, embedding_init=init, rngs=rngs)
    self.config = config

  def __call__(self, tokens_BT: Array, positions_BT: Array, key: Key | None = None) -> Array:
    x_BTD = self.token(tokens_BT)
    if self.config.positions == 'learned':
      # Parameters of lower precision than the compute dtype are added in the compute dtype.
      x_BTD = x_BTD.astype(jnp.promote_types(x_BTD.dtype, self.config.dtype))
      x_BTD += self.position(positions_BT)
    return dropout(x_BTD, self.config.dropout, key).astype(self.config.dtype)


class Block(nnx.Module):
  """Pre-norm attention and MLP, each with a residual connection.

  With a mixture of experts, input and output are pairs (x_BTD, load of the experts of all blocks so far).
  """

  def __init__(self, config: TransformerConfig, rngs: nnx.Rngs):
    init = nnx.initializers.normal(config.init_scale)
    residual_init = nnx.initializers.normal(config.init_scale / math.sqrt(2 * config.layers))
    dtype = jnp.dtype(config.dtype)
    self.attention_norm = _norm(config, rngs)
    self.attention = Attention(
      config.width, config.heads, config.kv_heads or config.heads, head_dim=config.head_dim or None,
      bias=config.bias if config.attention_bias is None else config.attention_bias, causal=True, dtype=dtype, rngs=rngs,
      rope_theta=config.rope_theta if config.positions == 'rope' else None, rope_scaling=config.rope_scaling,
      window=config.window or None, kernel_init=init, out_init=residual_init, implementation=config.attention,
      dropout=config.attention_dropout)
    mlp_width = config.mlp_width or 4 * config.width

    def linear(inputs: int, outputs: int, kernel_init) -> Linear:
      bias = config.bias if config.mlp_bias is None else config.mlp_bias
      return Linear(inputs, outputs, use_bias=bias, dtype=dtype, kernel_init=kernel_init, rngs=rngs)

    self.mlp_norm = _norm(config, rngs)
    if config.experts:
      self.experts = Experts(config.width, mlp_width, config.experts, config.experts_per_token,
                             activation=_activation(config), gated=config.mlp in GATED, dtype=dtype, kernel_init=init,
                             out_init=residual_init, rngs=rngs)
    else:
      self.up = linear(config.width, mlp_width, init)
      if config.mlp in GATED:
        self.gate = linear(config.width, mlp_width, init)
      self.down = linear(mlp_width, config.width, residual_init)
    self.config = config

  def __call__(self, x: Any, key: Key | None = None, layer: Any = None, balance_BT: Array | None = None,
               **options: Any):
    """Applies the block. `balance_BT` weights the tokens in the load; `options` are passed to `Attention`."""
    x_BTD, load = x if self.config.experts else (x, empty_load(0))
    keys = (None, None) if key is None else tuple(jax.random.split(key))
    weights_key = None if key is None else jax.random.fold_in(key, 2)
    y_BTD = self.attention(self.attention_norm(x_BTD), weights_key, layer=layer, **options)
    y_BTD, layer = (y_BTD, None) if layer is None else y_BTD
    x_BTD = x_BTD + dropout(y_BTD, self.config.dropout, keys[0])
    h_BTD, sequence = self.mlp_norm(x_BTD), _sequence(layer)
    if self.config.experts:
      y_BTD, new_load = self.experts(h_BTD, balance_BT)
      load += new_load
    else:
      y_BTD = self._mlp(h_BTD, sequence)
    x_BTD = x_BTD + dropout(y_BTD, self.config.dropout, keys[1])
    x_BTD = sharding.constrain(x_BTD, 'batch', sequence, None, name='tokens B T D')
    x = (x_BTD, load) if self.config.experts else x_BTD
    return x if layer is None else (x, layer)

  def _mlp(self, h_BTD: Array, sequence: str | None) -> Array:
    activation = _activation(self.config)
    h_BTM = activation(self.gate(h_BTD)) * self.up(h_BTD) if self.config.mlp in GATED else activation(self.up(h_BTD))
    return self.down(sharding.constrain(h_BTM, 'batch', sequence, 'mlp', name='hidden units B T M of the MLP'))


# Classes of the form of `Block`, by name
BLOCKS: Table[Callable[..., nnx.Module]] = Table('decoder block', {'pre_norm': Block}, takes=('config', 'rngs'))


class Head(nnx.Module):
  """The final norm, and the output layer if it is not tied."""

  def __init__(self, config: TransformerConfig, rngs: nnx.Rngs):
    self.norm = _norm(config, rngs)
    if not config.tied:
      self.out = Linear(config.width, config.vocab, use_bias=False, dtype=jnp.dtype(config.dtype),
                        preferred_element_type=jnp.float32, kernel_init=nnx.initializers.normal(config.init_scale),
                        rngs=rngs)
    self.tied = config.tied

  def __call__(self, x_BTD: Array, embedding_VD: Array, key: Key | None = None, project: bool = True) -> Any:
    x_BTD = self.norm(x_BTD)
    if not project:
      return x_BTD, embedding_VD if self.tied else dense(self.out.kernel.get_value()).T
    return linear_lib.project(x_BTD, embedding_VD, jnp.float32) if self.tied else self.out(x_BTD)


def _activation(config: TransformerConfig) -> Callable[[Array], Array]:
  return ACTIVATIONS[GATED.get(config.mlp, config.mlp)]


def _norm(config: TransformerConfig, rngs: nnx.Rngs) -> Any:
  return NORMS[config.norm](config.width, epsilon=config.norm_eps, scale=True, bias=config.bias,
                            dtype=jnp.dtype(config.dtype), rngs=rngs)


def _sequence(cache: Any) -> str | None:
  """The logical axis of tokens; None with a cache, where the number of tokens varies and is not split."""
  return 'sequence' if cache is None else None


def transformer(config: TransformerConfig, block: Callable[..., nnx.Module] | None = None) -> Network:
  """The network, of blocks of the class `block`, by default the one that config.block names in `BLOCKS`.

  apply(params, mutable, tokens_BT, key=None) returns float32 logits B T V. Logits at t depend only on tokens up to t.
  Further keywords:

    cache, position   decodes tokens at positions p, p + 1, ...; reads earlier ones from the cache (see `init_cache`).
                      Returns (logits, cache). p + T must not exceed the length of the cache. The parameters may come
                      from `lay_out`.
    first_B           only with a cache: slots before first_B hold padding, and the positions of row b start at
                      first_B[b]. This aligns the ends of texts of different lengths. Outputs for padding are
                      unspecified.
    segments_BT       without a cache: a token sees only earlier tokens with its own integer id, for packed texts and
                      padding at either end.
    positions_BT      positions of the tokens; 0, 1, ... by default, also with segments.
    project=False     returns (hidden_BTD, weight_VD) instead of the logits hidden weight^T, for losses that never store
                      all logits.
    balance_BT        with a mixture of experts: returns (output, loss) with the unscaled load-balancing loss; tokens
                      count by these weights, see `genjax.nn.experts.balance`.
  """
  embedding = network(lambda rngs: Embedding(config, rngs))
  make = BLOCKS[config.block] if block is None else block
  blocks = stack(network(lambda rngs: make(config, rngs)), config.layers, config.remat, config.unroll)
  head = network(lambda rngs: Head(config, rngs))

  def init(key: Key) -> tuple[Tree, Tree]:
    keys = jax.random.split(key, 3)
    parts = {
      name: part.init(part_key)[0]
      for name, part, part_key in zip(('embedding', 'blocks', 'head'), (embedding, blocks, head), keys)
    }
    return parts, {}

  def apply(params: Tree, mutable: Tree, tokens_BT: Array, key: Key | None = None, cache: Tree = None,
            position: Array | int = 0, project: bool = True, first_B: Array | None = None,
            segments_BT: Array | None = None, positions_BT: Array | None = None,
            balance_BT: Array | None = None) -> tuple[Any, Tree]:
    if balance_BT is not None and not config.experts:
      raise ValueError('balance_BT needs a mixture of experts')
    keys = (None, None) if key is None else tuple(jax.random.split(key))
    if config.rope_scaling is not None:
      config.rope_scaling.check_length(tokens_BT.shape[1], config.context)
    if positions_BT is None:
      positions_BT = position + jnp.arange(tokens_BT.shape[1])[None]
      if first_B is not None:
        positions_BT = jnp.maximum(positions_BT - first_B[:, None], 0)
    x_BTD, _ = embedding.apply(params['embedding'], {}, tokens_BT, positions_BT, key=keys[0])
    x_BTD = sharding.constrain(x_BTD, 'batch', _sequence(cache), None, name='tokens B T D')
    options = {'segments_BT': segments_BT, 'positions_BT': positions_BT, 'first_B': first_B}
    if cache is not None:
      options |= {'layers': cache, 'position': position}
    if cache is not None and not isinstance(params['blocks'], tuple):
      params = lay_out(config, params)
    x = (x_BTD, empty_load(config.experts)) if config.experts else x_BTD
    x, _ = blocks.apply(params['blocks'], {}, x, key=keys[1], balance_BT=balance_BT, **options)
    sequence = _sequence(cache)
    x, cache = (x, None) if cache is None else x
    x_BTD, load = x if config.experts else (x, empty_load(0))
    output, _ = head.apply(params['head'], {}, x_BTD, params['embedding']['token']['embedding'], project=project)
    if project:
      output = sharding.constrain(output, 'batch', sequence, 'vocab', name='logits B T V')
    output = output if cache is None else (output, cache)
    return (output if balance_BT is None else (output, balance(load))), mutable

  return Network(init, apply)


def init_cache(config: TransformerConfig, batch: int, length: int) -> Tree:
  """An empty key/value cache for `length` tokens in the compute dtype.

  It holds (keys, values) with a leading layer axis L, or with `unroll` a tuple of one pair per layer; see
  `genjax.nn.attention.self_attention.init_layer`.
  """
  layer = init_layer(batch, config.kv_heads or config.heads, length, config.head_dim or config.width // config.heads,
                     config.dtype)
  if config.unroll:
    return (layer,) * config.layers
  return jax.tree.map(lambda leaf: jnp.zeros((config.layers, *leaf.shape), leaf.dtype), layer)


def lay_out(config: TransformerConfig, params: Tree) -> Tree:
  """Prepares parameters for a fast decoding loop: with `unroll` copies them into one tree per layer."""
  return {**params, 'blocks': cpu.unstack(params['blocks'], config.layers)} if config.unroll else params


def axes(config: TransformerConfig) -> tuple:
  """The logical axes of the parameters."""
  return (*_AXES, *(_EXPERT_AXES if config.experts else _MLP_AXES), *(() if config.tied else _UNTIED_AXES))


_AXES = (
  (r'embedding/token/embedding', ('vocab', None)),
  (r'blocks/attention/(query|key|value)/kernel', ('layers', None, 'heads')),
  (r'blocks/attention/out/kernel', ('layers', 'heads', None)),
  (r'blocks/.*/(scale|bias)', ('layers', None)),  # norms (every variant has some) and biases
)

_MLP_AXES = (
  (r'blocks/(up|gate)/kernel', ('layers', None, 'mlp')),
  (r'blocks/down/kernel', ('layers', 'mlp', None)),
)

_EXPERT_AXES = (
  (r'blocks/experts/(up|gate)_kernel', ('layers', 'experts', None, 'mlp')),
  (r'blocks/experts/down_kernel', ('layers', 'experts', 'mlp', None)),
  (r'blocks/experts/router/kernel', ('layers', None, None)),
)

_UNTIED_AXES = ((r'head/out/kernel', (None, 'vocab')),)
