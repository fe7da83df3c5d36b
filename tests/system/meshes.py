"""One experiment on many meshes of eight fake devices, beside one device; prints what was measured as a JSON line.

    python meshes.py STEPS MESH[,MESH...] FLAG...       # MESH: axis:size pairs joined by '+'
"""

import dataclasses
import json
import pathlib
import sys
import tempfile
from typing import Any

import jax
import numpy as np

from genjax.cli import configs, inspect
from genjax.runs import builders
from genjax.training.checkpoints.checkpoint import Checkpoints
from genjax.training.run import Run
from genjax.types import leaf_name


def leaves(tree) -> dict[str, np.ndarray]:
  """Path -> array on the host."""
  return {
    jax.tree_util.keystr(path): np.asarray(jax.device_get(leaf))
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def same(first, second) -> bool:
  """Whether two trees hold the same bytes."""
  first, second = leaves(first), leaves(second)
  return first.keys() == second.keys() and all(first[name].tobytes() == second[name].tobytes() for name in first)


def difference(first, second) -> float:
  """Largest difference of two runs' metrics, relative to the larger of the two values."""
  assert len(first) == len(second)
  pairs = [(a[name], b[name]) for a, b in zip(first, second) for name in a]
  return max(abs(a - b) / max(abs(a), abs(b), 1e-30) for a, b in pairs)


def held(run) -> tuple[int, int]:
  """Bytes of parameters, optimizer and averages on the fullest device, and in all."""
  arrays = jax.tree.leaves((run.state.params, run.state.opt, run.state.ema))
  devices: dict[Any, int] = {}
  for array in arrays:
    for shard in array.addressable_shards:
      devices[shard.device] = devices.get(shard.device, 0) + shard.data.nbytes
  return max(devices.values()), sum(array.nbytes for array in arrays)


def inspected(run, mesh: dict[str, int]) -> bool:
  """Whether `genjax inspect --mesh` prints the layouts that the parameters have."""
  text = ','.join(f'{axis}:{size}' for axis, size in mesh.items())
  report = inspect.inspect(run.experiment, run.settings.seed, inspect.abstract_mesh(text), run.settings.rules)
  split = lambda row: [set(name.split('+')) - {'-'} for name in row['layout'].split(' ')][:len(row['shape'])]
  printed = {(row['group'], row['path']): split(row) for row in report['parameters']}
  actual = {}
  for group, tree in run.state.params.items():
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
      spec = [*leaf.sharding.spec, *[None] * (leaf.ndim - len(leaf.sharding.spec))]
      actual[group, leaf_name(path)] = [{axis} if isinstance(axis, str) else set(axis or ()) for axis in spec]
  return printed == actual


def train(run, steps: int) -> list[dict[str, float]]:
  """Losses of each step."""
  batches = run.experiment.train.iterate(0, run.rows(run.settings.batch_size))
  metrics = [run.train_step(next(batches)) for _ in range(steps)]
  return [
    {name: float(value) for name, value in step.items() if name.endswith('/loss')} for step in jax.device_get(metrics)
  ]


def main(steps: int, meshes: list[str], flags: list[str]) -> None:
  values, paths = configs.parse('train', flags, '')
  experiment, settings = builders.build(values.config, paths), builders.settings(values.config)
  alone = Run(experiment, settings, jax.devices()[:1])
  alone.initialise()
  initial = jax.device_get(alone.state)
  losses = train(alone, steps)
  report, runs = {}, {}
  for text in meshes:
    mesh = {axis: int(size) for axis, size in (part.split(':') for part in text.split('+'))}
    run = runs[text] = Run(experiment, dataclasses.replace(settings, mesh=mesh))
    run.initialise()
    entry = report[text] = {'initial': same(initial.params, run.state.params), 'state': same(initial, run.state)}
    entry['bytes'], entry['total'] = held(run)
    entry['inspected'] = inspected(run, mesh)
    entry['losses'] = difference(losses, train(run, steps))
    if 'context' in mesh:
      sampled = [each.sample(8, seed=1, averaged=False) for each in (alone, run)]
      entry['samples'] = max(
        float(np.max(np.abs(sampled[0][name].astype(float) - sampled[1][name].astype(float)))) for name in sampled[0])
      entry['evaluation'] = difference(*([each.evaluate(max_batches=1)] for each in (alone, run)))
  with tempfile.TemporaryDirectory() as folder:
    checkpoints = Checkpoints(pathlib.Path(folder) / 'checkpoints')
    writer = runs[meshes[-1]]
    checkpoints.save(steps, writer.state, {}, None)
    checkpoints.wait()
    for text, run in {'one device': alone, **runs}.items():
      restored = checkpoints.restore(run.target, print)
      report.setdefault(text, {})['restored'] = same(writer.state, restored) and all(
        leaf.sharding.is_equivalent_to(target.sharding, leaf.ndim)
        for leaf, target in zip(jax.tree.leaves(restored), jax.tree.leaves(run.target)))
    checkpoints.close()
  print(json.dumps({'losses': [sorted(step) for step in losses], 'meshes': report}))


if __name__ == '__main__':
  main(int(sys.argv[1]), sys.argv[2].split(','), sys.argv[3:])
