"""Encodes pictures, and their captions, once for all trainings that stand on the same autoencoder and text encoder.

The result is packed data, see `genjax.data.packed`, with the splits 'train' and 'heldout' of the config. A row has

    image_mean, image_log_variance          of the posterior, as the autoencoder gives it
    text_tokens, text_mask, text_pooled     of the caption, with a text encoder, or with those of a prompt
    label, text, ...                        further columns of the data, unchanged

The key in its schema has the checksums of the data and of the parts, and the options that change a picture. With it a
stale folder is refused, where it is written and where it is read.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
import concurrent.futures
import contextlib
import dataclasses
import errno
import fcntl
import importlib
import os
import pathlib
import sys
from typing import Any

import jax
import numpy as np
import tqdm

from genjax import config as config_lib
from genjax import distributed
from genjax.config import Config
from genjax.data import packed
from genjax.data.pipeline import Source
from genjax.runs import assets, bases, configs, outputs
from genjax.training.experiment import Columns, Experiment
from genjax.training.monitoring.logs import say
from genjax.types import Params, UserError

# Found by name: builders stand on this package
LATENTS, PARTS, IMAGES, PROMPTS = (f'genjax.experiments.{name}'
                                   for name in ('latents', 'parts', 'images', 'condition_prompts'))
TEXT = 'text'  # the column of captions, and the part that encodes them
DTYPES = ('float32', 'float16')
SHARD_ROWS = 2048
_UNKNOWN = (errno.EBADF, errno.EISDIR, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # no locks there


@dataclasses.dataclass(frozen=True)
class Options:
  """How data is encoded.

  Attributes:
    autoencoder: RUN_DIR or RUN_DIR@STEP.
    text: RUN_DIR or RUN_DIR@STEP of a text encoder, or a folder of public weights; '' for none.
    prompts: name of a condition of kind 'prompt' of the config, which says by which of config.parts captions are
      encoded, and how they are joined; '' for none.
    shards: files to write, each of which is finished or begun anew; 0 for one for each `SHARD_ROWS` rows.
    batch: pictures that are encoded at a time.
    dtype: type in which latents and embeddings are stored, 'float32' or 'float16'.
    truncate: whether captions that are longer than the text encoder reads are cut off.
  """

  autoencoder: str
  text: str = ''
  prompts: str = ''
  shards: int = 0
  batch: int = 64
  dtype: str = 'float32'
  truncate: bool = False

  def __post_init__(self):
    for name, least in (('shards', 0), ('batch', 1)):
      if getattr(self, name) < least:
        raise UserError(f'--{name} must be at least {least}, got {getattr(self, name)}')
    if self.text and self.prompts:
      raise UserError('--text encodes captions by one encoder, --prompts as a condition of the config says; give one '
                      'of them')
    if self.dtype not in DTYPES:
      raise UserError(f'--dtype must be one of {DTYPES}, got {self.dtype!r}')


def encode(config: Config, out: str, options: Options) -> dict[str, Any]:
  """Encodes the splits of config.data into a folder; returns its schema.

  A call after an interruption goes on with the first unfinished shard. Several processes write every other shard each.
  The bytes depend on neither; on CPUs see `Encoder`.

  Args:
    config: of any experiment on the data; of it, only config.data and config.seed are read, and with
      `options.prompts` config.conditions and config.parts.
    out: the folder.
    options: see `Options`.

  Raises:
    UserError: a part is missing or of another kind, the pictures have another shape than the autoencoder reads, or the
      folder holds something else.
    StorageError: the folder cannot be written.
  """
  folder = outputs.folder(out, '--out')
  config = _with_parts(config, options)
  prompts = importlib.import_module(PROMPTS).captions(config, options.prompts) if options.prompts else None
  parts, splits = _open_parts(config, prompts), _open_splits(config, bool(options.text or options.prompts))
  _check(config, parts, splits['train'].get(np.zeros(1, np.int64)), bool(options.text or options.prompts))
  nothing: Any = None
  empty = Experiment(objective=nothing, train=nothing, heldout=nothing, optimizers={}, example={})
  filled = bases.attach(config, importlib.import_module(PARTS).attach(empty, *parts.values()))
  rows = Rows(splits, bool(config.data.get('flip')))
  shards = options.shards or -(-sum(rows.splits.values()) // SHARD_ROWS)
  key = _key(config, options, splits, parts, filled.assets['parts'], prompts)
  with _alone(folder):
    writer = packed.Writer(folder, shards, key, rows.splits)
    encoder = Encoder({name: part.functions for name, part in parts.items()}, filled.frozen, options, prompts)
    pending = writer.pending(distributed.number(), jax.process_count())
    with _bar(folder, sum(len(writer.rows(number)) for number in pending)) as bar:
      for number in pending:
        writer.write(number, packed.counted(encoder.rows(rows, writer.rows(number)), bar))
    return writer.close()


class Rows:
  """The examples of all splits, one after the other; in training each is followed by its mirror image if `mirrored`.

  Attributes:
    splits: name of a split -> number of its rows.
  """

  def __init__(self, sources: Mapping[str, Source], mirrored: bool):
    self._sources = sources
    self._copies = {name: 2 if mirrored and name == 'train' else 1 for name in sources}
    self.splits = {name: len(source) * self._copies[name] for name, source in sources.items()}

  def get(self, indices: np.ndarray) -> Columns:
    """The columns of ascending rows; those of the image mirrored where a row says so."""
    parts, first = [], 0
    for name, source in self._sources.items():
      inside = indices[(indices >= first) & (indices < first + self.splits[name])] - first
      first += self.splits[name]
      if not len(inside):
        continue
      index, turned = np.divmod(inside, self._copies[name])
      columns = source.get(index)
      image = columns['image']
      parts.append({**columns, 'image': np.where((turned == 1)[:, None, None, None], image[:, :, ::-1], image)})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


class Encoder:
  """Encodes rows, a batch at a time.

  Each device of this process encodes whole batches by the same program. So a row does not depend on their number
  (on CPUs: on the number of threads, which is that of the cores, or of the devices where they are more).

  Args:
    functions: part -> what its kind gives.
    frozen: part -> its parameters.
    options: see `Options`.
    prompts: how captions are encoded, a `genjax.experiments.condition_prompts.Captions`; None for the part 'text', if
      it is there.
  """

  def __init__(self, functions: Mapping[str, Any], frozen: Params, options: Options, prompts: Any = None):
    self._functions, self._options, self._prompts = functions, options, prompts
    self._devices = jax.local_devices()
    self._frozen = [jax.device_put(dict(frozen), device) for device in self._devices]
    self._programs = {_part(): jax.jit(functions[_part()].encode)}
    if TEXT in functions:
      self._programs[TEXT] = jax.jit(functions[TEXT].encode)
    if prompts:
      self._programs[TEXT] = jax.jit(prompts.encode)

  def rows(self, source: Rows, numbers: range) -> Iterator[dict[str, Any]]:
    """Yields the encoded rows `numbers`, in order. Batches are read ahead while others are computed."""
    size, begun = self._options.batch, deque()
    chunks = [np.asarray(numbers[start:start + size], np.int64) for start in range(0, len(numbers), size)]
    with concurrent.futures.ThreadPoolExecutor(1) as reader:
      reading = deque(reader.submit(source.get, chunk) for chunk in chunks[:2])
      for index in range(len(chunks)):
        columns = reading.popleft().result()
        if index + 2 < len(chunks):
          reading.append(reader.submit(source.get, chunks[index + 2]))
        begun.append((columns, self._begin(columns, index % len(self._devices))))
        if len(begun) > len(self._devices):
          yield from self._finish(*begun.popleft())
      while begun:
        yield from self._finish(*begun.popleft())

  def _begin(self, columns: Columns, number: int) -> dict[str, Any]:
    """Starts the computation of a batch on a device."""
    device, frozen = self._devices[number], self._frozen[number]
    autoencoder, take = _part(), np.minimum(np.arange(self._options.batch), len(columns['image']) - 1)
    image = jax.device_put(columns[self._functions[autoencoder].column][take], device)
    mean, log_variance = self._programs[autoencoder](frozen[autoencoder], image)
    made = dict(zip(importlib.import_module(LATENTS).moment_columns(self._functions[autoencoder]),
                    (mean, log_variance)))
    if TEXT in self._functions:
      ids, mask = self._functions[TEXT].tokenize(list(columns[TEXT]), self._options.truncate)
      told = self._programs[TEXT](frozen[TEXT], *jax.device_put((ids[take], mask[take]), device))
      made.update({f'{TEXT}_{name}': value for name, value in told.items()})
    if self._prompts:
      read = {name: value[take] for name, value in self._prompts.read(list(columns[TEXT])).items()}
      made.update(self._programs[TEXT](frozen, jax.device_put(read, device)))
    return made

  def _finish(self, columns: Columns, made: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows of a batch that was begun."""
    kept = {name: value for name, value in columns.items() if name != self._functions[_part()].column}
    arrays = {name: self._stored(np.asarray(value)) for name, value in jax.device_get(made).items()}
    for row in range(len(columns['image'])):
      yield {**{name: value[row] for name, value in arrays.items()},
             **{name: _plain(value[row]) for name, value in kept.items()}}

  def _stored(self, value: np.ndarray) -> np.ndarray:
    if value.dtype == bool:
      return value.astype(np.uint8)
    with np.errstate(over='ignore'):  # told below
      stored = value.astype(self._options.dtype)
    if not np.isfinite(stored).all():
      raise UserError(f'the encoder gives numbers that --dtype={self._options.dtype} cannot hold, or that are not '
                      'finite; use --dtype=float32, or another checkpoint (--workdir=RUN_DIR@STEP)')
    return stored


def _part() -> str:
  """The name of the autoencoder among the parts, which is that of its kind too."""
  return importlib.import_module(LATENTS).PART


def _with_parts(config: Config, options: Options) -> Config:
  """The config of the data with the encoders as its parts."""
  config = configs.copied(config)
  given = dict(config.get('parts') or {}) if options.prompts else {}
  with config.unlocked():
    config.parts = {**given, _part(): options.autoencoder, **({TEXT: options.text} if options.text else {})}
  assets.put(config, {})
  return config


def _open_parts(config: Config, prompts: Any) -> dict[str, Any]:
  """The encoders as parts, by name."""
  kinds = {_part(): _part(), **({TEXT: 'text_encoder'} if TEXT in config.parts and not prompts else {})}
  opened = {name: importlib.import_module(PARTS).open(config, name, kind) for name, kind in kinds.items()}
  return {**opened, **{part.name: part for part in (prompts.parts if prompts else ())}}


def _open_splits(config: Config, captions: bool) -> dict[str, Source]:
  """The pictures of both splits, resized and cropped as the config says."""
  data, images = config.data, importlib.import_module(IMAGES)
  images.check(data)
  if images.content(config) != 'pixels':
    raise UserError("pictures are encoded, and config.data.content is 'latents'; name the config of the pictures")
  if data.get('mixture') or data.get('buckets'):
    what = 'mixture' if data.get('mixture') else 'buckets'
    raise UserError(f'config.data.{what} cannot be encoded: encoded data has one set and one shape. Encode each set by '
                    'itself, resized by config.data.resize and config.data.crop')
  if data.get('binarize', 'none') == 'dynamic':
    raise UserError("config.data.binarize='dynamic' draws every picture anew, and encoded data holds one; use 'fixed'")
  more = (TEXT,) if captions else ()
  return {name: images.open_source(data, data[name], config.seed, more) for name in ('train', 'heldout')}


def _check(config: Config, parts: Mapping[str, Any], first: Columns, captions: bool) -> None:
  """Checks that the data has what the encoders read."""
  autoencoder = parts[_part()].functions
  image = first.get(autoencoder.column)
  if image is None or autoencoder.column != 'image':
    raise UserError(f'the autoencoder reads the column {autoencoder.column!r}, and config.data gives {sorted(first)}')
  if image.dtype != np.uint8 or image.shape[1:] != tuple(autoencoder.shape):
    raise UserError(f'the autoencoder {parts[_part()].source.path} reads pictures uint8 {tuple(autoencoder.shape)}, '
                    f'and those of {config.data.name} are {image.dtype} {image.shape[1:]}; set config.data.shape to '
                    'that, and config.data.resize=bilinear')
  if captions and TEXT not in first:
    raise UserError(f'--text and --prompts encode the column {TEXT!r}, captions, and {config.data.name} has '
                    f'{sorted(first)}; leave them out, or name data with captions')


def _key(config: Config, options: Options, splits: Mapping[str, Source], parts: Mapping[str, Any],
         digests: Mapping[str, Any], prompts: Any = None) -> dict[str, Any]:
  """Everything that the bytes depend on, for messages in words of the user."""
  latents = importlib.import_module(LATENTS)
  data = config_lib.plain(config.data)
  autoencoder = parts[_part()].functions
  key = {
    'kind': latents.KIND,
    'data': {name: source.fingerprint() for name, source in splits.items()},
    'pictures': {'shape': list(data['shape']),
                 **{name: data.get(name, default) for name, default in latents.PICTURES.items()}},
    _part(): {**digests[_part()], 'latent': list(autoencoder.latent)},
    'classes': {str(label): name for label, name in importlib.import_module(IMAGES).assets(config).get('classes', ())},
    'dtype': options.dtype, 'batch': options.batch}
  if prompts:
    key['prompts'] = {**prompts.facts, 'digests': {part.name: digests[part.name] for part in prompts.parts}}
  elif TEXT in parts:
    key[TEXT] = {**digests[TEXT], 'truncate': options.truncate}
  return key


@contextlib.contextmanager
def _alone(folder: pathlib.Path) -> Iterator[None]:
  """Holds a lock of the folder: two commands that know nothing of each other would write the same files."""
  if not distributed.is_first():
    yield
    return
  folder.mkdir(parents=True, exist_ok=True)
  file = os.open(folder, os.O_RDONLY)
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError as error:
    os.close(file)
    raise UserError(f'{folder} is being written by another process; wait for it, or let both share the work with '
                    '--coordinator, --num_processes and --process_id') from error
  except OSError as error:
    if error.errno not in _UNKNOWN:
      raise
  try:
    yield
  finally:
    os.close(file)


@contextlib.contextmanager
def _bar(folder: Any, total: int) -> Iterator[Callable[[int], Any]]:
  """A progress bar in the first process, over the rows that it writes; gives the function that counts."""
  if not distributed.is_first():
    yield lambda count: None
    return
  if not total:
    say(f'{folder}: every shard is there')
  with tqdm.tqdm(total=total, unit='row', desc=f'encoding {folder}', disable=not total, file=sys.stderr) as bar:
    yield bar.update


def _plain(value: Any) -> Any:
  """A value of a further column as packed data takes it: numpy's numbers and texts as those of Python."""
  return value.item() if isinstance(value, np.generic) else value
