"""Builder of bidirectional encoders: masked language models for pre-training, and fine-tuned classifiers."""

from collections.abc import Callable, Sequence
import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from genjax import checks
from genjax import config as config_lib
from genjax.config import Config
from genjax.data import sources
from genjax.data.pipeline import Pipeline
from genjax.data.prepared import prepare
from genjax.data.sources import Arrays
from genjax.data.text import tokenizers
from genjax.data.text.documents import open_documents
from genjax.data.text.parallel import pad
from genjax.experiments import encoders, imported, sections
from genjax.models.transformers import bert
from genjax.nn.functional import Network
from genjax.objectives.decoding import END
from genjax.objectives.kinds import TextEncoder
from genjax.objectives.masked import MaskedLanguageModel, MaskingOptions
from genjax.objectives.sequence_classification import SequenceClassification
from genjax.options import Section
from genjax.tables import Table
from genjax.training.experiment import Columns, Condition, Experiment
from genjax.training.optimization import optimizers
from genjax.types import Array, Tree, UserError, expanded

HEADS = ('pooler', 'next_sentence', 'classes')  # of config.model; the objective decides which of them a run has
Further = Sequence[tuple[str, str, str]]  # (name, split, field) of texts


def build(config: Config) -> Experiment:
  """An encoder and what it learns.

  config.data: see `Data`.
  config.model: options of `genjax.models.transformers.bert.BertConfig`; its context may be longer than that of the
    data, and its vocab larger than the tokenizer. pooler and next_sentence are heads of an imported encoder that
    'masked_lm' keeps and does not train; classes are those of an imported classifier, by default those of the label.
  config.objective: name 'masked_lm' and rate, see `MaskingOptions`; or name 'classification' and smoothing, see
    `SequenceClassification`. Of the option of the other one it takes no notice.

  Raises:
    UserError: an unknown name or option, or a tokenizer without the special tokens.
  """
  with checks.under('config.data'):
    data = config_lib.plain(config.data)
    checks.whole(data, 3, 'context')  # at least one token between [CLS] and [SEP]
    checks.whole(data, 1, 'vocabulary_size')
  with checks.under('config.model'):
    checks.whole(config_lib.plain(config.model), 0, 'vocab', 'context', 'classes')  # 0: as the data needs
  _options(config, vocab=1, context=1)  # raises before a tokenizer is trained
  make = config_lib.choose(OBJECTIVES, config.objective.name, 'config.objective.name')
  return make(config)


def _masked_lm(config: Config) -> Experiment:
  data, more = config.data, config.data.get('more') or ()
  text = _Text(config, more, ('bos', 'eos', 'pad', 'mask'))
  special = text.vocabulary.special
  heads = {head: config.model.get(head, False) for head in ('pooler', 'next_sentence')}
  masking = config_lib.build(MaskingOptions, _without(config.objective, 'smoothing'), 'config.objective',
                             vocab=text.vocabulary.size, mask=special['mask'], special=tuple(
                               sorted({special[kind] for kind in ('bos', 'eos', 'pad')})))
  start = text.prompt(data.get('start', '[MASK]'))
  return _experiment(
    config, text, objective=MaskedLanguageModel(_network(config, text, masked_lm=True, **heads),
                                                masking), train=lambda: text.packed(data.train, more),
    heldout=lambda: text.packed(data.heldout), example={'tokens': jax.ShapeDtypeStruct(
      (data.context,), np.int32)}, axes={'net': (*bert.AXES, *bert.MASKED_LM_AXES)}, conditions={
        'prompt': Condition(text.prompt, lambda row: start, 'text with [MASK] for what is to be filled in', fill=END)
      }, render=functools.partial(_render, text.vocabulary))


def _classification(config: Config) -> Experiment:
  data = config.data
  if data.get('more'):
    raise UserError('config.data.more has texts without labels, which classification does not use; leave it empty')
  text = _Text(config, (), ('bos', 'eos', 'pad'))
  network = _network(config, text, classes=text.classes())
  return _experiment(
    config, text, objective=config_lib.build(SequenceClassification, _without(config.objective, 'rate'),
                                             'config.objective', network=network),
    train=lambda: text.labelled(data.train), heldout=lambda: text.labelled(data.heldout), example={
      'tokens': jax.ShapeDtypeStruct((data.context,), np.int32), 'weights': jax.ShapeDtypeStruct(
        (data.context,), np.float32), 'label': jax.ShapeDtypeStruct((), np.int32)
    }, axes={'net': bert.AXES})


OBJECTIVES: Table = Table(
  'objective of BERT', {'masked_lm': _masked_lm, 'classification': _classification}, takes=('config',))


@dataclasses.dataclass(frozen=True)
class Data(sections.Splits):
  """config.data.

  Attributes:
    name: of a data set of text or, for 'masked_lm', the path of files, see
      `genjax.data.text.documents.open_documents`.
    field: feature or JSON field that is the text.
    vocabulary: 'bert', trained on the texts to train on to vocabulary_size tokens; or the path of a tokenizer with the
      special tokens of BERT, such as that of a run.
    vocabulary_size: tokens of the vocabulary that is trained.
    context: tokens of an example. Of a sentence to classify, what does not fit is cut off at its end. For 'masked_lm'
      all sentences stand one after the other, each ended by '[SEP]', and rows of that stream, each begun by '[CLS]',
      fill the context; the last tokens of a split, fewer than a row, are not read.
    label: the feature that is the class, for 'classification'.
    more: (name, split, field) of further texts to train on, for 'masked_lm'; sets that need original files must be
      prepared.
    start: what 'masked_lm' fills in where there is no prompt.
  """

  field: str = dataclasses.field(kw_only=True)
  vocabulary: str = dataclasses.field(kw_only=True)
  vocabulary_size: int = dataclasses.field(kw_only=True)
  context: int = dataclasses.field(kw_only=True)
  label: str = 'label'
  more: tuple[tuple[str, str, str], ...] = ()
  start: str = '[MASK]'


def options(config: Config) -> dict[str, Section]:
  """What the sections of the config take."""
  hidden = {'vocab': 'config.data.vocabulary', 'mask': 'config.data.vocabulary', 'special': 'config.data.vocabulary'}
  goals = {'masked_lm': Section((MaskingOptions,), hidden),
           'classification': Section((SequenceClassification,), {'network': ''})}
  goal = goals.get(config.objective.get('name'), Section())
  return {
    'data': Section((Data,)),
    'model': Section((bert.BertConfig,), {'masked_lm': 'config.objective.name'},
                     {'vocab': 0, 'context': 0, 'classes': 0, 'pooler': False, 'next_sentence': False}),
    'objective': dataclasses.replace(goal, names=tuple(goals)),
    **sections.training(config)}


def _experiment(config: Config, text: '_Text', train: Callable[[], Arrays], heldout: Callable[[], Arrays],
                **parts: Any) -> Experiment:
  return Experiment(
    train=Pipeline(train, config.batch_size, config.seed),
    heldout=Pipeline(heldout, config.batch_size, config.seed, shuffle=False),
    optimizers=optimizers.from_config(config.optimizers, config.steps),
    ema=dict(config.ema),
    assets={'vocabulary': config.data.vocabulary},
    files={**text.vocabulary.files(), **imported.files(config)},
    unit='tokens',
    units_per_example=config.data.context,
    **parts)


def text_encoder(config: Config, experiment: Experiment) -> TextEncoder:
  """The hidden states of the encoder, of tokens as its own tokenizer makes them; see `genjax.experiments.parts`."""
  text = _Text(config, (), ('bos', 'eos', 'pad'))
  special = text.vocabulary.special
  network = _network(config, text, pooler=False)

  def encode(group: Tree, ids_BL: Array, mask_BL: Array) -> dict[str, Array]:
    found, _ = network.apply(group['params']['net'], {}, ids_BL, mask_BT=mask_BL)
    return encoders.outputs(found['hidden'], mask_BL)

  return TextEncoder(
    config.model.width, config.data.context,
    encoders.tokenizer(lambda given: np.asarray([special['bos'], *text.vocabulary.encode(given), special['eos']]),
                       config.data.context, special['pad']), encode,
    reads=('params/net/(embedding|blocks)/.*',))


class _Text:
  """The texts of a config as rows of tokens, with their tokenizer.

  Args:
    config: the whole config.
    more: see `build`.
    needed: kinds of special tokens.

  Attributes:
    vocabulary: trained on the text, read from a path, or the one that the run keeps.
  """

  def __init__(self, config: Config, more: Further, needed: tuple[str, ...]):
    self._config, self._data = config, (data := config.data)
    if kept := imported.folder(config):
      self.vocabulary = tokenizers.open_tokenizer(kept)
    elif data.vocabulary == 'bert':
      self.vocabulary = tokenizers.train('bert', self._documents(data.train, more), data.vocabulary_size)
    elif expanded(data.vocabulary).exists():
      self.vocabulary = tokenizers.open_tokenizer(data.vocabulary)
    else:
      raise UserError(
        "config.data.vocabulary must be 'bert', or the path of a tokenizer.json or of a folder with one, such as a "
        f'run, got {data.vocabulary!r}, which does not exist')
    if lacking := [kind for kind in needed if kind not in self.vocabulary.special]:
      raise UserError(
        f"config.data.vocabulary={data.vocabulary!r} lacks the special token {lacking[0]!r}, which BERT needs; "
        "train one with 'bert', or use the tokenizer of an encoder")

  def _documents(self, split: str, more: Further) -> list[str]:
    data = self._data
    imported.check_data(self._config)
    texts = open_documents(data.name, split, *imported.folders(data), data.field)
    return texts + [
      text for name, part, field in more for text in open_documents(name, part, imported.folders(data)[0], None, field)
    ]

  def _facts(self, split: str) -> dict[str, Any]:
    return {'name': self._data.name, 'split': split, 'vocabulary': self._data.vocabulary}

  def prompt(self, given: str) -> np.ndarray:
    """Encodes a text as input of the network, int32 (T,)."""
    special = self.vocabulary.special
    tokens = np.asarray([special['bos'], *self.vocabulary.encode(given), special['eos']], np.int32)
    if len(tokens) > self._data.context:
      raise UserError(
        f'a text must have at most {self._data.context - 2} tokens besides [CLS] and [SEP], got {len(tokens) - 2}')
    return tokens

  def packed(self, split: str, more: Further = ()) -> Arrays:
    """Rows of the context length filled with sentences: 'tokens'; see `build`."""
    special, length = self.vocabulary.special, self._data.context - 1
    encoded = self.vocabulary.encode_all(self._documents(split, more))
    stream = np.concatenate([part for tokens in encoded for part in (tokens, [special['eos']])]).astype(np.int32)
    if len(stream) < length:
      raise UserError(
        f'{self._data.name} {split} has {len(stream)} tokens, less than one row of config.data.context={length + 1}')
    rows_NT = stream[:len(stream) // length * length].reshape(-1, length)
    return Arrays({'tokens': np.pad(rows_NT, ((0, 0), (1, 0)), constant_values=special['bos'])},
                  {**self._facts(split), 'more': [list(part) for part in more]})

  def classes(self) -> int:
    """Number of classes."""
    data, known = self._data, self._config.model.get('classes', 0)
    label = data.get('label', 'label')
    if known and not data.name:
      return known
    imported.check_data(self._config)
    features: Any = prepare.open_builder(data.name, *imported.folders(data)).info.features
    if label not in features or not hasattr(features[label], 'num_classes'):
      raise UserError(
        f'config.data.label={label!r} is no feature of {data.name} with classes; its features are '
        f'{", ".join(features)}'
      )
    if known and known != features[label].num_classes:
      raise UserError(
        f'config.model.classes={known}, and {data.name} has {features[label].num_classes}: set it to that, and '
        'config.init.strict=False if the classifier is to begin anew')
    return features[label].num_classes

  def labelled(self, split: str) -> Arrays:
    """One sentence per row: 'tokens', 'weights' and 'label'."""
    data, special = self._data, self.vocabulary.special
    label = data.get('label', 'label')
    imported.check_data(self._config)
    read = sources.open_tfds(data.name, split, (data.field, label), *imported.folders(data))
    columns = read.get(np.arange(len(read)))
    encoded = self.vocabulary.encode_all(columns[data.field].tolist())
    rows = [np.asarray([special['bos'], *tokens[:data.context - 2], special['eos']]) for tokens in encoded]
    tokens_NT, weights_NT = pad(rows, data.context, special['pad'])
    return Arrays({'tokens': tokens_NT, 'weights': weights_NT, 'label': columns[label].astype(np.int32)},
                  self._facts(split))


def _network(config: Config, text: _Text, **heads: Any) -> Network:
  context = config.model.get('context') or config.data.context
  if context < config.data.context:
    raise UserError(
      f'config.data.context must be at most the {context} tokens of config.model.context, got {config.data.context}')
  vocab = config.model.get('vocab') or text.vocabulary.size
  imported.check_size(config, text.vocabulary.size, vocab, 'config.model.vocab')
  return bert.encoder(_options(config, vocab=vocab, context=context, **heads))


def exported_options(config: Config, net: Tree) -> bert.BertConfig:
  """The options of a run's encoder with the heads that its parameters have."""
  heads, embedding = net.get('heads', {}), net['embedding']
  vocab, context = (len(embedding[table]['embedding']) for table in ('token', 'position'))
  return _options(config, vocab=vocab, context=context, pooler='pooler' in heads, masked_lm='token_bias' in heads,
                  next_sentence='next_sentence' in heads,
                  classes=len(heads['classifier']['bias']) if 'classifier' in heads else 0)


def _options(config: Config, **computed: Any) -> bert.BertConfig:
  given = _without(config.model, 'vocab', 'context', *HEADS)
  return config_lib.build(bert.BertConfig, given, 'config.model', **computed)


def _without(options: Config, *names: str) -> dict[str, Any]:
  return {name: value for name, value in options.items() if name not in names}


def _render(vocabulary: tokenizers.Tokenizer, samples: Columns) -> dict[str, str]:
  """Texts, one per line, without special tokens."""
  return {'samples': '\n'.join(vocabulary.decode(row[row >= 0][1:-1]) for row in samples['tokens'])}
