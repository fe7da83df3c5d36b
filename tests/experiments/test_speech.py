"""Speech: words as tokens, shifts, word errors."""

import numpy as np

from experiments import speech
from genjax.data import spoken_digits
from genjax.data.pipeline import RowRandom
from genjax.data.sources import Arrays


def test_words_come_back():
  for word in spoken_digits.WORDS:
    tokens_T = speech.encode(word)
    assert tokens_T[-1] == speech.TOKENS.stop and len(tokens_T) <= speech.LONGEST and tokens_T.max() < speech.FIRST + len(speech.ALPHABET)
    assert speech.decode(np.pad(tokens_T, (0, 3))) == word


def test_recordings_begin_later():
  source_BSF = np.random.default_rng(0).normal(size=(50, 9, 2)).astype(np.float32)
  columns = {'source': source_BSF, 'target': np.arange(50)}
  moved = speech.later(columns, RowRandom(0, np.arange(50)), most=3)
  np.testing.assert_array_equal(moved['target'], columns['target'])
  found = set()
  for before_SF, after_SF in zip(source_BSF, moved['source']):
    shift = int((after_SF == before_SF.min()).all(axis=1).sum())
    np.testing.assert_array_equal(after_SF[shift:], before_SF[:9 - shift])
    found.add(shift)
  assert found == {0, 1, 2, 3}
  alone = speech.later({name: rows[7:8] for name, rows in columns.items()}, RowRandom(0, np.arange(7, 8)), most=3)
  np.testing.assert_array_equal(alone['source'][0], moved['source'][7])


def test_word_error_rate():
  target_NT = np.stack([np.pad(speech.encode(word), (0, 6))[:6] for word in ('seven', 'one', 'six', 'nine')])
  drawn_NT = target_NT.copy()
  drawn_NT[1, 2:4] = speech.TOKENS.stop, 0  # 'on'
  drawn_NT[3] = [speech.TOKENS.stop, 0, 0, 0, 0, 0]  # nothing
  metric = speech.word_errors(lambda: Arrays({'source': np.zeros((4, 2, 1)), 'target': target_NT}))

  def sample(num, conditions):
    assert num == len(conditions['source']) == 4
    return {'tokens': drawn_NT}

  assert metric.compute(sample, 0) == {'wer': 0.5} and metric.card['words'] == 4
