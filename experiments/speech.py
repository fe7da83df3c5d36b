"""Builder of speech recognition: log-mel frames of a spoken word to its characters or pieces, by an encoder-decoder as Whisper is."""

from collections.abc import Callable, Mapping
import dataclasses
import functools
import pathlib

import jax
import numpy as np

from experiments import imported
from genjax import config as config_lib
from genjax.config import Config
from genjax.data import audio, spoken_digits, tokenizers
from genjax.data.parallel import pad
from genjax.data.pipeline import Pipeline, RowRandom
from genjax.data.sources import Arrays
from genjax.models import seq2seq, whisper
from genjax.objectives.decoding import SamplerOptions
from genjax.objectives.seq2seq import Seq2Seq, Tokens
from genjax.training import optimizers
from genjax.training.experiment import Columns, Condition, Experiment, Metric
from genjax.types import Tree, UserError

TOKENS = Tokens(start=1, stop=2, padding=0)
FIRST = 3  # the token of the first character
ALPHABET = ''.join(sorted(set(''.join(spoken_digits.WORDS))))
LONGEST = max(map(len, spoken_digits.WORDS)) + 1  # tokens of a word, the stop token included


def build(config: Config) -> Experiment:
  """Recognition of spoken digits.

  config.data:
    name: 'free_spoken_digits', see `genjax.data.spoken_digits`. train, heldout: splits. originals: folder of the recordings.
    seconds: of sound that the model reads; longer recordings are cut, and silence follows shorter ones.
    bands, window, hop, rate: see `genjax.data.audio.LogMel`; the rate is by default that of the recordings, which are resampled to another.
    shift: training recordings begin up to so many frames later.
    vocabulary: '' or absent for characters; or the path of Whisper's tokenizer. Then vocabulary_size is the number of the model's tokens,
      tokens are those that start and stop a target and pad, and begin is a text of special tokens that stands before every target, such as
      '<|en|><|transcribe|><|notimestamps|>'.
  config.model: options of `Seq2SeqConfig` but for those that `genjax.models.whisper.OPTIONS` and the data fix; those of the context and of
    source_context are by default what the data needs.
  config.objective: smoothing, see `Seq2Seq`. config.sampler: see `SamplerOptions`.

  Raises:
    UserError: another name, or options that do not fit together.
  """
  data = config.data
  if data.name:
    config_lib.choose({'free_spoken_digits': spoken_digits}, data.name, 'config.data.name')
  rate = data.get('rate') or spoken_digits.RATE
  front = audio.LogMel(rate, data.bands, data.window, data.hop)
  samples = round(data.seconds * rate)
  frames = front.frames(samples)
  speech = _pieces(config) if data.get('vocabulary') else Transcripts(encode, decode, TOKENS, FIRST + len(ALPHABET), LONGEST, {})
  length = len(speech.tokens.begins) + max(speech.longest, config.sampler.length)
  model = _options(config, speech.size, config.model.get('context') or length, config.model.get('source_context') or -(-frames // 2))
  if model.context < length or model.source_context < -(-frames // 2):
    raise UserError(f'the model writes {model.context} tokens and reads {2 * model.source_context} frames; asked for are {length} and '
                    f'{frames}: make config.sampler.length or config.data.seconds less')
  sampler = config_lib.build(SamplerOptions, config.sampler, 'config.sampler')

  def read(sound_N: np.ndarray) -> np.ndarray:
    return front(audio.fit(sound_N, samples))

  @functools.cache
  def examples(split: str) -> Arrays:
    imported.check_data(config)
    found = spoken_digits.read(data.originals or '.', split)
    target_NT, _ = pad([speech.encode(spoken_digits.WORDS[digit]) for digit in found.digits], speech.longest, speech.tokens.padding)
    sounds = (audio.resample(sound_N, spoken_digits.RATE, rate) for sound_N in found.sounds)
    columns = {'source': np.stack([read(sound_N) for sound_N in sounds]), 'target': target_NT}
    return Arrays(columns, {'name': data.name, 'split': split})

  heldout = lambda: examples(data.heldout)
  example = {'source': jax.ShapeDtypeStruct((frames, data.bands), np.float32), 'target': jax.ShapeDtypeStruct((speech.longest,), np.int32)}
  return Experiment(
    objective=config_lib.build(Seq2Seq, config.objective, 'config.objective', network=seq2seq.seq2seq(model),
                               start_cache=functools.partial(seq2seq.start_cache, model), tokens=speech.tokens, sampler=sampler),
    train=Pipeline(lambda: examples(data.train), config.batch_size, config.seed, functools.partial(later, most=data.shift)),
    heldout=Pipeline(heldout, config.batch_size, config.seed, shuffle=False),
    optimizers=optimizers.from_config(config.optimizers, config.steps),
    example=example,
    ema=dict(config.ema),
    axes={'net': seq2seq.axes(model)},
    conditions={'source': Condition(
      lambda path: read(audio.read_wav(path, rate)), lambda row: heldout().columns['source'][row % len(heldout())],
      f'the path of a .wav file of 16 bits, one channel and {rate} samples a second')},
    render=lambda columns: {'samples': '\n'.join(map(speech.decode, columns['tokens']))},
    metrics=(word_errors(heldout, speech.decode),),
    assets={'vocabulary': data.vocabulary} if speech.files else {},
    files=speech.files)


@dataclasses.dataclass(frozen=True)
class Transcripts:
  """Words as targets.

  encode: word -> tokens int32 (T,), the stop token at the end. decode: tokens -> word. tokens: those with a meaning of their own. size: of
  the vocabulary. longest: tokens of a word. files: what a run keeps.
  """

  encode: Callable[[str], np.ndarray]
  decode: Callable[[np.ndarray], str]
  tokens: Tokens
  size: int
  longest: int
  files: dict[str, bytes]


def _pieces(config: Config) -> Transcripts:
  """Words as pieces of the tokenizer that a config names; as in published transcripts, a space comes before them."""
  data = config.data
  vocabulary = tokenizers.open_tokenizer(imported.folder(config) or pathlib.Path(data.vocabulary))
  imported.check_size(config, vocabulary.size, data.vocabulary_size, 'config.data.vocabulary_size')
  tokens = imported.tokens(config, begins=tuple(int(token) for token in vocabulary.encode(data.begin)))

  def write(word: str) -> np.ndarray:
    return np.append(vocabulary.encode(f' {word}'), tokens.stop).astype(np.int32)

  def read(tokens_T: np.ndarray) -> str:
    stops_S = np.flatnonzero((tokens_T == tokens.stop) | (tokens_T == tokens.padding) | (tokens_T < 0))
    return vocabulary.decode(tokens_T[:stops_S[0]] if len(stops_S) else tokens_T).strip()

  longest = max(len(write(word)) for word in spoken_digits.WORDS)
  return Transcripts(write, read, tokens, data.vocabulary_size, longest, {**vocabulary.files(), **imported.files(config)})


def exported_options(config: Config, net: Tree) -> seq2seq.Seq2SeqConfig:
  """The options of a run's model, of which the parameters are given."""
  context, sound = net['decoder']['input']['position']['embedding'], net['encoder']['input']['frames']['sinusoids']
  return _options(config, len(net['embedding']['embedding']), len(context), len(sound))


def _options(config: Config, vocab: int, context: int, source_context: int) -> seq2seq.Seq2SeqConfig:
  given = {key: value for key, value in config.model.items() if key not in ('context', 'source_context')}
  fixed = {**whisper.OPTIONS, **({'activation': given.pop('activation')} if 'activation' in given else {})}
  return config_lib.build(seq2seq.Seq2SeqConfig, given, 'config.model', **fixed, vocab=vocab, frames=config.data.bands, context=context,
                          source_context=source_context)


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


def word_errors(heldout: Callable[[], Arrays], read: Callable[[np.ndarray], str] = decode) -> Metric:
  """wer: word error rate on the held-out recordings.

  Word errors are substitutions, insertions and deletions. Every recording has one word, and what is recognised has no spaces, so it is one
  word or none: the errors are the words that differ, and no alignment is needed.
  """
  card: dict[str, object] = {'wer': 'share of the words that differ; one word a recording'}

  def compute(sample: Callable[[int, Mapping[str, np.ndarray]], Columns], seed: int) -> dict[str, float]:
    columns = heldout().columns
    card['words'] = len(heldout())
    drawn_NT = sample(len(heldout()), {'source': columns['source']})['tokens']
    wrong = [read(found_T) != read(target_T) for found_T, target_T in zip(drawn_NT, columns['target'], strict=True)]
    return {'wer': float(np.mean(wrong))}

  return Metric('recognition', compute, card)
