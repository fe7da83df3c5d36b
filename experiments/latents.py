"""What a builder of diffusion diffuses: pixels, latents of an autoencoder, or latents that were encoded before.

`config.parts.autoencoder` names a run with the kind `autoencoder`. With it config.data.shape stays the shape of the
pictures: those of the data, if config.data.content is 'pixels', and those of the samples. With config.data.content
'latents' the data is a folder that `genjax data encode` wrote with that autoencoder.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import pathlib
from typing import Any

import jax
import numpy as np

from genjax import config as config_lib
from genjax.config import Config
from genjax.data import packed, pipeline
from genjax.experiments import images, imported, patch_codes
from genjax.experiments import parts as parts_lib
from genjax.objectives import codecs
from genjax.objectives.kinds import Autoencoder
from genjax.training.experiment import Columns, Experiment
from genjax.types import UserError, expanded

PART = 'autoencoder'  # in config.parts, and the kind
KIND = 'latents'  # what the key of encoded data calls itself
PICTURES = {'resize': '', 'crop': False, 'flip': False, 'binarize': 'none'}  # options of pictures -> their defaults


@dataclasses.dataclass(frozen=True)
class Space:
  """The space that is diffused, and the data as it comes from there.

  Attributes:
    shape: of one example in this space.
    codec: columns of a batch <-> examples in this space.
    example: column -> shape and dtype of one row of a batch.
    batches: (split, shuffle, further columns, those of them that are mirrored with the images) -> batches.
    open: (split, further columns) -> the data before any transform.
    parts: that the codec reads.
    files: that the run keeps of the codec.
  """

  shape: tuple[int, ...]
  codec: codecs.Codec
  example: Mapping[str, jax.ShapeDtypeStruct]
  batches: Callable[..., pipeline.Pipeline]
  open: Callable[[str, Sequence[str]], pipeline.Source]
  parts: tuple[parts_lib.Part, ...] = ()
  files: Mapping[str, bytes] = dataclasses.field(default_factory=dict)

  def attach(self, experiment: Experiment) -> Experiment:
    """The experiment with the parts and files of the space."""
    if self.files:
      experiment = dataclasses.replace(experiment, files={**experiment.files, **self.files})
    return parts_lib.attach(experiment, *self.parts)


def space(config: Config) -> Space:
  """The space of a config, see the module. Without an autoencoder it is that of the column 'image' itself, or with
  config.code of a linear code of its patches, see `patch_codes`.

  Raises:
    UserError: the autoencoder reads pictures of another shape than config.data.shape, or config.data asks for what
      latents cannot give; or there is a code beside an autoencoder.
  """
  content, shape = images.content(config), tuple(config.data.shape)
  coding = patch_codes.read(config)
  if coding is not None:
    if PART in (config.get('parts') or {}):
      raise UserError(f'config.code and config.parts.{PART} both say what is diffused; leave one of them out, the code '
                      'by config.code.patch=0')
    code = patch_codes.code(config, coding)
    return Space(patch_codes.shape(config, coding), code.codec(shape), images.example(config),
                 functools.partial(images.batches, config), functools.partial(images.open_data, config),
                 files=patch_codes.file(code))
  if PART not in (config.get('parts') or {}):
    codec = codecs.identity() if content == 'latents' else codecs.pixels()
    return Space(shape, codec, images.example(config), functools.partial(images.batches, config),
                 functools.partial(images.open_data, config))
  part = parts_lib.open(config, PART, PART)
  autoencoder = fitted(part.functions, shape)
  part = dataclasses.replace(part, functions=autoencoder)
  if shape != tuple(autoencoder.shape):
    raise UserError(f'config.data.shape is {shape}, the shape of the pictures, but the autoencoder '
                    f'{part.source.path} reads and writes {tuple(autoencoder.shape)}; set it to that, and resize '
                    'pictures by config.data.resize=bilinear')
  if len(autoencoder.latent) != 3:
    raise UserError(f'config.parts.{PART} must make latents of height, width and channels, and those of '
                    f'{part.source.path} have the shape {tuple(autoencoder.latent)}; take a run of '
                    'genjax.experiments.kl')
  if autoencoder.column != 'image':
    raise UserError(f'config.parts.{PART} must read pictures, and {part.source.path} reads {autoencoder.column!r}')
  if content == 'pixels':
    return Space(tuple(autoencoder.latent), codecs.latents(PART, autoencoder), images.example(config),
                 functools.partial(images.batches, config), functools.partial(images.open_data, config), (part,))
  for option in ('buckets', 'mixture'):
    if config.data.get(option):
      raise UserError(f'config.data.{option} is of pictures, and config.data.content=latents reads one encoded folder '
                      'of one shape; leave it out')
  label = {'label': jax.ShapeDtypeStruct((), np.int32)} if config.data.num_classes else {}
  moments = {name: jax.ShapeDtypeStruct(tuple(autoencoder.latent), np.float32) for name in moment_columns(autoencoder)}
  return Space(tuple(autoencoder.latent), codecs.encoded(PART, autoencoder), {**moments, **label},
               functools.partial(batches, config, autoencoder), functools.partial(open_data, config, autoencoder),
               (that_encoded(config, part),))


def fitted(autoencoder: Autoencoder, shape: tuple[int, ...]) -> Autoencoder:
  """A convolutional autoencoder for pictures of another size than it was made for; others as they are."""
  factor = autoencoder.factor
  if not factor or shape[2:] != tuple(autoencoder.shape[2:]) or any(side % factor for side in shape[:2]):
    return autoencoder
  latent = (shape[0] // factor, shape[1] // factor, *autoencoder.latent[2:])
  return dataclasses.replace(autoencoder, shape=shape, latent=latent)


def moment_columns(autoencoder: Autoencoder) -> tuple[str, str]:
  """The columns of encoded data with means and log variances."""
  return codecs.mean_column(autoencoder.column), codecs.log_variance_column(autoencoder.column)


def batches(config: Config, autoencoder: Autoencoder, split: str, shuffle: bool = True, more: Sequence[str] = (),
            mirrored: Sequence[str] = ()) -> pipeline.Pipeline:
  """Batches of encoded data: the two `moment_columns` as float32 and, with classes, 'label' int32 B.

  Args:
    config: the whole config; config.data.name is a folder that `genjax data encode` wrote.
    autoencoder: with which it was encoded.
    split: of the folder.
    shuffle: whether to shuffle.
    more: further columns of the folder.
    mirrored: of no use here, as latents cannot be mirrored.

  Raises:
    UserError: no such folder, or one with other latents, or of pictures with other options; labels outside the
      classes.
  """
  del mirrored
  return pipeline.Pipeline(lambda: open_data(config, autoencoder, split, more), config.batch_size, config.seed, None,
                           shuffle, threads=config.data.get('threads', 1))


def open_data(config: Config, autoencoder: Autoencoder, split: str, more: Sequence[str] = ()) -> pipeline.Source:
  """The data of `batches`."""
  imported.check_data(config)
  return Latents(config.data, autoencoder, split, more)


class Latents:
  """A source of encoded data, see `batches`."""

  def __init__(self, data: Config, autoencoder: Autoencoder, split: str, more: Sequence[str] = ()):
    folder = encoded_folder(data.name)
    moments = moment_columns(autoencoder)
    columns = tuple(dict.fromkeys((*moments, *(('label',) if data.num_classes else ()), *more)))
    if data.num_classes and 'label' not in packed.read_schema(folder)['columns']:
      raise UserError(f'config.data.num_classes is {data.num_classes}, and {data.name} has no labels; set it to 0, or '
                      'encode the data with a config whose config.data.num_classes is that of the data')
    self._source = packed.Reader(folder, split, columns)
    self._moments, self._num_classes, self._name = moments, data.num_classes, data.name
    _check_pictures(data, self._source.schema['key'])
    stored = self._source.schema['columns'][moments[0]]['shape']
    if tuple(stored) != tuple(autoencoder.latent):
      raise UserError(f'latents in {data.name} are {tuple(stored)}, and those of config.parts.{PART} '
                      f'{tuple(autoencoder.latent)}; name the autoencoder that made them, or encode the data anew')

  def __len__(self) -> int:
    return len(self._source)

  def get(self, indices: np.ndarray) -> Columns:
    columns = self._source.get(indices)
    label_B = columns.get('label')
    if label_B is not None and (label_B.min(initial=0) < 0 or label_B.max(initial=0) >= self._num_classes):
      raise UserError(f'config.data.num_classes is {self._num_classes}, but {self._name} has labels from '
                      f'{label_B.min()} to {label_B.max()}; set it to at least {label_B.max() + 1}')
    return {**columns, **{name: columns[name].astype(np.float32, copy=False) for name in self._moments}}

  def fingerprint(self) -> dict[str, Any]:
    return {'name': 'encoded', **self._source.fingerprint()}


def encoded_folder(name: str) -> pathlib.Path:
  """The folder of encoded data that config.data.name names.

  Raises:
    UserError: it is none.
  """
  folder = expanded(name)
  if not packed.is_packed(folder):
    raise UserError(f'config.data.content=latents needs encoded data, and config.data.name={name!r} is none: make it '
                    'by genjax data encode --workdir=AUTOENCODER --config=CONFIG_OF_THE_DATA --out=FOLDER, and name '
                    'that folder')
  if packed.read_schema(folder)['key'].get('kind') != KIND:
    raise UserError(f'config.data.name={name!r} holds packed data that is not encoded; set config.data.content=pixels, '
                    'or encode it by genjax data encode')
  return folder


def _check_pictures(data: Config, key: Mapping[str, Any]) -> None:
  """Checks that what config.data asks of pictures, if anything, was done when they were encoded."""
  for option, default in PICTURES.items():
    wanted, was = data.get(option, default), key['pictures'].get(option, default)
    if wanted != default and wanted != was:
      raise UserError(f'{data.name} was encoded with config.data.{option}={was!r}, and now it is {wanted!r}; latents '
                      f'cannot be changed: set it to {was!r}, or encode the data anew with {wanted!r}')


def that_encoded(config: Config, part: parts_lib.Part, name: str = PART) -> parts_lib.Part:
  """A part, which must be the one that encoded the data. A run that began before knows its part already, and may be
  sampled where its data is not.

  Args:
    config: of the run.
    part: as opened.
    name: what it is in the key of the data: `PART`, or 'text' for the encoder of captions.

  Raises:
    UserError: the data is not encoded, or was encoded without such a part.
  """
  if (config_lib.plain(config.get('assets') or {}).get('parts') or {}).get(part.name) or (
      name == PART and not packed.is_packed(expanded(config.data.name))):
    return part
  made = packed.read_schema(encoded_folder(config.data.name))['key'].get(name)
  if made is None:
    raise UserError(f'{config.data.name} was encoded without a text encoder; encode it by genjax data encode '
                    '--text=RUN, or set stored=False of the condition')
  source = dataclasses.replace(part.source, sha256=made['sha256'], made=config.data.name)
  return dataclasses.replace(part, source=source)
