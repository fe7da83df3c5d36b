"""Entry point of the console script `genjax`: finds the command and turns errors into messages and exit codes.

Exit codes: 0 done, 2 bad input, 3 training stopped on NaN or infinity, 7 another process of the run is lost, 130 interrupted.
"""

from collections.abc import Callable, Sequence
import importlib
import sys
import traceback

from genjax import distributed
from genjax.types import NonFiniteError, PeerError, UserError

COMMANDS = {
  'train': 'train a config in a run directory, or resume it',
  'sample': 'draw samples from a run',
  'evaluate': 'held-out metrics of a run, as JSON',
  'inspect': 'parameters, sharding and FLOPs of a config, without memory',
  'data': 'list, build and describe data sets',
}


def usage() -> str:
  """The list of commands."""
  lines = [f'  genjax {name:<10}{text}' for name, text in COMMANDS.items()]
  return 'usage: genjax COMMAND ...\n\n' + '\n'.join(lines) + '\n\n`genjax COMMAND --help` tells more.'


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one command; returns the exit code."""
  argv = list(sys.argv[1:] if argv is None else argv)
  if not argv or argv[0] in ('-h', '--help', 'help'):
    print(usage(), file=sys.stdout if argv else sys.stderr)
    return 0 if argv else 2
  name, *rest = argv
  if name not in COMMANDS:
    from genjax.config import suggestion
    print(f'genjax: error: unknown command {name!r}.{suggestion(name, COMMANDS)}\n\n{usage()}', file=sys.stderr)
    return 2
  command: Callable[[list[str]], int] = importlib.import_module(f'genjax.cli.{name}').main
  code, said = 0, ''
  try:
    code = command(rest)
  except UserError as error:
    code, said = 2, f'error: {error}'
  except NonFiniteError as error:
    code, said = 3, f'stopped: {error}'
  except PeerError as error:
    code, said = distributed.EXIT_CODE, f'error: {error}'
  except KeyboardInterrupt:
    code, said = 130, 'interrupted'
  except Exception as error:
    if not distributed.joined():
      raise
    traceback.print_exc()
    return distributed.leave(1, f'{type(error).__name__}: {error}')
  if said:
    print(f'genjax {name}: {said}', file=sys.stderr)
  return distributed.leave(code, said)


if __name__ == '__main__':
  sys.exit(main())
