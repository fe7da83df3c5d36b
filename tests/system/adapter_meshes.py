"""Losses of a run with adapters on meshes of eight fake devices, beside one device; prints the largest relative
difference of each mesh.

    python adapter_meshes.py CONFIG MESH[,MESH...] FLAG...       # MESH: axis:size pairs joined by '+'
"""

import dataclasses
import json
import sys

import jax

from genjax.cli import configs
from genjax.runs import builders
from genjax.training.run import Run


def losses(experiment, settings, devices) -> list[float]:
  """Of five steps."""
  run = Run(experiment, settings, devices)
  run.initialise()
  batches = experiment.train.iterate(0, run.rows(settings.batch_size))
  return [
    float(value) for _ in range(5) for name, value in run.train_step(next(batches)).items() if name.endswith('/loss')
  ]


def main(path: str, meshes: list[str], flags: list[str]) -> None:
  """Prints JSON."""
  values, paths = configs.parse('train', [f'--config={path}', *flags], '')
  experiment = builders.build(values.config, paths)
  random = lambda leaf: 0.2 * jax.random.normal(jax.random.key(leaf.size), leaf.shape).astype(leaf.dtype)
  experiment = dataclasses.replace(experiment, frozen=jax.device_get(jax.tree.map(random, experiment.frozen)))
  settings = builders.settings(values.config)
  expected = losses(experiment, dataclasses.replace(settings, mesh={'data': 1}), jax.devices()[:1])
  report = {}
  for mesh in meshes:
    shape = {axis: int(size) for axis, size in (pair.split(':') for pair in mesh.split('+'))}
    found = losses(experiment, dataclasses.replace(settings, mesh=shape), jax.devices())
    report[mesh] = max(abs(one - other) / abs(one) for one, other in zip(expected, found, strict=True))
  print(json.dumps({'meshes': report, 'moved': abs(expected[-1] - expected[0]) / abs(expected[0])}))


if __name__ == '__main__':
  jax.config.update('jax_num_cpu_devices', 8)
  main(sys.argv[1], sys.argv[2].split(','), sys.argv[3:])
