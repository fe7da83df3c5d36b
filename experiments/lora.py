"""Low-rank adapters for the experiment of any builder, from `config.lora`."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from genjax import config as config_lib
from genjax.experiments import adapters, parts
from genjax.nn import lora
from genjax.objectives.base import Context
from genjax.objectives.lora import BASE, Lora
from genjax.runs import sources
from genjax.training import state
from genjax.training.experiment import Experiment
from genjax.training.reading import read_types
from genjax.types import Batch, Params, Tree, UserError, leaf_name

DTYPES = ('', 'float32', 'bfloat16')


def wrap(config: Any, experiment: Experiment) -> Experiment:
  """Makes an experiment that trains adapters of another experiment's parameters.

  config.lora has the options of `genjax.nn.lora.Options`; groups, the groups to adapt, or () for all in which a path
  matches; dtype, the dtype of the frozen parameters, see `_kept`; and measures, whether they are measured against the
  base and against merged kernels, see `genjax.experiments.adapters`. The adapters of a group have its optimizer and the
  decay of its average. What they adapt is a part like others, the run in config.init_from.

  Raises:
    UserError: an option is out of range, a group or dtype is unknown, or a path matches nothing or no kernel.
  """
  given = config_lib.plain(config.lora)
  groups, dtype = given.pop('groups', ()), given.pop('dtype', '')
  measures = (adapters.metric(),) if given.pop('measures', False) else ()
  if dtype not in DTYPES:
    raise UserError(
      f"config.lora.dtype must be one of {DTYPES}, where '' is the compute dtype of the base, got {dtype!r}")
  options = config_lib.build(lora.Options, given, 'config.lora')
  base = jax.eval_shape(experiment.objective.init, state.init_key(config.seed), experiment.frozen)
  if unknown := sorted(set(groups) - set(base.params)):
    raise UserError(f'config.lora.groups names {unknown}; the groups are {sorted(base.params)}')
  kernels = lora.targets(options, {group: base.params[group] for group in groups or base.params})
  if idle := [group for group in groups if not kernels[group]]:
    raise UserError(f'config.lora.groups names {idle}, where none of config.lora.paths={options.paths} matches')
  objective = Lora(experiment.objective, options, tuple(group for group in kernels if kernels[group]))
  origins = {objective.adapter(group): group for group in objective.groups}
  preview = experiment.preview
  adapted = dataclasses.replace(
    experiment, objective=objective, optimizers={
      name: experiment.optimizers[group] for name, group in origins.items() if group in experiment.optimizers
    }, ema={name: experiment.ema[group] for name, group in origins.items() if group in experiment.ema},
    frozen={**experiment.frozen, BASE: {'params': base.params, 'mutable': base.mutable}},
    sources={**experiment.sources, BASE: sources.source(config, BASE)}, axes={
      **{name: table for name, table in experiment.axes.items() if name not in base.params},
      **{name: lora.axes(experiment.axes.get(group, ()), kernels[group]) for name, group in origins.items()},
      BASE: parts.inside(base.params, experiment.axes, 'params'),
    }, preview=None if preview is None else lambda params, context, batch: preview(
      objective.merge(params, context.frozen), objective.context(context, merged=True), batch), origins=origins,
    metrics=(*experiment.metrics, *measures))
  computed = config.model.get('dtype', 'float32')  # a model without this option uses its parameters unchanged
  if dtype == 'float32' or not dtype and computed == 'float32':
    return adapted
  kept = _kernels_as(dtype, base.params) if dtype else _kept(adapted, base.params, config.batch_size)
  return dataclasses.replace(
    adapted, frozen={**adapted.frozen, BASE: {'params': {**base.params, **kept}, 'mutable': base.mutable}})


def _kept(experiment: Experiment, base: Params, rows: int) -> Params:
  """The shapes of the base with the dtypes in which it is stored.

  An array has the dtype to which losses and evaluation convert it wherever they read it: kernels have the compute
  dtype, while arrays that are added in float32, such as embeddings, stay float32. Results equal those with a float32
  base up to rounding.
  """
  objective = experiment.objective
  key = jax.random.key(0)
  variables = jax.eval_shape(objective.init, key, experiment.frozen)
  averages = {group: variables.params[group] for group in experiment.ema}

  def read(base: Params, frozen: Params, params: Params, mutable: Tree, ema: Params, batch: Batch,
           heldout: Batch) -> Any:
    frozen = {**frozen, BASE: {**frozen[BASE], 'params': base}}
    context = Context(step=jnp.int32(0), mutable=mutable, ema=ema, frozen=frozen)
    gradients = [
      jax.grad(lambda params, phase=phase: phase.loss(params, context, batch, key).loss)(params)
      for phase in objective.phases()
    ]
    return gradients, objective.evaluate(params, context, heldout, key)

  size = experiment.heldout.batch_size
  heldout = {**experiment.batch_shapes(size), 'mask': jax.ShapeDtypeStruct((size,), jnp.float32)}
  types = read_types(read, base, experiment.frozen, variables.params, variables.mutable, averages,
                     experiment.batch_shapes(rows), heldout)
  return jax.tree.map(lambda leaf, dtype: jax.ShapeDtypeStruct(leaf.shape, dtype), base, types)


def _kernels_as(dtype: str, tree: Tree) -> Tree:
  """The shapes of a tree with its kernels in a dtype."""
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: jax.ShapeDtypeStruct(leaf.shape, dtype) if lora.is_kernel(leaf_name(path)) else leaf, tree)
