"""Moving averages of parameters: one a group, or several with names, of which one is evaluated and sampled.

An average moves towards the parameters after each step: average += weight (parameters - average), where the weight is
1 - decay.
`TrainState.ema` holds the one that is evaluated under the name of its group, and others as 'GROUP@NAME'.
"""

from collections.abc import Mapping
import dataclasses
import math
import numbers
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from genjax.objectives import base
from genjax.types import Params, Tree, UserError

EVALUATED = 'evaluated'  # the entry of several averages that names the one that is evaluated
MARK = '@'
MOST_SPREAD = 12**-0.5  # sigma_rel of the mean of all steps, gamma 0


class Rule(Protocol):
  """How much an average takes of the parameters."""

  every_step: ClassVar[bool]  # also of steps that do not train its group

  def weight(self, step: Any, rows: int) -> Any:
    """The weight after `step` steps were averaged before, of batches of `rows` examples."""
    ...


@dataclasses.dataclass(frozen=True)
class Decay:
  """A fixed decay; in the first steps it is (1 + step) / (10 + step), so that averages of short runs don't contain the
  initial values.

  Attributes:
    decay: in [0, 1).
    start: up to this step the average is a copy of the parameters, and from it on the decay is the one given, as BigGAN
      averages its generator (Brock et al. 2019). 0 for the smaller decays of the first steps.
  """

  decay: float
  start: int = 0
  every_step: ClassVar[bool] = False

  def __post_init__(self):
    if not isinstance(self.start, numbers.Integral) or isinstance(self.start, bool) or self.start < 0:
      raise ValueError(f'start, a number of steps, must be a whole number of at least 0, got {self.start!r}')

  def weight(self, step: Any, rows: int) -> Any:
    """See `Rule`."""
    if self.start:
      return jnp.where(step < self.start, 1.0, 1.0 - self.decay)
    return 1.0 - jnp.minimum(self.decay, (1.0 + step) / (10.0 + step))


@dataclasses.dataclass(frozen=True)
class HalfLife:
  """A decay to one half in so many examples, as StyleGAN2-ADA averages its generator (Karras et al. 2020).

  Attributes:
    half_life: examples in which the weight of a step halves.
    ramp_up: the half-life is at most this share of the examples that were seen; 0 for no such limit.
    grow: the half-life grows from 0 by a cosine over so many examples, as in R3GAN (Huang et al. 2024); 0 for one that
      does not change.
  """

  half_life: float
  ramp_up: float = 0.0
  grow: float = 0.0
  every_step: ClassVar[bool] = True

  def __post_init__(self):
    if not _is_number(self.half_life) or self.half_life <= 0:
      raise ValueError(f'half_life, a number of examples, must be more than 0, got {self.half_life!r}')
    if not _is_number(self.ramp_up) or self.ramp_up < 0:
      raise ValueError(f'ramp_up, a share of the examples that were seen, must be at least 0, got {self.ramp_up!r}')
    if not _is_number(self.grow) or self.grow < 0:
      raise ValueError(f'grow, a number of examples, must be at least 0, got {self.grow!r}')

  def weight(self, step: Any, rows: int) -> Any:
    """See `Rule`."""
    half_life = jnp.float32(self.half_life)
    if self.grow:
      share = jnp.minimum(rows * jnp.asarray(step, jnp.float32) / self.grow, 1.0)
      half_life = half_life * (0.5 - 0.5 * jnp.cos(jnp.pi * share))
    if self.ramp_up:
      half_life = jnp.minimum(half_life, self.ramp_up * rows * jnp.asarray(step, jnp.float32))
    return -jnp.expm1(-math.log(2.0) * rows / jnp.maximum(half_life, 1e-8))


@dataclasses.dataclass(frozen=True)
class Power:
  """The power-function profile of EDM2 (Karras et al. 2024, section 3.1): step t of T counts like (t / T)^gamma.

  So the average spans the same share of the training at any time, and of the initial values nothing is left.

  Attributes:
    sigma_rel: standard deviation of the profile, relative to the number of steps; see `exponent`.
  """

  sigma_rel: float
  every_step: ClassVar[bool] = True

  def __post_init__(self):
    if not _is_number(self.sigma_rel) or not 0.0 < self.sigma_rel <= MOST_SPREAD:
      raise ValueError(f'sigma_rel must be more than 0 and at most {MOST_SPREAD:.4f}, got {self.sigma_rel!r}')

  def weight(self, step: Any, rows: int) -> Any:
    """See `Rule`. Computed without the difference of numbers near 1, which late in a long run has few digits."""
    time = jnp.asarray(step, jnp.float32) + 1.0
    return -jnp.expm1((exponent(self.sigma_rel) + 1.0) * jnp.log1p(-1.0 / time))  # 1 - (1 - 1 / t)^(gamma + 1)


def exponent(sigma_rel: float) -> float:
  """gamma of a power-function profile with the relative standard deviation sigma_rel.

  (gamma + 1)^(1/2) (gamma + 2)^-1 (gamma + 3)^-1/2 = sigma_rel is a cubic equation (Karras et al. 2024, appendix C),
  of which the largest root is at least 0.
  """
  inverse = sigma_rel**-2
  return float(np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse]).real.max())


RULES = {'decay': Decay, 'half_life': HalfLife, 'sigma_rel': Power}  # by the option that each needs


@dataclasses.dataclass(frozen=True)
class Average:
  """One average: of which group, its name ('' for the only one of a group) and its rule."""

  group: str
  name: str
  rule: Rule


def parse(ema: Mapping[str, Any]) -> dict[str, Average]:
  """The averages of a run by their key in `TrainState.ema`.

  Args:
    ema: group -> a decay, the options of a rule of `RULES`, or several of these by name, with the entry 'evaluated',
      the name of the one that is evaluated.

  Raises:
    UserError: a number out of range, an unknown option, or no word on which one is evaluated.
  """
  found: dict[str, Average] = {}
  for group, given in ema.items():
    where = f'config.ema.{group}'
    if not hasattr(given, 'items'):
      base.check_decay(where, given)
      found[group] = Average(group, '', Decay(given))
    elif not set(given) - _options():
      found[group] = Average(group, '', _rule(where, given))
    else:
      found.update(_several(group, where, dict(given)))
  return found


def _several(group: str, where: str, given: dict[str, Any]) -> dict[str, Average]:
  evaluated = given.pop(EVALUATED, next(iter(given)) if len(given) == 1 else None)
  if evaluated not in given:
    raise UserError(f'{where}.{EVALUATED} must name the average that is evaluated and sampled, one of {sorted(given)}, '
                    f'got {evaluated!r}')
  for name in given:
    if not name.isidentifier() or name in _options():
      raise UserError(f'{where}: the name of an average is a word of letters, digits and _, and none of '
                      f'{sorted(_options())}, got {name!r}')
  names = [evaluated, *sorted(set(given) - {evaluated})]
  return {group if name == evaluated else f'{group}{MARK}{name}':
          Average(group, name, _rule(f'{where}.{name}', given[name])) for name in names}


def _rule(where: str, given: Any) -> Rule:
  if not hasattr(given, 'items'):
    base.check_decay(where, given)
    return Decay(given)
  chosen = [rule for option, rule in RULES.items() if option in given]
  if len(chosen) != 1:
    raise UserError(f'{where} must have one of {sorted(RULES)}, got {dict(given)}')
  takes = {field.name for field in dataclasses.fields(chosen[0])}
  if unknown := sorted(set(given) - takes):
    raise UserError(f'{where} takes {sorted(takes)}, got {unknown} too')
  if 'decay' in given:
    base.check_decay(f'{where}.decay', given['decay'])
  try:
    return chosen[0](**dict(given))
  except ValueError as error:
    raise UserError(f'{where}.{error}') from error


def _options() -> set[str]:
  return {field.name for rule in RULES.values() for field in dataclasses.fields(rule)}


def _is_number(value: Any) -> bool:
  return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def group_of(key: str) -> str:
  """The group of an entry of `TrainState.ema`."""
  return key.partition(MARK)[0]


def evaluated(ema: Mapping[str, Tree]) -> Params:
  """Of the entries of `TrainState.ema`, those that are evaluated."""
  return {key: tree for key, tree in ema.items() if MARK not in key}


def named(ema: Mapping[str, Any], name: str) -> dict[str, str]:
  """Group -> key in `TrainState.ema` of its average called `name`, for the groups that have one.

  Raises:
    UserError: no group has one.
  """
  found = parse(ema)
  keys = {average.group: key for key, average in found.items() if average.name == name}
  if not keys:
    names = sorted({average.name for average in found.values()} - {''})
    what = f'they are {names}' if names else 'this run has none with names'
    raise UserError(f'no average is called {name!r}; {what}')
  return keys


def update(rules: Mapping[str, Average], ema: Params, params: Mapping[str, Tree], trained: set[str], step: Any,
           rows: int) -> Params:
  """The averages after a step.

  Args:
    rules: see `parse`.
    ema: before the step.
    params: group -> its parameters for evaluation, after the step.
    trained: groups that the step trained.
    step: number of steps before it.
    rows: examples of a batch.
  """
  after = {}
  for key, tree in ema.items():
    rule, group = rules[key].rule, rules[key].group
    after[key] = _moved(tree, params[group], rule.weight(step, rows)) if group in trained or rule.every_step else tree
  return after


def _moved(average: Tree, params: Tree, weight: Any) -> Tree:
  return jax.tree.map(lambda mean, value: mean + weight * (value - mean), average, params)
