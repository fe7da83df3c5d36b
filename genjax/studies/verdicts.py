"""Whether the results of a row lie in its bands, and by how much they do not."""

from collections.abc import Mapping
import dataclasses
import math

from genjax.studies.baselines import Band, Comparison, Metric, Row, outside
from genjax.studies.results import Result

INSIDE, OUTSIDE, MISSING, OPEN = 'inside', 'outside', 'not measured', ''


@dataclasses.dataclass(frozen=True)
class Verdict:
  """What is said of one metric, or one comparison, of a row.

  Attributes:
    label: of the metric.
    published: the published value, as text.
    band: the accepted band, as text.
    obtained: what was measured, as text; '' for nothing.
    state: `INSIDE`, `OUTSIDE`, `MISSING`, or `OPEN` where any number is accepted.
    why: by how much it is outside, or what is missing.
  """

  label: str
  published: str
  band: str
  obtained: str
  state: str
  why: str = ''


def of(row: Row, known: Mapping[str, Result]) -> list[Verdict]:
  """What is said of a row: of its metrics, then of its comparisons.

  Args:
    row: the row.
    known: name -> result, of this row and of those that it is compared with.
  """
  result = known.get(row.name)
  found = [_metric(metric, row, result) for metric in row.metrics]
  return found + [_comparison(one, row, known) for one in row.comparisons]


def complaints(row: Row, found: list[Verdict], result: Result | None) -> list[str]:
  """Why a row is not inside of its bands; empty if it is, with all its seeds."""
  said = [f'{row.name}: {verdict.why}' for verdict in found if verdict.state in (OUTSIDE, MISSING)]
  absent = {seed: 'not run' for seed in row.seeds if result is None or seed not in result.runs}
  absent.update({seed: why for seed, why in (result.missing if result else {}).items() if seed in absent})
  groups: dict[str, list[int]] = {}
  for seed, why in absent.items():
    groups.setdefault(why, []).append(seed)
  return said + [f'{row.name}: {seeds(numbers)}: {why}' for why, numbers in groups.items()]


def seeds(numbers: list[int]) -> str:
  """'seed 3', 'seeds 0, 1, 2'."""
  return f'seed{"s" if len(numbers) > 1 else ""} {", ".join(map(str, numbers))}'


def number(value: float, percent: bool = False) -> str:
  """Four digits, or all of a whole number, as a number or as per cent."""
  if percent:
    return f'{100 * value:.4g} %'
  return f'{value:,.0f}' if abs(value) < 1e12 and value == round(value) else f'{value:.4g}'


def band(limits: Band, percent: bool = False) -> str:
  """'at most 1.94', '0.8 to 1.1', '' for an open band."""
  low, high = limits
  if low is not None and high is not None:
    return number(low, percent) if low == high else f'{number(low, percent)} to {number(high, percent)}'
  if low is not None:
    return f'at least {number(low, percent)}'
  return f'at most {number(high, percent)}' if high is not None else ''


def _metric(metric: Metric, row: Row, result: Result | None) -> Verdict:
  label = metric.label or metric.name
  values = result.values(metric.name) if result else {}
  values = {seed: value for seed, value in values.items() if seed in row.seeds}
  told = Verdict(label, metric.published, band(metric.band, metric.percent), '', MISSING)
  if not values:
    return dataclasses.replace(told, why=f'{label} is not measured')
  if lost := [seed for seed, value in values.items() if math.isnan(value)]:
    return dataclasses.replace(told, why=f'{metric.name} is not in the evaluation of {seeds(lost)}, or no number')
  mean = sum(values.values()) / len(values)
  obtained = number(mean, metric.percent)
  if len(values) > 1:
    obtained += f' ({number(min(values.values()), metric.percent)} to {number(max(values.values()), metric.percent)})'
  judged = {verdict: outside(value, metric.band) for verdict, value in
            ({seeds([seed]): value for seed, value in values.items()} if metric.each else {'': mean}).items()}
  wrong = [_by(label, values[int(name.split()[1])] if name else mean, off, metric.band, metric.percent, name)
           for name, off in judged.items() if off]
  state = OUTSIDE if wrong else OPEN if metric.band == (None, None) else INSIDE
  return dataclasses.replace(told, obtained=obtained, state=state, why='; '.join(wrong))


def _comparison(one: Comparison, row: Row, known: Mapping[str, Result]) -> Verdict:
  other_row, other = one.row or row.name, one.other or one.metric
  sign = '/' if one.how == 'ratio' else '−'
  name = ' of '.join(filter(None, [_label(row, other) if one.other else 'that', one.row]))
  label = f'{_label(row, one.metric)} {sign} {name}'
  told = Verdict(label, one.published, band(one.band), '', MISSING)
  means = [_mean(known.get(row.name), one.metric), _mean(known.get(other_row), other)]
  if None in means:
    lacking = other_row if means[0] is not None else row.name
    return dataclasses.replace(told, why=f'{label} is not known, since {lacking} is not measured')
  first, second = (mean for mean in means if mean is not None)
  if one.how == 'ratio' and not second:
    return dataclasses.replace(told, why=f'{label}: the other value is 0')
  value = first / second if one.how == 'ratio' else first - second
  off = outside(value, one.band)
  why = _by(label, value, off, one.band) if off else ''
  return dataclasses.replace(told, obtained=number(value), state=OUTSIDE if off else INSIDE, why=why)


def _label(row: Row, name: str) -> str:
  return next((metric.label or name for metric in row.metrics if metric.name == name), name)


def _mean(result: Result | None, metric: str) -> float | None:
  values = list(result.values(metric).values()) if result else []
  return None if not values or any(math.isnan(value) for value in values) else sum(values) / len(values)


def _by(label: str, value: float, off: float, limits: Band, percent: bool = False, which: str = '') -> str:
  """'validation loss of seed 1 is 1.99, above 1.94 by 0.05'."""
  limit = limits[0] if off < 0 else limits[1]
  assert limit is not None
  of_seed = f' of {which}' if which else ''
  return (f'{label}{of_seed} is {number(value, percent)}, {"below" if off < 0 else "above"} {number(limit, percent)} '
          f'by {number(abs(off), percent)}')
