"""The interface of objectives, and checks that run before anything is compiled.

An objective initializes variables, defines which losses train which groups of parameters (`phases`), evaluates held-out
examples and draws samples. The training loop, the step, checkpoints and the command line need nothing else from a model
family.
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

# Columns of what samples are asked for that are no conditions; an objective that knows none of them ignores them
NOISE = 'noise'  # what a row begins with, in the place of drawn noise; of unit deviation, in the space that is diffused
EXACT = 'exact'  # if it is there, whatever it holds, columns of pixels come as float32 from 0 to 1, before rounding
FINITE = 'finite'  # a column of samples: whether all that was computed of a row is finite


class Variables(NamedTuple):
  """The initial variables of an objective.

  Attributes:
    params: group name -> parameters. Groups are trained, averaged and frozen as a whole.
    mutable: variables that change without gradients: batch statistics, codebooks, power iterations.
  """

  params: Params
  mutable: Tree = {}


@flax.struct.dataclass
class Context:
  """Inputs of a loss that are never differentiated.

  Attributes:
    step: number of finished steps, int32 scalar.
    mutable: see `Variables`.
    ema: group name -> averaged parameters, for the averaged groups; 'GROUP@NAME' -> further averages of a group.
    frozen: group name -> parameters that no phase trains (teachers, encoders, the base model of LoRA).
  """

  step: Array
  mutable: Tree
  ema: Params
  frozen: Params


class Output(NamedTuple):
  """The return value of a loss.

  Attributes:
    loss: scalar, a weighted mean.
    metrics: scalars to log.
    mutable: the new mutable tree, or None if it did not change.
    weight: total weight of the mean (number of tokens or examples). With it, accumulation over microbatches of unequal
      weight equals the full batch.
  """

  loss: Array
  metrics: dict[str, Array] = {}
  mutable: Tree | None = None
  weight: Array | float = 1.0


@dataclasses.dataclass(frozen=True)
class Phase:
  """One loss and the groups that it updates.

  Attributes:
    name: prefix of its metrics.
    trains: groups updated by the gradient of `loss`.
    loss: (params, context, batch, key) -> Output, where `params` holds every trained group.
    every: the phase runs on steps divisible by it.
  """

  name: str
  trains: tuple[str, ...]
  loss: Callable[[Params, Context, Batch, Key], Output]
  every: int = 1


class Objective(Protocol):
  """The losses, evaluation and sampling of a model family.

  An objective that generates token by token sets `emits = True`; its `sample` then accepts `emit`, see
  `genjax.objectives.decoding.decode`.
  """

  def init(self, key: Key, frozen: Params) -> Variables:
    """Returns initial variables; `frozen` holds the given groups that are never trained."""
    ...

  def phases(self) -> tuple[Phase, ...]:
    """Returns the phases of one step, in their order."""
    ...

  def evaluate(self, params: Params, context: Context, batch: Batch, key: Key) -> dict[str, Array]:
    """Returns metrics of held-out examples by name, one value per example, each of shape B.

    An entry 'weight' weights the examples in the mean over the split (default: all equal).
    """
    ...

  def sample(self, params: Params, context: Context, keys: Key, conditions: Mapping[str, Array]) -> dict[str, Array]:
    """Draws samples, one for each key.

    Args:
      params: group name -> parameters, averaged ones if the caller chose so.
      context: mutable and frozen variables.
      keys: N typed keys. Row i depends only on `keys[i]` and its conditions, not on the split into batches.
      conditions: name -> array whose first axis is N.

    Returns:
      name -> array whose first axis is N.
    """
    ...


def due(phases: tuple[Phase, ...], step: int) -> tuple[str, ...]:
  """Names of the phases that run in the step after `step` finished steps."""
  return tuple(phase.name for phase in phases if step % phase.every == 0)


def check_groups(phases: tuple[Phase, ...], params: Mapping[str, Any], optimizers: Mapping[str, Any],
                 ema: Mapping[str, Any]) -> None:
  """Checks that phases, parameter groups, optimizers and averages name the same groups.

  Raises:
    UserError: a group has no phase, a phase or average names an unknown group, two phases have the same name, an
      optimizer is missing or superfluous, or a decay is out of range. The message lists both sets of groups.
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
                    f'{ {phase.name: phase.trains for phase in phases} }. Train each group, or pass it as frozen')
  if set(optimizers) != groups:
    raise UserError(f'one optimizer per parameter group is needed. Groups: {sorted(groups)}. '
                    f'Optimizers: {sorted(optimizers)}. Change config.optimizers to match')
  if set(ema) - groups:
    raise UserError(f'config.ema names unknown groups {sorted(set(ema) - groups)}. Groups: {sorted(groups)}')
  for group, decay in ema.items():
    if not hasattr(decay, 'items'):  # else see `genjax.training.averages.parse`
      check_decay(f'config.ema.{group}', decay)
  for phase in phases:
    if phase.every < 1:
      raise UserError(f'phase {phase.name!r} needs every >= 1, got {phase.every}')


def check_decay(where: str, decay: Any) -> None:
  """Checks the decay of an average; `where` is its config key.

  Raises:
    UserError: it is no number in [0, 1).
  """
  real: Any = decay if isinstance(decay, numbers.Real) and not isinstance(decay, bool) else math.nan
  # Averages are float32, where a number just below 1 may round to 1.
  if not 0.0 <= real < 1.0 or np.float32(real) == 1.0:
    raise UserError(f'{where}, the decay of an average, must be a number in [0, 1), got {decay!r}')


def weighted_mean(value_BX: Array, weight_BX: Array, axis: int | None = None) -> tuple[Array, Array]:
  """The weighted mean over all axes (or one) and the total weight, for `Output`. The mean is 0 if the weight is 0."""
  total = jnp.sum(weight_BX, axis=axis)
  return jnp.sum(value_BX * weight_BX, axis=axis) / jnp.maximum(total, 1e-12), total
