import numpy as np
import pytest

from genjax.data.text.documents import open_documents
from genjax.data.text.windows import ByteVocabulary, CharVocabulary, IdVocabulary, Windows, open_tokens
from genjax.types import UserError


def test_bytes_round_trip():
  vocabulary = ByteVocabulary()
  text = 'naïve\n日本 \U0001f600\x00'
  tokens = vocabulary.encode(text)
  assert tokens.dtype == np.uint8 and len(tokens) == len(text.encode()) and vocabulary.decode(tokens) == text
  assert vocabulary.decode(np.array([0xFF, 65])) == '\ufffdA'
  with pytest.raises(UserError, match='from 0 to 255, got 256'):
    vocabulary.decode([1, 256])


def test_characters_round_trip():
  vocabulary = CharVocabulary.from_text('hello wörld \U0001f600')
  assert vocabulary.alphabet == ''.join(sorted(set('hello wörld \U0001f600')))
  assert vocabulary.size == len(vocabulary.alphabet)
  tokens = vocabulary.encode('old \U0001f600 hörd')
  assert tokens.dtype == np.uint8
  assert [vocabulary.alphabet[token] for token in tokens] == list('old \U0001f600 hörd')
  assert vocabulary.decode(tokens) == 'old \U0001f600 hörd'
  assert vocabulary.encode('').shape == (0,) and vocabulary.decode([]) == ''
  assert CharVocabulary(vocabulary.alphabet).alphabet == vocabulary.alphabet
  assert CharVocabulary(''.join(map(chr, range(300)))).encode('a').dtype == np.uint16


def test_unknown_characters_are_named():
  vocabulary = CharVocabulary('abc')
  with pytest.raises(UserError, match=r"unknown character 'Z', 'é', first at position 2 .* 3 characters 'abc'"):
    vocabulary.encode('abéZé')
  with pytest.raises(UserError, match='from 0 to 2, got -1'):
    vocabulary.decode([-1])
  with pytest.raises(UserError, match='empty alphabet'):
    CharVocabulary('')


@pytest.mark.parametrize('stride', [1, 3, 4, 7])
def test_windows_are_complete_and_reach_the_end(stride):
  tokens = np.arange(40, dtype=np.uint8)
  windows = Windows(tokens, length=4, stride=stride)
  assert (len(windows) - 1) * stride + 5 <= 40 < len(windows) * stride + 5
  got = windows.get(np.arange(len(windows)))['tokens']
  assert got.dtype == np.int32 and got.shape == (len(windows), 5)
  np.testing.assert_array_equal(got, [tokens[i * stride : i * stride + 5] for i in range(len(windows))])


def test_stride_of_the_length_predicts_every_token_once():
  got = Windows(np.arange(41), length=4, stride=4).get(np.arange(10))['tokens']
  np.testing.assert_array_equal(got[:, 1:].ravel(), np.arange(1, 41))


def test_windows_say_what_is_wrong():
  with pytest.raises(UserError, match='length 8 needs 9 tokens, the text has 8'):
    Windows(np.arange(8), length=8)
  assert len(Windows(np.arange(9), length=8)) == 1
  with pytest.raises(UserError, match='at least 1'):
    Windows(np.arange(8), length=2, stride=0)


def test_fingerprint_of_windows_follows_the_tokens():
  texts = ([1, 2, 3], [1, 2, 3], [1, 2, 4])
  prints = [Windows(np.array(tokens), 2, facts={'name': 'x'}).fingerprint() for tokens in texts]
  assert prints[0] == prints[1] and prints[0]['checksum'] != prints[2]['checksum']
  assert prints[0]['name'] == 'x' and prints[0]['examples'] == 1


def text_of(path, split):
  [text] = open_documents(str(path), split)
  return text


def test_text_of_a_file(tmp_path):
  path = tmp_path / 'notes.txt'
  path.write_text('abcdefghij' * 10 + 'é', encoding='utf-8')
  text = path.read_text(encoding='utf-8')
  assert text_of(path, 'train') == text
  assert text_of(path, 'train[:90%]') + text_of(path, 'train[90%:]') == text
  assert len(text_of(path, 'train[:90%]')) == int(0.9 * 101)
  assert text_of(path, 'train[-10%:]') == text_of(path, 'train[90%:]')
  assert text_of(path, 'train[3:-90]') == text[3:-90]
  for split in ('test', 'train[', 'train[:x]', 'train+train'):
    with pytest.raises(UserError, match="has only the split 'train'"):
      open_documents(str(path), split)
  with pytest.raises(UserError, match='is empty'):
    open_documents(str(path), 'train[:0]')


def test_text_files_that_cannot_be_read(tmp_path):
  with pytest.raises(UserError, match='does not exist'):
    open_documents(str(tmp_path / 'absent.txt'), 'train')
  (tmp_path / 'latin.txt').write_bytes(b'caf\xe9')
  with pytest.raises(UserError, match='expected UTF-8'):
    open_documents(str(tmp_path / 'latin.txt'), 'train')


def test_token_numbers_round_trip():
  vocabulary = IdVocabulary(1000)
  tokens = vocabulary.encode(' 464 3\n999')
  assert tokens.tolist() == [464, 3, 999] and vocabulary.decode(tokens) == '464 3 999'
  with pytest.raises(UserError, match="got 'the'"):
    vocabulary.encode('464 the')
  with pytest.raises(UserError, match='from 0 to 999, got 1000'):
    vocabulary.encode('1000')
  with pytest.raises(UserError, match='vocabulary_size'):
    IdVocabulary(0)


def test_tokens_of_a_file(tmp_path):
  path = tmp_path / 'tokens.npy'
  np.save(path, np.arange(100, dtype=np.uint16))
  assert open_tokens(path, 'train', 100).tolist() == list(range(100))
  assert open_tokens(str(path), 'train[:-10]', 100).tolist() == list(range(90))
  assert open_tokens(path, 'train[90%:]', 100).tolist() == list(range(90, 100))
  windows = Windows(open_tokens(path, 'train', 100), length=4, stride=4)
  assert windows.get(np.array([1]))['tokens'].tolist() == [[4, 5, 6, 7, 8]]
  with pytest.raises(UserError, match='tokens from 0 to 99; set config.data.vocabulary_size, now 99'):
    open_tokens(path, 'train', 99)
  with pytest.raises(UserError, match='is empty'):
    open_tokens(path, 'train[100:]', 100)
  with pytest.raises(UserError, match='cannot read tokens'):
    open_tokens(tmp_path / 'absent.npy', 'train', 100)
  np.save(path, np.zeros((2, 3)))
  with pytest.raises(UserError, match=r'integers of shape \(T,\), got float64'):
    open_tokens(path, 'train', 100)


def test_files_and_prompts_that_are_no_tokens(tmp_path):
  (tmp_path / 'empty.npy').write_bytes(b'')
  np.savez(tmp_path / 'two.npz', a=np.arange(3))
  (tmp_path / 'cut.npz').write_bytes((tmp_path / 'two.npz').read_bytes()[:-30])
  for name in ('empty.npy', 'two.npz', 'cut.npz'):
    with pytest.raises(UserError, match=rf'{name}'):
      open_tokens(tmp_path / name, 'train', 100)
  with pytest.raises(UserError, match='expected numbers of tokens'):
    IdVocabulary(9).encode('1 ²')
