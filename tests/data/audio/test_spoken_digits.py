"""Recordings of digits, from the original files or packed in one; splits."""

import wave

import numpy as np
import pytest

from genjax.data.audio import spoken_digits
from genjax.types import UserError

ROWS = [(digit, speaker, index) for digit in (7, 0) for speaker in ('theo', 'george') for index in (10, 0, 4, 5)]


def sound(digit, speaker, index):
  return np.random.default_rng([digit, len(speaker), index]).integers(-2**15, 2**15, 20 + index).astype('<i2')


@pytest.fixture(params=['files', 'packed'])
def folder(request, tmp_path):
  sounds = [sound(*row) for row in ROWS]
  if request.param == 'packed':
    speakers = ['george', 'theo']
    np.savez(tmp_path / 'fsdd.npz', audio=np.concatenate(sounds), offsets=np.cumsum([0, *map(len, sounds)]),
             speakers=speakers, digit=[row[0] for row in ROWS], speaker=[speakers.index(row[1]) for row in ROWS],
             index=[row[2] for row in ROWS])
    return tmp_path
  for (digit, speaker, index), values in zip(ROWS, sounds):
    with wave.open(str(tmp_path / f'{digit}_{speaker}_{index}.wav'), 'wb') as file:
      file.setparams((1, 2, 8_000, 0, 'NONE', ''))
      file.writeframes(values.tobytes())
  return tmp_path


def test_splits(folder):
  for split, indices in (('test', (0, 4)), ('train', (5, 10))):
    found = spoken_digits.read(folder, split)
    wanted = [(digit, speaker, index) for digit in (0, 7) for speaker in ('george', 'theo') for index in indices]
    np.testing.assert_array_equal(found.digits, [row[0] for row in wanted])
    for got, row in zip(found.sounds, wanted, strict=True):
      np.testing.assert_array_equal(got * 2**15, sound(*row))
  few = spoken_digits.read(folder, 'train[:3]')
  assert len(few.sounds) == len(few.digits) == 3
  whole = [values.tobytes() for values in spoken_digits.read(folder, 'train').sounds]
  assert [values.tobytes() for values in few.sounds] != whole[:3] and {values.tobytes() for values in few.sounds
                                                                      } <= set(whole)


def test_bad_splits_and_folders(tmp_path):
  for split in ('validation', 'train[5:]', 'test[:0]'):
    with pytest.raises(UserError, match='split of spoken digits must be one of'):
      spoken_digits.read(tmp_path, split)
  with pytest.raises(UserError, match=r'no recordings.*7_jackson_32\.wav'):
    spoken_digits.read(tmp_path, 'train')
  (tmp_path / 'fsdd.npz').write_bytes(b'nothing')
  with pytest.raises(UserError, match=r'fsdd\.npz is not the file of recordings'):
    spoken_digits.read(tmp_path, 'train')


def test_the_published_recordings(shared_data):
  train, test = (spoken_digits.read(shared_data / 'fsdd', split) for split in ('train', 'test'))
  assert np.bincount(train.digits).tolist() == [270] * 10 and np.bincount(test.digits).tolist() == [30] * 10
  assert max(map(len, train.sounds)) == 18_262 and max(np.abs(values).max() for values in train.sounds) <= 1
