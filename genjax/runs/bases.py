"""The run that another one begins with or adapts, as `config.init_from` names it: RUN_DIR or RUN_DIR@STEP."""

from collections.abc import Callable, Sequence
import contextlib
import dataclasses
import os
import pathlib
from typing import Any

from genjax import config as config_lib
from genjax.config import Config
from genjax.runs import assets, builders
from genjax.runs import checkpoints as checkpoints_lib
from genjax.runs.assets import read_json
from genjax.training.checkpoints import warm_start
from genjax.training.checkpoints.checkpoint import Checkpoints
from genjax.training.experiment import Experiment
from genjax.training.monitoring.logs import say
from genjax.types import UserError, expanded


def record(config: Config, workdir: pathlib.Path) -> dict[str, Any]:
  """What run.json holds of the run that `config.init_from` names: its place as seen from this one, so that both may be
  moved together."""
  if not config.get('init_from'):
    return {}
  base, _ = checkpoints_lib.run_and_step(config.init_from)
  return {'base': os.path.relpath(base.absolute(), workdir.absolute())}


def locate(config: Config, workdir: pathlib.Path, report: Callable[[str], None] = say) -> None:
  """Sets `config.init_from` to where the base of a run with adapters is now, if it was moved together with the run."""
  known = read_json(workdir / 'run.json').get('base')
  if not builders.adapted(config) or known is None:
    return
  named, step = checkpoints_lib.run_and_step(config.init_from)
  beside = pathlib.Path(os.path.normpath(workdir.absolute() / known))
  if not (named / 'config.json').is_file() and (beside / 'config.json').is_file():
    report(f'config.init_from={config.init_from!r} is not there; taking {beside}, which lies where it was as seen from '
           f'{workdir}')
    with config.unlocked():
      config.init_from = f'{beside}' if step is None else f'{beside}@{step}'


def inherited(config: Config) -> dict[str, Any]:
  """What the base of a run with adapters found in its data, such as an alphabet: the adapters read and write in it,
  too."""
  return {name: value for name, value in assets.read(_base(config)).items() if name != 'base'}


def attach(config: Config, experiment: Experiment, report: Callable[[str], None] = say) -> Experiment:
  """The experiment with the frozen groups that are shapes read from `config.init_from`; any other experiment as it is.

  Raises:
    UserError: no run is named, or it lacks what is wanted, has adapters of its own, or is not the one that this run
      began with.
  """
  if not builders.adapted(config):
    return experiment
  base = read_json(_base(config) / 'config.json')
  if builders.adapted(base):
    raise UserError(
      f'config.init_from={config.init_from!r} is itself a run with adapters; write it as a run of its own with genjax '
      'merge, and name that one')
  pairs = config_lib.difference(base['model'], config.model)
  if pairs:
    report('config.model is not that of the base: '
           + ', '.join(f'{key} {there!r} there, {here!r} here' for key, (there, here) in pairs.items()))
  known = config.assets.get('base')
  saved, step = source(config.init_from)
  with contextlib.closing(saved):
    step = known.step if known and step is None else step
    if known and step not in (steps := saved.steps()):
      raise UserError(
        f'these adapters were trained on step {step} of their base, and config.init_from={config.init_from!r} has '
        f'{steps}'
      )
    frozen, facts = warm_start.fill(experiment.frozen, saved, step, report, **config_lib.plain(config.init))
  if known and facts['sha256'] != known.sha256:
    raise UserError(
      f'config.init_from={config.init_from!r}: its parameters of step {facts["step"]} are not the ones that these '
      f'adapters were trained on (step {known.step}, sha256 {known.sha256[:12]}, not {facts["sha256"][:12]}); '
      'name that run with --set init_from=RUN_DIR')
  return dataclasses.replace(experiment, frozen=frozen, assets={**experiment.assets, 'base': facts})


def source(text: str) -> tuple[Checkpoints, int | None]:
  """The checkpoints that `config.init_from` names, RUN_DIR or RUN_DIR@STEP, and the step if it names one.

  Raises:
    UserError: no run directory, a step that is no number, or no such checkpoint.
  """
  workdir, step = checkpoints_lib.run_and_step(text)
  saved = checkpoints_lib.of_run(workdir, config_lib.from_plain(read_json(workdir / 'config.json')))
  steps = saved.steps()
  if not steps or step is not None and step not in steps:
    raise UserError(
      f'config.init_from={text!r}: no checkpoint{"" if step is None else f" of step {step}"} there; there are {steps}')
  return saved, step


def adapter_of(base: str, adapter: str, assignments: Sequence[str]) -> list[str]:
  """The changes with which `load` opens a run with adapters on the base in `base`, wherever it was trained.

  Raises:
    UserError: `adapter` is no run with adapters.
  """
  if not builders.adapted(assets.read_config(expanded(adapter))):
    raise UserError(f'--adapter={adapter} is a run without adapters; sample it with --workdir={adapter}')
  return [*assignments, f'init_from={base}']


def _base(config: Config) -> pathlib.Path:
  """The folder of the run whose parameters are adapted."""
  if not config.init_from:
    raise UserError('config.lora adapts the parameters of another run: name it, --config.init_from=RUN_DIR')
  workdir, _ = checkpoints_lib.run_and_step(config.init_from)
  if not (workdir / 'config.json').exists():
    raise UserError(
      f'config.init_from={config.init_from!r}, the run whose parameters are adapted, is not there: {workdir} has no '
      'config.json. Name it with --config.init_from=RUN_DIR; genjax sample and evaluate take --set init_from=RUN_DIR')
  return workdir
