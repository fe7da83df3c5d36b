"""Configs from the command line."""

from collections.abc import Sequence
import pathlib
import re
from typing import Any

from absl import flags
import ml_collections
from ml_collections import config_flags

from genjax.config import PARTS, assign, check, spells
from genjax.runs import builders, configs, extensions
from genjax.types import UserError


def parse(command: str, argv: Sequence[str], doc: str, define: Any = lambda values: None) -> tuple[Any, list[str]]:
  """Parses `--config=FILE[:args] --config.key=value ...` and the flags that `define` adds.

  FILE may be the config.json of a run. A key need not stand in the file: whatever the builder and its parts accept may
  be set, see `genjax.options`.

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
    print(f'{doc}\n\nFlags:\n  --config=FILE[:args]\n  --config.key=value ...\n'
          f'    (the keys: genjax inspect --config=FILE --options)\n{values.get_help()}')
    raise SystemExit(0)
  text = named(argv)
  config, paths, imports = configs.read(text, _imports(argv))
  argv, further = _split(_without_config(argv), config)
  values = flags.FlagValues()
  define(values)
  define_import(values)
  try:
    config_flags.DEFINE_config_dict('config', config, flag_values=values, sys_argv=argv)
    rest = values(argv)
    values['import'].value = imports
  except (flags.Error, ValueError, TypeError, AttributeError, KeyError, OSError) as error:
    raise UserError(f'{" ".join(str(error).split())} (config {text})') from error
  if len(rest) > 1:
    raise UserError(f'unexpected arguments {rest[1:]}; flags are written --name=value')
  if further:
    assign(values.config, further, lambda: builders.options(values.config, paths))
  check(values.config)
  return values, paths


def _split(argv: Sequence[str], config: ml_collections.ConfigDict) -> tuple[list[str], dict[str, str | bool]]:
  """Arguments without those that set keys which the config does not spell, and these keys -> texts.

  So are keys of a section that another flag gives anew, and those that are None, which tells no type. A flag without a
  text, as of a bool, gives True, and one that begins with 'no' gives False.
  """
  kept, further = [], {}
  rest = list(argv)
  named = [flag[1] for arg in argv if (flag := re.match(r'--?config\.([\w.]+)', arg))]
  sections = [key for key in named if isinstance(_entry(config, key), ml_collections.ConfigDict)
              and not key.startswith(PARTS)]
  while rest:
    arg = rest.pop(0)
    flag = re.fullmatch(r'--?(no)?config\.([^=]+)(=(.*))?', arg, re.DOTALL)
    anew = flag and any(flag[2].startswith(f'{section}.') for section in sections)
    own = flag and flag[2].startswith(PARTS)  # a part is a text or a section, whichever is needed
    if not flag or _has_type(config, flag[2]) and not anew and not own:
      kept.append(arg)
    elif flag[3]:
      further[flag[2]] = flag[4]
    elif rest and not re.match(r'-[^\d.]', rest[0]) and not flag[1]:
      further[flag[2]] = rest.pop(0)
    else:
      further[flag[2]] = not flag[1]
  return kept, further


def _entry(config: ml_collections.ConfigDict, key: str) -> Any:
  """What a config has under a dotted key, or None."""
  node: Any = config
  for part in key.split('.') if spells(config, key) else ():
    node = node[part]
  return None if node is config else node


def _has_type(config: ml_collections.ConfigDict, key: str) -> bool:
  """Whether a config tells the type of a key, which may name an entry of a sequence, as in 'a.b[0]'. An average is a
  number or a dict, whatever stands there."""
  if key.startswith('ema.'):
    return False
  return spells(config, key) if '[' in key else _entry(config, key) is not None


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


def _without_config(argv: Sequence[str]) -> list[str]:
  """Arguments without the one that names the config."""
  return [
    arg for before, arg in zip(['', *argv], argv)
    if not (arg.startswith('--config=') or arg == '--config' or before == '--config')
  ]


def named(argv: Sequence[str]) -> str:
  """The FILE[:args] that `--config` names."""
  for arg, following in zip(argv, [*argv[1:], '']):
    if arg.startswith('--config=') or arg == '--config':
      return arg.partition('=')[2] if '=' in arg else following
  raise UserError(
    '--config=FILE[:args] is needed, for example --config=configs/quickstart.py, where --workdir holds no run yet')
