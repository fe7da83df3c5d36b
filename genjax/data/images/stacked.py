"""Stacked MNIST: pictures of three digits, one in each colour channel, with 1000 modes (Metz et al. 2017).

A row is three images of MNIST, drawn independently and with replacement, as in the code of PacGAN (Lin et al. 2018,
section 4.2). Training draws a row anew whenever it reads it; held-out rows stay as they are.
"""

from collections.abc import Mapping
import os
from typing import Any

import numpy as np

from genjax.data import sources, splits
from genjax.data.pipeline import Columns, RowRandom

NAME = 'stacked_mnist'
MODES = 1000
SIZES = {'train': 60_000, 'test': 10_000}


def open_split(split: str, data_dir: str | os.PathLike[str] | None = None,
               originals: str | os.PathLike[str] | None = None, labelled: bool = True) -> 'Stacked':
  """The rows of a split: 'train' is made of the training images of MNIST, 'test' of its test images.

  Args:
    split: one of them, or a slice such as 'test[:100]'.
    data_dir, originals: of MNIST, see `genjax.data.sources.open_tfds`.
    labelled: whether rows have the column 'label'.

  Raises:
    UserError: another split, or MNIST cannot be prepared.
  """
  name = 'test' if split.startswith('test') else 'train'
  row_N = splits.select(NAME, split, {name: SIZES[name]})
  digits = sources.open_tfds('mnist', name, ('image', 'label'), data_dir, originals)
  return Stacked(digits.get(np.arange(len(digits))), row_N, name == 'train', labelled,
                 {'name': NAME, 'split': split, 'of': digits.fingerprint()})


class Stacked:
  """Columns image (uint8 28 28 3) and, if it is asked for, label (int32, the three digits as one number).

  Args:
    digits: columns image (uint8 N 28 28 1) and label.
    row_N: numbers of the rows, which seed them.
    anew: whether training draws its rows anew.
    labelled: whether rows have the column 'label'.
    facts: for the fingerprint.
  """

  def __init__(self, digits: Mapping[str, np.ndarray], row_N: np.ndarray, anew: bool, labelled: bool,
               facts: Mapping[str, Any]):
    self._image_NHW, self._label_N = digits['image'][..., 0], digits['label']
    self._row_N, self._anew, self._labelled, self._facts = row_N, anew, labelled, dict(facts)

  def __len__(self) -> int:
    return len(self._row_N)

  def get(self, indices: np.ndarray) -> Columns:
    return self._stacked(RowRandom(0, self._row_N[indices]))

  def draw(self, indices: np.ndarray, random: RowRandom) -> Columns:
    """See `genjax.data.pipeline.read`."""
    return self._stacked(random) if self._anew else self.get(indices)

  def fingerprint(self) -> dict[str, Any]:
    return {**self._facts, 'examples': len(self)}

  def _stacked(self, random: RowRandom) -> Columns:
    of_B3 = random.integers(0, len(self._label_N), 3)
    label = {'label': mode(self._label_N[of_B3]).astype(np.int32)} if self._labelled else {}
    return {'image': np.moveaxis(self._image_NHW[of_B3], 1, -1), **label}


def mode(digit_B3: np.ndarray) -> np.ndarray:
  """The mode of three digits, 0 to 999."""
  return digit_B3 @ np.array([100, 10, 1])
