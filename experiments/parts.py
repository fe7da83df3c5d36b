"""Parts for builders: other runs, and folders of public weights, that a run stands on, see docs/parts.md.

    def build(config):
      encoder = parts.open(config, 'text', 'text_encoder')        # config.parts.text names a run or a folder
      tokens = lambda frozen, ids, mask: encoder.functions.encode(frozen['text'], ids, mask)['tokens']
      return parts.attach(Experiment(...), encoder)

A builder offers a kind by a function of that name in its module: `def text_encoder(config, experiment) -> TextEncoder`,
see `genjax.objectives.kinds`.
"""

import dataclasses
import pathlib
from typing import Any

from genjax.config import Config
from genjax.sharding import AxesTable
from genjax.training.experiment import Experiment, Source
from genjax.types import Tree


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
  axes: AxesTable
  source: Source
  folder: pathlib.Path
  functions: Any


def open(config: Config, name: str, kind: str) -> Part:
  """Opens the part that `config.parts.NAME` names, without reading its parameters.

  Args:
    config: of the run that stands on it.
    name: of the part.
    kind: what it is opened as, such as 'autoencoder' or 'text_encoder'.

  Raises:
    UserError: it is not named, missing or no run, has no such step or averages, or is of another kind.
  """
  raise NotImplementedError


def attach(experiment: Experiment, *parts: Part) -> Experiment:
  """The experiment with the frozen groups, axes and sources of parts.

  Raises:
    UserError: two groups have one name.
  """
  frozen, axes, sources = dict(experiment.frozen), dict(experiment.axes), dict(experiment.sources)
  for part in parts:
    frozen[part.name], axes[part.name], sources[part.name] = part.shapes, part.axes, part.source
  return dataclasses.replace(experiment, frozen=frozen, axes=axes, sources=sources)
