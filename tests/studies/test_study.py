"""A real sweep in small: after SIGKILL of the sweep and of a run, its table is that of an undisturbed one."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from genjax.cli.main import main
from genjax.studies import listing

ROOT = pathlib.Path(__file__).parent.parent.parent
FILE = """
from genjax.configs import quickstart, sweeps

def get_config(arg=None):
  config = quickstart.get_config(arg)
  config.experiment = 'beside'
  return config

def sweep():
  return sweeps.product({'objective.process.name': ('flow', 'vp_cosine')}, sweeps.seeds(2))
"""
BUILDER = """
from genjax.experiments import diffusion
build, options = diffusion.build, diffusion.options
"""
FLAGS = ('--config.steps=300', '--config.checkpoint.every=20', '--config.sample_every=0', '--config.evaluate_every=0',
         '--config.log_every=20')


def command(folder, file):
  return [sys.executable, '-m', 'genjax.cli.main', 'sweep', f'--config={file}:smoke', f'--workdir={folder}', '--jobs=2',
          '--evaluate=--no-samples', *FLAGS]


def start(folder, file):
  return subprocess.Popen(command(folder, file), cwd=folder.parent, env={**os.environ, 'PYTHONPATH': str(ROOT)},
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def in_the_middle(folder):
  """A run that has saved a checkpoint and has not ended, and its process."""
  for path in folder.glob('*/train.lock'):
    run = path.parent
    saved = [step for step in (run / 'checkpoints').glob('*') if step.name.isdigit()]
    if saved and listing.read(run).state == listing.RUNNING:
      return run, json.loads(path.read_text())['process']
  return None


def wait_for(condition, process, seconds=300):
  deadline = time.monotonic() + seconds
  while not (found := condition()):
    assert process.poll() is None, 'the sweep has ended before it could be disturbed'
    assert time.monotonic() < deadline
    time.sleep(0.02)
  return found


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_sweep_that_is_killed_twice_gives_the_table_of_an_undisturbed_one(tmp_path, capsys):
  file = tmp_path / 'study.py'
  file.write_text(FILE)
  (tmp_path / 'beside.py').write_text(BUILDER)
  calm, rough = tmp_path / 'calm', tmp_path / 'rough'
  assert start(calm, file).wait(900) == 0

  sweep = start(rough, file)
  wait_for(lambda: in_the_middle(rough), sweep)
  sweep.kill()
  sweep.wait()
  deadline = time.monotonic() + 30
  # Its processes die with it.
  while any(listing.read(path.parent).state == listing.RUNNING for path in rough.glob('*/train.lock')):
    assert time.monotonic() < deadline
    time.sleep(0.02)

  sweep = start(rough, file)
  run, process = wait_for(lambda: in_the_middle(rough), sweep)
  os.kill(process, signal.SIGKILL)
  assert sweep.wait(900) == 9
  assert json.loads((run / 'job.json').read_text())['exit'] == -signal.SIGKILL
  assert main(['table', str(rough)]) == 0
  assert f'FAILED: {run.name}' in capsys.readouterr().out

  assert start(rough, file).wait(900) == 0
  assert json.loads((run / 'status.json').read_text())['attempt'] >= 2
  for form in ('markdown', 'csv', 'latex'):
    tables = []
    for folder in (calm, rough):
      assert main(['table', str(folder), '--metrics=all', '--baseline=process=flow', f'--format={form}']) == 0
      tables.append(capsys.readouterr().out)
    assert tables[0] == tables[1]
  assert len(tables[0].splitlines()) > 5
  # There is nothing left to do, and another config of a finished run is refused.
  assert start(rough, file).wait(900) == 0
  assert main(['sweep', f'--config={file}:smoke', f'--workdir={rough}', *FLAGS, '--config.model.width=32']) == 2
  assert 'holds another sweep' in capsys.readouterr().err
