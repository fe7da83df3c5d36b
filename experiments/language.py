"""Builder of language models: a decoder-only transformer on text or tokens."""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from genjax import checks
from genjax import config as config_lib
from genjax.config import Config
from genjax.data.pipeline import Pipeline
from genjax.data.sources import SOURCES, Arrays, Named
from genjax.data.synthetic import Noise, random_tokens
from genjax.data.text import tokenizers
from genjax.data.text.documents import open_documents
from genjax.data.text.parallel import pad
from genjax.data.text.token_files import TokenFiles, is_folder
from genjax.data.text.tokenization import identity
from genjax.data.text.windows import ByteVocabulary, CharVocabulary, IdVocabulary, Vocabulary, Windows, open_tokens
from genjax.experiments import encoders, imported, sections
from genjax.models.transformers import decoder
from genjax.objectives.decoding import END, SamplerOptions
from genjax.objectives.kinds import TextEncoder
from genjax.objectives.language import LanguageModel
from genjax.options import Section, named
from genjax.tables import Table
from genjax.training.experiment import Columns, Condition, Experiment
from genjax.training.optimization import optimizers
from genjax.types import Array, Tree, UserError, expanded

MODELS: Table = Table('language model', {'gpt': decoder.TransformerConfig, 'llama': decoder.llama}, takes=())
RANDOM_SPLIT_SIZES = {'train': 2**20, 'heldout': 64}  # splits of 'random_tokens' and their sizes


def build(config: Config) -> Experiment:
  """A causal language model.

  config.data: see `Data`.
  config.model: 'gpt' or 'llama' and options of `TransformerConfig`; its context may be longer than that of the data.
  config.sampler: see `SamplerOptions`.
  """
  data = config.data
  with checks.under('config.data'):
    given = config_lib.plain(data)
    checks.whole(given, 2, 'context')  # a prompt and a next token
    checks.whole(given, 0, 'vocabulary_size', 'heldout_stride')
  model_options(config, data.get('vocabulary_size') or 1)  # raises before a tokenizer is trained
  config_lib.build(SamplerOptions, config.sampler, 'config.sampler')  # before data is read
  read = functools.partial(_documents, data)
  text = _Text(config, read)
  vocabulary = text.vocabulary
  size = data.get('vocabulary_size') or vocabulary.size
  imported.check_size(config, vocabulary.size, size, 'config.data.vocabulary_size')
  model = model_options(config, size)
  sampler = imported.sampler(config, vocabulary.size, vocabulary.unused)
  objective = LanguageModel(decoder.transformer(model), functools.partial(decoder.init_cache, model), data.context,
                            sampler, text.bytes_per_token, functools.partial(decoder.lay_out, model),
                            model.balance)
  end = _end(config, vocabulary)

  def windows(split: str, stride: int) -> Windows | Noise | Arrays | Named:
    if data.vocabulary == 'ids' and data.name == 'random_tokens':
      count = config_lib.choose(RANDOM_SPLIT_SIZES, split, 'the split of random_tokens')
      return random_tokens(size, data.context, count, seed=list(RANDOM_SPLIT_SIZES).index(split))
    if data.name in SOURCES:
      return Named(data.name, data, split)
    if data.get('rows'):
      return text.rows(split)
    return Windows(text.tokens(split), data.context, stride,
                   {'name': data.name, 'split': split, 'vocabulary': data.vocabulary}, end)

  def prompt(given: str) -> np.ndarray:
    tokens = _beginning(vocabulary, given)
    if not 0 < len(tokens) < data.context:
      raise UserError(
        f'a prompt must have 1 to {data.context - 1} tokens (the context is {data.context}), got {len(tokens)}')
    return tokens

  start = _beginning(vocabulary, data.start)
  if not 0 < len(start) < data.context:
    raise UserError(
      f'config.data.start={data.start!r} is the default prompt: it must have 1 to {data.context - 1} tokens, but '
      f'has {len(start)}')
  example = {'tokens': jax.ShapeDtypeStruct((data.context + 1,), np.int32)}
  if end is not None:
    example['segments'] = example['tokens']
  if end is not None or data.get('rows'):
    example['weights'] = jax.ShapeDtypeStruct((data.context,), np.float32)
  return Experiment(
    objective=objective, train=Pipeline(lambda: windows(data.train, 1), config.batch_size, config.seed),
    heldout=Pipeline(lambda: windows(data.heldout,
                                     data.get('heldout_stride') or data.context),
                     config.batch_size, config.seed), optimizers=optimizers.from_config(
                       config.optimizers,
                       config.steps), example=example, ema=dict(config.ema), axes={'net': decoder.axes(model)},
    conditions={'prompt': Condition(prompt, lambda row: start, f'text of 1 to {data.context - 1} tokens',
                                    fill=END)}, render=functools.partial(_render, vocabulary), assets=text.assets,
    files=text.files, unit='tokens', units_per_example=data.context,
  )


@dataclasses.dataclass(frozen=True)
class Data(sections.Splits):
  """config.data.

  Attributes:
    name: of a data set of text, or the path of files, see `genjax.data.text.documents.open_documents`; or a folder of
      tokens that `genjax data tokenize` wrote. With the vocabulary 'ids' it is a .npy file of tokens (see
      `open_tokens`) or 'random_tokens' (see `random_tokens`, splits 'train' and 'heldout').
    vocabulary: 'byte'; 'char'; 'bpe' or 'wordpiece', trained on the split `train` to vocabulary_size tokens; the path
      of a tokenizer, see `genjax.data.text.tokenizers.open_tokenizer`; or 'ids' for tokens as they are.
    context: tokens of an example.
    start: prompt of samples where none is given.
    field: feature or JSON field that is the text.
    separator: text between two documents, such as '<|endoftext|>'.
    vocabulary_size: tokens of the model; 0 for those of the vocabulary.
    heldout_stride: tokens from one held-out window to the next; 0 for the context, so that every target counts once.
    segments: whether documents are told apart by the end-of-text token, by the columns 'segments' and 'weights' of
      `Windows`.
    rows: whether an example is a document, between two separators of one token each, which begin and end it; what
      follows in the context is padding of weight 0.
  """

  vocabulary: str = dataclasses.field(kw_only=True)
  context: int = dataclasses.field(kw_only=True)
  start: str = dataclasses.field(kw_only=True)
  field: str = 'text'
  separator: str = ''
  vocabulary_size: int = 0
  heldout_stride: int = 0
  segments: bool = False
  rows: bool = False


def options(config: Config) -> dict[str, Section]:
  """What the sections of the config take."""
  llama = config.model.get('name') == 'llama'
  model = named(dict.fromkeys(MODELS, decoder.TransformerConfig), config.model,
                computed={'vocab': 'config.data.vocabulary and config.data.vocabulary_size'})
  return {
    'data': Section((Data,)),
    'model': dataclasses.replace(model, defaults={'context': 0, **(decoder.LLAMA if llama else {})}),
    **sections.scaled_positions(config),
    'sampler': Section((SamplerOptions,), {'vocabulary': 'config.data.vocabulary'}),
    **sections.training(config)}


def text_encoder(config: Config, experiment: Experiment) -> TextEncoder:
  """The hidden states below the logits, where each token sees those before it; see `genjax.experiments.parts`."""
  vocabulary = _Text(config, functools.partial(_documents, config.data)).vocabulary
  model = model_options(config, config.data.get('vocabulary_size') or vocabulary.size)
  network = decoder.transformer(model)

  def encode(group: Tree, ids_BL: Array, mask_BL: Array) -> dict[str, Array]:
    (hidden_BLD, _), _ = network.apply(group['params']['net'], {}, ids_BL, project=False)
    return encoders.outputs(hidden_BLD, mask_BL)

  tokenize = encoders.tokenizer(functools.partial(_beginning, vocabulary), config.data.context, ends=False)
  return TextEncoder(model.width, config.data.context, tokenize, encode)


def _documents(data: Config, split: str) -> list[str]:
  return open_documents(data.name, split, *imported.folders(data), data.get('field') or 'text')


class _Text:
  """The text of a config as tokens.

  Attributes:
    vocabulary: made for the text, or loaded from the run.
    assets, files: data that the run must keep, see `Experiment`.
    bytes_per_token: mean bytes of held-out text per token; None if the text is unknown.
  """

  def __init__(self, config: Config, read: Callable[[str], list[str]]):
    self._config, self._data, self._kept = config, config.data, config_lib.plain(config.assets)
    self._read = read
    self.tokens = functools.cache(self._open)
    self._folder = imported.folder(config)
    self.vocabulary: Vocabulary = self._vocabulary()
    self.files = {
      **(self.vocabulary.files() if isinstance(self.vocabulary, tokenizers.Tokenizer) else {}), **imported.files(config)
    }
    alphabet = {'alphabet': self.vocabulary.alphabet} if isinstance(self.vocabulary, CharVocabulary) else {}
    self.assets = {**alphabet, **({'vocabulary': self._data.vocabulary} if self.files else {}), **self._measured()}
    self.bytes_per_token: float | None = 1.0 if isinstance(self.vocabulary,
                                                           ByteVocabulary) else self.assets.get('bytes_per_token')

  def _vocabulary(self) -> Vocabulary:
    data, name = self._data, self._data.vocabulary
    if name == 'byte':
      return ByteVocabulary()
    if name == 'ids':
      return IdVocabulary(data.vocabulary_size)
    if name == 'char':
      known = self._kept.get('alphabet')
      return CharVocabulary(
        known or ''.join([data.get('separator', ''), *self._documents(data.train), *self._documents(data.heldout)]))
    if self._folder:
      return tokenizers.open_tokenizer(self._folder)
    if name in tokenizers.TRAINED:
      return tokenizers.train(name, self._documents(data.train), data.get('vocabulary_size', 0))
    if '/' in name or name.endswith(('.json', '.model')) or expanded(name).exists():
      return tokenizers.open_tokenizer(name)
    known = ('byte', 'char', 'ids', *tokenizers.TRAINED)
    raise UserError(
      f'config.data.vocabulary must be one of {known}, or the path of a tokenizer.json, of a .model or of a folder '
      f'with one, got {name!r}.{config_lib.suggestion(name, known)}')

  def _documents(self, split: str) -> list[str]:
    imported.check_data(self._config)
    if is_folder(self._data.name):
      raise self._another_tokenizer()
    return self._read(split)

  def _another_tokenizer(self) -> UserError:
    name, vocabulary = self._data.name, self._data.vocabulary
    own = 'byte' if TokenFiles(name, 'train').index['tokenizer'] == 'byte' else name
    return UserError(
      f'the tokens in {name} are from another tokenizer than config.data.vocabulary={vocabulary!r}; set it to {own!r}')

  def _open(self, split: str) -> np.ndarray | TokenFiles:
    """Opens the token stream of a split."""
    data, vocabulary = self._data, self.vocabulary
    if is_folder(data.name):
      found = TokenFiles(data.name, split)
      same = data.vocabulary == 'ids' or found.index['tokenizer'] == identity(vocabulary)
      if not same or found.index['vocabulary_size'] > vocabulary.size:
        raise self._another_tokenizer()
      return found
    if data.vocabulary == 'ids':
      return open_tokens(data.name, split, vocabulary.size)
    separator, documents = data.get('separator', ''), self._documents(split)
    if not separator or len(documents) == 1:
      return vocabulary.encode(''.join(documents))
    between = vocabulary.encode(separator)
    return np.concatenate([part for text in documents for part in (between, vocabulary.encode(text))][1:])

  def rows(self, split: str) -> Arrays:
    """The documents of a split, one per row, see `build`."""
    data = self._data
    separator = self.vocabulary.encode(data.get('separator', ''))
    if len(separator) != 1 or is_folder(data.name) or data.vocabulary == 'ids' or data.get('segments'):
      raise UserError(
        f'config.data.rows needs text documents, a config.data.separator of one token and no segments, got '
        f'{data.get("separator")!r} with {len(separator)} tokens')
    documents = [
      np.concatenate([separator, self.vocabulary.encode(text), separator]) for text in self._documents(split)
    ]
    if (longest := max(map(len, documents))) > data.context + 1:
      raise UserError(
        f'the longest document of {data.name} {split} needs config.data.context={longest - 1}, got {data.context}')
    tokens_NT, weights_NT = pad(documents, data.context + 1)
    return Arrays({'tokens': tokens_NT, 'weights': weights_NT[:, 1:]},
                  {'name': data.name, 'split': split, 'vocabulary': data.vocabulary})

  def _measured(self) -> dict[str, Any]:
    """Mean bytes of held-out text per token, and the text, if tokens are not bytes and the text is known."""
    data = self._data
    # token numbers with unknown text
    without = isinstance(self.vocabulary, IdVocabulary) and not is_folder(data.name)
    if isinstance(self.vocabulary, ByteVocabulary) or without or not data.name:
      return {}
    which = f'{data.name} {data.heldout}'
    if 'bytes_per_token' in self._kept and self._kept.get('measured', which) == which:
      return {'bytes_per_token': self._kept['bytes_per_token'], 'measured': which}
    tokens = self.tokens(data.heldout)
    size = tokens.bytes_per_token * len(tokens) if isinstance(tokens, TokenFiles) else sum(
      len(text.encode()) for text in self._documents(data.heldout))
    return {'bytes_per_token': size / len(tokens), 'measured': which}


def _end(config: Config, vocabulary: Vocabulary) -> int | None:
  """The token that separates documents, if config.data.segments is set."""
  if not config.data.get('segments'):
    return None
  if 'eos' not in vocabulary.special:
    raise UserError(
      f'config.data.segments needs an end-of-text token, and the vocabulary {config.data.vocabulary!r} has none')
  return vocabulary.special['eos']


def _beginning(vocabulary: Vocabulary, text: str) -> np.ndarray:
  """The tokens of a prompt, int32 (P,)."""
  return np.concatenate([np.asarray(vocabulary.begins, np.int32), vocabulary.encode(text).astype(np.int32)])


def model_options(config: Config, vocab: int, length: int = 0) -> decoder.TransformerConfig:
  """Model options: those of the config over the family's defaults, for `length` tokens (0: config.data.context)."""
  length = length or config.data.context
  family = config_lib.choose(MODELS, config.model.name, 'config.model.name')
  given = {key: value for key, value in config.model.items() if key not in ('name', 'context')}
  context = config.model.get('context') or length
  if context < length:
    raise UserError(f'an example must have at most the {context} tokens of config.model.context, got {length}')
  computed = {'vocab': vocab, 'context': context}
  config_lib.build(decoder.TransformerConfig, given, 'config.model', **computed)  # knows all options by name
  return config_lib.build(family, given, 'config.model', **computed)


def _render(vocabulary: Vocabulary, samples: Columns) -> dict[str, str]:
  """Joins texts."""
  texts = [vocabulary.decode(row[row >= 0]) for row in samples['tokens']]
  return {'samples': ('\n' + '-' * 80 + '\n').join(texts)}
