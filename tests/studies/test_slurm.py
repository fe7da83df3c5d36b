"""A sweep on a real Slurm of one node, which the test sets up and takes down."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

from genjax.studies import listing, queues

ROOT = pathlib.Path(__file__).parent.parent.parent
SPEC = importlib.util.spec_from_file_location('slurm_server', pathlib.Path(__file__).with_name('slurm_server.py'))
slurm_server = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(slurm_server)

FILE = """
from genjax.configs import quickstart, sweeps

def get_config(arg=None):
  return quickstart.get_config(arg)

def sweep():
  return sweeps.product({'objective.process.name': ('flow', 'vp_cosine')}, sweeps.seeds(2))
"""
FLAGS = ('--config.steps=60', '--config.checkpoint.every=10', '--config.sample_every=0', '--config.evaluate_every=0',
         '--config.log_every=10')
LONG = 'process=vp_cosine,seed=1'  # the run that is cancelled


@pytest.fixture(scope='module')
def server():
  if why := slurm_server.missing():
    pytest.skip(why)
  with slurm_server.started() as folder:
    yield folder


@pytest.fixture
def environment(tmp_path, monkeypatch):
  """The variables of jobs; `genjax` is a command in them."""
  folder = tmp_path / 'bin'
  folder.mkdir()
  (folder / 'genjax').write_text(f'#!/bin/sh\nexec {sys.executable} -m genjax.cli.main "$@"\n')
  (folder / 'genjax').chmod(0o755)
  monkeypatch.setenv('PATH', f'{folder}:{os.environ["PATH"]}')
  monkeypatch.setenv('PYTHONPATH', str(ROOT))
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  return folder


def genjax(*arguments, code=0):
  done = subprocess.run([sys.executable, '-m', 'genjax.cli.main', *map(str, arguments)], capture_output=True, text=True,
                        check=False, timeout=900)
  assert done.returncode == code, done.stdout + done.stderr
  return done.stdout


def wait_for(condition, folder, seconds=600):
  deadline = time.monotonic() + seconds
  while not (found := condition()):
    logs = '\n'.join(path.read_text(errors='replace')[-2000:] for path in sorted(folder.glob('.sweep/slurm/*.log')))
    assert time.monotonic() < deadline, f'{slurm_server.ask("squeue")}\n{logs}'
    time.sleep(0.2)
  return found


def jobs_in_queue():
  return slurm_server.ask('squeue', '--noheader', '--array', '--format=%i').split()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_sweep_is_a_job_array_and_what_was_cancelled_is_submitted_again(server, environment, tmp_path):
  (tmp_path / 'study.py').write_text(FILE)
  template = tmp_path / 'template.sh'
  template.write_text('#!/bin/bash\n#SBATCH --time=1:00:00\n#SBATCH --cpus-per-task=1\nexport FROM_TEMPLATE=yes\n')
  folder = tmp_path / 'runs'
  command = ('sweep', f'--config={tmp_path}/study.py:smoke', f'--workdir={folder}', '--evaluate=--no-samples',
             f'--slurm={template}', *FLAGS)
  script = genjax(*command, '--list')
  assert '#SBATCH --array=0-3' in script and f'#   3  {LONG}' in script and not folder.exists()

  # All tasks are held first, so that their state in the queue can be seen, and one cancelled while it waits.
  template.write_text(template.read_text().replace('#SBATCH --time', '#SBATCH --hold\n#SBATCH --time'))
  said = genjax(*command, '--jobs=2')
  job, = {entry.partition('_')[0] for entry in jobs_in_queue()}
  assert f'4 of 4 runs submitted as job array {job}' in said and len(jobs_in_queue()) == 4
  shown = genjax('runs', folder)
  assert shown.count(' queued (job ') == 4 and f'{LONG}' in shown and f'(job {job}_3)' in shown
  assert '4 in the queue' in genjax(*command)
  subprocess.run(['scontrol', 'release', job], check=True)

  run = folder / LONG
  saved = lambda: [step for step in (run / 'checkpoints').glob('*') if step.name.isdigit()]
  wait_for(lambda: saved() and listing.read(run).state == 'running' or (run / 'summary.json').exists(), folder)
  assert f'job {job}_3' in listing.read(run).doing
  subprocess.run(['scancel', f'{job}_3'], check=True)
  wait_for(lambda: not jobs_in_queue(), folder)
  queues.forget()
  states = {path.name: listing.read(path) for path in listing.find(folder)}
  assert states[LONG].state == 'interrupted' and states[LONG].doing == f'job {job}_3 has ended', states[LONG]
  assert [info.state for name, info in states.items() if name != LONG] == ['finished'] * 3

  template.write_text(template.read_text().replace('#SBATCH --hold\n', ''))
  said = genjax(*command, '--wait')
  assert '1 of 4 runs submitted' in said.replace('\n', ' ')
  facts = json.loads((run / 'job.json').read_text())
  assert facts['exit'] == 0 and facts['command'] == 'evaluate' and facts['job'] != f'{job}_3'
  assert json.loads((run / 'status.json').read_text())['attempt'] == 2
  assert listing.read(run).state == 'finished'
  assert 'nothing to submit: 4 of 4 runs are finished' in genjax(*command)
  assert 'Unfinished' not in genjax('table', folder)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_recipe_trains_one_run_with_two_processes(server, environment, tmp_path):
  folder = tmp_path / 'run'
  flags = ('--nodes=1', '--ntasks-per-node=2', '--cpus-per-task=1', '--gpus-per-node=0', '--time=1:00:00',
           f'--output={tmp_path}/log')
  done = subprocess.run(['sbatch', '--parsable', *flags, str(ROOT / 'docs' / 'launch' / 'slurm.sbatch'),
                         f'--config={ROOT}/configs/quickstart.py:smoke', f'--workdir={folder}',
                         '--config.batch_size=16', '--start_timeout=600'], capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  job = done.stdout.strip()
  wait_for(lambda: job not in jobs_in_queue(), tmp_path)
  log = (tmp_path / 'log').read_text()
  assert json.loads((folder / 'summary.json').read_text())['step'] == 2, log
  # Two processes have a part of every checkpoint each.
  parts = {path.name for path in (folder / 'checkpoints').glob('*/**/ocdbt.process_*')}
  assert parts == {'ocdbt.process_0', 'ocdbt.process_1'}, log
