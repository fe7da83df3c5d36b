"""Parts of a run, opened, read and checked: other runs and folders of public weights, the base of adapters among them.

A builder opens a part as shapes (`open`, through `genjax.experiments.parts`). Before anything is computed, `attach`
reads the parameters of every frozen group that is shapes, and compares them with those that the run began with.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import contextvars
import dataclasses
import importlib
import pathlib
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genjax import config as config_lib
from genjax.config import Config
from genjax.runs import assets, atomic, builders, extensions, sources
from genjax.runs import checkpoints as checkpoints_lib
from genjax.runs.assets import read_json
from genjax.runs.sources import BASE, PARTS
from genjax.training import averages, state
from genjax.training.checkpoints import warm_start
from genjax.training.checkpoints.checkpoint import Checkpoints
from genjax.training.experiment import Experiment, Source
from genjax.training.monitoring.logs import say
from genjax.types import Tree, UserError, expanded, leaf_name, named_leaves

PUBLIC = 'genjax.experiments.public'  # reads folders of public weights
_opening: contextvars.ContextVar[tuple[pathlib.Path, ...]] = contextvars.ContextVar('opening', default=())


@dataclasses.dataclass(frozen=True)
class Opened:
  """A run, or a folder of public weights, that is a part of another run.

  Attributes:
    config: of the run; of a folder, the one that genjax import would give it.
    experiment: what its builder makes, without adapters.
    module: of the builder.
    shapes: {'params': {GROUP: tree}, 'mutable': tree, 'frozen': {PART: tree}}, as `jax.ShapeDtypeStruct`s.
    folder: of its files.
    source: where its parameters are.
  """

  config: Config
  experiment: Experiment
  module: types.ModuleType
  shapes: Tree
  folder: pathlib.Path
  source: Source


def open(config: Config, name: str) -> Opened:
  """Opens the part that `config.parts.NAME` names, without reading its parameters.

  Raises:
    UserError: it is not named, not there, no run, stands on itself, or has not the step or the averages asked for.
  """
  if name == BASE:
    raise UserError(f'no part may be called {BASE!r}, which is the base of adapters; give it another name in the '
                    f'builder {config.experiment} and in config.parts')
  source, where = sources.source(config, name), f'config.parts.{name}'
  folder = pathlib.Path(source.path)
  with _standing_on(folder, where):
    opened = _open_run(folder, source, where) if _is_run(folder, where) else _open_public(folder, source, where)
  return dataclasses.replace(opened, shapes=_in_dtype(opened.shapes, source.dtype))


def _is_run(folder: pathlib.Path, where: str) -> bool:
  """Whether a folder is a run; otherwise it is one of public weights.

  Raises:
    UserError: it is not there, or neither.
  """
  if not folder.is_dir():
    if len(_opening.get()) > 1:  # flags name the parts of the run itself alone
      above = _opening.get()[-2]
      raise UserError(f'the part {above} stands on {where}={str(folder)!r}, which is not there; put it back')
    raise UserError(f'{where}={str(folder)!r} is not there; if the part was moved, name it: --{where}=RUN_DIR for '
                    f'training, --set {where.removeprefix("config.")}=RUN_DIR for genjax sample and evaluate')
  if not (folder / 'config.json').is_file():
    raise UserError(f'{where}={str(folder)!r} has no config.json: expected a run directory, or a folder of public '
                    'weights with config.json and safetensors')
  return (folder / 'run.json').is_file()


@contextlib.contextmanager
def _standing_on(folder: pathlib.Path, where: str) -> Iterator[None]:
  """Notes what is being opened: no run can stand on itself."""
  path = folder.resolve()
  if path in _opening.get():
    raise UserError(f'{where}={str(folder)!r} stands on itself: '
                    + ' on '.join(str(part) for part in (*_opening.get(), path)))
  token = _opening.set((*_opening.get(), path))
  try:
    yield
  finally:
    _opening.reset(token)


def _open_run(folder: pathlib.Path, source: Source, where: str) -> Opened:
  config, paths = read_config(str(folder))
  with contextlib.closing(checkpoints_lib.of_run(folder, config)) as saved:
    steps = saved.steps()
  if not steps or source.step is not None and source.step not in steps:
    asked = '' if source.step is None else f' of step {source.step}'
    raise UserError(f'{where}={source.path!r}: no checkpoint{asked} there; there are {steps}. A run goes on with the '
                    'step of a part that it began with')
  locate(config, folder)
  experiment = builders.build(config, paths, adapters=False)
  if source.averaged and not experiment.ema:
    raise _no_averages(source, where)
  variables = jax.eval_shape(experiment.objective.init, state.init_key(config.seed), experiment.frozen)
  frozen = jax.eval_shape(lambda tree: tree, dict(experiment.frozen))
  shapes = {'params': dict(variables.params), 'mutable': variables.mutable, 'frozen': frozen}
  return Opened(config, experiment, builders.find(config, paths), shapes, folder, source)


def _open_public(folder: pathlib.Path, source: Source, where: str) -> Opened:
  if source.step is not None:
    raise UserError(f'{where}={source.path!r} is a folder of public weights, which has no steps; leave @{source.step} '
                    'out')
  if source.averaged:
    raise _no_averages(source, where)
  config, shapes = importlib.import_module(PUBLIC).describe(folder, source.variant)
  return Opened(config, builders.build(config), builders.find(config), {**shapes, 'frozen': {}}, folder, source)


def _no_averages(source: Source, where: str) -> UserError:
  return UserError(f'{where}.averaged=True: {source.path} has no averaged parameters; leave it out')


def _in_dtype(shapes: Tree, dtype: str) -> Tree:
  """Shapes with the floating-point parameters in a type; what is not trained by gradients keeps its own."""

  def cast(path: tuple, leaf: Any) -> Any:
    inside = [entry.key for entry in path]
    while inside[:1] == ['frozen']:  # of a part of the part
      inside = inside[2:]
    kept = inside[:1] == ['params'] and jnp.issubdtype(leaf.dtype, jnp.floating)
    return jax.ShapeDtypeStruct(leaf.shape, dtype) if kept else leaf

  return jax.tree_util.tree_map_with_path(cast, shapes) if dtype else shapes


def attach(config: Config, experiment: Experiment, report: Callable[[str], None] = say,
           only: Sequence[str] | None = None) -> Experiment:
  """The experiment with the frozen groups that are shapes read from their sources, and their digests as assets.

  Args:
    config: of the run.
    experiment: what its builder made.
    report: called with lines about what is read.
    only: the groups to read; by default all.

  Raises:
    UserError: a group has no source; or a source lacks what is wanted, or is not the one that the run began with.
  """
  frozen, facts = dict(experiment.frozen), {}
  for name, tree in experiment.frozen.items():
    if only is not None and name not in only:
      continue
    if not any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(tree)):
      continue
    frozen[name], facts[name] = _filled(config, name, _source(config, experiment, name), tree, report)
  if not facts:
    return experiment
  return dataclasses.replace(experiment, frozen=frozen, assets={**experiment.assets, PARTS: facts})


def identified(config: Config, experiment: Experiment, report: Callable[[str], None] = say) -> Experiment:
  """The experiment with the digests of its frozen groups as assets, and these as the shapes that they are: memory holds
  one of them at a time.

  Args:
    config, experiment, report: see `attach`.

  Raises:
    UserError: see `attach`.
  """
  facts = {}
  for name, tree in experiment.frozen.items():
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(tree)):
      _, facts[name] = _filled(config, name, _source(config, experiment, name), tree, report, keep=False)
  return dataclasses.replace(experiment, assets={**experiment.assets, **({PARTS: facts} if facts else {})})


def _source(config: Config, experiment: Experiment, name: str) -> Source:
  if name not in experiment.sources:
    raise UserError(f'the builder {config.experiment} gives the frozen group {name!r} as shapes, without a source to '
                    'read it from; attach parts by genjax.experiments.parts.attach')
  return experiment.sources[name]


def _filled(config: Config, name: str, source: Source, shapes: Tree,
            report: Callable[[str], None], keep: bool = True) -> tuple[Tree, dict[str, Any]]:
  """A frozen group with its arrays, or without `keep` as the shapes, and what identifies them."""
  where, known = f'config.{sources.key(name)}', sources.digests(config).get(name)
  if name == BASE:
    _check_base(config, source, known, report)
  strict = name != BASE or config.init.strict
  with _standing_on(pathlib.Path(source.path), where):
    step, there, stands_on = _read(source, where, [*named_leaves(shapes)], report)
  here = {_short(path): leaf for path, leaf in named_leaves(_in_dtype(shapes, source.dtype)).items()}
  fits = ('config.init', where) if name == BASE else (where, source.path)
  chosen, told = warm_start.match(there, {path: leaf.shape for path, leaf in here.items()}, source.rules, strict,
                                  whole=name == BASE, where=fits)
  if told.kept:
    raise UserError(f'{where}: frozen parameters have no initial value, and {source.path} has none for '
                    f'{", ".join(told.kept)}')
  facts = {'step': step, 'sha256': warm_start.digest(chosen if name == BASE else there, stands_on)}
  if known is not None and facts['sha256'] != known['sha256']:
    raise _changed(config, name, facts, known)
  if source.sha256 and facts['sha256'] != source.sha256:
    raise UserError(
      f'{where}={source.path!r}: {source.made} was made with other parameters (sha256 {source.sha256[:12]}, and those '
      f'of step {step} have {facts["sha256"][:12]}); name the run and the step that made it, or make it anew')
  report('\n'.join([f'reading {where} from {"" if step is None else f"step {step} of "}{source.path}', *told.lines()]))
  if not keep:
    return shapes, facts
  filled = jax.tree_util.tree_map_with_path(
    lambda path, leaf: np.asarray(chosen[_short(leaf_name(path))]).astype(here[_short(leaf_name(path))].dtype), shapes)
  return filled, facts


def _short(name: str) -> str:
  """The name of a leaf as rules and messages have it: GROUP/path instead of params/GROUP/path."""
  return name.removeprefix('params/')


def _changed(config: Config, name: str, facts: Mapping[str, Any], known: Mapping[str, Any]) -> UserError:
  """The parameters are others than those that the run began with."""
  key, whose = sources.key(name), 'these adapters were trained on' if name == BASE else 'this run began with'
  step = '' if facts['step'] is None else f' of step {facts["step"]}'
  before = '' if known['step'] is None else f'step {known["step"]}, '
  return UserError(
    f'config.{key}={sources.options(config, name).path!r}: its parameters{step} are not the ones that {whose} '
    f'({before}sha256 {known["sha256"][:12]}, not {facts["sha256"][:12]}); name that one with --set {key}=RUN_DIR')


def _read(source: Source, where: str, wanted: Sequence[str],
          report: Callable[[str], None]) -> tuple[int | None, dict[str, np.ndarray], list[str]]:
  """The step, the leaves by name, and the digests of what these were made from beside the checkpoint."""
  folder = pathlib.Path(source.path)
  if not _is_run(folder, where):
    params, mutable = importlib.import_module(PUBLIC).variables(folder, source.variant)
    return None, named_leaves(jax.device_get({**params, 'mutable': mutable})), []
  config, paths = read_config(source.path)
  with contextlib.closing(checkpoints_lib.of_run(folder, config)) as saved:
    step, there = saved.load(report, source.step)
  means = averages.evaluated(there.get('ema') or {})
  if source.averaged and not means:
    raise _no_averages(source, 'config.init' if where == 'config.init_from' else where)
  params = {**there['params'], **({} if source.averaged is False else means)}
  leaves = named_leaves({**params, 'mutable': there.get('mutable') or {}})
  nested = sorted({path.split('/')[1] for path in wanted if path.startswith('frozen/')})
  if not nested and not sources.adapted(config):
    return step, leaves, []
  locate(config, folder)
  if sources.adapted(config):
    nested = [BASE, *nested]
    with config.unlocked():
      config.lora.dtype = 'float32'  # merged into the base as it was saved
  experiment = attach(config, builders.build(config, paths), report, nested)
  digests = [f'{part} {facts["sha256"]}' for part, facts in sorted(experiment.assets[PARTS].items())]
  if sources.adapted(config):
    digests += [f'adapters {warm_start.digest(leaves)}']  # sums are rounded otherwise on other machines
    merged: Any = experiment.objective
    merged = jax.device_get(merged.merge(params, experiment.frozen))
    leaves = named_leaves({**merged, 'mutable': there.get('mutable') or {}})
  frozen = {part: tree for part, tree in experiment.frozen.items() if part in nested and part != BASE}
  return step, {**leaves, **named_leaves({'frozen': frozen})}, digests


def read_config(workdir: str) -> tuple[Config, list[str]]:
  """The config of a run, and the folders from which its builder is imported: first the run itself, for the code that
  it keeps. What the run imports is loaded.

  Raises:
    UserError: no run directory, or what it imports is missing, was changed or fails.
  """
  path = expanded(workdir)
  extensions.load_kept(path)
  return assets.read_config(path), [str(path.absolute()), *read_json(path / 'run.json')['paths']]


def locate(config: Config, workdir: pathlib.Path, given: Sequence[str] = (),
           report: Callable[[str], None] = say) -> None:
  """Sets the paths of parts to where they are now, if they were moved together with the run.

  Args:
    config, workdir: of the run.
    given: assignments such as 'parts.NAME=PATH', whose parts stay where they say.
    report: called with a line about each that was moved.
  """
  keys = {text.partition('=')[0].removesuffix('.path') for text in given}
  sources.locate(config, workdir, read_json(workdir / 'run.json'), report, keys)


def update(workdir: pathlib.Path, description: Mapping[str, Any]) -> None:
  """Writes to run.json where the parts of a run that goes on are now, if they were moved."""
  before = read_json(workdir / 'run.json')
  if description.get(PARTS, {}) != before.get(PARTS, {}):
    atomic.write_json(workdir / 'run.json', {**before, PARTS: description[PARTS]})


def inherited(config: Config) -> dict[str, Any]:
  """What the base of a run with adapters found in its data, such as an alphabet, and on which parts it stands: the
  adapters read and write in it, too."""
  found = dict(assets.read(_base(config)))
  found.pop(BASE, None)
  parts = {name: facts for name, facts in found.pop(PARTS, {}).items() if name != BASE}
  return {**found, **({PARTS: parts} if parts else {})}


def forget(config: Config) -> None:
  """Removes what another run, whose config this is, knew of its parts: a new run takes them as they are."""
  kept = {name: value for name, value in config.assets.items() if name not in (PARTS, BASE)}
  if len(kept) < len(config.assets):
    assets.put(config, kept)


def _check_base(config: Config, source: Source, known: Mapping[str, Any] | None,
                report: Callable[[str], None]) -> None:
  """Checks the run whose parameters are adapted, and reports where its model has other options."""
  base = read_json(_base(config) / 'config.json')
  if sources.adapted(base):
    raise UserError(
      f'config.init_from={config.init_from!r} is itself a run with adapters; write it as a run of its own with genjax '
      'merge, and name that one')
  pairs = config_lib.difference(base['model'], config.model)
  if pairs:
    report('config.model is not that of the base: '
           + ', '.join(f'{key} {there!r} there, {here!r} here' for key, (there, here) in pairs.items()))
  saved, _ = from_run(config.init_from)
  with contextlib.closing(saved):
    steps = saved.steps()
  if known is not None and source.step not in steps:
    raise UserError(
      f'these adapters were trained on step {known["step"]} of their base, and config.init_from={config.init_from!r} '
      f'has {steps}'
    )


def from_run(text: str) -> tuple[Checkpoints, int | None]:
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
