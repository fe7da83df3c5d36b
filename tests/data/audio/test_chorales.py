"""Music as tokens: one code for each set of notes, windows in which each note counts once, ABC."""

import itertools

import numpy as np
import pytest

from genjax.data.audio import chorales
from genjax.types import UserError


def test_texts_come_back_and_each_set_has_a_code_of_its_own():
  steps = [[48, 60, 64, 67], [], [21], [21, 108], [60, 62, 64]]
  text = '\n'.join(' '.join(map(str, notes)) for notes in steps)
  tokens = chorales.encode(text)
  assert len(tokens) == 1 + 4 * len(steps) and tokens[0] == chorales.START
  assert chorales.decode(tokens) == steps and chorales.decode(tokens[1:]) == steps
  assert chorales.encode('67 48 64 60,,21,108 21,60 62 64').tolist() == tokens.tolist()
  assert chorales.encode('').tolist() == [chorales.START]
  sets = [notes for size in range(5) for notes in itertools.combinations((21, 22, 60, 107, 108), size)]
  codes = {tuple(chorales.encode(f'60\n{" ".join(map(str, notes))}')[-4:].tolist()) for notes in sets}
  assert len(codes) == len(sets) and max(max(code) for code in codes) == chorales.VOCABULARY - 1
  for voice in range(4):  # the tokens of a voice are those of no other
    assert {(code[voice] - 1) // 89 for code in codes} == {voice}


def test_tokens_out_of_turn_begin_another_step():
  tokens = chorales.encode('48 60 64 67,50 62 65 69')[1:]
  assert chorales.decode(tokens[[0, 1, 3, 4, 5]]) == [[48, 60, 67], [50, 62]]
  assert chorales.decode(tokens[[2, 0, 1]]) == [[64], [48, 60]]


@pytest.mark.parametrize('text', ['60 60', '20', '109', '60 x', '48 50 52 53 55', '-60'])
def test_what_is_no_step(text):
  with pytest.raises(UserError, match='at most 4 different MIDI numbers from 21 to 108'):
    chorales.encode(f'60 64\n{text}')


def test_abc_names_notes_and_octaves():
  assert chorales.abc([[36, 48, 60, 72], [84, 61], []], 3).splitlines()[-1] == "[C,,C,Cc] [c'^C] z"
  assert chorales.abc([[60]] * 9, 3).startswith('X:3\n') and chorales.abc([[60]] * 9).splitlines()[-1] == '[C]'


@pytest.mark.parametrize('steps', [1, 3, 4, 5, 6, 8, 9, 30])
def test_each_note_counts_once_and_has_half_a_window_before_it(steps):
  piece = np.arange(1 + 4 * steps, dtype=np.int32)
  columns = chorales.windows([piece], 4, once=True)
  counted = columns['tokens'][:, 1:][columns['weights'] > 0]
  np.testing.assert_array_equal(np.sort(counted), piece[1:])
  for row, weights in zip(columns['tokens'], columns['weights']):
    assert row[0] == 0 or np.flatnonzero(weights)[0] >= 8
  everything = chorales.windows([piece], 4, once=False)
  np.testing.assert_array_equal(everything['tokens'], columns['tokens'])
  assert everything['weights'].sum() == (everything['tokens'][:, 1:] > 0).sum()


def test_windows_of_an_odd_number_of_steps():
  with pytest.raises(UserError, match='even number of steps, half of them as context, got 5'):
    chorales.windows([chorales.encode('60')], 5, once=True)
