"""A sweep: the settings that a config file yields, and the folder of their runs.

    sweep.json               the config file, and the name and the overrides of every run
    .sweep/NAME/             config.json, from which the run NAME is trained; run.json says where its builder is
    NAME/                    a run directory, with two files more: job.log, job.json, see `genjax.studies.jobs`
"""

from collections.abc import Mapping, Sequence
import dataclasses
import inspect
import json
import pathlib
import sys
from typing import Any

from genjax import config as config_lib
from genjax.config import Config
from genjax.runs import atomic, builders, configs, defaults, lock, same
from genjax.runs import workdir as workdir_lib
from genjax.studies import jobs, names, queues
from genjax.types import UserError, expanded, listed

FILE = 'sweep.json'
CONFIGS = queues.HIDDEN
ARGUMENT = 'arg'
_FACTS = ('file', 'argument', 'fixed', 'imports', 'paths', 'labels')  # of a sweep as a whole
SEED = 'seed'  # the key whose values are repetitions


@dataclasses.dataclass(frozen=True)
class Setting:
  """What one run of a sweep is.

  Attributes:
    name: of its folder.
    overrides: key -> value, see `genjax.configs.sweeps`.
    config: the whole config, as plain values.
  """

  name: str
  overrides: dict[str, Any]
  config: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Sweep:
  """The settings of a sweep, resolved: whoever edits the config file while runs wait changes none of them.

  Attributes:
    file: the config file, as it was named.
    argument: of the file, '' for none.
    fixed: key -> text that all runs change.
    imports: files and modules to load before.
    paths: folders to import the builder from.
    labels: key -> what names call it.
    settings: one for each run; of a search, those that it has chosen so far.
    search: what `genjax.configs.sweeps.search` returned, as plain values, with the config that all runs begin with.
  """

  file: str
  argument: str
  fixed: dict[str, str]
  imports: list[str]
  paths: list[str]
  labels: dict[str, str]
  settings: list[Setting]
  search: dict[str, Any] | None = None


def read(text: str, fixed: Mapping[str, str] | None = None, imports: Sequence[str] = (),
         labels: Mapping[str, str] | None = None) -> Sweep:
  """The sweep of a config file. Every setting is checked: its keys, its values, and that its builder takes them.

  Args:
    text: FILE[:argument].
    fixed: key -> text that all runs change, as `--config.key=text`.
    imports: files or modules to load before, see `genjax.runs.extensions`.
    labels: those of the folder where the sweep has one.

  Raises:
    UserError: the file has no function `sweep`, or that fails or yields no settings; an unknown key, a value of a wrong
      type, two settings with one name.
  """
  fixed = dict(fixed or {})
  path, argument = configs.find(text)
  base, paths, imports = configs.read(text, [_absolute(name) for name in imports])
  search, found = _yielded(path, argument)
  keys = [key for overrides in found for key in overrides]
  if twice := sorted(set(fixed) & set(keys)):
    raise UserError(f'--config.{twice[0]} is what the sweep varies; leave out the flag, or take the key out of sweep()')
  known = names.labels(keys, labels or {})
  called = [names.name(overrides, known) for overrides in found]
  if search is None:
    _check_names(called, found)
  made: dict[str | None, Config] = {argument: base}
  settings = []
  for name, overrides in zip(called, found):
    arguments = _argument(argument, overrides)
    with _naming(name):
      if arguments not in made:
        made[arguments] = configs.read(f'{path}:{arguments}', imports)[0]
      changes = {key: value for key, value in overrides.items() if not _is_argument(key)}
      settings.append(Setting(name, overrides, resolved(made[arguments], paths, fixed, changes)))
  _check_builders(settings, paths)
  if search is not None:
    _check_search(search, settings)
    search, settings = {**search, 'base': resolved(base, paths, fixed, search['setting'])}, []
  return Sweep(str(path), argument or '', fixed, imports, paths, known, settings, search)


def _absolute(name: str) -> str:
  """An import that is a file, found from any folder."""
  return str(expanded(name).absolute()) if expanded(name).is_file() else name


def _yielded(path: pathlib.Path, argument: str | None) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
  """What `sweep()` of a config file yields, or `sweep(arg)`, with nested dicts as dotted keys.

  Of a search come its plain values, and the settings at the ends of what it chooses from, to be checked.
  """
  function = getattr(configs.module(path), 'sweep', None) if path.suffix == '.py' else None
  if function is None:
    raise UserError(f'{path} has no function sweep(); write one that yields settings, such as {{"seed": 1}}, or '
                    'returns what genjax.configs.sweeps combines')
  with configs.failing(path):
    given = function(argument) if inspect.signature(function).parameters else function()
    search = None
    if hasattr(given, 'distributions'):
      search = {**dataclasses.asdict(given), 'setting': config_lib.flatten(given.setting)}
    found = list(given) if search is None else _ends(search)
  if not found:
    raise UserError(f'sweep() in {path} yields no settings')
  for overrides in found:
    if not isinstance(overrides, Mapping) or not all(isinstance(key, str) and key for key in overrides):
      raise UserError(f"sweep() in {path} must yield dicts from keys such as 'optimizers.net.lr' to values, got "
                      f'{overrides!r}')
  found = [{key: _plain(key, value) for key, value in config_lib.flatten(overrides).items()} for overrides in found]
  return _plain('search', search), found


def _ends(search: Mapping[str, Any]) -> list[dict[str, Any]]:
  """Settings at the ends of what a search chooses from: each of a key once, with the first ones of the others."""
  values = {key: [*one['values']] or [one['low'], one['high']] for key, one in search['distributions'].items()}
  first = {**search['setting'], **{key: ends[0] for key, ends in values.items()}}
  if arguments := [key for key in first if _is_argument(key)]:
    raise UserError(f'a search chooses values of config keys; {arguments[0]!r} is an argument of get_config: write it '
                    'after the colon, --config=FILE:NAME=value')
  return [first, *({**first, key: value} for key, ends in values.items() for value in ends[1:])]


def _check_search(search: Mapping[str, Any], settings: Sequence[Setting]) -> None:
  """Checks that runs evaluate themselves in time for a pruner."""
  for setting in settings if search['pruner'] != 'none' else ():
    every, steps = setting.config['evaluate_every'], setting.config['steps']
    if not 0 < every < steps:
      raise UserError(f'the pruner {search["pruner"]!r} looks at evaluations during training: config.evaluate_every '
                      f'must be from 1 to {steps - 1}, got {every}')


def chosen(sweep: Sweep, overrides: Mapping[str, Any]) -> Setting:
  """The setting of a search that changes these keys.

  Raises:
    UserError: its builder does not take them.
  """
  assert sweep.search is not None
  changes = {**sweep.search['setting'], **overrides}
  name = names.name(changes, sweep.labels)
  with _naming(name):
    base = config_lib.from_plain(sweep.search['base'])
    setting = Setting(name, changes, resolved(base, sweep.paths, {}, overrides))
    _check_builders([setting], sweep.paths)
  return setting


def _plain(key: str, value: Any) -> Any:
  """A value as JSON has it."""
  value = value.tolist() if hasattr(value, 'tolist') else value
  try:
    return json.loads(json.dumps(value, allow_nan=False))
  except (TypeError, ValueError) as error:
    raise UserError(f'sweep() gives {key!r} the value {value!r}; expected text, a finite number, True, False, None, or '
                    'a list or dict of such') from error


def _check_names(called: Sequence[str], found: Sequence[Mapping[str, Any]]) -> None:
  first: dict[str, Mapping[str, Any]] = {}
  for name, overrides in zip(called, found):
    if name in first:
      other = 'twice' if first[name] == overrides else f'for {first[name]} and for {overrides}'
      raise UserError(f'sweep() yields two settings of one name, {name!r}, {other}; leave one out, or let them differ')
    first[name] = overrides


def _is_argument(key: str) -> bool:
  return key == ARGUMENT or key.startswith(f'{ARGUMENT}.')


def _argument(argument: str | None, overrides: Mapping[str, Any]) -> str | None:
  """The argument of the config file with those of a setting, which go last."""
  items = [argument] if argument and ARGUMENT not in overrides else []
  items += [f'{key.partition(".")[2]}={value}' if key != ARGUMENT else str(value) for key, value in overrides.items()
            if _is_argument(key)]
  return ','.join(items) if items else argument


class _naming:
  """Inside, a `UserError` says which run it is of."""

  def __init__(self, name: str):
    self.name = name

  def __enter__(self) -> None:
    pass

  def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
    if isinstance(error, UserError):
      raise UserError(f'run {self.name!r}: {error}') from error


def resolved(base: Config, paths: list[str], fixed: Mapping[str, str], changes: Mapping[str, Any]) -> dict[str, Any]:
  """The config of a setting, as plain values.

  Args:
    base: what the config file gives.
    paths: folders to import the builder from.
    fixed: key -> text that all runs change.
    changes: key -> value that this one changes.

  Raises:
    UserError: an unknown key, or a value of a wrong type or out of range.
  """
  config = configs.copied(base)
  texts = {**fixed, **{key: value if isinstance(value, str) else repr(value) for key, value in changes.items()}}
  config_lib.assign(config, texts, lambda: builders.options(config, paths))
  config_lib.check(config)
  return config_lib.plain(config)


def _check_builders(settings: Sequence[Setting], paths: Sequence[str]) -> None:
  """Builds each config once; runs that differ in their seed alone are built alike."""
  built = set()
  for setting in settings:
    text = json.dumps({**setting.config, SEED: 0}, sort_keys=True)
    if text not in built:
      with _naming(setting.name):
        builders.build(config_lib.from_plain(setting.config), paths)
      built.add(text)


def stored(workdir: pathlib.Path) -> dict[str, Any] | None:
  """sweep.json of a folder; None where there is none.

  Raises:
    UserError: it is damaged.
  """
  path = workdir / FILE
  try:
    found = json.loads(path.read_text())
  except (FileNotFoundError, NotADirectoryError):
    return None
  except ValueError as error:
    raise UserError(f'{path} is damaged: {error}; restore it from a copy') from error
  if not isinstance(found, dict) or not {*_FACTS, 'runs'} <= found.keys():
    raise UserError(f'{path} is damaged, or no file of a sweep')
  return found


def reopened(workdir: pathlib.Path) -> Sweep:
  """The sweep of a folder as it was stored, to go on with it.

  Raises:
    UserError: there is none.
  """
  found = stored(workdir)
  if found is None:
    raise UserError(f'{workdir} holds no sweep; name one with --config=FILE[:args]')
  settings = [Setting(run['name'], run['overrides'], given_config(workdir, run['name'])) for run in found['runs']
              if run['current']]
  return Sweep(settings=settings, search=found.get('search'), **{key: found[key] for key in _FACTS})


def continued(sweep: Sweep, workdir: pathlib.Path) -> Sweep:
  """A search with the settings that it has chosen in a folder before; any other sweep as it is."""
  if sweep.search is None or stored(workdir) is None:
    return sweep
  return dataclasses.replace(sweep, settings=reopened(workdir).settings)


def given_config(workdir: pathlib.Path, name: str) -> dict[str, Any]:
  """The config that a run of a sweep is trained from.

  Raises:
    UserError: it is missing or damaged.
  """
  path = config_path(workdir, name)
  try:
    return json.loads(path.read_text())
  except (OSError, ValueError) as error:
    raise UserError(f'{path} is missing or damaged ({error}); run genjax sweep with its --config again') from error


def config_path(workdir: pathlib.Path, name: str) -> pathlib.Path:
  """Where the config of a run of a sweep is."""
  return workdir / CONFIGS / name / 'config.json'


def check_folder(sweep: Sweep, workdir: pathlib.Path, moved: Sequence[str] = ()) -> None:
  """Checks that a folder is new, or of this sweep, and that its runs have the configs that the sweep gives them.

  Args:
    sweep: the sweep.
    workdir: its folder.
    moved: keys that name where something is, which may be elsewhere now.

  Raises:
    UserError: the message shows what differs.
  """
  if (workdir / 'config.json').exists():
    raise UserError(f'--workdir={workdir} is a run directory; a sweep needs a folder of its own')
  before = stored(workdir)
  if before is None:
    if workdir.is_dir() and (there := sorted(
        path.name for path in workdir.iterdir() if path.name != lock.NAME and not path.name.startswith('.'))):
      raise UserError(f'--workdir={workdir} holds no sweep, and is not empty ({listed(there, 3)}); name a new folder')
  else:
    pairs = config_lib.difference(_identity(before), _identity(vars(sweep)))
    if pairs:
      lines = '\n'.join(f'  {key}: {was!r} there, {now!r} now' for key, (was, now) in pairs.items())
      raise UserError(f'--workdir={workdir} holds another sweep:\n{lines}\nUse another --workdir, or go on with that '
                      f'one: genjax sweep --workdir={workdir}')
  lines = []
  for setting in sweep.settings:
    if (workdir / setting.name / 'config.json').is_file():
      old = json.loads((workdir / setting.name / 'config.json').read_text())
      pairs = defaults.differences(old, setting.config, ignored=(*same.PLACEMENT, 'assets.', *moved))
      lines += [f'  {setting.name}: {key} is {was!r} there, {now!r} now' for key, (was, now) in pairs.items()]
  if lines:
    raise UserError(f'--workdir={workdir} has runs of other configs:\n' + '\n'.join(lines[:20])
                    + '\nNothing is used again that was trained otherwise: use another --workdir, or undo the change')


def _identity(facts: Mapping[str, Any]) -> dict[str, Any]:
  """What tells one sweep from another; the file may have been edited, and its folder moved."""
  search = {f'search.{key}': value for key, value in (facts.get('search') or {}).items() if key != 'trials'}
  return {'config file': pathlib.PurePath(facts['file']).name, 'arguments': facts['argument'],
          'flags': dict(facts['fixed']), **search}


def write(sweep: Sweep, workdir: pathlib.Path) -> None:
  """Writes sweep.json and the configs of the runs, see `check_folder`. Runs that the sweep had before and has no more
  stay in sweep.json, marked."""
  workdir_lib.prepare(str(workdir))
  for setting in sweep.settings:
    path = config_path(workdir, setting.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_json(path.with_name('run.json'), {'paths': sweep.paths, 'data': {}})
    atomic.write_json(path, setting.config)
  before = stored(workdir) or {'runs': []}
  runs = [{'name': setting.name, 'overrides': setting.overrides, 'current': True} for setting in sweep.settings]
  present = {run['name'] for run in runs}
  runs += [{**run, 'current': False} for run in before['runs'] if run['name'] not in present]
  facts = {field.name: getattr(sweep, field.name) for field in dataclasses.fields(sweep) if field.name != 'settings'}
  if sweep.search is None:
    del facts['search']
  atomic.write_json(workdir / FILE, {**facts, 'runs': runs})


def tasks(sweep: Sweep, workdir: pathlib.Path, evaluate: Sequence[str] | None = None, only: str = ''
          ) -> list[jobs.Task]:
  """What is to be done for each run of a sweep.

  Args:
    sweep: the sweep.
    workdir: its folder.
    evaluate: flags of `genjax evaluate`, by which each run is evaluated when it is trained; None for no evaluation.
    only: the name of one run, '' for all.
  """
  genjax = (sys.executable, '-m', 'genjax.cli.main')
  found = []
  for setting in sweep.settings:
    if only and setting.name != only:
      continue
    run = f'--workdir={workdir / setting.name}'
    train = (*genjax, 'train', f'--config={config_path(workdir, setting.name)}', run,
             *(f'--import={name}' for name in sweep.imports))
    task = jobs.Task(setting.name, workdir / setting.name, setting.config['steps'], train)
    found.append(task if evaluate is None else dataclasses.replace(
      task, evaluate=(*genjax, 'evaluate', run, *evaluate), flags=tuple(evaluate)))
  return found


def folder(text: str) -> pathlib.Path:
  """The folder that --workdir names.

  Raises:
    UserError: it is empty, or the address of a bucket.
  """
  if not text.strip():
    raise UserError('--workdir=DIR is needed: the folder of the sweep')
  if '://' in text:
    workdir_lib.prepare(text)
  return expanded(text)
