"""Cartoon faces: what is drawn of them can be read off the picture, and no face comes twice."""

import itertools

import numpy as np
import pytest

from genjax.data.prepared import avatars
from genjax.types import UserError

PLAIN = (1, 6, 1, 0, 1, 0, 0, 2, 0)  # light skin, short flat brown hair, nothing on the face, a blue shirt


def changed(**values):
  names = list(avatars.ATTRIBUTES)
  face = list(PLAIN)
  for name, value in values.items():
    face[names.index(name)] = list(avatars.ATTRIBUTES[name][2]).index(value)
  return tuple(face)


def test_no_face_comes_twice_and_all_values_come():
  splits = avatars.splits(avatars.COUNTS)
  assert {name: len(rows) for name, rows in splits.items()} == {'train': 10_000, 'test': 1_000}
  every = list(itertools.chain.from_iterable(splits.values()))
  assert len(set(every)) == 11_000
  for at, (_, _, values) in enumerate(avatars.ATTRIBUTES.values()):
    share = np.bincount([face[at] for face in every], minlength=len(values)) / len(every)
    assert np.abs(share * len(values) - 1).max() < 0.15


def test_a_caption_names_all_attributes():
  told = avatars.caption(changed(hair='an afro', hair_color='pink', glasses='round glasses'))
  for words in ('light face', 'an afro in pink', 'open eyes', 'a serious mouth', 'round glasses', 'no beard',
                'a blue shirt'):
    assert words in told


def test_every_attribute_is_seen():
  """Each value of each attribute changes the picture; colours are where they belong."""
  pytest.importorskip('python_avatars')
  pytest.importorskip('resvg_py')
  plain_HWC = avatars.draw(PLAIN).astype(int)
  assert plain_HWC.shape == (64, 64, 3) and (plain_HWC[0, 0] == 255).all()
  assert np.array_equal(avatars.draw(PLAIN), plain_HWC)
  for name, (_, _, values) in avatars.ATTRIBUTES.items():
    for value in list(values)[:3]:
      if changed(**{name: value}) != PLAIN:
        difference_HW = np.abs(avatars.draw(changed(**{name: value})) - plain_HWC).max(-1)
        assert (difference_HW > 30).sum() >= 6, (name, value)
  shirt = avatars.draw(changed(clothes_color='red'))[60, 32].astype(int)
  assert shirt[0] > shirt[1] + 60 and shirt[0] > shirt[2] + 60
  assert plain_HWC[60, 32, 2] > plain_HWC[60, 32, 0] + 60
  dark, pale = (avatars.draw(changed(skin=skin))[36, 32].astype(int).sum() for skin in ('black', 'pale'))
  assert dark + 200 < pale


def test_packages_that_are_missing_are_named(monkeypatch):
  monkeypatch.setattr(avatars, '_PACKAGES', ('python_avatars_of_nobody', 'resvg_py'))
  with pytest.raises(UserError, match=r"python_avatars_of_nobody is not installed; run: pip install .*\[avatars\]"):
    avatars.draw(PLAIN)
