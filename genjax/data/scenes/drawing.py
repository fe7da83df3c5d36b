"""Draws captioned scenes: antialiased shapes on dark grey, any number of them, each from (seed, row) alone."""

from collections.abc import Mapping, Sequence
import functools
from typing import Any

import numpy as np

from genjax.data.pipeline import Columns, RowRandom
from genjax.data.scenes import grammar
from genjax.data.scenes.grammar import COLOURS, NUMBERS, PLACES, RELATIONS, SHAPES, SIZES, Scene, Things
from genjax.types import UserError

SIDE = 36  # pixels in which the following lengths are; pictures of other sides are scaled
RADII = {'small': (3.4, 3.7), 'large': (5.2, 5.5)}
LATTICE = (SIDE / 6, SIDE / 2, 5 * SIDE / 6)  # where the middles of shapes lie, in x and in y: a ninth has one shape
JITTER = 0.5  # how far a middle may be off, in x and in y
OBJECTS = 4  # most things in a scene
LEAST_SIDE = 24
KINDS = ('place', 'number', 'relation', 'unseen relation')
TRAINED = (0, 1, 2, 2)  # kinds of training rows, drawn; those of held-out rows come in turn


class Scenes:
  """A source of pictures and their captions: columns 'image' uint8 N H H 3, and 'text'.

  Args:
    shape: (H, H, 3) of the pictures.
    size: how many there are.
    seed: of what is drawn.
    heldout: whether one in four shows a relation that training holds out, see `genjax.data.scenes.grammar`.

  Raises:
    UserError: another shape.
  """

  def __init__(self, shape: Sequence[int], size: int, seed: int = 0, heldout: bool = False):
    if len(shape) != 3 or shape[2] != 3 or shape[0] != shape[1] or shape[0] < LEAST_SIDE:
      raise UserError(f'scenes are square pictures of at least {LEAST_SIDE} pixels with 3 channels, got '
                      f'config.data.shape {tuple(shape)}')
    self._side, self._size, self._seed, self._heldout = shape[0], size, seed, heldout

  def __len__(self) -> int:
    return self._size

  def get(self, indices: np.ndarray) -> Columns:
    scenes, objects = self._scenes(np.asarray(indices))
    return {'image': draw(objects, self._side), 'text': np.asarray([str(scene) for scene in scenes], object)}

  def read_columns(self, indices: np.ndarray, names: Sequence[str]) -> Columns:
    """Some of the columns; captions alone draw no picture."""
    if 'image' in names:
      columns = self.get(indices)
    else:
      columns = {'text': np.asarray([str(scene) for scene in self._scenes(np.asarray(indices))[0]], object)}
    return {name: columns[name] for name in names if name in columns}

  def fingerprint(self) -> dict[str, Any]:
    return {'name': 'scenes', 'side': self._side, 'seed': self._seed, 'heldout': self._heldout, 'examples': self._size}

  def _scenes(self, indices: np.ndarray) -> tuple[list[Scene], dict[str, np.ndarray]]:
    random = RowRandom(self._seed, indices)
    choice_B = random.integers(0, len(TRAINED))
    kind_B = indices % len(KINDS) if self._heldout else np.asarray(TRAINED)[choice_B]
    return _drawn(random, kind_B)


def _drawn(random: RowRandom, kind_B: np.ndarray) -> tuple[list[Scene], dict[str, np.ndarray]]:
  """The scenes of rows of some kinds, and their objects: 'shape', 'colour', 'radius', 'x', 'y', 'there', each B O."""
  words_B = random.uniform(16)
  scenes = [_scene(KINDS[kind], words) for kind, words in zip(kind_B.tolist(), words_B.tolist())]
  count, numbers = len(scenes), random.uniform(OBJECTS, 3)
  order_B4, bright_B, ground_B = random.uniform(4), 0.85 + 0.15 * random.uniform(), 24 + 24 * random.uniform()
  objects = {name: np.zeros((count, OBJECTS)) for name in ('shape', 'colour', 'radius', 'x', 'y', 'there')}
  for row, (scene, words) in enumerate(zip(scenes, words_B.tolist())):
    index, middles = 0, _middles(scene, order_B4[row], words)
    for number, thing in enumerate(scene.things):
      size = thing.size or SIZES[int(words[14 + number] * 2)]  # what is not said is free
      for _ in range(thing.number):
        low, high = RADII[size]
        radius = low + (high - low) * numbers[row, index, 2]
        x, y = (_place(middle, share) for middle, share in zip(middles[index], numbers[row, index]))
        for name, value in (('shape', list(SHAPES).index(thing.shape)), ('colour', list(COLOURS).index(thing.colour)),
                            ('radius', radius), ('x', x), ('y', y), ('there', 1)):
          objects[name][row, index] = value
        index += 1
  return scenes, {**objects, 'bright': bright_B, 'ground': ground_B}


def _scene(kind: str, words: Sequence[float]) -> Scene:
  """A scene of uniform numbers."""
  draw = lambda number, names: names[int(words[number] * len(names))]
  size = lambda number: SIZES[int(words[number] / 0.7 * 2)] if words[number] < 0.7 else ''  # said seven times of ten
  colour, shape = draw(0, list(COLOURS)), draw(1, list(SHAPES))
  if kind == 'place':
    return Scene((Things(1, size(2), colour, shape),), place=draw(3, list(PLACES)))
  if kind == 'number':
    return Scene((Things(int(words[4] * len(NUMBERS)) + 1, size(2), colour, shape),))
  relation = draw(5, list(RELATIONS))
  colours, shapes = (draw(6 + at, pairs(what, relation, held)) for at, (what, held) in enumerate(
    (('colour', kind != 'relation' and words[8] < 0.5), ('shape', kind != 'relation' and words[8] >= 0.5))))
  numbers = [int(words[9 + at] * 2) + 1 for at in range(2)]
  first, second = (Things(number, size(11 + at), list(COLOURS)[colours[at]], list(SHAPES)[shapes[at]])
                   for at, number in enumerate(numbers))
  return Scene((first, second), relation=relation)


@functools.cache
def pairs(what: str, relation: str, held: bool) -> list[tuple[int, int]]:
  """Pairs of numbers of colours, which differ, or of shapes, that training holds out in a relation, or that it has."""
  count, is_held = (len(COLOURS), grammar.held_colours) if what == 'colour' else (len(SHAPES), grammar.held_shapes)
  return [(first, second) for first in range(count) for second in range(count)
          if is_held(first, relation, second) == held and (first != second or what == 'shape')]


def _middles(scene: Scene, order_4: np.ndarray, words: Sequence[float]) -> list[tuple[float | None, float | None]]:
  """The middles (x, y) of all things on the lattice; None where a thing lies at any of its lines."""
  low, _, high = LATTICE
  if scene.place:
    return [tuple(LATTICE[1 + sign] for sign in PLACES[scene.place])]  # type: ignore[list-item]
  if not scene.relation:
    cells = [(x, y) for y in (low, high) for x in (low, high)]
    return [cells[cell] for cell in np.argsort(order_4).tolist()]
  axis, side = RELATIONS[scene.relation]
  found = []
  for at, thing in enumerate(scene.things):
    across = low if (side > 0) == (at == 0) else high
    along: list[float | None] = [low, high] if thing.number == 2 else [None]
    found += [(across, one) if axis == 0 else (one, across) for one in along]
  return found


def _place(middle: float | None, share: float) -> float:
  """A coordinate of the middle of a shape."""
  if middle is None:
    line, share = divmod(share * len(LATTICE), 1)
    middle = LATTICE[int(line)]
  return middle + JITTER * (2 * share - 1)


def draw(objects: Mapping[str, np.ndarray], side: int) -> np.ndarray:
  """Pictures uint8 B side side 3 of objects, as `_drawn` gives them."""
  count, scale = len(objects['shape']), side / SIDE
  row_N, index_N = np.nonzero(objects['there'])
  take = {name: objects[name][row_N, index_N] for name in ('shape', 'colour', 'radius', 'x', 'y')}
  inside_NHW = np.zeros((len(row_N), side, side), np.float32)
  for number, shape in enumerate(SHAPES):
    of = np.flatnonzero(take['shape'] == number)
    if len(of):
      x_N, y_N, radius_N = (take[name][of] * scale for name in ('x', 'y', 'radius'))
      inside_NHW[of] = coverage(shape, x_N, y_N, radius_N, side, side)
  colour_N3 = np.asarray(list(COLOURS.values()), np.float32)[take['colour'].astype(int)]
  ground_B = objects['ground'].astype(np.float32)
  colour_N3 = colour_N3 * objects['bright'].astype(np.float32)[row_N, None]
  image_BHWC = np.broadcast_to(ground_B[:, None, None, None], (count, side, side, 3)).copy()
  # Things do not overlap, so that their order does not matter
  np.add.at(image_BHWC, row_N, inside_NHW[..., None] * (colour_N3 - ground_B[row_N, None])[:, None, None])
  return np.round(np.clip(image_BHWC, 0, 255)).astype(np.uint8)


def coverage(shape: str, x_N: np.ndarray, y_N: np.ndarray, radius_N: np.ndarray, height: int,
             width: int) -> np.ndarray:
  """How much of each pixel N H W a shape covers, from 0 to 1, by its distance to the edge; lengths are in pixels."""
  across = (np.arange(width, dtype=np.float32) + 0.5)[None, None] - np.asarray(x_N, np.float32)[:, None, None]
  down = (np.arange(height, dtype=np.float32) + 0.5)[None, :, None] - np.asarray(y_N, np.float32)[:, None, None]
  return np.clip(0.5 - _distance(shape, across, down, np.asarray(radius_N, np.float32)[:, None, None]), 0, 1)


def _distance(shape: str, x, y, radius) -> np.ndarray:
  """Distance to the edge of a shape around (0, 0), negative inside; y is downward."""
  if shape == 'circle':
    return np.hypot(x, y) - radius
  if shape == 'ring':
    return np.abs(np.hypot(x, y) - 0.76 * radius) - 0.24 * radius
  if shape == 'square':
    return np.maximum(np.abs(x), np.abs(y)) - 0.85 * radius
  if shape == 'cross':
    x, y = np.abs(x), np.abs(y)
    return np.minimum(np.maximum(x - radius, y - 0.34 * radius), np.maximum(x - 0.34 * radius, y - radius))
  if shape == 'triangle':
    inner = 0.575 * radius  # half of the distance of a corner
    return np.maximum(y - inner, np.abs(x) * np.sqrt(0.75) - y * 0.5 - inner)
  outer, sector = 1.15 * radius, 2 * np.pi / 5  # a star with five tips, the first one up
  angle = np.abs((np.arctan2(x, -y) + sector / 2) % sector - sector / 2)
  along, aside = np.hypot(x, y) * np.cos(angle), np.hypot(x, y) * np.sin(angle)
  # The edge from a tip to the next notch, which is at 0.45 of the distance, half a sector further
  step = (0.45 * np.cos(sector / 2) - 1, 0.45 * np.sin(sector / 2))
  length = np.hypot(*step)
  return ((along - outer) * step[1] - aside * step[0]) / length
