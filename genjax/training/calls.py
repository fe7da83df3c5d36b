"""Several steps in one call: a loop over batches, for steps so short that calling costs more than computing.

One program serves calls of every length, so what a step computes does not depend on how steps are put together. XLA may
round otherwise in a loop than in the program of a single step: in some models the last digit of metrics differs from
that of `steps_per_call` 1.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genjax.objectives import base
from genjax.training.experiment import Columns


def length(settings: Any, phases: tuple[base.Phase, ...], step: int, reads: Callable[[int], bool],
           reached: int = 0) -> int:
  """How many of the next steps are one call, at most `settings.steps_per_call`.

  All steps of a call have the same phases due, and only its last one may be a step that somebody reads.

  Args:
    settings: see `genjax.training.run.Settings`.
    phases: of the objective.
    step: finished steps.
    reads: whether the state or the time of a step is read right after it.
    reached: steps that an earlier process had finished; a call ends there.
  """
  due, count = base.due(phases, step), 1
  while (count < settings.steps_per_call and step + count < settings.steps and step + count != reached
         and base.due(phases, step + count) == due and not reads(step + count)):
    count += 1
  return count


def looped(step: Callable[..., Any]) -> Callable[..., Any]:
  """The step (state, frozen, batch, due) -> (state, metrics) as (state, frozen, batches, due, count) -> (state,
  metrics).

  Batches are stacked on a new first axis, of which `count` are used; metrics come stacked in the same way.
  """

  def steps(state: Any, frozen: Any, batches: Any, due: tuple[str, ...], count: jax.Array) -> Any:
    at = lambda index: jax.tree.map(lambda column: jax.lax.dynamic_index_in_dim(column, index, keepdims=False), batches)
    capacity = len(next(iter(batches.values())))
    metrics = jax.eval_shape(lambda state, batch: step(state, frozen, batch, due), state, at(0))[1]

    def body(index: jax.Array, carry: Any) -> Any:
      state, stacked = carry
      state, metrics = step(state, frozen, at(index), due)
      return state, jax.tree.map(lambda values, value: values.at[index].set(value), stacked, metrics)

    zeros = jax.tree.map(lambda value: jnp.zeros((capacity, *value.shape), value.dtype), metrics)
    return jax.lax.fori_loop(0, count, body, (state, zeros))

  return steps


def same_shapes(batches: Sequence[Columns]) -> bool:
  """Whether batches can be stacked."""
  first, *rest = [{name: column.shape for name, column in columns.items()} for columns in batches]
  return all(shapes == first for shapes in rest)


def stack(batches: Sequence[Columns], capacity: int) -> Columns:
  """Batches on a new first axis of this length; the last one stands in for those that are missing."""
  rows = [*batches, *[batches[-1]] * (capacity - len(batches))]
  return {name: np.stack([columns[name] for columns in rows]) for name in batches[0]}


class Entry:
  """One entry of an array of the device, fetched with all others when it is first read as a number."""

  def __init__(self, values: jax.Array, index: int):
    self._values, self._index = values, index

  def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
    return np.array(np.asarray(self._values)[self._index], dtype=dtype)

  def __float__(self) -> float:
    return float(np.asarray(self._values)[self._index])

  def block_until_ready(self) -> 'Entry':
    self._values.block_until_ready()
    return self


def split(metrics: Mapping[str, jax.Array], count: int) -> list[dict[str, Any]]:
  """Stacked metrics -> those of each step."""
  return [{name: Entry(values, index) for name, values in metrics.items()} for index in range(count)]
