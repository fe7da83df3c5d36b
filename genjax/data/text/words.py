"""Word vocabularies, as in translation models for small data, and splitting of text into words.

A vocabulary is stored as the list of its words in the order of their tokens, and the name of its splitter.
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
SPLITTERS = ('spacy', 'simple', 'characters')
_PIECE = re.compile(r'\w+|[^\w\s]')
_NO_SPACE_BEFORE = re.compile(r" (?=(?:[.,;:!?%)\]]|n't|'(?:s|m|d|re|ve|ll))(?: |$))")
_NO_SPACE_AFTER = re.compile(r'(?<=[(\[$#]) ')
_JOINED = re.compile(r' ([-/]) ')


class WordVocabulary:
  """Words <-> tokens 0 .. size - 1; the attributes of `genjax.data.text.windows.Vocabulary`.

  Words beyond the vocabulary are '<unk>'. White space and upper case are lost.

  Args:
    words: words after the special ones, in the order of their tokens.
    split: text -> words, see `splitter`.

  Raises:
    UserError: a word occurs twice.
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
      raise UserError(f'the words of a vocabulary must differ, but {twice!r} occurs twice')

  @classmethod
  def learn(cls, texts: Iterable[str], split: Callable[[str], list[str]], least: int) -> 'WordVocabulary':
    """Makes a vocabulary of words that occur at least `least` times, by falling frequency, then alphabetically."""
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
      UserError: a token is outside the vocabulary.
    """
    tokens_T = np.asarray(tokens)
    if len(outside := tokens_T[(tokens_T < 0) | (tokens_T >= self.size)]):
      raise UserError(f'tokens must be from 0 to {self.size - 1}, got {outside[0]}')
    stops = np.flatnonzero(tokens_T == STOP)
    kept = tokens_T[:stops[0]] if len(stops) else tokens_T
    return [self._names[token] for token in kept.tolist() if token not in (PADDING, START)]

  def decode(self, tokens: Any) -> str:
    """Decodes integers (T,): the joined words of `sentence`."""
    return join(self.sentence(tokens))


def splitter(name: str, language: str) -> Callable[[str], list[str]]:
  """Returns a function from a text to its words, in lower case but for characters.

  'spacy': the rules of spaCy for a language code such as 'de' (`pip install 'genjax-research[text]'`; needs no language
  model). 'simple': runs of letters and digits, and single other characters. 'characters': each character, as it is.

  Raises:
    UserError: the splitter or language is unknown, or spaCy is not installed.
  """
  if name == 'simple':
    return lambda text: _PIECE.findall(text.lower())
  if name == 'characters':
    return list
  if name != 'spacy':
    raise UserError(f'config.data.splitter must be one of {SPLITTERS}, got {name!r}')
  tokenizer = _spacy(language)
  return lambda text: [word.text.lower() for word in tokenizer(text)]


@functools.cache
def _spacy(language: str) -> Any:
  try:
    import spacy  # slow to import, and only needed by some vocabularies
  except ImportError:
    raise UserError(
      "splitter 'spacy' needs spaCy, which is not installed: pip install 'genjax-research[text]' (or pip install "
      'spacy)') from None
  try:
    return spacy.blank(language).tokenizer
  except ImportError as error:
    raise UserError(f'spaCy has no rules for the language {language!r} ({error})') from None


def join(words: Sequence[str]) -> str:
  """Joins words of English, French or German: no space before punctuation and contractions or around hyphens."""
  text = _NO_SPACE_BEFORE.sub('', ' '.join(words))
  return _NO_SPACE_AFTER.sub('', _JOINED.sub(r'\1', text))
