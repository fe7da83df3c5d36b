"""`genjax inspect --config=FILE[:args] [--mesh=fsdp:8,tensor:2] [--options[=sampler]] [--json]`: what a config is,
without computing it.

Prints every parameter with shape, count, layout and optimizer, the totals, the bytes of the training state on a device,
and the analytic FLOPs of each phase, two FLOPs a multiply-add. Shapes are derived abstractly: no memory is allocated,
whatever the size. With `--options` it prints instead what may be set by `--config.key=value`, and what that means.
`genjax inspect --variant=NAME` prints the parameters of a published network instead, `--variant=all` their numbers.
"""

from collections.abc import Mapping
import functools
import math
from typing import Any

from absl import flags
import jax
from jax.sharding import AbstractMesh

from genjax.cli import configs, variants
from genjax.config import Config, flatten, plain, spells, suggestion
from genjax.nn.functional import count
from genjax.objectives import base
from genjax.options import REQUIRED, Known, Option, type_name
from genjax.runs import builders
from genjax.training import state as state_lib
from genjax.training.checkpoints import checkpoint
from genjax.training.experiment import Experiment
from genjax.training.monitoring import flops, memory
from genjax.training.optimization import optimizers
from genjax.types import UserError, leaf_name, strict_json


def main(argv: list[str]) -> int:
  """Prints the tables; returns the exit code."""

  def define(values: flags.FlagValues) -> None:
    flags.DEFINE_string('mesh', '', 'mesh to lay parameters out on, e.g. fsdp:8,tensor:2 (default: one device)',
                        flag_values=values)
    flags.DEFINE_bool('json', False, 'print JSON', flag_values=values)
    flags.DEFINE_string('options', None, 'list the options of the config instead; --options=sampler those of a section',
                        flag_values=values)

  if variants.asked(argv):
    return variants.main(argv)
  argv = ['--options=' if arg == '--options' else arg for arg in argv]
  values, paths = configs.parse('inspect', argv, __doc__ or '', define)
  config = values.config
  if values.options is not None:
    rows = option_rows(config, builders.options(config, paths), values.options)
    print(strict_json({'options': rows}, indent=2) if values.json else render_options(rows))
    return 0
  experiment = builders.build(config, paths)
  report = inspect(experiment, config.seed, abstract_mesh(values.mesh), dict(config.rules))
  for group in {row['group']: None for row in report['parameters']}:
    rows = [row for row in report['parameters'] if row['group'] == group]
    words = {} if group in experiment.frozen else optimizers.describe(
      config.optimizers[experiment.origins.get(group, group)], {row['path']: row['shape'] for row in rows})
    for row in rows:
      row['optimizer'] = words.get(row['path'], 'frozen')
  if describe := getattr(experiment.train, 'describe', None):
    report['data'] = describe()
  print(strict_json(report, indent=2) if values.json else render(report))
  return 0


def abstract_mesh(text: str) -> AbstractMesh:
  """'fsdp:8,tensor:2' -> a mesh without devices.

  Raises:
    UserError: an unknown axis or a size that is no positive number.
  """
  sizes = builders.mesh_sizes(text)
  if -1 in sizes.values():
    raise UserError(f'--mesh={text}: there are no devices to count here; give every size as a number')
  return AbstractMesh(tuple(sizes.values()), tuple(sizes))


def inspect(experiment: Experiment, seed: int, mesh: AbstractMesh, rules: Mapping[str, Any]) -> dict[str, Any]:
  """Parameters, totals and FLOPs of an experiment as plain data."""
  objective = experiment.objective
  shapes = jax.eval_shape(functools.partial(state_lib.create, objective, experiment.optimizers, experiment.ema, seed),
                          experiment.frozen)
  base.check_groups(objective.phases(), shapes.params, experiment.optimizers, experiment.ema)
  state = checkpoint.abstract(shapes, state_lib.shardings(shapes, experiment.optimizers, mesh, experiment.axes, rules))
  frozen = state_lib.frozen_target(experiment.frozen, mesh, experiment.axes, rules)
  rows = []
  for group, tree in {**state.params, **frozen}.items():
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
      rows.append({'group': group, 'path': leaf_name(path),
                   'shape': list(leaf.shape), 'count': math.prod(leaf.shape), 'layout': _layout(leaf.sharding.spec)})
  return {
    'parameters': rows,
    'totals': {group: count(tree) for group, tree in shapes.params.items()},
    'total': count(shapes.params),
    'frozen': count(experiment.frozen),
    'parts': {name: {'path': experiment.sources[name].path if name in experiment.sources else '',
                     'parameters': count(experiment.frozen[name]), **sizes}
              for name, sizes in memory.by_part(frozen).items()},
    'mutable': count(shapes.mutable),
    'optimizer': count(shapes.opt),
    'averages': count(shapes.ema),
    'bytes': memory.totals(state, frozen),
    'bytes_per_device': memory.per_device(state, frozen),
    'flops_per_example': phase_flops(experiment, shapes),
  }


def phase_flops(experiment: Experiment, shapes: state_lib.TrainState) -> dict[str, dict[str, float]]:
  """FLOPs per example of each phase: the loss alone ('forward') and with its gradient ('forward_backward')."""
  size = max(8, experiment.train.batch_size)
  batch = experiment.batch_shapes(size)
  key = jax.eval_shape(lambda: jax.random.key(0))
  result = {}
  for phase in experiment.objective.phases():

    def loss(trained, others, context, batch, key, phase=phase):
      output = phase.loss({**others, **trained}, context, batch, key)
      return output.loss

    trained = {group: shapes.params[group] for group in phase.trains}
    context = shapes.context(jax.eval_shape(lambda tree: tree, experiment.frozen))
    args = (trained, shapes.params, context, batch, key)
    result[phase.name] = {'every': phase.every, 'forward': flops.count(loss, *args) / size,
                          'forward_backward': flops.count(jax.grad(loss), *args) / size}
  return result


def option_rows(config: Config, known: Known, section: str = '') -> list[dict[str, Any]]:
  """The options of a config, by sections.

  Args:
    config: the config.
    known: its options.
    section: the one to list, such as 'sampler'; '' for all.

  Returns:
    Rows of option, type, value, whether it is the 'config' that has this value, the 'default', or 'required' and
    missing, and meaning.

  Raises:
    UserError: there is no such section.
  """
  spelled = flatten(config)
  inside = lambda key: not section or key == section or key.startswith(f'{section}.')
  rows = []
  unknown = {key: known.template(key) or Option(key, type(value), value, '(the builder does not say)')
             for key, value in spelled.items() if key not in known.options and key not in known.computed}
  templates = {option.key: option for option in known.templates}
  for key, option in {**known.options, **templates, **unknown}.items():
    if inside(key):
      given = key in spelled or spells(config, key)
      source = 'config' if given else 'required' if option.default is REQUIRED else 'default'
      value = spelled.get(key, {}) if given else None if source == 'required' else plain(option.default)
      rows.append({'option': key, 'type': type_name(option.kind), 'value': value, 'source': source,
                   'meaning': option.meaning})
  if not rows:
    sections = sorted({key.rpartition('.')[0] for key in known.options} - {''})
    raise UserError(f'--options={section} names no section of the config.{suggestion(section, sections)} The sections '
                    f'are {", ".join(sections)}')
  return sorted(rows, key=lambda row: '.' in row['option'])


def render_options(rows: list[dict[str, Any]]) -> str:
  """The options as text, a line each, grouped by section."""
  section = lambda row: row['option'].rpartition('.')[0]
  lines = ['Set by --config.OPTION=VALUE. A * marks what the config sets; the others have their defaults.']
  for name in dict.fromkeys(map(section, rows)):
    own = [row for row in rows if section(row) == name]
    cells = [(f'{row["option"]}{"*" if row["source"] == "config" else ""}', row['type'],
              'required' if row['source'] == 'required' else _value(row['value']), row['meaning']) for row in own]
    widths = [max(len(cell[column]) for cell in cells) for column in range(3)]
    lines += ['', name or 'run']
    lines += ['  ' + '  '.join(
      text.ljust(width) for text, width in zip(cell, (*widths, 0))).rstrip() for cell in cells]
  return '\n'.join(lines)


def _value(value: Any) -> str:
  """A value as the command line takes it: text without quotes, unless it is empty or has other than visible ends."""
  if isinstance(value, str) and value and value.isprintable() and value == value.strip():
    return value
  return repr(tuple(value) if isinstance(value, list) else value)


def _layout(spec: Any) -> str:
  return ' '.join('-' if axis is None else axis if isinstance(axis, str) else '+'.join(axis) for axis in spec) or '-'


def render(report: dict[str, Any]) -> str:
  """The tables as text."""
  header = ('group', 'parameter', 'shape', 'count', 'layout', 'optimizer')
  rows = [(row['group'], row['path'], ' x '.join(map(str, row['shape']))
           or 'scalar', f'{row["count"]:,}', row['layout'], row['optimizer']) for row in report['parameters']]
  widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
  lines = [
    '  '.join(
      cell.rjust(width) if column == 3 else cell.ljust(width)
      for column, (cell, width) in enumerate(zip(row, widths)))
    for row in [header, *rows]
  ]
  lines.append('')
  lines += [f'parameters of {group}: {total:,}' for group, total in report['totals'].items()]
  lines.append(f'parameters in total: {report["total"]:,}')
  lines.append(
    f'besides: optimizer {report["optimizer"]:,}, averages {report["averages"]:,}, mutable {report["mutable"]:,}, '
    f'frozen {report["frozen"]:,}')
  lines.append('bytes (in all, on a device): ' + ', '.join(
    f'{name} {size:,} ({report["bytes_per_device"][name]:,})' for name, size in report['bytes'].items() if size))
  for name, part in report['parts'].items():
    lines.append(f'frozen {name}{" from " if part["path"] else ""}{part["path"]}: {part["parameters"]:,} parameters, '
                 f'{part["bytes"]:,} bytes ({part["per_device"]:,} on a device)')
  for name, cost in report['flops_per_example'].items():
    lines.append(f'FLOPs per example, phase {name} (every {cost["every"]}): forward {cost["forward"]:.4g}, '
                 f'forward and backward {cost["forward_backward"]:.4g}')
  lines += ['', report['data']] if 'data' in report else []
  return '\n'.join(lines)
