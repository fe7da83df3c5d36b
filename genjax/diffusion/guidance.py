"""Guidance: functions that turn a denoiser into a guided denoiser, whatever its conditions are."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from genjax.diffusion.conditioning import Given
from genjax.types import Array

Estimate = Array | tuple[Array, Array]  # x0_hat, or (x0_hat, further outputs of the network)


def guided(denoise: Callable[[Array, Array, Any], Estimate], branches: Sequence[Given], scales: Sequence[float],
           interval: tuple[float, float] | None = None, level: Callable[[Array], Array] = lambda t: t,
           rescale: float = 0.0) -> Callable[[Array, Array], Estimate]:
  """Classifier-free guidance (Ho & Salimans 2022) by one scale or several.

  With the estimates e_0, ..., e_n of the branches and the scales s_1, ..., s_n it is

      e_0 + s_1 (e_1 - e_0) + ... + s_n (e_n - e_(n-1)),

  which for n = 1 is x0_null + s (x0_conditional - x0_null), and for n = 2 Brooks et al. (2023), eq. 3, when e_1 is told
  the first condition and e_2 both. A negative condition is one that branch 0 is told in the null's place. x0_hat is
  linear in the network's prediction at a given x_t, so this equals guiding the noise or the velocity.

  All branches are computed as one batch. Those that the formula doesn't need are left out: with all scales 1 it's the
  last branch alone, with all scales 0 the first.

  Args:
    denoise: (x_BX, scalar t, given) -> x0_hat, or (x0_hat, further outputs). Only x0_hat is guided; further outputs are
      those of the last branch that is computed, as in the published sampler of Peebles & Xie (2023).
    branches: what the network reads in each branch, from the one that is told least to the one that is told all; trees
      of arrays with the batch as first axis.
    scales: one scale less than branches: 1 is the conditional model, 0 takes a condition away, above 1 guides.
    interval: (low, high): guides only where low < level(t) <= high; elsewhere the model is told all (Kynkäänniemi et
      al. 2024).
    level: time -> the quantity that the interval refers to, by default the time itself. `Process.noise_to_signal` is
      the paper's sigma on any process.
    rescale: phi of Lin et al. (2024), eq. 15 and 16: the guided estimate times phi std(e_n) / std(guided) + 1 - phi,
      deviations over all elements of a row. 0 leaves it as it is. The paper rescales what the network predicts; here it
      is the estimate of the data, whatever the parameterization.

  Returns:
    (x_BX, scalar t) -> estimate, of the type that `denoise` returns.

  Raises:
    ValueError: there is not one scale less than branches.
  """
  if len(branches) != len(scales) + 1:
    raise ValueError(f'guidance needs one scale less than branches, got {len(scales)} and {len(branches)}')
  indices, scales = _needed(scales, keep_last=rescale > 0)
  whole = branches[-1]
  if len(indices) == 1:
    only = branches[indices[0]]
    inner = lambda x_BX, t: denoise(x_BX, t, only)
  else:
    parts = [branches[index] for index in reversed(indices)]  # the one that is told most comes first
    together = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)

    def inner(x_BX: Array, t: Array) -> Estimate:
      both = denoise(jnp.concatenate([x_BX] * len(parts)), t, together)
      both, rest = both if isinstance(both, tuple) else (both, None)
      estimates = jnp.split(both, len(parts))[::-1]
      guided_BX = estimates[0]
      for scale, before, after in zip(scales, estimates, estimates[1:]):
        guided_BX = guided_BX + scale * (after - before)
      if rescale:
        guided_BX = _rescaled(guided_BX, estimates[-1], rescale)
      return guided_BX if rest is None else (guided_BX, jnp.split(rest, len(parts))[0])

  if interval is None or indices == [len(branches) - 1]:
    return inner
  low, high = interval
  inside = lambda t: (level(t) > low) & (level(t) <= high)
  return lambda x_BX, t: jax.lax.cond(inside(t), inner, lambda x, t: denoise(x, t, whole), x_BX, t)


def _needed(scales: Sequence[float], keep_last: bool) -> tuple[list[int], list[float]]:
  """The indices of the branches that the formula needs, and the scales between them.

  Between equal scales a branch cancels out; before a scale of 1 it does at the front, after a scale of 0 at the end.
  """
  indices, kept = [0], []
  for index, scale in enumerate(scales, start=1):
    if kept and scale == kept[-1]:
      indices[-1] = index
    else:
      indices.append(index)
      kept.append(scale)
  if kept and kept[0] == 1:
    del indices[0], kept[0]
  if kept and kept[-1] == 0 and not keep_last:
    del indices[-1], kept[-1]
  return indices, kept


def _rescaled(guided_BX: Array, conditional_BX: Array, phi: float) -> Array:
  """Eq. 14 to 16 of Lin et al. (2024)."""
  deviation = lambda x_BX: jnp.std(x_BX, axis=tuple(range(1, x_BX.ndim)), keepdims=True)
  ratio = deviation(conditional_BX) / jnp.maximum(deviation(guided_BX), 1e-12)
  return guided_BX * (phi * ratio + (1 - phi))
