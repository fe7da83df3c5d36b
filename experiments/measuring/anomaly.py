"""The measure of `genjax evaluate` that scores examples as anomalies; see docs/anomaly.md.

A model learns from normal examples alone, those of config.data.classes. A score, named in config.evaluation, is high
where an example is unlike them.
"""

from collections.abc import Callable, Mapping
import copy
import dataclasses
from typing import Any

import jax
import numpy as np

from genjax import config as config_lib
from genjax import sharding
from genjax.config import Config
from genjax.data import selection
from genjax.data.pipeline import Pipeline
from genjax.experiments import images
from genjax.experiments.measuring import options as measuring
from genjax.metrics import anomaly
from genjax.training import keys, stopping
from genjax.training.experiment import Columns, Metric
from genjax.training.run import Run
from genjax.types import UserError

TYPICALITY = 'typicality'
NAME = 'anomaly'
TRAINING_EXAMPLES = 10_000  # that the typical score is the mean of


@dataclasses.dataclass(frozen=True)
class Options(measuring.Options):
  """config.evaluation: what `genjax.experiments.measuring.options.Options` has, and

  Attributes:
    anomaly: the score that the measure 'anomaly' ranks held-out examples of all classes by, see docs/anomaly.md; '' for
      no such measure.
    normal: the classes that are no anomalies; () for config.data.classes.
    anomaly_split: split of the examples that are scored; '' for config.data.heldout.
  """

  anomaly: str = ''
  normal: tuple = ()
  anomaly_split: str = ''


def metrics(config: Config, options: Options, scores: Mapping[str, str], typical: str) -> tuple[Metric, ...]:
  """The measure 'anomaly', if config.evaluation asks for it: 'auroc' and 'average_precision' of the score.

  Args:
    config: of the run, with `genjax.experiments.images.Data`.
    options: config.evaluation.
    scores: name of a score -> name of a value that the objective's `evaluate` gives of each example.
    typical: the name of the score whose distance from its mean over training examples is the score 'typicality'
      (Nalisnick et al. 2019, with one example at a time).

  Raises:
    UserError: an unknown score, or no classes that are normal.
  """
  if not options.anomaly:
    return ()
  config_lib.choose({**scores, TYPICALITY: typical}, options.anomaly, 'config.evaluation.anomaly')
  normal = tuple(options.normal or config.data.get('classes') or ())
  if not normal:
    raise UserError('config.evaluation.anomaly needs classes that are normal: set config.data.classes to those that '
                    'the model learns from, such as (3,) or ("good",), or config.evaluation.normal')
  if config.get('conditions'):
    raise UserError('config.evaluation.anomaly scores examples of all classes, and a model with conditions is told '
                    'something of each; leave config.conditions out')
  split = options.anomaly_split or config.data.heldout
  value = scores[typical if options.anomaly == TYPICALITY else options.anomaly]

  def opened() -> tuple[Pipeline, np.ndarray]:
    everything = _without_filter(config)
    data = images.batches(everything, split, shuffle=False, more=('label',))
    label_N = selection.all_labels(data.source)
    labels = selection.labels_of(normal, getattr(data.source, 'classes', {}))
    anomalous_N = ~np.isin(label_N, labels)
    if anomalous_N.all() or not anomalous_N.any():
      raise UserError(f'the anomaly score needs normal examples and anomalies: of {len(label_N)} examples of {split}, '
                      f'{int(anomalous_N.sum())} are of other classes than {normal}; set config.evaluation.normal or '
                      'config.evaluation.anomaly_split')
    return data, anomalous_N

  def compute(sample: Callable[..., Columns], seed: int) -> dict[str, float]:
    samples: Any = sample  # `genjax.training.drawing.Samples`
    data, anomalous_N = opened()
    score_N = values(samples.run, data, value, seed, samples.averaged)
    if options.anomaly == TYPICALITY:
      training = images.batches(config, config.data.train, shuffle=False)
      score_N = np.abs(score_N - values(samples.run, training, value, seed + 1, samples.averaged,
                                        TRAINING_EXAMPLES).mean())
    return anomaly.detection(score_N, anomalous_N)._asdict()

  card = {'score': options.anomaly, 'normal': list(normal), 'split': split}
  return (Metric(NAME, compute, card, check=lambda: opened() and None),)


def values(run: Run, data: Pipeline, name: str, seed: int, averaged: bool | str, most: int = 0) -> np.ndarray:
  """A value that the objective's `evaluate` gives, of all examples of some data in their order.

  Args:
    run: with its parameters.
    data: read without shuffling.
    name: of the value.
    seed: of what `evaluate` draws.
    averaged: see `genjax.training.run.Run.params`.
    most: how many examples, the first ones; 0 for all.
  """
  params, context = run.params(averaged), run.state.context(run.frozen)
  key, found = keys.of(seed, 'evaluation'), []
  wanted = min(most, len(data.source)) if most else len(data.source)
  for index, columns in enumerate(data.epoch(run.rows(data.batch_size))):
    if index * data.batch_size >= wanted:
      break
    stopping.check()
    batch = sharding.put_batch({column: columns[column] for column in (*run.experiment.example, 'mask')}, run.mesh)
    _, scored = run.program.evaluate(params, context, batch, jax.random.fold_in(key, index))
    found.append(jax.device_get(scored[name]))
    run.clock.beat()
  return np.concatenate(found)[:wanted]


def _without_filter(config: Config) -> Config:
  """The config with the data of all classes."""
  found = copy.deepcopy(config)
  if found.data.get('classes'):
    with found.unlocked():
      found.data.classes = ()
  return found
