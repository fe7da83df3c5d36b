"""Language models that read a fixed number of symbols: cross-entropy of the next one, and generation."""

from collections.abc import Mapping
import dataclasses

import jax
import jax.numpy as jnp

from genjax import checks
from genjax.nn.functional import Network
from genjax.objectives.base import Context, Output, Phase, Variables
from genjax.objectives.decoding import SamplerOptions, decode
from genjax.types import Array, Batch, Key, Params, Tree, UserError


@dataclasses.dataclass(frozen=True)
class Ngrams:
  """p(text) = prod_t p(symbol_t | the K symbols before t); group 'net'.

  network: symbols B K -> logits B V. window: number K. start: symbol that fills the window before a text. sampler: how
    symbols are drawn.

  Batches: 'context' int32 B K, 'next' int32 B.
  Conditions: 'prompt' int32 N P; shorter prompts end in -1.

  Raises:
    UserError: the sampler has beams.
  """

  network: Network
  window: int
  start: int
  sampler: SamplerOptions = SamplerOptions()

  def __post_init__(self):
    checks.whole(self, 1, 'window')
    checks.whole(self, 0, 'start')
    if self.sampler.beams > 1:
      raise UserError(f'config.sampler.beams must be 1: these models draw symbols, got {self.sampler.beams}')

  def init(self, key: Key, frozen: Params) -> Variables:
    params, mutable = self.network.init(key)
    return Variables({'net': params}, mutable)

  def phases(self) -> tuple[Phase, ...]:
    return (Phase('ngrams', ('net',), self.loss),)

  def loss(self, params: Params, context: Context, batch: Batch, key: Key) -> Output:
    """Mean negative log-likelihood in nats per symbol."""
    nll_B, correct_B, mutable = self._score(params, context, batch, key)
    return Output(jnp.mean(nll_B), {'accuracy': jnp.mean(correct_B)}, mutable, weight=len(nll_B))

  def evaluate(self, params: Params, context: Context, batch: Batch, key: Key) -> dict[str, Array]:
    """'loss' in nats per symbol, and 'accuracy'."""
    nll_B, correct_B, _ = self._score(params, context, batch, None)
    return {'loss': nll_B, 'accuracy': correct_B}

  def _score(self, params: Params, context: Context, batch: Batch, key: Key | None) -> tuple[Array, Array, Tree]:
    logits_BV, mutable = self.network.apply(params['net'], context.mutable, batch['context'], key=key)
    log_BV = jax.nn.log_softmax(logits_BV)
    nll_B = -jnp.take_along_axis(log_BV, batch['next'][:, None], axis=1)[:, 0]
    return nll_B, (jnp.argmax(logits_BV, axis=1) == batch['next']).astype(jnp.float32), mutable

  def sample(self, params: Params, context: Context, keys: Key, conditions: Mapping[str, Array]) -> dict[str, Array]:
    """Continues prompts: 'tokens' int32 N P+length, each row a prompt, its continuation and then -1."""
    prompt_NP = conditions['prompt']
    rows, size = prompt_NP.shape
    length_N1 = jnp.sum(prompt_NP >= 0, axis=1, keepdims=True)
    place_NK = length_N1 - self.window + jnp.arange(self.window)  # of the last symbols; negative before the prompt
    last_NK = jnp.take_along_axis(prompt_NP, jnp.clip(place_NK, 0, size - 1), axis=1)
    window_NK = jnp.where(place_NK < 0, self.start, last_NK)

    def logits(window_NK: Array) -> Array:
      return self.network.apply(params['net'], context.mutable, window_NK)[0]

    def step(token_N: Array, window_NK: Tree, index: Array) -> tuple[Array, Tree]:
      window_NK = jnp.concatenate([window_NK[:, 1:], token_N[:, None]], axis=1)
      return logits(window_NK), window_NK

    new_NT, _ = decode(step, logits(window_NK), window_NK, keys, prompt_NP, jnp.zeros(rows, bool), self.sampler.length,
                       self.sampler)
    joined_NT = jnp.concatenate([prompt_NP, new_NT], axis=1)
    order_NT = jnp.argsort(joined_NT < 0, axis=1, stable=True)  # what fills shorter prompts goes to the end
    return {'tokens': jnp.take_along_axis(joined_NT, order_NT, axis=1)}
