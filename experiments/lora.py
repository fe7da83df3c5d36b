"""Low-rank adapters of the experiment of any builder, from `config.lora`."""

import dataclasses
from typing import Any

import jax

from genjax import config as config_lib
from genjax.nn import lora
from genjax.objectives.lora import MUTABLE, Lora
from genjax.training import state
from genjax.training.experiment import Experiment
from genjax.types import UserError


def wrap(config: Any, experiment: Experiment) -> Experiment:
  """The experiment that trains adapters of another one's parameters.

  config.lora: options of `genjax.nn.lora.Options`, and groups, the groups to adapt, or () for all in which a path matches. The adapters
  of a group have its optimizer and the decay of its average. The parameters that they adapt are shapes for now: they are those of the
  run that config.init_from names.

  Raises:
    UserError: options out of range, an unknown group, paths that match nothing or what is no kernel.
  """
  given = config_lib.plain(config.lora)
  groups = given.pop('groups', ())
  options = config_lib.build(lora.Options, given, 'config.lora')
  base = jax.eval_shape(experiment.objective.init, state.init_key(config.seed), experiment.frozen)
  if unknown := sorted(set(groups) - set(base.params)):
    raise UserError(f'config.lora.groups names {unknown}; the groups are {sorted(base.params)}')
  kernels = lora.targets(options, {group: base.params[group] for group in groups or base.params})
  if idle := [group for group in groups if not kernels[group]]:
    raise UserError(f'config.lora.groups names {idle}, in which none of config.lora.paths={options.paths} matches')
  objective = Lora(experiment.objective, options, tuple(group for group in kernels if kernels[group]))
  origins = {objective.adapter(group): group for group in objective.groups}
  preview = experiment.preview
  return dataclasses.replace(
    experiment,
    objective=objective,
    optimizers={name: experiment.optimizers[group] for name, group in origins.items() if group in experiment.optimizers},
    ema={name: experiment.ema[group] for name, group in origins.items() if group in experiment.ema},
    frozen={**experiment.frozen, **base.params, MUTABLE: base.mutable},
    axes={**experiment.axes, **{name: lora.axes(experiment.axes.get(group, ()), kernels[group]) for name, group in origins.items()}},
    preview=None if preview is None else lambda params, context, batch: preview(
      objective.merge(params, context.frozen), objective.context(context), batch),
    origins=origins)
