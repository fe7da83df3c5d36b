"""What runs are doing, read from their folders."""

import io
import json
import os
import socket

import pytest
import rich.console

from genjax.cli.main import main
from genjax.runs import lock
from genjax.studies import board, listing


def test_states(tmp_path, fake_run):
  waiting = listing.read(tmp_path / 'none', 'none', {'steps': 10, 'experiment': 'a.vae'})
  assert (waiting.state, waiting.experiment, waiting.steps, waiting.eta) == ('waiting', 'vae', 10, None)
  finished = listing.read(fake_run(tmp_path / 'finished', loss=1.0))
  assert (finished.state, finished.step, finished.experiment) == ('finished', 10, 'diffusion')
  interrupted = listing.read(fake_run(tmp_path / 'interrupted', step=4))
  assert (interrupted.state, interrupted.step) == ('interrupted', 4)
  assert interrupted.eta == pytest.approx(2.5 / 4 * 6)  # start-up and compilation are done
  grown = listing.read(fake_run(tmp_path / 'grown', {'steps': 20}, loss=1.0))
  assert grown.state == 'interrupted'
  failed = listing.read(fake_run(tmp_path / 'failed', step=3, job={'command': 'train', 'exit': -9}))
  assert (failed.state, failed.doing) == ('failed', 'train: signal 9')
  unmeasured = listing.read(fake_run(tmp_path / 'odd', loss=1.0, job={'command': 'evaluate', 'exit': 2}))
  assert (unmeasured.state, unmeasured.doing) == ('finished', 'evaluate: exit code 2')


def test_a_failure_is_known_until_the_run_goes_on(tmp_path, fake_run):
  folder = fake_run(tmp_path / 'run', step=3)
  event = lambda kind, text: json.dumps({'time': '', 'step': 3, 'event': kind, 'text': text}) + '\n'
  (folder / 'events.jsonl').write_text(event('started', '') + event('failed', 'NonFiniteError: loss is nan\nmore'))
  found = listing.read(folder)
  assert (found.state, found.doing) == ('failed', 'NonFiniteError: loss is nan')
  with open(folder / 'events.jsonl', 'a') as file:
    file.write(event('resumed', ''))
  assert listing.read(folder).state == 'interrupted'
  (folder / 'events.jsonl').write_text('{"event": "fail')
  assert listing.read(folder).state == 'interrupted'


def test_a_run_is_running_while_its_process_lives(tmp_path, fake_run):
  folder = fake_run(tmp_path / 'run', step=4)
  with lock.hold(folder):
    assert listing.read(folder).state == 'running'
    said = json.loads((folder / lock.NAME).read_text())
    assert lock.is_held(folder)
  assert listing.read(folder).state == 'interrupted' and not lock.is_held(folder)
  # A killed process leaves its word, and its number may by now be another process's.
  for process, since in ((2**22 + 1, said['since']), (os.getpid(), '2001-01-01T00:00:00+00:00')):
    (folder / lock.NAME).write_text(json.dumps({**said, 'process': process, 'since': since}))
    assert listing.read(folder).state == 'interrupted'
  (folder / lock.NAME).write_text(json.dumps({**said, 'host': f'not-{socket.gethostname()}'}))
  assert (listing.read(folder).state, listing.read(folder).doing) == ('running', f'on not-{socket.gethostname()}')
  os.utime(folder / 'status.json', (1, 1))
  assert listing.read(folder).state == 'interrupted'


def test_runs_prints_a_table(tmp_path, fake_run, capsys):
  fake_run(tmp_path / 'deep' / 'b', loss=0.5, curve=[(5, 0.7), (10, 0.5)])
  facts = json.loads((tmp_path / 'deep' / 'b' / 'run.json').read_text())
  (tmp_path / 'deep' / 'b' / 'run.json').write_text(json.dumps({**facts, 'named': 'configs/mine.py:depth=3'}))
  fake_run(tmp_path / 'a', step=4)
  fake_run(tmp_path / '.hidden' / 'c')
  fake_run(tmp_path / 'a' / 'checkpoints' / 'd')
  assert main(['runs', str(tmp_path)]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert 'diffusion' in lines[1] and 'configs/mine.py:depth=3' in lines[2]
  assert [line.split()[0] for line in lines] == ['run', 'a', 'deep/b']
  assert 'interrupted' in lines[1] and '4/10' in lines[1] and '00:03' in lines[1]
  assert 'finished' in lines[2] and 'net/loss 0.5' in lines[2] and 'kB' in lines[2]
  assert main(['runs', str(tmp_path / 'a'), '--json']) == 0
  found = json.loads(capsys.readouterr().out)[0]
  assert (found['run'], found['step'], found['state']) == ('a', 4, 'interrupted') and found['disk_bytes'] > 1000


def test_bad_folders(tmp_path, capsys):
  for argv, said in (([f'{tmp_path}/none'], 'is no folder'), ([str(tmp_path)], 'holds no runs'),
                     ([str(tmp_path), '--watch', '--json'], 'leave out --watch')):
    assert main(['runs', *argv]) == 2
    assert said in capsys.readouterr().err


def test_watch_ends_with_an_interrupt(tmp_path, fake_run, monkeypatch, capsys):
  fake_run(tmp_path / 'a', loss=1.0)
  monkeypatch.setattr(board, 'SECONDS', 0.0)
  looks = []

  def sleep(seconds):
    looks.append(seconds)
    if len(looks) == 2:
      raise KeyboardInterrupt

  monkeypatch.setattr('genjax.cli.runs.time.sleep', sleep)
  assert main(['runs', str(tmp_path), '--watch']) == 0
  assert capsys.readouterr().out == '1 finished\n'  # a second look at the same says nothing


def test_a_terminal_gets_one_table_and_a_file_gets_lines(monkeypatch):
  class Terminal(io.StringIO):
    def isatty(self):
      return True

  monkeypatch.setenv('TERM', 'xterm')
  file = Terminal()
  monkeypatch.setattr(board.time, 'monotonic', iter(range(0, 1000, 5)).__next__)
  rows = lambda active: [['r', 'running', '1/2', '', f'loss {len(active)}']]
  with board.Board(rows, lambda active: 'all', file=file) as shown:
    shown.say('a line')
    shown.look(['r'])
  assert 'a line' in file.getvalue() and 'loss 1' in file.getvalue() and '\x1b[' in file.getvalue()


def test_what_does_not_fit_the_terminal_is_what_is_finished(monkeypatch):
  monkeypatch.setenv('LINES', '10')
  monkeypatch.setenv('COLUMNS', '100')
  states = ['finished'] * 20 + ['running (step)', 'failed (x)', 'waiting'] + ['finished'] * 20
  rows = [[f'run{index}', state, '', '', ''] for index, state in enumerate(states)]
  file = io.StringIO()
  shown = board.Board(lambda active: rows, lambda active: 'all', file=file)
  rich.console.Console(file=file, width=100).print(shown._draw())
  lines = file.getvalue().splitlines()
  assert [line.split()[0] for line in lines[1:-1]] == ['run0', 'run1', 'run2', 'run20', 'run21', 'run22']
  assert lines[-1].strip() == 'all; 37 runs are not shown'


def test_damaged_files_are_no_end(tmp_path, fake_run):
  folder = fake_run(tmp_path / 'run', step=4)
  (folder / 'metrics.jsonl').write_text('{"step": 3, "net/loss": 0.5}\n{"step": 4, "net/lo')
  (folder / 'status.json').write_text('{"step": ')
  found = listing.read(folder)
  assert found.metrics == {'net/loss': 0.5} and found.step == 0
  assert listing.headline(found.metrics) == 'net/loss 0.5'


def test_files_of_other_programs_that_are_called_alike(tmp_path, fake_run, capsys):
  fake_run(tmp_path / 'a', loss=0.5)
  other = fake_run(tmp_path / 'b')
  (other / 'config.json').write_text('{"steps": null}')
  (other / 'status.json').write_text('{"step": "first"}')
  (other / 'summary.json').write_text('{"step": "last"}')
  assert [(info.name, info.step, info.steps, info.state) for info in map(listing.read, listing.find(tmp_path))] == [
    ('a', 10, 10, 'finished'), ('b', 0, 0, 'interrupted')]
