"""A table as Markdown, LaTeX or CSV. Equal tables give equal bytes."""

from collections.abc import Callable
import csv
import io
import math

from genjax.config import suggestion
from genjax.studies import statistics
from genjax.studies.tables import Row, Table
from genjax.types import UserError

_LATEX = {'\\': r'\textbackslash{}', '&': r'\&', '%': r'\%', '$': r'\$', '#': r'\#', '_': r'\_', '{': r'\{', '}': r'\}',
          '~': r'\textasciitilde{}', '^': r'\textasciicircum{}', '±': r'$\pm$', 'Δ': r'$\Delta$'}
_MOST = 6  # decimals; smaller numbers are written with an exponent
_MARKDOWN = {'|': r'\|', '*': r'\*'}


def render(table: Table, form: str) -> str:
  """The table as text that ends with a line break.

  Args:
    table: the table.
    form: a key of `FORMS`.

  Raises:
    UserError: an unknown form.
  """
  if form not in FORMS:
    raise UserError(f'--format must be one of {sorted(FORMS)}, got {form!r}.{suggestion(form, FORMS)}')
  return FORMS[form](table)


def number(cell: statistics.Summary | None) -> str:
  """'0.231 ± 0.012': two digits of the deviation, and as many decimals of the mean; '-' for no values."""
  if cell is None:
    return '-'
  if cell.deviation is None or not cell.deviation:
    return f'{cell.mean:.4g}' + ('' if cell.deviation is None else ' ± 0')
  decimals = _decimals(cell.deviation)
  if decimals > _MOST:
    digits = min(decimals + math.floor(math.log10(abs(cell.mean))), _MOST) if cell.mean else 3
    return f'{cell.mean:.{max(digits, 0)}e} ± {cell.deviation:.1e}'
  return f'{cell.mean:.{decimals}f} ± {cell.deviation:.{decimals}f}'


def interval(cell: statistics.Difference | None) -> str:
  """'-0.012 [-0.020, -0.004]'."""
  if cell is None:
    return '-'
  if cell.low is None or cell.high is None:
    return f'{cell.mean:+.3g}'
  decimals = _decimals(max(cell.high - cell.low, abs(cell.mean) / 100))
  if decimals > _MOST:
    return f'{cell.mean:+.2e} [{cell.low:+.2e}, {cell.high:+.2e}]'
  return f'{cell.mean:+.{decimals}f} [{cell.low:+.{decimals}f}, {cell.high:+.{decimals}f}]'


def _decimals(size: float) -> int:
  """Decimals with which a number has two digits."""
  return max(0, 1 - math.floor(math.log10(size))) if size > 0 else 3


def _runs(row: Row) -> str:
  """'3', or '2 of 3' where some are not finished."""
  return str(row.finished) if row.finished == len(row.runs) else f'{row.finished} of {len(row.runs)}'


def _cell(row: Row, name: str) -> str:
  """A mean, with its count where that is not the one of finished runs."""
  cell = row.cells[name]
  return number(cell) + (f' (n={cell.count})' if cell is not None and cell.count != row.finished else '')


def _difference(row: Row, name: str) -> str:
  cell = row.differences.get(name)
  return interval(cell) + (f' (n={cell.count})' if cell is not None and cell.count != row.finished else '')


def _titles(table: Table) -> list[str]:
  keys = list(table.header) or ['setting']
  differences = [f'Δ {name}' for name in table.metrics] if table.baseline is not None else []
  return [*keys, 'runs', *table.metrics, *differences]


def _lines(table: Table, bold: Callable[[str], str], clean: Callable[[str], str]) -> list[list[str]]:
  lines = []
  for index, row in enumerate(table.rows):
    cells = [clean(value) for value in row.values or ('all',)]
    cells.append(_runs(row))
    for name in table.metrics:
      text = clean(_cell(row, name))
      cells.append(bold(text) if index in table.best.get(name, ()) else text)
    if table.baseline is not None:
      cells += ['baseline' if index == table.baseline else clean(_difference(row, name)) for name in table.metrics]
    lines.append(cells)
  return lines


def _all_notes(table: Table) -> list[str]:
  notes = list(table.notes)
  if table.best:
    notes[0] += ' The best is bold.'
  if table.baseline is not None:
    notes.insert(1, f'Δ: mean of the differences to the baseline, paired by {", ".join(table.over)}, with '
                    f'{statistics.LEVEL:.0%} bootstrap interval.')
  return notes


def _markdown(table: Table) -> str:
  clean = lambda text: _replaced(text, _MARKDOWN)
  titles = list(map(clean, _titles(table)))
  keys = len(table.header) or 1
  rule = ['---'] * keys + ['---:'] * (len(titles) - keys)
  lines = [titles, rule, *_lines(table, lambda text: f'**{text}**', clean)]
  body = '\n'.join(f'| {" | ".join(line)} |' for line in lines)
  return f'{body}\n\n' + '\n'.join(f'- {note}' for note in map(clean, _all_notes(table))) + '\n'


def _latex(table: Table) -> str:
  """A tabular in the style of the package booktabs; the notes are comments above it."""
  clean = lambda text: _replaced(text, _LATEX)
  titles = list(map(clean, _titles(table)))
  keys = len(table.header) or 1
  lines = [f'% {note}' for note in _all_notes(table)]
  lines += [f'\\begin{{tabular}}{{{"l" * keys}{"r" * (len(titles) - keys)}}}', '\\toprule',
            f'{" & ".join(titles)} \\\\', '\\midrule']
  lines += [f'{" & ".join(line)} \\\\' for line in _lines(table, lambda text: f'\\textbf{{{text}}}', clean)]
  return '\n'.join([*lines, '\\bottomrule', '\\end{tabular}']) + '\n'


def _csv(table: Table) -> str:
  """All digits, a column for each number."""
  states = ('finished', 'failed', 'interrupted', 'running', 'waiting')
  parts = {'mean': 'mean', 'sd': 'deviation', 'n': 'count'}
  ends = {'difference': 'mean', 'low': 'low', 'high': 'high', 'pairs': 'count'}
  titles = [*(table.header or ('setting',)), *states, *(f'{name} {part}' for name in table.metrics for part in parts)]
  titles += [f'{name} {end}' for name in table.metrics for end in ends] if table.baseline is not None else []
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  writer.writerow(titles)
  for row in table.rows:
    counts = [sum(record.info.state == state for record in row.runs) for state in states]
    cells = [_field(row.cells[name], field) for name in table.metrics for field in parts.values()]
    if table.baseline is not None:
      cells += [_field(row.differences.get(name), field) for name in table.metrics for field in ends.values()]
    writer.writerow([*(row.values or ('all',)), *counts, *cells])
  return text.getvalue()


def _field(cell: object | None, field: str) -> str:
  value = None if cell is None else getattr(cell, field)
  return '' if value is None else repr(value)


def _replaced(text: str, signs: dict[str, str]) -> str:
  return ''.join(signs.get(sign, sign) for sign in text)


FORMS: dict[str, Callable[[Table], str]] = {'markdown': _markdown, 'latex': _latex, 'csv': _csv}
ENDINGS = {'.md': 'markdown', '.tex': 'latex', '.csv': 'csv'}
