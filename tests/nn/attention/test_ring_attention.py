"""Ring attention on fake devices equals the formula, and a device holds less of a sequence the more devices share
it."""

import json
import os
import pathlib
import subprocess
import sys

import jax.numpy as jnp
import pytest

from genjax.nn.attention import ring_attention

ROOT = pathlib.Path(__file__).parent.parent.parent.parent


@pytest.fixture(scope='module')
def measured():
  done = subprocess.run(
    [sys.executable, pathlib.Path(__file__).with_name('ring.py')], capture_output=True, text=True, timeout=900, env={
      **os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')]),
      'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=4'
    })
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_output_and_gradients_equal_the_formula(measured):
  assert len(measured['errors']) >= 20
  assert not {name: error for name, error in measured['errors'].items() if not error < 2e-5}


@pytest.mark.slow
def test_memory_of_a_device_falls_with_the_number_of_devices(measured):
  assert measured['memory']['4'] < 0.6 * measured['memory']['2']


def test_a_mesh_that_splits_sequences_is_needed():
  x = jnp.zeros((1, 4, 1, 2))
  with pytest.raises(ValueError, match='context > 1'):
    ring_attention.ring_attend(x, x, x)
