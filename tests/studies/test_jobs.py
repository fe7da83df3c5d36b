"""Processes of a sweep, with commands that only write what a training would leave."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from genjax.runs import lock
from genjax.studies import jobs, listing, shares

ROOT = pathlib.Path(__file__).parent.parent.parent
FINISH = "import json, pathlib; pathlib.Path('summary.json').write_text(json.dumps({'step': 10}))"
EVALUATE = "import json, pathlib; pathlib.Path('evaluation.json').write_text(json.dumps({'card': {'step': 10}}))"


class Lines:
  """An observer that keeps its lines."""

  def __init__(self):
    self.lines, self.most = [], 0

  def say(self, line):
    self.lines.append(line)

  def look(self, active):
    self.most = max(self.most, len(active))


def task(folder, train=FINISH, evaluate='', flags=()):
  command = lambda code: (sys.executable, '-S', '-c', f'import os; os.chdir({str(folder)!r})\n{code}')
  return jobs.Task(folder.name, folder, 10, command(train), command(evaluate) if evaluate else (), flags)


def test_tasks_are_trained_and_evaluated_and_then_there_is_nothing_to_do(tmp_path):
  tasks = [task(tmp_path / name, FINISH + '; print("hello")', EVALUATE) for name in 'abc']
  seen = Lines()
  assert jobs.run(tasks, 2, seen) == ({}, None)
  assert seen.most == 2
  assert [line for line in seen.lines if 'done' in line and 'c: ' in line]
  log = (tmp_path / 'a' / 'job.log').read_text()
  assert '$ ' in log and 'hello' in log
  assert json.loads((tmp_path / 'a' / 'job.json').read_text()) == {'command': 'evaluate', 'exit': 0, 'log': 'job.log',
                                                                   'evaluated': []}
  seen = Lines()
  assert jobs.run(tasks, 2, seen) == ({}, None) and not seen.lines
  again = [task(tmp_path / 'a', 'raise SystemExit(9)', EVALUATE, flags=('--raw',))]  # another evaluation, no training
  assert jobs.run(again, 1, seen) == ({}, None)
  assert seen.lines[0] == 'a: evaluate'


def test_a_failed_task_is_told_with_its_code_and_log_and_stops_no_other(tmp_path):
  tasks = [task(tmp_path / 'bad', 'raise SystemExit(3)'), task(tmp_path / 'good'),
           task(tmp_path / 'killed', 'import os; os.kill(os.getpid(), 9)'), task(tmp_path / 'lazy', 'pass'),
           task(tmp_path / 'unmeasured', FINISH, 'raise SystemExit(2)')]
  failed, stopped = jobs.run(tasks, 1, Lines())
  assert stopped is None and list(failed) == ['bad', 'killed', 'lazy', 'unmeasured']
  assert failed['bad'] == f'train: exit code 3; its log is {tmp_path}/bad/job.log'
  assert failed['killed'].startswith('train: signal 9')
  assert failed['lazy'].startswith('train: stopped before its end')
  assert failed['unmeasured'].startswith('evaluate: exit code 2')
  assert listing.read(tmp_path / 'good', config={'steps': 10}).state == 'finished'
  assert listing.read(tmp_path / 'bad', config={'steps': 10}).state == 'failed'
  # They are tried again, and only they.
  again = [task(tmp_path / name) for name in ('bad', 'good')]
  seen = Lines()
  assert jobs.run(again, 1, seen) == ({}, None)
  assert [line.partition(':')[0] for line in seen.lines] == ['bad', 'bad']


def test_a_run_that_another_process_trains_is_waited_for(tmp_path, monkeypatch):
  folder = tmp_path / 'run'
  folder.mkdir()
  seen = Lines()
  with lock.hold(folder):
    monkeypatch.setattr(jobs, 'PATIENCE', 0.3)
    failed, _ = jobs.run([task(folder)], 1, seen)
  assert 'another process trains in' in failed['run'] and not (folder / 'job.json').exists()
  monkeypatch.setattr(jobs, 'PATIENCE', 60.0)
  with lock.hold(folder):
    found = []
    thread = threading.Thread(target=lambda: found.append(jobs.run([task(folder)], 1, seen)))
    thread.start()
    time.sleep(0.6)
    assert not found
  thread.join(30)
  assert found == [({}, None)]


def test_a_stop_lets_processes_save(tmp_path):
  saves = ("import signal, time, pathlib\n"
           "def save(*_):\n  pathlib.Path('saved').touch()\n  raise SystemExit(0)\n"
           "signal.signal(signal.SIGTERM, save); pathlib.Path('ready').touch(); time.sleep(60)")

  class Stops(Lines):
    def look(self, active):
      if (tmp_path / 'run' / 'ready').exists() and not (tmp_path / 'sent').exists():
        (tmp_path / 'sent').touch()
        os.kill(os.getpid(), signal.SIGINT)

  before = signal.getsignal(signal.SIGINT)
  failed, stopped = jobs.run([task(tmp_path / 'run', saves), task(tmp_path / 'later')], 1, Stops())
  assert (failed, stopped) == ({}, 'SIGINT') and signal.getsignal(signal.SIGINT) is before
  assert (tmp_path / 'run' / 'saved').exists() and not (tmp_path / 'later').exists()


SWEEP = """
import pathlib, sys
from genjax.studies import jobs
class Quiet:
  def say(self, line): print(line, flush=True)
  def look(self, active): pass
folder = pathlib.Path(sys.argv[1])
sleep = "import os, pathlib, time; pathlib.Path(%r, 'pid').write_text(str(os.getpid())); time.sleep(120)" % str(folder)
jobs.run([jobs.Task('run', folder, 10, (sys.executable, '-S', '-c', sleep))], 1, Quiet())
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='the kernel of Linux ends children with their parents')
def test_a_killed_sweep_leaves_no_process_behind(tmp_path):
  folder = tmp_path / 'run'
  sweep = subprocess.Popen([sys.executable, '-c', SWEEP, str(folder)], stdout=subprocess.DEVNULL,
                           env={**os.environ, 'PYTHONPATH': str(ROOT)})
  try:
    wait_for(lambda: (folder / 'pid').exists() and (folder / 'pid').read_text())
    child = int((folder / 'pid').read_text())
    assert lives(child)
  finally:
    sweep.kill()
    sweep.wait()
  wait_for(lambda: not lives(child))


def lives(process):
  try:
    return pathlib.Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
  except OSError:
    return False


def wait_for(condition, seconds=60):
  deadline = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < deadline
    time.sleep(0.02)


def test_jobs_share_cores():
  assert [shares.cores(slot, 3, range(8)) for slot in range(3)] == [[0, 1], [2, 3, 4], [5, 6, 7]]
  assert [shares.cores(slot, 3, (4, 6)) for slot in range(3)] == [[4], [6], [4]]
  assert shares.cores(0, 1, range(4)) == [0, 1, 2, 3] and shares.cores(0, 2, ()) == []


def test_a_job_of_several_keeps_to_its_cores(tmp_path):
  code = f'{FINISH}; import os; print("cores", sorted(os.sched_getaffinity(0)), os.environ.get("OMP_NUM_THREADS"))'
  assert jobs.run([task(tmp_path / 'run', code)], 2, Lines()) == ({}, None)
  cores = shares.cores(0, 2)
  assert f'cores {cores} {os.environ.get("OMP_NUM_THREADS", len(cores))}' in (tmp_path / 'run' / 'job.log').read_text()


def test_jobs_share_accelerators():
  given = {'CUDA_VISIBLE_DEVICES': '0,2,5,7', 'OMP_NUM_THREADS': '4'}
  assert [shares.environment(slot, 2, given)['CUDA_VISIBLE_DEVICES'] for slot in range(2)] == ['0,2', '5,7']
  assert 'OMP_NUM_THREADS' not in shares.environment(0, 2, given)
  assert 'XLA_PYTHON_CLIENT_MEM_FRACTION' not in shares.environment(0, 2, given)
  crowded = [shares.environment(slot, 3, {'CUDA_VISIBLE_DEVICES': '1,3'}) for slot in range(3)]
  assert [found['CUDA_VISIBLE_DEVICES'] for found in crowded] == ['1', '3', '1']
  assert [found.get('XLA_PYTHON_CLIENT_MEM_FRACTION') for found in crowded] == ['0.450', None, '0.450']
  assert shares.environment(0, 1, given) == {}
  assert 'CUDA_VISIBLE_DEVICES' not in shares.environment(0, 2, {**given, 'JAX_PLATFORMS': 'cpu'})
  chips = shares.environment(1, 4, {'CUDA_VISIBLE_DEVICES': '', 'ROCR_VISIBLE_DEVICES': '',
                                    'TPU_VISIBLE_CHIPS': '0,1,2,3'})
  assert chips['TPU_VISIBLE_CHIPS'] == '1' and chips['TPU_PROCESS_BOUNDS'] == '1,1,1'
