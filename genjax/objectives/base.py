"""The heart: what an objective is, and the checks that every objective passes before anything is compiled.

An objective says how to make its variables, which losses train which groups of them (`phases`), how to score held-out
examples and how to generate. The loop, the step, checkpoints and the command line know nothing more of a model family.
"""

from collections.abc import Callable, Mapping
import dataclasses
import math
import numbers
from typing import Any, NamedTuple, Protocol

import flax.struct
import jax.numpy as jnp
import numpy as np

from genjax.types import Array, Batch, Key, Params, Tree, UserError


class Variables(NamedTuple):
  """What an objective starts from.

  params: group name -> parameters; the group is the unit that is trained, averaged and frozen.
  mutable: what changes without gradients: batch statistics, codebooks, power iterations.
  """

  params: Params
  mutable: Tree = {}


@flax.struct.dataclass
class Context:
  """What a loss may read but never differentiates.

  step: number of finished steps, int32 scalar. mutable: see `Variables`. ema: group name -> averaged parameters, for
  the averaged groups. frozen: group name -> parameters that no phase trains (teachers, encoders, the base of LoRA).
  """

  step: Array
  mutable: Tree
  ema: Params
  frozen: Params


class Output(NamedTuple):
  """What a loss returns.

  loss: scalar, a mean with weights summing to `weight`. metrics: scalars to log. mutable: the new mutable tree, or None
  if it did not change. weight: the total weight behind the mean (tokens, examples), which makes accumulation over
  microbatches of unequal weight equal to the full batch.
  """

  loss: Array
  metrics: dict[str, Array] = {}
  mutable: Tree | None = None
  weight: Array | float = 1.0


@dataclasses.dataclass(frozen=True)
class Phase:
  """One loss and the groups that it updates.

  name: prefix of its metrics. trains: groups updated by the gradient of `loss`. loss: (params, context, batch, key) ->
  Output, where `params` holds every trained group. every: the phase runs on steps divisible by it.
  """

  name: str
  trains: tuple[str, ...]
  loss: Callable[[Params, Context, Batch, Key], Output]
  every: int = 1


class Objective(Protocol):
  """What is learned and how it generates.

  One that generates token by token says so with `emits = True`; its `sample` then takes `emit`, see
  `genjax.objectives.decoding.decode`.
  """

  def init(self, key: Key, frozen: Params) -> Variables:
    """Fresh variables; `frozen` holds the groups that are given and never trained."""
    ...

  def phases(self) -> tuple[Phase, ...]:
    """The losses of one step, in the order in which they run."""
    ...

  def evaluate(self, params: Params, context: Context, batch: Batch, key: Key) -> dict[str, Array]:
    """Per-example values of held-out examples, each of shape B.

    The entry named 'weight', if there is one, weights the examples in the mean over the split (default: all equal).
    """
    ...

  def sample(self, params: Params, context: Context, keys: Key, conditions: Mapping[str, Array]) -> dict[str, Array]:
    """Samples, one for each key.

    Args:
      params: group name -> parameters; averaged ones where the caller chose them.
      context: mutable and frozen variables.
      keys: N typed keys. Row i depends on `keys[i]` and its conditions only, so the split into batches changes nothing.
      conditions: name -> array whose first axis is N.

    Returns:
      name -> array whose first axis is N.
    """
    ...


def due(phases: tuple[Phase, ...], step: int) -> tuple[str, ...]:
  """Names of the phases that run on the step after `step` finished ones."""
  return tuple(phase.name for phase in phases if step % phase.every == 0)


def check_groups(phases: tuple[Phase, ...], params: Mapping[str, Any], optimizers: Mapping[str, Any],
                 ema: Mapping[str, Any]) -> None:
  """Checks that phases, parameter groups, optimizers and averages speak of the same groups.

  Raises:
    UserError: a group without a phase, a phase with an unknown group, two phases of one name, a missing or superfluous
      optimizer, an average of an unknown group, a decay out of range. The message prints both sets.
  """
  groups = set(params)
  trained = {group for phase in phases for group in phase.trains}
  names = [phase.name for phase in phases]
  if len(set(names)) < len(names):
    raise UserError(f'phase names must differ, got {names}; rename one of them')
  if trained != groups:
    idle, unknown = sorted(groups - trained), sorted(trained - groups)
    what = [f'groups that no phase trains: {idle}'] if idle else []
    what += [f'phases train unknown groups: {unknown}'] if unknown else []
    raise UserError(f'{"; ".join(what)}. Parameter groups: {sorted(groups)}. Trained by phases: '
                    f'{ {phase.name: phase.trains for phase in phases} }. Train each group, or hand it in as frozen')
  if set(optimizers) != groups:
    raise UserError(f'one optimizer per parameter group is needed. Groups: {sorted(groups)}. '
                    f'Optimizers: {sorted(optimizers)}. Change config.optimizers to match')
  if set(ema) - groups:
    raise UserError(f'config.ema names unknown groups {sorted(set(ema) - groups)}. Groups: {sorted(groups)}')
  for group, decay in ema.items():
    real: Any = decay if isinstance(decay, numbers.Real) and not isinstance(decay, bool) else math.nan
    # An average is kept in float32, in which a number below 1 may be 1.
    if not 0.0 <= real < 1.0 or np.float32(real) == 1.0:
      raise UserError(
        f'config.ema.{group} must be a number from 0 up to, not including, 1: the decay of an average; got {decay!r}')
  for phase in phases:
    if phase.every < 1:
      raise UserError(f'phase {phase.name!r} needs every >= 1, got {phase.every}')


def weighted_mean(value_BX: Array, weight_BX: Array, axis: int | None = None) -> tuple[Array, Array]:
  """Weighted mean over all axes, or one, and the total weight, as `Output` takes them; 0 where the total weight is
  0."""
  total = jnp.sum(weight_BX, axis=axis)
  return jnp.sum(value_BX * weight_BX, axis=axis) / jnp.maximum(total, 1e-12), total
