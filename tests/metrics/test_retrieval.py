"""Recall at k and the CLIP score on vectors whose answer is known."""

import numpy as np
import pytest

from genjax.metrics import retrieval
from genjax.types import UserError


def test_score_is_the_cosine_in_percent():
  image_ND = np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
  text_ND = np.array([[3.0, 0.0], [0.0, -1.0], [1.0, 0.0]])
  np.testing.assert_allclose(retrieval.clip_score(image_ND, text_ND), [100.0, 0.0, 100 / np.sqrt(2)])
  np.testing.assert_allclose(retrieval.clip_score(image_ND, text_ND, 2.5), [2.5, 0.0, 2.5 / np.sqrt(2)])


def test_recall_counts_those_ahead():
  """Target i + 1 is nearest to query i, target i second."""
  angle_N = np.arange(6) * 0.1
  points = lambda angle: np.stack([np.cos(angle), np.sin(angle)], axis=1)
  query_ND, target_ND = points(angle_N + 0.06), points(angle_N)
  assert retrieval.recall(query_ND, target_ND, (1, 2)) == {1: pytest.approx(1 / 6), 2: 1.0}  # the last has no next one
  assert retrieval.recall(target_ND, target_ND, (1,)) == {1: 1.0}


def test_equal_vectors_find_nothing():
  same_ND = np.ones((5, 3))
  assert retrieval.recall(same_ND, same_ND, (1, 4, 5)) == {1: 0.0, 4: 0.0, 5: 1.0}


def test_pairs_of_one_text_do_not_stand_in_the_way():
  text_ND = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
  image_ND = np.array([[1.0, 0.1], [1.0, 0.2], [0.1, 1.0]])
  assert retrieval.recall(image_ND, text_ND, (1,)) == {1: pytest.approx(1 / 3)}
  assert retrieval.recall(image_ND, text_ND, (1,), np.array([0, 0, 1])) == {1: 1.0}


def test_blocks_do_not_matter(monkeypatch):
  a_ND, b_ND = np.random.default_rng(0).standard_normal((2, 37, 4))
  whole = retrieval.recall(a_ND, b_ND)
  monkeypatch.setattr(retrieval, '_ROWS', 5)
  assert retrieval.recall(a_ND, b_ND) == whole and 0 < whole[10] < 1


def test_bad_input():
  a_ND = np.ones((3, 2))
  with pytest.raises(UserError, match=r'recall at \(1, 5, 10\) needs numbers from 1 to that of pairs, which is 3'):
    retrieval.recall(a_ND, a_ND)
  with pytest.raises(UserError, match='of one shape'):
    retrieval.clip_score(a_ND, a_ND[:2])
  with pytest.raises(UserError, match='finite and not 0'):
    retrieval.clip_score(a_ND, 0 * a_ND)
