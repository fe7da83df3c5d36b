"""Sentences of two languages as tokens: words of two vocabularies, or pieces of a public tokenizer."""

from collections.abc import Callable, Sequence
import dataclasses
import functools
import json
import pathlib
from typing import Any

import numpy as np

from genjax.config import Config
from genjax.data.text import tokenizers, words
from genjax.data.text.marian import SIDES as MARIAN_SIDES
from genjax.data.text.marian import Marian
from genjax.data.text.words import WordVocabulary
from genjax.experiments import imported
from genjax.objectives.seq2seq import Tokens
from genjax.types import UserError, expanded, strict_json

VOCABULARIES = 'words.json'  # file of a run with the splitter, the languages and the words of both
SIDES = ('source', 'target')
Pairs = Callable[[str], tuple[list[str], list[str]]]  # split -> source and target sentences


@dataclasses.dataclass(frozen=True)
class Sentences:
  """What sentences are to a network.

  source, target: sentence -> tokens int32 (T,), with what begins and ends them. around: how many tokens stand around a
  source. unit: what a token is called in messages. texts: tokens of a side -> text, for source and target. words:
  tokens of the target -> words in lower case, as split makes them of a text: what BLEU counts. tokens: those with a
  meaning of their own. sizes: of the networks' vocabularies of source and target; the second is 0 where there is one
  for both. known, unused: tokens of the target from the first on, and the others, have no text. files: what a run
    keeps.
  """

  source: Callable[[str], np.ndarray]
  target: Callable[[str], np.ndarray]
  around: int
  unit: str
  texts: tuple[Callable[[np.ndarray], str], Callable[[np.ndarray], str]]
  words: Callable[[np.ndarray], list[str]]
  split: Callable[[str], list[str]]
  tokens: Tokens
  sizes: tuple[int, int]
  known: int
  unused: tuple[int, ...]
  files: dict[str, bytes]


def open_sentences(config: Config, pairs: Pairs) -> Sentences:
  """The sentences of a config, see `genjax.experiments.seq2seq.build`.

  Raises:
    UserError: the splitter is unknown, the tokenizer is missing or does not fit, or the words are of other data.
  """
  return _pieces(config) if config.data.get('vocabulary') else _words(config, pairs)


def _words(config: Config, pairs: Pairs) -> Sentences:
  (source, target), files = _vocabularies(config, pairs)

  def read(sentence: str) -> np.ndarray:
    return np.concatenate([[words.START], source.encode(sentence), [words.STOP]]).astype(np.int32)

  def text(vocabulary: WordVocabulary) -> Callable[[np.ndarray], str]:
    if config.data.splitter == 'characters':
      return lambda tokens_T: ''.join(vocabulary.sentence(tokens_T))
    return vocabulary.decode

  return Sentences(source=read, target=lambda sentence: _ended(target.encode(sentence), words.STOP), around=2,
                   unit='words', texts=(text(source), text(target)), words=target.sentence, split=target.split,
                   tokens=Tokens(start=words.START, stop=words.STOP, padding=words.PADDING),
                   sizes=(source.size, target.size), known=target.size, unused=target.unused, files=files)


def _vocabularies(config: Config, pairs: Pairs) -> tuple[tuple[WordVocabulary, WordVocabulary], dict[str, bytes]]:
  """The vocabularies of source and target, from the run or the training split, and the file to keep them."""
  data = config.data
  splits = tuple(words.splitter(data.splitter, language) for language in (data.source, data.target))
  facts = {'splitter': data.splitter, 'languages': [data.source, data.target]}
  folder = config.assets.get('folder')
  if folder and (pathlib.Path(folder) / VOCABULARIES).is_file():
    known = json.loads((pathlib.Path(folder) / VOCABULARIES).read_text())
    if different := [name for name, value in facts.items() if known[name] != value]:
      raise UserError(f'the words in {folder} belong to {different[0]} {known[different[0]]!r}, but config.data has '
                      f'{facts[different[0]]!r}')
    found: Sequence[WordVocabulary] = [WordVocabulary(known[side], split) for side, split in zip(SIDES, splits)]
  else:
    found = [
      WordVocabulary.learn(sentences, split, data.least_count) for sentences, split in zip(pairs(data.train), splits)
    ]
  kept = {**facts, **{side: vocabulary.words for side, vocabulary in zip(SIDES, found)}}
  return (found[0], found[1]), {VOCABULARIES: (strict_json(kept, ensure_ascii=False, indent=0) + '\n').encode()}


def _pieces(config: Config) -> Sentences:
  data = config.data
  vocabulary = open_pieces(imported.folder(config) or expanded(data.vocabulary))
  imported.check_size(config, vocabulary.size, data.vocabulary_size, 'config.data.vocabulary_size')
  tokens = imported.tokens(config)
  write = functools.partial(vocabulary.encode, side=1) if isinstance(vocabulary, Marian) else vocabulary.encode
  split = words.splitter(data.splitter, data.target)
  text = functools.partial(_text, vocabulary, tokens, (tokens.stop, *config.sampler.get('stop', ())))
  return Sentences(source=lambda sentence: _ended(vocabulary.encode(data.prefix + sentence), tokens.stop),
                   target=lambda sentence: _ended(write(sentence), tokens.stop),
                   around=len(vocabulary.encode(data.prefix)) + 1, unit='tokens', texts=(text, text),
                   words=lambda tokens_T: split(text(tokens_T)), split=split, tokens=tokens,
                   sizes=(data.vocabulary_size, 0), known=vocabulary.size, unused=vocabulary.unused,
                   files={**vocabulary.files(), **imported.files(config)})


def open_pieces(folder: pathlib.Path) -> tokenizers.Tokenizer | Marian:
  """The tokenizer in a folder of a public model or of a run: Marian's if it has its files, or any other.

  Raises:
    UserError: there is no tokenizer, or it is damaged.
  """
  return Marian(folder) if any(
    (folder / name).is_file() for name in MARIAN_SIDES) else tokenizers.open_tokenizer(folder)


def _ended(tokens_T: np.ndarray, stop: int) -> np.ndarray:
  return np.append(tokens_T, stop).astype(np.int32)


def _text(vocabulary: Any, tokens: Tokens, stop: tuple[int, ...], tokens_T: np.ndarray) -> str:
  """The text before the first stop token, without padding and start tokens."""
  stops_S = np.flatnonzero(np.isin(tokens_T, stop))
  tokens_T = tokens_T[:stops_S[0]] if len(stops_S) else tokens_T
  return vocabulary.decode(tokens_T[(tokens_T >= 0) & ~np.isin(tokens_T, (tokens.padding, tokens.start))])
