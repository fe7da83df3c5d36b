"""What scenes show, in words: one thing at a place, several alike, or two groups and how they lie to each other.

    a small red star at the top left
    three large blue rings
    a small red star left of two blue rings

Sizes are left out at times. Some relations are held out: pairs of colours, and pairs of shapes, that never lie so in
training, however the caption is turned ('a above b' shows what 'b below a' does).
"""

from collections.abc import Sequence
import dataclasses
import re

from genjax.types import UserError

COLOURS = {'red': (220, 40, 40), 'green': (50, 175, 80), 'blue': (58, 94, 235), 'yellow': (244, 204, 40),
           'purple': (160, 60, 215), 'white': (238, 238, 238)}
SHAPES = {'circle': 'circles', 'square': 'squares', 'triangle': 'triangles', 'star': 'stars', 'ring': 'rings',
          'cross': 'crosses'}
SIZES = ('small', 'large')
NUMBERS = ('a', 'two', 'three')
PLACES = {'at the top left': (-1, -1), 'at the top right': (1, -1), 'at the bottom left': (-1, 1),
          'at the bottom right': (1, 1), 'in the middle': (0, 0)}  # signs of x and y from the middle; y is downward
RELATIONS = {'left of': (0, 1), 'right of': (0, -1), 'above': (1, 1), 'below': (1, -1)}  # axis (x, y), and a's side
_PLURALS = {plural: shape for shape, plural in SHAPES.items()}


@dataclasses.dataclass(frozen=True)
class Things:
  """Things that are alike.

  Attributes:
    number: how many.
    size: one of `SIZES`; '' where it is not said.
    colour: one of `COLOURS`.
    shape: one of `SHAPES`.
  """

  number: int
  size: str
  colour: str
  shape: str

  def __str__(self) -> str:
    noun = self.shape if self.number == 1 else SHAPES[self.shape]
    return ' '.join(filter(None, (NUMBERS[self.number - 1], self.size, self.colour, noun)))


@dataclasses.dataclass(frozen=True)
class Scene:
  """What a caption asks for.

  Attributes:
    things: one group, or two.
    place: one of `PLACES`; '' for anywhere.
    relation: one of `RELATIONS`, of two groups.
  """

  things: tuple[Things, ...]
  place: str = ''
  relation: str = ''

  def __str__(self) -> str:
    if self.relation:
      return f'{self.things[0]} {self.relation} {self.things[1]}'
    return f'{self.things[0]} {self.place}'.strip()

  @property
  def unseen(self) -> bool:
    """Whether training holds out how its groups lie to each other."""
    if not self.relation:
      return False
    names = [(list(COLOURS).index(thing.colour), list(SHAPES).index(thing.shape)) for thing in self.things]
    (colour, shape), (other_colour, other_shape) = names
    return held_colours(colour, self.relation, other_colour) or held_shapes(shape, self.relation, other_shape)


def held_colours(first: int, relation: str, second: int) -> bool:
  """Whether two colours, by their numbers, never lie so in training: 4 or 5 of 30."""
  first, axis, second = _turned(first, relation, second)
  return (5 * first + 4 * axis + 3 * second) % 8 == 3


def held_shapes(first: int, relation: str, second: int) -> bool:
  """The same of two shapes: 4 or 5 of 36."""
  first, axis, second = _turned(first, relation, second)
  return (3 * first + 4 * axis + 5 * second) % 8 == 1


def _turned(first: int, relation: str, second: int) -> tuple[int, int, int]:
  """The pair in the order of the picture, from left to right or from top to bottom, with the axis."""
  axis, side = RELATIONS[relation]
  return (first, axis, second) if side > 0 else (second, axis, first)


def _alternatives(words: Sequence[str]) -> str:
  return '|'.join(map(re.escape, words))


_THINGS = (rf'({_alternatives(NUMBERS)}) (?:({_alternatives(SIZES)}) )?({_alternatives(list(COLOURS))}) '
           rf'({_alternatives([*_PLURALS, *SHAPES])})')
_CAPTION = re.compile(
  rf'{_THINGS}(?: ({_alternatives(list(PLACES))}))?(?: ({_alternatives(list(RELATIONS))}) {_THINGS})?')


def parse(caption: str) -> Scene:
  """The scene of a caption; `str` of the scene gives the caption back.

  Raises:
    UserError: it is none of this grammar.
  """
  scene = None
  if found := _CAPTION.fullmatch(caption.strip()):
    parts = found.groups()
    things = tuple(Things(NUMBERS.index(number) + 1, size or '', colour, _PLURALS.get(noun, noun))
                   for number, size, colour, noun in (parts[:4], parts[6:]) if number)
    scene = Scene(things, parts[4] or '', parts[5] or '')
  if scene is None or str(scene) != caption.strip():
    raise UserError(f'the caption {caption!r} is not one of scenes, such as "a small red star left of two blue rings" '
                    f'or "three large green crosses"; the words are {", ".join([*NUMBERS, *SIZES, *COLOURS])}, '
                    f'{", ".join(SHAPES)}, {", ".join(PLACES)}, {", ".join(RELATIONS)}')
  return scene
