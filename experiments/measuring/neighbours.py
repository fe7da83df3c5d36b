"""How far samples are from the training pictures, in pixels and in features, and how they spread over classes."""

from typing import Any

import numpy as np

from genjax import checks
from genjax.experiments.measuring import extracting
from genjax.experiments.measuring.options import Options
from genjax.experiments.measuring.samples import Group, Subject, Values
from genjax.metrics import diversity
from genjax.training import drawing
from genjax.training.experiment import Columns
from genjax.types import UserError

NEAR, SHARES = 'neighbours', 'class_shares'


class Neighbours(Group):
  """Nearest neighbours among training pictures, and shares of classes.

  Values of 'neighbours': `copies`, the share of samples nearer to a training picture than 99 % of training pictures are
  to another one; `distance`, the median distance to the nearest, and `distance_train`, that of training pictures. With
  an extractor the same in its features: `feature_copies`, `feature_distance`, `feature_distance_train`.

  Values of 'class_shares', by the logits of the extractor: `share_K` of each class, `covered`, classes that occur, and
  `away`, half the sum of differences between the shares of samples and of real pictures: 0 if alike, 1 if disjoint.

  Args:
    subject: what is measured.
    options: config.evaluation.
    chosen: of these measures.
  """

  def __init__(self, subject: Subject, options: Options, chosen: tuple[str, ...]):
    super().__init__(subject, options, chosen)
    self._extractor: extracting.Extractor | None = None
    self._pixels: list[np.ndarray] = []
    self._features: list[np.ndarray] = []
    self._classes: list[np.ndarray] = []

  def check(self) -> dict[str, dict[str, Any]]:
    """See `samples.Group`."""
    options, subject = self._options, self._subject
    checks.whole(options, 2, 'compared')
    facts: dict[str, Any] = {}
    if options.extractor or SHARES in self._chosen:
      self._extractor = extracting.open(subject.config, options.extractor, 'features', 'extractor')
      functions = self._extractor.functions
      if SHARES in self._chosen and not functions.classes:
        raise UserError(f'class_shares needs classes, and config.evaluation.extractor={options.extractor!r} has none; '
                        'name a classifier')
      self._prepare = extracting.fits(self._extractor, subject.shape, f'{subject.name} of this run')
      self._extract = self._extractor.apply(functions.extract)
      self._predict = self._extractor.apply(functions.predict) if SHARES in self._chosen else None
      facts['extractor'] = self._extractor.card
    of = {NEAR: {'compared': options.compared, 'train': subject.config.data.train},
          SHARES: {'reference': options.reference or subject.config.data.heldout}}
    return {name: {**facts, **of[name]} for name in self._chosen}

  def begin(self, seed: int) -> None:
    """See `samples.Group`."""
    self._seed = seed

  def add(self, part: Columns) -> None:
    """See `samples.Group`."""
    rows = part[self._subject.column]
    if NEAR in self._chosen:
      self._pixels.append(rows)
      self._features += [self._extract(self._prepare(rows))] if self._extractor is not None else []
    if SHARES in self._chosen:
      self._classes.append(self._class_of(rows))

  def _class_of(self, rows: np.ndarray) -> np.ndarray:
    assert self._predict is not None
    return self._predict(self._prepare(rows)).argmax(-1)

  def values(self) -> Values:
    """See `samples.Group`."""
    found: Values = {NEAR: self._near()} if NEAR in self._chosen else {}
    if SHARES in self._chosen:
      assert self._extractor is not None
      count = self._extractor.functions.classes
      real_N = np.concatenate([self._class_of(rows) for rows in self._subject.parts(self._options.reference)])
      share_K, real_K = (diversity.class_shares(label_N, count) for label_N in (np.concatenate(self._classes), real_N))
      found[SHARES] = {**{f'share_{number}': float(share) for number, share in enumerate(share_K)},
                       'covered': diversity.coverage(share_K), 'away': float(0.5 * np.abs(share_K - real_K).sum())}
    return found

  def _near(self) -> dict[str, float]:
    source, _ = self._subject.real(self._subject.config.data.train)
    count = min(self._options.compared, len(source))
    train = np.concatenate([
      source.get(np.arange(start, min(start + drawing.PART, count)))[self._subject.column]
      for start in range(0, count, drawing.PART)])
    found = self._distances('', np.concatenate(self._pixels), train)
    if self._extractor is not None:
      found.update(self._distances('feature_', np.concatenate(self._features), self._extract(self._prepare(train))))
    return found

  def _distances(self, prefix: str, sample_N: np.ndarray, train_M: np.ndarray) -> dict[str, float]:
    near_N = diversity.nearest_distances(sample_N, train_M)
    near_train_N = diversity.neighbour_distances(train_M, 1000, self._seed)
    return {f'{prefix}copies': diversity.copy_share(near_N, near_train_N),
            f'{prefix}distance': float(np.median(near_N)), f'{prefix}distance_train': float(np.median(near_train_N))}

  def close(self) -> None:
    """See `samples.Group`."""
    self._pixels, self._features, self._classes = [], [], []
