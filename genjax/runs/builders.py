"""From a config to the experiment that it describes, and to the numbers of its run."""

from collections.abc import Callable, Sequence
import dataclasses
import functools
import importlib
import importlib.util
import pathlib
import sys
from typing import Any

from genjax import sharding
from genjax.config import Config, check, choose, plain
from genjax.metrics.named import METRICS
from genjax.tables import Table
from genjax.training.experiment import Experiment, Metric
from genjax.training.run import Settings
from genjax.types import UserError

OWN = pathlib.Path(__file__).parents[1] / 'experiments'  # the builders of genjax itself
OWN_CONFIGS = OWN.with_name('configs')
ADAPTERS = 'genjax.experiments.lora'  # what makes of any experiment the one that trains its adapters


# Builders of one's own: a name for config.experiment -> build(config) -> Experiment. Any other name is a module path.
BUILDERS: Table[Callable[..., Experiment]] = Table('builder', {}, takes=('config',))


def extend_path(paths: Sequence[str]) -> None:
  """Makes builders beside the config, and in the current folder, importable."""
  for path in paths:
    if path not in sys.path:
      sys.path.append(path)


def current_name(name: str) -> str:
  """The module path of a builder. Runs of before say 'experiments.X' where it is 'genjax.experiments.X' now; a folder
  `experiments` of the user's that has an X goes first."""
  if not name.startswith('experiments.'):
    return name
  try:
    theirs = importlib.util.find_spec(name)
  except ModuleNotFoundError:
    theirs = None
  own = OWN / f'{name.removeprefix("experiments.").replace(".", "/")}.py'
  same = theirs is not None and theirs.origin is not None and own.exists() and own.samefile(theirs.origin)
  return name if theirs is not None and not same else f'genjax.{name}'


def build(config: Config, paths: Sequence[str] = ()) -> Experiment:
  """The experiment that a config describes.

  Raises:
    UserError: numbers out of range, or the builder's module cannot be found, or has no function `build`.
  """
  check(config)
  extend_path(paths)
  make = BUILDERS[config.experiment] if config.experiment in BUILDERS else _imported(config)
  experiment = _with_metrics(config, make(config))
  return importlib.import_module(ADAPTERS).wrap(config, experiment) if adapted(config) else experiment


def _imported(config: Config) -> Callable[..., Experiment]:
  """The function `build` of the module that a config names."""
  name = current_name(config.experiment)
  if not all(part.isidentifier() for part in name.split('.')):
    raise UserError(
      f"config.experiment={name!r} is no path of a module; expected one such as 'genjax.experiments.diffusion', or "
      'the name of a Python file beside the config')
  try:
    module = importlib.import_module(name)
  except ModuleNotFoundError as error:
    if not name or not (name == error.name or name.startswith(f'{error.name}.')):
      raise
    raise UserError(
      f'config.experiment={name!r} is not importable ({error}); expected the module path of a builder, for example '
      "'genjax.experiments.diffusion', or the name of a Python file beside the config") from error
  if not hasattr(module, 'build'):
    raise UserError(f'module {name!r} ({module.__file__}) has no function build(config) -> Experiment')
  return module.build


def _with_metrics(config: Config, experiment: Experiment) -> Experiment:
  """The experiment with the metrics that config.evaluation.metrics names."""
  metrics = []
  for name in (config.get('evaluation') or {}).get('metrics') or ():
    function = choose(METRICS, name, 'config.evaluation.metrics')
    compute = functools.partial(_compute, function, experiment.heldout)
    metrics.append(Metric(name, compute, {'function': f'{function.__module__}.{function.__qualname__}'}))
  return dataclasses.replace(experiment, metrics=(*experiment.metrics, *metrics)) if metrics else experiment


def _compute(function: Callable[..., dict[str, float]], heldout: Any, draw: Any, seed: int) -> dict[str, float]:
  return function(draw, heldout, seed)


def adapted(config: Config) -> bool:
  """Whether a config trains adapters of another run's parameters. Runs of before there was a choice do not."""
  options = config.get('lora') or {}
  return bool(options.get('rank') or options.get('paths'))


def settings(config: Config, mesh: dict[str, int] | None = None) -> Settings:
  """The numbers of the run; `mesh` takes the place of the config's."""
  return Settings(steps=config.steps, batch_size=config.batch_size, seed=config.seed, microbatches=config.microbatches,
                  steps_per_call=config.get('steps_per_call', 1), reduce=config.get('reduce', 'float32'),
                  mesh=plain(config.mesh) if mesh is None else mesh, rules=plain(config.rules), **_nonfinite(config))


def _nonfinite(config: Config) -> dict[str, Any]:
  """Runs of before there was a choice stop at NaN."""
  given = config.get('nonfinite')
  return {} if given is None else {'nonfinite': given.policy, 'nonfinite_limit': given.limit}


def mesh_sizes(text: str) -> dict[str, int]:
  """'fsdp:8,tensor:2' -> axis -> size, with every axis of a mesh; -1 stands for the devices that are left.

  Raises:
    UserError: an unknown axis or a size that is no number of devices.
  """
  sizes: dict[str, int] = dict.fromkeys(sharding.MESH_AXES, 1)
  for part in filter(None, text.split(',')):
    axis, _, size = part.partition(':')
    if axis not in sizes or not (size == '-1' or size.isdecimal() and int(size) > 0):
      raise UserError(
        f'--mesh takes axis:size pairs with axes {sharding.MESH_AXES}, e.g. fsdp:8,tensor:2, got {part!r}')
    sizes[axis] = int(size)
  return sizes
