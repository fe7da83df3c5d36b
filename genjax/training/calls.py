"""Several steps per device call: a loop over batches, for steps so short that the call overhead matters.

One program serves calls of all lengths, so the result of a step does not depend on how steps are grouped. XLA may round
differently in a loop than in the program of a single step: in some models the last digit of metrics differs from
`steps_per_call=1`.
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
  """The number of next steps in one call, at most `settings.steps_per_call`.

  All steps of a call run the same phases, and only the last one may be a step whose results are read.

  Args:
    settings: see `genjax.training.settings.Settings`.
    phases: phases of the objective.
    step: number of finished steps.
    reads: step -> whether its state or time is read right after it.
    reached: number of steps that an earlier process finished; a call ends there.
  """
  due, count = base.due(phases, step), 1
  while (count < settings.steps_per_call and step + count < settings.steps and step + count != reached
         and base.due(phases, step + count) == due and not reads(step + count)):
    count += 1
  return count


def looped(step: Callable[..., Any]) -> Callable[..., Any]:
  """Turns a step into a loop (state, frozen, batches, due, count) -> (state, metrics).

  The step is (state, frozen, batch, due) -> (state, metrics). Batches and metrics are stacked on a new first axis; the
  first `count` batches are used.
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
  """Returns whether batches can be stacked."""
  first, *rest = [{name: column.shape for name, column in columns.items()} for columns in batches]
  return all(shapes == first for shapes in rest)


def stack(batches: Sequence[Columns], capacity: int) -> Columns:
  """Stacks batches on a new first axis of length `capacity`; repeats the last batch to fill it."""
  rows = [*batches, *[batches[-1]] * (capacity - len(batches))]
  return {name: np.stack([columns[name] for columns in rows]) for name in batches[0]}


class Entry:
  """One entry of a device array. The first conversion to a number fetches the whole array."""

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
  """Splits stacked metrics into the metrics of each step."""
  return [{name: Entry(values, index) for name, values in metrics.items()} for index in range(count)]
