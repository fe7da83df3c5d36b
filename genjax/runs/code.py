"""Python files of the user's that a run needs, kept in RUN/imports so that the run can be moved and sent."""

import ast
from collections.abc import Iterable, Sequence
import pathlib

from genjax.runs import atomic
from genjax.types import UserError

FOLDER = 'imports'
_LIBRARY = pathlib.Path(__file__).parents[1].name  # genjax itself, which is installed wherever a run is used
Kept = list[list[str]]  # [path in RUN/imports, SHA-256] of each file


def keep(workdir: pathlib.Path, paths: Iterable[pathlib.Path]) -> Kept:
  """Copies Python files into RUN/imports; of several processes the first does.

  Args:
    workdir: the run directory.
    paths: Python files, or folders of packages. What a file imports from its own folder is kept with it.

  Returns:
    What was kept, for run.json and for `check`.

  Raises:
    UserError: two different files have one name, or a file cannot be read.
  """
  kept: dict[str, bytes] = {}
  for path in paths:
    for file in beside(path):
      name, data = file.relative_to(path.parent).as_posix(), read(file)
      if kept.setdefault(name, data) != data:
        raise UserError(f'two different files are called {name}, and a run keeps one of each name; rename one: {file}')
  target = workdir / FOLDER
  atomic.write(target, {name: data for name, data in kept.items()
                        if not (target / name).exists() or (target / name).read_bytes() != data})
  return [[name, atomic.checksum(data)] for name, data in sorted(kept.items())]


def check(workdir: pathlib.Path, kept: Sequence[Sequence[str]]) -> None:
  """Checks that the files of RUN/imports are those that `keep` wrote.

  Raises:
    UserError: one is missing or was changed, or lies outside of RUN/imports.
  """
  for name, expected in kept:
    path = workdir / FOLDER / name
    if pathlib.PurePosixPath(name).is_absolute() or '..' in pathlib.PurePosixPath(name).parts:
      raise UserError(f'{workdir / "run.json"} names a file outside of {workdir / FOLDER}: {name!r}')
    if not path.is_file():
      raise UserError(f'{path} belongs to the run and is missing; restore it from a copy')
    if atomic.checksum(read(path)) != expected:
      raise UserError(f'{path} is not the file that the run began with; restore it, or start a new --workdir with it')


def beside(path: pathlib.Path) -> list[pathlib.Path]:
  """A Python file and what it imports from its own folder, directly or not; or the Python files of a package.

  Raises:
    UserError: a file cannot be read, or is no Python.
  """
  found: dict[pathlib.Path, None] = {}
  waiting = [path]
  while waiting:
    item = waiting.pop()
    files = sorted(item.rglob('*.py')) if item.is_dir() else [item]
    for file in files:
      if file not in found:
        found[file] = None
        waiting += _imported(file, path.parent)
  return list(found)


def _imported(file: pathlib.Path, folder: pathlib.Path) -> list[pathlib.Path]:
  """The files and packages of a folder that a file imports."""
  try:
    tree = ast.parse(read(file))
  except (SyntaxError, ValueError) as error:
    raise UserError(f'{file} is not valid Python: {error}') from error
  names = set()
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      names.update(alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and not node.level:
      names.add(node.module or '')
  tops = sorted({name.partition('.')[0] for name in names} - {_LIBRARY, ''})
  packages = [folder / top for top in tops if (folder / top / '__init__.py').is_file()]
  return packages + [folder / f'{top}.py' for top in tops if (folder / f'{top}.py').is_file()]


def read(path: pathlib.Path) -> bytes:
  """The bytes of a file.

  Raises:
    UserError: it cannot be read.
  """
  try:
    return path.read_bytes()
  except OSError as error:
    raise UserError(f'{path} cannot be read: {error.strerror}') from error
