"""Adam for groups that have lazy phases: penalties that run on every n-th step, as updates of their own.

A group with a main phase and a lazy one on every k-th step has k + 1 updates in k steps. Karras et al. (2020b, section
3) multiply its rate by c = k / (k + 1) and raise both decays of Adam to the power c, so that k steps move and forget as
much as without the lazy phase. Numbers of updates grow by 1 / c.
"""

from collections.abc import Mapping, Sequence
import inspect
import math
from typing import Any

from genjax import config as config_lib
from genjax.objectives.base import Phase
from genjax.training.optimization import directions
from genjax.types import UserError

_ADAM = ('adam', 'adamw')
_DECAYS = ('b1', 'b2', 'b2_end')
_UPDATES = ('warmup', 'b2_steps', 'steps')


def share(phases: Sequence[Phase], group: str) -> float:
  """The factor c of a group: the runs of its main phase, the first one, as a share of all its updates."""
  rates = [1.0 / phase.every for phase in phases if group in phase.trains]
  return rates[0] / sum(rates) if rates else 1.0


def updates(phases: Sequence[Phase], steps: int) -> dict[str, int]:
  """Group -> how many updates it has in so many steps: one per run of a phase that trains it."""
  counts: dict[str, int] = {}
  for phase in phases:
    for group in phase.trains:
      counts[group] = counts.get(group, 0) + math.ceil(steps / phase.every)
  return counts


def corrected(options: Mapping[str, Any], factor: float, where: str) -> dict[str, Any]:
  """Options of an optimizer with the correction.

  Args:
    options: of config.optimizers, which `genjax.training.optimization.optimizers.from_config` has checked.
    factor: c, see `share`; 1 changes nothing.
    where: the config key of the options, for messages.

  Raises:
    UserError: an optimizer without these decays, for the group or for a part of it.
  """
  given = config_lib.plain(options)
  if factor == 1.0:
    return given
  defaults = {name: parameter.default for name, parameter in inspect.signature(directions.adam).parameters.items()}
  other = [dict(how) for _, how in given.get('parts', ()) if isinstance(how, Mapping) and 'name' in how]
  if given.get('name') not in _ADAM or other:
    raise UserError(f'{where}: config.objective.corrected_adam corrects adam and adamw, got '
                    f'{other[0] if other else given.get("name")!r}; choose one of them, or set corrected_adam to False')
  decays = {name: given.get(name, defaults[name])**factor for name in _DECAYS if name != 'b2_end' or name in given}
  updates = {name: round(given[name] / factor) for name in _UPDATES if given.get(name)}
  return {**given, 'lr': given['lr'] * factor, **decays, **updates}
