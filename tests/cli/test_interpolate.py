"""Input of `genjax interpolate` that is refused before a run is opened."""

import argparse
import types

import numpy as np
from PIL import Image
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


def test_pictures_are_read_as_those_of_a_folder(tmp_path):
  """White behind what is transparent, the upper 8 of 16 bits, and upright as EXIF says."""
  colour, grey = (types.SimpleNamespace(shape=(2, 2, channels)) for channels in (3, 1))
  Image.new('RGBA', (2, 2), (9, 9, 9, 0)).save(tmp_path / 'clear.png')
  assert (interpolate._read(colour, str(tmp_path / 'clear.png')) == 255).all()
  Image.fromarray(np.full((4, 4), 3 << 8, np.uint16)).save(tmp_path / 'deep.png')
  np.testing.assert_array_equal(interpolate._read(grey, str(tmp_path / 'deep.png')), np.full((2, 2, 1), 3))
  exif = Image.Exif()
  exif[0x0112] = 3  # turned by half
  Image.fromarray(np.uint8([[0, 0], [200, 200]])).save(tmp_path / 'turned.png', exif=exif)
  assert interpolate._read(grey, str(tmp_path / 'turned.png'))[:, 0, 0].tolist() == [200, 0]
  (tmp_path / 'broken.png').write_bytes(b'no picture')
  with pytest.raises(UserError, match='broken.png cannot be read as a picture'):
    interpolate._read(grey, str(tmp_path / 'broken.png'))
