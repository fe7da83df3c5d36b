"""BERT (Devlin et al. 2018): a bidirectional encoder, with its heads for pre-training and fine-tuning."""

import dataclasses
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from genjax import checks, sharding
from genjax.nn import linear as linear_lib
from genjax.nn.blocks import ACTIVATIONS, Block, BlockOptions, block_axes, options_of
from genjax.nn.embeddings import Embed
from genjax.nn.functional import Network, absorb_bias, dropout, network, stack
from genjax.nn.norms import short_name
from genjax.types import Array, Key, Tree, UserError

# Layers, heads and width of the published models: table 1 of Devlin et al. 2018, and Turc et al. 2019.
SIZES = {'tiny': (2, 2, 128), 'mini': (4, 4, 256), 'small': (4, 8, 512), 'medium': (8, 8, 512), 'base': (12, 12, 768),
         'large': (24, 16, 1024)}


@dataclasses.dataclass(frozen=True)
class BertConfig:
  """Options of the encoder and its heads.

  Attributes:
    vocab: size V of the vocabulary, in tokens; in a config 0 for that of the tokenizer.
    context: longest sequence T, in tokens; in a config 0 for that of the data.
    layers: number of blocks L.
    heads: number of attention heads H.
    width: channels D.
    mlp_width: hidden units of an MLP; 0 for 4 width.
    types: kinds of segments that a token may lie in.
    norm_eps: added to the variance in a norm.
    activation: activation of the MLP and of the head for masked tokens, one of `genjax.nn.blocks.ACTIVATIONS`.
    pooler: whether there is a layer with tanh on the first token.
    masked_lm: whether there is the head that predicts tokens; its output layer is the transposed embedding.
    next_sentence: whether there is the head that tells whether the second segment follows the first; it needs the
      pooler.
    classes: outputs of a classifier of sequences, which needs the pooler; 0 for none.
    dropout: dropout rate on embeddings, on what each block adds, and before the classifier.
    init_scale: standard deviation of initial weights.
    dtype: compute type, 'float32' or 'bfloat16'; parameters are float32.
    attention: implementation: 'auto', 'reference', 'chunked', 'splash' or 'cudnn', see
      `genjax.nn.attention.dot_product_attention.attend`.
    remat: what the backward pass keeps of a block: 'none' everything, 'dots' matrix products, 'full' its inputs only,
      'offload' its inputs in the memory of the host.
    unroll: lay the blocks out one after the other, with equal results: faster steps on CPUs, longer compilation.
    norm: one of `genjax.nn.norms.NORMS`.

  Raises:
    ValueError: an unknown name, heads that do not divide the width, or an output that lacks the pooler.
  """

  vocab: int
  context: int
  layers: int
  heads: int
  width: int
  mlp_width: int = 0
  types: int = 2
  norm_eps: float = 1e-12
  activation: str = 'gelu'
  pooler: bool = True
  masked_lm: bool = False
  next_sentence: bool = False
  classes: int = 0
  dropout: float = 0.0
  init_scale: float = 0.02
  dtype: str = 'float32'
  attention: str = 'auto'
  remat: str = 'none'
  unroll: bool = False
  norm: str = 'layer'

  def __post_init__(self):
    object.__setattr__(self, 'norm', short_name(self.norm))
    checks.whole(self, 1, 'vocab', 'context', 'layers', 'heads', 'width', 'types')
    checks.whole(self, 0, 'mlp_width', 'classes')
    checks.positive(self, 'init_scale')
    if (self.next_sentence or self.classes) and not self.pooler:
      raise ValueError('next_sentence and classes read the output of the pooler; set pooler=True')
    self.block()

  def block(self) -> BlockOptions:
    """Options of each block."""
    return options_of(self, kernel_init=nnx.initializers.normal(self.init_scale))


def bert(size: str, **options: Any) -> BertConfig:
  """A published size from `SIZES`, with the English vocabulary and context unless `options` has others.

  Raises:
    ValueError: the size is unknown.
  """
  if size not in SIZES:
    raise ValueError(f'size must be one of {tuple(SIZES)}, got {size!r}')
  layers, heads, width = SIZES[size]
  return BertConfig(**{'vocab': 30522, 'context': 512, 'layers': layers, 'heads': heads, 'width': width, **options})


class Embedding(nnx.Module):
  """Embeddings of tokens, positions and segments -> normalised vectors B T D."""

  def __init__(self, config: BertConfig, rngs: nnx.Rngs):
    init = nnx.initializers.normal(config.init_scale)

    def embed(rows: int) -> Embed:
      return Embed(rows, config.width, embedding_init=init, rngs=rngs)

    self.token, self.position, self.type = embed(config.vocab), embed(config.context), embed(config.types)
    self.norm = config.block().make_norm(rngs)
    self.config = config

  def __call__(self, tokens_BT: Array, types_BT: Array | None, key: Key | None = None) -> Array:
    if tokens_BT.shape[1] > self.config.context:
      raise UserError(
        f'the encoder has {self.config.context} positions (its context), got sequences of {tokens_BT.shape[1]} tokens')
    dtype = jnp.promote_types(self.token.embedding[...].dtype, self.config.dtype)
    types_BT = jnp.zeros((1, 1), jnp.int32) if types_BT is None else types_BT
    x_BTD = self.token(tokens_BT).astype(dtype) + self.type(types_BT) + self.position(jnp.arange(tokens_BT.shape[1]))
    return dropout(self.norm(x_BTD), self.config.dropout, key)


class Heads(nnx.Module):
  """Computes all outputs of the config from the hidden states."""

  def __init__(self, config: BertConfig, rngs: nnx.Rngs):
    options = config.block()
    if config.pooler:
      self.pooler = options.make_linear(config.width, config.width, rngs)
    if config.masked_lm:
      self.transform = options.make_linear(config.width, config.width, rngs)
      self.transform_norm = options.make_norm(rngs)
      self.token_bias = nnx.Param(jnp.zeros((config.vocab,)))
    if config.next_sentence:
      self.next_sentence = options.make_classifier(2, rngs)
    if config.classes:
      self.classifier = options.make_classifier(config.classes, rngs)
    self.config = config

  def __call__(self, hidden_BTD: Array, embedding_VD: Array, positions_BP: Array | None, key: Key | None = None,
               project: bool = True) -> dict[str, Any]:
    outputs: dict[str, Any] = {'hidden': hidden_BTD}
    if self.config.masked_lm:
      read_BPD = hidden_BTD if positions_BP is None else jnp.take_along_axis(hidden_BTD, positions_BP[...,
                                                                                                      None], axis=1)
      read_BPD = self.transform_norm(ACTIVATIONS[self.config.activation](self.transform(read_BPD)))
      bias_V = self.token_bias[...]
      if project:
        logits_BPV = linear_lib.project(read_BPD, embedding_VD, jnp.float32) + bias_V.astype(jnp.float32)
        outputs['tokens'] = sharding.constrain(logits_BPV, 'batch', None, 'vocab', name='logits B P V')
      else:
        outputs['tokens'] = absorb_bias(read_BPD, embedding_VD, bias_V)
    if self.config.pooler:
      outputs['pooled'] = pooled_BD = jnp.tanh(self.pooler(hidden_BTD[:, 0]))
      if self.config.next_sentence:
        outputs['next_sentence'] = self.next_sentence(pooled_BD)
      if self.config.classes:
        outputs['classes'] = self.classifier(dropout(pooled_BD, self.config.dropout, key))
    return outputs


def encoder(config: BertConfig) -> Network:
  """The network.

  apply(params, mutable, tokens_BT, types_BT=None, mask_BT=None, positions_BP=None, key=None, project=True) returns a
  dict with 'hidden' B T D and the outputs that the config has: 'tokens' logits B T V, 'pooled' B D, 'next_sentence'
  logits B 2 (class 0: the second segment follows the first), 'classes' logits B K. Logits are float32 whatever the
  compute dtype.

    types_BT        the segment of each token; None means 0 for all.
    mask_BT         nonzero on tokens, zero on padding at either end. No token sees padding; hidden states of padding
                    are unspecified.
    positions_BP    computes the logits of tokens only at these positions, B P V.
    project=False   'tokens' is (hidden_BPE, weight_VE) with E = D + 1 instead of the logits hidden weight^T, for losses
                    that never store all logits.
  """
  embedding = network(lambda rngs: Embedding(config, rngs))
  blocks = stack(network(lambda rngs: Block(config.block(), rngs=rngs)), config.layers, config.remat, config.unroll)
  heads = network(lambda rngs: Heads(config, rngs))
  parts = {'embedding': embedding, 'blocks': blocks, 'heads': heads}

  def init(key: Key) -> tuple[Tree, Tree]:
    keys = jax.random.split(key, len(parts))
    params = {name: part.init(part_key)[0] for (name, part), part_key in zip(parts.items(), keys)}
    # without any head the group 'heads' has no parameters
    return {name: part for name, part in params.items() if part}, {}

  def apply(params: Tree, mutable: Tree, tokens_BT: Array, types_BT: Array | None = None, mask_BT: Array | None = None,
            positions_BP: Array | None = None, key: Key | None = None,
            project: bool = True) -> tuple[dict[str, Any], Tree]:
    keys = (None,) * 3 if key is None else tuple(jax.random.split(key, 3))
    x_BTD, _ = embedding.apply(params['embedding'], {}, tokens_BT, types_BT, key=keys[0])
    x_BTD = sharding.constrain(x_BTD, 'batch', 'sequence', None, name='tokens B T D')
    hidden_BTD, _ = blocks.apply(params['blocks'], {}, x_BTD, key=keys[1], mask_BT=mask_BT)
    embedding_VD = params['embedding']['token']['embedding']
    outputs, _ = heads.apply(params.get('heads', {}), {}, hidden_BTD, embedding_VD, positions_BP, key=keys[2],
                             project=project)
    return outputs, mutable

  return Network(init, apply)


AXES = (
  (r'embedding/token/embedding', ('vocab', None)),
  *block_axes('blocks'),
)

MASKED_LM_AXES = ((r'heads/token_bias', ('vocab',)),)
