"""Your own recordings with transcripts: JSON lines that name sound files."""

from collections.abc import Callable, Sequence
import hashlib
import pathlib
from typing import Any

import numpy as np

from genjax.data.pipeline import Columns
from genjax.data.text import documents
from genjax.types import UserError, expanded


def open_recordings(name: str, split: str, audio: str = 'audio', field: str = 'text') -> list[tuple[pathlib.Path, str]]:
  """The recordings of a split, in order: pairs of sound file and transcript.

  Args:
    name: path of a file of JSON lines, of a folder of such files, or a pattern, see `genjax.data.text.documents.find`.
    split: 'train' or a slice of it that counts recordings, such as 'train[:90%]'.
    audio, field: the JSON fields of the path and of the transcript of a recording. The path is relative to the JSON
      file.

  Raises:
    UserError: a file, split or recording does not exist, or a line lacks a field.
  """
  files = documents.find(name)
  if files is None or not all(map(documents.has_lines, files)):
    raise UserError(
      f'{name!r} is not a data set of recordings: expected free_spoken_digits, or the path of .jsonl files whose lines '
      f'have the path of a sound file ({audio!r}) and its transcript ({field!r})')
  rows = [(path.parent / expanded(sound), text) for path in files
          for sound, text in zip(documents.read(path, audio), documents.read(path, field), strict=True)]
  rows = rows[documents.part_of(name, split, len(rows), 'recordings')]
  if absent := [str(path) for path, _ in rows if not path.is_file()]:
    raise UserError(
      f'{name}: {len(absent)} of {len(rows)} recordings do not exist, the first is {absent[0]}; paths are relative to '
      'the file that names them')
  return rows


class Transcribed:
  """A source of recordings, which are read and converted to frames on demand.

  Args:
    paths: paths of the R recordings.
    frames: path -> frames float32 S F.
    target_RT: tokens of the transcripts.
    facts: facts for the fingerprint, in addition to a checksum of the paths and tokens.
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
