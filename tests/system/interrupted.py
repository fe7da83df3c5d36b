"""A builder around the builder named in INTERRUPTED_EXPERIMENT that kills its own process after step INTERRUPTED_AT.

The process gets signal 9 as soon as the checkpoint of step INTERRUPTED_AFTER is complete, so nothing of it can tidy up.
"""

import dataclasses
import importlib
import os
import pathlib
import signal
import time

from genjax.training import hooks


class Kill(hooks.Hook):
  """Waits for a checkpoint, then kills."""

  def __init__(self, at: int, after: int, workdir: str):
    self.at, self.checkpoint = at, pathlib.Path(workdir) / 'checkpoints' / str(after)

  def after_step(self, run, metrics):
    if run.step == self.at:
      deadline = time.monotonic() + 60
      while not self.checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
      os.kill(os.getpid(), signal.SIGKILL)


def build(config):
  """The experiment, with the hook if the environment asks for it."""
  experiment = importlib.import_module(os.environ['INTERRUPTED_EXPERIMENT']).build(config)
  if 'INTERRUPTED_AT' not in os.environ:
    return experiment
  kill = Kill(int(os.environ['INTERRUPTED_AT']), int(os.environ['INTERRUPTED_AFTER']),
              os.environ['INTERRUPTED_WORKDIR'])
  return dataclasses.replace(experiment, hooks=(kill,))


def options(config):
  """What that builder's config takes."""
  return importlib.import_module(os.environ['INTERRUPTED_EXPERIMENT']).options(config)
