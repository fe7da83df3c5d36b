"""Builder of translation: pairs of sentences in words, an encoder-decoder transformer, BLEU."""

from collections.abc import Callable, Mapping, Sequence
import functools
import json
import pathlib
from typing import Any

import jax
import numpy as np

from genjax import config as config_lib
from genjax.config import Config
from genjax.data import parallel, words
from genjax.data.buckets import Buckets
from genjax.data.sources import Arrays
from genjax.data.words import WordVocabulary
from genjax.metrics import text
from genjax.models import seq2seq
from genjax.objectives.decoding import SamplerOptions
from genjax.objectives.seq2seq import Seq2Seq, Tokens
from genjax.training import optimizers
from genjax.training.experiment import Columns, Condition, Experiment, Metric
from genjax.types import UserError

VOCABULARIES = 'words.json'  # of a run: the splitter, the languages and the words of both
SIDES = ('source', 'target')


def build(config: Config) -> Experiment:
  """Translation of sentences.

  config.data:
    name, train, heldout: of the pairs: 'spoken_digits' (see `genjax.data.parallel.spoken_digits`), a TFDS data set such as 'multi30k', or,
      with a slash in it, a folder of files SPLIT.LANGUAGE of lines. source, target: languages, such as 'de' and 'en'.
    splitter: what splits sentences into words, see `genjax.data.words.splitter`. least_count: words that stand more seldom in the split
      `train` are unknown ones. context: longest source and target in tokens, start and stop tokens included; pairs with a longer side are
      left out, and the fingerprint of the data counts them.
  config.model: options of `Seq2SeqConfig`.
  config.objective: smoothing, see `Seq2Seq`. config.sampler: see `SamplerOptions`.
  config.evaluation: sacrebleu, whether to measure it.
  """
  data = config.data
  pairs = functools.cache(functools.partial(open_pairs, data))
  vocabularies, files = _vocabularies(config, pairs)
  model = model_options(config, *(vocabulary.size for vocabulary in vocabularies))
  tokens = Tokens(start=words.START, stop=words.STOP, padding=words.PADDING)
  objective = config_lib.build(
    Seq2Seq, config.objective, 'config.objective', network=seq2seq.seq2seq(model), tokens=tokens,
    start_cache=functools.partial(seq2seq.start_cache, model), sampler=config_lib.build(SamplerOptions, config.sampler, 'config.sampler'))

  def examples(split: str) -> Arrays:
    facts = {'name': data.name, 'split': split, 'languages': [data.source, data.target], 'splitter': data.splitter}
    return parallel.parallel(pairs(split), (functools.partial(_source, vocabularies[0]), functools.partial(_target, vocabularies[1])),
                             (data.context, data.context), (words.PADDING, words.PADDING), facts)

  def sentence(given: str) -> np.ndarray:
    tokens_S = _source(vocabularies[0], given)
    if not 2 < len(tokens_S) <= data.context:
      raise UserError(f'a sentence to translate has 1 to {data.context - 2} words, got {len(tokens_S) - 2} in {given!r}')
    return tokens_S

  def heldout_sentence(row: int) -> np.ndarray:
    sentences = pairs(data.heldout)[0]
    return sentence(sentences[row % len(sentences)])

  row = {'': jax.ShapeDtypeStruct((data.context,), np.int32), '_weights': jax.ShapeDtypeStruct((data.context,), np.float32)}
  example = {f'{side}{ending}': shape for side in SIDES for ending, shape in row.items()}
  return Experiment(
    objective=objective,
    train=Buckets(lambda: examples(data.train), config.batch_size, config.seed),
    heldout=Buckets(lambda: examples(data.heldout), config.batch_size, config.seed),
    optimizers=optimizers.from_config(config.optimizers, config.steps),
    example=example,
    cut=frozenset(example),
    ema=dict(config.ema),
    axes={'net': seq2seq.axes(model)},
    conditions={'source': Condition(sentence, heldout_sentence, f'a sentence of 1 to {data.context - 2} words', fill=words.PADDING)},
    render=functools.partial(_render, vocabularies),
    metrics=(translation_metric(config, pairs, sentence, vocabularies[1]),),
    files=files,
    unit='pairs',
  )


def open_pairs(data: Config, split: str) -> tuple[list[str], list[str]]:
  """Source and target sentences of a split; see `build`."""
  if data.name == 'spoken_digits':
    return parallel.spoken_digits(split, (data.source, data.target))
  if '/' in data.name:
    source, target = (pathlib.Path(data.name) / f'{split}.{language}' for language in (data.source, data.target))
    return parallel.read_parallel(source, target)
  return parallel.open_parallel(data.name, split, (data.source, data.target), data.data_dir or None, data.originals or None)


def model_options(config: Config, source: int, target: int) -> seq2seq.Seq2SeqConfig:
  """The options of the config for vocabularies of so many tokens."""
  try:
    model = config_lib.build(seq2seq.Seq2SeqConfig, config.model, 'config.model', vocab=source, target_vocab=target)
  except ValueError as error:
    raise UserError(f'config.model: {error}') from error
  longest = max(config.data.context, config.sampler.length)
  if model.positions != 'relative' and model.context < longest:
    raise UserError(f'config.model.context must be at least {longest}, the greater of config.data.context and config.sampler.length, got '
                    f'{model.context}')
  return model


def translation_metric(config: Config, pairs: Callable[[str], tuple[list[str], list[str]]], sentence: Callable[[str], np.ndarray],
                       vocabulary: WordVocabulary) -> Metric:
  """BLEU of translations of the held-out sentences, by words and, with config.evaluation.sacrebleu, of texts.

  bleu: 100 times `genjax.metrics.text.bleu` of words in lower case, the reference's own words counting where the vocabulary lacks them.
  sacrebleu: of the joined words against the reference as it was written; sacrebleu_lowercase: cases do not count.
  """
  card: dict[str, Any] = {'split': config.data.heldout, 'bleu': 'corpus BLEU-4 of lower-case words, one reference, no smoothing'}

  def compute(sample: Callable[[int, Mapping[str, np.ndarray]], Columns], seed: int) -> dict[str, float]:
    sources, targets = pairs(config.data.heldout)
    source_NS, _ = parallel.pad([sentence(given) for given in sources], config.data.context, words.PADDING)
    source_NS = source_NS[:, :int((source_NS != words.PADDING).sum(axis=1).max())]
    drawn_NT = sample(len(sources), {'source': source_NS})['tokens']
    sentences = [vocabulary.sentence(row) for row in drawn_NT]
    found = text.bleu(sentences, [[vocabulary.split(target)] for target in targets])
    values = {'bleu': 100 * found.score, 'brevity_penalty': found.brevity_penalty, 'length_ratio': found.length_ratio}
    card['sentences'] = len(sources)
    if config.evaluation.sacrebleu:
      joined = [words.join(words_of) for words_of in sentences]
      for name, lowercase in (('sacrebleu', False), ('sacrebleu_lowercase', True)):
        values[name], card[name] = text.sacrebleu(joined, targets, lowercase)
    return values

  return Metric('translation', compute, card)


def _source(vocabulary: WordVocabulary, sentence: str) -> np.ndarray:
  """Tokens of a source: those of its words between start and stop."""
  return np.concatenate([[words.START], vocabulary.encode(sentence), [words.STOP]]).astype(np.int32)


def _target(vocabulary: WordVocabulary, sentence: str) -> np.ndarray:
  """Tokens of a target: those of its words and stop."""
  return np.concatenate([vocabulary.encode(sentence), [words.STOP]]).astype(np.int32)


def _vocabularies(config: Config, pairs: Callable[[str], tuple[list[str], list[str]]],
                  ) -> tuple[tuple[WordVocabulary, WordVocabulary], dict[str, bytes]]:
  """Those of source and target: the ones that the run keeps, or of the words of the training split; and the file that keeps them."""
  data = config.data
  splits = tuple(words.splitter(data.splitter, language) for language in (data.source, data.target))
  facts = {'splitter': data.splitter, 'languages': [data.source, data.target]}
  folder = config.assets.get('folder')
  if folder and (pathlib.Path(folder) / VOCABULARIES).is_file():
    known = json.loads((pathlib.Path(folder) / VOCABULARIES).read_text())
    if different := [name for name, value in facts.items() if known[name] != value]:
      raise UserError(f'the words in {folder} belong to {different[0]} {known[different[0]]!r}, and config.data has '
                      f'{facts[different[0]]!r}')
    found: Sequence[WordVocabulary] = [WordVocabulary(known[side], split) for side, split in zip(SIDES, splits)]
  else:
    found = [WordVocabulary.learn(sentences, split, data.least_count) for sentences, split in zip(pairs(data.train), splits)]
  kept = {**facts, **{side: vocabulary.words for side, vocabulary in zip(SIDES, found)}}
  return (found[0], found[1]), {VOCABULARIES: (json.dumps(kept, ensure_ascii=False, indent=0) + '\n').encode()}


def _render(vocabularies: tuple[WordVocabulary, WordVocabulary], samples: Columns) -> dict[str, str]:
  """Each source, where it is known, and below it the translation."""
  lines = [vocabularies[1].decode(row[row >= 0]) for row in samples['tokens']]
  if 'source' in samples:
    lines = [f'{vocabularies[0].decode(source)}\n  {line}' for source, line in zip(samples['source'], lines)]
  return {'samples': '\n'.join(lines)}
