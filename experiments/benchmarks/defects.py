"""Writes a data set of defects: characters composed of the sheets of the Liberated Pixel Cup, some with a part blacked
out.

    python -m genjax.experiments.benchmarks.defects --sheets=FOLDER --out=FOLDER
    genjax train --config=configs/autoencoders/defects.py:data=FOLDER --workdir=runs/defects

The sheets are those of YingzhenLi/Sprites: folders body, bottomwear, topwear, hair and shoes of PNG files with frames
of 64 x 64. A character is one of each, on white, in the first frame of the walk to the front. Of the characters drawn,
the first are for training; the others are the good ones of the test, and of as many more the defective ones: a black
rectangle whose sides are a sixth to a third of the picture's covers some place of the figure.
"""

import argparse
import pathlib
import sys

import numpy as np
from PIL import Image

from genjax.types import UserError, expanded

LAYERS = ('body', 'bottomwear', 'topwear', 'hair', 'shoes')  # from the skin to the outside
FRAME, SIZE = 130, 64  # row-major number of the frame, of 13 in a row, and its side


def main(argv: list[str]) -> int:
  """Writes the folder; returns the exit code."""
  parser = argparse.ArgumentParser(prog='defects', description='a data set of sprites with defects')
  parser.add_argument('--sheets', required=True, help='folder with body, bottomwear, topwear, hair and shoes')
  parser.add_argument('--out', required=True, help='a new folder')
  parser.add_argument('--train', type=int, default=2000)
  parser.add_argument('--test', type=int, default=500, help='good pictures, and as many with a defect')
  parser.add_argument('--seed', type=int, default=0)
  args = parser.parse_args(argv)
  out = expanded(args.out)
  if out.exists():
    raise UserError(f'{out} exists; name a new folder')
  layers = _layers(expanded(args.sheets))
  random = np.random.default_rng(args.seed)
  total = args.train + 2 * args.test
  known = np.prod([len(layer) for layer in layers])
  if total > known:
    raise UserError(f'the sheets make {known} characters, and {total} are asked for; ask for fewer')
  chosen = np.unravel_index(random.permutation(known)[:total], [len(layer) for layer in layers])
  places = ['train/good'] * args.train + ['test/good'] * args.test + ['test/defect'] * args.test
  for number, (place, parts) in enumerate(zip(places, zip(*chosen))):
    picture = Image.new('RGBA', (SIZE, SIZE), (0, 0, 0, 0))
    for layer, part in zip(layers, parts):
      picture.alpha_composite(layer[part])
    image_HWC = on_white(np.asarray(picture))
    if place == 'test/defect':
      image_HWC = blacked(image_HWC, np.asarray(picture)[..., 3] > 0, random)
    path = out / place / f'{number:05}.png'
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image_HWC).save(path)
  print(f'{total} pictures in {out}')
  return 0


def on_white(image_HW4: np.ndarray) -> np.ndarray:
  """A picture with transparency on white, uint8 H W 3."""
  alpha_HW1 = image_HW4[..., 3:].astype(np.float32) / 255
  return np.round(image_HW4[..., :3] * alpha_HW1 + 255 * (1 - alpha_HW1)).astype(np.uint8)


def blacked(image_HWC: np.ndarray, figure_HW: np.ndarray, random: np.random.Generator) -> np.ndarray:
  """The picture with a black rectangle around some place of its figure; sides are a sixth to a third of it."""
  height, width = image_HWC.shape[:2]
  rows, columns = np.nonzero(figure_HW)
  place = int(random.integers(len(rows)))
  sides = [int(random.integers(side // 6, side // 3 + 1)) for side in (height, width)]
  top, left = (int(np.clip(centre - part // 2, 0, side - part)) for centre, part, side in
               zip((rows[place], columns[place]), sides, (height, width)))
  changed_HWC = image_HWC.copy()
  changed_HWC[top:top + sides[0], left:left + sides[1]] = 0
  return changed_HWC


def _layers(folder: pathlib.Path) -> list[list[Image.Image]]:
  """The frame of every sheet of every layer."""
  row, column = divmod(FRAME, 13)
  box = (column * SIZE, row * SIZE, (column + 1) * SIZE, (row + 1) * SIZE)
  found = [[Image.open(path).convert('RGBA').crop(box) for path in sorted((folder / name).glob('*.png'))]
           for name in LAYERS]
  if empty := [name for name, layer in zip(LAYERS, found) if not layer]:
    raise UserError(f'{folder / empty[0]} has no .png; expected sheets in the folders {", ".join(LAYERS)}')
  return found


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
