"""TFDS builders of pictures with captions: sprites with exact attributes, and emoji with their names."""

from collections.abc import Iterator
import io
import itertools
import re
from typing import Any

import numpy as np
from PIL import Image
import tensorflow_datasets as tfds

from genjax.data.prepared import originals, sprites
from genjax.data.prepared.building import Builder, png
from genjax.types import UserError

_SHEETS = ('body/0.png to 6.png, bottomwear/0.png to 6.png, topwear/0.png to 6.png, hair/0.png to 9.png and '
           'shoes/0.png to 2.png of YingzhenLi/Sprites on GitHub')
SOURCE = 'source'  # the column that a picture is made from
_GENDERS = frozenset(['man', 'woman', 'person', 'men', 'women', 'people', 'boy', 'girl', 'and'])


def _attributes() -> dict[str, Any]:
  return {name: tfds.features.ClassLabel(names=list(values)) for name, (_, values) in sprites.PARTS.items()}


class LpcSprites(Builder, skip_registration=True):
  """Characters at rest, seen from the front and cropped to the figure; all combinations of five attributes.

  'unseen' is 1 where a character has a pair of attributes that no character of 'train' has. Every second row of 'test'
  is such a one. Each caption has one of six wordings.
  """

  VERSION = tfds.core.Version('1.0.0')
  SUMMARY = 'Pixel art characters with captions, 56x32 RGB: all 10,290 combinations of five attributes (LPC sprites).'
  FILES = _SHEETS
  FEATURES = {'image': tfds.features.Image(shape=(56, 32, 3)), 'text': tfds.features.Text(),
              'unseen': tfds.features.ClassLabel(num_classes=2), **_attributes()}
  KEEP_ORDER = True

  def read(self) -> dict[str, Any]:
    self._sheets = sprites.sheets(self.folder)
    random = np.random.default_rng(1)
    return {split: list(zip(characters, random.integers(0, len(sprites.WORDINGS), len(characters)).tolist()))
            for split, characters in sprites.splits().items()}

  def example(self, row: Any) -> dict[str, Any]:
    character, wording = row
    image_HWC = sprites.compose(self._sheets, character, sprites.STANDING, sprites.CROP)
    return {'image': png(image_HWC), 'text': sprites.caption(character, wording),
            'unseen': int(sprites.is_held_out(character)), **dict(zip(sprites.PARTS, character, strict=True))}


class LpcSpritesFull(LpcSprites, skip_registration=True):
  """The same characters in three actions and three directions, a frame drawn at random of each; whole frames.

  A row of 'test' is one of the 1,000 characters in one action and direction, drawn at random.
  """

  SUMMARY = 'The same characters in three actions and three directions, 64x64 RGB, with captions.'
  FEATURES = {**LpcSprites.FEATURES, 'image': tfds.features.Image(shape=(64, 64, 3)),
              'action': tfds.features.ClassLabel(names=[words for words, _, _ in sprites.ACTIONS.values()]),
              'direction': tfds.features.ClassLabel(names=list(sprites.DIRECTIONS.values()))}

  def read(self) -> dict[str, Any]:
    self._sheets = sprites.sheets(self.folder)
    random, found = np.random.default_rng(2), {}
    poses = [(action, direction) for action in sprites.ACTIONS for direction in sprites.DIRECTIONS]
    for split, characters in sprites.splits().items():
      rows = [(character, pose) for character in characters for pose in poses] if split != 'test' else [
        (character, poses[at]) for character, at in zip(characters, random.integers(0, len(poses), len(characters)))]
      order = random.permutation(len(rows)) if split != 'test' else np.arange(len(rows))
      draws = random.integers(0, (len(sprites.WORDINGS), 8), (len(rows), 2)).tolist()
      found[split] = [(*rows[at], *draw) for at, draw in zip(order.tolist(), draws)]
    return found

  def example(self, row: Any) -> dict[str, Any]:
    character, (action, direction), wording, step = row
    _, firsts, frames = sprites.ACTIONS[action]
    at = list(sprites.DIRECTIONS).index(direction)
    image_HWC = sprites.compose(self._sheets, character, firsts[at] + frames[step])
    return {'image': png(image_HWC), 'text': sprites.caption(character, wording, action, direction),
            'unseen': int(sprites.is_held_out(character)), 'action': list(sprites.ACTIONS).index(action),
            'direction': at, **dict(zip(sprites.PARTS, character, strict=True))}


class EmojiNoto(Builder, skip_registration=True):
  """Noto emoji on white with their English names, without the variants in skin tones. A fixed random choice of 100 is
  test."""

  VERSION = tfds.core.Version('1.0.0')
  SUMMARY = 'Emoji with their names, 64x64 RGB, 1,548 train and 100 test (Noto Emoji).'
  FILES = 'noto_emoji_64.webp, a grid of 60 columns of 64x64 emoji, and names.tsv: row, code points, name'
  FEATURES = {'image': tfds.features.Image(shape=(64, 64, 3)), 'text': tfds.features.Text()}
  KEEP_ORDER = True
  TEST = 100
  _SIDE, _COLUMNS = 64, 60

  def read(self) -> dict[str, Any]:
    self._grid = self._read_grid()
    named = list(self._names())
    if len(named) <= self.TEST:
      raise UserError(f'{self.folder}: expected more than {self.TEST} names, got {len(named)}')
    chosen = set(np.random.default_rng(0).permutation(len(named))[:self.TEST].tolist())
    return {'train': [row for at, row in enumerate(named) if at not in chosen],
            'test': [row for at, row in enumerate(named) if at in chosen]}

  def example(self, row: Any) -> dict[str, Any]:
    number, name = row
    top, left = (at * self._SIDE for at in divmod(number, self._COLUMNS))
    return {'image': png(np.ascontiguousarray(self._grid[top:top + self._SIDE, left:left + self._SIDE])), 'text': name}

  def _read_grid(self) -> np.ndarray:
    path = originals.find(self.folder, 'noto_emoji_64.webp')
    try:
      with Image.open(io.BytesIO(originals.read_bytes(path))) as image:
        return np.asarray(image.convert('RGB'))
    except OSError as error:
      raise UserError(f'{path} is not a complete image ({error}); download or copy it again') from None

  def _names(self, tones: bool = False) -> Iterator[tuple[int, str]]:
    """Place in the grid and name of each emoji; `tones`: also of those in a skin tone."""
    path = originals.find(self.folder, 'names.tsv')
    places = self._grid.shape[0] // self._SIDE * self._COLUMNS
    for line, text in enumerate(originals.read_lines(path), 1):
      fields = text.split('\t')
      if len(fields) < 3 or not fields[0].isdecimal() or int(fields[0]) >= places:
        raise UserError(f'{path}, line {line}: expected row, code points and name, separated by tabs, with a row below '
                        f'{places}; got {text[:60]!r}')
      if tones or 'skin tone' not in fields[2]:
        yield int(fields[0]), fields[2]


class EmojiNotoAll(EmojiNoto, skip_registration=True):
  """All Noto emoji, for tasks without names. Those that differ by skin tones or by man, woman and person alone are in
  one split, drawn at random, so that nothing of the test split is known from training."""

  SUMMARY = 'All emoji, 64x64 RGB, variants in one split: 2,800 train and the rest test (Noto Emoji).'
  TRAIN = 2800

  def read(self) -> dict[str, Any]:
    self._grid = self._read_grid()
    families: dict[str, list[tuple[int, str]]] = {}
    for row in self._names(tones=True):
      families.setdefault(_family(row[1]), []).append(row)
    names = list(families)
    train: list[tuple[int, str]] = []
    test: list[tuple[int, str]] = []
    for at in np.random.default_rng(0).permutation(len(names)).tolist():
      family = families[names[at]]
      (train if len(train) + len(family) <= self.TRAIN else test).extend(family)
    return {'train': sorted(train), 'test': sorted(test)}


def _family(name: str) -> str:
  """The name of an emoji without skin tones and genders."""
  words = re.sub(r'(medium-|)(light|medium|dark) skin tone', '', name).split()
  return ' '.join(word for word in words if word not in _GENDERS) or 'person'


class LpcSpritesOrcs(LpcSprites, skip_registration=True):
  """Pale persons ('source') and green orcs ('image') in the same clothes, 56x32, for translation without pairs.

  In 'train' no two of them belong together: half of the clothes are worn by pale persons alone, half by orcs alone, and
  row i of both has nothing to do with each other. In 'test' an orc wears what the person of the row wears.
  """

  SUMMARY = 'Pale persons and green orcs without pairs, 56x32 RGB: 600 and 600 train, 270 pairs test (LPC sprites).'
  FEATURES = {SOURCE: tfds.features.Image(shape=(56, 32, 3)), 'image': tfds.features.Image(shape=(56, 32, 3)),
              **{name: feature for name, feature in _attributes().items() if name != 'body'}}
  TRAIN, PALE, ORC = 600, 0, 6

  def read(self) -> dict[str, Any]:
    self._sheets = sprites.sheets(self.folder)
    counts = [range(len(values)) for name, (_, values) in sprites.PARTS.items() if name != 'body']
    every = list(itertools.product(*counts))
    order = [every[at] for at in np.random.default_rng(3).permutation(len(every)).tolist()]
    pale, orcs, test = order[:self.TRAIN], order[self.TRAIN:2 * self.TRAIN], order[2 * self.TRAIN:]
    return {'train': list(zip(pale, orcs)), 'test': list(zip(test, test))}

  def example(self, row: Any) -> dict[str, Any]:
    """The attributes are those of the source."""
    pale, orc = (png(sprites.compose(self._sheets, (body, *clothes), sprites.STANDING, sprites.CROP))
                 for body, clothes in zip((self.PALE, self.ORC), row))
    names = [name for name in sprites.PARTS if name != 'body']
    return {SOURCE: pale, 'image': orc, **dict(zip(names, row[0], strict=True))}
