"""Files of the user's that add parts to genjax: `--import=my.py`, see docs/extending.md.

A file is executed once a process, before any builder runs. The run keeps it in RUN/imports, and whoever opens the run
later executes it from there.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
import contextlib
import dataclasses
import importlib
import importlib.util
import pathlib
import sys
from types import ModuleType
from typing import Any

from genjax import distributed, tables
from genjax.runs import atomic, code
from genjax.runs.assets import read_json
from genjax.training.hooks import HOOKS, Hook
from genjax.training.monitoring.logs import say
from genjax.types import UserError, expanded

HELP = ('a Python file or a module that adds samplers, processes, norms, ... by name (docs/extending.md); several may '
        'be given. A run keeps it')


@dataclasses.dataclass
class _Loaded:
  """A file that was executed, or a module that was imported: of which content, where, and what it added."""

  added: tables.Added
  checksum: str = ''
  path: pathlib.Path | None = None


_loaded: dict[str, _Loaded] = {}  # by module name


def add_flag(parser: argparse.ArgumentParser) -> None:
  """Adds the flag `--import` to the parser of a command, as `imports`."""
  parser.add_argument('--import', dest='imports', action='append', default=[], metavar='FILE', help=HELP)


def load(imports: Sequence[str]) -> None:
  """Executes files and imports modules, each once a process.

  A file of another content but the same name takes the place of the one before, with all that it added.

  Args:
    imports: paths of Python files, or names of modules.

  Raises:
    UserError: a file or module is missing, has a name that another module has, or fails.
  """
  for name in imports:
    path = _file(name)
    if path is not None:
      _execute(path)
    elif name not in _loaded:
      with _adding(name) as added:
        importlib.import_module(name)
      _loaded[name] = _Loaded(added)


def unload() -> None:
  """Takes back what imported files added in this process; `load` executes them anew."""
  for name, loaded in _loaded.items():
    tables.remove(loaded.added)
    sys.modules.pop(name, None)
  _loaded.clear()


def keep(workdir: pathlib.Path, imports: Sequence[str]) -> dict[str, Any]:
  """Keeps imported files in a run directory.

  Installed packages are not copied: their names are kept, and they must be installed wherever the run is used.

  Returns:
    What run.json holds of them: `imports`, file names and module names in their order, and `code`, see `code.keep`.

  Raises:
    UserError: see `code.keep`.
  """
  sources = {name: _source(name) for name in imports}
  kept = code.keep(workdir, [path for path in sources.values() if path is not None])
  names = [path.name if (path := _file(name)) is not None else name for name in imports]
  record = {'imports': list(dict.fromkeys(names)), 'code': kept}
  distributed.check_equal(record, 'the files that --import names')
  return record


def record(workdir: pathlib.Path, description: Mapping[str, Any]) -> None:
  """Writes to run.json what a run that goes on imports from now on, where that has grown.

  Args:
    workdir: the run directory.
    description: with what `keep` returned.
  """
  before = read_json(workdir / 'run.json')
  files = {**dict(before.get('code', ())), **dict(description['code'])}
  after = {**before, 'imports': description['imports'], 'code': [list(pair) for pair in sorted(files.items())]}
  if after['imports'] != before.get('imports', []):
    atomic.write_json(workdir / 'run.json', after)


def hooks(workdir: pathlib.Path, imports: Sequence[str]) -> list[Hook]:
  """The user's hooks for a training: those that its imports added, and those that no import did.

  Args:
    workdir: the run directory, for which they are made.
    imports: of the run.
  """
  mine = {path.stem if (path := _file(name)) is not None else name for name in imports}
  others = {added for module, loaded in _loaded.items() if module not in mine
            for table, added in loaded.added if table is HOOKS}
  return [make(workdir) for name, make in HOOKS.items() if name not in others]


def kept(workdir: pathlib.Path) -> list[str]:
  """The imports that a run directory keeps, as `load` takes them.

  Raises:
    UserError: no run directory, or a kept file is missing or was changed.
  """
  record = read_json(workdir / 'run.json')
  code.check(workdir, record.get('code', ()))
  folder = (workdir / code.FOLDER).absolute()
  imports = [str(folder / name) if name.endswith('.py') else name for name in record.get('imports', ())]
  if imports and str(folder) not in sys.path:
    sys.path.insert(0, str(folder))  # kept packages are found there before newer ones of the same name
  return imports


def load_kept(workdir: pathlib.Path) -> None:
  """Loads what a run directory keeps, and says so.

  Raises:
    UserError: see `kept` and `load`.
  """
  imports = kept(workdir)
  new = [name for name in imports if (path := _file(name)) is None or _known(path) is None]
  load(imports)
  if new:
    say(f'imported for {workdir}: {", ".join(new)}')


def resumed(workdir: pathlib.Path, imports: Sequence[str]) -> list[str]:
  """All imports with which a run directory goes on: those that it keeps, and new ones.

  Args:
    workdir: the run directory.
    imports: those that are named now.

  Raises:
    UserError: a file that the run keeps is named with another content.
  """
  before = kept(workdir)
  known = {pathlib.Path(name).name: code.read(pathlib.Path(name)) for name in before if name.endswith('.py')}
  new = []
  for name in imports:
    path = _file(name)
    if path is None:
      new += [] if name in before else [name]
    elif path.name not in known:
      new.append(name)
    elif code.read(path) != known[path.name]:
      raise UserError(
        f'--import={name} is not the file that the run in {workdir} began with, {workdir / code.FOLDER / path.name}; '
        'leave the flag out to go on with that one, or start a new --workdir')
  return [*before, *new]


def _file(name: str) -> pathlib.Path | None:
  """The Python file that an import names; None if it names a module.

  Raises:
    UserError: there is no such file or module.
  """
  path = expanded(name)
  if name.endswith('.py') or '/' in name:
    if not path.is_file():
      raise UserError(f'--import={name}: there is no such file; expected a Python file or the name of a module')
    return path.absolute()
  source = _source(name)
  return source if source is not None and source.suffix == '.py' and '.' not in name else None


def _source(name: str) -> pathlib.Path | None:
  """What a run keeps for an import: the file, or the folder of the package; None for what is installed.

  Raises:
    UserError: there is no such module.
  """
  if name.endswith('.py') or '/' in name:
    return _file(name)
  top = name.partition('.')[0]
  if top in _loaded and _loaded[top].path is not None:
    return _loaded[top].path
  try:
    spec = importlib.util.find_spec(top) if top.isidentifier() else None
  except ValueError:  # a module made by hand
    spec = None
  if spec is None:
    raise UserError(f'--import={name}: there is no such module; expected a Python file or the name of a module')
  if spec.origin is None or not spec.has_location:
    return None
  path = pathlib.Path(spec.origin).absolute()
  if {'site-packages', 'dist-packages'} & set(path.parts) or top in sys.stdlib_module_names or top == 'genjax':
    return None
  return path.parent if spec.submodule_search_locations else path


def _known(path: pathlib.Path) -> _Loaded | None:
  """The load of a file's content, if it was loaded and not replaced since."""
  before = _loaded.get(path.stem)
  return before if before is not None and before.checksum == _checksum(path) else None


def _checksum(path: pathlib.Path) -> str:
  """Of a file and of what it imports from its folder."""
  return atomic.checksum(b'\0'.join(code.read(file) for file in code.beside(path)))


def _execute(path: pathlib.Path) -> None:
  """Executes a file as the module of its name."""
  name = path.stem
  if _known(path) is not None:
    return
  before = _loaded.pop(name, None)
  if before is not None:
    tables.remove(before.added)
    sys.modules.pop(name, None)
  there = sys.modules.get(name)
  if there is not None and _is_file(there, path):
    return  # imported before, by a config or by the user
  if there is not None or name in sys.stdlib_module_names or not name.isidentifier():
    raise UserError(f'--import={path}: {name!r} cannot be the name of a module here, or is the name of another one; '
                    'rename the file')
  _forget_others(path)
  spec = importlib.util.spec_from_file_location(name, path)
  assert spec is not None and spec.loader is not None
  module = sys.modules[name] = importlib.util.module_from_spec(spec)
  if str(path.parent) not in sys.path:
    sys.path.append(str(path.parent))
  try:
    with _adding(str(path)) as added:
      spec.loader.exec_module(module)
  except UserError:
    del sys.modules[name]
    raise
  _loaded[name] = _Loaded(added, _checksum(path), path)


@contextlib.contextmanager
def _adding(name: str) -> Iterator[tables.Added]:
  """Collects what is added to tables. After a failure it is taken back, and the import named."""
  with tables.recorded() as added:
    try:
      yield added
    except Exception as error:
      tables.remove(added)
      if isinstance(error, UserError):
        raise UserError(f'--import={name}: {error}') from error
      raise _failed(name, error) from error


def _is_file(module: ModuleType, path: pathlib.Path) -> bool:
  return getattr(module, '__file__', None) is not None and pathlib.Path(str(module.__file__)).absolute() == path


def _forget_others(path: pathlib.Path) -> None:
  """Unloads modules that the file imports from its folder, if they were loaded from another folder where one of them
  has another content."""
  elsewhere = {}
  for file in code.beside(path)[1:]:
    name = '.'.join(file.relative_to(path.parent).with_suffix('').parts).removesuffix('.__init__')
    there = sys.modules.get(name)
    if there is not None and getattr(there, '__file__', None) and not _is_file(there, file):
      elsewhere[name] = (pathlib.Path(str(there.__file__)), file)
  if all(there.is_file() and there.read_bytes() == file.read_bytes() for there, file in elsewhere.values()):
    return
  for name in elsewhere:
    del sys.modules[name]
  folder = str(path.parent)
  sys.path[:] = [folder, *(known for known in sys.path if known != folder)]


def _failed(name: str, error: Exception) -> UserError:
  """Says what failed in an imported file, and where."""
  trace, line = error.__traceback__, ''
  while trace is not None:
    if pathlib.Path(trace.tb_frame.f_code.co_filename).name == pathlib.Path(name).name:
      line = f', line {trace.tb_lineno}'
    trace = trace.tb_next
  return UserError(f'--import={name} failed{line}: {type(error).__name__}: {error}')
