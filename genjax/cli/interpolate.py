"""`genjax interpolate --workdir=DIR --out=FILE`: pictures on the way between two, or along an attribute.

FILE ends in .png for a sheet of rows, or in .mp4, .webp or .gif for a clip, in which the rows stand side by side and
the ways take place. The run is an autoencoder of pictures: a VAE, or one for latent diffusion. Each row goes from one
held-out picture to another, or from the first to the second of two files after --pictures:

    genjax interpolate --workdir=runs/vae --path=sphere --out=ways.png
    genjax interpolate --workdir=runs/vae --pictures one.png other.png --out=way.png

Of a GAN the ways go between codes drawn at random, the styles of a style-based generator or else its latents; --stops
codes, and in a clip back to the first. Pictures after --pictures are projected into the styles first:

    genjax interpolate --workdir=runs/stylegan2 --stops=4 --points=25 --scale=4 --out=ways.mp4
    genjax interpolate --workdir=runs/stylegan2 --pictures one.png other.png --out=way.png

With --attribute, each row is one picture with less and with more of an attribute: the difference between the mean codes
of held-out pictures that have it and of those that have not, or that have --against:

    genjax interpolate --workdir=runs/vae --attribute=label=3 --against=label=8 --out=threes.png
"""

import argparse
import math
import pathlib

import numpy as np

from genjax import checks
from genjax.cli import flags
from genjax.data.images import decoding, resizing
from genjax.runs import codes, extensions, outputs
from genjax.runs import workdir as workdir_lib
from genjax.training.monitoring import logs
from genjax.types import UserError, expanded


def main(argv: list[str]) -> int:
  """Writes a picture; returns the exit code."""
  args = _parser().parse_args(argv)
  if args.rows < 1 or args.points < 2 or args.examples < 2:
    raise UserError(f'--rows is at least 1, --points and --examples at least 2, got {args.rows}, {args.points} and '
                    f'{args.examples}')
  if args.stops < 2 or args.scale < 1 or not (math.isfinite(args.rate) and args.rate > 0):
    raise UserError('--stops is at least 2, --scale at least 1 and --rate, frames a second, above 0, got '
                    f'{args.stops}, {args.scale} and {args.rate}')
  if not math.isfinite(args.strength):
    raise UserError(f'--strength must be a finite number, got {args.strength}')
  checks.seed('--seed', args.seed)
  if args.pictures and not args.attribute and len(args.pictures) % 2:
    raise UserError(f'--pictures takes pairs of files, the first and the last of each row, got {len(args.pictures)}')
  if args.against and not args.attribute:
    raise UserError(f'--against={args.against} goes with --attribute')
  out = outputs.file(args.out, '--out')
  codes.check_ending(out, '--out')
  config, run = workdir_lib.open_run(args.workdir, args.set, args.step, imports=args.imports)
  made = codes.of(config, run, flags.averaged(args))
  shown = _attribute(made, args) if args.attribute else _ways(made, args)
  workdir_lib.prepare(str(out.parent), '--out')
  codes.save(out, shown, args.rate, args.scale)
  logs.say(f'{len(shown)} rows of {shown.shape[1]} pictures: {out}')
  return 0


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser('genjax interpolate', description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--workdir', required=True, help='a run directory')
  parser.add_argument('--out', required=True, help=', '.join(codes.ENDINGS))
  parser.add_argument('--rows', type=int, default=8, help='how many rows of held-out pictures')
  parser.add_argument('--points', type=int, default=9, help='pictures in a row')
  parser.add_argument('--path', choices=tuple(codes.PATHS),
                      help='straight, or along the sphere; by default straight, between latents of a GAN the sphere')
  parser.add_argument('--stops', type=int, default=2, help='of a GAN: how many random codes a way goes through')
  parser.add_argument('--seed', type=int, default=0, help='of these codes')
  parser.add_argument('--rate', type=float, default=25.0, help='frames a second of a clip')
  parser.add_argument('--scale', type=int, default=1, help='pixels of a file along a side, for one of a picture')
  parser.add_argument('--pictures', nargs='+', metavar='FILE', help='pairs of files in place of held-out pictures')
  parser.add_argument('--attribute', metavar='COLUMN=VALUE', help='go along an attribute of the held-out data')
  parser.add_argument('--against', metavar='COLUMN=VALUE', help='what lacks it; by default all others')
  parser.add_argument('--strength', type=float, default=1.0, help='of an attribute: how far, in its own length')
  parser.add_argument('--examples', type=int, default=2000, help='held-out pictures that an attribute is measured on')
  parser.add_argument('--set', nargs='+', action='extend', default=[], metavar='KEY=VALUE',
                      help='e.g. data.num_classes=10, to read labels')
  flags.add_step(parser)
  extensions.add_flag(parser)
  flags.add_averages(parser)
  return parser


def _ways(made: codes.Codes, args: argparse.Namespace) -> np.ndarray:
  """Rows of pictures between two or more, uint8 N P H W C."""
  path = args.path or getattr(made, 'path', 'line')
  if isinstance(made, codes.Generated) and not args.pictures:
    drawn = made.draw(args.rows * args.stops, args.seed).reshape(args.rows, args.stops, *made.latent)
    return made.through(drawn, args.points, path, closed=not args.out.lower().endswith('.png'))
  if args.stops > 2:
    raise UserError(f'--stops={args.stops} is of ways between random codes of a GAN; others go between two pictures')
  if args.pictures:
    images = np.stack([_read(made, path) for path in args.pictures])
  else:
    images, _ = made.examples(2 * args.rows)
    if len(images) < 2:
      raise UserError(f'a row goes between two pictures, and the held-out data has {len(images)}; name two files by '
                      '--pictures, or more data by --set data.heldout=SPLIT')
  half = len(images) // 2
  pairs = (images[::2], images[1::2]) if args.pictures else (images[:half], images[half:2 * half])
  return made.interpolate(*pairs, points=args.points, path=path)


def _attribute(made: codes.Codes, args: argparse.Namespace) -> np.ndarray:
  """Rows of pictures with less and more of an attribute."""
  has_N, images = _having(made, args.attribute, args.examples)
  if args.against:
    against_N, _ = _having(made, args.against, args.examples)
    chosen_N = has_N | against_N
    has_N, images = has_N[chosen_N], images[chosen_N]
  found = codes.attribute(made.encode(images), has_N)
  logs.say(f'{args.attribute}: {found.with_it} pictures with it, {found.without} without')
  shown = np.stack([_read(made, path) for path in args.pictures]) if args.pictures else images[~has_N][:args.rows]
  return made.along(shown, found.direction, np.linspace(-args.strength, args.strength, args.points))


def _having(made: codes.Codes, text: str, num: int) -> tuple[np.ndarray, np.ndarray]:
  """Which held-out pictures have the value of a column, and the pictures."""
  column, equals, value = text.partition('=')
  if not equals:
    raise UserError(f'an attribute is COLUMN=VALUE, such as label=3, got {text!r}')
  images, values = made.examples(num, column)
  assert values is not None
  return np.asarray([str(one) == value for one in values]), images


def _read(made: codes.Codes, path: str) -> np.ndarray:
  """A picture file at the size of the run, upright, and with white behind transparent pixels."""
  try:
    pixels = decoding.decode(pathlib.Path(expanded(path)).read_bytes(), made.shape[2])
  except (OSError, decoding.Broken) as error:
    raise UserError(f'{path} cannot be read as a picture: {error}') from error
  return resizing.resize(pixels, made.shape, 'bilinear')
