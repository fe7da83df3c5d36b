"""What samples are asked for and where they go: checked before the parameters of a run are read."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import os
import pathlib
from typing import Any

import numpy as np

from genjax.config import suggestion
from genjax.runs import outputs
from genjax.training import averages, rehearsal
from genjax.training.experiment import Columns, Condition
from genjax.training.monitoring import logs
from genjax.training.run import Run
from genjax.types import UserError, expanded

ENDINGS = ('.npz', '.png', '.txt')


def text_name(known: Mapping[str, Condition]) -> str:
  """The condition that a prompt is for: the one that takes texts, whatever its name."""
  texts = [name for name, condition in known.items() if condition.fill is not None]
  return texts[0] if len(texts) == 1 else 'prompt'


def read(known: Mapping[str, Condition], given: Mapping[str, Any]) -> dict[str, list[Any]]:
  """Values as a program gives them, as lists for `rows`.

  Args:
    known: the conditions of the experiment.
    given: name -> a text, path, number or array of one row; or a list or array of several.

  Raises:
    UserError: an unknown condition, or a value that it does not take.
  """
  values: dict[str, list[Any]] = {}
  for name, value in given.items():
    name = text_name(known) if name == 'prompt' and name not in known else name
    if name in values:
      raise UserError(f'condition {name!r} is given twice')
    if name not in known:
      raise _unknown(name, known)
    values[name] = _several(name, known[name], value)
    if not values[name]:
      raise UserError(f'condition {name!r} has no values; leave it out for its default')
  return values


def _several(name: str, condition: Condition, value: Any) -> list[Any]:
  if isinstance(value, (list, tuple)):
    return [_one(name, condition, item) for item in value]
  axes = np.ndim(value) if hasattr(value, 'shape') else 0
  if axes and condition.fill is None and axes > np.ndim(condition.default(0)):
    return [_one(name, condition, row) for row in np.asarray(value)]
  return [_one(name, condition, value)]


def _one(name: str, condition: Condition, value: Any) -> Any:
  """A text, which the condition parses, or a row."""
  if isinstance(value, os.PathLike):
    value = os.fspath(value)
  if isinstance(value, str):
    return str(expanded(value)) if condition.path else value
  if condition.fill is not None or isinstance(value, bool):
    raise UserError(f'condition {name!r} takes {condition.describe}, got {value!r}')
  row, usual = np.asarray(value), np.asarray(condition.default(0))
  if not usual.ndim and not row.ndim:
    return str(row.item())  # parsed like a text: the condition knows which numbers it takes
  if row.shape != usual.shape or not np.can_cast(row.dtype, usual.dtype, 'same_kind'):
    raise UserError(f'condition {name!r} takes {condition.describe}, or arrays of shape {usual.shape} and type '
                    f'{usual.dtype}, got shape {row.shape} and type {row.dtype}')
  return row.astype(usual.dtype)


def _unknown(name: str, known: Mapping[str, Condition]) -> UserError:
  what = f'it takes {({key: condition.describe for key, condition in known.items()})}' if known else 'it takes none'
  return UserError(f'this run knows no condition {name!r}; {what}.{suggestion(name, known)}')


def rows(known: Mapping[str, Condition], given: Mapping[str, Sequence[Any]], num: int, start: int = 0) -> Columns:
  """Values of conditions -> rows: `num`, or as many as the longest list has values. Shorter lists go round.

  Args:
    known: the conditions of the experiment.
    given: name -> values: texts, or rows as arrays.
    num: how many rows at least.
    start: the first of these rows. After row 0, `num` is how many there are.

  Raises:
    UserError: an unknown condition, or a value that it does not take.
  """
  parsed = {}
  for name, values in given.items():
    if name not in known:
      raise _unknown(name, known)
    parsed[name] = [known[name].parse(value) if isinstance(value, str) else value for value in values]
  num = num if start else max([num, *map(len, parsed.values())])
  # All values are stacked, and then taken: a text is as long as the longest of them, whichever rows are asked for.
  return {name: known[name].stack(values)[np.arange(start, start + num) % len(values)]
          for name, values in parsed.items()}


def check(run: Run, given: Columns, out: 'Destination | None', stream: bool, averaged: bool | str = True) -> None:
  """Checks, before the parameters are read, that such samples can be drawn and written."""
  if isinstance(averaged, str):
    averages.named(run.experiment.ema, averaged)
  if stream:
    if max(map(len, given.values()), default=1) > 1:
      raise UserError('--stream shows one text; give it one value of each condition')
    run.check_stream()
  first = run.conditions(1, {name: values[:1] for name, values in given.items()})
  if stream or out is not None and out.path.suffix == '.npz' and not out.is_folder:
    rehearsal.sampled(run, first)
  else:
    check_ending(rehearsal.rendered(run, first), out)


@dataclasses.dataclass(frozen=True)
class Destination:
  """Where samples go: a file with an ending of `ENDINGS`, or a folder."""

  path: pathlib.Path
  is_folder: bool


def destination(text: str) -> Destination:
  """What --out names.

  Raises:
    UserError: an ending that is not written, or a place that cannot be written.
  """
  given = expanded(text)
  if text.endswith(('/', os.sep)) or given.is_dir() or not given.suffix:
    return Destination(outputs.folder(text, '--out'), True)
  if given.suffix not in ENDINGS:
    raise UserError(
      f'--out ends in {", ".join(ENDINGS)}, or is a folder, got {text}; write a new folder with a dot in its name as '
      f'{text}/'
    )
  return Destination(outputs.file(text, '--out'), False)


def check_ending(kinds: Mapping[str, bool], out: Destination | None) -> None:
  """Checks that samples can be written as `out` asks.

  Args:
    kinds: what is rendered, name -> whether it is a text.
    out: where to; None for standard output.

  Raises:
    UserError: the ending does not fit, or nothing is rendered that may be written without one.
  """
  if out is None:
    if not any(kinds.values()):
      raise UserError('--out=PATH is needed: .npz for raw arrays, .png for a grid, or a folder')
    return
  if not kinds:
    raise UserError(f'this run renders nothing, got --out={out.path}; use .npz')
  for name, is_text in kinds.items():
    ending = '.txt' if is_text else '.png'
    if not out.is_folder and out.path.suffix != ending:
      raise UserError(f'this run renders {name!r} as {ending}, got --out={out.path}; use {ending}, .npz or a folder')


def write(samples: Columns, render: Callable[[Columns], Mapping[str, Any]],
          out: Destination | None) -> list[pathlib.Path]:
  """Writes samples as `out` asks, see `check_ending`; returns the files."""
  if out is not None and not out.is_folder and out.path.suffix == '.npz':
    np.savez_compressed(out.path, **samples)  # type: ignore[arg-type]
    return [out.path]
  rendered = render(samples)
  if out is None:
    print('\n'.join(value for value in rendered.values() if isinstance(value, str)))
    return []
  if out.is_folder:
    return [logs.write_artifact(out.path / name, value) for name, value in rendered.items()]
  return [
    logs.write_artifact(
      out.path.with_suffix('') if name == 'samples' else out.path.with_name(f'{out.path.stem}_{name}'), value)
    for name, value in rendered.items()
  ]
