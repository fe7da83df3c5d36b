"""Checks before the first step that evaluation and sampling will work, by tracing shapes only."""

from collections.abc import Mapping

import jax
import numpy as np

from genjax import artifacts, sharding
from genjax.objectives import base
from genjax.training import keys
from genjax.training.experiment import Columns, encoded
from genjax.training.run import Run
from genjax.types import UserError


def check(run: Run, samples: int | None) -> None:
  """Checks that held-out data is there, and that evaluation, previews and sampling fit the model.

  Args:
    run: a run that is not initialised yet.
    samples: number of samples drawn while training; None for no sampling.

  Raises:
    UserError: a split is missing or empty, the objective does not generate, options of the sampler do not fit, or a
      package is missing that samples are written by.
  """
  heldout = run.experiment.heldout
  heldout.fingerprint()  # opens it
  run.evaluation_names()
  if samples is None:
    return
  if samples < 1:
    raise UserError(
      f'config.sample_num must be at least 1, got {samples}; to draw no samples set config.sample_every=0')
  conditions = run.conditions(samples)
  for value in run.experiment.render(_zeros(conditions, sampled(run, conditions))).values():
    artifacts.check_shown(value)
  if run.experiment.preview:
    preview = sharding.under(run.mesh, run.settings.rules, run.experiment.preview)
    context = run.target.context(run.experiment.frozen)
    jax.eval_shape(preview, run.target.averaged(), context, run.heldout_shapes())


def sampled(run: Run, conditions: Mapping[str, np.ndarray], num: int = 1) -> dict[str, jax.ShapeDtypeStruct]:
  """The shapes of the samples for conditions, or of `num` samples without any, padded to fill the mesh.

  Raises:
    UserError: the experiment does not generate, or not from these conditions.
  """
  conditions = encoded(run.experiment.conditions, dict(conditions))
  rows = max([num, *map(len, conditions.values())])
  rows = -(-rows // run.batch_shards) * run.batch_shards
  shapes = {name: jax.ShapeDtypeStruct((rows, *column.shape[1:]), column.dtype) for name, column in conditions.items()}
  row_keys = jax.eval_shape(lambda: jax.random.split(keys.of(0, 'sample', keys.ROWS), rows))
  sample = sharding.under(run.mesh, run.settings.rules, run.experiment.objective.sample)
  found = jax.eval_shape(sample, run.target.averaged(), run.target.context(run.experiment.frozen), row_keys, shapes)
  return {name: shape for name, shape in found.items() if name != base.FINITE}


def zeros(run: Run, conditions: Mapping[str, np.ndarray]) -> Columns:
  """One sample of zeros with its conditions, for what `Experiment.render` would make of it.

  Raises:
    UserError: see `sampled`.
  """
  return _zeros(conditions, sampled(run, {name: column[:1] for name, column in conditions.items()}))


def _zeros(conditions: Mapping[str, np.ndarray], shapes: Mapping[str, jax.ShapeDtypeStruct]) -> Columns:
  columns: Columns = {name: column[:1] for name, column in conditions.items()}
  return {**columns, **{name: np.zeros((1, *shape.shape[1:]), shape.dtype) for name, shape in shapes.items()}}
