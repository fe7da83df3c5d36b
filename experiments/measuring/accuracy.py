"""Classification accuracy score: how well a classifier that learned from samples knows real pictures (Ravuri and
Vinyals 2019). The classifier is one of the project's own, trained by its training loop."""

from collections.abc import Callable
import tempfile
from typing import Any
import uuid

import numpy as np

from genjax import config as config_lib
from genjax import distributed, tables
from genjax.config import Config
from genjax.data import sources
from genjax.data.pipeline import Source
from genjax.experiments import classifier
from genjax.experiments.measuring.options import Options
from genjax.experiments.measuring.samples import Group, Subject, Values
from genjax.metrics import kept
from genjax.runs import training
from genjax.training.experiment import Columns
from genjax.training.monitoring import logs
from genjax.types import UserError


class Accuracy(Group):
  """The score, and the accuracy of the same classifier that learned from the real training split.

  Args:
    subject: what is measured.
    options: config.evaluation.
    chosen: of these measures.
    judge: config of the classifier for the data of the run; None if there is none.
    real: gives the accuracy on the held-out split of that classifier, trained on the real training split.
  """

  def __init__(self, subject: Subject, options: Options, chosen: tuple[str, ...], judge: Config | None,
               real: Callable[[], float]):
    super().__init__(subject, options, chosen)
    self._judge, self._real = judge, real
    self._rows: kept.Rows | None = None

  def check(self) -> dict[str, dict[str, Any]]:
    """See `samples.Group`."""
    judge = self._judge
    if judge is None:
      raise UserError(f'accuracy_score needs a classifier for {self._subject.config.data.name!r}; name a config in '
                      'configs/classifiers/ by config.evaluation.classifier')
    if self._options.num_samples < judge.batch_size:
      raise UserError(f'accuracy_score trains a classifier on samples, in batches of {judge.batch_size}; '
                      f'config.evaluation.num_samples is {self._options.num_samples}')
    experiment = classifier.build(judge)
    own = {key: config_lib.plain(judge[key]) for key in ('steps', 'batch_size', 'seed', 'model', 'objective',
                                                        'optimizers')}
    return {'accuracy_score': {'classifier': own, 'reference': experiment.heldout.fingerprint(),
                               'trained_on': f'samples; accuracy_of_real: {judge.data.train}'}}

  def begin(self, seed: int) -> None:
    """See `samples.Group`."""
    del seed
    self._rows, self._labels = kept.Rows(), []

  def add(self, part: Columns) -> None:
    """See `samples.Group`."""
    if 'label' not in part:
      raise UserError('accuracy_score needs samples with the label that they were drawn for, and this model takes '
                      'none; leave it out')
    assert self._rows is not None
    self._rows.add(part[self._subject.column])
    self._labels.append(np.asarray(part['label'], np.int32))

  def values(self) -> Values:
    """See `samples.Group`."""
    assert self._rows is not None and self._judge is not None
    made = sources.Arrays({'image': self._rows.rows(), 'label': np.concatenate(self._labels)})
    return {'accuracy_score': {'accuracy': trained_on(self._judge, made), 'accuracy_of_real': self._real()}}

  def close(self) -> None:
    """See `samples.Group`."""
    if self._rows is not None:
      self._rows.close()
    self._rows = None


def trained_on(judge: Config, made: Source) -> float:
  """The accuracy on the held-out data of a classifier's config that learns from other pictures.

  Args:
    judge: config of the classifier.
    made: columns image and label; the classifier learns from these in the place of the split config.data.train.
  """
  config = config_lib.from_plain(config_lib.plain(judge))
  heldout = classifier.images.open_source(judge.data, judge.data.heldout, seed=0)
  name = distributed.broadcast(f'samples-{uuid.uuid4().hex[:8]}', 'name of the samples')
  with config.unlocked():
    config.data.name = name
    config.data.train, config.data.heldout = 'made', 'real'  # of the judge both may be one split
    config.data.resize = ''  # both are as the classifier reads them
  with tables.recorded() as added, tempfile.TemporaryDirectory(prefix='genjax-') as aside:
    sources.SOURCES.add(name, lambda data, split: made if split == 'made' else heldout)
    try:
      folder = distributed.broadcast(aside, 'folder of the classifier')
      logs.say(f'accuracy_score: a classifier learns from {len(made)} samples now, for {config.steps} steps')
      with logs.inside('classifier'):
        run = training.train(config, f'{folder}/run')
    finally:
      tables.remove(added)
  assert run.evaluation is not None  # at the end of training
  return float(run.evaluation[1]['accuracy'])
