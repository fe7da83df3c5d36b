"""Measures of samples that share one draw: each group reads a part of the samples at a time.

`metrics` makes a `Metric` of each measure that config.evaluation.measures names. The first of them that is computed
draws, and computes all.
"""

import abc
from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

from genjax import config as config_lib
from genjax.config import Config
from genjax.data.pipeline import Source
from genjax.experiments.measuring.options import (
  ATTRIBUTES,
  FEATURES,
  LABELS,
  NAMES,
  NEIGHBOURS,
  OWN,
  PAIRS,
  TEXTS,
  Options,
)
from genjax.training import drawing
from genjax.training.experiment import Columns, Metric
from genjax.types import UserError

Values = dict[str, dict[str, float]]  # measure -> name -> value
SAMPLES = 'samples'


@dataclasses.dataclass(frozen=True)
class Subject:
  """What is measured.

  Attributes:
    column: of samples and of data: 'image' or 'clip'.
    shape: of a row.
    source: split -> the real data.
    card: what a metric card says of the rows: their shape, and what resized them.
    config: of the run.
    draw: (sample, num) -> the rows, in parts; by default samples.
    count: num -> how many rows these are.
    name: of what is drawn.
    of: config of the real data; None for `config`.
  """

  column: str
  shape: tuple[int, ...]
  source: Callable[[str], Source]
  card: Mapping[str, Any]
  config: Config
  draw: Callable[[Callable[..., Columns], int], Iterator[Columns]] = lambda sample, num: drawing.parts_of(
    sample, num, {})
  count: Callable[[int], int] = lambda num: num
  name: str = SAMPLES
  of: Config | None = None

  @property
  def reference(self) -> Config:
    """The config of the real data."""
    return self.config if self.of is None else self.of

  def real(self, split: str) -> tuple[Source, str]:
    """The real data of a split, '' for the held-out one, and the name of that."""
    split = split or self.config.data.heldout
    return self.source(split), split

  def parts(self, split: str) -> Iterator[np.ndarray]:
    """The real rows of a split, a part at a time."""
    source, _ = self.real(split)
    for start in range(0, len(source), drawing.PART):
      yield source.get(np.arange(start, min(start + drawing.PART, len(source))))[self.column]


class Group(abc.ABC):
  """Measures that are computed together.

  Args:
    subject: what is measured.
    options: config.evaluation.
    chosen: of these measures.
  """

  def __init__(self, subject: Subject, options: Options, chosen: tuple[str, ...]):
    self._subject, self._options, self._chosen = subject, options, chosen
    self.sample: Any = None  # what draws, with the run, from `begin` on

  @abc.abstractmethod
  def check(self) -> dict[str, dict[str, Any]]:
    """Opens what is needed; returns what the card of each measure says. UserError if it cannot be computed."""

  @abc.abstractmethod
  def begin(self, seed: int) -> None:
    """Makes ready for samples."""

  @abc.abstractmethod
  def add(self, part: Columns) -> None:
    """Reads samples."""

  @abc.abstractmethod
  def values(self) -> Values:
    """The values of all samples."""

  def close(self) -> None:  # noqa: B027, most keep nothing
    """Frees what was kept; called in any case."""


def metrics(subject: Subject, options: Options, groups: Mapping[tuple[str, ...], Callable[..., Group]],
            others: Sequence[str] = ()) -> tuple[Metric, ...]:
  """A `Metric` for each measure that is chosen; all compute from one draw.

  Args:
    subject: what is measured.
    options: config.evaluation.
    groups: names of measures -> (subject, options, those of them that are chosen) -> their group.
    others: measures of the model that are no group's.

  Raises:
    UserError: an unknown measure, or one that the model does not have.
  """
  known = [name for names in groups for name in names]
  for name in options.measures:
    if name in _MEASURES_OF:
      raise UserError(f'config.evaluation.measures names {name!r}, which is a value of the measure '
                      f'{_MEASURES_OF[name]!r}: name that')
    config_lib.choose(dict.fromkeys(NAMES), name, 'config.evaluation.measures')
    if name not in known and name not in others:
      raise UserError(f'config.evaluation.measures names {name!r}, which needs {_NEEDS[name]}; models of '
                      f'{subject.config.experiment} have {", ".join(sorted({*known, *others}))}')
  chosen = {names: tuple(dict.fromkeys(name for name in options.measures if name in names)) for names in groups}
  shared = _Shared(subject, options, [groups[names](subject, options, some) for names, some in chosen.items() if some])
  return tuple(shared.metric(name) for name in dict.fromkeys(options.measures) if name in known)


_NEEDS = {**dict.fromkeys(FEATURES, 'pictures or clips'),
          **dict.fromkeys(NEIGHBOURS, 'generated pictures'),
          **dict.fromkeys((*TEXTS, *ATTRIBUTES), 'pictures that texts describe'),
          **dict.fromkeys(LABELS, 'pictures that are drawn by labels'), **dict.fromkeys(PAIRS, 'an autoencoder'),
          **dict.fromkeys(OWN, 'pictures with a classifier of them')}

_MEASURES_OF = {'fid': 'frechet', 'kid': 'kernel', 'precision': 'precision_recall', 'recall': 'precision_recall',
                'density': 'density_coverage', 'coverage': 'density_coverage'}  # names of values -> measures


class _Shared:
  """One draw for several measures."""

  def __init__(self, subject: Subject, options: Options, groups: list[Group]):
    self._subject, self._options, self._groups = subject, options, groups
    self._cards: dict[str, dict[str, Any]] = {}
    self._of: tuple[Any, int] | None = None  # the draw and the seed of `_found`
    self._found: Values = {}
    self._checked = False

  def metric(self, name: str) -> Metric:
    self._cards[name] = {}
    return Metric(name, lambda sample, seed: self._values(sample, seed)[name], self._cards[name], self._check)

  def _check(self) -> None:
    if self._checked:
      return
    subject, options = self._subject, self._options
    data = {'num_samples': subject.count(options.num_samples), 'of': subject.name, 'pictures': dict(subject.card)}
    for group in self._groups:
      for name, facts in group.check().items():
        self._cards[name].update({**data, **facts})
    self._checked = True

  def _values(self, sample: Callable[..., Columns], seed: int) -> Values:
    if self._of is not None and self._of[0] is sample and self._of[1] == seed:
      return self._found
    self._check()
    found: Values = {}
    try:
      for group in self._groups:
        group.sample = sample
        group.begin(seed)
      for part in self._subject.draw(sample, self._options.num_samples):
        for group in self._groups:
          group.add(part)
      for group in self._groups:
        found.update(group.values())
    finally:
      for group in self._groups:
        group.close()
    self._of, self._found = (sample, seed), found
    return found
