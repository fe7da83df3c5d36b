"""What is done to pictures before a discriminator sees them, so that it does not learn few examples by heart.

An augmentation may have a state, the entry 'augment' of the mutable tree; it is saved with a run, and computed of the
global batch, so that it is equal on any mesh.
"""

from typing import Protocol

from genjax.types import Array, Key, Tree

AUGMENT = 'augment'  # entry of the mutable tree


class Augmentation(Protocol):
  """An augmentation of pictures, the same for real and fake ones."""

  def init(self) -> Tree:
    """The first state; an empty one for an augmentation that never changes."""
    ...

  def begin(self, state: Tree, step: Array) -> Tree:
    """The state for the step after `step` steps."""
    ...

  def apply(self, state: Tree, x_BHWC: Array, key: Key) -> Array:
    """Augmented pictures, differentiable with respect to `x_BHWC`, each by random numbers of its own."""
    ...

  def observe(self, state: Tree, sign_B: Array, images: int) -> Tree:
    """The state after the discriminator judged real pictures.

    Args:
      state: from `begin`.
      sign_B: sign of each logit, 1 where the discriminator is right.
      images: number of pictures that it judged.
    """
    ...

  def metrics(self, state: Tree) -> dict[str, Array]:
    """What is logged of a state."""
    ...
