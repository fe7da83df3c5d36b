"""The Free Spoken Digit Dataset.

Source: Jackson et al., https://github.com/Jakobovski/free-spoken-digit-dataset, CC BY-SA 4.0.

3,000 recordings of the digits 0 to 9 in English, 8 kHz, 16 bits: six speakers, 50 recordings per digit and speaker. In
the authors' split, recordings 0 to 4 of every digit and speaker are test and the others train, so all speakers are in
both.
"""

import os
import pathlib
import re
from typing import NamedTuple
import zipfile
import zlib

import numpy as np

from genjax.data.audio.mel import read_wav
from genjax.types import UserError, expanded

RATE = 8_000
WORDS = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')
PACKED = 'fsdd.npz'
TEST_RECORDINGS = 5  # per digit and speaker
SPLITS = ('train', 'test')
_NAME = re.compile(r'(\d)_(\w+)_(\d+)\.wav')


class Recordings(NamedTuple):
  """Recordings: `sounds`, each float32 N in [-1, 1], and `digits`, the spoken digits, int32 (R,)."""

  sounds: list[np.ndarray]
  digits: np.ndarray


def read(folder: str | os.PathLike[str], split: str) -> Recordings:
  """Reads a split, ordered by digit, speaker and recording number.

  Args:
    folder: has the original files DIGIT_SPEAKER_NUMBER.wav, or one file `PACKED` of arrays: audio int16, all recordings
      concatenated; offsets, the beginning of each and the end; digit, speaker and index of each.
    split: 'train' or 'test'. With a number, as in 'train[:100]', the first recordings of a fixed shuffle of the split.

  Raises:
    UserError: the split is unknown, or the folder has no recordings.
  """
  match = re.fullmatch(r'(\w+)(?:\[:(\d+)\])?', split)
  if match is None or match[1] not in SPLITS or match[2] == '0':
    raise UserError(
      f"split of spoken digits must be one of {SPLITS}, or a beginning of one as in 'train[:100]', got {split!r}")
  folder = expanded(folder)
  if (folder / PACKED).is_file():
    found = _packed(folder / PACKED)
  else:
    found = [(int(name[1]), name[2], int(name[3]), path)
             for path in folder.glob('*.wav')
             if (name := _NAME.fullmatch(path.name))]
  rows = sorted((row for row in found if (row[2] < TEST_RECORDINGS) == (match[1] == 'test')), key=lambda row: row[:3])
  if not rows:
    raise UserError(
      f'{folder} has no recordings for {split!r}: expected {PACKED}, or files such as 7_jackson_32.wav, as in the '
      'folder recordings/ of the original repository; set config.data.originals to the folder')
  if match[2]:
    order = np.random.default_rng(0).permutation(len(rows))[:int(match[2])]
    rows = [rows[place] for place in order]
  sounds = [
    read_wav(sound, RATE) if isinstance(sound, pathlib.Path) else sound.astype(np.float32) / 2**15 for *_, sound in rows
  ]
  return Recordings(sounds, np.asarray([digit for digit, *_ in rows], np.int32))


def _packed(path: pathlib.Path) -> list[tuple[int, str, int, np.ndarray]]:
  try:
    with np.load(path) as file:
      sounds = np.split(file['audio'], file['offsets'][1:-1])
      labels = zip(file['digit'], file['speakers'][file['speaker']], file['index'], sounds, strict=True)
      return [(int(digit), str(speaker), int(index), sound) for digit, speaker, index, sound in labels]
  except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile, zlib.error) as error:
    raise UserError(
      f'{path} is not the file of recordings that genjax reads ({error}); see genjax.data.audio.spoken_digits.read'
    ) from None
