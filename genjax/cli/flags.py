"""Flags that several commands have."""

import argparse

from genjax.runs.checkpoints import BEST


def add_step(parser: argparse.ArgumentParser) -> None:
  """Adds the flag that chooses a checkpoint, see `genjax.runs.checkpoints.chosen`."""
  parser.add_argument(
    '--step', type=_step, metavar='N|best',
    help="a checkpoint other than the newest: its step, or 'best', the one with "
    'the best config.checkpoint.best')


def _step(text: str) -> int | str:
  if text != BEST and not text.isdecimal():
    raise argparse.ArgumentTypeError(f'expected the number of a step, or {BEST!r}, got {text!r}')
  return text if text == BEST else int(text)
