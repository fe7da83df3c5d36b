"""Recordings of your own with their transcripts: JSON lines that name sound files."""

from collections.abc import Callable, Sequence
import hashlib
import pathlib
from typing import Any

import numpy as np

from genjax.data.pipeline import Columns
from genjax.data.text import documents
from genjax.types import UserError, expanded


def open_recordings(name: str, split: str, audio: str = 'audio', field: str = 'text') -> list[tuple[pathlib.Path, str]]:
  """The recordings of a split, in order: of each its sound file and what is said in it.

  Args:
    name: path of a file of JSON lines, of a folder of such files, or a pattern, see `genjax.data.text.documents.find`.
    split: 'train' or a slice of it that counts recordings, such as 'train[:90%]'.
    audio, field: the JSON fields of the path of a recording, which is relative to the file that names it, and of its
      transcript.

  Raises:
    UserError: no such file or split, a line without the fields, or a recording that does not exist.
  """
  files = documents.find(name)
  if files is None or not all(map(documents.has_lines, files)):
    raise UserError(
      f'{name!r} is no data set of recordings: expected free_spoken_digits, or the path of .jsonl files whose lines '
      'have the '
      f'path of a sound file ({audio!r}) and its transcript ({field!r})')
  rows = [(path.parent / expanded(sound), text) for path in files
          for sound, text in zip(documents.read(path, audio), documents.read(path, field), strict=True)]
  rows = rows[documents.part_of(name, split, len(rows), 'recordings')]
  if absent := [str(path) for path, _ in rows if not path.is_file()]:
    raise UserError(
      f'{name}: {len(absent)} of {len(rows)} recordings do not exist, the first is {absent[0]}; paths are relative to '
      'the '
      'file that names them')
  return rows


class Transcribed:
  """Recordings that are read and turned into frames when a batch needs them.

  Args:
    paths: of the recordings, R of them.
    frames: path -> frames float32 S F.
    target_RT: tokens of the transcripts.
    facts: for the fingerprint, beside a checksum of the paths and tokens.
  """

  def __init__(self, paths: Sequence[pathlib.Path], frames: Callable[[pathlib.Path], np.ndarray], target_RT: np.ndarray,
               facts: dict[str, Any]):
    self._paths, self._frames, self._target_RT, self._facts = paths, frames, target_RT, facts

  def __len__(self) -> int:
    return len(self._paths)

  def get(self, indices: np.ndarray) -> Columns:
    """Columns 'source' (frames) and 'target' of examples."""
    return {
      'source': np.stack([self._frames(self._paths[index]) for index in indices]), 'target': self._target_RT[indices]
    }

  def fingerprint(self) -> dict[str, Any]:
    digest = hashlib.sha256('\n'.join(path.name for path in self._paths).encode())
    digest.update(self._target_RT.tobytes())
    return {**self._facts, 'checksum': digest.hexdigest()[:16], 'examples': len(self)}
