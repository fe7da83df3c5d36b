"""The watchdog: a run that hangs says where, and ends, so that whatever started it can start it again."""

import faulthandler
import os
import pathlib
import sys
import threading
import time

from genjax.training.hooks import Hook
from genjax.training.run import Run
from genjax.types import UserError

EXIT = 5


class Watchdog(Hook):
  """Ends the process with exit code 5 when nothing was finished for `seconds`: no step, batch of an evaluation, chunk
  of samples.

  The stacks of all threads go to standard error and to `file` first. Compilation counts as nothing finished: `seconds`
  must be longer than the longest compilation.

  Args:
    file: gets the stacks.
    seconds: 0 switches it off.

  Raises:
    UserError: negative seconds.
  """

  def __init__(self, file: pathlib.Path, seconds: float):
    if seconds < 0:
      raise UserError(f'config.watchdog_seconds must not be negative, got {seconds}')
    self.file, self.seconds = file, seconds
    self._ended = threading.Event()
    self._thread: threading.Thread | None = None

  def start(self, run: Run) -> None:
    if self.seconds:
      run.clock.beat()
      self._thread = threading.Thread(target=self._watch, args=(run,), name='watchdog', daemon=True)
      self._thread.start()

  def close(self) -> None:
    self._ended.set()
    if self._thread is not None:
      self._thread.join()

  def _watch(self, run: Run) -> None:
    while not self._ended.wait(min(1.0, self.seconds / 4)):
      quiet = time.perf_counter() - run.clock.beaten
      if quiet > self.seconds:
        self._bark(
          f'nothing was finished for {quiet:.0f} s (config.watchdog_seconds={self.seconds:g}) after step {run.step}; '
          f'the stacks of all threads follow and stand in {self.file}. Run the same command to go on from the last '
          'checkpoint')

  def _bark(self, message: str) -> None:
    # Straight to the file descriptors: the thread that hangs may hold any lock, that of a stream included.
    try:
      with open(self.file, 'w') as file:
        print(message, file=file, flush=True)
        faulthandler.dump_traceback(file, all_threads=True)
    except OSError as error:
      message += f' (not in the file: {error})'
    os.write(2, f'watchdog: {message}\n'.encode())
    faulthandler.dump_traceback(sys.__stderr__ or 2, all_threads=True)
    os._exit(EXIT)
