"""Evaluation of a held-out split: the objective's values of every example, and their means."""

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from genjax import sharding
from genjax.training import keys, stopping
from genjax.training.experiment import Columns
from genjax.types import UserError

if TYPE_CHECKING:
  from genjax.training.run import Run

Scored = tuple[Columns, Columns]  # sums of a batch, and the values of its examples


def of_batch(evaluate: Callable[..., Mapping[str, jax.Array]]) -> Callable[..., Any]:
  """`Objective.evaluate` as (params, context, batch, key) -> (sums, values of each example).

  Sums are weighted by the entry 'weight' if there is one; the values keep the column 'mask', which is 0 on padding.
  """

  def scored(params: Any, context: Any, batch: Mapping[str, jax.Array], key: jax.Array) -> Any:
    values = dict(evaluate(params, context, batch, key))
    weight = values.pop('weight', jnp.ones_like(batch['mask'])) * batch['mask']
    # The padding of the last batch may hold anything, NaN included: it is chosen away, not multiplied away.
    sums = {name: jnp.sum(jnp.where(batch['mask'] > 0, value * weight, 0.0)) for name, value in values.items()}
    sums = {**sums, 'weight': jnp.sum(weight), 'examples': jnp.sum(batch['mask'])}
    return sums, {**values, 'mask': batch['mask']}

  return scored


def batches(run: 'Run', averaged: bool | str, max_batches: int) -> Iterator[Scored]:
  """Sums and per-example values of each held-out batch; see `Run.evaluate`."""
  key = keys.of(run.settings.seed, 'evaluation')
  params, context = run.params(averaged), run.state.context(run.frozen)
  data = run.experiment.heldout
  for index, columns in enumerate(data.epoch(run.rows(data.batch_size))):
    if max_batches and index == max_batches:
      return
    stopping.check()
    batch = sharding.put_batch(columns, run.mesh)
    yield jax.device_get(run.program.evaluate(params, context, batch, jax.random.fold_in(key, index)))
    run.clock.beat()


def means(sums_of_batches: Iterable[Columns]) -> dict[str, float]:
  """Means over the split, and 'examples', their number.

  Raises:
    UserError: there are no examples.
  """
  totals: dict[str, float] = collections.defaultdict(float)
  for sums in sums_of_batches:
    for name, value in sums.items():
      totals[name] += float(value)
  examples, weight = totals.pop('examples', 0.0), totals.pop('weight', 0.0)
  if not weight:
    raise UserError('the held-out split gave no examples to evaluate on; look at config.data')
  return {**{name: total / weight for name, total in totals.items()}, 'examples': examples}


def values(scored: Iterable[Columns]) -> Columns:
  """The values of each example, without padding: name -> array in the order of the split."""
  columns = list(scored)
  names = [name for name in columns[0] if name != 'mask']
  return {name: np.concatenate([column[name][column['mask'] > 0] for column in columns]) for name in names}
