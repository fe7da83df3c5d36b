"""The tokenizer of Marian models: a SentencePiece model for each language, and one shared vocabulary."""

from collections.abc import Sequence
import json
import os
import pathlib
from typing import Any

import numpy as np
import sentencepiece

from genjax.data.text import tokenizers
from genjax.data.text.documents import whole
from genjax.types import UserError, expanded

SIDES = ('source.spm', 'target.spm')
VOCABULARY = 'vocab.json'  # piece -> token
SPECIAL = {'eos': '</s>', 'pad': '<pad>', 'unk': '<unk>'}


class Marian:
  """Sentences of two languages <-> tokens of one vocabulary.

  A source may begin with the code of the target language, such as '>>fr<<', if the vocabulary has it. Texts are only
  normalised by SentencePiece.

  Args:
    folder: folder of a public model or of a run, with `SIDES` and `VOCABULARY`.

  Attributes:
    size: one more than the largest token.
    unused: tokens below it that have no text.
    special: 'eos', 'pad', 'unk' -> token.

  Raises:
    UserError: a file is missing or damaged, or the languages have separate vocabularies.
  """

  def __init__(self, folder: str | os.PathLike[str]):
    folder = expanded(folder)
    names = (*SIDES, VOCABULARY)
    if missing := [name for name in names if not (folder / name).is_file()]:
      raise UserError(f'{folder} has no Marian tokenizer: it lacks {missing[0]}; expected {", ".join(names)}')
    self._files = {
      name: (folder / name).read_bytes() for name in (*names, tokenizers.SETTINGS) if (folder / name).is_file()
    }
    self._sides = [_processor(self._files[name], folder / name) for name in SIDES]
    try:
      self._tokens = json.loads(self._files[VOCABULARY])
      if json.loads(self._files.get(tokenizers.SETTINGS, b'{}')).get('separate_vocabs'):
        raise UserError(f'{folder} has a vocabulary for each language (separate_vocabs), but genjax needs one for both')
      self._pieces = {token: piece for piece, token in self._tokens.items()}
      self.size = max(self._pieces) + 1
      self.unused = tuple(sorted(set(range(self.size)).difference(self._pieces)))
      self.special = {kind: self._tokens[piece] for kind, piece in SPECIAL.items()}
    except (ValueError, AttributeError, TypeError, KeyError) as error:
      raise UserError(
        f'{folder / VOCABULARY} must be an object of pieces and their tokens with {", ".join(SPECIAL.values())}: '
        f'{error}') from None

  def encode(self, text: str, side: int = 0) -> np.ndarray:
    """Encodes a sentence of the source (side 0) or of the target (1), int32 (T,), without an end token."""
    code, text = [], whole(text, 'a text to encode')
    if side == 0 and text.startswith('>>') and '<<' in text:
      end = text.index('<<') + 2
      code, text = [text[:end]], text[end:]
    pieces: Sequence[str] = [*code, *self._sides[side].encode(text, out_type=str)]
    return np.asarray([self._tokens.get(piece, self.special['unk']) for piece in pieces], np.int32)

  def decode(self, tokens: Any) -> str:
    """Decodes integers (T,), without special tokens and without tokens beyond the vocabulary.

    A model with a padded vocabulary may draw the latter.
    """
    pieces = [self._pieces[token] for token in np.asarray(tokens).tolist()
              if token in self._pieces and token not in self.special.values()]
    return self._sides[1].decode_pieces(pieces).strip()

  def files(self) -> dict[str, bytes]:
    """Name -> bytes of the files of the tokenizer; `transformers` reads them too."""
    return self._files


def _processor(model: bytes, path: pathlib.Path) -> Any:
  processor: Any = sentencepiece.SentencePieceProcessor()
  try:
    processor.LoadFromSerializedProto(model)
  except RuntimeError as error:
    raise UserError(f'{path} is not a SentencePiece model: {error}') from None
  return processor
