"""Classification of sequences: the head of an encoder reads the state of the first token (Devlin et al. 2018, section
4.1)."""

from collections.abc import Mapping
import dataclasses

import jax.numpy as jnp

from genjax import checks
from genjax.nn.functional import Network
from genjax.objectives.base import Context, Output, Phase, Variables
from genjax.objectives.classification import cross_entropy, hits
from genjax.types import Array, Batch, Key, Params, UserError


@dataclasses.dataclass(frozen=True)
class SequenceClassification:
  """Cross entropy of labels given tokens; group 'net'.

  Attributes:
    network: (tokens_BT, types_BT, mask_BT) -> outputs by name, of which 'classes' is logits B K, as
      `genjax.models.transformers.bert.encoder` has them.
    smoothing: share of the target's mass that is spread evenly over all classes (Szegedy et al. 2016, section 7).

  Batches: 'tokens' int32 B T; optional 'types' int32 B T, the segment of each token; optional 'weights' B T, zero on
  padding; 'label' int32 B.

  Raises:
    UserError: a share out of range.
  """

  network: Network
  smoothing: float = 0.0

  def __post_init__(self):
    checks.rates(self, 'smoothing')

  def init(self, key: Key, frozen: Params) -> Variables:
    params, mutable = self.network.init(key)
    return Variables({'net': params}, mutable)

  def phases(self) -> tuple[Phase, ...]:
    return (Phase('classification', ('net',), self.loss),)

  def loss(self, params: Params, context: Context, batch: Batch, key: Key) -> Output:
    """Mean cross entropy in nats; logs the accuracy."""
    logits_BK, mutable = self._apply(params, context, batch, key)
    loss = jnp.mean(cross_entropy(logits_BK, batch['label'], self.smoothing))
    return Output(loss, {'accuracy': jnp.mean(hits(logits_BK, batch['label']))}, mutable,
                  weight=float(len(batch['label'])))

  def evaluate(self, params: Params, context: Context, batch: Batch, key: Key) -> dict[str, Array]:
    """'loss' (cross entropy in nats, without smoothing) and 'accuracy' (0 or 1)."""
    logits_BK, _ = self._apply(params, context, batch, None)
    return {'loss': cross_entropy(logits_BK, batch['label']), 'accuracy': hits(logits_BK, batch['label'])}

  def _apply(self, params: Params, context: Context, batch: Batch, key: Key | None):
    types_BT, mask_BT = batch.get('types'), batch.get('weights')
    outputs, mutable = self.network.apply(params['net'], context.mutable, batch['tokens'], types_BT, mask_BT, key=key)
    return outputs['classes'].astype(jnp.float32), mutable

  def sample(self, params: Params, context: Context, keys: Key, conditions: Mapping[str, Array]) -> dict[str, Array]:
    """Always an error.

    Raises:
      UserError: a classifier does not generate.
    """
    raise UserError(
      'expected a generative model, got a classifier of sequences, which has nothing to sample; look at it with '
      'genjax evaluate, and train with config.sample_every=0')
