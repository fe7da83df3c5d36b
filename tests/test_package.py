"""What an import costs and brings along."""

import subprocess
import sys
import time


def test_import_is_quick_and_brings_no_other_framework():
  code = "import genjax, sys; print([name for name in ('tensorflow', 'torch') if name in sys.modules])"
  begin = time.perf_counter()
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  assert done.stdout.strip() == '[]'
  assert time.perf_counter() - begin < 3


def test_the_loop_brings_no_other_framework():
  modules = ('genjax.training.loop, genjax.training.hooks, genjax.cli.train, genjax.experiments.language, '
             'genjax.experiments.diffusion')
  code = f"import {modules}, sys; print([name for name in ('tensorflow', 'torch') if name in sys.modules])"
  assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == '[]'
