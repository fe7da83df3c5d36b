"""The first rows of each class come back as they were given, from a file."""

import contextlib

import numpy as np
import pytest

from genjax.metrics import kept


def test_the_first_rows_of_each_class_are_kept_in_order():
  x_N = np.random.default_rng(0).integers(0, 256, (40, 3, 2), np.uint8)
  label_N = np.random.default_rng(1).integers(0, 4, 40)  # a class 3 that is not one of three
  with contextlib.closing(kept.FirstOfClasses(3, limit=5)) as firsts:
    assert len(firsts.rows()[1]) == 0
    for part in np.array_split(np.arange(40), 6):
      firsts.add(x_N[part], label_N[part])
    rows, labels = firsts.rows()
    for label in range(3):
      np.testing.assert_array_equal(rows[labels == label], x_N[label_N == label][:5])
  assert set(labels) == {0, 1, 2}


def test_rows_are_those_that_came():
  kept_rows = kept.Rows()
  x_ND = np.arange(20.0).reshape(10, 2)
  for part in np.split(x_ND, [0, 3, 3, 9]):
    kept_rows.add(part)
  found = kept_rows.rows()
  assert len(kept_rows) == 10
  np.testing.assert_array_equal(found, x_ND)
  np.testing.assert_array_equal(found[np.array([7, 1])], x_ND[[7, 1]])
  with pytest.raises(ValueError, match='rows are float64'):
    kept_rows.add(np.zeros((1, 3)))
  kept_rows.close()
  with contextlib.closing(kept.Rows()) as none:
    assert not len(none.rows())
