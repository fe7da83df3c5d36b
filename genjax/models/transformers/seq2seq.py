"""Encoder-decoder transformers by options: the original (Vaswani et al. 2017), Marian, T5, Whisper and mixtures."""

import dataclasses
import math
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from genjax import checks, reduction, sharding
from genjax.nn import linear as linear_lib
from genjax.nn.attention.self_attention import init_layer
from genjax.nn.blocks import Block, BlockOptions, Remember, block_axes, options_of
from genjax.nn.embeddings import Embed, RelativeBias, sincos
from genjax.nn.frames import FrameEmbedding
from genjax.nn.functional import Network, absorb_bias, dropout, network, stack
from genjax.nn.kernels import dense
from genjax.nn.linear import Linear
from genjax.nn.norms import short_name
from genjax.types import Array, Key, Tree, UserError

POSITIONS = ('sinusoidal', 'learned', 'relative')
INITS = ('normal', 'xavier', 'fan_in')


@dataclasses.dataclass(frozen=True)
class Seq2SeqConfig:
  """Options of an encoder and a decoder. The defaults are those of the original Transformer.

  Attributes:
    vocab: size of the source's vocabulary, in tokens; of the target's where the source has frames.
    context: longest source or target in tokens, where positions are not relative.
    layers: number of blocks of the encoder.
    heads: number of attention heads H.
    width: channels D.
    target_vocab: size of the target's vocabulary, which then has an embedding of its own; 0 for one vocabulary and
      embedding of both.
    frames: F, numbers in a frame of a source that has frames in place of tokens, see `genjax.nn.frames.FrameEmbedding`;
      0 for tokens.
    source_context: longest source of frames, in vectors after the embedding, which halves their number.
    decoder_layers: number of blocks of the decoder; None for as many as the encoder has, 0 for an encoder alone.
    head_dim: channels of a head; 0 for width / heads.
    mlp_width: hidden units of an MLP; 0 for 4 width.
    decoder_heads: heads of the decoder; 0 for as many as the encoder has.
    decoder_mlp_width: hidden units of the decoder's MLPs; 0 for those of the encoder.
    positions: 'sinusoidal' (fixed, all sines before all cosines), 'learned' or 'relative'.
    relative_buckets: number of learned distances of relative positions, see `genjax.nn.embeddings.relative_buckets`.
    relative_distance: tokens from which all distances of relative positions are one.
    norm: 'layer' or 'rms'.
    norm_eps: added to the variance, or to the mean square, in a norm.
    pre_norm: x + f(norm(x)) in place of norm(x + f(x)); encoder and decoder then end with a norm.
    activation: activation of the MLP, one of `genjax.nn.blocks.ACTIVATIONS`.
    gated: activation(gate x) * up x in place of activation(up x) (Shazeer 2020).
    bias: whether projections and layer norms have biases.
    key_bias: whether keys have biases.
    scaled: whether scores are divided by the root of the channels of a head.
    embedding_scale: whether vectors of tokens are multiplied by sqrt(D).
    tied: whether the output layer is the transposed embedding of the target.
    output_scale: whether what the output layer reads is divided by sqrt(D).
    output_bias: whether each token of the target has a bias.
    init: 'normal' with standard deviation init_scale; 'xavier' uniform, embeddings included; 'fan_in' with variance 1 /
      inputs of kernels, 1 of embeddings and 1 / D of relative positions (T5).
    init_scale: standard deviation of initial weights of 'normal'.
    dropout: dropout rate on embeddings and on what each block adds.
    attention_dropout: dropout rate on the weights of attention, after the softmax.
    activation_dropout: dropout rate on the hidden units of the MLPs.
    dtype: compute type, 'float32' or 'bfloat16'; parameters are float32.
    attention: implementation: 'auto', 'reference', 'chunked', 'splash' or 'cudnn', see
      `genjax.nn.attention.dot_product_attention.attend`.
    remat: what the backward pass keeps of a block: 'none' everything, 'dots' matrix products, 'full' its inputs only,
      'offload' its inputs in the memory of the host.
    unroll: lay the blocks out one after the other, with equal results: faster steps on CPUs, longer compilation.

  Raises:
    ValueError: an unknown name, heads that do not divide the width, or frames without source_context, with another
      vocabulary or with relative positions.
  """

  vocab: int
  context: int
  layers: int
  heads: int
  width: int
  target_vocab: int = 0
  frames: int = 0
  source_context: int = 0
  decoder_layers: int | None = None
  head_dim: int = 0
  mlp_width: int = 0
  decoder_heads: int = 0
  decoder_mlp_width: int = 0
  positions: str = 'sinusoidal'
  relative_buckets: int = 32
  relative_distance: int = 128
  norm: str = 'layer'
  norm_eps: float = 1e-5
  pre_norm: bool = False
  activation: str = 'relu'
  gated: bool = False
  bias: bool = True
  key_bias: bool = True
  scaled: bool = True
  embedding_scale: bool = True
  tied: bool = True
  output_scale: bool = False
  output_bias: bool = False
  init: str = 'xavier'
  init_scale: float = 0.02
  dropout: float = 0.0
  attention_dropout: float = 0.0
  activation_dropout: float = 0.0
  dtype: str = 'float32'
  attention: str = 'auto'
  remat: str = 'none'
  unroll: bool = False

  def __post_init__(self):
    object.__setattr__(self, 'norm', short_name(self.norm))
    checks.whole(self, 1, 'vocab', 'context', 'layers', 'heads', 'width')
    checks.whole(self, 0, 'target_vocab', 'frames', 'source_context', 'decoder_layers', 'head_dim', 'mlp_width',
                 'decoder_heads', 'decoder_mlp_width')
    checks.rates(self, 'dropout', 'attention_dropout', 'activation_dropout')
    checks.positive(self, 'init_scale')
    if self.decoder_heads:
      checks.heads(self, name='decoder_heads')
    if self.positions == 'relative' and (self.relative_buckets < 4
                                         or self.relative_distance <= self.relative_buckets // 2):
      raise checks.OutOfRange('relative_buckets must be at least 4, and relative_distance above half of them, got '
                              f'{self.relative_buckets} and {self.relative_distance}')
    for name, known in (('positions', POSITIONS), ('init', INITS)):
      if getattr(self, name) not in known:
        raise ValueError(f'{name} must be one of {known}, got {getattr(self, name)!r}')
    if bool(self.frames) != bool(
        self.source_context) or self.frames and (self.target_vocab or self.positions == 'relative'):
      raise ValueError(
        f'frames={self.frames} and source_context={self.source_context} go together, without target_vocab '
        f"({self.target_vocab}), and with positions 'sinusoidal' or 'learned' of the target, got {self.positions!r}")
    self.block()
    self.block(decodes=True)

  @property
  def depth(self) -> int:
    """Number of decoder layers."""
    return self.layers if self.decoder_layers is None else self.decoder_layers

  def initializer(self, kind: str) -> Any:
    """The initializer of a 'kernel', an 'embedding' or a table of 'relative' positions."""
    if self.init == 'xavier':
      return nnx.initializers.xavier_uniform()
    if self.init == 'normal':
      return nnx.initializers.normal(self.init_scale)
    return {
      'kernel': nnx.initializers.variance_scaling(1.0, 'fan_in', 'normal'), 'embedding': nnx.initializers.normal(1.0),
      'relative': nnx.initializers.normal(self.width**-0.5)
    }[kind]

  def block(self, decodes: bool = False) -> BlockOptions:
    """Options of each block of the encoder, or of the decoder."""
    own: dict[str, Any] = {}
    if decodes:
      own = dict(heads=self.decoder_heads or self.heads, mlp_width=self.decoder_mlp_width or self.mlp_width
                 or 4 * self.width)
    return options_of(self, kernel_init=self.initializer('kernel'), **own)


class Vocabulary(nnx.Module):
  """The embedding table V D of one vocabulary. A call returns the table."""

  def __init__(self, config: Seq2SeqConfig, vocab: int, rngs: nnx.Rngs):
    self.embedding = nnx.Param(config.initializer('embedding')(rngs.params(), (vocab, config.width), jnp.float32))

  def __call__(self, key: Key | None = None) -> Array:
    return self.embedding[...]


class Input(nnx.Module):
  """Tokens B T and their embedding table -> vectors B T D, with absolute positions if there are any."""

  def __init__(self, config: Seq2SeqConfig, rngs: nnx.Rngs):
    if config.positions == 'learned':
      self.position = Embed(config.context, config.width, embedding_init=config.initializer('embedding'), rngs=rngs)
    self.config = config

  def __call__(self, tokens_BT: Array, embedding_VD: Array, position: Array | int = 0, key: Key | None = None) -> Array:
    config, length = self.config, tokens_BT.shape[1]
    x_BTD = reduction.take(embedding_VD, tokens_BT, jnp.promote_types(embedding_VD.dtype, config.dtype))
    if config.embedding_scale:
      x_BTD *= math.sqrt(config.width)
    _check_length(config, length)
    place_T = position + jnp.arange(length)
    if config.positions == 'learned':
      x_BTD += self.position(place_T)
    elif config.positions == 'sinusoidal':
      x_BTD += jnp.asarray(sincos(np.arange(config.context), config.width), jnp.float32)[place_T]
    return dropout(x_BTD, config.dropout, key).astype(config.dtype)


class FrameInput(nnx.Module):
  """Frames B S F and their padding mask -> vectors B T D with positions."""

  def __init__(self, config: Seq2SeqConfig, rngs: nnx.Rngs):
    self.frames = FrameEmbedding(config.frames, config.width, config.source_context,
                                 kernel_init=config.initializer('kernel'), dtype=jnp.dtype(config.dtype), rngs=rngs)
    self.dropout = config.dropout

  def __call__(self, frames_BSF: Array, mask_BS: Array | None, key: Key | None = None) -> Array:
    return dropout(self.frames(frames_BSF, mask_BS), self.dropout, key)


class Ending(nnx.Module):
  """The final norm of pre-norm models."""

  def __init__(self, config: Seq2SeqConfig, rngs: nnx.Rngs):
    if config.pre_norm:
      self.norm = config.block().make_norm(rngs)
    self.pre_norm = config.pre_norm

  def __call__(self, x_BTD: Array, key: Key | None = None) -> Array:
    return self.norm(x_BTD) if self.pre_norm else x_BTD


class Head(nnx.Module):
  """Float32 logits of the target vocabulary, or with project=False the factors (hidden, weight) of the logits."""

  def __init__(self, config: Seq2SeqConfig, rngs: nnx.Rngs):
    vocab = config.target_vocab or config.vocab
    if not config.tied:
      self.out = Linear(config.width, vocab, use_bias=False, kernel_init=config.initializer('kernel'), rngs=rngs)
    if config.output_bias:
      self.token_bias = nnx.Param(jnp.zeros((vocab,)))
    self.config = config

  def __call__(self, x_BTD: Array, embedding_VD: Array, key: Key | None = None, project: bool = True) -> Any:
    if self.config.output_scale:
      x_BTD = x_BTD * self.config.width ** -0.5
    if not project:
      weight_VD = embedding_VD if self.config.tied else dense(self.out.kernel.get_value()).T
      return absorb_bias(x_BTD, weight_VD, self.token_bias[...]) if self.config.output_bias else (x_BTD, weight_VD)
    if self.config.tied:
      logits_BTV = linear_lib.project(x_BTD, embedding_VD, jnp.float32)
    else:
      logits_BTV = linear_lib.matmul(x_BTD, self.out.kernel.get_value(), jnp.float32)
    return logits_BTV + self.token_bias[...].astype(jnp.float32) if self.config.output_bias else logits_BTV


def seq2seq(config: Seq2SeqConfig) -> Network:
  """The network.

  apply(params, mutable, source_BS, target_BT, mask_BS=None, key=None) returns logits B T V of the next target tokens.
  Logits at t depend only on the source and on the target up to t. mask_BS is nonzero on source tokens and zero on
  padding at either end. Padding of the target follows its tokens and needs no mask. With `config.frames` the source is
  float32 B S F. Other calls:

    apply(..., project=False) returns (hidden_BTE, weight_VE) instead of the logits hidden weight^T.
    apply(params, mutable, source_BS, None, mask_BS) returns the encoder output B S D; for frames, half as many vectors.
    apply(params, mutable, None, target_BT, cache=cache, position=p) returns (logits, cache). The target tokens are at
      positions p, p + 1, ...; the source and earlier tokens come from the cache (see `start_cache`). p + T must not
      exceed its length.
  """
  vocabularies = {'embedding': network(lambda rngs: Vocabulary(config, config.vocab, rngs))}
  if config.target_vocab and config.depth:
    vocabularies['target_embedding'] = network(lambda rngs: Vocabulary(config, config.target_vocab, rngs))
  encoder = _side(config, config.layers, decodes=False)
  parts = {**vocabularies, 'encoder': encoder}
  if config.depth:
    decoder, head = _side(config, config.depth, decodes=True), network(lambda rngs: Head(config, rngs))
    parts |= {'decoder': decoder, 'head': head}

  def apply(params: Tree, mutable: Tree, source_BS: Array | None, target_BT: Array | None, mask_BS: Array | None = None,
            key: Key | None = None, cache: Tree = None, position: Array | int = 0,
            project: bool = True) -> tuple[Any, Tree]:
    keys = (None,) * 2 if key is None else tuple(jax.random.split(key))
    memory_BSD = None
    if cache is None:
      source_VD = params['embedding']['embedding']
      memory_BSD, _ = encoder.apply(params['encoder'], {}, source_BS, source_VD, mask_BS=mask_BS, key=keys[0])
      if target_BT is None:
        return memory_BSD, mutable
    if not config.depth:
      raise UserError('the model has only an encoder (decoder_layers=0) and takes no target; pass None')
    embedding_VD = params.get('target_embedding', params['embedding'])['embedding']
    x_BTD, _ = decoder.apply(params['decoder'], {}, target_BT, embedding_VD, memory_BSD,
                             visible_BS=_memory_mask(config, mask_BS), key=keys[1], cache=cache, position=position)
    x_BTD, cache = (x_BTD, None) if cache is None else x_BTD
    output, _ = head.apply(params.get('head', {}), {}, x_BTD, embedding_VD, project=project)
    if project:
      output = sharding.constrain(output, 'batch', 'sequence' if cache is None else None, 'vocab', name='logits B T V')
    return (output if cache is None else (output, cache)), mutable

  return Network(_init(parts), apply)


def _side(config: Seq2SeqConfig, layers: int, decodes: bool) -> Network:
  """The encoder or the decoder: tokens and their embedding table -> hidden states."""
  blocks = network(lambda rngs: Block(config.block(decodes), causal=decodes, cross=decodes, rngs=rngs))
  reads_frames = bool(config.frames) and not decodes
  parts = {
    'input': network(lambda rngs: (FrameInput if reads_frames else Input)(config, rngs)),
    'blocks': stack(blocks, layers, config.remat, config.unroll), 'ending': network(lambda rngs: Ending(config, rngs))
  }
  if config.positions == 'relative':
    parts['relative'] = network(lambda rngs: RelativeBias(
      config.block(decodes).heads, config.relative_buckets, config.relative_distance, not decodes, init=config.
      initializer('relative'), rngs=rngs))

  def apply(params: Tree, mutable: Tree, tokens_BT: Array, embedding_VD: Array, *memory: Array | None,
            key: Key | None = None, cache: Tree = None, position: Array | int = 0, visible_BS: Array | None = None,
            mask_BS: Array | None = None):
    keys = (None, None) if key is None else tuple(jax.random.split(key))
    where = (mask_BS,) if reads_frames else (embedding_VD, position)
    x_BTD, _ = parts['input'].apply(params.get('input', {}), {}, tokens_BT, *where, key=keys[0])
    x_BTD = sharding.constrain(x_BTD, 'batch', 'sequence' if cache is None else None, None, name='tokens B T D')
    mask_BS = _memory_mask(config, mask_BS)
    options: dict[str, Any] = {'mask_BT': mask_BS, 'visible_BS': visible_BS}
    if cache is not None:
      options = {
        'visible_BS': cache['visible'][:, :, 0, 0], 'layers': (cache['own'], cache['memory']), 'position': position
      }
    if config.positions == 'relative':
      length = tokens_BT.shape[1]
      slots = length if cache is None else cache['own'][0].shape[-2]
      options['bias_HTS'], _ = parts['relative'].apply(params['relative'], {}, position + jnp.arange(length),
                                                       jnp.arange(slots))
    x_BTD, _ = parts['blocks'].apply(params['blocks'], {}, x_BTD, *memory, key=keys[1], **options)
    x_BTD, own = (x_BTD, None) if cache is None else x_BTD
    x_BTD, _ = parts['ending'].apply(params.get('ending', {}), {}, x_BTD)
    return (x_BTD if cache is None else (x_BTD, {**cache, 'own': own})), mutable

  return Network(_init(parts), apply)


def _init(parts: dict[str, Network]):
  def init(key: Key) -> tuple[Tree, Tree]:
    params = {
      name: part.init(part_key)[0] for (name, part), part_key in zip(parts.items(), jax.random.split(key, len(parts)))
    }
    # some parts have parameters only with some options
    return {name: part for name, part in params.items() if part}, {}

  return init


def start_cache(config: Seq2SeqConfig, params: Tree, source_BS: Array, mask_BS: Array | None, length: int) -> Tree:
  """A cache for targets of `length` tokens, with the keys and values of the source for all layers.

  Leaves of 'own' (target) and 'memory' (source) are L B K S D, except `own` of a single row (see
  `genjax.nn.attention.self_attention.init_layer`). 'visible' is B S 1 1. So rows are the fourth axis from the end of
  all leaves, as in the caches of decoders.

  Raises:
    UserError: the source or the target length exceeds the positions of the model.
  """
  _check_length(config, length)
  memory_BSD, _ = seq2seq(config).apply(params, {}, source_BS, None, mask_BS)
  options = config.block(decodes=True)
  remember = network(lambda rngs: Remember(options, causal=True, cross=True, rngs=rngs))
  memory = jax.vmap(lambda layer: remember.apply(layer, {}, memory_BSD)[0])(params['decoder']['blocks'])
  layer = init_layer(source_BS.shape[0], options.heads, length, options.head_dim or config.width // options.heads,
                     config.dtype)
  own = jax.tree.map(lambda leaf: jnp.zeros((config.depth, *leaf.shape), leaf.dtype), layer)
  mask_BS = _memory_mask(config, mask_BS)
  visible_BS = jnp.ones(memory_BSD.shape[:2], bool) if mask_BS is None else mask_BS != 0
  return {'own': own, 'memory': memory, 'visible': visible_BS[:, :, None, None]}


def _memory_mask(config: Seq2SeqConfig, mask_BS: Array | None) -> Array | None:
  """The mask of the encoder output, from the mask of the source."""
  return mask_BS[:, ::2] if config.frames and mask_BS is not None else mask_BS


def _check_length(config: Seq2SeqConfig, length: int) -> None:
  if config.positions != 'relative' and length > config.context:
    raise UserError(f'the model has {config.context} positions (its context), got sequences of {length} tokens')


def axes(config: Seq2SeqConfig) -> tuple[tuple[str, tuple[str | None, ...]], ...]:
  """The table of logical axes of the parameters of a config."""
  table = [
    (r'(target_)?embedding/embedding', ('vocab', None)),
    *block_axes('.*/blocks'),
  ]
  if config.depth and not config.tied:
    table.append((r'head/out/kernel', (None, 'vocab')))
  if config.depth and config.output_bias:
    table.append((r'head/token_bias', ('vocab',)))
  return tuple(table)
