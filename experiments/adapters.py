"""What is measured of low-rank adapters beside the metrics of what they adapt, see `genjax.experiments.lora`."""

import dataclasses
from typing import Any

import jax
import numpy as np

from genjax import sharding
from genjax.objectives.lora import BASE
from genjax.training import keys, state
from genjax.training.experiment import Metric
from genjax.training.run import Run
from genjax.types import Params, UserError

NAME = 'adapters'


def metric() -> Metric:
  """Three values of a run with adapters, named 'adapters'.

  trainable: how many numbers are trained. initial_difference: the largest difference, over all held-out examples and
  all values of the objective, between the base and the adapters as they begin; 0 if not a bit differs. merge_error:
  the largest difference between trained adapters and their merged kernels, divided by the mean size of the value.
  """
  card = {'parameters': 'as evaluated', 'examples': 'the held-out split'}
  compute: Any = lambda draw, seed: measure(draw.run, draw.averaged)
  return Metric(NAME, compute, card, _check)


def _check() -> None:
  if jax.process_count() > 1:
    raise UserError('config.lora.measures compares examples in one process; evaluate in one, or with --no-samples')


def measure(run: Run, averaged: bool | str) -> dict[str, float]:
  """See `metric`.

  Args:
    run: with adapters, at the step that is evaluated.
    averaged: see `Run.params`.
  """
  objective: Any = run.experiment.objective
  params, context = run.params(averaged), run.state.context(run.frozen)
  begun = jax.jit(run.program.on_mesh(objective.init))(state.init_key(run.settings.seed), run.frozen)
  start = dataclasses.replace(context, mutable=begun.mutable, ema={name: begun.params[name] for name in context.ema})
  adapted, plain = (jax.jit(run.program.on_mesh(part.evaluate)) for part in (objective, objective.base))
  merged = objective.merge(params, run.frozen), objective.context(context, merged=True)
  base = _base(objective, begun.params, run.frozen), objective.context(start, merged=True)

  initial, errors, sizes, count = 0.0, {}, {}, 0.0
  key, data = keys.of(run.settings.seed, 'evaluation'), run.experiment.heldout
  for index, columns in enumerate(data.epoch(run.rows(data.batch_size))):
    batch, own = sharding.put_batch(columns, run.mesh), jax.random.fold_in(key, index)
    real = columns['mask'] > 0
    first, untrained, second, joined = jax.device_get(
      (adapted(begun.params, start, batch, own), plain(*base, batch, own),
       adapted(params, context, batch, own), plain(*merged, batch, own)))
    for name, value in first.items():
      initial = max(initial, _apart(value, untrained[name], real))
      errors[name] = max(errors.get(name, 0.0), _apart(second[name], joined[name], real))
      sizes[name] = sizes.get(name, 0.0) + float(np.abs(joined[name][real]).sum())
    count += float(real.sum())
    run.clock.beat()
  relative = [errors[name] / (sizes[name] / count) for name in errors if sizes[name]]
  return {'trainable': float(sum(leaf.size for leaf in jax.tree.leaves(params))), 'initial_difference': initial,
          'merge_error': max(relative, default=0.0)}


def _apart(first: np.ndarray, second: np.ndarray, real: np.ndarray) -> float:
  """The largest difference between values of examples that are no padding."""
  return float(np.abs(first.astype(np.float64) - second)[real].max(initial=0.0))


def _base(objective: Any, adapters: Params, frozen: Params) -> Params:
  """The parameters of the base, in the groups that its objective takes."""
  return {group: frozen[BASE]['params'][group] for group in objective.merge(adapters, frozen)}
