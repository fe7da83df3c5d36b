"""Tables of runs in the terminal: one that is drawn again and again, and plain lines where output goes elsewhere."""

from collections.abc import Callable, Sequence
import sys
import time
from typing import IO, Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

HEADER = ('run', 'state', 'step', 'ETA', 'metrics')
COLORS = {'finished': 'green', 'running': 'cyan', 'failed': 'red', 'interrupted': 'yellow',
          'queued': 'blue', 'pruned': 'magenta'}
_URGENT = {'running': 0, 'failed': 1, 'interrupted': 2, 'queued': 3, 'waiting': 4}
SECONDS = 60.0  # between two plain lines of progress


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
  """A table without lines; states have colours."""
  drawn = Table(*header, box=None, pad_edge=False, header_style='bold')
  for row in rows:
    drawn.add_row(*(Text(cell, style=COLORS.get(cell.partition(' ')[0], '') if name == 'state' else '', overflow='fold')
                    for name, cell in zip(header, row)))
  return drawn


def text(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  """The same as plain text."""
  widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
  return '\n'.join('  '.join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in [header, *rows])


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]], keys: int | None = None) -> str:
  """The same in Markdown, without a line break at its end. Columns after the first `keys` are set to the right."""
  clean = lambda cells: '| ' + ' | '.join(cell.replace('|', r'\|') for cell in cells) + ' |'
  left = len(header) if keys is None else keys
  return '\n'.join([clean(header), clean(['---'] * left + ['---:'] * (len(header) - left)), *map(clean, rows)])


class Board:
  """A table with lines above it.

  Args:
    rows: gives the rows that are shown, of the names of what is active; it is asked once a second.
    summary: gives a line that tells all in short, of these names.
    header: of the rows.
    file: where to; on a terminal the table stays in place, elsewhere the summary is printed once a minute.
  """

  def __init__(self, rows: Callable[[Sequence[str]], Sequence[Sequence[str]]],
               summary: Callable[[Sequence[str]], str],
               header: Sequence[str] = HEADER, file: IO[str] | None = None):
    self._active: Sequence[str] = ()
    self._header = header
    self._rows, self._summary = rows, summary
    self._file: Any = file or sys.stdout
    self._console = Console(file=self._file)
    self._live: Live | None = None
    self._last, self._told = 0.0, ''

  def __enter__(self) -> 'Board':
    self._last = time.monotonic()
    if self._console.is_terminal:
      self._live = Live(self._draw(), console=self._console, auto_refresh=False, vertical_overflow='ellipsis')
      self._live.start()
    return self

  def __exit__(self, *_: Any) -> None:
    if self._live is not None:
      self._active = ()
      self._live.update(self._draw(), refresh=True)
      self._live.stop()
      self._live = None

  def say(self, line: str) -> None:
    """A line that stays."""
    if self._live is not None:
      self._console.print(Text(line))
    else:
      print(line, file=self._file, flush=True)

  def look(self, active: Sequence[str] = ()) -> None:
    """Draws anew what has changed, at most once a second."""
    now, self._active = time.monotonic(), active
    if now - self._last < (1.0 if self._live is not None else SECONDS):
      return
    self._last = now
    if self._live is not None:
      self._live.update(self._draw(), refresh=True)
    elif (line := self._summary(self._active)) != self._told:
      self._told = line
      self.say(line)

  def _draw(self) -> Group:
    rows = list(self._rows(self._active))
    room = max(1, self._console.height - 4)
    left_out = len(rows) - room
    if left_out > 0:  # what goes on and what went wrong stays in view
      state = self._header.index('state')
      kept = sorted(range(len(rows)), key=lambda index: _URGENT.get(rows[index][state].partition(' ')[0], 9))[:room]
      rows = [rows[index] for index in sorted(kept)]
    more = f'; {left_out} runs are not shown' if left_out > 0 else ''
    return Group(table(self._header, rows), Text(f'{self._summary(self._active)}{more}', style='bold'))
