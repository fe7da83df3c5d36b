"""config.objective.coupling: which noise, or which example of a source, goes with which example of a batch."""

from collections.abc import Sequence
import dataclasses
from typing import Any

import jax
import numpy as np

from genjax import checks
from genjax import config as config_lib
from genjax.config import Config
from genjax.data.coupling import OptimalTransport
from genjax.data.pipeline import Pipeline
from genjax.types import UserError

COUPLINGS = ('independent', 'ot')
NOISE = 'noise'  # column of batches


@dataclasses.dataclass(frozen=True)
class Coupling:
  """What config.objective holds of the coupling.

  Attributes:
    coupling: 'independent', or 'ot': within a batch, noise or examples of the source are permuted so that the squared
      distances to the data are smallest (Tong et al. 2023; Pooladian et al. 2023), see `genjax.data.coupling`.
    coupling_size: rows among which 'ot' permutes, neighbours in a global batch, which they divide; 0 is the whole
      global batch. Devices and processes change nothing; a process reads every row that it permutes among.

  Raises:
    UserError: an unknown coupling, or a size that is negative or without 'ot'.
  """

  coupling: str = 'independent'
  coupling_size: int = 0

  def __post_init__(self):
    if self.coupling not in COUPLINGS:
      raise UserError(f'config.objective.coupling must be one of {COUPLINGS}, got {self.coupling!r}')
    checks.whole(self, 0, 'coupling_size')
    if self.coupling_size and self.coupling != 'ot':
      raise UserError(f"config.objective.coupling_size is of coupling='ot', got {self.coupling_size} with "
                      f'{self.coupling!r}')

  def check_images(self, data: Config, shape: Sequence[int]) -> None:
    """Checks that the data comes as it is diffused, in one shape.

    Raises:
      UserError: it does not.
    """
    if self.coupling == 'ot' and tuple(shape) != tuple(data.shape):
      raise UserError("config.objective.coupling='ot' needs data that comes as it is diffused, and an autoencoder "
                      "makes latents of it in the step; use coupling='independent'")
    if self.coupling == 'ot' and data.get('buckets'):
      raise UserError("config.objective.coupling='ot' needs images of one shape; leave out config.data.buckets")

  def coupled(self, data: Pipeline, column: str, source: str) -> Pipeline:
    """Batches whose rows of `source` are permuted; with 'independent' the batches that are given."""
    return self._joint(data, OptimalTransport(column, source))

  def noised(self, data: Pipeline, column: str, shape: Sequence[int]) -> Pipeline:
    """Batches with the column `NOISE`, coupled; with 'independent' the batches that are given."""
    return self._joint(data, OptimalTransport(column, NOISE, tuple(shape)))

  def example(self, shape: Sequence[int]) -> dict[str, jax.ShapeDtypeStruct]:
    """The column that `noised` adds."""
    return {NOISE: jax.ShapeDtypeStruct(tuple(shape), np.float32)} if self.coupling == 'ot' else {}

  def _joint(self, data: Pipeline, joint: OptimalTransport) -> Pipeline:
    return dataclasses.replace(data, joint=joint, group=self.coupling_size) if self.coupling == 'ot' else data


def read(goal: dict[str, Any]) -> Coupling:
  """Takes the coupling out of config.objective."""
  given = {name: goal.pop(name) for name in ('coupling', 'coupling_size') if name in goal}
  return config_lib.build(Coupling, given, 'config.objective')
