"""Builder of language models: text of a TFDS set or a file as characters or bytes, or tokens as they are; a decoder-only transformer."""

import functools

import jax
import numpy as np

from genjax import config as config_lib
from genjax.config import Config
from genjax.data.pipeline import Pipeline
from genjax.data.synthetic import Noise, random_tokens
from genjax.data.text import ByteVocabulary, CharVocabulary, IdVocabulary, Windows, open_text, open_tokens
from genjax.models import transformer
from genjax.objectives.decoding import END, SamplerOptions
from genjax.objectives.language import LanguageModel
from genjax.training import optimizers
from genjax.training.experiment import Columns, Condition, Experiment
from genjax.types import UserError

MODELS = {'gpt': transformer.TransformerConfig, 'llama': transformer.llama}
RANDOM_WINDOWS = {'train': 2**20, 'heldout': 64}  # splits of 'random_tokens' and their sizes
Vocabulary = ByteVocabulary | CharVocabulary | IdVocabulary


def build(config: Config) -> Experiment:
  """A causal language model.

  config.data: name and splits of the text (see `genjax.data.text.open_text`), vocabulary 'char' or 'byte', context in tokens, and
  optionally heldout_stride, the tokens from one held-out window to the next (default: the context, so that every target counts
  once). With vocabulary 'ids', name is a .npy file of tokens (see `open_tokens`) or 'random_tokens' (see `random_tokens`, splits
  'train' and 'heldout'), and vocabulary_size says how many there are. config.model: 'gpt' or 'llama' and options of
  `TransformerConfig`. config.sampler: see `SamplerOptions`.
  """
  data = config.data
  read = functools.partial(open_text, data.name, data_dir=data.data_dir or None, originals=data.originals or None)
  vocabulary, assets = _vocabulary(config, read)
  model = _model(config, vocabulary.size)
  sampler = config_lib.build(SamplerOptions, config.sampler, 'config.sampler')
  objective = LanguageModel(transformer.transformer(model), functools.partial(transformer.init_cache, model), data.context,
                            sampler, assets.get('bytes_per_token', 1.0), functools.partial(transformer.lay_out, model))

  def windows(split: str, stride: int) -> Windows | Noise:
    if data.vocabulary == 'ids' and data.name == 'random_tokens':
      size = config_lib.choose(RANDOM_WINDOWS, split, 'the split of random_tokens')
      return random_tokens(vocabulary.size, data.context, size, seed=list(RANDOM_WINDOWS).index(split))
    facts = {'name': data.name, 'split': split, 'vocabulary': data.vocabulary}
    tokens = open_tokens(data.name, split, vocabulary.size) if data.vocabulary == 'ids' else vocabulary.encode(read(split))
    return Windows(tokens, data.context, stride, facts)

  def prompt(text: str) -> np.ndarray:
    tokens = vocabulary.encode(text).astype(np.int32)
    if not 0 < len(tokens) < data.context:
      raise UserError(f'a prompt has 1 to {data.context - 1} tokens (the context is {data.context}), got {len(tokens)}')
    return tokens

  start = vocabulary.encode(data.start).astype(np.int32)
  return Experiment(
    objective=objective,
    train=Pipeline(lambda: windows(data.train, 1), config.batch_size, config.seed),
    heldout=Pipeline(lambda: windows(data.heldout, data.get('heldout_stride') or data.context), config.batch_size, config.seed),
    optimizers=optimizers.from_config(config.optimizers, config.steps),
    example={'tokens': jax.ShapeDtypeStruct((data.context + 1,), np.int32)},
    ema=dict(config.ema),
    axes={'net': transformer.AXES if model.tied else (*transformer.AXES, *transformer.UNTIED_AXES)},
    conditions={'prompt': Condition(prompt, lambda row: start, f'text of 1 to {data.context - 1} tokens', fill=END)},
    render=functools.partial(_render, vocabulary),
    assets=assets,
    unit='tokens',
    units_per_example=data.context,
  )


def _model(config: Config, vocab: int) -> transformer.TransformerConfig:
  """The options of the config on top of what the named family chooses."""
  family = config_lib.choose(MODELS, config.model.name, 'config.model.name')
  computed = {'vocab': vocab, 'context': config.data.context}
  try:
    config_lib.build(transformer.TransformerConfig, config.model, 'config.model', **computed)
    return family(**{key: value for key, value in config.model.items() if key != 'name'}, **computed)
  except ValueError as error:
    raise UserError(f'config.model: {error}') from error


def _vocabulary(config: Config, read) -> tuple[Vocabulary, dict]:
  """The vocabulary, and what of it the run must keep."""
  if config.data.vocabulary == 'byte':
    return ByteVocabulary(), {}
  if config.data.vocabulary == 'ids':
    return IdVocabulary(config.data.vocabulary_size), {}
  if config.data.vocabulary != 'char':
    raise UserError(f"config.data.vocabulary must be 'char', 'byte' or 'ids', got {config.data.vocabulary!r}")
  assets = config_lib.plain(config.assets)
  if not assets:
    text = read(config.data.train) + read(config.data.heldout)
    assets = {'alphabet': CharVocabulary.from_text(text).alphabet, 'bytes_per_token': len(text.encode()) / len(text)}
  return CharVocabulary(assets['alphabet']), assets


def _render(vocabulary: Vocabulary, samples: Columns) -> dict[str, str]:
  """Texts, one after the other."""
  texts = [vocabulary.decode(row[row >= 0]) for row in samples['tokens']]
  return {'samples': ('\n' + '-' * 80 + '\n').join(texts)}
