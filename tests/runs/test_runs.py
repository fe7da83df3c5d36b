"""A run directory: one training at a time, more steps for a finished run, random numbers of one kind, strict JSON."""

import json
import math
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from genjax import config as config_lib
from genjax.cli.main import main
from genjax.runs import lock, workdir
from genjax.runs import training as command
from genjax.training import scoring
from genjax.training.run import Run
from genjax.types import UserError

ROOT = pathlib.Path(__file__).parent.parent.parent
VAE = f'--config={ROOT}/configs/autoencoders/digits_vae.py:smoke'
HOLDER = """
import os, pathlib, sys, time
from genjax.runs import lock
with lock.hold(pathlib.Path(sys.argv[1])):
  child = os.fork() if 'fork' in sys.argv else 1
  if child == 0:
    time.sleep(60)
    os._exit(0)
  print(child, flush=True)
  time.sleep(60)
"""


def train(folder, *argv, config=(VAE,)):
  return main(['train', *config, f'--workdir={folder}', '--config.sample_every=0', '--config.evaluate_every=0', *argv])


def refuse(word):
  raise AssertionError(f'{word} is no JSON')


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A finished run of two steps."""
  folder = tmp_path_factory.mktemp('runs') / 'vae'
  assert train(folder) == 0
  return folder


@pytest.fixture
def holder(run):
  """holder(*words) -> a process that trains in the run, as far as its lock tells, and the child that it forked."""
  processes = []

  def start(*words):
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    process = subprocess.Popen([sys.executable, '-c', HOLDER, str(run), *words], stdout=subprocess.PIPE, text=True,
                               env=environment)
    processes.append(process)
    assert process.stdout is not None
    return process, int(process.stdout.readline())

  yield start
  for process in processes:
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_training_is_refused_and_reading_is_not(run, holder, capsys, tmp_path):
  process, _ = holder()
  assert train(run) == 2
  said = capsys.readouterr().err
  assert f'process {process.pid} on host {socket.gethostname()}, since 2' in said and '--workdir' in said
  assert main(['sample', f'--workdir={run}', '--num=2', f'--out={tmp_path / "x.npz"}']) == 0
  assert main(['evaluate', f'--workdir={run}', '--no-samples']) == 0


@pytest.mark.parametrize('words', [(), ('fork',)])
def test_a_killed_training_leaves_no_lock_behind(run, holder, words):
  process, child = holder(*words)
  with pytest.raises(UserError, match=f'process {process.pid} '), lock.hold(run):
    pass
  process.send_signal(signal.SIGKILL)
  process.wait()
  with lock.hold(run):
    assert json.loads((run / lock.NAME).read_text())['process'] == os.getpid()
    with pytest.raises(UserError, match=f'process {os.getpid()} '), lock.hold(run):
      pass
  assert (run / lock.NAME).read_text() == ''
  if child > 1:
    os.kill(child, signal.SIGKILL)


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, capsys):
  def none(*_):
    raise OSError(95, 'Operation not supported')

  monkeypatch.setattr(lock.fcntl, 'flock', none)
  with lock.hold(tmp_path):
    assert 'has no locks (Operation not supported)' in capsys.readouterr().err


def test_an_address_is_no_run_directory(capsys):
  assert train('gs://bucket/run') == 2
  assert 'mount the bucket' in capsys.readouterr().err
  assert not pathlib.Path('gs:').exists()


def leaves(folder):
  _, run = workdir.open_run(str(folder))
  return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(run.state)}


def test_a_finished_run_takes_more_steps_and_ends_in_the_same_bytes(tmp_path, capsys):
  constant = '--config.optimizers.net.schedule=constant'
  assert train(tmp_path / 'grown', '--config.steps=3', constant) == 0
  assert train(tmp_path / 'straight', '--config.steps=6', constant) == 0
  capsys.readouterr()
  assert main(['train', f'--workdir={tmp_path / "grown"}', '--config.steps=6']) == 0
  said = capsys.readouterr().err
  assert 'config.steps grows from 3 to 6. No learning rate depends on it' in said and 'at step 3 of 6' in said
  grown, straight = leaves(tmp_path / 'grown'), leaves(tmp_path / 'straight')
  assert grown.keys() == straight.keys() and int(grown['.step']) == 6
  for name, leaf in straight.items():
    np.testing.assert_array_equal(grown[name], leaf)
  assert json.loads((tmp_path / 'grown' / 'config.json').read_text())['steps'] == 6
  assert json.loads((tmp_path / 'grown' / 'summary.json').read_text())['step'] == 6
  # Now it is a run of 6 steps: the same command does nothing more, fewer are refused, and so is anything else.
  assert main(['train', f'--workdir={tmp_path / "grown"}']) == 0
  capsys.readouterr()
  for more in (['--config.steps=3'], ['--config.steps=9', '--config.optimizers.net.lr=0.5']):
    assert main(['train', f'--workdir={tmp_path / "grown"}', *more]) == 2
  said = capsys.readouterr().err
  assert 'steps: 6 there, 3 now (it may only grow)' in said and 'optimizers.net.lr: 0.001 there, 0.5 now' in said


def test_schedules_that_change_with_the_steps_are_said_and_the_run_is_unfinished_meanwhile(
    run, tmp_path, monkeypatch, capsys):
  folder = tmp_path / 'cosine'
  assert train(folder, '--config.optimizers.net.schedule=cosine') == 0
  seen = []
  original = Run.train_steps
  monkeypatch.setattr(Run, 'train_steps', lambda self, batches: (
    seen.append((folder / 'summary.json').exists()), original(self, batches))[1])
  capsys.readouterr()
  assert main(['train', f'--workdir={folder}', '--config.steps=4']) == 0
  assert 'The learning rates of net (cosine) now end there' in capsys.readouterr().err
  assert seen == [False, False] and (folder / 'summary.json').exists()


def test_schedules_of_parts_are_said_when_the_steps_grow():
  made = config_lib.from_plain({
    'lr':
      1e-3, 'parts': [['a.*', {'frozen': True}], ['b.*', {'name': 'sgd', 'schedule': 'cosine'}],
                      ['c.*', {'name': 'sgd', 'schedule': 'constant'}], ['d.*', {'scale': 0.1}]]
  })
  assert command._schedules(made) == ['cosine']
  assert command._schedules(config_lib.from_plain({'lr': 1e-3})) == []
  assert command._schedules(config_lib.from_plain({'lr': 1e-3, 'schedule': 'linear',
                                                   'parts': made.parts})) == ['linear', 'cosine']
  assert command._schedules(config_lib.from_plain({'lr': 1e-3, 'schedule': 'linear', 'steps': 7})) == []


def test_a_run_without_a_config_of_its_own_needs_one(tmp_path, capsys):
  assert main(['train', f'--workdir={tmp_path / "none"}']) == 2
  assert '--config=FILE' in capsys.readouterr().err


def test_random_numbers_of_another_kind_are_refused_by_name(run, tmp_path, capsys):
  folder = tmp_path / 'run'
  shutil.copytree(run, folder)
  assert json.loads((folder / 'run.json').read_text())['random'] == 'threefry2x32'
  capsys.readouterr()
  with jax.default_prng_impl('rbg'):
    assert train(folder) == 2
    said = capsys.readouterr().err
    assert "'threefry2x32'" in said and "'rbg'" in said
    assert train(tmp_path / 'other') == 0 and train(tmp_path / 'other') == 0
    assert main(['sample', f'--workdir={folder}', '--num=3', f'--out={tmp_path / "rbg.npz"}']) == 0
  assert json.loads((tmp_path / 'other' / 'run.json').read_text())['random'] == 'rbg'
  assert main(['sample', f'--workdir={folder}', '--num=3', f'--out={tmp_path / "threefry.npz"}']) == 0
  np.testing.assert_array_equal(*(np.load(tmp_path / f'{name}.npz')['image'] for name in ('rbg', 'threefry')))


def test_what_a_run_writes_is_strict_json(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(scoring, 'means', lambda batches:
                      ([*batches], {'loss': math.nan, 'bound': math.inf, 'examples': 1.0})[1])
  assert train(tmp_path / 'run') == 0
  capsys.readouterr()
  assert main(['evaluate', f'--workdir={tmp_path / "run"}', '--no-samples']) == 0
  assert json.loads(capsys.readouterr().out,
                    parse_constant=refuse)['metrics'] == {'heldout/loss': None, 'heldout/bound': None}
  found = [path for pattern in ('*.json', '*.jsonl') for path in (tmp_path / 'run').rglob(pattern)]
  assert {'summary.json', 'evaluation.json', 'metrics.jsonl', 'status.json',
          'checksums.json'} <= {path.name for path in found}
  for path in found:
    for text in path.read_text().splitlines() if path.suffix == '.jsonl' else [path.read_text()]:
      if path.name != 'checksums.json':
        json.loads(text, parse_constant=refuse)
  assert json.loads((tmp_path / 'run' / 'summary.json').read_text())['heldout']['loss'] is None


def test_a_config_that_json_cannot_hold_is_refused(tmp_path, capsys):
  assert train(tmp_path / 'run', '--config.optimizers.net.lr=nan') == 2
  assert 'optimizers.net.lr' in capsys.readouterr().err
  assert not (tmp_path / 'run' / 'config.json').exists()


@pytest.mark.parametrize(('name', 'text'), [('config.json', '[]'), ('config.json', 'null'),
                                            ('config.json', '{"architectures": ["GPT2LMHeadModel"], "vocab_size": 5}'),
                                            ('config.json', '{'), ('run.json', '{}'), ('run.json', '[]')])
def test_a_folder_of_something_else_is_no_run(run, tmp_path, capsys, name, text):
  """Such as that of a public model, whose config has the same name."""
  folder = tmp_path / 'other'
  folder.mkdir()
  for file in ('config.json', 'run.json'):
    shutil.copy(run / file, folder / file)
  (folder / name).write_text(text)
  commands = [['sample', f'--workdir={folder}', '--num=1'], ['train', f'--workdir={folder}'],
              ['evaluate', f'--workdir={folder}'], ['plan', f'--config={folder}/config.json']]
  if name == 'config.json':
    commands.append(['train', VAE, f'--workdir={tmp_path / "new"}', f'--config.init_from={folder}'])
  for argv in commands:
    assert main(argv) == 2, argv
    assert str(folder / name) in capsys.readouterr().err
