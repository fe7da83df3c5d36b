"""Being asked to stop: what SIGTERM and the first SIGINT do to a run.

While nothing is at stake (imports, building, restoring, waiting for data) the signal stops the process at once, by
raising `Stopped` where it arrives. While a step, a save or a hook runs (`deferred`) it is only noted; the loop asks
between steps, evaluation and sampling ask between batches, and whoever finds the note stops there. A second SIGINT
interrupts at once.

Imports nothing but the standard library, so that the command line can install it before it imports anything slow.
"""

from collections.abc import Iterator
import contextlib
import signal
from types import FrameType
from typing import Any


class Stopped(BaseException):
  """The process was asked to stop. No `Exception`: nothing that handles errors may swallow it.

  signal: the name, such as 'SIGTERM'. step: finished steps that are saved, or None when no step is at stake yet.
  """

  def __init__(self, name: str):
    self.signal = name
    self.step: int | None = None
    super().__init__(name)


_noted: str | None = None
_before: dict[int, Any] = {}  # signal -> handler to give it back to
_mode = 'start-up'  # or 'deferred', 'finishing', 'at once'


def install() -> None:
  """Takes over SIGTERM and SIGINT of this process; call it from the main thread, first thing."""
  global _noted, _mode
  _noted, _mode = None, 'start-up'
  for number in (signal.SIGTERM, signal.SIGINT):
    before = signal.signal(number, _handle)
    if before is not _handle:
      _before[number] = before


def uninstall() -> None:
  """Gives the signals back and forgets what was noted."""
  global _noted
  for number, handler in _before.items():
    signal.signal(number, handler)
  _before.clear()
  _noted = None


def installed() -> bool:
  """Whether the signals of this process are taken over."""
  return bool(_before)


def requested() -> str | None:
  """The name of the signal that asked to stop, if one did."""
  return _noted


def in_start_up() -> bool:
  """Whether a signal asked to stop, and training had not begun.

  `Stopped` was raised then, but not everything lets it through: extension modules turn it into an ImportError.
  """
  return _noted is not None and _mode == 'start-up'


def check() -> None:
  """Stops here if asked to.

  Raises:
    Stopped: a signal arrived, and this is not inside `finishing`.
  """
  if _noted and _mode != 'finishing':
    raise Stopped(_noted)


def deferred() -> contextlib.AbstractContextManager[None]:
  """Inside, a signal is only noted, and found by the next `check`."""
  return _within('deferred')


def finishing() -> contextlib.AbstractContextManager[None]:
  """Inside, a signal is only noted, and `check` does not stop: what is going on has to come to its end."""
  return _within('finishing')


@contextlib.contextmanager
def at_once() -> Iterator[None]:
  """Inside, a signal raises where it arrives, also one that arrived before.

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
