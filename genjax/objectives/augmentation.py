"""What is done to pictures before a discriminator sees them, so that it does not learn few examples by heart.

An augmentation may have a state, the entry 'augment' of the mutable tree; it is saved with a run, and computed of the
global batch, so that it is equal on any mesh.
"""

from collections.abc import Callable
import dataclasses
from typing import Protocol

import jax.numpy as jnp

from genjax import checks
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


@dataclasses.dataclass(frozen=True)
class Fixed:
  """An augmentation without a state, such as DiffAugment.

  Attributes:
    transform: (pictures B H W C in [-1, 1], key) -> pictures.
  """

  transform: Callable[[Array, Key], Array]

  def init(self) -> Tree:
    """See `Augmentation`."""
    return {}

  def begin(self, state: Tree, step: Array) -> Tree:
    """See `Augmentation`."""
    del step
    return state

  def apply(self, state: Tree, x_BHWC: Array, key: Key) -> Array:
    """See `Augmentation`."""
    del state
    return self.transform(x_BHWC, key)

  def observe(self, state: Tree, sign_B: Array, images: int) -> Tree:
    """See `Augmentation`."""
    del sign_B, images
    return state

  def metrics(self, state: Tree) -> dict[str, Array]:
    """See `Augmentation`."""
    del state
    return {}


@dataclasses.dataclass(frozen=True)
class Growing:
  """An augmentation whose strength grows from 0 by a cosine, as in the code of R3GAN (Huang et al. 2024).

  Attributes:
    transform: (pictures B H W C in [-1, 1], strength, key) -> pictures.
    end: the last strength.
    steps: after which it is reached.

  Raises:
    UserError: a number out of range.
  """

  transform: Callable[[Array, Array, Key], Array]
  end: float = dataclasses.field(kw_only=True)
  steps: int = dataclasses.field(kw_only=True)

  def __post_init__(self):
    checks.between(self, ('end',), at_least=0, at_most=1)
    checks.whole(self, 1, 'steps')

  def init(self) -> Tree:
    """strength: that of the step."""
    return {'strength': jnp.zeros(())}

  def begin(self, state: Tree, step: Array) -> Tree:
    """See `Augmentation`."""
    done = jnp.minimum(jnp.asarray(step, jnp.float32) / self.steps, 1.0)
    return {**state, 'strength': self.end * (0.5 - 0.5 * jnp.cos(jnp.pi * done))}

  def apply(self, state: Tree, x_BHWC: Array, key: Key) -> Array:
    """See `Augmentation`."""
    return self.transform(x_BHWC, state['strength'], key)

  def observe(self, state: Tree, sign_B: Array, images: int) -> Tree:
    """See `Augmentation`."""
    del sign_B, images
    return state

  def metrics(self, state: Tree) -> dict[str, Array]:
    """The strength."""
    return {'augment_strength': state['strength']}


@dataclasses.dataclass(frozen=True)
class Adaptive:
  """Adaptive discriminator augmentation (ADA, Karras et al. 2020a, section 3): its strength p, the probability of each
  transform, follows how far the discriminator overfits.

  Every few steps the mean sign of the logits of real pictures since the last time is compared with a target. Above it
  the discriminator is too sure of them, and p grows; below it p falls, down to 0. The state counts signs in whole
  numbers, so that its sums do not depend on how devices add.

  Attributes:
    transform: (pictures B H W C in [-1, 1], strength, key) -> pictures.
    target: of the mean sign, from 0 to 1; None keeps the strength at `initial`.
    kimg: thousands of pictures in which the strength would grow from 0 to 1.
    every: steps from one change of the strength to the next.
    initial: strength at the start.

  Raises:
    UserError: a number out of range.
  """

  transform: Callable[[Array, Array, Key], Array]
  target: float | None = 0.6
  kimg: float = 500.0
  every: int = 4
  initial: float = 0.0

  def __post_init__(self):
    checks.between(self, ('target',), at_least=-1, at_most=1)
    checks.between(self, ('initial',), at_least=0, at_most=1)
    checks.positive(self, 'kimg')
    checks.whole(self, 1, 'every')

  def init(self) -> Tree:
    """strength; signs, logits and images: sums since it was changed; adjusted: the step at which that was."""
    return {'strength': jnp.float32(self.initial), 'signs': jnp.zeros(()), 'logits': jnp.zeros(()),
            'images': jnp.zeros(()), 'adjusted': jnp.zeros((), jnp.int32)}

  def begin(self, state: Tree, step: Array) -> Tree:
    """See `Augmentation`. Of the microbatches of one step the first changes the strength. A run that begins with the
    state of another one may find a later step in it."""
    if self.target is None:
      return state
    due = (step % self.every == 0) & (step > 0) & (step != state['adjusted'])
    direction = jnp.sign(state['signs'] - self.target * state['logits'])
    moved = jnp.maximum(state['strength'] + direction * state['images'] / (1000.0 * self.kimg), 0.0)
    empty = {name: jnp.zeros(()) for name in ('signs', 'logits', 'images')}
    after = {'strength': moved, 'adjusted': jnp.asarray(step, jnp.int32), **empty}
    return {name: jnp.where(due, after[name], value) for name, value in state.items()}

  def apply(self, state: Tree, x_BHWC: Array, key: Key) -> Array:
    """See `Augmentation`."""
    return self.transform(x_BHWC, state['strength'], key)

  def observe(self, state: Tree, sign_B: Array, images: int) -> Tree:
    """See `Augmentation`."""
    return {**state, 'signs': state['signs'] + jnp.sum(sign_B), 'logits': state['logits'] + sign_B.size,
            'images': state['images'] + images}

  def metrics(self, state: Tree) -> dict[str, Array]:
    """The strength, and the mean sign since it was changed."""
    return {'augment_strength': state['strength'],
            'sign_real': state['signs'] / jnp.maximum(state['logits'], 1.0)}
