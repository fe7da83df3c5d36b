"""Rules that give parts of a parameter tree their own optimizer or learning rate, or freeze them.

A rule is (regex, how). The first rule whose regex matches the whole path of a parameter applies. `how` is one of

    dict(frozen=True)               the parameter does not change and has no optimizer state
    dict(scale=0.01)                multiplies its update, weight decay included
    dict(rows=(8000, 8010))         of a table, only these rows change, the last one excluded: new tokens
    dict(name='sgd', lr=0.1, ...)   another optimizer trains it
"""

from collections.abc import Mapping, Sequence
import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import optax

from genjax.types import Tree, UserError, leaf_name, listed

OWN, FROZEN = 'own', 'frozen'  # labels of parameters of the main optimizer, and of frozen ones
_FORMS = ("(regex, dict(frozen=True)), (regex, dict(scale=0.01)), (regex, dict(rows=(8000, 8010))) or "
          "(regex, dict(name='sgd', lr=0.1))")


@dataclasses.dataclass(frozen=True)
class Rule:
  """One rule.

  Attributes:
    pattern: regular expression of whole paths.
    label: `OWN`, `FROZEN`, or the name of a part with another optimizer.
    scale: factor of the update.
    rows: the first row of a table that changes, and the first that does not any more; () for all.
    options: options of the other optimizer.
  """

  pattern: str
  label: str
  scale: float = 1.0
  rows: tuple[int, ...] = ()
  options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def parse(parts: Any, where: str) -> tuple[Rule, ...]:
  """Parses rules.

  Args:
    parts: sequence of (regex, how), see the module.
    where: name of the option, for messages.

  Raises:
    UserError: a rule has another form; the message shows the forms.
  """
  if isinstance(parts, (str, Mapping)) or not isinstance(parts, Sequence):
    raise UserError(f'{where} must be a sequence of {_FORMS}, got {parts!r}')
  return tuple(_rule(part, f'part_{index}', f'{where}[{index}]') for index, part in enumerate(parts))


def _rule(part: Any, label: str, where: str) -> Rule:
  pair: Any = part if isinstance(part, (tuple, list)) and len(part) == 2 else (None, None)
  if not isinstance(pair[0], str) or not isinstance(pair[1], Mapping):
    raise UserError(f'{where} must be {_FORMS}, got {part!r}')
  pattern, how = pair[0], dict(pair[1])
  regex(pattern, where)
  if set(how) == {'frozen'}:
    if how['frozen'] is not True:
      raise UserError(
        f'{where}: frozen must be True or left out, got {how["frozen"]!r}; scale=1.0 trains as without a rule')
    return Rule(pattern, FROZEN)
  if set(how) == {'scale'}:
    return Rule(pattern, OWN, scale=how['scale'])
  if set(how) == {'rows'}:
    rows: Any = tuple(how['rows']) if isinstance(how['rows'], (tuple, list)) else ()
    if len(rows) != 2 or any(type(row) is not int for row in rows) or not 0 <= rows[0] < rows[1]:
      raise UserError(f'{where}: rows must be the first row that is trained and the first that is not any more, such '
                      f'as (8000, 8010), got {how["rows"]!r}')
    return Rule(pattern, OWN, rows=rows)
  if 'name' in how:
    return Rule(pattern, label, options=how)
  raise UserError(f'{where} must be {_FORMS}, got {part!r}')


def regex(pattern: Any, where: str) -> re.Pattern[str]:
  """Compiles a regular expression.

  Raises:
    UserError: it is invalid.
  """
  if not isinstance(pattern, str):
    raise UserError(f'{where} must be a regular expression of paths, got {pattern!r}')
  try:
    return re.compile(pattern)
  except re.error as error:
    raise UserError(f'{where}: {pattern!r} is no regular expression: {error}') from error


def of(rules: Sequence[Rule], name: str) -> Rule:
  """The rule that applies to a parameter."""
  return next((rule for rule in rules if re.fullmatch(rule.pattern, name)), Rule('', OWN))


def check(rules: Sequence[Rule], names: Sequence[str], where: str) -> None:
  """Checks that every rule applies to a parameter, and that something is trained.

  Raises:
    UserError: a rule matches nothing, or only parameters of earlier rules; or everything is frozen. The message lists
      the parameters.
  """
  there = f'The parameters are {listed(list(names), 40)}'
  taken = [of(rules, name) for name in names]
  for index, rule in enumerate(rules):
    if not any(re.fullmatch(rule.pattern, name) for name in names):
      raise UserError(f'{where}[{index}]: {rule.pattern!r} matches no parameter. {there}')
    if not any(rule is other for other in taken):
      raise UserError(f'{where}[{index}]: earlier rules already match all that {rule.pattern!r} matches. {there}')
  if all(rule.label == FROZEN for rule in taken):
    raise UserError(f'{where}: every parameter is frozen, so nothing is left to train. {there}')


def labels(rules: Sequence[Rule], tree: Tree) -> Tree:
  """The label of each leaf."""
  return jax.tree_util.tree_map_with_path(lambda path, _: of(rules, leaf_name(path)).label, tree)


def trained(rules: Sequence[Rule], tree: Tree) -> Tree:
  """A tree that says whether each leaf is trained."""
  return jax.tree.map(lambda label: label != FROZEN, labels(rules, tree))


def scaled(rules: Sequence[Rule]) -> optax.GradientTransformation:
  """Multiplies the update of each leaf by the scale of its rule, and keeps rows still that its rule does not train; the
  last transformation of a chain."""

  def change(path: Any, value: Any) -> Any:
    rule = of(rules, leaf_name(path))
    if not rule.rows:
      return value if rule.scale == 1.0 else value * rule.scale
    first, end = rule.rows
    if end > value.shape[0]:
      raise UserError(f'config.optimizers: {rule.pattern!r} trains the rows {first} to {end - 1} of '
                      f'{leaf_name(path)}, which has {value.shape[0]}')
    row_N = jnp.arange(value.shape[0]).reshape(-1, *[1] * (value.ndim - 1))
    return jnp.where((row_N >= first) & (row_N < end), value, jnp.full_like(value, -0.0))  # see `still`

  return optax.stateless(lambda updates, params: jax.tree_util.tree_map_with_path(change, updates))


def still() -> optax.GradientTransformation:
  """Updates of -0, which change no bit of a parameter; +0 would turn -0 into +0."""
  return optax.stateless(lambda updates, _: jax.tree.map(lambda value: jnp.full_like(value, -0.0), updates))
