"""Flags that several commands have."""

import argparse

from genjax.runs.checkpoints import BEST


def add_step(parser: argparse.ArgumentParser) -> None:
  """Adds the flag that chooses a checkpoint, see `genjax.runs.checkpoints.chosen`."""
  parser.add_argument(
    '--step', type=_step, metavar='N|best',
    help="a checkpoint other than the newest: its step, or 'best', the one with "
    'the best config.checkpoint.best')


def add_averages(parser: argparse.ArgumentParser) -> None:
  """Adds the flags that choose which parameters are used, see `averaged`."""
  which = parser.add_mutually_exclusive_group()
  which.add_argument('--raw', action='store_true', help='use the parameters themselves, not their averages')
  which.add_argument('--average', metavar='NAME',
                     help='use this average of config.ema, not the one that the config evaluates')


def averaged(args: argparse.Namespace) -> bool | str:
  """What the flags of `add_averages` say, for `genjax.training.run.Run.params`."""
  return args.average if args.average is not None else not args.raw


def _step(text: str) -> int | str:
  if text != BEST and not text.isdecimal():
    raise argparse.ArgumentTypeError(f'expected the number of a step, or {BEST!r}, got {text!r}')
  return text if text == BEST else int(text)
