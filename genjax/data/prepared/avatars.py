"""Cartoon faces with exact attributes, drawn by the package python-avatars and rendered by resvg.

The attributes of a face are drawn at random, all combinations equally likely and none twice. Eyes, hair and clothes are
always in sight, so that every attribute can be read off a picture.
"""

from collections.abc import Mapping
import importlib
import io
import itertools
from typing import Any

import numpy as np
from PIL import Image
import tensorflow_datasets as tfds

from genjax.data.prepared.building import Builder, png
from genjax.types import UserError

# attribute -> argument of python_avatars.Avatar, the class of its values, and name in a caption -> name in that class
ATTRIBUTES: dict[str, tuple[str, str, dict[str, str]]] = {
  'skin': ('skin_color', 'SkinColor', {
    'pale': 'PALE', 'light': 'LIGHT', 'yellow': 'YELLOW', 'tanned': 'TANNED', 'brown': 'BROWN',
    'dark brown': 'DARK_BROWN', 'black': 'BLACK'}),
  'hair': ('top', 'HairType', {
    'a bob': 'BOB', 'a bun': 'BUN', 'an afro': 'FRO', 'dreadlocks': 'DREADS', 'long straight hair': 'STRAIGHT_1',
    'long curls': 'CURLY', 'short flat hair': 'SHORT_FLAT', 'short curls': 'SHORT_CURLY', 'a mohawk': 'MOHAWK',
    'shaved sides': 'SHAVED_SIDES'}),
  'hair_color': ('hair_color', 'HairColor', {
    'black': 'BLACK', 'brown': 'BROWN', 'blond': 'BLONDE', 'red': 'RED', 'grey': 'SILVER_GRAY', 'pink': 'PASTEL_PINK'}),
  'eyes': ('eyes', 'EyeType', {
    'open eyes': 'DEFAULT', 'closed eyes': 'CLOSED', 'happy eyes': 'HAPPY', 'a winking eye': 'WINK',
    'surprised eyes': 'SURPRISED'}),
  'mouth': ('mouth', 'MouthType', {
    'a smile': 'SMILE', 'a serious mouth': 'SERIOUS', 'a sad mouth': 'SAD', 'a screaming mouth': 'SCREAM_OPEN',
    'the tongue out': 'TONGUE'}),
  'glasses': ('accessory', 'AccessoryType', {
    'no glasses': 'NONE', 'round glasses': 'ROUND', 'black glasses': 'PRESCRIPTION_2'}),
  'beard': ('facial_hair', 'FacialHairType', {
    'no beard': 'NONE', 'a short beard': 'BEARD_LIGHT', 'a full beard': 'BEARD_MEDIUM',
    'a moustache': 'MOUSTACHE_FANCY'}),
  'clothes': ('clothing', 'ClothingType', {
    'hoodie': 'HOODIE', 'overall': 'OVERALL', 'shirt': 'SHIRT_CREW_NECK', 'sweater': 'COLLAR_SWEATER'}),
  'clothes_color': ('clothing_color', 'ClothingColor', {
    'blue': 'BLUE_02', 'red': 'RED', 'green': 'PASTEL_GREEN', 'yellow': 'PASTEL_YELLOW', 'black': 'BLACK',
    'pink': 'PINK'}),
}
SIDE = 64
COUNTS = {'train': 10_000, 'test': 1_000}
CAPTION = ('a {skin} face with {hair} in {hair_color}, {eyes}, {mouth}, {glasses} and {beard}, in a {clothes_color} '
           '{clothes}')
_SIZES = tuple(len(values) for _, _, values in ATTRIBUTES.values())
_SEED = 0
_PACKAGES = ('python_avatars', 'resvg_py')


class Avatars(Builder, skip_registration=True):
  """Faces on white with their nine attributes as columns, and a caption."""

  VERSION = tfds.core.Version('1.0.0')
  SUMMARY = ('Cartoon faces with captions and nine attributes, 64x64 RGB, 10,000 train and 1,000 test, from the '
             'package python-avatars.')
  FEATURES = {'image': tfds.features.Image(shape=(SIDE, SIDE, 3)), 'text': tfds.features.Text(),
              **{name: tfds.features.ClassLabel(names=list(values)) for name, (_, _, values) in ATTRIBUTES.items()}}
  KEEP_ORDER = True

  def read(self) -> dict[str, Any]:
    packages()
    return splits(COUNTS)

  def example(self, row: Any) -> dict[str, Any]:
    return {'image': png(draw(row)), 'text': caption(row), **dict(zip(ATTRIBUTES, row, strict=True))}


def packages() -> tuple[Any, Any]:
  """The modules that draw and render.

  Raises:
    UserError: one is not installed.
  """
  try:
    drawing, rendering = map(importlib.import_module, _PACKAGES)
  except ImportError as error:
    raise UserError(f'avatars are drawn by the packages python-avatars and resvg-py, and {error.name} is not '
                    "installed; run: pip install 'genjax-research[avatars]'") from error
  return drawing, rendering


def splits(counts: Mapping[str, int]) -> dict[str, list[tuple[int, ...]]]:
  """Split -> faces, as the numbers of their attributes; no face is in two of them, or twice in one."""
  most = int(np.prod(_SIZES))
  chosen = np.random.default_rng(_SEED).choice(most, sum(counts.values()), replace=False)
  rows = iter(np.stack(np.unravel_index(chosen, _SIZES), axis=-1).tolist())
  return {split: [tuple(row) for row in itertools.islice(rows, count)] for split, count in counts.items()}


def draw(face: tuple[int, ...], side: int = SIDE) -> np.ndarray:
  """A face on white, uint8 (side, side, 3).

  Raises:
    UserError: the packages are not installed.
  """
  drawing, rendering = packages()
  chosen = {argument: getattr(drawing, kind)[list(values.values())[number]]
            for number, (argument, kind, values) in zip(face, ATTRIBUTES.values(), strict=True)}
  chosen['facial_hair_color'] = chosen['hair_color']
  svg = drawing.Avatar(style=drawing.AvatarStyle.TRANSPARENT, **chosen).render()
  rendered = rendering.svg_to_bytes(svg_string=svg, background='white', height=side, skip_system_fonts=True)
  with Image.open(io.BytesIO(bytes(rendered))) as image:
    face_HWC = np.asarray(image.convert('RGB'))
  before = (side - face_HWC.shape[1]) // 2  # drawings are higher than wide
  return np.pad(face_HWC, ((0, 0), (before, side - face_HWC.shape[1] - before), (0, 0)), constant_values=255)


def caption(face: tuple[int, ...]) -> str:
  """A face in words."""
  return CAPTION.format(**{name: list(values)[number]
                           for number, (name, (_, _, values)) in zip(face, ATTRIBUTES.items(), strict=True)})
