"""Builder of speech recognition: log-mel frames of a spoken word to its characters, by an encoder-decoder as Whisper is."""

from collections.abc import Callable, Mapping
import functools

import jax
import numpy as np

from genjax import config as config_lib
from genjax.config import Config
from genjax.data import audio, spoken_digits
from genjax.data.parallel import pad
from genjax.data.pipeline import Pipeline, RowRandom
from genjax.data.sources import Arrays
from genjax.models import seq2seq, whisper
from genjax.objectives.decoding import SamplerOptions
from genjax.objectives.seq2seq import Seq2Seq, Tokens
from genjax.training import optimizers
from genjax.training.experiment import Columns, Condition, Experiment, Metric
from genjax.types import UserError

TOKENS = Tokens(start=1, stop=2, padding=0)
FIRST = 3  # the token of the first character
ALPHABET = ''.join(sorted(set(''.join(spoken_digits.WORDS))))
LONGEST = max(map(len, spoken_digits.WORDS)) + 1  # tokens of a word, the stop token included


def build(config: Config) -> Experiment:
  """Recognition of spoken digits.

  config.data:
    name: 'free_spoken_digits', see `genjax.data.spoken_digits`. train, heldout: splits. originals: folder of the recordings.
    seconds: of sound that the model reads; longer recordings are cut, and silence follows shorter ones.
    bands, window, hop: see `genjax.data.audio.LogMel`; window and hop in samples of 1/8000 s.
    shift: training recordings begin up to so many frames later.
  config.model: options of `Seq2SeqConfig` but for those that `genjax.models.whisper.OPTIONS` and the data fix.
  config.objective: smoothing, see `Seq2Seq`. config.sampler: see `SamplerOptions`.

  Raises:
    UserError: another name, or options that do not fit together.
  """
  data = config.data
  config_lib.choose({'free_spoken_digits': spoken_digits}, data.name, 'config.data.name')
  front = audio.LogMel(spoken_digits.RATE, data.bands, data.window, data.hop)
  samples = round(data.seconds * spoken_digits.RATE)
  frames = front.frames(samples)
  try:
    model = config_lib.build(
      seq2seq.Seq2SeqConfig, config.model, 'config.model', **whisper.OPTIONS, vocab=FIRST + len(ALPHABET), frames=data.bands,
      context=max(LONGEST, config.sampler.length), source_context=-(-frames // 2))
  except ValueError as error:
    raise UserError(f'config.model: {error}') from error
  sampler = config_lib.build(SamplerOptions, config.sampler, 'config.sampler')

  def read(sound_N: np.ndarray) -> np.ndarray:
    return front(audio.fit(sound_N, samples))

  @functools.cache
  def examples(split: str) -> Arrays:
    found = spoken_digits.read(data.originals or '.', split)
    target_NT, _ = pad([encode(spoken_digits.WORDS[digit]) for digit in found.digits], LONGEST, TOKENS.padding)
    columns = {'source': np.stack([read(sound_N) for sound_N in found.sounds]), 'target': target_NT}
    return Arrays(columns, {'name': data.name, 'split': split})

  heldout = lambda: examples(data.heldout)
  example = {'source': jax.ShapeDtypeStruct((frames, data.bands), np.float32), 'target': jax.ShapeDtypeStruct((LONGEST,), np.int32)}
  return Experiment(
    objective=config_lib.build(Seq2Seq, config.objective, 'config.objective', network=seq2seq.seq2seq(model),
                               start_cache=functools.partial(seq2seq.start_cache, model), tokens=TOKENS, sampler=sampler),
    train=Pipeline(lambda: examples(data.train), config.batch_size, config.seed, functools.partial(later, most=data.shift)),
    heldout=Pipeline(heldout, config.batch_size, config.seed, shuffle=False),
    optimizers=optimizers.from_config(config.optimizers, config.steps),
    example=example,
    ema=dict(config.ema),
    axes={'net': seq2seq.axes(model)},
    conditions={'source': Condition(
      lambda path: read(audio.read_wav(path, spoken_digits.RATE)), lambda row: heldout().columns['source'][row % len(heldout())],
      f'the path of a .wav file of 16 bits, one channel and {spoken_digits.RATE} samples a second')},
    render=lambda columns: {'samples': '\n'.join(map(decode, columns['tokens']))},
    metrics=(word_errors(heldout),))


def encode(word: str) -> np.ndarray:
  """The tokens of a word, and the stop token."""
  return np.asarray([FIRST + ALPHABET.index(character) for character in word] + [TOKENS.stop], np.int32)


def decode(tokens_T: np.ndarray) -> str:
  """The characters before the stop token."""
  return ''.join(ALPHABET[token - FIRST] for token in tokens_T if token >= FIRST)


def later(columns: Columns, random: RowRandom, most: int) -> Columns:
  """Each recording moved by 0 to `most` frames; its softest number, which silence has, comes before."""
  source_BSF = columns['source']
  place_BS = np.arange(source_BSF.shape[1]) - random.integers(0, most + 1)[:, None]
  moved_BSF = np.take_along_axis(source_BSF, np.maximum(place_BS, 0)[..., None], axis=1)
  return {**columns, 'source': np.where(place_BS[..., None] < 0, source_BSF.min(axis=(1, 2), keepdims=True), moved_BSF)}


def word_errors(heldout: Callable[[], Arrays]) -> Metric:
  """wer: word error rate on the held-out recordings.

  Word errors are substitutions, insertions and deletions. Every recording has one word, and what is recognised has no spaces, so it is one
  word or none: the errors are the words that differ, and no alignment is needed.
  """
  card: dict[str, object] = {'wer': 'share of the words that differ; one word a recording'}

  def compute(sample: Callable[[int, Mapping[str, np.ndarray]], Columns], seed: int) -> dict[str, float]:
    columns = heldout().columns
    card['words'] = len(heldout())
    drawn_NT = sample(len(heldout()), {'source': columns['source']})['tokens']
    wrong = [decode(found_T) != decode(target_T) for found_T, target_T in zip(drawn_NT, columns['target'], strict=True)]
    return {'wer': float(np.mean(wrong))}

  return Metric('recognition', compute, card)
