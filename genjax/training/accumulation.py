"""Gradients of a phase, accumulated over the microbatches of a step."""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from genjax import reduction, sharding
from genjax.objectives.base import Context, Phase
from genjax.training.monitoring import logs
from genjax.types import Array, Batch, Key, Params, Tree

Metrics = dict[str, Array]


def gradients(phase: Phase, params: Params, context: Context, batch: Batch, key: Key, microbatches: int,
              stop: Callable[[str, Tree], Tree], layout: Mapping[str, Tree]) -> tuple[Params, Metrics, Tree]:
  """Computes the gradients of a phase by group, its metrics and the new mutable tree.

  Args:
    phase: the phase.
    params: parameters of all groups.
    context: see `Context`.
    batch: the batch of the step.
    key: the key of the step and phase.
    microbatches: number of parts of the batch.
    stop: (group, its parameters) -> the same parameters, without gradients for those that no optimizer trains.
    layout: see `genjax.training.step.make_step`.
  """

  def loss(trained: Params, mutable: Tree, batch: Batch, key: Key):
    output = phase.loss({**params, **trained}, dataclasses.replace(context, mutable=mutable), batch, key)
    mutable = mutable if output.mutable is None else output.mutable
    return output.loss, ({'loss': output.loss, **output.metrics}, mutable, jnp.asarray(output.weight, jnp.float32))

  trained = {group: params[group] for group in phase.trains}
  stopped = lambda trees: {group: stop(group, tree) for group, tree in trees.items()}
  whole = lambda *rest: jax.grad(lambda trained: loss(stopped(trained), *rest), has_aux=True)(trained)
  if microbatches == 1:
    total, (metrics, mutable, _) = whole(context.mutable, batch, key)
    return total, metrics, mutable

  parts = jax.tree.map(lambda column: _split(column, microbatches), dict(batch))
  example = (context.mutable, jax.tree.map(lambda part: part[0], parts), key)
  in_terms = _in_terms(phase.name, loss, trained, stopped, layout, example)
  gradient, finish = (whole, lambda total: total) if in_terms is None else (in_terms, _sum_terms)

  def accumulate(carry, scanned):
    sums, mutable = carry
    part, index = scanned
    terms, (metrics, mutable, weight) = gradient(mutable, part, jax.random.fold_in(key, index))
    added = (terms, metrics, jnp.ones(()))
    return (jax.tree.map(lambda total, term: total + weight * term, sums, added), mutable), None

  shapes = jax.eval_shape(gradient, *example)
  zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (shapes[0], shapes[1][0], jnp.zeros(())))
  (sums, mutable), _ = jax.lax.scan(accumulate, (zeros, context.mutable), (parts, jnp.arange(microbatches)))
  terms, metrics, weight = sums
  scale = 1.0 / jnp.maximum(weight, 1e-12)
  total, metrics = jax.tree.map(lambda total: total * scale, (finish(terms), metrics))
  return total, metrics, mutable


def _in_terms(name: str, loss: Callable[..., Any], trained: Params, stopped: Callable[[Params], Params],
              layout: Mapping[str, Tree], example: tuple[Any, ...]) -> Callable[..., Any] | None:
  """The gradient as one term per index of the mesh axis 'data', not summed over devices; see `genjax.reduction`.

  The loss gets arrays, and networks look up the terms of these. Other uses of an array in the loss have the gradient of
  autodiff, summed over devices for each microbatch. Returns None if there is no such axis, if parameters are split over
  it, or if layers don't support such parameters.
  """
  placement = sharding.active()
  data = 1 if placement is None else placement.mesh.shape['data']
  if data == 1 or not set(trained) <= set(layout):
    return None
  if any('data' in jax.tree.leaves(tuple(place.spec)) for group in trained for place in jax.tree.leaves(layout[group])):
    return None
  places = {
    group: jax.tree.map(lambda place: NamedSharding(place.mesh, PartitionSpec('data', *place.spec)), layout[group])
    for group in trained
  }

  def gradient(*rest: Any) -> Any:
    zeros = jax.tree.map(lambda leaf: jnp.zeros((data, *leaf.shape), jnp.float32), trained)

    def named(trained: Params, zeros: Params) -> Any:
      trained, zeros = stopped(trained), stopped(zeros)
      with reduction.naming(trained, zeros):
        return loss(trained, *rest)

    (others, terms), aux = jax.grad(named, (0, 1), has_aux=True)(trained, zeros)
    # XLA removes zeros
    terms = jax.tree.map(lambda term, other: term + reduction.spread(other, data), terms, others)
    return jax.tree.map(jax.lax.with_sharding_constraint, terms, places), aux

  try:
    jax.eval_shape(gradient, *example)
  except (TypeError, ValueError, AttributeError, IndexError, NotImplementedError) as error:
    logs.say(
      f'gradients of phase {name!r} are summed over devices for each microbatch, not once a step, because a network '
      f'uses parameters otherwise than the layers of genjax.nn do: {error}')
    return None
  return gradient


def _sum_terms(terms: Tree) -> Tree:
  return jax.tree.map(lambda term: jnp.sum(term, axis=0), terms)


def _split(column: Array, parts: int) -> Array:
  """B ... -> M B/M ...; microbatch m has the rows m, m + M, ..., so that every row stays on its device."""
  return column.reshape(column.shape[0] // parts, parts, *column.shape[1:]).swapaxes(0, 1)
