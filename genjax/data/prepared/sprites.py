"""Characters of the Liberated Pixel Cup: their sheets, their attributes, captions in several wordings.

A sheet has 13 columns of frames of 64 x 64 pixels. A character is body, trousers, top, hair and shoes, one layer over
the other. Some pairs of attributes are held out: no character of the training split has one of them.
"""

from collections.abc import Mapping, Sequence
import itertools
import pathlib

import numpy as np
from PIL import Image

from genjax.data.prepared import originals
from genjax.types import UserError

FRAME, COLUMNS, ROWS = 64, 13, 21  # side of a frame, and frames of a sheet
# attribute -> its folder, and name in a caption of each sheet in the order of their file names
PARTS = {
  'body': ('body', ('a pale person', 'a tan person', 'a grey person', 'a pale blue person', 'a light brown person',
                    'a dark brown person', 'a green orc')),
  'trousers': ('bottomwear', ('white trousers', 'golden greaves', 'red trousers', 'steel greaves', 'teal trousers',
                              'dark green trousers', 'a brown skirt')),
  'top': ('topwear', ('a maroon shirt', 'a cyan shirt', 'a white shirt', 'a breastplate', 'a leather vest',
                      'a shirt and tie', 'chainmail')),
  'hair': ('hair', ('green spiky hair', 'a blue topknot', 'orange spiky hair', 'white hair', 'crimson hair',
                    'purple curly hair', 'half-shaved hair', 'red hair', 'pink spiky hair', 'orange curly hair')),
  'shoes': ('shoes', ('brown shoes', 'golden shoes', 'steel shoes')),
}
# One pair of each two attributes, by the numbers of their values
HELD_OUT = {('body', 'trousers'): (1, 2), ('body', 'top'): (5, 3), ('body', 'hair'): (6, 8), ('body', 'shoes'): (3, 1),
            ('trousers', 'top'): (6, 6), ('trousers', 'hair'): (0, 4), ('trousers', 'shoes'): (4, 2),
            ('top', 'hair'): (1, 1), ('top', 'shoes'): (4, 0), ('hair', 'shoes'): (9, 1)}
# action -> its name in a caption; first frames to the left, to the front and to the right; its eight frames from there
ACTIONS = {'spell': ('casting a spell', (13, 26, 39), (0, 1, 2, 3, 4, 5, 4, 6)),
           'walk': ('walking', (117, 130, 143), (8, 1, 2, 3, 4, 5, 6, 7)),
           'slash': ('slashing', (169, 182, 195), (0, 1, 2, 3, 4, 5, 4, 0))}
DIRECTIONS = {'left': 'facing left', 'front': 'facing the viewer', 'right': 'facing right'}
STANDING = 130  # the frame of a character at rest, seen from the front
CROP = (slice(8, 64), slice(16, 48))  # rows and columns around the figure in that frame
WORDINGS = ('{body} with {hair}, in {top}, {trousers} and {shoes}',
            '{body} in {top} and {trousers}, with {shoes} and {hair}',
            '{body} who has {hair} and wears {trousers}, {shoes} and {top}',
            '{hair}, {top}, {trousers} and {shoes} on {body}',
            '{shoes}, {trousers}, {top}, {hair}: {body}',
            '{body}: {hair}, {shoes}, {trousers}, {top}')
TEST = 1000  # characters of the test split; every second one has a held-out pair
_SEED = 0


def sheets(folder: pathlib.Path) -> dict[str, list[np.ndarray]]:
  """The sheets of each attribute, uint8 H W 4.

  Raises:
    UserError: a sheet is missing, or no picture of that size.
  """
  found: dict[str, list[np.ndarray]] = {}
  for name, (place, values) in PARTS.items():
    found[name] = []
    for number in range(len(values)):
      path = originals.find(folder / place, f'{number}.png')
      try:
        with Image.open(path) as image:
          sheet = np.asarray(image.convert('RGBA'))
      except OSError as error:
        raise UserError(f'{path} is not a complete image ({error}); download or copy it again') from None
      if sheet.shape != (ROWS * FRAME, COLUMNS * FRAME, 4):
        raise UserError(f'{path}: expected a sheet of {COLUMNS * FRAME} x {ROWS * FRAME} pixels, got '
                        f'{sheet.shape[1]} x {sheet.shape[0]}')
      found[name].append(sheet)
  return found


def compose(sheets: Mapping[str, Sequence[np.ndarray]], character: Sequence[int], frame: int,
            crop: tuple[slice, slice] = (slice(0, FRAME), slice(0, FRAME))) -> np.ndarray:
  """A frame of a character on black, or some of its rows and columns, uint8 H W 3."""
  rows, columns = (range(FRAME)[part] for part in crop)
  image_HWC = np.zeros((len(rows), len(columns), 3), np.float32)
  top, left = (at * FRAME for at in divmod(frame, COLUMNS))
  part = slice(top + rows[0], top + rows[-1] + 1), slice(left + columns[0], left + columns[-1] + 1)
  for name, value in zip(PARTS, character, strict=True):
    layer_HWC = sheets[name][value][part].astype(np.float32)
    opaque_HW1 = layer_HWC[..., 3:] / 255
    image_HWC = layer_HWC[..., :3] * opaque_HW1 + image_HWC * (1 - opaque_HW1)
  return np.round(image_HWC).astype(np.uint8)


def is_held_out(character: Sequence[int]) -> bool:
  """Whether a character has a pair of attributes that training holds out."""
  value = dict(zip(PARTS, character, strict=True))
  return any((value[first], value[second]) == pair for (first, second), pair in HELD_OUT.items())


def splits() -> dict[str, list[tuple[int, ...]]]:
  """Split -> characters, as the numbers of their attributes: 'train'; 'test', of which every second one has a held-out
  pair; 'unseen', the others with such a pair."""
  every = list(itertools.product(*(range(len(values)) for _, values in PARTS.values())))
  order = np.random.default_rng(_SEED).permutation(len(every)).tolist()
  seen = [every[at] for at in order if not is_held_out(every[at])]
  unseen = [every[at] for at in order if is_held_out(every[at])]
  half = TEST // 2
  test = [character for pair in zip(seen[:half], unseen[:half]) for character in pair]
  return {'train': seen[half:], 'test': test, 'unseen': unseen[half:]}


def caption(character: Sequence[int], wording: int, action: str = '', direction: str = '') -> str:
  """A character in words, in one of `WORDINGS`; with action and direction where they are given."""
  names = {name: values[value] for (name, (_, values)), value in zip(PARTS.items(), character, strict=True)}
  told = [ACTIONS[action][0]] if action else []
  told += [DIRECTIONS[direction]] if direction else []
  return ', '.join([WORDINGS[wording].format(**names), *told])
