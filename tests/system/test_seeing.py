"""docs/seeing.md: the hook that it shows runs, and the run shows what the page says."""

import json
import pathlib
import re

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from genjax.cli.main import main
from genjax.runs import extensions

ROOT = pathlib.Path(__file__).parent.parent.parent
PAGE = (ROOT / 'docs' / 'seeing.md').read_text()


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
  """The command of the page on the smoke variant of its config; the folder that it ran in."""
  hook, line = re.findall(r'```python\n(.*?)```', PAGE, re.S)
  assert hook.startswith('# my_log.py\n')
  (tmp_path / 'my_log.py').write_text(hook + line)
  command = re.search(r'genjax (train .* --import=my_log.py)', PAGE).group(1)
  monkeypatch.chdir(tmp_path)
  argv = command.replace('configs/quickstart.py', f'{ROOT}/configs/quickstart.py:smoke').split()
  assert main([*argv, '--config.histograms_every=1']) == 0
  yield tmp_path
  extensions.unload()


def test_a_log_of_ones_own_and_all_that_a_run_shows(run, capsys):
  rows = [line.split(',') for line in (run / 'losses.csv').read_text().splitlines()]
  workdir = run / 'runs' / 'logged'
  lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  logged = [line for line in lines if 'diffusion/loss' in line]
  assert [int(row[0]) for row in rows] == [line['step'] for line in logged] == [1, 2]
  assert [float(row[1]) for row in rows] == pytest.approx([line['diffusion/loss'] for line in logged])
  assert [float(row[2]) for row in rows] == pytest.approx([line['learning_rate/net'] for line in logged])
  assert logged[0]['learning_rate/net'] == pytest.approx(1e-3)
  shown = capsys.readouterr()
  assert "step 2: {'loss'" in shown.out  # the hook's own line about held-out metrics
  assert re.search(r'step 1/2  loss \S+  gradient_norm \S+  learning_rate 0.001', shown.err)
  assert (run / 'samples_2.png').read_bytes() == (workdir / 'samples' / 'step_0000002_samples.png').read_bytes()
  board = EventAccumulator(str(workdir / 'tensorboard'))
  board.Reload()
  tags = board.Tags()
  assert {'learning_rate/net', 'heldout/loss', 'diffusion/gradient_norm'} <= set(tags['scalars'])
  assert tags['images'] == ['samples'] and 'config' in tags['tensors']
  assert {'parameters/net', 'gradients/net', 'updates/net'} == set(tags['histograms'])
  for name in ('status.json', 'summary.json', 'samples', 'tensorboard', 'metrics.jsonl'):
    assert (workdir / name).exists() and name in PAGE
