"""Inception score against closed forms, in splits and in parts."""

import numpy as np
import pytest

from genjax.metrics import inception_score
from genjax.types import UserError


def sure(label_N, classes):
  return np.where(np.arange(classes) == np.asarray(label_N)[:, None], 60.0, 0.0)


def test_sure_and_even_is_the_number_of_classes():
  label_N = np.arange(40) % 4
  score = inception_score.score(sure(label_N, 4), 10)
  assert score.mean == pytest.approx(4.0) and score.deviation == pytest.approx(0.0, abs=1e-9)


def test_unsure_or_of_one_class_is_1():
  for logits_NK in (np.zeros((20, 4)), sure(np.full(20, 2), 4), np.full((20, 4), 700.0)):
    assert inception_score.score(logits_NK, 2).mean == pytest.approx(1.0)


def test_splits_are_cut_in_order():
  score = inception_score.score(sure(np.repeat([0, 1], 10), 4), 2)
  assert score.mean == pytest.approx(1.0)  # each split has one class
  assert inception_score.score(sure(np.repeat([0, 1], 10), 4), 1).mean == pytest.approx(2.0)
  uneven = inception_score.score(sure([0, 1, 2], 4), 2)  # one sample, and two
  assert uneven.mean == pytest.approx(1.5) and uneven.deviation == pytest.approx(0.5)


def test_parts_do_not_matter():
  logits_NK = 3 * np.random.default_rng(0).standard_normal((101, 5))
  whole, parts = inception_score.score(logits_NK, 10), inception_score.Logits(101, 10)
  for part in np.split(logits_NK, [1, 1, 37, 90]):
    parts.add(part)
  assert parts.score() == pytest.approx(whole, rel=1e-12)


def test_bad_input():
  with pytest.raises(UserError, match='needs at least one sample in each, got 3'):
    inception_score.Logits(3, 10)
  logits = inception_score.Logits(3, 1)
  logits.add(np.zeros((2, 4)))
  with pytest.raises(UserError, match='3 samples were announced, and 2 came'):
    logits.score()
  with pytest.raises(UserError, match='and 4 came'):
    logits.add(np.zeros((2, 4)))
  with pytest.raises(UserError, match='1 entries that are NaN'):
    logits.add(np.array([[np.nan, 0.0]]))
