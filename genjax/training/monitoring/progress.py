"""The progress bar of a terminal, and messages that stand above it."""

from collections.abc import Iterator
import contextlib
import logging
import sys

import tqdm
from tqdm.contrib import DummyTqdmFile


class Bar:
  """A live line at the bottom of the terminal: steps, time left, steps a second, and the newest numbers.

  While it is shown, whatever is written to standard output, standard error or a logger of Python appears above it.

  Args:
    total: steps of the run.
    done: steps that are finished already.
    title: stands in front.
  """

  def __init__(self, total: int, done: int, title: str = ''):
    self._shown = contextlib.ExitStack()
    self._bar = self._shown.enter_context(
      tqdm.tqdm(total=total, initial=done, unit='step', dynamic_ncols=True, file=sys.stderr, desc=title or None))
    self._shown.enter_context(_messages_above())

  def advance(self) -> None:
    """Counts one step."""
    self._bar.update(1)

  def show(self, text: str) -> None:
    """Replaces the numbers behind the bar."""
    self._bar.set_postfix_str(text, refresh=True)

  def close(self) -> None:
    """Leaves the bar as it is, and gives the streams back."""
    self._shown.close()


def interval(seconds: float) -> str:
  """A duration as the bar shows it, such as 01:30."""
  return tqdm.tqdm.format_interval(seconds)


@contextlib.contextmanager
def _messages_above() -> Iterator[None]:
  """Lines that are written to the terminal clear the bar first and draw it again below."""
  output, error = sys.stdout, sys.stderr
  above = {id(stream): DummyTqdmFile(stream) for stream in (output, error) if stream.isatty()}
  handlers = [(handler, handler.stream) for handler in _handlers() if id(handler.stream) in above]
  for handler, stream in handlers:  # they keep the stream of the time when they were made
    handler.setStream(above[id(stream)])
  sys.stdout, sys.stderr = above.get(id(output), output), above.get(id(error), error)
  try:
    yield
  finally:
    sys.stdout, sys.stderr = output, error
    for handler, stream in handlers:
      handler.setStream(stream)


def _handlers() -> list[logging.StreamHandler]:
  loggers = [logging.root, *logging.root.manager.loggerDict.values()]
  return list({handler for logger in loggers for handler in getattr(logger, 'handlers', ())
               if isinstance(handler, logging.StreamHandler)})
