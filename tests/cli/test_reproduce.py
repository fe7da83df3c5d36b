"""`genjax reproduce`: what is run, what is said of it, and with which exit code."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

from genjax.cli.main import main
from genjax.runs import workdir as workdir_lib
from genjax.studies import listing, reproducing

ROOT = pathlib.Path(__file__).parent.parent.parent
ROWS = """
from genjax.studies.baselines import Metric, Row
ROWS = (
  Row('tiny', 'configs/quickstart.py:smoke', (Metric('heldout/loss', ({low}, {high}), label='loss'),), minutes=0.2,
      overrides={{'steps': {steps}, 'checkpoint.every': {every}, 'evaluate_every': 0, 'sample_every': 0}},
      evaluate=('--no-samples',)),
  Row('words', 'configs/audio/spoken_digits.py:smoke', (Metric('recognition/wer', (None, 1.0)),), minutes=0.2,
      data=('free_spoken_digits',)),
  Row('big', 'configs/quickstart.py:smoke', (Metric('heldout/loss', (None, 1.0)),), accelerator_minutes=1.0),
)
"""


@pytest.fixture
def rows(tmp_path):
  """rows(high, ...) -> the flags for a file of three small rows, and the folder of their runs."""

  def write(high=100.0, low=0.0, steps=2, every=2):
    path = tmp_path / 'rows.py'
    path.write_text(ROWS.format(high=high, low=low, steps=steps, every=every))
    return [f'--rows={path}', f'--workdir={tmp_path / "runs"}']

  return write


def finish(flags, loss=1.5):
  """Leaves the folders that training and evaluating the row `tiny` leave."""
  file, workdir = (pathlib.Path(flag.partition('=')[2]) for flag in flags)
  table = reproducing.own_rows(file)
  planned = reproducing.plan(table, table['tiny'], workdir, None)
  reproducing.sweeps.write(planned.sweep, planned.folder)
  run = planned.folder / 'seed=0'
  run.mkdir()
  facts = {'versions': {'jax': '0.10.2'}, 'source': workdir_lib.source(), 'devices': '1 x cpu', 'paths': ['/a']}
  files = {'config.json': planned.sweep.settings[0].config, 'run.json': facts,
           'summary.json': {'step': 2, 'seconds': 3.0}, 'job.json': {'evaluated': ['--no-samples']},
           'evaluation.json': {'metrics': {'heldout/loss': loss}, 'card': {'step': 2, 'folder': '/a/b'}}}
  for name, value in files.items():
    (run / name).write_text(json.dumps(value))
  return run


def test_a_finished_row_is_compared_and_a_falsified_band_exits_1_and_says_by_how_much(rows, capsys, tmp_path):
  run = finish(rows())
  assert main(['reproduce', 'tiny', *rows()]) == 0
  assert '0 to do' in capsys.readouterr().out
  assert main(['reproduce', 'tiny', *rows(high=1.25)]) == 1
  said = capsys.readouterr()
  assert 'genjax reproduce: tiny: loss is 1.5, above 1.25 by 0.25' in said.err and 'outside' in said.out
  assert not (run / 'job.log').exists()  # nothing was run again
  kept = json.loads((tmp_path / 'runs' / 'tiny' / 'result.json').read_text())['runs']['0']
  assert kept['values'] == {'heldout/loss': 1.5} and kept['card'] == {'step': 2, 'folder': 'b'}
  shutil.move(tmp_path / 'runs', tmp_path / 'elsewhere')  # results move, with what makes them
  assert main(['reproduce', 'tiny', rows()[0], f'--workdir={tmp_path / "elsewhere"}']) == 0


def test_missing_data_is_said_first_and_the_rest_is_done(rows, capsys):
  finish(rows())
  assert main(['reproduce', 'words', 'tiny', 'big', *rows()]) == 1
  said = capsys.readouterr()
  assert 'words is not run: free_spoken_digits is read from its original files' in said.err
  assert 'big is not run: it needs an accelerator' in said.err
  assert '1 rows, 1 runs' in said.out and 'inside' in said.out
  assert 'words: seed 0: free_spoken_digits' in said.err and 'big: seed 0: it needs an accelerator' in said.err
  assert 'tiny' not in said.err


def test_the_list(rows, capsys):
  finish(rows())
  main(['reproduce', 'tiny', *rows()])
  capsys.readouterr()
  assert main(['reproduce', '--list', '--format=csv', 'tiny', 'big', 'words', *rows()]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert [line.split(',')[0] for line in lines] == ['row', 'tiny', 'words', 'big']
  assert lines[1].endswith('inside,1.5') and 'free_spoken_digits (absent),not begun' in lines[2]
  assert main(['reproduce', '--list', f'--workdir={rows()[1]}']) == 0
  assert 'shakespeare_char_10m' in capsys.readouterr().out


@pytest.mark.parametrize('argv, said', [
  (['quikstart'], "there is no row 'quikstart'. Did you mean 'quickstart'?"),
  (['tinny'], "there is no row 'tinny'. Did you mean 'tiny'?"),
  ([], '--minutes=30'),
  (['tiny', '--jobs=0'], '--jobs must be a whole number of at least 1'),
  (['--minutes=-1'], '--minutes must be a number above 0'),
  (['tiny', '--minutes=0.1'], 'no row of tiny costs at most 0.1 minutes here'),
  (['--minutes=ten'], '--minutes must be a number above 0'),
  (['tiny', '--from=/nowhere'], '--from=/nowhere is no folder'),
  (['--list', '--format=xml'], '--format must be one of'),
])
def test_bad_input(argv, said, rows, capsys):
  assert main(['reproduce', *argv, *rows()]) == 2
  assert said in capsys.readouterr().err


def test_folders_that_are_something_else(rows, capsys, tmp_path):
  run = finish(rows())
  assert main(['reproduce', 'tiny', rows()[0], f'--workdir={run}']) == 2
  assert 'is a run directory' in capsys.readouterr().err and not (run / 'tiny').exists()
  assert main(['reproduce', f'--page={tmp_path}/page.md', *rows()]) == 2
  assert 'there is no such folder; name one by --keep=DIR' in capsys.readouterr().err
  assert not (tmp_path / 'page.md').exists()


def test_a_row_that_was_changed_is_not_mixed_with_its_former_runs(rows, capsys):
  finish(rows())
  assert main(['reproduce', 'tiny', *rows(steps=3)]) == 2
  assert "flags.steps: '2' there, '3' now" in capsys.readouterr().err


def test_a_file_without_rows(tmp_path, capsys):
  (tmp_path / 'empty.py').write_text('ROWS = ()')
  assert main(['reproduce', 'tiny', f'--rows={tmp_path / "empty.py"}']) == 2
  assert 'must have ROWS' in capsys.readouterr().err


def test_two_rows_of_one_name(tmp_path, capsys):
  row = "Row('a', 'configs/quickstart.py:smoke', (Metric('heldout/loss', (None, 1.0)),))"
  (tmp_path / 'twice.py').write_text(f'from genjax.studies.baselines import Metric, Row\nROWS = ({row}, {row})\n')
  assert main(['reproduce', 'a', f'--rows={tmp_path / "twice.py"}']) == 2
  assert "has two rows of one name, 'a'" in capsys.readouterr().err


def reproduce(flags):
  command = [sys.executable, '-m', 'genjax.cli.main', 'reproduce', 'tiny', *flags]
  return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          env={**os.environ, 'PYTHONPATH': str(ROOT)})


@pytest.mark.slow
def test_killed_in_the_middle_and_run_again_it_gives_the_same(rows, tmp_path):
  flags = rows(steps=200, every=10)
  process = reproduce(flags)
  status = tmp_path / 'runs' / 'tiny' / 'seed=0' / 'status.json'
  deadline = time.monotonic() + 300
  while listing.load(status).get('step', 0) < 50:
    assert process.poll() is None and time.monotonic() < deadline
    time.sleep(0.02)
  process.send_signal(signal.SIGKILL)
  process.communicate()
  assert not (status.parent / 'summary.json').exists()
  again = reproduce(flags)
  out, _ = again.communicate()
  assert again.returncode == 0, out
  assert len((status.parent / 'job.log').read_text().split('$ ')) == 4  # train, train again, evaluate
  shutil.move(tmp_path / 'runs', tmp_path / 'disturbed')
  undisturbed = reproduce(flags)
  undisturbed.communicate()
  values = [json.loads((tmp_path / name / 'tiny' / 'result.json').read_text())['runs']['0']['values']
            for name in ('disturbed', 'runs')]
  assert undisturbed.returncode == 0 and values[0] == values[1]
