"""Configs from the command line."""

from collections.abc import Sequence
import os
import pathlib
from typing import Any

from absl import flags
import ml_collections
from ml_collections import config_flags

from genjax.config import check, flatten, suggestion
from genjax.runs import assets, builders, extensions
from genjax.types import UserError


def parse(command: str, argv: Sequence[str], doc: str, define: Any = lambda values: None) -> tuple[Any, list[str]]:
  """Parses `--config=FILE[:args] --config.key=value ...` and the flags that `define` adds. FILE may be the config.json
  of a run.

  Args:
    command: name of the command, for messages.
    argv: arguments after the command.
    doc: what `--help` prints above the flags.
    define: called with the `absl.flags.FlagValues` to define more flags on.

  Returns:
    The flag values (`values.config` is the locked config) and the import paths that the config needs.

  Raises:
    UserError: a missing or failing config file, an unknown key or flag (with a suggestion), a value of a wrong type, a
      positional argument, a number out of range.
  """
  argv = [f'genjax {command}', *argv]
  if any(arg in ('-h', '--help') for arg in argv):
    values = flags.FlagValues()
    define(values)
    define_import(values)
    print(doc + '\n\nFlags:\n  --config=FILE[:args]\n  --config.key=value ...\n' + values.get_help())
    raise SystemExit(0)
  path = _config_path(argv)
  paths = [str(path.parent.absolute()), os.getcwd()]
  if path.suffix == '.json' and (path.parent / 'run.json').is_file():
    paths += [known for known in assets.read_json(path.parent / 'run.json')['paths'] if known not in paths]
  builders.extend_path(paths)
  imports = _imports(argv)
  if path.suffix == '.json' and (path.parent / 'run.json').is_file():
    imports = [*extensions.kept(path.parent), *imports]
  extensions.load(imports)
  values = flags.FlagValues()
  if path.suffix == '.json':  # of a run
    argv = _without_config(argv)
  define(values)
  define_import(values)
  try:
    _define_config(path, argv, values)
    rest = values(argv)
    config = values.config
    values['import'].value = imports
  except AttributeError as error:
    raise _explain(path, argv, error) from error
  except (flags.Error, ValueError, TypeError, OSError) as error:
    text = str(error)
    # Ml_collections quotes that of the config file; its last line says what is wrong
    if 'Traceback (most recent call last)' in text:
      text = text.strip().splitlines()[-1].partition(': ')[2] or text
    raise UserError(f'{" ".join(text.split())} (config {path})') from error
  if len(rest) > 1:
    raise UserError(f'unexpected arguments {rest[1:]}; flags are written --name=value')
  if not isinstance(config, ml_collections.ConfigDict):
    raise UserError(f'get_config in {path} must return an ml_collections.ConfigDict, got {type(config).__name__}')
  check(config)
  return values, paths


def define_import(values: flags.FlagValues) -> None:
  """Defines the flag `--import`, see `genjax.runs.extensions`."""
  flags.DEFINE_multi_string('import', [], extensions.HELP, flag_values=values)


def _imports(argv: Sequence[str]) -> list[str]:
  """What `--import` names: parts must be known before the config is read."""
  found = []
  for arg, following in zip(argv, [*argv[1:], '']):
    if arg.startswith('--import='):
      found.append(arg.partition('=')[2])
    elif arg == '--import':
      found.append(following)
  return found


def of_workdir(argv: Sequence[str]) -> list[str]:
  """Arguments with the config of the run that `--workdir` names, where there is one and they name no config."""
  argv = list(argv)
  if any(arg == '--config' or arg.startswith('--config=') for arg in argv):
    return argv
  for arg, following in zip(argv, [*argv[1:], '']):
    if arg.startswith('--workdir=') or arg == '--workdir':
      path = pathlib.Path(arg.partition('=')[2] if '=' in arg else following) / 'config.json'
      return [f'--config={path}', *argv] if path.is_file() else argv
  return argv


def _define_config(path: pathlib.Path, argv: Sequence[str], values: Any) -> None:
  """Defines the flags of a config file, or of the config of a run."""
  if path.suffix == '.json':
    config_flags.DEFINE_config_dict('config', assets.read_config(path.parent), flag_values=values, sys_argv=list(argv))
  else:
    config_flags.DEFINE_config_file('config', flag_values=values, sys_argv=list(argv))


def _without_config(argv: Sequence[str]) -> list[str]:
  """Arguments without the one that names the config."""
  return [
    arg for before, arg in zip(['', *argv], argv)
    if not (arg.startswith('--config=') or arg == '--config' or before == '--config')
  ]


def _config_path(argv: Sequence[str]) -> pathlib.Path:
  """The file that `--config` names."""
  for arg, following in zip(argv, [*argv[1:], '']):
    if arg.startswith('--config=') or arg == '--config':
      text = arg.partition('=')[2] if '=' in arg else following
      path = pathlib.Path(text if pathlib.Path(text).is_file() else text.partition(':')[0])
      return path if path.is_file() else _own_config(path)
  raise UserError(
    '--config=FILE[:args] is needed, for example --config=configs/quickstart.py, where --workdir holds no run yet')


def _own_config(path: pathlib.Path) -> pathlib.Path:
  """The config of genjax itself that a path names which is not there, such as configs/quickstart.py in any folder.

  Raises:
    UserError: there is none; the message names the nearest, and where a config of this name stands now.
  """
  own = builders.OWN_CONFIGS
  if path.parts[:1] == ('configs',) and (found := own.joinpath(*path.parts[1:])).is_file():
    return found
  known = [f'configs/{config.relative_to(own).as_posix()}' for config in sorted(own.rglob('[!_]*.py'))]
  moved = [name for name in known if pathlib.PurePath(name).name == path.name]
  beside = [str(candidate) for candidate in sorted(path.parent.glob('*.py'))] if path.parent.is_dir() else []
  hint = suggestion(str(path), [*beside, *known])
  if moved and path.parts[:1] == ('configs',):
    hint = f' It is {moved[0]} now.'
  raise UserError(
    f'config file {str(path)!r} does not exist.{hint} '
    'Expected --config=FILE[:key=value,...], a Python file with a function get_config, or RUN_DIR/config.json')


def _explain(path: pathlib.Path, argv: Sequence[str], error: AttributeError) -> UserError:
  """Which override names an unknown key, and what was meant."""
  values = flags.FlagValues()
  base = [arg for arg in argv if not arg.startswith('--config.')]
  _define_config(path, base, values)
  try:
    values(base[:1] + [arg for arg in base if arg.startswith('--config=')])
    known = flatten(values.config)
  except Exception:  # the config itself is at fault, not an override
    return UserError(f'the config failed: {" ".join(str(error).split())}')
  for arg in argv:
    key = arg.removeprefix('--config.').partition('=')[0]
    if arg.startswith('--config.') and key not in known:
      return UserError(f'unknown config key {key!r}.{suggestion(key, known)} The config has: {", ".join(known)}')
  return UserError(f'the config failed: {" ".join(str(error).split())}')
