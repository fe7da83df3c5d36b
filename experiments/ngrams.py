"""Builder of language models that read a window of symbols: bigrams, an MLP and a tree of layers, as in makemore."""

from collections.abc import Sequence
import dataclasses
import functools

import jax
import numpy as np

from genjax import config as config_lib
from genjax.config import Config
from genjax.data.pipeline import Pipeline
from genjax.data.sources import Arrays
from genjax.data.text.documents import open_documents
from genjax.data.text.windows import CharVocabulary
from genjax.experiments import imported, sections
from genjax.models import ngrams
from genjax.objectives.decoding import END, SamplerOptions
from genjax.objectives.ngrams import Ngrams
from genjax.options import Section, named
from genjax.tables import Table
from genjax.training.experiment import Columns, Condition, Experiment
from genjax.training.optimization import optimizers
from genjax.types import UserError

MODELS: Table = Table('n-gram model', {
  'bigram': ngrams.BigramConfig, 'mlp': ngrams.MlpConfig, 'wavenet': ngrams.WavenetConfig}, takes=())


def build(config: Config) -> Experiment:
  """A model of the next character of a document.

  config.data: see `Data`. config.model: 'bigram', 'mlp' or 'wavenet' and options of `genjax.models.ngrams`.
  config.sampler: see `SamplerOptions`; a text ends with the separator.

  Raises:
    UserError: an unknown name or option; a separator of several characters, or one that stands in a document.
  """
  data = config.data
  if len(data.separator) != 1:
    raise UserError(f'config.data.separator must be one character, got {data.separator!r}')
  config_lib.build(SamplerOptions, config.sampler, 'config.sampler')  # before data is read
  model_options(config, 1)
  documents = functools.cache(functools.partial(_documents, config))
  alphabet = config_lib.plain(config.assets).get('alphabet') or ''.join(
    [data.separator, *documents(data.train), *documents(data.heldout)])
  vocabulary = CharVocabulary(alphabet)
  start = int(vocabulary.encode(data.separator)[0])
  model = model_options(config, vocabulary.size)
  sampler = imported.sampler(config, vocabulary.size)
  sampler = dataclasses.replace(sampler, stop=(*sampler.stop, start))

  def prompt(given: str) -> np.ndarray:
    return vocabulary.encode(data.separator + given).astype(np.int32)

  def examples(split: str) -> Arrays:
    facts = {'name': data.name, 'split': split, 'window': model.window}
    return windows([vocabulary.encode(text) for text in documents(split)], model.window, start, facts)

  return Experiment(
    objective=Ngrams(ngrams.ngrams(model), model.window, start, sampler),
    train=Pipeline(lambda: examples(data.train), config.batch_size, config.seed),
    heldout=Pipeline(lambda: examples(data.heldout), config.batch_size, config.seed, shuffle=False),
    optimizers=optimizers.from_config(config.optimizers, config.steps),
    example={'context': jax.ShapeDtypeStruct((model.window,), np.int32), 'next': jax.ShapeDtypeStruct((), np.int32)},
    ema=dict(config.ema),
    conditions={'prompt': Condition(prompt, lambda row: prompt(''), 'the beginning of a text', fill=END)},
    render=functools.partial(_render, vocabulary, data.separator),
    assets={'alphabet': vocabulary.alphabet},
    unit='symbols',
  )


@dataclasses.dataclass(frozen=True)
class Data(sections.Splits):
  """config.data.

  Attributes:
    name: of a data set of texts, or the path of files, see `genjax.data.text.documents.open_documents`.
    separator: character that ends a document, and that fills the window before it.
    field: feature or JSON field that is the text.
  """

  separator: str = '\n'
  field: str = 'text'


def options(config: Config) -> dict[str, Section]:
  """What the sections of the config take."""
  return {
    'data': Section((Data,)),
    'model': named(MODELS, config.model, computed={'vocab': 'config.data.name'}),
    'sampler': Section((SamplerOptions,), {'vocabulary': 'config.data.name'}),
    **sections.training(config)}


def model_options(config: Config, vocab: int) -> ngrams.Config:
  """The options of the config's model, for so many characters."""
  return config_lib.build(config_lib.choose(MODELS, config.model.name, 'config.model.name'), config.model,
                          'config.model', vocab=vocab)


def windows(documents: Sequence[np.ndarray], size: int, start: int, facts: dict) -> Arrays:
  """Every symbol of documents, and the symbols before it.

  Args:
    documents: symbols (T,) of each document, without what ends it.
    size: number K of symbols before each.
    start: symbol that ends a document, and that fills the window before it.
    facts: for the fingerprint.

  Returns:
    'context' int32 (N, K) and 'next' int32 (N,); N counts the ends of documents.
  """
  before = np.full(size, start)
  contexts, targets = [np.zeros((0, size), int)], [np.zeros(0, int)]
  for symbols_T in documents:
    ended_T = np.concatenate([before, symbols_T, [start]])
    contexts.append(np.lib.stride_tricks.sliding_window_view(ended_T[:-1], size))
    targets.append(ended_T[size:])
  return Arrays({'context': np.concatenate(contexts).astype(np.int32),
                 'next': np.concatenate(targets).astype(np.int32)}, facts)


def _documents(config: Config, split: str) -> list[str]:
  imported.check_data(config)
  data = config.data
  texts = open_documents(data.name, split, *imported.folders(data), data.get('field') or 'text')
  for text in texts:
    if data.separator in text:
      raise UserError(f'config.data.separator {data.separator!r} ends a document, but stands inside one of {data.name} '
                      f'{split}: {text[:40]!r}; choose a character that none has')
  return texts


def _render(vocabulary: CharVocabulary, separator: str, samples: Columns) -> dict[str, str]:
  """Texts, one a line."""
  texts = [vocabulary.decode(row[row >= 0]).strip(separator) for row in samples['tokens']]
  return {'samples': '\n'.join(texts)}
