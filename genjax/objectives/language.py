"""Causal language models: next-token cross-entropy, and generation with a key/value cache."""

from collections.abc import Callable, Mapping
import dataclasses
import math

import jax
import jax.numpy as jnp

from genjax import checks
from genjax.nn.functional import Network
from genjax.objectives.base import Context, Output, Phase, Variables, weighted_mean
from genjax.objectives.cross_entropy import token_losses
from genjax.objectives.decoding import Emit, SamplerOptions, beam_search, decode
from genjax.types import Array, Batch, Key, Params, Tree, UserError


@dataclasses.dataclass(frozen=True)
class LanguageModel:
  """p(tokens) = prod_t p(token_t | tokens before t).

  network: tokens B T -> logits B T V, with `cache`, `position`, `project` and, if there is a balance, `balance_BT` as
  `genjax.models.transformers.decoder.transformer` has them.
  init_cache: (batch, length) -> empty cache. context: longest sequence of the network. sampler: how tokens are drawn.
  bytes_per_token: mean bytes of text in a token, for bits per byte; None where no text is known, and then there are
    none.
  lay_out: parameters of the network -> what its `apply` takes in their place, computed once before the loop over
    tokens.
  balance: weight in the loss of the network's load-balancing loss, over the tokens
  of the batch that predict one, or with accumulation of each microbatch.

  Batches: 'tokens' int32 B T+1; optional 'weights' float32 B T weights the loss of each predicted token; optional
  'segments' int32 B T+1 has an id for each of several texts in a row, which see nothing of each other and predict no
  token of each other, with positions from 0 on in each.
  Conditions: 'prompt' int32 N P, with 1 <= P < context; shorter prompts end in -1.
  """

  network: Network
  init_cache: Callable[[int, int], Tree]
  context: int
  sampler: SamplerOptions = SamplerOptions()
  bytes_per_token: float | None = None
  lay_out: Callable[[Params], Params] = lambda params: params
  balance: float = 0.0

  emits = True

  def __post_init__(self):
    checks.whole(self, 1, 'context')
    checks.positive(self, 'bytes_per_token')
    checks.between(self, ('balance',), at_least=0)

  def init(self, key: Key, frozen: Params) -> Variables:
    params, mutable = self.network.init(key)
    return Variables({'net': params}, mutable)

  def phases(self) -> tuple[Phase, ...]:
    return (Phase('lm', ('net',), self.loss),)

  def loss(self, params: Params, context: Context, batch: Batch, key: Key) -> Output:
    """Mean negative log-likelihood in nats per token ('nll' with a balance loss), plus the weighted 'balance'."""
    nll_BT, correct_BT, weights_BT, balance, mutable = self._score(params, context, batch, key, bool(self.balance))
    loss, weight = weighted_mean(nll_BT, weights_BT)
    metrics = {'accuracy': weighted_mean(correct_BT, weights_BT)[0]}
    if balance is None:
      return Output(loss, metrics, mutable, weight)
    return Output(loss + self.balance * balance, metrics | {'nll': loss, 'balance': balance}, mutable, weight)

  def _score(self, params: Params, context: Context, batch: Batch, key: Key | None, balanced: bool = False):
    """Losses, hits and weights of predicted tokens, each B T; the load-balancing loss or None; the new mutable tree."""
    tokens_BT, options = batch['tokens'], {'key': key, 'project': False}
    weights_BT = batch.get('weights', jnp.ones(tokens_BT[:, 1:].shape))
    if 'segments' in batch:
      inside_BT, next_BT = batch['segments'][:, :-1], batch['segments'][:, 1:]
      options |= {'segments_BT': inside_BT, 'positions_BT': segment_positions(inside_BT)}
      weights_BT *= inside_BT == next_BT
    if balanced:
      options['balance_BT'] = (weights_BT > 0).astype(jnp.float32)
    output, mutable = self.network.apply(params['net'], context.mutable, tokens_BT[:, :-1], **options)
    (hidden_BTD, weight_VD), balance = output if balanced else (output, None)
    nll_BT, correct_BT = token_losses(hidden_BTD, weight_VD, tokens_BT[:, 1:])
    return nll_BT, correct_BT, weights_BT, balance, mutable

  def evaluate(self, params: Params, context: Context, batch: Batch, key: Key) -> dict[str, Array]:
    """'loss' in nats per token, 'accuracy', and 'bits_per_byte' if `bytes_per_token` is known; weighted by tokens."""
    nll_BT, correct_BT, weights_BT, *_ = self._score(params, context, batch, None)
    loss_B, weight_B = weighted_mean(nll_BT, weights_BT, axis=1)
    accuracy_B, _ = weighted_mean(correct_BT, weights_BT, axis=1)
    values = {'loss': loss_B, 'accuracy': accuracy_B, 'weight': weight_B}
    return values if self.bytes_per_token is None else values | {
      'bits_per_byte': loss_B / (math.log(2) * self.bytes_per_token)
    }

  def sample(self, params: Params, context: Context, keys: Key, conditions: Mapping[str, Array],
             emit: Emit | None = None) -> dict[str, Array]:
    """Continues prompts: 'tokens' int32 N P+length, each row a prompt, its continuation and then `END` (-1).

    If a text exceeds the context, generation continues from its last half context, which is read again.

    Args:
      params, context, keys: see `genjax.objectives.base.Objective`.
      conditions: see the class.
      emit: see `genjax.objectives.decoding.decode`; not with beams.

    Raises:
      UserError: the prompt is empty or fills the context, or with beams it leaves too few positions.
    """
    prompt_NP = conditions['prompt']
    rows, size = prompt_NP.shape
    if not 0 < size < self.context:
      raise UserError(f'a prompt must have 1 to {self.context - 1} tokens (the context is {self.context}), got {size}')
    params = {**params, 'net': self.lay_out(params['net'])}
    length = self.sampler.length
    pad_N = jnp.sum(prompt_NP < 0, axis=1)
    text_NP = _roll(prompt_NP, pad_N)  # align the ends, so that all rows continue at the same slot
    if self.sampler.beams > 1:
      if size + length > self.context:
        raise UserError(
          f'beam search is limited to the context of {self.context} tokens; a prompt of {size} leaves less than the '
          f'{length} of config.sampler.length')
      texts_NT = jnp.repeat(text_NP, self.sampler.beams, axis=0)
      step, logits_NV, cache = self._read(params, context, texts_NT, jnp.repeat(pad_N, self.sampler.beams), length)
      new_NT = beam_search(step, logits_NV, cache, texts_NT, length, self.sampler)
      return {'tokens': _roll(jnp.concatenate([text_NP, new_NT], axis=1), -pad_N)}
    first = min(length, self.context - size)
    # The last window may exceed the length.
    tell = None if emit is None else lambda index, token_N: emit(index, token_N) if index < length else None

    def extend(text_NT: Array, pad_N: Array, done_N: Array, offset: Array | int, count: int) -> tuple[Array, Array]:
      step, logits_NV, cache = self._read(params, context, text_NT, pad_N, count)
      return decode(step, logits_NV, cache, keys, text_NT, done_N, count, self.sampler, offset, tell)

    new_NT, done_N = extend(text_NP, pad_N, jnp.zeros(rows, bool), 0, first)
    parts = [text_NP, new_NT]
    half = self.context // 2
    stride = self.context - half
    segments = -(-(length - first) // stride)
    if segments:
      def segment(carry, number: Array) -> tuple[tuple[Array, Array, Array], Array]:
        window_NP, pad_N, done_N = carry
        new_NT, done_N = extend(window_NP, pad_N, done_N, first + number * stride, stride)
        return (jnp.concatenate([window_NP, new_NT], axis=1)[:, -half:], jnp.maximum(pad_N - stride, 0), done_N), new_NT

      window_NP = jnp.concatenate(parts, axis=1)[:, -half:]
      carry = window_NP, jnp.maximum(pad_N - (size + first - half), 0), done_N
      _, new_MNT = jax.lax.scan(segment, carry, jnp.arange(segments))
      parts.append(new_MNT.swapaxes(0, 1).reshape(rows, -1)[:, :length - first])
    return {'tokens': _roll(jnp.concatenate(parts, axis=1), -pad_N)}

  def _read(self, params: Params, context: Context, text_NT: Array, pad_N: Array, room: int):
    """Reads texts that begin with `pad_N` slots of padding. Returns (step, logits_NV, cache) for `decode`.

    The cache has free slots for `room` more tokens.
    """
    rows, size = text_NT.shape

    def forward(tokens_NT: Array, cache: Tree, position: Array | int) -> tuple[Array, Tree]:
      (logits_NTV, cache), _ = self.network.apply(params['net'], context.mutable, tokens_NT, cache=cache,
                                                  position=position, first_B=pad_N)
      return logits_NTV[:, -1].astype(jnp.float32), cache

    logits_NV, cache = forward(jnp.maximum(text_NT, 0), self.init_cache(rows, size + room), 0)
    return (lambda token_N, cache, index: forward(token_N[:, None], cache, size + index)), logits_NV, cache


def _roll(text_NT: Array, shift_N: Array) -> Array:
  """Rolls each row to the right by its own shift."""
  length = text_NT.shape[1]
  return jnp.take_along_axis(text_NT, (jnp.arange(length) - shift_N[:, None]) % length, axis=1)


def segment_positions(segments_BT: Array) -> Array:
  """Positions that start at 0 in each run of equal ids, int32 B T."""
  index_T = jnp.arange(segments_BT.shape[1], dtype=jnp.int32)
  starts_BT = jnp.pad(segments_BT[:, 1:] != segments_BT[:, :-1], ((0, 0), (1, 0)), constant_values=True)
  return index_T - jax.lax.cummax(jnp.where(starts_BT, index_T, 0), axis=1)
