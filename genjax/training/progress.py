"""Which steps of a run are finished, and whether their numbers were finite."""

import collections
from collections.abc import Callable, Sequence
import math

from genjax.objectives import base
from genjax.training.settings import Settings
from genjax.training.step import Metrics
from genjax.types import NonFiniteError


class Progress:
  """The metrics of steps that still have to be checked, and how many updates were skipped.

  Attributes:
    skipped: steps of this process whose update was skipped.
  """

  def __init__(self, settings: Settings, phases: Sequence[base.Phase]):
    self._settings, self._phases = settings, tuple(phases)
    self._pending: collections.deque[tuple[int, Metrics]] = collections.deque()
    self._skipped_in_a_row = 0
    self.skipped = 0

  def add(self, first: int, entries: Sequence[Metrics]) -> None:
    """Notes the metrics of steps `first`, `first` + 1, ...; they may still be computing."""
    self._pending.extend(enumerate(entries, first))

  def forget(self) -> None:
    """Drops what is noted: the run goes on from another state."""
    self._pending.clear()

  def check(self, behind: int) -> None:
    """Checks the noted steps except the newest `behind`; see `Run.check_finite`."""
    while len(self._pending) > behind:
      step, metrics = self._pending.popleft()
      bad = self._bad(step, metrics)
      self._skipped_in_a_row = 0 if bad is None else self._skipped_in_a_row + 1
      if bad is None:
        continue
      if self._settings.nonfinite != 'skip' or self._skipped_in_a_row > self._settings.nonfinite_limit:
        raise NonFiniteError(step, *bad)
      self.skipped += 1

  def _bad(self, step: int, metrics: Metrics) -> tuple[str, str, float] | None:
    """Phase, quantity and value of the first number of a step that is not finite."""
    return next(((phase, quantity, value)
                 for phase in base.due(self._phases, step - 1)
                 for quantity in ('loss', 'gradient_norm')
                 if not math.isfinite(value := float(metrics[f'{phase}/{quantity}']))), None)

  def check_state(self, step: int, is_finite: Callable[[], bool]) -> None:
    """Checks the state after `step`; `is_finite` computes whether it is finite."""
    if not is_finite():
      raise NonFiniteError(step, ', '.join(base.due(self._phases, max(0, step - 1))),
                           'a parameter or optimizer entry', math.nan)
