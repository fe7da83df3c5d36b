"""The checkpoints of a run directory, and how a user names one: RUN_DIR@STEP, a step, or 'best'."""

import os
import pathlib

from genjax.config import Config
from genjax.training.checkpoints.checkpoint import Checkpoints
from genjax.types import UserError, expanded

BEST = 'best'  # in the place of a step


def of_run(workdir: pathlib.Path, config: Config, at_once: int = 0) -> Checkpoints:
  """The checkpoints of a run, kept as its config says; `at_once`: see `Checkpoints`."""
  options = {key: value for key, value in config.checkpoint.items() if key != 'every'}
  return Checkpoints(workdir / 'checkpoints', **options, at_once=at_once)


def chosen(saved: Checkpoints, step: int | str | None) -> int | None:
  """The step that a user names; None for the newest.

  Raises:
    UserError: the best one is asked for, and the run has none.
  """
  return saved.best_step() if step == BEST else None if step is None else int(step)


def run_and_step(text: str, where: str = 'config.init_from') -> tuple[pathlib.Path, int | None]:
  """The folder and the step of RUN_DIR or RUN_DIR@STEP; where there is a folder of the whole name, with its @, it is
  that one. `where` is the key of the config, for messages.

  Raises:
    UserError: there is the folder before the last @, and what comes after it is no step.
  """
  whole = expanded(text)
  path, at, step = text.rpartition('@')
  if not at or whole.exists() or os.sep in step:
    return whole, None
  if not (step.isascii() and step.isdecimal()):
    if not expanded(path).exists():
      return whole, None
    raise UserError(f'{where}={text!r}: expected RUN_DIR or RUN_DIR@STEP, and {step!r} is no step')
  return expanded(path), int(step)
