"""Combinators for the function `sweep()` of a config file, which says what `genjax sweep` trains.

    def sweep():
      return sweeps.product({'sampler.guidance': (1.0, 1.5), 'arg.model': ('S', 'B')}, sweeps.seeds(3))

A setting is a dict of what one run changes: dotted keys of the config, as after `--config.` on the command line;
'arg.NAME' for an argument of `get_config`, as after the colon of `--config=FILE:NAME=value`; 'arg' for its whole text.
Each combinator takes axes and returns a list of settings, so that they nest. An axis is such a list, or a dict from
keys to the values that each may have.

They stand beside the configs, and need Python alone: a config file knows nothing of the library that reads it.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import itertools
import math
import random as random_lib
from typing import Any

Setting = dict[str, Any]
Axis = Any  # Mapping[str, Sequence] | Iterable[Setting]; static types cannot tell the two apart


def product(*axes: Axis) -> list[Setting]:
  """Every combination of one setting of each axis; the last axis changes fastest.

  Raises:
    ValueError: two axes set the same key to different values.
  """
  return [_merged(parts) for parts in itertools.product(*map(_settings, axes))]


def zipped(*axes: Axis) -> list[Setting]:
  """The first settings of all axes together, the second ones together, and so on; so are the values of a dict.

  Raises:
    ValueError: they differ in length, or set the same key to different values.
  """
  columns = [column for axis in axes for column in (
    [[{key: value} for value in _values(key, values)] for key, values in axis.items()]
    if isinstance(axis, Mapping) else [_settings(axis)])]
  if len({len(column) for column in columns}) > 1:
    raise ValueError(f'zipped needs axes of one length, got {[len(column) for column in columns]}')
  return [_merged(parts) for parts in zip(*columns)]


def chain(*axes: Axis) -> list[Setting]:
  """The settings of the first axis, then those of the second, and so on."""
  return [setting for axis in axes for setting in _settings(axis)]


def one_at_a_time(base: Mapping[str, Any], *changes: Axis) -> list[Setting]:
  """An ablation: the base, and the base with one change at a time.

  Args:
    base: a setting.
    changes: each setting of a list is one change, and may have several keys; each value of a dict is one. What leaves
      the base as it is, is left out.
  """
  found = [dict(base)]
  for axis in changes:
    single = [{key: value} for key, values in axis.items() for value in _values(key, values)] if isinstance(
      axis, Mapping) else _settings(axis)
    found += [{**base, **change} for change in single if {**base, **change} != dict(base)]
  return found


def seeds(count: int, first: int = 0) -> list[Setting]:
  """`count` seeds from `first` on: repetitions of whatever they are combined with."""
  return [{'seed': seed} for seed in range(first, first + _count('seeds', count))]


@dataclasses.dataclass(frozen=True)
class Distribution:
  """What the values of a key are drawn from.

  Attributes:
    kind: 'uniform', 'log_uniform', 'integers' or 'choice'.
    low: smallest value.
    high: largest value.
    values: those of a choice.
  """

  kind: str
  low: float = 0.0
  high: float = 0.0
  values: tuple = ()

  def at(self, share: float) -> Any:
    """The value below which a share of the distribution lies, from 0 to 1; numbers have four digits."""
    if self.kind == 'choice':
      return self.values[min(int(share * len(self.values)), len(self.values) - 1)]
    if self.kind == 'integers':
      return int(self.low) + min(int(share * (self.high - self.low + 1)), int(self.high - self.low))
    if self.kind == 'log_uniform':
      value = math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
    else:
      value = self.low + share * (self.high - self.low)
    return min(max(float(f'{value:.4g}'), self.low), self.high)


def uniform(low: float, high: float) -> Distribution:
  """Real numbers, each as likely as another."""
  return Distribution('uniform', *_range('uniform', float(low), float(high)))


def log_uniform(low: float, high: float) -> Distribution:
  """Positive real numbers whose logarithm is uniform, as for learning rates."""
  if low <= 0:
    raise ValueError(f'log_uniform needs a range above 0, got {low} to {high}')
  return Distribution('log_uniform', *_range('log_uniform', float(low), float(high)))


def integers(low: int, high: int) -> Distribution:
  """Whole numbers from `low` to `high`, both included."""
  return Distribution('integers', *_range('integers', low, high))


def choice(values: Sequence[Any]) -> Distribution:
  """One of some values."""
  if not len(values):
    raise ValueError('choice needs values to choose from, got none')
  return Distribution('choice', values=tuple(values))


def random(count: int, distributions: Mapping[str, Distribution], seed: int = 0) -> list[Setting]:
  """Settings at random.

  Each value is a function of the seed, its key and the number of its setting. So a larger count adds settings, and a
  further key changes no other one.

  Args:
    count: how many.
    distributions: key -> what its values are drawn from: `uniform`, `log_uniform`, `integers`, `choice`.
    seed: of the draw.
  """
  for key, distribution in distributions.items():
    if not isinstance(distribution, Distribution):
      raise ValueError(f'random draws {key!r} from uniform, log_uniform, integers or choice, got {distribution!r}')
  return [{key: distribution.at(random_lib.Random(f'{seed}/{index}/{key}').random())
           for key, distribution in distributions.items()} for index in range(_count('random', count))]


@dataclasses.dataclass(frozen=True)
class Search:
  """Settings that are chosen one after the other, each by what those before have reached.

  Attributes:
    distributions: key -> what its values come from.
    metric: what decides.
    goal: 'min' or 'max'.
    trials: how many settings.
    pruner: 'none', 'median' or 'asha': which runs end early, see `search`.
    warmup: steps that each run takes before it may be ended.
    startup: trials that are drawn at random, and whose runs the median does not end.
    seed: of the choice.
    setting: what all runs change.
  """

  distributions: Mapping[str, Distribution]
  metric: str
  goal: str
  trials: int
  pruner: str
  warmup: int
  startup: int
  seed: int
  setting: Mapping[str, Any]


PRUNERS = ('none', 'median', 'asha')


def search(distributions: Mapping[str, Distribution], metric: str = 'heldout/loss', goal: str = 'min', trials: int = 20,
           pruner: str = 'none', warmup: int = 0, startup: int = 5, seed: int = 0,
           setting: Mapping[str, Any] | None = None) -> Search:
  """A search by tree-structured Parzen estimators (TPE, Bergstra et al. 2011), to be returned by `sweep()`.

  Args:
    distributions: key -> what its values come from: `uniform`, `log_uniform`, `integers`, `choice`.
    metric: of evaluation.json where runs are evaluated, of the end of training, or of metrics.jsonl.
    goal: 'min' or 'max'.
    trials: how many settings; --trials=N changes it.
    pruner: which runs end early, by the metric at their own evaluations: 'none'; 'median', whose best value so
      far is worse than the median of earlier runs at the same step; 'asha', not in the best quarter of a rung
      (successive halving, Li et al. 2018).
    warmup: steps that each run takes first; of 'asha', those of the first rung.
    startup: trials at random before the first that is chosen.
    seed: of the choice. With one run at a time the same seed gives the same search.
    setting: what all runs change.
  """
  for key, distribution in distributions.items():
    if not isinstance(distribution, Distribution):
      raise ValueError(f'search takes {key!r} from uniform, log_uniform, integers or choice, got {distribution!r}')
  if not distributions:
    raise ValueError('search needs keys to choose values for, got none')
  if both := sorted(set(distributions) & set(setting or {})):
    raise ValueError(f'search chooses {both[0]!r}, which setting gives a value')
  if goal not in ('min', 'max'):
    raise ValueError(f"search needs the goal 'min' or 'max', got {goal!r}")
  if pruner not in PRUNERS:
    raise ValueError(f'search knows the pruners {", ".join(PRUNERS)}, got {pruner!r}')
  return Search(dict(distributions), metric, goal, _count('search', trials), pruner, warmup, startup, seed,
                dict(setting or {}))


def _settings(axis: Axis) -> list[Setting]:
  if isinstance(axis, Mapping):
    columns = [[(key, value) for value in _values(key, values)] for key, values in axis.items()]
    return [dict(pairs) for pairs in itertools.product(*columns)]
  found = list(axis)
  for setting in found:
    if not isinstance(setting, Mapping):
      raise ValueError(f'an axis is a list of settings, or a dict from keys to values, got {setting!r} in a list')
  return [dict(setting) for setting in found]


def _values(key: str, values: Any) -> list[Any]:
  if isinstance(values, (str, Mapping)) or not isinstance(values, Iterable):
    raise ValueError(f'an axis gives {key!r} a list of values, got {values!r}; write [{values!r}] for this one alone')
  return list(values)


def _merged(parts: Iterable[Setting]) -> Setting:
  merged: Setting = {}
  for part in parts:
    for key, value in part.items():
      if key in merged and merged[key] != value:
        raise ValueError(f'two axes set {key!r}, one to {merged[key]!r} and one to {value!r}')
      merged[key] = value
  return merged


def _range(name: str, low: Any, high: Any) -> tuple[Any, Any]:
  if not low <= high:
    raise ValueError(f'{name} needs a smallest and then a largest value, got {low} and {high}')
  return low, high


def _count(name: str, count: Any) -> int:
  if not isinstance(count, int) or isinstance(count, bool) or count < 1:
    raise ValueError(f'{name} needs a whole number of at least 1, got {count!r}')
  return count
