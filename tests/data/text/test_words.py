"""Vocabularies of words: order, unknown words, what comes back; splitters."""

import builtins

import numpy as np
import pytest

from genjax.data.text import words
from genjax.data.text.words import SPECIAL, WordVocabulary, join, splitter
from genjax.types import UserError

SIMPLE = splitter('simple', 'en')
TEXTS = ['A dog, a cat and a dog.', 'The cat runs; a dog runs.', 'Once <unk>!']


def test_learned_words():
  vocabulary = WordVocabulary.learn(TEXTS, SIMPLE, least=2)
  assert vocabulary.words == ('a', 'dog', '.', 'cat', 'runs') and vocabulary.size == 9
  assert [vocabulary.special[kind] for kind in ('unk', 'pad', 'bos', 'eos')] == [0, 1, 2, 3]
  tokens_T = vocabulary.encode('A small dog runs.')
  assert tokens_T.tolist() == [4, 0, 5, 8, 6] and tokens_T.dtype == np.uint8
  assert vocabulary.decode(tokens_T) == 'a <unk> dog runs.'
  # A text cannot write the special tokens, nor can a corpus bring them in.
  assert WordVocabulary.learn(['<eos> <eos> x x'], str.split, 1).words == ('x',)


def test_sentences_end_at_the_first_stop():
  vocabulary = WordVocabulary(['a', 'b'], SIMPLE)
  assert vocabulary.sentence([2, 4, 1, 5, 3, 5, 3]) == ['a', 'b'] and vocabulary.sentence(
    [3]) == [] and vocabulary.sentence([5]) == ['b']
  with pytest.raises(UserError, match='from 0 to 5, got 6'):
    vocabulary.decode([6])


def test_a_word_stands_once():
  for repeated in (['a', 'b', 'a'], [SPECIAL[0]]):
    with pytest.raises(UserError, match='words of a vocabulary must differ'):
      WordVocabulary(repeated, SIMPLE)


@pytest.mark.parametrize(('given', 'text'), [
  ("a man is n't here , is he ?", "a man isn't here, is he?"), ("the boy 's t - shirt", "the boy's t-shirt"),
  ('two ( or three ) dogs .', 'two (or three) dogs.'), ("they 're off !", "they're off!"), ('', ''), ('.', '.')])
def test_words_are_joined_as_people_write_them(given, text):
  assert join(given.split()) == text


def test_splitters(monkeypatch):
  assert SIMPLE("Don't stop, 3 dogs!") == ['don', "'", 't', 'stop', ',', '3', 'dogs', '!']
  assert words.splitter('characters', 'en')('Oh, 12') == ['O', 'h', ',', ' ', '1', '2']
  with pytest.raises(UserError, match="one of .'spacy', 'simple', 'characters'., got 'nltk'"):
    splitter('nltk', 'en')
  load = builtins.__import__

  def without_spacy(name, *args, **options):
    if name == 'spacy':
      raise ImportError('no spaCy')
    return load(name, *args, **options)

  words._spacy.cache_clear()
  monkeypatch.setattr(builtins, '__import__', without_spacy)
  with pytest.raises(UserError, match="pip install 'genjax-research.text.'"):
    splitter('spacy', 'en')
  monkeypatch.undo()
  words._spacy.cache_clear()


@pytest.mark.slow
def test_spacy_splits_by_the_rules_of_the_language():
  pytest.importorskip('spacy')
  assert splitter(
    'spacy', 'en')("A man isn't in the U.S. today.") == ['a', 'man', 'is', "n't", 'in', 'the', 'u.s.', 'today', '.']
  assert splitter('spacy', 'de')('Ein Mann, z.B. Peter.') == ['ein', 'mann', ',', 'z.b.', 'peter', '.']
  with pytest.raises(UserError, match="no rules for the language 'qq'"):
    splitter('spacy', 'qq')
