"""`genjax inspect --config=FILE[:args] [--mesh=fsdp:8,tensor:2] [--json]`: what a config is, without computing it.

Prints every parameter with shape, count, layout and optimizer, the totals, the bytes of the training state on a device,
and the analytic FLOPs of each phase, two FLOPs a multiply-add. Shapes are derived abstractly: no memory is allocated,
whatever the size.
"""

from collections.abc import Mapping
import functools
import math
from typing import Any

from absl import flags
import jax
from jax.sharding import AbstractMesh

from genjax.cli import configs
from genjax.nn.functional import count
from genjax.objectives import base
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

  values, paths = configs.parse('inspect', argv, __doc__ or '', define)
  config = values.config
  experiment = builders.build(config, paths)
  report = inspect(experiment, config.seed, abstract_mesh(values.mesh), dict(config.rules))
  for group in {row['group']: None for row in report['parameters']}:
    rows = [row for row in report['parameters'] if row['group'] == group]
    words = {} if group in experiment.frozen else optimizers.describe(
      config.optimizers[experiment.origins.get(group, group)], {row['path']: row['shape'] for row in rows})
    for row in rows:
      row['optimizer'] = words.get(row['path'], 'frozen')
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
  for name, cost in report['flops_per_example'].items():
    lines.append(f'FLOPs per example, phase {name} (every {cost["every"]}): forward {cost["forward"]:.4g}, '
                 f'forward and backward {cost["forward_backward"]:.4g}')
  return '\n'.join(lines)
