"""Input of `genjax interpolate` that is refused before a run is opened."""

import argparse

import numpy as np
import pytest

from genjax.cli import interpolate
from genjax.types import UserError


def test_strength_is_finite(tmp_path):
  with pytest.raises(UserError, match='--strength must be a finite number'):
    interpolate.main([f'--workdir={tmp_path}', f'--out={tmp_path}/a.png', '--attribute=label=1', '--strength=nan'])


def test_a_single_picture_makes_no_row():
  class Codes:
    def examples(self, num):
      return np.zeros((1, 4, 4, 3), np.uint8), None

  with pytest.raises(UserError, match='between two pictures'):
    interpolate._ways(Codes(), argparse.Namespace(pictures=None, rows=8, path=None, stops=2))
