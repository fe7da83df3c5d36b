"""From a config to the experiment that it describes, and to the numbers of its run."""

from collections.abc import Callable, Sequence
import dataclasses
import functools
import importlib
import os
import pathlib
import sys
import types
from typing import Any

from genjax import sharding
from genjax.config import Config, check, choose, flatten, plain
from genjax.metrics.named import METRICS
from genjax.options import REQUIRED, Known, Option, Section, known, meanings
from genjax.runs import builder_code, sources
from genjax.runs.sources import adapted
from genjax.tables import Table
from genjax.training.experiment import Experiment, Metric
from genjax.training.run import Settings
from genjax.types import UserError, listed

OWN = pathlib.Path(__file__).parents[1] / 'experiments'  # the builders of genjax itself
OWN_CONFIGS = OWN.with_name('configs')
BASE = 'genjax.configs.common'  # whose `base` has what every config has
CONDITIONS = 'conditions'  # the section of a config whose entries are chosen by their key `kind`
SECTIONS = 'genjax.experiments.sections'
ADAPTERS = 'genjax.experiments.lora'  # what makes of any experiment the one that trains its adapters


# Builders of one's own: a name for config.experiment -> build(config) -> Experiment. Any other name is a module path.
BUILDERS: Table[Callable[..., Experiment]] = Table('builder', {}, takes=('config',))


def extend_path(paths: Sequence[str]) -> None:
  """Makes builders beside the config, and in the current folder, importable.

  A checkout of genjax on the import path goes last: its folders `configs` and `experiments` must not hide the user's.
  """
  for path in paths:
    if path not in sys.path:
      sys.path.append(path)
  checkout = str(OWN.resolve().parent)
  sys.path.sort(key=lambda path: os.path.realpath(path) == checkout)  # stable: nothing else moves


def current_name(name: str, paths: Sequence[str] = ()) -> str:
  """The module path of a builder. Runs of before say 'experiments.X' where it is 'genjax.experiments.X' now; a folder
  `experiments` of the user's that has an X, in `paths` or where Python looks, goes first."""
  if not name.startswith('experiments.') or builder_code.of(name, paths) is not None:
    return name
  return f'genjax.{name}'


def find(config: Config, paths: Sequence[str] = ()) -> types.ModuleType:
  """The module of the builder that a config names.

  Raises:
    UserError: it cannot be found.
  """
  extend_path(paths)
  if config.experiment in BUILDERS:
    return importlib.import_module(BUILDERS[config.experiment].__module__)
  name = current_name(config.experiment, paths)
  if not all(part.isidentifier() for part in name.split('.')):
    raise UserError(
      f"config.experiment={name!r} is no path of a module; expected one such as 'genjax.experiments.diffusion', or "
      'the name of a Python file beside the config')
  try:
    return builder_code.load(name, builder_code.of(name, paths))
  except ModuleNotFoundError as error:
    if not name or not (name == error.name or name.startswith(f'{error.name}.')):
      raise
    raise UserError(
      f'config.experiment={name!r} is not importable ({error}); expected the module path of a builder, for example '
      "'genjax.experiments.diffusion', or the name of a Python file beside the config") from error


def sampling(config: Config) -> dict[str, Any]:
  """What the samples of a run depend on outside of config.sampler, such as the truncation of a GAN: the keys that its
  builder, which has been imported, names in `SAMPLING`, with the values that the config has."""
  name = BUILDERS[config.experiment].__module__ if config.experiment in BUILDERS else current_name(config.experiment)
  flat = flatten(config)
  return {key: flat[key] for key in getattr(sys.modules.get(name), 'SAMPLING', ()) if key in flat}


def options(config: Config, paths: Sequence[str] = ()) -> Known:
  """What may be set in a config: what its builder takes, and what every config has.

  A builder tells its own by a function `options(config) -> dict[str, Section]`, see `genjax.options`. Of one without
  it, the optimizers are known, and what the config spells.

  Raises:
    UserError: the builder cannot be found.
  """
  base = importlib.import_module(BASE).base
  told, defaults = meanings(base), flatten(base(steps=0, batch_size=1))
  needed = ('experiment', 'steps', 'batch_size')
  common = {key: Option(key, type(defaults[key]), REQUIRED if key in needed else defaults[key], told[key])
            for key in told if key in defaults}
  for axis, place in sharding.DEFAULT_RULES.items():
    common[f'rules.{axis}'] = Option(f'rules.{axis}', str | tuple[str, ...] | None, place, told['rules'])
  for group in config.get('optimizers') or {}:
    common[f'ema.{group}'] = Option(f'ema.{group}', float | dict, None, told['ema'])
  for key, value in flatten(config).items():  # entries of an average that the config has as a dict
    if key.startswith('ema.') and key not in common:
      common[key] = Option(key, type(value), None, told['ema'])
  templates = (Option('parts.NAME', str, '', 'the path of a part, where its other options have their defaults.'),
               *Section((sources.Options,)).options('parts.NAME').values(),
               Option('evaluation.parts.NAME', str, '', 'the path of an extractor, see docs/measures.md.'),
               *Section((sources.Judge,)).options('evaluation.parts.NAME').values())
  if not config.get('experiment'):
    return Known(common, templates=templates)
  module = find(config, paths)
  sections = module.options if hasattr(module, 'options') else importlib.import_module(SECTIONS).training
  own = known(sections(config), module.__name__)
  if CONDITIONS in own.options:
    templates += (Option(f'{CONDITIONS}.NAME.kind', str, '', 'adds a condition of this kind, see docs/conditions.md; '
                         'its options can be set, too.'),)
  return dataclasses.replace(own, options={**common, **own.options}, templates=templates)


def build(config: Config, paths: Sequence[str] = (), adapters: bool = True) -> Experiment:
  """The experiment that a config describes.

  Args:
    config: the config.
    paths: folders from which the builder may be imported.
    adapters: whether a config with adapters gives the experiment that trains them, not the one that they adapt.

  Raises:
    UserError: numbers out of range, the builder's module cannot be found or has no function `build`, or the config
      names a part that the builder does not open.
  """
  check(config)
  module = find(config, paths)
  make = BUILDERS.get(config.experiment) or getattr(module, 'build', None)
  if make is None:
    raise UserError(f'module {module.__name__!r} ({module.__file__}) has no function build(config) -> Experiment')
  experiment = _with_metrics(config, make(config))
  if idle := [name for name in sources.names(config) if name not in (sources.BASE, *experiment.sources)]:
    opened = f'it opens {", ".join(experiment.sources)}' if experiment.sources else 'it opens none'
    raise UserError(f'config.parts names {listed(idle)}, which the builder {config.experiment} never opens; {opened}. '
                    'Leave it out, or open it there by genjax.experiments.parts.open and attach')
  adapts = adapters and adapted(config)
  return importlib.import_module(ADAPTERS).wrap(config, experiment) if adapts else experiment


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
