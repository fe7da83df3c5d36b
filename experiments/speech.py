"""Builder of speech recognition: log-mel frames of a recording to its transcript, by an encoder-decoder as Whisper
is."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools

import jax
import numpy as np

from genjax import checks
from genjax import config as config_lib
from genjax.config import Config
from genjax.data.audio import mel, recordings, spoken_digits
from genjax.data.pipeline import Pipeline, RowRandom, Source
from genjax.data.sources import Arrays
from genjax.data.text import tokenizers
from genjax.data.text.parallel import pad
from genjax.experiments import imported, sections
from genjax.metrics.text import word_error_rate
from genjax.models.transformers import seq2seq, whisper
from genjax.objectives.decoding import SamplerOptions
from genjax.objectives.seq2seq import Seq2Seq, Tokens
from genjax.options import Section
from genjax.training.experiment import Columns, Condition, Experiment, Metric
from genjax.training.optimization import optimizers
from genjax.types import Tree, UserError

DIGITS = 'free_spoken_digits'
TOKENS = Tokens(start=1, stop=2, padding=0)
FIRST = 3  # the token of the first character or byte
CHUNK = 256  # recordings recognised at a time
ALPHABET = ''.join(sorted(set(''.join(spoken_digits.WORDS))))
LONGEST = max(map(len, spoken_digits.WORDS)) + 1  # tokens of a word, the stop token included


def build(config: Config) -> Experiment:
  """Speech recognition.

  config.data: see `Data`.
  config.model: options of `Seq2SeqConfig` but for those that `genjax.models.transformers.whisper.OPTIONS` and the data
    fix; those of the context and of source_context are by default what the data needs.
  config.objective: smoothing, see `Seq2Seq`. config.sampler: see `SamplerOptions`.

  Raises:
    UserError: options that do not fit together; when data is read, a transcript that is too long, and what
      `open_recordings` raises.
  """
  data = config.data
  with checks.under('config.data'):
    given = config_lib.plain(data)
    checks.whole(given, 1, 'bands', 'window', 'hop')
    checks.whole(given, 0, 'shift', 'longest', 'rate', 'vocabulary_size')
    checks.positive(given, 'seconds')
  config_lib.build(SamplerOptions, config.sampler, 'config.sampler')  # before data is read
  rate = data.get('rate') or spoken_digits.RATE
  front = mel.LogMel(rate, data.bands, data.window, data.hop)
  samples = round(data.seconds * rate)
  frames = front.frames(samples)
  speech = _transcripts(config)
  length = len(speech.tokens.begins) + max(speech.longest, config.sampler.length)
  model = _options(config, speech.size,
                   config.model.get('context') or length,
                   config.model.get('source_context') or -(-frames // 2))
  if model.context < length or model.source_context < -(-frames // 2):
    raise UserError(
      f'the model writes {model.context} tokens and reads {2 * model.source_context} frames; asked for are {length} '
      'and '
      f'{frames}: make config.sampler.length or config.data.seconds less')
  sampler = imported.sampler(config, speech.known or speech.size, speech.unused)

  def read(sound_N: np.ndarray) -> np.ndarray:
    return front(mel.fit(sound_N, samples))

  def targets(texts: Sequence[str]) -> np.ndarray:
    tokens = [speech.encode(text) for text in texts]
    if (most := max(map(len, tokens))) > speech.longest:
      raise UserError(
        f'a transcript of {data.name} has {most} tokens, and config.data.longest is {speech.longest}; set it to at '
        'least '
        f'{most}, or leave longer ones out')
    return pad(tokens, speech.longest, speech.tokens.padding)[0]

  @functools.cache
  def examples(split: str) -> Source:
    imported.check_data(config)
    facts = {'name': data.name, 'split': split}
    if data.name == DIGITS:  # short enough to keep
      digits = spoken_digits.read(data.get('originals') or '.', split)
      sounds = (mel.resample(sound_N, spoken_digits.RATE, rate) for sound_N in digits.sounds)
      columns = {'source': np.stack([read(sound_N) for sound_N in sounds]),
                 'target': targets([spoken_digits.WORDS[digit] for digit in digits.digits])}
      return Arrays(columns, facts)
    fields = data.get('audio', 'audio'), data.get('field', 'text')
    paths, texts = zip(*recordings.open_recordings(data.name, split, *fields))
    return recordings.Transcribed(paths, lambda path: read(mel.read_wav(path, rate)), targets(texts), facts)

  heldout, threads = lambda: examples(data.heldout), data.get('threads', 1)
  example = {
    'source': jax.ShapeDtypeStruct((frames, data.bands), np.float32), 'target': jax.ShapeDtypeStruct((speech.longest,),
                                                                                                     np.int32)
  }
  return Experiment(
    objective=config_lib.build(Seq2Seq, config.objective, 'config.objective', network=seq2seq.seq2seq(model),
                               start_cache=functools.partial(seq2seq.start_cache,
                                                             model), tokens=speech.tokens, sampler=sampler),
    train=Pipeline(lambda: examples(data.train), config.batch_size, config.seed,
                   functools.partial(later, most=data.shift), threads=threads), heldout=Pipeline(
                     heldout, config.batch_size, config.seed, shuffle=False,
                     threads=threads), optimizers=optimizers.from_config(config.optimizers, config.steps),
    example=example, ema=dict(config.ema), axes={'net': seq2seq.axes(model)}, conditions={
      'source':
        Condition(lambda path: read(mel.read_wav(path, rate)),
                  lambda row: heldout().get(np.asarray([row % len(heldout())]))['source'][0], 'the path of a .wav file',
                  path=True)
    }, render=lambda columns: {'samples': '\n'.join(map(speech.decode, columns['tokens']))}, metrics=(word_errors(
      heldout, speech.decode),), assets={'vocabulary': data.vocabulary} if speech.files else {}, files=speech.files)


@dataclasses.dataclass(frozen=True)
class Data:
  """config.data.

  Attributes:
    name: 'free_spoken_digits', see `genjax.data.audio.spoken_digits`; or the path of JSON lines, see
      `genjax.data.audio.recordings.open_recordings`.
    train: split to train on, such as 'train[:90%]'.
    heldout: split to evaluate on.
    seconds: of sound that the model reads; longer recordings are cut, and silence follows shorter ones.
    bands: mel bands of a frame, see `genjax.data.audio.mel.LogMel`.
    window: samples in a Hann window and its Fourier transform.
    hop: samples from one frame to the next.
    shift: training recordings begin up to so many frames later.
    originals: folder of the spoken digits; '' for the current one.
    rate: samples a second, to which recordings of another rate are brought; 0 for that of the spoken digits.
    audio: JSON field of the path of a recording.
    field: JSON field of its transcript.
    longest: most tokens of a transcript, the one that stops it included; 0 for that of the spoken digits.
    vocabulary: '' for the characters of the digits' names, and for the UTF-8 bytes of other transcripts; or the path of
      Whisper's tokenizer.
    vocabulary_size: tokens of the model, with a tokenizer.
    begin: text of special tokens that stands before every target, such as '<|en|><|transcribe|><|notimestamps|>', with
      a tokenizer.
    threads: batches whose recordings are read at a time; it changes no batch.
  """

  name: str
  train: str
  heldout: str
  seconds: float
  bands: int
  window: int
  hop: int
  shift: int
  originals: str = ''
  rate: int = 0
  audio: str = 'audio'
  field: str = 'text'
  longest: int = 0
  vocabulary: str = ''
  vocabulary_size: int = 0
  begin: str = ''
  threads: int = 1


def options(config: Config) -> dict[str, Section]:
  """What the sections of the config take."""
  fixed = {**dict.fromkeys(whisper.OPTIONS, ''), 'vocab': 'config.data.vocabulary', 'frames': 'config.data.bands'}
  del fixed['activation']
  chosen = {'context': 0, 'source_context': 0, 'activation': whisper.OPTIONS['activation']}
  return {
    'data': Section((Data,)),
    **sections.special_tokens(config),
    'model': Section((seq2seq.Seq2SeqConfig,), fixed, chosen),
    'objective': Section((Seq2Seq,), {'network': '', 'start_cache': '', 'tokens': 'config.data.tokens',
                                      'sampler': 'config.sampler'}),
    'sampler': Section((SamplerOptions,), {'vocabulary': 'config.data.vocabulary'}),
    **sections.training(config)}


@dataclasses.dataclass(frozen=True)
class Transcripts:
  """Texts as targets.

  encode: text -> tokens int32 (T,), the stop token at the end. decode: tokens -> text. tokens: those with a meaning of
    their own.
  size: of the network's vocabulary. longest: tokens of a text. files: what a run keeps.
  known, unused: tokens from the first on, and the others, have no text; 0 is none of that kind.
  """

  encode: Callable[[str], np.ndarray]
  decode: Callable[[np.ndarray], str]
  tokens: Tokens
  size: int
  longest: int
  files: dict[str, bytes]
  known: int = 0
  unused: tuple[int, ...] = ()


def _transcripts(config: Config) -> Transcripts:
  data = config.data
  digits = data.name in ('', DIGITS)
  longest = data.get('longest', 0)
  if not (longest or digits):
    raise UserError(
      f'config.data.longest must be set for recordings of your own, {data.name!r}: the most tokens of a transcript, '
      'the one '
      f'that stops it included. The only set with a name is {DIGITS}')
  if data.get('vocabulary'):
    return _pieces(config, longest)
  if digits:
    return Transcripts(encode, decode, TOKENS, FIRST + len(ALPHABET), longest or LONGEST, {})
  return Transcripts(encode_bytes, decode_bytes, TOKENS, FIRST + 256, longest, {})


def _pieces(config: Config, longest: int) -> Transcripts:
  """Texts as pieces of the tokenizer that a config names; as in published transcripts, a space comes before them."""
  data = config.data
  vocabulary = tokenizers.open_tokenizer(imported.folder(config) or data.vocabulary)
  imported.check_size(config, vocabulary.size, data.vocabulary_size, 'config.data.vocabulary_size')
  tokens = imported.tokens(config, begins=tuple(int(token) for token in vocabulary.encode(data.begin)))

  def write(text: str) -> np.ndarray:
    return np.append(vocabulary.encode(f' {text}'), tokens.stop).astype(np.int32)

  def read(tokens_T: np.ndarray) -> str:
    stops_S = np.flatnonzero(
      np.isin(tokens_T, (tokens.stop, tokens.padding, *config.sampler.get('stop', ()))) | (tokens_T < 0))
    return vocabulary.decode(tokens_T[:stops_S[0]] if len(stops_S) else tokens_T).strip()

  longest = longest or max(len(write(word)) for word in spoken_digits.WORDS)
  return Transcripts(write, read, tokens, data.vocabulary_size, longest,
                     {**vocabulary.files(), **imported.files(config)}, vocabulary.size, vocabulary.unused)


def exported_options(config: Config, net: Tree) -> seq2seq.Seq2SeqConfig:
  """The options of a run's model, of which the parameters are given."""
  context, sound = net['decoder']['input']['position']['embedding'], net['encoder']['input']['frames']['sinusoids']
  return _options(config, len(net['embedding']['embedding']), len(context), len(sound))


def _options(config: Config, vocab: int, context: int, source_context: int) -> seq2seq.Seq2SeqConfig:
  given = {key: value for key, value in config.model.items() if key not in ('context', 'source_context')}
  fixed = {**whisper.OPTIONS, **({'activation': given.pop('activation')} if 'activation' in given else {})}
  return config_lib.build(seq2seq.Seq2SeqConfig, given, 'config.model', **fixed, vocab=vocab, frames=config.data.bands,
                          context=context, source_context=source_context)


def encode(word: str) -> np.ndarray:
  """The tokens of a word, and the stop token."""
  return np.asarray([FIRST + ALPHABET.index(character) for character in word] + [TOKENS.stop], np.int32)


def decode(tokens_T: np.ndarray) -> str:
  """The characters before the stop token."""
  return ''.join(ALPHABET[token - FIRST] for token in tokens_T if token >= FIRST)


def encode_bytes(text: str) -> np.ndarray:
  """The tokens of the UTF-8 bytes of a text, and the stop token."""
  return np.asarray([FIRST + byte for byte in text.encode()] + [TOKENS.stop], np.int32)


def decode_bytes(tokens_T: np.ndarray) -> str:
  """The text of the bytes before the stop token; bytes that are no UTF-8 become U+FFFD."""
  return bytes(int(token) - FIRST for token in tokens_T if token >= FIRST).decode(errors='replace')


def later(columns: Columns, random: RowRandom, most: int) -> Columns:
  """Each recording moved by 0 to `most` frames; its softest number, which silence has, comes before."""
  source_BSF = columns['source']
  place_BS = np.arange(source_BSF.shape[1]) - random.integers(0, most + 1)[:, None]
  moved_BSF = np.take_along_axis(source_BSF, np.maximum(place_BS, 0)[..., None], axis=1)
  return {**columns, 'source': np.where(place_BS[..., None] < 0, source_BSF.min(axis=(1, 2), keepdims=True), moved_BSF)}


def word_errors(heldout: Callable[[], Source], read: Callable[[np.ndarray], str] = decode) -> Metric:
  """wer: word error rate on the held-out recordings: substitutions, insertions and deletions by words of the
  transcripts.

  Words are what spaces separate, as they are written.
  """
  card: dict[str, object] = {'wer': 'substitutions, insertions and deletions by words of the transcripts'}

  def compute(sample: Callable[[int, Mapping[str, np.ndarray]], Columns], seed: int) -> dict[str, float]:
    source = heldout()
    found, expected = [], []
    for start in range(0, len(source), CHUNK):
      columns = source.get(np.arange(start, min(start + CHUNK, len(source))))
      drawn_BT = sample(len(columns['source']), {'source': columns['source']})['tokens']
      found += [read(tokens_T).split() for tokens_T in drawn_BT]
      expected += [read(tokens_T).split() for tokens_T in columns['target']]
    card.update(recordings=len(source), words=sum(map(len, expected)))
    return {'wer': word_error_rate(found, expected)}

  return Metric('recognition', compute, card, check=heldout)
