"""Configs by name: a config file with its argument, or the config of a run. What flags change is added elsewhere."""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import importlib.util
import json
import os
import pathlib
from types import ModuleType
from typing import Any

import ml_collections

from genjax import config as config_lib
from genjax.config import Config
from genjax.runs import assets, builders, extensions
from genjax.types import UserError, expanded


def find(text: str | os.PathLike[str]) -> tuple[pathlib.Path, str | None]:
  """The file that FILE[:argument] names, and the argument, None without a colon.

  FILE is a Python file, the config.json of a run, or a config of genjax itself such as configs/quickstart.py, which is
  found from any folder.

  Raises:
    UserError: there is no such file; the message names the nearest, and where a config of this name stands now.
  """
  path = expanded(text)
  if path.is_file():
    return path, None
  name, colon, argument = os.fspath(text).partition(':')
  path = expanded(name)
  return path if path.is_file() else _own(path), argument if colon else None


def load(text: str | os.PathLike[str], imports: Sequence[str] = ()) -> tuple[Config, list[str], list[str]]:
  """The locked config of FILE[:argument] or of a run directory, and what it needs; see `read`.

  Raises:
    UserError: there is none, or it fails, or its numbers are out of range.
  """
  found = read(text, imports)
  config_lib.check(found[0])
  return found


def read(text: str | os.PathLike[str], imports: Sequence[str] = ()) -> tuple[Config, list[str], list[str]]:
  """What `load` returns, with numbers that are not checked yet: flags may change them.

  Args:
    text: FILE[:argument] or a run directory.
    imports: files or modules to load before, see `genjax.runs.extensions`.

  Returns:
    The config, the folders of its builder, and all imports: those that the run keeps, and the given ones.

  Raises:
    UserError: there is no such config, or it or an import fails.
  """
  folder = expanded(text)
  path, argument = (folder / 'config.json', None) if folder.is_dir() else find(text)
  paths = [str(path.parent.absolute()), os.getcwd()]
  if path.suffix == '.json' and (path.parent / 'run.json').is_file():
    known = assets.read_json(path.parent / 'run.json')['paths']
    paths += [path for path in known if path not in paths]
    imports = [*extensions.kept(path.parent), *imports]
  builders.extend_path(paths)
  extensions.load(imports)
  config = assets.read_config(path.parent) if path.suffix == '.json' else _made(path, argument)
  return config, paths, list(imports)


def copied(config: Config) -> Config:
  """A locked copy of a config."""
  return config_lib.from_plain(config_lib.plain(config))


def assignments(changes: Mapping[str, Any] | ml_collections.ConfigDict, prefix: str = '') -> list[str]:
  """Changes such as {'sampler': {'steps': 25}} or {'sampler.steps': 25} as texts 'sampler.steps=25', as flags have
  them."""
  texts = []
  for key, value in changes.items():
    if isinstance(value, (Mapping, ml_collections.ConfigDict)):
      texts += assignments(value, f'{prefix}{key}.')
    else:
      texts.append(f'{prefix}{key}={value if isinstance(value, str) else _text(prefix + key, value)}')
  return texts


def _text(key: str, value: Any) -> str:
  try:
    return json.dumps(value.item() if hasattr(value, 'item') else value)
  except (TypeError, ValueError) as error:
    raise UserError(f'{key} must be text, a number, True, False, None, or a list or dict of such, got {value!r}'
                    ) from error


def module(path: pathlib.Path) -> ModuleType:
  """A config file, executed.

  Raises:
    UserError: it is no Python file, or it fails.
  """
  spec = importlib.util.spec_from_file_location(f'config_{path.stem}', path)
  if spec is None or spec.loader is None:
    raise UserError(f'{path} is no Python file; expected one with a function get_config, or RUN_DIR/config.json')
  made = importlib.util.module_from_spec(spec)
  with failing(path):
    spec.loader.exec_module(made)
  return made


@contextlib.contextmanager
def failing(path: pathlib.Path) -> Iterator[None]:
  """Inside, what a config file raises becomes a `UserError` that names it."""
  try:
    yield
  except Exception as error:
    raise UserError(f'{" ".join(str(error).split()) or type(error).__name__} (config {path})') from error


def _made(path: pathlib.Path, argument: str | None) -> Config:
  """What `get_config` of a file returns."""
  made: Any = module(path)
  with failing(path):
    config = made.get_config() if argument is None else made.get_config(argument)
  if not isinstance(config, ml_collections.ConfigDict):
    raise UserError(f'get_config in {path} must return an ml_collections.ConfigDict, got {type(config).__name__}')
  return config.lock()


def _own(path: pathlib.Path) -> pathlib.Path:
  """The config of genjax itself that a path names which is not there, such as configs/quickstart.py in any folder."""
  own = builders.OWN_CONFIGS
  if path.parts[:1] == ('configs',) and (found := own.joinpath(*path.parts[1:])).is_file():
    return found
  known = [f'configs/{config.relative_to(own).as_posix()}' for config in sorted(own.rglob('[!_]*.py'))]
  moved = [name for name in known if pathlib.PurePath(name).name == path.name]
  beside = [str(candidate) for candidate in sorted(path.parent.glob('*.py'))] if path.parent.is_dir() else []
  hint = config_lib.suggestion(str(path), [*beside, *known])
  if moved and path.parts[:1] == ('configs',):
    hint = f' It is {moved[0]} now.'
  raise UserError(
    f'config file {str(path)!r} does not exist.{hint} '
    'Expected FILE[:key=value,...], a Python file with a function get_config, or RUN_DIR/config.json')
