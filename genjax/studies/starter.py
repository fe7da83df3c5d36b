"""Becomes another program, which then dies with the process that asked for it and keeps to its cores.

    python -I -S starter.py PARENT CORES COMMAND ...

It is a file of its own because the kernel ends a child with its parent only if the child asks for it, and because code
between fork and exec of a process with threads, as jax has them, may hang.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, cores: set[int], command: list[str]) -> None:
  """Asks the kernel for SIGKILL when `parent` ends, keeps to `cores` if there are any, and becomes `command`."""
  if sys.platform == 'linux':
    # SIGKILL: a child that still saved would write beside the sweep that goes on in its place.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if cores:
      os.sched_setaffinity(0, cores)
  if os.getppid() != parent:  # it ended before the kernel was asked
    sys.exit(1)
  os.execv(command[0], command)


if __name__ == '__main__':
  main(int(sys.argv[1]), {int(core) for core in sys.argv[2].split(',') if core}, sys.argv[3:])
