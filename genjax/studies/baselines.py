"""Baselines as data: what a config is expected to reach, where that is published, and what it costs.

Rows stand in `genjax.studies.rows`, one file for each family. `genjax reproduce` trains and checks them.
"""

from collections.abc import Mapping
import dataclasses
import re
from typing import Any

Band = tuple[float | None, float | None]  # lowest and highest accepted value; None on a side that is open


def outside(value: float, band: Band) -> float:
  """How far a value is outside of a band: negative below it, positive above it, 0 inside, NaN for NaN."""
  low, high = band
  if low is not None and not value >= low:
    return value - low
  if high is not None and not value <= high:
    return value - high
  return 0.0


def _check_band(band: Band, name: str) -> None:
  low, high = band
  if low is not None and high is not None and not low <= high:
    raise ValueError(f'the band of {name} goes from {low} to {high}; the lowest value goes first')


@dataclasses.dataclass(frozen=True)
class Metric:
  """One measured value of a row, and the band in which it must lie.

  Attributes:
    name: in evaluation.json, 'heldout/NAME' or 'MEASURE/NAME'.
    band: lowest and highest accepted value; None on a side that is open. (None, None) accepts any number: the value is
      printed, and judged only by the comparisons of the row.
    published: the published value as it is printed, '' where there is none.
    source: where that is published: paper and table, or repository and file.
    each: whether the value of every seed must lie in the band; otherwise their mean must.
    label: what tables call it; by default its name.
    percent: whether tables print it as per cent.
  """

  name: str
  band: Band
  published: str = ''
  source: str = ''
  each: bool = False
  label: str = ''
  percent: bool = False

  def __post_init__(self):
    _check_band(self.band, self.name)


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Two values that must stand in a relation: metric / other, or metric - other, lies in a band.

  Attributes:
    metric: of this row, see `Metric.name`; its mean over the seeds.
    band: lowest and highest accepted ratio or difference; None on a side that is open.
    row: name of the row that the other value is of; '' for this row.
    other: metric of that row; '' for the same metric.
    how: 'ratio' or 'difference'.
    published: the relation as published, '' where there is none.
  """

  metric: str
  band: Band
  row: str = ''
  other: str = ''
  how: str = 'ratio'
  published: str = ''

  def __post_init__(self):
    _check_band(self.band, self.metric)
    if self.how not in ('ratio', 'difference'):
      raise ValueError(f"a comparison is a 'ratio' or a 'difference', got {self.how!r}")
    if not self.row and not self.other:
      raise ValueError(f'{self.metric} is compared with itself; name another row or another metric')


@dataclasses.dataclass(frozen=True)
class Row:
  """One baseline.

  Attributes:
    name: of the row, and of its folder: lower-case letters, digits, '_', '-' and '.'.
    config: what is trained, as `genjax train --config` takes it: 'configs/FILE.py[:arguments]'.
    metrics: what is measured.
    overrides: dotted key -> value, as --config.KEY=VALUE.
    seeds: one run for each; config.seed.
    minutes: of one run with its evaluation on two cores; None if it needs an accelerator.
    accelerator_minutes: the same on one accelerator; None if not estimated.
    data: names of data sets in `genjax.studies.originals.SETS` that must be there; sets that come with an installed
      package are not named.
    packages: modules that must be importable beyond the core, such as 'spacy'.
    evaluate: flags of `genjax evaluate`, such as '--step=best'.
    uses: dotted key -> name of the row whose run it names: init_from, parts.NAME. The run of the same seed is taken,
      or that of the row's first seed if it has none.
    weights: dotted key -> public network that it names, such as 'vgg16_lpips': a folder that `genjax import --to` made,
      WORKDIR/weights/NAME.
    comparisons: what must hold between values.
    note: how the setting differs from the published one; one or two sentences in Markdown.
  """

  name: str
  config: str
  metrics: tuple[Metric, ...]
  overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  seeds: tuple[int, ...] = (0,)
  minutes: float | None = None
  accelerator_minutes: float | None = None
  data: tuple[str, ...] = ()
  packages: tuple[str, ...] = ()
  evaluate: tuple[str, ...] = ()
  uses: Mapping[str, str] = dataclasses.field(default_factory=dict)
  weights: Mapping[str, str] = dataclasses.field(default_factory=dict)
  comparisons: tuple[Comparison, ...] = ()
  note: str = ''

  def __post_init__(self):
    if not re.fullmatch(r'[a-z0-9][a-z0-9_.-]*', self.name):
      raise ValueError(f"a row is called by lower-case letters, digits, '_', '-' and '.', got {self.name!r}")
    if not self.seeds or len(set(self.seeds)) != len(self.seeds) or not self.metrics:
      raise ValueError(f'the row {self.name} needs metrics, and seeds that differ, got {self.seeds}')

  @property
  def needs(self) -> tuple[str, ...]:
    """The rows whose runs it stands on."""
    return tuple(dict.fromkeys(self.uses.values()))

  @property
  def held_against(self) -> tuple[str, ...]:
    """The rows whose results it is compared with."""
    return tuple(dict.fromkeys(one.row for one in self.comparisons if one.row))
