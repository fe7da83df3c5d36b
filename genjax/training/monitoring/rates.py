"""The learning rates that the newest updates had."""

from collections.abc import Mapping
from typing import Any

import jax
import optax

from genjax.training.optimization.optimizer_parts import OWN


def learning_rates(optimizers: Mapping[str, optax.GradientTransformation],
                   states: Mapping[str, Any]) -> dict[str, float]:
  """'learning_rate/<group>' -> the rate of its newest update; '<group>/part_<i>' for a part with its own optimizer.

  Args:
    optimizers: group -> transformation. One that was not made by `genjax.training.optimization.optimizers` tells no
      rate and is left out.
    states: group -> state of the optimizer.
  """
  rates = {}
  for group, optimizer in optimizers.items():
    schedules = getattr(optimizer, 'rates', {})
    count = _updates(states[group]) if schedules else 0
    for label, schedule in schedules.items():
      name = f'learning_rate/{group}' if label == OWN else f'learning_rate/{group}/{label}'
      rates[name] = float(schedule(max(0, count - 1)))
  return rates


def _updates(state: Any) -> int:
  """How many updates an optimizer has made. All its parts count alike, so the first counter says it."""
  counts = [node.count for node in jax.tree.leaves(state, is_leaf=_counts) if _counts(node)]
  return int(jax.device_get(counts[0])) if counts else 0


def _counts(node: Any) -> bool:
  return isinstance(node, optax.ScaleByScheduleState)
