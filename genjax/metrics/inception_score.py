"""Inception score: how sure a classifier is of samples, and how many classes they have (Salimans et al. 2016)."""

from typing import NamedTuple

import numpy as np

from genjax.types import UserError


class Score(NamedTuple):
  """mean: of the scores of all splits, from 1 to the number of classes. deviation: of these."""

  mean: float
  deviation: float


class Logits:
  """Logits that come in parts, of which each split keeps two sums.

  The score of a split is exp(mean of KL(p(y | x) || p(y))), where p(y) is the mean of p(y | x) over the split.

  Args:
    count: of all samples, N.
    splits: parts of equal size into which the samples are cut in their order, as published.

  Raises:
    UserError: there are fewer samples than splits.
  """

  def __init__(self, count: int, splits: int = 10):
    if splits < 1 or count < splits:
      raise UserError(f'an inception score over {splits} splits needs at least one sample in each, got {count} samples')
    self._ends = [(index + 1) * count // splits for index in range(splits)]
    self._total, self._count = count, 0
    self._sums: list[np.ndarray | float] = [0.0] * splits  # of p(y | x)
    self._negentropy = [0.0] * splits  # sums of log p(y | x) under p(y | x)

  def add(self, logits_NK: np.ndarray) -> None:
    """Adds logits of samples.

    Raises:
      UserError: they are no matrix, not finite, or more than announced.
    """
    logits_NK = np.asarray(logits_NK, np.float64)
    if logits_NK.ndim != 2 or not np.isfinite(logits_NK).all():
      raise UserError(f'logits must be a finite matrix (samples, classes), got shape {logits_NK.shape} with '
                      f'{int(np.sum(~np.isfinite(logits_NK)))} entries that are NaN or infinite')
    if self._count + len(logits_NK) > self._total:
      raise UserError(f'{self._total} samples were announced, and {self._count + len(logits_NK)} came')
    log_NK = logits_NK - logits_NK.max(axis=1, keepdims=True)
    log_NK -= np.log(np.exp(log_NK).sum(axis=1, keepdims=True))
    probability_NK = np.exp(log_NK)
    split_N = np.searchsorted(self._ends, self._count + np.arange(len(log_NK)), side='right')
    for split in np.unique(split_N):
      rows = split_N == split
      self._sums[split] = self._sums[split] + probability_NK[rows].sum(axis=0)
      self._negentropy[split] += float((probability_NK[rows] * log_NK[rows]).sum())
    self._count += len(log_NK)

  def score(self) -> Score:
    """The score of all samples.

    Raises:
      UserError: fewer came than were announced.
    """
    if self._count != self._total:
      raise UserError(f'{self._total} samples were announced, and {self._count} came')
    starts = [0, *self._ends[:-1]]
    scores = []
    for start, end, sum_K, negentropy in zip(starts, self._ends, self._sums, self._negentropy, strict=True):
      mean_K = np.asarray(sum_K) / (end - start)
      entropy = -float((mean_K * np.log(np.where(mean_K > 0, mean_K, 1.0))).sum())
      scores.append(np.exp(entropy + negentropy / (end - start)))
    return Score(float(np.mean(scores)), float(np.std(scores)))


def score(logits_NK: np.ndarray, splits: int = 10) -> Score:
  """The inception score of logits; arguments and errors as of `Logits`."""
  logits = Logits(len(logits_NK), splits)
  logits.add(logits_NK)
  return logits.score()
