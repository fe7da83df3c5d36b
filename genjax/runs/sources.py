"""Where the parts of a run come from: what config.parts and, for adapters, config.init_from name."""

from collections.abc import Callable, Collection, Mapping
import dataclasses
import os
import pathlib
from typing import Any

from genjax import checks
from genjax import config as config_lib
from genjax.config import Config
from genjax.runs import checkpoints as checkpoints_lib
from genjax.training.experiment import Source
from genjax.types import UserError

BASE = 'base'  # the part whose parameters adapters change; config.init_from names it
PARTS = 'parts'  # the asset, and the entry of run.json, with what is known of each part
DTYPES = ('', 'float32', 'bfloat16', 'float16')


@dataclasses.dataclass(frozen=True)
class Options:
  """config.parts.NAME.

  Attributes:
    path: RUN_DIR, RUN_DIR@STEP, or a folder of public weights, which genjax import reads.
    dtype: type in which parameters are kept, 'float32', 'bfloat16' or 'float16'; '' for that of the run,
      float32.
    averaged: whether averaged parameters are taken; None for those of the groups that have averages.
    rules: how its parameters are renamed, dropped and reshaped, see `genjax.training.checkpoints.warm_start`.
    variant: of a folder of public weights, which of its files are read: 'fp16' for model.fp16.safetensors.
  """

  path: str
  dtype: str = ''
  averaged: bool | None = None
  rules: tuple[tuple[str, ...], ...] = ()
  variant: str = ''


@dataclasses.dataclass(frozen=True)
class Judge(Options):
  """config.evaluation.parts.NAME: an extractor, by which samples are measured.

  Attributes:
    sha256: digest of its parameters, or the beginning of it; others are refused. '' takes any.
    side: to which pictures come before VGG16 or AlexNet gives features, in pixels; 0 for 224. With the side of the
      pictures nothing is resized.
  """

  sha256: str = ''
  side: int = 0

  def __post_init__(self):
    checks.whole(self, 0, 'side')


def adapted(config: Config) -> bool:
  """Whether a config trains adapters of another run's parameters. Runs of before there was a choice do not."""
  options = config.get('lora') or {}
  return bool(options.get('rank') or options.get('paths'))


def names(config: Config) -> list[str]:
  """The parts that a config names, the base of adapters among them. An empty text names none."""
  named = [name for name, given in (config.get('parts') or {}).items() if given]
  return [*named, *([BASE] if adapted(config) and config.get('init_from') else [])]


def key(name: str) -> str:
  """The key of a config that names a part."""
  return 'init_from' if name == BASE else f'parts.{name}'


def options(config: Config, name: str) -> Options:
  """The options of a part.

  Raises:
    UserError: it is not named, has an unknown option, or the base of adapters has that name.
  """
  if name == BASE:
    return Options(config.get('init_from') or '', averaged=config.init.averaged, rules=tuple(config.init.rules))
  given = (config.get('parts') or {}).get(name)
  where = f'config.parts.{name}'
  found = Options(given) if isinstance(given, str) else None if given is None else config_lib.build(
    Options, given, where)
  if found is None or not found.path:
    raise UserError(f'the builder {config.experiment} opens the part {name!r}, and {where} does not name it: set '
                    f'--{where}=RUN_DIR, RUN_DIR@STEP or a folder of public weights')
  if not isinstance(found.path, str):
    raise UserError(f'{where} must be the path of a run or of a folder of public weights, got {found.path!r}')
  if found.dtype not in DTYPES:
    raise UserError(f"{where}.dtype must be one of {DTYPES}, where '' is that of the part, got {found.dtype!r}")
  if found.averaged not in (None, True, False):
    raise UserError(f'{where}.averaged must be True, False or None, got {found.averaged!r}')
  return found


def source(config: Config, name: str) -> Source:
  """Where a part is read from: of a run that began before, the same step as then.

  Raises:
    UserError: see `options`; or another step is named than the run began with.
  """
  found, known = options(config, name), digests(config).get(name)
  folder, step = checkpoints_lib.run_and_step(found.path, f'config.{key(name)}')
  if known is not None and known.get('step') is not None:
    if step is not None and step != known['step'] and name != BASE:  # the base is compared by its parameters
      raise UserError(f'config.{key(name)}={found.path!r}: this run began with step {known["step"]} of that part; name '
                      'that one')
    step = known['step'] if step is None else step
  return Source(str(folder) if found.path else '', step, found.averaged, found.dtype, found.rules,
                variant=found.variant)


def digests(config: Config) -> dict[str, Mapping[str, Any]]:
  """Part -> step and SHA-256 of the parameters with which the run began."""
  kept = config_lib.plain(config.get('assets') or {})
  before = {BASE: kept[BASE]} if BASE in kept else {}  # as runs kept it while there were no other parts
  return {**before, **(kept.get(PARTS) or {})}


def record(config: Config, workdir: pathlib.Path) -> dict[str, Any]:
  """What run.json holds of the parts: their places as seen from the run, so that all may be moved together, and their
  digests."""
  known = digests(config)
  places = {name: os.path.relpath(pathlib.Path(source(config, name).path).absolute(), workdir.absolute())
            for name in names(config)}
  return {PARTS: {name: {'place': place, **known.get(name, {})} for name, place in places.items()}} if places else {}


def locate(config: Config, workdir: pathlib.Path, description: Mapping[str, Any],
           report: Callable[[str], None], given: Collection[str] = ()) -> None:
  """Sets the paths of parts to where they are now, if they were moved together with the run.

  Args:
    config: of the run.
    workdir: of the run.
    description: its run.json.
    report: called with a line about each that was moved.
    given: keys of the config that stay as they are.
  """
  places = {name: told['place'] for name, told in (description.get(PARTS) or {}).items()}
  if BASE in description:  # as runs kept it while there were no other parts
    places.setdefault(BASE, description[BASE])
  for name in [name for name in names(config) if name in places and key(name) not in given]:
    path = options(config, name).path
    named, step = checkpoints_lib.run_and_step(path, f'config.{key(name)}')
    beside = pathlib.Path(os.path.normpath(workdir.absolute() / places[name]))
    if not (named / 'config.json').is_file() and (beside / 'config.json').is_file():
      report(f'config.{key(name)}={path!r} is not there; taking {beside}, which lies where it was as seen from '
             f'{workdir}')
      place(config, name, f'{beside}' if step is None else f'{beside}@{step}')


def place(config: Config, name: str, path: str) -> None:
  """Sets the path of a part."""
  with config.unlocked():
    if name == BASE:
      config.init_from = path
    elif isinstance(config.parts[name], str):
      config.parts[name] = path
    else:
      config.parts[name].path = path
