"""How the C library hands out memory of the host."""

import ctypes
import sys

# Parameters of mallopt(3).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
_PAD = 2**28  # bytes to take at once from the system


def keep_freed_memory() -> bool:
  """Lets this process keep the memory that arrays give back, for the next ones; call it before the first computation.

  XLA for CPUs allocates the temporary arrays of a program at every call. The C library of Linux returns blocks that large to the system
  when they are freed, and the system hands them out again page by page, each filled with zeros: a sixth of the time of a train step
  (docs/speed.md). Afterwards the process holds as much memory as it ever needed at one time.

  Returns:
    Whether the C library knows the settings; other libraries than glibc do not, and nothing changes.
  """
  library = ctypes.CDLL(None) if sys.platform == 'linux' else None
  mallopt = getattr(library, 'mallopt', None)
  if mallopt is None:
    return False
  settings = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, _PAD))
  results = [mallopt(name, value) for name, value in settings]  # each of them, whatever the others say
  return results == [1] * len(settings)
