"""`genjax inspect --variant=NAME [--json]`: the parameters of a published network, or of all by `--variant=all`."""

from collections.abc import Sequence
import importlib
import math
from typing import Any

from absl import flags

from genjax.types import UserError, strict_json

VARIANTS = 'genjax.experiments.variants'  # has the table of them
ALL = 'all'


def asked(argv: Sequence[str]) -> bool:
  """Whether arguments name a variant."""
  return any(arg.lstrip('-').partition('=')[0] == 'variant' and arg.startswith('-') for arg in argv)


def main(argv: Sequence[str]) -> int:
  """Prints a table; returns the exit code.

  Raises:
    UserError: an unknown variant or flag.
  """
  values = flags.FlagValues()
  flags.DEFINE_string('variant', None, 'name of a published network, or all', flag_values=values)
  flags.DEFINE_bool('json', False, 'print JSON', flag_values=values)
  try:
    rest = values(['genjax inspect', *argv])
  except flags.Error as error:
    raise UserError(f'{error}; --variant takes no flag but --json') from error
  if len(rest) > 1:
    raise UserError(f'unexpected arguments {rest[1:]}; flags are written --name=value')
  library: Any = importlib.import_module(VARIANTS)
  if values.variant == ALL:
    rows = [summary(variant) for variant in library.VARIANTS.values()]
    print(strict_json({'variants': rows}, indent=2) if values.json else _table(
      ('variant', 'parameters', 'tensors', 'public layout', 'options'),
      [(row['variant'], f'{row["parameters"]:,}', str(row['tensors']), row['public'], row['options']) for row in rows]))
    return 0
  variant = library.choose(values.variant)
  found = summary(variant)
  rows = [{'path': path, 'shape': list(leaf.shape), 'count': math.prod(leaf.shape)}
          for path, leaf in variant.shapes().items()]
  if values.json:
    print(strict_json({**found, 'rows': rows}, indent=2))
    return 0
  print(_table(('parameter', 'count', 'shape'), [
    (row['path'], f'{row["count"]:,}', ' x '.join(map(str, row['shape'])) or 'scalar') for row in rows]))
  print(f'\noptions: {found["options"]}\npublic layout: {found["public"] or "none"}\n'
        f'parameters in total: {found["parameters"]:,} in {found["tensors"]:,} tensors here, '
        f'{4 * found["parameters"]:,} bytes as float32, {2 * found["parameters"]:,} as bfloat16')
  return 0


def summary(variant: Any) -> dict[str, Any]:
  """Name, numbers, public layout and class of options of a variant. Layers that are stacked here are one tensor."""
  shapes, kind = variant.shapes(), type(variant.options())
  return {'variant': variant.name, 'parameters': sum(math.prod(leaf.shape) for leaf in shapes.values()),
          'tensors': len(shapes), 'public': variant.public, 'options': f'{kind.__module__}.{kind.__qualname__}'}


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
  """Columns as text; the second one, numbers, is aligned to the right."""
  widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
  return '\n'.join('  '.join(cell.rjust(width) if column == 1 else cell.ljust(width) for column, (cell, width) in
                             enumerate(zip(row, widths))).rstrip() for row in [header, *rows])
