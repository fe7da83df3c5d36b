"""The train step: runs the phases that are due.

For each phase it computes the gradient of the loss with respect to its groups only, accumulated over microbatches by
`Output.weight`, and runs the optimizers of these groups. At the end of the step it updates the averages of trained
groups.
"""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from genjax.objectives.base import Context, Objective
from genjax.training import accumulation, averages, keys
from genjax.training.accumulation import Metrics
from genjax.training.optimization import directions
from genjax.training.optimization import optimizers as optimizers_lib
from genjax.training.state import TrainState
from genjax.types import Batch, Params, Tree


def make_step(
  objective: Objective, optimizers: Mapping[str, optax.GradientTransformation], ema: Mapping[str, Any], seed: int,
  microbatches: int = 1, skip_nonfinite: bool = False, layout: Mapping[str, Tree] | None = None,
) -> Callable[[TrainState, Params, Batch, tuple[str, ...]], tuple[TrainState, Metrics]]:
  """Makes the step, a pure function (state, frozen, batch, due) -> (state, metrics); `due` is static.

  Metrics are named '<phase>/<name>'; every phase has 'loss' and 'gradient_norm' (before clipping).

  Args:
    objective: phases and losses.
    optimizers: group -> transformation.
    ema: group -> decay, or several averages; see `genjax.training.averages`.
    seed: keys are a function of (seed, step, phase).
    microbatches: number of parts of a batch for accumulation.
    skip_nonfinite: if a loss or gradient norm is not finite, the step changes only the step counter. Adds the metric
      'skipped', 1 for such steps, else 0.
    layout: group -> `NamedSharding` of each parameter. With several microbatches on a mesh with an axis 'data',
      gradients are then summed over it once a step, see `genjax.training.accumulation`.
  """
  phases, rules = objective.phases(), averages.parse(ema)

  def step(state: TrainState, frozen: Params, batch: Batch, due: tuple[str, ...]) -> tuple[TrainState, Metrics]:
    params, mutable, opt, metrics = dict(state.params), state.mutable, dict(state.opt), {}
    step_key = jax.random.fold_in(keys.of(seed, 'step'), state.step)
    trained: set[str] = set()
    for index, phase in enumerate(phases):
      if phase.name not in due:
        continue
      context = Context(step=state.step, mutable=mutable, ema=state.ema, frozen=frozen)
      key = jax.random.fold_in(step_key, index)
      stop = lambda group, tree: optimizers_lib.stop_frozen(optimizers[group], tree)
      gradients, values, mutable = accumulation.gradients(phase, params, context, batch, key, microbatches, stop, layout
                                                          or {})
      for group in phase.trains:
        updates, opt[group] = optimizers[group].update(gradients[group], opt[group], params[group])
        params[group] = optax.apply_updates(params[group], updates)
      trained.update(phase.trains)
      values['gradient_norm'] = optax.tree.norm(gradients)
      metrics.update({f'{phase.name}/{name}': value for name, value in values.items()})
    moved = averages.update(
      rules, state.ema, {average.group: directions.evaluated(opt[average.group], params[average.group])
                         for average in rules.values()}, trained, state.step, jax.tree.leaves(batch)[0].shape[0])
    after = TrainState(step=state.step + 1, params=params, mutable=mutable, opt=opt, ema=moved)
    return _unless_finite(state, after, metrics, due) if skip_nonfinite else (after, metrics)

  return step


def _unless_finite(before: TrainState, after: TrainState, metrics: Metrics,
                   due: tuple[str, ...]) -> tuple[TrainState, Metrics]:
  """Keeps the state before the step if a loss or gradient norm is not finite; adds the metric 'skipped'."""
  decisive = [metrics[f'{phase}/{quantity}'] for phase in due for quantity in ('loss', 'gradient_norm')]
  finite = jnp.all(jnp.isfinite(jnp.asarray(decisive, jnp.float32)))
  before = dataclasses.replace(before, step=after.step)
  state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, before)
  return state, {**metrics, 'skipped': 1.0 - finite.astype(jnp.float32)}
