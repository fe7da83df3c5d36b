"""PNDM, a linear multistep method on the noise, with Runge-Kutta steps at first if asked for.

Signature and notation are those of `genjax.diffusion.samplers`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from genjax.diffusion.schedules import Process
from genjax.diffusion.stepping import Denoise
from genjax.types import Array, Key

PREDICTS = ('epsilon', 'v')  # what `pndm` extrapolates


class _Evaluations(NamedTuple):
  """One row for each evaluation of `pndm`.

  Attributes:
    at: time of the evaluation.
    begin, end: times between which x moves after it.
    now: weight of this evaluation in the estimate.
    past: weights of the last three evaluations that were kept.
    sum: weight of the sum that a Runge-Kutta step collects.
    add: weight with which this evaluation enters that sum.
    keep: whether this evaluation is kept.
    base: whether x moves from where it is; otherwise from where the last row with `base` began.
    clear: whether the sum begins anew.
  """

  at: Any
  begin: Any
  end: Any
  now: Any
  past: Any
  sum: Any
  add: Any
  keep: Any
  base: Any
  clear: Any


_PAST = {0: (1.0, 0.0, 0.0, 0.0), 1: (1.5, -0.5, 0.0, 0.0), 2: (23 / 12, -16 / 12, 5 / 12, 0.0)}
_FULL = (55 / 24, -59 / 24, 37 / 24, -9 / 24)  # Adams-Bashforth of order 4; the lower orders are above


def pndm(denoise: Denoise, x_BX: Array, process: Process, times: Array, keys_B: Key, *, predicts: str = 'epsilon',
         runge_kutta: bool = False) -> Array:
  """Pseudo numerical methods on manifolds (Liu et al. 2022, eq. 9 and 12): `PNDMScheduler` of `diffusers`.

  The noise is extrapolated from four evaluations and x moves as in `ddim`. Without Runge-Kutta steps the first step is
  made twice, the second time with the mean of both its ends, so that N steps take N + 1 evaluations (the PLMS sampler
  of latent diffusion).

  Args:
    predicts: what is extrapolated: 'epsilon', or 'v' as `diffusers` does for networks that predict v.
    runge_kutta: the first three steps have four evaluations each, at whole times between those of the list, too.

  Raises:
    ValueError: `predicts` is unknown, or there are fewer than four steps for Runge-Kutta.
  """
  del keys_B
  if predicts not in PREDICTS:
    raise ValueError(f'predicts must be one of {PREDICTS}, got {predicts!r}')
  times = jnp.asarray(times, jnp.float32)
  if runge_kutta and len(times) < 5:
    raise ValueError(f'runge_kutta=True needs at least 4 steps, got {len(times) - 1}')
  rows = _runge_kutta(times) if runge_kutta else _linear(times)

  def evaluate(carry, row):
    x_BX, base_BX, sum_BX, past_3BX = carry
    base_BX = jnp.where(row.base, x_BX, base_BX)
    x0_BX = denoise(x_BX, row.at)
    alpha, sigma = process.alpha(row.at), process.sigma(row.at)
    output_BX = noise_BX = (x_BX - alpha * x0_BX) / sigma
    if predicts == 'v':
      output_BX = alpha * noise_BX - sigma * x0_BX
    estimate_BX = row.now * output_BX + row.sum * sum_BX + jnp.tensordot(row.past, past_3BX, 1)
    past_3BX = jnp.where(row.keep, jnp.stack([output_BX, *past_3BX[:2]]), past_3BX)
    sum_BX = jnp.where(row.clear, 0.0, sum_BX + row.add * output_BX)
    return (_moved(process, base_BX, estimate_BX, row, predicts), base_BX, sum_BX, past_3BX), None

  zero_BX = jnp.zeros_like(x_BX)
  return jax.lax.scan(evaluate, (x_BX, zero_BX, zero_BX, jnp.stack([zero_BX] * 3)), rows)[0][0]


def _moved(process: Process, x_BX: Array, estimate_BX: Array, row: _Evaluations, predicts: str) -> Array:
  """x at row.end from x at row.begin and an estimate of the noise or of v."""
  alpha, sigma = process.alpha(row.begin), process.sigma(row.begin)
  if predicts == 'v':
    x0_BX, noise_BX = alpha * x_BX - sigma * estimate_BX, alpha * estimate_BX + sigma * x_BX
  else:
    x0_BX, noise_BX = (x_BX - sigma * estimate_BX) / alpha, estimate_BX
  return process.alpha(row.end) * x0_BX + process.sigma(row.end) * noise_BX


def _linear(times: Array) -> _Evaluations:
  """The evaluations of linear multistep steps alone."""
  count = len(times) - 1
  first = [0, 0] if count > 1 else [0]  # the step that each evaluation belongs to
  step = np.array([*first, *range(1, count)])
  repeated = np.arange(len(step)) == 1
  at = times[step + repeated] if count > 1 else times[:1]
  weights = np.array([_PAST[0], (0.5, 0.5, 0, 0), *(_PAST.get(index, _FULL) for index in range(1, count))][:len(step)])
  return _rows(at, times[step], times[step + 1], weights, keep=~repeated, base=~repeated)


def _runge_kutta(times: Array) -> _Evaluations:
  """Three steps of Runge-Kutta, then linear multistep steps."""
  half = times[1:4] + jnp.floor((times[:3] - times[1:4]) / 2)
  step, slot = np.repeat(np.arange(3), 4), np.tile(np.arange(4), 3)
  rest = np.arange(3, len(times) - 1)
  at = jnp.concatenate([jnp.stack([times[:3], half, half, times[1:4]], 1).reshape(-1), times[rest]])
  end = jnp.concatenate([jnp.stack([half, half, times[1:4], times[1:4]], 1).reshape(-1), times[rest + 1]])
  weights = np.concatenate([np.tile([[1, 0, 0, 0]], (12, 1)), np.tile([_FULL], (len(rest), 1))])
  weights[:12, 0] = np.where(slot == 3, 1 / 6, 1)
  pad = lambda values, other: np.concatenate([values, np.full(len(rest), other)])
  return _rows(at, times[np.concatenate([step, rest])], end, weights, keep=pad(slot == 0, True),
               base=pad(slot == 0, True), sum=pad(slot == 3, 0.0), add=pad(np.array([1 / 6, 1 / 3, 1 / 3, 0])[slot], 0),
               clear=pad(slot == 3, True))


def _rows(at: Array, begin: Array, end: Array, weights: np.ndarray, **columns: np.ndarray) -> _Evaluations:
  none = np.zeros(len(weights))
  columns = {'sum': none, 'add': none, 'clear': none > 0, **columns}
  numbers = {name: jnp.asarray(value, None if value.dtype == bool else jnp.float32) for name, value in columns.items()}
  weights_R4 = jnp.asarray(weights, jnp.float32)
  return _Evaluations(at, begin, end, weights_R4[:, 0], weights_R4[:, 1:], **numbers)
