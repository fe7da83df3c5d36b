"""Optimizers by name: optax chains with clipping, a learning-rate schedule and decoupled weight decay."""

from collections.abc import Mapping
import re
from typing import Any

import jax
import optax

from genjax.types import Tree, UserError, leaf_name

SCHEDULES = ('constant', 'linear', 'cosine')
OPTIMIZERS = ('adam', 'adamw', 'sgd', 'rmsprop', 'lion', 'adafactor')


def make(name: str, lr: float, steps: int, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8,
         weight_decay: float = 0.0, decay: str = r'.*(kernel|embedding)', momentum: float = 0.0, clip: float = 0.0,
         warmup: int = 0, schedule: str = 'constant', end: float = 0.0) -> optax.GradientTransformation:
  """An optax transformation.

  Args:
    name: one of `OPTIMIZERS`.
    lr: peak learning rate.
    steps: number of updates of the run; the schedule ends there.
    b1, b2, eps: moments of Adam, AdamW and Lion (b1, b2).
    weight_decay: decoupled decay (Loshchilov & Hutter 2019), of the parameters whose path matches `decay` as a whole.
    momentum: of SGD.
    clip: largest global norm of the group's gradient; 0 switches clipping off.
    warmup: updates of linear growth from 0 to `lr`.
    schedule: shape after the warm-up.
    end: final learning rate as a fraction of `lr`.

  Raises:
    UserError: an unknown name or schedule, or a warm-up that is longer than the run.
  """
  if name not in OPTIMIZERS:
    raise UserError(f'optimizer name must be one of {OPTIMIZERS}, got {name!r}')
  if weight_decay and name in ('adam', 'rmsprop'):
    raise UserError(f'optimizer {name!r} has no weight_decay, got {weight_decay}; use adamw')
  if not steps >= warmup >= 0:
    raise UserError(f'optimizer warmup must lie between 0 and the {steps} updates of the run, got {warmup}')
  rate = learning_rate(lr, steps, warmup, schedule, end)

  def mask(params: Tree) -> Tree:
    return jax.tree_util.tree_map_with_path(lambda path, _: bool(re.fullmatch(decay, leaf_name(path))), params)

  core = {
    'adam': lambda: optax.adam(rate, b1, b2, eps),
    'adamw': lambda: optax.adamw(rate, b1, b2, eps, weight_decay=weight_decay, mask=mask),
    'sgd': lambda: optax.chain(optax.add_decayed_weights(weight_decay, mask), optax.sgd(rate, momentum or None)),
    'rmsprop': lambda: optax.rmsprop(rate, decay=b2, eps=eps),
    'lion': lambda: optax.lion(rate, b1, b2, weight_decay=weight_decay, mask=mask),
    'adafactor': lambda: optax.adafactor(rate, weight_decay_rate=weight_decay or None, weight_decay_mask=mask),
  }[name]()
  return optax.chain(optax.clip_by_global_norm(clip), core) if clip else core


def learning_rate(lr: float, steps: int, warmup: int, schedule: str, end: float) -> optax.Schedule:
  """Learning rate by update: linear warm-up, then constant, linear or cosine to `end * lr` at `steps`."""
  rest = max(1, steps - warmup)
  if schedule == 'constant':
    tail = optax.constant_schedule(lr)
  elif schedule == 'linear':
    tail = optax.linear_schedule(lr, end * lr, rest)
  elif schedule == 'cosine':
    tail = optax.cosine_decay_schedule(lr, rest, alpha=end)
  else:
    raise UserError(f'optimizer schedule must be one of {SCHEDULES}, got {schedule!r}')
  if not warmup:
    return tail
  # The first update already moves: its rate is lr / warmup.
  return optax.join_schedules([optax.linear_schedule(lr / warmup, lr, max(1, warmup - 1)), tail], [warmup])


def from_config(optimizers: Mapping[str, Mapping[str, Any]], steps: int) -> dict[str, optax.GradientTransformation]:
  """group -> options of `make`, as `config.optimizers` holds them -> group -> transformation.

  Raises:
    UserError: an unknown option, with the config key that holds it.
  """
  made = {}
  for group, options in optimizers.items():
    try:
      made[group] = make(**{'steps': steps, **options})
    except TypeError as error:
      raise UserError(f'config.optimizers.{group}: {error}; it takes name, lr and the keywords of '
                      'genjax.training.optimizers.make') from error
    except UserError as error:
      raise UserError(f'config.optimizers.{group}: {error}') from error
  return made
