"""Four-voice music as tokens: one token per voice and time step, from the lowest note to the highest.

Note n of voice v (0 is the lowest) is token 1 + 89 v + n - 20, and a silent voice is 1 + 89 v. Token 0 begins a piece.
A step has its notes in ascending order, followed by silent voices. Each set of at most four notes therefore has exactly
one encoding, and the likelihood of the tokens is that of the piano roll.
"""

from collections.abc import Iterable, Sequence
import re

import numpy as np

from genjax.data.text.parallel import pad
from genjax.types import UserError

START = 0
VOICES = 4
LOWEST, HIGHEST = 21, 108  # MIDI numbers of the notes of a piano
_CHOICES = HIGHEST - LOWEST + 2  # tokens per voice: a note or silence
VOCABULARY = 1 + VOICES * _CHOICES
_NAMES = ('C', '^C', 'D', '^D', 'E', 'F', '^F', 'G', '^G', 'A', '^A', 'B')


def encode(text: str) -> np.ndarray:
  """Encodes a piece as tokens, int32 (1 + 4 S,); the first one is `START`.

  Args:
    text: S time steps separated by line ends or commas. A step has MIDI numbers separated by spaces: '48 60 64 67'; a
      step without numbers is silence. '' has no steps.

  Raises:
    UserError: the text has another form, or more than four notes at a time.
  """
  tokens = [START]
  for step in re.split('[\n,]', text) if text else ():
    words = step.split()
    notes = sorted({int(word) for word in words if word.isdecimal()})
    if len(notes) < len(words) or len(notes) > VOICES or any(not LOWEST <= note <= HIGHEST for note in notes):
      raise UserError(
        f'a step has at most {VOICES} different MIDI numbers from {LOWEST} to {HIGHEST}, as in "48 60 64 67", got '
        f'{step!r}')
    choices = [note - LOWEST + 1 for note in notes] + [0] * (VOICES - len(notes))
    tokens += [1 + voice * _CHOICES + choice for voice, choice in enumerate(choices)]
  return np.asarray(tokens, np.int32)


def decode(tokens: Iterable[int]) -> list[list[int]]:
  """Decodes tokens to steps, each a list of MIDI numbers. A token of an earlier voice begins a new step."""
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
  """Writes a piece in ABC notation, which most music programs read; a step is a quarter note."""
  chords = [f'[{"".join(map(_abc_note, notes))}]' if notes else 'z' for notes in steps]
  lines = [' '.join(chords[first:first + 8]) for first in range(0, len(chords), 8)]
  return '\n'.join([f'X:{number}', f'T:Sample {number}', 'L:1/4', 'Q:1/4=80', 'K:C clef=bass', *lines])


def _abc_note(note: int) -> str:
  octave, place = divmod(note, 12)
  name = _NAMES[place]
  return name + ',' * (5 - octave) if octave <= 5 else name.lower() + "'" * (octave - 6)


def windows(pieces: Sequence[np.ndarray], steps: int, once: bool) -> dict[str, np.ndarray]:
  """Cuts pieces into windows of `steps` time steps with half overlap; the last one is padded.

  Args:
    pieces: see `encode`.
    steps: even number.
    once: whether each token has weight 1 only in the window with the longest context before it (at least half a window,
      or the beginning of the piece). Otherwise it has weight 1 in both of its windows.

  Returns:
    'tokens' int32 (N, 4 steps + 1) and 'weights' float32 (N, 4 steps), of the tokens from the second on.

  Raises:
    UserError: the number of steps is odd or too small.
  """
  if steps < 2 or steps % 2:
    raise UserError(f'a window must have an even number of steps, half of them as context, got {steps}')
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
