"""Configs of imported public models: the experiment of the model, without data and training steps."""

from collections.abc import Callable, Mapping
import dataclasses
import pathlib
from typing import Any

from genjax import interop
from genjax.config import Config
from genjax.configs import common
from genjax.data.audio import mel
from genjax.data.images import resizing
from genjax.data.text import marian, tokenizers
from genjax.experiments import bert, classifier, clip, extractors, kl, language, public_denoisers, seq2seq, speech, vq
from genjax.experiments.sentences import open_pieces
from genjax.interop import origins, pipelines
from genjax.interop.entries import Entries, read_json
from genjax.models.autoencoders.dc import DcAe
from genjax.models.autoencoders.kl import Kl
from genjax.models.autoencoders.tiny import Tiny
from genjax.models.autoencoders.vq import Whole
from genjax.models.features.inception import InceptionConfig
from genjax.models.features.lpips import LpipsConfig
from genjax.models.transformers.bert import BertConfig
from genjax.models.transformers.clip import ClipConfig
from genjax.models.transformers.decoder import TransformerConfig
from genjax.models.transformers.seq2seq import Seq2SeqConfig
from genjax.models.transformers.vit import VitConfig
from genjax.types import UserError

GENERATION = 'generation_config.json'
PREPROCESSING = 'preprocessor_config.json'
TEXT_ENCODER, TOKENIZER = 'text_encoder', 'tokenizer'  # folders of pipelines
# of a run without training steps; sgd has no state
OPTIMIZER = dict(name='sgd', lr=1e-4, weight_decay=0.0, clip=1.0, warmup=0, schedule='constant', end=0.1)
MULTILINGUAL = 51865  # size of the vocabulary from which a published Whisper is multilingual


def make(model: interop.Model, folder: pathlib.Path, trains: bool = True) -> Config:
  """Makes the locked config.

  Args:
    model: the model in `folder`.
    folder: also has the tokenizer.
    trains: whether the run is to be trained or sampled. A part of other runs needs no head.

  Raises:
    UserError: no experiment supports the model, or it lacks a tokenizer that it needs.
  """
  if type(model.config) not in _MAKERS:
    raise UserError(
      f'{folder}: a {model.architecture} can be loaded (genjax.interop.load), but not imported as a run: no experiment '
      f'has a {type(model.config).__name__}')
  if trains:
    _check_trains(model, folder)
  config = common.base(steps=0, batch_size=8)
  _MAKERS[type(model.config)](config, model, folder)
  config.optimizers.net = dict(OPTIMIZER)
  return config.lock()


def _check_trains(model: interop.Model, folder: pathlib.Path) -> None:
  """Checks that a model has what is trained and sampled."""
  options = model.config
  if isinstance(options, BertConfig) and not (options.masked_lm or options.classes):
    raise UserError(
      f'{folder}: this bert has no head for masked tokens or for classes of sequences, so there is nothing to '
      'train; a run can be made of a BertForMaskedLM, BertForPreTraining or BertForSequenceClassification. It may be a '
      'part of other runs as it is')
  if isinstance(options, Seq2SeqConfig) and not options.depth:
    raise UserError(
      f'{folder}: this {model.architecture} has only an encoder, and no experiment trains one; it may be a part of '
      'other runs as it is, and genjax.interop.load loads it')
  if isinstance(options, VitConfig) and not options.num_classes:
    raise UserError(f'{folder}: this vit has no classifier, which its experiment needs; it may be a part of other runs '
                    'as it is, and genjax.interop.load loads it')
  if isinstance(options, EXTRACTORS):
    raise UserError(f'{folder}: this {model.architecture} only extracts features, and no experiment trains one; it may '
                    'be a part as it is, and genjax.interop.load loads it')


def _language_model(config: Config, model: interop.Model, folder: pathlib.Path) -> None:
  options: TransformerConfig = model.config
  config.experiment = language.__name__
  vocabulary, start = 'ids', '0'
  if any((folder / name).is_file() for name in tokenizers.FILES):
    vocabulary, start = str(folder.absolute()), _start(tokenizers.open_tokenizer(folder))
  config.data = dict(_NO_DATA, field='text', separator='', vocabulary=vocabulary, vocabulary_size=options.vocab,
                     context=options.context, heldout_stride=0, start=start, segments=False)
  config.model = dict(name='gpt', **_without(options, 'vocab'))
  config.sampler = dict(common.TOKENS, length=min(256, options.context), temperature=0.8, top_p=0.95,
                        stop=_stops(model, folder))


def _start(tokenizer: tokenizers.Tokenizer) -> str:
  """The default prompt: the token that begins a text, or a minimal one."""
  if tokenizer.begins:
    return ''
  first = tokenizer.special.get('bos', tokenizer.special.get('eos'))
  texts = [*([] if first is None else [tokenizer.decode([first])]), '\n', ' ', 'a']
  return next((text for text in texts if len(tokenizer.encode(text))), texts[-1])


def _encoder(config: Config, model: interop.Model, folder: pathlib.Path) -> None:
  options: BertConfig = model.config
  config.experiment = bert.__name__
  tokenizer = _tokenizer(folder, 'vocab.txt')
  config.data = dict(_NO_DATA, field='text', label='label', vocabulary=str(folder.absolute()),
                     vocabulary_size=options.vocab, context=options.context, more=(),
                     start=tokenizer.decode([tokenizer.special.get('mask', 0)]))
  config.model = _without(options, 'masked_lm')
  config.objective = dict(name='classification' if options.classes else 'masked_lm', rate=0.15, smoothing=0.0)


def _encoder_decoder(config: Config, model: interop.Model, folder: pathlib.Path) -> None:
  options: Seq2SeqConfig = model.config
  (_speech if options.frames else _translation)(config, model, folder)
  config.model = _without(options, 'vocab', 'target_vocab', *(_OF_WHISPER if options.frames else ()))
  config.objective = dict(smoothing=0.0)


def _translation(config: Config, model: interop.Model, folder: pathlib.Path) -> None:
  options: Seq2SeqConfig = model.config
  if options.target_vocab:
    raise UserError(
      f'{folder}: this {model.architecture} has an embedding for each side, but runs of public models need one for '
      'both; genjax.interop.load loads it')
  config.experiment = seq2seq.__name__
  marian_files = any((folder / name).is_file() for name in marian.SIDES)
  words = folder if marian_files else tokenizer_folder(folder)
  if not marian_files:
    _tokenizer(words, f'{tokenizers.T5}, or {", ".join(marian.SIDES)} and {marian.VOCABULARY}')
  open_pieces(words)
  config.data = dict(_NO_DATA, source='', target='', splitter='simple',
                     least_count=1, vocabulary=str(words.absolute()), vocabulary_size=options.vocab, tokens=_tokens(
                       model, folder), prefix='', context=options.context, padding=False)
  config.sampler = dict(common.TOKENS, length=min(128, options.context), temperature=0.0,
                        stop=_stops(model, folder)[1:])
  config.evaluation = dict(sacrebleu=False)


def _speech(config: Config, model: interop.Model, folder: pathlib.Path) -> None:
  options: Seq2SeqConfig = model.config
  config.experiment = speech.__name__
  tokenizer = _tokenizer(folder, '')
  front = Entries(_beside(folder, PREPROCESSING), str(folder / PREPROCESSING))
  usual = mel.LogMel()
  front.only('feature_size', options.frames, 'as many bands as the model reads')
  rate, window, hop = (front.integer(name, getattr(usual, ours)) for name, ours in (
    ('sampling_rate', 'rate'), ('n_fft', 'window'), ('hop_length', 'hop')))
  told = _beside(folder, GENERATION)
  languages = ('<|en|>', '<|transcribe|>') if told.get('is_multilingual', options.vocab >= MULTILINGUAL) else ()
  begin = ''.join(text for text in (*languages, '<|notimestamps|>') if len(tokenizer.encode(text)) == 1)
  config.data = dict(_NO_DATA, seconds=2 * options.source_context * hop / rate, bands=options.frames, window=window,
                     hop=hop, rate=rate, shift=0, audio='audio', field='text',
                     longest=0, vocabulary=str(folder.absolute()), vocabulary_size=options.vocab, tokens=_tokens(
                       model, folder), begin=begin, threads=1)
  suppressed = {ours: _listed(told if theirs in told else model.source, theirs, folder / GENERATION, options.vocab)
                for ours, theirs in (('suppress', 'suppress_tokens'), ('begin_suppress', 'begin_suppress_tokens'))}
  config.sampler = dict(common.TOKENS, length=min(128, options.context - 4), temperature=0.0,
                        stop=_stops(model, folder)[1:], **suppressed)


def _stops(model: interop.Model, folder: pathlib.Path) -> tuple[int, ...]:
  """Stop tokens as for `generate` of transformers, from generation_config.json or else config.json.

  Raises:
    UserError: the entry is neither a token nor a list of tokens.
  """
  path = folder / GENERATION if (folder / GENERATION).is_file() else folder / 'config.json'
  return _listed(_beside(folder, path.name), 'eos_token_id', path, model.config.vocab)


def _listed(told: Mapping[str, Any], name: str, path: pathlib.Path, vocab: int) -> tuple[int, ...]:
  """The distinct tokens of an entry that the model has.

  Raises:
    UserError: the entry is neither a token nor a list of tokens.
  """
  entry = told.get(name)
  tokens = entry if isinstance(entry, list) else [] if entry is None else [entry]
  if wrong := [token for token in tokens if isinstance(token, bool) or not isinstance(token, int)]:
    raise UserError(f'{path}: {name} must be a token, a list of tokens or null, got {wrong[0]!r}')
  return tuple(dict.fromkeys(token for token in tokens if 0 <= token < vocab))


def _tokens(model: interop.Model, folder: pathlib.Path) -> dict[str, int]:
  """Start, stop and padding tokens of a target. If padding equals stop, start replaces it, which is never drawn."""
  entries = Entries({**model.source, **_beside(folder, GENERATION)}, str(folder / 'config.json'))
  stops = _stops(model, folder) or (entries.integer('eos_token_id', least=0),)
  padding = entries.integer('pad_token_id', stops[0], least=0)
  start = entries.integer('decoder_start_token_id', padding, least=0)
  return {'start': start, 'stop': stops[0], 'padding': start if padding in stops else padding}


def _images(config: Config, model: interop.Model, folder: pathlib.Path) -> None:
  options: VitConfig = model.config
  if not options.num_classes:
    _headless(config, model, folder)
    return
  front = Entries(_beside(folder, PREPROCESSING), str(folder / PREPROCESSING))
  for name in ('image_mean', 'image_std'):
    front.only(name, [0.5] * options.shape[-1], 'pixels are read in [-1, 1]')
  front.only('do_center_crop', False, 'whole images are resized, unless config.data.crop is set')
  config.experiment = classifier.__name__
  config.data = dict(_NO_DATA, shape=options.shape, num_classes=options.num_classes,
                     resize=_resize(front, options.shape), crop=False, threads=1)
  config.model = dict(name='vit', **_without(options, 'shape', 'num_classes'))
  config.objective = dict(smoothing=0.0, shift=0, flip=False)


def _autoencoder(config: Config, model: interop.Model, folder: pathlib.Path) -> None:
  options: Kl | Tiny | DcAe = model.config
  config.experiment = kl.__name__
  config.data = {**common.IMAGES, **_NO_DATA, 'shape': options.shape, 'num_classes': 0, 'flip': False}
  config.model = dict(name={Kl: 'kl', Tiny: 'tiny', DcAe: 'dc'}[type(options)], **_without(options, 'shape'))
  # Public folders of those without a variance have one shift and one scale for all channels
  config.objective = dict(reconstruction='l1', kl_weight=1e-6 if isinstance(options, Kl) else 0.0,
                          normalisation='channels' if isinstance(options, Kl) else 'all')


def _denoiser(config: Config, model: interop.Model, folder: pathlib.Path) -> None:
  """A denoiser without its pipeline."""
  beside = folder.absolute().parent
  if (beside / pipelines.INDEX).is_file():
    raise UserError(f'{folder} is one component of the pipeline {beside}: import that, --from={beside}, for samples '
                    'from prompts; or copy the folder elsewhere to import the denoiser alone')
  public_denoisers.configure(config, model, str(folder))


def _quantized(config: Config, model: interop.Model, folder: pathlib.Path) -> None:
  options: Whole = model.config
  config.experiment = vq.__name__
  config.data = {**common.IMAGES, **_NO_DATA, 'shape': options.model.shape, 'num_classes': 0, 'flip': False}
  config.model = dict(name='vqgan', **_without(options.model, 'shape', 'width'))
  config.quantizer = dict(name='vector', **dataclasses.asdict(options.quantizer))
  config.objective = dict(reconstruction='l1', normalisation='channels')


def _headless(config: Config, model: interop.Model, folder: pathlib.Path) -> None:
  """A ViT without a classifier."""
  front = Entries(_beside(folder, PREPROCESSING), str(folder / PREPROCESSING))
  config.experiment = extractors.__name__
  config.data = dict(weights=origins.name(folder, model.source, 'vit'), resize=_resize(front, model.config.shape),
                     crop=False, mean=_channels(front, 'image_mean', (0.5,) * model.config.shape[2]),
                     deviation=_channels(front, 'image_std', (0.5,) * model.config.shape[2]))
  config.model = dict(name='vit', **dataclasses.asdict(model.config))


def _channels(front: Entries, name: str, default: tuple[float, ...]) -> tuple[float, ...]:
  """A number of each channel."""
  value: Any = front.values.get(name)
  value = list(default) if value is None else value
  if not isinstance(value, list) or len(value) != len(default) or not all(
      isinstance(number, (int, float)) for number in value):
    raise UserError(f'{front.where}: {name} must have {len(default)} numbers, got {value!r}')
  return tuple(map(float, value))


def _extractor(config: Config, model: interop.Model, folder: pathlib.Path) -> None:
  name = {InceptionConfig: 'inception', LpipsConfig: 'lpips'}[type(model.config)]
  config.experiment = extractors.__name__
  config.data = dict(weights=origins.name(folder, model.source, model.architecture), resize='', crop=False,
                     **(dict(side=0) if name == 'lpips' else {}))
  config.model = dict(name=name, **dataclasses.asdict(model.config))


def _clip(config: Config, model: interop.Model, folder: pathlib.Path) -> None:
  """A CLIP, or one of its towers; without a preprocessor_config.json images are read as the published ones were."""
  options: ClipConfig = model.config
  front = Entries(_beside(folder, PREPROCESSING), str(folder / PREPROCESSING))
  more = Entries(model.source, str(folder / 'config.json'))
  config.experiment = clip.__name__
  data: dict[str, Any] = dict(
    weights=origins.name(folder, model.source, model.architecture), resize='', crop=False,
    vocabulary=str(tokenizer_folder(folder).absolute()) if options.text else '', skip=more.integer('clip_skip', 0, 0),
    norm=more.flag('clip_norm', True), padding=more.flag('clip_padding', True))
  if options.image:
    number = front.integer('resample', resizing.FILTERS['bicubic'].value, least=0)
    data.update(resize=_filter(front, number) if front.flag('do_resize', True) else '',
                crop=front.flag('do_center_crop', True), mean=_channels(front, 'image_mean', CLIP_MEAN),
                deviation=_channels(front, 'image_std', CLIP_DEVIATION))
  config.data = data
  towers = {name: dataclasses.asdict(tower) if tower else {}
            for name, tower in (('text', options.text), ('image', options.image))}
  config.model = dict(name='clip', width=options.width, **towers)


def _resize(front: Entries, shape: tuple[int, int, int]) -> str:
  """The filter for resizing images; '' for no resizing."""
  if not front.flag('do_resize', True):
    return ''
  size = front.values.get('size')
  if size not in (None, {'height': shape[0], 'width': shape[1]}) and [size, size] != list(shape[:2]):
    raise UserError(
      f'{front.where}: images are resized to {size!r}, but the model needs {shape[0]} by {shape[1]} pixels')
  return _filter(front, front.integer('resample', resizing.FILTERS['bilinear'].value, least=0))


def _filter(front: Entries, number: int) -> str:
  """The name of a filter that Pillow numbers."""
  names = {filter.value: name for name, filter in resizing.FILTERS.items()}
  if number not in names:
    raise UserError(f'{front.where}: resample must be one of {names} as Pillow numbers its filters, got {number}')
  return names[number]


def tokenizer_folder(folder: pathlib.Path) -> pathlib.Path:
  """The folder with the tokenizer of a text encoder: its own, or in a pipeline the one beside it, 'tokenizer_2' for
  'text_encoder_2'."""
  beside = folder.absolute().with_name(folder.absolute().name.replace(TEXT_ENCODER, TOKENIZER))
  own = any((folder / name).is_file() for name in (*tokenizers.FILES, 'vocab.json'))
  return folder if own or not beside.is_dir() else beside


def _tokenizer(folder: pathlib.Path, others: str) -> tokenizers.Tokenizer:
  """The tokenizer of a model whose run needs one."""
  if not any((folder / name).is_file() for name in tokenizers.FILES):
    raise UserError(
      f'{folder} has no tokenizer, which a run of this model needs: expected {tokenizers.LIBRARY}'
      + (f', or {others}' if others else '') +
      '. If it is in other files, transformers writes this one: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)'
    )
  return tokenizers.open_tokenizer(folder)


def _beside(folder: pathlib.Path, name: str) -> dict[str, Any]:
  """Reads an optional JSON file of a model."""
  return read_json(folder / name, 'a part of the model') if (folder / name).is_file() else {}


def _without(options: Any, *names: str) -> dict[str, Any]:
  return {name: value for name, value in dataclasses.asdict(options).items() if name not in names}


_NO_DATA = dict(name='', train='train', heldout='train', data_dir='', originals='')
# options that `genjax.models.transformers.whisper.OPTIONS` or config.data set
_OF_WHISPER = ('frames', 'positions', 'pre_norm', 'key_bias', 'embedding_scale')
EXTRACTORS = (InceptionConfig, LpipsConfig, ClipConfig)
# of the images that the published CLIPs were trained on
CLIP_MEAN, CLIP_DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_MAKERS: dict[type, Callable[[Config, interop.Model, pathlib.Path], None]] = {
  TransformerConfig: _language_model, BertConfig: _encoder, Seq2SeqConfig: _encoder_decoder, VitConfig: _images,
  InceptionConfig: _extractor, LpipsConfig: _extractor, ClipConfig: _clip, Kl: _autoencoder,
  Tiny: _autoencoder, DcAe: _autoencoder, Whole: _quantized, **dict.fromkeys(public_denoisers.KNOWN, _denoiser)}
