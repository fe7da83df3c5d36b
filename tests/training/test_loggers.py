"""Weights & Biases and MLflow, both without a network: what they were told is read back from their files."""

import glob
import json
import math
import pathlib
import sys

import pytest

from genjax.cli.main import main
from genjax.training import loggers
from genjax.types import UserError

ROOT = pathlib.Path(__file__).parent.parent.parent
CONFIG = f'--config={ROOT}/configs/quickstart.py:smoke'


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
  """Both services write files of this test."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('WANDB_MODE', 'offline')
  for name in ('CONFIG', 'CACHE', 'DATA'):
    monkeypatch.setenv(f'WANDB_{name}_DIR', str(tmp_path / f'wandb_{name}'))
  monkeypatch.setenv('MLFLOW_TRACKING_URI', f'sqlite:///{tmp_path}/mlflow.db')


def lines():
  return [json.loads(line) for line in pathlib.Path('run/metrics.jsonl').read_text().splitlines()]


def records(path):
  """What a .wandb file holds: after 7 bytes, a log in the format of LevelDB with blocks of 32 KiB."""
  from wandb.proto import wandb_internal_pb2
  data, at, held = pathlib.Path(path).read_bytes(), 7, b''
  while at + 7 <= len(data):
    if 32_768 - at % 32_768 < 7:  # the rest of a block
      at += 32_768 - at % 32_768
      continue
    length, kind = int.from_bytes(data[at + 4:at + 6], 'little'), data[at + 6]
    held += data[at + 7:at + 7 + length]
    at += 7 + length
    if kind in (1, 4):  # a whole record, or its last part
      record = wandb_internal_pb2.Record()
      record.ParseFromString(held)
      yield record
      held = b''


def history(path):
  """Step -> name -> value of a .wandb file, and the name of its run with its config."""
  steps, name, config = {}, '', {}
  for record in records(path):
    if record.WhichOneof('record_type') == 'run':
      name = record.run.run_id
      config.update({entry.key or '.'.join(entry.nested_key): json.loads(entry.value_json)
                     for entry in record.run.config.update})
    elif record.WhichOneof('record_type') == 'history':
      values = {item.key or '.'.join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
      steps.setdefault(int(values['_step']), {}).update(values)
  return steps, name, config


def same(told, written):
  return told == written or math.isclose(told, written, rel_tol=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore::DeprecationWarning', 'ignore::UserWarning', 'ignore::ResourceWarning')
def test_both_are_told_what_is_logged_and_go_on_under_one_name(tmp_path):
  from mlflow import MlflowClient
  flags = ['train', CONFIG, '--workdir=run', "--config.loggers=('wandb', 'mlflow')"]
  assert main(flags) == 0
  names = json.loads(pathlib.Path('run', loggers.NAME).read_text())
  steps, name, config = history(glob.glob('run/wandb/offline-run-*/*.wandb')[0])
  assert name == names['wandb'] and config['batch_size'] == 8
  for line in lines():
    assert all(same(steps[line['step']][key], value) for key, value in line.items() if key != 'step')
  assert steps[2]['samples._type'] == 'image-file'
  kept = list(pathlib.Path('run/wandb/latest-run/files/media/images').iterdir())
  assert kept[0].read_bytes() == pathlib.Path('run/samples/step_0000002_samples.png').read_bytes()

  client = MlflowClient()
  run = client.get_run(names['mlflow'])
  assert (run.info.status, run.data.params['batch_size'], run.info.run_name) == ('FINISHED', '8', 'run')
  assert [file.path for file in client.list_artifacts(run.info.run_id, 'samples')
          ] == ['samples/step_0000002_samples.png']

  # With more steps the run goes on, here as there; what is known is not told twice.
  assert main([*flags, '--config.steps=3']) == 0
  assert json.loads(pathlib.Path('run', loggers.NAME).read_text()) == names
  files = glob.glob('run/wandb/offline-run-*/*.wandb')
  assert len(files) == 2 and {history(file)[1] for file in files} == {names['wandb']}
  assert 3 in {step for file in files for step in history(file)[0]}
  assert len(client.search_runs([run.info.experiment_id])) == 1
  for key in ('diffusion/loss', 'heldout/loss'):
    told = {entry.step: entry.value for entry in client.get_metric_history(run.info.run_id, key)}
    written = {line['step']: line[key] for line in lines() if key in line}
    assert told.keys() == written.keys() and all(same(told[step], written[step]) for step in told)
    assert len(client.get_metric_history(run.info.run_id, key)) == len(told)
  assert client.get_run(names['mlflow']).info.status == 'FINISHED'


@pytest.mark.parametrize('given, said', [
  ("('wandb',)", "pip install 'genjax-research[wandb]'"), ("('mlflow',)", "pip install 'genjax-research[mlflow]'"),
  ("('tensorbord',)", "there are mlflow, wandb"), ("('wandb', 'wandb')", "pip install 'genjax-research[wandb]'")])
def test_what_is_missing_or_unknown_is_told_before_anything_is_made(given, said, monkeypatch, capsys):
  find = loggers.importlib.util.find_spec
  monkeypatch.setattr(loggers.importlib.util, 'find_spec',
                      lambda name: None if name in ('wandb', 'mlflow') else find(name))
  assert main(['train', CONFIG, '--workdir=run', f'--config.loggers={given}']) == 2
  assert said in capsys.readouterr().err
  assert not pathlib.Path('run').exists()


def test_bad_names():
  for names, said in (('wandb', 'is a list of names'), ((1,), 'is a list of names'), (('mlflow', 'mlflow'), 'twice')):
    with pytest.raises(UserError, match=said):
      loggers.check(names)


class _Broken(loggers.Logger):
  """A service that answers once."""

  service = 'broken'

  def open(self, name):
    return 'a name'

  def numbers(self, step, values):
    raise ConnectionError('no route')


def test_a_service_that_fails_ends_no_run(monkeypatch, capsys):
  monkeypatch.setitem(loggers.LOGGERS, 'broken', _Broken)
  assert main(['train', CONFIG, '--workdir=run', "--config.loggers=('broken',)"]) == 0
  said = capsys.readouterr().err
  assert said.count('broken failed and is told no more') == 1 and 'no route' in said
  assert [line['step'] for line in lines()] == [1, 2, 2]


def test_a_damaged_file_of_names_is_told(tmp_path):
  for text, said in (('{"wandb": "a', 'is damaged'), ('[]', 'must have names of runs')):
    (tmp_path / loggers.NAME).write_text(text)
    with pytest.raises(UserError, match=f'{loggers.NAME} {said}.*remove it'):
      _Broken(tmp_path, {}).start(None)


def test_passwords_of_addresses_are_in_no_message(monkeypatch, capsys):
  class Closed(_Broken):
    def open(self, name):
      raise ConnectionError('API request to https://me:secret@host/api failed; see https://host/a@b')

  monkeypatch.setitem(loggers.LOGGERS, 'broken', Closed)
  assert main(['train', CONFIG, '--workdir=run', "--config.loggers=('broken',)"]) == 2
  said = capsys.readouterr().err + pathlib.Path('run', 'events.jsonl').read_text()
  assert 'secret' not in said and said.count('https://***@host/api failed; see https://host/a@b') == 2


def test_only_the_first_process_speaks(tmp_path, monkeypatch):
  class Never(_Broken):
    def open(self, name):
      raise AssertionError('another process speaks')

  monkeypatch.setattr(loggers.distributed, 'is_first', lambda: False)
  hook = Never(tmp_path, {})
  hook.start(None)
  hook.on_log(None, 1, {'loss': 1.0})
  hook.close()
  assert not (tmp_path / loggers.NAME).exists()


def test_no_package_is_loaded_without_need():
  import subprocess
  code = "import genjax.training.loggers, sys; print([n for n in ('wandb', 'mlflow') if n in sys.modules])"
  assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout.strip() == '[]'
