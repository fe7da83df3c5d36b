"""Numbers of a run that are not the experiment's."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from genjax import checks

NONFINITE = ('abort', 'skip', 'rollback')
SUM_TYPES = ('float32', 'bfloat16')


@dataclasses.dataclass(frozen=True)
class Settings:
  """Numbers of a run that are not the experiment's; `configs.common.base` has the same keys.

  Attributes:
    steps: optimizer steps of the whole run.
    batch_size: examples of a step, over all devices.
    seed: of everything that is drawn.
    microbatches: parts into which a batch is split to accumulate gradients.
    steps_per_call: steps in one call of the device, see `genjax.training.calls`.
    reduce: type in which devices sum gradients, one of `SUM_TYPES`.
    mesh: mesh axis -> size, see `genjax.sharding.make_mesh`.
    rules: logical axis -> mesh axis.
    nonfinite: what a number that is not finite does, one of `NONFINITE`.
    nonfinite_limit: how often that may happen.

  Raises:
    UserError: a number out of its range, or an unknown name.
  """

  steps: int
  batch_size: int
  seed: int = 0
  microbatches: int = 1
  steps_per_call: int = 1
  reduce: str = 'float32'
  mesh: Mapping[str, int] = dataclasses.field(default_factory=lambda: {'data': -1})
  rules: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  nonfinite: str = 'abort'
  nonfinite_limit: int = 5

  def __post_init__(self):
    with checks.under('config'):
      checks.whole(self, 0, 'steps')
      checks.whole(self, 1, 'steps_per_call')
      checks.seed('seed', self.seed)
      if self.reduce not in SUM_TYPES:
        raise checks.OutOfRange(f'reduce must be one of {SUM_TYPES}, got {self.reduce!r}')
      if self.nonfinite not in NONFINITE:
        raise checks.OutOfRange(f'nonfinite.policy must be one of {NONFINITE}, got {self.nonfinite!r}')
      checks.whole({'nonfinite.limit': self.nonfinite_limit}, 1, 'nonfinite.limit')
