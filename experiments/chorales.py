"""Builder of models of chorales: the language model of `genjax.experiments.language` over notes."""

import dataclasses
import functools

import jax
import numpy as np

from genjax import checks
from genjax import config as config_lib
from genjax.config import Config
from genjax.data.audio import chorales
from genjax.data.pipeline import Pipeline
from genjax.data.sources import Arrays
from genjax.data.text.documents import open_documents
from genjax.experiments import imported, language, sections
from genjax.models.transformers import decoder
from genjax.objectives.base import Context
from genjax.objectives.decoding import END, SamplerOptions
from genjax.objectives.language import LanguageModel
from genjax.options import Section
from genjax.training.experiment import Columns, Condition, Experiment
from genjax.training.optimization import optimizers
from genjax.types import Array, Batch, Key, Params, UserError


@dataclasses.dataclass(frozen=True)
class Chorales(LanguageModel):
  """A language model whose loss is told for a time step, too."""

  def evaluate(self, params: Params, context: Context, batch: Batch, key: Key) -> dict[str, Array]:
    """'loss' in nats per note, 'step_nll' in nats per time step, the sum over its voices, and 'accuracy' of notes."""
    values = super().evaluate(params, context, batch, key)
    return {**values, 'step_nll': chorales.VOICES * values['loss']}


def build(config: Config) -> Experiment:
  """A causal model of chorales.

  config.data: see `Data`. config.model: 'gpt' or 'llama' and options of `TransformerConfig`. config.sampler: see
  `SamplerOptions`; four tokens are a time step.

  Raises:
    UserError: an unknown name or option.
  """
  with checks.under('config.data'):
    checks.whole(config_lib.plain(config.data), 1, 'steps')
  data, length = config.data, chorales.VOICES * config.data.steps
  model = language.model_options(config, chorales.VOCABULARY, length)
  sampler = config_lib.build(SamplerOptions, config.sampler, 'config.sampler')

  def windows(split: str, once: bool) -> Arrays:
    texts = open_documents(data.name, split, *imported.folders(data))
    return Arrays(chorales.windows([chorales.encode(text) for text in texts], data.steps, once),
                  {'name': data.name, 'split': split, 'steps': data.steps})

  def prompt(given: str) -> np.ndarray:
    tokens = chorales.encode(given)
    if len(tokens) >= length:
      raise UserError(f'a prompt has at most {data.steps - 1} time steps, got {len(tokens) // chorales.VOICES}')
    return tokens

  return Experiment(
    objective=Chorales(decoder.transformer(model), functools.partial(decoder.init_cache, model), length, sampler,
                       lay_out=functools.partial(decoder.lay_out, model)),
    train=Pipeline(lambda: windows(data.train, once=False), config.batch_size, config.seed), heldout=Pipeline(
      lambda: windows(data.heldout, once=True), config.batch_size, config.seed,
      shuffle=False), optimizers=optimizers.from_config(config.optimizers, config.steps), example={
        'tokens': jax.ShapeDtypeStruct((length + 1,), np.int32), 'weights': jax.ShapeDtypeStruct((length,), np.float32)
      }, ema=dict(config.ema), axes={'net': decoder.axes(model)}, conditions={
        'prompt':
          Condition(prompt, lambda row: prompt(''), f'steps such as "48 60 64 67,50 57 65 69", less than {data.steps}',
                    fill=END)
      }, render=_render, unit='tokens', units_per_example=length,
  )


@dataclasses.dataclass(frozen=True)
class Data(sections.Splits):
  """config.data.

  Attributes:
    name: of a data set, or the path of files, of texts as `genjax.data.audio.chorales.encode` reads them.
    steps: time steps of an example, see `genjax.data.audio.chorales.windows`; each held-out token counts once.
  """

  steps: int = dataclasses.field(kw_only=True)


def options(config: Config) -> dict[str, Section]:
  """What the sections of the config take."""
  return {**language.options(config), 'data': Section((Data,)), 'sampler': Section((SamplerOptions,))}


def _render(samples: Columns) -> dict[str, str]:
  """Pieces in ABC notation."""
  return {
    'samples':
      '\n\n'.join(
        chorales.abc(chorales.decode(row[row >= 0]), number) for number, row in enumerate(samples['tokens'], 1))
  }
