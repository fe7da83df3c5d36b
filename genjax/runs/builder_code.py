"""Builders of one's own: where their Python files are, and the copy in RUN/code with which a run can be moved and sent.

Kept are the file of the builder and what it imports, directly or not, from its own folder and from the folders of the
config and of the command. Installed packages are not kept; they must be installed wherever the run is used.
"""

import ast
from collections.abc import Mapping, Sequence
import dataclasses
import importlib
import importlib.util
import pathlib
import sys
from types import ModuleType

from genjax import distributed
from genjax.runs import atomic
from genjax.training.monitoring.logs import say
from genjax.types import listed

FOLDER = 'code'
LIBRARY = pathlib.Path(__file__).parents[1]
_OWN = tuple(folder.resolve() for folder in (LIBRARY, LIBRARY / 'experiments', LIBRARY / 'configs'))
_INSTALLED = {'site-packages', 'dist-packages'}
_loaded: dict[str, str] = {}  # module -> SHA-256 of its file when it was imported
_told: set[tuple[pathlib.Path, str]] = set()  # (folder, builder) of messages


@dataclasses.dataclass(frozen=True)
class Code:
  """The files of a builder.

  Attributes:
    root: the folder below which its module is found.
    places: module -> its file; modules that it imports may lie below other folders.
    files: path below the folder of each -> its bytes.
  """

  root: pathlib.Path
  places: Mapping[str, pathlib.Path]
  files: Mapping[str, bytes]


def is_run(path: str | pathlib.Path) -> bool:
  """Whether a folder is a run directory."""
  return (pathlib.Path(path) / 'run.json').is_file()


def _is_of_run(path: str) -> bool:
  """Whether a folder is a run directory, or holds the code of one."""
  return is_run(path) or pathlib.Path(path).name == FOLDER and is_run(pathlib.Path(path).parent)


def of(name: str, paths: Sequence[str]) -> Code | None:
  """The files of a builder from outside genjax; None for one of genjax or of an installed package.

  Args:
    name: its module path.
    paths: folders, of which the first that has it counts; then those of `sys.path`. A run directory stands for the
      copy that it keeps. That copy is used where the file itself is missing or differs, which is said once.
  """
  kept = _collect(name, [pathlib.Path(path) / FOLDER for path in paths if is_run(path)])
  found = _collect(name, [pathlib.Path(path) for path in (*paths, *sys.path) if path and not _is_of_run(path)])
  if kept is None or found is not None and found.files == kept.files:
    return found
  if (kept.root, name) not in _told:
    _told.add((kept.root, name))
    say(f'{name} is imported from {kept.root}: ' + ('its file is not found elsewhere' if found is None else
                                                    f'{_different(kept, found)} in {found.root} differs from what the '
                                                    'run keeps. To go on with that, train with --config=FILE'))
  return kept


def load(name: str, code: Code | None) -> ModuleType:
  """Imports a builder; `code`: what `of` found. Other modules of the same names, imported before from other folders or
  before a file was changed, are forgotten."""
  if code is None:
    return importlib.import_module(name)
  if any(_is_stale(module, path) for module, path in code.places.items()):
    for module in [*code.places, *(parent for known in code.places for parent in _parents(known))]:
      sys.modules.pop(module, None)
  importlib.invalidate_caches()
  root = str(code.root)
  if root not in sys.path:
    sys.path.append(root)
  for parent in _parents(name):
    if parent not in code.places:
      _place_namespace(parent, code.root)
  if not _is_found_in(name, code):
    sys.path.remove(root)
    sys.path.insert(0, root)
  module = importlib.import_module(name)
  imported = {name: path for name, path in code.places.items() if name in sys.modules}
  _loaded.update({name: atomic.checksum(path.read_bytes()) for name, path in imported.items()})
  return module


def keep(workdir: pathlib.Path, code: Code | None) -> None:
  """Writes the files of a builder to RUN/code; of several processes the first does."""
  if code is not None:
    atomic.write(workdir / FOLDER, code.files)


def update(workdir: pathlib.Path, name: str, code: Code | None, step: int) -> None:
  """Keeps the files of the builder with which a run goes on. If they changed, that is said, and the earlier ones are
  in RUN/code.until_STEP.

  Args:
    workdir: the run directory.
    name: the builder.
    code: what is used now.
    step: finished steps.
  """
  before = _collect(name, [workdir / FOLDER])
  if code is None or not distributed.is_first() or before is not None and before.files == code.files:
    return
  if before is not None:
    earlier = workdir / f'{FOLDER}.until_{step}'
    atomic.write(earlier, before.files)
    say(f'{name} differs from the code that {workdir} began with: {_different(before, code)}. The run goes on with '
        f'that of {code.root}; the earlier one is in {earlier}')
  atomic.write(workdir / FOLDER, code.files)


def is_own(path: pathlib.Path) -> bool:
  """Whether a file belongs to genjax, or to an installed package."""
  return bool(_INSTALLED & set(path.parts)) or any(path.resolve().is_relative_to(folder) for folder in _OWN)


def _collect(name: str, folders: Sequence[pathlib.Path]) -> Code | None:
  """The files of a module and of what it imports from folders."""
  begin = _find(name, folders)
  if begin is None or is_own(begin[1]):
    return None
  root, places, files, waiting = begin[0], {}, {}, [name]
  while waiting:
    module = waiting.pop()
    found = None if module in places else _find(module, (root, *folders))
    if found is None or is_own(found[1]):
      continue
    folder, path = found
    places[module] = path
    files[path.relative_to(folder).as_posix()] = data = path.read_bytes()
    waiting += [*_imports(module, path, data), *_parents(module)]
  return Code(root, places, dict(sorted(files.items())))


def _find(name: str, folders: Sequence[pathlib.Path]) -> tuple[pathlib.Path, pathlib.Path] | None:
  """The first folder that has a module, and its file."""
  if not all(part.isidentifier() for part in name.split('.')):
    return None
  for folder in folders:
    place = folder.joinpath(*name.split('.'))
    for path in (place / '__init__.py', place.with_suffix('.py')):
      if path.is_file():
        return folder.absolute(), path.absolute()
  return None


def _imports(module: str, path: pathlib.Path, data: bytes) -> list[str]:
  """What a file imports, as far as it can be seen: modules, and names that may be modules."""
  try:
    tree = ast.parse(data)
  except (SyntaxError, ValueError):  # the import itself says what is wrong
    return []
  found = []
  package = module.split('.') if path.name == '__init__.py' else module.split('.')[:-1]
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      found += [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      above = package[:len(package) - node.level + 1] if node.level else []
      base = '.'.join([*above, *([node.module] if node.module else [])])
      found += [base, *(f'{base}.{alias.name}' if base else alias.name for alias in node.names)]
  return [name for name in found if name and name.partition('.')[0] not in ('genjax', *sys.stdlib_module_names)]


def _parents(module: str) -> list[str]:
  """'a.b.c' -> ['a', 'a.b']."""
  parts = module.split('.')
  return ['.'.join(parts[:count]) for count in range(1, len(parts))]


def _is_stale(module: str, path: pathlib.Path) -> bool:
  """Whether another file, or an earlier text of this one, was imported under a name."""
  if module not in sys.modules:
    return False
  there = getattr(sys.modules[module], '__file__', None)
  if there is None or not pathlib.Path(there).exists() or not path.samefile(there):
    return True
  now = atomic.checksum(path.read_bytes())
  return _loaded.get(module, now) != now


def _place_namespace(name: str, root: pathlib.Path) -> None:
  """Makes a folder without __init__.py the first place of a package: Python prefers one that has it, wherever it is."""
  folder = str(root.joinpath(*name.split('.')))
  others = [path for path in getattr(sys.modules.get(name), '__path__', ()) if path != folder]
  module = ModuleType(name)
  module.__path__ = [folder, *others]
  sys.modules[name] = module


def _is_found_in(name: str, code: Code) -> bool:
  """Whether an import would find the file that it should."""
  try:
    spec = importlib.util.find_spec(name)
  except (ModuleNotFoundError, ValueError):
    return False
  return spec is not None and spec.origin is not None and code.places[name].samefile(spec.origin)


def _different(one: Code, other: Code) -> str:
  names = sorted(name for name in {*one.files, *other.files} if one.files.get(name) != other.files.get(name))
  return listed(names, 4)
