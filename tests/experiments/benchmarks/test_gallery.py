"""The picture of samples from several runs."""

import pathlib

import numpy as np
from PIL import Image
import pytest

from genjax.experiments.benchmarks import gallery

ROOT = pathlib.Path(__file__).parent.parent.parent.parent


def test_panels_stand_side_by_side():
  black = gallery.image_panel(np.zeros((9, 8, 8, 1), np.uint8), 120)
  text = gallery.text_panel(
    'a line\n\nanother line that is wrapped because it is longer than the panel is wide, by far', 120)
  picture = gallery.beside([black, text])
  assert black.shape == (120, 120, 3)
  assert picture.shape == (120, 120 + 14 + 380, 3)
  assert black.min() == 0
  assert black.max() == 255  # the lines between images
  assert (text < 128).any()
  assert (picture[:, 120:134] == 255).all()


def test_a_longer_text_is_cut():
  lines = 'line\n' * 200
  np.testing.assert_array_equal(gallery.text_panel(lines, 150), gallery.text_panel(lines * 2, 150))


@pytest.mark.slow
def test_from_runs(smoke_run, tmp_path, capsys):
  gallery.main([
    f'--out={tmp_path / "all.png"}', '--num=4',
    str(smoke_run('autoencoders/digits_vae')),
    str(smoke_run('language/python_code'))
  ])
  with Image.open(tmp_path / 'all.png') as picture:
    assert picture.height == 456
  with pytest.raises(SystemExit, match='2'):
    gallery.main([f'--out={tmp_path / "all.png"}', str(tmp_path / 'nothing')])
  assert 'nothing' in capsys.readouterr().err
