"""One picture of samples from several runs, side by side: the picture of the README.

    python -m genjax.experiments.benchmarks.gallery --out=docs/samples.png \\
        runs/mnist_flow runs/mnist_vae runs/mnist_gan runs/shakespeare
"""

import argparse
from collections.abc import Sequence
import sys
import textwrap

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from genjax import artifacts
from genjax.experiments import render
from genjax.runs import outputs, workdir
from genjax.training.monitoring import logs
from genjax.types import UserError, expanded

FONT_SIZE = 13
MARGIN = 12


def main(argv: Sequence[str]) -> None:
  """Draws samples from every run and writes the picture; exits with 2 on bad input."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('workdirs', nargs='+', help='run directories')
  parser.add_argument('--out', required=True, type=expanded, help='a .png file')
  parser.add_argument('--num', type=int, default=64,
                      help='images of each run; of a run that generates text, the first one is shown')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--height', type=int, default=456, help='of the picture, in pixels')
  args = parser.parse_args(argv)
  try:
    if args.out.suffix != '.png':
      raise UserError(f'--out takes a .png file, got {args.out}')
    outputs.file(str(args.out), '--out')
    panels = [panel(path, args.num, args.seed, args.height) for path in args.workdirs]
  except UserError as error:
    parser.error(str(error))
  logs.say(f'wrote {artifacts.write(args.out, beside(panels))}')


def panel(path: str, num: int, seed: int, height: int) -> np.ndarray:
  """Samples of a run as one picture, uint8 height x W x 3.

  Raises:
    UserError: the run cannot be opened, or generates neither images nor text.
  """
  _, run = workdir.open_run(path)
  samples = run.sample(num, seed)
  if 'image' in samples:
    return image_panel(samples['image'], height)
  texts = [value for value in run.experiment.render(samples).values() if isinstance(value, str)]
  if not texts:
    raise UserError(f'{path} generates neither images nor text, but {sorted(samples)}')
  return text_panel(texts[0], height)


def image_panel(image_NHWC: np.ndarray, height: int) -> np.ndarray:
  """A grid of images, uint8 N H W C, scaled to `height` pixels; uint8 H W 3."""
  sheet_HWC = render.grid(image_NHWC, gap=2, enlarge=2)
  picture = Image.fromarray(sheet_HWC.squeeze(-1) if sheet_HWC.shape[-1] == 1 else sheet_HWC).convert('RGB')
  return np.asarray(picture.resize((round(picture.width * height / picture.height), height), Image.Resampling.LANCZOS))


def text_panel(text: str, height: int, width: int = 380) -> np.ndarray:
  """The beginning of a text, black on white, as much as fits; uint8 height x width x 3."""
  font = ImageFont.load_default(FONT_SIZE)
  columns = int((width - 2 * MARGIN) / font.getlength('n'))
  lines = [part for line in text.splitlines() for part in textwrap.wrap(line, columns) or ['']]
  spacing = FONT_SIZE + 5
  picture = Image.new('RGB', (width, height), 'white')
  draw = ImageDraw.Draw(picture)
  for index, line in enumerate(lines[:(height - 2 * MARGIN) // spacing]):
    draw.text((MARGIN, MARGIN + index * spacing), line, 'black', font)
  return np.asarray(picture)


def beside(panels: Sequence[np.ndarray], gap: int = 14) -> np.ndarray:
  """Panels of one height from left to right, white between them."""
  space = np.full((panels[0].shape[0], gap, 3), 255, np.uint8)
  return np.concatenate([part for panel in panels for part in (space, panel)][1:], axis=1)


if __name__ == '__main__':
  main(sys.argv[1:])
