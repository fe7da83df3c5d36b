"""Codebooks after some batches on eight fake devices and on one; prints as JSON how much they differ.

    python tests/system/codebooks.py
"""

import functools
import json
import os

os.environ['XLA_FLAGS'] = '--xla_force_host_platform_device_count=8'

import jax
import numpy as np

from genjax import sharding
from genjax.nn.quantizers import VectorQuantizer


def learned(quantizer: VectorQuantizer, batches: list[np.ndarray], devices: int) -> tuple[np.ndarray, dict]:
  """The codes of the last batch, and the mutable variables after all."""
  mesh = sharding.make_mesh({'data': devices}, jax.devices()[:devices])
  params, mutable = quantizer.init(jax.random.key(0))

  @functools.partial(jax.jit, out_shardings=sharding.replicated(mesh))
  def step(mutable, z, key):
    found, mutable = sharding.under(mesh, None, quantizer.apply)(params, mutable, z, key)
    return found.index_X, mutable

  index = np.zeros(0)
  for number, z in enumerate(batches):
    placed = sharding.put_batch({'z': z}, mesh)['z']
    assert len(placed.sharding.device_set) == devices
    index, mutable = step(mutable, placed, jax.random.key(number))
  return np.asarray(index), jax.device_get(mutable)


def main() -> None:
  random = np.random.default_rng(0)
  batches = [random.normal(size=(16, 3, 3, 4)).astype(np.float32) for _ in range(6)]
  report = {}
  for way in ('averages', 'gradient'):
    quantizer = VectorQuantizer(24, 4, learned=way, decay=0.7, revive=2.0)
    (index, one), (other_index, eight) = (learned(quantizer, batches, devices) for devices in (1, 8))
    report[way] = {
      'same_codes': bool(np.array_equal(index, other_index)), 'variables': sorted(one),
      'difference': max(float(np.abs(one[name] - eight[name]).max() / np.abs(one[name]).max()) for name in one)}
  print(json.dumps(report))


if __name__ == '__main__':
  main()
