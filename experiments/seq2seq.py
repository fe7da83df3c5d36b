"""Builder of translation: an encoder-decoder transformer or LSTM on pairs of texts in words, characters or subwords."""

from collections.abc import Callable, Mapping
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genjax import checks
from genjax import config as config_lib
from genjax.config import Config
from genjax.data.buckets import Buckets
from genjax.data.sources import Arrays
from genjax.data.text import parallel
from genjax.experiments import encoders, imported, sections
from genjax.experiments.sentences import SIDES, Pairs, Sentences, open_sentences
from genjax.metrics import text
from genjax.models import recurrent
from genjax.models.transformers import seq2seq
from genjax.nn.functional import Network
from genjax.objectives.decoding import SamplerOptions
from genjax.objectives.kinds import TextEncoder
from genjax.objectives.seq2seq import Seq2Seq
from genjax.options import Section, named
from genjax.tables import Table
from genjax.training.experiment import Columns, Condition, Experiment, Metric
from genjax.training.optimization import optimizers
from genjax.types import Array, Tree, UserError, expanded

TRANSFORMER = 'transformer'  # the model where the config names none
MODELS: Table = Table('encoder-decoder', {TRANSFORMER: seq2seq.Seq2SeqConfig, 'lstm': recurrent.LstmConfig}, takes=())
# Pairs that are made and need no files: name -> function of a split and the two languages.
GENERATED = {'spoken_digits': parallel.spoken_digits, 'additions': parallel.additions}


def build(config: Config) -> Experiment:
  """Translation of sentences.

  config.data: see `Data`.
  config.model: options of `Seq2SeqConfig`; or name 'lstm' and options of `genjax.models.recurrent.LstmConfig`.
  config.objective: smoothing, see `Seq2Seq`. config.sampler: see `SamplerOptions`.
  config.evaluation: see `Evaluation`.
  """
  data = config.data
  with checks.under('config.data'):
    given = config_lib.plain(data)
    checks.whole(given, 2, 'context')  # a token and the stop token
    checks.whole(given, 1, 'least_count')
    checks.whole(given, 0, 'vocabulary_size')
  with checks.under('config.evaluation'):
    checks.whole(config_lib.plain(config.evaluation), 0, 'batch')
  config_lib.build(SamplerOptions, config.sampler, 'config.sampler')  # before data is read
  networks(config, 1, 0)  # raises before data is read
  pairs = functools.cache(functools.partial(open_pairs, config))
  sentences = open_sentences(config, pairs)
  (network, start_cache, axes), tokens = networks(config, *sentences.sizes), sentences.tokens
  sizes = f'1 to {data.context - sentences.around} {sentences.unit}'
  objective = config_lib.build(Seq2Seq, config.objective, 'config.objective', network=network, tokens=tokens,
                               start_cache=start_cache,
                               sampler=imported.sampler(config, sentences.known, sentences.unused))

  def examples(split: str) -> Arrays:
    facts = {'name': data.name, 'split': split, 'languages': [data.source, data.target], 'splitter': data.splitter}
    facts |= {name: data[name] for name in ('vocabulary', 'prefix') if data.get(name)}
    return parallel.parallel(pairs(split), (sentences.source, sentences.target), (data.context, data.context),
                             (tokens.padding, tokens.padding), facts)

  def sentence(given: str) -> np.ndarray:
    tokens_S, around = sentences.source(given), sentences.around
    if not around < len(tokens_S) <= data.context:
      raise UserError(f'a sentence to translate has {sizes}, got {len(tokens_S) - around} in {given!r}')
    return tokens_S

  def heldout_sentence(row: int) -> np.ndarray:
    known = pairs(data.heldout)[0]
    return sentence(known[row % len(known)])

  row = {
    '': jax.ShapeDtypeStruct((data.context,), np.int32), '_weights': jax.ShapeDtypeStruct((data.context,), np.float32)
  }
  example = {f'{side}{ending}': shape for side in SIDES for ending, shape in row.items()}
  heldout, batch = Buckets(lambda: examples(data.heldout), config.batch_size,
                           config.seed), config.evaluation.get('batch', 0)
  return Experiment(
    objective=objective,
    train=Buckets(lambda: examples(data.train), config.batch_size, config.seed),
    heldout=heldout,
    optimizers=optimizers.from_config(config.optimizers, config.steps),
    example=example,
    cut=frozenset(example),
    ema=dict(config.ema),
    axes={'net': axes},
    conditions={'source': Condition(sentence, heldout_sentence, f'a sentence of {sizes}', fill=tokens.padding)},
    render=functools.partial(_render, sentences),
    metrics=(translation_metric(config, pairs, sentence, sentences),),
    summarise=functools.partial(_batched, heldout, sentences.around, batch) if batch else None,
    assets={'vocabulary': data.vocabulary} if data.get('vocabulary') else {},
    files=sentences.files,
    unit='pairs',
  )


@dataclasses.dataclass(frozen=True)
class Data(sections.Splits):
  """config.data.

  Attributes:
    name: one of `GENERATED`; a TFDS data set such as 'multi30k'; or, with a slash in it, a folder of files
      SPLIT.LANGUAGE of lines.
    source: language to translate from, such as 'de'.
    target: language to translate to, such as 'en'.
    splitter: what splits sentences into words, 'spacy', 'simple' or 'characters', see
      `genjax.data.text.words.splitter`. With a tokenizer, the words are those of which BLEU counts.
    least_count: words that stand more seldom in the split `train` are unknown ones.
    context: longest source and target in tokens, start and stop tokens included; pairs with a longer side are left out,
      and the fingerprint of the data counts them.
    vocabulary: '' for words; or a folder with the tokenizer of a public model, see
      `genjax.experiments.sentences.open_pieces`.
    vocabulary_size: tokens of the model, with a tokenizer.
    prefix: text before each source, such as 'translate English to German: ', with a tokenizer.
    padding: of a text encoder of other runs: whether padding counts as tokens, as Stable Diffusion 3 and Flux read T5.
  """

  source: str = dataclasses.field(kw_only=True)
  target: str = dataclasses.field(kw_only=True)
  splitter: str = dataclasses.field(kw_only=True)
  least_count: int = dataclasses.field(kw_only=True)
  context: int = dataclasses.field(kw_only=True)
  vocabulary: str = ''
  vocabulary_size: int = 0
  prefix: str = ''
  padding: bool = False


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """config.evaluation.

  Attributes:
    sacrebleu: whether to measure the BLEU of sacrebleu, too.
    exact: whether to measure which share of the sampled texts equal the reference, word for word.
    batch: sentences of a batch of `batch_loss`, see `genjax.metrics.text.sorted_batches_loss`; 0 to leave it out.
  """

  sacrebleu: bool
  batch: int = 0
  exact: bool = False


def options(config: Config) -> dict[str, Section]:
  """What the sections of the config take."""
  vocabulary = 'config.data.vocabulary and config.data.vocabulary_size'
  return {
    'data': Section((Data,)),
    **sections.special_tokens(config),
    'model': named(MODELS, config.model, computed={'vocab': vocabulary, 'target_vocab': vocabulary}, name=TRANSFORMER),
    'objective': Section((Seq2Seq,), {'network': '', 'start_cache': '', 'tokens': 'config.data.tokens',
                                      'sampler': 'config.sampler'}),
    'sampler': Section((SamplerOptions,), {'vocabulary': 'config.data.vocabulary'}),
    'evaluation': Section((Evaluation,)),
    **sections.training(config)}


def text_encoder(config: Config, experiment: Experiment) -> TextEncoder:
  """What the encoder makes of a source sentence, as its own words or tokenizer split it; see
  `genjax.experiments.parts`. The decoder is left out."""
  sentences = open_sentences(config, functools.partial(open_pairs, config))
  model = model_options(config, *sentences.sizes)
  network = seq2seq.seq2seq(dataclasses.replace(model, decoder_layers=0))

  def encode(group: Tree, ids_BL: Array, mask_BL: Array) -> dict[str, Array]:
    mask_BL = jnp.ones_like(mask_BL) if config.data.get('padding') else mask_BL
    memory_BLD, _ = network.apply(group['params']['net'], {}, ids_BL, None, mask_BL)
    return encoders.outputs(memory_BLD, mask_BL)

  tokenize = encoders.tokenizer(sentences.source, config.data.context, sentences.tokens.padding)
  return TextEncoder(model.width, config.data.context, tokenize, encode,
                     reads=('params/net/embedding/.*', 'params/net/encoder/.*'))


def open_pairs(config: Config, split: str) -> tuple[list[str], list[str]]:
  """Source and target sentences of a split; see `build`."""
  imported.check_data(config)
  data = config.data
  if data.name in GENERATED:
    return GENERATED[data.name](split, (data.source, data.target))
  if '/' in data.name:
    source, target = (expanded(data.name) / f'{split}.{language}' for language in (data.source, data.target))
    return parallel.read_parallel(source, target)
  return parallel.open_parallel(data.name, split, (data.source, data.target), *imported.folders(data))


def networks(config: Config, source: int, target: int) -> tuple[Network, Callable, tuple]:
  """The network of the config for vocabularies of these sizes, its start of a cache, and the axes of its parameters."""
  if _name(config) == 'lstm':
    given = {key: value for key, value in config.model.items() if key != 'name'}
    model = config_lib.build(recurrent.LstmConfig, given, 'config.model', vocab=source, target_vocab=target)
    return recurrent.lstm(model), functools.partial(recurrent.start_cache, model), ()
  transformer = model_options(config, source, target)
  return (seq2seq.seq2seq(transformer), functools.partial(seq2seq.start_cache, transformer),
          seq2seq.axes(transformer))


def _name(config: Config) -> str:
  name = config.model.get('name', TRANSFORMER)
  config_lib.choose(MODELS, name, 'config.model.name')
  return name


def exported_options(config: Config, net: Tree) -> seq2seq.Seq2SeqConfig:
  """The model options of a run with these parameters."""
  target = net.get('target_embedding')
  return model_options(config, len(net['embedding']['embedding']), len(target['embedding']) if target else 0)


def model_options(config: Config, source: int, target: int) -> seq2seq.Seq2SeqConfig:
  """The options of the config's transformer for vocabularies of these sizes.

  Raises:
    UserError: its model is another one, or has too few positions.
  """
  if (name := _name(config)) != TRANSFORMER:
    raise UserError(f'only the model {TRANSFORMER!r} can be exported, or be a text encoder of other runs; '
                    f'config.model.name is {name!r}')
  given = {key: value for key, value in config.model.items() if key != 'name'}
  model = config_lib.build(seq2seq.Seq2SeqConfig, given, 'config.model', vocab=source, target_vocab=target)
  longest = max(config.data.context, config.sampler.length)
  if model.positions != 'relative' and model.context < longest:
    raise UserError(
      f'config.model.context must be at least {longest}, the larger of config.data.context and '
      f'config.sampler.length, got {model.context}')
  return model


def translation_metric(config: Config, pairs: Pairs, sentence: Callable[[str], np.ndarray],
                       sentences: Sentences) -> Metric:
  """BLEU of translations of the held-out sentences, of words and (config.evaluation.sacrebleu) of texts.

  bleu: 100 times `genjax.metrics.text.bleu` of words in lower case; references keep words outside the vocabulary.
  sacrebleu: of the joined words against the original reference; sacrebleu_lowercase: ignores case.
  exact (config.evaluation.exact): share of the translations whose words are those of the reference.
  """
  card: dict[str, Any] = {
    'split': config.data.heldout, 'bleu': 'corpus BLEU-4 of lower-case words, one reference, no smoothing'
  }

  def compute(sample: Callable[[int, Mapping[str, np.ndarray]], Columns], seed: int) -> dict[str, float]:
    sources, targets = pairs(config.data.heldout)
    source_NS, weights_NS = parallel.pad([sentence(given) for given in sources], config.data.context,
                                         sentences.tokens.padding)
    source_NS = source_NS[:, :int(weights_NS.sum(axis=1).max())]
    drawn_NT = sample(len(sources), {'source': source_NS})['tokens']
    written, expected = [sentences.words(row) for row in drawn_NT], [sentences.split(target) for target in targets]
    found = text.bleu(written, [[words] for words in expected])
    values = {'bleu': 100 * found.score, 'brevity_penalty': found.brevity_penalty, 'length_ratio': found.length_ratio}
    card['sentences'] = len(sources)
    if config.evaluation.get('exact'):
      values['exact'] = float(np.mean([words == wanted for words, wanted in zip(written, expected)]))
      card['exact'] = 'share of the sampled texts that equal the reference'
    if config.evaluation.sacrebleu:
      joined = [sentences.texts[1](row) for row in drawn_NT]
      for name, lowercase in (('sacrebleu', False), ('sacrebleu_lowercase', True)):
        values[name], card[name] = text.sacrebleu(joined, targets, lowercase)
    return values

  def check() -> None:
    pairs(config.data.heldout)
    if config.evaluation.sacrebleu:
      text.check_sacrebleu()

  return Metric('translation', compute, card, check)


def _batched(heldout: Buckets, around: int, batch: int, values: Columns) -> dict[str, float]:
  """Loss and perplexity averaged over batches, see `genjax.metrics.text.sorted_batches_loss`."""
  source: Any = heldout.source
  columns = source.columns
  source_N, target_N = (columns[f'{side}_weights'].sum(axis=1).astype(int) for side in SIDES)
  loss = text.sorted_batches_loss(values['loss'], source_N - around, target_N - 1, batch)
  return {'batch_loss': loss, 'batch_perplexity': float(np.exp(loss))}


def _render(sentences: Sentences, samples: Columns) -> dict[str, str]:
  """Each source, if known, followed by its translation."""
  lines = [sentences.texts[1](row[row >= 0]) for row in samples['tokens']]
  if 'source' in samples:
    lines = [f'{sentences.texts[0](source)}\n  {line}' for source, line in zip(samples['source'], lines)]
  return {'samples': '\n'.join(lines)}
