"""Subword tokenizers: byte-level BPE and WordPiece (trained or read from tokenizer.json), and SentencePiece.

BERT's vocab.txt is converted to an equivalent tokenizer.json.

A tokenizer is stored as its published files (`Pieces.files`). `open_tokenizer` reads any folder with these files: that
of a public model, of a run or of tokens.
"""

from collections.abc import Iterable, Mapping, Sequence
import json
import os
import pathlib
from typing import Any

import numpy as np
import sentencepiece
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from genjax.data.text.documents import whole
from genjax.types import UserError, expanded

LIBRARY = 'tokenizer.json'  # of the library `tokenizers`
SENTENCEPIECE = 'tokenizer.model'
T5 = 'spiece.model'  # the same file under T5's name
WORDPIECE = 'vocab.txt'  # of BERT: one piece per line
FILES = (LIBRARY, SENTENCEPIECE, T5, WORDPIECE)  # in the order of the search
SETTINGS = 'tokenizer_config.json'  # of `transformers`: which tokens are special
TRAINED = ('bpe', 'wordpiece', 'bert')
END = '<|endoftext|>'
UNKNOWN = '[UNK]'
SPECIAL = ('bos', 'eos', 'pad', 'unk')
# Usual names of special tokens, for files that don't name them.
_USUAL = {
  'bos': ('<s>', '<|begin_of_text|>', '[CLS]', '<bos>'), 'eos': (END, '</s>', '<|end_of_text|>', '[SEP]', '<eos>'),
  'pad': ('<pad>', '[PAD]'), 'unk': ('<unk>', UNKNOWN), 'mask': ('<mask>', '[MASK]')
}
_BERT = ('[PAD]', UNKNOWN, '[CLS]', '[SEP]', '[MASK]')
_BERT_KINDS = {'bos': 'cls', 'eos': 'sep'}  # their names in the settings of encoders


class Pieces:
  """A tokenizer of the library `tokenizers`.

  Special tokens in a text, such as '<|endoftext|>', are encoded as these tokens. Truncation, padding and dropout that
  the file may contain are switched off; `files` returns the original file.

  Args:
    text: contents of a tokenizer.json.
    settings: contents of the tokenizer_config.json beside it; '' for none.
    where: its name in messages.

  Attributes:
    size: one more than the largest token.
    unused: tokens below it that have no text.
    special: 'bos', 'eos', 'pad', 'unk', 'mask' -> token, for those that exist; BERT's '[CLS]' and '[SEP]' are 'bos' and
      'eos'.
    begins: tokens before every text.

  Raises:
    UserError: the text is not a tokenizer.json.
  """

  def __init__(self, text: str, settings: str = '', where: str = LIBRARY):
    try:
      self._tokenizer = tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises no narrower type
      raise UserError(f'{where} is not a tokenizer of the library tokenizers: {error}') from None
    # A file may also contain settings of its author's training: truncation, padding, random splits.
    self._tokenizer.no_truncation()
    self._tokenizer.no_padding()
    if getattr(self._tokenizer.model, 'dropout', None):
      self._tokenizer.model.dropout = None
    self._text, self._settings = text, settings
    vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
    self.size = max(vocabulary.values(), default=-1) + 1
    if not self.size:
      raise UserError(f'{where} has no tokens')
    self.unused = tuple(sorted(set(range(self.size)).difference(vocabulary.values())))
    self.special = _special(_settings(settings, where), vocabulary)
    self.begins = tuple(self._tokenizer.encode('', add_special_tokens=True).ids[:1])
    if self.begins != (self.special.get('bos'),):  # a template may also end a text
      self.begins = ()

  def encode(self, text: str) -> np.ndarray:
    """Unsigned integers (T,) of the smallest type that holds the vocabulary."""
    return self.encode_all([text])[0]

  def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
    """`encode` of many texts, on all cores."""
    dtype = np.min_scalar_type(self.size - 1)
    texts = [whole(text, 'a text to encode') for text in texts]
    return [
      np.asarray(found.ids, dtype) for found in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    ]

  def decode(self, tokens: Any) -> str:
    """The text of integers (T,). Tokens beyond the vocabulary, which a padded model may draw, are left out."""
    return self._tokenizer.decode(_within(tokens, self.size), skip_special_tokens=False)

  def files(self) -> dict[str, bytes]:
    """Name -> bytes of the files that `open_tokenizer` reads; `transformers` reads them too."""
    settings = self._settings
    if not settings:
      names = {f'{kind}_token': self._tokenizer.id_to_token(token) for kind, token in self.special.items()}
      settings = json.dumps({'tokenizer_class': 'PreTrainedTokenizerFast', **names}, indent=2) + '\n'
    return {LIBRARY: self._text.encode(), SETTINGS: settings.encode()}


class SentencePiece:
  """A model of the library `sentencepiece` (Kudo and Richardson 2018), with the interface of `Pieces`.

  Control tokens have no text: no text encodes to them, and they decode to ''.
  """

  unused = ()

  def __init__(self, model: bytes, settings: str = '', where: str = SENTENCEPIECE):
    self._name = T5 if pathlib.Path(where).name == T5 else SENTENCEPIECE
    self._processor: Any = sentencepiece.SentencePieceProcessor()
    try:
      self._processor.LoadFromSerializedProto(model)
    except RuntimeError as error:
      raise UserError(
        f'{where} is not a SentencePiece model: {error}. A tokenizer.json can replace it') from None
    self._model, self._settings = model, settings
    self.size = int(self._processor.get_piece_size())
    ids = {kind: int(getattr(self._processor, f'{kind}_id')()) for kind in SPECIAL}
    self.special = {kind: token for kind, token in ids.items() if token >= 0}
    told = _settings(settings, where)
    adds = told.get('add_bos_token', str(told.get('tokenizer_class', '')).startswith('Llama'))
    self.begins = (self.special['bos'],) if adds and 'bos' in self.special else ()

  def encode(self, text: str) -> np.ndarray:
    """Unsigned integers (T,) of the smallest type that holds the vocabulary."""
    return self.encode_all([text])[0]

  def encode_all(self, texts: Sequence[str]) -> list[np.ndarray]:
    """`encode` of many texts, on all cores."""
    texts = [whole(text, 'a text to encode') for text in texts]
    return [np.asarray(tokens, np.min_scalar_type(self.size - 1)) for tokens in self._processor.encode(texts)]

  def decode(self, tokens: Any) -> str:
    """The text of integers (T,). Tokens beyond the vocabulary, which a padded model may draw, are left out."""
    return self._processor.decode(_within(tokens, self.size))

  def files(self) -> dict[str, bytes]:
    """Name -> bytes of the files that `open_tokenizer` reads."""
    return {self._name: self._model, **({SETTINGS: self._settings.encode()} if self._settings else {})}


Tokenizer = Pieces | SentencePiece


def open_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
  """Reads a tokenizer.json, a SentencePiece model (.model) or a vocab.txt, or a folder with one.

  The folder may be that of a public model, of a run or of tokens. tokenizer_config.json or special_tokens_map.json
  beside the file name the special tokens; without them the usual names are used.

  Raises:
    UserError: there is no such file, or it is damaged.
  """
  path = expanded(path)
  if path.is_dir():
    found = [path / name for name in FILES if (path / name).is_file()]
    if not found:
      raise UserError(f'the folder {path} has no tokenizer: expected one of {FILES} in it')
    path = found[0]
  if not path.exists():
    raise UserError(
      f'cannot read the tokenizer {path}: it does not exist; expected one of {FILES}, or a folder with one')
  if path.suffix not in ('.json', '.model') and path.name != WORDPIECE:
    raise UserError(
      f'{path}: expected a {LIBRARY}, a SentencePiece model that ends in .model, a {WORDPIECE} of BERT, or a folder '
      'of one')
  beside = [path.with_name(name) for name in (SETTINGS, 'special_tokens_map.json') if path.with_name(name).is_file()]
  try:
    data = path.read_bytes()
    settings = beside[0].read_text('utf-8-sig') if beside else ''
    if path.suffix == '.model':
      return SentencePiece(data, settings, str(path))
    text = data.decode('utf-8-sig')
    text = _wordpiece(text, _settings(settings, str(path)), str(path)) if path.name == WORDPIECE else text
    return Pieces(text, settings, str(path))
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(f'cannot read the tokenizer {path}: {error}') from None


def train(kind: str, documents: Sequence[str], size: int) -> Pieces:
  """Trains a tokenizer; the result depends only on the arguments.

  'bpe': byte-level byte-pair encoding with GPT-2's word splitting (Sennrich et al. 2016, Radford et al. 2019). Every
  text can be encoded and is decoded exactly. Token 0 is '<|endoftext|>'. 'wordpiece': WordPiece (Wu et al. 2016) with
  BERT's word splitting, case-sensitive. Words with characters that are not in the training text become '[UNK]', and
  white space is decoded as single spaces. 'bert': WordPiece without case and accents, with the special tokens of BERT
  (Devlin et al. 2018). Token 0 is '[PAD]'.

  Args:
    kind: one of `TRAINED`.
    documents: texts.
    size: largest number of tokens; there are fewer if the texts don't have enough pieces.

  Raises:
    UserError: there is no text, or the size is smaller than its number of characters.
  """
  if kind not in TRAINED:
    raise UserError(f'the kind of tokenizer to train must be one of {TRAINED}, got {kind!r}')
  if not any(documents):
    raise UserError(f'a tokenizer needs text to train on, got {len(documents)} documents without text')
  normalizer = normalizers.BertNormalizer(lowercase=True) if kind == 'bert' else None
  if normalizer:
    documents = [normalizer.normalize_str(document) for document in documents]
  model, splitter, decoder, trainer, special, alphabet = _recipe(kind, documents)
  if size < (least := len(special) + len(alphabet)):
    raise UserError(
      f'config.data.vocabulary_size of a {kind} tokenizer must be at least {least} (single characters and special '
      f'tokens) for this text, got {size}')
  tokenizer: Any = tokenizers.Tokenizer(model)
  tokenizer.pre_tokenizer = splitter
  # Characters are passed as special tokens, because the library numbers those of WordPiece in an order that varies from
  # run to run.
  tokenizer.train_from_iterator(
    documents, trainer(vocab_size=size, special_tokens=[*special, *alphabet], show_progress=False))
  learned = json.loads(tokenizer.to_str())['model']
  if kind == 'bpe':
    pieces = models.BPE(learned['vocab'], [tuple(pair) for pair in learned['merges']])
  else:
    pieces = models.WordPiece(learned['vocab'], unk_token=UNKNOWN)
  made: Any = tokenizers.Tokenizer(pieces)
  made.pre_tokenizer, made.decoder = splitter, decoder
  if normalizer:
    made.normalizer = normalizer
  made.add_special_tokens({'bpe': [END], 'wordpiece': [], 'bert': list(_BERT)}[kind])
  return Pieces(made.to_str(), where=f'the {kind} tokenizer')


def _recipe(kind: str, documents: Iterable[str]) -> tuple[Any, ...]:
  """The model, splitter, decoder, trainer, special tokens and single characters of a kind of tokenizer."""
  if kind == 'bpe':
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    return (models.BPE(), pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel(), trainers.BpeTrainer,
            [END], alphabet)
  splitter = pre_tokenizers.BertPreTokenizer()
  words = {word for document in documents for word, _ in splitter.pre_tokenize_str(document)}
  alphabet = [
    *sorted({word[0] for word in words}), *sorted({f'##{character}' for word in words for character in word[1:]})
  ]
  special = list(_BERT) if kind == 'bert' else [UNKNOWN]
  return models.WordPiece(
    unk_token=UNKNOWN), splitter, decoders.WordPiece(), trainers.WordPieceTrainer, special, alphabet


def _wordpiece(text: str, settings: Mapping[str, Any], where: str) -> str:
  """The tokenizer.json of a vocab.txt, whose line n + 1 is token n. Ignores case by default, like `transformers`."""
  # Only at newlines: str.splitlines also splits at other characters, which may be pieces.
  pieces = [line.removesuffix('\r') for line in text.removesuffix('\n').split('\n')]
  vocabulary = {piece: token for token, piece in enumerate(pieces)}
  if lacking := [piece for piece in _BERT if piece not in vocabulary]:
    raise UserError(f'{where} is not a vocabulary of BERT: it lacks {lacking[0]}')
  for name, kinds in (('do_lower_case', (bool,)), ('strip_accents', (bool, type(None))), ('tokenize_chinese_chars',
                                                                                          (bool,))):
    if name in settings and not isinstance(settings[name], kinds):
      raise UserError(f'{SETTINGS} beside {where}: {name} must be true or false, got {settings[name]!r}')
  made: Any = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=UNKNOWN))
  made.normalizer = normalizers.BertNormalizer(
    lowercase=settings.get('do_lower_case', True), strip_accents=settings.get('strip_accents'),
    handle_chinese_chars=settings.get('tokenize_chinese_chars', True))
  made.pre_tokenizer, made.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
  made.post_processor = processors.BertProcessing(('[SEP]', vocabulary['[SEP]']), ('[CLS]', vocabulary['[CLS]']))
  made.add_special_tokens(list(_BERT))
  return made.to_str()


def _settings(text: str, where: str) -> Mapping[str, Any]:
  try:
    settings = json.loads(text or '{}')
  except ValueError as error:
    raise UserError(f'{SETTINGS} beside {where} is not JSON: {error}') from None
  return settings if isinstance(settings, dict) else {}


def _special(settings: Mapping[str, Any], vocabulary: Mapping[str, int]) -> dict[str, int]:
  """Kind -> special token, from a tokenizer_config.json, or by the usual names if it names none."""
  found = {}
  says = any(f'{kind}_token' in settings for kind in (*_USUAL, *_BERT_KINDS.values()))
  for kind in _USUAL:
    told = settings.get(f'{kind}_token') or settings.get(f'{_BERT_KINDS.get(kind)}_token')
    names = [told['content'] if isinstance(told, dict) and 'content' in told else told] if says else _USUAL[kind]
    tokens = [vocabulary[name] for name in names if isinstance(name, str) and name in vocabulary]
    found.update({kind: tokens[0]} if tokens else {})
  return found


def _within(tokens: Any, size: int) -> list[int]:
  array_T = np.asarray(tokens)
  if len(array_T) and array_T.min() < 0:
    raise UserError(f'tokens must not be negative, got {array_T.min()}')
  return array_T[array_T < size].tolist()
