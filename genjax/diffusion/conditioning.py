"""Conditions of denoisers and generators, told by the way they enter the network."""

from collections.abc import Callable, Mapping
import dataclasses

from genjax.types import Array, Params


@dataclasses.dataclass(frozen=True)
class Conditioner:
  """One condition: what it reads, what stands for its absence, and what the network reads of it.

  Attributes:
    columns: what it reads of a batch, or of the user's request.
    null: column -> the row that stands for no condition. It's kept in the run; training and sampling use the same.
    dropout: probability with which training takes `null` in a row's place.
    encode: (frozen parameters, columns) -> what the network reads, by mechanism: entries of `given`, see
      `genjax.nn.conditioning`.
  """

  columns: tuple[str, ...]
  null: Mapping[str, Array]
  dropout: float
  encode: Callable[[Params, Mapping[str, Array]], Mapping[str, Array]]
