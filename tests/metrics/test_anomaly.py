"""The quality of scores of anomalies."""

import numpy as np
import pytest

from genjax.metrics import anomaly
from genjax.types import UserError


def test_auroc_is_the_share_of_pairs_in_order():
  random = np.random.default_rng(0)
  score, wrong = random.normal(size=60), random.random(60) < 0.3
  score[wrong] += 0.7
  pairs = [(float(high > low) + 0.5 * float(high == low)) for high in score[wrong] for low in score[~wrong]]
  found = anomaly.detection(score, wrong)
  assert found.auroc == pytest.approx(np.mean(pairs)) and 0.5 < found.auroc < 1
  assert anomaly.detection(wrong.astype(float), wrong) == (1.0, 1.0)
  assert anomaly.detection(-wrong.astype(float), wrong).auroc == 0.0


def test_refused():
  with pytest.raises(UserError, match='got 2 and 0'):
    anomaly.detection(np.zeros(2), np.zeros(2, bool))
  with pytest.raises(UserError, match='1 of 2 scores are not finite'):
    anomaly.detection(np.array([np.nan, 1.0]), np.array([True, False]))
