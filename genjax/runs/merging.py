"""Writes a run with adapters as a run of its own, with the adapters merged into its parameters."""

from collections.abc import Sequence
import contextlib
import dataclasses
import pathlib
from typing import Any

from genjax import config as config_lib
from genjax.runs import assets, atomic, builder_code, builders, extensions, sources
from genjax.runs import checkpoints as checkpoints_lib
from genjax.runs import workdir as workdir_lib
from genjax.runs.sources import BASE, PARTS
from genjax.training import averages
from genjax.training.run import Run
from genjax.training.state import TrainState
from genjax.types import Tree, UserError, expanded


def merge(workdir: str, out: pathlib.Path, assignments: Sequence[str] = (), step: int | str | None = None) -> int:
  """Writes a run with merged parameters; averages are merged, too, and the state of the optimizer begins anew.

  Args:
    workdir: a run with adapters.
    out: a new folder, see `genjax.runs.outputs.folder`.
    assignments, step: see `genjax.runs.workdir.open_run`.

  Returns:
    The step of the new run.

  Raises:
    UserError: a run without adapters, or see `open_run`.
  """
  config, paths = workdir_lib.read_config(workdir)
  if not builders.adapted(config):
    raise UserError(f'--workdir={workdir} is a run without adapters; there is nothing to merge')
  # Not the base as it was rounded for training
  _, run = workdir_lib.open_run(workdir, assignments, step, exact=True)
  merged: Any = run.experiment.objective  # the one that has adapters
  plain = config_lib.from_plain(_without_adapters(config_lib.plain(config)))
  experiment = builders.build(plain, paths)
  parts = {name: facts for name, facts in run.experiment.assets[PARTS].items() if name != BASE}
  kept = {**experiment.assets, **({PARTS: parts} if parts else {})}
  assets.put(plain, assets.described(kept, experiment.files))
  params = merged.merge(run.params(averaged=False), run.frozen)
  state = TrainState(step=run.state.step, params=params, mutable=run.state.mutable,
                     opt={group: experiment.optimizers[group].init(tree) for group, tree in params.items()},
                     ema={key: _merged(merged, run, key) for key in averages.parse(experiment.ema)})
  workdir_lib.prepare(str(out), '--out')
  description = {**workdir_lib.describe(plain, experiment.train.fingerprint(), paths), **sources.record(plain, out)}
  description.update(extensions.keep(out, extensions.kept(expanded(workdir))))
  with contextlib.closing(checkpoints_lib.of_run(out, config)) as saved:
    saved.save(run.step, state, {**description, 'config': config_lib.plain(plain)}, None)
  atomic.write(out, experiment.files)
  builder_code.keep(out, builder_code.of(plain.experiment, paths))
  atomic.write_json(out / 'run.json', description)
  atomic.write_json(out / 'config.json', config_lib.plain(plain))
  return run.step


def _merged(objective: Any, run: Run, key: str) -> Tree:
  """An average of the run, merged; `key` is what it is called in the new run."""
  context, group = run.state.context(run.frozen), averages.group_of(key)
  there = objective.adapter(group) + key.removeprefix(group)
  means = {objective.adapter(group): context.ema[there]} if there in context.ema else {}
  return objective.context(dataclasses.replace(context, ema=means), merged=True).ema[group]


def _without_adapters(config: dict[str, Any]) -> dict[str, Any]:
  """The config of the merged run."""
  kept = {name: value for name, value in config['assets'].items() if name not in (BASE, PARTS)}
  return {**config, 'assets': kept, 'init_from': '', 'lora': {**config['lora'], 'rank': 0, 'paths': []}}
