"""Entry point of the console script `genjax`: finds the command and turns errors into messages and exit codes.

Exit codes: 0 done, or stopped by SIGTERM or SIGINT with everything saved; 1 a row of `reproduce` is outside of its
bands; 2 bad input; 3 training stopped on NaN or infinity; 4 a plan that does not fit; 5 the watchdog found a hang; 6
the disk is full or read-only; 7 another process of the run is lost; 8 runs or metrics that may not be compared; 9 runs
of a sweep failed; 10 a run of a sweep on a cluster was stopped before its end; 130 interrupted.

Nothing slow is imported above `main`: `genjax train` takes over the signals first.
"""

from collections.abc import Callable, Sequence
import errno
import importlib
import io
import sys
import time
import traceback

from genjax import __version__
from genjax.training import stopping
from genjax.training.monitoring import allocator

COMMANDS = {
  'train': 'train a config in a run directory, or resume it',
  'sample': 'draw samples from a run',
  'evaluate': 'held-out metrics of a run, as JSON',
  'interpolate': 'pictures on the way between two, or along an attribute, of an autoencoder or a GAN',
  'sweep': 'train all settings that a config yields, several at a time',
  'table': 'metrics of a sweep by setting, over its seeds; and curves',
  'compare': 'evaluations side by side, if they were measured alike',
  'reproduce': 'train baselines, and hold them against published values',
  'runs': 'what the runs below a folder are doing',
  'report': 'one HTML page of a run or a sweep',
  'merge': 'write a run with adapters as a run of its own',
  'inspect': 'parameters, sharding and FLOPs of a config, without memory; with --options, what may be set',
  'plan': 'what a run costs on a TPU slice, without a TPU',
  'data': 'list, build, tokenize, encode and describe data sets',
  'import': 'make a run of a public model in the layout of transformers',
  'export': 'write the model of a run in that layout',
}
MODULES = {'import': 'import_weights', 'export': 'export_weights'}  # of commands that are not called like theirs
COMPUTING = ('train', 'sample', 'evaluate', 'interpolate')
# Flags that take a path. Shells leave a ~ alone that comes after '='.
PATHS = ('adapter', 'base', 'config', 'curves', 'data_dir', 'from', 'hlo', 'import', 'input', 'keep', 'out', 'page',
         'per-example', 'rows', 'text', 'to', 'tokenizer', 'workdir')
# A path that a user named is no such thing: too long, below a file, a folder in the place of a file, of another user, a
# loop of links.
_PATH = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ELOOP,
         errno.ESTALE)
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO)


def usage() -> str:
  """The list of commands."""
  lines = [f'  genjax {name:<12}{text}' for name, text in COMMANDS.items()]
  more = '`genjax COMMAND --help` tells more, `genjax --version` the version.'
  return 'usage: genjax COMMAND ...\n\n' + '\n'.join(lines) + f'\n\n{more}'


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one command; returns the exit code."""
  begin = time.perf_counter()
  _spell_everything()
  argv = list(sys.argv[1:] if argv is None else argv)
  if not argv or argv[0] in ('-h', '--help', 'help'):
    print(usage(), file=sys.stdout if argv else sys.stderr)
    return 0 if argv else 2
  if argv[0] == '--version':
    print(f'genjax {__version__}')
    return 0
  name, *rest = argv
  if name == 'train':
    stopping.install()
  try:
    return _command(name, rest, begin)
  except stopping.Stopped as stopped:
    where = f'at step {stopped.step}, which is saved' if stopped.step is not None else 'before training began'
    print(f'genjax {name}: stopped by {stopped.signal} {where}; run the same command to go on', file=sys.stderr)
    return 0
  except Exception:
    if not stopping.in_start_up():
      raise
    print(f'genjax {name}: stopped by {stopping.requested()} before training began; run the same command to go on',
          file=sys.stderr)
    return 0
  except KeyboardInterrupt:
    print(f'genjax {name}: interrupted', file=sys.stderr)
    return 130
  finally:
    if name == 'train':
      stopping.uninstall()


def _spell_everything() -> None:
  """From now on characters that the encoding of standard output or error lacks are escaped, and end nothing."""
  for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(errors='backslashreplace')


def with_homes(argv: Sequence[str]) -> list[str]:
  """The arguments, in which a `~` that begins the path of one of the flags `PATHS` is a home folder.

  Raises:
    UserError: a `~name` of which there is no user.
  """
  from genjax.types import expanded
  changed = []
  for before, arg in zip(['', *argv], argv):
    name, equals, path = arg.partition('=')
    if _takes_path(name) and equals and path.startswith('~'):
      arg = f'{name}={expanded(path)}'
    elif _takes_path(before) and arg.startswith('~'):
      arg = str(expanded(arg))
    changed.append(arg)
  return changed


def _takes_path(flag: str) -> bool:
  """Whether a flag is one of `PATHS`, which may be cut short where no other begins so."""
  name = flag.lstrip('-')
  return flag.startswith('-') and bool(name) and any(path.startswith(name) for path in PATHS)


def _command(name: str, rest: list[str], begin: float) -> int:
  from genjax.types import NonFiniteError, PeerError, StorageError, UserError
  if name not in COMMANDS:
    from genjax.config import suggestion
    print(f'genjax: error: unknown command {name!r}.{suggestion(name, COMMANDS)}\n\n{usage()}', file=sys.stderr)
    return 2
  if name in COMPUTING:
    allocator.keep_freed_memory()
  from genjax import distributed
  command: Callable[..., int] = importlib.import_module(f'genjax.cli.{MODULES.get(name, name)}').main
  code, said = 0, ''
  try:
    rest = with_homes(rest)
    code = command(rest, begin) if name == 'train' else command(rest)
  except UserError as error:
    if stopping.in_start_up():
      raise
    code, said = 2, f'error: {error}'
  except NonFiniteError as error:
    code, said = 3, f'stopped: {error}'
  except StorageError as error:
    code, said = 6, f'stopped: {error}'
  except PeerError as error:
    code, said = distributed.EXIT_CODE, f'error: {error}'
  except stopping.Stopped:
    distributed.leave(0)
    raise
  except KeyboardInterrupt:
    if not distributed.joined():
      raise
    code, said = 130, 'interrupted'
  except Exception as error:
    if isinstance(error, OSError) and error.errno in _DISK:
      code, said = 6, (
        f'stopped: the disk is full or cannot be written: {error}. Make room, or make it writable, and run the same '
        'command to go on')
    elif isinstance(error,
                    OSError) and error.errno in _PATH and error.filename is not None and not stopping.in_start_up():
      code, said = 2, f'error: {error.filename}: {error.strerror}; name another path'
    elif not distributed.joined():
      raise
    else:
      traceback.print_exc()
      return distributed.leave(1, f'{type(error).__name__}: {error}')
  if said:
    print(f'genjax {name}: {said}', file=sys.stderr)
  return distributed.leave(code, said)


if __name__ == '__main__':
  sys.exit(main())
