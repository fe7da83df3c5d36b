"""Transformer blocks of encoders and decoders: self-attention, cross-attention and an MLP, with pre- or post-norm."""

from collections.abc import Callable
import dataclasses
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from genjax import checks, sharding
from genjax.nn.attention.cross_attention import CrossAttention
from genjax.nn.attention.dot_product_attention import IMPLEMENTATIONS
from genjax.nn.attention.self_attention import Attention
from genjax.nn.functional import dropout
from genjax.nn.linear import Linear
from genjax.nn.norms import NORMS, short_name
from genjax.tables import Table
from genjax.types import Array, Key

ACTIVATIONS: Table[Callable[[Array], Array]] = Table('activation', {
  'relu': jax.nn.relu,
  'gelu': lambda x: jax.nn.gelu(x, approximate=False),
  'gelu_tanh': lambda x: jax.nn.gelu(x, approximate=True),
  'silu': jax.nn.silu,
  'selu': jax.nn.selu,
  'tanh': jnp.tanh,
  'quick_gelu': lambda x: x * jax.nn.sigmoid(1.702 * x),  # of CLIP
}, takes=('x',))


@dataclasses.dataclass(frozen=True)
class BlockOptions:
  """Options of a `Block`.

  Attributes:
    width: channels D.
    heads: number of attention heads H.
    mlp_width: hidden units of the MLP.
    head_dim: channels of a head; 0 for width / heads.
    activation: activation of the MLP, one of `ACTIVATIONS`.
    gated: activation(gate x) * up x in place of activation(up x) (Shazeer 2020).
    norm: one of `genjax.nn.norms.NORMS`.
    norm_eps: added to the variance, or to the mean square, in a norm.
    pre_norm: x + f(norm(x)) in place of norm(x + f(x)).
    bias: whether projections and layer norms have biases.
    qkv_bias: whether queries, keys and values have biases, see `genjax.nn.attention.self_attention.Attention`.
    key_bias: whether keys have biases.
    scaled: whether scores are divided by the root of the channels of a head.
    dropout: dropout rate on what is added to x.
    attention_dropout: dropout rate on the weights of attention, after the softmax.
    activation_dropout: dropout rate on the hidden units of the MLP.
    kernel_init: initializer of all kernels.
    dtype: compute type, 'float32' or 'bfloat16'; parameters are float32.
    attention: implementation: 'auto', 'reference', 'chunked', 'splash' or 'cudnn', see
      `genjax.nn.attention.dot_product_attention.attend`.

  Raises:
    ValueError: an unknown name, or heads that do not divide the width.
  """

  width: int
  heads: int
  mlp_width: int
  head_dim: int = 0
  activation: str = 'gelu'
  gated: bool = False
  norm: str = 'layer'
  norm_eps: float = 1e-5
  pre_norm: bool = False
  bias: bool = True
  qkv_bias: bool = True
  key_bias: bool = True
  scaled: bool = True
  dropout: float = 0.0
  attention_dropout: float = 0.0
  activation_dropout: float = 0.0
  kernel_init: Callable[..., Array] = nnx.initializers.xavier_uniform()
  dtype: str = 'float32'
  attention: str = 'auto'

  def __post_init__(self):
    object.__setattr__(self, 'norm', short_name(self.norm))
    checks.whole(self, 1, 'width', 'heads', 'mlp_width')
    checks.whole(self, 0, 'head_dim')
    checks.rates(self, 'dropout', 'attention_dropout', 'activation_dropout')
    checks.positive(self, 'norm_eps')
    checks.dtype(self)
    for name, known in (('activation', tuple(ACTIVATIONS)), ('norm', tuple(NORMS)), ('attention', IMPLEMENTATIONS)):
      if getattr(self, name) not in known:
        raise ValueError(f'{name} must be one of {known}, got {getattr(self, name)!r}')
    checks.heads(self)

  def make_norm(self, rngs: nnx.Rngs) -> Any:
    """A norm of width D."""
    return NORMS[self.norm](self.width, epsilon=self.norm_eps, scale=True, bias=self.bias, dtype=jnp.dtype(self.dtype),
                            rngs=rngs)

  def make_linear(self, inputs: int, outputs: int, rngs: nnx.Rngs) -> Linear:
    """A projection."""
    return Linear(inputs, outputs, use_bias=self.bias, dtype=jnp.dtype(self.dtype), kernel_init=self.kernel_init,
                  rngs=rngs)

  def make_classifier(self, classes: int, rngs: nnx.Rngs) -> Linear:
    """A projection to logits, which are float32 whatever the compute dtype."""
    return Linear(self.width, classes, use_bias=self.bias, dtype=jnp.dtype(self.dtype),
                  preferred_element_type=jnp.float32, kernel_init=self.kernel_init, rngs=rngs)


def options_of(config: Any, **options: Any) -> BlockOptions:
  """Block options from the fields of a model config with the same names.

  `options` override them. mlp_width 0 means 4 width.
  """
  own = {
    field.name: getattr(config, field.name) for field in dataclasses.fields(BlockOptions) if hasattr(config, field.name)
  }
  return BlockOptions(**{**own, 'mlp_width': config.mlp_width or 4 * config.width, **options})


class Block(nnx.Module):
  """Self-attention, cross-attention if `cross`, and an MLP, each with a residual connection.

  Args:
    options: see `BlockOptions`.
    causal: token t sees only the tokens up to t.
    cross: whether the block attends to a memory.
  """

  def __init__(self, options: BlockOptions, *, causal: bool = False, cross: bool = False, rngs: nnx.Rngs):
    def attention(kind: type[Attention], causal: bool) -> Any:
      return kind(options.width, options.heads, head_dim=options.head_dim or None, bias=options.bias,
                  qkv_bias=options.qkv_bias, key_bias=options.key_bias, causal=causal, scaled=options.scaled,
                  dtype=jnp.dtype(options.dtype), kernel_init=options.kernel_init, out_init=options.kernel_init,
                  implementation=options.attention, dropout=options.attention_dropout, rngs=rngs)

    self.attention, self.attention_norm = attention(Attention, causal), options.make_norm(rngs)
    if cross:
      self.cross, self.cross_norm = attention(CrossAttention, False), options.make_norm(rngs)
    self.up = options.make_linear(options.width, options.mlp_width, rngs)
    if options.gated:
      self.gate = options.make_linear(options.width, options.mlp_width, rngs)
    self.down = options.make_linear(options.mlp_width, options.width, rngs)
    self.mlp_norm = options.make_norm(rngs)
    self.options = options

  def __call__(self, x_BTD: Array, memory_BSD: Array | None = None, *, mask_BT: Array | None = None,
               visible_BS: Array | None = None, bias_HTS: Array | None = None, key: Key | None = None,
               layer: Any = None, position: Array | int | None = None) -> Any:
    """Applies the block.

    Args:
      x_BTD: tokens.
      memory_BSD: the memory of a block with `cross`; unused with a cache.
      mask_BT, bias_HTS: of self-attention, see `genjax.nn.attention.self_attention.Attention`.
      visible_BS: nonzero where the memory is visible.
      key: for dropout.
      layer: cache (own, memory): the cache of self-attention (see `genjax.nn.attention.self_attention.init_layer`), and
        the result of `Remember`.
      position: number of filled slots of the cache.

    Returns:
      x_BTD, or with a cache (x_BTD, updated cache of self-attention).
    """
    keys = inner = (None,) * 3
    if key is not None:
      keys = tuple(jax.random.split(key, 3))
      inner = tuple(jax.random.fold_in(part, 1) for part in keys)
    own, memory = (None, None) if layer is None else layer
    y_BTD = self.attention(self._read(self.attention_norm, x_BTD), inner[0], layer=own, position=position,
                           mask_BT=mask_BT, bias_HTS=bias_HTS)
    y_BTD, own = (y_BTD, None) if layer is None else y_BTD
    x_BTD = self._add(self.attention_norm, x_BTD, y_BTD, keys[0])
    if memory_BSD is not None or memory is not None:
      memory = self.cross.project(memory_BSD) if memory is None else memory
      y_BTD = self.cross(self._read(self.cross_norm, x_BTD), memory, inner[1], visible_BS=visible_BS, cached=layer
                         is not None)
      x_BTD = self._add(self.cross_norm, x_BTD, y_BTD, keys[1])
    h_BTD = self._read(self.mlp_norm, x_BTD)
    activation = ACTIVATIONS[self.options.activation]
    h_BTM = activation(self.gate(h_BTD)) * self.up(h_BTD) if self.options.gated else activation(self.up(h_BTD))
    h_BTM = dropout(h_BTM, self.options.activation_dropout, inner[2])
    sequence = 'sequence' if layer is None else None  # not split with a cache: the number of tokens varies
    h_BTM = sharding.constrain(h_BTM, 'batch', sequence, 'mlp', name='hidden units B T M of the MLP')
    x_BTD = self._add(self.mlp_norm, x_BTD, self.down(h_BTM), keys[2])
    x_BTD = sharding.constrain(x_BTD, 'batch', sequence, None, name='tokens B T D')
    return x_BTD if layer is None else (x_BTD, own)

  def _read(self, norm: Any, x_BTD: Array) -> Array:
    return norm(x_BTD) if self.options.pre_norm else x_BTD

  def _add(self, norm: Any, x_BTD: Array, y_BTD: Array, key: Key | None) -> Array:
    x_BTD = x_BTD + dropout(y_BTD, self.options.dropout, key)
    return x_BTD if self.options.pre_norm else norm(x_BTD)


def block_axes(blocks: str) -> tuple[tuple[str, tuple[str | None, ...]], ...]:
  """The table of logical axes of stacked blocks; the regex `blocks` matches their paths."""
  return (
    (rf'{blocks}/(attention|cross)/(query|key|value)/kernel', ('layers', None, 'heads')),
    (rf'{blocks}/(attention|cross)/out/kernel', ('layers', 'heads', None)),
    (rf'{blocks}/(up|gate)/kernel', ('layers', None, 'mlp')),
    (rf'{blocks}/down/kernel', ('layers', 'mlp', None)),
    (rf'{blocks}/.*/(scale|bias)', ('layers', None)),
  )


class Remember(Block):
  """Computes the cached keys and values of a memory B S D for a block with `cross`, see `CrossAttention.project`."""

  def __call__(self, memory_BSD: Array, key: Key | None = None) -> tuple[Array, Array]:  # type: ignore[override]
    return self.cross.project(memory_BSD)
