"""Choosing tokens one after the other: drawing, the loop over tokens, and beam search.

Networks come in as a `Step`: the logits that follow one more token of each row, given a cache that the caller chose.
Decoders and encoder-decoders share what stands here. Suffixes: N rows, M beams of a row, V vocabulary, T generated
tokens.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

import jax
from jax.experimental import io_callback
import jax.numpy as jnp

from genjax import checks
from genjax.types import Array, Key, Tree, UserError

END = -1  # in the place of a token: the text ended before
_LOWEST = -1e9  # the score of what must not be chosen; finite, so that sums and products stay finite

Step = Callable[[Array, Tree, Array], tuple[Array, Tree]]
Emit = Callable[[Any, Any], None]


@dataclasses.dataclass(frozen=True)
class SamplerOptions:
  """How tokens are chosen.

  Attributes:
    length: tokens to generate after the prompt, at most.
    temperature: logits are divided by it; 0 takes the likeliest token.
    top_k: keep the k likeliest tokens; 0 keeps all (Fan et al. 2018).
    top_p: keep the smallest set of likeliest tokens with at least this probability; 1 keeps all (nucleus sampling,
      Holtzman et al. 2020).
    min_p: keep tokens with at least this share of the probability of the likeliest; 0 keeps all (Nguyen et al. 2024).
    repetition_penalty: logits of tokens that the row has already, prompt included, are divided by it where positive and
      multiplied elsewhere; 1 changes nothing (Keskar et al. 2019, sec. 4.1).
    stop: tokens that end a text; the one that does is its last.
    suppress: tokens that are never chosen.
    begin_suppress: tokens that are not chosen as the first after the prompt.
    beams: number M of beams; above 1 the text is searched for and not drawn, see `beam_search`, and the options of
      drawing stay at their defaults.
    length_penalty: the score of a finished text is its log-likelihood divided by its length to this power.
    vocabulary: tokens from this number on, which a padded vocabulary has and no text, are never chosen; 0 for none of
      that kind.

  Raises:
    UserError: a value outside its range.
  """

  length: int = 256
  temperature: float = 1.0
  top_k: int = 0
  top_p: float = 1.0
  min_p: float = 0.0
  repetition_penalty: float = 1.0
  stop: tuple[int, ...] = ()
  suppress: tuple[int, ...] = ()
  begin_suppress: tuple[int, ...] = ()
  beams: int = 1
  length_penalty: float = 1.0
  vocabulary: int = 0

  def __post_init__(self):
    for name in ('stop', 'suppress', 'begin_suppress'):  # a config has them as lists
      object.__setattr__(self, name, tuple(getattr(self, name)))
    checks.whole(self, 1, 'length', 'beams')
    checks.whole(self, 0, 'top_k', 'stop', 'suppress', 'begin_suppress')
    checks.between(self, ('temperature',), at_least=0)
    checks.require('top_p', self.top_p, above=0, at_most=1)
    checks.require('min_p', self.min_p, at_least=0, at_most=1)
    checks.positive(self, 'repetition_penalty')
    checks.require('length_penalty', self.length_penalty)
    if self.beams > 1 and (self.temperature not in (0, 1) or self.top_k or self.top_p < 1 or self.min_p):
      raise UserError(
        f'config.sampler.beams={self.beams} searches for the likeliest text and draws nothing; leave temperature, '
        'top_k, '
        f'top_p and min_p at their defaults, got {dataclasses.asdict(self)}')


def draw(logits_NV: Array, keys: Key, options: SamplerOptions) -> Array:
  """One token a row, int32 N, by temperature, top_k, top_p and min_p; see `SamplerOptions`."""
  if options.temperature == 0:
    # The first of the maxima, as two reductions: XLA for CPUs does not vectorise an argmax.
    most_N1 = jnp.max(logits_NV, axis=-1, keepdims=True)
    vocab = logits_NV.shape[-1]
    return jnp.min(jnp.where(logits_NV == most_N1, jnp.arange(vocab), vocab - 1), axis=-1)
  logits_NV = logits_NV / options.temperature
  if options.top_k or options.top_p < 1:
    sorted_NV = jnp.sort(logits_NV, axis=-1, descending=True)
    floor_N = sorted_NV[:, -1]
    if options.top_k:
      floor_N = sorted_NV[:, min(options.top_k, logits_NV.shape[-1]) - 1]
      sorted_NV = jnp.where(sorted_NV >= floor_N[:, None], sorted_NV, -jnp.inf)
    if options.top_p < 1:
      probability_NV = jax.nn.softmax(sorted_NV, axis=-1)
      before_NV = jnp.cumsum(probability_NV, axis=-1) - probability_NV
      kept_N = jnp.sum(before_NV < options.top_p, axis=-1)
      floor_N = jnp.maximum(floor_N, jnp.take_along_axis(sorted_NV, kept_N[:, None] - 1, axis=-1)[:, 0])
    logits_NV = jnp.where(logits_NV >= floor_N[:, None], logits_NV, -jnp.inf)
  if options.min_p:
    floor_N1 = jnp.max(logits_NV, axis=-1, keepdims=True) + jnp.log(options.min_p)
    logits_NV = jnp.where(logits_NV >= floor_N1, logits_NV, -jnp.inf)
  return jax.vmap(jax.random.categorical)(keys, logits_NV).astype(jnp.int32)


def seen(tokens_NT: Array, vocab: int) -> Array:
  """Which tokens a row has, bool N V; negative ones count for none."""
  rows = tokens_NT.shape[0]
  marks = jnp.zeros((rows, vocab + 1), bool).at[jnp.arange(rows)[:, None],
                                                jnp.where(tokens_NT < 0, vocab, tokens_NT)].set(True)
  return marks[:, :vocab]


def penalise(scores_NV: Array, seen_NV: Array, penalty: float) -> Array:
  """Scores with those of tokens that a row has made less likely; see `SamplerOptions.repetition_penalty`."""
  lower_NV = jnp.where(scores_NV > 0, scores_NV / penalty, scores_NV * penalty)
  return jnp.where(seen_NV, lower_NV, scores_NV)


def _suppressed(scores_NV: Array, options: SamplerOptions, begin: bool) -> Array:
  if options.vocabulary and options.vocabulary < (vocab := scores_NV.shape[1]):
    scores_NV = jnp.where(jnp.arange(vocab) < options.vocabulary, scores_NV, -jnp.inf)
  tokens = options.suppress + (options.begin_suppress if begin else ())
  return scores_NV.at[:, jnp.asarray(tokens)].set(-jnp.inf) if tokens else scores_NV


def decode(step: Step, logits_NV: Array, cache: Tree, keys: Key, text_NT: Array, done_N: Array, length: int,
           options: SamplerOptions, offset: Array | int = 0, emit: Emit | None = None) -> tuple[Array, Array]:
  """`length` more tokens of each row.

  Args:
    step: (token_N, cache, index) -> (logits_NV in float32, cache), where `index` tokens came before this one.
    logits_NV: what follows the prompt.
    cache: after the prompt.
    keys: one a row; token i is drawn with fold_in(key, offset + i).
    text_NT: the text so far, for `repetition_penalty`; negative numbers are no tokens.
    done_N: rows that have ended.
    length: how many.
    options: see `SamplerOptions`; `beams` is not looked at.
    offset: number of tokens generated before.
    emit: called on the host with (index, token_N) in their order, for one device.

  Returns:
    (tokens_NT, done_N): T = length, `END` after the end of a row.
  """
  rows, vocab = logits_NV.shape
  penalised = options.repetition_penalty != 1

  def choose(index: Array | int, logits_NV: Array, done_N: Array, seen_NV: Array | None, begin: bool = False):
    if seen_NV is not None:
      logits_NV = penalise(logits_NV, seen_NV, options.repetition_penalty)
    row_keys = jax.vmap(lambda key: jax.random.fold_in(key, offset + index))(keys)
    token_N = draw(_suppressed(logits_NV, options, begin), row_keys, options)
    shown_N = token_N
    if options.stop:
      shown_N = jnp.where(done_N, END, token_N)
      done_N = done_N | jnp.isin(token_N, jnp.asarray(options.stop))
    if seen_NV is not None:
      seen_NV = seen_NV.at[jnp.arange(rows), token_N].set(True)
    if emit is not None:
      io_callback(emit, None, offset + index, shown_N, ordered=True)
    return token_N, shown_N, done_N, seen_NV

  def advance(carry):
    index, token_N, tokens_TN, cache, done_N, seen_NV = carry
    logits_NV, cache = step(token_N, cache, index - 1)
    token_N, shown_N, done_N, seen_NV = choose(index, logits_NV, done_N, seen_NV)
    return index + 1, token_N, tokens_TN.at[index].set(shown_N), cache, done_N, seen_NV

  def unfinished(carry) -> Array:
    index, *_, done_N, _ = carry
    return (index < length) & ~jnp.all(done_N)

  token_N, shown_N, done_N, seen_NV = choose(0, logits_NV, done_N, seen(text_NT, vocab) if penalised else None,
                                              begin=isinstance(offset, int) and offset == 0)
  tokens_TN = jnp.full((length, rows), END, jnp.int32).at[0].set(shown_N)
  start = jnp.int32(1), token_N, tokens_TN, cache, done_N, seen_NV
  if options.stop:
    _, _, tokens_TN, _, done_N, _ = jax.lax.while_loop(unfinished, advance, start)
  else:  # a known number of rounds, which the count of FLOPs takes into account
    _, _, tokens_TN, _, done_N, _ = jax.lax.fori_loop(1, length, lambda _, carry: advance(carry), start)
  return tokens_TN.T, done_N


def beam_search(step: Step, logits_NV: Array, cache: Tree, text_NT: Array, length: int,
                options: SamplerOptions) -> Array:
  """The likeliest continuation found with M beams a row.

  A beam is a text that goes on; each step takes the best of all their continuations by one token. Those among the M
  best that end there are kept by log-likelihood / length^length_penalty, M of them; the search ends where no beam, at
  its present length, can beat the worst of M finished texts, or at `length` tokens, where beams count as finished.
  These are the rules of `transformers` (4.50 to 5) with early_stopping=False.

  Args:
    step: as in `decode`, for N M rows: the M beams of a row are neighbours.
    logits_NV: what follows the prompt, of N M rows, the M of a row equal.
    cache: after the prompt, of N M rows, which are on the fourth axis from the end of each leaf.
    text_NT: N M texts so far, as in `decode`.
    length: at most so many tokens.
    options: `beams`, `length_penalty`, `stop`, `suppress`, `begin_suppress`, `repetition_penalty`.

  Returns:
    tokens_NT: T = length, `END` after the end of a row.
  """
  beams, stop = options.beams, jnp.asarray(options.stop, jnp.int32)
  rows, vocab = logits_NV.shape[0] // beams, logits_NV.shape[1]
  candidates = max(2, 1 + len(options.stop)) * beams
  known = min(vocab, options.vocabulary or vocab)
  if candidates > beams * known:
    raise UserError(
      f'{beams} beams need {candidates} candidates at each step, and a vocabulary of {known} gives {beams * known}; '
      'take fewer beams or stop tokens')
  first_N1 = beams * jnp.arange(rows)[:, None]

  def take(tree: Tree, index_NM: Array) -> Tree:
    """Of every row, the entries that `index_NM` names."""
    return jax.tree.map(
      lambda leaf: jnp.take_along_axis(leaf, index_NM.reshape(*index_NM.shape, *[1] * (leaf.ndim - 2)), axis=1), tree)

  def extend(carry, logits_XV: Array, begin: bool = False):
    """One token more, from the logits of all beams (X = N M)."""
    index, running, finished, improvable_N, seen_NMV = carry
    scores_XV = jax.nn.log_softmax(logits_XV, axis=-1)
    if seen_NMV is not None:
      scores_XV = penalise(scores_XV, seen_NMV.reshape(-1, vocab), options.repetition_penalty)
    scores_XV = _suppressed(scores_XV, options, begin)
    total_NMV = scores_XV.reshape(rows, beams, vocab) + running['score'][:, :, None]
    score_NC, place_NC = jax.lax.top_k(total_NMV.reshape(rows, -1), candidates)
    beam_NC, token_NC = place_NC // vocab, (place_NC % vocab).astype(jnp.int32)
    tokens_NCT = take(running['tokens'], beam_NC).at[:, :, index].set(token_NC)
    ended_NC = jnp.isin(token_NC, stop) | (index + 1 >= length)

    alive_NC = score_NC + jnp.where(ended_NC, _LOWEST, 0.0)
    alive_NM, best_NM = jax.lax.top_k(alive_NC, beams)
    parent_NM = jnp.take_along_axis(beam_NC, best_NM, axis=1)
    running = {'score': alive_NM, 'tokens': take(tokens_NCT, best_NM)}
    if seen_NMV is not None:
      last_NM = jnp.take_along_axis(token_NC, best_NM, axis=1)
      seen_NMV = take(seen_NMV, parent_NM).at[jnp.arange(rows)[:, None], jnp.arange(beams), last_NM].set(True)

    size = (index + 1.0) ** options.length_penalty
    counts_NC = ended_NC & (jnp.arange(candidates) < beams)
    score_NC = score_NC / size + jnp.where(counts_NC & improvable_N[:, None], 0.0, _LOWEST)
    merged = {'score': jnp.concatenate([finished['score'], score_NC], axis=1),
              'tokens': jnp.concatenate([finished['tokens'], tokens_NCT], axis=1),
              'full': jnp.concatenate([finished['full'], counts_NC], axis=1)}
    finished = take(merged, jax.lax.top_k(merged['score'], beams)[1])
    worst_NM = jnp.where(finished['full'], jnp.min(finished['score'], axis=1, keepdims=True), _LOWEST)
    improvable_N = improvable_N & jnp.any(running['score'][:, :1] / size > worst_NM, axis=1)
    return (index + 1, running, finished, improvable_N, seen_NMV), (first_N1 + parent_NM).reshape(-1)

  def advance(carry):
    state, cache, parent_X = carry
    token_X = jax.lax.dynamic_index_in_dim(state[1]['tokens'], state[0] - 1, axis=2, keepdims=False).reshape(-1)
    cache = jax.tree.map(lambda leaf: jnp.take(leaf, parent_X, axis=leaf.ndim - 4), cache)
    logits_XV, cache = step(token_X, cache, state[0] - 1)
    state, parent_X = extend(state, logits_XV)
    return state, cache, parent_X

  empty_NMT = jnp.full((rows, beams, length), END, jnp.int32)
  # Beams of a row are equal at first: only the first one may be continued.
  running = {'score': jnp.full((rows, beams), _LOWEST).at[:, 0].set(0.0), 'tokens': empty_NMT}
  finished = {'score': jnp.full((rows, beams), _LOWEST), 'tokens': empty_NMT, 'full': jnp.zeros((rows, beams), bool)}
  seen_NMV = seen(text_NT, vocab).reshape(rows, beams, vocab) if options.repetition_penalty != 1 else None
  state, parent_X = extend((jnp.int32(0), running, finished, jnp.ones(rows, bool), seen_NMV), logits_NV, begin=True)
  unfinished = lambda carry: (carry[0][0] < length) & jnp.any(carry[0][3])
  (_, _, finished, _, _), _, _ = jax.lax.while_loop(unfinished, advance, (state, cache, parent_X))
  return finished['tokens'][:, 0]
