"""Causal language models: next-token cross-entropy, and generation with a key/value cache."""

from collections.abc import Callable, Mapping
import dataclasses
import math

import jax
import jax.numpy as jnp

from genjax.nn.functional import Network
from genjax.objectives.base import Context, Output, Phase, Variables, weighted_mean
from genjax.objectives.cross_entropy import token_losses
from genjax.types import Array, Batch, Key, Params, Tree, UserError


@dataclasses.dataclass(frozen=True)
class SamplerOptions:
  """How tokens are drawn.

  length: tokens to generate after the prompt. temperature: logits are divided by it; 0 takes the likeliest token. top_k: keep
  the k likeliest tokens, 0 keeps all (Fan et al. 2018). top_p: keep the smallest set of likeliest tokens with at least
  this probability, 1 keeps all (nucleus sampling, Holtzman et al. 2020).

  Raises:
    UserError: a value outside its range.
  """

  length: int = 256
  temperature: float = 1.0
  top_k: int = 0
  top_p: float = 1.0

  def __post_init__(self):
    if self.length < 1 or self.temperature < 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
      raise UserError('config.sampler of a language model takes length >= 1, temperature >= 0, top_k >= 0 and 0 < top_p <= 1, '
                      f'got {dataclasses.asdict(self)}')


@dataclasses.dataclass(frozen=True)
class LanguageModel:
  """p(tokens) = prod_t p(token_t | tokens before t).

  network: tokens B T -> logits B T V, with `cache`, `position` and `project` as `genjax.models.transformer.transformer` has them.
  init_cache: (batch, length) -> empty cache. context: longest sequence of the network. sampler: how tokens are drawn.
  bytes_per_token: mean bytes of text in a token, for bits per byte. lay_out: parameters of the network -> what its `apply` takes in
  their place, computed once before the loop over tokens.

  Batches: 'tokens' int32 B T+1; optional 'weights' float32 B T weights the loss of each predicted token.
  Conditions: 'prompt' int32 N P, with 1 <= P < context.
  """

  network: Network
  init_cache: Callable[[int, int], Tree]
  context: int
  sampler: SamplerOptions = SamplerOptions()
  bytes_per_token: float = 1.0
  lay_out: Callable[[Params], Params] = lambda params: params

  def init(self, key: Key, frozen: Params) -> Variables:
    params, mutable = self.network.init(key)
    return Variables({'net': params}, mutable)

  def phases(self) -> tuple[Phase, ...]:
    return (Phase('lm', ('net',), self.loss),)

  def loss(self, params: Params, context: Context, batch: Batch, key: Key) -> Output:
    """Mean negative log-likelihood in nats per token."""
    nll_BT, correct_BT, mutable = self._score(params, context, batch, key)
    weights_BT = batch.get('weights', jnp.ones_like(nll_BT))
    loss, weight = weighted_mean(nll_BT, weights_BT)
    return Output(loss, {'accuracy': weighted_mean(correct_BT, weights_BT)[0]}, mutable, weight)

  def _score(self, params: Params, context: Context, batch: Batch, key: Key | None):
    tokens_BT = batch['tokens']
    (hidden_BTD, weight_VD), mutable = self.network.apply(params['net'], context.mutable, tokens_BT[:, :-1], key=key, project=False)
    nll_BT, correct_BT = token_losses(hidden_BTD, weight_VD, tokens_BT[:, 1:])
    return nll_BT, correct_BT, mutable

  def evaluate(self, params: Params, context: Context, batch: Batch, key: Key) -> dict[str, Array]:
    """'loss' in nats per token, 'bits_per_byte' and 'accuracy', weighted by the number of tokens."""
    nll_BT, correct_BT, _ = self._score(params, context, batch, None)
    weights_BT = batch.get('weights', jnp.ones_like(nll_BT))
    weight_B = jnp.sum(weights_BT, axis=1)
    safe_B = jnp.maximum(weight_B, 1e-12)
    loss_B = jnp.sum(nll_BT * weights_BT, axis=1) / safe_B
    accuracy_B = jnp.sum(correct_BT * weights_BT, axis=1) / safe_B
    return {'loss': loss_B, 'bits_per_byte': loss_B / (math.log(2) * self.bytes_per_token), 'accuracy': accuracy_B, 'weight': weight_B}

  def sample(self, params: Params, context: Context, keys: Key, conditions: Mapping[str, Array]) -> dict[str, Array]:
    """Continues prompts: 'tokens' int32 N P+length, the prompt included.

    Where a text outgrows the context, generation goes on from its last half context, read anew.

    Raises:
      UserError: an empty prompt, or one that fills the context.
    """
    prompt_NP = conditions['prompt']
    size = prompt_NP.shape[1]
    if not 0 < size < self.context:
      raise UserError(f'a prompt has 1 to {self.context - 1} tokens (the context is {self.context}), got {size}')
    params = {**params, 'net': self.lay_out(params['net'])}
    length = self.sampler.length
    first = min(length, self.context - size)
    parts = [prompt_NP, self._extend(params, context, keys, prompt_NP, 0, first)]
    half = self.context // 2
    stride = self.context - half
    segments = -(-(length - first) // stride)
    if segments:
      def segment(window_NP: Array, number: Array) -> tuple[Array, Array]:
        new_NT = self._extend(params, context, keys, window_NP, first + number * stride, stride)
        return jnp.concatenate([window_NP, new_NT], axis=1)[:, -half:], new_NT

      window_NP = jnp.concatenate(parts, axis=1)[:, -half:]
      _, new_MNT = jax.lax.scan(segment, window_NP, jnp.arange(segments))
      parts.append(new_MNT.swapaxes(0, 1).reshape(prompt_NP.shape[0], -1)[:, :length - first])
    return {'tokens': jnp.concatenate(parts, axis=1)}

  def _extend(self, params: Params, context: Context, keys: Key, prefix_NP: Array, offset: Array | int, length: int) -> Array:
    """`length` tokens after a prefix, with one pass over the prefix and one token a step after it."""
    rows, size = prefix_NP.shape

    def forward(tokens_NT: Array, cache: Tree, position: Array | int) -> tuple[Array, Tree]:
      (logits_NTV, cache), _ = self.network.apply(params['net'], context.mutable, tokens_NT, cache=cache, position=position)
      return logits_NTV[:, -1].astype(jnp.float32), cache

    def step(carry, index: Array):
      logits_NV, cache = carry
      row_keys = jax.vmap(lambda key: jax.random.fold_in(key, offset + index))(keys)
      token_N = draw(logits_NV, row_keys, self.sampler)
      return forward(token_N[:, None], cache, size + index), token_N

    state = forward(prefix_NP, self.init_cache(rows, size + length), 0)
    _, token_TN = jax.lax.scan(step, state, jnp.arange(length))
    return token_TN.T


def draw(logits_NV: Array, keys: Key, options: SamplerOptions) -> Array:
  """One token a row, int32 N; see `SamplerOptions`."""
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
  return jax.vmap(jax.random.categorical)(keys, logits_NV).astype(jnp.int32)
