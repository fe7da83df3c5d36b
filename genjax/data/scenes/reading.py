"""Reads scenes off pictures by geometry, without anything that is trained, and compares them with captions.

A pixel belongs to the colour whose direction from the grey of the ground is nearest. Things are connected pixels of one
colour. A thing is given each shape in turn, with its own middle and area, and is the shape that differs least.
"""

from collections.abc import Sequence
import dataclasses
import functools
from typing import Any

import numpy as np
from scipy import ndimage

from genjax.data.scenes import drawing
from genjax.data.scenes.grammar import COLOURS, PLACES, RELATIONS, SHAPES, Scene, parse

ATTRIBUTES = ('number', 'colour', 'shape', 'size', 'place', 'relation')
_FAINT = 0.4  # of the contrast of a picture: pixels with less belong to the ground
_FEWEST = 6  # pixels of a thing, in a picture of `drawing.SIDE`; fewer are specks
_BORDER = (drawing.RADII['small'][1] + drawing.RADII['large'][0]) / 2  # radius between small and large
_LEAST_CONTRAST = 40.0  # of 255, of a picture that shows anything


@dataclasses.dataclass(frozen=True)
class Seen:
  """A thing in a picture; lengths are those of `genjax.data.scenes.drawing`."""

  colour: str
  shape: str
  size: str
  x: float
  y: float


def read(image_HWC: np.ndarray) -> list[Seen]:
  """The things in a picture uint8 H H 3."""
  image = image_HWC.astype(np.float32)
  away_HWC = image - np.median(image.reshape(-1, 3), axis=0)
  strength_HW = np.abs(away_HWC).max(-1)
  contrast = np.quantile(strength_HW, 0.995)
  if contrast < _LEAST_CONTRAST:
    return []
  palette_KC = np.asarray(list(COLOURS.values()), np.float32) - 36
  palette_KC /= np.linalg.norm(palette_KC, axis=1, keepdims=True)
  nearest_HW = (away_HWC @ palette_KC.T).argmax(-1)
  scale, found = image.shape[0] / drawing.SIDE, []
  for number, colour in enumerate(COLOURS):
    labels: Any = ndimage.label((nearest_HW == number) & (strength_HW > _FAINT * contrast), np.ones((3, 3)))
    labelled_HW, count = labels
    for label in range(1, count + 1):
      part_HW = labelled_HW == label
      if part_HW.sum() >= _FEWEST * scale ** 2:
        found.append(_thing(colour, part_HW, strength_HW))
  return found


def _thing(colour: str, part_HW: np.ndarray, strength_HW: np.ndarray) -> Seen:
  """The shape, size and place of connected pixels."""
  scale = part_HW.shape[0] / drawing.SIDE
  near_HW = ndimage.binary_dilation(part_HW, iterations=1)  # with its pale edge
  inside_HW = np.where(near_HW, np.clip(strength_HW / np.quantile(strength_HW[part_HW], 0.8), 0, 1), 0)
  area = inside_HW.sum()
  middle = [(inside_HW * (np.arange(size) + 0.5)[index]).sum() / area for size, index in (
    (part_HW.shape[1], (None, slice(None))), (part_HW.shape[0], (slice(None), None)))]
  rows, columns = (slice(max(0, int(center - 9 * scale)), int(center + 9 * scale) + 1) for center in reversed(middle))
  crop, corner = inside_HW[rows, columns], (columns.start, rows.start)
  best = (np.inf, '', 0.0)
  for shape in SHAPES:
    unit, below = _unit(shape)
    for share in (0.93, 1.0, 1.07):
      radius = np.sqrt(area / unit) * share
      at = np.asarray([middle[0] - corner[0]]), np.asarray([middle[1] - below * radius - corner[1]])
      drawn = drawing.coverage(shape, *at, np.asarray([radius]), *crop.shape)[0]
      best = min(best, (float(np.square(drawn - crop).sum()), shape, radius / scale))
  size = 'small' if best[2] < _BORDER else 'large'
  return Seen(colour, best[1], size, middle[0] / scale, middle[1] / scale)


@functools.cache
def _unit(shape: str) -> tuple[float, float]:
  """The area of a shape of radius 1, and how far its centre of mass is below its middle."""
  radius, side = 100.0, 256
  at_1 = np.asarray([side / 2])
  inside_HW = drawing.coverage(shape, at_1, at_1, np.asarray([radius]), side, side)[0]
  down = (inside_HW * (np.arange(side) + 0.5)[:, None]).sum() / inside_HW.sum()
  return float(inside_HW.sum()) / radius ** 2, float(down - side / 2) / radius


def right(scene: Scene, seen: Sequence[Seen]) -> dict[str, bool]:
  """Which attributes of a scene a picture shows as asked; those that the caption does not mention are left out.

  colour: the colours in the picture are those asked for. number: there are as many things of each colour as asked, and
  no other. shape, size: all things of a group are so. place, relation: all lie so. A group is what has its colour; of a
  single group, everything.
  """
  alone = len(scene.things) == 1
  groups = [[one for one in seen if alone or one.colour == thing.colour] for thing in scene.things]
  pairs = list(zip(scene.things, groups))
  every = lambda fits: bool(all(groups)) and all(fits(thing, one) for thing, group in pairs for one in group)
  found = {
    'number': all(len(group) == thing.number for thing, group in pairs) and len(seen) == sum(map(len, groups)),
    'colour': {one.colour for one in seen} == {thing.colour for thing in scene.things},
    'shape': every(lambda thing, one: one.shape == thing.shape)}
  if any(thing.size for thing in scene.things):
    found['size'] = every(lambda thing, one: thing.size in ('', one.size))
  half = drawing.SIDE / 2
  if scene.place:
    signs, slack = PLACES[scene.place], drawing.SIDE / 8
    found['place'] = every(lambda thing, one: all(
      sign * (at - half) > 0 if sign else abs(at - half) < slack for sign, at in zip(signs, (one.x, one.y))))
  if scene.relation:
    axis, side = RELATIONS[scene.relation]
    first, second = ([side * (one.x, one.y)[axis] for one in group] for group in groups)
    found['relation'] = bool(first and second) and max(first) < min(second)
  return found


def judge(caption: str, image_HWC: np.ndarray) -> dict[str, bool]:
  """`right` of a caption and a picture."""
  return right(parse(caption), read(image_HWC))
