"""A search: the next setting is chosen by Optuna when a run ends, and runs that will not be good end early.

    .sweep/search.db     Optuna's study, in SQLite: a trial for each time that a setting was chosen
    .sweep/search.json   the best run, and how many trials there were

The sampler of each trial begins anew, with a seed of its own, so that a search which was killed and goes on chooses
what it would have chosen. A setting that is chosen twice is one run: the second trial gets its value.
"""

from collections.abc import Iterator, Sequence
import hashlib
import importlib.util
import json
import math
import pathlib
import time
from typing import Any
import warnings

from genjax.config import suggestion
from genjax.runs import atomic, scoring
from genjax.studies import jobs, listing, sweeps
from genjax.types import UserError, listed

STORAGE, BEST = 'search.db', 'search.json'
LOOK = 1.0  # seconds between two looks at the evaluations of a run
_RUN, _REPLACES = 'run', 'replaces'  # what trials are marked with: the name of their run, the number of a failed trial


def check() -> None:
  """Checks that Optuna is there.

  Raises:
    UserError: it is not.
  """
  if importlib.util.find_spec('optuna') is None:
    raise UserError('a search needs Optuna: install genjax-research[search]')


class Search:
  """A source of tasks, see `genjax.studies.jobs`.

  Args:
    sweep: of a search; chosen settings are added to it, and written.
    folder: of the sweep.
    evaluate: flags of `genjax evaluate`, None for no evaluation.
    say: prints a line.
  """

  def __init__(self, sweep: sweeps.Sweep, folder: pathlib.Path, evaluate: Sequence[str] | None, say: Any = print):
    import optuna
    assert sweep.search is not None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    self._optuna, self._sweep, self._folder, self._evaluate, self._say = optuna, sweep, folder, evaluate, say
    self._facts = sweep.search
    (folder / sweeps.CONFIGS).mkdir(parents=True, exist_ok=True)
    self._storage = optuna.storages.RDBStorage(f'sqlite:///{(folder / sweeps.CONFIGS / STORAGE).absolute()}')
    self._study = optuna.create_study(storage=self._storage, study_name='genjax', load_if_exists=True,
                                      pruner=self._pruner(),
                                      direction={'min': 'minimize', 'max': 'maximize'}[self._facts['goal']])
    self.wrong = ''  # why no further run would help
    self._again: list[str] = []  # runs of an earlier process that are to be taken up
    self._looked: dict[str, tuple[float, float]] = {}  # run -> when, and at which step it was last judged
    self._active: set[str] = set()
    self._recover()

  def _pruner(self) -> Any:
    pruners, warmup, startup = self._optuna.pruners, self._facts['warmup'], self._facts['startup']
    if self._facts['pruner'] == 'median':
      return pruners.MedianPruner(n_startup_trials=startup, n_warmup_steps=warmup)
    if self._facts['pruner'] == 'asha':
      return pruners.SuccessiveHalvingPruner(min_resource=max(1, warmup or self._facts['base']['evaluate_every']))
    return pruners.NopPruner()

  def _recover(self) -> None:
    """Takes up what an earlier process left. Failed runs are tried again, as those of any sweep."""
    states = self._optuna.trial.TrialState
    for trial in self._study.get_trials(deepcopy=False):
      if trial.state == states.RUNNING and _RUN not in trial.user_attrs:  # the process ended while it chose
        self._study.tell(trial.number, state=states.FAIL)
    for trial in self._trials():
      name = trial.user_attrs[_RUN]
      if trial.state == states.FAIL:
        self._study.add_trial(self._optuna.trial.create_trial(
          state=states.RUNNING, params=trial.params, distributions=trial.distributions,
          user_attrs={_RUN: name, _REPLACES: trial.number}))
      left = trial.state in (states.FAIL, states.RUNNING)
      if (left or trial.state == states.COMPLETE and self._evaluate is not None) and name not in self._again:
        self._again.append(name)  # one that is finished may lack the evaluation
    known = {setting.name for setting in self._sweep.settings}
    for name in self._again:
      if name not in known:  # it ended between the trial and sweep.json
        self._add(next(trial for trial in self._trials() if trial.user_attrs.get(_RUN) == name).params)

  def _trials(self, name: str | None = None) -> list[Any]:
    """The trials that count, or those of a run."""
    found = [trial for trial in self._study.get_trials(deepcopy=False) if _RUN in trial.user_attrs]
    replaced = {trial.user_attrs.get(_REPLACES) for trial in found}
    found = [trial for trial in found if trial.number not in replaced]
    return found if name is None else [trial for trial in found if trial.user_attrs[_RUN] == name]

  def next(self) -> jobs.Task | None:
    """What an earlier process left, and then new settings until there are enough."""
    while self._again and not self.wrong:
      task = self._begin(self._again.pop(0))
      if task is not None:
        return task
    while len(self._trials()) < self._facts['trials'] and not self.wrong:
      task = self._begin(self._ask())
      if task is not None:
        return task
    return None

  def _begin(self, name: str) -> jobs.Task | None:
    """The task of a run; None where there is nothing to do, of which the trials are told."""
    if name in self._active:  # chosen again while it trains
      return None
    task, = sweeps.tasks(self._sweep, self._folder, self._evaluate, name)
    if task.pending():
      self._active.add(name)
      return task
    self._look_back(task)
    self._settle(task, '')
    return None

  def _ask(self) -> str:
    """Chooses a setting; returns the name of its run."""
    number = len(self._trials())
    seed = int.from_bytes(hashlib.sha256(f'{self._facts["seed"]}/{number}'.encode()).digest()[:4], 'big')
    with warnings.catch_warnings():
      warnings.simplefilter('ignore', self._optuna.exceptions.ExperimentalWarning)
      self._study.sampler = self._optuna.samplers.TPESampler(seed=seed, n_startup_trials=self._facts['startup'],
                                                             constant_liar=True)
    trial = self._study.ask(self._distributions())
    name = self._name(trial.params)
    trial.set_user_attr(_RUN, name)
    self._add(trial.params)
    return name

  def _distributions(self) -> dict[str, Any]:
    kinds, found = self._optuna.distributions, {}
    for key, one in self._facts['distributions'].items():
      if one['kind'] == 'choice':  # Optuna stores no lists
        found[key] = kinds.CategoricalDistribution([json.dumps(value) for value in one['values']])
      elif one['kind'] == 'integers':
        found[key] = kinds.IntDistribution(int(one['low']), int(one['high']))
      else:
        found[key] = kinds.FloatDistribution(one['low'], one['high'], log=one['kind'] == 'log_uniform')
    return found

  def _overrides(self, params: dict[str, Any]) -> dict[str, Any]:
    """What a trial chose, as a run has it: numbers with four digits."""
    found = {}
    for key, one in self._facts['distributions'].items():
      value = json.loads(params[key]) if one['kind'] == 'choice' else params[key]
      if one['kind'] in ('uniform', 'log_uniform'):
        value = min(max(float(f'{value:.4g}'), one['low']), one['high'])
      found[key] = value
    return found

  def _name(self, params: dict[str, Any]) -> str:
    return sweeps.chosen(self._sweep, self._overrides(params)).name

  def _add(self, params: dict[str, Any]) -> None:
    """Adds the run of a trial to the sweep, if it is new."""
    setting = sweeps.chosen(self._sweep, self._overrides(params))
    if setting.name not in {known.name for known in self._sweep.settings}:
      self._sweep.settings.append(setting)
      sweeps.write(self._sweep, self._folder)

  def unwanted(self, task: jobs.Task) -> str:
    """Tells Optuna of new evaluations of a run, and asks whether it should go on."""
    when, _ = self._looked.get(task.name, (0.0, 0.0))
    if self._facts['pruner'] == 'none' or time.monotonic() - when < LOOK:
      return ''
    return self._judge(task)

  def _judge(self, task: jobs.Task) -> str:
    """Looks at every evaluation in its order, so that the verdict does not depend on when it was looked at."""
    path, judged = task.folder / listing.JOB, self._looked.get(task.name, (0.0, 0.0))[1]
    kept = self._trials(task.name)[0]
    if kept.state.is_finished():  # its run had its verdict, and is chosen again
      return ''
    last = max(kept.intermediate_values, default=0)  # what an earlier process reported
    trial = self._optuna.trial.Trial(self._study, kept._trial_id)
    for step, value in evaluations(task.folder / 'metrics.jsonl', self._facts['metric']):
      if step <= judged or not 0 < step < task.steps:
        continue
      if step not in kept.intermediate_values:
        trial.report(value, step)
      judged = step
      if step >= last and trial.should_prune():
        atomic.write_json(path, {**listing.load(path), listing.PRUNED: step})
        break
    self._looked[task.name] = time.monotonic(), judged
    pruned = listing.load(path).get(listing.PRUNED)
    return '' if pruned is None else f'ended early at step {pruned} by the pruner {self._facts["pruner"]}'

  def ended(self, task: jobs.Task, why: str, code: int) -> None:
    """Tells Optuna what a run has reached."""
    self._active.discard(task.name)
    self._look_back(task)
    self._settle(task, why)

  def _look_back(self, task: jobs.Task) -> None:
    """Judges what a run evaluated since the last look."""
    if self._facts['pruner'] != 'none' and listing.load(task.folder / listing.JOB).get(listing.PRUNED) is None:
      self._judge(task)

  def _settle(self, task: jobs.Task, why: str) -> None:
    states = self._optuna.trial.TrialState
    value = self._metrics(task).get(self._facts['metric']) if task.is_trained() else None
    pruned = listing.load(task.folder / listing.JOB).get(listing.PRUNED) is not None
    if task.is_trained() and not why and not pruned and self._facts['metric'] not in self._metrics(task):
      self.wrong = (f'{task.name} has no metric {self._facts["metric"]!r}'
                    f'.{suggestion(self._facts["metric"], self._metrics(task))} It has '
                    f'{listed(sorted(self._metrics(task)), 20)}')
    elif task.is_trained() and self._facts['pruner'] != 'none' and not _names(
        task.folder / 'metrics.jsonl', self._facts['metric']):
      self.wrong = (f'the pruner {self._facts["pruner"]!r} looks at {self._facts["metric"]!r} during training, and '
                    f'{task.name} has it at the end alone. During training there are '
                    f'{listed(sorted(listing.last_metrics(task.folder)), 20)}')
    for trial in self._trials(task.name):
      if trial.state.is_finished():
        continue
      if pruned:
        self._study.tell(trial.number, state=states.PRUNED)
      elif why or value is None or not math.isfinite(value):
        self._study.tell(trial.number, state=states.FAIL)
      else:
        self._study.tell(trial.number, value)
    self._keep()

  def _metrics(self, task: jobs.Task) -> dict[str, float]:
    """What a run has measured, the last evaluation first."""
    summary = listing.load(task.folder / 'summary.json').get('heldout', {})
    found = {**listing.last_metrics(task.folder), **{f'heldout/{name}': value for name, value in summary.items()}}
    if task.evaluate:
      found.update(listing.load(task.folder / scoring.NAME).get('metrics', {}))
    return {name: math.nan if value is None else float(value) for name, value in found.items()}

  def close(self) -> None:
    """Lets go of the storage."""
    self._storage.remove_session()
    self._storage.engine.dispose()

  def _keep(self) -> None:
    """Writes what the search has found so far."""
    states = self._optuna.trial.TrialState
    trials = self._trials()
    complete = [trial for trial in trials if trial.state == states.COMPLETE]
    choose = min if self._facts['goal'] == 'min' else max
    best = choose(complete, key=lambda trial: trial.value) if complete else None
    runs = lambda state: len({trial.user_attrs[_RUN] for trial in trials if trial.state == state})
    atomic.write_json(self._folder / sweeps.CONFIGS / BEST, {
      'metric': self._facts['metric'], 'goal': self._facts['goal'], 'trials': len(trials),
      'runs': len({trial.user_attrs.get(_RUN) for trial in trials}), 'pruned': runs(states.PRUNED),
      'failed': runs(states.FAIL), 'best': best.user_attrs[_RUN] if best else None,
      'value': best.value if best else None})


def goal(folder: pathlib.Path) -> dict[str, str]:
  """The metric of a search, and whether 'min' or 'max' of it is best; empty for another sweep."""
  found = listing.load(folder / sweeps.CONFIGS / BEST)
  return {found['metric']: found['goal']} if found else {}


def best(folder: pathlib.Path) -> str:
  """The best run of a search in a line; '' for another sweep."""
  found = listing.load(folder / sweeps.CONFIGS / BEST)
  if not found:
    return ''
  counts = f'{found["trials"]} trials, {found["runs"]} runs' + ''.join(
    f', {found[state]} {state}' for state in ('pruned', 'failed') if found[state])
  if found['best'] is None:
    return f'no run of the search has reached its end ({counts})'
  return f'best by {found["metric"]}, {found["goal"]}: {found["best"]}, {found["value"]:.6g} ({counts})'


def _names(path: pathlib.Path, metric: str) -> bool:
  """Whether a file metrics.jsonl has a metric at all, be it no finite number."""
  try:
    return f'"{metric}"' in path.read_text(errors='replace')
  except OSError:
    return False


def evaluations(path: pathlib.Path, metric: str) -> Iterator[tuple[int, float]]:
  """The finite values of a metric in a file metrics.jsonl, with their steps."""
  try:
    lines = path.read_text().splitlines()
  except OSError:
    return
  for line in lines:
    if f'"{metric}"' not in line:
      continue
    try:
      entry = json.loads(line)
    except ValueError:  # a line that is being written
      continue
    value = entry.get(metric)
    if isinstance(value, (int, float)) and math.isfinite(value):
      yield int(entry['step']), float(value)

