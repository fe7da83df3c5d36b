"""Conditions that are texts: tokens of a frozen encoder, or of an encoder that is trained with the network."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np

from genjax import checks
from genjax.data.pipeline import Columns, Source, columns_of
from genjax.data.text import tokenizers
from genjax.data.text.tokenization import identity
from genjax.data.text.windows import ByteVocabulary
from genjax.experiments import latents, parts
from genjax.experiments.condition_interface import Common, Made, Scope
from genjax.runs import assets, checkpoints
from genjax.training.monitoring import logs
from genjax.types import Array, Params, UserError, expanded

TRAINED = ('bpe', 'wordpiece')
TRAINING_TEXTS = 10_000  # captions at most that a tokenizer is learned from
Tokenize = Callable[[Sequence[str], bool], tuple[np.ndarray, np.ndarray]]  # texts, truncate -> ids_BL, mask_BL


@dataclasses.dataclass(frozen=True, kw_only=True)
class Text(Common):
  """A text, as tokens that the network attends to.

  Attributes:
    column: of the data, with texts.
    part: a text encoder of config.parts; '' for one that the network has and learns.
    truncate: whether longer texts are cut off, which is said once; False refuses them.
    length: tokens that are read, special ones included; 0 for those of the part, or 64.
    absent: the text that stands for none.
    tokens: whether the network attends to the tokens of a part.
    pooled: whether the one vector that a part gives for the text is added to the embedded time.
    stored: whether the data holds what the part gives for each caption, as `genjax data encode --text` stores it.
      Training then runs the encoder for the absent text alone; prompts of samples are encoded as ever.
    vocabulary: of a learned encoder: 'byte'; 'bpe' or 'wordpiece', learned from captions of the training data; or the
      path of a tokenizer, see `genjax.data.text.tokenizers.open_tokenizer`. The run keeps it.
    vocabulary_size: most tokens of one that is learned.
  """

  column: str = 'text'
  part: str = ''
  truncate: bool = True
  length: int = 0
  absent: str = ''
  tokens: bool = True
  pooled: bool = False
  stored: bool = False
  vocabulary: str = 'byte'
  vocabulary_size: int = 1000

  def __post_init__(self):
    super().__post_init__()
    checks.whole(self, 0, 'length')
    checks.whole(self, 1, 'vocabulary_size')
    if not (self.tokens or self.pooled):
      raise checks.OutOfRange('tokens and pooled are both False, so that nothing of the text is read')
    if self.pooled and not self.part:
      raise checks.OutOfRange('pooled needs a part: the encoder that the network learns gives tokens alone')
    if self.stored and (not self.part or self.length):
      raise checks.OutOfRange('stored needs the part that encoded the captions, at the length that it reads: set part, '
                              'and length to 0')
    if self.length == 1:
      raise checks.OutOfRange('length must be at least 2: a token and the one that ends a text')


def text(scope: Scope, options: Text) -> Made:
  """See `Text`."""
  ids, mask = scope.column('ids'), scope.column('ids_mask')
  part, files, assets = None, {}, {}
  if options.part:
    part = parts.open(scope.config, options.part, 'text_encoder')
    encoder = part.functions
    tokenize, length = shorter(encoder.tokenize, options.length, encoder.length, scope.where, options.part)
    network = {**({'token_width': encoder.width} if options.tokens else {}),
               **({'vector_width': encoder.pooled_width or encoder.width} if options.pooled else {})}
    facts: dict[str, Any] = {'part': options.part, 'length': length}
    if options.stored:
      part = latents.that_encoded(scope.config, part, 'text')
  else:
    length = options.length or 64
    vocabulary, files = _vocabulary(scope, options)
    assets = {'vocabulary': options.vocabulary, 'vocabulary_size': options.vocabulary_size} if files else {}
    tokenize = _tokenizer(vocabulary, length)
    network = {'vocabulary': vocabulary.size + 1, 'text_length': length}
    facts = {'tokenizer': identity(vocabulary), 'length': length}
  cut = Cut(scope.name, tokenize, options.truncate)

  def encode(rows: np.ndarray) -> Columns:
    ids_BL, mask_BL = cut([str(row) for row in rows])
    return {ids: ids_BL, mask: mask_BL}

  def give(frozen: Params, columns: Mapping[str, Array]) -> Mapping[str, Any]:
    if part is None:
      return {'ids': columns[ids], 'ids_mask': columns[mask]}
    found = part.functions.encode(frozen[part.name], columns[ids], columns[mask])
    return {**({'tokens': found['tokens'], 'tokens_mask': found['mask']} if options.tokens else {}),
            **({'vector': found['pooled']} if options.pooled else {})}

  entries = ({'tokens': 'text_tokens', 'tokens_mask': 'text_mask'} if options.tokens else {}) | (
    {'vector': 'text_pooled'} if options.pooled else {})
  shapes = {} if part is None else {'text_tokens': jax.ShapeDtypeStruct((length, part.functions.width), np.float32),
                                    'text_mask': jax.ShapeDtypeStruct((length,), np.bool_),
                                    'text_pooled': jax.ShapeDtypeStruct((network.get('vector_width', 0),), np.float32)}
  batch = {column: shapes[column] for column in entries.values()} if options.stored else {}

  def parse(value: str) -> np.ndarray:
    cut([value])
    return np.asarray(value)

  return Made(
    reads=(options.column,), take=lambda columns: texts_of(columns, options.column), encode=encode,
    columns={ids: jax.ShapeDtypeStruct((length,), np.int32), mask: jax.ShapeDtypeStruct((length,), np.bool_)},
    null={name: column[0] for name, column in encode(np.asarray([options.absent])).items()}, give=give, parse=parse,
    describe=f'a text of at most {length} tokens' if not options.truncate else
    f'a text, of which {length} tokens are read', row=None, network=network, facts=facts, assets=assets, files=files,
    part=part, stored=entries if options.stored else {}, batch=batch)


class Cut:
  """Texts -> ids and mask. A text that is too long is cut off, which is said once, or refused."""

  def __init__(self, name: str, tokenize: Tokenize, truncate: bool):
    self._name, self._tokenize, self._truncate, self._said = name, tokenize, truncate, False

  def __call__(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    if self._truncate and self._said:
      return self._tokenize(texts, True)
    try:
      return self._tokenize(texts, False)
    except UserError as error:
      if not self._truncate:
        raise UserError(f'condition {self._name!r}: {error}; shorten it, or set conditions.{self._name}.truncate=True '
                        'to have it cut off') from error
      found = self._tokenize(texts, True)  # raises again where it was not the length
      self._said = True
      logs.say(f'condition {self._name!r}: {error}; it is cut off, as all longer ones are from here on')
      return found


def shorter(tokenize: Tokenize, wanted: int, length: int, where: str, part: str) -> tuple[Tokenize, int]:
  """A part's tokenizer at `wanted` tokens, where that is less than the `length` that it reads, and their number.

  Args:
    tokenize: of the part.
    wanted: how many tokens; 0 for all that it reads.
    length: how many it reads.
    where: the key of the condition, for messages.
    part: its name, for messages.

  Raises:
    UserError: it reads fewer.
  """
  if not wanted or wanted == length:
    return tokenize, length
  if wanted > length:
    raise UserError(f'{where}.length is {wanted}, and the part {part!r} reads {length} tokens')

  def cut(texts: Sequence[str], truncate: bool) -> tuple[np.ndarray, np.ndarray]:
    ids_BL, mask_BL = tokenize(texts, truncate)
    if mask_BL[:, wanted:].any() and not truncate:
      row = int(mask_BL.sum(axis=1).argmax())
      raise _too_long(texts[row], int(mask_BL[row].sum()), wanted)
    return ids_BL[:, :wanted], mask_BL[:, :wanted]

  return cut, wanted


def _tokenizer(vocabulary: Any, length: int) -> Tokenize:
  """Texts -> tokens and, after the last of them, the one that ends a text: the first beyond the vocabulary."""
  end = vocabulary.size

  def tokenize(texts: Sequence[str], truncate: bool) -> tuple[np.ndarray, np.ndarray]:
    ids_BL = np.full((len(texts), length), end, np.int32)
    mask_BL = np.zeros((len(texts), length), bool)
    for row, value in enumerate(texts):
      tokens = vocabulary.encode(value)
      if len(tokens) >= length and not truncate:
        raise _too_long(value, len(tokens) + 1, length)
      count = min(len(tokens), length - 1)
      ids_BL[row, :count] = tokens[:count]
      mask_BL[row, :count + 1] = True
    return ids_BL, mask_BL

  return tokenize


def _too_long(value: str, count: int, length: int) -> UserError:
  shown = value if len(value) <= 60 else f'{value[:57]}...'
  return UserError(f'the text {shown!r} has {count} tokens, and {length} are read')


def _vocabulary(scope: Scope, options: Text) -> tuple[Any, dict[str, bytes]]:
  """The vocabulary of a learned encoder, and the files that the run keeps of it."""
  if options.vocabulary == 'byte':
    return ByteVocabulary(), {}
  names = {ending: f'{scope.name}_tokenizer{ending}' for ending in ('.json', '.model')}
  same = scope.kept.get('vocabulary') == options.vocabulary
  kept = [scope.folder / name for name in names.values() if scope.folder and same and (scope.folder / name).is_file()]
  if not kept and options.vocabulary in TRAINED and scope.config.get('init_from'):
    kept = _of_start(scope, options, tuple(names.values()))
  if kept:
    found = tokenizers.open_tokenizer(kept[0])
  elif options.vocabulary in TRAINED:
    try:
      found = tokenizers.train(options.vocabulary, _captions(scope, options.column), options.vocabulary_size)
    except UserError as error:
      raise UserError(str(error).replace('config.data.vocabulary_size', f'{scope.where}.vocabulary_size')) from error
  elif '/' in options.vocabulary or expanded(options.vocabulary).exists():
    found = tokenizers.open_tokenizer(options.vocabulary)
  else:
    raise UserError(f"{scope.where}.vocabulary must be 'byte', one of {TRAINED}, or the path of a tokenizer, got "
                    f'{options.vocabulary!r}')
  model = [data for name, data in found.files().items() if name != tokenizers.SETTINGS][0]
  return found, {names['.model' if isinstance(found, tokenizers.SentencePiece) else '.json']: model}


def _of_start(scope: Scope, options: Text, names: Sequence[str]) -> list[pathlib.Path]:
  """The tokenizer of the run that parameters are taken from: to them, the tokens of another one mean other texts."""
  folder, _ = checkpoints.run_and_step(scope.config.init_from)
  facts = assets.read(folder)
  if facts.get('conditions', {}).get(scope.name, {}).get('vocabulary') != options.vocabulary:
    return []
  return [folder / name for name in names if (folder / name).is_file()]


def _captions(scope: Scope, column: str) -> list[str]:
  """Captions of the training data, spread over all of it."""
  source = scope.open(scope.config.data.train, (column,))
  chosen = np.unique(np.linspace(0, len(source) - 1, TRAINING_TEXTS).astype(np.int64))
  return [value for start in range(0, len(chosen), 256) for value in _texts(scope, source, column,
                                                                           chosen[start:start + 256])]


def _texts(scope: Scope, source: Source, column: str, indices: np.ndarray) -> list[str]:
  columns = columns_of(source, indices, (column,))  # a folder's pictures need not be decoded
  if column not in columns:
    raise lacking(scope, column, source.get(indices[:1]))
  return [str(value) for value in texts_of(columns, column)]


def lacking(scope: Scope, column: str, columns: Mapping[str, Any]) -> UserError:
  """The error of data without a column."""
  hint = ' Captions of pictures come from metadata.jsonl, or from a .txt file beside each.' if column == 'text' else ''
  return UserError(f'{scope.where} reads the column {column!r}, and the data {scope.config.data.name!r} has the '
                   f'columns {sorted(columns)}; name one of them in {scope.where}.column, or take data that has '
                   f'it.{hint}')


def texts_of(columns: Columns, column: str) -> np.ndarray:
  """A column of texts as an array of str.

  Raises:
    UserError: they are no texts.
  """
  values = [value.decode() if isinstance(value, bytes) else value for value in columns[column]]
  if strange := [value for value in values if not isinstance(value, str)]:
    raise UserError(f'the column {column!r} must hold texts, got {strange[0]!r} of type {type(strange[0]).__name__}')
  return np.asarray(values, np.str_)
