"""The latents of a run that is an autoencoder or a generator: pictures to codes and back, ways between, attributes."""

from collections.abc import Callable, Mapping
import math
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from genjax import artifacts
from genjax.config import Config
from genjax.runs import builders
from genjax.training import keys as keys_lib
from genjax.training.run import Run
from genjax.types import UserError

GENERATOR = 'generator'  # the function of a builder's module that gives `genjax.objectives.kinds.Generator`
KIND = 'autoencoder'  # the function of a builder's module that gives the maps, see `genjax.objectives.kinds`
ENDINGS = ('.png', '.mp4', '.webp', '.gif')  # of files that `save` writes
_PARALLEL = 1e-4  # codes whose angle is nearer to 0 or pi have no one arc between them


class Codes:
  """The codes of a run: means of the posterior, shifted and scaled to mean 0 and deviation 1 as far as the run measured
  them.

  Args:
    config: of the run.
    run: with its parameters.
    averaged: see `genjax.training.run.Run.params`.
    chunk: pictures that are encoded or decoded at once.

  Attributes:
    shape: of a picture.
    latent: shape of a code.

  Raises:
    UserError: the run is no autoencoder of pictures, or it has conditions.
  """

  def __init__(self, config: Config, run: Run, averaged: bool | str = True, chunk: int = 64):
    module = builders.find(config)
    if not hasattr(module, KIND):
      raise UserError(f'runs of {config.experiment} have no codes of pictures; a VAE or another autoencoder has')
    maps = getattr(module, KIND)(config, run.experiment)
    self.shape, self.latent, self._column, self._chunk = tuple(maps.shape), tuple(maps.latent), maps.column, chunk
    self._group = {'params': run.params(averaged), 'mutable': run.state.mutable, 'frozen': run.frozen}
    self._data = run.experiment.heldout

    def encode(group: Any, image: jax.Array) -> jax.Array:
      shift, scale = maps.moments(group)
      return (maps.encode(group, image)[0] - shift) * scale

    def decode(group: Any, code: jax.Array) -> jax.Array:
      shift, scale = maps.moments(group)
      return maps.decode(group, code / scale + shift)

    self._encode, self._decode = jax.jit(encode), jax.jit(decode)

  def encode(self, image: np.ndarray) -> np.ndarray:
    """Pictures uint8 N H W C -> codes float32, N and `latent`."""
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.shape[1:] != self.shape:
      raise UserError(f'this run encodes uint8 of shape {self.shape}, got {image.dtype} of shape {image.shape[1:]}')
    return self._mapped(self._encode, image)

  def decode(self, code: np.ndarray) -> np.ndarray:
    """Codes -> pictures uint8."""
    return self._mapped(self._decode, np.asarray(code, np.float32))

  def interpolate(self, first: np.ndarray, last: np.ndarray, points: int = 9, path: str = 'line') -> np.ndarray:
    """Pictures on the way from one to another, both included: uint8 N P H W C.

    Args:
      first, last: pictures uint8 N H W C.
      points: how many pictures P, at equal distances.
      path: one of `PATHS`.
    """
    check_way(path, points)
    return self._decoded(PATHS[path](self.encode(first), self.encode(last), np.linspace(0, 1, points)))

  def through(self, code_NK: np.ndarray, points: int = 9, path: str = 'line', closed: bool = False) -> np.ndarray:
    """Pictures on the way through K codes, one after the other: uint8 N P H W C.

    Args:
      code_NK: codes N K and `latent`, K at least 2.
      points: pictures from one code to the next, both included.
      path: one of `PATHS`.
      closed: whether the way goes back to the first code; then P is K (points - 1), and what follows the last picture
        is the first one. Else P is (K - 1) (points - 1) + 1.
    """
    check_way(path, points)
    stops = [code_NK[:, place] for place in range(code_NK.shape[1])]
    ends = [*stops[1:], stops[0]] if closed else stops[1:]
    parts = [PATHS[path](first, last, np.linspace(0, 1, points))[:, :-1] for first, last in zip(stops, ends)]
    return self._decoded(np.concatenate([*parts, *([] if closed else [stops[-1][:, None]])], axis=1))

  def along(self, image: np.ndarray, direction: np.ndarray, amounts: np.ndarray) -> np.ndarray:
    """Pictures changed along a direction, uint8 N P H W C: each code plus each of P amounts times the direction."""
    code = self.encode(image)
    share = np.asarray(amounts, np.float32).reshape(1, -1, *[1] * len(self.latent))
    return self._decoded(code[:, None] + share * np.asarray(direction)[None, None])

  def examples(self, num: int, column: str = '') -> tuple[np.ndarray, np.ndarray | None]:
    """The first pictures of the held-out data, and a column beside them."""
    source = self._data.source  # type: ignore[attr-defined]  # a genjax.data.pipeline.Pipeline
    found = source.get(np.arange(min(num, len(source))))
    if column and column not in found:
      raise UserError(f'the held-out data has no column {column!r}; it has {", ".join(sorted(found))}. Labels are read '
                      'where config.data.num_classes is above 0: --set data.num_classes=10')
    return found[self._column], found[column] if column else None

  def _decoded(self, code_NP: np.ndarray) -> np.ndarray:
    images = self.decode(code_NP.reshape(-1, *self.latent))
    return images.reshape(*code_NP.shape[:2], *images.shape[1:])

  def _mapped(self, function: Callable[..., Any], rows: np.ndarray) -> np.ndarray:
    size, parts = min(self._chunk, max(1, len(rows))), []
    for start in range(0, len(rows), size):
      take = np.minimum(np.arange(start, start + size), len(rows) - 1)  # the last one repeats its last row
      parts.append(np.asarray(function(self._group, rows[take]))[:len(rows) - start])
    return np.concatenate(parts)


class Generated(Codes):
  """The codes of a run that is a generator without an encoder. Pictures are encoded by projection, where it is offered.

  Args:
    config, run, averaged, chunk: see `Codes`.

  Attributes:
    path: the way along which pictures are likely, one of `PATHS`.

  Raises:
    UserError: the run has no codes of pictures.
  """

  def __init__(self, config: Config, run: Run, averaged: bool | str = True, chunk: int = 64):
    maps = getattr(builders.find(config), GENERATOR)(config, run.experiment)
    self.shape, self.latent, self._column, self._chunk = tuple(maps.shape), tuple(maps.latent), maps.column, chunk
    self.path = maps.path
    self._group = {'params': run.params(averaged), 'mutable': run.state.mutable, 'frozen': run.frozen}
    self._data = run.experiment.heldout
    self._decode, self._draw = jax.jit(maps.decode), jax.jit(maps.draw)
    self._encode = None if maps.project is None else jax.jit(maps.project)

  def encode(self, image: np.ndarray) -> np.ndarray:
    """Pictures uint8 N H W C -> codes of pictures like these, by optimization: seconds to minutes for each chunk.

    Raises:
      UserError: the generator offers no projection.
    """
    if self._encode is None:
      raise UserError('pictures are projected into the styles of a style-based generator (stylegan2, stylegan3), and '
                      'this one has none; leave out the pictures for ways between random codes')
    return super().encode(image)

  def draw(self, num: int, seed: int = 0) -> np.ndarray:
    """Codes of random pictures, N and `latent`; code i is a function of the seed and i."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(keys_lib.of(seed, 'sample', keys_lib.ROWS), np.arange(num))
    return np.asarray(self._draw(self._group, keys, np.arange(num, dtype=np.int32)))


def of(config: Config, run: Run, averaged: bool | str = True, chunk: int = 64) -> Codes:
  """The codes of an autoencoder, or of a generator; see both classes."""
  kind = Generated if hasattr(builders.find(config), GENERATOR) else Codes
  return kind(config, run, averaged, chunk)


def line(first: np.ndarray, last: np.ndarray, share_P: np.ndarray) -> np.ndarray:
  """Codes at some shares of the straight way from `first` to `last`, N and their shape -> N P and their shape."""
  share = np.asarray(share_P, np.float32).reshape(1, -1, *[1] * (first.ndim - 1))
  return first[:, None] + share * (last - first)[:, None]


def sphere(first: np.ndarray, last: np.ndarray, share_P: np.ndarray) -> np.ndarray:
  """Codes at some shares of the great arc from `first` to `last` (White 2016, section 2.1): the length of codes stays
  near that of both ends, as draws from N(0, I) have nearly the same length. Codes that are parallel, or of length 0, go
  along the line."""
  one, other = (np.asarray(code, np.float64).reshape(len(code), 1, -1) for code in (first, last))
  lengths = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
  cosine = (one * other).sum(-1) / np.where(lengths > 0, lengths, 1.0)
  angle_N1 = np.where(lengths > 0, np.arccos(np.clip(cosine, -1, 1)), 0.0)
  share_1P = np.asarray(share_P, np.float64)[None]
  flat_N1 = np.sin(angle_N1) < _PARALLEL
  sine_N1 = np.where(flat_N1, 1.0, np.sin(angle_N1))
  begin_NP = np.where(flat_N1, 1 - share_1P, np.sin((1 - share_1P) * angle_N1) / sine_N1)
  end_NP = np.where(flat_N1, share_1P, np.sin(share_1P * angle_N1) / sine_N1)
  code_NPZ = begin_NP[..., None] * one + end_NP[..., None] * other
  return code_NPZ.reshape(len(first), -1, *first.shape[1:]).astype(np.float32)


PATHS: Mapping[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {'line': line, 'sphere': sphere}


def check_way(path: str, points: int) -> None:
  """Checks the options of a way.

  Raises:
    UserError: an unknown path, or less than two points.
  """
  if path not in PATHS:
    raise UserError(f'a path is one of {", ".join(PATHS)}, got {path!r}')
  if points < 2:
    raise UserError(f'a way has at least 2 points, got {points}')


class Attribute(NamedTuple):
  """direction: from the mean code of examples without an attribute to that of examples with it (Larsen et al. 2016,
  section 4.2.1); with_it, without: how many there were."""

  direction: np.ndarray
  with_it: int
  without: int


def attribute(code_N: np.ndarray, has_N: np.ndarray) -> Attribute:
  """The direction of an attribute.

  Args:
    code_N: codes of examples.
    has_N: whether each has it.

  Raises:
    UserError: all have it, or none.
  """
  has_N = np.asarray(has_N, bool)
  if has_N.all() or not has_N.any():
    raise UserError(f'an attribute needs examples with it and without, got {int(has_N.sum())} and '
                    f'{int((~has_N).sum())}; take more examples, or another attribute')
  difference = code_N[has_N].mean(axis=0, dtype=np.float64) - code_N[~has_N].mean(axis=0, dtype=np.float64)
  return Attribute(difference.astype(np.float32), int(has_N.sum()), int((~has_N).sum()))


def clip(image_NPHWC: np.ndarray, rate: float, scale: int = 1) -> artifacts.Clip:
  """Rows of pictures as a clip: a frame for each of P points, in which the N rows stand side by side.

  Args:
    image_NPHWC: see `Codes.interpolate`.
    rate: frames a second.
    scale: pixels of a frame along a side, for one of a picture.
  """
  rows, points, height, width, channels = image_NPHWC.shape
  across = math.ceil(rows**0.5)
  down = math.ceil(rows / across)
  room = np.zeros((down * across, *image_NPHWC.shape[1:]), np.uint8)
  room[:rows] = image_NPHWC
  tiles = room.reshape(down, across, points, height, width, channels).transpose(2, 0, 3, 1, 4, 5)
  frames_THWC = tiles.reshape(points, down * height, across * width, channels)
  return artifacts.Clip(frames_THWC.repeat(scale, axis=1).repeat(scale, axis=2), rate)


def save(path: pathlib.Path, image_NPHWC: np.ndarray, rate: float, scale: int = 1) -> None:
  """Writes rows of pictures as a sheet (.png), or as a clip; see `clip`."""
  if path.suffix.lower() == '.png':
    write(path, image_NPHWC.repeat(scale, axis=2).repeat(scale, axis=3))
  else:
    artifacts.write(path, clip(image_NPHWC, rate, scale))


def check_ending(path: pathlib.Path, where: str) -> None:
  """Checks that `save` can write a file.

  Raises:
    UserError: another ending, or a package is missing.
  """
  if path.suffix.lower() not in ENDINGS:
    raise UserError(f'{where} takes a path that ends in {", ".join(ENDINGS)}, got {path}')
  artifacts.check(path.suffix.lower())


def write(path: pathlib.Path, image_NPHWC: np.ndarray) -> None:
  """Writes rows of pictures as one."""
  rows, points, height, width, channels = image_NPHWC.shape
  sheet_HWC = image_NPHWC.transpose(0, 2, 1, 3, 4).reshape(rows * height, points * width, channels)
  artifacts.write(path, np.repeat(sheet_HWC, 3, axis=-1) if channels == 1 else sheet_HWC)
