"""Music of four voices as tokens: at each time step one token a voice, from the lowest note to the highest.

Tokens of a step: note n of voice v (0 is the lowest) is 1 + 89 v + n - 20, and a voice without a note 1 + 89 v. Token 0
begins a piece. A step has its notes in ascending order and then voices without one, so that each set of at most four
notes is exactly one row of four
tokens: the likelihood of the tokens is that of the piano roll.
"""

from collections.abc import Iterable, Sequence
import re

import numpy as np

from genjax.data.text.parallel import pad
from genjax.types import UserError

START = 0
VOICES = 4
LOWEST, HIGHEST = 21, 108  # MIDI numbers of the notes of a piano
_CHOICES = HIGHEST - LOWEST + 2  # of a voice: a note, or none
VOCABULARY = 1 + VOICES * _CHOICES
_NAMES = ('C', '^C', 'D', '^D', 'E', 'F', '^F', 'G', '^G', 'A', '^A', 'B')


def encode(text: str) -> np.ndarray:
  """The tokens of a piece, int32 (1 + 4 S,), the first being `START`.

  Args:
    text: S time steps, between line ends or commas, each of them MIDI numbers between spaces: '48 60 64 67'. '' is no
      step at all, and a step without numbers is silence.

  Raises:
    UserError: anything else, or more than four notes at a time.
  """
  tokens = [START]
  for step in re.split('[\n,]', text) if text else ():
    words = step.split()
    notes = sorted({int(word) for word in words if word.isdecimal()})
    if len(notes) < len(words) or len(notes) > VOICES or any(not LOWEST <= note <= HIGHEST for note in notes):
      raise UserError(
        f'a step is at most {VOICES} different MIDI numbers from {LOWEST} to {HIGHEST}, such as "48 60 64 67", got '
        f'{step!r}'
      )
    choices = [note - LOWEST + 1 for note in notes] + [0] * (VOICES - len(notes))
    tokens += [1 + voice * _CHOICES + choice for voice, choice in enumerate(choices)]
  return np.asarray(tokens, np.int32)


def decode(tokens: Iterable[int]) -> list[list[int]]:
  """The steps of a piece, each its notes as MIDI numbers. A token of a voice that had its turn begins another step."""
  steps, before = [], VOICES
  for token in tokens:
    if token == START:
      continue
    voice, choice = divmod(int(token) - 1, _CHOICES)
    if voice <= before:
      steps.append([])
    steps[-1] += [choice + LOWEST - 1] if choice else []
    before = voice
  return steps


def abc(steps: Sequence[Sequence[int]], number: int = 1) -> str:
  """A piece in ABC notation, which most programs of music read; a step is a quarter note."""
  chords = [f'[{"".join(map(_abc_note, notes))}]' if notes else 'z' for notes in steps]
  lines = [' '.join(chords[first:first + 8]) for first in range(0, len(chords), 8)]
  return '\n'.join([f'X:{number}', f'T:Sample {number}', 'L:1/4', 'Q:1/4=80', 'K:C clef=bass', *lines])


def _abc_note(note: int) -> str:
  octave, place = divmod(note, 12)
  name = _NAMES[place]
  return name + ',' * (5 - octave) if octave <= 5 else name.lower() + "'" * (octave - 6)


def windows(pieces: Sequence[np.ndarray], steps: int, once: bool) -> dict[str, np.ndarray]:
  """Windows of `steps` time steps of each piece, half of them apart, the last one padded.

  Args:
    pieces: see `encode`.
    steps: even.
    once: whether each token counts once, in the window where most comes before it: after half a window or the whole
      beginning of the piece. Otherwise it counts in both of its windows.

  Returns:
    'tokens' int32 (N, 4 steps + 1) and 'weights' float32 (N, 4 steps), of the tokens from the second on.

  Raises:
    UserError: an odd or too small number of steps.
  """
  if steps < 2 or steps % 2:
    raise UserError(f'a window has an even number of steps, half of which come before what counts, got {steps}')
  length, stride = VOICES * steps, VOICES * steps // 2
  rows, first = [], []
  for piece in pieces:
    for start in range(0, max(1, len(piece) - 1 - stride), stride):
      rows.append(piece[start:start + length + 1])
      first.append(start == 0)
  tokens_NT, weights_NT = pad(rows, length + 1)
  if once:
    weights_NT[~np.asarray(first), :stride + 1] = 0.0
  return {'tokens': tokens_NT, 'weights': weights_NT[:, 1:]}
