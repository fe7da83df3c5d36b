"""Warm start: loads parameters of another run, with rules for names and shapes that differ.

A leaf is named 'GROUP/path/to/leaf'; mutable variables are in the group 'mutable'. Rules are tuples of strings.
Patterns are regular expressions that match a whole name. Source leaves belong to the other run, target leaves to this
one:

    ('rename', PATTERN, REPLACEMENT)    renames a source leaf; the first rule that matches counts
    ('drop', PATTERN)                   ignores a source leaf
    ('keep', PATTERN)                   a target leaf keeps its initial value
    ('reshape', PATTERN)                a target leaf takes a source leaf of another shape and equal size, in C order

Any other mismatch is an error: nothing is silently dropped, kept or reshaped.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import hashlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genjax import sharding
from genjax.training import averages
from genjax.training.checkpoints.checkpoint import Checkpoints
from genjax.training.run import Run
from genjax.types import UserError, leaf_name, named_leaves

_ARGUMENTS = {'rename': 2, 'drop': 1, 'keep': 1, 'reshape': 1}


@dataclasses.dataclass
class Report:
  """What happened to every leaf. Names are target names, except in `dropped` (source names)."""

  loaded: list[str] = dataclasses.field(default_factory=list)
  renamed: list[str] = dataclasses.field(default_factory=list)  # 'there -> here', of loaded ones
  reshaped: list[str] = dataclasses.field(default_factory=list)  # 'here (shape) -> (shape)', of loaded ones
  dropped: list[str] = dataclasses.field(default_factory=list)
  kept: list[str] = dataclasses.field(default_factory=list)

  def lines(self, most: int = 20) -> list[str]:
    """The report as text, with at most `most` leaves of each kind."""
    lines = [f'  loaded {len(self.loaded)}, of these {len(self.renamed)} renamed and {len(self.reshaped)} reshaped; '
             f'dropped {len(self.dropped)}; kept initial {len(self.kept)}']
    for title, names in (('renamed', self.renamed), ('reshaped', self.reshaped), ('dropped', self.dropped),
                         ('kept initial', self.kept)):
      lines += [f'  {title:<13}{name}' for name in names[:most]]
      lines += [f'  {title:<13}... and {len(names) - most} more'] if len(names) > most else []
    return lines


def apply(run: Run, source: Checkpoints, step: int | None, say: Callable[[str], None], averaged: bool = False,
          strict: bool = True, rules: Sequence[Sequence[str]] = ()) -> Report:
  """Loads the variables of another run into the initial state of `run`, averages included; prints a report.

  Args:
    run: a newly initialised run. Optimizer state and step stay initial.
    source: checkpoints of the other run.
    step: which checkpoint; None for the newest readable one.
    say: called with lines for the user.
    averaged: use averaged parameters for the groups that have them.
    strict: raise an error for mismatches without a rule. Otherwise such source leaves are dropped and such target
      leaves keep their initial value, as the report says.
    rules: see the module.

  Raises:
    UserError: a rule is invalid or matches nothing; with `strict`, a leaf has no match and no rule (all are listed); or
      there are no averages to use.
  """
  step, leaves = read(source, step, say, averaged)
  here = {**run.state.params, 'mutable': run.state.mutable}
  chosen, report = match(leaves, {name: leaf.shape for name, leaf in named_leaves(here).items()}, rules, strict)

  def place(path: tuple, leaf: jax.Array) -> jax.Array:
    name = leaf_name(path)
    return sharding.put_tree(chosen[name].astype(leaf.dtype), leaf.sharding) if name in chosen else leaf

  state = jax.tree_util.tree_map_with_path(place, here)
  mutable = state.pop('mutable')
  # Copied, because a buffer cannot be in a donated state twice.
  ema = {key: jax.tree.map(lambda leaf: leaf.copy(), state[averages.group_of(key)]) for key in run.state.ema}
  run.restore(dataclasses.replace(run.state, params=state, mutable=mutable, ema=ema))
  say('\n'.join([f'beginning with step {step} of {source.directory.parent}', *report.lines()]))
  return report


def digest(leaves: Mapping[str, Any], more: Sequence[str] = ()) -> str:
  """SHA-256 of names, shapes and values, in whatever floating-point type these are kept; `more` are lines beside them.
  """
  checksum = hashlib.sha256()
  for name, leaf in sorted(leaves.items()):
    leaf = np.asarray(leaf)
    leaf = leaf.astype(np.float32) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
    checksum.update(f'{name} {leaf.shape} {leaf.dtype} '.encode())
    checksum.update(np.ascontiguousarray(leaf).view(np.uint8).data)
  for line in more:
    checksum.update(f'{line}\n'.encode())
  return checksum.hexdigest()


def read(source: Checkpoints, step: int | None, say: Callable[[str], None],
         averaged: bool) -> tuple[int, dict[str, np.ndarray]]:
  """The step and the variables of a checkpoint by name; arguments as for `apply`.

  Raises:
    UserError: there are no averages to use; see also `Checkpoints.load`.
  """
  step, there = source.load(say, step)
  if averaged and not there.get('ema'):
    raise UserError(
      f'config.init.averaged: the run in {source.directory.parent} has no averaged parameters; set it to False')
  means = averages.evaluated(there['ema']) if averaged else {}
  trees = {**there['params'], **means, 'mutable': there.get('mutable') or {}}
  return step, named_leaves(trees)


def match(there: Mapping[str, np.ndarray], here: Mapping[str, tuple[int, ...]], rules: Sequence[Sequence[str]],
          strict: bool, whole: bool = True,
          where: tuple[str, str] = ('config.init', 'config.init_from')) -> tuple[dict[str, np.ndarray], Report]:
  """The array for each target leaf, without leaves that keep their initial value.

  Args:
    there: source name -> array.
    here: target name -> shape.
    rules, strict: see `apply`.
    whole: whether every source leaf needs a place. Otherwise those without one are left out.
    where: what holds the options of the warm start, and names the source, for messages.

  Raises:
    UserError: see `apply`.
  """
  patterns = _checked(rules)
  used: set[int] = set()

  def first(kind: str, name: str) -> int | None:
    found = next(
      (index for index, (verb, pattern, _) in enumerate(patterns) if verb == kind and pattern.fullmatch(name)), None)
    used.update(() if found is None else (found,))
    return found

  report, chosen, origin, problems = Report(), {}, {}, []
  for name, value in there.items():
    if first('drop', name) is not None:
      report.dropped.append(name)
      continue
    index = first('rename', name)
    target = name if index is None else patterns[index][1].sub(patterns[index][2], name, count=1)
    if target not in here or first('keep', target) is not None:
      report.dropped.append(name)
      problems += [] if not whole else [
        f"{name} there{'' if target == name else f', renamed to {target},'} has no place here: drop or rename it"
      ]
    elif target in chosen:
      problems.append(f'{name} and {origin[target]} there are both called {target} here: drop one')
    else:
      chosen[target], origin[target] = value, name
  for name, shape in here.items():
    if name not in chosen:
      if first('keep', name) is None:
        problems.append(f'{name} here gets no value: rename a leaf to it, or keep its initial value')
      report.kept.append(name)
      continue
    value = chosen[name]
    if value.shape != shape:
      if first('reshape', name) is not None and value.size == int(np.prod(shape)):
        report.reshaped.append(f'{name} {value.shape} -> {shape}')
        chosen[name] = value.reshape(shape)
      else:
        problems.append(
          f'{name} has shape {shape} here, and {value.shape} there: reshape it, or drop it there and keep it here')
        report.kept.append(name)
        report.dropped.append(origin[name])
        del chosen[name]
        continue
    report.loaded.append(name)
    report.renamed += [f'{origin[name]} -> {name}'] if origin[name] != name else []
  idle = [f'the rule {tuple(rules[index])} matches nothing' for index in range(len(rules)) if index not in used]
  if idle or strict and problems:
    lines = '\n'.join(f'  {line}' for line in idle + (problems if strict else []))
    raise UserError(
      f'{where[0]} does not fit {where[1]}:\n{lines}\nLeaves there: {_some(there)}\nLeaves here: {_some(here)}\n'
      f'Write {where[0]}.rules'
      + (f', or set {where[0]}.strict=False to leave out what does not fit' if where[0] == 'config.init' else ''))
  return chosen, report


def _checked(rules: Sequence[Sequence[str]]) -> list[tuple[str, re.Pattern[str], str]]:
  checked = []
  for rule in rules:
    verb, *rest = rule if isinstance(rule, (tuple, list)) and rule else ('',)
    if verb not in _ARGUMENTS or len(rest) != _ARGUMENTS[verb] or not all(isinstance(text, str) for text in rest):
      raise UserError(
        f"config.init.rules: expected ('rename', PATTERN, REPLACEMENT), ('drop', PATTERN), ('keep', PATTERN) or "
        f"('reshape', PATTERN), got {rule!r}")
    try:
      checked.append((verb, re.compile(rest[0]), rest[1] if len(rest) > 1 else ''))
    except re.error as error:
      raise UserError(f'config.init.rules: {rest[0]!r} is no regular expression: {error}') from error
  return checked


def _some(names: Any, most: int = 8) -> str:
  listed = sorted(names)
  return ', '.join(listed[:most]) + (f', ... ({len(listed)})' if len(listed) > most else '')
