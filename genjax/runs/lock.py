"""One training a run directory: a lock that the kernel holds for a process and lets go when it ends, however it
ends."""

from collections.abc import Iterator
import contextlib
import datetime
import errno
import fcntl
import json
import os
import pathlib
import socket
from typing import Any

from genjax import distributed
from genjax.training.monitoring.logs import say
from genjax.types import UserError, strict_json

NAME = 'train.lock'
_UNKNOWN = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # what file systems without locks answer


@contextlib.contextmanager
def hold(workdir: pathlib.Path) -> Iterator[None]:
  """Holds the lock of a run directory; of several processes of a run the first does, for all.

  The lock is `flock` on a file in the directory, which NFS passes on to other hosts. The file stays when the lock is
  gone, empty; it says who holds the lock, for the message. Where a file system has no locks, that is said, and nothing
  is refused.

  Raises:
    UserError: another process trains in the directory; the message names its host and its process.
  """
  if not distributed.is_first():
    yield
    return
  path = workdir / NAME
  try:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
  except PermissionError as error:
    raise UserError(
      f'{path} cannot be opened: {error.strerror}; it belongs to another user, whose run this is') from error
  try:
    _lock(file, path)
    _held.add(file)
    os.ftruncate(file, 0)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
    os.pwrite(file, (strict_json({'host': socket.gethostname(), 'process': os.getpid(), 'since': now}) + '\n').encode(),
              0)
    try:
      yield
    finally:
      with contextlib.suppress(OSError):  # a disk that is full or read-only has its own message
        os.ftruncate(file, 0)
  finally:
    _held.discard(file)
    os.close(file)


def is_held(workdir: pathlib.Path) -> bool:
  """Whether a process trains in a run directory.

  It tries the lock, and so holds it for a moment: only who is about to train there asks. `said` looks and no more.
  """
  try:
    file = os.open(workdir / NAME, os.O_RDWR)
  except OSError:  # no run yet, or one of another user's
    return False
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError as error:
    return error.errno in (errno.EWOULDBLOCK, errno.EACCES)
  finally:
    os.close(file)
  return False


def said(workdir: pathlib.Path) -> dict[str, Any] | None:
  """What the lock of a run directory says of its holder: `host`, `process`, `since`; None where there is none.

  A process that was killed leaves it behind.
  """
  try:
    found = json.loads((workdir / NAME).read_text())
    return found if isinstance(found, dict) and {'host', 'process', 'since'} <= found.keys() else None
  except (OSError, ValueError):
    return None


_held: set[int] = set()


def _let_go() -> None:
  """In a forked child, which would hold the lock on after its parent was killed."""
  for file in _held:
    os.close(file)
  _held.clear()


os.register_at_fork(after_in_child=_let_go)


def _lock(file: int, path: pathlib.Path) -> None:
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError as error:
    if error.errno in _UNKNOWN:
      say(
        f'{path}: this file system has no locks ({error.strerror}); see to it that nothing else trains in {path.parent}'
      )
    elif error.errno in (errno.EWOULDBLOCK, errno.EACCES):
      raise UserError(
        f'{path.parent} is being trained by {_holder(file)}; wait for it or stop it, or use another --workdir'
      ) from error
    else:
      raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def _holder(file: int) -> str:
  """Who holds the lock."""
  try:
    known = json.loads(os.pread(file, 4096, 0))
    return f'process {known["process"]} on host {known["host"]}, since {known["since"]}'
  except (ValueError, KeyError, TypeError):
    return 'another process, which has not said yet who it is'
