"""What samples are asked for and where they go: checked before the parameters of a run are read."""

from collections.abc import Mapping, Sequence
import dataclasses
import os
import pathlib
from typing import Any

import numpy as np

from genjax import artifacts
from genjax.artifacts import Artifact
from genjax.config import suggestion
from genjax.data import captions
from genjax.data.captions import FILE_NAME, METADATA
from genjax.objectives import base
from genjax.runs import atomic, outputs
from genjax.training import averages, rehearsal
from genjax.training.experiment import Columns, Condition, Experiment
from genjax.training.run import Run
from genjax.types import UserError, expanded, strict_json

ENDINGS = ('.npz', *artifacts.ENDINGS)
_FEW = 16  # most numbers of a condition in a line of it


def text_name(known: Mapping[str, Condition]) -> str:
  """The condition that a prompt is for: the one that takes texts, whatever its name."""
  texts = [name for name, condition in known.items() if condition.takes_text and not condition.optional]
  return texts[0] if len(texts) == 1 else 'prompt'


def negative_name(known: Mapping[str, Condition]) -> str:
  """The condition that a negative prompt is for.

  Raises:
    UserError: the run takes none.
  """
  name = f'negative_{text_name(known)}'
  if name not in known:
    raise UserError('this run takes no negative prompt: a condition has a negative where training leaves it out at '
                    f'times (conditions.NAME.dropout). It takes {_taken(known)}')
  return name


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
    if name not in known and name in ('prompt', 'negative'):
      name = text_name(known) if name == 'prompt' else negative_name(known)
    if name in values:
      raise UserError(f'condition {name!r} is given twice')
    if name not in known:
      raise _unknown(name, known)
    values[name] = [one for entry in _several(name, known[name], value)
                    for one in (files(known[name], [entry]) if isinstance(entry, str) else [entry])]
    if not values[name]:
      raise UserError(f'condition {name!r} has no values; leave it out for its default')
  return values


def _several(name: str, condition: Condition, value: Any) -> list[Any]:
  if isinstance(value, (list, tuple)):
    plain = bool(condition.numbers) and np.ndim(_first(value)) == 0
    if plain and condition.numbers == 1:
      return [_one(name, condition, [item]) for item in value]  # a row has one number, so each is a row
    if not plain:
      return [_one(name, condition, item) for item in value]
  axes = np.ndim(value) if hasattr(value, 'shape') else 0
  if axes and not condition.takes_text and axes > len(_usual(condition).shape):
    return [_one(name, condition, row) for row in np.asarray(value)]
  return [_one(name, condition, value)]


def files(condition: Condition, paths: Sequence[str]) -> list[str]:
  """Paths of a condition, with the files of each folder in its place, see `Condition.endings`.

  Raises:
    UserError: a folder has no such files.
  """
  found = []
  for path in paths:
    if not condition.endings or not os.path.isdir(path):
      found.append(path)
      continue
    inside = sorted(name for name in os.listdir(path) if name.lower().endswith(condition.endings)
                    and not name.startswith('.'))
    if not inside:
      raise UserError(f'the folder {path} has no files that end in {", ".join(condition.endings)}; name another one, '
                      'or files')
    found += [os.path.join(path, name) for name in inside]
  return found


def _first(values: Sequence[Any]) -> Any:
  """The first of several values; texts and paths are no numbers."""
  return [values[0]] if values and isinstance(values[0], (str, os.PathLike)) else values[0] if values else []


def _usual(condition: Condition) -> Any:
  """Shape and type of a row."""
  return np.asarray(condition.default(0)) if condition.row is None else condition.row


def _one(name: str, condition: Condition, value: Any) -> Any:
  """A text, which the condition parses, or a row."""
  if isinstance(value, os.PathLike):
    value = os.fspath(value)
  if isinstance(value, str):
    return str(expanded(value)) if condition.path else str(value)
  if condition.takes_text or isinstance(value, bool):
    raise UserError(f'condition {name!r} takes {condition.describe}, got {value!r}')
  if condition.convert is not None:
    return condition.convert(value)
  row, usual = np.asarray(value), _usual(condition)
  if not usual.shape and not row.ndim:
    return str(row.item())  # parsed like a text: the condition knows which numbers it takes
  if row.shape != usual.shape or not np.can_cast(row.dtype, usual.dtype, 'same_kind'):
    raise UserError(f'condition {name!r} takes {condition.describe}, or arrays of shape {usual.shape} and type '
                    f'{usual.dtype}, got shape {row.shape} and type {row.dtype}')
  return row.astype(usual.dtype)


def _taken(known: Mapping[str, Condition]) -> str:
  return str({key: condition.describe for key, condition in known.items()}) if known else 'no conditions'


def _unknown(name: str, known: Mapping[str, Condition]) -> UserError:
  what = f'it takes {_taken(known)}' if known else 'it takes none'
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


def requests(experiment: Experiment, num: int, noise: Any = None, exact: bool = False) -> Columns:
  """What samples are asked for beside conditions, as columns, see `genjax.objectives.base`.

  Args:
    experiment: of the run.
    num: how many samples.
    noise: what they begin with, N rows; None draws it.
    exact: whether pixels are wanted before rounding.

  Raises:
    UserError: the run is none of diffusion from noise, or the noise has another shape.
  """
  shape = getattr(experiment.objective, 'noise_shape', ())
  if (noise is not None or exact) and not shape:
    raise UserError('noise and exact are of runs of diffusion whose samples begin at noise, and this run is none')
  columns: Columns = {base.EXACT: np.ones(num, bool)} if exact else {}
  if noise is not None:
    rows = np.asarray(noise, np.float32)
    if rows.shape != (num, *shape) or not np.isfinite(rows).all():
      raise UserError(f'noise must be finite, of shape {(num, *shape)}: a row for each of {num} samples, got '
                      f'{rows.shape}')
    columns[base.NOISE] = rows
  return columns


def check(run: Run, given: Columns, out: 'Destination | None', stream: bool, averaged: bool | str = True) -> None:
  """Checks, before the parameters are read, that such samples can be drawn and written."""
  if isinstance(averaged, str):
    averages.named(run.experiment.ema, averaged)
  if stream:
    if max(map(len, given.values()), default=1) > 1:
      raise UserError('--stream shows one text; give it one value of each condition')
    run.check_stream()
  first = run.conditions(1, {name: values[:1] for name, values in given.items()})
  if stream or out is not None and out.ending == '.npz':
    rehearsal.sampled(run, first)
  else:
    check_ending(run.experiment, rehearsal.zeros(run, first), out)


@dataclasses.dataclass(frozen=True)
class Destination:
  """Where samples go: a file with an ending of `ENDINGS`, or a folder."""

  path: pathlib.Path
  is_folder: bool

  @property
  def ending(self) -> str:
    """One of `ENDINGS`, whatever the case in which the path has it; '' of a folder."""
    return '' if self.is_folder else self.path.suffix.lower()


def destination(text: str) -> Destination:
  """What --out names.

  Raises:
    UserError: an ending that is not written, or a place that cannot be written.
  """
  given = expanded(text)
  if text.endswith(('/', os.sep)) or given.is_dir() or not given.suffix:
    return Destination(outputs.folder(text, '--out'), True)
  if given.suffix.lower() not in ENDINGS:
    raise UserError(
      f'--out ends in {", ".join(ENDINGS)}, or is a folder, got {text}; write a new folder with a dot in its name as '
      f'{text}/'
    )
  return Destination(outputs.file(text, '--out'), False)


def check_ending(experiment: Experiment, columns: Columns, out: Destination | None) -> None:
  """Checks that samples can be written as `out` asks.

  Args:
    experiment: renders them.
    columns: samples, one or more.
    out: where to; None for standard output.

  Raises:
    UserError: the ending does not fit, nothing is rendered that may be written without one, a package is missing that
      writes it, or the metadata.jsonl of a folder cannot be read.
  """
  shown = experiment.render(columns)
  if out is None:
    if not any(isinstance(value, str) for value in shown.values()):
      raise UserError('--out=PATH is needed: .npz for raw arrays, a folder for one file of each sample, or '
                      f'{_fitting(shown)} to look at them')
    return
  if not shown and (experiment.items is None or not out.is_folder):
    raise UserError(f'this run renders nothing, got --out={out.path}; use .npz')
  if out.is_folder:
    for value in each(experiment, {name: column[:1] for name, column in columns.items()}):
      artifacts.check(artifacts.endings(value)[0])
    _others(out.path, ())
    return
  if not any(out.ending in artifacts.endings(value) for value in shown.values()):
    name, value = next(iter(shown.items()))
    raise UserError(f'this run renders {name!r} as {artifacts.endings(value)[0]} ({artifacts.word(value)}), got '
                    f'--out={out.path}; use {_fitting(shown)}, .npz or a folder')
  artifacts.check(out.ending)


def _fitting(shown: Mapping[str, Artifact]) -> str:
  return ', '.join(dict.fromkeys(ending for value in shown.values() for ending in artifacts.endings(value)))


def each(experiment: Experiment, columns: Columns) -> list[Artifact]:
  """One artifact of each row: by `Experiment.items`, of the column 'image', or rendered alone."""
  if experiment.items is not None:
    return list(experiment.items(columns))
  image = columns.get('image')
  if image is not None and image.dtype == np.uint8 and image.ndim == 4 and image.shape[-1] in (1, 3, 4):
    return list(image)
  found = []
  for row in range(len(next(iter(columns.values())))):
    shown = experiment.render({name: column[row:row + 1] for name, column in columns.items()})
    found.append(shown['samples'] if 'samples' in shown else next(iter(shown.values())))
  return found


def write(samples: Columns, experiment: Experiment, out: Destination | None, seed: int | None = None,
          given: Mapping[str, Any] | None = None, start: int = 0) -> list[pathlib.Path]:
  """Writes samples as `out` asks, see `check_ending`.

  A folder gets one file of each sample and metadata.jsonl, which says of each file its name, row, seed and conditions.
  It opens as data: pictures, clips or sounds with labels and captions. What metadata.jsonl says of other files that lie
  in the folder stays.

  Args:
    samples: their columns.
    experiment: renders them.
    out: where to; None for texts on standard output.
    seed: what they were drawn with, for metadata.jsonl.
    given: condition -> value, or list of values that go round the rows, as they were asked for. metadata.jsonl has
      texts and paths as they were written.
    start: of a longer draw, the row of the first sample.

  Returns:
    The files.
  """
  if out is not None and out.ending == '.npz':
    with out.path.open('wb') as file:  # numpy adds .npz to a path that ends in .NPZ
      np.savez_compressed(file, **samples)  # type: ignore[arg-type]
    return [out.path]
  if out is not None and out.is_folder:
    return _write_each(out.path, samples, experiment, seed, given or {}, start)
  rendered = experiment.render(samples)
  if out is None:
    print('\n'.join(value for value in rendered.values() if isinstance(value, str)))
    return []
  paths = []
  for name, value in rendered.items():
    stem = out.path.stem if name == 'samples' else f'{out.path.stem}_{name}'
    fits = out.ending in artifacts.endings(value)
    ending = out.path.suffix if fits else artifacts.endings(value)[0]
    paths.append(artifacts.write(out.path.with_name(stem + ending), value))
  return paths


def _write_each(folder: pathlib.Path, samples: Columns, experiment: Experiment, seed: int | None,
                given: Mapping[str, Any], start: int) -> list[pathlib.Path]:
  asked = {name: values if isinstance(values, (list, tuple)) else [values] for name, values in given.items()}
  paths, lines = [], []
  for place, value in enumerate(each(experiment, samples)):
    row = start + place
    paths.append(artifacts.write(folder / f'{row:06d}{artifacts.endings(value)[0]}', value))
    facts = {FILE_NAME: paths[-1].name, 'row': row, **({} if seed is None else {'seed': seed})}
    for name, condition in experiment.conditions.items():
      told = _plain(samples[name][place]) if name in samples and condition.fill is None else None
      if told is None and name in asked:
        told = _plain(asked[name][row % len(asked[name])])
      if told is not None:
        facts[name] = told
    if text := facts.get(text_name(experiment.conditions)):
      facts.setdefault('text', text)  # by which captions are found
    lines.append(strict_json(facts))
  lines = [*_others(folder, [path.name for path in paths]), *lines]
  atomic.write(folder, {METADATA: ('\n'.join(lines) + '\n').encode()})
  return [*paths, folder / METADATA]


def _others(folder: pathlib.Path, names: Sequence[str]) -> list[str]:
  """The lines of a folder's metadata.jsonl about other files that are there."""
  found = captions.described(folder / METADATA) if (folder / METADATA).exists() else {}
  return [line for name, line in found.items() if name not in names and (folder / name).exists()]


def _plain(value: Any) -> Any:
  """A number or text of a condition, or a few numbers, as JSON has them; None for arrays."""
  value = np.asarray(os.fspath(value) if isinstance(value, os.PathLike) else value)
  if value.dtype.kind in 'biuf' and value.size <= _FEW or value.dtype.kind in 'OU' and not value.ndim:
    return value.tolist()
  return None
