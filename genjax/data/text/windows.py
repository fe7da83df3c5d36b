"""Vocabularies of bytes, characters and ids, and a source of windows of a token stream."""

from collections.abc import Mapping
import hashlib
import types
from typing import Any, Protocol

import numpy as np

from genjax.data.prepared import prepare
from genjax.data.text.documents import part_of, whole
from genjax.data.text.token_files import TokenFiles
from genjax.types import UserError, expanded

_NPY_MAGIC = b'\x93NUMPY'  # first bytes of a .npy file
_NONE: Mapping[str, int] = types.MappingProxyType({})


class Vocabulary(Protocol):
  """Text <-> tokens 0 .. size - 1.

  special: 'bos', 'eos', 'pad', 'unk' -> token, for those that exist. begins: tokens before every text. unused: tokens
    below the size without text.
  """

  @property
  def size(self) -> int: ...

  @property
  def special(self) -> Mapping[str, int]: ...

  @property
  def begins(self) -> tuple[int, ...]: ...

  @property
  def unused(self) -> tuple[int, ...]: ...

  def encode(self, text: str) -> np.ndarray:
    """Integers (T,)."""
    ...

  def decode(self, tokens: Any) -> str:
    """The text of integers (T,)."""
    ...


class ByteVocabulary:
  """UTF-8 bytes as tokens. Every text can be encoded."""

  size = 256
  special, begins, unused = _NONE, (), ()

  def encode(self, text: str) -> np.ndarray:
    """Encodes text as uint8 (T,).

    Raises:
      UserError: the text has half of a surrogate pair, which has no bytes.
    """
    return np.frombuffer(whole(text, 'a text in bytes').encode('utf-8'), np.uint8)

  def decode(self, tokens: Any) -> str:
    """Decodes integers (T,); bytes that are not UTF-8 become U+FFFD."""
    return _checked(tokens, self.size).astype(np.uint8).tobytes().decode('utf-8', errors='replace')


class CharVocabulary:
  """The characters of an alphabet, each once, sorted by code point: token i is `alphabet[i]`."""

  special, begins, unused = _NONE, (), ()

  def __init__(self, alphabet: str):
    if not alphabet:
      raise UserError('a character vocabulary needs at least one character, got an empty alphabet')
    self.alphabet = ''.join(sorted(set(alphabet)))
    self.size = len(self.alphabet)
    self._codes_V = _codes(self.alphabet)

  @classmethod
  def from_text(cls, text: str) -> 'CharVocabulary':
    return cls(text)

  def encode(self, text: str) -> np.ndarray:
    """Unsigned integers (T,) of the smallest type that holds the vocabulary.

    Raises:
      UserError: the alphabet lacks a character.
    """
    codes_T = _codes(text)
    tokens_T = np.minimum(np.searchsorted(self._codes_V, codes_T), self.size - 1)
    unknown = np.flatnonzero(self._codes_V[tokens_T] != codes_T)
    if len(unknown):
      characters = sorted({text[position] for position in unknown})
      shown = ', '.join(map(repr, characters[:5])) + (' ...' if len(characters) > 5 else '')
      raise UserError(
        f'unknown character {shown}, first at position {unknown[0]} of the text; this vocabulary has the '
        f'{self.size} characters {self.alphabet!r}')
    return tokens_T.astype(np.min_scalar_type(self.size - 1))

  def decode(self, tokens: Any) -> str:
    """The text of integers (T,)."""
    return ''.join(self.alphabet[token] for token in _checked(tokens, self.size).tolist())


class IdVocabulary:
  """The tokens 0 .. size - 1 of an external tokenizer; the text of a token is its number."""

  special, begins, unused = _NONE, (), ()

  def __init__(self, size: int):
    if size < 1:
      raise UserError(f'config.data.vocabulary_size must be at least 1, got {size}')
    self.size = size

  def encode(self, text: str) -> np.ndarray:
    """Encodes '464 3290 318' as int64 (T,).

    Raises:
      UserError: the text is not a list of token numbers separated by spaces.
    """
    words = text.split()
    if unknown := [word for word in words if not word.isdecimal()]:
      raise UserError(f'expected numbers of tokens separated by spaces, such as "464 3290 318", got {unknown[0]!r}')
    return _checked([int(word) for word in words], self.size)

  def decode(self, tokens: Any) -> str:
    """The numbers of integers (T,)."""
    return ' '.join(map(str, np.asarray(tokens).tolist()))


class Windows:
  """Windows of length + 1 tokens at distance `stride`: column 'tokens', int32 (B, T + 1).

  The inputs are the first `length` tokens, the targets the last. With stride `length` every target occurs once, with
  stride 1 a window starts at every token. A rest that does not fill a window is not used.

  Args:
    tokens: the stream, (T,) or `TokenFiles`.
    length, stride: in tokens.
    facts: facts for the fingerprint.
    end: the token that ends a document. If given, there are columns 'segments', int32 (B, T + 1), the number of a
      token's document within the window, and 'weights', float32 (B, T), 0 where the target begins the next document.

  Raises:
    UserError: the text is shorter than one window.
  """

  def __init__(self, tokens: np.ndarray | TokenFiles, length: int, stride: int = 1,
               facts: Mapping[str, Any] | None = None, end: int | None = None):
    if length < 1 or stride < 1:
      raise UserError(f'length and stride of windows must be at least 1, got length {length} and stride {stride}')
    if len(tokens) < length + 1:
      raise UserError(
        f'a window of length {length} needs {length + 1} tokens, the text has {len(tokens)}; '
        'give more text or a shorter context')
    self.tokens, self.length, self.stride, self.end = tokens, length, stride, end
    self._facts = dict(facts or {})

  def __len__(self) -> int:
    return (len(self.tokens) - self.length - 1) // self.stride + 1

  def get(self, indices: np.ndarray) -> dict[str, np.ndarray]:
    tokens_BT = self.tokens[indices[:, None] * self.stride + np.arange(self.length + 1)].astype(np.int32)
    if self.end is None:
      return {'tokens': tokens_BT}
    segments_BT = np.cumsum(tokens_BT == self.end, axis=1, dtype=np.int32)
    segments_BT[:, 1:] = segments_BT[:, :-1].copy()  # the end token belongs to its document
    segments_BT[:, 0] = 0
    return {'tokens': tokens_BT, 'segments': segments_BT,
            'weights': (segments_BT[:, 1:] == segments_BT[:, :-1]).astype(np.float32)}

  def fingerprint(self) -> dict[str, Any]:
    tokens = self.tokens
    checksum = tokens.checksum if isinstance(tokens, TokenFiles) else hashlib.sha256(
      np.ascontiguousarray(tokens).data).hexdigest()[:16]
    own = {'tokens': len(tokens), 'length': self.length, 'stride': self.stride, 'checksum': checksum}
    own |= {} if self.end is None else {'end': self.end}
    return self._facts | own | {'examples': len(self)}


def open_tokens(path: prepare.Path, split: str, size: int) -> np.ndarray:
  """The tokens of a split of a NumPy file (.npy) of integers (T,), as a memory map.

  Args:
    path: path of the file.
    split: 'train' and slices of it, which count tokens: 'train[:90%]', 'train[-100000:]'.
    size: size of the vocabulary.

  Raises:
    UserError: the file does not exist or has no list of integers, a token is outside the vocabulary, or the split is
      empty.
  """
  place = expanded(path)
  try:
    with open(place, 'rb') as file:
      if file.read(len(_NPY_MAGIC)) != _NPY_MAGIC:
        raise ValueError('it is not a .npy file with one array')
    tokens_T = np.load(place, mmap_mode='r', allow_pickle=False)
  except (OSError, ValueError, EOFError) as error:
    raise UserError(
      f'cannot read tokens from {path}: {error}; expected a .npy file of integers, as numpy.save writes it') from error
  if tokens_T.ndim != 1 or tokens_T.dtype.kind not in 'iu':
    raise UserError(f'{path} must hold integers of shape (T,), got {tokens_T.dtype} of shape {tokens_T.shape}')
  part_T = tokens_T[part_of(path, split, len(tokens_T), 'tokens')]
  if (largest := int(part_T.max())) >= size or int(part_T.min()) < 0:
    raise UserError(
      f'{path} holds tokens from {int(part_T.min())} to {largest}; set config.data.vocabulary_size, now {size}, '
      'above that')
  return part_T


def _codes(text: str) -> np.ndarray:
  return np.frombuffer(text.encode('utf-32-le', errors='surrogatepass'), np.uint32)


def _checked(tokens: Any, size: int) -> np.ndarray:
  array_T = np.asarray(tokens)
  outside = array_T[(array_T < 0) | (array_T >= size)]
  if len(outside):
    raise UserError(f'tokens must be from 0 to {size - 1}, got {outside[0]}')
  return array_T
