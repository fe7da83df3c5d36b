"""Histograms of parameters, gradients and updates for TensorBoard.

The step that trains stays as it is: a second program computes the same step beside it, keeps what it saw and drops the
new state. So histograms change no number of a run. Each time, they cost about one more step.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from genjax import distributed, reduction, sharding
from genjax.objectives import base
from genjax.training import step as step_lib
from genjax.training.hooks import Hook, is_due
from genjax.training.monitoring import logs
from genjax.training.optimization import optimizers
from genjax.training.run import Run
from genjax.types import Tree

BINS = 64


class Histograms(Hook):
  """Writes 'parameters/<group>', 'gradients/<group>' and 'updates/<group>' every `every` steps.

  Those of step s are of the parameters after s steps, and of the gradients and updates of the step that follows.
  Gradients are those before clipping; an update is what is added to the parameters. A group that two phases of a step
  train shows the later one. At the end there are the parameters alone.

  Args:
    writer: gets them.
    every: 0 switches them off, and nothing is compiled.
  """

  def __init__(self, writer: logs.Writer, every: int):
    self.writer, self.every = writer, every
    self._step: int | None = None
    self._compute: Callable[..., dict[str, Any]] | None = None

  def before_step(self, run: Run, columns: dict) -> None:
    if not is_due(run.step, self.every) or self._step == run.step:
      return
    self._step = run.step  # of the batches of one call, the first
    compute = self._compute or distributed.compiled_together(_compiled(run), 'the histograms')
    self._compute = compute
    batch = sharding.put_batch(columns, run.mesh)
    with run.clock.section('evaluate'):
      self._write(run, compute(run.state, run.frozen, batch, base.due(run.phases, run.step)))

  def reads(self, run: Run, step: int) -> bool:
    return is_due(step, self.every)

  def end(self, run: Run) -> None:
    if self.every:
      everywhere = sharding.replicated(run.mesh)
      compute = jax.jit(lambda params: _named('parameters', params), out_shardings=everywhere)
      self._write(run, distributed.compiled_together(compute, 'the last histograms')(run.state.params))

  def _write(self, run: Run, found: Mapping[str, Any]) -> None:
    for name, values in jax.device_get(found).items():
      self.writer.histogram(run.step, name, **values)


def _compiled(run: Run) -> Callable[..., dict[str, Any]]:
  """The histograms of one step, as a function (state, frozen, batch, due)."""
  layout = jax.tree.map(lambda leaf: leaf.sharding, run.target.params)

  def compute(state: Any, frozen: Tree, batch: Mapping[str, jax.Array], due: tuple[str, ...]) -> dict[str, Any]:
    seen: dict[str, Tree] = {}
    watched = {group: _watched(optimizer, group, seen) for group, optimizer in run.experiment.optimizers.items()}
    step = step_lib.make_step(run.experiment.objective, watched, run.experiment.ema, run.settings.seed,
                              run.settings.microbatches, layout=layout)
    step(state, frozen, batch, due)
    return {**_named('parameters', state.params), **{name: histogram(tree) for name, tree in seen.items()}}

  placed = sharding.under(run.mesh, run.settings.rules, reduction.sums_in(run.settings.reduce)(compute))
  return jax.jit(placed, static_argnums=3, out_shardings=sharding.replicated(run.mesh))


def _watched(optimizer: optax.GradientTransformation, group: str,
             seen: dict[str, Tree]) -> optimizers.Optimizer:
  """The optimizer, which notes the gradients that it gets and the updates that it gives while the step is traced."""

  def update(updates: Tree, state: Any, params: Tree = None, **extra: Any) -> tuple[Tree, Any]:
    changes, state = inner.update(updates, state, params, **extra)
    seen[f'gradients/{group}'], seen[f'updates/{group}'] = updates, changes
    return changes, state

  inner = optax.with_extra_args_support(optimizer)
  watched = optimizers.Optimizer(optimizer.init, update)
  watched.rules = getattr(optimizer, 'rules', ())
  return watched


def _named(kind: str, trees: Mapping[str, Tree]) -> dict[str, Any]:
  return {f'{kind}/{group}': histogram(tree) for group, tree in trees.items()}


def histogram(tree: Tree) -> dict[str, jax.Array]:
  """Counts of all entries of a tree in `BINS` bins of equal width, and their range, number, sum and sum of squares.

  Entries that are not finite are left out. Traceable.
  """
  leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
  leaves = [leaf.astype(jnp.float32) for leaf in leaves]
  low = jnp.min(jnp.stack([jnp.min(leaf, initial=jnp.inf, where=jnp.isfinite(leaf)) for leaf in leaves]))
  high = jnp.max(jnp.stack([jnp.max(leaf, initial=-jnp.inf, where=jnp.isfinite(leaf)) for leaf in leaves]))
  width = jnp.maximum((high - low) / BINS, jnp.finfo(jnp.float32).tiny)
  counts = jnp.zeros(BINS, jnp.float32)
  total = square = jnp.float32(0)
  for leaf in leaves:
    finite = jnp.isfinite(leaf)
    place = jnp.clip((jnp.where(finite, leaf, low) - low) / width, 0, BINS - 1).astype(jnp.int32)
    # Whole numbers: float32 stops counting at 2^24.
    counts += jnp.zeros(BINS, jnp.int32).at[place].add(finite.astype(jnp.int32)).astype(jnp.float32)
    kept = jnp.where(finite, leaf, 0.0)
    total, square = total + jnp.sum(kept), square + jnp.sum(kept ** 2)
  return {'counts': counts, 'low': low, 'high': high, 'total': total, 'square': square}
