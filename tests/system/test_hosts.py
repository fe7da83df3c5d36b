"""Several processes train the run of one process, whatever their number, and end with a name when one of them dies."""

import json
import os
import pathlib
import re
import shutil
import signal
import sys
import time

import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from processes import ROOT, finish, free_port, genjax, start

CONFIGS = {
  'quickstart': ('genjax.experiments.diffusion', ['--config.data.train=train[:320]',
                                                  '--config.data.heldout=test[:16]']),
  'language/python_code': ('genjax.experiments.language', ['--config.data.heldout=validation[:2]'])
}


def train(name, workdir, processes, devices, *overrides):
  """Trains 20 steps of 16 examples; returns the loss of each step that was run, and the indices used, by step."""
  experiment, own = CONFIGS[name]
  folder = workdir.parent / f'{workdir.name}-indices'
  folder.mkdir(exist_ok=True)
  before = set(folder.iterdir())
  genjax('train', f'--config={ROOT}/configs/{name}.py:smoke', f'--workdir={workdir}', '--config.experiment=recorded',
         '--config.steps=20', '--config.batch_size=16', '--config.checkpoint.every=10', '--config.evaluate_every=0',
         '--config.sample_every=0', *own, *overrides, processes=processes, devices=devices,
         RECORDED_EXPERIMENT=experiment, RECORDED_FOLDER=str(folder))
  lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  losses = {
    line['step']: line[key] for line in lines for key in line if key.endswith('/loss') and not key.startswith('heldout')
  }
  files = set(folder.iterdir()) - before
  assert len(files) == processes
  used = {}
  for file in sorted(files):
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert all(len(row['indices']) == 16 // processes for row in rows), 'each process loads its rows only'
    for row in rows:
      used.setdefault(row['step'] + 1, []).extend(row['indices'])
  return losses, used


def as_if_stopped_at(step, workdir, copy):
  """A copy of a run in the state in which a kill after its checkpoint of `step` leaves it."""
  shutil.copytree(workdir, copy)
  for folder in (copy / 'checkpoints').iterdir():
    if int(folder.name) > step:
      shutil.rmtree(folder)
  (copy / 'summary.json').unlink()
  return copy


@pytest.mark.slow
@pytest.mark.each_network
@pytest.mark.parametrize('name', CONFIGS)
def test_two_processes_train_as_one_and_one_or_four_go_on(tmp_path, name):
  losses, used = train(name, tmp_path / 'one', 1, 8)
  assert sorted(losses) == sorted(used) == list(range(1, 21))
  two_losses, two_used = train(name, tmp_path / 'two', 2, 4)
  assert two_losses == pytest.approx(losses, rel=1e-5)
  assert two_used == used
  for processes, devices in ((1, 8), (4, 2)):
    copy = as_if_stopped_at(10, tmp_path / 'two', tmp_path / f'on-{processes}')
    more_losses, more_used = train(name, copy, processes, devices)
    assert sorted(more_used) == list(range(11, 21)), 'only the steps that were missing are run'
    assert more_losses == pytest.approx(losses, rel=1e-5)
    everything = sorted(sum([*(two_used[step] for step in range(1, 11)), *more_used.values()], []))
    assert len(set(everything)) == len(everything) == 320
    if name == 'quickstart':
      assert everything == list(range(320)), 'the examples of an epoch are each used exactly once'

  if name == 'quickstart':
    # Sampling and evaluating on two processes give what one gives; only the first speaks.
    judge = [
      '--set', 'evaluation.classifier=digits_classifier:smoke', 'evaluation.num_samples=20', 'evaluation.neighbours=10'
    ]
    for command, arguments in (('sample', ['--num=5', '--conditions=label=3,4']), ('evaluate', judge)):
      results = []
      for processes in (2, 1):  # two train the classifier that judges samples
        out = tmp_path / f'samples-{processes}.npz'
        argv = [
          command, f'--workdir={tmp_path / "two"}', *arguments, *([f'--out={out}'] if command == 'sample' else [])
        ]
        first, *others = genjax(*argv, processes=processes, devices=8 // processes,
                                RECORDED_EXPERIMENT=CONFIGS[name][0], RECORDED_FOLDER=str(tmp_path),
                                GENJAX_CACHE=str(tmp_path / 'cache'))
        assert not any(text.strip() for text in others)
        results.append(np.load(out)['image'].astype(int) if command == 'sample' else json.loads(first)['metrics'])
      if command == 'sample':
        assert results[0].shape == (5, 8, 8, 1) and np.abs(results[0] - results[1]).max() <= 1
      else:
        assert set(results[0]) == set(results[1]) and 'samples/label_agreement' in results[0]
        heldout = [{key: value for key, value in result.items() if key.startswith('heldout/')} for result in results]
        assert heldout[1] == pytest.approx(heldout[0], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('dies', [0, 1])
def test_a_killed_process_ends_the_other_with_its_name(tmp_path, dies):
  started = start([
    '-m', 'genjax.cli.main', 'train', f'--config={ROOT}/configs/quickstart.py:smoke', f'--workdir={tmp_path / "run"}',
    '--config.steps=100000', '--config.evaluate_every=0', '--config.sample_every=0', '--config.checkpoint.every=0'
  ], 2, 4)
  try:
    deadline = time.monotonic() + 200
    log = tmp_path / 'run' / 'metrics.jsonl'
    while not (log.exists() and len(log.read_text().splitlines()) > 3):
      assert time.monotonic() < deadline and all(process.poll() is None for process in started)
      time.sleep(0.1)
    os.kill(started[dies].pid, signal.SIGKILL)
    killed = time.monotonic()
    started[1 - dies].wait(timeout=60)
    assert time.monotonic() - killed < 15
  finally:
    ended = finish(started)
  code, _, said = ended[1 - dies]
  assert code == 7
  assert f'process {dies} (host ' in said and f'pid {started[dies].pid}) is lost' in said


def worker(word, **options):
  return start([str(ROOT / 'tests' / 'system' / 'worker.py')], 2, 4, WORKER=word, **options)


def test_processes_agree_and_hold_their_rows():
  for code, _, said in finish(worker('talk rows')):
    assert code == 0, said


@pytest.mark.slow
def test_a_process_that_is_late_is_waited_for():
  for code, _, said in finish(worker('late')):
    assert code == 0, said


@pytest.mark.slow
def test_all_stop_after_the_same_step_when_one_gets_sigterm():
  started = worker('stop')
  for line in started[0].stdout:
    if line == 'step 5\n':
      started[1].send_signal(signal.SIGTERM)
      break
  ended = finish(started, timeout=120)
  assert [code for code, _, _ in ended] == [0, 0], ended
  last = {output.splitlines()[-1] for _, output, _ in ended}
  assert len(last) == 1 and last.pop().startswith('stopped at ')


@pytest.mark.slow
@pytest.mark.parametrize('word, message', [
  ('wait', r'process 1 \(host .*, pid \d+\) did not come in time to where the others wait: where one is missing'),
  ('silent', r'process 1 \(host .*, pid \d+\): no sign of life for 3 s'),
])
def test_a_process_that_does_not_come_or_hangs_is_named(word, message):
  started = worker(word, peer_timeout=3)
  try:
    started[0].wait(timeout=60)
  finally:
    started[1].kill()  # 'silent' has stopped itself
    (code, _, said), _ = finish(started)
  assert code == 7 and re.search(message, said), said


@pytest.mark.slow
def test_a_start_without_some_names_them(tmp_path):
  argv = ['-m', 'genjax.cli.main', 'train', f'--config={ROOT}/configs/quickstart.py:smoke', f'--workdir={tmp_path}']
  (code, _, said), = finish(start(argv, 4, 1, only=[0], start_timeout=2))
  assert code == 7 and 'processes 1, 2, 3 of 4 did not come' in said and 'within 2 s' in said
  (code, _, said), = finish(start(argv, 2, 1, only=[1], start_timeout=2))
  assert code == 7 and 'process 0 of 2 did not open 127.0.0.1:' in said and 'within 2 s' in said


@pytest.mark.slow
def test_processes_of_different_configs_end_with_the_key(tmp_path):
  started = []
  argv = ['-m', 'genjax.cli.main', 'train', f'--config={ROOT}/configs/quickstart.py:smoke', f'--workdir={tmp_path}']
  port = free_port()
  for process in (0, 1):
    started += start([*argv, f'--config.seed={process}'], 2, 1, only=[process], port=port)
  for code, _, said in finish(started):
    assert code == 2 and 'config.seed is 1 there and 0 in process 0' in said, said
