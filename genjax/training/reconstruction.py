"""Averages after training: one of any width from averages that were saved while a run trained.

The profile that is asked for is the nearest sum of the profiles of what was saved, by least squares (Karras et al.
2024, section 3.2 and appendix C).
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from genjax.training import averages
from genjax.types import Tree, UserError


class Saved(NamedTuple):
  """A power-function average as it was saved: after `step` steps, with its relative standard deviation."""

  step: int
  sigma_rel: float
  tree: Tree


def coefficients(saved: Sequence[Saved], step: int, sigma_rel: float) -> np.ndarray:
  """How much each saved average counts in the one that is asked for, float64 (N,).

  Args:
    saved: averages, of at least one step and width.
    step: at which the new one ends, at most the newest of theirs.
    sigma_rel: of the new one.

  Raises:
    UserError: there are none, `step` is after the newest, or a number is out of range.
  """
  try:
    wanted = averages.exponent(averages.Power(sigma_rel).sigma_rel)
  except ValueError as error:
    raise UserError(str(error)) from error
  if not saved or not 0 < step <= max(one.step for one in saved):
    raise UserError(f'an average that ends at step {step} needs saved ones up to there, got those of steps '
                    f'{sorted({one.step for one in saved})}')
  time_N = np.array([one.step for one in saved], np.float64) / step
  gamma_N = np.array([averages.exponent(one.sigma_rel) for one in saved])
  gram_NN = _product(time_N[:, None], gamma_N[:, None], time_N, gamma_N)
  return np.linalg.lstsq(gram_NN, _product(time_N, gamma_N, np.ones(1), np.full(1, wanted)), rcond=None)[0]


def _product(a: np.ndarray, gamma_a: np.ndarray, b: np.ndarray, gamma_b: np.ndarray) -> np.ndarray:
  """The integral of two profiles (gamma + 1) t^gamma / T^(gamma + 1), which end at times a and b."""
  least = np.minimum(a, b)
  scale = (gamma_a + 1) * (gamma_b + 1) / (gamma_a + gamma_b + 1)
  return scale * (least / a) ** gamma_a * (least / b) ** gamma_b * least / (a * b)


def average(saved: Sequence[Saved], step: int, sigma_rel: float) -> Tree:
  """The average of width `sigma_rel` that ends at `step`; arguments and errors as of `coefficients`.

  Sums are in double precision; arrays have the types of those that were saved.
  """
  weight_N = coefficients(saved, step, sigma_rel)

  def total(*leaves: np.ndarray) -> np.ndarray:
    summed = sum(weight * np.asarray(leaf, np.float64) for weight, leaf in zip(weight_N, leaves))
    return np.asarray(summed).astype(leaves[0].dtype)

  return jax.tree.map(total, *(one.tree for one in saved))
