"""Gradients are summed in float32, and over the axis 'data' once a step; on eight fake devices, see `reductions.py`."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent


@pytest.fixture(scope='module')
def found():
  argv = [
    sys.executable,
    pathlib.Path(__file__).with_name('reductions.py'), f'--config={ROOT}/configs/quickstart.py:smoke',
    '--config.batch_size=32'
  ]
  done = subprocess.run(argv, capture_output=True, text=True, timeout=1200, env={
    **os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')]), 'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=8'})
  assert done.returncode == 0, done.stderr[-5000:]
  return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_gradients_in_terms_are_those_of_one_device(found):
  for name, entry in found['layers'].items():
    bound = 0.05 if 'bfloat16' in name else 1e-5
    assert entry['plain'] < bound, f'{name}: {entry}'
    assert entry['terms'] < bound, f'{name}: {entry}'
    assert entry['least'] > 0, f'{name}: a part of the batch has no term'


@pytest.mark.slow
def test_microbatches_have_the_gradient_of_whatever_a_loss_does_with_parameters(found):
  for name, apart in found['accumulated'].items():
    assert apart < 1e-5, f'{name}: {apart}'


@pytest.mark.slow
def test_microbatches_send_no_more(found):
  """One all-reduce of the gradients a step; what is added are scalars, the weights of microbatches."""
  once, often = (sum(kinds.values()) for kinds in found['sent'])
  assert once < often < 1.05 * once
