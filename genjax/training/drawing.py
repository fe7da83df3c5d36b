"""Samples of a run: in chunks, or piece by piece while one grows."""

from collections.abc import Callable, Iterable, Iterator, Mapping
import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from genjax import checks, sharding
from genjax.objectives import base
from genjax.training import keys, stopping
from genjax.training.experiment import Columns, Condition, encoded
from genjax.types import UserError, listed

if TYPE_CHECKING:
  from genjax.training.run import Run

PART = 1000  # samples that a metric holds at a time
_ROWS = 2**31  # of one seed: a row's number is an int32


def rows(known: Mapping[str, Condition], num: int, given: Mapping[str, np.ndarray] | None, start: int = 0) -> Columns:
  """Rows of all conditions; see `Run.conditions`."""
  given = given or {}
  defaults = {name: condition.stack([condition.default(start + row) for row in range(num)])
              for name, condition in known.items() if name not in given and not condition.optional}
  found = {**given, **defaults}
  return {**{name: found[name] for name in known if name in found}, **given}


def chunks(run: 'Run', draw: Callable[..., Any], num: int, seed: int, conditions: Mapping[str, np.ndarray] | None,
           averaged: bool | str, chunk: int, start: int = 0) -> Iterator[Columns]:
  """The samples of `Run.sample`, as they are computed; `draw` is its compiled function (params, context, keys,
  conditions) -> columns."""
  if num < 1:
    raise UserError(f'the number of samples must be at least 1, got {num}')
  if not 0 <= start <= _ROWS - num:
    raise UserError(f'the first sample must be at least 0, and the last one less than {_ROWS:,}, got start={start} and '
                    f'{num} samples')
  checks.seed('seed', seed)
  known = run.experiment.conditions
  asked = _asked(known, num, conditions or {}, start)
  chunk = -(-min(chunk, num) // run.batch_shards) * run.batch_shards
  params, context = run.params(averaged), run.state.context(run.frozen)
  seeds = keys.of(seed, 'sample', keys.ROWS)
  for first in range(0, num, chunk):
    stopping.check()
    take = np.minimum(np.arange(first, first + chunk), num - 1)  # the last chunk repeats its last row as padding
    mine, count = run.rows(chunk), min(chunk, num - first)
    row_keys = run.program.row_keys(
      seeds, sharding.put_batch({'row': (start + take[mine]).astype(np.int32)}, run.mesh)['row'])
    given = asked(take)
    columns = sharding.put_batch({name: value[mine] for name, value in encoded(known, given).items()}, run.mesh)
    sampled = jax.device_get(draw(params, context, row_keys, columns))
    run.clock.beat()
    _check_finite(sampled.pop(base.FINITE, None), start + first, count)
    told = {name: value for name, value in given.items() if name not in (base.NOISE, base.EXACT)}
    yield {name: np.asarray(value)[:count] for name, value in {**told, **sampled}.items()}


class NotFinite(UserError):
  """Samples hold NaN or infinity."""


def _check_finite(finite_N: np.ndarray | None, start: int, count: int) -> None:
  if finite_N is None or finite_N[:count].all():
    return
  wrong = [str(start + row) for row in np.flatnonzero(~finite_N[:count])]
  raise NotFinite(f'samples {listed(wrong)} of this draw hold NaN or infinity: a number was too large for the type '
                  'that it is computed in, or parameters are damaged. Compute with float32 (config.model.dtype, '
                  'config.parts.NAME.dtype), or lower sampler.guidance')


def _asked(known: Mapping[str, Condition], num: int, given: Mapping[str, np.ndarray],
           start: int) -> Callable[[np.ndarray], Columns]:
  """Gives rows of all conditions when they are needed. Texts are there at once: they are as long as the longest."""
  texts = {name: condition for name, condition in known.items() if condition.fill is not None and name not in given}
  made = {**rows(texts, num, None, start), **given}

  def take(places_N: np.ndarray) -> Columns:
    others = {name: condition.stack([condition.default(start + int(place)) for place in places_N])
              for name, condition in known.items() if name not in made and not condition.optional}
    found = {**{name: value[places_N] for name, value in made.items()}, **others}
    return {name: found[name] for name in dict.fromkeys([*known, *given]) if name in found}

  return take


def joined(parts: Iterable[Columns]) -> Columns:
  """The rows of all parts."""
  held = list(parts)
  return {name: np.concatenate([part[name] for part in held]) for name in held[0]}


def cut(parts: Iterable[Columns], size: int) -> Iterator[Columns]:
  """The same rows in parts of `size`; the last one has what is left.

  Raises:
    UserError: the size is less than 1.
  """
  if size < 1:
    raise UserError(f'the size of a part must be at least 1, got {size}')
  held: list[Columns] = []
  count = 0
  for part in parts:
    held.append(part)
    count += len(next(iter(part.values())))
    if count < size:
      continue
    rest = joined(held)
    for first in range(0, count - size + 1, size):
      yield {name: value[first:first + size] for name, value in rest.items()}
    left = count % size
    held, count = [{name: value[-left:] for name, value in rest.items()}] if left else [], left
    del rest
  if held:
    yield joined(held)


@dataclasses.dataclass(frozen=True)
class Samples:
  """What a metric draws with: all samples at once, or in parts where memory does not hold them.

  Attributes:
    run, seed, averaged: see `Run.sample`.
  """

  run: 'Run'
  seed: int
  averaged: bool | str = True

  def __call__(self, num: int, conditions: Mapping[str, np.ndarray] | None = None) -> Columns:
    """`num` samples; see `Run.sample`."""
    return self.run.sample(num, self.seed, conditions, self.averaged)

  def parts(self, num: int, conditions: Mapping[str, np.ndarray] | None = None, size: int = PART) -> Iterator[Columns]:
    """The same samples, at most `size` of them at a time."""
    return self.run.sample_parts(num, self.seed, conditions, self.averaged, size)

  def by(self, objective: Any, num: int, conditions: Mapping[str, np.ndarray] | None = None) -> Columns:
    """`num` samples as another objective draws them from the parameters of the run: its own with another sampler."""
    draw = jax.jit(self.run.program.on_mesh(objective.sample), out_shardings=sharding.replicated(self.run.mesh))
    return joined(chunks(self.run, draw, num, self.seed, conditions, self.averaged, chunk=256))


def parts_of(sample: Callable[..., Columns], num: int, conditions: Mapping[str, np.ndarray],
             size: int = PART) -> Iterator[Columns]:
  """The samples of `sample.parts` or, of a function without it, of one draw, cut into parts."""
  parts = getattr(sample, 'parts', None)
  return parts(num, conditions, size=size) if parts else cut([sample(num, conditions)], size)


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
