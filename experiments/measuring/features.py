"""Measures in the features and logits of an extractor."""

from typing import Any

import numpy as np

from genjax.experiments.measuring import extracting
from genjax.experiments.measuring.options import Options
from genjax.experiments.measuring.samples import Group, Subject, Values
from genjax.metrics import frechet, inception_score, kept, kernel, manifold
from genjax.training.experiment import Columns
from genjax.types import UserError

PUBLISHED = 'fid'  # the name of the network on which distances are called FID and KID
_ROWS = ('kernel', 'precision_recall', 'density_coverage')  # need the features of all rows
_REAL = ('frechet', *_ROWS)  # need features of real data


class Features(Group):
  """Frechet and kernel distance, inception score, precision and recall, density and coverage.

  Args:
    subject: what is measured.
    options: config.evaluation.
    chosen: of these measures.
  """

  def __init__(self, subject: Subject, options: Options, chosen: tuple[str, ...]):
    super().__init__(subject, options, chosen)
    self._kept: list[kept.Rows] = []
    self._extractor: extracting.Extractor | None = None

  def check(self) -> dict[str, dict[str, Any]]:
    """See `samples.Group`."""
    options, chosen, subject = self._options, self._chosen, self._subject
    self._extractor = extractor = extracting.open(subject.config, options.extractor, 'features', 'extractor')
    functions = extractor.functions
    self._prepare = extracting.fits(extractor, subject.shape, f'{subject.name} of this run')
    asked = (functions.extract, *((functions.predict,) if 'inception_score' in chosen else ()))
    self._apply = extractor.apply(lambda group, rows: tuple(function(group, rows) for function in asked))
    self._published = functions.name == PUBLISHED
    count = subject.count(options.num_samples)
    facts: dict[str, Any] = {'extractor': extractor.card}
    if set(chosen) & set(_REAL):
      source, split = subject.real(options.reference)
      facts['reference'] = {'split': split, **source.fingerprint()}
      if subject.column not in source.get(np.zeros(1, np.int64)):
        raise UserError(f'{split} has no column {subject.column!r}, with which samples are compared; name pictures, '
                        '--set evaluation.reference_data=NAME')
      self._check_counts(count, len(source), functions.width)
    if 'inception_score' in chosen:
      if not functions.classes:
        raise UserError(f'inception_score needs classes, and config.evaluation.extractor={options.extractor!r} has '
                        'none; name a classifier, or Inception')
      inception_score.Logits(count, options.splits)
    own = {'kernel': {'subset': options.kernel_size, 'subsets': options.kernel_subsets},
           'inception_score': {'splits': options.splits}, 'precision_recall': {'nearest': options.nearest},
           'density_coverage': {'nearest': options.nearest_density}, 'frechet': {}}
    return {name: {**{key: value for key, value in facts.items() if key != 'reference' or name in _REAL}, **own[name]}
            for name in chosen}

  def _check_counts(self, count: int, real: int, width: int) -> None:
    """Checks, before anything is drawn, that there are rows enough."""
    options, least = self._options, min(count, real)
    told = f'got {count} {self._subject.name} (config.evaluation.num_samples) and {real} real ones'
    if 'frechet' in self._chosen and least <= width:
      raise UserError(f'a Fréchet distance in the {width} features of config.evaluation.extractor='
                      f'{options.extractor!r} needs more than {width} rows on each side, {told}')
    if 'kernel' in self._chosen and least < 2 * max(options.kernel_size, kernel.LEAST_SUBSETS):
      raise UserError('a kernel distance with its error needs two subsets of config.evaluation.kernel_size='
                      f'{options.kernel_size} rows, or of at least {kernel.LEAST_SUBSETS}, {told}')
    for name, nearest in (('precision_recall', options.nearest), ('density_coverage', options.nearest_density)):
      if name in self._chosen and least <= nearest:
        raise UserError(f'{name} with neighbour {nearest} needs more than {nearest} rows on each side, {told}')

  def begin(self, seed: int) -> None:
    """See `samples.Group`."""
    options = self._options
    self._seed, self._fitted = seed, frechet.Features()
    self._rows = self._new() if set(self._chosen) & set(_ROWS) else None
    if 'inception_score' in self._chosen:
      self._logits = inception_score.Logits(self._subject.count(options.num_samples), options.splits)

  def _new(self) -> kept.Rows:
    self._kept.append(kept.Rows())
    return self._kept[-1]

  def add(self, part: Columns) -> None:
    """See `samples.Group`."""
    feature_ND, *logits = self._apply(self._prepare(_rows(part, self._subject.column)))
    if 'frechet' in self._chosen:
      self._fitted.add(feature_ND)
    if self._rows is not None:
      self._rows.add(feature_ND)
    for logits_NK in logits:
      self._logits.add(logits_NK)

  def values(self) -> Values:
    """See `samples.Group`."""
    found: Values = {}
    if 'inception_score' in self._chosen:
      found['inception_score'] = self._logits.score()._asdict()
    if not set(self._chosen) & set(_REAL):
      return found
    fitted, rows = frechet.Features(), self._new() if self._rows is not None else None
    for part in self._subject.parts(self._options.reference):
      feature_ND = self._apply(self._prepare(part))[0]
      fitted.add(feature_ND)
      if rows is not None:
        rows.add(feature_ND)
    if 'frechet' in self._chosen:
      value = frechet.distance(self._fitted.moments(), fitted.moments())
      found['frechet'] = {'fid' if self._published else 'distance': value}
    if rows is not None and self._rows is not None:
      found.update(self._neighbours(self._rows.rows(), rows.rows()))
    return found

  def _neighbours(self, sample_N: np.ndarray, real_M: np.ndarray) -> Values:
    """The measures that need all rows."""
    options, found = self._options, {}
    if 'kernel' in self._chosen:
      result = kernel.distance(sample_N, real_M, options.kernel_size, options.kernel_subsets, self._seed)
      found['kernel'] = {'kid' if self._published else 'distance': result.mean, 'error': result.error}
    if 'precision_recall' in self._chosen:
      found['precision_recall'] = manifold.precision_recall(sample_N, real_M, options.nearest)._asdict()
    if 'density_coverage' in self._chosen:
      found['density_coverage'] = manifold.density_coverage(sample_N, real_M, options.nearest_density)._asdict()
    return found

  def close(self) -> None:
    """See `samples.Group`."""
    for rows in self._kept:
      rows.close()
    self._kept = []


def _rows(part: Columns, column: str) -> np.ndarray:
  """The pictures or clips of a part."""
  if column not in part or part[column].dtype != np.uint8:
    got = f'{part[column].dtype}' if column in part else f'the columns {sorted(part)}'
    raise UserError(f'measures need {column}s as uint8, got {got}; where the model generates latents, name their '
                    'autoencoder in config.parts.autoencoder')
  return part[column]
