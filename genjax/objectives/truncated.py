"""Samples of a GAN from a truncated latent, with batch statistics that belong to it (Brock et al. 2019)."""

from collections.abc import Mapping
import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from genjax import checks
from genjax.objectives.gan import Gan
from genjax.types import Array, Key, Tree, UserError

STATISTICS = ('mean', 'var')  # leaves of a batch norm that are averages over batches
_STANDING = 271  # the seed of the passes: statistics do not depend on what is sampled


@dataclasses.dataclass(frozen=True)
class TruncatedGan(Gan):
  """A GAN whose samples may be truncated. It has the options of `Gan`, and

  Attributes:
    momentum: decay of the running averages of the generator's batch norms.
    truncation: samples have latents of a normal distribution that is cut off at this absolute value (section 3.1): the
      smaller, the better and the more alike. 0 for the whole distribution.
    standing: passes in training mode whose mean batch statistics samples are normalised by, in place of the running
      averages, which belong to whole latents and to parameters that were not averaged (standing statistics, in the
      appendix). 0 for the running averages. Each batch of samples repeats the passes.
    standing_batch: samples of such a pass.

  Raises:
    UserError: truncation of a uniform latent, or without statistics of its own.
  """

  of_model: ClassVar[Mapping[str, str]] = {**Gan.of_model, 'momentum': 'config.model.momentum'}

  momentum: float = dataclasses.field(default=0.9, kw_only=True)
  truncation: float = 0.0
  standing: int = 0
  standing_batch: int = 64

  def __post_init__(self):
    super().__post_init__()
    checks.whole(self, 0, 'standing')
    checks.whole(self, 2, 'standing_batch')
    checks.between(self, ('truncation',), at_least=0)
    if self.truncation and self.distribution != 'normal':
      raise UserError('config.objective.truncation cuts off a normal latent, and config.objective.distribution is '
                      f'{self.distribution!r}; leave truncation at 0')
    if self.truncation and not self.standing:
      raise UserError(f'config.objective.truncation={self.truncation} needs batch statistics of truncated latents; the '
                      'running averages are those of whole ones. Set config.objective.standing=16, the number of '
                      'passes that make them')

  def codes(self, generator: Tree, mutable: Tree, keys: Key, label: Array | None) -> Array:
    """Truncated latents N Z."""
    return jax.vmap(lambda key: self._cut_latent(key, ()))(keys)

  def drawn(self, generator: Tree, mutable: Tree, code: Array, label: Array | None) -> Array:
    """The samples of latents, normalised as `standing` says."""
    if self.standing:
      mutable = self.standing_statistics(generator, mutable)
    return super().drawn(generator, mutable, code, label)

  def standing_statistics(self, generator: Tree, mutable: Tree) -> Tree:
    """The generator's mutable tree with the mean statistics of `standing` batches in the place of running averages."""
    # A running average that begins at 0 is, after one pass, the statistic of its batch times 1 - momentum.
    fresh = _with_statistics(mutable, jnp.zeros_like)

    def add(total: Tree, key: Key) -> tuple[Tree, None]:
      latent_key, label_key, mode = jax.random.split(key, 3)
      latent_BZ = self._cut_latent(latent_key, (self.standing_batch,))
      label_B = None if self.num_classes is None else jax.random.randint(
        label_key, (self.standing_batch,), 0, self.num_classes)
      _, after = self.generator.apply(generator, fresh, latent_BZ, label_B, key=mode)
      return jax.tree.map(jnp.add, total, after), None

    seeds = jax.random.split(jax.random.key(_STANDING), self.standing)
    total, _ = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, mutable), seeds)
    scale = 1.0 / (self.standing * (1.0 - self.momentum))
    return _with_statistics(mutable, lambda old, sum_: scale * sum_, total)

  def _cut_latent(self, key: Key, shape: tuple[int, ...]) -> Array:
    if not self.truncation:
      return self._latent(key, shape)
    return jax.random.truncated_normal(key, -self.truncation, self.truncation, (*shape, self.latent))


def _with_statistics(tree: Tree, change, *others: Tree) -> Tree:
  """The tree with its batch statistics changed, and everything else (vectors of spectral norms) as it is."""
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf, *rest: change(leaf, *rest) if path[-1].key in STATISTICS else leaf, tree, *others)
