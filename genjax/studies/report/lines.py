"""Curves of runs as a page draws them: thinned to so many points, with extremes kept."""

from collections.abc import Mapping, Sequence
import dataclasses
import math
import pathlib
from typing import Any

import numpy as np

from genjax.runs import api

POINTS = 1500  # of one line
LEAST = 40
TOTAL = 400_000  # points of a page at most; a point takes about 16 bytes


@dataclasses.dataclass(frozen=True)
class Line:
  """Steps and values of one metric of one run."""

  step_S: np.ndarray
  value_S: np.ndarray


def read(path: pathlib.Path) -> dict[str, Line]:
  """Name -> what metrics.jsonl has of it. Numbers that are not finite stay, and are gaps."""
  found: dict[str, dict[int, float]] = {}
  for entry in api.read_metrics(path):
    step = entry.get('step')
    if not isinstance(step, (int, float)):
      continue
    for name, value in entry.items():
      if name != 'step' and isinstance(value, (int, float)):
        found.setdefault(name, {})[int(step)] = float(value)
  return {name: Line(np.array(sorted(points)), np.array([points[step] for step in sorted(points)]))
          for name, points in found.items()}


def thinned(line: Line, most: int) -> Line:
  """At most about `most` points: of each of equal parts the least and the greatest, and the first and last of all."""
  count = len(line.step_S)
  if count <= most:
    return line
  kept = {0, count - 1}
  for part in np.array_split(np.arange(count), max(1, most // 2)):
    values = line.value_S[part]
    if np.isfinite(values).any():
      kept |= {int(part[np.nanargmin(values)]), int(part[np.nanargmax(values)])}
    else:
      kept.add(int(part[0]))
  index = np.array(sorted(kept))
  return Line(line.step_S[index], line.value_S[index])


def points(count: int, most: int = POINTS) -> int:
  """Points of each of so many lines."""
  return max(LEAST, min(most, TOTAL // max(count, 1)))


def data(runs: Sequence[tuple[str, str, Mapping[str, Line]]], most: int = POINTS) -> dict[str, Any]:
  """What the script of a page draws.

  Args:
    runs: name, setting, and lines of each run.
    most: points of a line.

  Returns:
    'metrics': name -> one entry a run, with 'run', 'setting', 'x' and 'y'. 'settings': name -> one entry a setting that
    has several runs, with their mean 'y' and 'low' and 'high', one standard deviation off. 'first': the metric to begin
    with. 'total' and 'drawn' count the points.
  """
  metrics: dict[str, list[dict[str, Any]]] = {}
  count = sum(len(lines) for _, _, lines in runs)
  total = drawn = 0
  for name, setting, lines in runs:
    for metric, line in lines.items():
      short = thinned(line, points(count, most))
      total, drawn = total + len(line.step_S), drawn + len(short.step_S)
      metrics.setdefault(metric, []).append({
        'run': name, 'setting': setting, 'x': short.step_S.tolist(),
        'y': _plain(short.value_S)})
  return {'metrics': metrics, 'settings': _settings(runs, points(2 * count, most)), 'first': _first(metrics),
          'total': total, 'drawn': drawn}


def _settings(runs: Sequence[tuple[str, str, Mapping[str, Line]]], most: int) -> dict[str, list[dict[str, Any]]]:
  """Means and deviations over the runs of a setting, at the steps that all of them have."""
  grouped: dict[tuple[str, str], list[Line]] = {}
  for _, setting, lines in runs:
    for metric, line in lines.items():
      grouped.setdefault((metric, setting), []).append(line)
  found: dict[str, list[dict[str, Any]]] = {}
  for (metric, setting), same in grouped.items():
    steps = sorted(set.intersection(*(set(line.step_S.tolist()) for line in same)))
    if len(same) < 2 or not steps:
      continue
    value_RS = np.stack([line.value_S[np.isin(line.step_S, steps)] for line in same])
    deviation_S = value_RS.std(axis=0, ddof=1)
    index = np.unique(np.linspace(0, len(steps) - 1, most).round().astype(int)) if len(steps) > most else slice(None)
    mean_S, deviation_S = value_RS.mean(axis=0)[index], deviation_S[index]
    found.setdefault(metric, []).append({
      'setting': setting, 'runs': len(same), 'x': np.array(steps)[index].tolist(), 'y': _plain(mean_S),
      'low': _plain(mean_S - deviation_S), 'high': _plain(mean_S + deviation_S)})
  return found


def _plain(value_S: np.ndarray) -> list[float | None]:
  return [float(f'{value:.6g}') if math.isfinite(value) else None for value in value_S.tolist()]


def _first(metrics: Mapping[str, Any]) -> str:
  """The metric that is shown first: a held-out loss of several steps, or else a loss."""
  losses = [name for name in metrics if name.rpartition('/')[2] == 'loss']
  heldout = [name for name in losses if name.startswith('heldout/') and len(metrics[name][0]['x']) > 1]
  training = [name for name in losses if not name.startswith('heldout/')]
  return next(iter([*heldout, *training, *losses, *metrics]), '')
