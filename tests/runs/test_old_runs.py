"""Runs of before keys, names and folders were what they are now: they are sampled, evaluated and resumed."""

import json
import pathlib
import shutil

import pytest

import genjax
from genjax.cli.main import main
from genjax.runs import defaults, workdir

ROOT = pathlib.Path(__file__).parent.parent.parent
TEXT = f'--config={ROOT}/configs/language/python_code.py:smoke'
QUIET = ['--config.sample_every=0', '--config.evaluate_every=0']
# Added over time, the newest first.
ADDED = ('steps_per_call', 'reduce', 'nonfinite', 'watchdog_seconds', 'init_from', 'init', 'lora', 'profile')


@pytest.fixture(scope='module')
def old(tmp_path_factory):
  """A run as an early version wrote it."""
  folder = tmp_path_factory.mktemp('runs') / 'old'
  assert main(['train', TEXT, f'--workdir={folder}', *QUIET]) == 0
  config = json.loads((folder / 'config.json').read_text())
  for key in ADDED:
    del config[key]
  for section, key in (('sampler', 'beams'), ('sampler', 'min_p'), ('checkpoint', 'best'), ('mesh', 'expert')):
    del config[section][key]
  config['experiment'] = config['experiment'].removeprefix('genjax.')
  (folder / 'config.json').write_text(json.dumps(config))
  run = json.loads((folder / 'run.json').read_text())
  del run['random']
  (folder / 'run.json').write_text(json.dumps(run))
  return folder


def test_it_is_sampled_evaluated_and_exported(old, tmp_path):
  assert main(['sample', f'--workdir={old}', '--num=1', '--prompt=def']) == 0
  assert main(['evaluate', f'--workdir={old}', '--no-samples']) == 0
  assert main(['export', f'--workdir={old}', f'--to={tmp_path / "public"}']) == 0
  config, _ = workdir.read_config(str(old))
  assert config.experiment == 'genjax.experiments.language' and config.reduce == 'float32' and config.mesh.expert == 1


def test_it_is_resumed_and_grows_under_the_config_of_now(old, tmp_path, capsys):
  folder = tmp_path / 'run'
  shutil.copytree(old, folder)
  assert main(['train', TEXT, f'--workdir={folder}', *QUIET]) == 0
  assert main(['train', f'--workdir={folder}', '--config.steps=3']) == 0
  assert genjax.train(folder, more_steps=1).step == 4
  capsys.readouterr()
  assert main(['train', TEXT, f'--workdir={old}', *QUIET, '--config.reduce=bfloat16', '--config.sampler.beams=2']) == 2
  said = capsys.readouterr().err
  assert "reduce: '(absent)' there, 'bfloat16' now" in said and "sampler.beams: '(absent)' there, 2 now" in said
  assert f'genjax train --workdir={old}' in said and 'steps_per_call' not in said


def test_defaults_stand_for_missing_keys_on_either_side():
  known = set(defaults.known())
  assert {'reduce', 'lora.dtype', 'data.threads', 'sampler.shift'} <= known and 'steps' not in known
  assert defaults.differences({'reduce': 'float32', 'steps': 3}, {'steps_per_call': 1, 'steps': 3}) == {}
  assert defaults.differences({'steps': 3}, {'steps': 3, 'data': {'threads': 4, 'crop': True}}, ('data.threads',)) == {
    'data.crop': ('(absent)', True)}
  assert defaults.differences({'model': {'gate': 1}}, {}) == {'model.gate': (1, '(absent)')}


def test_adapters_and_their_base_are_moved_together(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  vae = f'--config={ROOT}/configs/autoencoders/digits_vae.py:smoke'
  assert main(['train', vae, '--workdir=runs/base', *QUIET]) == 0
  assert main(['train', vae, '--workdir=runs/adapter', *QUIET, '--config.init_from=runs/base@2', '--config.lora.rank=2',
               '--config.lora.paths=(".*kernel",)']) == 0
  folder = pathlib.Path('runs/adapter')
  run, config = (json.loads((folder / name).read_text()) for name in ('run.json', 'config.json'))
  facts = config['assets'].pop('parts')['base']
  assert run.pop('parts') == {'base': {'place': '../base', **facts}} and facts['step'] == 2
  (folder / 'run.json').write_text(json.dumps({**run, 'base': '../base'}))  # as before there were other parts
  (folder / 'config.json').write_text(json.dumps({**config, 'assets': {**config['assets'], 'base': facts}}))
  shutil.move('runs', 'sent')
  capsys.readouterr()
  assert main(['sample', '--workdir=sent/adapter', '--num=2', '--out=x.npz']) == 0
  assert f"'runs/base@2' is not there; taking {tmp_path / 'sent' / 'base'}" in capsys.readouterr().err
  assert main(['train', '--workdir=sent/adapter', '--config.steps=3']) == 0
  shutil.rmtree('sent/base')
  assert main(['sample', '--workdir=sent/adapter', '--num=2', '--out=x.npz']) == 2
  assert '--set init_from=RUN_DIR' in capsys.readouterr().err
