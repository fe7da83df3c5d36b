"""The table of a study: mean and deviation over repetitions for each setting, and differences against a baseline."""

from collections.abc import Mapping, Sequence
import dataclasses
import math
import pathlib
import re
from typing import Any

from genjax.config import suggestion
from genjax.studies import listing, names, records, search, statistics, sweeps
from genjax.studies.records import Record, Study
from genjax.types import UserError, listed

# Last words of the names of metrics of which less, or more, is better. Of others, --metrics=NAME:min or NAME:max says.
# A measure whose value is called 'mean' has the word before it.
LESS = ('loss', 'frechet', 'distance', 'kernel', 'fid', 'kid', 'perplexity', 'bits_per_byte', 'bits_per_dim', 'nll',
        'wer', 'word_error_rate', 'reverse_kl', 'error', 'copies', 'lpips')
MORE = ('accuracy', 'label_agreement', 'classes_covered', 'covered', 'high_quality', 'bleu', 'sacrebleu', 'rouge',
        'exact', 'precision', 'recall', 'density', 'coverage', 'psnr', 'ssim', 'inception_score', 'clip_score')
_NEITHER = ('kernel/error',)  # how far a value may be off is no quality


@dataclasses.dataclass(frozen=True)
class Row:
  """One setting.

  Attributes:
    values: of the keys of the table, as text.
    runs: all its runs.
    cells: metric -> mean and deviation over its finished runs, or None.
    differences: metric -> difference against the baseline over shared repetitions, or None.
  """

  values: tuple[str, ...]
  runs: list[Record]
  cells: dict[str, statistics.Summary | None]
  differences: dict[str, statistics.Difference | None]

  @property
  def finished(self) -> int:
    """How many runs are finished."""
    return sum(record.finished for record in self.runs)


@dataclasses.dataclass(frozen=True)
class Table:
  """What is shown.

  Attributes:
    header: labels of the keys.
    metrics: name -> 'min', 'max', or '' where neither is better.
    rows: one a setting.
    baseline: which row the others are held against, or None.
    best: metric -> the rows with the best mean, of those whose runs are all finished.
    notes: what a reader must know, a line each.
    over: what repetitions differ in.
  """

  header: tuple[str, ...]
  metrics: dict[str, str]
  rows: list[Row]
  baseline: int | None
  best: dict[str, set[int]]
  notes: list[str]
  over: tuple[str, ...]


def make(folder: pathlib.Path, by: Sequence[str] = (), metrics: Sequence[str] = (), baseline: str = '',
         over: Sequence[str] = (sweeps.SEED,), allow: Sequence[str] = ()) -> Table:
  """The table of a folder of runs.

  Args:
    folder: of a sweep, or with run directories in it.
    by: keys or labels that tell settings apart; by default all in which the runs differ.
    metrics: names, each with ':min' or ':max' where the table does not know which is better; 'all' for all.
    baseline: the setting that the others are held against, as 'label=value,label=value'.
    over: keys whose values are repetitions.
    allow: fields of code and metric cards that may differ; the table then says so.

  Raises:
    UserError: no runs, an unknown key, metric, field or setting.
    Incomparable: settings differ in more than `by`, or runs in their code or in how they were measured.
  """
  study = records.read(folder, over)
  chosen = tuple(_key(study, text) for text in by) if by else _varied(study)
  found = records.groups(study, chosen, over)
  different = records.check_code(study.records, allow)
  finished = [record for record in study.records if record.finished]
  evaluated = bool(finished) and all(record.evaluation for record in finished)
  different += records.check_cards(finished, allow, evaluated)
  values = {record.name: _values(record, evaluated) for record in finished}
  wanted = _metrics(metrics, values.values(), search.goal(folder))
  base = _baseline(baseline, chosen, study, list(found)) if baseline else None
  rows = _rows(found, values, wanted, base, over)
  notes = _notes(study, finished, evaluated, different, over)
  return Table(tuple(study.labels.get(key, key) for key in chosen), wanted, rows, base, _best(rows, wanted), notes,
               tuple(over))


def _varied(study: Study) -> tuple[str, ...]:
  """The keys in which runs differ."""
  return tuple(key for key in study.keys
               if len({names.shown(record.value(key)) for record in study.records}) > 1)


def _key(study: Study, text: str) -> str:
  """The key that a text names, by itself or by its label."""
  known = {**{key: key for record in study.records for key in record.config}, **{key: key for key in study.keys},
           **{label: key for key, label in study.labels.items()}}
  if text not in known:
    raise UserError(f'--by={text} names no key of these runs.{suggestion(text, known)} They differ in '
                    f'{", ".join(study.keys) or "nothing"}')
  return known[text]


def _values(record: Record, evaluated: bool) -> dict[str, float]:
  """The finite metrics of a finished run."""
  found = record.evaluation['metrics'] if evaluated and record.evaluation else record.heldout
  return {name: float(value) for name, value in found.items() if value is not None and math.isfinite(value)}


def _metrics(wanted: Sequence[str], values: Any, goals: Mapping[str, str]) -> dict[str, str]:
  """The metrics to show, and which is better; `goals`: those of a search."""
  better_of = lambda name: goals.get(name) or _better(name)
  known = list(dict.fromkeys(name for found in values for name in found))
  if list(wanted) == ['all']:
    return {name: better_of(name) for name in known}
  if not wanted:
    chosen = {name: better_of(name) for name in known if better_of(name)}
    return chosen or {name: '' for name in known if not re.search(r'_\d+$', name)}
  found = {}
  for text in wanted:
    name, _, better = text.partition(':')
    if name not in known and known:
      raise UserError(f'--metrics={name}: no finished run has it.{suggestion(name, known)} There are '
                      f'{listed(known, 20)}')
    if better not in ('', 'min', 'max'):
      raise UserError(f'--metrics={text}: after the colon stands min or max, whichever is better')
    found[name] = better or better_of(name)
  return found


def _better(name: str) -> str:
  measure, _, word = name.rpartition('/')
  word = measure if word == 'mean' else re.sub(r'^(text_of_image|image_of_text)_\d+$', 'recall', word)
  if name in _NEITHER:
    return ''
  return 'min' if word in LESS else 'max' if word in MORE else ''


def _baseline(text: str, by: Sequence[str], study: Study, settings: Sequence[tuple[str, ...]]) -> int:
  """The row that --baseline names."""
  header = [study.labels.get(key, key) for key in by]
  names_of = [','.join(f'{label}={value}' for label, value in zip(header, setting)) for setting in settings]
  wanted = [part for part in text.split(',') if part]
  matching = [index for index, name in enumerate(names_of) if set(wanted) <= set(name.split(','))]
  if len(matching) != 1:
    raise UserError(f'--baseline={text} is that of {len(matching) or "no"} settings, and must be that of one.'
                    f'{suggestion(text, names_of)} They are {"; ".join(names_of[:40])}')
  return matching[0]


def _rows(found: dict[tuple[str, ...], list[Record]], values: dict[str, dict[str, float]], metrics: dict[str, str],
          base: int | None, over: Sequence[str]) -> list[Row]:
  by_repetition = []  # row -> repetition -> metrics
  for runs in found.values():
    by_repetition.append({records.repetition(run, over): values[run.name] for run in runs if run.name in values})
  rows = []
  for index, (setting, runs) in enumerate(found.items()):
    mine = by_repetition[index]
    cells = {name: statistics.summary([one[name] for one in mine.values() if name in one]) for name in metrics}
    differences = {}
    if base is not None and index != base:
      theirs = by_repetition[base]
      for name in metrics:
        differences[name] = statistics.difference([mine[key][name] - theirs[key][name] for key in mine if key in theirs
                                                   and name in mine[key] and name in theirs[key]])
    rows.append(Row(setting, runs, cells, differences))
  return rows


def _best(rows: Sequence[Row], metrics: dict[str, str]) -> dict[str, set[int]]:
  best: dict[str, set[int]] = {}
  for name, better in metrics.items():
    means = {index: cell.mean for index, row in enumerate(rows)
             if (cell := row.cells[name]) is not None and row.finished == len(row.runs)}
    if better and len(set(means.values())) > 1:
      value = min(means.values()) if better == 'min' else max(means.values())
      best[name] = {index for index, mean in means.items() if mean == value}
  return best


def _notes(study: Study, finished: Sequence[Record], evaluated: bool, different: Sequence[str],
           over: Sequence[str]) -> list[str]:
  notes = [f'Mean ± standard deviation over {", ".join(over)}.']
  searched = search.best(study.folder)
  if finished and not evaluated:
    lacking = sum(record.evaluation is None for record in finished)
    # A search that is done evaluates no trial again.
    again = study.is_sweep and not searched
    how = 'genjax sweep --workdir=DIR --evaluate' if again else 'genjax evaluate --workdir=RUN'
    notes.append(f'{lacking} of {len(finished)} finished runs are not evaluated; these are held-out values of the end '
                 f'of training. `{how}` evaluates them.')
  for record in study.records:
    if record.info.state == listing.FAILED:
      notes.append(f'FAILED: {record.name}, step {record.info.step} of {record.info.steps} ({record.info.doing}).')
    elif record.info.state == listing.ENDED:
      notes.append(f'Pruned: {record.name}, {record.info.doing} of {record.info.steps}.')
    elif not record.finished:
      began = f', step {record.info.step} of {record.info.steps}' if record.info.step else ''
      notes.append(f'Unfinished: {record.name}{began}.')
  if searched:
    notes.append(f'The search: {searched}.')
  if study.former:
    notes.append(f'{study.former} runs in the folder are left out: the sweep no longer has them.')
  if different:
    notes.append(f'NOT ALIKE: the runs differ in {", ".join(different)}.')
  return notes
