"""The tokenizer of Marian: pieces of two models, tokens of one vocabulary."""

import io
import json

import pytest
import sentencepiece

from genjax.data.text.marian import Marian
from genjax.types import UserError


@pytest.fixture
def folder(tmp_path):
  """Two models, of letters each, and a vocabulary without the letter z."""
  for side, text in (('source', 'abcabc xyz'), ('target', 'defdef xyz')):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter([text] * 3), model_writer=model, vocab_size=20,
                                             model_type='char', hard_vocab_limit=False, minloglevel=2)
    (tmp_path / f'{side}.spm').write_bytes(model.getvalue())
  names = ['</s>', '<unk>', *'abcdefxy', '▁', '>>fr<<', '<pad>']
  (tmp_path / 'vocab.json').write_text(json.dumps({name: number for number, name in enumerate(names)}))
  return tmp_path


def test_sentences(folder):
  marian = Marian(folder)
  assert marian.size == 13 and marian.special == {'eos': 0, 'unk': 1, 'pad': 12}
  assert marian.encode('ab z').tolist() == [10, 2, 3, 10, 1]
  assert marian.encode('>>fr<< ab').tolist() == [11, 10, 2, 3] and marian.encode('>>fr<<',
                                                                                 side=1).tolist().count(11) == 0
  target = marian.encode('de fx', side=1)
  assert target.tolist() == [10, 5, 6, 10, 7, 8] and marian.decode([*target, 0, 12, 99]) == 'de fx'
  (folder / 'copy').mkdir()
  for name, data in marian.files().items():
    (folder / 'copy' / name).write_bytes(data)
  assert Marian(folder / 'copy').files() == marian.files()


@pytest.mark.parametrize(('name', 'text', 'said'), [
  ('vocab.json', '[', 'must be an object of pieces'), ('vocab.json', '{"a": 0}', 'must be an object of pieces'),
  ('source.spm', 'x', 'source.spm is not a SentencePiece model'), ('target.spm', None, 'lacks target.spm'),
  ('tokenizer_config.json', '{"separate_vocabs": true}', 'a vocabulary for each language')])
def test_bad_files(folder, name, text, said):
  (folder / name).unlink() if text is None else (folder / name).write_text(text)
  with pytest.raises(UserError, match=said):
    Marian(folder)
