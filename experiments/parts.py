"""Parts for builders: other runs, and folders of public weights, that a run stands on, see docs/parts.md.

    def build(config):
      encoder = parts.open(config, 'text', 'text_encoder')        # config.parts.text names a run or a folder
      tokens = lambda frozen, ids, mask: encoder.functions.encode(frozen['text'], ids, mask)['tokens']
      return parts.attach(Experiment(...), encoder)

A builder offers a kind by a function of that name in its module: `def text_encoder(config, experiment) -> TextEncoder`,
see `genjax.objectives.kinds`.
"""

from collections.abc import Mapping
import copy
import dataclasses
import inspect
import pathlib
import re
import types
from typing import Any

import jax

from genjax.config import Config, suggestion
from genjax.objectives import kinds
from genjax.runs import bases
from genjax.sharding import AxesTable
from genjax.training.experiment import Experiment, Source
from genjax.types import Tree, UserError, leaf_name, named_leaves

Axes = tuple[tuple[str, tuple[str | None, ...]], ...]


@dataclasses.dataclass(frozen=True)
class Part:
  """A part as a builder sees it: functions, and shapes in the place of their parameters.

  Attributes:
    name: in config.parts, and of the frozen group.
    config: of the run that it is.
    shapes: the frozen group, {'params': {GROUP: tree}, 'mutable': tree, 'frozen': {PART: tree}}, as far as the
      functions read it.
    axes: logical axes of the group, for `Experiment.axes`.
    source: where it comes from, for `Experiment.sources`.
    folder: of the run: its tokenizer and other files.
    functions: what its kind gives, such as a `genjax.objectives.kinds.TextEncoder`.
  """

  name: str
  config: Config
  shapes: Tree
  axes: Axes
  source: Source
  folder: pathlib.Path
  functions: Any


def open(config: Config, name: str, kind: str, **options: Any) -> Part:
  """Opens the part that `config.parts.NAME` names, without reading its parameters.

  Args:
    config: of the run that stands on it.
    name: of the part.
    kind: what it is opened as, such as 'autoencoder' or 'text_encoder'.
    **options: of its config.data, in the place of its own: how it is read here, such as the blocks that the tokens of a
      CLIP leave out.

  Raises:
    UserError: it is not named, missing or no run, has no such step or averages, is of another kind, or lacks an option.
  """
  opened = bases.open(config, name)
  known = offered(opened.module)
  if kind not in known:
    offers = ', '.join(known) or 'none'
    raise UserError(f'config.parts.{name}={opened.source.path!r} is no {kind}: its builder is '
                    f'{opened.config.experiment}, and the kinds of part that it offers are {offers}.'
                    f'{suggestion(kind, known)} Name a run, or a folder, that is one')
  own = _changed(opened, options, name) if options else opened.config
  functions = known[kind](own, opened.experiment)
  whole = opened.shapes
  axes = (*inside(whole['params'], opened.experiment.axes, 'params'),
          *inside(whole['frozen'], opened.experiment.axes, 'frozen'))
  shapes = _read_only(whole, getattr(functions, 'reads', kinds.ALL), f'{opened.config.experiment}.{kind}')
  return Part(name, own, shapes, _matching(axes, shapes), opened.source, opened.folder, functions)


def attach(experiment: Experiment, *parts: Part) -> Experiment:
  """The experiment with the frozen groups, axes and sources of parts.

  Raises:
    UserError: two groups have one name.
  """
  frozen, axes, sources = dict(experiment.frozen), dict(experiment.axes), dict(experiment.sources)
  trained = set(experiment.optimizers)
  for part in parts:
    if part.name in frozen or part.name in trained:
      raise UserError(f'the part {part.name!r} has the name of another group; they are '
                      f'{sorted({*frozen, *trained})}; give it another one in the builder and in config.parts')
    frozen[part.name], axes[part.name], sources[part.name] = part.shapes, part.axes, part.source
  return dataclasses.replace(experiment, frozen=frozen, axes=axes, sources=sources)


def _changed(opened: bases.Opened, options: Mapping[str, Any], name: str) -> Config:
  """The config of a part with other options of config.data."""
  if lacking := [option for option in options if option not in opened.config.data]:
    raise UserError(f'config.parts.{name}={opened.source.path!r} is read with config.data.{lacking[0]}='
                    f'{options[lacking[0]]!r}, and its builder {opened.config.experiment} has no such option; '
                    'leave it out, or name a part that has it')
  config = copy.deepcopy(opened.config)
  with config.unlocked():
    config.data.update(options)
  return config


def offered(module: types.ModuleType) -> dict[str, Any]:
  """The kinds that a builder's module offers: name -> function of (config, experiment)."""
  functions = {name: function for name, function in vars(module).items()
               if inspect.isfunction(function) and not name.startswith('_')}
  return {name: function for name, function in functions.items()
          if list(inspect.signature(function).parameters) == ['config', 'experiment']}


def inside(groups: Mapping[str, Tree], axes: Mapping[str, AxesTable], folder: str) -> Axes:
  """The tables of logical axes of groups, as one table for a group that holds them in a folder."""
  return tuple((f'{re.escape(f"{folder}/{group}/")}(?:{pattern})', logical) for group in groups
               for pattern, logical in axes.get(group, ()))


def _read_only(shapes: Tree, reads: tuple[str, ...], where: str) -> Tree:
  """The shapes whose paths match one of the patterns."""
  leaves = named_leaves(shapes)
  if idle := [pattern for pattern in reads if not any(re.fullmatch(pattern, path) for path in leaves)]:
    raise UserError(f'{where} reads {idle}, which match nothing of the part; its parameters are {sorted(leaves)}')


  def kept(node: Tree, path: str) -> Tree:
    if not isinstance(node, Mapping):
      return node if any(re.fullmatch(pattern, path) for pattern in reads) else None
    inner = {name: kept(child, f'{path}/{name}' if path else name) for name, child in node.items()}
    found = {name: child for name, child in inner.items() if child is not None}
    return found if found or not node or not path else None  # empty ones belong to the structure

  return {'params': {}, 'mutable': {}, 'frozen': {}, **kept(shapes, '')}


def _matching(axes: Axes, shapes: Tree) -> Axes:
  """The rows of a table that are the first to match a parameter: what a part does not read has none."""
  names = [leaf_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes)]
  used = {next((row for row, (pattern, _) in enumerate(axes) if re.fullmatch(pattern, name)), None) for name in names}
  return tuple(entry for row, entry in enumerate(axes) if row in used)
