"""Vocabularies of whole words, as translation systems of small data use them, and the splitting of text into words.

A vocabulary is kept as its words in the order of their tokens; which splitter found them belongs to it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
import functools
import re
from typing import Any

import numpy as np

from genjax.types import UserError

UNKNOWN, PADDING, START, STOP = range(4)
SPECIAL = ('<unk>', '<pad>', '<sos>', '<eos>')  # the first tokens of every vocabulary, in this order
SPLITTERS = ('spacy', 'simple')
_PIECE = re.compile(r'\w+|[^\w\s]')
_NO_SPACE_BEFORE = re.compile(r" (?=(?:[.,;:!?%)\]]|n't|'(?:s|m|d|re|ve|ll))(?: |$))")
_NO_SPACE_AFTER = re.compile(r'(?<=[(\[$#]) ')
_JOINED = re.compile(r' ([-/]) ')


class WordVocabulary:
  """Words <-> tokens 0 .. size - 1; the attributes of `genjax.data.text.windows.Vocabulary`.

  Words beyond the vocabulary are '<unk>'. White space and upper case are lost.

  Args:
    words: after the special ones, in the order of their tokens.
    split: text -> words, see `splitter`.

  Raises:
    UserError: a word stands twice.
  """

  special = {'unk': UNKNOWN, 'pad': PADDING, 'bos': START, 'eos': STOP}
  begins, unused = (), ()

  def __init__(self, words: Sequence[str], split: Callable[[str], list[str]]):
    self.words, self.split = tuple(words), split
    self._names = (*SPECIAL, *self.words)
    self._tokens = {word: token for token, word in enumerate(self._names)}
    self.size = len(self._names)
    if len(self._tokens) != self.size:
      twice = next(word for word, count in Counter(self._names).items() if count > 1)
      raise UserError(f'a vocabulary has each word once, and {twice!r} stands in this one twice')

  @classmethod
  def learn(cls, texts: Iterable[str], split: Callable[[str], list[str]], least: int) -> 'WordVocabulary':
    """The words that stand in the texts `least` times or more, the most frequent first, equally frequent ones in
    alphabetical order."""
    counts = Counter(word for text in texts for word in split(text))
    words = [word for word, count in counts.items() if count >= least and word not in SPECIAL]
    return cls(sorted(words, key=lambda word: (-counts[word], word)), split)

  def encode(self, text: str) -> np.ndarray:
    """Unsigned integers (T,) of the smallest type that holds the vocabulary."""
    return self.tokens(self.split(text))

  def tokens(self, words: Iterable[str]) -> np.ndarray:
    """`encode` of words."""
    return np.asarray([self._tokens.get(word, UNKNOWN) for word in words], np.min_scalar_type(self.size - 1))

  def sentence(self, tokens: Any) -> list[str]:
    """The words of integers (T,) up to the first '<eos>', without padding and '<sos>'.

    Raises:
      UserError: a token outside the vocabulary.
    """
    tokens_T = np.asarray(tokens)
    if len(outside := tokens_T[(tokens_T < 0) | (tokens_T >= self.size)]):
      raise UserError(f'tokens must be from 0 to {self.size - 1}, got {outside[0]}')
    stops = np.flatnonzero(tokens_T == STOP)
    kept = tokens_T[:stops[0]] if len(stops) else tokens_T
    return [self._names[token] for token in kept.tolist() if token not in (PADDING, START)]

  def decode(self, tokens: Any) -> str:
    """The text of `sentence`; see `join`."""
    return join(self.sentence(tokens))


def splitter(name: str, language: str) -> Callable[[str], list[str]]:
  """Text -> its words in lower case.

  'spacy': the rules of spaCy for the language, whose code is such as 'de' (`pip install 'genjax-research[text]'`; no
  model of a language is needed). 'simple': runs of letters and digits, and single other characters.

  Raises:
    UserError: an unknown splitter or language, or spaCy is not installed.
  """
  if name == 'simple':
    return lambda text: _PIECE.findall(text.lower())
  if name != 'spacy':
    raise UserError(f'config.data.splitter must be one of {SPLITTERS}, got {name!r}')
  tokenizer = _spacy(language)
  return lambda text: [word.text.lower() for word in tokenizer(text)]


@functools.cache
def _spacy(language: str) -> Any:
  try:
    import spacy  # takes seconds, and only some vocabularies need it
  except ImportError:
    raise UserError(
      "splitter 'spacy' needs spaCy, which is not installed: pip install 'genjax-research[text]' (or pip install "
      'spacy)') from None
  try:
    return spacy.blank(language).tokenizer
  except ImportError as error:
    raise UserError(f'spaCy has no rules for the language {language!r} ({error})') from None


def join(words: Sequence[str]) -> str:
  """Words of English, French or German as a text: no space before punctuation and contractions, none around hyphens."""
  text = _NO_SPACE_BEFORE.sub('', ' '.join(words))
  return _NO_SPACE_AFTER.sub('', _JOINED.sub(r'\1', text))
