"""What an import needs in memory beside the model: little, whatever its size."""

import subprocess
import sys

import jax
import numpy as np
import pytest

from genjax import interop
from genjax.models.transformers.decoder import llama, transformer

BOUND = 1.3  # times the bytes of the model's parameters, modules aside
IMPORT = """
import sys
import jax, orbax.checkpoint
import genjax.experiments.public
from genjax.cli import import_weights, main
jax.device_put(1.0)
# Not ru_maxrss: a new process begins with that of the one which started it.
peak = lambda: int(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1]) * 1024
before = peak()
code = main.main(['import', f'--from={sys.argv[1]}', f'--workdir={sys.argv[2]}'])
print('bytes', peak() - before)
sys.exit(code)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='/proc has the peak')
def test_peak_of_a_decoder_of_one_gibibyte(tmp_path):
  """The largest parameter, the same of all layers in one array, is a quarter of the model: no copy of it fits below the
  bound twice."""
  config = llama(vocab=512, context=64, layers=16, heads=16, width=1024, mlp_width=4096)
  shapes, rng = jax.eval_shape(transformer(config).init, jax.random.key(0))[0], np.random.default_rng(0)
  params = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape, np.float32), shapes)
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
  interop.save(tmp_path / 'public', config, params)
  del params
  assert size >= 2**30
  run = subprocess.run([sys.executable, '-c', IMPORT, tmp_path / 'public', tmp_path / 'run'], capture_output=True,
                       text=True, check=False)
  assert run.returncode == 0, run.stderr
  needed = int(run.stdout.split('bytes')[1])
  assert size < needed < BOUND * size, f'{needed / size:.2f} times the size of the model'
