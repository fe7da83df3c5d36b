"""Stop requests: how a run handles SIGTERM and the first SIGINT.

During imports, building, restoring and waiting for data, the signal stops the process at once by raising `Stopped`.
During a step, a save or a hook (`deferred`) it is only recorded. The loop checks the record between steps, evaluation
and sampling check it between batches, and stop there. A second SIGINT interrupts at once.

This module imports only the standard library, so that the command line can install it before slow imports.
"""

from collections.abc import Iterator
import contextlib
import signal
from types import FrameType
from typing import Any


class Stopped(BaseException):
  """The process was asked to stop. Not an `Exception`, so that error handlers don't catch it.

  Attributes:
    signal: name of the signal, such as 'SIGTERM'.
    step: number of finished and saved steps, or None if training has not begun.
  """

  def __init__(self, name: str):
    self.signal = name
    self.step: int | None = None
    super().__init__(name)


_noted: str | None = None
_before: dict[int, Any] = {}  # signal -> previous handler
_mode = 'start-up'  # or 'deferred', 'finishing', 'at once'


def install() -> None:
  """Installs handlers for SIGTERM and SIGINT; call it first, in the main thread."""
  global _noted, _mode
  _noted, _mode = None, 'start-up'
  for number in (signal.SIGTERM, signal.SIGINT):
    before = signal.signal(number, _handle)
    if before is not _handle:
      _before[number] = before


def uninstall() -> None:
  """Restores the previous handlers and clears the record."""
  global _noted
  for number, handler in _before.items():
    signal.signal(number, handler)
  _before.clear()
  _noted = None


def installed() -> bool:
  """Whether the signals of this process are taken over."""
  return bool(_before)


def requested() -> str | None:
  """The name of the signal that requested a stop, or None."""
  return _noted


def in_start_up() -> bool:
  """Returns whether a stop was requested before training began.

  `Stopped` was raised then, but extension modules may have turned it into an ImportError.
  """
  return _noted is not None and _mode == 'start-up'


def check() -> None:
  """Stops here if a stop was requested.

  Raises:
    Stopped: a signal arrived, and this is not inside `finishing`.
  """
  if _noted and _mode != 'finishing':
    raise Stopped(_noted)


def deferred() -> contextlib.AbstractContextManager[None]:
  """Context manager: signals are only recorded, for the next `check`."""
  return _within('deferred')


def finishing() -> contextlib.AbstractContextManager[None]:
  """Context manager: signals are only recorded, and `check` does not stop, so that the body completes."""
  return _within('finishing')


@contextlib.contextmanager
def at_once() -> Iterator[None]:
  """Context manager: signals, also earlier ones, raise `Stopped` at once.

  Raises:
    Stopped: a signal arrived.
  """
  with _within('at once'):
    check()
    yield


@contextlib.contextmanager
def _within(mode: str) -> Iterator[None]:
  global _mode
  before, _mode = _mode, mode
  try:
    yield
  finally:
    _mode = before


def _handle(number: int, frame: FrameType | None) -> None:
  global _noted
  name = signal.Signals(number).name
  if _noted and number == signal.SIGINT:
    raise KeyboardInterrupt
  if _noted is None:
    _noted = name
    if _mode in ('start-up', 'at once'):
      raise Stopped(name)
