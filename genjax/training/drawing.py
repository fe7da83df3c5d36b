"""Samples of a run: in chunks, or piece by piece while one grows."""

from collections.abc import Callable, Mapping
import functools
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from genjax import checks, sharding
from genjax.training import keys, stopping
from genjax.training.experiment import Columns, Condition, encoded
from genjax.types import UserError

if TYPE_CHECKING:
  from genjax.training.run import Run


def rows(known: Mapping[str, Condition], num: int, given: Mapping[str, np.ndarray] | None) -> Columns:
  """Rows of all conditions; see `Run.conditions`."""
  given = given or {}
  defaults = {name: condition.stack([condition.default(row) for row in range(num)])
              for name, condition in known.items() if name not in given and not condition.optional}
  found = {**given, **defaults}
  return {**{name: found[name] for name in known if name in found}, **given}


def samples(run: 'Run', draw: Callable[..., Any], num: int, seed: int, conditions: Mapping[str, np.ndarray] | None,
            averaged: bool, chunk: int) -> Columns:
  """See `Run.sample`; `draw` is its compiled function (params, context, keys, conditions) -> columns."""
  if num < 1:
    raise UserError(f'the number of samples must be at least 1, got {num}')
  checks.seed('seed', seed)
  asked = run.conditions(num, conditions)
  read = encoded(run.experiment.conditions, asked)
  chunk = -(-min(chunk, num) // run.batch_shards) * run.batch_shards
  params, context = run.params(averaged), run.state.context(run.frozen)
  seeds = keys.of(seed, 'sample', keys.ROWS)
  parts = []
  for start in range(0, num, chunk):
    stopping.check()
    take = np.minimum(np.arange(start, start + chunk), num - 1)  # the last chunk repeats its last row as padding
    mine = take[run.rows(chunk)]
    row_keys = run.program.row_keys(seeds, sharding.put_batch({'row': mine.astype(np.int32)}, run.mesh)['row'])
    columns = sharding.put_batch({name: value[mine] for name, value in read.items()}, run.mesh)
    sampled = jax.device_get(draw(params, context, row_keys, columns))
    parts.append({name: np.asarray(value)[:num - start] for name, value in sampled.items()})
    run.clock.beat()
  return {**asked, **{name: np.concatenate([part[name] for part in parts]) for name in parts[0]}}


def telling(run: 'Run', emit: Callable[[Any, Any], None]) -> Callable[..., Any]:
  """The compiled function that hands out each piece of a sample as it is drawn."""
  objective: Any = run.experiment.objective
  return jax.jit(run.program.on_mesh(functools.partial(objective.sample, emit=emit)))


def check_stream(run: 'Run') -> None:
  """See `Run.check_stream`."""
  if not getattr(run.experiment.objective, 'emits', False):
    raise UserError('--stream shows a text while it grows, and this run generates none')
  if run.mesh.size > 1:
    raise UserError(f'--stream runs on one device, and config.mesh has {run.mesh.size}; sample without it')


def preview(run: 'Run') -> Columns:
  """See `Run.preview`."""
  if run.program.preview is None:
    return {}
  data = run.experiment.heldout
  batch = sharding.put_batch(next(data.epoch(run.rows(data.batch_size))), run.mesh)
  return jax.device_get(run.program.preview(run.params(averaged=True), run.state.context(run.frozen), batch))
