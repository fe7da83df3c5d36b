"""A builder around the builder named in RECORDED_EXPERIMENT that writes down which examples each process used.

One line a step in $RECORDED_FOLDER/<process>-<pid>.jsonl: the step, and the indices of the examples in the source.
"""

import dataclasses
import importlib
import json
import os
import pathlib

import jax
import numpy as np

from genjax.training import hooks


class Record(hooks.Hook):
  """Writes the indices of each batch, after checking that the batch holds those examples."""

  def __init__(self):
    self.path = pathlib.Path(os.environ['RECORDED_FOLDER']) / f'{jax.process_index()}-{os.getpid()}.jsonl'

  def before_step(self, run, columns):
    data, size = run.experiment.train, run.settings.batch_size
    indices = data.indices(run.step * size + np.arange(size)[run.rows(size)])
    examples = data.source.get(indices)
    assert all(np.array_equal(columns[name], examples[name]) for name in columns)
    with self.path.open('a') as lines:
      lines.write(json.dumps({'step': run.step, 'indices': indices.tolist()}) + '\n')


def build(config):
  """The experiment, recorded."""
  experiment = importlib.import_module(os.environ['RECORDED_EXPERIMENT']).build(config)
  return dataclasses.replace(experiment, hooks=(Record(),))
