"""What a kind of condition is: what it may know of its run, what it gives, and the options that all kinds have.

A value of a condition passes three forms. A *row* is what a user gives or data holds: a text, a picture, some numbers.
`Made.encode` turns rows into *columns* of a batch, on the host. `Made.give` turns columns into entries of `given`, what
the network reads, see `genjax.nn.conditioning`.
"""

from collections.abc import Callable, Mapping
import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np

from genjax import checks
from genjax.config import Config
from genjax.data.pipeline import Columns, Source
from genjax.experiments import parts
from genjax.types import Array, Params


@dataclasses.dataclass(frozen=True)
class Scope:
  """What a condition may need of its run.

  Attributes:
    name: of the condition.
    config: of the run.
    shape: (H, W, C) of what is diffused.
    open: (split, columns) -> raw data.
    kept: what the run keeps of this condition among its assets; {} in a new run.
    folder: of the run's files; None in a new run.
  """

  name: str
  config: Config
  shape: tuple[int, ...]
  open: Callable[[str, tuple[str, ...]], Source]
  kept: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  folder: pathlib.Path | None = None

  @property
  def where(self) -> str:
    """The config key of its options."""
    return f'config.conditions.{self.name}'

  def column(self, what: str) -> str:
    """The name of a column of batches."""
    return f'{self.name}_{what}'


@dataclasses.dataclass(frozen=True)
class Made:
  """A condition of a config.

  Attributes:
    reads: columns of the data.
    take: columns of the data -> rows, with first axis N.
    encode: rows -> columns of a batch.
    columns: shape and type of one row of these.
    null: what stands for its absence, of each.
    give: (frozen parameters, columns of a batch) -> entries of `given`.
    parse: text of the command line -> one row.
    describe: what is allowed, in words.
    row: shape and type of a row; None for texts.
    network: option of the network -> the amount that this condition adds, or its value.
    convert: an array of any size -> one row.
    path: the text of the command line is a path.
    numbered: rows go round the classes 0 .. this - 1 by default.
    mirrored: columns of a batch that are pictures, mirrored with the images.
    facts: what identifies its encoding, for the fingerprint of the data.
    assets, files: what the run keeps.
    part: of other runs, that it stands on.
    further: more of them.
    stored: entry of `given` -> column of the data and of batches that holds it; {} where `encode` makes the columns of
      batches.
    batch: shape and type of one row of these columns.
  """

  reads: tuple[str, ...]
  take: Callable[[Columns], np.ndarray]
  encode: Callable[[np.ndarray], Columns]
  columns: Mapping[str, jax.ShapeDtypeStruct]
  null: Mapping[str, np.ndarray]
  give: Callable[[Params, Mapping[str, Array]], Mapping[str, Any]]
  parse: Callable[[str], np.ndarray]
  describe: str
  row: jax.ShapeDtypeStruct | None
  network: Mapping[str, int]
  convert: Callable[[Any], np.ndarray] | None = None
  path: bool = False
  numbered: int = 0
  mirrored: tuple[str, ...] = ()
  facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  assets: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  files: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
  part: parts.Part | None = None
  further: tuple[parts.Part, ...] = ()
  stored: Mapping[str, str] = dataclasses.field(default_factory=dict)
  batch: Mapping[str, jax.ShapeDtypeStruct] = dataclasses.field(default_factory=dict)

  @property
  def data(self) -> tuple[str, ...]:
    """Columns of the data that batches are made of."""
    return tuple(self.batch) or self.reads

  @property
  def batches(self) -> Mapping[str, jax.ShapeDtypeStruct]:
    """Shape and type of one row of its columns of batches."""
    return self.batch or self.columns

  def told(self, columns: Columns) -> Columns:
    """Columns of the data -> columns of batches."""
    if not self.batch:
      return self.encode(self.take(columns))
    return {column: columns[column].astype(row.dtype, copy=False) for column, row in self.batch.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Common:
  """Options of every condition.

  Attributes:
    kind: what it is, one of `genjax.experiments.conditions.KINDS`.
    dropout: probability with which training leaves it out, which guidance by it needs; 0 for never.
    default: values of samples for which none is given, as texts of the command line; they go round. () takes those of
      the held-out data.
  """

  kind: str
  dropout: float = 0.1
  default: tuple[str, ...] = ()

  def __post_init__(self):
    checks.rates(self, 'dropout')
