"""The interface between builders and the training loop: data, conditions, metrics and the experiment."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
from typing import Any, Protocol

import jax
import numpy as np
import optax

from genjax.artifacts import Artifact
from genjax.objectives.base import Context, Objective
from genjax.types import Array, Batch, Params, UserError

Columns = dict[str, np.ndarray]


class Data(Protocol):
  """Batches on the host. See `genjax.data.pipeline.Pipeline`."""

  batch_size: int

  def iterate(self, start: int, rows: slice | np.ndarray) -> Iterator[Columns]:
    """Yields rows `rows` (a slice or ascending indices) of the global batches from step `start` on.

    A batch depends only on its step.
    """
    ...

  def epoch(self, rows: slice | np.ndarray) -> Iterator[Columns]:
    """Yields every example once, in order. The last batch is padded; column 'mask' (float32) is 0 on padding."""
    ...

  def fingerprint(self) -> dict[str, Any]:
    """Facts that identify the data: source, split, number of examples, checksum."""
    ...


@dataclasses.dataclass(frozen=True)
class Condition:
  """A condition that `sample` accepts.

  Attributes:
    parse: text of the command line -> one row; UserError on bad text.
    default: row i when the user gives none.
    describe: what is allowed, for error messages.
    fill: rows are token lists of several lengths, and this number ends the shorter ones.
    path: the text is the path of a file.
    text: a row is a text, which `encode` turns into numbers.
    row: shape and type of one row; None for that of the default.
    convert: an array that a program gives -> one row, where other arrays than `row` are taken.
    encode: rows -> the columns that the objective reads; None where the rows are the column of the condition's name.
    optional: without a value it is left out, and `default` gives what it stands in for.
    endings: a folder in the place of a path stands for its files with these endings, in the order of their names; ()
      for a condition that takes no folders.
  """

  parse: Callable[[str], np.ndarray]
  default: Callable[[int], np.ndarray]
  describe: str
  fill: int | None = None
  path: bool = False
  text: bool = False
  row: jax.ShapeDtypeStruct | None = None
  convert: Callable[[Any], np.ndarray] | None = None
  encode: Callable[[np.ndarray], Columns] | None = None
  optional: bool = False
  endings: tuple[str, ...] = ()

  @property
  def takes_text(self) -> bool:
    """Whether a value is a text as a whole, with its commas."""
    return self.text or self.fill is not None

  @property
  def numbers(self) -> int:
    """How many numbers a row is written as; 0 for a row that is not written as numbers."""
    listed = self.row is not None and len(self.row.shape) == 1 and not (self.path or self.text)
    return self.row.shape[0] if self.row is not None and listed else 0

  def stack(self, rows: Sequence[np.ndarray]) -> np.ndarray:
    """Stacks rows into one array with first axis N."""
    if self.fill is None:
      return np.stack(rows)
    length = max(map(len, rows))
    return np.stack([np.pad(row, (0, length - len(row)), constant_values=self.fill) for row in rows])

  @staticmethod
  def label(num_classes: int, name: str = 'label') -> 'Condition':
    """The condition of a class label 0 .. num_classes - 1, called `name`. By default rows cycle through the classes."""

    def parse(text: str) -> np.ndarray:
      if not text.isdecimal() or len(text) > 18 or int(text) >= num_classes:
        raise UserError(f'{name} must be a whole number from 0 to {num_classes - 1}, got {text!r}')
      return np.asarray(int(text), np.int32)

    return Condition(parse, lambda row: np.asarray(row % num_classes, np.int32),
                     f'a whole number from 0 to {num_classes - 1}')


def encoded(known: Mapping[str, Condition], rows: Columns) -> Columns:
  """The columns that the objective reads, of the rows of conditions; what is no condition stays as it is."""
  columns: Columns = {}
  for name, values in rows.items():
    encode = known[name].encode if name in known else None
    columns.update({name: values} if encode is None else encode(values))
  return columns


@dataclasses.dataclass(frozen=True)
class Source:
  """Where a frozen group comes from.

  Attributes:
    path: a run directory, or a folder of public weights.
    step: checkpoint of a run; None for the newest.
    averaged: whether averaged parameters are taken; None for those of the groups that have averages.
    dtype: type in which floating-point parameters are kept; '' for that of the shapes in `Experiment.frozen`.
    rules: how names and shapes that differ are matched, see `genjax.training.checkpoints.warm_start`.
    sha256: digest that its parameters must have; '' for any.
    made: what was made with the parameters of that digest, for messages: a folder of encoded data.
    variant: of a folder of public weights: which of its files are read.
  """

  path: str
  step: int | None = None
  averaged: bool | None = None
  dtype: str = ''
  rules: tuple[tuple[str, ...], ...] = ()
  sha256: str = ''
  made: str = ''
  variant: str = ''


@dataclasses.dataclass(frozen=True)
class Metric:
  """A measure of samples against data, computed by `genjax evaluate` and, if asked, while training.

  name: prefix of its values. compute: (sample, seed) -> values, where `sample(num, conditions)` draws columns, and
  `sample.parts(num, conditions, size=...)` gives the same rows a part at a time, see `genjax.training.drawing`. card:
  what a reader needs to know of the measure (feature extractor, counts). check: raises UserError where `compute` would,
  before anything is
  computed: data or packages that are missing.
  """

  name: str
  compute: Callable[[Callable[..., Columns], int], dict[str, float]]
  card: dict[str, Any]
  check: Callable[[], Any] = lambda: None


@dataclasses.dataclass(frozen=True)
class Experiment:
  """One experiment: everything that the loop needs and nothing that tells the family.

  objective: what is learned. train, heldout: data. optimizers: group -> optax transformation. example: column -> shape
  and dtype of one row of a training batch, known without opening the data. cut: columns whose rows are at most as long
  as in `example`, and in each batch as long as its longest. shapes: column -> shapes that its rows may have instead of
  that in `example`, the same in a whole batch; a step is compiled for each. ema: group -> decay, or several averages,
  see `genjax.training.averages`.
  frozen: parameters that are read and never trained; a group of `jax.ShapeDtypeStruct`s is read, before anything is
  computed, from its source. sources: frozen group -> where it comes from. origins: trained group -> the group of
  config.optimizers that it is trained by, where that has another name. axes: group -> table of (path regex, logical
  axes). conditions: what `sample` accepts. preview: (params, context, first held-out batch) -> columns to render
    beside samples (reconstructions).
  render: columns -> name -> what a person looks at: a text, a picture (uint8 H W C), a clip or a sound, see
    `genjax.artifacts`.
  items: columns -> one artifact a row, for a folder of samples; None for the pictures in column 'image', or what
    `render` makes of each row alone.
  metrics: sample-based measures. summarise: what `genjax evaluate` adds, from the values of all held-out examples (name
  -> array in the order of the split). assets: JSON-able facts found in the data that a run must keep (an alphabet);
  they come back as `config.assets`. files: name -> bytes that a run must keep (a tokenizer); they come back in the
  folder `config.assets.folder`. unit and units_per_example: what throughput is counted in ('tokens', context length).
  """

  objective: Objective
  train: Data
  heldout: Data
  optimizers: Mapping[str, optax.GradientTransformation]
  example: Mapping[str, jax.ShapeDtypeStruct]
  cut: frozenset[str] = frozenset()
  shapes: Mapping[str, tuple[tuple[int, ...], ...]] = dataclasses.field(default_factory=dict)
  ema: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  frozen: Params = dataclasses.field(default_factory=dict)
  sources: Mapping[str, Source] = dataclasses.field(default_factory=dict)
  origins: Mapping[str, str] = dataclasses.field(default_factory=dict)
  axes: Mapping[str, tuple] = dataclasses.field(default_factory=dict)
  conditions: Mapping[str, Condition] = dataclasses.field(default_factory=dict)
  preview: Callable[[Params, Context, Batch], dict[str, Array]] | None = None
  render: Callable[[Columns], Mapping[str, Artifact]] = lambda samples: {}
  items: Callable[[Columns], Sequence[Artifact]] | None = None
  metrics: tuple[Metric, ...] = ()
  summarise: Callable[[Columns], dict[str, float]] | None = None
  hooks: tuple = ()
  assets: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  files: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
  unit: str = 'examples'
  units_per_example: int = 1

  def batch_shapes(self, size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of a training batch of `size` rows."""
    return {name: jax.ShapeDtypeStruct((size, *row.shape), row.dtype) for name, row in self.example.items()}

  def check_columns(self, columns: Columns) -> None:
    """Checks that a batch has the columns of `example`.

    Raises:
      UserError: it has others, or other shapes or types.
    """
    announced = {name: (tuple(row.shape), np.dtype(row.dtype).name) for name, row in self.example.items()}
    given = {name: (column.shape[1:], column.dtype.name) for name, column in columns.items()}
    for name in self.cut & announced.keys() & given.keys():
      longest, length = announced[name][0][0], given[name][0][0]
      announced[name] = (min(longest, length), *announced[name][0][1:]), announced[name][1]
    for name in self.shapes.keys() & announced.keys() & given.keys():
      if given[name][0] in self.shapes[name]:
        announced[name] = given[name][0], announced[name][1]
    if announced != given:
      raise UserError(
        f'the batches have columns {given} (shape of a row, dtype), but the experiment was built for {announced}; '
        'change config.data or the builder')
