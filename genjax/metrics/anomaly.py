"""How well a score tells anomalies from normal examples."""

from typing import NamedTuple

import numpy as np
from sklearn import metrics

from genjax.types import UserError


class Detection(NamedTuple):
  """auroc: probability that an anomaly has a higher score than a normal example (area under the ROC curve);
  average_precision: mean precision over the anomalies, found in the order of their scores."""

  auroc: float
  average_precision: float


def detection(score_N: np.ndarray, anomalous_N: np.ndarray) -> Detection:
  """The quality of a score, by scikit-learn.

  Args:
    score_N: higher is more anomalous.
    anomalous_N: whether each example is an anomaly.

  Raises:
    UserError: a score is not finite, or there are no anomalies, or nothing else.
  """
  score_N, anomalous_N = np.asarray(score_N, np.float64), np.asarray(anomalous_N, bool)
  if anomalous_N.all() or not anomalous_N.any():
    raise UserError(f'a score of anomalies needs normal examples and anomalies, got {int((~anomalous_N).sum())} and '
                    f'{int(anomalous_N.sum())}')
  if not np.isfinite(score_N).all():
    raise UserError(f'{int((~np.isfinite(score_N)).sum())} of {len(score_N)} scores are not finite')
  return Detection(float(metrics.roc_auc_score(anomalous_N, score_N)),
                   float(metrics.average_precision_score(anomalous_N, score_N)))
