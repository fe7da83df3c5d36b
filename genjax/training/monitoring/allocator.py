"""How the C library hands out memory of the host."""

import ctypes
import functools
import os
import pathlib
import sys
from typing import Any

# Parameters of mallopt(3); the settings that keep freed memory, and those near the C library's own, which return it.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -2, -3, -4, -8
_KEEPING = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, 2**28))
_RETURNING = ((_TRIM_THRESHOLD, 2**26), (_TOP_PAD, 2**17), (_MMAP_THRESHOLD, 2**25), (_MMAP_MAX, 2**16))
_GROWTH = 1.25  # of the memory in use, from which freed memory goes back
_MOST = 0.5  # of the memory of the machine: who needs more keeps nothing


class _Keeper:
  """The settings of this process and what it held after earlier steps, in bytes; None where it is to be measured."""

  def __init__(self) -> None:
    self.libc: Any = None
    self.held: int | None = None


_keeper = _Keeper()


def keep_freed_memory() -> bool:
  """Lets this process keep the memory that arrays give back, for the next ones; call it before the first computation.

  XLA for CPUs allocates the temporary arrays of a program at every call. The C library of Linux returns blocks that
  large to the system when they are freed, and the system hands them out again page by page, each filled with zeros: a
  sixth of the time of a train step (docs/speed.md). Afterwards the process holds as much memory as it ever needed at
  one time, and more where small arrays break up what was freed; `return_excess` bounds that.

  Returns:
    Whether the C library knows the settings; other libraries than glibc do not, and nothing changes.
  """
  library = ctypes.CDLL(None) if sys.platform == 'linux' else None
  if getattr(library, 'mallopt', None) is None or not _set(library, _KEEPING):
    return False
  _keeper.libc, _keeper.held = library, None
  return True


def return_excess() -> None:
  """After a step: gives memory back that is free, if the process holds a quarter more than it needed before.

  A process that needs half of the machine's memory stops keeping what it frees, as there is no place for it twice.
  Nothing happens without `keep_freed_memory`.
  """
  if _keeper.libc is None:
    return
  held = _resident()
  if held > _MOST * _available():
    _set(_keeper.libc, _RETURNING)
    _keeper.libc.malloc_trim(0)
    _keeper.libc = None
  elif _keeper.held is None:
    _keeper.held = held
  elif held > _GROWTH * _keeper.held:
    _keeper.libc.malloc_trim(0)
    _keeper.held = None  # the next step shows what is needed


def _set(library: Any, settings: tuple[tuple[int, int], ...]) -> bool:
  results = [library.mallopt(name, value) for name, value in settings]  # each of them, whatever the others say
  return results == [1] * len(settings)


def _resident() -> int:
  """Bytes of this process that are in memory."""
  return int(pathlib.Path('/proc/self/statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE')


@functools.cache
def _available() -> int:
  """Bytes of the machine, or of the container."""
  limit = pathlib.Path('/sys/fs/cgroup/memory.max')
  text = limit.read_text().strip() if limit.exists() else 'max'
  machine = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  return min(machine, int(text)) if text.isdigit() else machine
