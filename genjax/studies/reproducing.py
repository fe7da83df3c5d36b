"""What `genjax reproduce` runs: rows of baselines as sweeps over their seeds, one folder for each row.

    WORKDIR/ROW/             the folder of a sweep, see `genjax.studies.sweeps`
    WORKDIR/ROW/seed=0/      a run
    WORKDIR/ROW/result.json  values and cards of its runs, see `genjax.studies.results`
    WORKDIR/weights/NAME/    public weights that rows name, made by `genjax import --to`
"""

from collections.abc import Mapping, Sequence
import contextlib
import dataclasses
import fnmatch
import importlib.util
import pathlib
from typing import Any

from genjax import config as config_lib
from genjax.config import suggestion
from genjax.runs import atomic, builders, configs, defaults, lock
from genjax.runs import workdir as workdir_lib
from genjax.studies import jobs, listing, originals, results, sweeps
from genjax.studies.baselines import Row
from genjax.types import UserError

_ARGUMENT = 'arg.'  # a key of `Row.uses` that is an argument of the config file


@dataclasses.dataclass(frozen=True)
class Planned:
  """A row with the runs that it needs.

  Attributes:
    row: the row.
    folder: of its sweep.
    sweep: its runs.
    tasks: seed -> what is to be done.
    moved: keys of its config that are paths.
    config: what results keep of the config.
  """

  row: Row
  folder: pathlib.Path
  sweep: sweeps.Sweep
  tasks: dict[int, jobs.Task]
  moved: tuple[str, ...]
  config: dict[str, Any]

  @property
  def pending(self) -> bool:
    """Whether something is to be done."""
    return any(task.pending() for task in self.tasks.values())

  def collect(self, why: str = '') -> results.Result:
    """What its runs measured; `why`: why those that have not begun could not."""
    return results.collect(self.row, self.config, self.tasks, dict.fromkeys(self.tasks, why),
                           results.read(self.folder / results.FILE))


def own_rows(file: pathlib.Path) -> dict[str, Row]:
  """The rows of a Python file with a tuple ROWS.

  Raises:
    UserError: it has none, or two of one name.
  """
  with configs.failing(file):
    found = getattr(configs.module(file), 'ROWS', None)
  if not isinstance(found, (tuple, list)) or not all(isinstance(row, Row) for row in found) or not found:
    raise UserError(f'{file} must have ROWS, a tuple of genjax.studies.baselines.Row')
  names = [row.name for row in found]
  if twice := [name for name in names if names.count(name) > 1]:
    raise UserError(f'{file} has two rows of one name, {twice[0]!r}; call one of them otherwise')
  return {row.name: row for row in found}


def check_table(table: Mapping[str, Row]) -> None:
  """Checks that rows name rows and data sets that there are.

  Raises:
    UserError: one does not.
  """
  for row in table.values():
    originals.check_names(row.data)
    if row.name == originals.WEIGHTS:
      raise UserError(f'a row is called {row.name!r}, as the folder of public weights beside it is; call it otherwise')
    for name in (*row.needs, *row.held_against):
      if name not in table:
        raise UserError(f'the row {row.name} names the row {name!r}, which is not there.{suggestion(name, table)}')


def cost(row: Row, accelerator: bool) -> float | None:
  """Minutes of one run of a row on this machine; None where it needs an accelerator that is not there."""
  return row.accelerator_minutes if accelerator and row.accelerator_minutes is not None else row.minutes


def choose(table: Mapping[str, Row], names: Sequence[str], minutes: float | None, accelerator: bool) -> list[Row]:
  """The rows that are asked for.

  Args:
    table: all rows.
    names: names or patterns; none for all, if `minutes` is given.
    minutes: the most that a run of a row may take, None for any.
    accelerator: whether there is one.

  Raises:
    UserError: a name that no row has.
  """
  found: dict[str, Row] = {}
  for name in names or ['*']:
    fitting = [row for row in table.values() if fnmatch.fnmatchcase(row.name, name)]
    if not fitting:
      raise UserError(f'there is no row {name!r}.{suggestion(name, table)} `genjax reproduce --list` shows all')
    found.update({row.name: row for row in fitting})
  costs = {row.name: cost(row, accelerator) for row in found.values()}
  return [row for row in table.values() if row.name in found and (
    minutes is None or (costs[row.name] is not None and costs[row.name] <= minutes))]  # type: ignore[operator]


def with_needed(table: Mapping[str, Row], chosen: Sequence[Row]) -> list[Row]:
  """The rows with those that they stand on and are compared with, each after those that it stands on."""
  found: dict[str, Row] = {}

  def add(row: Row, above: tuple[str, ...]) -> None:
    if row.name in above:
      raise UserError(f'the row {row.name} stands on itself: {" on ".join([*above, row.name])}')
    for name in row.needs:
      add(table[name], (*above, row.name))
    found.setdefault(row.name, row)
    for name in row.held_against:
      if name not in found and name not in above:
        add(table[name], (*above, row.name))

  for row in chosen:
    add(row, ())
  return list(found.values())


def plan(table: Mapping[str, Row], row: Row, workdir: pathlib.Path, place: pathlib.Path | None) -> Planned:
  """The runs of a row; nothing is written.

  Args:
    table: all rows.
    row: the row.
    workdir: the folder of all rows.
    place: folder of original files of data sets, or None.

  Raises:
    UserError: its config does not take its overrides, or the folder holds runs of another config.
  """
  folder = workdir.absolute() / row.name
  paths, names, settings = {}, {}, []
  fixed = {key: _text(value) for key, value in row.overrides.items()}
  sources: list[str] = []
  for seed in row.seeds:
    uses = {key: _run(table[name], seed, workdir) for key, name in row.uses.items()}
    uses.update({key: originals.weights(workdir, name) for key, name in row.weights.items()})
    names.update({str(path): '/'.join(path.parts[-2:]) for path in uses.values()})
    base, sources, _ = configs.read(_config(row, uses))
    changes: dict[str, Any] = {sweeps.SEED: seed, **{key: str(path) for key, path in uses.items()
                                                     if not key.startswith(_ARGUMENT)}}
    for data in row.data:
      found = originals.folder(data, place) if originals.SETS[data].in_place else None
      paths.update({'data.originals': str(found.absolute())} if found else {})
    try:
      config = sweeps.resolved(base, sources, fixed, {**changes, **paths})
    except UserError as error:
      raise UserError(f'row {row.name!r}: {error}') from error
    settings.append(sweeps.Setting(f'{sweeps.SEED}={seed}', {sweeps.SEED: seed}, config))
  sweep = sweeps.Sweep(row.config.partition(':')[0], row.config.partition(':')[2], fixed, [], sources,
                       {sweeps.SEED: sweeps.SEED}, settings)
  flat = config_lib.flatten(settings[0].config)
  moved = tuple(key for key, value in flat.items()
                if key == 'data.originals' or isinstance(value, str) and value in names)
  sweeps.check_folder(sweep, folder, moved)
  tasks = {setting.overrides[sweeps.SEED]: dataclasses.replace(task, name=f'{row.name}/{task.name}')
           for setting, task in zip(settings, sweeps.tasks(sweep, folder, row.evaluate))}
  return Planned(row, folder, sweep, tasks, moved, results.without_paths(settings[0].config, names))


def config(table: Mapping[str, Row], row: Row) -> dict[str, Any]:
  """What results keep of the config that a row has now."""
  return plan(table, row, pathlib.Path('nowhere'), None).config


def _text(value: Any) -> str:
  return value if isinstance(value, str) else repr(value)


def _run(row: Row, seed: int, workdir: pathlib.Path) -> pathlib.Path:
  """The run of another row that one of this seed stands on."""
  return workdir.absolute() / row.name / f'{sweeps.SEED}={seed if seed in row.seeds else row.seeds[0]}'


def _config(row: Row, uses: Mapping[str, pathlib.Path]) -> str:
  """The config of a row as `configs.read` takes it; one of genjax itself, whatever the current folder holds."""
  file, _, argument = row.config.partition(':')
  own = builders.OWN_CONFIGS.joinpath(*pathlib.PurePath(file).parts[1:])
  file = str(own) if file.startswith('configs/') and own.is_file() else file
  items = [argument] if argument else []
  items += [f'{key.removeprefix(_ARGUMENT)}={path}' for key, path in uses.items() if key.startswith(_ARGUMENT)]
  return ':'.join([file, ','.join(items)] if items else [file])


def missing(planned: Sequence[Planned], place: pathlib.Path | None, accelerator: bool) -> dict[str, str]:
  """Why rows with something to do cannot be run here; data that can be had is prepared.

  Args:
    planned: the rows.
    place: folder of original files of data sets, or None.
    accelerator: whether there is one.

  Returns:
    Name of a row -> why.
  """
  found = {}
  doing = [one for one in planned if one.pending]
  absent = originals.make(dict.fromkeys(name for one in doing for name in one.row.data), place)
  for one in doing:
    lacking = [name for name in one.row.packages if importlib.util.find_spec(name) is None]
    if cost(one.row, accelerator) is None:
      found[one.row.name] = 'it needs an accelerator'
    elif lacking:
      found[one.row.name] = f'it needs the package {", ".join(lacking)}'
    elif told := [why for name in one.row.weights.values() if (why := originals.no_weights(one.folder.parent, name))]:
      found[one.row.name] = told[0]
    elif any(name in absent for name in one.row.data):
      found[one.row.name] = '; '.join(absent[name] for name in one.row.data if name in absent)
  for one in doing:  # in their order: a row goes after those that it stands on
    if one.row.name not in found and (below := [name for name in one.row.needs if name in found]):
      found[one.row.name] = f'it stands on {below[0]}, which cannot be run here'
  return found


def run(planned: Sequence[Planned], count: int, observer: jobs.Observer) -> tuple[dict[str, str], str | None]:
  """Does what is pending of rows, each after those that it stands on; see `genjax.studies.jobs.run`.

  Returns:
    Why runs failed, by name, and the name of the signal that stopped it all, or None.

  Raises:
    UserError: another process works on one of the rows.
  """
  failed: dict[str, str] = {}
  with contextlib.ExitStack() as locks:
    waiting = [one for one in planned if one.pending]
    for one in waiting:
      workdir_lib.prepare(str(one.folder))
      locks.enter_context(lock.hold(one.folder))
      sweeps.write(one.sweep, one.folder)
      _repoint(one)
    while waiting:
      names = {one.row.name for one in waiting}
      ready = [one for one in waiting if not names & set(one.row.needs)]
      waiting = [one for one in waiting if one not in ready]
      unmet = {one.row.name: _unmet(one, planned) for one in ready}
      failed.update({name: why for name, why in unmet.items() if why})
      told, stopped = jobs.run([task for one in ready if not unmet[one.row.name] for task in one.tasks.values()],
                               count, observer)
      failed.update(told)
      if stopped:
        return failed, stopped
  return failed, None


def _unmet(one: Planned, planned: Sequence[Planned]) -> str:
  """Why a row cannot begin, since one that it stands on has not ended; '' if all have."""
  below = [other for other in planned if other.row.name in one.row.needs]
  lost = [other.row.name for other in below
          if not all(listing.is_finished(task.folder, {'steps': task.steps}) for task in other.tasks.values())]
  return f'not begun, since {lost[0]} has not been trained' if lost else ''


def _repoint(one: Planned) -> None:
  """Tells runs that go on in a folder that was moved where the runs are now that they stand on."""
  for setting in one.sweep.settings:
    path = one.folder / setting.name / 'config.json'
    config = listing.load(path)
    pairs = defaults.differences(config, setting.config) if config else {}
    changed = False
    for key in one.moved:
      if key in pairs:
        *parents, last = key.split('.')
        node = config
        for parent in parents:
          node = node[parent]
        node[last], changed = config_lib.flatten(setting.config)[key], True
    if changed:
      atomic.write_json(path, config)
