"""Sounds for all builders: folders of one's own, noise, and sources of one's own, checked against the config."""

from collections.abc import Callable, Sequence
import dataclasses

import jax
import numpy as np

from genjax.artifacts import Sound
from genjax.config import Config
from genjax.data import pipeline, synthetic
from genjax.data.audio import sounds
from genjax.experiments import clips, media
from genjax.experiments import render as render_lib
from genjax.options import Section
from genjax.training.experiment import Columns, Condition


@dataclasses.dataclass(frozen=True)
class Data:
  """config.data of sounds.

  Attributes:
    name: a folder of sound files, see `genjax.data.folder`; 'random_sounds' for noise.
    train: split to train on, such as 'train[:90%]'.
    heldout: split to evaluate on.
    seconds: length of a sound.
    rate: samples a second; files of other rates are resampled.
    channels: 1, the mean of the channels of a file, or 2.
    start: which part of a longer file is trained on: 'random', 'first' or 'middle'.
    heldout_start: which part is evaluated on: 'first' or 'middle'.
    short: what becomes of a shorter file: 'error', 'skip', 'pad' with silence at its end, or 'repeat' it.
    num_classes: number of classes; 0 reads no labels.
    broken: what files that cannot be decoded do: 'refuse' lists them, 'skip' leaves them out.
    field: field of metadata.jsonl that is the caption.
    threads: batches that are decoded at a time; it changes no batch.
  """

  name: str
  train: str
  heldout: str
  seconds: float
  rate: int
  channels: int = 1
  start: str = 'random'
  heldout_start: str = 'first'
  short: str = 'error'
  num_classes: int = 0
  broken: str = 'refuse'
  field: str = 'text'
  threads: int = 1


DATA = Section((Data,))


def read(config: Config) -> Data:
  """config.data, checked.

  Raises:
    UserError: an unknown key or name, or a number out of range.
  """
  return media.read(Data, config, cut)


def cut(data: Data, start: str) -> sounds.SoundOptions:
  """How sounds are cut from files that begin at `start`."""
  return sounds.SoundOptions(data.seconds, data.rate, data.channels, start, data.short)


def shape(config: Config) -> tuple[int, ...]:
  """(S,) of a sound, or (S, 2)."""
  return cut(read(config), 'first').shape


def batches(config: Config, split: str, shuffle: bool = True, more: Sequence[str] = ()) -> pipeline.Pipeline:
  """Batches of 'sound' float32 B S, or B S 2, and, with classes, 'label' int32 B.

  Args:
    config: the whole config; for config.data see `Data`.
    split: of the data.
    shuffle: whether to shuffle, and to cut at random: held-out data is read as it is.
    more: further columns of the data, such as 'text'.

  Raises:
    UserError: see `read`; when the data is opened, see `open_source`.
  """
  data = read(config)
  return pipeline.Pipeline(lambda: open_source(config, split, shuffle, more), config.batch_size, config.seed, None,
                           shuffle, threads=data.threads)


def open_source(config: Config, split: str, shuffle: bool = False, more: Sequence[str] = ()) -> pipeline.Source:
  """The sounds of a split, and the columns `more`; see `batches`.

  Raises:
    UserError: there is no such data or column, files that are broken or short, or labels outside the classes.
  """
  data = read(config)
  read_as = cut(data, data.start if shuffle else data.heldout_start)
  return media.open_source(config, data, split, 'sounds', read_as.shape, read_as, more, synthetic.random_sounds)


def example(config: Config) -> dict[str, jax.ShapeDtypeStruct]:
  """The shapes of one row of a batch, without opening the data."""
  label = {'label': jax.ShapeDtypeStruct((), np.int32)} if config.data.get('num_classes', 0) else {}
  return {'sound': jax.ShapeDtypeStruct(shape(config), np.float32), **label}


def conditions(config: Config) -> dict[str, Condition]:
  """The class label, if the data has classes."""
  return clips.conditions(config)


def render(config: Config) -> Callable[[Columns], dict[str, Sound]]:
  """The function for `Experiment.render`: all samples one after the other."""
  rate = config.data.rate
  return lambda samples: {'samples': render_lib.sounds(samples['sound'], rate)} if 'sound' in samples else {}


def items(config: Config) -> Callable[[Columns], list[Sound]]:
  """The function for `Experiment.items`: each sample as a sound of its own."""
  rate = config.data.rate
  return lambda samples: [Sound(sound, rate) for sound in samples['sound']]
