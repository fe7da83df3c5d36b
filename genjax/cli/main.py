"""Entry point of the console script `genjax`: finds the command and turns errors into messages and exit codes.

Exit codes: 0 done, 2 bad input, 3 training stopped on NaN or infinity, 4 a plan that does not fit, 130 interrupted.
"""

from collections.abc import Callable, Sequence
import importlib
import sys

from genjax.types import NonFiniteError, UserError

COMMANDS = {
  'train': 'train a config in a run directory, or resume it',
  'sample': 'draw samples from a run',
  'evaluate': 'held-out metrics of a run, as JSON',
  'inspect': 'parameters, sharding and FLOPs of a config, without memory',
  'plan': 'what a run costs on a TPU slice, without a TPU',
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
  try:
    return command(rest)
  except UserError as error:
    print(f'genjax {name}: error: {error}', file=sys.stderr)
    return 2
  except NonFiniteError as error:
    print(f'genjax {name}: stopped: {error}', file=sys.stderr)
    return 3
  except KeyboardInterrupt:
    print(f'genjax {name}: interrupted', file=sys.stderr)
    return 130


if __name__ == '__main__':
  sys.exit(main())
