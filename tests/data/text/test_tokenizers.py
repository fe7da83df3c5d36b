"""Tokenizers: training is deterministic, texts come back, special tokens are found, and files make the same tokenizer
again."""

import hashlib
import io
import json
import subprocess
import sys

import numpy as np
import pytest
import sentencepiece
import tokenizers as tokenizers_library

from genjax.data.text import tokenizers
from genjax.data.text.tokenizers import open_tokenizer
from genjax.data.text.windows import ByteVocabulary
from genjax.types import UserError

TEXT = 'the cat sat on the mat, the dog sat on the log; "the end", they said. ' * 20 + 'Zürich\n\nnaïve'


def test_bpe_encodes_every_text_and_learns_frequent_words():
  bpe = tokenizers.train('bpe', [TEXT], 290)
  for text in (TEXT, 'unseen: 日本 \U0001f600\x00\n\n  two  spaces ', ''):
    tokens = bpe.encode(text)
    assert bpe.decode(tokens) == text and len(tokens) <= len(text.encode())
  assert bpe.size == 290 and len(bpe.encode(' the')) == 1 and bpe.encode(TEXT).dtype == np.uint16
  assert bpe.special == {'eos': 0} and bpe.encode('a<|endoftext|>b').tolist()[1] == 0
  assert [part.tolist() for part in bpe.encode_all(['the', 'log'])
         ] == [bpe.encode('the').tolist(), bpe.encode('log').tolist()]
  assert bpe.decode([*bpe.encode('cat'), 290, 5000]) == 'cat'
  with pytest.raises(UserError, match='negative'):
    bpe.decode([-1])


def test_wordpiece_splits_words_and_knows_what_it_does_not_know():
  wordpiece = tokenizers.train('wordpiece', [TEXT], 80)
  assert wordpiece.decode(wordpiece.encode('the doat  sat')) == 'the doat sat' and len(wordpiece.encode('the cat')) == 2
  assert wordpiece.special == {'unk': 0} and wordpiece.encode('the 日').tolist()[-1] == 0


def test_bert_has_its_special_tokens_and_no_cases(tmp_path):
  made = tokenizers.train('bert', [TEXT], 80)
  assert made.special == {'pad': 0, 'unk': 1, 'bos': 2, 'eos': 3, 'mask': 4} and made.begins == ()
  assert made.encode('THE Zurich cat').tolist() == made.encode('the zürich cat').tolist()
  assert made.encode('the [MASK] 日').tolist() == [*made.encode('the').tolist(), 4, 1]
  assert made.decode(made.encode('The mat')) == 'the mat'
  # As the settings of published encoders call them.
  (tmp_path / 'tokenizer.json').write_bytes(made.files()['tokenizer.json'])
  (tmp_path / 'tokenizer_config.json').write_text(
    json.dumps({'cls_token': '[CLS]', 'sep_token': '[SEP]', 'mask_token': '[MASK]'}))
  assert open_tokenizer(tmp_path).special == {'bos': 2, 'eos': 3, 'mask': 4}


@pytest.mark.parametrize(('kind', 'size'), [('bpe', 320), ('wordpiece', 120), ('bert', 120)])
def test_training_is_the_same_in_every_process(kind, size):
  program = (
    'import hashlib; from genjax.data.text import tokenizers; '
    f'made = tokenizers.train({kind!r}, [{TEXT!r}], {size}); '
    'print(hashlib.sha256(made.files()["tokenizer.json"]).hexdigest())'
  )
  here = hashlib.sha256(tokenizers.train(kind, [TEXT], size).files()['tokenizer.json']).hexdigest()
  for _ in range(2):
    assert subprocess.run([sys.executable, '-c', program], capture_output=True, text=True,
                          check=True).stdout.strip() == here


def test_training_says_what_is_wrong():
  with pytest.raises(UserError, match='at least 257 .* got 100'):
    tokenizers.train('bpe', [TEXT], 100)
  with pytest.raises(UserError, match='vocabulary_size of a wordpiece'):
    tokenizers.train('wordpiece', [TEXT], 5)
  with pytest.raises(UserError, match='needs text to train on'):
    tokenizers.train('bpe', ['', ''], 300)


@pytest.mark.parametrize('kind', ['bpe', 'wordpiece', 'bert'])
def test_files_make_the_same_tokenizer(tmp_path, kind):
  made = tokenizers.train(kind, [TEXT], 300)
  for name, data in made.files().items():
    (tmp_path / name).write_bytes(data)
  for path in (tmp_path, tmp_path / 'tokenizer.json'):
    again = open_tokenizer(path)
    assert again.files() == made.files() and again.special == made.special and again.size == made.size
    np.testing.assert_array_equal(again.encode(TEXT), made.encode(TEXT))


def test_special_tokens_and_beginnings_come_from_the_files(tmp_path):
  import tokenizers as library
  from tokenizers import models, pre_tokenizers, processors
  made = library.Tokenizer(models.WordLevel({'<s>': 0, '</s>': 1, 'a': 2, '<unk>': 3}, unk_token='<unk>'))
  made.pre_tokenizer = pre_tokenizers.Whitespace()
  made.add_special_tokens(['<s>', '</s>'])
  (tmp_path / 'tokenizer.json').write_text(made.to_str())
  assert open_tokenizer(tmp_path).special == {'bos': 0, 'eos': 1, 'unk': 3} and open_tokenizer(tmp_path).begins == ()
  made.post_processor = processors.TemplateProcessing(single='<s> $A </s>', special_tokens=[('<s>', 0), ('</s>', 1)])
  (tmp_path / 'tokenizer.json').write_text(made.to_str())
  assert open_tokenizer(tmp_path).begins == (0,) and open_tokenizer(tmp_path).encode('a').tolist() == [2]
  (tmp_path / 'tokenizer_config.json').write_text(json.dumps({'eos_token': {'content': 'a'}, 'bos_token': None}))
  assert open_tokenizer(tmp_path).special == {'eos': 2} and open_tokenizer(tmp_path).begins == ()


@pytest.fixture(scope='module')
def piece_model():
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(TEXT.split('. ')), model_writer=model, vocab_size=40,
                                           pad_id=3, hard_vocab_limit=False, character_coverage=1.0, minloglevel=2)
  return model.getvalue()


def test_sentencepiece(tmp_path, piece_model):
  (tmp_path / 'tokenizer.model').write_bytes(piece_model)
  plain = open_tokenizer(tmp_path / 'tokenizer.model')
  size = plain.size
  assert 20 < size <= 40 and plain.special == {'bos': 1, 'eos': 2, 'pad': 3, 'unk': 0} and plain.begins == ()
  assert plain.decode(plain.encode('the cat sat on the dog')) == 'the cat sat on the dog'
  assert plain.decode([*plain.encode('cat'), size]) == 'cat' and plain.encode('日').tolist()[-1] == 0
  (tmp_path / 'tokenizer_config.json').write_text(json.dumps({'tokenizer_class': 'LlamaTokenizer'}))
  llama = open_tokenizer(tmp_path)
  assert llama.begins == (1,) and set(llama.files()) == {'tokenizer.model', 'tokenizer_config.json'}


def test_sentencepiece_keeps_the_name_that_t5_has_for_it(tmp_path, piece_model):
  (tmp_path / 'spiece.model').write_bytes(piece_model)
  assert open_tokenizer(tmp_path).files() == {'spiece.model': piece_model}


def test_vocabulary_of_bert(tmp_path):
  """A vocab.txt becomes a tokenizer.json; settings that name no special tokens leave them what they usually are."""
  pieces = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'a', 'film', '##s', 'A', 'é', '中']
  (tmp_path / 'vocab.txt').write_text('\n'.join(pieces) + '\n')
  (tmp_path / 'tokenizer_config.json').write_text('{"do_lower_case": false}')
  cased = open_tokenizer(tmp_path)
  assert cased.size == 11 and cased.special == {'pad': 0, 'unk': 1, 'bos': 2, 'eos': 3, 'mask': 4
                                               } and cased.begins == (2,)
  assert cased.encode('A films é [MASK]中').tolist() == [8, 6, 7, 9, 4, 10]
  (tmp_path / 'tokenizer_config.json').unlink()
  uncased = open_tokenizer(tmp_path / 'vocab.txt')
  assert uncased.encode('A FILMS').tolist() == [5, 6, 7] and uncased.encode('Á').tolist() == [5]
  for name, data in uncased.files().items():
    (tmp_path / name).write_bytes(data)
  assert open_tokenizer(tmp_path).encode('A FILMS').tolist() == [5, 6, 7]  # of tokenizer.json now
  (tmp_path / 'vocab.txt').write_text('a\nb\n')
  with pytest.raises(UserError, match='it lacks .PAD.'):
    open_tokenizer(tmp_path / 'vocab.txt')


def test_files_that_are_no_tokenizers(tmp_path):
  for name, data, words in (('tokenizer.json', b'{"model": 3}', 'not a tokenizer of the library'), ('x.json', b'\xff',
                                                                                                 'cannot read'),
                            ('tokenizer.model', b'tiktoken',
                             'not a SentencePiece model'), ('x.txt', b'', 'expected a tokenizer.json')):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=words):
      open_tokenizer(tmp_path / name)
  with pytest.raises(UserError, match='cannot read'):
    open_tokenizer(tmp_path / 'absent.json')
  (tmp_path / 'empty').mkdir()
  with pytest.raises(UserError, match='has no tokenizer'):
    open_tokenizer(tmp_path / 'empty')


@pytest.mark.parametrize('kind', ['bpe', 'bert'])
def test_whole_texts_are_encoded_whatever_the_file_says(tmp_path, kind):
  """Truncation, padding and dropout of merges are how an author fed a model; the file comes back as it was."""
  made = tokenizers.train(kind, [TEXT], 290)
  library = tokenizers_library.Tokenizer.from_str(made.files()['tokenizer.json'].decode())
  library.enable_truncation(17)
  library.enable_padding(length=17)
  if kind == 'bpe':
    library.model.dropout = 0.9
  library.save(str(tmp_path / 'tokenizer.json'))
  read = open_tokenizer(tmp_path)
  assert read.encode(TEXT).tolist() == made.encode(TEXT).tolist() and read.encode('the').tolist() == made.encode(
    'the').tolist()
  assert read.begins == made.begins and read.files()['tokenizer.json'] == (tmp_path / 'tokenizer.json').read_bytes()


def test_only_newlines_end_an_entry_of_a_vocabulary(tmp_path):
  odd = ['\u2028', '\x85', '\x0b', '\x0c', '\x1c', '\u2029']
  pieces = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', *odd, 'a\u2028b', 'films']
  for ending, mark in (('\n', ''), ('\r\n', '\ufeff')):
    (tmp_path / 'vocab.txt').write_bytes((mark + ''.join(piece + ending for piece in pieces)).encode())
    read = open_tokenizer(tmp_path)
    assert read.size == len(pieces) and read.encode('films').tolist() == [len(pieces) - 1] and read.special['pad'] == 0


def test_half_of_a_surrogate_pair_is_no_text():
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter([TEXT]), model_writer=model, vocab_size=30,
                                           minloglevel=2)
  for vocabulary in (tokenizers.train('bpe', [TEXT],
                                      290), tokenizers.SentencePiece(model.getvalue()), ByteVocabulary()):
    with pytest.raises(UserError, match='character 2 of the text .*surrogate'):
      vocabulary.encode('a\ud83d')


def test_paths_of_tokenizers(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  folder = tmp_path / 'run.v2@5 ü'
  folder.mkdir()
  (folder / 'tokenizer.json').write_bytes(tokenizers.train('bpe', [TEXT], 290).files()['tokenizer.json'])
  for path in (folder, '~/run.v2@5 ü', '~/run.v2@5 ü/tokenizer.json'):
    assert open_tokenizer(path).size == 290
  with pytest.raises(UserError, match='there is no user of this name'):
    open_tokenizer('~nobody-is-called-so/tokenizer.json')


def test_settings_as_they_are_found(tmp_path):
  """With a byte order mark, and with words for true and false."""
  (tmp_path / 'vocab.txt').write_text('[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nA\na\n')
  settings = tmp_path / 'tokenizer_config.json'
  settings.write_text('\ufeff{"do_lower_case": false}')
  assert open_tokenizer(tmp_path).encode('A a').tolist() == [5, 6]
  for entry, value in (('do_lower_case', '"no"'), ('do_lower_case', 'null'), ('strip_accents', '3'),
                       ('tokenize_chinese_chars', '[]')):
    settings.write_text(f'{{"{entry}": {value}}}')
    with pytest.raises(UserError, match=f'tokenizer_config.json beside .*{entry} must be true or false'):
      open_tokenizer(tmp_path)
