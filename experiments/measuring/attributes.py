"""Whether pictures show what their texts ask for, attribute by attribute, as a judge reads them.

A judge's own errors stand beside every number: it reads the held-out pictures too, as they are and as the space that is
diffused gives them back.
"""

import abc
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from genjax import checks, sharding
from genjax.data.pipeline import Source
from genjax.data.scenes import grammar, reading
from genjax.experiments import images
from genjax.experiments.measuring import extracting, texts
from genjax.experiments.measuring.samples import Group, Values
from genjax.metrics import diversity
from genjax.training.experiment import Columns
from genjax.types import UserError

NAME = 'attributes'
_PART = 250  # pictures that are read at a time
Right = dict[str, np.ndarray]  # attribute -> float N: 1 right, 0 wrong, NaN not asked for


class Judge(abc.ABC):
  """Reads attributes off pictures, and what texts ask for."""

  card: dict[str, Any]

  @abc.abstractmethod
  def right(self, captions: Sequence[str], image_NHWC: np.ndarray) -> Right:
    """Whether pictures show what their captions ask for."""

  @abc.abstractmethod
  def unseen(self, captions: Sequence[str]) -> np.ndarray:
    """Bool N: whether captions ask for a combination that training holds out."""

  @abc.abstractmethod
  def heldout(self, count: int) -> Iterator[tuple[list[str], np.ndarray]]:
    """Captions and pictures of up to `count` rows of the held-out split, a part at a time."""


class Geometry(Judge):
  """Reads captioned scenes; see `genjax.data.scenes.reading`.

  Args:
    source: the held-out scenes.
  """

  card = {'name': 'geometry'}

  def __init__(self, source: Source):
    self._source = source

  def right(self, captions: Sequence[str], image_NHWC: np.ndarray) -> Right:
    found = [reading.judge(caption, image) for caption, image in zip(captions, image_NHWC, strict=True)]
    return {name: np.asarray([row.get(name, np.nan) for row in found], float) for name in reading.ATTRIBUTES}

  def unseen(self, captions: Sequence[str]) -> np.ndarray:
    return np.asarray([grammar.parse(caption).unseen for caption in captions])

  def heldout(self, count: int) -> Iterator[tuple[list[str], np.ndarray]]:
    return _read(self._source, 'text', count)


class Network(Judge):
  """A part of the kind `attributes`. What captions ask for is taken from the columns of the held-out split.

  Args:
    extractor: the part.
    prepare: pictures -> pictures as it reads them.
    source: the held-out split: the column of captions, one for each attribute, and `unseen`.
    column: with the captions.
    unseen: column that is not 0 where training holds out a combination; '' for none.
  """

  def __init__(self, extractor: extracting.Extractor, prepare: Any, source: Source, column: str, unseen: str):
    self.card = extractor.card
    self._names, self._prepare = tuple(extractor.functions.classes), prepare
    self._predict = extractor.apply(extractor.functions.predict)
    self._source, self._column = source, column
    self._asked: dict[str, tuple[list[int], bool]] = {}
    for start in range(0, len(source), _PART):
      rows = source.get(np.arange(start, min(start + _PART, len(source))))
      held = rows[unseen] != 0 if unseen else np.zeros(len(rows[column]), bool)
      labels_NA = np.stack([rows[name] for name in self._names], axis=1)
      self._asked.update({_text(caption): (labels, bool(one))
                          for caption, labels, one in zip(rows[column], labels_NA.tolist(), held)})

  def right(self, captions: Sequence[str], image_NHWC: np.ndarray) -> Right:
    logits = self._predict(self._prepare(image_NHWC))
    label_NA = np.asarray([self._of(caption)[0] for caption in captions])
    return {name: (logits[name].argmax(-1) == label_NA[:, number]).astype(float)
            for number, name in enumerate(self._names)}

  def unseen(self, captions: Sequence[str]) -> np.ndarray:
    return np.asarray([self._of(caption)[1] for caption in captions])

  def heldout(self, count: int) -> Iterator[tuple[list[str], np.ndarray]]:
    return _read(self._source, self._column, count)

  def _of(self, caption: str) -> tuple[list[int], bool]:
    if caption not in self._asked:
      raise UserError(f'the measure {NAME!r} knows what the captions of the held-out split ask for, and {caption!r} is '
                      'none of them; leave out the defaults of the condition')
    return self._asked[caption]


class Attributes(Group):
  """Shares of samples with each attribute right, with all, and of those that ask for held-out combinations.

  Values: NAME and `all`, shares of samples; `seen_all`, `unseen_all` and `unseen_NAME`, of the two sorts of prompts;
  `real_all` and `reconstructed_all`, what the judge says of the held-out pictures, as they are and through the space
  that is diffused; `spread`, the mean distance of two samples of one prompt, per pixel value, where prompts come again;
  `copies`, `nearest_distance` and `nearest_distance_train`, as of the measure 'samples'.
  """

  def check(self) -> dict[str, dict[str, Any]]:
    """See `samples.Group`."""
    subject, options = self._subject, self._options
    self._condition = texts.condition(subject.config, options.text)
    config = subject.reference
    column = subject.config.conditions[self._condition].get('column', 'text')
    if config.data.name == images.SCENES:
      self._judge: Judge = Geometry(images.open_data(config, config.data.heldout))
    else:
      extractor = extracting.open(subject.config, options.judge, NAME, 'judge')
      more = (column, *extractor.functions.classes, *((options.unseen,) if options.unseen else ()))
      self._judge = Network(extractor, extracting.fits(extractor, subject.shape, f'{subject.name} of this run'),
                            images.open_data(config, config.data.heldout, more), column, options.unseen)
    checks.whole(options, 2, 'compared')
    return {NAME: {'extractor': self._judge.card, 'texts': f'of the condition {self._condition!r}; those of the '
                   'held-out split in their order where the config names no defaults',
                   'compared': options.compared, 'train': config.data.train}}

  def begin(self, seed: int) -> None:
    """See `samples.Group`."""
    self._seed = seed
    self._right: list[Right] = []
    self._captions: list[str] = []
    self._first: dict[str, np.ndarray] = {}
    self._apart: list[float] = []
    self._near: list[np.ndarray] = []
    self._train: Any = _Pictures(self._subject.real(self._subject.config.data.train)[0], self._options.compared)

  def add(self, part: Columns) -> None:
    """See `samples.Group`."""
    captions, image_NHWC = [str(text) for text in part[self._condition]], part[self._subject.column]
    self._right.append(self._judge.right(captions, image_NHWC))
    self._captions += captions
    for caption, image in zip(captions, image_NHWC):
      if caption in self._first:
        away = image.astype(float) - self._first[caption]
        self._apart.append(float(np.sqrt(np.mean(away ** 2))) / 255)
      self._first.setdefault(caption, image)
    self._near.append(diversity.nearest_distances(image_NHWC, self._train))

  def values(self) -> Values:
    """See `samples.Group`."""
    found = _shares(_joined(self._right), self._judge.unseen(self._captions))
    judged = {'real': [], 'reconstructed': []}
    through = _through(self.sample)
    for captions, image_NHWC in self._judge.heldout(self._options.num_samples):
      judged['real'].append(self._judge.right(captions, image_NHWC))
      back_NHWC = through(image_NHWC)
      if back_NHWC is not None:
        judged['reconstructed'].append(self._judge.right(captions, back_NHWC))
    for what, rows in judged.items():
      if rows:
        right = _joined(rows)
        found.update({f'{what}_{name}': float(np.nanmean(values)) for name, values in right.items()})
        found[f'{what}_all'] = float(_all(right).mean())
    if self._apart:
      found['spread'] = float(np.mean(self._apart))
    near_N, near_train_N = np.concatenate(self._near), diversity.neighbour_distances(self._train, 1000, self._seed)
    found.update(copies=diversity.copy_share(near_N, near_train_N), nearest_distance=float(np.median(near_N)),
                 nearest_distance_train=float(np.median(near_train_N)))
    return {NAME: found}

  def close(self) -> None:
    """See `samples.Group`."""
    self._right, self._captions, self._first, self._near = [], [], {}, []


def _shares(right: Right, unseen_N: np.ndarray) -> dict[str, float]:
  """Shares of right samples; attributes that no text asks for are left out."""
  every_N, found = _all(right), {}
  for name, values_N in [*right.items(), ('all', every_N)]:
    for prefix, rows in (('', np.ones(len(every_N), bool)), ('seen_', ~unseen_N), ('unseen_', unseen_N)):
      asked_N = values_N[rows & ~np.isnan(values_N)]
      if len(asked_N) and (prefix != 'seen_' or name == 'all'):
        found[f'{prefix}{name}'] = float(asked_N.mean())
  return found


def _all(right: Right) -> np.ndarray:
  """Bool N: whether all that is asked for is right."""
  return np.all([np.isnan(values) | (values > 0) for values in right.values()], axis=0)


def _joined(parts: Sequence[Right]) -> Right:
  joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
  return {name: values for name, values in joined.items() if not np.isnan(values).all()}


def _read(source: Source, column: str, count: int) -> Iterator[tuple[list[str], np.ndarray]]:
  for start in range(0, min(count, len(source)), _PART):
    rows: Mapping[str, np.ndarray] = source.get(np.arange(start, min(start + _PART, count, len(source))))
    yield [_text(caption) for caption in rows[column]], rows['image']


def _text(caption: Any) -> str:
  return caption.decode() if isinstance(caption, bytes) else str(caption)


def _through(sample: Any) -> Callable[[np.ndarray], np.ndarray | None]:
  """Pictures -> what the space that is diffused gives back of them; None where pixels are diffused."""
  run: Any = getattr(sample, 'run', None)
  codec = getattr(run.experiment.objective, 'codec', None) if run is not None else None
  if codec is None or codec.bounded or codec.encode_pictures is None:
    return lambda rows: None
  frozen = run.state.context(run.frozen).frozen
  apply = jax.jit(lambda frozen, image: codec.decode(frozen, codec.encode_pictures(frozen, image))['image'],
                  out_shardings=sharding.replicated(run.mesh))
  return lambda rows: jax.device_get(apply(frozen, rows))


class _Pictures:
  """The first pictures of a source as an array whose rows are read when they are asked for."""

  def __init__(self, source: Source, limit: int):
    self._source, count = source, min(limit, len(source))
    self.shape = (count, *source.get(np.zeros(1, int))['image'].shape[1:])

  def __len__(self) -> int:
    return self.shape[0]

  def __getitem__(self, index: Any) -> np.ndarray:
    rows = np.arange(*index.indices(len(self))) if isinstance(index, slice) else np.asarray(index)
    return self._source.get(rows)['image']
