"""How well pictures fit their texts, from vectors of unit length in one space, such as those of CLIP."""

from collections.abc import Sequence

import numpy as np

from genjax.types import UserError

_ROWS = 1000  # compared with all others at a time


def clip_score(image_ND: np.ndarray, text_ND: np.ndarray, scale: float = 100.0) -> np.ndarray:
  """Cosine of each picture and its text, times `scale`, at least 0 (Hessel et al. 2021, section 3).

  The paper has the scale 2.5, and begins each text with "A photo depicts". Here texts stay as they are.

  Args:
    image_ND, text_ND: vectors of N pairs.
    scale: 100 as torchmetrics has it.

  Returns:
    float64 (N,).

  Raises:
    UserError: the shapes differ.
  """
  image_ND, text_ND = _unit(image_ND, text_ND)
  return np.maximum(scale * (image_ND * text_ND).sum(axis=1), 0.0)


def recall(query_ND: np.ndarray, target_ND: np.ndarray, at: Sequence[int] = (1, 5, 10),
           group_N: np.ndarray | None = None) -> dict[int, float]:
  """Recall at k: share of queries whose own target is among the k nearest of all targets.

  Where others are as near, the own one comes last: vectors that are all equal find nothing.

  Args:
    query_ND, target_ND: vectors of N pairs.
    at: numbers k.
    group_N: pairs of one group, such as those with the same text, do not stand in each other's way; None for none.

  Raises:
    UserError: the shapes differ, or some k is not from 1 to N.
  """
  query_ND, target_ND = _unit(query_ND, target_ND)
  if not all(1 <= k <= len(query_ND) for k in at):
    raise UserError(f'recall at {tuple(at)} needs numbers from 1 to that of pairs, which is {len(query_ND)}')
  group_N = np.arange(len(query_ND)) if group_N is None else np.asarray(group_N)
  ahead = []
  for first in range(0, len(query_ND), _ROWS):
    rows = slice(first, first + _ROWS)
    cosine_BN = query_ND[rows] @ target_ND.T
    own_B = np.take_along_axis(cosine_BN, np.arange(len(query_ND))[rows, None], axis=1)
    other_BN = group_N[rows, None] != group_N
    ahead.append(((cosine_BN >= own_B) & other_BN).sum(axis=1))
  ahead_N = np.concatenate(ahead)
  return {k: float(np.mean(ahead_N < k)) for k in at}


def _unit(a_ND: np.ndarray, b_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Both sides in double precision, of unit length."""
  if a_ND.ndim != 2 or a_ND.shape != b_ND.shape or not len(a_ND):
    raise UserError(f'pairs need two matrices (pairs, features) of one shape, got {a_ND.shape} and {b_ND.shape}')
  sides = [np.asarray(side, np.float64) for side in (a_ND, b_ND)]
  lengths = [np.linalg.norm(side, axis=1, keepdims=True) for side in sides]
  if not all(np.isfinite(length).all() and (length > 0).all() for length in lengths):
    raise UserError('vectors of pictures and texts must be finite and not 0')
  return sides[0] / lengths[0], sides[1] / lengths[1]
