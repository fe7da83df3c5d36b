"""Parallel text: line n belongs to line n, and padding has weight 0."""

import gzip

import numpy as np
import pytest

from genjax.data.prepared.builders import Multi30k
from genjax.data.text import parallel
from genjax.data.text.windows import ByteVocabulary
from genjax.types import UserError

ENCODE = (ByteVocabulary().encode,) * 2


def test_pairs_are_padded_and_long_ones_left_out():
  source = parallel.parallel((['ab', 'abcd', 'c'], ['x', 'y', 'zz']), ENCODE, (3, 2), (1, 0), {'name': 'x'})
  columns = source.get(np.arange(len(source)))
  assert columns['source'].tolist() == [[97, 98, 1], [99, 1, 1]] and columns['source_weights'].tolist() == [[1, 1, 0],
                                                                                                            [1, 0, 0]]
  assert columns['target'].tolist() == [[120, 0], [122, 122]] and columns['target_weights'].tolist() == [[1, 0], [1, 1]]
  assert {name: column.dtype.name for name, column in columns.items()} == {
    'source': 'int32', 'target': 'int32', 'source_weights': 'float32', 'target_weights': 'float32'}
  assert source.fingerprint()['left_out'] == 1 and source.fingerprint()['name'] == 'x'
  with pytest.raises(UserError, match='none of the 1 pairs'):
    parallel.parallel((['abcd'], ['x']), ENCODE, (3, 2))


def test_padding_refuses_what_is_too_long():
  assert [part.shape for part in parallel.pad([], 4)] == [(0, 4), (0, 4)]
  with pytest.raises(UserError, match='row 1 has 3 tokens, more than the length 2'):
    parallel.pad([np.arange(1), np.arange(3)], 2)


def test_files_of_lines(tmp_path):
  (tmp_path / 'a.de').write_text('eins\u2028\nzwei\r\n\ndrei\n', newline='')
  (tmp_path / 'a.en.gz').write_bytes(gzip.compress(b'one\ntwo\n\nthree'))
  pairs = parallel.read_parallel(tmp_path / 'a.de', tmp_path / 'a.en.gz')
  assert pairs == (['eins\u2028', 'zwei', '', 'drei'], ['one', 'two', '', 'three'])
  (tmp_path / 'a.en').write_text('one\n')
  with pytest.raises(UserError, match='equally many lines'):
    parallel.read_parallel(tmp_path / 'a.de', tmp_path / 'a.en')


def test_spoken_digits_are_the_same_numbers_and_no_split_repeats_another():
  train, heldout = (parallel.spoken_digits(split, ('de', 'en')) for split in ('train', 'validation'))
  for source, target in (train, heldout):
    assert len(source) == len(target) == 512
    for first, second in zip(source, target):
      numbers = [[parallel.DIGITS[language].index(word)
                  for word in text.split()]
                 for language, text in (('de', first), ('en', second))]
      assert numbers[0] == numbers[1] and 1 <= len(numbers[0]) <= 8
  assert not set(train[0]) & set(heldout[0])


def test_multi30k_of_original_files(tmp_path):
  folder = tmp_path / 'originals'
  folder.mkdir()
  for split, stem in Multi30k.PARTS.items():
    for language in Multi30k.LANGUAGES:
      (folder / f'{stem}.{language}.gz').write_bytes(
        gzip.compress(''.join(f'{split} {language} {n}\n' for n in range(12)).encode()))
  source, target = parallel.open_parallel('multi30k', 'validation', ('de', 'en'), tmp_path / 'data', folder)
  assert source == [f'validation de {n}' for n in range(12)] and target == [f'validation en {n}' for n in range(12)]
  with pytest.raises(UserError, match="no feature 'cs'; it has de, en, fr"):
    parallel.open_parallel('multi30k', 'train', ('cs', 'en'), tmp_path / 'data')


def test_multi30k_of_the_published_files(shared_data, tmp_path):
  source, target = parallel.open_parallel('multi30k', 'train[:2]', ('en', 'de'), tmp_path, shared_data / 'multi30k')
  assert source[0] == 'Two young, White males are outside near many bushes.' and target[0].startswith(
    'Zwei junge weiße Männer')


def test_lines_of_text_files_as_they_come(tmp_path, monkeypatch):
  """A byte order mark is no part of the first line, an empty file has none, and only newlines end one."""
  monkeypatch.setenv('HOME', str(tmp_path))
  folder = tmp_path / 'a b@5.v2'
  folder.mkdir()
  (folder / 'train.de').write_bytes('\ufeffeins\r\nzw\u2028ei\x85\r\n'.encode())
  (folder / 'train.en').write_bytes(b'one\ntwo\n')
  assert parallel.read_parallel('~/a b@5.v2/train.de', f'{folder}/train.en') == (['eins',
                                                                                  'zw\u2028ei\x85'], ['one', 'two'])
  (folder / 'train.en').write_bytes(b'')
  with pytest.raises(UserError, match='equally many lines'):
    parallel.read_parallel(folder / 'train.de', folder / 'train.en')
  (folder / 'train.en').write_bytes(b'one\nt\xffo\n')
  with pytest.raises(UserError, match=r'train\.en, line 2: expected UTF-8'):
    parallel.read_parallel(folder / 'train.de', folder / 'train.en')
