"""Memory of the host that arrays give back, each case in a process of its own."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith('linux'),
                                reason='the settings are those of the C library of Linux')

SIZE = 2**27
BEGIN = f"""
import ctypes
from genjax.training.monitoring import allocator
library = ctypes.CDLL(None)
library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
library.free.argtypes = [ctypes.c_void_p]

def use(count=1):
  blocks = [library.malloc({SIZE}) for _ in range(count)]
  for block in blocks:
    ctypes.memset(block, 1, {SIZE})
  for block in blocks:
    library.free(block)

def held():
  return allocator._resident() / {SIZE}

assert allocator.keep_freed_memory()
"""


def run(code: str) -> list[float]:
  """What the code printed, in blocks of SIZE bytes."""
  done = subprocess.run([sys.executable, '-c', BEGIN + code], capture_output=True, text=True, check=True)
  return [float(line) for line in done.stdout.split()]


def test_freed_memory_stays_and_what_is_beyond_the_need_goes_back():
  before, kept, grown, returned, after = run("""
print(held())
use()
allocator.return_excess()
print(held())
use(3)
print(held())
allocator.return_excess()
print(held())
use()
allocator.return_excess()
use()
allocator.return_excess()
print(held())
""")
  assert kept > before + 0.9
  assert grown > before + 2.9
  assert returned < before + 0.2
  assert before + 0.9 < after < before + 1.2


def test_a_process_that_needs_most_of_the_memory_keeps_none():
  held, = run(f"""
allocator._available = lambda: {SIZE}
use()
allocator.return_excess()
use()
print(held())
""")
  assert held < 0.9
  kept, = run("""
use()
print(held())
""")
  assert kept > held + 0.9


def test_without_the_settings_nothing_is_given_back():
  done = subprocess.run([
    sys.executable, '-c', 'from genjax.training.monitoring import allocator; allocator.return_excess(); '
    'print(allocator._keeper.libc, allocator._keeper.held)'
  ], capture_output=True, text=True, check=True)
  assert done.stdout.split() == ['None', 'None']
