"""Sequence to sequence: cross-entropy of a target given a source, and generation token by token with a cache."""

from collections.abc import Callable, Mapping
import dataclasses

import jax.numpy as jnp

from genjax import checks, reduction
from genjax.nn.functional import Network
from genjax.objectives.base import Context, Output, Phase, Variables, weighted_mean
from genjax.objectives.cross_entropy import token_losses
from genjax.objectives.decoding import END, Emit, SamplerOptions, beam_search, decode
from genjax.types import Array, Batch, Key, Params, Tree, UserError


@dataclasses.dataclass(frozen=True)
class Tokens:
  """Tokens with a meaning of their own.

  Attributes:
    start: token that the decoder reads first.
    stop: last token of every target.
    padding: token that fills rows, before or after a source and after a target; it may be `start`.
    begins: tokens that the decoder reads after `start`, before every target, and that are no part of it: the language
      and the task of Whisper.

  Raises:
    UserError: stop and padding are one, so that no row would end.
  """

  start: int
  stop: int
  padding: int
  begins: tuple[int, ...] = ()

  def __post_init__(self):
    if self.stop == self.padding:
      raise UserError(f'the token that stops a target must not be padding, which is never drawn; both are {self.stop}')


@dataclasses.dataclass(frozen=True)
class Seq2Seq:
  """p(target | source) = prod_t p(target_t | source, target before t); group 'net'.

  Attributes:
    network: (source_BS, target_BT, mask_BS) -> logits B T V, with `cache`, `position` and `project` as
      `genjax.models.transformers.seq2seq.seq2seq` has them.
    start_cache: (parameters of the network, source_BS, mask_BS, length) -> the cache for targets of so many tokens.
    tokens: those with a meaning of their own.
    smoothing: share of the target's mass that is spread evenly over the vocabulary in training (Vaswani et al. 2017,
      section 5.4).
    sampler: how tokens are chosen, temperature 0 being greedy; its length counts the stop token.

  Batches: 'source' int32 B S and 'target' int32 B T, in which each row ends with the stop token; both padded. Optional
  'source_weights' B S and 'target_weights' B T are zero on padding; without them every padding token is. A source of
  features (speech) is float32 B S F; without weights all of it is read.
  Conditions: 'source' int32 N S or float32 N S F, optional 'source_weights'.

  Raises:
    UserError: a smoothing out of range.
  """

  network: Network
  start_cache: Callable[[Tree, Array, Array | None, int], Tree]
  tokens: Tokens
  smoothing: float = 0.0
  sampler: SamplerOptions = SamplerOptions(length=64, temperature=0.0)

  def __post_init__(self):
    checks.rates(self, 'smoothing')

  def init(self, key: Key, frozen: Params) -> Variables:
    params, mutable = self.network.init(key)
    return Variables({'net': params}, mutable)

  def phases(self) -> tuple[Phase, ...]:
    return (Phase('seq2seq', ('net',), self.loss),)

  def loss(self, params: Params, context: Context, batch: Batch, key: Key) -> Output:
    """Mean cross-entropy in nats per token of the target; with smoothing, 'nll' is what it is without."""
    nll_BT, correct_BT, spread_BT, weights_BT, mutable = self._score(params, context, batch, key)
    nll, weight = weighted_mean(nll_BT, weights_BT)
    metrics = {'accuracy': weighted_mean(correct_BT, weights_BT)[0]}
    if not self.smoothing:
      return Output(nll, metrics, mutable, weight)
    return Output(nll + self.smoothing * weighted_mean(spread_BT, weights_BT)[0], metrics | {'nll': nll}, mutable,
                  weight)

  def _score(self, params: Params, context: Context, batch: Batch, key: Key | None):
    """Losses, hits, how much more the loss of an even target is, and weights, each B T."""
    source_BS, target_BT = batch['source'], batch['target']
    first = (self.tokens.start, *self.tokens.begins)
    first_BP = jnp.broadcast_to(jnp.asarray(first, jnp.int32), (len(target_BT), len(first)))
    read_BT = jnp.concatenate([first_BP, target_BT[:, :-1]], axis=1)
    parts, mutable = self.network.apply(params['net'], context.mutable, source_BS, read_BT, self._source_weights(batch),
                                        key=key, project=False)
    hidden_BTD, weight_VD = parts
    hidden_BTD = hidden_BTD[:, len(first) - 1:]
    nll_BT, correct_BT = token_losses(hidden_BTD, weight_VD, target_BT)
    spread_BT = jnp.zeros_like(nll_BT)
    if self.smoothing:
      # The mean over v of -log p_v, less -log p of the target: the target's logit less the mean one. No logits are
      # needed for it.
      weight_VD = reduction.plain(weight_VD)
      even_BTD = jnp.take(weight_VD, target_BT, axis=0) - jnp.mean(weight_VD, axis=0)
      spread_BT = jnp.sum(hidden_BTD.astype(jnp.float32) * even_BTD.astype(jnp.float32), axis=-1)
    return nll_BT, correct_BT, spread_BT, self._token_weights(batch, 'target'), mutable

  def _token_weights(self, batch: Batch, side: str) -> Array:
    """Weights of the tokens of a side, float32, zero on padding."""
    weights_BT = batch.get(f'{side}_weights')
    return (batch[side] != self.tokens.padding).astype(jnp.float32) if weights_BT is None else weights_BT

  def _source_weights(self, batch: Batch) -> Array | None:
    """Those of the source; of features that have none, None."""
    return batch.get('source_weights') if batch['source'].ndim == 3 else self._token_weights(batch, 'source')

  def evaluate(self, params: Params, context: Context, batch: Batch, key: Key) -> dict[str, Array]:
    """'loss' in nats per token without smoothing, whose exponential is the perplexity, and 'accuracy'; 'weight' is the
    number of tokens."""
    nll_BT, correct_BT, _, weights_BT, _ = self._score(params, context, batch, None)
    loss_B, weight_B = weighted_mean(nll_BT, weights_BT, axis=1)
    return {'loss': loss_B, 'accuracy': weighted_mean(correct_BT, weights_BT, axis=1)[0], 'weight': weight_B}

  def start(self, params: Params, conditions: Batch, length: int) -> tuple[Array, Tree]:
    """What decoding begins with: the first token of each row, int32 N, and the cache for what begins and `length` more
    tokens."""
    source_NS = conditions['source']
    cache = self.start_cache(params['net'], source_NS, self._source_weights(conditions),
                             length + len(self.tokens.begins))
    return jnp.full((source_NS.shape[0],), self.tokens.start, jnp.int32), cache

  def step(self, params: Params, context: Context, token_N: Array, cache: Tree,
           position: Array | int) -> tuple[Array, Tree]:
    """One step of decoding.

    Args:
      token_N: the token at `position` of each row.
      cache: of `start`, or of the step before.
      position: number of steps done.

    Returns:
      (logits_NV, cache): float32 logits of the next token. Rows of the cache may be rearranged, they are on the fourth
      axis from the end.
    """
    (logits_N1V, cache), _ = self.network.apply(params['net'], context.mutable, None, token_N[:, None], cache=cache,
                                                position=position)
    return logits_N1V[:, 0].astype(jnp.float32), cache

  emits = True

  def sample(self, params: Params, context: Context, keys: Key, conditions: Mapping[str, Array],
             emit: Emit | None = None) -> dict[str, Array]:
    """Targets: 'tokens' int32 N length, padded after the stop token; ends when all rows have stopped. Padding is never
    chosen.

    Args:
      params, context, keys: see `genjax.objectives.base.Objective`.
      conditions: see the class.
      emit: see `genjax.objectives.decoding.decode`; not with beams.
    """
    options = dataclasses.replace(self.sampler, stop=(*self.sampler.stop, self.tokens.stop),
                                  suppress=(*self.sampler.suppress, self.tokens.padding))
    begins = self.tokens.begins
    step = lambda token_N, cache, index: self.step(params, context, token_N, cache, index + 1 + len(begins))
    if options.beams > 1:
      conditions = {name: jnp.repeat(value, options.beams, axis=0) for name, value in conditions.items()}
    first_N, cache = self.start(params, conditions, options.length)
    logits_NV, cache = self.step(params, context, first_N, cache, 0)
    for position, token in enumerate(begins, 1):
      logits_NV, cache = self.step(params, context, jnp.full_like(first_N, token), cache, position)
    if options.beams > 1:
      tokens_NT = beam_search(step, logits_NV, cache, first_N[:, None], options.length, options)
    else:
      done_N = jnp.zeros(len(keys), bool)
      tokens_NT, _ = decode(step, logits_NV, cache, keys, first_N[:, None], done_N, options.length, options, emit=emit)
    return {'tokens': jnp.where(tokens_NT == END, self.tokens.padding, tokens_NT)}
