"""Masked language models: tokens are hidden and predicted from both sides (Devlin et al. 2018, section 3.1)."""

from collections.abc import Mapping
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from genjax import checks, sharding
from genjax.nn.functional import Network
from genjax.objectives.base import Context, Output, Phase, Variables, weighted_mean
from genjax.objectives.classification import cross_entropy, hits
from genjax.objectives.cross_entropy import token_losses
from genjax.types import Array, Batch, Key, Params, UserError

MASKED, RANDOM = 0.8, 0.1  # shares of the chosen tokens that become the mask token, and a random one; the others stay


@dataclasses.dataclass(frozen=True)
class MaskingOptions:
  """Which tokens are chosen, and what is put in their place.

  Attributes:
    vocab: size of the vocabulary, from which random tokens are drawn.
    mask: the token that hides others.
    special: tokens that are never chosen: separators, padding, the mask itself.
    rate: share of the other tokens that is chosen, rounded to whole tokens, at least one.

  Raises:
    UserError: a token outside the vocabulary, or a rate outside (0, 1).
  """

  vocab: int
  mask: int
  special: tuple[int, ...] = ()
  rate: float = 0.15

  def __post_init__(self):
    if outside := [token for token in (self.mask, *self.special) if not 0 <= token < self.vocab]:
      raise UserError(f'tokens must lie in the vocabulary, 0 .. {self.vocab - 1}, got {outside}')
    checks.require('rate', self.rate, above=0, below=1)


class Masked(NamedTuple):
  """Tokens with some hidden.

  tokens_BT: what the network reads. positions_BP: places of the chosen tokens, P being the most that a row of T tokens
    can have.
  targets_BP: the tokens that stood there. weights_BP: 1 where a place is chosen, 0 for those left over.
  """

  tokens_BT: Array
  positions_BP: Array
  targets_BP: Array
  weights_BP: Array


def hide(key: Key, tokens_BT: Array, options: MaskingOptions, mask_BT: Array | None = None) -> Masked:
  """Chooses tokens and hides 80 % of them behind the mask token, 10 % behind a random one, and 10 % not at all.

  Args:
    key: what is drawn.
    tokens_BT: int32.
    options: see there.
    mask_BT: zero on padding, which is never chosen.
  """
  choice_key, kind_key, random_key = jax.random.split(key, 3)
  length = tokens_BT.shape[1]
  eligible_BT = jnp.all(tokens_BT[..., None] != jnp.asarray((options.mask, *options.special)), axis=-1)
  if mask_BT is not None:
    eligible_BT &= mask_BT != 0
  most = max(1, round(options.rate * length))
  places = most + -most % sharding.shards('sequence')  # on a mesh that splits sequences, as many on each device
  count_B = jnp.sum(eligible_BT, axis=1)
  chosen_B = jnp.clip(jnp.round(options.rate * count_B), jnp.minimum(1, count_B), most)
  score_BT = jnp.where(eligible_BT, jax.random.uniform(choice_key, tokens_BT.shape), -1.0)
  positions_BP = jax.lax.top_k(score_BT, places)[1]
  weights_BP = (jnp.arange(places) < chosen_B[:, None]).astype(jnp.float32)
  # Drawn for every token, so that neither the rate nor the mesh changes what is drawn for one.
  kind_BT = jax.random.uniform(kind_key, tokens_BT.shape)
  random_BT = jax.random.randint(random_key, tokens_BT.shape, 0, options.vocab, tokens_BT.dtype)
  targets_BP, kind_BP, random_BP = (
    jnp.take_along_axis(x_BT, positions_BP, axis=1) for x_BT in (tokens_BT, kind_BT, random_BT))
  new_BP = jnp.where(kind_BP < MASKED, options.mask, jnp.where(kind_BP < MASKED + RANDOM, random_BP, targets_BP))
  new_BP = jnp.where(weights_BP > 0, new_BP, targets_BP)
  rows_B1 = jnp.arange(len(tokens_BT))[:, None]
  return Masked(tokens_BT.at[rows_B1, positions_BP].set(new_BP.astype(tokens_BT.dtype)), positions_BP, targets_BP,
                weights_BP)


@dataclasses.dataclass(frozen=True)
class MaskedLanguageModel:
  """Predicts hidden tokens and, if asked, whether the second segment of a row follows the first; group 'net'.

  network: (tokens_BT, types_BT, mask_BT, positions_BP) -> outputs by name, 'tokens' and with `next_sentence`
  'next_sentence', as `genjax.models.transformers.bert.encoder` has them. masking: see `MaskingOptions`. next_sentence:
  adds the loss of that (section 3.1, task 2).

  Batches: 'tokens' int32 B T; optional 'types' int32 B T, the segment of each token; optional 'weights' B T, zero on
  padding; with `next_sentence`, 'next_sentence' int32 B, 0 where the second segment follows the first and 1 where it
  does not.
  Conditions: 'prompt' int32 N T, in which mask tokens stand for what is to be filled in and -1 for padding; optional
    'types' as above.
  """

  network: Network
  masking: MaskingOptions
  next_sentence: bool = False

  def init(self, key: Key, frozen: Params) -> Variables:
    params, mutable = self.network.init(key)
    return Variables({'net': params}, mutable)

  def phases(self) -> tuple[Phase, ...]:
    return (Phase('masked_lm', ('net',), self.loss),)

  def loss(self, params: Params, context: Context, batch: Batch, key: Key) -> Output:
    """Mean negative log-likelihood of hidden tokens in nats, plus that of the relation of segments.

    The weight is the number of hidden tokens: with `next_sentence`, accumulation over microbatches equals the full
    batch where all have equally many.
    """
    mask_key, net_key = jax.random.split(key)
    scores, weights_BP, mutable = self._score(params, context, batch, mask_key, net_key)
    loss, weight = weighted_mean(scores['loss'], weights_BP)
    metrics = {'accuracy': weighted_mean(scores['accuracy'], weights_BP)[0]}
    if self.next_sentence:
      metrics |= {'token_loss': loss, 'next_sentence_loss': jnp.mean(scores['next_sentence_loss']),
                  'next_sentence_accuracy': jnp.mean(scores['next_sentence_accuracy'])}
      loss = loss + metrics['next_sentence_loss']
    return Output(loss, metrics, mutable, weight)

  def _score(self, params: Params, context: Context, batch: Batch, mask_key: Key, net_key: Key | None):
    """Losses and hits, of tokens B P and of segments B, and the weights of the former."""
    mask_BT = batch.get('weights')
    hidden = hide(mask_key, batch['tokens'], self.masking, mask_BT)
    outputs, mutable = self.network.apply(params['net'], context.mutable, hidden.tokens_BT, batch.get('types'), mask_BT,
                                          hidden.positions_BP, key=net_key, project=False)
    states_BPE, weight_VE = outputs['tokens']
    loss_BP, hit_BP = token_losses(states_BPE, weight_VE, hidden.targets_BP)
    scores = {'loss': loss_BP, 'accuracy': hit_BP}
    if self.next_sentence:
      logits_B2 = outputs['next_sentence'].astype(jnp.float32)
      scores['next_sentence_loss'] = cross_entropy(logits_B2, batch['next_sentence'])
      scores['next_sentence_accuracy'] = hits(logits_B2, batch['next_sentence'])
    return scores, hidden.weights_BP, mutable

  def evaluate(self, params: Params, context: Context, batch: Batch, key: Key) -> dict[str, Array]:
    """'loss' in nats per hidden token and 'accuracy'; with `next_sentence` also 'next_sentence_loss' and
    'next_sentence_accuracy'.

    'weight', the number of hidden tokens, weights them all. Which tokens are hidden depends on the key.
    """
    scores, weights_BP, _ = self._score(params, context, batch, key, None)
    means = {
      name: weighted_mean(value, weights_BP, axis=1)[0] if value.ndim == 2 else value for name, value in scores.items()
    }
    return means | {'weight': jnp.sum(weights_BP, axis=1)}

  def sample(self, params: Params, context: Context, keys: Key, conditions: Mapping[str, Array]) -> dict[str, Array]:
    """Fills in mask tokens, each drawn by itself given all that is not masked: 'tokens' int32 N T, -1 on padding.

    Neither the mask is drawn nor a token beyond the vocabulary of `masking`, which a padded network has and no text.
    """
    tokens_NT = conditions['prompt']
    outputs, _ = self.network.apply(params['net'], context.mutable, jnp.maximum(tokens_NT, 0), conditions.get('types'),
                                    tokens_NT >= 0)
    logits_NTV = outputs['tokens'].astype(jnp.float32).at[..., self.masking.mask].set(-jnp.inf)
    if self.masking.vocab < (vocab := logits_NTV.shape[-1]):
      logits_NTV = jnp.where(jnp.arange(vocab) < self.masking.vocab, logits_NTV, -jnp.inf)
    drawn_NT = jax.vmap(jax.random.categorical)(keys, logits_NTV)
    return {'tokens': jnp.where(tokens_NT == self.masking.mask, drawn_NT.astype(tokens_NT.dtype), tokens_NT)}
