"""Clips for all builders: folders of one's own, noise, and sources of one's own, checked against the config."""

from collections.abc import Callable, Sequence
import dataclasses

import jax
import numpy as np

from genjax import checks
from genjax.artifacts import Clip
from genjax.config import Config
from genjax.data import pipeline, synthetic
from genjax.data.video import clips
from genjax.experiments import media
from genjax.experiments import render as render_lib
from genjax.options import Section
from genjax.training.experiment import Columns, Condition

SHOWN_RATE = 8.0  # frames a second at which clips without a rate are shown


@dataclasses.dataclass(frozen=True)
class Data:
  """config.data of clips.

  Attributes:
    name: a folder of films, see `genjax.data.folder`; 'random_clips' for noise.
    train: split to train on, such as 'train[:90%]'.
    heldout: split to evaluate on.
    frames: number of frames T of a clip.
    shape: (H, W, C) of a frame.
    rate: frames a second; 0 takes the frames of a film as they come, whatever their times.
    stride: every how many frames one is taken.
    start: which part of a longer film is trained on: 'random', 'first' or 'middle'.
    heldout_start: which part is evaluated on: 'first' or 'middle'.
    short: what becomes of a film that is shorter than a clip: 'error', 'skip', or 'repeat' its last frame.
    resize: filter that brings frames of other sizes to `shape`, one of `genjax.data.images.resizing.FILTERS`; '' for
      none.
    crop: whether resizing keeps proportions and cuts off what is outside of `shape`.
    folder_rate: frames a second of a film that is a folder of pictures; 0 for `rate`.
    shown_rate: frames a second at which samples are shown; 0 for that of the clips.
    num_classes: number of classes; 0 reads no labels.
    flip: whether half of the training clips are mirrored.
    broken: what files that cannot be decoded do: 'refuse' lists them, 'skip' leaves them out.
    field: field of metadata.jsonl that is the caption.
    threads: batches that are decoded at a time; it changes no batch.
  """

  name: str
  train: str
  heldout: str
  frames: int
  shape: tuple[int, int, int]
  rate: float = 0.0
  stride: int = 1
  start: str = 'random'
  heldout_start: str = 'first'
  short: str = 'error'
  resize: str = ''
  crop: bool = False
  folder_rate: float = 0.0
  shown_rate: float = 0.0
  num_classes: int = 0
  flip: bool = False
  broken: str = 'refuse'
  field: str = 'text'
  threads: int = 1


DATA = Section((Data,))


def read(config: Config) -> Data:
  """config.data, checked.

  Raises:
    UserError: an unknown key or name, or a number out of range.
  """
  data = media.read(Data, config, cut)
  with checks.under('config.data'):
    checks.between(data, ('shown_rate',), at_least=0)
  return data


def cut(data: Data, start: str) -> clips.ClipOptions:
  """How clips are cut from films that begin at `start`."""
  return clips.ClipOptions(data.frames, data.shape, data.rate, data.stride, start, data.short, data.resize,
                           data.crop, data.folder_rate)


def shape(config: Config) -> tuple[int, int, int, int]:
  """(T, H, W, C) of a clip."""
  return (config.data.frames, *config.data.shape)


def batches(config: Config, split: str, shuffle: bool = True, more: Sequence[str] = ()) -> pipeline.Pipeline:
  """Batches of 'clip' uint8 B T H W C and, with classes, 'label' int32 B.

  Args:
    config: the whole config; for config.data see `Data`.
    split: of the data.
    shuffle: whether to shuffle, to cut at random and to mirror: held-out data is read as it is.
    more: further columns of the data, such as 'text'.

  Raises:
    UserError: see `read`; when the data is opened, see `open_source`.
  """
  data = read(config)
  return pipeline.Pipeline(lambda: open_source(config, split, shuffle, more), config.batch_size, config.seed,
                           flip if data.flip and shuffle else None, shuffle, threads=data.threads)


def open_source(config: Config, split: str, shuffle: bool = False, more: Sequence[str] = ()) -> pipeline.Source:
  """The clips of a split, and the columns `more`; see `batches`.

  Raises:
    UserError: there is no such data or column, films that are broken or short, frames of another size that no filter
      changes, or labels outside the classes.
  """
  data = read(config)
  return media.open_source(config, data, split, 'clips', (data.frames, *data.shape),
                           cut(data, data.start if shuffle else data.heldout_start), more, synthetic.random_clips)


def example(config: Config) -> dict[str, jax.ShapeDtypeStruct]:
  """The shapes of one row of a batch, without opening the data."""
  label = {'label': jax.ShapeDtypeStruct((), np.int32)} if config.data.get('num_classes', 0) else {}
  return {'clip': jax.ShapeDtypeStruct(shape(config), np.uint8), **label}


def conditions(config: Config) -> dict[str, Condition]:
  """The class label, if the data has classes."""
  classes = config.data.get('num_classes', 0)
  return {'label': Condition.label(classes)} if classes else {}


def shown_rate(data: Data) -> float:
  """Frames a second at which samples are shown."""
  return data.shown_rate or data.rate / data.stride or SHOWN_RATE


def render(config: Config) -> Callable[[Columns], dict[str, Clip]]:
  """The function for `Experiment.render`: all samples in a grid, each with its caption or label below it."""
  rate = shown_rate(read(config))
  return lambda samples: {'samples': render_lib.clips(samples['clip'], rate, captions(samples))} if (
    'clip' in samples) else {}


def items(config: Config) -> Callable[[Columns], list[Clip]]:
  """The function for `Experiment.items`: each sample as a clip of its own."""
  rate = shown_rate(read(config))

  def made(samples: Columns) -> list[Clip]:
    told = captions(samples) or [''] * len(samples['clip'])
    return [Clip(frames, rate, caption) for frames, caption in zip(samples['clip'], told, strict=True)]

  return made


def captions(samples: Columns) -> list[str]:
  """What samples were drawn for: their texts, or their labels; [] for neither."""
  for column in ('text', 'prompt', 'label'):
    values = samples.get(column)
    if values is not None and values.ndim == 1:
      return [str(value) for value in values.tolist()]
  return []


def flip(columns: pipeline.Columns, random: pipeline.RowRandom) -> pipeline.Columns:
  """Mirrors half of the clips."""
  clip_BTHWC = columns['clip']
  mirrored_B = random.uniform() < 0.5
  return dict(columns, clip=np.where(mirrored_B[:, None, None, None, None], clip_BTHWC[:, :, :, ::-1], clip_BTHWC))
