"""Extractors: parts that judge samples. They are opened when a measure needs them, and never by training."""

from collections.abc import Callable, Iterator
import contextlib
import copy
import dataclasses
import math
from typing import Any

import jax
import ml_collections
import numpy as np

from genjax import config as config_lib
from genjax import sharding
from genjax.config import Config
from genjax.experiments import parts
from genjax.runs import bases, sources
from genjax.training.experiment import Experiment
from genjax.training.monitoring import logs
from genjax.types import Tree, UserError

CHUNK = 250  # rows that an extractor reads at a time, at most
PIXELS = 2**21  # of these rows: VGG16 takes 25 MB for the two largest maps of a picture of 224 pixels
_CHANNELS = {(1, 3): 'repeated'}  # of pictures, and of what an extractor reads: grey ones become colour


@dataclasses.dataclass(frozen=True)
class Extractor:
  """A part with its parameters.

  Attributes:
    functions: what its kind gives, such as a `genjax.objectives.kinds.Features`.
    group: its parameters, on all devices.
    card: what a metric card says of it: name of the network, digest of its parameters, how it resizes pictures.
  """

  functions: Any
  group: Tree
  card: dict[str, Any]

  def apply(self, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function (group, rows, ...) -> arrays as one of rows on the host, which computes some of them at a time.

    These are `CHUNK`, or fewer where pictures or clips are large: those with `PIXELS` in all.
    """
    compiled = jax.jit(function, out_shardings=jax.tree.leaves(self.group)[0].sharding)

    def applied(*rows: np.ndarray) -> Any:
      found, count, chunk = [], len(rows[0]), self._chunk(rows[0])
      for start in range(0, count, chunk):
        take = np.minimum(np.arange(start, start + chunk), count - 1)  # one shape compiles only once
        found.append(jax.device_get(compiled(self.group, *(row[take] for row in rows))))
      return jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *found)

    return applied

  def _chunk(self, rows: np.ndarray) -> int:
    """How many rows are computed at a time. The network reads pictures of its own shape if it has one."""
    if rows.ndim < 4:  # texts
      return CHUNK
    shape = tuple(getattr(self.functions, 'shape', None) or rows.shape[1:])
    return max(1, min(CHUNK, PIXELS // math.prod(shape[:-1])))


def open(config: Config, name: str, kind: str, key: str) -> Extractor:
  """Opens the extractor that `config.evaluation.parts.NAME` names, and reads its parameters.

  Args:
    config: of the run that is evaluated.
    name: of the extractor.
    kind: what it is opened as: 'features', 'perceptual' or 'joint'.
    key: of config.evaluation that names the extractor, for messages.

  Raises:
    UserError: it is not named, not there, of another kind, or has other parameters than its entry `sha256` says.
  """
  known = config.evaluation.get('parts') or {}
  if not name or not known.get(name):
    have = f'; those there are {sorted(known)}.{config_lib.suggestion(name, known)}' if known else ''
    raise UserError(
      f'config.evaluation.{key}={name!r} names no entry of config.evaluation.parts{have}. A measure needs an extractor '
      f'of the kind {kind!r}: name a run or a folder of public weights, for example '
      f'--set evaluation.parts.{name or "NAME"}=RUN_DIR evaluation.{key}={name or "NAME"}')
  where = f'config.evaluation.parts.{name}'
  given = config_lib.plain(known[name])
  options = sources.Judge(given) if isinstance(given, str) else config_lib.build(sources.Judge, given, where)
  if not isinstance(options.sha256, str):
    raise UserError(f'{where}.sha256 must be text, got {options.sha256!r}')
  if options.side and kind != 'features':
    raise UserError(f'{where}.side={options.side} is of features, and a part of the kind {kind!r} reads pictures as '
                    'they are; leave it out')
  alone = copy.deepcopy(config)
  with alone.unlocked():
    told = {key: value for key, value in dataclasses.asdict(options).items() if key not in ('sha256', 'side')}
    alone.parts = ml_collections.ConfigDict({name: told})
    alone.assets = ml_collections.ConfigDict()
  with _under(name):
    part = parts.open(alone, name, kind, **(dict(side=options.side) if options.side else {}))
    group, facts = _read(alone, part)
  if not facts['sha256'].startswith(options.sha256):
    raise UserError(
      f'{where}={options.path!r}: its parameters have sha256 {facts["sha256"][:16]}, and {where}.sha256 is '
      f'{options.sha256[:16]}: they are not those that are meant. Name the run or the folder that has them, or set '
      'sha256 to that of these')
  mesh = sharding.make_mesh({'data': -1})
  group = sharding.put_tree(group, jax.tree.map(lambda leaf: sharding.replicated(mesh), group))
  card = {'part': name, 'kind': kind, 'name': getattr(part.functions, 'name', kind), 'sha256': facts['sha256'],
          'step': facts['step'], 'resize': getattr(part.functions, 'resize', 'none'),
          'folder': str(part.folder.absolute())}
  return Extractor(part.functions, group, card)


def _read(config: Config, part: parts.Part) -> tuple[Tree, dict[str, Any]]:
  """The parameters of a part, and their step and digest."""
  nothing: Any = None
  holder = parts.attach(Experiment(nothing, nothing, nothing, {}, {}), part)
  filled = bases.attach(config, holder, report=lambda text: logs.say(_renamed(text, part.name)))
  return filled.frozen[part.name], filled.assets[sources.PARTS][part.name]


@contextlib.contextmanager
def _under(name: str) -> Iterator[None]:
  """Messages about a part name it where it stands in config.evaluation."""
  try:
    yield
  except UserError as error:
    raise UserError(_renamed(str(error), name)) from error


def _renamed(text: str, name: str) -> str:
  for before in ('config.', '--set '):
    text = text.replace(f'{before}parts.{name}', f'{before}evaluation.parts.{name}')
  return text


def fits(extractor: Extractor, shape: tuple[int, ...], what: str) -> Callable[[np.ndarray], np.ndarray]:
  """Rows of a shape -> rows as an extractor reads them: grey pictures become colour where it reads colour.

  Args:
    extractor: a `Features`, a `Perceptual` or a `Joint`.
    shape: of a row.
    what: the rows are, in messages.

  Raises:
    UserError: it reads rows of another shape, and does not resize them.
  """
  functions, name = extractor.functions, extractor.card['part']
  reads: tuple[int, ...] = tuple(functions.shape or ())
  if not reads:
    least, reads = getattr(functions, 'least', 1), (*shape[:-1], 3)
    if min(shape[:2]) < least:
      raise UserError(f'{what} are {shape[0]} x {shape[1]}, and config.evaluation.parts.{name} reads pictures of at '
                      f'least {least} x {least}; choose another one')
  elif getattr(functions, 'resize', 'none') != 'none' and len(reads) == len(shape):
    reads = (*shape[:-1], reads[-1])
  if reads == tuple(shape):
    return lambda rows: rows
  if reads[:-1] != tuple(shape[:-1]) or (shape[-1], reads[-1]) not in _CHANNELS:
    raise UserError(f'{what} are of shape {tuple(shape)}, and config.evaluation.parts.{name} reads {reads}; '
                    'choose an extractor that reads these')
  extractor.card['grey'] = _CHANNELS[shape[-1], reads[-1]]
  return lambda rows: np.repeat(rows, reads[-1], axis=-1)
