"""Results of baselines: values and metric cards of the runs of a row, one JSON file for each row.

A result says what the row was when it ran: its config and the flags of its evaluation. Runs of one config add up,
wherever they ran; those of another one replace each other.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import pathlib
import subprocess
from typing import Any

from genjax import config as config_lib
from genjax.runs import atomic, defaults, same, scoring
from genjax.runs import workdir as workdir_lib
from genjax.studies import jobs, listing
from genjax.studies.baselines import Row
from genjax.types import UserError

FILE = 'result.json'  # in the folder of a row
IGNORED = (*same.PLACEMENT, 'assets.', 'seed', 'data.data_dir', 'data.originals')
_RUN = ('versions', 'source', 'random', 'devices', 'machine', 'cpus')  # what is kept of run.json


@dataclasses.dataclass(frozen=True)
class Result:
  """What is known of a row.

  Attributes:
    row: its name.
    config: dotted key -> value of its runs, without seed and paths, see `without_paths`.
    evaluate: flags of `genjax evaluate`.
    runs: seed -> `values` (name -> number), `card`, `seconds` of training, and what ran where.
    missing: seed -> why it has no values.
  """

  row: str
  config: dict[str, Any]
  evaluate: tuple[str, ...]
  runs: dict[int, dict[str, Any]] = dataclasses.field(default_factory=dict)
  missing: dict[int, str] = dataclasses.field(default_factory=dict)

  def values(self, metric: str) -> dict[int, float]:
    """Seed -> value of a metric, NaN where the evaluation has none."""
    return {seed: _number(run['values'].get(metric)) for seed, run in sorted(self.runs.items())}

  def as_json(self) -> dict[str, Any]:
    """What a file of results holds."""
    text = lambda found: {str(seed): found[seed] for seed in sorted(found)}
    return {'row': self.row, 'config': self.config, 'evaluate': list(self.evaluate), 'runs': text(self.runs),
            'missing': text(self.missing)}


def _number(value: Any) -> float:
  return float('nan') if value is None else float(value)


def read(path: pathlib.Path) -> Result | None:
  """The result in a file; None where there is none.

  Raises:
    UserError: it is damaged.
  """
  if not path.exists():
    return None
  found = listing.load(path)
  try:
    numbered = lambda name: {int(seed): value for seed, value in found[name].items()}
    return Result(found['row'], found['config'], tuple(found['evaluate']), numbered('runs'), numbered('missing'))
  except (KeyError, TypeError, ValueError, AttributeError) as error:
    raise UserError(f'{path} is damaged, or no file of results ({type(error).__name__}: {error}); restore it from a '
                    'copy') from error


def stored(folder: pathlib.Path, names: Sequence[str]) -> dict[str, Result]:
  """The results of a folder that `keep` wrote, by row."""
  found = {name: read(folder / f'{name}.json') for name in names}
  return {name: result for name, result in found.items() if result is not None}


def collect(row: Row, config: Mapping[str, Any], tasks: Mapping[int, jobs.Task],
            reasons: Mapping[int, str], before: Result | None = None) -> Result:
  """What the runs of a row measured.

  Args:
    row: the row.
    config: of its runs, see `Result.config`.
    tasks: seed -> what would be done for its run.
    reasons: seed -> why it could not be begun.
    before: what the row's own folder said, which knows the commit of runs of code from before.
  """
  runs, missing = {}, {}
  for seed, task in tasks.items():
    if task.pending():
      missing[seed] = _state(task) or reasons.get(seed) or _not_begun(row)
    else:
      runs[seed] = _measured(task.folder)
      known = before.runs.get(seed, {}) if before else {}
      if 'commit' in known and known.get('source') == runs[seed].get('source'):
        runs[seed].setdefault('commit', known['commit'])
  return Result(row.name, dict(config), row.evaluate, runs, missing)


def _measured(folder: pathlib.Path) -> dict[str, Any]:
  """The values of a finished run, with what they depend on."""
  evaluation = listing.load(folder / scoring.NAME)
  facts, summary = listing.load(folder / 'run.json'), listing.load(folder / 'summary.json')
  found = {'values': evaluation.get('metrics', {}), 'card': _portable(evaluation.get('card', {})),
           'seconds': summary.get('seconds'), **{key: facts[key] for key in _RUN if key in facts}}
  if facts.get('source') == workdir_lib.source() and (commit := _commit()):
    found['commit'] = commit
  return found


def _portable(value: Any) -> Any:
  """A card without the folders of the machine that wrote it."""
  if isinstance(value, dict):
    return {key: _portable(item) for key, item in value.items()}
  if isinstance(value, list):
    return [_portable(item) for item in value]
  return pathlib.PurePath(value).name if isinstance(value, str) and value.startswith('/') else value


@functools.cache
def _commit() -> str:
  """The commit of this checkout, '' for an installed package or one with changes that are not committed."""
  root = pathlib.Path(__file__).resolve().parents[2]
  ask = lambda *words: subprocess.run(['git', '-C', str(root), *words], capture_output=True, text=True, timeout=30,
                                      check=True).stdout.strip()
  try:
    return ask('rev-parse', 'HEAD') if (root / '.git').exists() and not ask(
      'status', '--porcelain', '--', 'genjax', 'experiments', 'configs') else ''
  except (OSError, subprocess.SubprocessError):
    return ''


def _state(task: jobs.Task) -> str:
  """Why a run that has begun has no values, '' for one that has not."""
  info = listing.read(task.folder)
  if info.state == listing.WAITING:
    return ''
  if info.state == listing.FINISHED:
    return 'not evaluated'
  told = f'failed ({info.doing})' if info.state == listing.FAILED else 'not finished'
  return f'{told}, at step {info.step} of {task.steps}'


def _not_begun(row: Row) -> str:
  if row.minutes is None:
    return 'it needs an accelerator'
  return f'not begun; a run takes {row.minutes:g} minutes on two cores'


def is_same(first: Result, second: Result) -> bool:
  """Whether two results are of one setting, so that their runs add up."""
  return first.evaluate == second.evaluate and not differences(first.config, second.config)


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
  """Dotted keys in which the configs of two results differ."""
  return list(defaults.differences(first, second, ignored=IGNORED))


def merged(before: Result | None, now: Result) -> Result:
  """A stored result with what is known now; of a seed that both have, the newer value stays.

  A result of another setting is replaced, unless nothing has been measured yet with the present one.
  """
  if before is None or not before.runs:
    return now
  if not is_same(before, now):
    return now if now.runs else before
  runs = {**before.runs, **now.runs}
  return dataclasses.replace(now, runs=runs,
                             missing={seed: why for seed, why in now.missing.items() if seed not in runs})


def keep(found: Mapping[str, Result], folder: pathlib.Path) -> dict[str, Result]:
  """Writes a file for each row into a folder, beside what it has from elsewhere; returns what it holds then."""
  folder.mkdir(parents=True, exist_ok=True)
  kept = {}
  for name, result in found.items():
    kept[name] = merged(read(folder / f'{name}.json'), result)
    atomic.write_json(folder / f'{name}.json', kept[name].as_json())
  return kept


def without_paths(config: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
  """A config as results keep it: without seed, and with names of rows in the place of the paths of their runs.

  Args:
    config: plain values.
    names: path of a run -> what stands for it.
  """
  flat = config_lib.flatten(dict(config))
  flat.update({key: names[value] for key, value in flat.items() if isinstance(value, str) and value in names})
  flat.update({key: '' for key in ('data.data_dir', 'data.originals') if key in flat})
  flat.pop('seed', None)
  return flat
