"""The one train step: runs the phases that are due.

For each phase: the gradient of its loss with respect to its groups only, accumulated over microbatches by
`Output.weight`; the optimizer of each of these groups; then, once a step, the averages of the groups that were trained.
"""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from genjax.objectives.base import Context, Objective, Phase
from genjax.training import directions
from genjax.training import optimizers as optimizers_lib
from genjax.training.state import TrainState
from genjax.types import Array, Batch, Key, Params, Tree

Metrics = dict[str, Array]


def make_step(objective: Objective, optimizers: Mapping[str, optax.GradientTransformation], ema: Mapping[str, float], seed: int,
              microbatches: int = 1, skip_nonfinite: bool = False,
              ) -> Callable[[TrainState, Params, Batch, tuple[str, ...]], tuple[TrainState, Metrics]]:
  """The step as a pure function (state, frozen, batch, due) -> (state, metrics); `due` is static.

  Metrics are named '<phase>/<name>'; every phase has 'loss' and 'gradient_norm' (before clipping).

  Args:
    objective: phases and losses.
    optimizers: group -> transformation.
    ema: group -> decay. The decay of the first steps is (1 + step) / (10 + step), so that short runs are not averages of
      their initial values.
    seed: keys are a function of (seed, step, phase).
    microbatches: into how many parts a batch is split for accumulation.
    skip_nonfinite: a step in which a loss or gradient norm is not finite changes nothing but the step counter; the metric
      'skipped' is then 1, else 0. Without it nothing of this is computed.
  """
  phases = objective.phases()

  def step(state: TrainState, frozen: Params, batch: Batch, due: tuple[str, ...]) -> tuple[TrainState, Metrics]:
    params, mutable, opt, metrics = dict(state.params), state.mutable, dict(state.opt), {}
    step_key = jax.random.fold_in(jax.random.key(seed), state.step)
    trained: set[str] = set()
    for index, phase in enumerate(phases):
      if phase.name not in due:
        continue
      context = Context(step=state.step, mutable=mutable, ema=state.ema, frozen=frozen)
      key = jax.random.fold_in(step_key, index)
      gradients, values, mutable = _gradients(phase, optimizers, params, context, batch, key, microbatches)
      for group in phase.trains:
        updates, opt[group] = optimizers[group].update(gradients[group], opt[group], params[group])
        params[group] = optax.apply_updates(params[group], updates)
      trained.update(phase.trains)
      values['gradient_norm'] = optax.tree.norm(gradients)
      metrics.update({f'{phase.name}/{name}': value for name, value in values.items()})
    ramp = (1.0 + state.step) / (10.0 + state.step)
    averages = {
      group: _average(average, directions.evaluated(opt[group], params[group]), jnp.minimum(ema[group], ramp))
      if group in trained else average for group, average in state.ema.items()
    }
    after = TrainState(step=state.step + 1, params=params, mutable=mutable, opt=opt, ema=averages)
    return _unless_finite(state, after, metrics, due) if skip_nonfinite else (after, metrics)

  return step


def _unless_finite(before: TrainState, after: TrainState, metrics: Metrics, due: tuple[str, ...]) -> tuple[TrainState, Metrics]:
  """The state after a step, or the one before if a loss or gradient norm is not finite; adds the metric 'skipped'."""
  decisive = [metrics[f'{phase}/{quantity}'] for phase in due for quantity in ('loss', 'gradient_norm')]
  finite = jnp.all(jnp.isfinite(jnp.asarray(decisive, jnp.float32)))
  before = dataclasses.replace(before, step=after.step)
  state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, before)
  return state, {**metrics, 'skipped': 1.0 - finite.astype(jnp.float32)}


def _gradients(phase: Phase, optimizers: Mapping[str, optax.GradientTransformation], params: Params, context: Context, batch: Batch,
               key: Key, microbatches: int) -> tuple[Params, Metrics, Tree]:
  """Gradients of a phase by group, its metrics and the new mutable tree."""

  def loss(trained: Params, mutable: Tree, batch: Batch, key: Key):
    trained = {group: optimizers_lib.stop_frozen(optimizers[group], tree) for group, tree in trained.items()}
    output = phase.loss({**params, **trained}, dataclasses.replace(context, mutable=mutable), batch, key)
    mutable = mutable if output.mutable is None else output.mutable
    return output.loss, ({'loss': output.loss, **output.metrics}, mutable, jnp.asarray(output.weight, jnp.float32))

  gradient = jax.grad(loss, has_aux=True)
  trained = {group: params[group] for group in phase.trains}
  if microbatches == 1:
    gradients, (metrics, mutable, _) = gradient(trained, context.mutable, batch, key)
    return gradients, metrics, mutable

  def accumulate(carry, scanned):
    sums, mutable = carry
    part, index = scanned
    gradients, (metrics, mutable, weight) = gradient(trained, mutable, part, jax.random.fold_in(key, index))
    terms = (gradients, metrics, jnp.ones(()))
    return (jax.tree.map(lambda total, term: total + weight * term, sums, terms), mutable), None

  parts = jax.tree.map(lambda column: _split(column, microbatches), dict(batch))
  shapes = jax.eval_shape(gradient, trained, context.mutable, jax.tree.map(lambda part: part[0], parts), key)
  zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (shapes[0], shapes[1][0], jnp.zeros(())))
  (sums, mutable), _ = jax.lax.scan(accumulate, (zeros, context.mutable), (parts, jnp.arange(microbatches)))
  gradients, metrics, weight = sums
  scale = 1.0 / jnp.maximum(weight, 1e-12)
  gradients, metrics = jax.tree.map(lambda total: total * scale, (gradients, metrics))
  return gradients, metrics, mutable


def _split(column: Array, parts: int) -> Array:
  """B ... -> M B/M ...; microbatch m takes the rows m, m + M, ..., which leaves every row on its device."""
  return column.reshape(column.shape[0] // parts, parts, *column.shape[1:]).swapaxes(0, 1)


def _average(average: Tree, params: Tree, decay: Any) -> Tree:
  return jax.tree.map(lambda mean, value: mean + (1.0 - decay) * (value - mean), average, params)
