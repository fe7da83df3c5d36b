"""The page of a run or of a sweep: an HTML file that holds all it shows, within a size.

Templates are jinja2's, which escapes whatever a config or a caption holds. Curves are drawn by plotly.js, whose
minified source comes with the package plotly and goes into the page. A content security policy lets the browser run the
scripts of the page, known by their checksums, and load nothing.
"""

import base64
from collections.abc import Sequence
import dataclasses
import hashlib
import pathlib
import re
from typing import Any

from genjax.studies import compare, listing, names, records, rendering, sweeps, tables
from genjax.studies.report import facts, lines, media
from genjax.types import UserError

TEMPLATES = pathlib.Path(__file__).parent / 'templates'
SIZE = 20_000_000  # bytes of a page, if nothing else is said
_UNITS = {'': 1, 'b': 1, 'kb': 10**3, 'mb': 10**6, 'gb': 10**9}
_FEWEST = 40  # points of a line in a page that is too large


@dataclasses.dataclass(frozen=True)
class Options:
  """What a page is made of.

  Attributes:
    size: bytes that it may have.
    by, metrics, baseline, over, allow: of the table of a sweep, see `genjax.studies.tables.make`. Without a baseline,
      the first setting is one.
  """

  size: int = SIZE
  by: tuple[str, ...] = ()
  metrics: tuple[str, ...] = ()
  baseline: str = ''
  over: tuple[str, ...] = (sweeps.SEED,)
  allow: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Page:
  """A page.

  Attributes:
    text: the HTML.
    left_out: what it leaves out, a sentence each.
  """

  text: str
  left_out: list[str]


@dataclasses.dataclass(frozen=True)
class _Found:
  """What is read once, whatever then fits: title, runs with settings and lines, and the table or why there is none."""

  title: str
  runs: list[tuple[facts.Facts, str, dict[str, lines.Line]]]
  is_study: bool
  table: tables.Table | None = None
  refused: str = ''
  notes: tuple[str, ...] = ()


def check() -> None:
  """Checks that the packages are there.

  Raises:
    UserError: one is missing.
  """
  try:
    import jinja2  # noqa: F401  # pyright: ignore[reportMissingImports]  # an extra
    import plotly  # noqa: F401  # pyright: ignore[reportMissingImports]
  except ImportError as error:
    raise UserError("genjax report needs jinja2 and plotly: pip install 'genjax-research[report]', or pip install "
                    'jinja2 plotly') from error


def size(text: str) -> int:
  """Bytes of '20MB', '500kB' or '1GB'.

  Raises:
    UserError: it is no size.
  """
  match = re.fullmatch(r'(\d+(?:\.\d+)?)\s*([a-z]*)', text.strip().lower())
  if not match or match[2] not in _UNITS or not float(match[1]):
    raise UserError(f'--size={text} must be a number above 0 with a unit, kB, MB or GB, such as 20MB')
  return round(float(match[1]) * _UNITS[match[2]])


def make(folder: pathlib.Path, options: Options) -> Page:
  """The page of a folder.

  Args:
    folder: a run directory, the folder of a sweep, or one with run directories in it.
    options: what it is made of.

  Raises:
    UserError: there is no run, a package is missing, options of the table do not fit, or the size is too small.
  """
  check()
  found = _read(folder, options)
  series = [media.find(one.info.path) for one, _, _ in found.runs]
  count, most = len(found.runs), lines.POINTS
  while True:
    empty = [[media.Shown(one) for one in each] for each in series[:count]]
    bare = len(_render(found, empty, most, count).text.encode())
    if bare <= options.size:
      break
    if most > _FEWEST:
      most = max(_FEWEST, most // 3)
    elif count > 0 and found.is_study:
      count //= 2
    else:
      raise UserError(f'--size={options.size} bytes are too few: without any sample the page has '
                      f'{facts.size(bare)}, of which the plots need {facts.size(len(_plotly().encode()))}; give more')
  chosen = media.choose(series[:count], options.size - bare)
  return _render(found, chosen, most, count)


def _read(folder: pathlib.Path, options: Options) -> _Found:
  if listing.find(folder) == [folder]:
    _check_single(folder, options)
    return _Found(folder.resolve().name, [(facts.read(folder), '', lines.read(folder))], False)
  study = records.read(folder, options.over)
  try:
    table, notes = _table(folder, options)
    refused = ''
    settings = {record.name: _setting(table, row) for row in table.rows for record in row.runs}
  except compare.Incomparable as error:
    table, notes, refused, settings = None, [], str(error), {}
  runs = [(facts.read(record.path, record.name, record.config), settings.get(record.name, record.name),
           lines.read(record.path)) for record in study.records]
  return _Found(folder.resolve().name, runs, True, table, refused, tuple(notes))


def _check_single(folder: pathlib.Path, options: Options) -> None:
  """Raises a UserError for options of a table, which the page of one run does not have."""
  given = [field.name for field in dataclasses.fields(Options)
           if field.name != 'size' and getattr(options, field.name) != field.default]
  if given:
    raise UserError(f'--{given[0]} is for the table of several runs, and {folder} is one run; leave it out, or name '
                    'the folder of the sweep')


def _table(folder: pathlib.Path, options: Options) -> tuple[tables.Table, list[str]]:
  """The table, with differences against the setting that is named, or else against the first."""
  rest = options.over, options.allow
  if options.baseline:
    return tables.make(folder, options.by, options.metrics, options.baseline, *rest), []
  table = tables.make(folder, options.by, options.metrics, '', *rest)
  if len(table.rows) < 2:
    return table, []
  try:
    return tables.make(folder, options.by, options.metrics, _setting(table, table.rows[0], ','), *rest), []
  except UserError as error:
    return table, [f'There are no differences: {error}']


def _setting(table: tables.Table, row: tables.Row, between: str = ', ') -> str:
  return between.join(f'{label}={value}' for label, value in zip(table.header, row.values)) or 'all'


def _render(found: _Found, shown: Sequence[Sequence[media.Shown]], most: int, count: int) -> Page:
  """The page with the details of the first `count` runs, `most` points a line, and these samples."""
  import jinja2  # pyright: ignore[reportMissingImports]  # an extra
  import markupsafe  # pyright: ignore[reportMissingImports]
  environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True,
                                   lstrip_blocks=True, undefined=jinja2.StrictUndefined)
  environment.filters.update(size=facts.size, duration=facts.duration, number=_number, exact=_exact)
  chart = lines.data([(one.info.name, setting, found_lines) for one, setting, found_lines in found.runs], most)
  scripts = [_plotly(), (TEMPLATES / 'page.js').read_text()]
  left_out = _left_out(found, shown, chart, count)
  runs = [{'id': f'run-{index}', 'facts': one, 'setting': setting, 'shown': shown[index] if index < count else None}
          for index, (one, setting, _) in enumerate(found.runs)]
  text = environment.get_template('page.html.jinja').render(
    title=found.title, is_study=found.is_study, runs=runs, chart=chart, left_out=left_out, refused=found.refused,
    table=_cells(found.table) if found.table else None, notes=[*(found.table.notes if found.table else ()),
                                                               *found.notes],
    policy=' '.join(f"'sha256-{_checksum(script)}'" for script in scripts),
    style=markupsafe.Markup((TEMPLATES / 'page.css').read_text()), scripts=[markupsafe.Markup(script)
                                                                             for script in scripts])
  return Page(text.lstrip(), left_out)


def _plotly() -> str:
  from plotly.offline import get_plotlyjs  # pyright: ignore[reportMissingImports]  # an extra
  return get_plotlyjs()


def _checksum(script: str) -> str:
  return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _number(value: float | None) -> str:
  return 'not finite' if value is None else f'{value:.6g}'


def _exact(value: float | None) -> str:
  return '' if value is None else repr(value)


def _cells(table: tables.Table) -> dict[str, Any]:
  """The table as text by cell."""
  rows = []
  for index, row in enumerate(table.rows):
    differences = [rendering.interval(row.differences.get(name)) for name in table.metrics
                   ] if table.baseline is not None else []
    rows.append({
      'values': row.values or ('all',), 'runs': f'{row.finished} of {len(row.runs)}',
      'is_base': index == table.baseline,
      'cells': [(rendering.number(row.cells[name]), index in table.best.get(name, ())) for name in table.metrics],
      'differences': ['baseline'] * len(differences) if index == table.baseline else differences})
  metrics = [f'{name}{" ↓" if better == "min" else " ↑" if better == "max" else ""}'
             for name, better in table.metrics.items()]
  return {'header': table.header or ('setting',), 'metrics': metrics, 'rows': rows,
          'paired': table.baseline is not None}


def _left_out(found: _Found, shown: Sequence[Sequence[media.Shown]], chart: dict[str, Any],
              count: int) -> list[str]:
  said = []
  if count < len(found.runs):
    said.append(f'The details of {len(found.runs) - count} of {len(found.runs)} runs.')
  if chart['drawn'] < chart['total']:
    said.append(f'Of {chart["total"]:,} points of curves, {chart["drawn"]:,} are drawn: the least and the greatest of '
                'each part of a curve.')
  for (one, _, _), each in zip(found.runs, shown):
    where = f' of {names.shown(one.info.name)}' if found.is_study else ''
    if one.left_out:
      said.append(f'The first {one.left_out} events{where}.')
    said += [f'{sentence}{where}.' for series in each if (sentence := _missing(series))]
  return said


def _missing(one: media.Shown) -> str:
  series = one.series
  said = []
  if one.left_out:
    said.append(f'{one.left_out} of {len(series.files)} samples "{series.name}" ({facts.size(series.size)} in files)'
                + (f', {len(one.unreadable)} of them since their files cannot be read' if one.unreadable else ''))
  if one.smaller:
    said.append(f'the full quality of samples "{series.name}", which are smaller than their files')
  text = '; '.join(said)
  return text[:1].upper() + text[1:]
