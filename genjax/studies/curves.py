"""Curves of a study: the mean over repetitions, with a band of one standard deviation, for each setting."""

from collections.abc import Mapping
import dataclasses
import pathlib
from typing import Any

import numpy as np

from genjax.config import suggestion
from genjax.runs import api
from genjax.studies.tables import Row, Table
from genjax.types import UserError, listed

ENDINGS = ('.png', '.svg')


@dataclasses.dataclass(frozen=True)
class Curve:
  """One setting.

  Attributes:
    name: for the legend.
    step_S: the steps that all its runs have logged.
    mean_S: the mean over its runs.
    deviation_S: the standard deviation, 0 of one run.
    runs: how many.
  """

  name: str
  step_S: np.ndarray
  mean_S: np.ndarray
  deviation_S: np.ndarray
  runs: int


def find(table: Table, metric: str = '') -> tuple[str, list[Curve]]:
  """The curves of a metric in metrics.jsonl.

  Args:
    table: the table whose settings they are of.
    metric: its name; by default the held-out loss where it was logged more than once, or else the training loss.

  Returns:
    The name of the metric, and its curves.

  Raises:
    UserError: no run has logged it.
  """
  logged = {record.name: _logged(record.path) for row in table.rows for record in row.runs}
  counts: dict[str, int] = {}
  for found in logged.values():
    for name, points in found.items():
      counts[name] = max(counts.get(name, 0), len(points))
  metric = metric or _default(counts)
  if metric not in counts:
    raise UserError(f'no run has logged {metric or "anything"!r}.{suggestion(metric, counts)} There are '
                    f'{listed(sorted(counts), 20)}')
  curves = []
  for row in table.rows:
    points = [found for record in row.runs if (found := logged[record.name].get(metric))]
    if points:
      curves.append(_curve(_name(table, row), points))
  return metric, curves


def _default(counts: Mapping[str, int]) -> str:
  heldout = [name for name, count in counts.items() if name.startswith('heldout/') and count > 1]
  losses = [name for name in counts if name.rpartition('/')[2] == 'loss']
  return next((name for name in heldout if name in losses), next(iter([*heldout, *losses, *counts]), ''))


def _name(table: Table, row: Row) -> str:
  return ', '.join(f'{label}={value}' for label, value in zip(table.header, row.values)) or 'all'


def _logged(path: pathlib.Path) -> dict[str, dict[int, float]]:
  """Name -> step -> value."""
  found: dict[str, dict[int, float]] = {}
  for line in api.read_metrics(path):
    for name, value in line.items():
      if name != 'step' and np.isfinite(value):
        found.setdefault(name, {})[int(line['step'])] = float(value)
  return found


def _curve(name: str, points: list[dict[int, float]]) -> Curve:
  steps = sorted(set.intersection(*map(set, points)))
  value_RS = np.array([[found[step] for step in steps] for found in points]).reshape(len(points), len(steps))
  deviation_S = value_RS.std(axis=0, ddof=1) if len(points) > 1 else np.zeros(len(steps))
  return Curve(name, np.array(steps), value_RS.mean(axis=0), deviation_S, len(points))


def check(path: pathlib.Path) -> None:
  """Checks that curves can be drawn into a file of this name.

  Raises:
    UserError: another ending, or matplotlib is not installed.
  """
  if path.suffix not in ENDINGS:
    raise UserError(f'--curves takes a path that ends in {" or ".join(ENDINGS)}, got {path}')
  try:
    import matplotlib  # noqa: F401  # pyright: ignore[reportMissingImports]  # an extra
  except ImportError as error:
    raise UserError("--curves needs matplotlib: pip install 'genjax-research[plots]', or pip install matplotlib"
                    ) from error


def draw(metric: str, curves: list[Curve], path: pathlib.Path) -> None:
  """Draws curves into a PNG or SVG file; equal curves give equal bytes.

  Args:
    metric: what they are of.
    curves: one a setting.
    path: the file.
  """
  import matplotlib  # pyright: ignore[reportMissingImports]
  from matplotlib.figure import Figure  # pyright: ignore[reportMissingImports]
  with matplotlib.rc_context({'svg.hashsalt': 'genjax', 'svg.fonttype': 'path'}):
    columns = 2 if len(curves) > 4 and max(len(curve.name) for curve in curves) < 40 else 1
    figure = Figure(figsize=(8, 4.5 + 0.2 * -(-len(curves) // columns)), layout='constrained')
    axes: Any = figure.subplots()
    for index, curve in enumerate(curves):
      color = matplotlib.colormaps['tab10' if len(curves) <= 10 else 'tab20'](index % 20)
      style = ('-', '--', ':')[index // 20 % 3]
      marker = '.' if len(curve.step_S) < 3 else None  # a line through one point is none
      axes.plot(curve.step_S, curve.mean_S, style, color=color, label=f'{curve.name} ({curve.runs})', marker=marker)
      axes.fill_between(curve.step_S, curve.mean_S - curve.deviation_S, curve.mean_S + curve.deviation_S, color=color,
                        alpha=0.2, linewidth=0)
    axes.set_xlabel('step')
    axes.set_ylabel(metric)
    axes.grid(alpha=0.3)
    figure.legend(loc='outside lower center', ncols=columns, fontsize='small', frameon=False)
    # No date and no version: the bytes are a function of the curves.
    metadata = {'Date': None, 'Creator': None} if path.suffix == '.svg' else {'Software': None}
    figure.savefig(path, dpi=150, metadata=metadata)
